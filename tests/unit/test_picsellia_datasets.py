"""Datasets on Picsellia, over the unmodified SDK, against the stand-in."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import picsellia_store
import pytest
from picsellia_standin import Standin
from picsellia_store import BOXES, DATASET, connect, picture, tree

from builder.errors import NotFoundError, StoreError, UsageError
from builder.models.picsellia import PicselliaStore
from builder.models.records import DatasetFields


@pytest.fixture
def store(platform: Standin) -> PicselliaStore:
    return connect(platform)


@pytest.fixture
def street(tmp_path: Path) -> Path:
    return picsellia_store.street(tmp_path)


def test_a_dataset_of_a_folder_is_listed_and_comes_back(
    store: PicselliaStore, platform: Standin, street: Path, tmp_path: Path
) -> None:
    made = store.datasets.add(DATASET, BOXES, street)
    assert made.fields == BOXES.model_copy(update={"labels": ("car", "person")})
    assert (made.name, made.assets, made.annotations) == (DATASET, 3, 3)
    assert store.datasets.get(DATASET) == made
    assert list(store.datasets.list()) == list(store.datasets.list("street")) == [made]
    folder = store.datasets.fetch(DATASET, tmp_path / "into")
    assert folder == tmp_path / "into/street-2024"
    coco = json.loads((folder / "annotations.json").read_text())
    images = {image["id"]: image["file_name"] for image in coco["images"]}
    labels = {category["id"]: category["name"] for category in coco["categories"]}
    boxes = {
        (images[each["image_id"]], labels[each["category_id"]], *each["bbox"]) for each in coco["annotations"]
    }
    assert boxes == {
        ("a.png", "person", 1, 1, 2, 2),
        ("a.png", "car", 2, 2, 3, 3),
        ("images-left-b.png", "car", 0, 0, 4, 4),
    }
    assert sorted(path.name for path in (folder / "images").iterdir()) == [
        "a.png",
        "images-left-b.png",
        "images-right-b.png",
    ]
    assert (folder / "images/a.png").read_bytes() == (street / "images/a.png").read_bytes()
    assert [path.name for path in folder.parent.iterdir()] == ["street-2024"]


def test_a_dataset_without_annotations_comes_back_without_them(
    store: PicselliaStore, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    picture(tmp_path / "plain/a.png")
    made = store.datasets.add(DATASET, DatasetFields(labels=("b", "a")), tmp_path / "plain")
    assert (made.annotations, made.fields.labels, made.fields.type) == (None, ("b", "a"), None)
    folder = store.datasets.fetch(DATASET, tmp_path / "into")
    assert list(tree(folder)) == ["images/a.png"]
    assert capfd.readouterr() == ("", "")


def test_the_size_of_an_image_is_told_to_the_platform(
    store: PicselliaStore, platform: Standin, tmp_path: Path
) -> None:
    picture(tmp_path / "plain/a.png", width=31, height=17)
    store.datasets.add(DATASET, DatasetFields(), tmp_path / "plain")
    assert [(data.width, data.height) for data in platform.data.values()] == [(31, 17)]


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda folder: (folder / "notes.txt").write_text("x"), "no image that Picsellia takes"),
        (lambda folder: (folder / "images/a.png").unlink(), "name the image 'a.png'"),
        (lambda folder: (folder / "more.json").write_text(MORE), "two annotation files"),
        (lambda folder: (folder / "annotations/instances.json").write_text("{"), "no JSON"),
        (
            lambda folder: rewrite(folder, lambda coco: coco["annotations"][1].pop("bbox")),
            r"annotations\[1\] has nothing",
        ),
    ],
)
def test_a_folder_that_the_platform_does_not_take_is_refused_before_any_write(
    store: PicselliaStore, platform: Standin, street: Path, change: Callable[[Path], object], expected: str
) -> None:
    change(street)
    before = len(platform.requests)
    with pytest.raises(UsageError, match=expected):
        store.datasets.add(DATASET, BOXES, street)
    assert len(platform.requests) == before


MORE = '{"images": [], "annotations": [], "categories": []}'


def rewrite(folder: Path, change: Callable[[Any], object]) -> None:
    path = folder / "annotations/instances.json"
    coco = json.loads(path.read_text())
    change(coco)
    path.write_text(json.dumps(coco))


def test_annotations_need_a_type(store: PicselliaStore, street: Path) -> None:
    with pytest.raises(UsageError, match="takes no annotations for a dataset of the type None"):
        store.datasets.add(DATASET, DatasetFields(), street)


def test_a_reference_and_no_folder_are_refused(store: PicselliaStore, street: Path) -> None:
    for folder, reference in ((None, "s3://bucket"), (None, None), (street, "s3://bucket")):
        with pytest.raises(UsageError, match="holds the images itself"):
            store.datasets.add(DATASET, DatasetFields(reference=reference), folder)


def test_a_dataset_version_that_exists_is_refused(
    store: PicselliaStore, platform: Standin, street: Path
) -> None:
    platform.add_dataset("street", "2024")
    with pytest.raises(StoreError, match="exists already"):
        store.datasets.add(DATASET, BOXES, street)
    assert not platform.data


def test_a_job_of_the_platform_that_fails_is_told_and_nothing_stays(
    store: PicselliaStore, platform: Standin, street: Path
) -> None:
    platform.assets_job_status = "FAILED"
    with pytest.raises(StoreError, match=r"could not add the images: its job .* is FAILED"):
        store.datasets.add(DATASET, BOXES, street)
    assert (platform.data, platform.datasets, platform.dataset_origins) == ({}, {}, {})


def test_a_missing_dataset_is_told(store: PicselliaStore, platform: Standin, tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="no dataset 'street'"):
        store.datasets.get(DATASET)
    platform.add_dataset("street", "2025")
    with pytest.raises(NotFoundError, match="no version '2024'"):
        store.datasets.fetch(DATASET, tmp_path)


def test_an_image_that_cannot_be_downloaded_leaves_nothing(
    store: PicselliaStore, platform: Standin, street: Path, tmp_path: Path
) -> None:
    store.datasets.add(DATASET, BOXES, street)
    platform.fail("GET", "/storage/", status=404, times=None)
    with pytest.raises(StoreError, match="storage answers 404"):
        store.datasets.fetch(DATASET, tmp_path / "into")
    assert tree(tmp_path / "into") == {}


def test_given_labels_must_hold_those_of_the_annotations(store: PicselliaStore, street: Path) -> None:
    with pytest.raises(UsageError, match="not among those given: person"):
        store.datasets.add(DATASET, BOXES.model_copy(update={"labels": ("car", "bus")}), street)
    more = BOXES.model_copy(update={"labels": ("person", "bus", "car")})
    assert store.datasets.add(DATASET, more, street).fields.labels == more.labels

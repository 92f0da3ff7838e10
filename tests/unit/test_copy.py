"""Copy: a version arrives whole in another store, or what arrived is said."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from picsellia_standin import Standin

from builder.errors import NotFoundError, StoreError, UsageError
from builder.host.credentials import make_credentials
from builder.models.compare import diff_versions
from builder.models.copy import Copied, CopyPlan, copy_version, not_carried
from builder.models.local.store import LocalStore
from builder.models.local.versions import LocalVersions
from builder.models.names import DatasetName, ExperimentName, VersionName
from builder.models.picsellia import PicselliaStore
from builder.models.records import (
    DatasetFields,
    DockerImage,
    ExperimentFields,
    Source,
    StoredFile,
    VersionFields,
)
from builder.models.transport import Patience

STORE_FILE = LocalVersions.store_file
FROM, TO = VersionName(model="team/fußgänger", version="v3"), VersionName(model="other", version="v1")
FIELDS = VersionFields(
    description="findet Fußgänger",
    framework="PYTORCH",
    type="OBJECT_DETECTION",
    notebook_link="https://example.com/n",
    labelmap={str(number): f"label {number}" for number in range(5000)},
    parameters={"epochs": 10, "nested": {"deep": [1, {"a": None}]}},
    image=DockerImage(
        name="registry.example.com/a",
        tag="1",
        digest=f"sha256:{'ab' * 32}",
        flags=("--gpus=all",),
        env={"A": "b"},
    ),
)


@pytest.fixture
def stores(tmp_path: Path) -> tuple[LocalStore, LocalStore]:
    return LocalStore(tmp_path / "from"), LocalStore(tmp_path / "to")


@pytest.fixture
def original(stores: tuple[LocalStore, LocalStore], tmp_path: Path) -> LocalStore:
    """The store with a version that holds everything."""
    store = stores[0]
    folder = tmp_path / "checkpoints" / "a" / "b" / "c"
    folder.mkdir(parents=True)
    (folder / "last.pt").write_bytes(b"checkpoint")
    (tmp_path / "weights.pt").write_bytes(b"weights")
    (tmp_path / "picture.png").write_bytes(b"picture")
    store.versions.create(FROM, FIELDS)
    store.versions.store_file(FROM, tmp_path / "weights.pt", "weights")
    store.versions.store_file(FROM, tmp_path / "checkpoints", "thumbnail")
    store.versions.store_thumbnail(FROM, tmp_path / "picture.png")
    return store


def copied(stores: tuple[LocalStore, LocalStore], **options: Any) -> Copied:
    return copy_version(stores, (FROM, TO), **options)


def test_a_copy_holds_everything_that_the_original_does(
    stores: tuple[LocalStore, LocalStore], original: LocalStore, tmp_path: Path
) -> None:
    done = copied(stores)
    assert (done.written, done.not_carried) == (True, ())
    assert diff_versions(original.versions.get(FROM), stores[1].versions.get(TO)) == ()
    got = stores[1].versions.fetch_file(TO, "thumbnail", tmp_path / "got")
    assert (got / "a" / "b" / "c" / "last.pt").read_bytes() == b"checkpoint"
    assert stores[1].versions.fetch_thumbnail(TO, tmp_path / "t").read_bytes() == b"picture"


def test_a_version_is_copied_within_one_store_too(original: LocalStore) -> None:
    copy_version((original, original), (FROM, TO))
    assert diff_versions(original.versions.get(FROM), original.versions.get(TO)) == ()


def test_the_source_is_carried_and_named(stores: tuple[LocalStore, LocalStore], tmp_path: Path) -> None:
    store, name = stores[0], ExperimentName(project="p", experiment="e")
    data = DatasetName(dataset="street", version="v1")
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "a.jpg").write_bytes(b"image")
    store.datasets.add(data, DatasetFields(), tmp_path / "images")
    store.experiments.create(name, ExperimentFields())
    store.experiments.attach_dataset(name, "train", data)
    store.experiments.publish(name, FROM)
    copied(stores)
    assert stores[1].versions.get(TO).source == Source(experiment=name, datasets={"train": data})


def test_a_dry_run_shows_and_writes_nothing(
    stores: tuple[LocalStore, LocalStore], original: LocalStore
) -> None:
    plans: list[CopyPlan] = []
    assert copied(stores, dry_run=True, announce=plans.append).written is False
    assert plans[0].files == ("thumbnail", "weights")
    assert {"description", "image.digest", "files.weights", "thumbnail"} <= {
        change.field for change in plans[0].changes
    }
    assert list(stores[1].versions.list()) == []


def test_what_exists_is_not_written_over_without_update(
    stores: tuple[LocalStore, LocalStore], original: LocalStore, tmp_path: Path
) -> None:
    mine = stores[1].versions.create(TO, VersionFields(description="mine"))
    with pytest.raises(StoreError, match="exists already") as caught:
        copied(stores)
    assert "--update" in str(caught.value.remedy)
    assert stores[1].versions.get(TO) == mine
    (tmp_path / "extra").write_text("extra")
    stores[1].versions.store_file(TO, tmp_path / "extra")
    done = copied(stores, update=True)
    assert done.plan.kept == ("extra",)
    assert stores[1].versions.get(TO).fields == FIELDS
    assert [file.name for file in stores[1].versions.get(TO).files] == ["extra", "thumbnail", "weights"]


def test_an_update_clears_what_the_original_does_not_have(stores: tuple[LocalStore, LocalStore]) -> None:
    stores[0].versions.create(FROM, VersionFields(description="little"))
    stores[1].versions.create(TO, FIELDS)
    assert copied(stores, update=True).not_carried == ()
    assert stores[1].versions.get(TO).fields == VersionFields(description="little")


def test_a_second_copy_changes_nothing_and_reads_no_file(
    stores: tuple[LocalStore, LocalStore], original: LocalStore
) -> None:
    copied(stores)
    lines: list[str] = []
    done = copied(stores, update=True, tell=lines.append)
    assert (done.written, lines) == (False, [])
    assert stores[1].versions.history(TO) == ()


def test_a_corrupted_original_is_found_before_anything_is_written(
    stores: tuple[LocalStore, LocalStore], original: LocalStore, tmp_path: Path
) -> None:
    digest = hashlib.sha256(b"weights").hexdigest()
    (blob,) = [
        path for path in (tmp_path / "from").rglob("*") if path.name == digest or digest[2:] == path.name
    ]
    blob.chmod(0o644)
    blob.write_bytes(b"weighty")
    with pytest.raises(StoreError):
        copied(stores)
    assert list(stores[1].versions.list()) == []


def failing(at: int) -> Callable[..., StoredFile]:
    calls = iter(range(100))

    def store_file(self: Any, name: VersionName, path: Path, label: str | None = None) -> StoredFile:
        if next(calls) == at:
            raise StoreError("the disk is full", remedy="free some space")
        return STORE_FILE(self, name, path, label)

    return store_file


@pytest.mark.parametrize(
    ("at", "details"),
    [
        (
            0,
            (
                "written: fields",
                "not written, or not known to be: file thumbnail",
                "not written: file weights, thumbnail",
            ),
        ),
        (
            1,
            (
                "written: fields, file thumbnail",
                "not written, or not known to be: file weights",
                "not written: thumbnail",
            ),
        ),
    ],
)
def test_a_failure_half_way_says_what_was_written_and_update_goes_on(
    stores: tuple[LocalStore, LocalStore],
    original: LocalStore,
    monkeypatch: pytest.MonkeyPatch,
    at: int,
    details: tuple[str, ...],
) -> None:
    with monkeypatch.context() as patched:
        patched.setattr("builder.models.local.versions.LocalVersions.store_file", failing(at))
        with pytest.raises(StoreError, match="the copy is incomplete") as caught:
            copied(stores)
    assert caught.value.details == details
    assert "--update goes on; free some space" in str(caught.value.remedy)
    done = copied(stores, update=True)
    assert len(done.plan.files) == 2 - at
    assert diff_versions(original.versions.get(FROM), stores[1].versions.get(TO)) == ()


def test_what_is_not_there_or_the_same_is_refused(stores: tuple[LocalStore, LocalStore]) -> None:
    with pytest.raises(NotFoundError):
        copied(stores)
    with pytest.raises(UsageError, match="onto itself"):
        copy_version((stores[0], stores[0]), (FROM, FROM))


def test_a_disk_that_is_too_small_is_told_before_anything_is_read(
    stores: tuple[LocalStore, LocalStore], original: LocalStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda path: SimpleNamespace(free=3))
    with pytest.raises(UsageError, match="GB are free") as caught:
        copied(stores)
    assert "TMPDIR" in str(caught.value.remedy)
    assert list(stores[1].versions.list()) == []


def test_what_a_store_cannot_hold_is_named(
    stores: tuple[LocalStore, LocalStore], original: LocalStore
) -> None:
    version = original.versions.get(FROM)
    source = Source(experiment=ExperimentName(project="p", experiment="e"))
    version = version.model_copy(update={"source": source, "creator": "ada"})
    other = version.model_copy(
        update={
            "name": replace(TO, store="picsellia"),
            "source": None,
            "creator": None,
            "fields": FIELDS.model_copy(update={"notebook_link": "https://left"}),
        }
    )
    lines = not_carried(version, other)
    assert lines[0] == "notebook_link: 'https://left' could not be cleared"
    assert lines[1] == "source: picsellia keeps none of a copy; it is local:p/e, datasets: none"
    assert lines[2].startswith("creator: ada")


def test_a_version_survives_the_way_to_picsellia_and_back(
    stores: tuple[LocalStore, LocalStore], original: LocalStore, tmp_path: Path
) -> None:
    there = VersionName(store="picsellia", model="pedestrian", version="v3")
    with Standin() as platform:
        credentials = make_credentials({"token": platform.token, "host": platform.url}, "the test")
        picsellia = PicselliaStore.connect(credentials, Patience(tries=2, pause=0.001))
        copy_version((original, picsellia), (FROM, there))
        assert picsellia.versions.get(there).fields == FIELDS
        again = copy_version((original, picsellia), (FROM, there), update=True)
        assert again.plan.changes == ()
        copy_version((picsellia, stores[1]), (there, TO))
    assert stores[1].versions.get(TO).fields == FIELDS
    got = stores[1].versions.fetch_file(TO, "weights", tmp_path / "got")
    assert got.read_bytes() == b"weights"
    folder = stores[1].versions.fetch_file(TO, "thumbnail", tmp_path / "got")
    assert (folder / "a" / "b" / "c" / "last.pt").read_bytes() == b"checkpoint"
    assert stores[1].versions.fetch_thumbnail(TO, tmp_path / "t").read_bytes() == b"picture"


def test_the_source_that_picsellia_cannot_hold_is_told(
    stores: tuple[LocalStore, LocalStore], tmp_path: Path
) -> None:
    name = ExperimentName(project="p", experiment="e")
    stores[0].experiments.create(name, ExperimentFields())
    stores[0].experiments.publish(name, FROM)
    with Standin() as platform:
        credentials = make_credentials({"token": platform.token, "host": platform.url}, "the test")
        picsellia = PicselliaStore.connect(credentials, Patience(tries=2, pause=0.001))
        there = VersionName(store="picsellia", model="pedestrian", version="v3")
        done = copy_version((stores[0], picsellia), (FROM, there))
    assert done.not_carried[0].startswith("source: picsellia keeps none of a copy; it is local:p/e")

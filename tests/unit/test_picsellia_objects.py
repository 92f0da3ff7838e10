"""Files, experiments and datasets on Picsellia, over the unmodified SDK, against the stand-in."""

from __future__ import annotations

import hashlib
import io
import json
import re
import traceback
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from picsellia_standin import Standin, Version
from picsellia_standin.routes import page
from PIL import Image

from builder.credentials import make_credentials
from builder.errors import NotFoundError, StoreError, TrainpackError, UsageError
from builder.models.names import DatasetName, ExperimentName, VersionName
from builder.models.picsellia import PicselliaStore
from builder.models.picsellia.platform import Platform
from builder.models.records import DatasetFields, DockerImage, ExperimentFields, Log, Source, VersionFields
from builder.models.store import ModelStore
from builder.models.transport import Patience

VERSION = VersionName(store="picsellia", model="pedestrian", version="v3")
EXPERIMENT = ExperimentName(store="picsellia", project="vision", experiment="first")
DATASET = DatasetName(store="picsellia", dataset="street", version="2024")
DIGEST = f"sha256:{'ab' * 32}"
IMAGE = DockerImage(name="registry.example.com/pedestrian", tag="1.2.0", digest=DIGEST, flags=("--gpus=all",))
FIELDS = VersionFields(
    description="finds people",
    framework="PYTORCH",
    type="OBJECT_DETECTION",
    notebook_link="https://notebooks.example.com/1",
    labelmap={"0": "car", "1": "person"},
    parameters={"epochs": 10},
    image=IMAGE,
)


@pytest.fixture
def platform() -> Iterator[Standin]:
    with Standin() as standin:
        yield standin


@pytest.fixture
def store(platform: Standin) -> PicselliaStore:
    return connect(platform)


def connect(platform: Standin) -> PicselliaStore:
    credentials = make_credentials({"token": platform.token, "host": platform.url}, "the test")
    return PicselliaStore.connect(credentials, Patience(tries=3, pause=0.001))


def tree(folder: Path) -> dict[str, bytes | None]:
    """Every file below a folder, and every empty folder as None."""
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None
        for path in sorted(folder.rglob("*"))
        if path.is_file() or not any(path.iterdir())
    }


def write(path: Path, content: bytes = b"content") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


@pytest.fixture
def deep(tmp_path: Path) -> Path:
    for name in ("top.txt", "a/one", "a/b/two", "a/b/c/three", "a/b/c/d/four"):
        write(tmp_path / "checkpoints" / name, name.encode())
    (tmp_path / "checkpoints" / "empty").mkdir()
    return tmp_path / "checkpoints"


# Versions


def test_a_store_of_the_platform_is_a_model_store(store: PicselliaStore) -> None:
    checked: ModelStore = store
    assert (checked.name, list(checked.experiments.list()), list(checked.datasets.list())) == (
        "picsellia",
        [],
        [],
    )


def test_a_notebook_link_is_kept(store: PicselliaStore) -> None:
    assert store.versions.create(VERSION, FIELDS).fields == FIELDS


def test_a_stored_file_is_listed_and_comes_back(store: PicselliaStore, tmp_path: Path) -> None:
    store.versions.create(VERSION, FIELDS)
    stored = store.versions.store_file(VERSION, write(tmp_path / "best.pt", b"weights"), "weights")
    assert (stored.name, stored.filename) == ("weights", "best.pt")
    assert store.versions.get(VERSION).files == (stored,)
    fetched = store.versions.fetch_file(VERSION, "weights", tmp_path / "into")
    assert fetched == tmp_path / "into/best.pt"
    assert tree(tmp_path / "into") == {"best.pt": b"weights"}


@pytest.mark.parametrize("content", [b"", b"x", bytes(26 * 1024 * 1024)], ids=["empty", "small", "in parts"])
def test_a_file_of_any_size_comes_back(store: PicselliaStore, tmp_path: Path, content: bytes) -> None:
    store.versions.create(VERSION, FIELDS)
    store.versions.store_file(VERSION, write(tmp_path / "file", content))
    fetched = store.versions.fetch_file(VERSION, "file", tmp_path / "into")
    assert hashlib.sha256(fetched.read_bytes()).digest() == hashlib.sha256(content).digest()


def test_a_folder_keeps_all_its_levels(store: PicselliaStore, deep: Path, tmp_path: Path) -> None:
    store.versions.create(VERSION, FIELDS)
    stored = store.versions.store_file(VERSION, deep)
    assert (stored.name, stored.filename) == ("checkpoints", "checkpoints.zip")
    fetched = store.versions.fetch_file(VERSION, "checkpoints", tmp_path / "into")
    assert fetched == tmp_path / "into/checkpoints"
    assert tree(fetched) == tree(deep)
    assert [path.name for path in (tmp_path / "into").iterdir()] == ["checkpoints"]


def test_a_zip_that_a_user_made_stays_a_zip(store: PicselliaStore, tmp_path: Path) -> None:
    store.versions.create(VERSION, FIELDS)
    store.versions.store_file(VERSION, write(tmp_path / "data.zip", b"PK\x05\x06" + bytes(18)))
    assert store.versions.fetch_file(VERSION, "data.zip", tmp_path / "into").name == "data.zip"


def test_a_file_of_the_same_name_is_replaced(
    store: PicselliaStore, platform: Standin, tmp_path: Path
) -> None:
    store.versions.create(VERSION, FIELDS)
    store.versions.store_file(VERSION, write(tmp_path / "old.pt", b"old"), "weights")
    store.versions.store_file(VERSION, write(tmp_path / "new.pt", b"new"), "weights")
    assert [file.filename for file in store.versions.get(VERSION).files] == ["new.pt"]
    assert store.versions.fetch_file(VERSION, "weights", tmp_path / "into").read_bytes() == b"new"


def test_a_file_that_is_not_there_is_told_with_those_that_are(store: PicselliaStore, tmp_path: Path) -> None:
    store.versions.create(VERSION, FIELDS)
    store.versions.store_file(VERSION, write(tmp_path / "weights"))
    with pytest.raises(NotFoundError, match=r"no file 'weight'.*weights") as caught:
        store.versions.fetch_file(VERSION, "weight", tmp_path / "into")
    assert caught.value.remedy == "it has: weights"


def test_nothing_that_exists_is_replaced_by_a_download(
    store: PicselliaStore, deep: Path, tmp_path: Path
) -> None:
    store.versions.create(VERSION, FIELDS)
    for path in (write(tmp_path / "weights"), deep):
        store.versions.store_file(VERSION, path)
        target = tmp_path / "into" / path.name
        write(target, b"mine")
        with pytest.raises(UsageError, match="exists already"):
            store.versions.fetch_file(VERSION, path.name, tmp_path / "into")
        assert target.read_bytes() == b"mine"


def test_what_cannot_be_read_is_a_usage_error_and_nothing_is_sent(
    store: PicselliaStore, platform: Standin, tmp_path: Path
) -> None:
    store.versions.create(VERSION, FIELDS)
    with pytest.raises(UsageError, match="cannot be read"):
        store.versions.store_file(VERSION, tmp_path / "missing")
    assert platform.objects == {}


def test_a_broken_download_goes_on_where_it_broke_off(
    store: PicselliaStore, platform: Standin, tmp_path: Path
) -> None:
    content = bytes(range(256)) * 4096
    store.versions.create(VERSION, FIELDS)
    store.versions.store_file(VERSION, write(tmp_path / "file", content))
    platform.fail("GET", "/storage/", cut=700_000)
    platform.fail("GET", "/storage/", cut=1)
    assert store.versions.fetch_file(VERSION, "file", tmp_path / "into").read_bytes() == content


def test_what_is_not_as_storage_says_is_refused_and_nothing_stays(
    store: PicselliaStore, platform: Standin, tmp_path: Path
) -> None:
    store.versions.create(VERSION, FIELDS)
    store.versions.store_file(VERSION, write(tmp_path / "file", b"content"))
    platform.checksums = {"x-amz-checksum-sha256"}
    platform.fail("GET", "/storage/", corrupt=True, times=None)
    with pytest.raises(StoreError, match="sha256 checksum") as caught:
        store.versions.fetch_file(VERSION, "file", tmp_path / "into")
    assert caught.value.place == str(VERSION)
    assert tree(tmp_path / "into") == {}


@pytest.mark.parametrize("status", [404, 500, 0])
def test_a_download_that_fails_leaves_nothing_and_shows_no_signature(
    store: PicselliaStore, platform: Standin, tmp_path: Path, status: int
) -> None:
    store.versions.create(VERSION, FIELDS)
    store.versions.store_file(VERSION, write(tmp_path / "file"))
    platform.fail("GET", "/storage/", status=status, times=None)
    with pytest.raises(StoreError) as caught:
        store.versions.fetch_file(VERSION, "file", tmp_path / "into")
    assert tree(tmp_path / "into") == {}
    assert not secrets_in(platform, "".join(traceback.format_exception(caught.value)))


def secrets_in(platform: Standin, text: str) -> list[str]:
    return [secret for secret in (platform.token, *platform.grants) if secret in text]


def test_an_upload_that_is_refused_shows_no_signature_and_prints_nothing(
    store: PicselliaStore, platform: Standin, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    store.versions.create(VERSION, FIELDS)
    platform.fail("POST", "/storage/", status=403, times=None)
    with pytest.raises(StoreError, match="object storage answers 403") as caught:
        store.versions.store_file(VERSION, write(tmp_path / "file"))
    assert not secrets_in(platform, "".join(traceback.format_exception(caught.value)))
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("filename", ["../../evil", "..", "a/b", "/etc/passwd"])
def test_a_stored_file_cannot_lead_out_of_the_folder(
    store: PicselliaStore, platform: Standin, tmp_path: Path, filename: str
) -> None:
    id_ = platform.add_model_version("pedestrian", "v3", files={"weights": b"x"})
    platform.versions[id_].files["weights"].filename = filename
    with pytest.raises(StoreError, match="no file's name"):
        store.versions.fetch_file(VERSION, "weights", tmp_path / "into")


def test_a_thumbnail_is_kept(store: PicselliaStore, platform: Standin, tmp_path: Path) -> None:
    created = store.versions.create(VERSION, FIELDS)
    with pytest.raises(NotFoundError, match="no thumbnail"):
        store.versions.fetch_thumbnail(VERSION, tmp_path)
    stored = store.versions.store_thumbnail(VERSION, write(tmp_path / "street.png", b"png"))
    read = store.versions.get(VERSION)
    assert (read.thumbnail, read.fields, read.files) == (stored, created.fields, ())
    assert store.versions.fetch_thumbnail(VERSION, tmp_path / "into").read_bytes() == b"png"
    assert "/model_thumb/" in platform.versions[created.id].fields["thumbnail_object_name"]


def test_restore_empties_what_the_sdk_can_empty_and_shows_what_stays(store: PicselliaStore) -> None:
    store.versions.create(VERSION, FIELDS)
    restored = store.versions.restore(VERSION, VersionFields(framework="ONNX")).fields
    assert (restored.description, restored.labelmap or None, restored.parameters) == (None, None, {})
    assert restored.framework == "ONNX"
    assert (restored.type, restored.image) == (FIELDS.type, FIELDS.image)
    assert restored.notebook_link == FIELDS.notebook_link


def test_restore_is_one_patch_and_none_when_nothing_changes(store: PicselliaStore, platform: Standin) -> None:
    store.versions.create(VERSION, FIELDS)
    other = FIELDS.model_copy(update={"parameters": {"epochs": 1}, "description": "other"})
    assert store.versions.restore(VERSION, other).fields == other
    assert [request.method for request in platform.requests].count("PATCH") == 1


@pytest.mark.parametrize("kind", ["MASK", "NOT_CONFIGURED"])
def test_restore_leaves_a_type_that_the_sdk_refuses_to_write(store: PicselliaStore, kind: str) -> None:
    store.versions.create(VERSION, FIELDS)
    restored = store.versions.restore(VERSION, FIELDS.model_copy(update={"type": kind}))
    assert restored.fields.type == "OBJECT_DETECTION"


def test_the_platform_keeps_no_history(store: PicselliaStore) -> None:
    store.versions.create(VERSION, FIELDS)
    assert store.versions.history(VERSION) == ()
    with pytest.raises(NotFoundError):
        store.versions.history(replace(VERSION, version="v4"))


def test_names_that_would_be_read_as_others_are_refused(store: PicselliaStore, platform: Standin) -> None:
    for version in ("a/b", " ", "v\n"):
        with pytest.raises(UsageError):
            store.versions.create(replace(VERSION, version=version), FIELDS)
    assert not platform.models


def test_a_name_that_was_taken_meanwhile_is_told(store: PicselliaStore, platform: Standin) -> None:
    platform.add_model("pedestrian")
    platform.fail("POST", "/versions$", status=409, message="Conflict: v3")
    with pytest.raises(StoreError, match="the name is taken"):
        store.versions.create(VERSION, FIELDS)


def test_lists_are_read_page_by_page_and_stay_in_order(
    store: PicselliaStore, platform: Standin, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("builder.models.picsellia.platform.PAGE", 7)
    for number in range(50):
        platform.add_model_version("many", f"v{number:02}", docker_image="i", docker_tag=str(number))
    found = list(store.versions.list("many"))
    assert [summary.name.version for summary in found] == [f"v{number:02}" for number in range(50)]
    assert [summary.image for summary in found] == [f"i:{number}" for number in range(50)]


def test_a_platform_that_makes_pages_shorter_than_asked_is_read_whole(
    store: PicselliaStore, platform: Standin, monkeypatch: pytest.MonkeyPatch
) -> None:
    def short(rows: Iterable[Any], query: Mapping[str, str]) -> dict[str, Any]:
        return page(rows, {**query, "limit": "3"})

    monkeypatch.setattr("picsellia_standin.models.page", short)
    for number in range(10):
        platform.add_model_version("many", f"v{number}")
    assert len(list(store.versions.list("many"))) == 10


def test_ten_thousand_versions_are_all_listed(store: PicselliaStore, platform: Standin) -> None:
    model = platform.add_model("many")
    for number in range(10_000):
        made = Version(
            str(uuid.uuid4()), model, f"v{number:05}", number, {"type": "POINT", "framework": "ONNX"}
        )
        platform.versions[made.id] = made
        made.fields["labels"] = None
    rows = store_platform(store).rows(f"/api/model/{model.id}/versions")
    assert [row["name"] for row in rows] == [f"v{number:05}" for number in range(10_000)]
    assert sum(request.path.endswith("/versions") for request in platform.requests) == 10


def store_platform(store: PicselliaStore) -> Platform:
    return store._platform


def test_who_and_when_are_told_where_the_platform_tells_them(
    platform: Standin, store: PicselliaStore
) -> None:
    id_ = platform.add_model_version("pedestrian", "v3")
    assert store.versions.get(VERSION).created is None
    platform.versions[id_].fields |= {
        "created_at": "2024-05-01T10:00:00+02:00",
        "created_by": {"username": "ada"},
    }
    version = store.versions.get(VERSION)
    assert (version.creator, str(version.created)) == ("ada", "2024-05-01 08:00:00+00:00")


# Experiments


def base(platform: Standin, **fields: Any) -> str:
    given: dict[str, Any] = {
        "framework": "PYTORCH",
        "type": "OBJECT_DETECTION",
        "parameters": {"epochs": 10},
        "labels": {"0": "car"},
        "docker_image": IMAGE.name,
        "docker_tag": IMAGE.tag,
        "docker_flags": list(IMAGE.flags),
        "docker_env_variables": {"TRAINPACK_IMAGE_DIGEST": DIGEST},
    }
    return platform.add_model_version("pedestrian", "v2", files={"weights": b"w"}, **given | fields)


V2 = VersionName(store="picsellia", model="pedestrian", version="v2")


def test_an_experiment_receives_what_its_base_has(store: PicselliaStore, platform: Standin) -> None:
    base(platform)
    made = store.experiments.create(EXPERIMENT, ExperimentFields(description="try"), V2)
    assert made.fields == ExperimentFields(
        description="try", status="WAITING", parameters={"epochs": 10}, labelmap={"0": "car"}, image=IMAGE
    )
    assert (made.name, made.base, [file.name for file in made.artifacts]) == (EXPERIMENT, V2, ["weights"])
    assert store.experiments.get(EXPERIMENT) == made
    assert [(each.name, each.status) for each in store.experiments.list()] == [(EXPERIMENT, "WAITING")]
    assert list(store.experiments.list("vision")) == list(store.experiments.list())


def test_an_experiment_keeps_fields_of_its_own(store: PicselliaStore, platform: Standin) -> None:
    base(platform)
    own = ExperimentFields(parameters={"epochs": 1}, labelmap={"5": "bus"}, status="RUNNING", image=IMAGE)
    made = store.experiments.create(EXPERIMENT, own, V2).fields
    assert made == own.model_copy(update={"description": None})


def test_an_experiment_needs_no_base(store: PicselliaStore) -> None:
    made = store.experiments.create(EXPERIMENT, ExperimentFields())
    assert (made.base, made.fields.image, made.artifacts, made.datasets) == (None, None, (), {})


def test_an_image_of_its_own_is_refused_before_any_write(store: PicselliaStore, platform: Standin) -> None:
    base(platform)
    other = IMAGE.model_copy(update={"tag": "2"})
    for version in (None, V2):
        with pytest.raises(UsageError, match="keeps no image"):
            store.experiments.create(EXPERIMENT, ExperimentFields(image=other), version)
    assert not platform.projects


def test_a_base_that_is_missing_is_told_before_any_write(store: PicselliaStore, platform: Standin) -> None:
    with pytest.raises(NotFoundError):
        store.experiments.create(EXPERIMENT, ExperimentFields(), V2)
    assert not platform.projects


def test_an_experiment_that_exists_is_refused(store: PicselliaStore) -> None:
    made = store.experiments.create(EXPERIMENT, ExperimentFields(description="first"))
    with pytest.raises(StoreError, match="exists already"):
        store.experiments.create(EXPERIMENT, ExperimentFields(description="second"))
    assert store.experiments.get(EXPERIMENT) == made


@pytest.mark.parametrize("operation", ["get", "update", "report", "publish", "attach", "fetch"])
def test_a_missing_experiment_is_told(store: PicselliaStore, tmp_path: Path, operation: str) -> None:
    experiments = store.experiments
    calls: dict[str, Callable[[], object]] = {
        "get": lambda: experiments.get(EXPERIMENT),
        "update": lambda: experiments.update(EXPERIMENT, ExperimentFields(status="RUNNING")),
        "report": lambda: experiments.report(EXPERIMENT, "SUCCESS", [], tmp_path),
        "publish": lambda: experiments.publish(EXPERIMENT, VERSION),
        "attach": lambda: experiments.attach_dataset(EXPERIMENT, "train", DATASET),
        "fetch": lambda: experiments.fetch_artifact(EXPERIMENT, "weights", tmp_path),
    }
    with pytest.raises(NotFoundError, match="no project 'vision'"):
        calls[operation]()
    experiments.create(replace(EXPERIMENT, experiment="other"), ExperimentFields())
    with pytest.raises(NotFoundError, match="no experiment 'first'"):
        calls[operation]()


def test_an_update_writes_only_what_is_given(store: PicselliaStore, platform: Standin) -> None:
    base(platform)
    made = store.experiments.create(EXPERIMENT, ExperimentFields(description="try"), V2)
    change = {"status": "FAILED", "parameters": {"epochs": 2}}
    updated = store.experiments.update(EXPERIMENT, ExperimentFields(**change))
    assert updated.fields == made.fields.model_copy(update=change)


def test_the_digest_is_the_one_that_the_container_logged(
    store: PicselliaStore, platform: Standin, tmp_path: Path
) -> None:
    base(platform)
    store.experiments.create(EXPERIMENT, ExperimentFields(), V2)
    logged = f"sha256:{'cd' * 32}"
    log = Log(name="trainpack", type="TABLE", data={"image": IMAGE.name, "digest": logged})
    made = store.experiments.report(EXPERIMENT, "RUNNING", [log], tmp_path)
    assert made.fields.image == IMAGE.model_copy(update={"digest": logged})


def test_a_report_brings_files_logs_and_status(store: PicselliaStore, tmp_path: Path, deep: Path) -> None:
    store.experiments.create(EXPERIMENT, ExperimentFields())
    logs = [
        Log(name="loss", type="LINE", data=[1.0, float("nan"), 0.5]),
        Log(name="accuracy", type="VALUE", data=0.9),
        Log(name="table", type="TABLE", data={"a": [1, float("inf")]}),
        Log(name="broken", type="VALUE", data=float("nan")),
    ]
    made = store.experiments.report(EXPERIMENT, "SUCCESS", logs, deep)
    assert made.fields.status == "SUCCESS"
    assert {log.name: log.data for log in made.logs} == {
        "loss": [1.0, 0.5],
        "accuracy": 0.9,
        "table": {"a": [1, None]},
        "broken": "nan",
    }
    assert {file.name for file in made.artifacts} == {name for name, data in tree(deep).items() if data}
    fetched = store.experiments.fetch_artifact(EXPERIMENT, "a/b/c/d/four", tmp_path / "into")
    assert (fetched.name, fetched.read_bytes()) == ("four", b"a/b/c/d/four")


def test_a_second_report_adds_to_lines_and_replaces_the_rest(store: PicselliaStore, tmp_path: Path) -> None:
    store.experiments.create(EXPERIMENT, ExperimentFields())
    for number in (1, 2):
        logs = [Log(name="loss", type="LINE", data=[number]), Log(name="best", type="VALUE", data=number)]
        write(tmp_path / "out/weights", b"%d" % number)
        made = store.experiments.report(EXPERIMENT, "SUCCESS", logs, tmp_path / "out")
    assert {log.name: log.data for log in made.logs} == {"loss": [1, 2], "best": 2}
    assert len(made.artifacts) == 1
    fetched = store.experiments.fetch_artifact(EXPERIMENT, "weights", tmp_path / "into")
    assert fetched.read_bytes() == b"2"


@pytest.mark.parametrize("status", [0, 500, 503])
@pytest.mark.parametrize("after", [False, True])
def test_points_are_not_doubled_by_a_lost_answer(
    store: PicselliaStore, platform: Standin, tmp_path: Path, status: int, after: bool
) -> None:
    store.experiments.create(EXPERIMENT, ExperimentFields())
    line = Log(name="loss", type="LINE", data=[1, 2])
    platform.fail("POST", "/logs$", status=status, after=after and status != 503)
    made = store.experiments.report(EXPERIMENT, "SUCCESS", [line, line], tmp_path)
    assert [log.data for log in made.logs] == [[1, 2, 1, 2]]


def test_a_report_that_fails_half_way_says_what_was_written(
    store: PicselliaStore, platform: Standin, tmp_path: Path
) -> None:
    store.experiments.create(EXPERIMENT, ExperimentFields())
    write(tmp_path / "out/weights")
    platform.fail("POST", "/logs$", status=400, times=None)
    with pytest.raises(StoreError, match="the report is not complete") as caught:
        store.experiments.report(
            EXPERIMENT, "SUCCESS", [Log(name="a", type="VALUE", data=1)], tmp_path / "out"
        )
    assert caught.value.details == ("written: weights",)
    assert store.experiments.get(EXPERIMENT).fields.status == "WAITING"


@pytest.mark.parametrize(
    "log",
    [
        Log(name="a", type="CURVE", data=1),
        Log(name="a", type="LINE", data=1),
        Log(name=" ", type="VALUE", data=1),
    ],
)
def test_what_is_no_log_is_refused_before_any_write(
    store: PicselliaStore, platform: Standin, tmp_path: Path, log: Log
) -> None:
    store.experiments.create(EXPERIMENT, ExperimentFields())
    before = len(platform.requests)
    with pytest.raises(UsageError):
        store.experiments.report(EXPERIMENT, "SUCCESS", [log], tmp_path)
    assert len(platform.requests) == before


def test_a_dataset_is_attached_and_replaced_by_alias(store: PicselliaStore, platform: Standin) -> None:
    platform.add_dataset("street", "2024")
    platform.add_dataset("street", "2025")
    newer = replace(DATASET, version="2025")
    store.experiments.create(EXPERIMENT, ExperimentFields())
    store.experiments.attach_dataset(EXPERIMENT, "train", DATASET)
    assert store.experiments.attach_dataset(EXPERIMENT, "test", DATASET).datasets == {
        "train": DATASET,
        "test": DATASET,
    }
    made = store.experiments.attach_dataset(EXPERIMENT, "train", newer)
    assert made.datasets == {"test": DATASET, "train": newer}


def test_attaching_the_same_again_writes_nothing(store: PicselliaStore, platform: Standin) -> None:
    platform.add_dataset("street", "2024")
    store.experiments.create(EXPERIMENT, ExperimentFields())
    store.experiments.attach_dataset(EXPERIMENT, "train", DATASET)
    before = len(platform.requests)
    store.experiments.attach_dataset(EXPERIMENT, "train", DATASET)
    assert {request.method for request in platform.requests[before:]} == {"GET"}


def test_a_replacement_that_fails_says_what_was_detached(store: PicselliaStore, platform: Standin) -> None:
    platform.add_dataset("street", "2024")
    platform.add_dataset("street", "2025")
    store.experiments.create(EXPERIMENT, ExperimentFields())
    store.experiments.attach_dataset(EXPERIMENT, "train", DATASET)
    platform.fail("POST", "/datasets$", status=400, times=None)
    with pytest.raises(StoreError, match="street/2024 was detached from train; then: "):
        store.experiments.attach_dataset(EXPERIMENT, "train", replace(DATASET, version="2025"))


def published(store: PicselliaStore, platform: Standin, version: VersionName = VERSION) -> Source | None:
    base(platform)
    platform.add_dataset("street", "2024")
    store.experiments.create(EXPERIMENT, ExperimentFields(parameters={"epochs": 3}), V2)
    store.experiments.attach_dataset(EXPERIMENT, "train", DATASET)
    return store.experiments.publish(EXPERIMENT, version).source


@pytest.mark.parametrize("model", ["pedestrian", "new"])
def test_a_published_version_has_what_the_experiment_has_and_tells_its_source(
    store: PicselliaStore, platform: Standin, model: str
) -> None:
    name = replace(VERSION, model=model)
    assert published(store, platform, name) == Source(experiment=EXPERIMENT, datasets={"train": DATASET})
    made = store.versions.get(name)
    assert made.fields == VersionFields(
        framework="PYTORCH",
        type="OBJECT_DETECTION",
        parameters={"epochs": 3},
        labelmap={"0": "car"},
        image=IMAGE,
    )
    assert [file.name for file in made.files] == ["weights"]
    assert store.experiments.get(EXPERIMENT).published == (name,)


def test_an_experiment_tells_all_versions_that_it_was_published_as_by_their_present_names(
    store: PicselliaStore, platform: Standin
) -> None:
    published(store, platform)
    second, gone = replace(VERSION, version="v4"), replace(VERSION, version="v5")
    for name in (second, gone):
        store.experiments.publish(EXPERIMENT, name)
    by_name = {version.name: version for version in platform.versions.values()}
    by_name["v4"].name = "final"
    del platform.versions[by_name["v5"].id]
    held = store.experiments.get(EXPERIMENT)
    assert held.published == (VERSION, replace(VERSION, version="final"))
    assert "trainpack-versions" not in [log.name for log in held.logs]


def test_publishing_over_a_version_is_refused(store: PicselliaStore, platform: Standin) -> None:
    base(platform)
    store.experiments.create(EXPERIMENT, ExperimentFields(), V2)
    with pytest.raises(StoreError, match="exists already"):
        store.experiments.publish(EXPERIMENT, V2)
    assert len(platform.versions) == 1


def test_a_version_that_has_the_experiments_name_is_in_the_way_and_told(
    store: PicselliaStore, platform: Standin
) -> None:
    platform.add_model_version("pedestrian", "first")
    store.experiments.create(EXPERIMENT, ExperimentFields())
    with pytest.raises(StoreError, match="names a version after its experiment") as caught:
        store.experiments.publish(EXPERIMENT, VERSION)
    assert "rename the version 'first'" in str(caught.value.remedy)


def test_a_mask_experiment_can_be_published(store: PicselliaStore, platform: Standin) -> None:
    base(platform, type="MASK")
    store.experiments.create(EXPERIMENT, ExperimentFields(), V2)
    assert store.experiments.publish(EXPERIMENT, VERSION).fields.image == IMAGE


# Datasets


def picture(path: Path, width: int = 8, height: int = 6) -> Path:
    content = io.BytesIO()
    Image.new("RGB", (width, height)).save(content, "PNG")
    return write(path, content.getvalue())


@pytest.fixture
def street(tmp_path: Path) -> Path:
    """Two images, one of them twice by its file name, and boxes."""
    folder = tmp_path / "street"
    for name in ("images/a.png", "images/left/b.png", "images/right/b.png"):
        picture(folder / name)
    coco = {
        "images": [
            {"id": 1, "width": 8, "height": 6, "file_name": "a.png"},
            {"id": 2, "width": 8, "height": 6, "file_name": "/elsewhere/left/b.png"},
        ],
        "categories": [{"id": 7, "name": "person"}, {"id": 3, "name": "car"}],
        "annotations": [
            {"id": 1, "image_id": 1, "category_id": 7, "bbox": [1, 1, 2, 2], "segmentation": [], "area": 4},
            {"id": 2, "image_id": 1, "category_id": 3, "bbox": [2, 2, 3, 3], "segmentation": [], "area": 9},
            {"id": 3, "image_id": 2, "category_id": 3, "bbox": [0, 0, 4, 4], "segmentation": [], "area": 16},
        ],
    }
    write(folder / "annotations/instances.json", json.dumps(coco).encode())
    return folder


BOXES = DatasetFields(description="from a car", type="OBJECT_DETECTION")


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


# Each request of an operation failing in turn

KINDS = [(503, False), (500, True), (0, False), (0, True)]


def requests_of(
    tmp_path: Path, prepare: Callable[..., None], operation: Callable[..., object]
) -> list[tuple[str, str]]:
    """What an operation asks for, each kind of request once, with ids left open."""
    with Standin() as platform:
        store = connect(platform)
        prepare(platform, store)
        before = len(platform.requests)
        operation(store, tmp_path)
        asked = [(request.method, open_ids(request.path)) for request in platform.requests[before:]]
    return list(dict.fromkeys(asked))


def open_ids(path: str) -> str:
    if path.startswith("/storage/"):
        return "^/storage/"
    return f"^{re.sub('[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}', '[0-9a-f-]{36}', path)}$"


def contents(platform: Standin) -> dict[str, Any]:
    """What is on the platform, without ids and without what only lies in storage."""
    return {
        "models": sorted(model.name for model in platform.models.values()),
        "versions": sorted(
            (
                version.model.name,
                version.name,
                json.dumps(version.fields, sort_keys=True),
                sorted(version.files),
            )
            for version in platform.versions.values()
        ),
        "projects": sorted(project.name for project in platform.projects.values()),
        "experiments": sorted(
            (each.name, each.status, sorted(each.logs), sorted(each.artifacts), sorted(each.datasets))
            for each in platform.experiments.values()
        ),
        "datasets": sorted(
            (each.name, each.version, len(each.assets), len(each.labels))
            for each in platform.datasets.values()
        ),
        "origins": sorted(dataset.name for dataset in platform.dataset_origins.values()),
        "data": len(platform.data),
    }


def walk(tmp_path: Path, prepare: Callable[..., None], operation: Callable[..., object]) -> int:
    """Let each request fail in each way, for once and for ever; returns how many cases there were.

    For once (what can be outlasted) it must work, and exactly once; for ever it must leave the platform as
    it was, or say what it did.
    """
    with Standin() as whole:
        store = connect(whole)
        prepare(whole, store)
        before = contents(whole)
        operation(store, tmp_path)
        done = contents(whole)
    asked = requests_of(tmp_path, prepare, operation)
    for method, path in asked:
        for status, after in KINDS:
            for times in (1, None):
                case = f"{method} {path} {status} after={after} times={times}"
                with Standin() as platform:
                    store = connect(platform)
                    prepare(platform, store)
                    platform.fail(method, path, status=status, after=after, times=times)
                    error = failure_of(lambda store=store: operation(store, tmp_path))
                    if error is None:
                        assert contents(platform) == done, case
                        continue
                    assert times is None, f"{case}: {error}"
                    assert not secrets_in(platform, "".join(traceback.format_exception(error))), case
                    told = re.search("then: |left over|not known|not complete", error.message)
                    assert contents(platform) == before or told, f"{case}: {error}: {contents(platform)}"
    return len(asked) * len(KINDS) * 2


def failure_of(call: Callable[[], object]) -> TrainpackError | None:
    try:
        call()
    except TrainpackError as error:
        return error
    return None


def nothing(platform: Standin, store: PicselliaStore) -> None:
    """Nothing to prepare."""


def a_version(platform: Standin, store: PicselliaStore) -> None:
    store.versions.create(VERSION, FIELDS)


def an_experiment(platform: Standin, store: PicselliaStore) -> None:
    base(platform)
    platform.add_dataset("street", "2024")
    platform.add_dataset("street", "2025")
    store.experiments.create(EXPERIMENT, ExperimentFields(), V2)
    store.experiments.attach_dataset(EXPERIMENT, "train", DATASET)


def with_base(platform: Standin, store: PicselliaStore) -> None:
    base(platform)


def test_creating_survives_or_tells_each_request_that_fails(tmp_path: Path) -> None:
    assert walk(tmp_path, nothing, lambda store, _: store.versions.create(VERSION, FIELDS)) >= 48


def test_updating_survives_or_tells_each_request_that_fails(tmp_path: Path) -> None:
    change = VersionFields(description="new", parameters={"epochs": 1})
    assert walk(tmp_path, a_version, lambda store, _: store.versions.update(VERSION, change)) >= 48


def test_storing_a_file_survives_or_tells_each_request_that_fails(tmp_path: Path) -> None:
    def prepare(platform: Standin, store: PicselliaStore) -> None:
        a_version(platform, store)
        store.versions.store_file(VERSION, write(tmp_path / "weights", b"old"), "weights")

    def operation(store: PicselliaStore, folder: Path) -> None:
        store.versions.store_file(VERSION, write(folder / "new", b"new"), "weights")

    assert walk(tmp_path, prepare, operation) >= 56


def test_creating_an_experiment_survives_or_tells_each_request_that_fails(tmp_path: Path) -> None:
    fields = ExperimentFields(parameters={"epochs": 1}, labelmap={"0": "bus"}, status="RUNNING")
    assert walk(tmp_path, with_base, lambda store, _: store.experiments.create(EXPERIMENT, fields, V2)) >= 80


def test_attaching_a_dataset_survives_or_tells_each_request_that_fails(tmp_path: Path) -> None:
    newer = replace(DATASET, version="2025")
    walk(
        tmp_path, an_experiment, lambda store, _: store.experiments.attach_dataset(EXPERIMENT, "train", newer)
    )


def test_a_report_survives_or_tells_each_request_that_fails(tmp_path: Path) -> None:
    write(tmp_path / "out/new")
    write(tmp_path / "out/weights")
    logs = [Log(name="loss", type="LINE", data=[1, 2]), Log(name="best", type="VALUE", data=1)]
    walk(
        tmp_path,
        an_experiment,
        lambda store, _: store.experiments.report(EXPERIMENT, "SUCCESS", logs, tmp_path / "out"),
    )


@pytest.mark.parametrize("model", ["pedestrian", "new"])
def test_publishing_survives_or_tells_each_request_that_fails(tmp_path: Path, model: str) -> None:
    name = replace(VERSION, model=model)
    walk(tmp_path, an_experiment, lambda store, _: store.experiments.publish(EXPERIMENT, name))


def test_adding_a_dataset_survives_or_tells_each_request_that_fails(tmp_path: Path, street: Path) -> None:
    walk(tmp_path, nothing, lambda store, _: store.datasets.add(DATASET, BOXES, street))

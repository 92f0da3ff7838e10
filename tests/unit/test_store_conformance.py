"""What every ModelStore promises, checked on each of them."""

from __future__ import annotations

import json
import os
import zipfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from picsellia_standin import Standin

from builder.errors import NotFoundError, StoreError, UsageError
from builder.host.credentials import make_credentials
from builder.models.compare import diff
from builder.models.local.store import LocalStore
from builder.models.names import DatasetName, ExperimentName, VersionName
from builder.models.picsellia import PicselliaStore
from builder.models.records import (
    DatasetFields,
    DockerImage,
    ExperimentFields,
    Log,
    Source,
    VersionFields,
)
from builder.models.store import ModelStore
from builder.models.transport import Patience

Open = Callable[[], ModelStore]
IMAGE = DockerImage(
    name="registry.example.com/vision/pedestrian",
    tag="1.2.0-0123456789ab",
    digest=f"sha256:{'ab' * 32}",
    flags=("--gpus=all", "--ipc=host", "--ulimit=memlock=-1"),
    env={"architecture": "resnet18", "quoted": "a 'b' \"c\" $d \\e"},
)
FIELDS = VersionFields(
    description="findet Fußgänger",
    framework="PYTORCH",
    type="OBJECT_DETECTION",
    labelmap={"0": "car", "1": "行人"},
    parameters={"epochs": 10, "rate": 0.001, "augment": True, "sizes": [1, 2], "resume": None, "opt": {}},
    image=IMAGE,
)
CHANGES: list[dict[str, Any]] = [
    {"description": "new"},
    {"framework": "ONNX"},
    {"type": "SEGMENTATION"},
    {"labelmap": {"7": "bus"}},
    {"parameters": {"epochs": 11}},
    {"image": DockerImage(name="registry.example.com/other", tag="2", digest=f"sha256:{'cd' * 32}")},
    {"image": DockerImage(name="registry.example.com/other", tag="2")},
]


# What the platform has no place for; its own tests tell what it does instead.
only_local = pytest.mark.parametrize("kind", ["local"])


@pytest.fixture(params=["local", "picsellia"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def open_store(kind: str, tmp_path: Path) -> Iterator[Open]:
    if kind == "local":
        yield lambda: LocalStore(tmp_path / "store")
        return
    with Standin() as platform:
        credentials = make_credentials({"token": platform.token, "host": platform.url}, "the test")
        yield lambda: PicselliaStore.connect(credentials, Patience(tries=2, pause=0.001))


@pytest.fixture
def store(open_store: Open) -> ModelStore:
    return open_store()


@pytest.fixture
def name(kind: str) -> VersionName:
    return VersionName(store=kind, model="team/pedestrian", version="v3")


def test_a_created_version_reads_back_equal_also_by_who_opens_the_store_anew(
    store: ModelStore, open_store: Open, name: VersionName
) -> None:
    created = store.versions.create(name, FIELDS)
    assert (created.name, created.fields) == (name, FIELDS)
    assert created.id
    assert open_store().versions.get(name) == created
    assert [summary.id for summary in open_store().versions.list()] == [created.id]


@pytest.mark.parametrize("change", CHANGES, ids="-".join)
def test_an_update_of_one_field_leaves_the_others(
    store: ModelStore, open_store: Open, name: VersionName, change: dict[str, Any]
) -> None:
    created = store.versions.create(name, FIELDS)
    updated = store.versions.update(name, VersionFields(**change))
    assert updated.fields == FIELDS.model_copy(update=change)
    assert updated.id == created.id
    assert open_store().versions.get(name) == updated


def test_an_update_with_nothing_changes_nothing(store: ModelStore, name: VersionName) -> None:
    created = store.versions.create(name, FIELDS)
    assert store.versions.update(name, VersionFields()) == created


def test_an_empty_version_holds_nothing(store: ModelStore, name: VersionName) -> None:
    empty = store.versions.create(name, VersionFields()).fields
    assert diff(VersionFields(), empty) == ()
    assert store.versions.update(name, FIELDS).fields == FIELDS


def test_a_missing_model_and_a_missing_version_are_not_found_and_can_be_created(
    store: ModelStore, name: VersionName
) -> None:
    for missing in (name, replace(name, version="v4")):
        for use in (store.versions.get, lambda name: store.versions.update(name, FIELDS)):
            with pytest.raises(NotFoundError, match=missing.model) as caught:
                use(missing)
            assert "--create" in str(caught.value.remedy)
            assert caught.value.place == str(missing)
        store.versions.create(name, FIELDS) if missing == name else None
    assert [version.name for version in store.versions.list()] == [name]


def test_a_duplicate_is_refused_and_the_first_stays(store: ModelStore, name: VersionName) -> None:
    created = store.versions.create(name, FIELDS)
    with pytest.raises(StoreError, match="exists already") as caught:
        store.versions.create(name, VersionFields(description="another"))
    assert caught.value.place == str(name)
    assert [summary.id for summary in store.versions.list()] == [created.id]


def test_versions_of_one_model_are_apart(store: ModelStore, name: VersionName) -> None:
    other = replace(name, version="v4")
    first = store.versions.create(name, FIELDS)
    store.versions.create(other, VersionFields(description="other"))
    store.versions.update(other, VersionFields(description="changed", parameters={"epochs": 1}))
    assert store.versions.get(name) == first


@pytest.mark.parametrize("value", [float("nan"), float("inf"), {1, 2}])
def test_a_parameter_that_is_not_json_is_a_usage_error_and_nothing_is_written(
    store: ModelStore, name: VersionName, value: Any
) -> None:
    wrong = VersionFields(parameters={"rate": value})
    with pytest.raises(UsageError, match="JSON"):
        store.versions.create(name, wrong)
    assert list(store.versions.list()) == []
    created = store.versions.create(name, FIELDS)
    with pytest.raises(UsageError, match="JSON"):
        store.versions.update(name, wrong)
    assert store.versions.get(name) == created


def write(folder: Path, files: Mapping[str, str]) -> Path:
    """A folder of files with their contents."""
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    return folder


def read(folder: Path) -> dict[str, str]:
    """Every file below a folder with its content."""
    files = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_text() for path in files}


def test_models_and_the_versions_of_one_are_listed_by_name(store: ModelStore, name: VersionName) -> None:
    other = replace(name, model="another")
    for made in (name, replace(name, version="v2"), other):
        store.versions.create(made, FIELDS)
    assert [model.name for model in store.versions.models()] == ["another", "team/pedestrian"]
    (listed,) = store.versions.list("another")
    assert (listed.name, listed.framework, listed.type) == (other, "PYTORCH", "OBJECT_DETECTION")
    assert (listed.image, listed.digest) == (f"{IMAGE.name}:{IMAGE.tag}", IMAGE.digest)
    with pytest.raises(NotFoundError, match="nowhere"):
        list(store.versions.list("nowhere"))


@pytest.mark.parametrize(
    "wrong",
    [{"framework": "JAX"}, {"type": "DEPTH"}],
    ids="-".join,
)
def test_a_value_that_is_none_of_the_known_ones_is_a_usage_error_and_nothing_is_written(
    store: ModelStore, name: VersionName, wrong: dict[str, Any]
) -> None:
    with pytest.raises(UsageError, match="expected one of"):
        store.versions.create(name, VersionFields(**wrong))
    created = store.versions.create(name, FIELDS)
    with pytest.raises(UsageError, match="expected one of"):
        store.versions.update(name, VersionFields(**wrong))
    assert store.versions.get(name) == created


def test_framework_and_type_are_taken_in_any_case(store: ModelStore, name: VersionName) -> None:
    held = store.versions.create(name, VersionFields(framework="pytorch", type="Point")).fields
    assert (held.framework, held.type) == ("PYTORCH", "POINT")


def test_not_configured_is_none(store: ModelStore, name: VersionName) -> None:
    held = store.versions.create(name, VersionFields(framework="not_configured", type="NOT_CONFIGURED"))
    assert (held.fields.framework, held.fields.type) == (None, None)


def test_a_labelmap_may_have_holes_and_thousands_of_labels(store: ModelStore, name: VersionName) -> None:
    labelmap = {str(3 * index): f"label {index}" for index in range(5000)}
    assert store.versions.create(name, VersionFields(labelmap=labelmap)).fields.labelmap == labelmap


@pytest.mark.parametrize(
    "labelmap", [{"a": "car"}, {"0": ""}, {"0": "car", "1": "car"}, {"-1": "car"}], ids=str
)
def test_a_labelmap_of_another_form_is_a_usage_error(
    store: ModelStore, name: VersionName, labelmap: dict[str, str]
) -> None:
    with pytest.raises(UsageError, match="labelmap"):
        store.versions.create(name, VersionFields(labelmap=labelmap))
    assert list(store.versions.list()) == []


@only_local
def test_restoring_writes_all_fields_also_those_that_are_none(store: ModelStore, name: VersionName) -> None:
    store.versions.create(name, FIELDS)
    before = VersionFields(description="before", parameters={"epochs": 1})
    assert store.versions.restore(name, before).fields == before
    assert store.versions.get(name).fields == before


@only_local
def test_a_copied_version_keeps_its_source(store: ModelStore, name: VersionName) -> None:
    source = Source(
        experiment=ExperimentName(store="picsellia", project="roads", experiment="one"),
        datasets={"train": DatasetName(store="picsellia", dataset="streets", version="1")},
    )
    assert store.versions.create(name, FIELDS, source).source == source


def test_a_stored_file_comes_back_with_its_name_and_content(
    store: ModelStore, open_store: Open, name: VersionName, tmp_path: Path
) -> None:
    store.versions.create(name, FIELDS)
    (tmp_path / "best.pt").write_bytes(b"\x00weights" * 1000)
    stored = store.versions.store_file(name, tmp_path / "best.pt", "weights")
    assert (stored.name, stored.filename) == ("weights", "best.pt")
    assert open_store().versions.get(name).files == (stored,)
    fetched = open_store().versions.fetch_file(name, "weights", tmp_path / "new" / "folder")
    assert fetched == tmp_path / "new" / "folder" / "best.pt"
    assert fetched.read_bytes() == b"\x00weights" * 1000
    assert list(fetched.parent.iterdir()) == [fetched]


def test_a_file_is_called_by_its_own_name_unless_another_is_given_and_replaced_by_name(
    store: ModelStore, name: VersionName, tmp_path: Path
) -> None:
    store.versions.create(name, FIELDS)
    for content in ("first", "second"):
        write(tmp_path, {"config.yaml": content})
        assert store.versions.store_file(name, tmp_path / "config.yaml").name == "config.yaml"
    store.versions.store_file(name, tmp_path / "config.yaml", "grüße/配置")
    assert [file.name for file in store.versions.get(name).files] == ["config.yaml", "grüße/配置"]
    assert store.versions.fetch_file(name, "config.yaml", tmp_path / "out").read_text() == "second"


FOLDER = {
    "a.txt": "a",
    "1/2/3/4/5/deep.txt": "deep",
    "1/empty": "",
    "Fußgänger/行人.txt": "x",
    ".hidden": "h",
}


def test_a_folder_comes_back_as_a_folder_with_all_its_levels(
    store: ModelStore, name: VersionName, tmp_path: Path
) -> None:
    store.versions.create(name, FIELDS)
    folder = write(tmp_path / "checkpoint", FOLDER)
    (folder / "1" / "nothing").mkdir()
    (folder / "a.txt").chmod(0o755)
    stored = store.versions.store_file(name, folder)
    assert (stored.name, stored.filename) == ("checkpoint", "checkpoint.zip")
    fetched = store.versions.fetch_file(name, "checkpoint", tmp_path / "out")
    assert fetched == tmp_path / "out" / "checkpoint"
    assert read(fetched) == FOLDER
    assert (fetched / "1" / "nothing").is_dir()
    assert os.access(fetched / "a.txt", os.X_OK)
    assert not (fetched / "1" / "empty").stat().st_mode & 0o111


def test_a_zip_of_the_users_own_comes_back_as_that_zip(
    store: ModelStore, name: VersionName, tmp_path: Path
) -> None:
    store.versions.create(name, FIELDS)
    with zipfile.ZipFile(tmp_path / "data.zip", "w") as archive:
        archive.writestr("a.txt", "a")
    store.versions.store_file(name, tmp_path / "data.zip")
    fetched = store.versions.fetch_file(name, "data.zip", tmp_path / "out")
    assert fetched.read_bytes() == (tmp_path / "data.zip").read_bytes()


def test_a_file_that_is_not_there_is_named_and_one_that_is_in_the_way_stays(
    store: ModelStore, name: VersionName, tmp_path: Path
) -> None:
    store.versions.create(name, FIELDS)
    write(tmp_path, {"best.pt": "new", "out/best.pt": "mine"})
    store.versions.store_file(name, tmp_path / "best.pt", "weights")
    with pytest.raises(NotFoundError, match="weigths") as caught:
        store.versions.fetch_file(name, "weigths", tmp_path / "other")
    assert caught.value.place == str(name)
    with pytest.raises(UsageError, match="exists"):
        store.versions.fetch_file(name, "weights", tmp_path / "out")
    assert read(tmp_path / "out") == {"best.pt": "mine"}


@pytest.mark.parametrize("path", ["missing", "folder with a pipe", "pipe"])
def test_what_cannot_be_read_is_a_usage_error_and_nothing_is_stored(
    store: ModelStore, name: VersionName, tmp_path: Path, path: str
) -> None:
    store.versions.create(name, FIELDS)
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder with a pipe").mkdir()
    os.mkfifo(tmp_path / "folder with a pipe" / "pipe")
    with pytest.raises(UsageError) as caught:
        store.versions.store_file(name, tmp_path / path)
    assert str(tmp_path / path) in str(caught.value.place)
    assert store.versions.get(name).files == ()


def test_files_of_a_version_that_does_not_exist_are_not_found(
    store: ModelStore, name: VersionName, tmp_path: Path
) -> None:
    write(tmp_path, {"best.pt": "x"})
    for use in (
        lambda: store.versions.store_file(name, tmp_path / "best.pt"),
        lambda: store.versions.fetch_file(name, "best.pt", tmp_path / "out"),
        lambda: store.versions.store_thumbnail(name, tmp_path / "best.pt"),
        lambda: store.versions.fetch_thumbnail(name, tmp_path / "out"),
    ):
        with pytest.raises(NotFoundError, match=name.model):
            use()


def test_a_thumbnail_is_apart_from_the_files(store: ModelStore, name: VersionName, tmp_path: Path) -> None:
    store.versions.create(name, FIELDS)
    with pytest.raises(NotFoundError, match="thumbnail"):
        store.versions.fetch_thumbnail(name, tmp_path / "out")
    write(tmp_path, {"picture.png": "png", "thumbnail": "a file of that name"})
    store.versions.store_file(name, tmp_path / "thumbnail")
    stored = store.versions.store_thumbnail(name, tmp_path / "picture.png")
    held = store.versions.get(name)
    assert held.thumbnail == stored
    assert [file.name for file in held.files] == ["thumbnail"]
    assert store.versions.fetch_thumbnail(name, tmp_path / "out").read_text() == "png"
    with pytest.raises(UsageError, match="folder"):
        store.versions.store_thumbnail(name, tmp_path)


@pytest.fixture
def experiment(kind: str) -> ExperimentName:
    return ExperimentName(store=kind, project="team/roads", experiment="Fußgänger 1")


@pytest.fixture
def dataset(kind: str) -> DatasetName:
    return DatasetName(store=kind, dataset="team/streets", version="v1")


def test_an_experiment_receives_what_its_version_holds(
    store: ModelStore, open_store: Open, name: VersionName, experiment: ExperimentName, tmp_path: Path
) -> None:
    write(tmp_path, {"best.pt": "weights"})
    store.versions.create(name, FIELDS)
    store.versions.store_file(name, tmp_path / "best.pt", "weights")
    made = store.experiments.create(experiment, ExperimentFields(), base=name)
    assert (made.name, made.base) == (experiment, name)
    assert (made.fields.parameters, made.fields.labelmap) == (FIELDS.parameters, FIELDS.labelmap)
    assert made.fields.image == FIELDS.image
    assert [file.name for file in made.artifacts] == ["weights"]
    assert store.experiments.fetch_artifact(experiment, "weights", tmp_path / "out").read_text() == "weights"
    assert open_store().experiments.get(experiment) == made
    assert [(line.name, line.base) for line in store.experiments.list()] == [(experiment, name)]


def test_an_experiments_own_fields_win_over_those_of_its_version(
    store: ModelStore, name: VersionName, experiment: ExperimentName
) -> None:
    store.versions.create(name, FIELDS)
    own = ExperimentFields(parameters={"epochs": 1}, labelmap={"3": "tram"}, status="running")
    made = store.experiments.create(experiment, own, base=name).fields
    assert (made.parameters, made.labelmap, made.status) == ({"epochs": 1}, {"3": "tram"}, "RUNNING")
    assert made.image == FIELDS.image


def test_what_an_experiment_received_does_not_follow_its_version(
    store: ModelStore, name: VersionName, experiment: ExperimentName, tmp_path: Path
) -> None:
    store.versions.create(name, FIELDS)
    made = store.experiments.create(experiment, ExperimentFields(), base=name)
    write(tmp_path, {"new": "x"})
    store.versions.update(name, VersionFields(parameters={"epochs": 99}))
    store.versions.store_file(name, tmp_path / "new")
    assert store.experiments.get(experiment) == made


def test_experiments_that_cannot_be_made_leave_nothing(
    store: ModelStore, name: VersionName, experiment: ExperimentName
) -> None:
    with pytest.raises(NotFoundError, match=name.model):
        store.experiments.create(experiment, ExperimentFields(), base=name)
    with pytest.raises(UsageError, match="expected one of WAITING"):
        store.experiments.create(experiment, ExperimentFields(status="DONE"))
    with pytest.raises(UsageError, match="JSON"):
        store.experiments.create(experiment, ExperimentFields(parameters={"rate": float("nan")}))
    assert list(store.experiments.list()) == []
    made = store.experiments.create(experiment, ExperimentFields(description="first"))
    with pytest.raises(StoreError, match="exists already"):
        store.experiments.create(experiment, ExperimentFields())
    assert store.experiments.get(experiment) == made


def test_experiments_are_listed_by_project_and_missing_ones_are_not_found(
    store: ModelStore, experiment: ExperimentName
) -> None:
    other = replace(experiment, project="other")
    for made in (experiment, other):
        store.experiments.create(made, ExperimentFields())
    assert [line.name for line in store.experiments.list("other")] == [other]
    with pytest.raises(NotFoundError, match="no project 'nowhere'"):
        list(store.experiments.list("nowhere"))
    missing = replace(other, experiment="two")
    for use in (
        lambda: store.experiments.get(missing),
        lambda: store.experiments.update(missing, ExperimentFields()),
        lambda: store.experiments.publish(missing, VersionName(store=missing.store, model="m", version="1")),
    ):
        with pytest.raises(NotFoundError, match="has no experiment 'two'"):
            use()


def test_an_update_of_an_experiment_leaves_its_other_fields(
    store: ModelStore, experiment: ExperimentName
) -> None:
    fields = ExperimentFields(description="first", status="WAITING", parameters={"epochs": 1})
    store.experiments.create(experiment, fields)
    change = ExperimentFields(status="Running", labelmap={"0": "tram"})
    held = store.experiments.update(experiment, change).fields
    assert held == fields.model_copy(update={"status": "RUNNING", "labelmap": {"0": "tram"}})


@only_local
def test_an_experiment_may_get_another_image(store: ModelStore, experiment: ExperimentName) -> None:
    store.experiments.create(experiment, ExperimentFields())
    assert store.experiments.update(experiment, ExperimentFields(image=IMAGE)).fields.image == IMAGE


def test_datasets_are_attached_by_alias(
    store: ModelStore, experiment: ExperimentName, dataset: DatasetName, tmp_path: Path
) -> None:
    second = replace(dataset, version="v2")
    for version in (dataset, second):
        store.datasets.add(version, DatasetFields(), write(tmp_path / "images", {"a.jpg": version.version}))
    store.experiments.create(experiment, ExperimentFields())
    store.experiments.attach_dataset(experiment, "train", dataset)
    store.experiments.attach_dataset(experiment, "test", dataset)
    held = store.experiments.attach_dataset(experiment, "train", second)
    assert held.datasets == {"test": dataset, "train": second}
    with pytest.raises(NotFoundError, match="v3"):
        store.experiments.attach_dataset(experiment, "train", replace(dataset, version="v3"))
    with pytest.raises(UsageError, match="alias"):
        store.experiments.attach_dataset(experiment, "../train", dataset)
    assert store.experiments.get(experiment) == held


def test_a_report_brings_logs_artifacts_and_status(
    store: ModelStore, experiment: ExperimentName, tmp_path: Path
) -> None:
    store.experiments.create(experiment, ExperimentFields())
    outputs = write(tmp_path / "outputs", {"best.pt": "1", "runs/1/last.pt": "2"})
    loss, table = Log(name="loss", type="LINE", data=[3, 2]), Log(name="t", type="TABLE", data={"a": [1]})
    held = store.experiments.report(experiment, "SUCCESS", [loss, table], outputs)
    assert held.fields.status == "SUCCESS"
    assert [file.name for file in held.artifacts] == ["best.pt", "runs/1/last.pt"]
    assert {log.name: log for log in held.logs} == {"loss": loss, "t": table}
    fetched = store.experiments.fetch_artifact(experiment, "runs/1/last.pt", tmp_path / "out")
    assert fetched.read_text() == "2"


def test_the_next_report_adds_points_to_a_line_and_replaces_the_rest(
    store: ModelStore, experiment: ExperimentName, tmp_path: Path
) -> None:
    store.experiments.create(experiment, ExperimentFields())
    outputs = tmp_path / "outputs"
    for number in (1, 2):
        write(outputs, {"best.pt": str(number), f"{number}.pt": ""})
        logs = [
            Log(name="loss", type="LINE", data=[number, 0.5]),
            Log(name="last", type="VALUE", data=number),
        ]
        held = store.experiments.report(experiment, "RUNNING", logs, outputs)
    assert {log.name: log.data for log in held.logs} == {"loss": [1, 0.5, 2, 0.5], "last": 2}
    assert [file.name for file in held.artifacts] == ["1.pt", "2.pt", "best.pt"]
    assert store.experiments.fetch_artifact(experiment, "best.pt", tmp_path / "out").read_text() == "2"


def test_a_loss_that_is_no_number_any_more_does_not_cost_the_report(
    store: ModelStore, experiment: ExperimentName, tmp_path: Path
) -> None:
    store.experiments.create(experiment, ExperimentFields())
    log = Log(name="loss", type="LINE", data=[1.0, float("nan"), float("-inf")])
    held = store.experiments.report(experiment, "FAILED", [log], write(tmp_path / "outputs", {"a": "a"}))
    assert held.fields.status == "FAILED"
    assert [point for line in held.logs for point in line.data if point is not None] == [1.0]


@pytest.mark.parametrize(
    ("status", "log"),
    [
        ("DONE", Log(name="loss", type="LINE", data=[1])),
        ("SUCCESS", Log(name="loss", type="CURVE", data=[1])),
        ("SUCCESS", Log(name="loss", type="LINE", data=1)),
        ("SUCCESS", Log(name="loss", type="VALUE", data={1, 2})),
    ],
)
def test_a_report_that_cannot_be_taken_leaves_everything_as_it_was(
    store: ModelStore, experiment: ExperimentName, tmp_path: Path, status: str, log: Log
) -> None:
    made = store.experiments.create(experiment, ExperimentFields())
    with pytest.raises(UsageError):
        store.experiments.report(experiment, status, [log], write(tmp_path / "outputs", {"a": "a"}))
    assert store.experiments.get(experiment) == made


def test_a_published_experiment_is_the_source_of_its_version(
    store: ModelStore, name: VersionName, experiment: ExperimentName, dataset: DatasetName, tmp_path: Path
) -> None:
    store.versions.create(name, FIELDS)
    store.datasets.add(dataset, DatasetFields(), write(tmp_path / "images", {"a.jpg": ""}))
    store.experiments.create(experiment, ExperimentFields(parameters={"epochs": 3}), base=name)
    store.experiments.attach_dataset(experiment, "train", dataset)
    store.experiments.report(experiment, "SUCCESS", [], write(tmp_path / "outputs", {"best.pt": "new"}))
    version = replace(name, version="v4")
    published = store.experiments.publish(experiment, version)
    assert published.source == Source(experiment=experiment, datasets={"train": dataset})
    assert published.fields == FIELDS.model_copy(update={"parameters": {"epochs": 3}, "description": None})
    assert [file.name for file in published.files] == ["best.pt"]
    assert store.versions.fetch_file(version, "best.pt", tmp_path / "out").read_text() == "new"
    assert store.experiments.get(experiment).published == (version,)
    with pytest.raises(StoreError, match="exists already"):
        store.experiments.publish(experiment, name)
    assert store.versions.get(name).source is None


COCO = {
    "images": [{"id": 1, "file_name": "1.jpg"}, {"id": 2, "file_name": "2.jpg"}],
    "annotations": [{"id": n, "image_id": 1, "category_id": 7, "bbox": [0, 0, 1, 1]} for n in range(3)],
    "categories": [{"id": 7, "name": "person"}, {"id": 1, "name": "car"}],
}


def test_a_folder_of_images_with_coco_becomes_a_dataset_and_comes_back(
    store: ModelStore, open_store: Open, dataset: DatasetName, tmp_path: Path
) -> None:
    files = {"images/1.jpg": "one", "images/2.jpg": "two!", "annotations.json": json.dumps(COCO)}
    made = store.datasets.add(dataset, DatasetFields(type="object_detection"), write(tmp_path / "in", files))
    assert (made.name, made.assets, made.annotations) == (dataset, 2, 3)
    assert made.size in (7, None)
    assert (made.fields.type, made.fields.labels) == ("OBJECT_DETECTION", ("car", "person"))
    assert open_store().datasets.get(dataset) == made
    assert list(store.datasets.list()) == [made]
    fetched = read(open_store().datasets.fetch(dataset, tmp_path / "out"))
    coco = json.loads(fetched.pop("annotations.json"))
    assert fetched == {name: content for name, content in files.items() if name.startswith("images/")}
    names = {category["id"]: category["name"] for category in coco["categories"]}
    assert set(names.values()) == {"car", "person"}
    assert [names[each["category_id"]] for each in coco["annotations"]] == ["person"] * 3


@only_local
def test_labels_that_are_given_win_over_those_of_the_annotations(
    store: ModelStore, dataset: DatasetName, tmp_path: Path
) -> None:
    folder = write(tmp_path / "in", {"1.jpg": "", "2.jpg": "", "coco.json": json.dumps(COCO)})
    assert store.datasets.add(dataset, DatasetFields(labels=("a", "b")), folder).fields.labels == ("a", "b")


@only_local
def test_a_reference_is_not_copied_and_its_folder_is_what_is_fetched(
    store: ModelStore, dataset: DatasetName, tmp_path: Path
) -> None:
    folder = write(tmp_path / "in", {"1.jpg": "one"})
    made = store.datasets.add(dataset, DatasetFields(reference=str(folder)))
    assert (made.fields.reference, made.digest, made.assets) == (str(folder), None, None)
    assert store.datasets.fetch(dataset, tmp_path / "out") == folder
    assert not (tmp_path / "out").exists()
    folder.rename(tmp_path / "moved")
    with pytest.raises(NotFoundError, match=str(folder)):
        store.datasets.fetch(dataset, tmp_path / "out")


@only_local
def test_a_reference_to_an_address_is_kept_and_cannot_be_fetched(
    store: ModelStore, dataset: DatasetName, tmp_path: Path
) -> None:
    address = "s3://bucket.example.com/streets"
    assert store.datasets.add(dataset, DatasetFields(reference=address)).fields.reference == address
    with pytest.raises(NotFoundError, match=address):
        store.datasets.fetch(dataset, tmp_path / "out")


@pytest.mark.parametrize(
    ("files", "what"),
    [
        ({}, "empty"),
        ({"1.jpg": "", "coco.json": "{"}, "JSON"),
        ({"1.jpg": "", "coco.json": json.dumps({**COCO, "categories": []})}, "not in COCO's form"),
        ({"1.jpg": "", "coco.json": json.dumps({"annotations": []})}, "not in COCO's form"),
    ],
    ids=["empty", "cut off", "a category that is not there", "no images"],
)
def test_a_folder_that_is_no_dataset_is_a_usage_error_and_nothing_is_kept(
    store: ModelStore, dataset: DatasetName, tmp_path: Path, files: dict[str, str], what: str
) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    with pytest.raises(UsageError, match=what):
        store.datasets.add(dataset, DatasetFields(), write(folder, files))
    assert list(store.datasets.list()) == []


@only_local
def test_a_dataset_needs_either_a_folder_or_a_reference(
    store: ModelStore, dataset: DatasetName, tmp_path: Path
) -> None:
    folder = write(tmp_path / "in", {"1.jpg": ""})
    with pytest.raises(UsageError, match="either a folder or a reference"):
        store.datasets.add(dataset, DatasetFields())
    with pytest.raises(UsageError, match="either a folder or a reference"):
        store.datasets.add(dataset, DatasetFields(reference=str(folder)), folder)
    with pytest.raises(UsageError, match="neither a folder of this machine nor an address"):
        store.datasets.add(dataset, DatasetFields(reference=str(folder / "missing")))
    with pytest.raises(UsageError, match="missing"):
        store.datasets.add(dataset, DatasetFields(), folder / "missing")
    assert list(store.datasets.list()) == []


@only_local
def test_the_digest_of_a_dataset_is_of_names_and_contents(
    store: ModelStore, dataset: DatasetName, tmp_path: Path
) -> None:
    digests = []
    contents = ({"a/1.jpg": "one"}, {"a/1.jpg": "one"}, {"a/1.jpg": "two"}, {"b/1.jpg": "one"})
    for number, files in enumerate(contents):
        folder = write(tmp_path / str(number), files)
        version = replace(dataset, version=str(number))
        digests.append(store.datasets.add(version, DatasetFields(), folder).digest)
    assert digests[0] == digests[1]
    assert len(set(digests)) == 3

"""Experiments on Picsellia, over the unmodified SDK, against the stand-in."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from picsellia_standin import Standin
from picsellia_store import DATASET, EXPERIMENT, IMAGE, V2, VERSION, base, checkpoints, connect, tree, write

from builder.errors import NotFoundError, StoreError, UsageError
from builder.models.names import VersionName
from builder.models.picsellia import PicselliaStore
from builder.models.records import ExperimentFields, Log, Source, VersionFields


@pytest.fixture
def store(platform: Standin) -> PicselliaStore:
    return connect(platform)


@pytest.fixture
def deep(tmp_path: Path) -> Path:
    return checkpoints(tmp_path)


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
    assert caught.value.details == ("files written: 1 of 1", "logs written: none")
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


def test_a_new_model_that_cannot_be_removed_again_is_told(store: PicselliaStore, platform: Standin) -> None:
    base(platform)
    store.experiments.create(EXPERIMENT, ExperimentFields(), V2)
    platform.fail("PATCH", "/model/version/", status=400, times=None)
    platform.fail("DELETE", "/api/model/", status=500, times=None)
    with pytest.raises(StoreError, match="the version that it made is left over"):
        store.experiments.publish(EXPERIMENT, replace(VERSION, model="new"))


def test_a_mask_experiment_can_be_published(store: PicselliaStore, platform: Standin) -> None:
    base(platform, type="MASK")
    store.experiments.create(EXPERIMENT, ExperimentFields(), V2)
    assert store.experiments.publish(EXPERIMENT, VERSION).fields.image == IMAGE

"""Each request of each operation on Picsellia failing in turn."""

from __future__ import annotations

import itertools
import json
import re
import traceback
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from picsellia_standin import Experiment, Standin, StoredFile
from picsellia_standin.state import DatasetVersion, Fault
from picsellia_store import (
    BOXES,
    DATASET,
    EXPERIMENT,
    FIELDS,
    V2,
    VERSION,
    base,
    connect,
    secrets_in,
    street,
    write,
)

from builder.errors import TrainpackError
from builder.models.picsellia import PicselliaStore
from builder.models.records import ExperimentFields, Log, VersionFields

# What one kind of request answers, and how often; None is for ever.
FAILURES: list[dict[str, Any]] = [
    {"status": 0, "after": False, "times": 1},
    {"status": 0, "after": True, "times": 1},
    {"status": 503, "after": False, "times": None},
    {"status": 500, "after": True, "times": None},
]
TOLD = re.compile("then: |left over|not known|not complete")
_ID = re.compile("[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")

Prepare = Callable[[Standin, PicselliaStore], object]
Operation = Callable[[PicselliaStore], object]
Walk = Callable[[Prepare, Operation], None]


def walk(prepare: Prepare, operation: Operation) -> None:
    """Let each kind of request of an operation fail in each way.

    A failure that passes must be outlasted, with nothing made twice. One that lasts must leave the platform
    as it was, or say what it did.
    """
    with Standin() as platform:
        store = connect(platform)
        prepare(platform, store)
        before, first = contents(platform), len(platform.requests)
        operation(store)
        done = contents(platform)
        asked = {(request.method, open_ids(request.path)) for request in platform.requests[first:]}
    assert len(asked) > 3
    for method, path in sorted(asked):
        for failure in FAILURES:
            case = f"{method} {path} {failure}"
            with Standin() as platform:
                store = connect(platform)
                prepare(platform, store)
                platform.fail(method, path, **failure)
                error = failure_of(operation, store)
                if error is None:
                    assert contents(platform) == done, case
                    continue
                assert failure["times"] is None, f"{case}: {error}"
                assert not secrets_in(platform, "".join(traceback.format_exception(error))), case
                assert contents(platform) == before or TOLD.search(error.message), f"{case}: {error}"


def walk_away(prepare: Prepare, operation: Operation) -> None:
    """Let the platform go away for good with each request of an operation, which it still takes.

    It must be as it was, or the error must say what was done, or may have been.
    """
    for number in itertools.count():
        with Standin() as platform:
            store = connect(platform)
            prepare(platform, store)
            before = contents(platform)
            go_away(platform, len(platform.requests) + number)
            error = failure_of(operation, store)
            if error is None:
                break
            case = f"request {number}, {platform.requests[number - 1]}"
            assert not secrets_in(platform, "".join(traceback.format_exception(error))), case
            assert contents(platform) == before or TOLD.search(error.message), f"{case}: {error}"
    assert number > 3


def go_away(platform: Standin, last: int) -> None:
    """Take so many requests, the last without an answer, and drop every other one."""
    regular = platform.take_fault
    gone = Fault("*", re.compile(""), 0, None, {}, after=False, message="", cut="")

    def take_fault(method: str, path: str, *, after: bool = False, cut: str = "") -> Fault | None:
        count = len(platform.requests)
        if not cut and (count > last or (count == last and after)):
            return gone
        return regular(method, path, after=after, cut=cut)

    platform.take_fault = take_fault  # type: ignore[method-assign]


def open_ids(path: str) -> str:
    """A path as a pattern, whatever the ids in it."""
    return "^/storage/" if path.startswith("/storage/") else f"^{_ID.sub('[0-9a-f-]{36}', path)}$"


def failure_of(operation: Operation, store: PicselliaStore) -> TrainpackError | None:
    try:
        operation(store)
    except TrainpackError as error:
        return error
    return None


def contents(platform: Standin) -> dict[str, Any]:
    """What is on the platform, without ids and without what only lies in storage."""
    return {
        "models": sorted(model.name for model in platform.models.values()),
        "versions": sorted(
            (
                version.model.name,
                version.name,
                json.dumps(version.fields, sort_keys=True),
                files(version.files),
            )
            for version in platform.versions.values()
        ),
        "projects": sorted(project.name for project in platform.projects.values()),
        "experiments": sorted(
            (each.name, each.status, logs(each), files(each.artifacts), sorted(each.datasets))
            for each in platform.experiments.values()
        ),
        "datasets": sorted(
            (each.name, each.version, len(each.assets), len(each.labels), shapes(each))
            for each in platform.datasets.values()
        ),
        "origins": sorted(dataset.name for dataset in platform.dataset_origins.values()),
        "data": len(platform.data),
    }


def files(held: Mapping[str, StoredFile]) -> list[tuple[str, bytes]]:
    return sorted((name, file.data) for name, file in held.items())


def logs(experiment: Experiment) -> list[tuple[str, str]]:
    return sorted((name, _ID.sub("id", str(log.data))) for name, log in experiment.logs.items())


def shapes(dataset: DatasetVersion) -> int:
    return sum(len(kind) for asset in dataset.assets for kind in (asset.shapes or {}).values())


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


both = pytest.mark.parametrize("walk", [walk, walk_away])


@both
def test_creating_survives_or_tells_each_request_that_fails(walk: Walk) -> None:
    walk(nothing, lambda store: store.versions.create(VERSION, FIELDS))


@both
def test_updating_survives_or_tells_each_request_that_fails(walk: Walk) -> None:
    change = VersionFields(description="new", parameters={"epochs": 1})
    walk(a_version, lambda store: store.versions.update(VERSION, change))


@both
def test_storing_a_file_survives_or_tells_each_request_that_fails(walk: Walk, tmp_path: Path) -> None:
    def prepare(platform: Standin, store: PicselliaStore) -> None:
        a_version(platform, store)
        store.versions.store_file(VERSION, write(tmp_path / "weights", b"old"), "weights")

    def operation(store: PicselliaStore) -> None:
        store.versions.store_file(VERSION, write(tmp_path / "new", b"new"), "weights")

    walk(prepare, operation)


@both
def test_creating_an_experiment_survives_or_tells_each_request_that_fails(walk: Walk) -> None:
    fields = ExperimentFields(parameters={"epochs": 1}, labelmap={"0": "bus"}, status="RUNNING")
    walk(with_base, lambda store: store.experiments.create(EXPERIMENT, fields, V2))


@both
def test_attaching_a_dataset_survives_or_tells_each_request_that_fails(walk: Walk) -> None:
    newer = replace(DATASET, version="2025")
    walk(an_experiment, lambda store: store.experiments.attach_dataset(EXPERIMENT, "train", newer))


@both
def test_a_report_survives_or_tells_each_request_that_fails(walk: Walk, tmp_path: Path) -> None:
    write(tmp_path / "out/new")
    write(tmp_path / "out/weights")
    logs = [Log(name="loss", type="LINE", data=[1, 2]), Log(name="best", type="VALUE", data=1)]
    outputs = tmp_path / "out"
    walk(an_experiment, lambda store: store.experiments.report(EXPERIMENT, "SUCCESS", logs, outputs))


@both
@pytest.mark.parametrize("model", ["pedestrian", "new"])
def test_publishing_survives_or_tells_each_request_that_fails(walk: Walk, model: str) -> None:
    name = replace(VERSION, model=model)
    walk(an_experiment, lambda store: store.experiments.publish(EXPERIMENT, name))


@both
def test_adding_a_dataset_survives_or_tells_each_request_that_fails(walk: Walk, tmp_path: Path) -> None:
    folder = street(tmp_path)
    walk(nothing, lambda store: store.datasets.add(DATASET, BOXES, folder))

"""What every ModelStore promises, checked on each of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from picsellia_standin import Standin

from builder.credentials import make_credentials
from builder.errors import NotFoundError, StoreError, UsageError
from builder.models.compare import diff
from builder.models.local import LocalStore
from builder.models.picsellia import PicselliaStore
from builder.models.records import DockerImage, VersionFields, VersionName
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
    for missing in (name, name.model_copy(update={"version": "v4"})):
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
    other = name.model_copy(update={"version": "v4"})
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

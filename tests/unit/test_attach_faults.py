"""An attach to a platform that fails at any one of its requests: nothing is written, or what is is told."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from picsellia_standin import Standin
from picsellia_standin.state import Fault

from builder.attach import attach
from builder.errors import ReadBackError, StoreError
from builder.host.credentials import make_credentials
from builder.models.compare import diff
from builder.models.journal import Journal
from builder.models.local.store import LocalStore
from builder.models.names import VersionName
from builder.models.picsellia import PicselliaStore
from builder.models.records import DIGEST_VARIABLE, Attachment, DockerImage, VersionFields
from builder.models.store import ModelStore
from builder.models.transport import Patience
from builder.rollback import rollback

NAME = VersionName(store="picsellia", model="pedestrian", version="v3")
DIGEST = f"sha256:{'ab' * 32}"
FIELDS = VersionFields(
    description="finds people",
    framework="PYTORCH",
    type="OBJECT_DETECTION",
    notebook_link="https://example.com/notebook",
    labelmap={"0": "car"},
    parameters={"epochs": 10},
    image=DockerImage(name="registry.example.com/a", tag="1", digest=DIGEST, flags=("--gpus=all",)),
)
WANTED = {
    "description": "finds people",
    "framework": "PYTORCH",
    "type": "OBJECT_DETECTION",
    "notebook_link": "https://example.com/notebook",
    "labels": {"0": "car"},
    "parameters": {"epochs": 10},
    "docker_image": "registry.example.com/a",
    "docker_tag": "1",
    "docker_flags": ["--gpus=all"],
    "docker_env_variables": {DIGEST_VARIABLE: DIGEST},
}
FAULTS = {"503 forever": (503, False), "dropped": (0, False), "dropped after it took effect": (0, True)}
MOST_REQUESTS = 40


@dataclass(repr=False, eq=False)
class FailingStandin(Standin):
    """Fails one request, counted from 0, and each like it from then on."""

    index: int = -1
    fault: tuple[int, bool] = (503, False)
    seen: int = 0
    failing: tuple[str, str] | None = field(default=None)
    gone: bool = False

    def __init__(self, index: int = -1, fault: tuple[int, bool] = (503, False)) -> None:
        super().__init__()
        self.index, self.fault, self.seen, self.failing = index, fault, 0, None

    def take_fault(self, method: str, path: str, *, after: bool = False, cut: str = "") -> Fault | None:
        if not after and not cut:
            if self.seen == self.index:
                self.failing = (method, path)
            self.seen += 1
        status, effective = self.fault
        if self.gone and method == "PATCH":
            self.failing, self.fault = None, (0, False)
            self.fail("*", "", status=0, times=None)
            return Fault(method, re.compile(""), 0, None, {}, effective, "gone", "") if after else None
        if self.failing is None:
            return super().take_fault(method, path, after=after, cut=cut)
        if self.failing != (method, path) or after != effective or cut:
            return None
        return Fault(method, re.compile(""), status, None, {}, effective, "injected failure", "")


@contextmanager
def platform(
    existing: bool, index: int = -1, fault: tuple[int, bool] = (503, False)
) -> Iterator[FailingStandin]:
    with FailingStandin(index, fault) as standin:
        if existing:
            standin.add_model_version("pedestrian", "v3", parameters={"epochs": 3})
        yield standin


def attached(standin: Standin, journal: Journal, *, create: bool) -> Attachment:
    credentials = make_credentials({"token": standin.token, "host": standin.url}, "the test")
    store = PicselliaStore.connect(credentials, Patience(tries=2, pause=0.001))
    return attach(store, NAME, FIELDS, create=create, journal=journal)


def held(standin: Standin) -> dict[str, Any] | None:
    """What the platform holds of the version, by its own word; None when there is no version."""
    versions = list(standin.versions.values())
    assert len(versions) <= 1
    return dict(versions[0].fields) if versions else None


def requests_of_an_attach(tmp_path: Path, existing: bool) -> int:
    with platform(existing) as standin:
        attached(standin, Journal(tmp_path / "count"), create=not existing)
        assert is_whole(held(standin))
        return standin.seen


def is_whole(fields: dict[str, Any] | None) -> bool:
    return fields is not None and {key: fields[key] for key in WANTED} == WANTED


@pytest.mark.parametrize("existing", [True, False], ids=["update", "create"])
@pytest.mark.parametrize("fault", FAULTS)
def test_wherever_the_platform_fails_what_was_written_is_told(
    tmp_path: Path, fault: str, existing: bool
) -> None:
    count = requests_of_an_attach(tmp_path, existing)
    assert 5 < count < MOST_REQUESTS
    told: list[str] = []
    for index in range(count):
        with platform(existing, index, FAULTS[fault]) as standin:
            before = held(standin)
            try:
                attached(standin, Journal(tmp_path / str(index)), create=not existing)
            except StoreError as error:
                told.append(check_told(standin, before, error))
            else:
                told.append("nothing failed")
                assert is_whole(held(standin))
            standin.index = -1
            standin.failing = None
            again = attached(standin, Journal(tmp_path / str(index)), create=not existing)
            assert is_whole(held(standin)), "the next try does not complete it"
            assert again.version == NAME
    assert "failed before the write" in told


def check_told(standin: Standin, before: dict[str, Any] | None, error: StoreError) -> str:
    """Hold what the error says against what the platform holds; returns which case it is."""
    now, told = held(standin), " ".join(error.details)
    models = [model.name for model in standin.models.values()]
    if not told:
        assert now == before
        assert before is not None or models == []
        return "failed before the write"
    if "nothing was written" in told:
        assert now == before
        if before is None and "before the write" not in told:
            assert ("no model 'pedestrian'" in told) is (models == [])
        return "nothing was written"
    if "written, and accepted by the store" in told:
        assert is_whole(now)
        assert all(field in told for field in ("description", "image.digest", "parameters.epochs"))
        return "written and not read back"
    raise AssertionError(f"it is not said what was written: {error} {told}")


def test_a_platform_that_is_gone_for_good_after_a_lost_answer_leaves_it_open_field_by_field(
    tmp_path: Path,
) -> None:
    with platform(existing=True) as standin:
        standin.fault = (0, True)
        version = next(iter(standin.versions))
        standin.failing = ("PATCH", f"/api/model/version/{version}")
        standin.gone = True
        with pytest.raises(StoreError) as caught:
            attached(standin, Journal(tmp_path), create=False)
    (told,) = caught.value.details
    assert "whether this was written is not known" in told
    assert all(field in told for field in ("description", "image.digest", "parameters.epochs"))


def test_a_lost_answer_to_the_write_is_no_failure(tmp_path: Path) -> None:
    with platform(existing=True) as standin:
        standin.fault = (0, True)
        version = next(iter(standin.versions))
        standin.failing = ("PATCH", f"/api/model/version/{version}")
        assert attached(standin, Journal(tmp_path), create=False).written
        assert is_whole(held(standin))


@pytest.mark.parametrize("kind", ["local", "picsellia"])
def test_attaches_at_once_leave_one_of_them_whole_and_tell_the_others(tmp_path: Path, kind: str) -> None:
    name = VersionName(store=kind, model="pedestrian", version="v3")
    candidates = [fields_of(number) for number in range(4)]
    journal = Journal(tmp_path / "attached")

    with Standin() as standin:

        def connect() -> ModelStore:
            if kind == "local":
                return LocalStore(tmp_path / "store")
            credentials = make_credentials({"token": standin.token, "host": standin.url}, "the test")
            return PicselliaStore.connect(credentials, Patience(tries=2, pause=0.001))

        connect().versions.create(name, FIELDS)
        start = threading.Barrier(len(candidates))

        def one(fields: VersionFields) -> bool:
            store = connect()
            start.wait()
            try:
                attach(store, name, fields, journal=journal)
            except ReadBackError:
                return False
            return True

        for _ in range(5):
            with ThreadPoolExecutor(len(candidates)) as pool:
                told = list(pool.map(one, candidates))
            held_now = connect().versions.get(name).fields
            winners = [number for number, each in enumerate(candidates) if not diff(held_now, each)]
            assert len(winners) == 1, "what is held is one of them, and of nothing else a part"
            assert told[winners[0]]
        entries = [entry for _, entry in journal.entries(name)]
        assert rollback(connect(), name, entries).left == ()


def fields_of(number: int) -> VersionFields:
    image = DockerImage(name="registry.example.com/a", tag=str(number), digest=f"sha256:{number:064}")
    return VersionFields(parameters={"epochs": number}, labelmap={"0": f"label {number}"}, image=image)

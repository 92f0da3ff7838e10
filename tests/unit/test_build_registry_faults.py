"""`trainpack build --push` as a process, to a registry that fails: no partial tag, a clear error, a next try.

What the client does about each fault is in `test_registry_push_faults.py`.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import tiny_index
import tiny_project
from hostile_registry import Fault, HostileRegistry, error, hostile_registry
from tiny_project import Project

from builder.lock.pylock import FILE as LOCK

WEIGHT = 200_000
Judge = Callable[[str, str, int], Fault | None]


@pytest.fixture
def registry() -> Iterator[HostileRegistry]:
    with hostile_registry() as running:
        yield running


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A project that was built once, so that each test only pushes."""
    project = tiny_project.make(tmp_path_factory.mktemp("made"), weight=WEIGHT)
    project.built()
    return project


@pytest.fixture
def project(made: Project, registry: HostileRegistry, tmp_path: Path) -> Project:
    copy = made.copied(tmp_path / "project")
    copy.name(f"{registry.address}/team/app")
    return copy


def tags(registry: HostileRegistry) -> set[str]:
    """The tags that there are: the registry takes none whose blobs are not all there."""
    return {name for name in registry.manifests.get("team/app", {}) if not name.startswith("sha256:")}


def after(count: int, method: str, pattern: str, fault: Fault) -> Judge:
    """The fault at each request of a kind, but for the first ones."""
    met = [0]

    def judge(asked: str, path: str, number: int) -> Fault | None:
        fits = asked == method and pattern in path
        met[0] += fits
        return fault if fits and met[0] > count else None

    return judge


def test_a_build_is_pushed_through_everything_that_passes(
    project: Project, registry: HostileRegistry
) -> None:
    cut = Fault(cut_after=random.Random(3).randrange(WEIGHT))
    left = [
        ("PUT", "uploads", Fault(status=500)),
        ("POST", "uploads", Fault(status=429, headers={"Retry-After": "1"})),
        ("PUT", "uploads", cut),
        ("PUT", "uploads", Fault(lost=True)),
        ("PUT", "manifests", Fault(status=503, headers={"Retry-After": "0"})),
        ("PUT", "manifests", Fault(lost=True)),
    ]

    def judge(method: str, path: str, number: int) -> Fault | None:
        found = next((each for each in left if each[0] == method and each[1] in path), None)
        if found:
            left.remove(found)
        return found[2] if found else None

    registry.judge = judge
    registry.token_uses = 12
    built = project.built("--push").json
    assert left == []
    assert len(registry.scopes) > 1
    assert tags(registry) == {built["tag"]}
    assert built["digest"] in registry.manifests["team/app"]


ZERO = f"sha256:{'0' * 64}"
NO_SPACE = error("UNKNOWN", detail="write /x: no space left on device")
REFUSED = error("MANIFEST_INVALID", detail="too many layers")
LASTING = {
    "500 in the middle of an upload": (
        after(2, "PUT", "uploads", Fault(status=500, headers={"Retry-After": "0"})),
        "answers 500",
    ),
    "every connection cut": (after(2, "PUT", "uploads", Fault(cut_after=10)), "does not answer: "),
    "a wrong digest": (
        after(2, "PUT", "uploads", Fault(changes={"Docker-Content-Digest": ZERO})),
        f"the digest {ZERO}, expected sha256:",
    ),
    "a token that ends and is not renewed": (
        after(2, "PUT", "uploads", Fault(status=401)),
        "denies access: 401",
    ),
    "no space left": (
        after(2, "PUT", "uploads", Fault(status=507, body=NO_SPACE)),
        "has no space left: 507 .*on device",
    ),
    "a manifest that is refused": (
        after(0, "PUT", "manifests", Fault(status=400, body=REFUSED)),
        "refuses the manifest: 400 .*too many layers",
    ),
}


def test_layers_are_sent_while_others_still_wait_for_their_wheels(
    made: Project, registry: HostileRegistry, tmp_path: Path
) -> None:
    project = made.copied(tmp_path / "project").with_cold_cache(tmp_path / "cache")
    project.name(f"{registry.address}/team/app")
    lock = project.folder / LOCK
    with tiny_index.served(made.home / "wheels") as index, ThreadPoolExecutor(1) as pool:
        text = lock.read_text(encoding="utf-8")
        lock.write_text(text.replace((made.home / "wheels").as_uri(), index.address), encoding="utf-8")
        index.answer.clear()
        building = pool.submit(project.build, "--push")
        until = time.monotonic() + 30
        # The base's layer, and that of the entrypoint's wheels, which come from a folder.
        while (sent := len(registry.blobs.get("team/app", {}))) < 2 and time.monotonic() < until:
            time.sleep(0.01)
        assert index.asked.is_set()
        index.answer.set()
        assert building.result().code == 0
    assert sent == 2
    assert len(tags(registry)) == 1


@pytest.mark.parametrize(("judge", "said"), LASTING.values(), ids=LASTING.keys())
def test_what_lasts_is_a_clear_error_without_a_tag_and_the_next_try_sends_the_rest_only(
    project: Project, registry: HostileRegistry, judge: Judge, said: str
) -> None:
    registry.judge = judge
    ended = project.build("--push")
    assert ended.code == 1
    assert tags(registry) == set()
    assert tiny_project.error_of(ended).matches(f"{registry.address}/team/app:", said)
    kept = sum(map(len, registry.blobs["team/app"].values()))
    assert kept
    registry.judge = lambda *_: None
    registry.received = 0
    built = project.built("--push").json
    assert tags(registry) == {built["tag"]}
    manifest = len(registry.manifests["team/app"][built["digest"]][1])
    assert registry.received <= sum(map(len, registry.blobs["team/app"].values())) - kept + manifest

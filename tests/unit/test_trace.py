"""Trace: from an image to its versions and back; what is proven, what only recorded, what broken."""

from __future__ import annotations

import socket
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from commands import Ended
from picsellia_standin import Standin
from registries import LABELS, baked, delete, push, push_trained, registry

from builder import engine
from builder.cli.dispatch import run
from builder.errors import UsageError
from builder.models.local.database import FOLDER_VARIABLE
from builder.models.local.store import LocalStore
from builder.models.names import VersionName
from builder.models.records import DIGEST_VARIABLE, DockerImage, VersionFields
from builder.reference import Reference
from builder.trace import FoundImage, link_digest, link_image, link_versions, parse_subject

NAME = VersionName(model="pedestrian", version="v3")
DIGEST, OTHER = f"sha256:{'a' * 64}", f"sha256:{'b' * 64}"
LABEL_LINKS = {
    "lock": LABELS["io.trainpack.lock"],
    "revision": LABELS["org.opencontainers.image.revision"],
    "base": LABELS["org.opencontainers.image.base.name"],
}
Trace = Callable[[str], Ended]


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with registry(tmp_path_factory.mktemp("registry")) as address:
        yield address


@pytest.fixture
def away() -> Iterator[str]:
    """A port that refuses connections and that nobody else can take."""
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        yield f"127.0.0.1:{holder.getsockname()[1]}"


@pytest.fixture(autouse=True)
def _own_store_and_no_engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv(FOLDER_VARIABLE, str(tmp_path / "store"))
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/no-engine.sock")
    engine.client.cache_clear()
    yield
    engine.client.cache_clear()


@pytest.fixture
def reference(host: str) -> str:
    return f"{host}/t{uuid.uuid4().hex}/pedestrian:1.0-0123456789ab"


@pytest.fixture
def trace(capsys: pytest.CaptureFixture[str]) -> Trace:
    def call(subject: str) -> Ended:
        code = run(["trace", subject, "--json"])
        captured = capsys.readouterr()
        return Ended(code, captured.out, captured.err)

    return call


def attached(reference: str, digest: str | None, name: VersionName = NAME) -> None:
    repository, _, tag = reference.rpartition(":")
    with LocalStore() as store:
        store.versions.create(name, VersionFields(image=DockerImage(name=repository, tag=tag, digest=digest)))


def statuses(ended: Ended) -> dict[str, str]:
    return {link["kind"]: link["status"] for link in ended.json["links"]}


def test_a_version_leads_to_its_image_and_on_to_lock_and_commit(reference: str, trace: Trace) -> None:
    pushed = push_trained(reference)
    attached(reference, pushed.digest)
    ended = trace("pedestrian/v3")
    image = f"{reference}@{pushed.digest}"
    assert ended.code == 0
    assert ended.json == {
        "subject": "local:pedestrian/v3",
        "links": [
            {
                "kind": "image",
                "from": "local:pedestrian/v3",
                "to": image,
                "status": "proven",
                "why": "the registry has this digest under the tag",
            },
            *(
                {
                    "kind": kind,
                    "from": image,
                    "to": value,
                    "status": "recorded",
                    "why": "built from files that were not committed" if kind == "revision" else why,
                }
                for (kind, value), why in zip(LABEL_LINKS.items(), list(LABELS)[1:], strict=True)
            ),
        ],
        "broken": 0,
    }


def test_an_image_leads_to_its_digest_its_labels_and_every_version_that_holds_it(
    reference: str, trace: Trace
) -> None:
    pushed = push_trained(reference)
    attached(reference, pushed.digest)
    attached(reference, None, VersionName(model="by-tag", version="v1"))
    attached("registry.example.com/moved:9", pushed.digest, VersionName(model="by-digest", version="v1"))
    attached("registry.example.com/other:1", OTHER, VersionName(model="unrelated", version="v1"))
    ended = trace(reference)
    assert (ended.code, ended.json["subject"], ended.json["broken"]) == (0, reference, 0)
    assert [(link["kind"], link["to"], link["status"]) for link in ended.json["links"]] == [
        ("digest", pushed.digest, "proven"),
        *((kind, value, "recorded") for kind, value in LABEL_LINKS.items()),
        ("version", "local:by-digest/v1", "proven"),
        ("version", "local:by-tag/v1", "recorded"),
        ("version", "local:pedestrian/v3", "proven"),
    ]
    assert {link["from"] for link in ended.json["links"]} == {reference}


def test_an_image_can_be_named_by_its_digest(reference: str, trace: Trace) -> None:
    pushed = push_trained(reference)
    attached(reference, pushed.digest)
    ended = trace(f"{reference.rpartition(':')[0]}@{pushed.digest}")
    assert (ended.code, statuses(ended)["version"]) == (0, "proven")


def test_the_two_directions_are_shown_as_trees(reference: str, capsys: pytest.CaptureFixture[str]) -> None:
    pushed = push_trained(reference)
    attached(reference, pushed.digest)
    run(["trace", "pedestrian/v3"])
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "local:pedestrian/v3"
    assert lines[1].startswith(f"└─ image: {reference}@{pushed.digest}  [proven:")
    assert lines[2].startswith(f"   ├─ lock: {LABEL_LINKS['lock']}")
    assert lines[-1].startswith("   └─ base: ")
    run(["trace", reference])
    assert "└─ version: local:pedestrian/v3  [proven:" in capsys.readouterr().out


def test_a_label_that_names_the_image_itself_ends_the_tree(
    reference: str, capsys: pytest.CaptureFixture[str]
) -> None:
    push(reference, labels={"org.opencontainers.image.base.name": reference})
    assert run(["trace", reference]) == 0
    assert f"└─ base: {reference}" in capsys.readouterr().out


def test_a_moved_tag_is_broken_in_both_directions(reference: str, trace: Trace) -> None:
    attached(reference, push_trained(reference).digest)
    moved = push_trained(reference, baked(version="2.0"))
    forwards, backwards = trace("pedestrian/v3"), trace(reference)
    assert (forwards.code, forwards.json["broken"]) == (1, 1)
    assert statuses(forwards) == {"image": "broken"}, "the other image's labels say nothing of this one"
    assert moved.digest in forwards.json["links"][0]["why"]
    assert (backwards.code, backwards.json["broken"]) == (1, 1)
    assert statuses(backwards)["version"] == "broken"


def test_an_expected_digest_that_the_tag_no_longer_names_is_broken(reference: str, trace: Trace) -> None:
    pushed = push_trained(reference)
    push_trained(reference, baked(version="2.0"))
    ended = trace(f"{reference}@{pushed.digest}")
    assert (ended.code, statuses(ended)["digest"]) == (1, "broken")


def test_an_image_that_was_removed_is_broken_in_both_directions(reference: str, trace: Trace) -> None:
    pushed = push_trained(reference)
    attached(reference, pushed.digest)
    delete(reference, pushed.digest)
    for subject in ("pedestrian/v3", reference):
        ended = trace(subject)
        assert ended.code == 1
        assert "the registry has no such image" in [link["why"] for link in ended.json["links"]]


def test_a_version_without_a_digest_is_recorded(reference: str, trace: Trace) -> None:
    push_trained(reference)
    attached(reference, None)
    ended = trace("pedestrian/v3")
    assert (ended.code, statuses(ended)["image"]) == (0, "recorded")
    assert ended.json["links"][0]["why"] == "the version holds no digest"


def test_without_the_registry_the_local_store_still_answers_both_ways(away: str, trace: Trace) -> None:
    reference = f"{away}/vision/pedestrian:1.0"
    attached(reference, DIGEST)
    forwards, backwards = trace("pedestrian/v3"), trace(reference)
    assert (forwards.code, statuses(forwards)) == (0, {"image": "recorded"})
    assert "does not answer" in forwards.json["links"][0]["why"]
    assert (backwards.code, statuses(backwards)) == (0, {"version": "recorded"})
    assert backwards.json["links"][0]["to"] == "local:pedestrian/v3"


def test_without_the_registry_a_digest_still_finds_its_version(away: str, trace: Trace) -> None:
    attached(f"{away}/vision/pedestrian:1.0", DIGEST)
    ended = trace(f"{away}/vision/pedestrian@{DIGEST}")
    assert (ended.code, statuses(ended)) == (0, {"digest": "recorded", "version": "proven"})


def test_an_image_that_nobody_knows_is_an_error(host: str, away: str, trace: Trace) -> None:
    for address in (host, away):
        ended = trace(f"{address}/nobody/knows:1")
        assert ended.code == 1
        assert "knows this image" in ended.json["error"]["message"]


def test_a_misspelt_version_is_answered_with_the_one_that_is_meant(trace: Trace) -> None:
    attached("registry.example.com/a:1", DIGEST)
    ended = trace("pedestrain/v3")
    assert ended.code == 1
    assert 'did you mean "pedestrian"' in ended.json["error"]["message"]
    assert "REPOSITORY:TAG" in ended.json["error"]["remedy"]


def test_a_version_without_an_image_has_no_links(trace: Trace, capsys: pytest.CaptureFixture[str]) -> None:
    with LocalStore() as store:
        store.versions.create(NAME, VersionFields())
    ended = trace("pedestrian/v3")
    assert (ended.code, ended.json) == (0, {"subject": "local:pedestrian/v3", "links": [], "broken": 0})
    run(["trace", "pedestrian/v3"])
    assert "no image is attached" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("pedestrian/v3", NAME),
        ("local:pedestrian/v3", NAME),
        ("picsellia:a/b/v3", VersionName(store="picsellia", model="a/b", version="v3")),
        ("resnet1.5/v3", VersionName(model="resnet1.5", version="v3")),
        ("local:host:5000/v3", VersionName(model="host:5000", version="v3")),
        ("pedestrian/v3:1.0", Reference("pedestrian/v3", "1.0")),
        (f"pedestrian/v3@{DIGEST}", Reference("pedestrian/v3", None, DIGEST)),
        ("localhost:5000/a:1", Reference("localhost:5000/a", "1")),
        ("local:5000", Reference("local", "5000")),
    ],
)
def test_a_version_and_an_image_of_one_name_are_told_apart(text: str, expected: object) -> None:
    assert parse_subject(text) == expected


@pytest.mark.parametrize("text", ["", "pedestrian", "localhost:5000/a", "picsellia:/v3", "A B:1", "a@b:c"])
def test_what_is_neither_is_a_usage_error(text: str, trace: Trace) -> None:
    with pytest.raises(UsageError):
        parse_subject(text)
    assert trace(text).code == 2


@pytest.mark.parametrize(
    ("fields", "status"),
    [
        ({}, "proven"),
        ({"docker_env_variables": {}}, "recorded"),
        ({"docker_tag": "edited-by-hand"}, "broken"),
        ({"docker_tag": None}, "broken"),
    ],
)
def test_a_version_of_the_platform_is_traced_without_the_local_store(
    fields: dict[str, Any],
    status: str,
    reference: str,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    trace: Trace,
) -> None:
    (tmp_path / "a-file").write_text("")
    monkeypatch.setenv(FOLDER_VARIABLE, str(tmp_path / "a-file"))
    pushed = push_trained(reference)
    repository, _, tag = reference.rpartition(":")
    env = {DIGEST_VARIABLE: pushed.digest}
    stored = {"docker_image": repository, "docker_tag": tag, "docker_env_variables": env} | fields
    held = {key: value for key, value in stored.items() if value}
    with Standin() as platform:
        platform.add_model_version("pedestrian", "v3", **held)
        monkeypatch.setenv("PICSELLIA_API_TOKEN", platform.token)
        monkeypatch.setenv("PICSELLIA_HOST", platform.url)
        ended = trace("picsellia:pedestrian/v3")
    assert statuses(ended)["image"] == status
    assert ended.code == (status == "broken")


IMAGE = DockerImage(name="registry.example.com/a", tag="1", digest=DIGEST)
UNPROVEN = IMAGE.model_copy(update={"digest": None})


@pytest.mark.parametrize(
    ("image", "found", "status"),
    [
        (IMAGE, FoundImage(registry_digest=DIGEST), "proven"),
        (IMAGE, FoundImage(registry_digest=OTHER, engine_digest=DIGEST), "broken"),
        (IMAGE, FoundImage(engine_digest=DIGEST, why_not="away"), "recorded"),
        (IMAGE, FoundImage(engine_digest=DIGEST, missing=True), "broken"),
        (UNPROVEN, FoundImage(registry_digest=DIGEST), "recorded"),
        (UNPROVEN, FoundImage(missing=True), "broken"),
    ],
)
def test_only_the_registry_proves_an_image(image: DockerImage, found: FoundImage, status: str) -> None:
    assert link_image(NAME, image, found).status == status


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        (FoundImage(), []),
        (FoundImage(registry_digest=DIGEST), [(DIGEST, "proven")]),
        (FoundImage(registry_digest=DIGEST, engine_digest=DIGEST), [(DIGEST, "proven")]),
        (FoundImage(registry_digest=DIGEST, engine_digest=OTHER), [(DIGEST, "broken")]),
        (FoundImage(engine_digest=DIGEST, why_not="away"), [(DIGEST, "recorded")]),
        (FoundImage(engine_digest=DIGEST, missing=True), [(DIGEST, "broken")]),
    ],
)
def test_an_image_of_the_engine_is_held_against_the_registry(
    found: FoundImage, expected: list[tuple[str, str]]
) -> None:
    links = link_digest(Reference(IMAGE.name, IMAGE.tag), found)
    assert [(link.to, link.status) for link in links] == expected


def test_only_a_store_that_answers_gives_versions() -> None:
    assert link_versions(Reference(IMAGE.name, IMAGE.tag), FoundImage(registry_digest=DIGEST), ()) == ()

"""Trace: from an image to its versions and back; what is proven, what only recorded, what broken."""

from __future__ import annotations

import hashlib
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
from builder.models.names import DatasetName, ExperimentName, VersionName
from builder.models.records import (
    DIGEST_VARIABLE,
    DatasetFields,
    DatasetVersion,
    DockerImage,
    Experiment,
    ExperimentFields,
    Log,
    ModelVersion,
    Source,
    VersionFields,
)
from builder.reference import Reference
from builder.trace.links import link_dataset, link_digest, link_image, link_source, link_versions
from builder.trace.records import FoundImage
from builder.trace.subjects import parse_subject

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
    assert ended.json["links"][0]["why"] == "no digest is held"


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
        (DIGEST, DIGEST),
        ("experiment:night/run 1", ExperimentName(project="night", experiment="run 1")),
        (
            "experiment:picsellia:a/b/c",
            ExperimentName(store="picsellia", project="a/b", experiment="c"),
        ),
        ("experiment:1.0", Reference("experiment", "1.0")),
    ],
)
def test_a_version_and_an_image_of_one_name_are_told_apart(text: str, expected: object) -> None:
    assert parse_subject(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "",
        "pedestrian",
        "experiment:run/",
        "sha256:12",
        "localhost:5000/a",
        "picsellia:/v3",
        "A B:1",
        "a@b:c",
    ],
)
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


RUN = ExperimentName(project="night", experiment="run 1")
DATA = DatasetName(dataset="street", version="v1")
PARAMETERS = {"epochs": 9, "hub_token": "private"}


@pytest.fixture
def published(away: str, tmp_path: Path) -> str:
    """An experiment that was run and published as pedestrian/v4; its image's registry is away.

    Returns:
        The image's repository.
    """
    image = DockerImage(name=f"{away}/vision/pedestrian", tag="1", digest=DIGEST)
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "1.jpg").write_bytes(b"image")
    (tmp_path / "outputs").mkdir()
    (tmp_path / "outputs" / "best.pt").write_bytes(b"trained")
    ran = {"image": image.name, "digest": DIGEST, "lock": "1" * 64, "revision": f"{'2' * 40}-dirty"}
    with LocalStore() as store:
        store.versions.create(NAME, VersionFields(image=image, parameters=PARAMETERS))
        store.datasets.add(DATA, DatasetFields(), tmp_path / "images")
        store.experiments.create(RUN, ExperimentFields(), NAME)
        store.experiments.attach_dataset(RUN, "train", DATA)
        log = Log(name="trainpack", type="TABLE", data=ran)
        store.experiments.report(RUN, "SUCCESS", [log], tmp_path / "outputs")
        store.experiments.publish(RUN, VersionName(model="pedestrian", version="v4"))
    return image.name


def links(ended: Ended) -> dict[tuple[str, str], tuple[str, str]]:
    """Of each link whence and what it is: where it leads, and how sure that is."""
    return {(link["from"], link["kind"]): (link["to"], link["status"]) for link in ended.json["links"]}


FROM_V4 = {
    ("local:pedestrian/v4", "experiment"): ("experiment:local:night/run 1", "proven"),
    ("local:pedestrian/v4", "parameters"): ("epochs=9, hub_token=***", "proven"),
    ("local:pedestrian/v4", "dataset train"): ("local:street/v1", "proven"),
    ("experiment:local:night/run 1", "run"): (DIGEST, "proven"),
    (DIGEST, "lock"): ("1" * 64, "recorded"),
    (DIGEST, "revision"): (f"{'2' * 40}-dirty", "recorded"),
}


def test_a_published_version_is_traced_to_its_experiment_data_parameters_lock_and_commit_offline(
    published: str, trace: Trace
) -> None:
    ended = trace("pedestrian/v4")
    assert ended.code == 0, ended.output
    image = {("local:pedestrian/v4", "image"): (f"{published}:1@{DIGEST}", "recorded")}
    assert links(ended) == FROM_V4 | image
    assert "private" not in ended.output


def test_an_experiment_is_traced_back_to_its_version_and_on_to_what_it_was_published_as(
    published: str, trace: Trace
) -> None:
    ended = trace("experiment:night/run 1")
    own = "experiment:local:night/run 1"
    assert ended.code == 0
    assert links(ended) == {
        (own, "image"): (f"{published}:1@{DIGEST}", "recorded"),
        (own, "run"): (DIGEST, "proven"),
        (DIGEST, "lock"): ("1" * 64, "recorded"),
        (DIGEST, "revision"): (f"{'2' * 40}-dirty", "recorded"),
        (own, "base version"): ("local:pedestrian/v3", "proven"),
        (own, "parameters"): ("epochs=9, hub_token=***", "recorded"),
        (own, "dataset train"): ("local:street/v1", "proven"),
        (own, "version"): ("local:pedestrian/v4", "proven"),
    }


def test_a_version_leads_to_the_experiments_that_were_made_from_it(published: str, trace: Trace) -> None:
    found = links(trace("pedestrian/v3"))
    assert found["local:pedestrian/v3", "experiment from it"] == ("experiment:local:night/run 1", "proven")


def test_a_digest_alone_leads_to_versions_and_experiments_and_their_data(
    published: str, trace: Trace
) -> None:
    ended = trace(DIGEST)
    assert (ended.code, ended.json["subject"]) == (0, f"{published}@{DIGEST}")
    found = {(link["kind"], link["to"], link["status"]) for link in ended.json["links"]}
    assert {
        ("version", "local:pedestrian/v3", "proven"),
        ("version", "local:pedestrian/v4", "proven"),
        ("experiment", "experiment:local:night/run 1", "proven"),
        ("dataset train", "local:street/v1", "proven"),
    } <= found


def test_a_digest_that_nobody_knows_is_an_error(published: str, trace: Trace) -> None:
    ended = trace(OTHER)
    assert (ended.code, "knows this digest" in ended.json["error"]["message"]) == (1, True)


def test_an_artifacts_file_is_traced_by_its_content(
    published: str, trace: Trace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    renamed = tmp_path / "model-from-a-mail.pt"
    renamed.write_bytes(b"trained")
    ended = trace(str(renamed))
    assert ended.code == 0, ended.output
    found = links(ended)
    files = [link for link in ended.json["links"] if link["kind"] == "file best.pt"]
    assert {link["to"] for link in files} == {"experiment:local:night/run 1", "local:pedestrian/v4"}
    assert {link["status"] for link in files} == {"proven"}
    assert FROM_V4.items() <= found.items()
    monkeypatch.chdir(tmp_path)
    (tmp_path / "images" / "v9").write_bytes(b"image")
    assert {link["to"] for link in trace("images/v9").json["links"]} == {"local:street/v1"}
    assert trace("local:images/v9").code == 1, "a store's name says that it is a version"


def test_a_file_that_nothing_has_is_an_error_with_its_hash(
    published: str, trace: Trace, tmp_path: Path
) -> None:
    (tmp_path / "other.pt").write_bytes(b"another")
    ended = trace(str(tmp_path / "other.pt"))
    assert ended.code == 1
    assert hashlib.sha256(b"another").hexdigest() in ended.json["error"]["details"][0]


def test_parameters_or_an_image_that_were_changed_after_publishing_are_broken(
    published: str, trace: Trace
) -> None:
    v4 = VersionName(model="pedestrian", version="v4")
    with LocalStore() as store:
        store.versions.update(v4, VersionFields(parameters={"epochs": 10, "hub_token": "private"}))
    ended = trace("pedestrian/v4")
    assert (ended.code, ended.json["broken"], statuses(ended)["parameters"]) == (1, 1, "broken")
    assert "the experiment has others: epochs" in ended.output
    with LocalStore() as store:
        image = DockerImage(name=published, tag="2", digest=OTHER)
        store.versions.update(v4, VersionFields(image=image, parameters=PARAMETERS))
    ended = trace("pedestrian/v4")
    assert (ended.code, statuses(ended)["experiment"]) == (1, "broken")
    assert trace("experiment:night/run 1").code == 1


def test_an_experiment_that_ran_another_image_than_it_names_is_broken(published: str, trace: Trace) -> None:
    with LocalStore() as store:
        image = DockerImage(name=published, tag="2", digest=OTHER)
        store.experiments.update(RUN, ExperimentFields(image=image))
    ended = trace("experiment:night/run 1")
    assert (ended.code, statuses(ended)["run"]) == (1, "broken")


def test_a_misspelt_experiment_is_answered_with_how_to_name_one(published: str, trace: Trace) -> None:
    ended = trace("experiment:nihgt/run 1")
    assert (ended.code, "experiment:[STORE:]" in ended.json["error"]["remedy"]) == (1, True)


def test_a_tree_that_leads_back_to_itself_ends(published: str, capsys: pytest.CaptureFixture[str]) -> None:
    for subject in ("experiment:night/run 1", "pedestrian/v3", DIGEST):
        assert run(["trace", subject]) == 0
    assert "experiment:local:night/run 1" in capsys.readouterr().out


EXPERIMENT = Experiment(
    id="1", name=RUN, fields=ExperimentFields(image=IMAGE, parameters={"epochs": 9}), base=NAME
)
SOURCED = ModelVersion(
    id="1",
    name=NAME,
    fields=VersionFields(image=IMAGE, parameters={"epochs": 9}),
    source=Source(experiment=RUN),
)


@pytest.mark.parametrize(
    ("experiment", "known", "expected"),
    [
        (EXPERIMENT, True, ["proven", "proven"]),
        (None, True, ["broken", "recorded"]),
        (None, False, ["recorded", "recorded"]),
        (EXPERIMENT.model_copy(update={"fields": ExperimentFields()}), True, ["recorded", "broken"]),
    ],
)
def test_a_source_is_proven_only_by_what_matches(
    experiment: Experiment | None, known: bool, expected: list[str]
) -> None:
    found = link_source(SOURCED, experiment, known=known)
    assert [link.status for link in found] == expected


@pytest.mark.parametrize(
    ("dataset", "status"),
    [
        (DatasetVersion(id="1", name=DATA, fields=DatasetFields(), digest=DIGEST), "proven"),
        (DatasetVersion(id="1", name=DATA, fields=DatasetFields(reference="/data")), "recorded"),
        (None, "broken"),
    ],
)
def test_a_dataset_is_proven_only_where_its_files_are_held(
    dataset: DatasetVersion | None, status: str
) -> None:
    assert link_dataset("local:a/b", "train", DATA, dataset).status == status

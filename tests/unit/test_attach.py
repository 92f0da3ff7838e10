"""Attach: what the version holds afterwards, what is refused before any write, what is read back."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from commands import Ended
from hypothesis import given
from hypothesis import strategies as st
from picsellia_standin import Standin
from registries import LABELS, Pushed, baked, delete, layer, push, push_trained, registry

from builder.attach import attach
from builder.checks.report import CheckResult, Report, remember_report, write_report
from builder.cli.dispatch import run
from builder.errors import NotFoundError, ReadBackError, UsageError
from builder.host.credentials import make_credentials
from builder.models import stores
from builder.models.compare import diff
from builder.models.local.blobs import Blobs
from builder.models.local.database import FOLDER_VARIABLE
from builder.models.local.files import Files
from builder.models.local.store import LocalStore
from builder.models.local.versions import LocalVersions
from builder.models.names import VersionName
from builder.models.picsellia import PicselliaStore
from builder.models.records import DIGEST_VARIABLE, DockerImage, ModelVersion, Source, VersionFields
from builder.models.transport import Patience
from builder.plan import BuiltImage, PublishedImage
from builder.workdir import remember_build, remember_push

SPEC = """
[image]
name = "{repository}"
[run]
script = "train.py"
flags = ["--ipc host", "--gpus all", "--ulimit", "memlock=-1"]
env = {{ architecture = "resnet18", HUB_TOKEN = "hf_env_private" }}
[model]
version = "pedestrian/v3"
framework = "PYTORCH"
type = "OBJECT_DETECTION"
description = "finds people"
[parameters]
epochs = 10
data_seed = {{ type = "int", required = true }}
resume = {{ type = "str", optional = true }}
hub_token = "hf_private"
[labelmap]
0 = "car"
1 = "person"
"""
FLAGS = ("--gpus=all", "--ipc=host", "--ulimit=memlock=-1")
ENV = {"architecture": "resnet18", "HUB_TOKEN": "hf_env_private"}
NAME = VersionName(model="pedestrian", version="v3")
IMAGE = DockerImage(
    name="registry.example.com/a",
    tag="1",
    digest=f"sha256:{'ab' * 32}",
    flags=("--rm",),
    env={"API_KEY": "private"},
)
OTHER_ID = f"sha256:{'0' * 64}"
FIELDS = VersionFields(
    description="finds people",
    framework="PYTORCH",
    type="OBJECT_DETECTION",
    labelmap={"0": "car", "1": "person"},
    parameters={"epochs": 10},
    image=IMAGE,
)
ODD_MANIFEST = json.dumps(baked().to_json() | {"parameters": []}).encode()
Cli = Callable[..., Ended]


@dataclass(frozen=True)
class Project:
    """A folder whose last build was pushed and tested."""

    folder: Path
    repository: str
    pushed: Pushed

    @property
    def reference(self) -> str:
        return self.pushed.reference

    def edit(self, old: str, new: str) -> None:
        path = self.folder / "trainpack.toml"
        text = path.read_text()
        assert old in text
        path.write_text(text.replace(old, new))

    def report(self, status: Any = "passed", image_id: str | None = None) -> Report:
        check = CheckResult(name="non-root", status=status, proves="it does not run as root")
        return Report(reference=self.reference, image_id=image_id or self.pushed.image_id, results=(check,))


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with registry(tmp_path_factory.mktemp("registry")) as address:
        yield address


@pytest.fixture(autouse=True)
def _own_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(FOLDER_VARIABLE, str(tmp_path / "store"))
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))


@pytest.fixture
def unpushed(host: str, tmp_path: Path) -> Project:
    repository = f"{host}/t{uuid.uuid4().hex}/pedestrian"
    folder = tmp_path / "project"
    folder.mkdir()
    (folder / "train.py").write_text("print('training')\n")
    (folder / "trainpack.toml").write_text(SPEC.format(repository=repository))
    pushed = push_trained(f"{repository}:1.0-0123456789ab")
    image = BuiltImage(
        reference=pushed.reference,
        image_id=pushed.image_id,
        digest=None,
        tag="1.0-0123456789ab",
        size=1,
        layers=(),
    )
    remember_build(folder, image)
    return Project(folder, repository, pushed)


@pytest.fixture
def untested(unpushed: Project) -> Project:
    pushed = unpushed.pushed
    remember_push(
        unpushed.folder,
        PublishedImage(reference=pushed.reference, image_id=pushed.image_id, digest=pushed.digest),
    )
    return unpushed


@pytest.fixture
def project(untested: Project) -> Project:
    remember_report(untested.folder, untested.report())
    return untested


@pytest.fixture
def cli(capsys: pytest.CaptureFixture[str], unpushed: Project) -> Cli:
    def call(*arguments: str) -> Ended:
        code = run(["attach", "--folder", str(unpushed.folder), *arguments])
        captured = capsys.readouterr()
        return Ended(code, captured.out, captured.err)

    return call


@pytest.fixture
def on_platform(platform: Standin, monkeypatch: pytest.MonkeyPatch) -> PicselliaStore:
    """The platform's store, which the command line opens too, without long pauses between its tries."""
    credentials = make_credentials({"token": platform.token, "host": platform.url}, "the test")
    store = PicselliaStore.connect(credentials, Patience(tries=2, pause=0.001))
    monkeypatch.setattr(stores, "open_store", lambda name: store)
    return store


def words(text: str) -> str:
    """The text without what only aligns it."""
    return " ".join(text.split())


def held() -> VersionFields | None:
    """What the local store holds of the version, None when there is none."""
    with LocalStore() as store, suppress(NotFoundError):
        return store.versions.get(NAME).fields
    return None


def expected(project: Project) -> VersionFields:
    return VersionFields(
        description="finds people",
        framework="PYTORCH",
        type="OBJECT_DETECTION",
        labelmap={"0": "car", "1": "person"},
        parameters={"epochs": 10, "resume": None},
        image=DockerImage(
            name=project.repository,
            tag="1.0-0123456789ab",
            digest=project.pushed.digest,
            flags=FLAGS,
            env=ENV,
        ),
    )


def test_every_field_is_written_to_the_local_store(project: Project, cli: Cli) -> None:
    ended = cli("--create")
    assert ended.code == 0, ended.output
    assert held() == expected(project)


def test_every_field_is_written_to_the_platform(
    project: Project, cli: Cli, platform: Standin, on_platform: PicselliaStore
) -> None:
    ended = cli("picsellia:pedestrian/v3", "--create")
    assert ended.code == 0, ended.output
    (version,) = platform.versions.values()
    wanted = expected(project)
    assert {key: value for key, value in version.fields.items() if value is not None} == {
        "description": "finds people",
        "framework": "PYTORCH",
        "type": "OBJECT_DETECTION",
        "labels": wanted.labelmap,
        "parameters": wanted.parameters,
        "docker_image": project.repository,
        "docker_tag": "1.0-0123456789ab",
        "docker_flags": list(FLAGS),
        "docker_env_variables": {**ENV, DIGEST_VARIABLE: project.pushed.digest},
    }


def test_the_difference_is_shown_and_the_result_is_told_as_json(project: Project, cli: Cli) -> None:
    ended = cli("--create", "--json")
    assert ended.json["written"] is True
    assert ended.json["version"] == {"store": "local", "model": "pedestrian", "version": "v3"}
    assert ended.json["image"]["digest"] == project.pushed.digest
    assert {change["field"]: change["after"] for change in ended.json["changes"]} == {
        "description": "finds people",
        "framework": "PYTORCH",
        "type": "OBJECT_DETECTION",
        "labelmap.0": "car",
        "labelmap.1": "person",
        "parameters.epochs": 10,
        "parameters.resume": None,
        "env.architecture": "resnet18",
        "env.HUB_TOKEN": "***",
        "image.name": project.repository,
        "image.tag": "1.0-0123456789ab",
        "image.digest": project.pushed.digest,
        "image.flags": list(FLAGS),
    }
    assert project.pushed.digest in ended.stderr


def test_no_secret_is_printed_and_no_secret_default_is_written(project: Project, cli: Cli) -> None:
    for options in (["--create"], ["--json"], ["--dry-run"]):
        ended = cli(*options)
        assert "private" not in ended.output
    assert "the default of hub_token is not written" in ended.stderr
    fields = held()
    assert fields is not None
    assert "hub_token" not in (fields.parameters or {})


def test_what_is_not_configured_is_not_written(project: Project, cli: Cli) -> None:
    project.edit('framework = "PYTORCH"\n', 'framework = "NOT_CONFIGURED"\n')
    project.edit('type = "OBJECT_DETECTION"\n', "")
    project.edit('description = "finds people"\n', "")
    stored = VersionFields(framework="ONNX", type="POINT", description="by hand")
    with LocalStore() as store:
        store.versions.create(NAME, stored)
    assert cli().code == 0
    fields = held()
    assert fields is not None
    assert (fields.framework, fields.type, fields.description) == ("ONNX", "POINT", "by hand")


def test_a_dry_run_shows_the_difference_and_writes_nothing(project: Project, cli: Cli) -> None:
    with LocalStore() as store:
        store.versions.create(NAME, VersionFields(parameters={"epochs": 3}))
    ended = cli("--dry-run")
    assert ended.code == 0
    assert "parameters.epochs  3       →  10" in ended.stderr
    assert "nothing was written" in ended.stdout
    assert held() == VersionFields(parameters={"epochs": 3})


def test_a_dry_run_with_create_makes_nothing(project: Project, cli: Cli) -> None:
    assert cli("--dry-run", "--create").code == 0
    assert held() is None


def test_a_second_attach_changes_nothing(project: Project, cli: Cli) -> None:
    cli("--create")
    ended = cli("--json")
    assert (ended.code, ended.json["changes"], ended.json["written"]) == (0, [], False)
    with LocalStore() as store:
        assert store.versions.history(NAME) == ()


def test_only_what_differs_is_named(project: Project, cli: Cli) -> None:
    cli("--create")
    project.edit("resnet18", "resnet50")
    assert [change["field"] for change in cli("--json").json["changes"]] == ["env.architecture"]
    fields = held()
    assert fields is not None
    assert fields.image is not None
    assert fields.image.env["architecture"] == "resnet50"


def test_an_attach_leaves_the_former_state_in_the_history(project: Project, cli: Cli) -> None:
    with LocalStore() as store:
        store.versions.create(NAME, VersionFields(description="before"))
        cli()
        assert [state.fields for state in store.versions.history(NAME)] == [
            VersionFields(description="before")
        ]


def test_a_missing_version_is_refused_with_the_way_to_create_it(project: Project, cli: Cli) -> None:
    ended = cli("--json")
    assert ended.code == 1
    assert "--create" in ended.json["error"]["remedy"]
    assert held() is None


@pytest.mark.parametrize("tag", [":latest", ""])
def test_latest_and_a_missing_tag_are_refused(project: Project, cli: Cli, tag: str) -> None:
    push_trained(f"{project.repository}:latest")
    for digest in ("", f"@{project.pushed.digest}"):
        ended = cli("--create", "--force", "--image", f"{project.repository}{tag}{digest}")
        assert ended.code == 2
        assert "tag" in ended.stderr
    assert held() is None


@pytest.mark.parametrize("named", [False, True])
def test_a_tag_that_was_moved_since_the_push_is_refused_even_by_force(
    project: Project, cli: Cli, named: bool
) -> None:
    image = ["--image", f"{project.reference}@{project.pushed.digest}"] if named else []
    moved = push_trained(project.reference, baked(version="2.0"))
    ended = cli("--create", "--force", *image)
    assert ended.code == 1
    assert project.pushed.digest in ended.stderr
    assert moved.digest in ended.stderr
    assert held() is None


def test_an_image_that_is_not_in_its_registry_is_refused(project: Project, cli: Cli) -> None:
    delete(project.reference, project.pushed.digest)
    ended = cli("--create", "--force")
    assert (ended.code, "has no such image" in ended.stderr) == (1, True)
    assert held() is None


def test_an_image_of_someone_else_is_refused(project: Project, cli: Cli) -> None:
    foreign = push(f"{project.repository}:foreign")
    ended = cli("--create", "--force", "--image", foreign.reference)
    assert (ended.code, "was not built by trainpack" in ended.stderr) == (1, True)
    assert held() is None


@pytest.mark.parametrize("manifest", [b"not json", b"[]", b"{}", ODD_MANIFEST])
def test_a_baked_manifest_that_cannot_be_read_is_told(project: Project, cli: Cli, manifest: bytes) -> None:
    odd = push(f"{project.repository}:odd", [layer({"opt/trainpack/image.json": manifest})], LABELS)
    ended = cli("--create", "--force", "--image", odd.reference)
    assert (ended.code, "image.json cannot be read" in ended.stderr) == (1, True)


def test_an_unpushed_build_is_refused(unpushed: Project, cli: Cli) -> None:
    ended = cli("--create")
    assert (ended.code, "`trainpack push`" in ended.stderr) == (2, True)
    assert held() is None


def test_a_folder_without_a_build_is_refused(project: Project, cli: Cli) -> None:
    (project.folder / ".trainpack" / "last-build.json").unlink()
    ended = cli("--create")
    assert (ended.code, "`trainpack build`" in ended.stderr) == (2, True)


def test_an_untested_image_is_refused_and_force_is_loud(untested: Project, cli: Cli) -> None:
    ended = cli("--create")
    assert (ended.code, "was not tested" in ended.stderr) == (1, True)
    assert held() is None
    forced = cli("--create", "--force")
    assert forced.code == 0
    assert f"WARNING: attaching with --force although this image was not tested ({untested.reference})" in (
        forced.stderr
    )
    assert held() == expected(untested)


@pytest.mark.parametrize(("status", "told"), [("failed", "failed: non-root"), ("skipped", "ran no check")])
def test_an_image_that_did_not_pass_is_refused(untested: Project, cli: Cli, status: str, told: str) -> None:
    remember_report(untested.folder, untested.report(status))
    ended = cli("--create")
    assert (ended.code, told in ended.stderr) == (1, True)
    assert held() is None


def test_a_test_record_from_another_stage_is_taken(untested: Project, cli: Cli, tmp_path: Path) -> None:
    write_report(tmp_path / "record.json", untested.report())
    assert cli("--create", "--tested", str(tmp_path / "record.json")).code == 0


def test_a_test_record_of_another_image_is_refused_though_this_one_was_tested_here(
    project: Project, cli: Cli, tmp_path: Path
) -> None:
    write_report(tmp_path / "record.json", project.report(image_id=OTHER_ID))
    ended = cli("--create", "--tested", str(tmp_path / "record.json"))
    assert ended.code == 1
    assert OTHER_ID in ended.stderr
    assert project.pushed.image_id in ended.stderr
    assert held() is None


def test_a_test_record_that_is_missing_or_no_record_is_a_usage_error(
    project: Project, cli: Cli, tmp_path: Path
) -> None:
    (tmp_path / "record.json").write_text("{}")
    assert cli("--create", "--tested", str(tmp_path / "record.json")).code == 2
    assert cli("--create", "--tested", str(tmp_path / "missing.json")).code == 2
    assert held() is None


def test_a_spec_without_a_version_needs_one_named(project: Project, cli: Cli) -> None:
    project.edit('version = "pedestrian/v3"\n', "")
    assert cli("--create").code == 2
    assert cli("pedestrian/v3", "--create").code == 0
    assert cli("just-a-name").code == 2


def test_what_was_built_is_attached_when_the_spec_changed_after_the_build(project: Project, cli: Cli) -> None:
    project.edit("epochs = 10", "epochs = 99")
    project.edit('1 = "person"', '1 = "tram"')
    ended = cli("--create")
    assert "[parameters] of trainpack.toml changed after the build" in ended.stderr
    assert "[labelmap] of trainpack.toml changed after the build" in ended.stderr
    assert held() == expected(project)


def test_an_unchanged_spec_is_not_said_to_have_changed(project: Project, cli: Cli) -> None:
    assert "changed after the build" not in cli("--create").stderr


def test_a_tag_that_names_another_image_than_the_tested_one_is_refused(
    project: Project, cli: Cli, tmp_path: Path
) -> None:
    write_report(tmp_path / "record.json", project.report())
    content = json.dumps(baked(version="2.0").to_json()).encode()
    moved = push(
        project.reference, [layer({"opt/trainpack/image.json": content})], LABELS | {"of": "another build"}
    )
    ended = cli("--create", "--image", project.reference, "--tested", str(tmp_path / "record.json"))
    assert ended.code == 1
    assert project.pushed.image_id in ended.stderr
    assert moved.image_id in ended.stderr
    assert held() is None


def test_latest_is_attached_only_when_it_is_allowed_and_with_a_warning(project: Project, cli: Cli) -> None:
    push_trained(f"{project.repository}:latest")
    image = ["--image", f"{project.repository}:latest"]
    assert cli("--create", *image).code == 2
    ended = cli("--create", *image, "--allow-latest", "--force")
    assert (ended.code, "latest moves" in ended.stderr) == (0, True), ended.output
    fields = held()
    assert fields is not None
    assert fields.image is not None
    assert (fields.image.tag, fields.image.digest) == ("latest", project.pushed.digest)


def test_a_dangerous_flag_is_attached_only_when_the_command_or_the_spec_names_it(
    project: Project, cli: Cli
) -> None:
    project.edit("flags = [", 'flags = ["--device=/dev/fuse", ')
    refused = cli("--create")
    assert (refused.code, "opens a device of the host" in refused.stderr) == (2, True)
    assert held() is None
    allowed = cli("--create", "--allow", "device")
    assert allowed.code == 0, allowed.output
    assert "--device=/dev/fuse allowed by name: it opens a device of the host" in words(allowed.stdout)
    project.edit("flags = [", 'allow-flags = ["device"]\nflags = [')
    assert cli().code == 0


def test_what_was_sent_is_explained_flag_by_flag(project: Project, cli: Cli) -> None:
    assert "--gpus=all which GPUs it sees" in words(cli("--create").stdout)


def test_a_rollback_restores_what_the_version_held(project: Project, cli: Cli) -> None:
    before = VersionFields(description="by hand", notebook_link="https://example.com", parameters={"x": 1})
    with LocalStore() as store:
        store.versions.create(NAME, before)
    cli()
    ended = cli("--rollback")
    assert ended.code == 0, ended.output
    assert "is what it was before the attach" in ended.stdout
    assert "parameters.epochs 10 → (none)" in words(ended.stderr)
    assert "private" not in ended.output
    assert held() == before
    again = cli("--rollback", "--json")
    assert (again.code, "nothing to roll back" in again.json["error"]["message"]) == (1, True)


def test_a_rollback_needs_no_project_when_the_version_is_named(
    project: Project, cli: Cli, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cli("--create")
    (tmp_path / "empty").mkdir()
    assert run(["attach", "local:pedestrian/v3", "--rollback", "-C", str(tmp_path / "empty")]) == 0
    assert held() == VersionFields()


def test_a_record_is_rolled_back_on_another_machine(
    project: Project, cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with LocalStore() as store:
        store.versions.create(NAME, VersionFields(description="by hand"))
    record = tmp_path / "record.json"
    assert cli("--record", str(record)).code == 0
    for path in (tmp_path / "store" / "attached").rglob("*.json"):
        path.unlink()
    assert cli("--rollback").code == 1
    assert cli("--rollback", "--record", str(record)).code == 0
    assert held() == VersionFields(description="by hand")


def test_a_rollback_is_refused_over_a_later_change_and_shows_it(project: Project, cli: Cli) -> None:
    cli("--create")
    with LocalStore() as store:
        store.versions.update(NAME, VersionFields(framework="ONNX"))
    ended = cli("--rollback")
    assert (ended.code, "framework: attached 'PYTORCH', is now 'ONNX'" in ended.stderr) == (1, True)
    assert cli("--rollback", "--dry-run", "--force").code == 0
    assert cli("--rollback", "--force").code == 0
    assert held() == VersionFields()


def test_a_patch_that_the_platform_fails_leaves_the_version_as_it_was(
    project: Project, cli: Cli, platform: Standin, on_platform: PicselliaStore
) -> None:
    version = platform.versions[platform.add_model_version("pedestrian", "v3", parameters={"epochs": 3})]
    before = dict(version.fields)
    platform.fail("PATCH", "/api/model/version/", status=500, times=None)
    ended = cli("picsellia:pedestrian/v3")
    assert (ended.code, "the platform failed" in ended.stderr) == (1, True)
    assert ended.stdout == ""
    assert version.fields == before


class LossyVersions(LocalVersions):
    """Versions that lose what they are told to lose, and say that all went well."""

    def __init__(self, store: LocalStore, fields: dict[str, Any], image: dict[str, Any]) -> None:
        super().__init__(store.database, Files(store.database, Blobs(store.folder)))
        self._fields, self._image = fields, image

    def _lossy(self, fields: VersionFields) -> VersionFields:
        image = fields.image and fields.image.model_copy(update=self._image)
        return fields.model_copy(update={"image": image, **self._fields})

    def create(self, name: VersionName, fields: VersionFields, source: Source | None = None) -> ModelVersion:
        return super().create(name, self._lossy(fields), source)

    def update(self, name: VersionName, fields: VersionFields) -> ModelVersion:
        return super().update(name, self._lossy(fields))


class LossyStore(LocalStore):
    """The local store with `LossyVersions`."""

    def __init__(self, fields: dict[str, Any], image: dict[str, Any]) -> None:
        super().__init__()
        self.versions = LossyVersions(self, fields, image)


@pytest.mark.parametrize("existing", [False, True])
@pytest.mark.parametrize(
    ("fields", "image", "named"),
    [
        ({"labelmap": None}, {}, ["labelmap.0", "labelmap.1"]),
        ({"framework": None, "type": None}, {}, ["framework", "type"]),
        ({"description": "other"}, {}, ["description"]),
        ({"parameters": {"epochs": 10.5}}, {}, ["parameters.epochs"]),
        ({"image": None}, {}, ["env.API_KEY", "image.digest", "image.flags", "image.name", "image.tag"]),
        ({}, {"digest": None}, ["image.digest"]),
        ({}, {"flags": ()}, ["image.flags"]),
        ({}, {"env": {}}, ["env.API_KEY"]),
    ],
)
def test_what_was_not_stored_is_found_and_named(
    fields: dict[str, Any], image: dict[str, Any], named: list[str], existing: bool
) -> None:
    store = LossyStore(fields, image)
    if existing:
        store.versions.create(NAME, VersionFields(image=IMAGE))
    with pytest.raises(ReadBackError, match=f"not hold what was written: {', '.join(named)}$") as caught:
        attach(store, NAME, FIELDS, create=True)
    assert [line.partition(":")[0] for line in caught.value.details] == named
    assert "private" not in str(caught.value.details)


def test_a_write_that_was_not_stored_ends_with_1_and_no_word_of_success(
    project: Project, cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stores, "open_store", lambda name: LossyStore({"labelmap": None}, {}))
    ended = cli("--create")
    assert (ended.code, ended.stdout) == (1, "")
    assert "labelmap.0: wrote 'car', read None" in ended.stderr


def test_the_difference_is_announced_before_anything_is_written(tmp_path: Path) -> None:
    seen: list[VersionFields | None] = []
    with LocalStore() as store:
        attach(store, NAME, FIELDS, create=True, announce=lambda _: seen.append(held()))
    assert seen == [None]
    assert held() == FIELDS


def test_without_an_image_there_is_nothing_to_attach() -> None:
    with LocalStore() as store, pytest.raises(UsageError, match="no image"):
        attach(store, NAME, VersionFields(), create=True)


def test_an_empty_table_or_text_and_none_are_the_same() -> None:
    nothing, empty = VersionFields(), VersionFields(parameters={}, labelmap={}, description="")
    assert diff(nothing, empty) == diff(empty, nothing) == ()
    assert diff(empty, FIELDS) == diff(nothing, FIELDS) != ()


def test_what_is_not_written_is_no_difference() -> None:
    (change,) = diff(FIELDS, VersionFields(framework="ONNX"))
    assert (change.field, change.before, change.after) == ("framework", "PYTORCH", "ONNX")


@pytest.mark.parametrize(("before", "after"), [(1, True), (0, False), (1, "1"), (None, 0), ([1], [2])])
def test_values_of_another_type_differ(before: Any, after: Any) -> None:
    (change,) = diff(VersionFields(parameters={"x": before}), VersionFields(parameters={"x": after}))
    assert (change.before, change.after) == (before, after)


VALUES = st.none() | st.booleans() | st.integers() | st.text() | st.lists(st.integers())
PARAMETERS = st.dictionaries(st.text(), VALUES)


@given(PARAMETERS, PARAMETERS)
def test_the_difference_names_exactly_the_keys_that_differ(
    before: dict[str, Any], after: dict[str, Any]
) -> None:
    changes = diff(VersionFields(parameters=before), VersionFields(parameters=after))
    wanted = {
        key
        for key in before | after
        if key not in before or key not in after or json.dumps(before[key]) != json.dumps(after[key])
    }
    assert [change.field for change in changes] == sorted(f"parameters.{key}" for key in wanted)


@given(st.text(min_size=1), st.text(min_size=1))
def test_a_secret_that_differs_is_named_and_never_shown(before: str, after: str) -> None:
    old = IMAGE.model_copy(update={"env": {"API_KEY": before}})
    new = IMAGE.model_copy(update={"env": {"API_KEY": after}})
    changes = diff(VersionFields(image=old), VersionFields(image=new))
    assert len(changes) == (before != after)
    assert all((change.before, change.after) == ("***", "***") for change in changes)

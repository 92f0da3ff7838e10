"""`trainpack models`, `experiments` and `datasets`: what they make, show and refuse."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from commands import Ended
from picsellia_standin import Standin

from builder.cli.dispatch import run
from builder.errors import StoreError
from builder.models.local.database import FOLDER_VARIABLE
from builder.models.local.store import LocalStore
from builder.models.names import VersionName
from builder.models.records import DockerImage, ModelVersion, VersionFields

IMAGE = DockerImage(
    name="registry.example.com/vision/pedestrian",
    tag="1.2.0-0123456789ab",
    digest=f"sha256:{'ab' * 32}",
    flags=("--gpus=all", "--ipc=host"),
    env={"architecture": "resnet18", "HUB_TOKEN": "hf_private"},
)
FIELDS = VersionFields(
    framework="PYTORCH",
    parameters={"epochs": 10, "hub_token": "hf_private"},
    labelmap={"0": "car"},
    image=IMAGE,
)
EMPTY = dict.fromkeys(VersionFields.model_fields)
Models = Callable[..., Ended]


@pytest.fixture(autouse=True)
def _own_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(FOLDER_VARIABLE, str(tmp_path / "store"))


@pytest.fixture
def models(capsys: pytest.CaptureFixture[str]) -> Models:
    def call(*arguments: str) -> Ended:
        code = run(["models", *arguments])
        captured = capsys.readouterr()
        return Ended(code, captured.out, captured.err)

    return call


def fill(*names: str) -> None:
    with LocalStore() as store:
        for name in names:
            store.versions.create(
                VersionName.parse(name), FIELDS if name == "pedestrian/v3" else VersionFields()
            )


def test_an_empty_store_lists_nothing(models: Models) -> None:
    assert models("list", "--json").json == []
    ended = models("list")
    assert (ended.code, ended.stdout.split()) == (0, ["version", "framework", "type", "image"])


def test_versions_are_listed_with_their_images(models: Models) -> None:
    fill("pedestrian/v3", "team/car/v1", "pedestrian/v2")
    assert models("list").stdout.splitlines() == [
        "version              framework  type  image",
        "local:pedestrian/v2  -          -     (no image)",
        f"local:pedestrian/v3  PYTORCH    -     {IMAGE.name}:{IMAGE.tag}",
        "local:team/car/v1    -          -     (no image)",
    ]
    listed = models("list", "local", "--json").json
    assert [version["name"]["model"] for version in listed] == ["pedestrian", "pedestrian", "team/car"]
    assert (listed[1]["image"], listed[1]["digest"]) == (f"{IMAGE.name}:{IMAGE.tag}", IMAGE.digest)


@pytest.mark.parametrize("options", [(), ("local",), ("--json",), ("local", "--json")])
def test_the_local_list_loads_neither_typer_nor_pydantic_and_prints_the_same(
    models: Models, options: tuple[str, ...]
) -> None:
    fill("pedestrian/v3", "team/car/v1")
    script = (
        "import sys, builder.cli\n"
        "try: builder.cli.main()\n"
        "finally: print(*{'typer', 'pydantic', 'docker'} & sys.modules.keys(), file=sys.stderr)"
    )
    command = [sys.executable, "-c", script, "models", "list", *options]
    ended = subprocess.run(command, capture_output=True, text=True, check=True)
    assert (ended.stdout, ended.stderr) == (models("list", *options).stdout, "\n")


def test_a_local_list_that_fails_is_told_like_any_command(tmp_path: Path) -> None:
    (tmp_path / "store").write_text("in the way")
    command = [sys.executable, "-c", "import builder.cli; builder.cli.main()", "models", "list"]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stdout) == (1, "")
    assert ended.stderr.count("cannot be made: File exists") == 1
    assert "TRAINPACK_STORE" in ended.stderr


def test_show_tells_everything_but_secrets(models: Models) -> None:
    fill("pedestrian/v3")
    shown = models("show", "pedestrian/v3")
    rows = dict(line.split(maxsplit=1) for line in shown.stdout.splitlines())
    assert all(rows.pop(key) for key in ("id", "creator", "created", "updated"))
    assert rows == {
        "version": "local:pedestrian/v3",
        "framework": "PYTORCH",
        "labelmap.0": "car",
        "parameters.epochs": "10",
        "parameters.hub_token": "***",
        "env.architecture": "resnet18",
        "env.HUB_TOKEN": "***",
        "image.name": IMAGE.name,
        "image.tag": IMAGE.tag,
        "image.digest": IMAGE.digest,
        "image.flags": "--ipc=host: whose shared memory it uses; host lifts the limit of 64 MB that data "
        "loaders run into",
    }


def test_the_json_form_holds_no_secret_either(models: Models) -> None:
    fill("pedestrian/v3")
    ended = models("show", "pedestrian/v3", "--json")
    assert ended.code == 0
    assert "hf_private" not in ended.output
    document = ended.json
    assert document["name"] == {"store": "local", "model": "pedestrian", "version": "v3"}
    assert document["fields"]["parameters"] == {"epochs": 10, "hub_token": "***"}
    assert document["fields"]["image"]["flags"] == ["--gpus=all", "--ipc=host"]


def test_create_makes_an_empty_version_and_its_model(models: Models) -> None:
    assert models("create", "team/car/v1").stdout == "created local:team/car/v1\n"
    created = models("create", "team/car/v2", "--json").json
    assert created["fields"] == EMPTY
    assert models("show", "team/car/v2", "--json").json == created


def test_create_refuses_what_exists(models: Models) -> None:
    fill("pedestrian/v3")
    ended = models("create", "pedestrian/v3")
    assert (ended.code, "exists already" in ended.stderr) == (1, True)
    assert models("show", "pedestrian/v3", "--json").json["fields"]["framework"] == "PYTORCH"


def test_an_unknown_version_ends_with_1_and_a_suggestion(models: Models) -> None:
    fill("pedestrian/v3")
    ended = models("show", "pedestrain/v3", "--json")
    assert ended.code == 1
    assert 'did you mean "pedestrian"' in ended.json["error"]["message"]
    assert "models create" in ended.json["error"]["remedy"]


@pytest.mark.parametrize(
    "name", ["", "pedestrian", "/v3", "pedestrian/", "nowhere:pedestrian/v3", "picsellia:x"]
)
@pytest.mark.parametrize("command", ["show", "create"])
def test_a_wrong_name_ends_with_2(models: Models, command: str, name: str) -> None:
    ended = models(command, name)
    assert (ended.code, "[STORE:]MODEL/VERSION" in ended.stderr) == (2, True)
    assert models("list", "--json").json == []


@pytest.mark.parametrize("name", ["a\n/v3", " a/v3", "a/v3 "])
def test_a_name_that_cannot_be_shown_is_not_made(models: Models, name: str) -> None:
    assert models("create", name).code == 2
    assert models("list", "--json").json == []


def test_an_unknown_store_ends_with_2(models: Models) -> None:
    ended = models("list", "nowhere")
    assert (ended.code, "expected local or picsellia" in ended.stderr) == (2, True)


def test_the_platforms_versions_are_listed_shown_and_created(
    models: Models, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Standin() as platform:
        monkeypatch.setenv("PICSELLIA_API_TOKEN", platform.token)
        monkeypatch.setenv("PICSELLIA_HOST", platform.url)
        assert models("create", "picsellia:pedestrian/v3").code == 0
        assert "picsellia:pedestrian/v3  -          -     (no image)" in models("list", "picsellia").stdout
        assert models("show", "picsellia:pedestrian/v3").code == 0
        assert models("show", "picsellia:pedestrian/v4").code == 1
    assert models("list", "--json").json == []


# What `trainpack experiments` and `datasets` are called with too.
Trainpack = Callable[..., Ended]


@pytest.fixture
def trainpack(capsys: pytest.CaptureFixture[str]) -> Trainpack:
    def call(*arguments: str) -> Ended:
        code = run(list(arguments))
        captured = capsys.readouterr()
        return Ended(code, captured.out, captured.err)

    return call


@pytest.fixture
def labels(tmp_path: Path) -> str:
    path = tmp_path / "labels.json"
    path.write_text('{"0": "car", "2": "行人"}')
    return str(path)


@pytest.fixture
def picture(tmp_path: Path) -> str:
    path = tmp_path / "picture.png"
    path.write_bytes(b"picture")
    return str(path)


def held(name: str) -> ModelVersion:
    with LocalStore() as store:
        return store.versions.get(VersionName.parse(name))


def test_create_takes_everything_that_a_version_holds(models: Models, labels: str, picture: str) -> None:
    ended = models(
        *("create", "team/fußgänger/v 1", "--framework", "pytorch", "--type", "OBJECT_DETECTION"),
        *("--description", "findet Fußgänger", "--notebook-link", "https://example.com/n"),
        *("--labelmap", labels, "--thumbnail", picture),
        *("-p", "epochs=3", "-p", "rate=1e-3", "-p", "name=resnet", "-p", "sizes=[1,2]", "-p", "empty="),
        *("--image", f"{IMAGE.name}:{IMAGE.tag}@{IMAGE.digest}", "--flag", "--ipc host"),
        *("--flag", "--gpus all", "--env", "architecture=resnet18"),
    )
    assert ended.code == 0, ended.output
    version = held("team/fußgänger/v 1")
    assert version.fields == VersionFields(
        description="findet Fußgänger",
        framework="PYTORCH",
        type="OBJECT_DETECTION",
        notebook_link="https://example.com/n",
        labelmap={"0": "car", "2": "行人"},
        parameters={"epochs": 3, "rate": 0.001, "name": "resnet", "sizes": [1, 2], "empty": ""},
        image=IMAGE.model_copy(update={"env": {"architecture": "resnet18"}}),
    )
    assert version.thumbnail is not None
    assert version.thumbnail.filename == "picture.png"


def test_edit_changes_what_is_named_and_leaves_the_rest(models: Models) -> None:
    fill("pedestrian/v3")
    ended = models(
        *("edit", "pedestrian/v3", "-p", "epochs=20", "--unset", "parameters.hub_token"),
        *("--unset", "env.HUB_TOKEN", "--env", "mode=fast", "--json"),
    )
    assert ended.code == 0, ended.output
    assert [change["field"] for change in ended.json["changes"]] == [
        "env.HUB_TOKEN",
        "env.mode",
        "parameters.epochs",
        "parameters.hub_token",
    ]
    image = IMAGE.model_copy(update={"env": {"architecture": "resnet18", "mode": "fast"}})
    assert held("pedestrian/v3").fields == FIELDS.model_copy(
        update={"parameters": {"epochs": 20}, "image": image}
    )
    assert "hf_private" not in ended.output


def test_a_picture_that_cannot_be_stored_leaves_the_fields_and_says_so(
    models: Models, picture: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise StoreError("the disk is full")

    monkeypatch.setattr("builder.models.local.versions.LocalVersions.store_thumbnail", full)
    ended = models("create", "pedestrian/v3", "-p", "epochs=1", "--thumbnail", picture)
    assert (ended.code, "written: the version with its fields" in ended.stderr) == (1, True)
    ended = models("edit", "pedestrian/v3", "-p", "epochs=2", "--thumbnail", picture)
    assert (ended.code, "written: parameters.epochs" in ended.stderr) == (1, True)
    assert held("pedestrian/v3").fields.parameters == {"epochs": 2}


def test_an_edit_that_changes_nothing_says_so_and_leaves_no_history(models: Models) -> None:
    fill("pedestrian/v3")
    assert "nothing changed" in models("edit", "pedestrian/v3", "-p", "epochs=10").stdout
    with LocalStore() as store:
        assert store.versions.history(VersionName.parse("pedestrian/v3")) == ()


def test_a_dry_run_of_an_edit_writes_nothing(models: Models, picture: str) -> None:
    fill("pedestrian/v3")
    ended = models("edit", "pedestrian/v3", "-p", "epochs=20", "--thumbnail", picture, "--dry-run")
    assert "parameters.epochs  10  →  20" in ended.stderr
    assert "nothing was written" in ended.stdout
    assert (held("pedestrian/v3").fields, held("pedestrian/v3").thumbnail) == (FIELDS, None)


def test_another_tag_takes_the_digest_away_and_keeps_flags_and_env(models: Models) -> None:
    fill("pedestrian/v3")
    models("edit", "pedestrian/v3", "--image", f"{IMAGE.name}:{IMAGE.tag}")
    assert held("pedestrian/v3").fields.image == IMAGE
    models("edit", "pedestrian/v3", "--image", f"{IMAGE.name}:2")
    assert held("pedestrian/v3").fields.image == IMAGE.model_copy(update={"tag": "2", "digest": None})
    models("edit", "pedestrian/v3", "--flag", "")
    image = held("pedestrian/v3").fields.image
    assert image is not None
    assert image.flags == ()


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (("-p", "epochs"), "not NAME=VALUE"),
        (("-p", "=1"), "not NAME=VALUE"),
        (("-p", "rate=NaN"), "nothing that JSON can say"),
        (("-p", "rate=-Infinity"), "nothing that JSON can say"),
        (("-p", "rate=1e999"), "nothing that JSON can say"),
        (("-p", "deep=" + "[" * 100_000), "nothing that JSON can say"),
        (("--framework", "CAFFE"), "is no framework"),
        (("--type", "BOXES"), "is no type"),
        (("--labelmap", "missing.json"), "No such file"),
        (("--labelmap", "wrong.json"), "not a labelmap"),
        (("--thumbnail", "missing.png"), "not a file"),
        (("--image", "registry.example.com/a"), "by a tag that does not move"),
        (("--image", "registry.example.com/a:latest"), "by a tag that does not move"),
        (("--image", "A B:1"), "is not a valid image"),
        (("--flag", "--privileged"), "gives the container the whole host"),
        (("--flag", "--gpsu=all"), "did you mean"),
        (("--env", "NOT_SET_ANYWHERE"), "is not set in this environment"),
        (("--unset", "epochs"), "neither parameters.NAME nor env.NAME"),
        (("--unset", "parameters.epoch"), 'did you mean "epochs"'),
    ],
)
def test_a_bad_edit_is_named_ends_with_2_and_writes_nothing(
    models: Models, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: tuple[str, ...], told: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "wrong.json").write_text('{"0": "car", "1": "car"}')
    fill("pedestrian/v3")
    ended = models("edit", "pedestrian/v3", *options)
    assert (ended.code, told in ended.stderr) == (2, True), ended.output
    assert held("pedestrian/v3").fields == FIELDS
    if options[0] != "--unset":
        assert models("create", "pedestrian/v9", *options).code == 2
        assert [version["name"]["version"] for version in models("list", "--json").json] == ["v3"]


def test_a_flag_is_allowed_by_its_name(models: Models) -> None:
    fill("pedestrian/v3")
    assert models("edit", "pedestrian/v3", "--flag", "--device=/dev/fuse", "--allow", "device").code == 0
    assert "allowed by name: it opens a device of the host" in models("show", "pedestrian/v3").stdout


def test_flags_without_an_image_are_refused(models: Models) -> None:
    ended = models("create", "pedestrian/v3", "--flag", "--gpus=all")
    assert (ended.code, "--image" in ended.stderr) == (2, True)


def test_only_the_versions_of_one_model_are_listed(models: Models) -> None:
    fill("pedestrian/v3", "car/v1")
    assert [each["name"]["model"] for each in models("list", "--model", "car", "--json").json] == ["car"]
    assert models("list", "--model", "cra").code == 1


def test_check_names_what_is_missing_why_and_the_command(models: Models) -> None:
    fill("pedestrian/v3")
    assert models("check", "pedestrian/v3", "--for", "training").code == 0
    ended = models("check", "pedestrian/v3", "--for", "inference")
    assert ended.code == 1
    lines = ended.stdout.splitlines()
    assert lines[0].startswith("missing  files: there are no weights to load")
    assert lines[1].strip() == "→ trainpack models store local:pedestrian/v3 FILE --as weights"
    assert lines[-1] == "local:pedestrian/v3 for inference: 2 missing"
    document = models("check", "pedestrian/v3", "--for", "inference", "--json").json
    assert (document["fit"], [each["field"] for each in document["unmet"]]) == (False, ["files", "type"])


def test_an_unknown_use_is_refused_with_those_there_are(models: Models) -> None:
    ended = models("check", "pedestrian/v3", "--for", "trainign")
    assert (ended.code, 'did you mean "training"' in ended.stderr) == (2, True)


def test_files_are_stored_listed_and_got_by_their_label(models: Models, tmp_path: Path) -> None:
    fill("pedestrian/v3")
    folder = tmp_path / "checkpoints" / "deep" / "deeper"
    folder.mkdir(parents=True)
    (folder / "last.pt").write_bytes(b"weights")
    assert models("store", "pedestrian/v3", str(tmp_path / "checkpoints"), "--as", "all/of it").code == 0
    assert models("store", "pedestrian/v3", str(folder / "last.pt")).code == 0
    assert [file["name"] for file in models("files", "pedestrian/v3", "--json").json] == [
        "all/of it",
        "last.pt",
    ]
    got = models("get", "pedestrian/v3", "all/of it", "--into", str(tmp_path / "new" / "folder"))
    assert (Path(got.stdout.strip()) / "deep" / "deeper" / "last.pt").read_bytes() == b"weights"
    again = models("get", "pedestrian/v3", "all/of it", "--into", str(tmp_path / "new" / "folder"))
    assert again.code == 2


@pytest.mark.parametrize(
    "arguments", [("store", "pedestrian/v3", "missing.pt"), ("store", "a/b", "missing.pt")]
)
def test_a_file_that_is_not_there_is_named(models: Models, arguments: tuple[str, ...]) -> None:
    fill("pedestrian/v3")
    ended = models(*arguments)
    assert ended.code in (1, 2)
    assert ended.stderr.startswith("error: ")


def test_getting_a_label_that_is_not_there_names_one_that_is_close(models: Models, picture: str) -> None:
    fill("pedestrian/v3")
    models("store", "pedestrian/v3", picture, "--as", "weights")
    ended = models("get", "pedestrian/v3", "weigths")
    assert (ended.code, 'did you mean "weights"' in ended.stderr) == (1, True)


def test_the_log_shows_versions_in_the_order_of_their_creation_with_what_changed(models: Models) -> None:
    fill("pedestrian/v3", "pedestrian/v10")
    models("edit", "pedestrian/v10", "-p", "epochs=5")
    steps = models("log", "pedestrian", "--json").json
    assert [step["version"]["version"] for step in steps] == ["v3", "v10"]
    assert steps[0]["since"] is None
    changes = {change["field"]: (change["before"], change["after"]) for change in steps[1]["changes"]}
    assert changes["parameters.epochs"] == (10, 5)
    assert changes["image.tag"] == (IMAGE.tag, None)
    assert [[change["field"] for change in edit["changes"]] for edit in steps[1]["edits"]] == [
        ["parameters.epochs"]
    ]
    text = models("log", "pedestrian").stdout
    assert "local:pedestrian/v10" in text
    assert "changed since v3" in text
    assert "hf_private" not in text


def test_diff_shows_fields_files_and_source(models: Models, picture: str) -> None:
    fill("pedestrian/v3", "pedestrian/v2")
    models("store", "pedestrian/v2", picture, "--as", "weights")
    changes = models("diff", "pedestrian/v2", "pedestrian/v3", "--json").json["changes"]
    fields = [change["field"] for change in changes]
    assert "files.weights" in fields
    assert "parameters.epochs" in fields
    assert "hold the same" in models("diff", "pedestrian/v3", "pedestrian/v3").stdout


def test_an_experiment_receives_what_its_version_holds_and_is_published(
    trainpack: Trainpack, tmp_path: Path
) -> None:
    fill("pedestrian/v3")
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "1.jpg").write_bytes(b"image")
    assert trainpack("datasets", "add", "street/v1", str(tmp_path / "images"), "--label", "car").code == 0
    made = trainpack("experiments", "create", "night/run 1", "--from", "pedestrian/v3", "-p", "epochs=99")
    assert made.code == 0, made.output
    assert trainpack("experiments", "attach-dataset", "night/run 1", "train", "street/v1").code == 0
    shown = trainpack("experiments", "show", "night/run 1", "--json")
    document = shown.json
    assert document["fields"]["parameters"] == {"epochs": 99, "hub_token": "***"}
    assert document["fields"]["image"]["digest"] == IMAGE.digest
    assert document["datasets"]["train"] == {"store": "local", "dataset": "street", "version": "v1"}
    assert "hf_private" not in shown.output + trainpack("experiments", "show", "night/run 1").output
    assert "night/run 1  WAITING  local:pedestrian/v3" in trainpack("experiments", "list").stdout
    published = trainpack("experiments", "publish", "night/run 1", "pedestrian/v4")
    assert published.stdout == "published local:night/run 1 as local:pedestrian/v4\n"
    source = held("pedestrian/v4").source
    assert source is not None
    assert str(source.experiment) == "local:night/run 1"
    assert trainpack("datasets", "show", "street/v1", "--json").json["assets"] == 1
    assert "local:street/v1" in trainpack("datasets", "list").stdout


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        (("experiments", "show", "night"), 2, "[STORE:]PROJECT/EXPERIMENT"),
        (("experiments", "show", "night/run"), 1, "night"),
        (("experiments", "create", "a/b", "--from", "no/such"), 1, "no"),
        (("experiments", "create", "a/b", "--from", "picsellia:a/b"), 2, "name both with local:"),
        (("experiments", "create", "nowhere:a/b", "-p", "x=NaN"), 2, "[STORE:]"),
        (("experiments", "create", "a/b", "-p", "x=NaN"), 2, "JSON"),
        (("experiments", "attach-dataset", "a/b", "train", "x"), 2, "[STORE:]DATASET/VERSION"),
        (("experiments", "publish", "a/b", "c/d"), 1, "a"),
        (("experiments", "list", "nowhere"), 2, "expected local or picsellia"),
        (("experiments", "list", "--project", "no"), 1, "no"),
        (("datasets", "add", "street/v1"), 2, "either a folder or a reference"),
        (("datasets", "add", "street/v1", "missing"), 2, "missing"),
        (("datasets", "add", "street", "."), 2, "[STORE:]DATASET/VERSION"),
        (("datasets", "add", "street/v1", ".", "--type", "BOXES"), 2, "is no type"),
        (("datasets", "show", "street/v1"), 1, "street"),
        (("datasets", "list", "nowhere"), 2, "expected local or picsellia"),
        (("models", "log", "no"), 1, "no"),
        (("models", "log", "local:"), 2, "[STORE:]NAME"),
        (("models", "diff", "a/b", "c"), 2, "[STORE:]MODEL/VERSION"),
        (("models", "copy", "a/b", "a/b"), 2, "onto itself"),
        (("models", "copy", "a/b", "c/d"), 1, "a"),
        (("models", "edit", "a/b", "-p", "x=1"), 1, "a"),
        (("models", "get", "a/b", "c"), 1, "a"),
    ],
)
def test_what_cannot_be_done_is_named_and_leaves_nothing(
    trainpack: Trainpack,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: tuple[str, ...],
    code: int,
    told: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    ended = trainpack(*arguments, "--json")
    assert (ended.code, told in ended.stderr) == (code, True), ended.output
    assert "Traceback" not in ended.output
    assert ended.json["error"]["message"]
    for group in ("models", "experiments", "datasets"):
        assert trainpack(group, "list", "--json").json == []

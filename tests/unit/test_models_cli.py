"""`trainpack models`: list, show and create."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from commands import Ended
from picsellia_standin import Standin

from builder.cli.dispatch import run
from builder.models.local.database import FOLDER_VARIABLE
from builder.models.local.store import LocalStore
from builder.models.names import VersionName
from builder.models.records import DockerImage, VersionFields

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
    assert (ended.code, ended.stdout.split()) == (0, ["version", "image"])


def test_versions_are_listed_with_their_images(models: Models) -> None:
    fill("pedestrian/v3", "team/car/v1", "pedestrian/v2")
    assert models("list").stdout.splitlines() == [
        "version              image",
        "local:pedestrian/v2  (no image)",
        f"local:pedestrian/v3  {IMAGE.name}:{IMAGE.tag}",
        "local:team/car/v1    (no image)",
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
    assert rows.pop("id")
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
        "image.flags": "--gpus=all --ipc=host",
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
        assert "picsellia:pedestrian/v3  (no image)" in models("list", "picsellia").stdout
        assert models("show", "picsellia:pedestrian/v3").code == 0
        assert models("show", "picsellia:pedestrian/v4").code == 1
    assert models("list", "--json").json == []

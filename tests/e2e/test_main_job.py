"""The main job: from a scaffold, or a script that knows nothing of trainpack, to a traced ModelVersion."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from commands import succeed, trainpack

pytestmark = pytest.mark.engine

ROOT = Path(__file__).parents[2]


@pytest.fixture
def store(tmp_path: Path) -> dict[str, str]:
    return {"TRAINPACK_STORE": str(tmp_path / "store")}


def run_main_job(
    folder: Path,
    version: str,
    parameter: tuple[str, Any],
    labelmap: Mapping[str, str],
    store: Mapping[str, str],
) -> dict[str, Any]:
    """Build, test, run with another parameter and labelmap, push, attach, trace; what the commands said."""
    name, value = parameter
    (folder / "labels.json").write_text(json.dumps(labelmap), encoding="utf-8")
    built = succeed(folder, "build", "--json").json
    tested = succeed(folder, "test", "--train", "--json").json
    assert {check["status"] for check in tested["results"]} == {"passed"}
    ran = succeed(folder, "run", "-p", f"{name}={value}", "--labelmap", "labels.json", "--json").json
    assert ran["result"]["parameters"][name] == {"value": value, "source": f"TRAINPACK_SET_{name}"}
    assert ran["result"]["labelmap"] == labelmap
    assert ran["result"]["outputs"]
    pushed = succeed(folder, "push", "--json").json
    assert pushed["image_id"] == built["image_id"] == tested["image_id"]
    attached = succeed(folder, "attach", version, "--create", "--json", env=store).json
    assert attached["image"]["digest"] == pushed["digest"]
    assert attached["image"]["tag"] == built["tag"]
    again = succeed(folder, "attach", version, "--json", env=store).json
    assert (again["written"], again["changes"]) == (False, [])
    for start in (version, built["reference"]):
        traced = succeed(folder, "trace", start, "--json", env=store)
        assert pushed["digest"] in traced.stdout
        assert traced.json["broken"] == 0
    shown = succeed(folder, "models", "show", version, "--json", env=store)
    assert built["tag"] in shown.stdout
    return {"build": built, "run": ran}


@pytest.mark.parametrize(
    ("template", "parameter"),
    [("sklearn-tabular", ("max_iter", 20)), ("pytorch", ("epochs", 1))],
)
def test_a_scaffold_becomes_an_attached_image(
    template: str, parameter: tuple[str, Any], tmp_path: Path, registry: str, store: dict[str, str]
) -> None:
    image = f"{registry}/scaffolds/{template}"
    options = ["-v", "project_slug=project", "-v", f"image_name={image}", "-v", "python=3.11"]
    succeed(tmp_path, "init", template, "--no-input", *options)
    labelmap = {"0": "first", "1": "second", "2": "third"}
    said = run_main_job(tmp_path / "project", f"local:{template}/v1", parameter, labelmap, store)
    assert said["run"]["result"]["metrics"]
    tests = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "tests/test_image.py"]
    done = subprocess.run(tests, cwd=tmp_path / "project", capture_output=True, text=True, check=False)
    assert (done.returncode, "3 passed" in done.stdout) == (0, True), done.stdout
    if template == "pytorch":
        lock = tomllib.loads((tmp_path / "project/pylock.toml").read_text(encoding="utf-8"))
        assert next(p["version"] for p in lock["packages"] if p["name"] == "torch").endswith("+cpu")


def test_an_existing_script_is_wrapped_unedited_and_becomes_an_attached_image(
    tmp_path: Path, registry: str, store: dict[str, str]
) -> None:
    folder = tmp_path / "digits"
    shutil.copytree(ROOT / "examples" / "digits", folder)
    before = (folder / "train.py").read_bytes()
    succeed(folder, "wrap", "train.py", "--name", f"{registry}/examples/digits")
    assert (folder / "train.py").read_bytes() == before
    assert b"trainpack" not in before
    labelmap = {str(digit): f"digit-{digit}" for digit in range(10)}
    said = run_main_job(folder, "local:digits/v1", ("seed", 7), labelmap, store)
    output = folder / said["run"]["output"] / "outputs"
    assert {entry["path"] for entry in said["run"]["result"]["outputs"]} == {
        path.relative_to(output).as_posix() for path in output.rglob("*") if path.is_file()
    }


def test_attach_needs_a_push_a_test_and_an_existing_version(
    tmp_path: Path, registry: str, store: dict[str, str]
) -> None:
    folder = tmp_path / "project"
    folder.mkdir()
    (folder / "train.py").write_text("print('training')\n", encoding="utf-8")
    succeed(folder, "wrap", "train.py", "--name", f"{registry}/refusals/attach")
    succeed(folder, "build")
    unpushed = trainpack(folder, "attach", "local:m/v1", "--create", env=store)
    assert (unpushed.code, "trainpack push" in unpushed.stderr) == (2, True), unpushed.output
    succeed(folder, "push")
    untested = trainpack(folder, "attach", "local:m/v1", "--create", env=store)
    assert (untested.code, "trainpack test" in untested.stderr) == (1, True), untested.output
    succeed(folder, "test")
    missing = trainpack(folder, "attach", "local:m/v1", env=store)
    assert (missing.code, "--create" in missing.stderr) == (1, True), missing.output
    succeed(folder, "attach", "local:m/v1", "--create", "--dry-run", env=store)
    assert trainpack(folder, "models", "show", "local:m/v1", env=store).code != 0
    succeed(folder, "attach", "local:m/v1", "--create", env=store)

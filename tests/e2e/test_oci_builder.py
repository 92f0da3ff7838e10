"""The oci builder: the same image as the docker builder's, without an engine, the same bytes everywhere."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import docker
import image_files
import pytest
import requests
import tiny_index
from commands import TRAINPACK, succeed, trainpack
from registries import registry as own_registry

from builder.host.tools import CACHE, cache_folder
from builder.oci.archive import read_archive
from builder.oci.layout import read_layout

pytestmark = pytest.mark.engine

SPEC = """[image]
name = "{name}"
[run]
script = "train.py"
env = {{ QUOTED = 'a "b" $HOME' }}
[parameters]
epochs = 1
[labelmap]
0 = "car"
"""
TRAIN = """import argparse
import numpy
parser = argparse.ArgumentParser()
parser.add_argument("--epochs", type=int)
print("trained", parser.parse_args().epochs, numpy.ones(2).sum())
"""
# One with compiled modules and scripts, one with files for other places (*.data), pure ones.
REQUIREMENTS = "numpy\njupyterlab-widgets\nsix\n"
# One without a wheel, and without a word on what builds it: a package, its data, and a script.
LEGACY = {
    "legacy-1.0/setup.py": """from setuptools import setup
setup(
    name="legacy",
    version="1.0",
    packages=["legacy"],
    package_data={"legacy": ["*.json"]},
    entry_points={"console_scripts": ["legacy = legacy:main"]},
    scripts=["legacy.sh"],
)
""",
    "legacy-1.0/legacy/__init__.py": "def main():\n    print('legacy')\n",
    "legacy-1.0/legacy/data.json": "{}",
    "legacy-1.0/legacy.sh": "#!/bin/sh\n",
}
NOWHERE = {"DOCKER_HOST": "unix:///nowhere/docker.sock"}
# Where BuildKit mounted what its steps read.
MOUNT_POINTS = ("run/secrets", "run/trainpack", "var/cache/uv")


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with own_registry(tmp_path_factory.mktemp("registry")) as host:
        yield host


@pytest.fixture
def project(tmp_path: Path, base_image: str, address: str) -> Iterator[Path]:
    folder = tmp_path / "project"
    (folder / "pkg").mkdir(parents=True)
    (folder / "train.py").write_text(TRAIN, encoding="utf-8")
    (folder / "pkg/run.sh").write_text("#!/bin/sh\n", encoding="utf-8")
    (folder / "pkg/run.sh").chmod(0o750)
    (folder / "requirements.txt").write_text(REQUIREMENTS, encoding="utf-8")
    name = f"{address}/tests/{tmp_path.name}".lower().replace("[", "-").replace("]", "")
    (folder / "trainpack.toml").write_text(SPEC.format(name=name), encoding="utf-8")
    yield folder
    client = docker.from_env()
    for image in client.images.list(name):
        client.images.remove(str(image.id), force=True)


def build(folder: Path, *options: str, env: dict[str, str] | None = None) -> dict[str, Any]:
    document = succeed(folder, "build", "--json", *options, env=env).json
    assert isinstance(document, dict)
    return document


def test_both_builders_make_the_same_files_and_settings(project: Path, tmp_path: Path) -> None:
    tiny_index.source(tmp_path / "sources", "legacy", "1.0", LEGACY)
    requirements = f"--find-links {tmp_path / 'sources'}\n{REQUIREMENTS}legacy\n"
    (project / "requirements.txt").write_text(requirements, encoding="utf-8")
    ours = build(project, "--builder", "oci", "--load")
    theirs = build(project, "--builder", "docker")
    assert ours["tag"] == theirs["tag"]
    left_out = image_files.is_installers_own
    made, expected = (
        {
            path: file
            for path, file in image_files.files(each, left_out).items()
            if not path.startswith(MOUNT_POINTS)
        }
        for each in (ours["image_id"], theirs["image_id"])
    )
    differing = {path: (made.get(path), expected.get(path)) for path in {*made, *expected}}
    assert {path: pair for path, pair in differing.items() if pair[0] != pair[1]} == {}
    assert image_files.config(ours["image_id"]) == image_files.config(theirs["image_id"])
    compiled, also_compiled = (
        {path for path in image_files.files(each) if path.endswith(".pyc")}
        for each in (ours["image_id"], theirs["image_id"])
    )
    assert compiled == also_compiled
    assert "opt/venv/bin/legacy.sh" in made


def test_the_image_keeps_the_contract_and_trains(project: Path) -> None:
    build(project, "--builder", "oci")
    checked = succeed(project, "test", "--train", "--json").json
    assert checked["passed"] is True
    assert "trained 3 2.0" in succeed(project, "run", "-p", "epochs=3").stdout


def test_without_an_engine_it_builds_and_pushes_and_says_what_needs_one(project: Path, address: str) -> None:
    built = build(project, "--push", env=NOWHERE)
    path = built["reference"].partition("/")[2].replace(":", "/manifests/")
    accept = {"Accept": "application/vnd.oci.image.manifest.v1+json"}
    answer = requests.head(f"http://{address}/v2/{path}", headers=accept, timeout=5)
    assert answer.headers["Docker-Content-Digest"] == built["digest"]
    again = succeed(project, "push", "--json", env=NOWHERE)
    assert again.json["digest"] == built["digest"]
    assert "already" in again.stderr
    tested = trainpack(project, "test", env=NOWHERE)
    assert tested.code == 1
    assert "no container engine answers" in tested.stderr


def test_an_image_that_was_not_loaded_is_loaded_when_it_is_run(project: Path) -> None:
    built = build(project, "--no-load")
    with pytest.raises(docker.errors.ImageNotFound):
        docker.from_env().images.get(built["image_id"])
    assert "trained 2 2.0" in succeed(project, "run", "-p", "epochs=2").stdout


def test_an_edit_moves_the_last_layer_alone_and_sends_little(project: Path) -> None:
    first = build(project, "--push", "--no-load")
    (project / "train.py").write_text(TRAIN + "# edited\n", encoding="utf-8")
    edited = succeed(project, "build", "--push", "--no-load", "--json")
    assert edited.json["layers"][:-1] == first["layers"][:-1]
    assert edited.json["layers"][-1] != first["layers"][-1]
    assert edited.stderr.count(": uploaded") == 2


def test_an_edit_after_an_edit_makes_what_a_whole_build_makes(project: Path) -> None:
    note = project / ".trainpack/unchanged.json"
    (project / "pkg/notes.py").write_text("NOTE = 1\n", encoding="utf-8")
    subprocess.run(["git", "init", "--quiet", project], check=True)
    for options in (("--push", "--no-load"), ("--no-load",), ()):
        build(project, *options)
        for name, text in (
            ("pkg/notes.py", "NOTE = 2\n"),
            ("train.py", TRAIN + "# x\n"),
            ("pkg/run.sh", "#!/bin/sh\n:\n"),
        ):
            time.sleep(0.05)  # what has just changed is not trusted to be seen
            build(project, *options)
            (project / name).write_text(text + f"# {options}\n", encoding="utf-8")
            ended = succeed(project, "build", "--json", *options, env={"PYTHONPROFILEIMPORTTIME": "1"})
            quick = ended.json
            # What plans are made with is not needed, not even for the script, whose options decide the plan.
            assert "pydantic" not in ended.stderr
            note.unlink(missing_ok=True)
            assert build(project, *options) == quick
    assert docker.from_env().images.get(quick["reference"]).id == quick["image_id"]


def test_an_edit_of_the_script_that_changes_an_option_is_planned_anew(project: Path) -> None:
    build(project, "--no-load")
    time.sleep(0.05)
    build(project, "--no-load")
    text = TRAIN.replace('"--epochs"', '"--max-epochs", dest="epochs"')
    (project / "train.py").write_text(text, encoding="utf-8")
    build(project, "--no-load")
    planned = json.loads((project / ".trainpack/last-plan.json").read_text(encoding="utf-8"))
    assert planned["manifest"]["parameters"]["epochs"]["argument"] == "--max-epochs"


def test_a_changed_light_wheel_leaves_every_other_layer_as_it_is(project: Path) -> None:
    first = build(project, "--no-load")
    (project / "requirements.txt").write_text(REQUIREMENTS.replace("six", "toml"), encoding="utf-8")
    changed = build(project, "--no-load", "--update-lock")
    differing = [pair for pair in zip(first["layers"], changed["layers"], strict=True) if pair[0] != pair[1]]
    assert len(differing) == 2


def test_another_image_under_the_tag_is_never_overwritten(project: Path) -> None:
    built = build(project, "--push", "--no-load")
    (project / "train.py").write_text("print('other')\n", encoding="utf-8")
    ended = trainpack(project, "build", "--push", "--no-load", "--tag", built["tag"])
    assert ended.code == 1
    assert "another image under this tag" in ended.stderr


def test_a_layout_and_an_archive_hold_the_same_image(project: Path, tmp_path: Path) -> None:
    layout = build(project, "--no-load", "--output", f"oci:{tmp_path / 'layout'}")
    archive = build(project, "--no-load", "--output", f"archive:{tmp_path / 'image.tar'}", "--tag", "named")
    assert read_layout(tmp_path / "layout", "linux/amd64").digest == layout["digest"]
    assert read_archive(tmp_path / "image.tar", "linux/amd64").digest == archive["digest"]
    assert archive["reference"].endswith(":named")
    assert trainpack(project, "build", "--no-load", "--output", "zip:x").code == 2


def in_fresh_cache(folder: Path, tmp_path: Path, *before: str, umask: int = -1) -> str:
    """Build with nothing but the base in the cache; the image's digest."""
    cache = tmp_path / f"cache of {folder.name}"
    shutil.copytree(cache_folder() / "bases", cache / "bases")
    environment = {"PATH": os.environ["PATH"], CACHE: str(cache), "HOME": str(tmp_path), **NOWHERE}
    kept = ("PIP_", "UV_", "SSL_")
    environment |= {name: value for name, value in os.environ.items() if name.startswith(kept)}
    command = [*before, TRAINPACK, "build", "--no-load", "--json"]
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, check=False, umask=umask
    )
    assert done.returncode == 0, done.stderr
    return str(json.loads(done.stdout)["digest"])


def test_another_folder_another_user_and_a_cold_cache_make_the_same_digest(
    project: Path, tmp_path: Path
) -> None:
    expected = build(project, "--no-load")["digest"]
    assert build(project, "--no-load", env={"TZ": "Asia/Tokyo", "LANG": "tr_TR.UTF-8"})["digest"] == expected
    copy = tmp_path / "a copy elsewhere"
    shutil.copytree(project, copy, ignore=shutil.ignore_patterns(".trainpack"))
    assert in_fresh_cache(copy, tmp_path, umask=0o077) == expected
    # What the checkout's owner is called inside: its files stay in reach.
    another = ("unshare", "--user", "--map-user=1234", "--map-group=1234")
    if subprocess.run([*another, "true"], capture_output=True, check=False).returncode:
        pytest.skip("no user namespaces here")
    other = tmp_path / "other"
    shutil.copytree(project, other, ignore=shutil.ignore_patterns(".trainpack"))
    assert in_fresh_cache(other, tmp_path, *another) == expected

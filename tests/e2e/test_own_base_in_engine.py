"""A base that a team made with a Dockerfile, FROM one of trainpack's: both builders build upon it."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import docker
import image_files
import oci_images
import pytest
from commands import succeed, trainpack

from builder.bases import base_image, engine_names, resolve_own
from builder.engine import buildkit_cli, client
from builder.oci.blobs import Blobs
from builder.oci.cache import Cache
from builder.oci.local_engine import load, read_engine
from builder.oci.remote.push import push
from builder.places import parse_place
from builder.reference import parse_reference

pytestmark = pytest.mark.engine

SPEC = """[image]
name = "{name}"
base = "{base}"
exclude = ["trainpack.toml"]
[run]
script = "train.py"
"""
DOCKERFILE = """FROM {base}
USER 0
RUN echo "of the team" > /etc/team
RUN printf '#!/bin/sh\\necho a tool\\n' > /usr/bin/tool && chmod 755 /usr/bin/tool
ENV TEAM=vision
USER 1000:1000
"""
TRAIN = """import os, subprocess, six
said = subprocess.run(["tool"], capture_output=True, text=True).stdout.strip()
print(open("/etc/team").read().strip(), os.environ["TEAM"], said)
"""
SAID = "of the team vision a tool"


@pytest.fixture(scope="module")
def team_base(base_image: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The engine's name of a base that a Dockerfile made."""
    folder, name = tmp_path_factory.mktemp("team"), f"team-base:{os.urandom(4).hex()}"
    (folder / "Dockerfile").write_text(DOCKERFILE.format(base=base_image), encoding="utf-8")
    environment = os.environ | {"DOCKER_BUILDKIT": "1", "BUILDX_BUILDER": "default"}
    command = [buildkit_cli(), "build", "--quiet", f"--tag={name}", str(folder)]
    subprocess.run(command, env=environment, check=True, capture_output=True)
    yield name
    client().images.remove(name, force=True)


@pytest.fixture
def project(tmp_path: Path, registry: str) -> Iterator[Path]:
    folder = tmp_path / "project"
    folder.mkdir()
    (folder / "train.py").write_text(TRAIN, encoding="utf-8")
    (folder / "requirements.txt").write_text("six\n", encoding="utf-8")
    yield folder
    for image in docker.from_env().images.list(name(folder, registry)):
        docker.from_env().images.remove(str(image.id), force=True)


def name(folder: Path, registry: str) -> str:
    return f"{registry}/own/{folder.parent.name}".lower().replace("_", "-").replace("[", "-").replace("]", "")


def build_upon(folder: Path, registry: str, base: str, *options: str) -> dict[str, Any]:
    text = SPEC.format(name=name(folder, registry), base=base)
    (folder / "trainpack.toml").write_text(text, encoding="utf-8")
    document = succeed(folder, "build", "--json", *options).json
    assert isinstance(document, dict)
    return document


def test_both_builders_build_upon_a_base_of_the_engine_and_the_image_keeps_the_contract(
    project: Path, team_base: str, registry: str
) -> None:
    ours = build_upon(project, registry, f"engine:{team_base}", "--builder", "oci", "--load")
    assert SAID in succeed(project, "run").stdout
    checked = succeed(project, "test", "--train", "--json").json
    assert checked["passed"] is True
    theirs = build_upon(project, registry, f"engine:{team_base}", "--builder", "docker")
    assert ours["tag"] == theirs["tag"]
    made, expected = (image_files.files(each["image_id"], left_out) for each in (ours, theirs))
    differing = {path: (made.get(path), expected.get(path)) for path in {*made, *expected}}
    assert {path: pair for path, pair in differing.items() if pair[0] != pair[1]} == {}
    assert image_files.config(ours["image_id"]) == image_files.config(theirs["image_id"])


def test_the_steps_that_a_base_left_for_later_are_run(
    project: Path, team_base: str, registry: str, tmp_path: Path
) -> None:
    late = f"{team_base}-late"
    context = tmp_path / "late"
    context.mkdir()
    steps = 'ONBUILD USER 0\nONBUILD RUN echo "of tomorrow" > /etc/team\nONBUILD USER 1000:1000\n'
    (context / "Dockerfile").write_text(f"FROM {team_base}\n{steps}", encoding="utf-8")
    environment = os.environ | {"DOCKER_BUILDKIT": "1", "BUILDX_BUILDER": "default"}
    command = [buildkit_cli(), "build", "--quiet", f"--tag={late}", str(context)]
    subprocess.run(command, env=environment, check=True, capture_output=True)
    try:
        build_upon(project, registry, f"engine:{late}")
        told = succeed(project, "build").stderr
        assert "by the docker builder, since the base has ONBUILD steps" in told
        assert "of tomorrow vision a tool" in succeed(project, "run").stdout
        refused = trainpack(project, "build", "--builder", "oci")
        assert refused.code == 1
        assert 'ONBUILD steps, which only an engine can run: USER 0; RUN echo "of tomorrow"' in refused.stderr
    finally:
        client().images.remove(late, force=True)


def left_out(path: str) -> bool:
    # Where BuildKit mounted what its steps read.
    mounts = ("run/secrets", "run/trainpack", "var/cache/uv")
    return image_files.is_installers_own(path) or path.startswith(mounts)


def test_it_is_the_same_image_from_the_engine_an_archive_of_it_and_a_registry(
    project: Path, team_base: str, registry: str, tmp_path: Path
) -> None:
    with (tmp_path / "base.tar").open("wb") as file:
        for chunk in client().images.get(team_base).save(named=True):
            file.write(chunk)
    image = read_engine(team_base, "linux/amd64", Cache(tmp_path / "read"))
    reference = f"{registry}/own/{tmp_path.name.lower().replace('_', '-')}/base:1"
    push(image, parse_reference(reference))
    places = (f"engine:{team_base}", f"archive:{tmp_path / 'base.tar'}", reference)
    made = [build_upon(project, registry, place, "--builder", "oci", "--no-load") for place in places]
    assert len({(each["digest"], each["image_id"], each["tag"]) for each in made}) == 1


@pytest.mark.parametrize("builder", ["oci", "docker"])
def test_an_engine_without_the_base_gets_it_from_its_registry(
    project: Path, team_base: str, registry: str, tmp_path: Path, builder: str
) -> None:
    image = read_engine(team_base, "linux/amd64", Cache(tmp_path / "read"))
    reference = parse_reference(f"{registry}/own/{builder}/base:1")
    push(image, reference)
    built = build_upon(project, registry, str(reference), "--builder", builder, "--load")
    assert built["layers"][: len(image.layers)] == [layer.diff_id for layer in image.layers]
    assert SAID in succeed(project, "run").stdout


def test_an_engine_that_has_the_base_is_sent_none_of_it(
    team_base: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRAINPACK_CACHE", str(tmp_path))
    base = resolve_own(parse_place(f"engine:{team_base}"), "3.11", "linux/amd64")
    image = oci_images.image(Blobs(tmp_path / "made"), b"code", base=base_image(base))
    reference = parse_reference(f"{team_base}-app")
    assert load(image, reference, engine_names(base)).sent < 100_000
    client().images.remove(str(reference), force=True)


def test_a_base_that_the_engine_does_not_have_is_told(project: Path, registry: str) -> None:
    text = SPEC.format(name=name(project, registry), base="engine:no/such-base:1")
    (project / "trainpack.toml").write_text(text, encoding="utf-8")
    succeed(project, "lock")
    ended = trainpack(project, "build")
    assert ended.code == 1
    assert "error: no/such-base:1: the engine has no such image" in ended.stderr
    assert "see `base` and `platform` in [image]" in ended.stderr
    shutil.rmtree(project / ".trainpack")

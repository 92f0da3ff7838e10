"""SBOM and provenance of real images: in a registry, in a layout, and as syft sees the same images."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import docker
import pytest
import requests
from commands import succeed, trainpack
from registries import INDEX_TYPE
from registries import registry as own_registry

from builder.attestation.provenance import PROVENANCE
from builder.attestation.sbom import SBOM

pytestmark = pytest.mark.engine

SPEC = '[image]\nname = "{name}"\n[run]\nscript = "train.py"\n'
SYFT = str(Path(sys.executable).with_name("syft"))


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with own_registry(tmp_path_factory.mktemp("registry")) as host:
        yield host


@pytest.fixture
def project(tmp_path: Path, base_image: str, address: str) -> Iterator[Path]:
    folder = tmp_path / "project"
    folder.mkdir()
    (folder / "train.py").write_text("print('trained')\n", encoding="utf-8")
    (folder / "requirements.txt").write_text("numpy\nsix\n", encoding="utf-8")
    name = f"{address}/documents/{tmp_path.name}".lower()
    (folder / "trainpack.toml").write_text(SPEC.format(name=name), encoding="utf-8")
    yield folder
    client = docker.from_env()
    for image in client.images.list(name):
        client.images.remove(str(image.id), force=True)


def commit(folder: Path) -> str:
    git = ["git", "-C", str(folder), "-c", "user.name=t", "-c", "user.email=t@example.com"]
    for command in (["init", "--quiet"], ["add", "--all"], ["commit", "--quiet", "--message", "x"]):
        subprocess.run([*git, *command], check=True)
    done = subprocess.run([*git, "rev-parse", "HEAD"], check=True, capture_output=True, text=True)
    return done.stdout.strip()


def build(folder: Path, *options: str) -> dict[str, Any]:
    document = succeed(folder, "build", "--no-load", "--json", *options).json
    assert isinstance(document, dict)
    return document


def listed(reference: str, digest: str) -> list[dict[str, Any]]:
    """What a registry without the referrers API lists under the tag of an image's digest."""
    host, _, rest = reference.partition("/")
    url = f"http://{host}/v2/{rest.rpartition(':')[0]}/manifests/{digest.replace(':', '-')}"
    answer = requests.get(url, headers={"Accept": INDEX_TYPE}, timeout=5)
    return list(answer.json()["manifests"]) if answer.status_code == 200 else []


def test_a_pushed_image_has_both_once_and_they_are_read_back(project: Path) -> None:
    succeed(project, "lock")
    head = commit(project)
    built = build(project, "--push")
    entries = listed(built["reference"], built["digest"])
    assert [each["artifactType"] for each in entries] == [SBOM, PROVENANCE]
    again = succeed(project, "push")
    assert "already" in again.stderr
    assert "attached" not in again.stderr
    succeed(project, "push", "--attest")
    assert listed(built["reference"], built["digest"]) == entries
    read = succeed(project, "sbom", built["reference"], "--json").json
    assert read == succeed(project, "sbom", "--json").json
    assert "numpy" in {each["name"] for each in read["components"]}
    made = succeed(project, "sbom", built["reference"], "--provenance", "--json").json
    assert made["subject"][0]["digest"] == {"sha256": built["digest"].removeprefix("sha256:")}
    used = made["predicate"]["buildDefinition"]["resolvedDependencies"]
    assert {"name": "code", "digest": {"gitCommit": head}} in used
    assert head in succeed(project, "sbom", built["reference"], "--provenance").stdout


def test_uncommitted_edits_are_not_attested_until_that_is_asked_for(project: Path) -> None:
    succeed(project, "lock")
    commit(project)
    (project / "train.py").write_text("print('edited')\n", encoding="utf-8")
    pushed = succeed(project, "build", "--no-load", "--push", "--json")
    assert "not committed" in pushed.stderr
    missing = trainpack(project, "sbom", pushed.json["reference"])
    assert missing.code == 1
    assert "has no SBOM attached" in missing.stderr
    assert "trainpack push --attest" in missing.stderr
    succeed(project, "push", "--attest")
    assert len(listed(pushed.json["reference"], pushed.json["digest"])) == 2


def test_an_edit_gets_its_own_provenance_and_the_sbom_that_was_there(project: Path) -> None:
    (project / "notes.py").write_text("NOTE = 1\n", encoding="utf-8")
    for _ in range(2):
        first = build(project, "--push")
        time.sleep(0.05)  # what has just changed is not trusted to be seen
    (project / "notes.py").write_text("NOTE = 2\n", encoding="utf-8")
    command = ("build", "--no-load", "--json", "--push")
    ended = succeed(project, *command, env={"PYTHONPROFILEIMPORTTIME": "1"})
    assert "pydantic" not in ended.stderr
    edited = ended.json
    assert edited["digest"] != first["digest"]
    assert len(listed(edited["reference"], edited["digest"])) == 2
    before, after = (succeed(project, "sbom", each["reference"], "--json").json for each in (first, edited))
    assert before == after
    made = succeed(project, "sbom", edited["reference"], "--provenance", "--json").json
    assert made["subject"][0]["digest"] == {"sha256": edited["digest"].removeprefix("sha256:")}


def test_an_image_of_the_docker_builder_gets_the_same_sbom(project: Path) -> None:
    succeed(project, "build", "--builder", "docker")
    pushed = succeed(project, "push", "--json").json
    entries = listed(pushed["reference"], pushed["digest"])
    assert [each["artifactType"] for each in entries] == [SBOM, PROVENANCE]
    docker_made = succeed(project, "sbom", pushed["reference"], "--json").json
    build(project, "--builder", "oci")
    assert succeed(project, "sbom", "--json").json == docker_made


def package_urls(document: dict[str, Any], key: str) -> set[str]:
    urls = {unquote(each["purl"]) for each in document[key] if "purl" in each}
    return {url for url in urls if url.startswith(("pkg:pypi/", "pkg:deb/"))}


def test_syft_finds_in_the_image_what_the_sbom_says(project: Path, tmp_path: Path) -> None:
    build(project, "--output", f"oci:{tmp_path / 'layout'}")
    command = [SYFT, "scan", "--quiet", f"oci-dir:{tmp_path / 'layout'}", "--output", "json"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    said = package_urls(succeed(project, "sbom", "--json").json, "components")
    # What runs in the container is copied there, not installed: it has no metadata that a scanner finds.
    ours = {url for url in said if url.startswith("pkg:pypi/trainpack@")}
    assert len(ours) == 1
    assert package_urls(json.loads(done.stdout), "artifacts") == said - ours


def test_a_layout_has_them_when_that_is_asked_for(project: Path, tmp_path: Path) -> None:
    layout = tmp_path / "layout"
    built = build(project, "--attest", "--output", f"oci:{layout}")
    image, *entries = json.loads((layout / "index.json").read_bytes())["manifests"]
    assert image["digest"] == built["digest"]
    assert [each["artifactType"] for each in entries] == [SBOM, PROVENANCE]
    manifest = json.loads((layout / "blobs" / "sha256" / entries[0]["digest"][7:]).read_bytes())
    assert manifest["subject"]["digest"] == built["digest"]
    if shutil.which("skopeo") is None:
        pytest.skip("skopeo is not installed: run scripts/test-services")
    command = ["skopeo", "inspect", f"oci:{layout}:{built['tag']}"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout)["Digest"] == built["digest"]

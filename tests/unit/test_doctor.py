from __future__ import annotations

import json
import shutil
from collections import namedtuple
from pathlib import Path
from typing import Any

import pytest
import tiny_project
from commands import trainpack
from registries import registry

from builder import bases, doctor
from builder.doctor import Finding
from builder.oci.cache import Cache
from builder.oci.layout import write_layout
from builder.plan import Base

Usage = namedtuple("Usage", "total used free")
TOKEN = "tok-1234567890"


class Engine:
    """An engine that says what it is told to."""

    def __init__(self, folder: Path, architecture: str = "x86_64") -> None:
        self._info = {"Architecture": architecture, "DockerRootDir": str(folder)}

    def info(self) -> dict[str, str]:
        return self._info

    def version(self) -> dict[str, str]:
        return {"Version": "28.5.2"}


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """A machine on which everything works."""
    base = Base(
        name="cpu",
        python="3.11",
        platform="p",
        reference="b:1",
        image_id="sha256:0",
        content="0",
        source="debian",
    )
    monkeypatch.setattr("builder.engine.client", lambda: Engine(tmp_path))
    monkeypatch.setattr("builder.engine.buildkit_cli", lambda: "/opt/docker/bin/docker")
    monkeypatch.setattr("builder.engine.is_local", lambda: True)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(0, 0, 50_000_000_000))
    monkeypatch.setattr(bases, "resolve_base", lambda *_: base)
    bundle = tmp_path / "ca.pem"
    bundle.touch()
    environ = {"HOME": str(tmp_path), "TRAINPACK_CONFIG": str(tmp_path), "SSL_CERT_FILE": str(bundle)}
    return environ | {"PICSELLIA_API_TOKEN": TOKEN, "PIP_CONFIG_FILE": "/dev/null"}


def examined(folder: Path, environ: dict[str, str]) -> dict[str, Finding]:
    return {finding.name: finding for finding in doctor.examine(folder, environ)}


def test_on_a_machine_in_order_every_finding_is_ok_and_names_what_it_met(
    machine: dict[str, str], tmp_path: Path
) -> None:
    found = examined(tmp_path, machine)
    assert {finding.status for finding in found.values()} == {"ok"}
    assert found["buildkit"].message == "driven by /opt/docker/bin/docker"
    assert found["ca bundle"].message == machine["SSL_CERT_FILE"]
    assert "28.5.2" in found["engine"].message
    assert "b:1" in found["base"].message


def test_no_finding_shows_a_token_or_an_indexs_password(machine: dict[str, str], tmp_path: Path) -> None:
    machine["PIP_INDEX_URL"] = "https://reader:s3cret@index.example.com/simple"
    said = repr(doctor.examine(tmp_path, machine))
    assert "index.example.com/simple" in said
    assert "s3cret" not in said
    assert TOKEN not in said


def test_credentials_that_are_missing_are_a_warning_with_the_command_that_makes_them(
    machine: dict[str, str], tmp_path: Path
) -> None:
    del machine["PICSELLIA_API_TOKEN"]
    found = examined(tmp_path, machine)["picsellia"]
    assert found.status == "warning"
    assert "trainpack login" in found.remedy


def test_an_engine_of_another_architecture_is_a_warning(
    machine: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("builder.engine.client", lambda: Engine(tmp_path, "aarch64"))
    assert examined(tmp_path, machine)["platform"].status == "warning"


def test_a_disk_that_is_nearly_full_is_a_warning_with_the_free_space(
    machine: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(0, 0, 3_000_000_000))
    found = examined(tmp_path, machine)["disk"]
    assert (found.status, "3 GB free" in found.message) == ("warning", True)


def test_a_base_that_can_be_had_from_nowhere_is_a_failure(
    machine: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    unbuilt = bases.resolve_base("cpu", "3.11", "p").model_copy(update={"image_id": None})
    monkeypatch.setattr(bases, "resolve_base", lambda *_: unbuilt)
    monkeypatch.setattr(bases, "why_not_upstream", lambda _: "no route to host")
    monkeypatch.setenv("PATH", "/nowhere")
    found = examined(tmp_path, machine)["base"]
    assert found.status == "failed"
    assert "no route to host" in found.message
    assert "no Debian mirror is known for bookworm" in found.message
    assert "debian-archive-keyring" in found.remedy


def project(folder: Path, image: str, base: str = "auto") -> None:
    text = f'[image]\nname = "{image}"\nbase = "{base}"\n[run]\nscript = "train.py"\n'
    (folder / "trainpack.toml").write_text(text, encoding="utf-8")
    (folder / "train.py").touch()


def test_in_a_project_the_images_registry_is_asked(machine: dict[str, str], tmp_path: Path) -> None:
    with registry(tmp_path) as address:
        project(tmp_path, f"{address}/vision/model")
        assert examined(tmp_path, machine)["registry"].status == "ok"
    assert examined(tmp_path, machine)["registry"].status == "failed"


def test_in_a_project_with_a_base_of_its_own_that_base_is_looked_at(
    machine: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRAINPACK_CACHE", str(tmp_path / "cache"))
    project(tmp_path, "127.0.0.1:1/vision/model", "oci:bases")
    assert "no OCI image layout" in examined(tmp_path, machine)["base"].message
    write_layout(tmp_path / "bases", tiny_project.base(Cache(tmp_path / "made"), b"content"))
    found = examined(tmp_path, machine)["base"]
    assert (found.status, "oci:" in found.message) == ("ok", True)
    project(tmp_path, "127.0.0.1:1/vision/model")
    assert "b:1" in examined(tmp_path, machine)["base"].message


def test_the_command_ends_with_1_without_an_engine_and_says_so_once(tmp_path: Path) -> None:
    nowhere = {"DOCKER_HOST": f"unix://{tmp_path}/no.sock"}
    ended = trainpack(tmp_path, "doctor", "--json", env=nowhere)
    report: dict[str, Any] = json.loads(ended.stdout)
    failed = [finding for finding in report["findings"] if finding["status"] == "failed"]
    assert (ended.code, report["passed"]) == (1, False)
    assert [finding["name"] for finding in failed] == ["engine"]
    assert "DOCKER_HOST" in failed[0]["remedy"]
    text = trainpack(tmp_path, "doctor", env=nowhere).stdout
    assert "no.sock" in text
    assert "→ " in text

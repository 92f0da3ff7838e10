"""Which engine is meant, and which docker command builds."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from builder import engine
from builder.errors import EngineUnavailableError

VERSION_20 = 'case "$1" in buildx) exit 1;; *) echo "Docker version 20.10.24, build x";; esac'
VERSION_28 = 'case "$1" in buildx) exit 1;; *) echo "Docker version 28.2.2, build x";; esac'
WITH_BUILDX = 'case "$1" in buildx) echo github.com/docker/buildx;; *) echo "Docker version 28.2.2";; esac'


@pytest.fixture(autouse=True)
def fresh(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    engine.client.cache_clear()
    engine.buildkit_cli.cache_clear()
    for name in ("DOCKER_HOST", "DOCKER_CONTEXT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path / "docker"))
    (tmp_path / "docker").mkdir()


def add_context(tmp_path: Path, name: str, host: str, *, current: bool) -> None:
    meta = tmp_path / "docker/contexts/meta" / hashlib.sha256(name.encode()).hexdigest()
    meta.mkdir(parents=True)
    document = {"Name": name, "Metadata": {}, "Endpoints": {"docker": {"Host": host, "SkipTLSVerify": False}}}
    (meta / "meta.json").write_text(json.dumps(document), encoding="utf-8")
    config = {"currentContext": name} if current else {}
    (tmp_path / "docker/config.json").write_text(json.dumps(config), encoding="utf-8")


def test_docker_host_wins_over_the_current_context(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    add_context(tmp_path, "remote", "tcp://engine.example.com:2376", current=True)
    assert engine.endpoint() == "tcp://engine.example.com:2376"
    assert not engine.is_local()
    monkeypatch.setenv("DOCKER_HOST", "unix:///run/user/1000/docker.sock")
    assert engine.endpoint() == "unix:///run/user/1000/docker.sock"
    assert engine.is_local()


def test_docker_context_names_a_context_that_is_not_the_current_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    add_context(tmp_path, "other", "ssh://me@engine.example.com", current=False)
    assert engine.is_local()
    monkeypatch.setenv("DOCKER_CONTEXT", "other")
    assert engine.endpoint() == "ssh://me@engine.example.com"
    monkeypatch.setenv("DOCKER_CONTEXT", "missing")
    with pytest.raises(EngineUnavailableError, match="there is no docker context 'missing'"):
        engine.endpoint()


def test_an_engine_that_does_not_answer_is_named_with_a_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_HOST", "tcp://127.0.0.1:1")
    with pytest.raises(EngineUnavailableError, match=r"tcp://127\.0\.0\.1:1") as caught:
        engine.client()
    assert "trainpack doctor" in (caught.value.remedy or "")


def test_an_engine_over_ssh_without_what_the_sdk_needs_for_it_names_the_extra(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("DOCKER_HOST", "ssh://me@engine.example.com")
    monkeypatch.delattr("docker.api.client.SSHHTTPAdapter")
    with pytest.raises(EngineUnavailableError) as caught:
        engine.client()
    assert "trainpack[ssh]" in str(caught.value.remedy)


def add_command(folder: Path, script: str) -> Path:
    folder.mkdir()
    path = folder / "docker"
    path.write_text(f"#!/bin/sh\n{script}\n", encoding="utf-8")
    path.chmod(0o755)
    return path


@pytest.mark.parametrize("able", [VERSION_20, WITH_BUILDX], ids=["built in", "buildx"])
def test_the_first_docker_on_path_that_can_drive_buildkit_builds(
    able: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    add_command(tmp_path / "first", VERSION_28)
    second = add_command(tmp_path / "second", able)
    monkeypatch.setenv("PATH", f"{tmp_path / 'first'}:{tmp_path / 'second'}")
    assert engine.buildkit_cli() == str(second)


def test_a_docker_without_buildx_is_told_apart_from_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = add_command(tmp_path / "first", VERSION_28)
    monkeypatch.setenv("PATH", str(tmp_path / "first"))
    with pytest.raises(EngineUnavailableError, match=f"{first} has no buildx plugin"):
        engine.buildkit_cli()
    first.unlink()
    with pytest.raises(EngineUnavailableError, match="no docker command on PATH"):
        engine.buildkit_cli()

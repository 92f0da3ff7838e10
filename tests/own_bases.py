"""Fixtures: a project, a base that it may name, a registry whose bytes are counted."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import oci_images
import pytest
import tiny_project
from counting_proxy import Passed, counting
from registries import registry
from tiny_project import WEIGHT, Project

from builder.oci.cache import Cache
from builder.oci.image import Image


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with registry(tmp_path_factory.mktemp("registry")) as address:
        yield address


@pytest.fixture
def host(server: str) -> Iterator[Passed]:
    """A registry whose every byte is counted."""
    with counting(server) as passed:
        yield passed


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A project that was built once upon the catalogue's base, so that wheels and their layers are there."""
    project = tiny_project.make(tmp_path_factory.mktemp("made"))
    project.built()
    return project


@pytest.fixture
def project(made: Project, tmp_path: Path) -> Project:
    """A copy without any base, and with a cache of its own."""
    shutil.copytree(made.cache / "oci", tmp_path / "cache/oci")
    return replace(made.copied(tmp_path / "project"), cache=tmp_path / "cache")


@pytest.fixture
def base(tmp_path: Path) -> Image:
    return tiny_project.base(Cache(tmp_path / "elsewhere"), oci_images.noise(WEIGHT))


@pytest.fixture
def repository(tmp_path: Path) -> str:
    """A name of the test's own, in a registry that tests share."""
    return f"{tmp_path.name.lower().strip('_')}".replace("_", "-").replace("[", "-").replace("]", "")

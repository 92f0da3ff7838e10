"""A project whose build needs this machine alone: a base of one file, tiny wheels, a cache of its own."""

from __future__ import annotations

import os
import re
import shutil
from dataclasses import dataclass, replace
from pathlib import Path

import tiny_index
from commands import Ended, succeed, trainpack

from builder.attestation.sbom import RELEASE, STATUS
from builder.bases.catalogue import find_recipe
from builder.oci import tar
from builder.oci.cache import Cache
from builder.oci.image import Addendum, Changes, Image, append, empty
from builder.oci.layer import write_layer
from builder.oci.layout import write_layout
from builder.plan import LABEL

# Of a base that is told apart from all else that a build and its push move, which is little.
WEIGHT, LITTLE = 3_000_000, 300_000
SPEC = """[image]
name = "{name}"
[run]
script = "train.py"
"""
DPKG = b"Package: libgl1\nVersion: 1.6.0-1\nArchitecture: amd64\nStatus: install ok installed\n"
REPOSITORY = "registry.example.com/team/app"
BUILD = ("build", "--builder", "oci", "--no-load", "--no-attest", "--json")


@dataclass(frozen=True)
class Project:
    """A project's folder, and the cache and the settings that its builds have.

    Attributes:
        home: Of a user of its own; in its folder `wheels` is the package index.
        engine: The address of its container engine.
        index: Of a package index in place of that folder.
    """

    folder: Path
    cache: Path
    home: Path
    engine: str = "unix:///nowhere/docker.sock"
    index: str = ""

    @property
    def environment(self) -> dict[str, str]:
        """What a build gets beside what every process has."""
        return {
            "HOME": str(self.home),
            "DOCKER_CONFIG": str(self.home),
            "DOCKER_HOST": self.engine,
            "TRAINPACK_CACHE": str(self.cache),
            "UV_CACHE_DIR": str(self.home / "uv"),
            "UV_DEFAULT_INDEX": self.index or (self.home / "wheels/simple").as_uri(),
            "PIP_FIND_LINKS": "",
        }

    @property
    def layers(self) -> Cache:
        """The cache of layers."""
        return Cache(self.cache / "oci")

    def build(self, *options: str) -> Ended:
        """Build as a user does, whatever that ends with."""
        return trainpack(self.folder, *BUILD, *options, env=self.environment)

    def built(self, *options: str) -> Ended:
        """A build that works."""
        return succeed(self.folder, *BUILD, *options, env=self.environment)

    def done(self, *command: str) -> Ended:
        """Another command that works."""
        return succeed(self.folder, *command, env=self.environment)

    def edit(self, text: str) -> None:
        """Change the script."""
        (self.folder / "train.py").write_text(text, encoding="utf-8")

    def name(self, repository: str) -> None:
        """Say where the image goes."""
        (self.folder / "trainpack.toml").write_text(SPEC.format(name=repository), encoding="utf-8")

    def require(self, *names: str) -> None:
        """Require what was put among the wheels, and lock it."""
        with (self.folder / "requirements.txt").open("a", encoding="utf-8") as file:
            file.writelines(f"{name}\n" for name in names)
        tiny_index.simple_index(self.home / "wheels")
        succeed(self.folder, "lock", env=self.environment)

    def build_upon(self, base: str, *more: str) -> None:
        """Say which base the image has."""
        text = SPEC.format(name=REPOSITORY).replace("[run]", "\n".join([f'base = "{base}"', *more, "[run]"]))
        (self.folder / "trainpack.toml").write_text(text, encoding="utf-8")

    def copied(self, folder: Path) -> Project:
        """The same project in another folder, with the same cache and what was locked."""
        shutil.copytree(self.folder, folder, ignore=shutil.ignore_patterns(".trainpack"))
        return replace(self, folder=folder)

    def with_cold_cache(self, cache: Path) -> Project:
        """The same project with a cache that holds the base alone."""
        shutil.copytree(self.cache / "bases", cache / "bases")
        return replace(self, cache=cache)


def make(folder: Path, repository: str = REPOSITORY, weight: int = 1000) -> Project:
    """A project that is locked.

    Args:
        weight: Bytes of the base's file and of the wheel's, neither of which compresses.
    """
    project = Project(folder / "project", folder / "cache", folder / "home")
    project.folder.mkdir()
    project.edit("print('trained')\n")
    project.name(repository)
    (project.folder / "requirements.txt").write_text("feather\nlight\n", encoding="utf-8")
    noise = os.urandom(weight).hex()
    tiny_index.pure(project.home / "wheels", "light", "1.0", content=f"NOISE = '{noise}'\n")
    tiny_index.pure(project.home / "wheels", "feather", "1.0", content="LIGHTER = True\n")
    tiny_index.pure(project.home / "wheels", "picsellia", "6.40.0", content="SDK = True\n")
    tiny_index.simple_index(project.home / "wheels")
    keep_base(project.cache, base(project.layers, os.urandom(weight)))
    succeed(project.folder, "lock", env=project.environment)
    return project


def base(cache: Cache, content: bytes, platform: str = "linux/amd64", **labels: str) -> Image:
    """An image with one file, and what its package manager says of it; labelled as a base."""
    files = [tar.file("usr/lib/base", content), tar.file(STATUS, DPKG), tar.file(RELEASE, b"ID=debian\n")]
    layer = write_layer(files, cache.blobs)
    kinds = {"base": "cpu", "base.python": "3.11", "base.source": "debian"} | labels
    labels = {f"{LABEL}.{name}": value for name, value in kinds.items() if value}
    return append(empty(platform), [Addendum(layer, "a base")], Changes(labels=labels), tar.EPOCH)


def keep_base(cache: Path, image: Image) -> None:
    """Put an image where trainpack keeps the base of this project."""
    folder = cache / "bases"
    folder.mkdir(parents=True, exist_ok=True)
    write_layout(folder, image, find_recipe("cpu", "3.11", image.platform, ()).tag)


@dataclass(frozen=True)
class Told:
    """An error as the command line tells it."""

    text: str
    remedy: str

    def matches(self, place: str, said: str) -> bool:
        """Whether it begins with the place, says this (a pattern), and has a remedy."""
        found = self.text.startswith(place) and re.search(said, self.text) and self.remedy
        assert found, f"expected {place} … {said}, with a remedy: {self}"
        return True


def error_of(ended: Ended) -> Told:
    """The one error that a command ended with, and nothing of a traceback."""
    assert "Traceback" not in ended.output
    lines = ended.stderr.splitlines()
    (at,) = (number for number, line in enumerate(lines) if line.startswith("error: "))
    remedies = [line for line in lines[at + 1 :] if line.startswith("  → ")]
    return Told(lines[at].removeprefix("error: "), "".join(remedies))

"""The catalogue of bases: which there are, and what each is made of."""

from __future__ import annotations

import functools
import hashlib
import tomllib
from collections.abc import Mapping
from typing import TypeVar

from pydantic import Field
from trainpack_entrypoint.schema import close_match

from builder import data
from builder.errors import UsageError
from builder.records import Record

Entry = TypeVar("Entry")

REPOSITORY = "trainpack-base"
UPSTREAM_PREFIX = "TRAINPACK_UPSTREAM_PREFIX"

# Documentation but licences, and translations: what slim images leave out, of packages added later too.
SLIM = (
    "path-exclude=/usr/share/doc/*",
    "path-include=/usr/share/doc/*/copyright",
    "path-exclude=/usr/share/man/*",
    "path-exclude=/usr/share/info/*",
    "path-exclude=/usr/share/locale/*",
)
# Where they are missing, a build step makes and removes them, which leaves the day's time on their folder.
MOUNT_POINTS = ("./etc/hosts", "./etc/resolv.conf")


class BaseEntry(Record):
    """A base of the catalogue: what it is for, and the environment it sets."""

    summary: str
    env: dict[str, str] = Field(default_factory=dict)


class PythonEntry(Record):
    """Where a Python comes from.

    Attributes:
        upstream: The image reference of the upstream image, without its registry.
        digest: `sha256:…`, which pins the upstream image.
        suite: The Debian release whose python3 it is; None when there is none.
        glibc: The lower version of both ways: it decides which manylinux wheels can be installed.
        packages: The Debian packages of the interpreter and its whole standard library.
    """

    upstream: str
    digest: str | None = None
    suite: str | None = None
    glibc: str
    packages: tuple[str, ...] = ()

    @property
    def upstream_suite(self) -> str:
        """The Debian release of the upstream image, which its tag ends in."""
        return self.upstream.rpartition("-")[2]


class Catalogue(Record):
    """The bases that can be built, by name and Python: `base_images/catalogue.toml`, which says more."""

    revision: int
    epoch: int
    packages: tuple[str, ...]
    base: dict[str, BaseEntry]
    python: dict[str, PythonEntry]


class Recipe(Record):
    """Everything that decides a base's content, but for the versions that a mirror serves on the day."""

    name: str
    python: str
    platform: str
    revision: int
    epoch: int
    packages: tuple[str, ...]
    base: BaseEntry
    origin: PythonEntry
    template: str

    @property
    def reference(self) -> str:
        """`trainpack-base:<name>-py<python>-<12 hex of the recipe>`, a local tag."""
        return f"{REPOSITORY}:{self.name}-py{self.python}-{_digest(self.model_dump_json() + self.rootfs)}"

    @property
    def rootfs(self) -> str:
        """The file name of the bootstrapped operating system, which bases of the same Python share."""
        parts = (
            self.origin.suite,
            self.debian_packages,
            self.architecture,
            self.revision,
            self.epoch,
            SLIM,
            MOUNT_POINTS,
        )
        return f"rootfs-{self.origin.suite}-{self.architecture}-{_digest(repr(parts))}.tar"

    @property
    def debian_packages(self) -> tuple[str, ...]:
        """What a bootstrap installs."""
        return tuple(sorted((*self.packages, *self.origin.packages)))

    @property
    def architecture(self) -> str:
        """Debian's name of the platform: `amd64`, `arm64`."""
        return self.platform.removeprefix("linux/")


@functools.cache
def load_catalogue() -> Catalogue:
    """The catalogue that comes with trainpack."""
    text = (data.base_images() / "catalogue.toml").read_text(encoding="utf-8")
    return Catalogue.model_validate(tomllib.loads(text))


def find_recipe(name: str, python: str, platform: str) -> Recipe:
    """What the catalogue says about one base.

    Raises:
        UsageError: The catalogue has no such base, or not for this Python.
    """
    catalogue = load_catalogue()
    return Recipe(
        name=name,
        python=python,
        platform=platform,
        revision=catalogue.revision,
        epoch=catalogue.epoch,
        packages=catalogue.packages,
        base=entry_of(catalogue.base, name, "base"),
        origin=entry_of(catalogue.python, python, "Python"),
        template=(data.base_images() / "Dockerfile.j2").read_text(encoding="utf-8"),
    )


def glibc_of(python: str) -> str:
    """The glibc that wheels can count on in a base with this Python: `2.36`.

    Raises:
        UsageError: The catalogue has no such Python.
    """
    return entry_of(load_catalogue().python, python, "Python").glibc


def upstream_reference(origin: PythonEntry, environ: Mapping[str, str]) -> str:
    """The upstream image, from the registry prefix of `TRAINPACK_UPSTREAM_PREFIX` where that is set."""
    prefix = environ.get(UPSTREAM_PREFIX, "").rstrip("/")
    return (f"{prefix}/" if prefix else "") + origin.upstream + (f"@{origin.digest}" if origin.digest else "")


def entry_of(entries: Mapping[str, Entry], key: str, what: str) -> Entry:
    """The entry of this name.

    Raises:
        UsageError: There is none; names the nearest.
    """
    if key in entries:
        return entries[key]
    hint = close_match(key, list(entries))
    raise UsageError(f"the catalogue has no {what} {key!r}{hint}", remedy=f"it has {', '.join(entries)}")


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:12]

"""The catalogue of bases: which there are, and what each is made of."""

from __future__ import annotations

import functools
import hashlib
import tomllib
from collections.abc import Iterable, Mapping
from typing import TypeVar

from pydantic import Field
from trainpack_entrypoint.schema import close_match

from builder import data
from builder.errors import UsageError
from builder.records import Record

Entry = TypeVar("Entry")

REPOSITORY = "trainpack-base"
UPSTREAM_PREFIX = "TRAINPACK_UPSTREAM_PREFIX"

# Documentation but licences, and translations: what slim images leave out.
LICENCES = "usr/share/doc/"
DOCUMENTATION = (
    LICENCES,
    *(f"usr/share/{name}/" for name in ("bug", "info", "lintian", "locale", "man", "menu")),
)
# Where they are missing, a build step makes and removes them, which leaves the day's time on their folder.
MOUNT_POINTS = ("etc/hosts", "etc/resolv.conf")
# Raised when the same packages become other files than before.
UNPACKING = 2


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


class DebianEntry(Record):
    """What a base of unpacked packages has.

    Attributes:
        packages: What upstream images have, and no dependency asks for.
        unneeded: What only installation scripts use, which never run: it counts as installed.
    """

    packages: tuple[str, ...]
    unneeded: tuple[str, ...]


class Contract(Record):
    """What every base promises: its user, as lines of passwd and group, and how containers start.

    Attributes:
        workdir: The one place that can be written to.
    """

    user: str
    passwd: str
    group: str
    workdir: str
    command: tuple[str, ...]
    env: dict[str, str]


class Catalogue(Record):
    """The bases that can be built, by name and Python: `base_images/catalogue.toml`, which says more."""

    revision: int
    epoch: int
    packages: tuple[str, ...]
    contract: Contract
    debian: DebianEntry
    base: dict[str, BaseEntry]
    python: dict[str, PythonEntry]


class Recipe(Record):
    """Everything that decides a base's content, but for the versions that a mirror serves on the day.

    Attributes:
        packages: Debian packages, the catalogue's and the user's.
    """

    name: str
    python: str
    platform: str
    revision: int
    epoch: int
    packages: tuple[str, ...]
    contract: Contract
    debian: DebianEntry
    base: BaseEntry
    origin: PythonEntry
    template: str

    @property
    def reference(self) -> str:
        """`trainpack-base:<name>-py<python>-<12 hex of the recipe>`, a local tag."""
        return f"{REPOSITORY}:{self.tag}"

    @property
    def tag(self) -> str:
        """The tag alone; who changes anything that decides the content gets another."""
        digest = hashlib.sha256(f"{UNPACKING} {self.model_dump_json()}".encode()).hexdigest()
        return f"{self.name}-py{self.python}-{digest[:12]}"

    @property
    def debian_packages(self) -> tuple[str, ...]:
        """What is unpacked, with what it depends on."""
        return tuple(sorted({*self.packages, *self.debian.packages, *self.origin.packages}))

    @property
    def env(self) -> dict[str, str]:
        """The environment of its containers."""
        return self.contract.env | self.base.env

    @property
    def architecture(self) -> str:
        """Debian's name of the platform: `amd64`, `arm64`."""
        return self.platform.removeprefix("linux/")


@functools.cache
def load_catalogue() -> Catalogue:
    """The catalogue that comes with trainpack."""
    text = (data.base_images() / "catalogue.toml").read_text(encoding="utf-8")
    return Catalogue.model_validate(tomllib.loads(text))


def find_recipe(name: str, python: str, platform: str, packages: Iterable[str] = ()) -> Recipe:
    """What the catalogue says about one base.

    Args:
        packages: Debian packages of the user's, beside those of every base.

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
        packages=tuple(sorted({*catalogue.packages, *packages})),
        contract=catalogue.contract,
        debian=catalogue.debian,
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

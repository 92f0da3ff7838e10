"""A source distribution, read: which build system makes a wheel of it. Nothing of it runs on this machine.

Sources: https://packaging.python.org/en/latest/specifications/source-distribution-format/ and
https://packaging.python.org/en/latest/specifications/pyproject-toml/#declaring-build-system-dependencies-the-build-system-table.
"""

from __future__ import annotations

import tarfile
import tomllib
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from lzma import LZMAError
from pathlib import Path
from typing import IO, Any

from packaging.requirements import InvalidRequirement, Requirement

from builder.errors import WheelError

_PROJECT = "pyproject.toml"
_LARGEST_PROJECT = 1_000_000


@dataclass(frozen=True)
class BuildSystem:
    """What makes a wheel.

    Attributes:
        requires: Requirements of the build.
        backend: `module:object`.
        path: Folders of the source that the backend is imported from.
    """

    requires: tuple[str, ...] = ("setuptools>=40.8.0",)
    backend: str = "setuptools.build_meta:__legacy__"
    path: tuple[str, ...] = ()


def read_build_system(path: Path, filename: str) -> BuildSystem:
    """The build system that a source distribution declares, else setuptools.

    Args:
        path: Where its bytes are.
        filename: What it is called.

    Raises:
        WheelError: It cannot be read, or names files outside of its one folder.
    """
    try:
        text = _project(path, filename)
        table = tomllib.loads(text).get("build-system") if text else None
    except (tarfile.TarError, zipfile.BadZipFile, zlib.error, LZMAError, EOFError, OSError) as error:
        raise WheelError(f"not a source distribution that can be read: {error}", place=filename) from None
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise WheelError(f"its {_PROJECT} is not valid TOML: {error}", place=filename) from None
    return _system(table, filename) if table is not None else BuildSystem()


def checked_requirements(requires: Any, place: str) -> tuple[str, ...]:
    """Requirements that a package index alone answers: who wrote them decides nothing else on this machine.

    Raises:
        WheelError: One is an option, an address or no requirement.
    """
    for text in _texts(requires, "requires", place):
        try:
            refused = Requirement(text).url
        except InvalidRequirement:
            refused = text
        if refused is not None:
            raise WheelError(
                f"its build requires {text!r}, expected a distribution of a package index", place=place
            )
    return tuple(requires)


def _project(path: Path, filename: str) -> str:
    """The text of the project file, empty where there is none; after a look at every name."""
    folders, text = set(), ""
    for name, file in _zipped(path) if filename.endswith(".zip") else _tarred(path):
        parts = [part for part in name.split("/") if part not in ("", ".")]
        if name.startswith("/") or ".." in parts or "\\" in name:
            raise WheelError(f"it holds {name!r}, which leads out of its folder", place=filename)
        folders.update(parts[:1])
        if parts[1:] == [_PROJECT] and file:
            text = file.read(_LARGEST_PROJECT).decode()
    if len(folders) != 1:
        found = ", ".join(sorted(folders)[:5]) or "nothing"
        raise WheelError(f"expected one folder in it, found {found}", place=filename)
    return text


def _tarred(path: Path) -> Iterator[tuple[str, IO[bytes] | None]]:
    with tarfile.open(path) as archive:
        for member in archive:
            yield member.name, archive.extractfile(member) if member.isfile() else None


def _zipped(path: Path) -> Iterator[tuple[str, IO[bytes] | None]]:
    with zipfile.ZipFile(path) as archive:
        for info in archive.infolist():
            if info.is_dir():
                yield info.filename, None
                continue
            with archive.open(info) as file:
                yield info.filename, file


def _system(table: Any, filename: str) -> BuildSystem:
    if not isinstance(table, dict):
        raise WheelError(f"the [build-system] of its {_PROJECT} is no table", place=filename)
    default = BuildSystem()
    backend = table.get("build-backend", default.backend)
    if not isinstance(backend, str):
        raise WheelError(f"build-backend = {backend!r}, expected a module's name", place=filename)
    return BuildSystem(
        requires=checked_requirements(table.get("requires", list(default.requires)), filename),
        backend=backend,
        path=_texts(table.get("backend-path", []), "backend-path", filename),
    )


def _texts(value: Any, key: str, place: str) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(isinstance(each, str) for each in value):
        raise WheelError(f"{key} = {value!r}, expected a list of texts", place=place)
    return tuple(value)

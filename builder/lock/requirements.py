"""The requirements that a project declares, and where each of them stands."""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name

from builder.errors import LockError
from builder.host.package_index import redact
from builder.records import Record
from builder.spec import TrainingSpec

_INCLUDE = re.compile(r"(?:-r|--requirement|-c|--constraint)[ =]?\s*(?P<file>\S.*)")


class Line(Record):
    """One requirement as written, with its canonical name and its place (`requirements.txt:3`)."""

    name: str
    text: str
    place: str


class Requirements(Record):
    """What a project requires.

    Attributes:
        file: Relative to the project; None when it requires nothing.
        content: All that decides the resolution, without comments and credentials.
    """

    file: str | None
    content: str
    lines: tuple[Line, ...]


def read_requirements(spec: TrainingSpec, folder: Path) -> Requirements:
    """The file that the spec names, else `requirements.txt`, else `pyproject.toml`, else nothing.

    Raises:
        LockError: A file cannot be read or includes one that is missing.
    """
    file = spec.image.requirements or _found(folder)
    if file is None:
        return Requirements(file=None, content="", lines=())
    if Path(file).name == "pyproject.toml":
        return _read_project(folder, file)
    lines = list(_read_lines(folder / file, file, set()))
    return Requirements(
        file=file,
        content="\n".join(redact(text) for text, _ in lines),
        lines=tuple(line for text, place in lines if (line := _line(text, place))),
    )


def _found(folder: Path) -> str | None:
    if (folder / "requirements.txt").is_file():
        return "requirements.txt"
    if (folder / "pyproject.toml").is_file() and "dependencies" in _project(folder, "pyproject.toml")[0]:
        return "pyproject.toml"
    return None


def _read_lines(path: Path, name: str, seen: set[Path]) -> Iterator[tuple[str, str]]:
    """Every logical line with its place, included files in place of the line that includes them."""
    if path.resolve() in seen:
        return
    seen.add(path.resolve())
    for number, text in _logical_lines(_text(path, name)):
        place = f"{name}:{number}"
        yield text, place
        if (include := _INCLUDE.fullmatch(text)) and "://" not in include["file"]:
            other = include["file"].strip()
            if not (path.parent / other).is_file():
                raise LockError(f"{other} does not exist", place=place)
            yield from _read_lines(path.parent / other, str(Path(name).parent / other), seen)


def _logical_lines(text: str) -> Iterator[tuple[int, str]]:
    """Lines with continuations joined, without comments and blank lines."""
    start, pending = 0, ""
    for number, line in enumerate(text.splitlines(), 1):
        start = start if pending else number
        bare = re.sub(r"(^|\s)#.*", "", line).rstrip()
        if bare.endswith("\\"):
            pending += bare[:-1]
            continue
        if whole := " ".join((pending + bare).split()):
            yield start, whole
        pending = ""


def _text(path: Path, name: str) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise LockError(f"cannot be read: {error}", place=name) from None


def _line(text: str, place: str) -> Line | None:
    try:
        requirement = Requirement(text.partition(" --")[0])
    except InvalidRequirement:
        return None
    return Line(name=canonicalize_name(requirement.name), text=redact(str(requirement)), place=place)


def _read_project(folder: Path, file: str) -> Requirements:
    project, tool = _project(folder, file)
    written = _text(folder / file, file).splitlines()
    lines = []
    for text in project.get("dependencies", []):
        number = next((number for number, line in enumerate(written, 1) if text in line), 1)
        lines.append(_line(text, f"{file}:{number}"))
    keys = ("dependencies", "dynamic", "requires-python")
    content = {"project": {key: project.get(key) for key in keys}, "uv": tool.get("uv")}
    return Requirements(
        file=file,
        content=redact(json.dumps(content, sort_keys=True, default=str)),
        lines=tuple(line for line in lines if line),
    )


def _project(folder: Path, file: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """The tables `[project]` and `[tool]`."""
    try:
        data = tomllib.loads(_text(folder / file, file))
    except tomllib.TOMLDecodeError as error:
        raise LockError(f"not valid TOML: {error}", place=file) from None
    return data.get("project", {}), data.get("tool", {})

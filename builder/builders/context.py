"""The build context: a folder that holds exactly what the Dockerfile reads."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import MappingProxyType
from urllib.parse import unquote, urlsplit

import tomli_w

from builder.builders.contents import entrypoint_files, environments
from builder.builders.dockerfile import render_dockerfile, site_packages
from builder.errors import SpecError, TrainpackError
from builder.oci.tar import Entry
from builder.plan import TOOLS, VENV, BuildPlan, Distribution

_YEAR_1980, _TEN_YEARS = 315_532_800, 315_360_000


def stage_context(
    plan: BuildPlan,
    folder: Path,
    uv: Path,
    target: Path,
    built: Mapping[Distribution, Distribution] = MappingProxyType({}),
) -> None:
    """Lay out the build context of a plan, replacing what `target` holds.

    Args:
        folder: The project that the plan's code is read from.
        uv: A uv for the image's platform, bound into the build and never part of the image.
        target: The context; made anew beside itself and then moved into place.
        built: The wheel of each source distribution of the plan.

    Raises:
        SpecError: A file of the project changed or vanished since the plan was made.
    """
    fresh = target.with_name(f"{target.name}.{os.getpid()}")
    try:
        _lay_out(plan, folder, uv, fresh, built)
        shutil.rmtree(target, ignore_errors=True)
        fresh.rename(target)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)


def _lay_out(
    plan: BuildPlan, folder: Path, uv: Path, target: Path, built: Mapping[Distribution, Distribution]
) -> None:
    _write(target / "Dockerfile", render_dockerfile(plan).encode())
    _link(uv, target / "bin" / "uv")
    for entry in environments(plan):
        _write_entry(target / "environments" / entry.path, entry)
    for group, packages in (("heavy", plan.heavy), ("light", plan.light), ("tools", plan.tools)):
        _write_lock(target / "locks" / group, [built.get(each, each) for each in packages])
    for name, path in entrypoint_files().items():
        environment = VENV if name == "trainpack.py" else TOOLS
        _write(
            target / "entrypoint" / _inside(site_packages(environment, plan.python)) / name, path.read_bytes()
        )
    for file in plan.code:
        content = _read_unchanged(folder / file.path, file.sha256)
        _write(target / "app" / "opt" / "app" / file.path, content, file.mode)
    manifest = json.dumps(plan.manifest, indent=2, sort_keys=True) + "\n"
    _write(target / "app" / "opt" / "trainpack" / "image.json", manifest.encode())


def _inside(path: str) -> str:
    return path.lstrip("/")


def _read_unchanged(path: Path, sha256: str) -> bytes:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise SpecError(f"cannot be read any more: {error.strerror}", place=str(path)) from None
    if hashlib.sha256(content).hexdigest() != sha256:
        raise TrainpackError(
            "changed while the image was being planned", place=str(path), remedy="build again"
        )
    return content


def _write(path: Path, content: bytes, mode: int = 0o644) -> None:
    path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    path.write_bytes(content)
    path.chmod(mode)
    # BuildKit takes a file of the same size and time for unchanged, so the time must follow the content;
    # a clock's would make two builds of the same files differ.
    moment = _YEAR_1980 + int.from_bytes(hashlib.sha256(content).digest()[:8]) % _TEN_YEARS
    os.utime(path, (moment, moment))


def _write_entry(path: Path, entry: Entry) -> None:
    if entry.kind == "folder":
        path.mkdir(mode=entry.mode, parents=True, exist_ok=True)
    elif entry.kind == "link":
        path.parent.mkdir(parents=True, exist_ok=True)
        path.symlink_to(entry.target)
    else:
        _write(path, bytes(entry.content), entry.mode)


def _link(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)


def _write_lock(folder: Path, packages: Iterable[Distribution]) -> None:
    """A minimal pylock.toml, with files of this machine laid beside it and named by relative path."""
    entries = []
    for package in packages:
        where = {"url": package.url}
        if package.url.startswith("file:"):
            source = Path(unquote(urlsplit(package.url).path))
            _link(source, folder / package.filename)
            where = {"path": package.filename}
        file = {"name": package.filename, **where, "hashes": {"sha256": package.sha256}}
        entries.append({"name": package.name, "version": package.version, "wheels": [file]})
    lock = {"lock-version": "1.0", "created-by": "trainpack", "packages": entries}
    _write(folder / "pylock.toml", tomli_w.dumps(lock).encode())

"""`trainpack lock`."""

from __future__ import annotations

import os
from typing import Annotated

import typer

from builder.cli.output import HERE, FolderOption, JsonOption, note, result
from builder.lock.pylock import FILE, TOOLS_FILE, Lock, lock_project, read_lock
from builder.spec import load_spec

app = typer.Typer(rich_markup_mode=None)


@app.command(epilog="Example: trainpack lock --upgrade")
def lock(
    folder: FolderOption = HERE,
    upgrade: Annotated[
        bool, typer.Option("--upgrade", help="Take the newest versions instead of keeping the locked ones.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Resolve the requirements to pylock.toml, exactly and with hashes."""
    from builder.bases import glibc_of  # noqa: PLC0415

    spec = load_spec(folder)
    glibc = glibc_of(spec.image.python)
    note(f"resolving for Python {spec.image.python} on {spec.image.platform}")
    lock_project(spec, folder, glibc=glibc, environ=os.environ, upgrade=upgrade)
    locked = read_lock(spec, folder, glibc=glibc)
    result(_data(locked), as_json=as_json, text=lambda: _text(locked))


def _data(lock: Lock) -> dict[str, object]:
    return {"files": [FILE, TOOLS_FILE], **lock.model_dump(mode="json")}


def _text(lock: Lock) -> str:
    packages = [f"{package.name} {package.version}" for package in lock.packages]
    gpu = f"CUDA {lock.cuda}, driver {lock.driver} or newer" if lock.cuda else "no CUDA"
    return "\n".join([*packages, f"{len(packages)} packages in {FILE}, {gpu}"])

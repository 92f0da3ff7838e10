"""What a run leaves: created and changed files are collected, listed with size and digest, metrics read."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from trainpack_entrypoint.inputs.workspace import Stamp, copy_file, stamp
from trainpack_entrypoint.outcome.globs import Excludes
from trainpack_entrypoint.paths import Paths


class Outputs:
    """The files below /workspace/outputs, and what could not be collected."""

    def __init__(self) -> None:
        self.files: list[dict[str, Any]] = []
        self.problems: list[str] = []


def collect(
    paths: Paths, laid_out: Mapping[str, Stamp], data: Iterable[str], exclude: Iterable[str]
) -> Outputs:
    """Bring what the script created or changed below its code into the outputs, and list them all.

    Args:
        laid_out: The code's files as they were before the script.
        data: Paths that hold datasets, never outputs.
    """
    outputs, excludes, datasets = Outputs(), Excludes(exclude), set(data)
    for path in _files(paths.code, "", datasets, outputs.problems):
        if path not in excludes and _is_new(os.path.join(paths.code, path), laid_out.get(path)):
            _guarded(outputs.problems, path, _bring, paths, path)
    for path in sorted(_files(paths.outputs, "", set(), outputs.problems)):
        _guarded(outputs.problems, path, _list, paths, path, outputs.files)
    return outputs


def _guarded(problems: list[str], path: str, action: Any, *arguments: Any) -> None:
    try:
        action(*arguments)
    except OSError as error:
        problems.append(f"{path}: {error.strerror}")


def _files(root: str, folder: str, skipped: set[str], problems: list[str]) -> Iterator[str]:
    try:
        with os.scandir(os.path.join(root, folder)) as found:
            entries = list(found)
    except OSError as error:
        problems.append(f"{folder or root}: {error.strerror}")
        return
    for entry in entries:
        path = os.path.join(folder, entry.name)
        if path in skipped or entry.name == "__pycache__":
            continue
        if entry.is_dir(follow_symlinks=False):
            yield from _files(root, path, skipped, problems)
        else:
            yield path


def _is_new(path: str, before: Stamp | None) -> bool:
    return before is None or stamp(os.lstat(path)) != before


def _resolved(paths: Paths, path: str) -> str | None:
    """The regular file that a path means; None for a link out of the workspace, a loop, a device."""
    real = os.path.realpath(path)
    is_inside = real.startswith(os.path.realpath(paths.workspace) + os.sep)
    return real if is_inside and os.path.isfile(real) else None


def _bring(paths: Paths, path: str) -> None:
    source = _resolved(paths, os.path.join(paths.code, path))
    target = os.path.join(paths.outputs, path)
    if source is None or _is_newer(target, source):
        return
    os.makedirs(os.path.dirname(target), exist_ok=True)
    _put(source, target)


def _is_newer(target: str, source: str) -> bool:
    # What the script itself put there last is what it means.
    return os.path.lexists(target) and os.lstat(target).st_mtime_ns >= os.stat(source).st_mtime_ns


def _put(source: str, target: str) -> None:
    """Put a file in place in one step; linked where the file system can, since checkpoints are large."""
    partial = target + ".trainpack-partial"
    try:
        os.link(source, partial)
    except OSError:
        copy_file(source, partial)
    os.replace(partial, target)
    # Replacing a name by another name of the same file does nothing and leaves both.
    if os.path.lexists(partial):
        os.unlink(partial)


def _list(paths: Paths, path: str, files: list[dict[str, Any]]) -> None:
    full = os.path.join(paths.outputs, path)
    if os.path.islink(full):
        source = _resolved(paths, full)
        if source is None:
            return
        _put(source, full)
    status = os.lstat(full)
    if stat.S_ISREG(status.st_mode):
        files.append({"path": path, "size": status.st_size, "sha256": _digest(full)})


def _digest(path: str) -> str:
    import hashlib

    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_metrics(paths: Paths, outputs: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """What the script measured: the lines of `metrics.jsonl`, else the numbers of a `metrics.json` it left.

    A line that is cut or malformed is left out. Of several `metrics.json` the one least deep counts.
    """
    try:
        with open(paths.metrics, "rb") as file:
            return [metric for line in file if (metric := _metric(line)) is not None]
    except OSError:
        names = [output["path"] for output in outputs if os.path.basename(output["path"]) == "metrics.json"]
        nearest = min(names, key=lambda name: (name.count("/"), name), default=None)
        return _numbers(os.path.join(paths.outputs, nearest)) if nearest else []


def _numbers(path: str) -> list[dict[str, Any]]:
    try:
        with open(path, "rb") as file:
            data = json.load(file)
    except (OSError, ValueError):
        return []
    entries = data.items() if isinstance(data, dict) else ()
    return [
        {"name": name, "value": value}
        for name, value in entries
        if isinstance(value, int | float) and not isinstance(value, bool)
    ]


def _metric(line: bytes) -> dict[str, Any] | None:
    try:
        data = json.loads(line)
    except ValueError:
        return None
    is_metric = isinstance(data, dict) and isinstance(data.get("name"), str) and "value" in data
    return data if is_metric else None

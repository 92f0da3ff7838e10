"""The layout of /workspace: the copy of the code, the inputs, the folders that libraries need."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from trainpack_entrypoint.failures import RunError
from trainpack_entrypoint.paths import Paths

# What tells a changed file from the copy that was laid out: inode, size, and both of its times.
Stamp = tuple[int, int, int, int]


def stamp(status: os.stat_result) -> Stamp:
    """What changes when a file is written or replaced."""
    return status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns


@contextmanager
def writing(paths: Paths) -> Iterator[None]:
    """Turns a failed write into the error that names the user and the folder's mode.

    Raises:
        RunError: `workspace`.
    """
    try:
        yield
    except OSError as error:
        raise RunError("workspace", f"{error.filename}: {error.strerror}; {_ownership(paths)}") from None


def _ownership(paths: Paths) -> str:
    who = f"this container runs as uid {os.getuid()} gid {os.getgid()}"
    try:
        status = os.stat(paths.workspace)
    except OSError:
        return f"{who} and {paths.workspace} cannot be read; mount a folder that it can write there"
    mode = stat.S_IMODE(status.st_mode)
    return (
        f"{who} and {paths.workspace} has mode {mode:04o} and belongs to {status.st_uid}:{status.st_gid}; "
        "mount a volume or tmpfs with free space there that this uid can write (mode 1777)"
    )


def absent_datasets(paths: Paths, data: Mapping[str, str]) -> list[str]:
    """The `[data]` aliases that are neither mounted nor in the image."""
    return [alias for alias, path in data.items() if _dataset(paths, alias, path) is None]


def _dataset(paths: Paths, alias: str, path: str) -> str | None:
    places = (paths.mount(f"datasets/{alias}"), os.path.join(paths.app, path))
    return next((place for place in places if os.path.exists(place)), None)


def lay_out(
    paths: Paths,
    data: Mapping[str, str],
    parameters: Mapping[str, Any],
    labelmap: Mapping[str, str] | None,
    downloaded: Collection[str] | None = None,
) -> dict[str, Stamp]:
    """Fill the workspace.

    Args:
        data: Dataset alias → path that the script reads, relative to its folder.
        downloaded: The aliases that are in the inputs already, as files then are; None without a platform.

    Returns:
        The files of the code, by relative path, as they were laid out.

    Raises:
        RunError: `workspace`, when it cannot be written.
    """
    with writing(paths):
        for folder in (paths.code, paths.outputs, paths.home, paths.temporary):
            os.makedirs(folder, exist_ok=True)
        laid_out: dict[str, Stamp] = {}
        _copy_tree(paths.app, paths.code, "", set(data.values()), laid_out)
        _link_inputs(paths, data, downloaded)
        _write_json(os.path.join(paths.inputs, "parameters.json"), parameters)
        if labelmap is not None:
            _write_json(os.path.join(paths.inputs, "labelmap.json"), labelmap)
    return laid_out


def _copy_tree(source: str, target: str, folder: str, skipped: set[str], copied: dict[str, Stamp]) -> None:
    with os.scandir(os.path.join(source, folder)) as entries:
        for entry in entries:
            path = os.path.join(folder, entry.name)
            destination = os.path.join(target, path)
            if path in skipped:
                continue
            if entry.is_dir(follow_symlinks=False):
                os.makedirs(destination, exist_ok=True)
                _copy_tree(source, target, path, skipped, copied)
            else:
                _replace(entry, destination)
                copied[path] = stamp(os.lstat(destination))


def _replace(entry: os.DirEntry[str], destination: str) -> None:
    # A restarted container finds its last copy here.
    if os.path.lexists(destination):
        os.unlink(destination)
    if entry.is_symlink():
        os.symlink(os.readlink(entry.path), destination)
    else:
        copy_file(entry.path, destination)


def copy_file(source: str, destination: str) -> None:
    """Copy a file's bytes and permissions; its owner, the running user, can read and write the copy."""
    with open(source, "rb") as reader, open(destination, "wb") as writer:
        status = os.fstat(reader.fileno())
        while data := reader.read(1 << 20):
            writer.write(data)
        os.fchmod(writer.fileno(), stat.S_IMODE(status.st_mode) & 0o777 | stat.S_IRUSR | stat.S_IWUSR)


def _link_inputs(paths: Paths, data: Mapping[str, str], downloaded: Collection[str] | None) -> None:
    datasets = os.path.join(paths.inputs, "datasets")
    os.makedirs(datasets, exist_ok=True)
    # A former run of the same workspace may have had other inputs.
    for alias in set(os.listdir(datasets)) - set(downloaded or ()):
        _clear(os.path.join(datasets, alias))
    if downloaded is None:
        _clear(os.path.join(paths.inputs, "files"))
    mounted = paths.mount("datasets")
    for alias in os.listdir(mounted) if os.path.isdir(mounted) else []:
        _link(os.path.join(mounted, alias), os.path.join(datasets, alias))
    _link_files(paths.mount("files"), os.path.join(paths.inputs, "files"))
    for alias, path in data.items():
        if source := _dataset(paths, alias, path):
            _link(source, os.path.join(datasets, alias))
        _link(source or os.path.join(datasets, alias), os.path.join(paths.code, path))


def _link_files(mounted: str, files: str) -> None:
    if not os.path.isdir(mounted):
        return
    if os.path.islink(files) or not os.path.isdir(files):
        _link(mounted, files)
        return
    for name in os.listdir(mounted):
        _link(os.path.join(mounted, name), os.path.join(files, name))


def _clear(path: str) -> None:
    if os.path.isdir(path) and not os.path.islink(path):
        import shutil

        shutil.rmtree(path)
    elif os.path.lexists(path):
        os.unlink(path)


def _link(source: str, link: str) -> None:
    os.makedirs(os.path.dirname(link), exist_ok=True)
    if os.path.islink(link):
        os.unlink(link)
    os.symlink(source, link)


def _write_json(path: str, data: Any) -> None:
    # Parameters may hold secrets, which are nobody else's to read.
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with open(descriptor, "w", encoding="utf-8") as file:
        json.dump(data, file, indent=1)

"""Folders: every file below one, and a folder as a single file, which is how stores keep it.

The single file is a zip with all levels. The same content makes the same bytes: sorted, without times or
owners, not compressed. Its comment tells it from a zip that a user made.
"""

from __future__ import annotations

import os
import shutil
import stat
import uuid
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import IO, NoReturn, Protocol

from builder.errors import StoreError, UsageError

MARK = b"trainpack folder"
CHUNK = 1024 * 1024
_NO_TIME = (1980, 1, 1, 0, 0, 0)  # the earliest that a zip can say
# Encrypted or unknown entries are a RuntimeError; NotImplementedError is one.
_DAMAGE = (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError)
_LARGE = 2**31 - 2**20  # a zip says larger sizes in another form, chosen before they are written


class Sink(Protocol):
    """What takes bytes, in order."""

    def write(self, data: bytes, /) -> int:
        """Take some."""
        ...

    def flush(self) -> None:
        """Keep nothing back."""
        ...

    def close(self) -> None:
        """Take no more."""
        ...


def files_below(folder: Path) -> dict[str, Path]:
    """Every file below a folder by its relative path, sorted; a link to a file is that file.

    Raises:
        UsageError: It is no folder, cannot be read, or holds what is no file: a link to a folder, a socket.
    """
    return {name: path for name, path in _walk(folder) if not name.endswith("/")}


def pack(folder: Path, sink: Sink) -> None:
    """Write a folder as one file.

    Raises:
        UsageError: As `files_below`; or a name in it is not text.
        OSError: A file cannot be read or written.
    """
    with zipfile.ZipFile(sink, "w") as archive:
        archive.comment = MARK
        for name, path in _walk(folder):
            try:
                _pack_entry(archive, name, path)
            except UnicodeEncodeError:
                raise UsageError("this name is not text that can be stored", place=repr(str(path))) from None


def _pack_entry(archive: zipfile.ZipFile, name: str, path: Path) -> None:
    entry = zipfile.ZipInfo(name, _NO_TIME)
    entry.create_system = 3
    if name.endswith("/"):
        entry.external_attr = (stat.S_IFDIR | 0o755) << 16
        archive.writestr(entry, b"")
        return
    with path.open("rb") as source:
        status = os.fstat(source.fileno())
        mode = 0o755 if status.st_mode & stat.S_IXUSR else 0o644
        entry.external_attr = (stat.S_IFREG | mode) << 16
        with archive.open(entry, "w", force_zip64=status.st_size > _LARGE) as target:
            shutil.copyfileobj(source, target, CHUNK)


def is_packed(file: IO[bytes]) -> bool:
    """Whether a file is a folder that `pack` wrote; the file is read from wherever it stands."""
    size = file.seek(0, os.SEEK_END)
    file.seek(max(size - len(MARK), 0))
    return file.read() == MARK


def unpack(packed: Path, folder: Path) -> None:
    """Make a new folder of a packed one.

    Raises:
        StoreError: It is damaged, or has an entry that does not belong below the folder, or is no file.
        OSError: The folder exists, or cannot be written.
    """
    try:
        with zipfile.ZipFile(packed) as archive:
            folder.mkdir()
            for entry in archive.infolist():
                _unpack_entry(archive, entry, folder)
    except (*_DAMAGE, FileExistsError, NotADirectoryError) as error:
        if isinstance(error, FileExistsError) and error.filename == str(folder):
            raise
        raise StoreError(f"the packed folder cannot be unpacked: {error}", place=str(packed)) from None


def _unpack_entry(archive: zipfile.ZipFile, entry: zipfile.ZipInfo, folder: Path) -> None:
    mode = entry.external_attr >> 16
    path = PurePosixPath(entry.filename)
    odd = stat.S_IFMT(mode) not in (0, stat.S_IFREG, stat.S_IFDIR)
    if odd or path.is_absolute() or ".." in path.parts or "\\" in entry.filename or not path.parts:
        raise StoreError(
            f"the packed folder has the entry {entry.filename!r}, which is no file below it",
            place=str(archive.filename),
            remedy="it was not packed by trainpack: do not use it",
        )
    target = folder / path
    if entry.is_dir():
        target.mkdir(parents=True, exist_ok=True)
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    # x: nothing is written through or over what an earlier entry made.
    with archive.open(entry) as source, target.open("xb") as file:
        shutil.copyfileobj(source, file, CHUNK)
    if mode & stat.S_IXUSR:
        target.chmod(target.stat().st_mode | 0o111)


@contextmanager
def writable(target: Path) -> Iterator[None]:
    """Tell what cannot be written as the caller's to set right."""
    try:
        yield
    except OSError as error:
        raise UsageError(f"this cannot be written: {error.strerror}", place=str(target)) from None


@contextmanager
def new(target: Path) -> Iterator[Path]:
    """A path beside the target that becomes it once all is written; else nothing stays.

    Raises:
        UsageError: The target exists.
    """
    refuse_existing(target)
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".{uuid.uuid4().hex}.part")
    try:
        yield temporary
        temporary.rename(target)
    finally:
        if temporary.is_dir():
            shutil.rmtree(temporary, ignore_errors=True)
        temporary.unlink(missing_ok=True)


def refuse_existing(target: Path) -> None:
    """Nothing that exists is replaced.

    Raises:
        UsageError: The target exists.
    """
    if os.path.lexists(target):
        raise UsageError("this exists already", place=str(target), remedy="remove it, or name another folder")


def _walk(folder: Path) -> Iterator[tuple[str, Path]]:
    """Files by relative path, and empty folders with a slash at the end, sorted."""
    root = str(folder)
    found: list[tuple[str, Path]] = []
    for parent, folders, files in os.walk(root, onerror=_refuse):
        for name in [*files, *(name for name in folders if Path(parent, name).is_symlink())]:
            path = Path(parent, name)
            if not _is_file(path):
                raise UsageError("this is no file", place=str(path), remedy="replace or remove it")
            found.append((os.path.relpath(path, root), path))
        if not (folders or files) and parent != root:
            found.append((os.path.relpath(parent, root) + "/", Path(parent)))
    return iter(sorted(found))


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError as error:
        _refuse(error)


def _refuse(error: OSError) -> NoReturn:
    raise UsageError(f"this cannot be read: {error.strerror}", place=str(error.filename))

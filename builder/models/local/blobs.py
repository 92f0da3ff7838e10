"""Files by their content: `blobs/sha256/ab/abcd…`, each written once, never changed, verified when read.

A blob is written under a temporary name, made read-only, forced to the disk and then renamed, so that a name
is never seen before its whole content. What a crash leaves is a temporary file, or a blob that nobody refers
to; `remove_unused` takes both once they are a day old, which is longer than any write takes.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import time
import uuid
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, NamedTuple, TypeVar

from builder.errors import StoreError, UsageError
from builder.models.folders import CHUNK, is_packed, pack
from builder.models.local.database import FOLDER_VARIABLE

DAY = 24 * 60 * 60.0
THREADS = 16  # many small files wait for the disk, not for the processor
_FICLONE = 0x40049409  # Linux: share the blocks of another file until one of them is written
Item = TypeVar("Item")
Done = TypeVar("Done")


class Blob(NamedTuple):
    """A content that is kept."""

    sha256: str
    size: int


class Blobs:
    """The contents below one folder.

    Args:
        folder: It is made with the first blob.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._temporary = folder / "tmp"

    def path(self, sha256: str) -> Path:
        """Where a content is, if it is kept."""
        return self._folder / "sha256" / sha256[:2] / sha256

    def put(self, source: Path) -> Blob:
        """Keep a file, or a folder packed, and return once it is on the disk.

        Raises:
            UsageError: The source cannot be read.
            StoreError: The store cannot be written.
        """
        return self.put_all([source])[0]

    def put_all(self, sources: Sequence[Path]) -> list[Blob]:
        """Keep files and folders, several at a time, and return once all are on the disk.

        Raises:
            UsageError: A source cannot be read.
            StoreError: The store cannot be written.
        """
        with _explained(self._folder):
            self._temporary.mkdir(parents=True, exist_ok=True)
            blobs = at_once(self._put, sources)
            for folder in {self.path(blob.sha256).parent for blob in blobs}:
                _sync_folder(folder)
        return blobs

    def keep(self, hashes: Iterable[str]) -> None:
        """Make contents young again, so that none is removed before the transaction that refers to it ends.

        Raises:
            StoreError: One was removed, since it was put more than a day ago and never referred to.
        """
        for sha256 in hashes:
            try:
                os.utime(self.path(sha256))
            except OSError:
                raise StoreError(
                    "a stored content is missing", place=str(self.path(sha256)), remedy="store the file again"
                ) from None

    def copy(self, sha256: str, target: Path) -> None:
        """Write a content to a new file, verified.

        Raises:
            StoreError: It is missing, or is not what was once kept; the file holds what was read.
            OSError: The target exists or cannot be written.
        """
        with self._open(sha256) as source, target.open("xb") as file:
            cloned = _clone(source, file)
            self._verify(sha256, _pump(source, None if cloned else file))

    def is_packed(self, sha256: str) -> bool:
        """Whether a content is a packed folder.

        Raises:
            StoreError: It is missing.
        """
        with self._open(sha256) as file:
            return is_packed(file)

    def check(self, sha256: str) -> Path:
        """Where a content is, once it was verified.

        Raises:
            StoreError: It is missing, or is not what was once kept.
        """
        with self._open(sha256) as source:
            self._verify(sha256, _pump(source, None))
        return self.path(sha256)

    def sweep_is_due(self) -> bool:
        """Whether it is a day since this last said yes."""
        stamp = self._folder / "swept"
        with suppress(OSError):
            if time.time() - stamp.stat().st_mtime < DAY:
                return False
        with _explained(self._folder):
            self._folder.mkdir(parents=True, exist_ok=True)
            stamp.touch()
        return True

    def remove_unused(self, used: Collection[str]) -> None:
        """Remove what is older than a day and was never finished, or is not among the used.

        To be called while nobody can begin to use one: inside a transaction.
        """
        oldest = time.time() - DAY
        for file in (*self._temporary.glob("*"), *self._folder.glob("sha256/*/*")):
            with suppress(FileNotFoundError):
                if file.name not in used and file.stat().st_mtime < oldest:
                    file.unlink()

    def _put(self, source: Path) -> Blob:
        temporary = self._temporary / uuid.uuid4().hex
        try:
            with temporary.open("xb") as file:
                sink = _Hashing(file)
                _read(source, sink)
                file.flush()
                os.fchmod(file.fileno(), 0o444)
                os.fsync(file.fileno())
            blob = Blob(sink.sha256.hexdigest(), sink.size)
            # What is there already is replaced too: it may have been damaged.
            target = self.path(blob.sha256)
            if not target.parent.is_dir():
                target.parent.mkdir(parents=True, exist_ok=True)
                _sync_folder(target.parent.parent)
            temporary.replace(target)
        finally:
            temporary.unlink(missing_ok=True)
        return blob

    def _open(self, sha256: str) -> IO[bytes]:
        try:
            return self.path(sha256).open("rb")
        except OSError as error:
            raise self._bad(sha256, f"cannot be read: {error.strerror}") from None

    def _verify(self, sha256: str, found: str) -> None:
        if found != sha256:
            raise self._bad(sha256, f"is damaged: its content has the hash {found}")

    def _bad(self, sha256: str, what: str) -> StoreError:
        return StoreError(
            f"the stored file {what}, expected {sha256}",
            place=str(self.path(sha256)),
            remedy="store the file again; whatever else is stored can be used",
        )


class _Hashing:
    """Hashes what it passes on; as it cannot seek, a zip is written through it front to back."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self.sha256 = hashlib.sha256()
        self.size = 0

    def write(self, data: bytes) -> int:
        self.sha256.update(data)
        self.size += len(data)
        return self._file.write(data)

    def flush(self) -> None:
        self._file.flush()

    def close(self) -> None:
        self._file.close()


def at_once(do: Callable[[Item], Done], items: Sequence[Item]) -> list[Done]:
    """Do something for each item, several at a time; after a failure or Ctrl-C nothing more is begun."""
    pool = ThreadPoolExecutor(min(THREADS, len(items) or 1))
    try:
        return list(pool.map(do, items))
    finally:
        pool.shutdown(cancel_futures=True)


def _read(source: Path, sink: _Hashing) -> None:
    try:
        if source.is_dir():
            pack(source, sink)
            return
        if source.exists() and not source.is_file():
            raise UsageError("this is neither a file nor a folder", place=str(source))
        with source.open("rb") as file:
            while chunk := file.read(CHUNK):
                sink.write(chunk)
    except OSError as error:
        # Without a name it was the writing that failed.
        if error.filename is None:
            raise
        raise UsageError(f"this cannot be read: {error.strerror}", place=str(error.filename)) from None


def _pump(source: IO[bytes], target: IO[bytes] | None) -> str:
    sha256 = hashlib.sha256()
    while chunk := source.read(CHUNK):
        sha256.update(chunk)
        if target:
            target.write(chunk)
    return sha256.hexdigest()


def _clone(source: IO[bytes], target: IO[bytes]) -> bool:
    try:
        fcntl.ioctl(target.fileno(), _FICLONE, source.fileno())
    except OSError:
        return False  # another file system, or one that cannot share blocks
    return True


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def _explained(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        raise StoreError(
            f"the file cannot be stored: {error.strerror}",
            place=str(folder),
            remedy="free some space on the disk"
            if full
            else f"make the folder writable, or set {FOLDER_VARIABLE}",
        ) from None

"""A folder of blobs named by their digests: written whole or not at all, never trusted unread.

A blob is written beside its place, hashed on the way, and moved there at its end, so that a kill at any
moment leaves nothing but a stray file. Its time of change is then set to `SEALED`: a blob whose time is
another one was touched since it was verified, and is hashed again before it counts as there. What changes
bytes without the file system's knowledge is found when they are read: each reader hashes what it reads.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from builder.atomic import abandoned, room
from builder.errors import BlobError
from builder.oci.manifest import check_digest
from builder.oci.streams import CHUNK, verifying

SEALED = 315_532_800
YOUNG_SECONDS = 5
_NO_ROOM = (
    "free some space on it, let `trainpack cache prune` do so, or set TRAINPACK_CACHE to a folder with room"
)


class Blobs:
    """A content-addressed folder, safe to share with other processes."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._sealed = folder / "blobs" / "sha256"
        self._fresh = folder / "fresh"

    def path(self, digest: str) -> Path:
        """Where a blob lies, whether it is there or not."""
        return self._sealed / check_digest(digest, "the blob cache").removeprefix("sha256:")

    def has(self, digest: str, size: int) -> bool:
        """Whether the blob is there and whole; one that is not is removed."""
        path = self.path(digest)
        try:
            status = path.stat()
        except FileNotFoundError:
            return False
        if status.st_size == size and (_is_sealed(status) or _digest(path) == digest):
            _seal(path)
            return True
        path.unlink(missing_ok=True)
        return False

    @contextmanager
    def open(self, digest: str) -> Iterator[IO[bytes]]:
        """A blob, seekable, verified when it has been read from start to end.

        Raises:
            BlobError: It is not there, or its bytes are others; those are removed then.
        """
        path = self.path(digest)
        try:
            file = path.open("rb", buffering=0)
        except FileNotFoundError:
            raise BlobError(f"the blob {digest} is not there any more", place=str(self.folder)) from None
        with file:
            yield verifying(file, digest, f"the blob {digest}", lambda: path.unlink(missing_ok=True))

    def verify(self, digest: str) -> bool:
        """Hash a blob, whatever its times say; a corrupt one is removed."""
        path = self.path(digest)
        with suppress(FileNotFoundError):
            if _digest(path) != digest:
                path.unlink()
                return False
        return True

    def paths(self) -> list[Path]:
        """The files of all blobs."""
        found = self._sealed.iterdir() if self._sealed.is_dir() else ()
        return sorted(path for path in found if not path.name.startswith("."))

    def digests(self) -> list[str]:
        """The digests of all blobs."""
        return [f"sha256:{path.name}" for path in self.paths()]

    def strays(self) -> list[Path]:
        """What killed processes left unfinished; what a living one is writing is not among it."""
        found = list(self._fresh.iterdir()) if self._fresh.is_dir() else []
        beside = abandoned(self._sealed) if self._sealed.is_dir() else []
        return [*beside, *(path for path in found if _is_abandoned(path))]

    @contextmanager
    def writer(self, expected: str | None = None) -> Iterator[BlobWriter]:
        """A new blob: there, under the digest of what was written, once the block ends without an error.

        Args:
            expected: The digest that the bytes are said to have.

        Raises:
            BlobError: They have another one; nothing is kept.
        """
        self._sealed.mkdir(parents=True, exist_ok=True)
        with self.scratch() as file:
            writer = BlobWriter(file)
            yield writer
            file.flush()
            if expected and writer.digest != expected:
                raise BlobError(f"bytes with the digest {writer.digest}, expected {expected}")
            os.fchmod(file.fileno(), 0o444)
            _seal(Path(file.name))
            Path(file.name).rename(self.path(writer.digest))

    @contextmanager
    def scratch(self) -> Iterator[IO[bytes]]:
        """A file beside the blobs, gone at the end unless it was moved; a killed process's is swept away."""
        with room(self.folder, _NO_ROOM):
            self._fresh.mkdir(parents=True, exist_ok=True)
            descriptor, name = tempfile.mkstemp(dir=self._fresh)
            try:
                with open(name, "w+b", CHUNK, opener=lambda *_: descriptor) as file:
                    # Held until the process ends, however it ends: what nobody holds may be swept away.
                    fcntl.flock(file, fcntl.LOCK_EX)
                    yield file
            finally:
                Path(name).unlink(missing_ok=True)

    def put(self, content: bytes) -> str:
        """Keep a small blob; returns its digest."""
        with self.writer() as writer:
            writer.write(content)
        return writer.digest


class BlobWriter:
    """Where a new blob's bytes go; it knows their digest and number at any time."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._hasher = hashlib.sha256()
        self.size = 0

    def write(self, data: bytes | bytearray | memoryview) -> int:
        """Write all of it."""
        self._hasher.update(data)
        self.size += len(data)
        return self._file.write(data)

    @property
    def digest(self) -> str:
        """Of what was written so far."""
        return f"sha256:{self._hasher.hexdigest()}"


def _is_abandoned(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            # Between its first moment and its lock, a file is young.
            if time.time() - os.fstat(file.fileno()).st_mtime < YOUNG_SECONDS:
                return False
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def _is_sealed(status: os.stat_result) -> bool:
    return status.st_mtime_ns == SEALED * 10**9


def _seal(path: Path) -> None:
    """Mark a blob as verified, and as used just now."""
    # Another user's blob in a shared cache cannot be marked; it is hashed at each use instead.
    with suppress(FileNotFoundError, PermissionError):
        os.utime(path, (time.time(), SEALED))


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}"

"""A folder of blobs named by their digests: written whole or not at all, never trusted unread.

A blob is written beside its place, hashed on the way, and moved there at its end, so that a kill at any
moment leaves nothing but a stray file. Its time of change is then set to `SEALED`: a blob whose time is
another one was touched since it was verified, and is hashed again before it counts as there. What changes
bytes without the file system's knowledge is found when they are read: each reader hashes what it reads.
"""

from __future__ import annotations

import fcntl
import hashlib
import io
import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any, cast

from builder.errors import BlobError
from builder.oci.manifest import check_digest

SEALED = 315_532_800
CHUNK = 1 << 20


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
            yield cast("IO[bytes]", io.BufferedReader(_Verifying(file, digest, path), CHUNK))

    @contextmanager
    def writer(self) -> Iterator[BlobWriter]:
        """A new blob: there, under the digest of what was written, once the block ends without an error."""
        self._sealed.mkdir(parents=True, exist_ok=True)
        self._fresh.mkdir(parents=True, exist_ok=True)
        descriptor, name = tempfile.mkstemp(dir=self._fresh)
        try:
            with os.fdopen(descriptor, "wb", CHUNK) as file:
                # Held until the process ends, however it ends: what nobody holds may be swept away.
                fcntl.flock(file, fcntl.LOCK_EX)
                writer = BlobWriter(file)
                yield writer
                file.flush()
                os.fchmod(descriptor, 0o444)
                _seal(Path(name))
                Path(name).rename(self.path(writer.digest))
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise

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


class _Verifying(io.RawIOBase):
    """Reads a blob and hashes it; at the end, bytes of another digest are an error and the blob is removed.

    Who jumps about is verified as far as it reads on from the start.
    """

    def __init__(self, file: Any, digest: str, path: Path) -> None:
        self._file, self._digest, self._path = file, digest, path
        self._hasher, self._hashed = hashlib.sha256(), 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        return int(self._file.seek(offset, whence))

    def readinto(self, buffer: Any) -> int:
        at = self._file.tell()
        count = int(self._file.readinto(buffer))
        if count and at <= self._hashed < at + count:
            self._hasher.update(memoryview(buffer)[self._hashed - at : count])
            self._hashed = at + count
        if not count and at == self._hashed and f"sha256:{self._hasher.hexdigest()}" != self._digest:
            self._path.unlink(missing_ok=True)
            raise BlobError(
                f"the blob {self._digest} is corrupt, and was removed",
                place=str(self._path),
                remedy="build again: it is made anew",
            )
        return count


def _is_sealed(status: os.stat_result) -> bool:
    return status.st_mtime_ns == SEALED * 10**9


def _seal(path: Path) -> None:
    """Mark a blob as verified, and as used just now."""
    with suppress(FileNotFoundError):
        os.utime(path, (time.time(), SEALED))


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}"

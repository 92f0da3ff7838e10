"""Files that are read through something: verified, or a part of a larger file."""

from __future__ import annotations

import hashlib
import io
import os
from collections.abc import Callable
from typing import IO, Any, cast

from builder.errors import BlobError

CHUNK = 1 << 20


def verifying(file: Any, digest: str, name: str, discard: Callable[[], object] | None = None) -> IO[bytes]:
    """A seekable view of a file whose bytes must have a digest.

    Who reads it from start to end gets an error in place of the end when they have another one. Who jumps
    about is verified as far as it reads on from the start.

    Args:
        name: For the message.
        discard: Called when the bytes are others, where they are kept to be made anew.
    """
    return cast("IO[bytes]", io.BufferedReader(_Verifying(file, digest, name, discard), CHUNK))


def section(file: Any, start: int, size: int) -> io.RawIOBase:
    """A part of a seekable file as a file of its own."""
    return _Section(file, start, size)


class _Verifying(io.RawIOBase):
    def __init__(self, file: Any, digest: str, name: str, discard: Callable[[], object] | None) -> None:
        self._file, self._digest, self._name, self._discard = file, digest, name, discard
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
            raise self._corrupt()
        return count

    def _corrupt(self) -> BlobError:
        remedy = "have a whole copy written, since this one is not what it was"
        if self._discard:
            self._discard()
            remedy = "try again: what is in the cache is made anew"
        met = f"sha256:{self._hasher.hexdigest()}"
        message = f"{self._name} is corrupt: its digest is {met}, expected {self._digest}"
        return BlobError(message, remedy=remedy)


class _Section(io.RawIOBase):
    def __init__(self, file: Any, start: int, size: int) -> None:
        self._file, self._start, self._size, self._at = file, start, size, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        self._at = offset + {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._size}[whence]
        return self._at

    def readinto(self, buffer: Any) -> int:
        self._file.seek(self._start + self._at)
        wanted = max(0, min(len(buffer), self._size - self._at))
        count = int(self._file.readinto(memoryview(buffer)[:wanted]))
        self._at += count
        return count

"""The log of a run on disk: bounded, read while it is written, and never in the way of who writes.

It lies in segments. When the log reaches its limit, or the disk is full, the oldest segment but the first is
given up: it is the one that was sent first, and beginning and end of a log say most.
"""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from io import FileIO

LIMIT = 1 << 30
_SEGMENTS = 16
_LIMIT_IN_MEMORY = 1 << 24
_MOST_CHAPTERS = 10_000
CHAPTER = b"--#--"


class _Segment:
    """One file: the lines from number `first` on, of which `size` bytes are whole."""

    def __init__(self, file: FileIO, first: int) -> None:
        self.file = file
        self.first = first
        self.lines = 0
        self.size = 0

    def append(self, data: bytes, lines: int) -> None:
        view = memoryview(data)
        try:
            while view:
                view = view[self.file.write(view) :]
        except OSError:
            self.file.truncate(self.size)
            raise
        self.lines += lines
        self.size += len(data)


class Spool:
    """Takes lines; every line has a number, also one that could not be kept.

    Args:
        folder: Where to write; memory, when that is impossible.
        limit: Bytes on disk; never more than a quarter of what is free there, which training needs itself.

    Attributes:
        started: When, in seconds since the epoch.
        lines: How many lines were taken.
        chapters: When a line that opens a chapter was taken, by its number.
    """

    def __init__(self, folder: str, limit: int = LIMIT) -> None:
        self._folder: str | None = folder
        self._segments: list[_Segment] = []
        self._size = 0
        self.started = time.time()
        self.lines = 0
        self.chapters: dict[int, float] = {}
        self._limit = min(limit, self._usable())

    def _usable(self) -> int:
        try:
            os.makedirs(self._folder or "", exist_ok=True)
            self._open().close()
            status = os.statvfs(self._folder or "")
            return status.f_bavail * status.f_frsize // 4
        except OSError:
            self._folder = None
            return _LIMIT_IN_MEMORY

    def _open(self) -> FileIO:
        if self._folder is None:
            return FileIO(os.memfd_create("log"), "r+")
        path = os.path.join(self._folder, f".log-{os.getpid()}")
        file = FileIO(
            os.open(
                path, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_APPEND | os.O_CLOEXEC, 0o600
            ),
            "r+",
        )
        os.unlink(path)
        return file

    def add(self, lines: Sequence[bytes]) -> None:
        """Take lines, without their ends."""
        data, first = b"\n".join(lines) + b"\n", self.lines
        self.lines += len(lines)
        if CHAPTER in data:
            self._date_chapters(lines, first)
        while not self._is_kept(data, first, len(lines)):
            if not self._give_up_oldest():
                return

    def _date_chapters(self, lines: Sequence[bytes], first: int) -> None:
        now = time.time()
        for number, line in enumerate(lines, first):
            if line.startswith(CHAPTER) and len(self.chapters) < _MOST_CHAPTERS:
                self.chapters[number] = now

    def _is_kept(self, data: bytes, first: int, lines: int) -> bool:
        if self._size + len(data) > self._limit:
            return False
        last = self._segments[-1] if self._segments else None
        try:
            if (
                last
                and last.first + last.lines == first
                and last.size + len(data) <= self._limit // _SEGMENTS
            ):
                last.append(data, lines)
            else:
                segment = _Segment(self._open(), first)
                segment.append(data, lines)
                self._segments.append(segment)
        except OSError:
            return False
        self._size += len(data)
        return True

    def _give_up_oldest(self) -> bool:
        # Who still reads it holds it: the space is free when nobody does.
        if len(self._segments) < 2:
            return False
        self._size -= self._segments.pop(1).size
        return True

    @property
    def lost(self) -> int:
        """How many lines were not kept, or no longer are."""
        return self.lines - sum(segment.lines for segment in self._segments)

    def after(self, segment: _Segment | None) -> _Segment | None:
        """The segment that follows, the first one after None; None at the end."""
        known = segment.first if segment else -1
        return next((each for each in list(self._segments) if each.first > known), None)


class Reader:
    """Reads a spool from its start, also while it grows; several can read at once.

    Attributes:
        number: The number of the next line.
    """

    def __init__(self, spool: Spool) -> None:
        self._spool = spool
        self._segment: _Segment | None = None
        self._offset = 0
        self.number = 0

    def read(self, size: int) -> tuple[int, bytes]:
        """Whole lines, about so many bytes.

        Returns:
            How many lines are missing before these, and these; empty at the end.
        """
        following = self._spool.after(self._segment)
        # Asked in this order, since only a segment that another follows does not grow any more.
        if self._segment is None or (following and self._offset == self._segment.size):
            if following is None:
                return 0, b""
            self._segment, self._offset = following, 0
        chunk = self._whole_lines(self._segment, size)
        missing = self._segment.first - self.number if self._offset == 0 and chunk else 0
        self._offset += len(chunk)
        self.number += missing + chunk.count(b"\n")
        return missing, chunk

    def _whole_lines(self, segment: _Segment, size: int) -> bytes:
        while True:
            chunk = os.pread(segment.file.fileno(), min(size, segment.size - self._offset), self._offset)
            end = chunk.rfind(b"\n") + 1
            if end or len(chunk) < size:
                return chunk[:end]
            size *= 2

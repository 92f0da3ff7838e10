"""Log lines on their way to the platform: spooled to disk, sent in the background, never in the way."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence

from trainpack_entrypoint.output import readable

CHAPTER = "--#--"
BATCH_LINES = 500
BATCH_BYTES = 1 << 18
_LONGEST_PAUSE = 10.0


class Relay:
    """Sends lines in the background, in order, each batch until it succeeds.

    Args:
        send: Sends one batch: a chapter's heading alone, or lines of one chapter; any exception is a failure.
        folder: Where to spool; memory, when it cannot be written.
    """

    def __init__(self, send: Callable[[list[str]], None], folder: str) -> None:
        self._send = send
        self._spool = _open_spool(folder)
        self._written = 0
        self._is_full = False
        self._more = threading.Event()
        self._deadline: float | None = None
        self._thread = threading.Thread(target=self._run, name="relay", daemon=True)
        self._thread.start()

    def add(self, lines: Sequence[bytes]) -> None:
        """Take lines; never blocks on the platform. A full disk ends the relay, not the training."""
        data = b"\n".join(lines) + b"\n"
        try:
            while data and not self._is_full:
                count = os.write(self._spool, data)
                data = data[count:]
                self._written += count
        except OSError:
            self._is_full = True
        self._more.set()

    def close(self, seconds: float) -> bool:
        """Send what is left, for at most so many seconds.

        Returns:
            Whether everything arrived.
        """
        self._deadline = time.monotonic() + seconds
        self._more.set()
        self._thread.join(seconds + 1)
        return not self._thread.is_alive() and not self._is_full

    def _run(self) -> None:
        offset = 0
        while not self._is_over():
            chunk = self._complete_lines(offset)
            if not chunk:
                if self._deadline is not None:
                    return
                self._more.wait()
                self._more.clear()
                continue
            for batch in _batches(chunk):
                self._deliver(batch)
            offset += len(chunk)

    def _is_over(self) -> bool:
        return self._deadline is not None and time.monotonic() >= self._deadline

    def _complete_lines(self, offset: int) -> bytes:
        size = BATCH_BYTES
        while True:
            chunk = os.pread(self._spool, size, offset)
            end = chunk.rfind(b"\n") + 1
            if end or len(chunk) < size:
                return chunk[:end]
            size *= 2

    def _deliver(self, batch: list[str]) -> None:
        pause = 0.2
        while not self._is_over():
            try:
                self._send(batch)
            except Exception:
                # Whatever it was, the training goes on, and the lines wait for the platform to come back.
                self._pause(pause)
                pause = min(2 * pause, _LONGEST_PAUSE)
            else:
                return

    def _pause(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0 and not self._is_over():
            time.sleep(min(left, 0.1))


def _open_spool(folder: str) -> int:
    path = os.path.join(folder, ".relay")
    try:
        os.makedirs(folder, exist_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND, 0o600)
        os.unlink(path)
    except OSError:
        return os.memfd_create("relay")
    return descriptor


def _batches(chunk: bytes) -> Iterator[list[str]]:
    batch: list[str] = []
    for line in chunk[:-1].split(b"\n"):
        text = readable(line)
        if text.startswith(CHAPTER) or len(batch) == BATCH_LINES:
            if batch:
                yield batch
            batch = []
        if text.startswith(CHAPTER):
            yield [text]
        else:
            batch.append(text)
    if batch:
        yield batch

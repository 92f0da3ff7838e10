"""Log lines on their way to the platform: kept on disk, sent in the background, never in the way."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence

from trainpack_entrypoint.display import Display, Message
from trainpack_entrypoint.output import readable
from trainpack_entrypoint.spool import Reader, Spool
from trainpack_entrypoint.transport import Backoff, is_about_content, is_permanent

BATCH_BYTES = 1 << 18
# A script that prints line by line costs a few requests a second, not one for each line.
_GATHER_SECONDS = 0.2

Send = Callable[[Message], None]


class Relay:
    """Sends a log in the background to each of its readers, in order, each message until it succeeds.

    Args:
        sends: Each sends one message to one reader; any exception is a failure. None holds another up.
    """

    def __init__(self, spool: Spool, sends: Sequence[Send]) -> None:
        self._spool = spool
        self._carriers = [_Carrier(spool, send) for send in sends]

    def add(self, lines: Sequence[bytes]) -> None:
        """Take lines; never waits for the platform."""
        self._spool.add(lines)
        for carrier in self._carriers:
            carrier.more.set()

    def close(self, exit_code: int, seconds: float) -> int:
        """Send what is left, and the exit code after it, for at most so many seconds.

        Returns:
            How many lines a reader did not get.
        """
        deadline = time.monotonic() + seconds
        for carrier in self._carriers:
            carrier.close(exit_code, deadline)
        return max((carrier.unsent(deadline) for carrier in self._carriers), default=0)


class _Carrier:
    """Carries a log to one reader, in a thread of its own."""

    def __init__(self, spool: Spool, send: Send) -> None:
        self._spool = spool
        self._send = send
        self._display = Display()
        self._sent = 0
        self._exit_code = 0
        self._deadline: float | None = None
        self._closing = threading.Event()
        self.more = threading.Event()
        self._thread = threading.Thread(target=self._run, name="relay", daemon=True)
        self._thread.start()

    def close(self, exit_code: int, deadline: float) -> None:
        self._exit_code, self._deadline = exit_code, deadline
        self._closing.set()
        self.more.set()

    def unsent(self, deadline: float) -> int:
        """Wait for the end; how many lines never arrived."""
        self._thread.join(max(deadline - time.monotonic(), 0) + 1)
        return self._spool.lines - self._sent

    def _run(self) -> None:
        reader = Reader(self._spool)
        while not self._is_over():
            self.more.clear()
            is_last = self._closing.is_set()
            missing, chunk = reader.read(BATCH_BYTES)
            if chunk:
                if not self._show(missing, chunk):
                    return
            elif is_last:
                self._deliver(self._display.end(self._exit_code))
                return
            else:
                self.more.wait()
                self._closing.wait(_GATHER_SECONDS)

    def _is_over(self) -> bool:
        return self._deadline is not None and time.monotonic() >= self._deadline

    def _show(self, missing: int, chunk: bytes) -> bool:
        lines = [readable(line) for line in chunk[:-1].split(b"\n")]
        if missing:
            # A line that the log does not have.
            lines.insert(0, gap(missing))
            self._sent -= 1
        return all(self._deliver(message) for message in self._display.messages(lines))

    def _deliver(self, message: Message) -> bool:
        """Send until it succeeds; false when there is nothing more to wait for."""
        backoff = Backoff()
        while not self._is_over():
            try:
                self._send(message)
            except Exception as error:
                # Whatever it was, the training goes on, and the lines wait for the platform to come back.
                if is_about_content(error):
                    return True
                if self._closing.is_set() and is_permanent(error):
                    return False
                self._pause(backoff.after(error))
            else:
                self._sent += message.stands_for
                return True
        return False

    def _pause(self, seconds: float) -> None:
        if not self._closing.is_set():
            self._closing.wait(seconds)
        elif self._deadline is not None:
            time.sleep(max(min(seconds, self._deadline - time.monotonic()), 0))


def gap(lines: int) -> str:
    """What stands for lines that were not kept."""
    return (
        f"trainpack: {lines} lines are missing here: the log reached TRAINPACK_LOG_LIMIT or filled the disk"
    )

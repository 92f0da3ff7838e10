"""The script's output as lines, for `failure.json` and the platform."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence

TAIL_LINES = 50
TAIL_LINE_BYTES = 2_000
# A traceback through torch has some 200 lines; with TAIL_LINE_BYTES this bounds the memory too.
ERROR_LINES = 1_000
_STDERR = 2
LONGEST_LINE = 8 * 1024 * 1024


class Lines:
    """Makes lines of what two streams deliver in pieces; a line is never torn by the other stream.

    Args:
        deliver: Called with whole lines, without their ends, in the order in which they were completed.
    """

    def __init__(self, deliver: Callable[[Sequence[bytes]], None] | None) -> None:
        self.deliver = deliver
        self._tail: deque[bytes] = deque(maxlen=TAIL_LINES)
        self._errors: deque[bytes] = deque(maxlen=ERROR_LINES)
        self._rest: dict[int, bytes] = {}

    def feed(self, stream: int, data: bytes) -> None:
        """Take what a stream delivered."""
        *lines, rest = (self._rest.get(stream, b"") + data).split(b"\n")
        if len(rest) > LONGEST_LINE:
            rest = self._shorten(rest, lines)
        self._rest[stream] = rest
        self._remember(stream, lines)
        self._take(lines)

    def _shorten(self, rest: bytes, lines: list[bytes]) -> bytes:
        # A progress bar ends its lines with \r: only what it shows now is kept.
        shown = rest.rpartition(b"\r")[2]
        if len(shown) <= LONGEST_LINE:
            return shown
        lines.append(rest)
        return b""

    def close(self) -> None:
        """Complete the lines that have no end."""
        self._remember(_STDERR, [rest for rest in (self._rest.get(_STDERR),) if rest])
        rests = [rest for rest in self._rest.values() if rest]
        self._rest.clear()
        self._take(rests)

    def _remember(self, stream: int, lines: Sequence[bytes]) -> None:
        # The start of a line says what was raised; what a progress bar has overwritten says nothing.
        if stream == _STDERR:
            shown = (line.rstrip(b"\r").rpartition(b"\r")[2] for line in lines[-ERROR_LINES:])
            self._errors.extend(line[:TAIL_LINE_BYTES] for line in shown)

    def _take(self, lines: Sequence[bytes]) -> None:
        self._tail.extend(line[-TAIL_LINE_BYTES:] for line in lines[-TAIL_LINES:])
        if self.deliver and lines:
            self.deliver(lines)

    @property
    def tail(self) -> list[str]:
        """The last lines, each cut to its last `TAIL_LINE_BYTES`."""
        return [readable(line) for line in self._tail]

    @property
    def errors(self) -> list[str]:
        """The end of standard error alone, each line cut to its first `TAIL_LINE_BYTES`."""
        return [readable(line) for line in self._errors]


def readable(line: bytes) -> str:
    """A line as text: what a terminal would show of one that was overwritten by carriage returns."""
    shown = line.rstrip(b"\r").rpartition(b"\r")[2]
    return shown.decode("utf-8", "replace").replace("\x00", "\ufffd")

"""How the platform shows a log: the protocol of its own training images, as a script prints it.

`--#--` opens a chapter. `-----` starts a progress line, which each line replaces until one starts with
`--*--`. `--N--` opens a buffer, whose lines replace nothing, and `---N---` closes it. An exit line,
`--ec-- N`, is text here.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import NamedTuple

CHAPTER = "--#--"
BATCH_LINES = 500
_PROGRESS = "-----"
_PROGRESS_END = "--*--"
_BUFFER = re.compile(r"--\d+--")
_BUFFER_END = re.compile(r"---\d+---")
_EXIT = re.compile(r"--ec-- \d")


class Message(NamedTuple):
    """One request: a text that is shown at a line's number, or a buffer of lines from there on.

    Attributes:
        stands_for: How many lines of the log it shows, or was the last of.
        special: How the platform takes it: `buffer`, `exit_code`, or as one line.
    """

    number: int
    part: str
    content: str | list[str]
    stands_for: int
    special: str | bool = False


class Display:
    """Turns the lines of a log, in order, into messages; what it sends again has the number it had before.

    Attributes:
        number: The number of the next line that is shown.
        part: The chapter that is open.
    """

    def __init__(self) -> None:
        self.number = 0
        self.part = f"{CHAPTER}Training"
        self._progress: int | None = None
        self._is_buffered = False

    def messages(self, lines: Iterable[str]) -> Iterator[Message]:
        """What shows these lines, in as few requests as there can be."""
        group: list[str] = []
        for line in lines:
            if line.startswith("--") and self._is_marker(line):
                yield from self._shown(group)
                group = []
                self._follow(line)
            if line.startswith(CHAPTER):
                yield Message(self._take(1), self.part, line, 1)
            else:
                group.append(line)
        yield from self._shown(group)

    def _is_marker(self, line: str) -> bool:
        is_named = line.startswith((CHAPTER, _PROGRESS, _PROGRESS_END))
        return is_named or bool(_BUFFER.match(line) or _BUFFER_END.match(line))

    def _follow(self, line: str) -> None:
        if line.startswith(CHAPTER):
            # A heading that the next line replaced would never be seen.
            self.part, self._progress, self._is_buffered = line, None, False
        elif line.startswith(_PROGRESS):
            self._progress = self._take(1)
        elif line.startswith(_PROGRESS_END):
            self._progress = None
        else:
            self._is_buffered = bool(_BUFFER.match(line))

    def _shown(self, group: list[str]) -> Iterator[Message]:
        if group and self._progress is not None and not self._is_buffered:
            # Only a line of its own can be taken for the run's exit code, never one of a buffer.
            text = group[-1] + "\n"
            is_exit = bool(_EXIT.search(text))
            content = [text] if is_exit else text
            yield Message(self._progress, self.part, content, len(group), is_exit and "buffer")
            return
        for start in range(0, len(group), BATCH_LINES):
            batch = [line + "\n" for line in group[start : start + BATCH_LINES]]
            yield Message(self._take(len(batch)), self.part, batch, len(batch), "buffer")

    def end(self, exit_code: int) -> Message:
        """What closes the log."""
        return Message(self._take(1), self.part, str(exit_code), 0, "exit_code")

    def _take(self, count: int) -> int:
        self.number += count
        return self.number - count

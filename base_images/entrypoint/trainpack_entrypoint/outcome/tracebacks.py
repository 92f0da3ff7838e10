"""Tracebacks as text: what a script's standard error says of the exception that ended it.

The script is another process, perhaps not Python's at all: what it printed is all there is.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

LONGEST_MESSAGE = 2_000
LONGEST_LINE = 300
_ESCAPES = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")
# torch starts each line with the rank that wrote it.
_RANK = re.compile(r"\[[a-z_]*\d+\]:")
_HEADER = re.compile(r"Traceback \(most recent call last\)")
_GROUP = re.compile(r"\s*\+ Exception Group Traceback ")
_GROUP_MARGIN = re.compile(r"\s*[|+](?:-\+)?(?=[-\s]|$) ?")
_FIRST_OF_GROUP = re.compile(r"-{16} 1 -{16}$")
_NEXT_OF_GROUP = re.compile(r"-{16} \d+ -{16}$|-{36}$")
_FRAME = re.compile(r'\s*File "(?P<file>[^"]+)", line (?P<line>\d+)(?:, in (?P<function>.+))?$')
# rich, which typer uses, draws a box.
_BOX_FRAME = re.compile(r"(?P<file>/\S+):(?P<line>\d+) in (?P<function>\S+)$")
_EXCEPTION = re.compile(r"(?P<type>[A-Za-z_][\w.<>]*)(?:: ?(?P<message>.*))?$")
_SYNTAX = re.compile(r"(?:SyntaxError|IndentationError|TabError): ")
_CHAINED = ("The above exception was the direct cause of", "During handling of the above exception")
_IGNORED = ("Exception ignored in", "Error in atexit")
# What launchers raise when the script that they started has failed.
_RELAYED = ("ChildFailedError", "CalledProcessError")


class Location(NamedTuple):
    """A line of the user's code: the file, relative to it, and the function where the traceback names one."""

    file: str
    line: int
    function: str | None

    def __str__(self) -> str:
        return f"{self.file}:{self.line}"


class Raised(NamedTuple):
    """An exception, as its traceback shows it.

    Attributes:
        type: As printed, `torch.OutOfMemoryError`.
        message: Up to its first blank line.
        text: The traceback, with the exceptions that it is chained to.
        location: The innermost line of the user's code; None when it passed none.
    """

    type: str
    message: str
    text: str
    location: Location | None

    def __str__(self) -> str:
        first = self.message.partition("\n")[0][:LONGEST_LINE]
        return f"{self.type}: {first}" if first else self.type

    def to_json(self) -> dict[str, Any]:
        """What `failure.json` says of it."""
        return {
            "exception": {"type": self.type, "message": self.message},
            "location": self.location._asdict() if self.location else None,
            "traceback": self.text,
        }


class _Block(NamedTuple):
    """One traceback: lines `start` to `end`, the frames from the outermost to the innermost."""

    start: int
    end: int
    frames: tuple[re.Match[str], ...]
    type: str
    message: str


def last_raised(lines: Iterable[str], code: str) -> Raised | None:
    """The exception of the last traceback, None when there is none.

    Of an exception group it is the first that is no group itself. Where a launcher reports that the script
    it started has failed, the script's own traceback counts.

    Args:
        lines: The end of a script's standard error.
        code: The folder of the user's code.
    """
    lines = _of_one_rank([_ESCAPES.sub("", line) for line in lines])
    blocks = list(_blocks(lines))
    raised = None
    while blocks:
        raised = _raised(lines, blocks, code)
        if raised.location or raised.type.rpartition(".")[2] not in _RELAYED or len(blocks) == 1:
            break
        blocks.pop()
    return raised


def _of_one_rank(lines: list[str]) -> list[str]:
    """What the rank that failed first wrote, where ranks are told apart; else all."""
    ranks = [match[0] if (match := _RANK.match(line)) else "" for line in lines]
    failed = (rank for rank, line in zip(ranks, lines, strict=True) if rank and _HEADER.search(line))
    if not (first := next(failed, "")):
        return lines
    return [line[len(first) :].removeprefix(" ") for line in lines if line.startswith(first)]


def _blocks(lines: Sequence[str]) -> Iterator[_Block]:
    number = 0
    while number < len(lines):
        if block := _block(lines, number):
            if not lines[number - 1].startswith(_IGNORED) or number == 0:
                yield block
            number = block.end
        else:
            number += 1


def _block(lines: Sequence[str], start: int) -> _Block | None:
    """The traceback that begins at a line, if one does."""
    line = lines[start]
    if _GROUP.match(line):
        return _group(lines, start)
    if _HEADER.search(line):
        return _boxed(lines, start) if "╭" in line else _plain(lines, start + 1, start)
    return _headless(lines, start)


def _plain(lines: Sequence[str], first: int, start: int) -> _Block | None:
    """A traceback whose frames begin at `first`, up to the exception's message."""
    frames: list[re.Match[str]] = []
    for number in range(first, len(lines)):
        line = lines[number]
        if frame := _FRAME.match(line):
            frames.append(frame)
        elif _HEADER.search(line):
            return None
        elif line[:1].strip() and (exception := _EXCEPTION.match(line)):
            return _with_message(lines, start, number, frames, exception)
    return None


def _with_message(
    lines: Sequence[str], start: int, number: int, frames: Sequence[re.Match[str]], exception: re.Match[str]
) -> _Block:
    end = number + 1
    while end < len(lines) and not _ends_message(lines[end]):
        end += 1
    message = "\n".join([exception["message"] or "", *lines[number + 1 : end]])
    return _Block(start, end, tuple(frames), exception["type"], message.strip()[:LONGEST_MESSAGE])


def _ends_message(line: str) -> bool:
    is_end = not line.strip() or line == '"""' or line.startswith(_IGNORED)
    return is_end or any(mark.match(line) for mark in (_GROUP, _NEXT_OF_GROUP)) or bool(_HEADER.search(line))


def _headless(lines: Sequence[str], start: int) -> _Block | None:
    """What Python says of a script that it cannot compile: a place, a line or two, the error."""
    frame = _FRAME.match(lines[start])
    if not frame or frame["function"]:
        return None
    for number in range(start + 1, min(start + 5, len(lines))):
        if _SYNTAX.match(lines[number]) and (exception := _EXCEPTION.match(lines[number])):
            return _with_message(lines, start, number, [frame], exception)
    return None


def _group(lines: Sequence[str], start: int) -> _Block | None:
    """An exception group: the exception is its first leaf, the frames lead from the group to there."""
    end = start + 1
    while end < len(lines) and _GROUP_MARGIN.match(lines[end]):
        end += 1
    # A group may lie in other groups: all are drawn, one margin inside the other.
    inner = [_GROUP_MARGIN.sub("", line, count=1) for line in lines[start:end]]
    block = _plain(inner, 1, 0)
    frames = block.frames if block else ()
    while block and block.end < len(inner) and _FIRST_OF_GROUP.match(inner[block.end]):
        first = block.end + 1
        is_traced = first < len(inner) and _HEADER.search(inner[first])
        leaf = _plain(inner, first + 1 if is_traced else first, first)
        if leaf is None:
            break
        block, frames = leaf, frames + leaf.frames
    return block._replace(start=start, end=end, frames=frames) if block else None


def _boxed(lines: Sequence[str], start: int) -> _Block | None:
    frames: list[re.Match[str]] = []
    for number in range(start + 1, len(lines)):
        line = lines[number].removeprefix("│ ").removesuffix("│").rstrip()
        if frame := _BOX_FRAME.match(line):
            frames.append(frame)
        elif line.startswith("╰") and number + 1 < len(lines):
            exception = _EXCEPTION.match(lines[number + 1])
            return _with_message(lines, start, number + 1, frames, exception) if exception else None
    return None


def _raised(lines: Sequence[str], blocks: Sequence[_Block], code: str) -> Raised:
    """The last of the tracebacks, with those it is chained to."""
    last = first = len(blocks) - 1
    while first and _is_chained(lines[blocks[first - 1].end : blocks[first].start + 1]):
        first -= 1
    chain = blocks[first : last + 1]
    places = (_location(block.frames, code) for block in reversed(chain))
    return Raised(
        type=chain[-1].type,
        message=chain[-1].message,
        text="\n".join(lines[chain[0].start : chain[-1].end]),
        location=next((place for place in places if place), None),
    )


def _is_chained(between: Sequence[str]) -> bool:
    """Whether the lines from the end of a traceback to the header of the next join the two."""
    # A data loader puts its worker's traceback into the message of its own exception.
    return between[-1].startswith("Original Traceback") or any(line.startswith(_CHAINED) for line in between)


def _location(frames: Sequence[re.Match[str]], code: str) -> Location | None:
    for frame in reversed(frames):
        file = frame["file"]
        is_relative = not os.path.isabs(file) and not file.startswith("<")
        if is_relative or file.startswith(code + os.sep):
            name = file if is_relative else os.path.relpath(file, code)
            return Location(name, int(frame["line"]), frame["function"])
    return None

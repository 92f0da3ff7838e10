"""The full log as the platform stores it: the JSON that its own training images leave, chapter by chapter."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Iterator
from datetime import datetime
from typing import TextIO

from trainpack_entrypoint.display import CHAPTER, Display
from trainpack_entrypoint.output import readable
from trainpack_entrypoint.relay import BATCH_BYTES, gap
from trainpack_entrypoint.spool import Reader, Spool


def write_full_log(path: str, spool: Spool, exit_code: int) -> None:
    """Write every line that was kept, also those that the display replaced.

    Raises:
        OSError: It cannot be written.
    """
    with open(path, "w", encoding="ascii") as file:
        file.write("{")
        _write_chapters(file, spool)
        end = {"exit_code": exit_code, "datetime": _datetime(time.time())}
        file.write(f'}}}},\n"exit_code": {json.dumps(end)}}}\n')


def _write_chapters(file: TextIO, spool: Spool) -> None:
    names = Counter[str]()
    file.write(_opening(Display().part, spool.started, names))
    separator = "\n"
    for number, line in _lines(spool):
        if line.startswith(CHAPTER):
            file.write("}},\n" + _opening(line, spool.chapters.get(number, spool.started), names))
            separator = "\n"
        file.write(f'{separator}"{number + 1}": {json.dumps(line + chr(10))}')
        separator = ",\n"


def _opening(name: str, began: float, names: Counter[str]) -> str:
    # A document holds a name once; a script may open a chapter of one name in every epoch.
    unique = name
    while unique in names:
        names[name] += 1
        unique = f"{name} ({names[name]})"
    names[unique] += 1
    return f'{json.dumps(unique)}: {{"datetime": "{_datetime(began)}", "logs": {{'


def _lines(spool: Spool) -> Iterator[tuple[int, str]]:
    reader, number = Reader(spool), 0
    while True:
        missing, chunk = reader.read(BATCH_BYTES)
        if missing:
            yield number, gap(missing)
            number += missing
        if not chunk:
            break
        for line in chunk[:-1].split(b"\n"):
            yield number, readable(line)
            number += 1
    if spool.lines > number:
        yield number, gap(spool.lines - number)


def _datetime(seconds: float) -> str:
    return datetime.fromtimestamp(seconds).isoformat()

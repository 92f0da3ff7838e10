"""Print a command's result on standard output and its progress on standard error; loads nothing to do so."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from builder.models.records import Change


def note(text: str) -> None:
    """One line of progress, on standard error; whole, whoever else writes one."""
    print(f"{text}\n", end="", file=sys.stderr, flush=True)


def result(data: Any, *, as_json: bool, text: Callable[[], str]) -> None:
    """Print the result: `data` as JSON, or the text."""
    print(json.dumps(data, indent=2, default=str) if as_json else text(), flush=True)


def table(rows: Sequence[tuple[str, ...]], header: tuple[str, ...] = ()) -> str:
    """Columns padded to their widest cell; the last is not padded."""
    lines = [header, *rows] if header else list(rows)
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]) if lines else 0)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    )


def describe_build(image: Mapping[str, Any]) -> str:
    """What `build` tells of a BuiltImage."""
    rows = [
        ("reference", image["reference"]),
        ("image id", image["image_id"]),
        ("digest", image["digest"] or "not pushed yet"),
        ("size", f"{image['size'] / 1e6:.0f} MB in {len(image['layers'])} layers"),
    ]
    return table(rows)


def value(of: Any) -> str:
    """A field's value in a difference."""
    return "(none)" if of is None else json.dumps(of, ensure_ascii=False, default=str)


def difference(changes: Sequence[Change]) -> str:
    """A difference as lines: field, before, after."""
    return table([(each.field, value(each.before), "→", value(each.after)) for each in changes])


def announcer(name: object) -> Callable[[tuple[Change, ...]], None]:
    """Tells a difference on standard error, before it is written."""

    def announce(changes: tuple[Change, ...]) -> None:
        if changes:
            note(f"{name}\n{difference(changes)}")

    return announce

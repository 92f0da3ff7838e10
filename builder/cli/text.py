"""Text for people, without what a command line needs to be parsed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any


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

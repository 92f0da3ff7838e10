"""What a command prints: its result on standard output, its progress on standard error."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from builder.cli.text import table

__all__ = ["HERE", "FolderOption", "JsonOption", "note", "result", "table"]

JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON document, for machines.")]
FolderOption = Annotated[
    Path,
    typer.Option("--folder", "-C", help="The folder of trainpack.toml.", file_okay=False, exists=True),
]
HERE = Path()


def note(text: str) -> None:
    """One line of progress, on standard error."""
    print(text, file=sys.stderr, flush=True)


def result(data: Any, *, as_json: bool, text: Callable[[], str]) -> None:
    """Print the result: `data` as JSON, or the text."""
    print(json.dumps(data, indent=2, default=str) if as_json else text(), flush=True)

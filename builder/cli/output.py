"""What a command prints: its result on standard output, its progress on standard error."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from builder.cli.printing import announcer, difference, note, result, table, value

__all__ = [
    "HERE",
    "AttestOption",
    "FolderOption",
    "JsonOption",
    "announcer",
    "difference",
    "note",
    "result",
    "table",
    "value",
]

JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON document, for machines.")]
FolderOption = Annotated[
    Path,
    typer.Option("--folder", "-C", help="The folder of trainpack.toml.", file_okay=False, exists=True),
]
AttestOption = Annotated[
    bool | None,
    typer.Option(
        "--attest/--no-attest",
        help="Attach SBOM and provenance. Default: to what is new in its registry, its code committed.",
        show_default=False,
    ),
]
HERE = Path()

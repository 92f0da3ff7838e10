"""The options that say what a version is to hold, of `models create` and `models edit`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from builder.cli.options import environment, pairs

if TYPE_CHECKING:
    from builder.models.edit import Edits

Description = Annotated[str | None, typer.Option(help="What it is for.")]
Framework = Annotated[str | None, typer.Option(help="TENSORFLOW, PYTORCH or ONNX.")]
Type = Annotated[str | None, typer.Option("--type", help="OBJECT_DETECTION, CLASSIFICATION, …")]
NotebookLink = Annotated[str | None, typer.Option(metavar="URL", help="A notebook that shows its use.")]
Thumbnail = Annotated[Path | None, typer.Option(metavar="FILE", help="A picture.")]
Parameters = Annotated[
    list[str] | None,
    typer.Option("--parameter", "-p", metavar="NAME=VALUE", help="A base parameter, as JSON or text."),
]
Labelmap = Annotated[Path | None, typer.Option(metavar="FILE", help="A JSON file of index and name.")]
Image = Annotated[str | None, typer.Option(metavar="REPOSITORY:TAG[@DIGEST]", help="Its image.")]
Flags = Annotated[
    list[str] | None,
    typer.Option("--flag", metavar="FLAG", help="A flag for docker run; all given replace all. '' for none."),
]
Env = Annotated[
    list[str] | None,
    typer.Option(metavar="NAME[=VALUE]", help="A variable; without a value, from this environment."),
]
Allow = Annotated[
    list[str] | None, typer.Option(metavar="FLAG", help="Let a refused or unknown flag through, by name.")
]
Unset = Annotated[
    list[str] | None, typer.Option(metavar="parameters.NAME|env.NAME", help="Take an entry away.")
]


def edits(
    *,
    parameters: list[str] | None,
    labelmap: Path | None,
    flags: list[str] | None,
    env: list[str] | None,
    allow: list[str] | None,
    unset: list[str] | None = None,
    **texts: str | None,
) -> Edits:
    """What the options ask for.

    Raises:
        UsageError: A word is not NAME=VALUE, or the labelmap cannot be read.
    """
    from builder.labelmap import read_labelmap  # noqa: PLC0415  (not needed for --help)
    from builder.models.edit import Edits  # noqa: PLC0415

    return Edits(
        parameters=pairs(parameters, "--parameter"),
        labelmap=read_labelmap(labelmap) if labelmap else None,
        flags=None if flags is None else tuple(flags),
        env=environment(env, os.environ),
        allow=tuple(allow or ()),
        unset=tuple(unset or ()),
        **texts,
    )


def check_picture(path: Path | None) -> None:
    """Refuse a thumbnail that is no file before anything else is written.

    Raises:
        UsageError: It is not there.
    """
    from builder.errors import UsageError  # noqa: PLC0415

    if path is not None and not path.is_file():
        raise UsageError("this is not a file", place=f"--thumbnail {path}")

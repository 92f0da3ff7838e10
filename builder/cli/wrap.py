"""`trainpack wrap`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from builder.cli.output import JsonOption, note, result
from builder.errors import UsageError
from builder.spec import FILE, load_spec
from builder.wrap import CHECK, REQUIREMENTS, Wrapping, wrap_script

app = typer.Typer(rich_markup_mode=None)


@app.command(epilog="Example: trainpack wrap train.py --name registry.example.com/vision/digits")
def wrap(
    script: Annotated[Path, typer.Argument(help="The training script; it is read, never run or changed.")],
    name: Annotated[str | None, typer.Option(help="The image's name; by default the folder's.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace an existing trainpack.toml.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Write trainpack.toml (and requirements.txt when there is none) beside an existing script."""
    if not script.is_file():
        raise UsageError("the script does not exist, or is not a file", place=str(script))
    wrapping = wrap_script(script, name=name, force=force)
    load_spec(script.parent)
    for guess in wrapping.guesses:
        note(f"{CHECK if guess.check else ''}{guess.what}: {guess.because}")
    result(_data(script, wrapping), as_json=as_json, text=lambda: _text(script, wrapping))


def _written(script: Path, wrapping: Wrapping) -> list[str]:
    names = [FILE] if wrapping.requirements is None else [FILE, REQUIREMENTS]
    return [str(script.parent / name) for name in names]


def _data(script: Path, wrapping: Wrapping) -> dict[str, object]:
    guesses = [guess.model_dump() for guess in wrapping.guesses]
    return {"written": _written(script, wrapping), "guesses": guesses}


def _text(script: Path, wrapping: Wrapping) -> str:
    to_check = sum(guess.check for guess in wrapping.guesses)
    lines = [f"wrote {path}" for path in _written(script, wrapping)]
    if to_check:
        lines.append(f'to look at: {to_check}, marked "{CHECK.strip()}"')
    return "\n".join([*lines, "next: trainpack build"])

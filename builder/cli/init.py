"""`trainpack init`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from builder.cli.output import HERE, JsonOption, result, table
from builder.errors import UsageError
from builder.scaffold import answer, find_scaffold, generate, list_scaffolds

app = typer.Typer(rich_markup_mode=None)


@app.command(epilog='Example: trainpack init pytorch --no-input -v project_name="Pedestrian detection"')
def init(
    template: Annotated[str | None, typer.Argument(help="The scaffold; --list names them.")] = None,
    *,
    list_: Annotated[bool, typer.Option("--list", help="List the scaffolds.")] = False,
    no_input: Annotated[bool, typer.Option("--no-input", help="Ask nothing, take the defaults.")] = False,
    values: Annotated[
        list[str] | None,
        typer.Option("--value", "-v", metavar="KEY=VALUE", help="The value of a variable; may be repeated."),
    ] = None,
    output: Annotated[
        Path, typer.Option("--output", "-o", help="The folder to make the repo's folder in.", file_okay=False)
    ] = HERE,
    as_json: JsonOption = False,
) -> None:
    """Start a new training repo from a scaffold; asks on a terminal, else takes the defaults."""
    if list_:
        _print_list(as_json=as_json)
        return
    if template is None:
        raise UsageError("no scaffold is named", remedy="`trainpack init --list` lists them")
    scaffold = find_scaffold(template)
    ask = not no_input and not as_json and sys.stdin.isatty() and sys.stdout.isatty()
    answers = answer(scaffold, dict(map(_pair, values or [])), ask=ask)
    folder = generate(scaffold, answers, output)
    data = {"scaffold": scaffold.name, "folder": str(folder), "variables": answers}
    result(data, as_json=as_json, text=lambda: _next_steps(scaffold.name, output / folder.name))


def _print_list(*, as_json: bool) -> None:
    known = list_scaffolds()
    data = [{"name": s.name, "description": s.description, "variables": dict(s.variables)} for s in known]
    result(data, as_json=as_json, text=lambda: table([(s.name, s.description) for s in known]))


def _pair(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals or not name:
        raise UsageError(f"{text!r} is not KEY=VALUE", place="--value")
    return name, value


def _next_steps(scaffold: str, folder: Path) -> str:
    return f"""made {folder} from {scaffold}

next:
  cd {folder}
  trainpack build
  trainpack test"""

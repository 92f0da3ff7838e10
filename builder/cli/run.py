"""`trainpack run`: train locally in the container."""

from __future__ import annotations

import os
import secrets
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperCommand

from builder.cli.output import HERE, FolderOption, JsonOption, note, result
from builder.errors import UsageError
from builder.last_image import engine_image
from builder.models.records import ModelVersion, VersionName
from builder.run import GRACE, RunOutcome, RunRequest, run_container
from builder.spec import FILE, load_spec
from builder.workdir import workdir

_SCRIPT_ARGUMENTS = "trainpack.script_arguments"


class _WithScriptArguments(TyperCommand):
    """A command whose words after `--` belong to the script."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Set the script's words aside, so that the first of them is not taken for the image."""
        end = args.index("--") if "--" in args else len(args)
        ctx.meta[_SCRIPT_ARGUMENTS] = tuple(args[end + 1 :])
        return super().parse_args(ctx, args[:end])


app = typer.Typer(rich_markup_mode=None)


@app.command(
    cls=_WithScriptArguments,
    epilog="Example: trainpack run -p epochs=1 --labelmap labels.json --data train=./images -- --verbose",
)
def run(
    context: typer.Context,
    *,
    image: Annotated[
        str | None, typer.Argument(help="An image of the engine; the last build if none.")
    ] = None,
    parameter: Annotated[
        list[str] | None, typer.Option("--parameter", "-p", metavar="NAME=VALUE", help="Set a parameter.")
    ] = None,
    labelmap: Annotated[Path | None, typer.Option(help="A JSON file of index and name.")] = None,
    parameters: Annotated[Path | None, typer.Option(help="A JSON file of parameters.")] = None,
    data: Annotated[
        list[str] | None, typer.Option(metavar="ALIAS=DIR", help="A dataset's folder, read-only inside.")
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(metavar="[STORE:]MODEL/VERSION", help="Start from its parameters and labelmap."),
    ] = None,
    env: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME[=VALUE]", help="Pass a variable; without a value, from this environment."),
    ] = None,
    network: Annotated[str | None, typer.Option(help="A network of the engine, host or none.")] = None,
    output: Annotated[
        Path | None, typer.Option(help="A new folder for the outputs; .trainpack/runs/… if none.")
    ] = None,
    gpus: Annotated[str | None, typer.Option(metavar="all|N", help="GPUs for the container.")] = None,
    grace: Annotated[int, typer.Option(min=0, help="Seconds to save in after a stop.")] = GRACE,
    folder: FolderOption = HERE,
    as_json: JsonOption = False,
) -> None:
    """Train locally in the container, and end with its exit code.

    What the script prints comes out verbatim; its outputs, result.json and failure.json land in a folder
    of yours. Words after -- go to the script.
    """
    request = RunRequest(
        image=image or engine_image(folder, os.environ, note).image_id,
        parameters=pairs(parameter, "-p"),
        arguments=context.meta[_SCRIPT_ARGUMENTS],
        labelmap=labelmap,
        parameters_file=parameters,
        data={alias: Path(path) for alias, path in pairs(data, "--data").items()},
        version=_version(model),
        env=environment(env, os.environ),
        output=output or _new_output(folder),
        flags=() if image else _flags(folder),
        gpus=gpus,
        grace=grace,
        network=network,
    )
    stdout = sys.stderr.buffer if as_json else sys.stdout.buffer
    outcome = run_container(request, stdout=stdout, stderr=sys.stderr.buffer, tell=note)
    if as_json:
        result(outcome.model_dump(mode="json"), as_json=True, text=str)
    else:
        note(_summary(outcome))
    raise typer.Exit(outcome.exit_code)


def pairs(texts: Iterable[str] | None, option: str) -> dict[str, str]:
    """`NAME=VALUE` words of a repeatable option.

    Raises:
        UsageError: A word has no `=` or no name.
    """
    result: dict[str, str] = {}
    for text in texts or ():
        name, equals, value = text.partition("=")
        if not equals or not name:
            raise UsageError(f"{text!r} is not NAME=VALUE", place=option)
        result[name] = value
    return result


def environment(texts: Iterable[str] | None, own: Any) -> dict[str, str]:
    """The variables of `--env`: `NAME=VALUE`, or `NAME` to take the caller's, which no process list shows.

    Raises:
        UsageError: The caller's environment has no such variable.
    """
    result: dict[str, str] = {}
    for text in texts or ():
        name, equals, value = text.partition("=")
        if not name or (not equals and name not in own):
            raise UsageError(f"{name!r} is not set in this environment", place="--env")
        result[name] = value if equals else own[name]
    return result


def _version(name: str | None) -> ModelVersion | None:
    if name is None:
        return None
    from builder.models.stores import open_store  # noqa: PLC0415  (Picsellia's SDK takes most of a second)

    parsed = VersionName.parse(name)
    return open_store(parsed.store).get_version(parsed)


def _flags(folder: Path) -> tuple[str, ...]:
    return load_spec(folder).run.flags if (folder / FILE).is_file() else ()


def _new_output(folder: Path) -> Path:
    stamp = time.strftime("%Y%m%d-%H%M%S")
    return workdir(folder) / "runs" / f"{stamp}-{secrets.token_hex(2)}"


def _summary(outcome: RunOutcome) -> str:
    facts = outcome.result or {}
    lines = [f"{facts.get('status', 'ended')}, exit code {outcome.exit_code}"]
    if outcome.failure:
        lines.append(f"{outcome.failure.get('cause')}: {outcome.failure.get('message')}")
    metrics = ", ".join(f"{name} {value}" for name, value in facts.get("metrics", {}).items())
    lines += [f"metrics: {metrics}"] if metrics else []
    lines.append(f"{len(facts.get('outputs', []))} outputs in {outcome.output}")
    lines += [f"left out: {', '.join(outcome.left_out)}"] if outcome.left_out else []
    return "\n".join(lines)

"""`trainpack run`: train locally in the container."""

from __future__ import annotations

import os
import secrets
import sys
import tempfile
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Annotated, Any, BinaryIO

import typer
from typer.core import TyperCommand

from builder.cli.options import environment, opened, pairs
from builder.cli.output import HERE, FolderOption, JsonOption, note, result
from builder.errors import UsageError
from builder.last_image import engine_image
from builder.models.names import ExperimentName, VersionName
from builder.models.records import ModelVersion
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
    file: Annotated[
        list[str] | None,
        typer.Option(metavar="[NAME=]PATH", help="Weights, a config: NAME in inputs/files, read-only."),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(metavar="[STORE:]MODEL/VERSION", help="Start from its parameters, labelmap and files."),
    ] = None,
    experiment: Annotated[
        str | None,
        typer.Option(
            metavar="[STORE:]PROJECT/EXPERIMENT",
            help="Train exactly this, with its image, and report back into it.",
        ),
    ] = None,
    allow: Annotated[
        list[str] | None,
        typer.Option(metavar="FLAG", help="Let a refused or unknown flag through, by name."),
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
    arguments = context.meta[_SCRIPT_ARGUMENTS]
    if experiment:
        _refuse_with_experiment(
            {
                "IMAGE": image,
                "--parameter": parameter,
                "--parameters": parameters,
                "--labelmap": labelmap,
                "--file": file,
                "--model": model,
                "arguments after --": arguments,
            }
        )
    common: dict[str, Any] = {
        "data": {alias: Path(path) for alias, path in pairs(data, "--data").items()},
        "env": environment(env, os.environ),
        "output": output or _new_output(folder),
        "gpus": gpus,
        "grace": grace,
        "network": network,
    }
    sinks = (sys.stderr.buffer if as_json else sys.stdout.buffer, sys.stderr.buffer)
    if experiment:
        outcome = _train(experiment, RunRequest(image=experiment, **common), tuple(allow or ()), sinks)
    else:
        with tempfile.TemporaryDirectory(prefix="trainpack-run-") as scratch:
            version, stored = _version(model, Path(scratch))
            request = RunRequest(
                image=image or engine_image(folder, os.environ, note).image_id,
                parameters=pairs(parameter, "-p"),
                arguments=arguments,
                labelmap=labelmap,
                parameters_file=parameters,
                files=stored | files(file),
                version=version,
                flags=() if image else _flags(folder, allow or ()),
                **common,
            )
            outcome = run_container(request, stdout=sinks[0], stderr=sinks[1], tell=note)
    if as_json:
        result(outcome.model_dump(mode="json"), as_json=True, text=str)
    else:
        note(_summary(outcome))
    raise typer.Exit(outcome.exit_code)


def _refuse_with_experiment(given: dict[str, object]) -> None:
    for option, value in given.items():
        if value:
            raise UsageError(
                "an experiment is trained with exactly what it says",
                place=option,
                remedy="make another one: trainpack experiments create PROJECT/EXPERIMENT --from … -p …",
            )


def _train(
    text: str, request: RunRequest, allow: tuple[str, ...], sinks: tuple[BinaryIO, BinaryIO]
) -> RunOutcome:
    from builder import experiment_run as core  # noqa: PLC0415  (Picsellia's SDK takes most of a second)

    name = ExperimentName.parse(text)
    store = opened(name.store)
    experiment = store.experiments.get(name)
    request = core.experiment_request(experiment, request, allow=allow, tell=note)
    if name.store == "local":
        return core.run_experiment(store, experiment, request, sinks=sinks, tell=note)
    from builder.host.credentials import load_credentials  # noqa: PLC0415

    own = core.platform_environment(experiment, load_credentials())
    request = request.model_copy(update={"env": {**own, **request.env}})
    return run_container(request, stdout=sinks[0], stderr=sinks[1], tell=note)


def files(texts: Iterable[str] | None) -> dict[str, Path]:
    """`NAME=PATH` or `PATH` words of `--file`; a path that exists with an equals sign in it is one.

    Raises:
        UsageError: Two have the same name.
    """
    result: dict[str, Path] = {}
    for text in texts or ():
        name, equals, path = text.partition("=")
        if not equals or Path(text).exists():
            name, path = Path(text).resolve().name, text
        if name in result:
            raise UsageError(f"{name!r} stands for both {result[name]} and {path}", place="--file")
        result[name] = Path(path)
    return result


def _version(name: str | None, scratch: Path) -> tuple[ModelVersion | None, dict[str, Path]]:
    if name is None:
        return None, {}
    from builder.experiment_run import version_files  # noqa: PLC0415

    parsed = VersionName.parse(name)
    store = opened(parsed.store)
    version = store.versions.get(parsed)
    return version, version_files(store, version, scratch)


def _flags(folder: Path, allow: Sequence[str]) -> tuple[str, ...]:
    return load_spec(folder, allow).run.flags if (folder / FILE).is_file() else ()


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

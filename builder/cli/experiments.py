"""`trainpack experiments`."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from builder.cli import version_options as options
from builder.cli.options import opened
from builder.cli.output import JsonOption, result, table

if TYPE_CHECKING:
    from builder.models.names import ExperimentSummary
    from builder.models.records import Experiment, ExperimentFields

app = typer.Typer(
    rich_markup_mode=None,
    no_args_is_help=True,
    help="The experiments of a store: list, show and create them, attach datasets, publish one as a version.",
    epilog="Example: trainpack experiments create pedestrian/run-1 --from pedestrian/v3",
)
NameArgument = Annotated[str, typer.Argument(metavar="[STORE:]PROJECT/EXPERIMENT")]


@app.command("list", epilog="Example: trainpack experiments list --project pedestrian --json")
def list_(
    store: Annotated[str, typer.Argument(metavar="[STORE]", help="local or picsellia.")] = "local",
    project: Annotated[str | None, typer.Option(help="Only the experiments of this project.")] = None,
    as_json: JsonOption = False,
) -> None:
    """List every experiment of a store with its status."""
    found = list(opened(store).experiments.list(project))
    result(
        [asdict(experiment) for experiment in found],
        as_json=as_json,
        text=lambda: table([_row(each) for each in found], header=("experiment", "status", "from")),
    )


@app.command(epilog="Example: trainpack experiments show pedestrian/run-1")
def show(name: NameArgument, as_json: JsonOption = False) -> None:
    """Show everything that an experiment holds, without the values of secrets."""
    from builder.cli.shown import experiment_details  # noqa: PLC0415
    from builder.models.names import ExperimentName  # noqa: PLC0415

    parsed = ExperimentName.parse(name)
    experiment = opened(parsed.store).experiments.get(parsed)
    result(_document(experiment), as_json=as_json, text=lambda: experiment_details(experiment))


@app.command(
    epilog="Example: trainpack experiments create pedestrian/run-1 --from pedestrian/v3 -p epochs=20"
)
def create(
    name: NameArgument,
    *,
    base: Annotated[
        str | None,
        typer.Option(
            "--from",
            metavar="[STORE:]MODEL/VERSION",
            help="The version whose parameters, labelmap, files and image it receives.",
        ),
    ] = None,
    description: options.Description = None,
    parameter: options.Parameters = None,
    labelmap: options.Labelmap = None,
    image: options.Image = None,
    flag: options.Flags = None,
    env: options.Env = None,
    allow: options.Allow = None,
    as_json: JsonOption = False,
) -> None:
    """Make an experiment, and its project when there is none yet.

    What is given here is set over what it receives: one parameter leaves the others.
    """
    from builder.models.edit import experiment_fields  # noqa: PLC0415
    from builder.models.names import ExperimentName, VersionName  # noqa: PLC0415
    from builder.models.records import VersionFields  # noqa: PLC0415

    parsed = ExperimentName.parse(name)
    origin = VersionName.parse(base) if base else None
    edits = options.edits(
        parameters=parameter,
        labelmap=labelmap,
        flags=flag,
        env=env,
        allow=allow,
        description=description,
        image=image,
    )
    _check_same_store(parsed.store, origin.store if origin else parsed.store, "--from")
    store = opened(parsed.store)
    received = store.versions.get(origin).fields if origin else VersionFields()
    made = store.experiments.create(parsed, experiment_fields(received, edits), origin)
    result(_document(made), as_json=as_json, text=lambda: f"created {made.name}")


@app.command(
    "attach-dataset",
    epilog="Example: trainpack experiments attach-dataset pedestrian/run-1 train street/v1",
)
def attach_dataset(
    name: NameArgument,
    alias: Annotated[str, typer.Argument(metavar="ALIAS", help="What the script knows it by: train, test.")],
    dataset: Annotated[str, typer.Argument(metavar="[STORE:]DATASET/VERSION")],
    as_json: JsonOption = False,
) -> None:
    """Attach a dataset version under an alias; one that has the alias is replaced."""
    from builder.models.names import DatasetName, ExperimentName  # noqa: PLC0415

    parsed, data = ExperimentName.parse(name), DatasetName.parse(dataset)
    _check_same_store(parsed.store, data.store, "DATASET/VERSION")
    changed = opened(parsed.store).experiments.attach_dataset(parsed, alias, data)
    result(_document(changed), as_json=as_json, text=lambda: f"{parsed}: {alias} is {data}")


@app.command(epilog="Example: trainpack experiments publish pedestrian/run-1 pedestrian/v4")
def publish(
    name: NameArgument,
    version: Annotated[str, typer.Argument(metavar="[STORE:]MODEL/VERSION", help="A new version.")],
    as_json: JsonOption = False,
) -> None:
    """Make a new version of an experiment: its parameters, labelmap, image and artifacts.

    The experiment and its datasets are the version's source.
    """
    from builder.models.compare import masked  # noqa: PLC0415
    from builder.models.names import ExperimentName, VersionName  # noqa: PLC0415

    parsed, target = ExperimentName.parse(name), VersionName.parse(version)
    _check_same_store(parsed.store, target.store, "MODEL/VERSION")
    made = opened(parsed.store).experiments.publish(parsed, target)
    document = made.model_copy(update={"fields": masked(made.fields)}).model_dump(mode="json")
    result(document, as_json=as_json, text=lambda: f"published {parsed} as {made.name}")


def _check_same_store(store: str, other: str, place: str) -> None:
    from builder.errors import UsageError  # noqa: PLC0415

    if store != other:
        raise UsageError(
            f"it is in the store {other}, and the experiment in {store}",
            place=place,
            remedy=f"name both with {store}:; `trainpack models copy` brings a version there",
        )


def _document(experiment: Experiment) -> dict[str, Any]:
    shown = experiment.model_copy(update={"fields": _masked(experiment.fields)})
    return shown.model_dump(mode="json")


def _masked(fields: ExperimentFields) -> ExperimentFields:
    from builder.models.compare import masked  # noqa: PLC0415
    from builder.models.records import VersionFields  # noqa: PLC0415

    shown = masked(VersionFields(parameters=fields.parameters, image=fields.image))
    return fields.model_copy(update={"parameters": shown.parameters, "image": shown.image})


def _row(experiment: ExperimentSummary) -> tuple[str, ...]:
    return (str(experiment.name), experiment.status or "-", str(experiment.base or "-"))

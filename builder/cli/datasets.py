"""`trainpack datasets`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from builder.cli.options import opened
from builder.cli.output import JsonOption, result, table

if TYPE_CHECKING:
    from builder.models.records import DatasetVersion

app = typer.Typer(
    rich_markup_mode=None,
    no_args_is_help=True,
    help="The dataset versions of a store: add, list and show them.",
    epilog="Example: trainpack datasets add street/v1 ./images",
)
NameArgument = Annotated[str, typer.Argument(metavar="[STORE:]DATASET/VERSION")]


@app.command(epilog="Example: trainpack datasets add street/v1 ./images --type OBJECT_DETECTION --label car")
def add(
    name: NameArgument,
    folder: Annotated[
        Path | None, typer.Argument(help="Its files; annotations in COCO's form are read from a JSON file.")
    ] = None,
    *,
    reference: Annotated[
        str | None, typer.Option(metavar="DIR|URL", help="Where the data are, to leave them there.")
    ] = None,
    type_: Annotated[str | None, typer.Option("--type", help="OBJECT_DETECTION, CLASSIFICATION, …")] = None,
    label: Annotated[list[str] | None, typer.Option(help="The name of a label.")] = None,
    description: Annotated[str | None, typer.Option(help="What it is.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Make a dataset version of a folder's files, or of a reference to where they are."""
    from builder.cli.shown import dataset_details  # noqa: PLC0415
    from builder.models.names import DatasetName  # noqa: PLC0415
    from builder.models.records import DatasetFields  # noqa: PLC0415

    parsed = DatasetName.parse(name)
    fields = DatasetFields(
        description=description, type=type_, labels=tuple(label or ()), reference=reference
    )
    made = opened(parsed.store).datasets.add(parsed, fields, folder)
    result(made.model_dump(mode="json"), as_json=as_json, text=lambda: f"added\n{dataset_details(made)}")


@app.command("list", epilog="Example: trainpack datasets list --json")
def list_(
    store: Annotated[str, typer.Argument(metavar="[STORE]", help="local or picsellia.")] = "local",
    dataset: Annotated[str | None, typer.Option(help="Only the versions of this dataset.")] = None,
    as_json: JsonOption = False,
) -> None:
    """List every dataset version of a store."""
    found = list(opened(store).datasets.list(dataset))
    result(
        [version.model_dump(mode="json") for version in found],
        as_json=as_json,
        text=lambda: table(
            [_row(each) for each in found], header=("dataset", "type", "assets", "size", "reference")
        ),
    )


@app.command(epilog="Example: trainpack datasets show street/v1")
def show(name: NameArgument, as_json: JsonOption = False) -> None:
    """Show everything that is known of a dataset version."""
    from builder.cli.shown import dataset_details  # noqa: PLC0415
    from builder.models.names import DatasetName  # noqa: PLC0415

    parsed = DatasetName.parse(name)
    version = opened(parsed.store).datasets.get(parsed)
    result(version.model_dump(mode="json"), as_json=as_json, text=lambda: dataset_details(version))


def _row(version: DatasetVersion) -> tuple[str, ...]:
    from builder.cli.shown import size  # noqa: PLC0415

    assets = "-" if version.assets is None else str(version.assets)
    fields = version.fields
    return (str(version.name), fields.type or "-", assets, size(version.size), fields.reference or "-")

"""`trainpack models`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from builder.cli.output import JsonOption, result, table
from builder.cli.version_list import print_versions
from builder.models.names import VersionName

if TYPE_CHECKING:
    from builder.models.records import ModelVersion

app = typer.Typer(
    rich_markup_mode=None,
    no_args_is_help=True,
    help="List, show and create the ModelVersions of a store.",
    epilog="Example: trainpack models show local:pedestrian/v3",
)
NameArgument = Annotated[str, typer.Argument(metavar="[STORE:]MODEL/VERSION")]


@app.command("list", epilog="Example: trainpack models list --json")
def list_(
    store: Annotated[str, typer.Argument(metavar="[STORE]", help="local or picsellia.")] = "local",
    as_json: JsonOption = False,
) -> None:
    """List every version of a store with its image."""
    print_versions(store, as_json=as_json)


@app.command(epilog="Example: trainpack models show pedestrian/v3")
def show(name: NameArgument, as_json: JsonOption = False) -> None:
    """Show everything that a version holds."""
    from builder.models.stores import open_store  # noqa: PLC0415

    parsed = VersionName.parse(name)
    version = open_store(parsed.store).versions.get(parsed)
    result(_document(version), as_json=as_json, text=lambda: _details(version))


@app.command(epilog="Example: trainpack models create pedestrian/v3")
def create(name: NameArgument, as_json: JsonOption = False) -> None:
    """Make an empty version, and its model when there is none yet."""
    from builder.models.records import VersionFields  # noqa: PLC0415
    from builder.models.stores import open_store  # noqa: PLC0415

    parsed = VersionName.parse(name)
    version = open_store(parsed.store).versions.create(parsed, VersionFields())
    result(_document(version), as_json=as_json, text=lambda: f"created {version.name}")


def _document(version: ModelVersion) -> dict[str, Any]:
    from builder.models.compare import masked  # noqa: PLC0415  (what a list needs is loaded faster)

    return version.model_copy(update={"fields": masked(version.fields)}).model_dump(mode="json")


def _details(version: ModelVersion) -> str:
    from builder.models.compare import diff  # noqa: PLC0415
    from builder.models.records import VersionFields  # noqa: PLC0415

    held = diff(VersionFields(), version.fields)
    rows: list[tuple[str, ...]] = [("version", str(version.name)), ("id", version.id)]
    return table(rows + [(change.field, _text(change.after)) for change in held])


def _text(value: object) -> str:
    return " ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)

"""The list of a store's versions as it is printed; loads neither typer nor the records."""

from __future__ import annotations

from builder.cli.printing import result, table
from builder.models.names import VersionSummary
from builder.models.stores import list_versions


def print_versions(store: str, model: str | None = None, *, as_json: bool) -> None:
    """Print every version of a store, or of one model, with its image.

    Raises:
        UsageError: There is no such store.
        NotFoundError: There is no such model.
        StoreError: It cannot be opened.
    """
    versions = list(list_versions(store, model))
    result(
        [{**vars(version), "name": vars(version.name)} for version in versions],
        as_json=as_json,
        text=lambda: table(
            [_row(version) for version in versions], header=("version", "framework", "type", "image")
        ),
    )


def _row(version: VersionSummary) -> tuple[str, ...]:
    kind = (version.framework or "-", version.type or "-")
    return (str(version.name), *kind, version.image or "(no image)")

"""The list of a store's versions as it is printed; loads neither typer nor the records."""

from __future__ import annotations

from builder.cli.printing import result, table
from builder.models.stores import list_versions


def print_versions(store: str, *, as_json: bool) -> None:
    """Print every version of a store with its image.

    Raises:
        UsageError: There is no such store.
        StoreError: It cannot be opened.
    """
    versions = list(list_versions(store))
    result(
        [{**vars(version), "name": vars(version.name)} for version in versions],
        as_json=as_json,
        text=lambda: table(
            [(str(version.name), version.image or "(no image)") for version in versions],
            header=("version", "image"),
        ),
    )

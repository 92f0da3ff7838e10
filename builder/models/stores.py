"""The stores by name."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from builder.errors import UsageError

if TYPE_CHECKING:
    from builder.models.names import VersionSummary
    from builder.models.store import ModelStore


def open_store(name: str) -> ModelStore:
    """Open a store.

    Args:
        name: `local` or `picsellia`.

    Raises:
        UsageError: There is no such store.
        StoreError: It cannot be opened.
    """
    if name == "local":
        from builder.models.local.store import LocalStore  # noqa: PLC0415  (each store costs only who uses it)

        return LocalStore()
    if name == "picsellia":
        from builder.host.credentials import load_credentials  # noqa: PLC0415
        from builder.models.picsellia import PicselliaStore  # noqa: PLC0415

        return PicselliaStore.connect(load_credentials())
    raise UsageError(f"{name!r} is not a store: expected local or picsellia")


def list_versions(store: str, model: str | None = None) -> Iterator[VersionSummary]:
    """What `open_store(store).versions.list(model)` gives; of the local store without loading the records.

    Raises:
        UsageError: There is no such store.
        NotFoundError: There is no such model.
        StoreError: The store cannot be opened.
    """
    if store != "local" or model is not None:
        yield from open_store(store).versions.list(model)
        return
    from builder.models.local import database, listing  # noqa: PLC0415

    opened = database.open_database(database.default_folder())
    yield from listing.list_versions(opened)
    opened.close()

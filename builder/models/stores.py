"""The stores by name."""

from __future__ import annotations

from builder.errors import UsageError
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
        from builder.models.local import LocalStore  # noqa: PLC0415  (each store costs only who uses it)

        return LocalStore()
    if name == "picsellia":
        from builder.credentials import load_credentials  # noqa: PLC0415
        from builder.models.picsellia import PicselliaStore  # noqa: PLC0415

        return PicselliaStore.connect(load_credentials())
    raise UsageError(f"{name!r} is not a store: expected local or picsellia")

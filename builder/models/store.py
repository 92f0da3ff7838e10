"""The protocol of a model store."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

from builder.models.records import ModelVersion, VersionFields, VersionName


class ModelStore(Protocol):
    """Where ModelVersions live: `LocalStore` or `PicselliaStore`."""

    def get_version(self, name: VersionName) -> ModelVersion:
        """Read one version.

        Raises:
            NotFoundError: The model or the version does not exist; the remedy offers to create it.
            StoreError: The store failed.
        """
        ...

    def create_version(self, name: VersionName, fields: VersionFields) -> ModelVersion:
        """Make a version, and its model when there is none yet; all or nothing.

        Raises:
            UsageError: The store takes no such name or value.
            StoreError: It exists already, or the store failed.
        """
        ...

    def update_version(self, name: VersionName, fields: VersionFields) -> ModelVersion:
        """Write every field that is not None, in one request, and return what the store now holds.

        Raises:
            UsageError: The store takes no such value.
            NotFoundError: The version does not exist.
            StoreError: The store failed.
        """
        ...

    def versions(self) -> Iterator[ModelVersion]:
        """Every version of the store."""
        ...

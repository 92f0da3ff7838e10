"""The local model store: models, experiments and datasets in one folder that several processes share."""

from __future__ import annotations

from pathlib import Path
from types import TracebackType

from builder.models.local.blobs import Blobs
from builder.models.local.database import default_folder, open_database
from builder.models.local.datasets import LocalDatasets
from builder.models.local.experiments import LocalExperiments
from builder.models.local.files import Damage, Files
from builder.models.local.versions import LocalVersions
from builder.models.records import Holder


class LocalStore:
    """A `ModelStore` in a folder. Each write is one transaction; a version's former fields are kept.

    Raises:
        StoreError: The folder cannot be written, the database is damaged, or it is of a newer schema.
    """

    name = "local"

    def __init__(self, folder: Path | None = None) -> None:
        self.folder = folder or default_folder()
        self.database = open_database(self.folder)
        self._files = Files(self.database, Blobs(self.folder / "blobs"))
        self.versions = LocalVersions(self.database, self._files)
        self.datasets = LocalDatasets(self.database, self._files)
        self.experiments = LocalExperiments(self.database, self._files, self.versions, self.datasets)

    def damaged(self) -> tuple[Damage, ...]:
        """Read every stored content, and tell those that are missing or not what was once kept.

        Raises:
            StoreError: The store failed.
        """
        return tuple(self._files.damaged())

    def holders(self, sha256: str) -> tuple[Holder, ...]:
        """The versions, experiments and dataset versions that have a file of this content.

        Raises:
            StoreError: The store failed.
        """
        return self._files.holders(sha256)

    def __enter__(self) -> LocalStore:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the database; the store cannot be used after it."""
        self.database.close()

"""The local model store: models, experiments and datasets in one folder that several processes share."""

from __future__ import annotations

import os
from pathlib import Path
from types import TracebackType

from platformdirs import user_data_dir

from builder.errors import StoreError
from builder.models.local.database import FILE, FOLDER_VARIABLE, Database
from builder.models.local.versions import LocalVersions
from builder.models.store import Datasets, Experiments


def default_folder() -> Path:
    """Where the store lies: `TRAINPACK_STORE`, else `store` in the user's data folder."""
    folder = os.environ.get(FOLDER_VARIABLE)
    return Path(folder) if folder else Path(user_data_dir("trainpack")) / "store"


class LocalStore:
    """A `ModelStore` in a folder. Each write is one transaction; a version's former fields are kept.

    Raises:
        StoreError: The folder cannot be written, the database is damaged, or it is of a newer schema.
    """

    name = "local"

    def __init__(self, folder: Path | None = None) -> None:
        self.folder = folder or default_folder()
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StoreError(
                f"the store's folder cannot be made: {error.strerror}",
                place=str(self.folder),
                remedy=f"set {FOLDER_VARIABLE} to a folder that you can write to",
            ) from None
        self.database = Database(self.folder / FILE)
        self.versions = LocalVersions(self.database)

    @property
    def experiments(self) -> Experiments:
        """Experiments."""
        raise StoreError("the local store keeps no experiments yet")

    @property
    def datasets(self) -> Datasets:
        """Dataset versions."""
        raise StoreError("the local store keeps no datasets yet")

    def __enter__(self) -> LocalStore:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the database; the store cannot be used after it."""
        self.database.close()

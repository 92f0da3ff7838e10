"""Dataset versions in the local store."""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from builder.errors import NotFoundError, UsageError
from builder.models.coco import Annotations, read_annotations
from builder.models.folders import files_below
from builder.models.local.database import Database
from builder.models.local.files import Files
from builder.models.local.objects import DATASETS, Objects, decode, encode
from builder.models.names import DatasetName
from builder.models.records import DatasetFields, DatasetVersion, StoredFile
from builder.models.values import checked_dataset


class LocalDatasets:
    """The `Datasets` of the local store."""

    def __init__(self, database: Database, files: Files) -> None:
        self._database = database
        self._files = files
        self.objects = Objects(database, DatasetName, DATASETS)

    def list(self, dataset: str | None = None) -> Iterator[DatasetVersion]:
        """Every dataset version of the store, or of one dataset, by name.

        Raises:
            NotFoundError: There is no such dataset.
            StoreError: The store failed.
        """
        yield from map(self._version, self.objects.of(dataset))

    def get(self, name: DatasetName) -> DatasetVersion:
        """Read one dataset version.

        Raises:
            NotFoundError: It does not exist; the message names one that is close.
            StoreError: The store failed.
        """
        return self._version(self.objects.require(name))

    def add(self, name: DatasetName, fields: DatasetFields, folder: Path | None = None) -> DatasetVersion:
        """Make a dataset version of a folder's files, or of a reference; all or nothing.

        Raises:
            UsageError: The name or a value cannot be stored; the folder cannot be read or is empty, its
                annotations are not COCO; or there is not either a folder or a reference.
            StoreError: It exists already, or the store failed.
        """
        checked = checked_dataset(fields, str(name))
        if (folder is None) == (checked.reference is None):
            raise UsageError("expected either a folder or a reference", place=str(name))
        if folder is None:
            self._insert(name, checked.model_copy(update={"reference": _absolute(checked.reference or "")}))
        else:
            self._add_folder(name, checked, folder)
        return self.get(name)

    def fetch(self, name: DatasetName, into: Path) -> Path:
        """The folder with its files: the referenced one, else a new one below `into`, of verified copies.

        Copies, since a hard link would let whoever edits the data edit the store; where the file system can
        share blocks, a copy costs nothing.

        Raises:
            NotFoundError: There is no such dataset version, or its reference is not a folder here.
            StoreError: What is stored is not what was once kept.
            UsageError: The target exists, or cannot be written.
        """
        row = self.objects.require(name)
        reference = self._version(row).fields.reference
        if reference is None:
            target = into / "-".join(part.replace("/", "-") for part in name.parts)
            return self._files.fetch_all(self._files.of(row["id"]), name, target)
        if not Path(reference).is_dir():
            raise NotFoundError(
                f"its data are at {reference}, which is not a folder of this machine",
                place=str(name),
                remedy="bring them here and give the folder, or add them as a version of their own",
            )
        return Path(reference)

    def _add_folder(self, name: DatasetName, fields: DatasetFields, folder: Path) -> None:
        paths = files_below(folder)
        if not paths:
            raise UsageError("this folder is empty", place=str(folder))
        annotations = _annotations(paths)
        files = self._files.put(paths)
        assets = [file for file in files if file.name not in annotations]
        labels = fields.labels or _labels(annotations.values())
        self._insert(
            name,
            fields.model_copy(update={"labels": labels}),
            files,
            assets=len(assets),
            size=sum(file.size or 0 for file in assets),
            annotations=sum(found.count for found in annotations.values()) if annotations else None,
            digest=digest(files),
        )

    def _insert(
        self, name: DatasetName, fields: DatasetFields, files: Sequence[StoredFile] = (), **columns: Any
    ) -> None:
        with self._database.transaction():
            id_ = self.objects.insert(name, {"fields": encode(fields), **columns})
            self._files.write(id_, files)

    def _version(self, row: sqlite3.Row) -> DatasetVersion:
        name = self.objects.name(row)
        columns = ("id", "assets", "size", "annotations", "digest", "creator", "created")
        fields = decode(DatasetFields, row["fields"], name)
        return DatasetVersion(name=name, fields=fields, **{column: row[column] for column in columns})


def digest(files: Sequence[StoredFile]) -> str:
    """Of names and contents: the SHA-256 of what `sha256sum` prints of the files, sorted by name. Pure."""
    lines = (f"{file.sha256}  {file.name}\n" for file in sorted(files, key=lambda file: file.name))
    return f"sha256:{hashlib.sha256(''.join(lines).encode()).hexdigest()}"


def _annotations(paths: Mapping[str, Path]) -> dict[str, Annotations]:
    found = {name: read_annotations(path) for name, path in paths.items() if name.endswith(".json")}
    return {name: annotations for name, annotations in found.items() if annotations}


def _labels(found: Iterable[Annotations]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(label for annotations in found for label in annotations.labels))


def _absolute(reference: str) -> str:
    """An address as it is, a folder with its full path.

    Raises:
        UsageError: It is neither.
    """
    if "://" in reference:
        return reference
    if not Path(reference).is_dir():
        raise UsageError(
            f"the reference {reference!r} is neither a folder of this machine nor an address",
            remedy="an address has the form SCHEME://…",
        )
    return str(Path(reference).resolve())

"""Models and their versions in the local store."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path

from builder.errors import UsageError
from builder.models.local.database import Database
from builder.models.local.files import FILE, THUMBNAIL, Files, own_name
from builder.models.local.listing import list_versions
from builder.models.local.objects import VERSIONS, Objects, decode, encode, now
from builder.models.names import VersionName, VersionSummary
from builder.models.records import Model, ModelVersion, PastState, Source, StoredFile, VersionFields
from builder.models.values import NOT_CONFIGURED, check_text, checked_version


class LocalVersions:
    """The `Versions` of the local store."""

    def __init__(self, database: Database, files: Files) -> None:
        self._database = database
        self._files = files
        self.objects = Objects(database, VersionName, VERSIONS)

    def models(self) -> Iterator[Model]:
        """Every model, by name.

        Raises:
            StoreError: The store failed.
        """
        for row in self.objects.owners():
            yield Model(id=row["id"], name=row["name"])

    def list(self, model: str | None = None) -> Iterator[VersionSummary]:
        """Every version of the store, or of one model, by name.

        Raises:
            NotFoundError: There is no such model.
            StoreError: The store failed.
        """
        if model is not None:
            self.objects.require_owner(model)
        yield from list_versions(self._database, model)

    def get(self, name: VersionName) -> ModelVersion:
        """Read one version.

        Raises:
            NotFoundError: The model or the version does not exist; the message names one that is close.
            StoreError: The store failed.
        """
        row = self.objects.require(name)
        thumbnails = self._files.of(row["id"], THUMBNAIL)
        return ModelVersion(
            id=row["id"],
            name=name,
            fields=self.fields(row),
            files=self._files.of(row["id"]),
            thumbnail=thumbnails[0] if thumbnails else None,
            source=row["source"] and Source.model_validate_json(row["source"]),
            creator=row["creator"],
            created=row["created"],
            updated=row["updated"],
        )

    def create(self, name: VersionName, fields: VersionFields, source: Source | None = None) -> ModelVersion:
        """Make a version, and its model when there is none yet; all or nothing.

        Raises:
            UsageError: The name or a value cannot be stored.
            StoreError: It exists already, or the store failed.
        """
        checked = checked_version(fields, str(name))
        with self._database.transaction():
            self.insert(name, checked, source)
        return self.get(name)

    def insert(self, name: VersionName, fields: VersionFields, source: Source | None, **columns: str) -> str:
        """Make a version of checked fields: a part of the open transaction.

        Returns:
            Its id.

        Raises:
            UsageError: The name cannot be stored.
            StoreError: It exists already, or the store failed.
        """
        made = now()
        origin = source and source.model_dump_json()
        given = {"source": origin, "created": made, "updated": made, **columns}
        return self.objects.insert(name, _columns(fields) | given)

    def update(self, name: VersionName, fields: VersionFields) -> ModelVersion:
        """Write every field that is not None, and keep what they replace in the history.

        Raises:
            UsageError: A value cannot be stored.
            NotFoundError: The version does not exist.
            StoreError: The store failed.
        """
        checked = checked_version(fields, str(name))
        written = {key: value for key, value in checked if value is not None}
        with self._database.transaction():
            row = self.objects.require(name)
            self._write(row, self.fields(row).model_copy(update=written))
        return self.get(name)

    def restore(self, name: VersionName, fields: VersionFields) -> ModelVersion:
        """Write all fields as they are, None clearing one, and keep what they replace in the history.

        Raises:
            UsageError: A value cannot be stored.
            NotFoundError: The version does not exist.
            StoreError: The store failed.
        """
        checked = checked_version(fields, str(name))
        with self._database.transaction():
            self._write(self.objects.require(name), checked)
        return self.get(name)

    def history(self, name: VersionName) -> tuple[PastState, ...]:
        """The states that were replaced by later writes, latest first.

        Raises:
            NotFoundError: The version does not exist.
            StoreError: The store failed.
        """
        rows = self._database.execute(
            "SELECT replaced_at, fields FROM history WHERE version_id = ? ORDER BY id DESC",
            (self.objects.require(name)["id"],),
        )
        return tuple(
            PastState(fields=decode(VersionFields, row["fields"], name), replaced=row["replaced_at"])
            for row in rows
        )

    def store_file(self, name: VersionName, path: Path, label: str | None = None) -> StoredFile:
        """Keep a file, or a folder with all its levels, under a name; one of the same name is replaced.

        Raises:
            UsageError: The path cannot be read, or the name cannot be stored.
            NotFoundError: The version does not exist.
            StoreError: The store failed.
        """
        return self._store(name, path, own_name(path) if label is None else label, FILE)

    def fetch_file(self, name: VersionName, label: str, into: Path) -> Path:
        """Write a stored file below a folder, verified, and return its path; a folder comes back as one.

        Raises:
            NotFoundError: There is no such version or file.
            StoreError: What is stored is not what was once kept.
            UsageError: The target exists, or cannot be written.
        """
        files = self._files.of(self.objects.require(name)["id"])
        return self._files.fetch(files, label, name, into)

    def store_thumbnail(self, name: VersionName, path: Path) -> StoredFile:
        """Keep a picture as the version's thumbnail.

        Raises:
            UsageError: The path cannot be read, or is a folder.
            NotFoundError: The version does not exist.
            StoreError: The store failed.
        """
        if path.is_dir():
            raise UsageError("this is a folder, expected a picture", place=str(path))
        return self._store(name, path, THUMBNAIL, THUMBNAIL)

    def fetch_thumbnail(self, name: VersionName, into: Path) -> Path:
        """Write the thumbnail below a folder, verified, and return its path.

        Raises:
            NotFoundError: There is no such version, or it has no thumbnail.
            StoreError: What is stored is not what was once kept.
            UsageError: The target exists, or cannot be written.
        """
        files = self._files.of(self.objects.require(name)["id"], THUMBNAIL)
        return self._files.fetch(files, THUMBNAIL, name, into)

    def fields(self, row: sqlite3.Row) -> VersionFields:
        """The fields of a row.

        Raises:
            StoreError: They are not as expected.
        """
        return decode(VersionFields, row["fields"], self.objects.name(row))

    def _store(self, name: VersionName, path: Path, label: str, role: str) -> StoredFile:
        check_text(label, place=str(path))
        self.objects.require(name)
        (file,) = self._files.put({label: path})
        with self._database.transaction():
            row = self.objects.require(name)
            self._files.write(row["id"], [file], role)
            self.objects.write(row["id"], {"updated": now()})
        return file

    def _write(self, row: sqlite3.Row, fields: VersionFields) -> None:
        columns = _columns(fields)
        if columns["fields"] == row["fields"]:
            return
        written = now()
        self._database.execute(
            "INSERT INTO history (version_id, replaced_at, fields) VALUES (?, ?, ?)",
            (row["id"], written, row["fields"]),
        )
        self.objects.write(row["id"], columns | {"updated": written})


def _columns(fields: VersionFields) -> dict[str, str | None]:
    """The document, and beside it what a list shows."""
    none = {key: None for key in ("framework", "type") if getattr(fields, key) == NOT_CONFIGURED}
    held = fields.model_copy(update=none)
    return {
        "fields": encode(held),
        "framework": held.framework,
        "type": held.type,
        "image": held.image.tagged if held.image else None,
        "digest": held.image.digest if held.image else None,
    }

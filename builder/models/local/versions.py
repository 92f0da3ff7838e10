"""Models and their versions in the local store."""

from __future__ import annotations

import json
import sqlite3
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

from pydantic import ValidationError
from trainpack_entrypoint.schema import close_match

from builder.errors import NotFoundError, StoreError
from builder.models.local.database import Database
from builder.models.records import (
    Model,
    ModelVersion,
    PastState,
    Source,
    StoredFile,
    VersionFields,
    VersionName,
    VersionSummary,
)
from builder.models.values import NOT_CONFIGURED, check_name, checked_version

_SELECT = """
    SELECT versions.*, models.name AS model
    FROM versions JOIN models ON models.id = versions.model_id
"""


class LocalVersions:
    """The `Versions` of the local store."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def models(self) -> Iterator[Model]:
        """Every model, by name."""
        for row in self._database.execute("SELECT id, name FROM models ORDER BY name"):
            yield Model(id=row["id"], name=row["name"])

    def list(self, model: str | None = None) -> Iterator[VersionSummary]:
        """Every version of the store, or of one model, by name.

        Raises:
            NotFoundError: There is no such model.
        """
        if model is not None:
            self._require_model(model)
        for row in self._database.execute(
            """
            SELECT versions.id, models.name AS model, versions.name AS version,
                json_extract(fields, '$.framework') AS framework, json_extract(fields, '$.type') AS type,
                json_extract(fields, '$.image.name') AS image, json_extract(fields, '$.image.tag') AS tag,
                json_extract(fields, '$.image.digest') AS digest
            FROM versions JOIN models ON models.id = versions.model_id
            WHERE ? IS NULL OR models.name = ?
            ORDER BY models.name, versions.name
            """,
            (model, model),
        ):
            yield VersionSummary(
                id=row["id"],
                name=VersionName(model=row["model"], version=row["version"]),
                framework=row["framework"],
                type=row["type"],
                image=f"{row['image']}:{row['tag']}" if row["tag"] else row["image"],
                digest=row["digest"],
            )

    def get(self, name: VersionName) -> ModelVersion:
        """Read one version.

        Raises:
            NotFoundError: The model or the version does not exist; the message names one that is close.
            StoreError: The store failed.
        """
        return self._version(self._require(name))

    def create(self, name: VersionName, fields: VersionFields, source: Source | None = None) -> ModelVersion:
        """Make a version, and its model when there is none yet; all or nothing.

        Raises:
            UsageError: The name or a value cannot be stored.
            StoreError: It exists already, or the store failed.
        """
        check_name(name)
        document = _encode(checked_version(fields, str(name)))
        with self._database.transaction():
            if self._row(name) is not None:
                raise StoreError("this version exists already", place=str(name))
            self._database.execute(
                "INSERT INTO models VALUES (?, ?) ON CONFLICT (name) DO NOTHING",
                (str(uuid.uuid4()), name.model),
            )
            self._database.execute(
                "INSERT INTO versions SELECT ?, id, ?, ? FROM models WHERE name = ?",
                (str(uuid.uuid4()), name.version, document, name.model),
            )
        return self.get(name)

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
            row = self._require(name)
            self._write(row, self._version(row).fields.model_copy(update=written))
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
            self._write(self._require(name), checked)
        return self.get(name)

    def history(self, name: VersionName) -> tuple[PastState, ...]:
        """The states that were replaced by later writes, latest first.

        Raises:
            NotFoundError: The version does not exist.
            StoreError: The store failed.
        """
        rows = self._database.execute(
            "SELECT replaced_at, fields FROM history WHERE version_id = ? ORDER BY id DESC",
            (self._require(name)["id"],),
        )
        return tuple(
            PastState(fields=self._decode(row["fields"], name), replaced=row["replaced_at"]) for row in rows
        )

    def store_file(self, name: VersionName, path: Path, label: str | None = None) -> StoredFile:
        """Keep a file or folder."""
        raise StoreError("the local store keeps no files yet", place=str(name))

    def fetch_file(self, name: VersionName, label: str, into: Path) -> Path:
        """Write a stored file below a folder."""
        raise StoreError("the local store keeps no files yet", place=str(name))

    def store_thumbnail(self, name: VersionName, path: Path) -> StoredFile:
        """Keep a picture as the version's thumbnail."""
        raise StoreError("the local store keeps no files yet", place=str(name))

    def fetch_thumbnail(self, name: VersionName, into: Path) -> Path:
        """Write the thumbnail below a folder."""
        raise StoreError("the local store keeps no files yet", place=str(name))

    def _write(self, row: sqlite3.Row, fields: VersionFields) -> None:
        document = _encode(fields)
        if document == row["fields"]:
            return
        self._database.execute(
            "INSERT INTO history (version_id, replaced_at, fields) VALUES (?, ?, ?)",
            (row["id"], datetime.now(UTC).isoformat(), row["fields"]),
        )
        self._database.execute("UPDATE versions SET fields = ? WHERE id = ?", (document, row["id"]))

    def _require(self, name: VersionName) -> sqlite3.Row:
        row = self._row(name)
        if row is None:
            raise self._not_found(name)
        return row

    def _row(self, name: VersionName) -> sqlite3.Row | None:
        rows = self._database.execute(
            f"{_SELECT} WHERE models.name = ? AND versions.name = ?", (name.model, name.version)
        )
        return rows[0] if rows else None

    def _version(self, row: sqlite3.Row) -> ModelVersion:
        name = VersionName(model=row["model"], version=row["name"])
        return ModelVersion(id=row["id"], name=name, fields=self._decode(row["fields"], name))

    def _decode(self, document: str, name: VersionName) -> VersionFields:
        try:
            return VersionFields.model_validate_json(document)
        except ValidationError as error:
            raise StoreError(
                f"what is stored of {name} cannot be read: {error.error_count()} fields are not as expected",
                place=str(self._database.path),
            ) from None

    def _require_model(self, name: str) -> None:
        models = [model.name for model in self.models()]
        if name not in models:
            raise NotFoundError(f"there is no model {name!r}{close_match(name, models)}", place=name)

    def _not_found(self, name: VersionName) -> NotFoundError:
        models = [model.name for model in self.models()]
        if name.model in models:
            versions = [summary.name.version for summary in self.list(name.model)]
            hint = close_match(name.version, versions)
            message = f"the model {name.model!r} has no version {name.version!r}{hint}"
        else:
            message = f"there is no model {name.model!r}{close_match(name.model, models)}"
        return NotFoundError(
            message,
            place=str(name),
            remedy="`trainpack attach --create` or `trainpack models create` makes it",
        )


def _encode(fields: VersionFields) -> str:
    held = {
        key: value
        for key, value in fields.model_dump(exclude_none=True).items()
        if value != NOT_CONFIGURED or key not in ("framework", "type")
    }
    return json.dumps(held, allow_nan=False, ensure_ascii=False)

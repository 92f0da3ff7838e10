"""The local model store: models and versions in one SQLite file that several processes share."""

from __future__ import annotations

import json
import os
import sqlite3
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType

from platformdirs import user_data_dir
from pydantic import ValidationError
from trainpack_entrypoint.schema import close_match

from builder.errors import NotFoundError, StoreError, UsageError
from builder.models.records import ModelVersion, VersionFields, VersionName

FOLDER_VARIABLE = "TRAINPACK_STORE"
DATABASE = "store.db"
BUSY_SECONDS = 30.0

# One step per schema version, in order; a step that was released is never edited, a change is a new step.
MIGRATIONS = (
    """
    CREATE TABLE models (
        id TEXT PRIMARY KEY,
        name TEXT NOT NULL UNIQUE
    ) STRICT;
    CREATE TABLE versions (
        id TEXT PRIMARY KEY,
        model_id TEXT NOT NULL REFERENCES models (id),
        name TEXT NOT NULL,
        fields TEXT NOT NULL CHECK (json_valid(fields)),
        UNIQUE (model_id, name)
    ) STRICT;
    CREATE TABLE history (
        id INTEGER PRIMARY KEY,
        version_id TEXT NOT NULL REFERENCES versions (id),
        replaced_at TEXT NOT NULL,
        fields TEXT NOT NULL CHECK (json_valid(fields))
    ) STRICT;
    CREATE INDEX history_of_version ON history (version_id, id);
    """,
)
_SELECT = """
    SELECT versions.id, models.name AS model, versions.name AS version, versions.fields
    FROM versions JOIN models ON models.id = versions.model_id
"""


def default_folder() -> Path:
    """Where the store lies: `TRAINPACK_STORE`, else `store` in the user's data folder."""
    folder = os.environ.get(FOLDER_VARIABLE)
    return Path(folder) if folder else Path(user_data_dir("trainpack")) / "store"


class LocalStore:
    """A `ModelStore` in a folder. Each write is one transaction; a version's former fields are kept.

    Raises:
        StoreError: The folder cannot be written, the database is damaged, or it is of a newer schema.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self._path = (folder or default_folder()) / DATABASE
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StoreError(
                f"the store's folder cannot be made: {error.strerror}",
                place=str(self._path.parent),
                remedy=f"set {FOLDER_VARIABLE} to a folder that you can write to",
            ) from None
        with self._explained():
            self._connection = sqlite3.connect(self._path, timeout=BUSY_SECONDS, isolation_level=None)
        try:
            with self._explained():
                self._open()
        except StoreError:
            self.close()
            raise

    def __enter__(self) -> LocalStore:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the database; the store cannot be used after it."""
        self._connection.close()

    def get_version(self, name: VersionName) -> ModelVersion:
        """Read one version.

        Raises:
            NotFoundError: The model or the version does not exist; the message names one that is close.
            StoreError: The store failed.
        """
        with self._explained():
            row = self._row(name)
            if row is None:
                raise self._not_found(name)
        return self._version(row)

    def create_version(self, name: VersionName, fields: VersionFields) -> ModelVersion:
        """Make a version, and its model when there is none yet; all or nothing.

        Raises:
            UsageError: The name or a value cannot be stored.
            StoreError: It exists already, or the store failed.
        """
        _check_name(name)
        document = _encode(fields, name)
        with self._transaction():
            if self._row(name) is not None:
                raise StoreError("this version exists already", place=str(name))
            self._connection.execute(
                "INSERT INTO models VALUES (?, ?) ON CONFLICT (name) DO NOTHING",
                (str(uuid.uuid4()), name.model),
            )
            self._connection.execute(
                "INSERT INTO versions SELECT ?, id, ?, ? FROM models WHERE name = ?",
                (str(uuid.uuid4()), name.version, document, name.model),
            )
        return self.get_version(name)

    def update_version(self, name: VersionName, fields: VersionFields) -> ModelVersion:
        """Write every field that is not None, and keep what they replace in the history.

        Raises:
            UsageError: A value cannot be stored.
            NotFoundError: The version does not exist.
            StoreError: The store failed.
        """
        with self._transaction():
            row = self._row(name)
            if row is None:
                raise self._not_found(name)
            written = {
                key: value for key in fields.model_fields_set if (value := getattr(fields, key)) is not None
            }
            after = self._version(row).fields.model_copy(update=written)
            self._connection.execute(
                "INSERT INTO history (version_id, replaced_at, fields) VALUES (?, ?, ?)",
                (row["id"], datetime.now(UTC).isoformat(timespec="seconds"), row["fields"]),
            )
            self._connection.execute(
                "UPDATE versions SET fields = ? WHERE id = ?", (_encode(after, name), row["id"])
            )
        return self.get_version(name)

    def versions(self) -> Iterator[ModelVersion]:
        """Every version, ordered by model and version name."""
        with self._explained():
            rows = self._connection.execute(f"{_SELECT} ORDER BY models.name, versions.name").fetchall()
        for row in rows:
            yield self._version(row)

    def history(self, name: VersionName) -> tuple[VersionFields, ...]:
        """The states that were replaced by later writes, latest first.

        Raises:
            NotFoundError: The version does not exist.
            StoreError: The store failed.
        """
        version = self.get_version(name)
        with self._explained():
            rows = self._connection.execute(
                "SELECT fields FROM history WHERE version_id = ? ORDER BY id DESC", (version.id,)
            ).fetchall()
        return tuple(self._decode(row["fields"], name) for row in rows)

    def _open(self) -> None:
        self._connection.row_factory = sqlite3.Row
        self._connection.execute("PRAGMA foreign_keys = ON")
        if self._schema() < len(MIGRATIONS):
            with self._transaction():
                self._migrate()
        if self._schema() > len(MIGRATIONS):
            raise StoreError(
                f"the store has schema {self._schema()}, this trainpack knows {len(MIGRATIONS)}",
                place=str(self._path),
                remedy="upgrade trainpack, or name another folder in " + FOLDER_VARIABLE,
            )
        self._use_wal()

    def _schema(self) -> int:
        return int(self._connection.execute("PRAGMA user_version").fetchone()[0])

    def _migrate(self) -> None:
        # Read again inside the transaction: another process may have migrated while this one waited.
        for number in range(self._schema(), len(MIGRATIONS)):
            for statement in MIGRATIONS[number].split(";"):
                self._connection.execute(statement)
            self._connection.execute(f"PRAGMA user_version = {number + 1}")

    def _use_wal(self) -> None:
        # Where two switch at once, SQLite fails one of them without the busy timeout. Losing costs nothing:
        # the other does it, or the next to open the store, and either journal keeps every write.
        try:
            self._connection.execute("PRAGMA journal_mode = WAL")
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode != sqlite3.SQLITE_BUSY:
                raise

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        # IMMEDIATE takes the write lock before anything is read, so that nothing read is outdated when it
        # is written back.
        with self._explained():
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield
                self._connection.execute("COMMIT")
            except BaseException:
                # A full disk may have ended the transaction already.
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")
                raise

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            raise self._failure(error) from None
        except UnicodeEncodeError as error:
            raise UsageError(f"{error.object!r} is not text that can be stored") from None

    def _failure(self, error: sqlite3.Error) -> StoreError:
        name = getattr(error, "sqlite_errorname", "").partition("_")[2]
        if name.startswith(("CORRUPT", "NOTADB")):
            return StoreError(
                f"the store's database is damaged: {error}",
                place=str(self._path),
                remedy="restore the file from a copy, or move it away to start an empty store",
            )
        remedies = {
            "BUSY": "another process holds the store; try again when it has ended",
            "FULL": "free some space on the disk",
        }
        return StoreError(
            f"the store failed: {error}",
            place=str(self._path),
            remedy=remedies.get(name, f"set {FOLDER_VARIABLE} to a folder that you can write to"),
        )

    def _row(self, name: VersionName) -> sqlite3.Row | None:
        row: sqlite3.Row | None = self._connection.execute(
            f"{_SELECT} WHERE models.name = ? AND versions.name = ?", (name.model, name.version)
        ).fetchone()
        return row

    def _version(self, row: sqlite3.Row) -> ModelVersion:
        name = VersionName(model=row["model"], version=row["version"])
        return ModelVersion(id=row["id"], name=name, fields=self._decode(row["fields"], name))

    def _decode(self, document: str, name: VersionName) -> VersionFields:
        try:
            return VersionFields.model_validate_json(document)
        except ValidationError as error:
            raise StoreError(
                f"what is stored of {name} cannot be read: {error.error_count()} fields are not as expected",
                place=str(self._path),
            ) from None

    def _not_found(self, name: VersionName) -> NotFoundError:
        models = [row[0] for row in self._connection.execute("SELECT name FROM models ORDER BY name")]
        if name.model in models:
            versions = [
                row[0]
                for row in self._connection.execute(
                    "SELECT versions.name FROM versions JOIN models ON models.id = model_id"
                    " WHERE models.name = ? ORDER BY versions.name",
                    (name.model,),
                )
            ]
            hint = close_match(name.version, versions)
            message = f"the model {name.model!r} has no version {name.version!r}{hint}"
        else:
            message = f"there is no model {name.model!r}{close_match(name.model, models)}"
        return NotFoundError(
            message,
            place=str(name),
            remedy="`trainpack attach --create` or `trainpack models create` makes it",
        )


def _check_name(name: VersionName) -> None:
    for part in (name.model, name.version):
        if not part.isprintable() or part != part.strip():
            raise UsageError(
                f"{part!r} cannot be a name: expected printable text without spaces around it",
                place=repr(str(name)),
            )


def _encode(fields: VersionFields, name: VersionName) -> str:
    try:
        return json.dumps(fields.model_dump(exclude_none=True), allow_nan=False, ensure_ascii=False)
    except (ValueError, TypeError) as error:
        raise UsageError(
            f"a value cannot be stored as JSON: {error}",
            place=str(name),
            remedy="write the number as text, or null",
        ) from None

"""The store's SQLite file: its schema, its transactions, and its failures in words."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from builder.errors import StoreError, UsageError
from builder.models.local.schema import MIGRATIONS

FILE = "store.db"
FOLDER_VARIABLE = "TRAINPACK_STORE"
BUSY_SECONDS = 30.0


def default_folder() -> Path:
    """Where the store lies: `TRAINPACK_STORE`, else `store` in the user's data folder."""
    folder = os.environ.get(FOLDER_VARIABLE)
    if folder:
        return Path(folder)
    from platformdirs import user_data_dir  # noqa: PLC0415  (only needed without the variable)

    return Path(user_data_dir("trainpack")) / "store"


def open_database(folder: Path) -> Database:
    """The database of the store in a folder; both are made when there are none.

    Raises:
        StoreError: The folder cannot be written, the database is damaged, or it is of a newer schema.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StoreError(
            f"the store's folder cannot be made: {error.strerror}",
            place=str(folder),
            remedy=f"set {FOLDER_VARIABLE} to a folder that you can write to",
        ) from None
    return Database(folder / FILE)


class Database:
    """One connection to the file, migrated to the schema that this trainpack knows.

    Args:
        path: The file; it is made when there is none.

    Raises:
        StoreError: It cannot be opened, is damaged, or is of a newer schema.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        with self._explained():
            self._connection = sqlite3.connect(path, timeout=BUSY_SECONDS, isolation_level=None)
        try:
            with self._explained():
                self._open()
        except StoreError:
            self.close()
            raise

    def close(self) -> None:
        """Close the file; nothing can be read or written after it."""
        self._connection.close()

    def execute(self, statement: str, values: Sequence[Any] | Mapping[str, Any] = ()) -> list[sqlite3.Row]:
        """Run one statement, on its own or as a part of the open transaction, and return its rows.

        Raises:
            UsageError: A value is not text that can be stored.
            StoreError: The database failed.
        """
        with self._explained():
            return self._connection.execute(statement, values).fetchall()

    def insert(self, statement: str, rows: Sequence[Sequence[Any]]) -> None:
        """Run one statement for each row of values.

        Raises:
            UsageError: A value is not text that can be stored.
            StoreError: The database failed.
        """
        with self._explained():
            self._connection.executemany(statement, rows)

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """All that is executed inside it, or nothing, and nobody else writes meanwhile.

        Raises:
            StoreError: The database failed, or another process holds it for too long.
        """
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

    def _open(self) -> None:
        self._connection.row_factory = sqlite3.Row
        self._connection.execute("PRAGMA foreign_keys = ON")
        if self._schema() < len(MIGRATIONS):
            with self.transaction():
                self._migrate()
        if self._schema() > len(MIGRATIONS):
            raise StoreError(
                f"the store has schema {self._schema()}, this trainpack knows {len(MIGRATIONS)}",
                place=str(self.path),
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
                place=str(self.path),
                remedy="restore the file from a copy, or move it away to start an empty store",
            )
        remedies = {
            "BUSY": "another process holds the store; try again when it has ended",
            "FULL": "free some space on the disk",
        }
        return StoreError(
            f"the store failed: {error}",
            place=str(self.path),
            remedy=remedies.get(name, f"set {FOLDER_VARIABLE} to a folder that you can write to"),
        )

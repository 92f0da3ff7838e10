"""Objects in two levels: versions of models, experiments of projects, versions of datasets."""
# ruff: noqa: S608  (what is put into a statement are names of tables and columns, never values)

from __future__ import annotations

import getpass
import json
import sqlite3
import uuid
from datetime import UTC, datetime
from typing import Any, Generic, NamedTuple, TypeVar

from pydantic import ValidationError
from trainpack_entrypoint.schema import close_match

from builder.errors import NotFoundError, StoreError, UsageError
from builder.models.local.database import Database
from builder.models.names import Name
from builder.models.values import check_name
from builder.records import Record

N = TypeVar("N", bound=Name)
R = TypeVar("R", bound=Record)


class Words(NamedTuple):
    """How a kind of object is called: `owner` and `own` in messages, the rest in the database."""

    owner: str
    own: str
    owners: str
    objects: str
    owner_id: str
    remedy: str


VERSIONS = Words(
    owner="model",
    own="version",
    owners="models",
    objects="versions",
    owner_id="model_id",
    remedy="`trainpack attach --create` or `trainpack models create` makes it",
)
EXPERIMENTS = Words(
    owner="project",
    own="experiment",
    owners="projects",
    objects="experiments",
    owner_id="project_id",
    remedy="`trainpack experiments create` makes it",
)
DATASETS = Words(
    owner="dataset",
    own="version",
    owners="datasets",
    objects="dataset_versions",
    owner_id="dataset_id",
    remedy="`trainpack datasets add` makes it",
)


class Objects(Generic[N]):
    """The rows of one kind of object, by name.

    Args:
        database: Where they are.
        kind: The type of their names.
        words: What they are called.
    """

    def __init__(self, database: Database, kind: type[N], words: Words) -> None:
        self._database = database
        self._kind = kind
        self._words = words

    def rows(self, condition: str = "TRUE", values: tuple[Any, ...] = ()) -> list[sqlite3.Row]:
        """The objects that fulfil a condition, by name: their own columns, and their owner's name as `owner`.

        Raises:
            StoreError: The store failed.
        """
        words = self._words
        return self._database.execute(
            f"SELECT objects.*, owners.name AS owner FROM {words.objects} AS objects"
            f" JOIN {words.owners} AS owners ON owners.id = objects.{words.owner_id}"
            f" WHERE {condition} ORDER BY owners.name, objects.name",
            values,
        )

    def of(self, owner: str | None) -> list[sqlite3.Row]:
        """The objects of one owner, or all.

        Raises:
            NotFoundError: There is no such owner.
            StoreError: The store failed.
        """
        if owner is None:
            return self.rows()
        self.require_owner(owner)
        return self.rows("owners.name = ?", (owner,))

    def row(self, name: N) -> sqlite3.Row | None:
        """One object; None where there is none.

        Raises:
            UsageError: The name is one of another store.
            StoreError: The store failed.
        """
        if name.store != "local":
            raise UsageError(f"this is no {self._words.own} of the local store", place=str(name))
        return next(iter(self.rows("owners.name = ? AND objects.name = ?", name.parts)), None)

    def require(self, name: N) -> sqlite3.Row:
        """One object.

        Raises:
            NotFoundError: There is none; the message names one that is close.
            StoreError: The store failed.
        """
        row = self.row(name)
        if row is None:
            raise self._not_found(name)
        return row

    def name(self, row: sqlite3.Row) -> N:
        """How the object of a row is named."""
        return self._kind(**{self._words.owner: row["owner"], self._words.own: row["name"]})

    def names(self, condition: str, value: str) -> tuple[N, ...]:
        """How the objects that fulfil a condition are named.

        Raises:
            StoreError: The store failed.
        """
        return tuple(self.name(row) for row in self.rows(condition, (value,)))

    def insert(self, name: N, columns: dict[str, Any]) -> str:
        """Make an object, and its owner when there is none yet: a part of the open transaction.

        Returns:
            Its id.

        Raises:
            UsageError: The name cannot be stored.
            StoreError: It exists already, or the store failed.
        """
        check_name(name)
        words = self._words
        if self.row(name) is not None:
            raise StoreError(f"this {words.own} exists already", place=str(name))
        owner, own = name.parts
        self._database.execute(
            f"INSERT INTO {words.owners} (id, name) VALUES (?, ?) ON CONFLICT (name) DO NOTHING",
            (str(uuid.uuid4()), owner),
        )
        ((owner_id,),) = self._database.execute(f"SELECT id FROM {words.owners} WHERE name = ?", (owner,))
        values = {"id": str(uuid.uuid4()), words.owner_id: owner_id, "name": own, "creator": user()}
        values |= {"created": now(), **columns}
        self._database.execute(
            f"INSERT INTO {words.objects} ({', '.join(values)}) VALUES ({', '.join('?' * len(values))})",
            tuple(values.values()),
        )
        return str(values["id"])

    def write(self, id_: str, columns: dict[str, Any]) -> None:
        """Write columns of an object: a part of the open transaction.

        Raises:
            StoreError: The store failed.
        """
        assignments = ", ".join(f"{column} = ?" for column in columns)
        self._database.execute(
            f"UPDATE {self._words.objects} SET {assignments} WHERE id = ?", (*columns.values(), id_)
        )

    def owners(self) -> list[sqlite3.Row]:
        """Id and name of every owner, by name.

        Raises:
            StoreError: The store failed.
        """
        return self._database.execute(f"SELECT id, name FROM {self._words.owners} ORDER BY name")

    def require_owner(self, name: str) -> None:
        """Ask for an owner.

        Raises:
            NotFoundError: There is none of this name; the message names one that is close.
            StoreError: The store failed.
        """
        missing = self._missing_owner(name)
        if missing:
            raise NotFoundError(missing, place=f"local:{name}", remedy=self._words.remedy)

    def _not_found(self, name: N) -> NotFoundError:
        owner, own = name.parts
        missing = self._missing_owner(owner) or self._missing_own(owner, own)
        return NotFoundError(missing, place=str(name), remedy=self._words.remedy)

    def _missing_owner(self, owner: str) -> str | None:
        known = [row["name"] for row in self.owners()]
        return (
            None
            if owner in known
            else f"there is no {self._words.owner} {owner!r}{close_match(owner, known)}"
        )

    def _missing_own(self, owner: str, own: str) -> str:
        known = [row["name"] for row in self.rows("owners.name = ?", (owner,))]
        hint = close_match(own, known)
        return f"the {self._words.owner} {owner!r} has no {self._words.own} {own!r}{hint}"


def encode(record: Record) -> str:
    """What is stored of a record; what is None is left out."""
    return json.dumps(record.model_dump(exclude_none=True), allow_nan=False, ensure_ascii=False)


def decode(kind: type[R], document: str, name: Name) -> R:
    """The record that was stored.

    Raises:
        StoreError: It is not as expected.
    """
    try:
        return kind.model_validate_json(document)
    except ValidationError as error:
        raise StoreError(
            f"what is stored of {name} cannot be read: {error.error_count()} fields are not as expected",
            place=str(name),
            remedy="upgrade trainpack, if a newer one wrote it",
        ) from None


def now() -> str:
    """This moment, as it is stored."""
    return datetime.now(UTC).isoformat()


def user() -> str | None:
    """Who creates an object; None where the account has no name."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return None

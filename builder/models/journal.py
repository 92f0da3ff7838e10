"""What versions held before they were attached to, so that an attach can be rolled back.

It lies beside the local store, for the versions of any store: Picsellia keeps no former state, and the
project's folder is a clone that a CI machine throws away.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from contextlib import suppress
from datetime import datetime
from pathlib import Path

from pydantic import ValidationError

from builder.errors import StoreError, UsageError
from builder.models.names import VersionName
from builder.models.records import VersionFields
from builder.records import Record
from builder.workdir import write_atomically

PRIVATE = 0o600  # a version's env may hold tokens


class Entry(Record):
    """One attach.

    Attributes:
        version_id: The store's own id, since the same name in another organization is another version;
            None for a version that was about to be made.
        before: What it held; None when the attach made it.
        after: What it held afterwards, or was to hold if the attach was cut off.
    """

    version: VersionName
    version_id: str | None
    attached: datetime
    before: VersionFields | None
    after: VersionFields


class Journal:
    """The entries of all versions, one file each, so that several processes can write at once.

    Args:
        folder: Where they are.
        copy: A file that gets the entry too, for another machine.
    """

    def __init__(self, folder: Path, copy: Path | None = None) -> None:
        self._folder = folder
        self._copy = copy

    def add(self, entry: Entry) -> Path:
        """Keep an entry; returns the file that it is in.

        Raises:
            StoreError: It cannot be written.
        """
        folder = self._of(entry.version)
        try:
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            path = _reserve(folder)
            self.settle(path, entry)
        except OSError as error:
            raise StoreError(
                f"the state before the attach cannot be recorded: {error.strerror}",
                place=str(error.filename or folder),
                remedy="set TRAINPACK_STORE to a folder that you can write to",
            ) from None
        return path

    def settle(self, path: Path, entry: Entry) -> None:
        """Replace an entry by what came of it."""
        for target in filter(None, (path, self._copy)):
            write_atomically(target, entry.model_dump_json(indent=2) + "\n", PRIVATE)

    def entries(self, name: VersionName) -> tuple[tuple[Path, Entry], ...]:
        """The entries of a version with their files, latest first.

        Raises:
            UsageError: One cannot be read.
        """
        paths = sorted(self._of(name).glob("*.json"), reverse=True)
        return tuple((path, read_entry(path)) for path in paths if path.stat().st_size)

    def remove(self, paths: Sequence[Path]) -> None:
        """Forget entries; one that is gone already is fine."""
        for path in paths:
            path.unlink(missing_ok=True)

    def _of(self, name: VersionName) -> Path:
        # A name may hold what a file system cannot.
        return self._folder / hashlib.sha256(str(name).encode("utf-8", "surrogatepass")).hexdigest()[:32]


def _reserve(folder: Path) -> Path:
    """A new empty file whose name sorts after those that are there."""
    taken = [int(path.stem) for path in folder.glob("*.json") if path.stem.isdecimal()]
    number = max(taken, default=0) + 1
    while True:
        path = folder / f"{number:08}.json"
        with suppress(FileExistsError):
            os.close(os.open(path, os.O_CREAT | os.O_EXCL, PRIVATE))
            return path
        number += 1


def read_entry(path: Path) -> Entry:
    """Read an entry.

    Raises:
        UsageError: The file is missing or is no entry.
    """
    try:
        return Entry.model_validate_json(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UsageError("there is no record of an attach here", place=str(path)) from None
    except (OSError, ValidationError, UnicodeDecodeError) as error:
        # Not the text itself: it may hold tokens.
        why = error.strerror if isinstance(error, OSError) else "its content is another"
        raise UsageError(f"this is not the record of an attach: {why}", place=str(path)) from None

"""Undo an attach: what the version held before is written back, unless something else changed it since."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from builder.errors import NotFoundError, StoreError
from builder.models.compare import diff
from builder.models.journal import Entry
from builder.models.names import VersionName
from builder.models.records import Change, ModelVersion, VersionFields
from builder.models.store import ModelStore
from builder.models.writing import restore_fields
from builder.records import Record


class Rollback(Record):
    """The result of a rollback.

    Attributes:
        changes: What was, or with a dry run would be, written back.
        left: What the store could not clear: `before` is what it still holds.
        made: The attach had made the version, which stays, empty.
        used: How many entries of the journal are used up by it, the latest first.
    """

    version: VersionName
    changes: tuple[Change, ...]
    left: tuple[Change, ...]
    written: bool
    made: bool
    used: int


def rollback(
    store: ModelStore,
    name: VersionName,
    entries: Sequence[Entry],
    *,
    force: bool = False,
    dry_run: bool = False,
    announce: Callable[[tuple[Change, ...]], None] = lambda changes: None,
) -> Rollback:
    """Write back what the version held before the attach that made it what it is.

    Args:
        entries: The attaches of the version, latest first.
        force: Also when it was changed since the last attach.
        dry_run: Write nothing.
        announce: Is given what will change, before anything is written.

    Raises:
        NotFoundError: There is no such version, or nothing to roll back.
        StoreError: It was changed since, or the store failed; it says what was written.
    """
    current = store.versions.get(name)
    number, entry = _chosen(current, entries, force=force)
    wanted = entry.before or VersionFields()
    changes = diff(current.fields, wanted, whole=True)
    announce(changes)
    written = bool(changes) and not dry_run
    held = restore_fields(store, current, wanted) if written else current
    return Rollback(
        version=name,
        changes=changes,
        left=diff(held.fields, wanted, whole=True) if written else (),
        written=written,
        made=entry.before is None,
        used=0 if dry_run else number + 1,
    )


def _chosen(current: ModelVersion, entries: Sequence[Entry], *, force: bool) -> tuple[int, Entry]:
    mine = [
        (number, entry)
        for number, entry in enumerate(entries)
        if entry.version_id in (None, current.id) and not _never_took_effect(entry, current)
    ]
    if not mine:
        raise NotFoundError(
            "there is nothing to roll back: no attach of this version is recorded here",
            place=str(current.name),
            remedy="an attach is recorded on the machine that it ran on; "
            "`attach --record FILE` keeps it elsewhere too, for `attach --rollback --record FILE`",
        )
    for number, entry in mine:
        if not diff(current.fields, entry.after, whole=True):
            return number, entry
    if force:
        return mine[0]
    changed = diff(mine[0][1].after, current.fields, whole=True)
    raise StoreError(
        f"the version was changed since it was attached to: {', '.join(each.field for each in changed)}",
        place=str(current.name),
        details=tuple(f"{each.field}: attached {each.before!r}, is now {each.after!r}" for each in changed),
        remedy="--force restores what it held before the attach, and loses these changes",
    )


def _never_took_effect(entry: Entry, current: ModelVersion) -> bool:
    """Whether the version still, or again, holds what it held before that attach."""
    before = entry.before or VersionFields()
    return not diff(before, current.fields, whole=True) and bool(
        diff(entry.after, current.fields, whole=True)
    )

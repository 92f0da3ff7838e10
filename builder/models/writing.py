"""A write to a version that took effect, or did not, or is told about field by field."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from builder.errors import NotFoundError, ReadBackError, StoreError
from builder.models.compare import diff
from builder.models.names import VersionName
from builder.models.records import Change, ModelVersion, Source, VersionFields
from builder.models.store import ModelStore


def write_fields(
    store: ModelStore,
    name: VersionName,
    before: ModelVersion | None,
    fields: VersionFields,
    source: Source | None = None,
) -> ModelVersion:
    """Write every field that is not None in one request, making a version that is not there, and read back.

    Args:
        before: What the store held; None to create the version.
        source: Of a version that is created.

    Returns:
        What the store holds now.

    Raises:
        UsageError: The store takes no such value; nothing was written.
        ReadBackError: What the store holds is not what was written; it names each field.
        StoreError: The store failed; it says what was written.
    """

    def act() -> ModelVersion:
        if before is None:
            return store.versions.create(name, fields, source)
        return store.versions.update(name, fields)

    _act(_Write(store, name, before, fields), act)
    held = _read_back(store, name, fields)
    if wrong := diff(held.fields, fields):
        raise ReadBackError(
            f"the store does not hold what was written: {', '.join(change.field for change in wrong)}",
            place=str(name),
            details=tuple(
                f"{change.field}: wrote {change.after!r}, read {change.before!r}" for change in wrong
            ),
            remedy="try again; if it stays so, something else writes to this version",
        )
    return held


def restore_fields(store: ModelStore, before: ModelVersion, fields: VersionFields) -> ModelVersion:
    """Write all fields as they are, None clearing one, and read back.

    Args:
        before: What the store held.

    Returns:
        What the store holds now, with what it could not clear.

    Raises:
        UsageError: The store takes no such value; nothing was written.
        StoreError: The store failed; it says what was written.
    """
    name = before.name
    _act(_Write(store, name, before, fields, whole=True), lambda: store.versions.restore(name, fields))
    return _read_back(store, name, fields)


@dataclass(frozen=True)
class _Write:
    store: ModelStore
    name: VersionName
    before: ModelVersion | None
    fields: VersionFields
    whole: bool = False

    @property
    def was(self) -> VersionFields:
        return self.before.fields if self.before else VersionFields()

    def missing(self, fields: VersionFields) -> tuple[Change, ...]:
        """What is not yet as it is to be."""
        return diff(fields, self.fields, whole=self.whole)


def _act(write: _Write, act: Callable[[], ModelVersion]) -> None:
    try:
        act()
    except StoreError as error:
        if _took_effect(write):
            return
        details = (*error.details, *_what_is_there(write, error))
        told = StoreError(error.message, place=error.place, details=details, remedy=error.remedy)
        raise told from None


def _took_effect(write: _Write) -> bool:
    # Only the answer may have been lost: then nothing failed.
    try:
        return not write.missing(write.store.versions.get(write.name).fields)
    except StoreError:
        return False


def _what_is_there(write: _Write, error: StoreError) -> tuple[str, ...]:
    try:
        now = write.store.versions.get(write.name)
    except NotFoundError:
        return (_absent(write.store, write.name, write.before),)
    except StoreError as unread:
        return (_unread(write.missing(write.was), error, unread),)
    if write.before is not None and not diff(write.was, now.fields, whole=True):
        return (f"nothing was written: {write.name} is as it was",)
    return _field_by_field(write.missing(write.was), write.missing(now.fields))


def _unread(wanted: tuple[Change, ...], error: StoreError, unread: StoreError) -> str:
    """What is known of a write after which the store cannot be read."""
    fields = ", ".join(change.field for change in wanted) or "the empty version"
    if error.written:
        return f"written, and accepted by the store: {fields}"
    if error.written is None:
        return f"whether this was written is not known, the store cannot be read ({unread.message}): {fields}"
    return "nothing was written: the store failed before the write"


def _absent(store: ModelStore, name: VersionName, before: ModelVersion | None) -> str:
    if before is not None:
        return f"{name} is gone: something else removed it"
    try:
        next(iter(store.versions.list(name.model)), None)
    except NotFoundError:
        return f"nothing was written: there is no {name}, and no model {name.model!r}"
    except StoreError:
        return f"nothing was written to a version: there is no {name}; whether its model is, cannot be read"
    return f"nothing was written to a version: there is no {name}, only the model {name.model!r}"


def _field_by_field(wanted: tuple[Change, ...], missing: tuple[Change, ...]) -> tuple[str, ...]:
    absent = {change.field for change in missing}
    written = [change.field for change in wanted if change.field not in absent]
    return (
        f"written: {', '.join(written) or 'nothing'}",
        *(f"not written: {change.field} is {change.before!r}" for change in missing),
    )


def _read_back(store: ModelStore, name: VersionName, fields: VersionFields) -> ModelVersion:
    try:
        return store.versions.get(name)
    except StoreError as error:
        written = ", ".join(change.field for change in diff(VersionFields(), fields))
        raise StoreError(
            f"what was written cannot be read back: {error.message}",
            place=error.place,
            details=(f"written, and accepted by the store: {written}",),
            remedy="the same command changes nothing when all is there",
        ) from None

"""A write to a version that took effect, or did not, or is told about field by field."""

from __future__ import annotations

from collections.abc import Callable

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

    _act(store, name, before, fields, act, whole=False)
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
    _act(store, name, before, fields, lambda: store.versions.restore(name, fields), whole=True)
    return _read_back(store, name, fields)


def _act(
    store: ModelStore,
    name: VersionName,
    before: ModelVersion | None,
    fields: VersionFields,
    act: Callable[[], ModelVersion],
    *,
    whole: bool,
) -> None:
    try:
        act()
    except StoreError as error:
        if _took_effect(store, name, fields, whole=whole):
            return
        details = (*error.details, *_what_is_there(store, name, before, fields, whole=whole))
        told = StoreError(error.message, place=error.place, details=details, remedy=error.remedy)
        raise told from None


def _took_effect(store: ModelStore, name: VersionName, fields: VersionFields, *, whole: bool) -> bool:
    # Only the answer may have been lost: then nothing failed.
    try:
        return not diff(store.versions.get(name).fields, fields, whole=whole)
    except StoreError:
        return False


def _what_is_there(
    store: ModelStore,
    name: VersionName,
    before: ModelVersion | None,
    fields: VersionFields,
    *,
    whole: bool,
) -> tuple[str, ...]:
    was = before.fields if before else VersionFields()
    wanted = diff(was, fields, whole=whole)
    try:
        now = store.versions.get(name)
    except NotFoundError:
        return (_absent(store, name, before),)
    except StoreError as error:
        fields_told = ", ".join(change.field for change in wanted) or "the empty version"
        return (
            f"whether this was written is not known, {name} cannot be read ({error.message}): {fields_told}",
        )
    if before is not None and not diff(was, now.fields, whole=True):
        return (f"nothing was written: {name} is as it was",)
    return _field_by_field(wanted, diff(now.fields, fields, whole=whole))


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

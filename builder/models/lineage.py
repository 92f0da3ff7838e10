"""How versions came to be what they are: what differs between two, and what changed from one to the next."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Any

from builder.models.compare import diff
from builder.models.names import VersionName
from builder.models.records import Change, ModelVersion, PastState, StoredFile, VersionFields
from builder.models.store import ModelStore
from builder.records import Record

UNKNOWN = "of unknown size"
_FIRST = datetime.min.replace(tzinfo=UTC)


class Edit(Record):
    """One write to a version, when it replaced what."""

    when: datetime
    changes: tuple[Change, ...]


class Step(Record):
    """One version of a model.

    Attributes:
        since: The version before it, None for the first.
        changes: What differs from that version; for the first, all that it holds.
        edits: The writes to the version itself, earliest first, where the store keeps them.
    """

    version: VersionName
    since: VersionName | None
    created: datetime | None
    creator: str | None
    changes: tuple[Change, ...]
    edits: tuple[Edit, ...]


def difference(before: ModelVersion, after: ModelVersion) -> tuple[Change, ...]:
    """All that differs between two versions, also of different stores: fields, files, source. Pure."""
    return (*diff(before.fields, after.fields, whole=True), *_facts(before, after))


def log(store: ModelStore, model: str) -> tuple[Step, ...]:
    """The versions of a model in the order of their creation, with what changed from each to the next.

    Raises:
        NotFoundError: There is no such model.
        StoreError: The store failed.
    """
    versions = [store.versions.get(summary.name) for summary in store.versions.list(model)]
    ordered = sorted(versions, key=lambda version: version.created or _FIRST)
    return steps(ordered, [store.versions.history(version.name) for version in ordered])


def steps(versions: Sequence[ModelVersion], histories: Iterable[Sequence[PastState]]) -> tuple[Step, ...]:
    """Each version held against the one before it, and its own past states against each other. Pure."""
    former: list[ModelVersion | None] = [None, *versions[:-1]]
    return tuple(
        Step(
            version=version.name,
            since=before and before.name,
            created=version.created,
            creator=version.creator,
            changes=difference(before or _empty(version), version),
            edits=edits(version.fields, history),
        )
        for before, version, history in zip(former, versions, histories, strict=True)
    )


def edits(now: VersionFields, history: Sequence[PastState]) -> tuple[Edit, ...]:
    """A version's own writes, earliest first, from the states that they replaced, latest first. Pure."""
    after = now
    found = []
    for state in history:
        found.append(Edit(when=state.replaced, changes=diff(state.fields, after, whole=True)))
        after = state.fields
    return tuple(reversed(found))


def _empty(version: ModelVersion) -> ModelVersion:
    return ModelVersion(id="", name=version.name, fields=VersionFields())


def _facts(before: ModelVersion, after: ModelVersion) -> tuple[Change, ...]:
    old, new = _flat(before), _flat(after)
    return tuple(
        Change(field=field, before=old.get(field), after=new.get(field))
        for field in sorted(old.keys() | new.keys())
        if not _same(old.get(field), new.get(field))
    )


def _flat(version: ModelVersion) -> dict[str, Any]:
    facts: dict[str, Any] = {f"files.{file.name}": _told(file) for file in version.files}
    if version.thumbnail:
        facts["thumbnail"] = _told(version.thumbnail)
    if version.source:
        facts |= {f"source.datasets.{alias}": str(name) for alias, name in version.source.datasets.items()}
        if version.source.experiment:
            facts["source.experiment"] = str(version.source.experiment)
    return facts


def _told(file: StoredFile) -> str:
    # The name of a file says nothing of its content; a store without hashes tells at least the size.
    size = f"{file.size} bytes" if file.size is not None else UNKNOWN
    return f"{size}, sha256 {file.sha256}" if file.sha256 else size


def _same(before: Any, after: Any) -> bool:
    if before == after or before is None or after is None:
        return bool(before == after)
    # Where one store tells no hash, the sizes are all that can be held against each other, if those.
    hashed = ", sha256" in before and ", sha256" in after
    sizes = {text.partition(",")[0] for text in (before, after)}
    return not hashed and (len(sizes) == 1 or UNKNOWN in sizes)

"""How versions came to be what they are: what differs between two, and what changed from one to the next."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime

from builder.models.compare import diff, diff_versions
from builder.models.names import VersionName
from builder.models.records import Change, ModelVersion, PastState, VersionFields
from builder.models.store import ModelStore
from builder.records import Record

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
            changes=diff_versions(before or _empty(version), version),
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

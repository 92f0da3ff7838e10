"""Copy a version from one store to another, or within one: migration.

Everything is read, and verified, before anything is written; then the version is made with all its fields in
one request, and its files follow. A store has no way to take a version back, so a failure among the files
says what is there, and the same command with --update goes on from it.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from builder.errors import NotFoundError, StoreError, UsageError
from builder.models.compare import diff, diff_versions
from builder.models.names import VersionName
from builder.models.records import Change, ModelVersion, Source, StoredFile, VersionFields
from builder.models.store import ModelStore
from builder.models.writing import restore_fields, write_fields
from builder.records import Record

Tell = Callable[[str], None]
THUMBNAIL = "thumbnail"


class CopyPlan(Record):
    """What a copy would write.

    Attributes:
        exists: The target is there already.
        changes: What differs, files and source included; nothing of it is written by a plan.
        files: The files to store, by label; one whose content is there already is not among them.
        thumbnail: Whether the picture is to be stored.
        kept: Files that only the target has; they stay.
    """

    source: VersionName
    target: VersionName
    exists: bool
    changes: tuple[Change, ...]
    files: tuple[str, ...]
    thumbnail: bool
    kept: tuple[str, ...]


class Copied(Record):
    """The result of a copy.

    Attributes:
        not_carried: What the target could not hold, with the reason.
    """

    plan: CopyPlan
    written: bool
    not_carried: tuple[str, ...]


def plan_copy(version: ModelVersion, name: VersionName, existing: ModelVersion | None) -> CopyPlan:
    """What has to be written so that `name` holds what `version` does. Pure.

    Args:
        existing: What the target is now; None when it is not there.
    """
    target = existing or ModelVersion(id="", name=name, fields=VersionFields())
    there = {file.name: file for file in target.files}
    return CopyPlan(
        source=version.name,
        target=name,
        exists=existing is not None,
        changes=diff_versions(target, version),
        files=tuple(file.name for file in version.files if not _same(file, there.get(file.name))),
        thumbnail=version.thumbnail is not None and not _same(version.thumbnail, target.thumbnail),
        kept=tuple(sorted(there.keys() - {file.name for file in version.files})),
    )


def copy_version(
    stores: tuple[ModelStore, ModelStore],
    names: tuple[VersionName, VersionName],
    *,
    update: bool = False,
    dry_run: bool = False,
    tell: Tell = lambda line: None,
    announce: Callable[[CopyPlan], None] = lambda plan: None,
) -> Copied:
    """Copy a version with all its fields, files and thumbnail, and its source as far as the target holds one.

    Args:
        stores, names: From and to.
        update: Write over a target that exists, and clear what the original does not have.
        dry_run: Write nothing.
        tell: Receives one line per file.
        announce: Is given the plan, before anything is written.

    Raises:
        UsageError: Both names are one, the target takes no such value, or the disk is too small.
        NotFoundError: There is no such version.
        StoreError: The target exists and `update` is off, or a store failed; it says what was written.
    """
    (origin, target), (from_name, name) = stores, names
    if from_name == name:
        raise UsageError("a version cannot be copied onto itself", place=str(name))
    version = origin.versions.get(from_name)
    existing = _existing(target, name)
    plan = plan_copy(version, name, existing)
    announce(plan)
    if existing is not None and not update:
        raise StoreError(
            "this version exists already",
            place=str(name),
            remedy="--update writes over it; --dry-run --update shows what that changes",
        )
    if dry_run or not (plan.changes or plan.files or plan.thumbnail or existing is None):
        return Copied(plan=plan, written=False, not_carried=())
    with _fetched(origin, version, plan, tell) as paths:
        written = _write(target, version, plan, existing, (paths, tell))
    return Copied(plan=plan, written=True, not_carried=not_carried(version, written))


def not_carried(version: ModelVersion, copy: ModelVersion) -> tuple[str, ...]:
    """What a copy does not hold of its original, and why. Pure."""
    lines = [
        f"{change.field}: {change.before!r} could not be cleared"
        for change in diff(copy.fields, version.fields, whole=True)
    ]
    if version.source and copy.source != version.source:
        lines.append(f"source: {copy.name.store} keeps none of a copy; it is {_source(version.source)}")
    if version.creator and copy.creator != version.creator:
        lines.append(f"creator: {version.creator}; a store names who made it there")
    return tuple(lines)


def _source(source: Source) -> str:
    datasets = ", ".join(f"{alias} = {name}" for alias, name in source.datasets.items())
    return f"{source.experiment or 'no experiment'}, datasets: {datasets or 'none'}"


def _same(file: StoredFile, other: StoredFile | None) -> bool:
    return other is not None and file.sha256 is not None and file.sha256 == other.sha256


def _existing(store: ModelStore, name: VersionName) -> ModelVersion | None:
    try:
        return store.versions.get(name)
    except NotFoundError:
        return None


@contextmanager
def _fetched(
    store: ModelStore, version: ModelVersion, plan: CopyPlan, tell: Tell
) -> Iterator[dict[str, Path]]:
    """The files that are to be stored, each in a folder of its own, since labels may be alike on disk."""
    wanted = [file for file in version.files if file.name in plan.files]
    with tempfile.TemporaryDirectory(prefix="trainpack-copy-") as scratch:
        _check_space(Path(scratch), wanted)
        paths = {}
        for number, file in enumerate(wanted):
            into = Path(scratch, str(number))
            into.mkdir()
            paths[_step(file.name)] = store.versions.fetch_file(version.name, file.name, into)
            tell(f"read {file.name}")
        if plan.thumbnail:
            into = Path(scratch, THUMBNAIL)
            into.mkdir()
            paths[THUMBNAIL] = store.versions.fetch_thumbnail(version.name, into)
        yield paths


def _step(label: str) -> str:
    return f"file {label}"


def _check_space(folder: Path, files: list[StoredFile]) -> None:
    needed, free = sum(file.size or 0 for file in files), shutil.disk_usage(folder).free
    if needed > free:
        raise UsageError(
            f"the files take {needed / 1e9:.1f} GB on their way, and {free / 1e9:.1f} GB are free",
            place=str(folder.parent),
            remedy="set TMPDIR to a folder with more space",
        )


def _write(
    store: ModelStore,
    version: ModelVersion,
    plan: CopyPlan,
    existing: ModelVersion | None,
    given: tuple[dict[str, Path], Tell],
) -> ModelVersion:
    paths, tell = given
    name, written = plan.target, ["fields"]
    if existing is None:
        write_fields(store, name, None, version.fields, version.source)
    elif diff(existing.fields, version.fields, whole=True):
        restore_fields(store, existing, version.fields)
    tell(f"wrote the fields of {name}")
    steps: list[tuple[str, Callable[[], object]]] = [
        (_step(label), partial(store.versions.store_file, name, paths[_step(label)], label))
        for label in plan.files
    ]
    if plan.thumbnail:
        steps.append((THUMBNAIL, partial(store.versions.store_thumbnail, name, paths[THUMBNAIL])))
    for what, step in steps:
        try:
            step()
        except (StoreError, UsageError) as error:
            rest = [each for each, _ in steps if each not in written and each != what]
            raise StoreError(
                f"the copy is incomplete: {what}: {error.message}",
                place=error.place or str(name),
                details=(
                    f"written: {', '.join(written)}",
                    f"not written, or not known to be: {what}",
                    *([f"not written: {', '.join(rest)}"] if rest else []),
                ),
                remedy=f"the same command with --update goes on; {error.remedy or ''}".removesuffix("; "),
            ) from None
        written.append(what)
        tell(f"wrote {what}")
    return store.versions.get(name)

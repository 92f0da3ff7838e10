"""What differs between two states of a version, and what of it may be printed. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from trainpack_entrypoint.schema import is_secret

from builder.models.records import Change, ModelVersion, StoredFile, VersionFields

HIDDEN = "***"
UNKNOWN = "of unknown size"


def diff(before: VersionFields, after: VersionFields, *, whole: bool = False) -> tuple[Change, ...]:
    """What writing `after` over `before` would change, entry by entry; secrets' values are `***`. Pure.

    An empty table or text and none are the same.

    Args:
        whole: None clears a field, as `restore` writes it; else it is not written, so it is no change.
    """
    names = [name for name in VersionFields.model_fields if whole or getattr(after, name) is not None]
    old, new = _flat(before, names), _flat(after, names)
    shown_old, shown_new = (_flat(masked(fields), names) for fields in (before, after))
    return tuple(
        Change(field=field, before=shown_old.get(field), after=shown_new.get(field))
        for field in sorted(old.keys() | new.keys())
        if not _same(field, old, new)
    )


def diff_versions(before: ModelVersion, after: ModelVersion) -> tuple[Change, ...]:
    """How two versions differ, entry by entry, also in their files and their source. Pure.

    A file is compared by its hash, by its size where a store tells no hash, and only by its name where one
    tells no size either.
    """
    hashed = all(file.sha256 for version in (before, after) for file in _files(version).values())
    old, new = _beside_fields(before, hashed=hashed), _beside_fields(after, hashed=hashed)
    return diff(before.fields, after.fields, whole=True) + tuple(
        Change(field=field, before=old.get(field), after=new.get(field))
        for field in sorted(old.keys() | new.keys())
        if not _alike(old.get(field), new.get(field))
    )


def _alike(before: str | None, after: str | None) -> bool:
    return before == after or (UNKNOWN in (before, after) and None not in (before, after))


def _beside_fields(version: ModelVersion, *, hashed: bool) -> dict[str, Any]:
    flat: dict[str, Any] = {
        field: f"sha256:{file.sha256}" if hashed else _size(file) for field, file in _files(version).items()
    }
    if version.source:
        flat |= {f"source.datasets.{alias}": str(name) for alias, name in version.source.datasets.items()}
        flat |= {"source.experiment": str(version.source.experiment)} if version.source.experiment else {}
    return flat


def _size(file: StoredFile) -> str:
    return UNKNOWN if file.size is None else f"{file.size} bytes"


def _files(version: ModelVersion) -> dict[str, StoredFile]:
    files = {f"files.{file.name}": file for file in version.files}
    return files | ({"thumbnail": version.thumbnail} if version.thumbnail else {})


def _flat(fields: VersionFields, names: Sequence[str]) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name in ("description", "framework", "type", "notebook_link"):
        if name in names and getattr(fields, name):
            flat[name] = getattr(fields, name)
    for name in ("labelmap", "parameters"):
        if name in names:
            flat |= {f"{name}.{key}": value for key, value in (getattr(fields, name) or {}).items()}
    if "image" in names and fields.image:
        image = fields.image.model_dump()
        flat |= {f"env.{key}": value for key, value in image.pop("env").items()}
        flat |= {f"image.{key}": value for key, value in image.items() if value not in (None, ())}
    return flat


def _same(field: str, old: dict[str, Any], new: dict[str, Any]) -> bool:
    if (field in old) != (field in new):
        return False
    # JSON tells true from 1, Python's == does not; 1 and 1.0 are one number in both.
    return bool(old[field] == new[field]) and isinstance(old[field], bool) == isinstance(new[field], bool)


def masked(fields: VersionFields) -> VersionFields:
    """The fields as they may be printed: values whose name says that they are secrets are `***`."""
    image = fields.image and fields.image.model_copy(update={"env": _masked(fields.image.env)})
    parameters = fields.parameters and _masked(fields.parameters)
    return fields.model_copy(update={"image": image, "parameters": parameters})


def _masked(values: dict[str, Any]) -> dict[str, Any]:
    return {key: _hidden(key, value) for key, value in values.items()}


def _hidden(key: str, value: Any) -> Any:
    if is_secret(key) and value:
        return HIDDEN
    return _masked(value) if isinstance(value, dict) else value

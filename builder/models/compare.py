"""What differs between two states of a version, and what of it may be printed. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from trainpack_entrypoint.schema import is_secret

from builder.models.records import Change, DockerImage, VersionFields

HIDDEN = "***"


def diff(before: VersionFields, after: VersionFields, *, whole: bool = False) -> tuple[Change, ...]:
    """What writing `after` over `before` would change, entry by entry; secrets' values are `***`. Pure.

    An empty table or text and none are the same.

    Args:
        whole: A field that is None in `after` would be cleared; else it is not written, so it is no change.
    """
    names = [name for name in VersionFields.model_fields if whole or getattr(after, name) is not None]
    old, new = _flat(before, names), _flat(after, names)
    shown_old, shown_new = (_flat(masked(fields), names) for fields in (before, after))
    return tuple(
        Change(field=field, before=shown_old.get(field), after=shown_new.get(field))
        for field in sorted(old.keys() | new.keys())
        if not _same(field, old, new)
    )


def _flat(fields: VersionFields, names: Iterable[str]) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name in names:
        value = getattr(fields, name)
        if isinstance(value, DockerImage):
            image = value.model_dump()
            flat |= {f"env.{key}": each for key, each in image.pop("env").items()}
            flat |= {f"image.{key}": each for key, each in image.items() if each not in (None, ())}
        elif isinstance(value, dict):
            flat |= {f"{name}.{key}": each for key, each in value.items()}
        elif value:
            flat[name] = value
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

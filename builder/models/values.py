"""What a name or a field of an object may be, checked before anything is written. Pure."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Sequence
from typing import Any

from trainpack_entrypoint.schema import parse_labelmap

from builder.errors import UsageError
from builder.models.names import Name
from builder.models.records import (
    EXPERIMENT_STATUSES,
    FRAMEWORKS,
    INFERENCE_TYPES,
    LOG_TYPES,
    DatasetFields,
    ExperimentFields,
    Log,
    VersionFields,
)

NOT_CONFIGURED = "NOT_CONFIGURED"
LINE = "LINE"
DEEPEST = 128  # levels that every reader of JSON takes, which some do not of 200


def check_name(name: Name) -> None:
    """Refuse a name that cannot be shown, or that would be read back as another one.

    Raises:
        UsageError: A part is empty, not printable or has spaces around it, or its own part has a slash.
    """
    for part in name.parts:
        check_text(part, place=repr(str(name)))
    if "/" in name.parts[1]:
        raise UsageError(f"{name.parts[1]!r} cannot be a name: it holds a slash", place=str(name))


def check_text(text: str, place: str) -> None:
    """Refuse what cannot be the name of something.

    Raises:
        UsageError: It is empty, not printable, or has spaces around it.
    """
    if not text.strip() or not text.isprintable() or text != text.strip():
        raise UsageError(
            f"{text!r} cannot be a name: expected printable text without spaces around it", place=place
        )


def check_alias(alias: str, place: str) -> None:
    """Refuse what cannot be a dataset's alias, which is the name of a folder in the container.

    Raises:
        UsageError: It is something else than letters, digits, `_`, `.` and `-`, the first no `.` or `-`.
    """
    if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.-]*", alias):
        raise UsageError(f"{alias!r} is not a dataset's alias: expected a name like train", place=place)


def checked_version(fields: VersionFields, place: str) -> VersionFields:
    """The fields as they are written: enums in upper case.

    Raises:
        UsageError: A value that no version can have.
    """
    _check_tables(fields, place)
    return fields.model_copy(
        update={
            "framework": _choice("framework", fields.framework, FRAMEWORKS, place),
            "type": _choice("type", fields.type, INFERENCE_TYPES, place),
        }
    )


def checked_experiment(fields: ExperimentFields, place: str) -> ExperimentFields:
    """The fields as they are written: the status in upper case.

    Raises:
        UsageError: A value that no experiment can have.
    """
    _check_tables(fields, place)
    status = _choice("status", fields.status, EXPERIMENT_STATUSES, place)
    return fields.model_copy(update={"status": status})


def checked_dataset(fields: DatasetFields, place: str) -> DatasetFields:
    """The fields as they are written: the type in upper case, NOT_CONFIGURED as none.

    Raises:
        UsageError: A value that no dataset version can have.
    """
    for label in fields.labels:
        check_text(label, place)
    kind = _choice("type", fields.type, INFERENCE_TYPES, place)
    return fields.model_copy(update={"type": None if kind == NOT_CONFIGURED else kind})


def _check_tables(fields: VersionFields | ExperimentFields, place: str) -> None:
    check_json("the parameters", fields.parameters, place)
    try:
        parse_labelmap(fields.labelmap or {})
    except ValueError as error:
        raise UsageError(f"the labelmap cannot be stored: {error}", place=place) from None


def check_json(what: str, value: Any, place: str) -> None:
    """Refuse what JSON cannot say.

    Raises:
        UsageError: It holds NaN, an infinity, or something that is no JSON value, or is nested too deep.
    """
    try:
        _check_depth(value, DEEPEST)
        json.dumps(value, allow_nan=False)
    except (ValueError, TypeError) as error:
        raise UsageError(
            f"{what} cannot be stored as JSON: {error}",
            place=place,
            remedy="write the number as text, or null",
        ) from None


def check_log(log: Log, place: str) -> None:
    """Refuse what is no log.

    Raises:
        UsageError: Its name or type is none, a LINE is no list, or its data are not JSON.
    """
    check_text(log.name, place)
    if log.type not in LOG_TYPES:
        raise UsageError(
            f"{log.type!r} is no type of a log: expected one of {', '.join(LOG_TYPES)}", place=place
        )
    if log.type == LINE and not isinstance(log.data, list):
        raise UsageError(f"the log {log.name!r} is a LINE, expected a list of its points", place=place)
    try:
        json.dumps(log.data)
    except (TypeError, ValueError, RecursionError) as error:
        raise UsageError(f"the log {log.name!r} cannot be stored as JSON: {error}", place=place) from None


def as_json(data: Any) -> Any:
    """The same with null for each number that is none: a loss that became NaN must not cost the report."""
    if isinstance(data, float):
        return data if math.isfinite(data) else None
    if isinstance(data, dict):
        return {key: as_json(value) for key, value in data.items()}
    return [as_json(item) for item in data] if isinstance(data, list | tuple) else data


def _check_depth(value: Any, depth: int) -> None:
    if depth == 0:
        raise ValueError("nested too deep")
    for item in (
        value.values() if isinstance(value, dict) else value if isinstance(value, list | tuple) else ()
    ):
        _check_depth(item, depth - 1)


def _choice(field: str, value: str | None, known: Sequence[str], place: str) -> str | None:
    if value is None or value.upper() in known:
        return value and value.upper()
    raise UsageError(f"{value!r} is no {field}: expected one of {', '.join(known)}", place=place)

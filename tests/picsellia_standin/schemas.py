"""What a request may hold, field by field; anything else is refused, as the platform's own schemas do."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

FRAMEWORKS = "TENSORFLOW PYTORCH ONNX NOT_CONFIGURED".split()
INFERENCE_TYPES = (
    "NOT_CONFIGURED CLASSIFICATION OBJECT_DETECTION SEGMENTATION POINT KEYPOINT LINE MASK MULTI".split()
)
EXPERIMENT_STATUSES = "RUNNING CANCELED TERMINATED FAILED WAITING SUCCESS".split()
EXPERIMENT_JOB_STATUSES = "RUNNING SUCCESS TERMINATED FAILED".split()
JOB_STATUSES = "PENDING QUEUED RUNNING SUCCEEDED FAILED KILLED".split()
LOG_TYPES = "VALUE IMAGE LINE TABLE BAR HEATMAP LABELMAP EVALUATION".split()
OBJECT_TYPES = "ARTIFACT DATA LOGGING LOG_IMAGE MODEL_FILE MODEL_THUMB".split()
GPUS = "A100 A100_80GB V100 T4 L4 L40S RTXPRO6000".split()


class RefusedError(Exception):
    """The platform answers with an error: `{"message", "detail"}`."""

    def __init__(self, status: int, message: str, detail: Any = None) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.detail = detail


@dataclass(frozen=True)
class Field:
    """One field: how to name what is expected, and what accepts a value."""

    expected: str
    accepts: Callable[[Any], bool]
    required: bool = True


Schema = Mapping[str, Field]


def optional(field: Field) -> Field:
    """The field may be absent; null is still refused."""
    return replace(field, required=False)


def nullable(field: Field) -> Field:
    """The field may be null, or absent."""
    return Field(f"{field.expected} or null", lambda value: value is None or field.accepts(value), False)


def one_of(choices: list[str]) -> Field:
    """An enum by its exact value."""
    return Field(f"one of {', '.join(choices)}", lambda value: isinstance(value, str) and value in choices)


def is_number(value: Any) -> bool:
    """A JSON number; true and false are none."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_uuid(value: Any) -> bool:
    try:
        return isinstance(value, str) and str(uuid.UUID(value)) == value
    except ValueError:
        return False


def is_list_of_uuids(value: Any) -> bool:
    """A JSON list of UUIDs."""
    return isinstance(value, list) and all(map(_is_uuid, value))


def _is_object_of_strings(value: Any) -> bool:
    return isinstance(value, dict) and all(isinstance(item, str) for item in value.values())


def _is_list_of_strings(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(item, str) for item in value)


TEXT = Field("a string", lambda value: isinstance(value, str))
NAME = Field("a non-empty string", lambda value: isinstance(value, str) and bool(value.strip()))
BOOLEAN = Field("true or false", lambda value: isinstance(value, bool))
COUNT = Field("a whole number, not negative", lambda value: type(value) is int and value >= 0)
UUID = Field("a UUID", _is_uuid)
UUIDS = Field("a list of UUIDs", is_list_of_uuids)
OBJECT = Field("an object", lambda value: isinstance(value, dict))
STRINGS = Field("a list of strings", _is_list_of_strings)
STRING_MAP = Field("an object of strings", _is_object_of_strings)
LOG_DATA = Field(
    "a list, an object, a number or a string",
    lambda value: isinstance(value, list | dict | str) or is_number(value),
)


def problems(body: Any, schema: Schema | Field) -> list[str]:
    """Everything that is wrong with a body."""
    if isinstance(schema, Field):
        return [] if schema.accepts(body) else [f"body: expected {schema.expected}"]
    if not isinstance(body, dict):
        return ["body: expected an object"]
    missing = [f"{name}: field required" for name in schema if schema[name].required and name not in body]
    unknown = [f"{name}: unknown field" for name in body if name not in schema]
    wrong = [
        f"{name}: expected {schema[name].expected}"
        for name, value in body.items()
        if name in schema and not schema[name].accepts(value)
    ]
    return missing + unknown + wrong


def require(body: Any, schema: Schema | Field) -> None:
    """Refuse a body that is not of the schema.

    Raises:
        RefusedError: 400, with every problem in its detail.
    """
    found = problems(body, schema)
    if found:
        raise RefusedError(400, "Invalid request", found)


_LOG_SHAPES: dict[str, Callable[[Any], bool]] = {
    "VALUE": lambda data: isinstance(data, str) or is_number(data),
    "LINE": lambda data: is_number(data) or (isinstance(data, list) and all(map(is_number, data))),
    "TABLE": lambda data: isinstance(data, dict),
    "IMAGE": lambda data: isinstance(data, dict) and not problems(data, LOG_IMAGE),
    "BAR": lambda data: isinstance(data, dict) and {"x", "y"} <= set(data),
    "HEATMAP": lambda data: isinstance(data, dict) and {"categories", "values"} <= set(data),
    "LABELMAP": _is_object_of_strings,
    "EVALUATION": lambda data: isinstance(data, list | dict),
}
LOG_IMAGE: Schema = {"object_name": NAME, "large": BOOLEAN, "filename": NAME, "name": NAME}


def require_log_data(kind: str, data: Any) -> None:
    """Refuse data that a log of this type cannot show."""
    if not _LOG_SHAPES[kind](data):
        raise RefusedError(400, "Invalid request", [f"data: not the data of a {kind} log"])

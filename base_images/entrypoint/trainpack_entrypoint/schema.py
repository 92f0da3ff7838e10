"""What a training parameter and a labelmap may be: declared on the host, enforced in the container."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

Scalar = bool | int | float | str
SCALAR_TYPES = ("int", "float", "bool", "str")
TYPES = (*SCALAR_TYPES, *(f"list[{name}]" for name in SCALAR_TYPES), "dict", "any")

NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]*")
_TRUE, _FALSE, _NULL = {"true", "1", "yes", "on"}, {"false", "0", "no", "off"}, {"", "null", "none"}
_SECRET = re.compile(r"(token|secret|password|passwd|api[_-]?key|credential)", re.IGNORECASE)


class Parameter(NamedTuple):
    """One declared training parameter.

    Attributes:
        type: One of `TYPES`.
        default: The baked default; ignored when `required`.
        required: There is no default; a run must give a value.
        optional: None (JSON null) is a legal value.
        argument: The command-line option or environment variable that carries it to the script.
        argument_false: The option that says false, for a `store_false` argument.
    """

    name: str
    type: str = "any"
    default: Any = None
    required: bool = False
    optional: bool = False
    choices: tuple[Any, ...] | None = None
    gt: float | None = None
    ge: float | None = None
    lt: float | None = None
    le: float | None = None
    argument: str | None = None
    argument_false: str | None = None
    help: str | None = None

    @classmethod
    def from_json(cls, name: str, data: Mapping[str, Any]) -> Parameter:
        """Read one entry of the manifest's `parameters`; keys of a newer trainpack are ignored."""
        values = {key: value for key, value in data.items() if key in cls._fields and key != "name"}
        if values.get("choices") is not None:
            values["choices"] = tuple(values["choices"])
        return cls(name=name, **values)

    def to_json(self) -> dict[str, Any]:
        """The manifest's form: what differs from the defaults, with `type` and `default` always."""
        plain = self._asdict()
        plain.pop("name")
        empty = self._field_defaults
        return {
            key: list(value) if isinstance(value, tuple) else value
            for key, value in plain.items()
            if key in ("type", "default") or value != empty[key]
        }

    @property
    def is_secret(self) -> bool:
        """Whether the name says that the value must not be printed."""
        return is_secret(self.name)

    def coerce(self, value: Any) -> Any:
        """The value as the declared type.

        Args:
            value: A JSON value, or the string that a command line or environment variable holds.

        Raises:
            ValueError: It is of another type, out of bounds or not a choice; the message names the value
                and what was expected, not the parameter.
        """
        if value is None or (self.optional and isinstance(value, str) and value.lower() in _NULL):
            if self.optional or self.type == "any":
                return None
            raise ValueError(f"null is not {_article(self.type)}")
        result = _convert(value, self.type)
        for item in result if isinstance(result, list) else [result]:
            self._check(item)
        return result

    def from_text(self, text: str) -> Any:
        """The value that one command-line argument or environment variable says, as JSON or plain text.

        Raises:
            ValueError: As `coerce`.
        """
        if self.type not in ("any", "str"):
            return self.coerce(text)
        try:
            value = _parse(text)
        except ValueError:
            return self.coerce(text)
        return self.coerce(text if self.type == "str" and not isinstance(value, str) else value)

    def _check(self, value: Any) -> None:
        if self.choices is not None and value not in self.choices:
            hint = close_match(str(value), [str(choice) for choice in self.choices])
            wanted = ", ".join(json.dumps(choice) for choice in self.choices)
            raise ValueError(f"{json.dumps(value)} is not one of {wanted}{hint}")
        if isinstance(value, bool) or not isinstance(value, int | float):
            return
        bounds = (("gt", ">", self.gt), ("ge", ">=", self.ge), ("lt", "<", self.lt), ("le", "<=", self.le))
        for kind, sign, bound in bounds:
            if bound is not None and not _within(kind, value, bound):
                raise ValueError(f"{value!r} is out of bounds: it must be {sign} {bound:g}")


def _within(kind: str, value: float, bound: float) -> bool:
    return {"gt": value > bound, "ge": value >= bound, "lt": value < bound, "le": value <= bound}[kind]


def is_secret(name: str) -> bool:
    """Whether a parameter or variable of this name holds something that must not be printed."""
    return _SECRET.search(name) is not None


def type_of(value: Any) -> str:
    """The declared type that a bare default stands for (`10` → `int`, `[]` → `any`)."""
    if isinstance(value, list):
        kinds = {type_of(item) for item in value}
        if kinds == {"int", "float"}:
            kinds = {"float"}
        kind = kinds.pop() if len(kinds) == 1 else ""
        return f"list[{kind}]" if kind in SCALAR_TYPES else "any"
    names = {bool: "bool", int: "int", float: "float", str: "str", dict: "dict"}
    return names.get(type(value), "any")


def _convert(value: Any, kind: str) -> Any:
    if kind == "any":
        return value
    if kind == "dict":
        return _to_dict(value)
    if kind.startswith("list["):
        return [_convert(item, kind[5:-1]) for item in _to_list(value)]
    return _SCALARS[kind](value)


def _to_int(value: Any) -> int:
    if isinstance(value, bool):
        raise _wrong(value, "int")
    if isinstance(value, str):
        try:
            return int(value)
        except ValueError:
            value = _to_float(value, expected="int")
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if not isinstance(value, int):
        raise _wrong(value, "int")
    return value


def _to_float(value: Any, expected: str = "float") -> float:
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise _wrong(value, expected)
    try:
        number = float(value)
    except (ValueError, OverflowError):
        raise _wrong(value, expected) from None
    if math.isnan(number):
        raise _wrong(value, expected)
    return number


def _to_bool(value: Any) -> bool:
    if isinstance(value, bool):
        return value
    if isinstance(value, str) and value.lower() in _TRUE | _FALSE:
        return value.lower() in _TRUE
    raise _wrong(value, "bool")


def _to_str(value: Any) -> str:
    if not isinstance(value, str):
        raise _wrong(value, "str")
    return value


_SCALARS: dict[str, Callable[[Any], Scalar]] = {
    "int": _to_int,
    "float": _to_float,
    "bool": _to_bool,
    "str": _to_str,
}


def _to_list(value: Any) -> Sequence[Any]:
    if isinstance(value, str):
        if not value.lstrip().startswith("["):
            return [part.strip() for part in value.split(",")] if value else []
        try:
            value = _parse(value)
        except ValueError:
            raise _wrong(value, "list") from None
    if not isinstance(value, list):
        raise _wrong(value, "list")
    return value


def _to_dict(value: Any) -> dict[str, Any]:
    if isinstance(value, str):
        try:
            value = _parse(value)
        except ValueError:
            raise _wrong(value, "dict") from None
    if not isinstance(value, dict):
        raise _wrong(value, "dict")
    return value


def _parse(text: str) -> Any:
    """Read JSON as the standard has it: without NaN and Infinity.

    Raises:
        ValueError: It is not JSON, or nested too deep to read.
    """
    try:
        return json.loads(text, parse_constant=_no_constant)
    except RecursionError:
        raise ValueError("nested too deep") from None


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


def _article(kind: str) -> str:
    return f"{'an' if kind[0] in 'aeiou' else 'a'} {kind}"


def _wrong(value: Any, kind: str) -> ValueError:
    return ValueError(f"{json.dumps(value, default=repr)} is not {_article(kind)}")


def parse_labelmap(data: Any) -> dict[str, str]:
    """A labelmap `{"0": "car", "1": "person"}`, checked for form; the first index is what the user wrote.

    Raises:
        ValueError: Not an object, an index that is not a whole number, a name that is not a non-empty
            string or stands twice; all problems, joined by `; `.
    """
    if not isinstance(data, Mapping):
        raise ValueError(f'expected an object like {{"0": "car"}}, got {json.dumps(data, default=repr)}')
    problems: list[str] = []
    seen: dict[str, str] = {}
    for index, name in data.items():
        if not re.fullmatch(r"0|[1-9][0-9]*", str(index)):
            problems.append(f"the index {json.dumps(index)} is not a whole number")
        if not isinstance(name, str) or not name.strip():
            problems.append(
                f"the name of {index}, {json.dumps(name, default=repr)}, is not a non-empty string"
            )
        elif name in seen:
            problems.append(f"the name {json.dumps(name)} stands at both {seen[name]} and {index}")
        else:
            seen[name] = str(index)
    if problems:
        raise ValueError("; ".join(problems))
    return {str(index): name for index, name in data.items()}


def labelmap_gaps(labelmap: Mapping[str, str]) -> list[int]:
    """The indices missing between the first and the last."""
    indices = {int(index) for index in labelmap}
    return sorted(set(range(min(indices), max(indices))) - indices) if indices else []


def close_match(name: str, known: Sequence[str]) -> str:
    """`; did you mean "epochs"?`, or nothing when no known name is close."""
    # Imported here: nearly every container starts without a misspelt name.
    from difflib import get_close_matches

    matches = get_close_matches(name, known, n=1, cutoff=0.7)
    return f'; did you mean "{matches[0]}"?' if matches else ""

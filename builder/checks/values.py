"""Values for declared parameters that no default could be mistaken for, and how a script receives them."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import takewhile
from typing import Any

from trainpack_entrypoint.schema import Parameter, type_of
from trainpack_entrypoint.script.command import override

MARK = "trainpack-probe"


def other_value(parameter: Parameter) -> Any:
    """A legal value that is not the default; None when the declaration leaves no other."""
    for candidate in _candidates(parameter):
        try:
            value = parameter.coerce(candidate)
        except ValueError:
            continue
        if value != parameter.default and value is not None:
            return value
    return None


def _candidates(parameter: Parameter) -> Iterator[Any]:
    kind = type_of(parameter.default) if parameter.type == "any" else parameter.type
    scalar = kind[5:-1] if kind.startswith("list[") else kind
    values = parameter.choices or _scalars(scalar, parameter)
    yield from ([value] for value in values) if kind.startswith("list[") else values


def _scalars(kind: str, parameter: Parameter) -> Sequence[Any]:
    if kind in ("int", "float"):
        return _numbers(kind, parameter)
    return {"bool": (True, False), "dict": ({MARK: 1},)}.get(kind, (MARK,))


def _numbers(kind: str, parameter: Parameter) -> Sequence[float]:
    default = parameter.default if isinstance(parameter.default, int | float) else 1
    bounds = [
        bound for bound in (parameter.gt, parameter.ge, parameter.lt, parameter.le) if bound is not None
    ]
    near = [number + step for number in (default, *bounds) for step in (1, -1, 0)]
    if kind == "int":
        return [int(number) for number in near]
    between = [(first + second) / 2 for first in (default, *bounds) for second in (default, *bounds)]
    return [default / 2, *between, *near]


def missing_values(
    parameters: Mapping[str, Parameter], given: Mapping[str, Any], seen: Mapping[str, Any], arguments: str
) -> list[str]:
    """The parameters whose given value did not reach the script, each with what was expected.

    Args:
        seen: The probe's report.
        arguments: How parameters reach the script: `argv`, `overrides`, `env` or `file`.
    """
    return [
        f"{name}: expected {json.dumps(value)}"
        for name, value in given.items()
        if (seen["parameters"] or {}).get(name) != value
        or not _carried(parameters[name], value, seen, arguments)
    ]


def _carried(parameter: Parameter, value: Any, seen: Mapping[str, Any], arguments: str) -> bool:
    if arguments == "env":
        return _same(seen["variables"].get(parameter.argument or parameter.name), value)
    if arguments == "overrides":
        return set(override(parameter, value)) <= set(seen["argv"])
    return arguments == "file" or isinstance(value, dict) or _in_argv(parameter, value, seen["argv"])


def _in_argv(parameter: Parameter, value: Any, argv: Sequence[str]) -> bool:
    option = parameter.argument or f"--{parameter.name}"
    if value is False:
        return option not in argv and (not parameter.argument_false or parameter.argument_false in argv)
    if value is True:
        return option in argv
    places = [place for place, word in enumerate(argv) if word == option]
    if isinstance(value, list):
        return any(_same_list(_operands(argv[place + 1 :]), value) for place in places)
    joined = [word.partition("=")[2] for word in argv if word.startswith(f"{option}=")]
    after = [argv[place + 1] for place in places if place + 1 < len(argv)]
    return any(_same(text, value) for text in joined + after)


def _operands(words: Sequence[str]) -> list[str]:
    return list(takewhile(lambda word: not re.match(r"--?[A-Za-z]", word), words))


def _same_list(words: Sequence[str], value: Sequence[Any]) -> bool:
    pairs = zip(words, value, strict=False)
    return len(words) == len(value) and all(_same(word, item) for word, item in pairs)


def _same(text: str | None, value: Any) -> bool:
    if text is None or text == str(value):
        return text is not None
    try:
        return bool(json.loads(text) == value)
    except ValueError:
        return False

"""The merge: precedence, provenance, validation; every problem is told at once."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from trainpack_entrypoint.failures import RunError
from trainpack_entrypoint.inputs.sources import Source
from trainpack_entrypoint.schema import Parameter, close_match, labelmap_gaps, parse_labelmap
from trainpack_entrypoint.secrets import masked

BAKED = "image default"


class Value(NamedTuple):
    """A parameter's value and where it came from."""

    value: Any
    source: str


class Merged(NamedTuple):
    """What the script is given.

    Attributes:
        declared: Every declared parameter, in the order of the declaration.
        undeclared: What a store holds beyond them: in `parameters.json`, not in argv.
        warnings: What is odd but no reason to stop.
    """

    declared: dict[str, Value]
    undeclared: dict[str, Value]
    labelmap: dict[str, str] | None
    labelmap_source: str | None
    warnings: tuple[str, ...]

    @property
    def parameters(self) -> dict[str, Value]:
        """Declared and undeclared."""
        return self.declared | self.undeclared


def merge(
    declared: Mapping[str, Parameter],
    baked_labelmap: dict[str, str] | None,
    sources: Sequence[Source],
    problems: Sequence[str] = (),
) -> Merged:
    """Merge the sources, the strongest first, over the baked defaults.

    Args:
        problems: What reading the sources already found.

    Raises:
        RunError: `configuration`, with every problem of parameters and labelmap.
    """
    found, warnings = list(problems), list[str]()
    undeclared = _undeclared(declared, sources, found, warnings)
    values = {name: _value(parameter, sources, found) for name, parameter in declared.items()}
    labelmap, labelmap_source = _labelmap(baked_labelmap, sources, found, warnings)
    if found:
        count = "1 problem" if len(found) == 1 else f"{len(found)} problems"
        raise RunError("configuration", f"bad configuration: {count}", found)
    return Merged(values, undeclared, labelmap, labelmap_source, tuple(warnings))


def _undeclared(
    declared: Mapping[str, Parameter], sources: Sequence[Source], problems: list[str], warnings: list[str]
) -> dict[str, Value]:
    result: dict[str, Value] = {}
    for source in sources:
        for name in source.parameters.keys() - declared.keys() - result.keys():
            hint = close_match(name, list(declared))
            if source.is_text or hint:
                problems.append(f"{name}: no such parameter (from {_origin(source, name)}){hint}")
            else:
                warnings.append(f"{name} (from {source.name}) is not declared: in parameters.json only")
                result[name] = Value(source.parameters[name], source.name)
    return dict(sorted(result.items()))


def _value(parameter: Parameter, sources: Sequence[Source], problems: list[str]) -> Value:
    for source in sources:
        if parameter.name in source.parameters:
            raw, origin = source.parameters[parameter.name], _origin(source, parameter.name)
            return Value(_coerced(parameter, raw, origin, source.is_text, problems), origin)
    if parameter.required:
        problems.append(f"{parameter.name}: required, and nothing gives it a value")
    return Value(parameter.default, BAKED)


def _origin(source: Source, name: str) -> str:
    return source.name + name if source.is_text else source.name


def _coerced(parameter: Parameter, raw: Any, origin: str, is_text: bool, problems: list[str]) -> Any:
    try:
        return parameter.from_text(raw) if is_text else parameter.coerce(raw)
    except ValueError as error:
        reason = f"the value is not a legal {parameter.type}" if parameter.is_secret else str(error)
        problems.append(f"{parameter.name}: {reason} (from {origin})")
        return None


def _labelmap(
    baked: dict[str, str] | None, sources: Sequence[Source], problems: list[str], warnings: list[str]
) -> tuple[dict[str, str] | None, str | None]:
    given = next((source for source in sources if source.labelmap is not None), None)
    if given is None:
        return baked, BAKED if baked is not None else None
    try:
        labelmap = parse_labelmap(given.labelmap)
    except ValueError as error:
        problems.append(f"labelmap: {error} (from {given.name})")
        return None, given.name
    if gaps := labelmap_gaps(labelmap):
        warnings.append(f"labelmap: no name for {', '.join(map(str, gaps))} (from {given.name})")
    return labelmap, given.name


def table(merged: Merged) -> list[str]:
    """The merged values for people, secrets masked: name, value, source."""
    rows = [
        (name, json.dumps(masked(name, value.value), ensure_ascii=False), value.source)
        for name, value in merged.parameters.items()
    ]
    name_width = max((len(name) for name, _, _ in rows), default=0)
    value_width = min(max((len(value) for _, value, _ in rows), default=0), 40)
    lines = [f"  {name:<{name_width}}  {value:<{value_width}}  {source}" for name, value, source in rows]
    return ["parameters:" if rows else "parameters: none", *lines, _labelmap_line(merged)]


def _labelmap_line(merged: Merged) -> str:
    if merged.labelmap is None:
        return "labelmap: none"
    names = ", ".join(f"{index} {name}" for index, name in list(merged.labelmap.items())[:10])
    more = ", …" if len(merged.labelmap) > 10 else ""
    return f"labelmap: {len(merged.labelmap)} from {merged.labelmap_source}: {names}{more}"

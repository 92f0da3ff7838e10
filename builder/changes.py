"""What differs between two plans, and from which layer on the image is built anew."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from builder.plan import BuildPlan, Distribution
from builder.records import Record

LAYERS = ("base", "system packages", "heavy wheels", "light wheels", "entrypoint", "metadata", "code")


class Difference(Record):
    """One thing that differs: `numpy` in the layer `light wheels`, from `2.4.5` to `2.4.6`."""

    layer: str
    item: str
    before: str | None
    after: str | None


def compare(before: BuildPlan, after: BuildPlan) -> tuple[Difference, ...]:
    """All differences, in the order of the layers."""
    groups = {
        "base": (_base(before), _base(after)),
        "system packages": (dict.fromkeys(plan.system_packages, "") for plan in (before, after)),
        "heavy wheels": (_packages(before.heavy), _packages(after.heavy)),
        "light wheels": (_packages(before.light), _packages(after.light)),
        "entrypoint": (
            {**_packages(plan.tools), "trainpack_entrypoint": plan.entrypoint_hash[:12]}
            for plan in (before, after)
        ),
        "metadata": ({**plan.env, **plan.labels, "platform": plan.platform} for plan in (before, after)),
        "code": (_code(before), _code(after)),
    }
    return tuple(difference for layer in LAYERS for difference in _differences(layer, *groups[layer]))


def _base(plan: BuildPlan) -> dict[str, str]:
    return {plan.base.name: (plan.base.content or "not built")[:12], "python": plan.python}


def _packages(packages: tuple[Distribution, ...]) -> dict[str, str]:
    return {package.name: package.version for package in packages}


def _code(plan: BuildPlan) -> dict[str, str]:
    files = {file.path: file.sha256[:12] for file in plan.code}
    return files | {f"image.json {key}": str(value) for key, value in _flat(plan.manifest)}


def _flat(data: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in data.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _differences(layer: str, before: Mapping[str, str], after: Mapping[str, str]) -> Iterator[Difference]:
    for item in sorted(before.keys() | after.keys()):
        old, new = before.get(item), after.get(item)
        if old != new:
            yield Difference(layer=layer, item=item, before=old, after=new)

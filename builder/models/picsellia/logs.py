"""The logs of an experiment: what they are written as, and the fields that the platform keeps as logs."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from builder.models.picsellia.fields import labelmap, read_image
from builder.models.picsellia.platform import Platform
from builder.models.records import DockerImage, ExperimentFields, Log
from builder.models.values import LINE, as_json

PARAMETERS, LABELMAP = "parameters", "labelmap"  # by convention
IMAGE = "trainpack"  # the table in which a container says which image it is
PUBLISHED = "trainpack-versions"  # the table of the versions that it became, which the platform does not tell
FIELDS = (PARAMETERS, LABELMAP, PUBLISHED)


def read_experiment(
    raw: Mapping[str, Any], logs: Mapping[str, Mapping[str, Any]], base: Mapping[str, Any] | None
) -> ExperimentFields:
    """The fields of an experiment.

    Args:
        raw: The platform's raw answer for it.
        logs: Its logs by name.
        base: The raw answer for the version that it was made from.
    """
    parameters = logs.get(PARAMETERS, {}).get("data")
    return ExperimentFields(
        description=raw.get("description") or None,
        status=raw.get("status"),
        parameters=parameters if isinstance(parameters, dict) else None,
        labelmap=labelmap(logs.get(LABELMAP, {}).get("data")),
        image=_image(logs.get(IMAGE, {}).get("data"), base),
    )


def write_log(platform: Platform, experiment: Any, log: Log) -> None:
    """Write a log: points are added to a line, any other is replaced.

    Raises:
        StoreError: The platform does not answer, or refuses.
    """
    if log.type == LINE:
        _append(platform, experiment, log)
        return
    data = as_json(log.data)
    # A value that is no number has no other form that the platform takes.
    shown = str(log.data) if data is None else data
    platform.repeat(lambda: experiment.log(log.name, shown, log.type))


def _append(platform: Platform, experiment: Any, log: Log) -> None:
    """Add points once, also when an answer is lost; the platform takes finite numbers only."""
    points = [point for point in log.data if not isinstance(point, float) or math.isfinite(point)]
    wanted = _length(platform, experiment, log.name) + len(points)

    def find() -> bool | None:
        return _length(platform, experiment, log.name) >= wanted or None

    if points:
        platform.make(lambda: bool(experiment.log(log.name, points, LINE)), find)


def _length(platform: Platform, experiment: Any, name: str) -> int:
    log = platform.find(lambda: experiment.get_log(name))
    return len(log.data) if log is not None and isinstance(log.data, list) else 0


def _image(logged: Any, base: Mapping[str, Any] | None) -> DockerImage | None:
    """The image of the base version; the digest is what a container said of itself, where one ran."""
    image = read_image(base) if base else None
    digest = logged.get("digest") if isinstance(logged, Mapping) else None
    return image.model_copy(update={"digest": digest}) if image and digest else image

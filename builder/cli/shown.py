"""Versions, experiments and datasets as text for people; secrets are `***`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any

from builder.cli.output import table, value
from builder.flags import explain_flags
from builder.models.compare import masked
from builder.models.records import (
    DatasetVersion,
    DockerImage,
    Experiment,
    ModelVersion,
    Source,
    StoredFile,
    VersionFields,
)

Rows = list[tuple[str, ...]]
_STEPS = ((1e9, "GB"), (1e6, "MB"), (1e3, "kB"))
_MANY = 50  # labels and parameters that are shown; the rest is counted


def version_details(version: ModelVersion) -> str:
    """All that a version holds."""
    fields = masked(version.fields)
    rows: Rows = [
        ("version", str(version.name)),
        ("id", version.id),
        *_texts(
            description=fields.description,
            framework=fields.framework,
            type=fields.type,
            notebook=fields.notebook_link,
            thumbnail=version.thumbnail.filename if version.thumbnail else None,
            **_dates(version),
        ),
        *_entries("labelmap", fields.labelmap),
        *_entries("parameters", fields.parameters),
        *_image(fields.image),
        *_files("files", version.files),
        *_source(version.source),
    ]
    return table(rows)


def experiment_details(experiment: Experiment) -> str:
    """All that an experiment holds; of its logs the names, and the last value of each line."""
    shown = masked(VersionFields(parameters=experiment.fields.parameters, image=experiment.fields.image))
    rows: Rows = [
        ("experiment", str(experiment.name)),
        ("id", experiment.id),
        *_texts(
            status=experiment.fields.status,
            description=experiment.fields.description,
            base=str(experiment.base) if experiment.base else None,
            **_dates(experiment),
        ),
        *((f"datasets.{alias}", str(name)) for alias, name in experiment.datasets.items()),
        *_entries("labelmap", experiment.fields.labelmap),
        *_entries("parameters", shown.parameters),
        *_image(shown.image),
        *((f"logs.{log.name}", f"{log.type}: {_shortened(log.data)}") for log in experiment.logs),
        *_files("artifacts", experiment.artifacts),
        *(("published", str(name)) for name in experiment.published),
    ]
    return table(rows)


def dataset_details(dataset: DatasetVersion) -> str:
    """All that a dataset version holds."""
    rows: Rows = [
        ("dataset", str(dataset.name)),
        ("id", dataset.id),
        *_texts(
            description=dataset.fields.description,
            type=dataset.fields.type,
            labels=", ".join(dataset.fields.labels),
            reference=dataset.fields.reference,
            assets=_number(dataset.assets),
            size=size(dataset.size) if dataset.size is not None else None,
            annotations=_number(dataset.annotations),
            digest=dataset.digest,
            **_dates(dataset),
        ),
    ]
    return table(rows)


def file_table(files: Iterable[StoredFile]) -> str:
    """Stored files, one a line."""
    rows: Rows = [(file.name, size(file.size), file.filename, file.sha256 or "-") for file in files]
    return table(rows, header=("name", "size", "file", "sha256"))


def size(count: int | None) -> str:
    """Bytes for people."""
    if count is None:
        return "-"
    for step, unit in _STEPS:
        if count >= step:
            return f"{count / step:.1f} {unit}"
    return f"{count} B"


def _texts(**texts: str | None) -> Rows:
    return [(name, text) for name, text in texts.items() if text]


def _dates(of: ModelVersion | Experiment | DatasetVersion) -> dict[str, str | None]:
    updated = None if isinstance(of, DatasetVersion) else of.updated
    return {"creator": of.creator, "created": _time(of.created), "updated": _time(updated)}


def _time(moment: datetime | None) -> str | None:
    return f"{moment:%Y-%m-%d %H:%M:%S} UTC" if moment else None


def _number(count: int | None) -> str | None:
    return None if count is None else str(count)


def _entries(name: str, entries: Mapping[str, Any] | None) -> Rows:
    items = list((entries or {}).items())
    rows: Rows = [(f"{name}.{key}", each if isinstance(each, str) else value(each)) for key, each in items]
    more = len(rows) - _MANY
    return [*rows[:_MANY], (name, f"… and {more} more (--json shows all)")] if more > 0 else rows


def _image(image: DockerImage | None) -> Rows:
    if image is None:
        return []
    return [
        ("image.name", image.name),
        *_texts(**{"image.tag": image.tag, "image.digest": image.digest}),
        *(("image.flags", f"{flag}: {meaning}") for flag, meaning in explain_flags(image.flags)),
        *_entries("env", image.env),
    ]


def _files(name: str, files: Iterable[StoredFile]) -> Rows:
    return [(f"{name}.{file.name}", f"{size(file.size)}, {file.filename}") for file in files]


def _source(source: Source | None) -> Rows:
    if source is None:
        return []
    experiment = str(source.experiment) if source.experiment else None
    return [
        *_texts(**{"source.experiment": experiment}),
        *((f"source.datasets.{alias}", str(name)) for alias, name in source.datasets.items()),
    ]


def _shortened(data: Any) -> str:
    if isinstance(data, list) and data:
        count = "1 point" if len(data) == 1 else f"{len(data)} points"
        return f"{count}, the last {value(data[-1])}"
    text = value(data)
    return text if len(text) <= 80 else f"{text[:79]}…"

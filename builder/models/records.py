"""The objects of a model store. Almost every field is optional: what is required depends on the use."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal, get_args

from pydantic import Field

from builder.models.names import DatasetName, ExperimentName, VersionName
from builder.records import Record

DIGEST_VARIABLE = "TRAINPACK_IMAGE_DIGEST"

Framework = Literal["TENSORFLOW", "PYTORCH", "ONNX", "NOT_CONFIGURED"]
InferenceType = Literal[
    "NOT_CONFIGURED",
    "CLASSIFICATION",
    "OBJECT_DETECTION",
    "SEGMENTATION",
    "POINT",
    "KEYPOINT",
    "LINE",
    "MASK",
    "MULTI",
]
FRAMEWORKS: tuple[str, ...] = get_args(Framework)
INFERENCE_TYPES: tuple[str, ...] = get_args(InferenceType)
EXPERIMENT_STATUSES = ("WAITING", "RUNNING", "SUCCESS", "FAILED", "TERMINATED", "CANCELED")
LOG_TYPES = ("VALUE", "IMAGE", "LINE", "TABLE", "BAR", "HEATMAP", "LABELMAP", "EVALUATION")


class DockerImage(Record):
    """The Docker image of a ModelVersion, with its digest (of the manifest) and canonical flags."""

    name: str
    tag: str
    digest: str | None = None
    flags: tuple[str, ...] = ()
    env: dict[str, str] = Field(default_factory=dict)

    @property
    def tagged(self) -> str:
        """`name:tag`; the name alone where there is no tag."""
        return f"{self.name}:{self.tag}" if self.tag else self.name


class StoredFile(Record):
    """A file that a store keeps for a version or an experiment.

    Attributes:
        name: What it is asked for by, unique where it lives: `weights`, `checkpoints/last.pt`.
        filename: What it is called on disk; a folder is kept as `<folder>.zip`.
        size: In bytes; None where the store does not tell.
        sha256: Of the content; None where the store does not tell.
    """

    name: str
    filename: str
    size: int | None = None
    sha256: str | None = None


class Source(Record):
    """What trained a version: the experiment that was published, and the dataset versions by their alias."""

    experiment: ExperimentName | None = None
    datasets: dict[str, DatasetName] = Field(default_factory=dict)


class Model(Record):
    """A named placeholder of versions."""

    id: str
    name: str
    description: str = ""


class VersionFields(Record):
    """What can be written on a ModelVersion; None leaves a field as it is."""

    description: str | None = None
    framework: str | None = None
    type: str | None = None
    notebook_link: str | None = None
    labelmap: dict[str, str] | None = None
    parameters: dict[str, Any] | None = None
    image: DockerImage | None = None


class ModelVersion(Record):
    """A ModelVersion as a store holds it.

    Attributes:
        files: Weights, checkpoints, configs: whatever was stored with it.
        thumbnail: The picture that stands for it.
        source: Where it came from; None for a version that no experiment made.
        creator, created, updated: None where the store does not tell; times are UTC.
    """

    id: str
    name: VersionName
    fields: VersionFields
    files: tuple[StoredFile, ...] = ()
    thumbnail: StoredFile | None = None
    source: Source | None = None
    creator: str | None = None
    created: datetime | None = None
    updated: datetime | None = None


class PastState(Record):
    """What the fields of a version were, until a write replaced them."""

    fields: VersionFields
    replaced: datetime


class Log(Record):
    """What an experiment logged under one name; `type` is one of `LOG_TYPES`, a LINE's data is a list."""

    name: str
    type: str
    data: Any


class ExperimentFields(Record):
    """What can be written on an Experiment; None leaves a field as it is."""

    description: str | None = None
    status: str | None = None
    parameters: dict[str, Any] | None = None
    labelmap: dict[str, str] | None = None
    image: DockerImage | None = None


class Experiment(Record):
    """An Experiment as a store holds it.

    Attributes:
        base: The version that it was made from, whose parameters, labelmap, files and image it received.
        datasets: The attached dataset versions, by alias.
        artifacts: The files that it received, and those that its runs left.
        logs: What its runs logged, without `parameters` and `labelmap`, which are fields.
        published: The versions that it was published as.
    """

    id: str
    name: ExperimentName
    fields: ExperimentFields
    base: VersionName | None = None
    datasets: dict[str, DatasetName] = Field(default_factory=dict)
    artifacts: tuple[StoredFile, ...] = ()
    logs: tuple[Log, ...] = ()
    published: tuple[VersionName, ...] = ()
    creator: str | None = None
    created: datetime | None = None
    updated: datetime | None = None


class DatasetFields(Record):
    """What a dataset version is made with.

    Attributes:
        type: One of `INFERENCE_TYPES`.
        labels: The names of its labels.
        reference: Where the data are, when the store does not hold them: a folder or an address.
    """

    description: str | None = None
    type: str | None = None
    labels: tuple[str, ...] = ()
    reference: str | None = None


class DatasetVersion(Record):
    """A DatasetVersion as a store holds it.

    Attributes:
        assets: How many files it has, annotations not counted; None where the store does not tell.
        size: Of all of them, in bytes; None where the store does not tell.
        annotations: How many annotations there are; None where there is no annotation file.
        digest: Of the names and contents of all files; None where the store does not hold or tell them.
    """

    id: str
    name: DatasetName
    fields: DatasetFields
    assets: int | None = None
    size: int | None = None
    annotations: int | None = None
    digest: str | None = None
    creator: str | None = None
    created: datetime | None = None


class Holder(Record):
    """An object that has a file, and the file's name there."""

    object: VersionName | ExperimentName | DatasetName
    file: str


class Change(Record):
    """One field that a write would change."""

    field: str
    before: Any
    after: Any


class Attachment(Record):
    """The result of an attach: what was written where, and read back."""

    version: VersionName
    image: DockerImage
    changes: tuple[Change, ...]
    written: bool

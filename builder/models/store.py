"""The protocol of a model store: versions, experiments and datasets, each a collection of its own.

`builder.models.local` and `builder.models.picsellia` implement it. Whatever fails is a `StoreError`; an
object that does not exist is a `NotFoundError` whose remedy says how to make it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Protocol

from builder.models.names import DatasetName, ExperimentName, ExperimentSummary, VersionName, VersionSummary
from builder.models.records import (
    DatasetFields,
    DatasetVersion,
    Experiment,
    ExperimentFields,
    Log,
    Model,
    ModelVersion,
    PastState,
    Source,
    StoredFile,
    VersionFields,
)


class Versions(Protocol):
    """Models and their versions."""

    def models(self) -> Iterator[Model]:
        """Every model, by name."""
        ...

    def list(self, model: str | None = None) -> Iterator[VersionSummary]:
        """Every version of the store, or of one model, by name.

        Raises:
            NotFoundError: There is no such model.
        """
        ...

    def get(self, name: VersionName) -> ModelVersion:
        """Read one version.

        Raises:
            NotFoundError: The model or the version does not exist; the remedy offers to create it.
        """
        ...

    def create(self, name: VersionName, fields: VersionFields, source: Source | None = None) -> ModelVersion:
        """Make a version, and its model when there is none yet; all or nothing.

        Args:
            source: Where a version that is copied came from. Recorded where the store can; what is returned
                tells.

        Raises:
            UsageError: The store takes no such name or value.
            StoreError: It exists already.
        """
        ...

    def update(self, name: VersionName, fields: VersionFields) -> ModelVersion:
        """Write every field that is not None, in one request, and return what the store now holds.

        Raises:
            UsageError: The store takes no such value.
            NotFoundError: The version does not exist.
        """
        ...

    def restore(self, name: VersionName, fields: VersionFields) -> ModelVersion:
        """Write all fields as they are, None clearing one, and return what the store now holds.

        What a store cannot clear is left; it is in what is returned.

        Raises:
            UsageError: The store takes no such value.
            NotFoundError: The version does not exist.
        """
        ...

    def history(self, name: VersionName) -> tuple[PastState, ...]:
        """The states that later writes replaced, latest first; none where the store keeps none.

        Raises:
            NotFoundError: The version does not exist.
        """
        ...

    def store_file(self, name: VersionName, path: Path, label: str | None = None) -> StoredFile:
        """Keep a file, or a folder with all its levels, under a name; one of the same name is replaced.

        Args:
            label: The name to ask for it by; the file's own unless given.

        Raises:
            UsageError: The path cannot be read.
            NotFoundError: The version does not exist.
        """
        ...

    def fetch_file(self, name: VersionName, label: str, into: Path) -> Path:
        """Write a stored file below a folder, verified where the store knows its hash, and return its path.

        A folder comes back as a folder. Nothing half-written stays, and nothing that exists is replaced.

        Raises:
            NotFoundError: There is no such version or file.
            StoreError: What is stored is not what was once kept.
            UsageError: The target exists, or cannot be written.
        """
        ...

    def store_thumbnail(self, name: VersionName, path: Path) -> StoredFile:
        """Keep a picture as the version's thumbnail.

        Raises:
            UsageError: The path cannot be read.
            NotFoundError: The version does not exist.
        """
        ...

    def fetch_thumbnail(self, name: VersionName, into: Path) -> Path:
        """Write the thumbnail below a folder, as `fetch_file` does.

        Raises:
            NotFoundError: There is no such version, or it has no thumbnail.
            UsageError: The target exists, or cannot be written.
        """
        ...


class Experiments(Protocol):
    """Experiments, each in a project."""

    def list(self, project: str | None = None) -> Iterator[ExperimentSummary]:
        """Every experiment of the store, or of one project, by name.

        Raises:
            NotFoundError: There is no such project.
        """
        ...

    def get(self, name: ExperimentName) -> Experiment:
        """Read one experiment.

        Raises:
            NotFoundError: It does not exist.
        """
        ...

    def create(
        self, name: ExperimentName, fields: ExperimentFields, base: VersionName | None = None
    ) -> Experiment:
        """Make an experiment, and its project when there is none yet; all or nothing.

        Args:
            base: The version of the same store whose parameters, labelmap, files and image it receives,
                where `fields` gives none of its own.

        Raises:
            UsageError: The store takes no such name or value.
            NotFoundError: The base version does not exist.
            StoreError: It exists already.
        """
        ...

    def update(self, name: ExperimentName, fields: ExperimentFields) -> Experiment:
        """Write every field that is not None, and return what the store now holds.

        Raises:
            UsageError: The store takes no such value.
            NotFoundError: The experiment does not exist.
        """
        ...

    def attach_dataset(self, name: ExperimentName, alias: str, dataset: DatasetName) -> Experiment:
        """Attach a dataset version of the same store under an alias; one that has the alias is replaced.

        Raises:
            NotFoundError: There is no such experiment or dataset version.
        """
        ...

    def report(self, name: ExperimentName, status: str, logs: Sequence[Log], artifacts: Path) -> Experiment:
        """Take what a run left, all or nothing where the store can: logs, every file of a folder, the status.

        Args:
            logs: A LINE's points are added to those that are there; any other log is replaced.
            artifacts: Every file below it becomes an artifact, by its relative path.

        Raises:
            NotFoundError: The experiment does not exist.
        """
        ...

    def fetch_artifact(self, name: ExperimentName, label: str, into: Path) -> Path:
        """Write an artifact below a folder, as `Versions.fetch_file` does.

        Raises:
            NotFoundError: There is no such experiment or artifact.
            UsageError: The target exists, or cannot be written.
        """
        ...

    def publish(self, name: ExperimentName, version: VersionName) -> ModelVersion:
        """Make a new version of an experiment, with its parameters, labelmap, image and artifacts.

        The experiment and its datasets are the source of the version.

        Raises:
            NotFoundError: The experiment does not exist.
            StoreError: The version exists already.
        """
        ...


class Datasets(Protocol):
    """Dataset versions."""

    def list(self, dataset: str | None = None) -> Iterator[DatasetVersion]:
        """Every dataset version of the store, or of one dataset, by name.

        Raises:
            NotFoundError: There is no such dataset.
        """
        ...

    def get(self, name: DatasetName) -> DatasetVersion:
        """Read one dataset version.

        Raises:
            NotFoundError: It does not exist.
        """
        ...

    def add(self, name: DatasetName, fields: DatasetFields, folder: Path | None = None) -> DatasetVersion:
        """Make a dataset version of a folder's files, or of a reference; all or nothing.

        Args:
            folder: Images, and annotations in COCO's form in a JSON file, if any. None with
                `fields.reference`.

        Raises:
            UsageError: The folder cannot be read or is empty, its annotations are not COCO, or there is
                neither folder nor reference.
            StoreError: It exists already.
        """
        ...

    def fetch(self, name: DatasetName, into: Path) -> Path:
        """The folder with its files: the referenced one if it is on this machine, else one made below `into`.

        Raises:
            NotFoundError: There is no such dataset version, or its reference is not a folder here.
            UsageError: `into` cannot be written.
        """
        ...


class ModelStore(Protocol):
    """Where models, experiments and datasets live: `LocalStore` or `PicselliaStore`."""

    name: str

    @property
    def versions(self) -> Versions:
        """Models and their versions."""
        ...

    @property
    def experiments(self) -> Experiments:
        """Experiments."""
        ...

    @property
    def datasets(self) -> Datasets:
        """Dataset versions."""
        ...

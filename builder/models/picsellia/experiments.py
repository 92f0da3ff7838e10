"""Experiments on the platform, each in a project."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, nullcontext
from functools import partial
from pathlib import Path
from typing import Any

from builder.errors import NotFoundError, ReadBackError, StoreError, UsageError
from builder.models.folders import files_below
from builder.models.names import DatasetName, ExperimentName, ExperimentSummary, VersionName
from builder.models.picsellia.datasets import PicselliaDatasets, dataset_name
from builder.models.picsellia.fields import (
    STORE,
    provenance,
    read_image,
)
from builder.models.picsellia.files import fetch, no_file, stored_files, upload
from builder.models.picsellia.logs import FIELDS, LABELMAP, PARAMETERS, PUBLISHED, read_experiment, write_log
from builder.models.picsellia.platform import Platform, at_once, enum
from builder.models.picsellia.publishing import exported, published_keywords
from builder.models.picsellia.speaking import having, in_doubt, undone
from builder.models.picsellia.versions import PicselliaVersions
from builder.models.records import DockerImage, Experiment, ExperimentFields, Log, ModelVersion
from builder.models.values import check_alias, check_log, check_name, checked_experiment


class PicselliaExperiments:
    """The `Experiments` of an organization."""

    def __init__(self, platform: Platform, versions: PicselliaVersions, datasets: PicselliaDatasets) -> None:
        self._platform = platform
        self._versions = versions
        self._datasets = datasets

    def list(self, project: str | None = None) -> Iterator[ExperimentSummary]:
        """Every experiment of the organization, or of one project, by name.

        Raises:
            NotFoundError: There is no such project.
            StoreError: The platform does not answer, or refuses.
        """
        bases: dict[str, VersionName | None] = {}
        for found in self._projects() if project is None else [self._project_row(project)]:
            rows = self._platform.rows(f"/api/project/{found['id']}/experiments")
            self._learn_bases(rows, bases)
            for row in sorted(rows, key=lambda row: str(row["name"])):
                yield ExperimentSummary(
                    id=row["id"],
                    name=ExperimentName(store=STORE, project=found["name"], experiment=row["name"]),
                    status=row.get("status"),
                    base=bases.get(row.get("base_model_version_id") or ""),
                )

    def get(self, name: ExperimentName) -> Experiment:
        """Read one experiment.

        Raises:
            NotFoundError: It does not exist.
            StoreError: The platform does not answer, or refuses.
        """
        return self._read(name, self._require(name))

    def create(
        self, name: ExperimentName, fields: ExperimentFields, base: VersionName | None = None
    ) -> Experiment:
        """Make an experiment, and its project when there is none yet; what was made for nothing is removed.

        The platform gives it the base's parameters, labelmap and files where it has none of its own.

        Raises:
            UsageError: The platform does not take the name or a value.
            NotFoundError: The base version does not exist.
            StoreError: It exists already, the platform does not answer, or refuses.
        """
        check_name(name)
        wanted = checked_experiment(fields, str(name))
        version = None if base is None else self._versions.require(base)
        _refuse_image(name, wanted.image, version and self._platform.ask(version.sync))
        project = self._find_project(name.project)
        if project is not None and self._find(project, name) is not None:
            raise StoreError("this experiment exists already", place=str(name))
        with ExitStack() as stack:
            if project is None:
                project = self._make_project(name.project)
                what = f"the new project {name.project!r}"
                stack.enter_context(undone(what, partial(self._platform.ask, project.delete)))
            experiment = self._make(project, name, wanted, version)
            stack.enter_context(undone("the new experiment", partial(self._platform.ask, experiment.delete)))
            # The description and the parameters went with the request that made it.
            self._write(experiment, wanted.model_copy(update={"description": None, "parameters": None}))
        with having("the experiment was created"):
            return self._read(name, experiment)

    def update(self, name: ExperimentName, fields: ExperimentFields) -> Experiment:
        """Write every field that is not None: parameters and labelmap, then description and status together.

        Raises:
            UsageError: The platform does not take a value.
            NotFoundError: The experiment does not exist.
            StoreError: The platform does not answer, or refuses; what was written until then is told.
        """
        wanted = checked_experiment(fields, str(name))
        experiment = self._require(name)
        if wanted.image is not None:
            _refuse_image(name, wanted.image, self._base(experiment))
        self._write(experiment, wanted)
        written = any(value is not None for _, value in wanted)
        with having("the experiment was written") if written else nullcontext():
            return self._read(name, experiment)

    def attach_dataset(self, name: ExperimentName, alias: str, dataset: DatasetName) -> Experiment:
        """Attach a dataset version under an alias; one that has the alias is replaced.

        Raises:
            UsageError: It cannot be an alias.
            NotFoundError: There is no such experiment or dataset version.
            StoreError: The platform does not answer, or refuses; what was detached until then is told.
        """
        check_alias(alias, str(name))
        experiment = self._require(name)
        version = self._datasets.require(dataset)
        attached = self._platform.ask(experiment.get_attached_dataset_versions)
        former = attached.get(alias)
        if former is None or former.id != version.id:
            self._replace(experiment, attached, alias, version)
        with having("the dataset is attached"):
            return self._read(name, experiment)

    def report(self, name: ExperimentName, status: str, logs: Sequence[Log], artifacts: Path) -> Experiment:
        """Take what a run left: every file of a folder, the logs, and last the status.

        Raises:
            UsageError: The status or a log is none, or the folder cannot be read.
            NotFoundError: The experiment does not exist.
            StoreError: The platform does not answer, or refuses; what was written until then is told.
        """
        fields = checked_experiment(ExperimentFields(status=status), str(name))
        for log in logs:
            check_log(log, str(name))
        files = files_below(artifacts)
        experiment = self._require(name)
        stored: list[str] = []
        logged: list[str] = []

        def store(item: tuple[str, Path]) -> None:
            self._store(experiment, *item)
            stored.append(item[0])

        try:
            for _ in at_once(store, files.items()):
                pass
            for log in logs:
                write_log(self._platform, experiment, log)
                logged.append(log.name)
            self._write(experiment, fields)
        except StoreError as error:
            raise StoreError(
                f"the report is not complete: {error.message}",
                place=str(name),
                remedy=error.remedy,
                details=(
                    f"files written: {len(stored)} of {len(files)}",
                    f"logs written: {', '.join(logged) or 'none'}",
                ),
            ) from None
        with having("the report was written"):
            return self._read(name, experiment)

    def fetch_artifact(self, name: ExperimentName, label: str, into: Path) -> Path:
        """Write an artifact below a folder and return its path; a folder comes back as one.

        Raises:
            NotFoundError: There is no such experiment or artifact.
            StoreError: The storage does not have it, or gives something else than it announced.
            UsageError: The target exists, or cannot be written.
        """
        experiment = self._require(name)
        artifact = self._platform.find(lambda: experiment.get_artifact(label))
        if artifact is None:
            raise no_file(
                name, label, [file.name for file in stored_files(self._rows(experiment, "artifacts"))]
            )
        return fetch(self._platform, name, label, artifact, into)

    def publish(self, name: ExperimentName, version: VersionName) -> ModelVersion:
        """Make a new version of an experiment, with its parameters, labelmap, image and artifacts.

        The platform names it after the experiment, so that it is renamed, and its image, framework and type
        are those of the version that the experiment was made from. What was made for nothing is removed.

        Raises:
            UsageError: The platform does not take the name.
            NotFoundError: The experiment does not exist.
            StoreError: The version exists already, the platform does not answer, or refuses.
        """
        check_name(version)
        experiment = self._require(name)
        model = self._versions.find_model(version.model)
        if model is not None and self._versions.find_version(model, version.version) is not None:
            raise StoreError("this version exists already", place=str(version))
        raw, logs = self._platform.ask(experiment.sync), self._logs(experiment)
        base = self._base_of(raw)
        wanted = published_keywords(version, read_experiment(raw, logs, base), base)
        with exported(self._platform, experiment, model, version) as made:
            with in_doubt("the new version was renamed"):
                self._platform.ask(lambda: made.update(**wanted))
            if made.name != version.version:
                raise ReadBackError(
                    f"the version is named {made.name!r} and not {version.version!r}", place=str(version)
                )
        with having("the version was published"):
            self._remember(experiment, version, made)
            return self._versions.read(made)

    def _require(self, name: ExperimentName) -> Any:
        if name.store != STORE:
            raise UsageError("this is no experiment on Picsellia", place=str(name))
        project = self._find_project(name.project)
        if project is None:
            raise self._no_project(name.project, str(name))
        experiment = self._find(project, name)
        if experiment is None:
            raise NotFoundError(
                f"the project {name.project!r} has no experiment {name.experiment!r}",
                place=str(name),
                remedy=f"create it: trainpack experiments create {name}",
            )
        return experiment

    def _no_project(self, name: str, place: str) -> NotFoundError:
        return NotFoundError(
            f"the organization {self._platform.client.name!r} has no project {name!r}",
            place=place,
            remedy="`trainpack experiments create` makes it",
        )

    def _find_project(self, name: str) -> Any:
        return self._platform.find(lambda: self._platform.client.get_project(name))

    def _find(self, project: Any, name: ExperimentName) -> Any:
        return self._platform.find(lambda: project.get_experiment(name.experiment))

    def _projects(self) -> Sequence[Mapping[str, Any]]:
        rows = self._platform.rows(f"{self._platform.organization}/projects")
        return sorted(rows, key=lambda row: str(row["name"]))

    def _project_row(self, name: str) -> Mapping[str, Any]:
        project = self._find_project(name)
        if project is None:
            raise self._no_project(name, f"{STORE}:{name}")
        return {"id": project.id, "name": project.name}

    def _rows(self, experiment: Any, what: str) -> Sequence[Mapping[str, Any]]:
        return self._platform.rows(f"/api/experiment/{experiment.id}/{what}")

    def _logs(self, experiment: Any) -> Mapping[str, Mapping[str, Any]]:
        return {row["name"]: row for row in self._rows(experiment, "logs/extended")}

    def _read(self, name: ExperimentName, experiment: Any) -> Experiment:
        raw = self._platform.ask(experiment.sync)
        logs = self._logs(experiment)
        base = self._base_of(raw)
        with self._platform.speaking():
            return Experiment(
                id=str(experiment.id),
                name=name,
                fields=read_experiment(raw, logs, base),
                base=_version_name(base) if base else None,
                datasets={
                    row["name"]: dataset_name(row["dataset_version"])
                    for row in self._rows(experiment, "datasets")
                },
                artifacts=stored_files(self._rows(experiment, "artifacts")),
                logs=tuple(
                    Log(name=row["name"], type=row["type"], data=row["data"])
                    for row in logs.values()
                    if row["name"] not in FIELDS
                ),
                published=self._became(logs.get(PUBLISHED, {}).get("data")),
                **provenance(raw),
            )

    def _became(self, logged: Any) -> tuple[VersionName, ...]:
        """The versions that an experiment was published as, by the names that they have now."""
        ids = [str(id_) for id_ in logged.values()] if isinstance(logged, dict) else []
        found = at_once(self._version, ids)
        return tuple(_version_name(raw) for raw in found if raw)

    def _remember(self, experiment: Any, version: VersionName, made: Any) -> None:
        """Log that a version was made of an experiment."""
        former = self._platform.find(lambda: experiment.get_log(PUBLISHED))
        known = former.data if former is not None and isinstance(former.data, dict) else {}
        table = {**known, str(version): str(made.id)}
        self._platform.repeat(lambda: experiment.log(PUBLISHED, table, "TABLE"))

    def _learn_bases(self, rows: Sequence[Mapping[str, Any]], bases: dict[str, VersionName | None]) -> None:
        """Ask once for the name of each version that experiments were made from."""
        ids = {row.get("base_model_version_id") for row in rows} - {None} - bases.keys()
        found = at_once(self._version, ids)
        bases.update(
            (str(id_), _version_name(base) if base else None) for id_, base in zip(ids, found, strict=True)
        )

    def _base(self, experiment: Any) -> Mapping[str, Any] | None:
        return self._base_of(self._platform.ask(experiment.sync))

    def _base_of(self, raw: Mapping[str, Any]) -> Mapping[str, Any] | None:
        """The raw answer for the version that an experiment was made from; None also when it was deleted."""
        id_ = raw.get("base_model_version_id")
        return self._version(id_) if id_ else None

    def _version(self, id_: Any) -> Mapping[str, Any] | None:
        return self._platform.find(lambda: self._platform.read(f"/api/model/version/{id_}"))

    def _make_project(self, name: str) -> Any:
        client = self._platform.client
        return self._platform.make(lambda: client.create_project(name), lambda: self._find_project(name))

    def _make(self, project: Any, name: ExperimentName, wanted: ExperimentFields, base: Any) -> Any:
        return self._platform.make(
            lambda: project.create_experiment(
                name.experiment,
                description=wanted.description,
                base_model_version=base,
                parameters=wanted.parameters,
            ),
            lambda: self._find(project, name),
        )

    def _write(self, experiment: Any, wanted: ExperimentFields) -> None:
        """Write parameters and labelmap, which are logs that are replaced, then the rest in one PATCH."""
        with ExitStack() as stack:
            for log, kind, data in (
                (PARAMETERS, "TABLE", wanted.parameters),
                (LABELMAP, "LABELMAP", wanted.labelmap),
            ):
                if data is not None:
                    self._platform.repeat(partial(experiment.log, log, data, kind))
                    stack.enter_context(
                        having(f"the {log} were written" if log == PARAMETERS else f"the {log} was written")
                    )
            if (wanted.description, wanted.status) != (None, None):
                with in_doubt("the experiment was written"):
                    self._platform.ask(
                        lambda: experiment.update(description=wanted.description, status=wanted.status)
                    )

    def _store(self, experiment: Any, label: str, path: Path) -> None:
        connection = self._platform.connection
        sent = upload(
            self._platform,
            path,
            lambda filename: connection.generate_experiment_object_name(
                filename, enum("ObjectDataType", "ARTIFACT"), experiment.id
            ),
        )

        def find() -> Any:
            return self._platform.find(lambda: experiment.get_artifact(label))

        former = find()
        if former is None:
            self._platform.make(lambda: experiment.create_artifact(name=label, **sent.row), find)
        else:
            self._platform.ask(lambda: former.update(**sent.row))

    def _replace(self, experiment: Any, attached: Mapping[str, Any], alias: str, version: Any) -> None:
        """Attach a version in place of another.

        The platform detaches a version, whatever its aliases: the others are attached again.
        """
        former = attached.get(alias)
        again = {
            other: held
            for other, held in attached.items()
            if former is not None and held.id == former.id and other != alias
        }
        with ExitStack() as stack:
            if former is not None:
                detached = f"{former.name}/{former.version} was detached from {', '.join([alias, *again])}"
                with in_doubt(detached):
                    self._platform.find(lambda: experiment.detach_dataset(former))
                stack.enter_context(having(detached))
            for name, held in {**again, alias: version}.items():
                self._platform.make(
                    partial(self._attach, experiment, name, held),
                    lambda name=name: self._platform.find(lambda: experiment.get_dataset(name)),  # type: ignore[misc]
                )

    @staticmethod
    def _attach(experiment: Any, alias: str, version: Any) -> Any:
        experiment.attach_dataset(alias, version)
        return version


def _version_name(raw: Mapping[str, Any]) -> VersionName:
    return VersionName(store=STORE, model=raw["origin"]["name"], version=raw["name"])


def _refuse_image(name: ExperimentName, image: DockerImage | None, base: Mapping[str, Any] | None) -> None:
    """An experiment cannot have an image of its own.

    Raises:
        UsageError: It should, and its base version has another.
    """
    if image is not None and (base is None or read_image(base) != image):
        raise UsageError(
            "Picsellia keeps no image with an experiment: it is that of the version it is made from",
            place=str(name),
            remedy="attach the image to that version: trainpack attach picsellia:MODEL/VERSION",
        )

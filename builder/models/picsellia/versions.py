"""Models and their versions on the platform."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, nullcontext
from functools import partial
from pathlib import Path
from typing import Any

from builder.errors import NotFoundError, StoreError, UsageError
from builder.models.names import DatasetName, ExperimentName, VersionName, VersionSummary
from builder.models.picsellia.fields import (
    STORE,
    cleared,
    configured,
    keywords,
    provenance,
    read_fields,
    read_image,
)
from builder.models.picsellia.files import StoredObject, fetch, no_file, stored_files, upload
from builder.models.picsellia.platform import Platform, at_once, enum
from builder.models.picsellia.speaking import having, in_doubt, undone
from builder.models.records import Model, ModelVersion, PastState, Source, StoredFile, VersionFields
from builder.models.values import NOT_CONFIGURED, check_name, check_text

THUMBNAIL = "thumbnail"


class PicselliaVersions:
    """The `Versions` of an organization."""

    def __init__(self, platform: Platform) -> None:
        self._platform = platform

    def models(self) -> Iterator[Model]:
        """Every model of the organization, by name.

        Raises:
            StoreError: The platform does not answer, or refuses.
        """
        for row in self._models():
            yield Model(id=row["id"], name=row["name"], description=row.get("description") or "")

    def list(self, model: str | None = None) -> Iterator[VersionSummary]:
        """Every version of the organization, or of one model, by name.

        The image is told only by a request for each version; several are under way at once.

        Raises:
            NotFoundError: There is no such model.
            StoreError: The platform does not answer, or refuses.
        """
        models = self._models() if model is None else [{"id": self._require_model(model).id}]
        for found in models:
            rows = self._platform.rows(f"/api/model/{found['id']}/versions")
            yield from at_once(self._summary, sorted(rows, key=lambda row: str(row["name"])))

    def get(self, name: VersionName) -> ModelVersion:
        """Read one version.

        Raises:
            NotFoundError: The model or the version does not exist; the remedy offers to create it.
            StoreError: The platform does not answer, or refuses.
        """
        return self.read(self.require(name))

    def create(self, name: VersionName, fields: VersionFields, source: Source | None = None) -> ModelVersion:
        """Make a version, and its model when there is none yet; a model that was made for nothing is removed.

        The platform has no place for the source of a version that it did not make of an experiment itself.

        Raises:
            UsageError: The platform does not take the name or a value.
            StoreError: The version exists already, the platform does not answer, or refuses.
        """
        check_name(name)
        wanted = keywords(fields, str(name))
        model = self.find_model(name.model)
        if model is not None and self.find_version(model, name.version) is not None:
            raise StoreError("this version exists already", place=str(name))
        with ExitStack() as stack:
            if model is None:
                model = self._make_model(name.model)
                stack.enter_context(
                    undone(f"the new model {name.model!r}", partial(self._platform.ask, model.delete))
                )
            with in_doubt("the version was created"):
                version = self._make_version(model, name.version, wanted)
        with having("the version was created"):
            return self.read(version)

    def update(self, name: VersionName, fields: VersionFields) -> ModelVersion:
        """Write every field that is not None in one PATCH, and return what the platform now holds.

        Raises:
            UsageError: The platform does not take a value.
            NotFoundError: The version does not exist.
            StoreError: The platform does not answer, or refuses.
        """
        version = self.require(name)
        return self._write(version, keywords(fields, str(name), version.framework.name, version.type.name))

    def restore(self, name: VersionName, fields: VersionFields) -> ModelVersion:
        """Write all fields as they are, None emptying one, and return what the platform now holds.

        Framework, type, notebook link and image cannot be emptied, nor can a type become MASK again.

        Raises:
            UsageError: The platform does not take a value.
            NotFoundError: The version does not exist.
            StoreError: The platform does not answer, or refuses.
        """
        version = self.require(name)
        raw = self._platform.ask(version.sync)
        wanted = fields.model_copy(
            update={
                "framework": _restorable(fields.framework),
                "type": _restorable(fields.type, "MASK"),
            }
        )
        return self._write(version, cleared(keywords(wanted, str(name)), raw))

    def history(self, name: VersionName) -> tuple[PastState, ...]:
        """Nothing: the platform keeps no former state.

        Raises:
            NotFoundError: The version does not exist.
            StoreError: The platform does not answer, or refuses.
        """
        self.require(name)
        return ()

    def store_file(self, name: VersionName, path: Path, label: str | None = None) -> StoredFile:
        """Keep a file, or a folder with all its levels, under a name; one of the same name is replaced.

        The former one is removed only once the new content is in storage.

        Raises:
            UsageError: The path cannot be read.
            NotFoundError: The version does not exist.
            StoreError: The platform does not answer, or refuses.
        """
        label = label or path.resolve().name
        check_text(label, str(name))
        version = self.require(name)
        sent = upload(self._platform, path, self._object_name(version, "MODEL_FILE"))
        with ExitStack() as stack:
            former = self._platform.find(lambda: version.get_file(label))
            if former is not None:
                with in_doubt(f"the former file {label!r} was removed"):
                    self._platform.find(former.delete)
                stack.enter_context(having(f"the former file {label!r} was removed"))
            made = self._platform.make(
                lambda: self._platform.post(
                    f"/api/model/version/{version.id}/modelfiles", {"name": label, **sent.row}
                ),
                lambda: self._platform.find(lambda: version.get_file(label).sync()),
            )
        return stored_files([made])[0]

    def fetch_file(self, name: VersionName, label: str, into: Path) -> Path:
        """Write a stored file below a folder and return its path; a folder comes back as one.

        Raises:
            NotFoundError: There is no such version or file.
            StoreError: The storage does not have it, or gives something else than it announced.
            UsageError: The target exists, or cannot be written.
        """
        version = self.require(name)
        file = self._platform.find(lambda: version.get_file(label))
        if file is None:
            raise no_file(name, label, [file.name for file in self._files(version.id)])
        return fetch(self._platform, name, label, file, into)

    def store_thumbnail(self, name: VersionName, path: Path) -> StoredFile:
        """Keep a picture as the version's thumbnail.

        Raises:
            UsageError: The path cannot be read, or is no file.
            NotFoundError: The version does not exist.
            StoreError: The platform does not answer, or refuses.
        """
        if path.is_dir():
            raise UsageError("a thumbnail is a file, this is a folder", place=str(path))
        version = self.require(name)
        sent = upload(self._platform, path, self._object_name(version, "MODEL_THUMB"))
        with in_doubt("the thumbnail was replaced"):
            self._platform.ask(lambda: version.update(thumb_object_name=sent.object_name))
        return StoredFile(name=THUMBNAIL, filename=sent.filename)

    def fetch_thumbnail(self, name: VersionName, into: Path) -> Path:
        """Write the thumbnail below a folder, and return its path.

        Raises:
            NotFoundError: There is no such version, or it has no thumbnail.
            StoreError: The storage does not have it.
            UsageError: The target exists, or cannot be written.
        """
        object_name = self._platform.ask(self.require(name).sync).get("thumbnail_object_name")
        if not object_name:
            raise NotFoundError("it has no thumbnail", place=str(name))
        return fetch(self._platform, name, THUMBNAIL, StoredObject(self._platform, object_name), into)

    def require(self, name: VersionName) -> Any:
        """The SDK's object of a version.

        Raises:
            UsageError: The name is one of another store.
            NotFoundError: The model or the version does not exist.
            StoreError: The platform does not answer, or refuses.
        """
        if name.store != STORE:
            raise UsageError("this is no version on Picsellia", place=str(name))
        remedy = f"create it: trainpack attach {name} --create"
        model = self._require_model(name.model, str(name), remedy)
        version = self.find_version(model, name.version)
        if version is None:
            raise NotFoundError(
                f"the model {name.model!r} has no version {name.version!r}", place=str(name), remedy=remedy
            )
        return version

    def find_model(self, name: str) -> Any:
        """The SDK's object of a model; None where there is none.

        Raises:
            StoreError: The platform does not answer, or refuses.
        """
        return self._platform.find(lambda: self._platform.client.get_model(name))

    def find_version(self, model: Any, name: str) -> Any:
        """The SDK's object of a version of a model; None where there is none.

        Raises:
            StoreError: The platform does not answer, or refuses.
        """
        return self._platform.find(lambda: model.get_version(name))

    def read(self, version: Any) -> ModelVersion:
        """All that the platform holds of a version.

        Raises:
            StoreError: The platform does not answer, or refuses.
        """
        raw = self._platform.ask(version.sync)
        thumbnail = raw.get("thumbnail_object_name")
        with self._platform.speaking():
            return ModelVersion(
                id=str(version.id),
                name=VersionName(store=STORE, model=version.origin_name, version=version.name),
                fields=read_fields(raw),
                files=self._files(version.id),
                thumbnail=StoredFile(name=THUMBNAIL, filename=thumbnail.rpartition("/")[2])
                if thumbnail
                else None,
                source=self._source(version),
                **provenance(raw),
            )

    def _write(self, version: Any, wanted: Mapping[str, Any]) -> ModelVersion:
        if wanted:
            with in_doubt("the version was written"):
                self._platform.ask(lambda: version.update(**wanted))
        with having("the version was written") if wanted else nullcontext():
            return self.read(version)

    def _models(self) -> Sequence[Mapping[str, Any]]:
        rows = self._platform.rows(f"{self._platform.organization}/models")
        return sorted(rows, key=lambda row: str(row["name"]))

    def _summary(self, row: Mapping[str, Any]) -> VersionSummary:
        raw = row if "docker_image" in row else self._platform.read(f"/api/model/version/{row['id']}")
        image = read_image(raw)
        return VersionSummary(
            id=row["id"],
            name=VersionName(store=STORE, model=row["origin"]["name"], version=row["name"]),
            framework=configured(row.get("framework")),
            type=configured(row.get("type")),
            image=image.tagged if image else None,
            digest=image.digest if image else None,
        )

    def _files(self, version_id: Any) -> tuple[StoredFile, ...]:
        return stored_files(self._platform.rows(f"/api/model/version/{version_id}/modelfiles"))

    def _source(self, version: Any) -> Source | None:
        """The experiment that a version was made of, and its datasets; what was deleted since is left out."""
        context = self._platform.find(version.get_context)
        if context is None or (context.experiment_id is None and not context.datasets):
            return None
        datasets = {data.name: self._dataset_name(data.version_id) for data in context.datasets}
        return Source(
            experiment=context.experiment_id and self._experiment_name(context.experiment_id),
            datasets={alias: name for alias, name in datasets.items() if name},
        )

    def _experiment_name(self, id_: Any) -> ExperimentName | None:
        experiment = self._platform.find(lambda: self._platform.read(f"/api/experiment/{id_}"))
        if experiment is None:
            return None
        project = self._platform.find(
            lambda: self._platform.client.get_project_by_id(experiment["project_id"])
        )
        return project and ExperimentName(store=STORE, project=project.name, experiment=experiment["name"])

    def _dataset_name(self, id_: Any) -> DatasetName | None:
        raw = self._platform.find(lambda: self._platform.read(f"/api/dataset/version/{id_}"))
        if raw is None:
            return None
        return DatasetName(store=STORE, dataset=raw["origin_name"], version=raw["version"])

    def _require_model(self, name: str, place: str | None = None, remedy: str | None = None) -> Any:
        model = self.find_model(name)
        if model is None:
            raise NotFoundError(
                f"the organization {self._platform.client.name!r} has no model {name!r}",
                place=place or f"{STORE}:{name}",
                remedy=remedy,
            )
        return model

    def _make_model(self, name: str) -> Any:
        return self._platform.make(
            lambda: self._platform.client.create_model(name, description=""), lambda: self.find_model(name)
        )

    def _make_version(self, model: Any, name: str, wanted: Mapping[str, Any]) -> Any:
        return self._platform.make(
            lambda: model.create_version(name=name, **wanted), lambda: self.find_version(model, name)
        )

    def _object_name(self, version: Any, kind: str) -> Any:
        connection = self._platform.connection
        return lambda filename: connection.generate_model_version_object_name(
            filename, enum("ObjectDataType", kind), version.id
        )


def _restorable(value: str | None, *refused: str) -> str | None:
    """What the SDK does not let an existing version become is left as it is."""
    return None if value in (NOT_CONFIGURED, *refused) else value

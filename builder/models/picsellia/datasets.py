"""Dataset versions on the platform: their images are in its datalake."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

from builder.errors import NotFoundError, ReadBackError, StoreError, UsageError
from builder.models.folders import new, writable
from builder.models.names import DatasetName
from builder.models.picsellia.fields import STORE, configured, provenance
from builder.models.picsellia.files import receive, upload
from builder.models.picsellia.images import ImageFolder, read_folder
from builder.models.picsellia.platform import Platform, at_once, enum
from builder.models.picsellia.speaking import having, sdk, undone
from builder.models.records import DatasetFields, DatasetVersion
from builder.models.values import check_name, checked_dataset

ANNOTATIONS, IMAGES = "annotations.json", "images"  # as in a container
_BATCH = 10_000  # what the SDK adds at once
_WAIT, _TIMES = 1.0, 900  # seconds between two looks at a job, and how many


class PicselliaDatasets:
    """The `Datasets` of an organization."""

    def __init__(self, platform: Platform) -> None:
        self._platform = platform

    def list(self, dataset: str | None = None) -> Iterator[DatasetVersion]:
        """Every dataset version of the organization, or of one dataset, by name.

        Raises:
            NotFoundError: There is no such dataset.
            StoreError: The platform does not answer, or refuses.
        """
        if dataset is None:
            found = self._platform.rows(f"{self._platform.organization}/datasets")
        else:
            found = [{"id": self._require_dataset(dataset).id, "name": dataset}]
        for row in sorted(found, key=lambda row: str(row["name"])):
            rows = self._platform.rows(f"/api/dataset/{row['id']}/versions")
            yield from at_once(self._read_row, sorted(rows, key=lambda row: str(row["version"])))

    def get(self, name: DatasetName) -> DatasetVersion:
        """Read one dataset version.

        Raises:
            NotFoundError: It does not exist.
            StoreError: The platform does not answer, or refuses.
        """
        return self._read(self.require(name))

    def add(self, name: DatasetName, fields: DatasetFields, folder: Path | None = None) -> DatasetVersion:
        """Make a dataset version of a folder's images; what was made for nothing is removed.

        Raises:
            UsageError: The folder holds what the platform does not take, or there is a reference: the
                platform holds the data itself.
            StoreError: It exists already, the platform does not answer, or refuses.
        """
        check_name(name)
        wanted = checked_dataset(fields, str(name))
        if folder is None or wanted.reference is not None:
            raise UsageError(
                "Picsellia holds the images itself: expected a folder and no reference", place=str(name)
            )
        content = read_folder(folder, wanted.type)
        _require_labels(wanted.labels, content.labels, str(name))
        dataset = self._find_dataset(name.dataset)
        if dataset is not None and self._find(dataset, name) is not None:
            raise StoreError("this version exists already", place=str(name))
        with ExitStack() as stack:
            if dataset is None:
                dataset = self._make_dataset(name.dataset)
                what = f"the new dataset {name.dataset!r}"
                stack.enter_context(undone(what, partial(self._platform.ask, dataset.delete)))
            version = self._make_version(dataset, name, wanted)
            stack.enter_context(undone("the new version", partial(self._platform.ask, version.delete)))
            self._fill(version, content, wanted.labels or content.labels, name)
        with having("the dataset version was made"):
            return self._read(version)

    def fetch(self, name: DatasetName, into: Path) -> Path:
        """Download the images, and the annotations as the SDK makes COCO of them, into a new folder.

        Raises:
            NotFoundError: There is no such dataset version.
            StoreError: The storage does not have an image, or gives something else than it announced.
            UsageError: The target exists, or cannot be written.
        """
        from trainpack_entrypoint.platform.inputs import local_names  # noqa: PLC0415  (needs `requests`)

        version = self.require(name)
        target = into / "-".join(part.replace("/", "-") for part in name.parts)
        with writable(target), new(target) as folder:
            assets = {str(asset.id): asset for asset in self._assets(version)}
            names = local_names({id_: asset.filename for id_, asset in assets.items()})
            (folder / IMAGES).mkdir(parents=True)
            images = {folder / IMAGES / names[id_]: asset for id_, asset in assets.items()}
            receive(self._platform, name, {"image": images}, folder)
            if (coco := self._coco(version)) is not None:
                for image in coco["images"]:
                    image["file_name"] = names[image["file_name"].partition(".")[0]]
                (folder / ANNOTATIONS).write_text(json.dumps(coco), encoding="utf-8")
        return target

    def require(self, name: DatasetName) -> Any:
        """The SDK's object of a dataset version.

        Raises:
            UsageError: The name is one of another store.
            NotFoundError: It does not exist.
            StoreError: The platform does not answer, or refuses.
        """
        if name.store != STORE:
            raise UsageError("this is no dataset on Picsellia", place=str(name))
        version = self._find(self._require_dataset(name.dataset, str(name)), name)
        if version is None:
            raise NotFoundError(
                f"the dataset {name.dataset!r} has no version {name.version!r}",
                place=str(name),
                remedy="`trainpack datasets add` makes it",
            )
        return version

    def _require_dataset(self, name: str, place: str | None = None) -> Any:
        dataset = self._find_dataset(name)
        if dataset is None:
            raise NotFoundError(
                f"the organization {self._platform.client.name!r} has no dataset {name!r}",
                place=place or f"{STORE}:{name}",
                remedy="`trainpack datasets add` makes it",
            )
        return dataset

    def _find_dataset(self, name: str) -> Any:
        return self._platform.find(lambda: self._platform.client.get_dataset(name))

    def _find(self, dataset: Any, name: DatasetName) -> Any:
        return self._platform.find(lambda: dataset.get_version(name.version))

    def _make_dataset(self, name: str) -> Any:
        client = self._platform.client
        return self._platform.make(lambda: client.create_dataset(name), lambda: self._find_dataset(name))

    def _make_version(self, dataset: Any, name: DatasetName, wanted: DatasetFields) -> Any:
        kind = wanted.type or "NOT_CONFIGURED"
        return self._platform.make(
            lambda: dataset.create_version(name.version, description=wanted.description or "", type=kind),
            lambda: self._find(dataset, name),
        )

    def _fill(self, version: Any, content: ImageFolder, labels: Sequence[str], name: DatasetName) -> None:
        for label in labels:
            self._platform.repeat(partial(version.get_or_create_label, label))
        made: list[Any] = []
        with undone("some of the images in the datalake", lambda: self._remove(made)):
            datalake = self._platform.ask(self._platform.client.get_datalake)

            def bring(item: tuple[str, Path]) -> None:
                made.append(self._upload(datalake, *item))

            for _ in at_once(bring, content.images.items()):
                pass
            for start in range(0, len(made), _BATCH):
                self._add(version, made[start : start + _BATCH])
            self._require_count(version, len(made), name)
            if content.coco is not None:
                self._annotate(version, content.coco, {data.filename: data.object_name for data in made})

    def _upload(self, datalake: Any, filename: str, path: Path) -> Any:
        """Bring one image into the datalake, once, also when an answer is lost."""
        connection = self._platform.connection
        sent = upload(
            self._platform,
            path,
            lambda _: connection.generate_data_object_name(
                filename, enum("ObjectDataType", "DATA"), datalake.connector_id
            ),
            datalake.connector_id,
        )
        body = {
            "type": "IMAGE",
            "filename": filename,
            "object_name": sent.object_name,
            "content_type": sent.content_type,
            "tags": [],
            "data_source_id": None,
            **_size(path),
        }
        data = self._platform.make(
            lambda: self._data(datalake, self._platform.post(f"/api/datalake/{datalake.id}/datas", body)),
            lambda: self._platform.find(lambda: datalake.find_data(object_name=sent.object_name)),
        )
        if not data.is_ready():
            self._platform.ask(lambda: data.wait_for_upload_done(_WAIT, _TIMES))
        return data

    def _data(self, datalake: Any, row: Mapping[str, Any]) -> Any:
        from picsellia.sdk.data import Data  # noqa: PLC0415

        return Data(self._platform.connection, datalake.id, row)

    def _remove(self, made: Sequence[Any]) -> None:
        for _ in at_once(lambda data: self._platform.find(data.delete), made):
            pass

    def _add(self, version: Any, batch: Sequence[Any]) -> None:
        job = self._platform.repeat(lambda: version.add_data(list(batch), wait=False))
        status = self._platform.ask(lambda: job.wait_for_done(_WAIT, _TIMES))
        if status.name != "SUCCESS":
            raise StoreError(
                f"the platform could not add the images: its job {job.id} is {status.name}",
                place=self._platform.connection.host,
                remedy="look at the job on the platform",
            )

    def _require_count(self, version: Any, wanted: int, name: DatasetName) -> None:
        count = self._platform.count(f"/api/dataset/version/{version.id}/assets")
        if count != wanted:
            raise ReadBackError(f"the platform has {count} images of {wanted}", place=str(name))

    def _annotate(self, version: Any, coco: Mapping[str, Any], objects: Mapping[str, str]) -> None:
        images = [{**image, "file_name": objects[image["file_name"]]} for image in coco["images"]]
        with tempfile.TemporaryDirectory(prefix="trainpack-") as folder:
            file = Path(folder, ANNOTATIONS)
            file.write_text(json.dumps({**coco, "images": images}), encoding="utf-8")
            # It replaces what is there, so that it may be done twice.
            self._platform.repeat(
                lambda: version.import_annotations_coco_file(file, export_key="OBJECT_NAME")
            )

    def _read_row(self, row: Mapping[str, Any]) -> DatasetVersion:
        sdk()
        from picsellia.sdk.dataset_version import DatasetVersion as Version  # noqa: PLC0415

        return self._read(self._platform.ask(lambda: Version(self._platform.connection, dict(row))))

    def _read(self, version: Any) -> DatasetVersion:
        raw = self._platform.ask(version.sync)
        stats = self._platform.ask(version.retrieve_stats)
        made = provenance(raw)
        with self._platform.speaking():
            return DatasetVersion(
                id=str(version.id),
                name=dataset_name(raw),
                fields=DatasetFields(
                    description=raw.get("description") or None,
                    type=configured(version.type.name),
                    labels=tuple(row["name"] for row in self._rows(version, "labels")),
                ),
                assets=self._platform.count(f"/api/dataset/version/{version.id}/assets"),
                annotations=stats.nb_objects if stats.nb_annotations else None,
                creator=made["creator"],
                created=made["created"],
            )

    def _rows(self, version: Any, what: str) -> Sequence[Mapping[str, Any]]:
        return self._platform.rows(f"/api/dataset/version/{version.id}/{what}")

    def _assets(self, version: Any) -> Sequence[Any]:
        if not self._platform.count(f"/api/dataset/version/{version.id}/assets"):
            return ()
        return self._platform.ask(version.list_assets).items  # type: ignore[no-any-return]

    def _coco(self, version: Any) -> dict[str, Any] | None:
        """The annotations, images named by the assets' ids; None when there are none."""
        if not self._platform.ask(version.retrieve_stats).nb_annotations:
            return None
        built = self._platform.ask(lambda: version.build_coco_file_locally(export_key="ASSET_ID"))
        coco: dict[str, Any] = built.model_dump(mode="json", exclude_none=True)
        for annotation in coco["annotations"]:
            annotation["id"] += 1  # COCO's own evaluation takes 0 for none
        return coco


def _require_labels(given: Sequence[str], annotated: Sequence[str], place: str) -> None:
    """The platform makes a label of every category, so that those that are given must hold them.

    Raises:
        UsageError: They do not.
    """
    missing = [label for label in annotated if label not in given]
    if given and missing:
        raise UsageError(
            f"the annotations have labels that are not among those given: {', '.join(missing)}",
            place=place,
            remedy="give these labels too, or none: they are read from the annotations",
        )


def dataset_name(row: Mapping[str, Any]) -> DatasetName:
    """How the dataset version of a row is named."""
    return DatasetName(store=STORE, dataset=row["origin_name"], version=row["version"])


def _size(path: Path) -> dict[str, Any]:
    """Width and height, as the SDK reads them; where it cannot, the platform does."""
    from picsellia.services.data_uploader import DataUploader  # noqa: PLC0415

    read = DataUploader.prepare_metadata_from_image(str(path), {}, False)
    return {"meta": {"width": read.width, "height": read.height}} if read else {}

"""The datalake, and datasets and their versions as the SDK makes, fills and removes them."""

from __future__ import annotations

from typing import Any

from .datasets import dataset_row, label_rows
from .routes import PAGE, Call, Route, find, lookup, page, require_organization
from .schemas import (
    COUNT,
    INFERENCE_TYPES,
    NAME,
    OBJECT,
    STRINGS,
    TEXT,
    UUID,
    UUIDS,
    Field,
    RefusedError,
    Schema,
    nullable,
    one_of,
    optional,
    require,
)
from .state import Asset, Data, Dataset, DatasetVersion, new_id, refuse_duplicate
from .storage import uploaded

_SHAPES: dict[str, Schema] = {
    "rectangles": dict.fromkeys("xywh", COUNT),
    "polygons": {"polygon": Field("a list of points", lambda value: isinstance(value, list))},
    "classifications": {},
    "keypoints": {"keypoints": Field("a list of points", lambda value: isinstance(value, list))},
    "masks": {"mask": NAME},
}
_OF_A_SHAPE: Schema = {"label_id": UUID, "text": nullable(TEXT), "attributes": nullable(OBJECT)}


def _origin_row(dataset: Dataset) -> dict[str, Any]:
    return {"id": dataset.id, "name": dataset.name, "description": dataset.description}


def _datasets(call: Call) -> dict[str, Any]:
    require_organization(call)
    return page(map(_origin_row, call.state.dataset_origins.values()), call.query)


def _find_dataset(call: Call) -> dict[str, Any]:
    require_organization(call)
    return _origin_row(find(call.state.dataset_origins.values(), call.query, "dataset"))


def _create_dataset(call: Call) -> dict[str, Any]:
    require_organization(call)
    refuse_duplicate(call.body["name"], call.state.dataset_origins.values())
    dataset = call.state.add_dataset_origin(call.body["name"])
    dataset.description = call.body["description"]
    return _origin_row(dataset)


def _origin(call: Call) -> Dataset:
    return lookup(call.state.dataset_origins, call.ids["dataset"], "dataset")


def _versions_of(call: Call, dataset: Dataset) -> list[DatasetVersion]:
    return [version for version in call.state.datasets.values() if version.origin_id == dataset.id]


def _delete_dataset(call: Call) -> None:
    dataset = _origin(call)
    for version in _versions_of(call, dataset):
        del call.state.datasets[version.id]
    del call.state.dataset_origins[dataset.id]


def _versions(call: Call) -> dict[str, Any]:
    return page(map(dataset_row, _versions_of(call, _origin(call))), call.query)


def _find_version(call: Call) -> dict[str, Any]:
    for version in _versions_of(call, _origin(call)):
        if call.query.get("version") == version.version or call.query.get("id") == version.id:
            return dataset_row(version)
    raise RefusedError(404, "dataset version not found", str(call.query))


def _create_version(call: Call) -> dict[str, Any]:
    dataset, body = _origin(call), call.body
    if any(version.version == body["version"] for version in _versions_of(call, dataset)):
        raise RefusedError(409, "Conflict", f"the version {body['version']!r} is taken")
    made = DatasetVersion(
        new_id(), dataset.id, dataset.name, body["version"], [], body["type"], body["description"]
    )
    call.state.datasets[made.id] = made
    return dataset_row(made)


def _version(call: Call) -> DatasetVersion:
    return lookup(call.state.datasets, call.ids["version"], "dataset version")


def _delete_version(call: Call) -> None:
    del call.state.datasets[_version(call).id]


def _stats(call: Call) -> dict[str, Any]:
    shapes = [
        shape for asset in _version(call).assets for kind in (asset.shapes or {}).values() for shape in kind
    ]
    repartition: dict[str, int] = {}
    for shape in shapes:
        repartition[shape["label"]] = repartition.get(shape["label"], 0) + 1
    annotated = [asset for asset in _version(call).assets if asset.shapes is not None]
    return {"label_repartition": repartition, "nb_objects": len(shapes), "nb_annotations": len(annotated)}


def _find_label(call: Call) -> dict[str, str]:
    if call.query.get("name") not in _version(call).labels:
        raise RefusedError(404, "label not found", str(call.query))
    return label_rows([call.query["name"]])[0]


def _create_label(call: Call) -> dict[str, str]:
    labels = _version(call).labels
    if call.body["name"] in labels:
        raise RefusedError(409, "Conflict", f"the label {call.body['name']!r} is there")
    labels.append(call.body["name"])
    return label_rows([call.body["name"]])[0]


def _bulk_labels(call: Call) -> list[dict[str, str]]:
    labels = _version(call).labels
    labels += [name for name in call.body["names"] if name not in labels]
    return label_rows(call.body["names"])


def _label_groups(call: Call) -> dict[str, Any]:
    _version(call)
    return page([], call.query)


def _add_assets(call: Call) -> dict[str, Any]:
    version = _version(call)
    present = {asset.data_id for asset in version.assets}
    for id_ in call.body["data_ids"]:
        data = lookup(call.state.data, id_, "data")
        if id_ not in present:
            version.assets.append(
                Asset(new_id(), id_, new_id(), data.filename, data.object_name, data.width, data.height)
            )
    status = call.state.assets_job_status
    return {"job": {"id": call.state.add_job(status=status), "status": status}}


def _bulk_annotations(call: Call) -> dict[str, int]:
    version = _version(call)
    names = {row["id"]: row["name"] for row in label_rows(version.labels)}
    counts = dict.fromkeys(_SHAPES, 0)
    for annotation in call.body["annotations"]:
        shapes = {}
        for kind, schema in _SHAPES.items():
            for shape in annotation[kind]:
                require(shape, {**schema, **_OF_A_SHAPE})
            shapes[kind] = [_labelled(shape, names) for shape in annotation[kind]]
            counts[kind] += len(shapes[kind])
        asset = next((each for each in version.assets if each.id == annotation["asset_id"]), None)
        if asset is None:
            raise RefusedError(404, "asset not found", annotation["asset_id"])
        asset.shapes = shapes
    return {"annotations": len(call.body["annotations"]), **counts}


def _labelled(shape: dict[str, Any], names: dict[str, str]) -> dict[str, Any]:
    rest = {key: value for key, value in shape.items() if key != "label_id"}
    return {**rest, "label": names[shape["label_id"]]}


def _job(call: Call) -> dict[str, Any]:
    job = lookup(call.state.jobs, call.ids["job"], "job")
    return {"id": job.id, "status": job.status}


def _datalake(call: Call) -> dict[str, Any]:
    require_organization(call)
    return {"id": call.state.datalake_id, "name": "default", "connector_id": call.state.connector_id}


def _data_row(data: Data) -> dict[str, Any]:
    return {
        "id": data.id,
        "object_name": data.object_name,
        "filename": data.filename,
        "type": "IMAGE",
        "content_type": data.content_type,
        "upload_status": "DONE",
        "meta": {"width": data.width, "height": data.height},
    }


def _create_data(call: Call) -> dict[str, Any]:
    _require_datalake(call)
    body = call.body
    uploaded(call.state, body["object_name"])
    if any(data.object_name == body["object_name"] for data in call.state.data.values()):
        raise RefusedError(409, "Conflict", f"the object {body['object_name']!r} is a data already")
    meta = body.get("meta", {"width": 64, "height": 48})
    data = Data(new_id(), body["filename"], body["object_name"], body["content_type"], **meta)
    call.state.data[data.id] = data
    return _data_row(data)


def _find_data(call: Call) -> dict[str, Any]:
    _require_datalake(call)
    for data in call.state.data.values():
        if data.object_name == call.query.get("object_name"):
            return _data_row(data)
    raise RefusedError(404, "data not found", str(call.query))


def _require_datalake(call: Call) -> None:
    if call.ids["datalake"] != call.state.datalake_id:
        raise RefusedError(404, "datalake not found", call.ids["datalake"])


def _delete_data(call: Call) -> None:
    del call.state.data[lookup(call.state.data, call.ids["data"], "data").id]


_ORGANIZATION = "/api/organization/{organization}"
_DATASET = "/api/dataset/{dataset}"
_VERSION = "/api/dataset/version/{version}"
_LIST = Field("a list", lambda value: isinstance(value, list))
_ANNOTATION: Schema = {"asset_id": UUID, "attributes": nullable(OBJECT), **dict.fromkeys(_SHAPES, _LIST)}
_ANNOTATIONS = Field(
    "a list of at most 100 annotations",
    lambda value: isinstance(value, list) and len(value) <= 100 and all(map(_is_annotation, value)),
)


def _is_annotation(value: Any) -> bool:
    try:
        require(value, _ANNOTATION)
    except RefusedError:
        return False
    return True


_NEW_DATA = {
    "type": one_of(["IMAGE", "VIDEO"]),
    "filename": NAME,
    "object_name": NAME,
    "content_type": NAME,
    "tags": UUIDS,
    "data_source_id": nullable(UUID),
    "meta": optional(OBJECT),
    "metadata": optional(OBJECT),
}
ROUTES = (
    Route("GET", f"{_ORGANIZATION}/datasets", _datasets, query=PAGE),
    Route("GET", f"{_ORGANIZATION}/datasets/find", _find_dataset, query=("id", "name")),
    Route(
        "POST",
        f"{_ORGANIZATION}/datasets",
        _create_dataset,
        body={"name": NAME, "description": TEXT},
        status=201,
    ),
    Route("DELETE", _DATASET, _delete_dataset, status=204),
    Route("GET", f"{_DATASET}/versions", _versions, query=PAGE),
    Route("GET", f"{_DATASET}/versions/find", _find_version, query=("id", "version")),
    Route(
        "POST",
        f"{_DATASET}/versions",
        _create_version,
        body={"version": NAME, "description": TEXT, "type": one_of(INFERENCE_TYPES)},
        status=201,
    ),
    Route("DELETE", _VERSION, _delete_version, status=204),
    Route("GET", f"{_VERSION}/stats", _stats),
    Route("GET", f"{_VERSION}/labels/find", _find_label, query=("name",)),
    Route("POST", f"{_VERSION}/labels", _create_label, body={"name": NAME}, status=201),
    Route("XGET", f"{_VERSION}/bulk-labels", _bulk_labels, body={"names": STRINGS}),
    Route("GET", f"{_VERSION}/labelgroups", _label_groups, query=PAGE),
    Route(
        "POST",
        f"{_VERSION}/assets",
        _add_assets,
        body={"asset_tag_ids": UUIDS, "data_ids": UUIDS},
        status=201,
    ),
    Route(
        "POST",
        f"{_VERSION}/bulk-annotations",
        _bulk_annotations,
        body={"import_type": one_of(["REPLACE", "KEEP", "CONCATENATE"]), "annotations": _ANNOTATIONS},
        status=201,
    ),
    Route("GET", "/api/job/{job}", _job),
    Route("GET", f"{_ORGANIZATION}/datalake", _datalake),
    Route("POST", "/api/datalake/{datalake}/datas", _create_data, body=_NEW_DATA, status=201),
    Route(
        "GET",
        "/api/datalake/{datalake}/datas/find",
        _find_data,
        query=("object_name", "upload_statuses", "types"),
    ),
    Route("DELETE", "/api/data/{data}", _delete_data, status=204),
)

"""Dataset versions: their labels, assets and annotations, as the SDK lists, loads and downloads them."""

from __future__ import annotations

import uuid
from collections.abc import Iterable
from typing import Any

from .routes import PAGE, Call, Route, lookup, page
from .schemas import STRINGS, UUIDS, Field, RefusedError, is_list_of_uuids, optional
from .state import Asset, DatasetVersion, Grant, new_id
from .storage import sign

_MOST_AT_ONCE = 1000
_SHAPES = ("classifications", "rectangles", "polygons", "keypoints")


def dataset_row(dataset: DatasetVersion) -> dict[str, Any]:
    """A version as an experiment's attachment holds it."""
    return {
        "id": dataset.id,
        "origin_name": dataset.name,
        "origin_id": dataset.origin_id,
        "version": dataset.version,
        "type": dataset.type,
        "description": dataset.description,
    }


def _dataset(call: Call) -> DatasetVersion:
    return lookup(call.state.datasets, call.ids["dataset"], "dataset version")


def _get_dataset(call: Call) -> dict[str, Any]:
    return dataset_row(_dataset(call)) | {"tags": []}


def _labels(call: Call) -> dict[str, Any]:
    return page(label_rows(_dataset(call).labels), call.query)


def label_rows(labels: Iterable[str]) -> list[dict[str, str]]:
    """Labels as the platform answers them; a label's id is made of its name."""
    return [{"id": str(uuid.uuid5(uuid.NAMESPACE_OID, label)), "name": label} for label in labels]


def _skeletons(call: Call) -> dict[str, Any]:
    _dataset(call)
    return {"items": {}}


def _asset_row(call: Call, asset: Asset) -> dict[str, Any]:
    data = {
        "id": asset.data_id,
        "object_name": asset.object_name,
        "filename": asset.filename,
        "type": "IMAGE",
        "content_type": "image/png",
        "upload_status": "DONE",
        "presigned_url": sign(call, Grant("get", asset.object_name)),
        "metadata": None,
        "custom_metadata": None,
        "meta": {"width": asset.width, "height": asset.height},
    }
    return {"id": asset.id, "data": data, "tags": []}


def _assets(call: Call) -> dict[str, Any]:
    """A page of at most 1000, and the cursor of the next one."""
    assets, limit = _dataset(call).assets, int(call.query.get("limit", _MOST_AT_ONCE))
    if not 0 < limit <= _MOST_AT_ONCE:
        raise RefusedError(400, "Invalid request", f"limit is at most {_MOST_AT_ONCE}")
    start = int(call.query.get("cursor", call.query.get("offset", 0)))
    stop = start + limit
    rows = [_asset_row(call, asset) for asset in assets[start:stop]]
    return {"items": rows, "count": len(assets), "next_cursor": str(stop) if stop < len(assets) else None}


def _assets_by_id(call: Call) -> dict[str, Any]:
    wanted = {key: set(call.body[key]) for key in ("ids", "object_names") if key in call.body}
    if len(wanted) != 1:
        raise RefusedError(400, "Invalid request", "exactly one of ids and object_names is needed")
    ids, names = wanted.get("ids", ()), wanted.get("object_names", ())
    rows = [
        _asset_row(call, asset)
        for asset in _dataset(call).assets
        if asset.id in ids or asset.object_name in names
    ]
    return {"items": rows, "count": len(rows)}


def _annotated(call: Call) -> Iterable[Asset]:
    return (asset for asset in _dataset(call).assets if asset.shapes is not None)


def _annotations(call: Call) -> dict[str, Any]:
    rows = [
        {"id": asset.annotation_id, "asset_id": asset.id, "duration": 0.0, "status": "PENDING"}
        for asset in _annotated(call)
    ]
    return page(rows, call.query)


def _annotation_ids(call: Call) -> list[str]:
    return [asset.annotation_id for asset in _annotated(call)]


def _load_annotations(call: Call) -> list[dict[str, Any]]:
    wanted = set(call.body)
    return [
        {
            "id": asset.annotation_id,
            "asset_id": asset.id,
            "attributes": None,
            **{kind: [_shape(shape) for shape in (asset.shapes or {}).get(kind, [])] for kind in _SHAPES},
        }
        for asset in _annotated(call)
        if asset.annotation_id in wanted
    ]


def _shape(shape: dict[str, Any]) -> dict[str, Any]:
    return {"id": new_id(), "text": None, "attributes": None, **shape}


def _data_url(call: Call) -> dict[str, str]:
    for dataset in call.state.datasets.values():
        for asset in dataset.assets:
            if asset.data_id == call.ids["data"]:
                return {"presigned_url": sign(call, Grant("get", asset.object_name))}
    raise RefusedError(404, "data not found", call.ids["data"])


_DATASET = "/api/dataset/version/{dataset}"
_STATUSES = {"upload_statuses": optional(STRINGS), "types": optional(STRINGS)}
ROUTES = (
    Route("GET", _DATASET, _get_dataset),
    Route("GET", f"{_DATASET}/labels", _labels, query=PAGE),
    Route("GET", f"{_DATASET}/labels/skeleton", _skeletons),
    Route("GET", f"{_DATASET}/assets", _assets, query=(*PAGE, "cursor", *_STATUSES)),
    Route(
        "XGET",
        f"{_DATASET}/assets",
        _assets_by_id,
        body={"ids": optional(UUIDS), "object_names": optional(STRINGS), **_STATUSES},
    ),
    Route("GET", f"{_DATASET}/annotations", _annotations, query=PAGE),
    Route("GET", f"{_DATASET}/annotations/ids", _annotation_ids),
    Route(
        "XGET", f"{_DATASET}/annotations", _load_annotations, body=Field("a list of UUIDs", is_list_of_uuids)
    ),
    Route("GET", "/api/data/{data}/presigned-url", _data_url),
)

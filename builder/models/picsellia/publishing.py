"""How an experiment becomes a version: the platform makes one of its own naming, which is then set right."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any

from builder.errors import StoreError
from builder.models.names import VersionName
from builder.models.picsellia.fields import configured, docker_keywords
from builder.models.picsellia.platform import Platform
from builder.models.picsellia.speaking import TakenError, undone
from builder.models.records import ExperimentFields


def published_keywords(
    version: VersionName, fields: ExperimentFields, base: Mapping[str, Any] | None
) -> Mapping[str, Any]:
    """The SDK's keywords that make a published version what it should be. Pure.

    Args:
        fields: Of the experiment.
        base: The raw answer for the version that the experiment was made from.
    """
    kind = configured(base.get("type")) if base else None
    wanted = {
        "name": version.version,
        "framework": configured(base.get("framework")) if base else None,
        "type": None if kind in ("MASK", "MULTI") else kind,  # the SDK refuses to write them
        "labels": fields.labelmap,
        "base_parameters": fields.parameters,
        **(docker_keywords(fields.image) if fields.image else {}),
    }
    return {key: value for key, value in wanted.items() if value is not None}


@contextmanager
def exported(platform: Platform, experiment: Any, model: Any, version: VersionName) -> Iterator[Any]:
    """The version that the platform makes of an experiment, removed again when something fails.

    Args:
        model: The SDK's object of the model; None makes a new one.

    Raises:
        StoreError: The platform does not answer, or refuses.
    """
    before = _version_ids(platform, model) if model else set()

    def export() -> Any:
        if model is None:
            return experiment.export_as_model(version.model)
        return experiment.export_in_existing_model(model)

    def find() -> Any:
        there = model or platform.find(lambda: platform.client.get_model(version.model))
        for id_ in _version_ids(platform, there) - before if there else ():
            made = platform.ask(partial(platform.client.get_model_version_by_id, id_))
            if platform.ask(made.get_context).experiment_id == experiment.id:
                return made
        return None

    def undo() -> None:
        if model:
            platform.ask(made.delete)
        else:
            # A model that the platform made for this version has no other.
            platform.ask(lambda: platform.client.get_model_by_id(made.origin_id).delete())

    try:
        made = platform.make(export, find)
    except TakenError as error:
        raise StoreError(
            f"Picsellia names a version after its experiment at first, and refuses: {error.message}",
            place=str(version),
            remedy=f"rename the version {experiment.name!r} of the model, or the experiment",
        ) from None
    with undone("the version that it made", undo):
        yield made


def _version_ids(platform: Platform, model: Any) -> set[str]:
    return {row["id"] for row in platform.rows(f"/api/model/{model.id}/versions")}

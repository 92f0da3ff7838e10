"""The last build of a folder as an image: in the cache, or in the engine."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from builder.errors import EngineUnavailableError, TrainpackError
from builder.oci.image import Image
from builder.plan import BuiltImage
from builder.reference import parse_reference
from builder.workdir import last_build, last_plan

Say = Callable[[str], None]


def kept_image(folder: Path, built: BuiltImage, environ: Mapping[str, str]) -> Image | None:
    """A build of the oci builder, from the cache; None for an engine's, or one that is not there any more."""
    from builder.builders.oci import OciBuilder  # noqa: PLC0415  (what an engine built needs none of it)
    from builder.oci.cache import open_cache  # noqa: PLC0415

    plan = last_plan(folder)
    if not built.digest or plan is None:
        return None
    try:
        image = OciBuilder(open_cache(), environ, lambda _: None).image(plan, folder)
    except TrainpackError:
        return None
    return image if image.id == built.image_id else None


def engine_image(folder: Path, environ: Mapping[str, str], say: Say) -> BuiltImage:
    """The last build as the engine has it; given to the engine first where it lacks it.

    Raises:
        UsageError: Nothing was built here yet.
        EngineError: The engine does not have it, and neither does the cache.
    """
    from builder.engine.containers import find_image, has_image  # noqa: PLC0415

    built = last_build(folder)
    if not has_image(built.image_id) and (image := kept_image(folder, built, environ)):
        say(f"loading {built.reference} into the engine")
        return find_image(load_image(image, built.reference, folder))
    return find_image(built.image_id)


def load_image(image: Image, reference: str, folder: Path) -> str:
    """Give an image to the engine, without the layers that it has; returns the engine's id of it.

    Raises:
        EngineError: The engine refused it, or none answers.
    """
    from builder.bases import engine_names  # noqa: PLC0415
    from builder.oci.local_engine import load  # noqa: PLC0415

    plan = last_plan(folder)
    known = [str(plan.reference), *engine_names(plan.base)] if plan else []
    return load(image, parse_reference(reference), known).image_id


def engine_answers() -> bool:
    """Whether there is an engine to load into."""
    from builder.engine import client  # noqa: PLC0415

    try:
        client()
    except EngineUnavailableError:
        return False
    return True

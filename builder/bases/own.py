"""Bases of the user's own: images of `trainpack base build`, or of a Dockerfile upon one, wherever they are.

What tells them are the labels of a base, which a Dockerfile's `FROM` inherits.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from builder.bases.catalogue import REPOSITORY
from builder.errors import (
    EngineError,
    EngineUnavailableError,
    ImageFormatError,
    ImageNotFoundError,
    RegistryUnavailableError,
    SpecError,
    TrainpackError,
)
from builder.oci.archive import read_archive
from builder.oci.cache import Cache, open_cache
from builder.oci.image import Image, with_layers
from builder.oci.layout import read_layout
from builder.places import Place, parse_place
from builder.plan import LABEL, Base
from builder.reference import parse_reference
from builder.spec import CATALOGUE_NAME, FILE

_PLAN, _NAME, _PYTHON, _SOURCE = (f"{LABEL}.{key}" for key in ("plan", "base", "base.python", "base.source"))
_EXPECTED = {
    _NAME: CATALOGUE_NAME,
    _PYTHON: re.compile(r"3\.\d{1,2}"),
    _SOURCE: re.compile("debian|upstream"),
}
_MAKE = "`trainpack base build` makes a base, and an image that a Dockerfile makes FROM one is one too"


def resolve_own(place: Place, python: str, platform: str) -> Base:
    """The base that is in a place now; of a registry, no layer is fetched.

    Raises:
        SpecError: The image there is no base, or is one for another Python.
        ImageFormatError: It is malformed, or not for this platform.
        BlobError: A manifest or config is missing or corrupt.
        RegistryError: The registry has no such image, or failed.
        EngineError: The engine has no such image, or failed.
    """
    with _told(place):
        image, exact = _read(place, platform)
    _check(image.labels, place, python)
    name = image.labels[_NAME]
    content = image.id.removeprefix("sha256:")
    return Base(
        name=name,
        python=python,
        platform=platform,
        reference=f"{REPOSITORY}:{name}-py{python}-{content[:12]}",
        image_id=image.id,
        content=content,
        source=image.labels[_SOURCE],
        origin=str(exact),
    )


def own_image(base: Base) -> Image:
    """The image of a base that was resolved; its bytes stay where they are until a layer is opened.

    Raises:
        ImageFormatError: Another image is in its place by now.
        TrainpackError: As for `resolve_own`.
    """
    place = parse_place(str(base.origin))
    with _told(place):
        image, _ = _read(place, base.platform)
    if image.id != base.image_id:
        raise ImageFormatError(
            f"the base is {image.id} by now, expected {base.image_id}",
            place=str(place),
            remedy="`trainpack build` builds upon the new one",
        )
    return image


def engine_names(base: Base) -> tuple[str, ...]:
    """What an engine that has the base may call it."""
    place = parse_place(base.origin) if base.origin else None
    if place is None or place.path:
        return (base.reference,)
    reference = parse_reference(place.name)
    tagged, exact = replace(reference, digest=None), replace(reference, tag=None)
    return (base.reference, *(str(each) for each in (tagged, exact) if each.tag or each.digest))


def _read(place: Place, platform: str) -> tuple[Image, Place]:
    """The image, and the place by which it is found again as it is."""
    cache = open_cache()
    if place.kind == "registry":
        return _read_registry(place, platform, cache)
    if place.kind == "engine":
        from builder.oci.local_engine import read_engine  # noqa: PLC0415  (no other place needs the engine)

        return read_engine(place.name, platform, cache), place
    if place.kind == "oci":
        return _compressed(read_layout(Path(place.name), platform, place.tag), cache), place
    return _compressed(read_archive(Path(place.name), platform), cache), place


def _read_registry(place: Place, platform: str, cache: Cache) -> tuple[Image, Place]:
    from builder.oci.remote.pull import RegistryClient  # noqa: PLC0415  (requests, which takes its time)

    reference = parse_reference(place.name)
    client = RegistryClient(reference, platform)
    image = client.image(cache)
    return image, Place("registry", str(replace(reference, digest=client.digest())))


def _compressed(image: Image, cache: Cache) -> Image:
    layers = tuple(cache.compressed(layer) for layer in image.layers)
    return image if layers == image.layers else with_layers(image.config, layers)


def _check(labels: Mapping[str, str], place: Place, python: str) -> None:
    where = f"{FILE} [image] base"
    if _PLAN in labels:
        message = f"{place} is an image that trainpack built of a project, expected a base"
        raise SpecError(message, place=where, remedy=_MAKE)
    for label, expected in _EXPECTED.items():
        if not expected.fullmatch(labels.get(label, "")):
            met = f"has the label {label} = {labels[label]!r}" if label in labels else f"has no label {label}"
            raise SpecError(f"{place} is no base of trainpack: it {met}", place=where, remedy=_MAKE)
    if labels[_PYTHON] != python:
        raise SpecError(
            f"{place} is a base with Python {labels[_PYTHON]}, expected {python}",
            place=where,
            remedy=f"set `python` in [image], or `trainpack base build --python {python}`",
        )


@contextmanager
def _told(place: Place) -> Iterator[None]:
    """Say of each failure what can be done about it, where the base comes from the user."""
    remedy = f"see `base` and `platform` in [image] of {FILE}"
    try:
        yield
    except OSError as error:
        raise SpecError(f"cannot be read: {error.strerror}", place=str(place), remedy=remedy) from None
    except ImageNotFoundError as error:
        error.remedy = f"{remedy}; `trainpack base build --push` publishes a base"
        raise
    except RegistryUnavailableError as error:
        error.remedy = f"{error.remedy}; a base that is named by its digest is asked for once"
        raise
    except EngineUnavailableError:
        raise
    except EngineError as error:
        error.remedy = f"{remedy}; `docker pull` fetches an image that a registry has"
        raise
    except TrainpackError as error:
        error.remedy = error.remedy or remedy
        raise

"""The user's engine as a place: a base is read out of it once, an image loaded by the layers it lacks."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from docker.errors import ImageNotFound
from docker.models.images import Image as EngineImage

from builder.engine import FULL_REMEDY, client, is_full
from builder.engine.containers import engine_errors
from builder.errors import BlobError, EngineError, ImageFormatError
from builder.oci.archive import archive, read_archive
from builder.oci.cache import Cache, cache_key
from builder.oci.image import Image, Layer, with_layers
from builder.oci.layer import compress
from builder.oci.manifest import diff_ids, parse_object
from builder.oci.streams import CHUNK
from builder.reference import Reference

_CONTAINERD = ["driver-type", "io.containerd.snapshotter.v1"]


@dataclass(frozen=True)
class Loaded:
    """What a load did: the engine's id of the image, and the bytes that it was sent."""

    image_id: str
    sent: int


def read_engine(reference: str, platform: str, cache: Cache) -> Image:
    """An image of the engine, its layers compressed and kept in the cache.

    Engines give an image only whole (`docker save`), so the second time it comes from the cache.

    Raises:
        EngineError: The engine has no such image, or failed.
        ImageFormatError: It is one for another platform.
    """
    with engine_errors(reference):
        found = client().images.get(reference)
        return _kept(found, cache) or _save(found, platform, cache)


def load(image: Image, reference: Reference, known: Iterable[str] = ()) -> Loaded:
    """Give the engine an image, without the layers that it has.

    Layers count as there by their diff ids. An engine with containerd's store then runs them, but when it got
    them in another compression, it cannot push them to a registry.

    Args:
        known: Names of images that the engine may have and that this one shares layers with: its base, the
            last build.

    Raises:
        EngineError: The engine refused it or failed.
        BlobError: A layer's bytes are not those of its digest.
    """
    with engine_errors(str(reference)):
        if kept := _tag(image, reference):
            return Loaded(image_id=kept, sent=0)
        shared = _shared_layers(image, [*known, str(reference)])
        try:
            sent = _send(image, reference, shared)
        except EngineError:
            # It may have lost a layer since it was asked, or know it by other bytes only.
            if not shared:
                raise
            sent = _send(image, reference, frozenset())
        return Loaded(image_id=str(client().images.get(str(reference)).id), sent=sent)


def has_containerd_store() -> bool:
    """Whether the engine keeps blobs as they came: it then knows an image by its manifest's digest."""
    return _CONTAINERD in (client().info().get("DriverStatus") or [])


def _kept(found: EngineImage, cache: Cache) -> Image | None:
    try:
        with cache.blobs.open(str(found.id)) as file:
            config = file.read()
        document = parse_object(config, str(found.id))
        layers = [cache.recall(_key(diff_id)) for diff_id in diff_ids(document, str(found.id))]
    except (BlobError, ImageFormatError):
        return None
    whole = [layer for layer in layers if layer]
    return with_layers(config, whole) if len(whole) == len(layers) else None


def _save(found: EngineImage, platform: str, cache: Cache) -> Image:
    with cache.blobs.scratch() as file:
        for chunk in found.save(chunk_size=CHUNK):
            file.write(chunk)
        file.flush()
        image = read_archive(Path(file.name), platform)
        layers = [_keep(layer, cache) for layer in image.layers]
    cache.blobs.put(image.config)
    return with_layers(image.config, layers)


def _keep(layer: Layer, cache: Cache) -> Layer:
    return cache.layer(_key(layer.diff_id), lambda: compress(layer, cache.blobs))


def _key(diff_id: str) -> str:
    return cache_key("engine layer", diff_id)


def _tag(image: Image, reference: Reference) -> str | None:
    """Tag an image that the engine has already; its id there, None when it has not."""
    try:
        found = client().images.get(image.digest if has_containerd_store() else image.id)
    except ImageNotFound:
        return None
    found.tag(reference.repository, tag=reference.tag)
    return str(found.id)


def _shared_layers(image: Image, names: Iterable[str]) -> frozenset[str]:
    """The diff ids of the layers below the first that no image of these names has in its place."""
    ours = [layer.diff_id for layer in image.layers]
    shared = 0
    for name in names:
        try:
            theirs = client().images.get(name).attrs["RootFS"].get("Layers") or []
        except ImageNotFound:
            continue
        shared = max(shared, _common(ours, theirs))
    return frozenset(ours[:shared])


def _common(ours: list[str], theirs: list[str]) -> int:
    count = 0
    for mine, other in zip(ours, theirs, strict=False):
        if mine != other:
            break
        count += 1
    return count


def _send(image: Image, reference: Reference, without: frozenset[str]) -> int:
    sent = 0

    def counted() -> Iterator[bytes]:
        nonlocal sent
        for piece in archive(image, reference, without):
            sent += len(piece)
            yield piece

    answers: Iterable[dict[str, Any]] = cast("Any", client().api).load_image(counted(), quiet=True)
    for answer in answers:
        if "error" in answer:
            reason = str(answer["error"])
            remedy = FULL_REMEDY if is_full(reason) else None
            message = f"the engine cannot load the image: {reason}"
            raise EngineError(message, place=str(reference), remedy=remedy)
    return sent

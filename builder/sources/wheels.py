"""The wheel of a source distribution: made once, by its own build system, in a container of the base.

Whoever wrote the source decides what its build does, so the build gets the base, what it requires of the
package index, and nothing else of this machine: no network, no folder, no credential.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from builder.oci import tar
from builder.oci.cache import cache_key
from builder.oci.image import Layer
from builder.oci.layer import kept_layer
from builder.plan import Distribution
from builder.sources.repack import check_wheel, repack, wheel_name
from builder.sources.workshop import FRONT_END, Workshop
from builder.wheels.archive import open_wheel

# Raised when the same source becomes another wheel than before.
FORMAT = 1
_WHEEL = "application/zip"


def wheel_of(source: Distribution, workshop: Workshop) -> Distribution:
    """The wheel of a source distribution, in the cache; and the errors of `builder.sources.built_wheels`."""
    cache, key = workshop.cache, _key(source, workshop)
    if kept := cache.recall(key):
        cache.blobs.verify(kept.digest)  # what is damaged is removed, and made again
    layer = cache.layer(key, lambda: _make(source, workshop))
    path = cache.blobs.path(layer.digest)
    with open_wheel(path, source.filename) as archive:
        filename = wheel_name(archive, source)
    sha256 = layer.digest.removeprefix("sha256:")
    return source.model_copy(
        update={"filename": filename, "url": path.as_uri(), "size": layer.size, "sha256": sha256}
    )


def _key(source: Distribution, workshop: Workshop) -> str:
    """What decides a wheel, but for the versions of what its build requires: those are the day's."""
    base, epoch = workshop.plan.base, tar.source_epoch(workshop.environ)
    target = [base.content, base.python, base.platform]
    return cache_key("source", FORMAT, FRONT_END.read_text(encoding="utf-8"), source.sha256, *target, epoch)


def _make(source: Distribution, workshop: Workshop) -> Layer:
    # A kept wheel needs no engine, and so not its SDK.
    from builder.sources.backend import make_wheel, prepare_engine  # noqa: PLC0415
    from builder.sources.sdist import read_build_system  # noqa: PLC0415
    from builder.wheels.download import Downloads  # noqa: PLC0415

    path = Downloads(workshop.cache, workshop.environ, workshop.say).fetch(source)
    system = read_build_system(path, source.filename)
    prepare_engine(source, workshop.plan)
    workshop.say(f"{source.name} {source.version} has no wheel: making one in a container of the base")
    with workshop.cache.blobs.scratch() as made:
        make_wheel(source, path, system, workshop, made)
        made.flush()
        return _keep(Path(made.name), source, workshop)


def _keep(made: Path, source: Distribution, workshop: Workshop) -> Layer:
    blobs = workshop.cache.blobs
    with open_wheel(made, f"the wheel of {source.filename}") as archive, blobs.scratch() as evened:
        check_wheel(archive, source, workshop.plan)
        repack(archive, source, evened)
        evened.seek(0)
        with blobs.writer() as writer:
            shutil.copyfileobj(evened, writer)
    return kept_layer(blobs, writer.digest, writer.digest, writer.size, writer.size, _WHEEL)

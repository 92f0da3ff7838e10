"""What a build requires, from the package index: resolved and brought by this machine, as a layer."""

from __future__ import annotations

from collections.abc import Sequence

from builder.bases import glibc_of
from builder.errors import LockError
from builder.lock.pylock import distributions
from builder.lock.requirements import Requirements
from builder.lock.resolve import Resolver
from builder.oci import tar
from builder.oci.image import Layer
from builder.plan import Distribution
from builder.sources.workshop import Workshop
from builder.spec import ImageSpec
from builder.wheels.layers import Group, Settings, wheel_layers


def required_layer(requires: Sequence[str], source: Distribution, workshop: Workshop) -> Layer:
    """The build requirements of a source distribution, installed: wheels only.

    Raises:
        LockError: They cannot be resolved.
        WheelError: One cannot be had or installed.
        TrainpackError: The index cannot be reached or refuses the credentials.
    """
    title = f"build requirements of {source.name}"
    wheels = _resolved(requires, source, workshop) if requires else ()
    group = Group(title, wheels, workshop.environment)
    settings = Settings(None, tar.EPOCH, workshop.environ, workshop.say)
    (layer,) = wheel_layers([group], workshop.cache, settings)
    return layer


def _resolved(requires: Sequence[str], source: Distribution, workshop: Workshop) -> tuple[Distribution, ...]:
    plan, glibc = workshop.plan, glibc_of(workshop.plan.python)
    image = ImageSpec.model_validate({"name": plan.name, "python": plan.python, "platform": plan.platform})
    resolver = Resolver(image, workshop.folder, glibc=glibc, environ=workshop.environ, upgrade=True)
    wanted = Requirements(file=None, content="\n".join(requires), lines=())
    try:
        document = resolver.resolve("pylock.build.toml", wanted, [], "--only-binary=:all:")
    except LockError as error:
        raise LockError(
            f"what its build requires cannot be resolved to wheels: {', '.join(requires)}",
            place=source.filename,
            details=error.details,
            remedy="pin a version of it that has a wheel, or put one into a find-links folder",
        ) from None
    return distributions(document, image, glibc, source.filename)

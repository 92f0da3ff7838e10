"""Source distributions of a lock, made into wheels: both builders install nothing else."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from builder.oci.cache import Cache
from builder.plan import BuildPlan, Distribution


def built_wheels(
    plan: BuildPlan, folder: Path, cache: Cache, environ: Mapping[str, str], say: Callable[[str], None]
) -> dict[Distribution, Distribution]:
    """The wheel of each source distribution of a plan; those that the cache does not have are made.

    Args:
        folder: The project's.
        environ: Where index, CA and proxy settings, and SOURCE_DATE_EPOCH, come from.
        say: Is told what is built, before it is.

    Raises:
        WheelError: A source distribution cannot be had, or it or its wheel is not what the lock says.
        LockError: What a build requires cannot be resolved.
        EngineError: No engine can build it.
        BuildError: A build failed.
    """
    sources = [each for each in (*plan.heavy, *plan.light, *plan.tools) if not each.is_wheel]
    if not sources:
        return {}
    from builder.sources.wheels import wheel_of  # noqa: PLC0415  (few plans need it)
    from builder.sources.workshop import Workshop  # noqa: PLC0415

    workshop = Workshop(plan, folder, cache, environ, say)
    return {source: wheel_of(source, workshop) for source in sources}

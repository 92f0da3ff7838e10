"""What all builds of a plan's source distributions share."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from builder.oci.cache import Cache
from builder.plan import WORKDIR, BuildPlan
from builder.wheels.environment import Environment

# The program of the container, which decides the wheel too.
FRONT_END = Path(__file__).with_name("front_end.py")


@dataclass(frozen=True)
class Workshop:
    """Where the wheels of a plan are made.

    Attributes:
        folder: The project's, for settings of its own for uv.
        environ: Where index, CA and proxy settings, and SOURCE_DATE_EPOCH, come from.
        say: Is told what is brought and made.
    """

    plan: BuildPlan
    folder: Path
    cache: Cache
    environ: Mapping[str, str]
    say: Callable[[str], None]

    @property
    def environment(self) -> Environment:
        """Of the build requirements. A build may write paths into its wheel: they are the same everywhere."""
        return Environment(f"{WORKDIR}/build", self.plan.python)

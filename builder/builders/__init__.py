"""Builders: a BuildPlan in, a BuiltImage out."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from builder.plan import BuildPlan, BuiltImage


class Builder(Protocol):
    """What every builder does; `docker` renders a Dockerfile, `oci` writes the layers itself."""

    def build(self, plan: BuildPlan, folder: Path) -> BuiltImage:
        """Build the plan's image from the project in `folder`.

        Raises:
            BuildError: A step failed.
            EngineError: The engine did.
        """
        ...

"""The oci builder: assembles the image itself, without an engine, and makes only the layers that changed."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path

from builder.bases.image import base_image
from builder.builders.context import entrypoint_files
from builder.errors import UsageError
from builder.oci import tar
from builder.oci.cache import Cache, cache_key
from builder.oci.image import Addendum, Changes, Image, Layer, append
from builder.oci.layer import write_layer
from builder.plan import ENTRYPOINT, LABEL, TOOLS, USER, VENV, WORKDIR, BuildPlan, BuiltImage
from builder.wheels.bytecode import Compiler, Interpreter, find_interpreter
from builder.wheels.download import Downloads
from builder.wheels.environment import Environment
from builder.wheels.layers import LayerMaker, group_wheels

Say = Callable[[str], None]


class OciBuilder:
    """Builds without an engine.

    Args:
        environ: Where index, CA and proxy settings, and SOURCE_DATE_EPOCH, come from.
        say: Is told each line of progress.
    """

    def __init__(self, cache: Cache, environ: Mapping[str, str], say: Say) -> None:
        self._cache = cache
        self._environ = environ
        self._say = say
        self._epoch = tar.source_epoch(environ)

    def build(self, plan: BuildPlan, folder: Path) -> BuiltImage:
        """Build the plan's image into the cache; see `builder.builders.Builder`.

        Raises:
            UsageError: The plan needs a step that only an engine can run.
            WheelError: A wheel cannot be had or installed.
            LayerError: A file of the project changed or vanished since the plan was made.
        """
        image = self.image(plan, folder)
        return built_image(plan, image)

    def image(self, plan: BuildPlan, folder: Path) -> Image:
        """The plan's image as a value, its layers and documents in the cache; and the errors of `build`."""
        if reason := why_not(plan):
            raise UsageError(f"the oci builder cannot: {reason}", remedy="--builder docker")
        base = base_image(plan.base, self._cache)
        additions = [
            self._environments(plan),
            *self._wheels(plan),
            self._entrypoint(plan),
            self._code(plan, folder),
        ]
        image = append(base, additions, _changes(plan), self._epoch)
        for document in (image.config, image.manifest):
            self._cache.blobs.put(document)
        return image

"""The last layer of an image: the code, and the manifest that is baked in."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from builder.oci import tar
from builder.oci.cache import Cache, cache_key
from builder.oci.image import Layer
from builder.oci.layer import write_layer


def code_layer(
    code: Sequence[Mapping[str, Any]], manifest: Mapping[str, Any], folder: Path, cache: Cache, epoch: int
) -> Layer:
    """The layer of a plan's code and manifest.

    Args:
        code: The plan's files, as data.
        folder: The project that they are read from.

    Raises:
        LayerError: A file changed or vanished since the plan was made.
    """
    text = json.dumps(manifest, indent=2, sort_keys=True) + "\n"

    def make() -> Layer:
        files = [
            tar.file(
                f"opt/app/{file['path']}",
                folder / file["path"],
                file["mode"],
                size=file["size"],
                sha256=file["sha256"],
            )
            for file in code
        ]
        files.append(tar.file("opt/trainpack/image.json", text.encode()))
        return write_layer(files, cache.blobs, epoch)

    return cache.layer(cache_key("code", list(code), text, epoch), make)

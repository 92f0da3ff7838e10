"""Small images for the tests of builder.oci."""

from __future__ import annotations

import random
from collections.abc import Sequence

from builder.oci import tar
from builder.oci.blobs import Blobs
from builder.oci.image import Addendum, Changes, Image, Layer, append, empty
from builder.oci.layer import write_layer


def noise(size: int, seed: int = 0) -> bytes:
    """Bytes that do not compress, the same each time."""
    return random.Random(seed).randbytes(size)


def layers(blobs: Blobs, *contents: bytes) -> list[Layer]:
    return [
        write_layer([tar.file(f"data/{number}", content)], blobs) for number, content in enumerate(contents)
    ]


def image(blobs: Blobs, *contents: bytes, base: Image | None = None, **changes: object) -> Image:
    """An image with one layer for each content."""
    additions: Sequence[Addendum] = [Addendum(layer, "test") for layer in layers(blobs, *contents)]
    start = base or empty("linux/amd64")
    return append(start, additions, Changes(**changes), tar.EPOCH)  # type: ignore[arg-type]

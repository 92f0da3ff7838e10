"""Files that an image is written to: an OCI layout, an archive."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from builder.errors import UsageError
from builder.oci.archive import write_archive
from builder.oci.artifact import Artifact
from builder.oci.image import Image, Index
from builder.oci.layout import write_layout
from builder.reference import Reference

Write = Callable[[Image | Index], None]
Documents = Callable[[Image | Index], Mapping[str, Sequence[Artifact]]]


def image_writer(output: str, reference: Reference, documents: Documents = lambda _: {}) -> Write:
    """What writes an image where `--output` says.

    Args:
        output: `oci:DIR` or `archive:FILE`.
        reference: What the image is called there.
        documents: What belongs to the images of a layout, by their digests.

    Raises:
        UsageError: It says something else.
    """
    kind, _, place = output.partition(":")
    if kind == "oci" and place:
        return lambda image: write_layout(Path(place), image, reference.tag, documents(image))
    if kind == "archive" and place:
        return lambda image: write_archive(Path(place), image, reference)
    raise UsageError(f"{output!r}, expected oci:DIR or archive:FILE", place="--output")

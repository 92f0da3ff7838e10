"""A base that is built, published for others to build upon: in a registry, with its SBOM."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from builder import __version__
from builder.attestation.sbom import SBOM, make_base_sbom, read_system
from builder.bases.build import base_image
from builder.errors import TrainpackError
from builder.oci.artifact import Artifact
from builder.oci.image import Image, Index
from builder.oci.remote.push import TagTakenError, push
from builder.oci.remote.referrers import attach
from builder.plan import Base
from builder.reference import Reference

Say = Callable[[str], None]


def joined(built: Sequence[Base]) -> Image | Index:
    """The image of a base, or the index of those for several platforms.

    Raises:
        BlobError: What is kept of one is damaged.
    """
    images = tuple(base_image(base) for base in built)
    return images[0] if len(images) == 1 else Index(images)


def publish_base(built: Sequence[Base], reference: Reference, say: Say, *, move: bool) -> Reference:
    """Push a base, or those for several platforms as one index; returns the reference with its digest.

    Args:
        reference: Where, with a tag.
        say: Is told each line of progress.
        move: Let the tag lead here although it leads to another image.

    Raises:
        TagTakenError: Another image is under the tag, and it is not to be moved.
        RegistryError: The registry refused or failed.
        BlobError: What is kept of the base is damaged.
    """
    image = joined(built)
    try:
        digest = push(image, reference, tell=say, keep_tag=not move).digest
    except TagTakenError as error:
        error.remedy = "give it another tag; --move-tag moves this one, and whoever builds upon it with it"
        raise
    for base, one in zip(built, image.images, strict=True):
        _attach_sbom(base, one, reference, say)
    return replace(reference, digest=digest)


def _attach_sbom(base: Base, image: Image, reference: Reference, say: Say) -> None:
    document = make_base_sbom(base.model_dump(), read_system(image.layers, base.python), __version__)
    try:
        (added,) = attach(reference, image.digest, [Artifact(SBOM, document)])
    except TrainpackError as error:
        # Who builds upon it without its layers gets no SBOM, but an image.
        say(f"warning: published without its SBOM: {error}")
    else:
        say(f"attached its SBOM {added.digest}")

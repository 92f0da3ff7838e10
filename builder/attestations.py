"""SBOM and provenance of an image: made from its plan, attached to it in its registry, and read from there.

Nothing of this is imported by a push that finds its image in the registry.
"""

from __future__ import annotations

from builder.bases import base_image
from builder.errors import ImageFormatError, ImageNotFoundError, UsageError
from builder.oci import tar
from builder.oci.artifact import Artifact
from builder.oci.cache import Cache, cache_key, open_cache
from builder.oci.files import read_files
from builder.oci.layer import write_layer
from builder.oci.remote.pull import RegistryClient
from builder.oci.remote.referrers import attach, referrers
from builder.plan import LABEL, BuildPlan, PublishedImage
from builder.plan_data import BASE_DIGEST
from builder.provenance import PROVENANCE, make_provenance
from builder.reference import Reference, parse_reference
from builder.sbom import SBOM, System, make_sbom, read_system, record_paths

NAMES = {SBOM: "SBOM", PROVENANCE: "provenance"}


def artifacts(plan: BuildPlan, digest: str) -> tuple[Artifact, ...]:
    """The documents about the image of that manifest digest.

    Raises:
        ImageFormatError: The plan's base is not the one that is kept.
        BlobError: What is kept of it is damaged.
    """
    return Artifact(SBOM, sbom(plan)), Artifact(PROVENANCE, make_provenance(plan, digest))


def sbom(plan: BuildPlan) -> bytes:
    """The SBOM of a plan; and the errors of `artifacts`."""
    return make_sbom(plan, base_system(plan, open_cache()))


def base_system(plan: BuildPlan, cache: Cache) -> System:
    """What the plan's base has installed; its layers are read once, and what they say is kept."""
    base = base_image(plan.base)
    if base.id != plan.base.image_id:
        raise ImageFormatError(
            f"the base is {base.id} by now, expected {plan.base.image_id}",
            place=plan.base.reference,
            remedy="`trainpack build` builds upon the new one",
        )
    paths = record_paths(plan.python)
    record = cache.layer(
        cache_key("what is installed", base.id, paths),
        lambda: write_layer(
            [tar.file(path, content) for path, content in read_files(base.layers, paths).items()], cache.blobs
        ),
    )
    return read_system([record], plan.python)


def attest(image: PublishedImage, plan: BuildPlan) -> tuple[str, ...]:
    """Attach SBOM and provenance to an image in its registry; those that it has already stay as they are.

    Returns:
        One line for each document.

    Raises:
        RegistryError: The registry refused or failed.
        ImageFormatError: The plan's base is not the one that is kept.
    """
    reference = parse_reference(image.reference)
    attached = attach(reference, image.digest, artifacts(plan, image.digest))
    return tuple(f"attached {NAMES[str(each.artifact_type)]} {each.digest}" for each in attached)


def check_origin(image: PublishedImage, plan: BuildPlan) -> None:
    """Refuse to say of an image what is only known of another one.

    Raises:
        UsageError: The image was not made from this plan, or upon another build of its base.
        RegistryError: The registry refused or failed.
    """
    reference = _by_digest(parse_reference(image.reference), image.digest)
    labels = RegistryClient(reference, plan.platform).labels()
    if (labels.get(f"{LABEL}.plan"), labels.get(BASE_DIGEST)) != (plan.hash, plan.base.image_id):
        raise UsageError(
            "the image was not built here from the last plan, which is all that is known of it",
            place=image.reference,
            remedy="build it, and push what was built",
        )


def attached(reference: Reference, media_type: str) -> bytes:
    """A document that is attached to an image in its registry.

    Args:
        media_type: `SBOM` or `PROVENANCE`.

    Raises:
        ImageNotFoundError: The registry has no such image, or none of these documents for it.
        RegistryError: The registry refused or failed.
    """
    image = RegistryClient(reference).image_manifest().digest
    for each in referrers(reference, image):
        if each.artifact_type == media_type:
            return RegistryClient(_by_digest(reference, each.digest)).document()
    raise ImageNotFoundError(
        f"the image has no {NAMES[media_type]} attached",
        place=str(reference),
        remedy="`trainpack push --attest`, where it was built, attaches it",
    )


def _by_digest(reference: Reference, digest: str) -> Reference:
    return Reference(reference.repository, digest=digest)

"""SBOM and provenance of an image: made from its plan, attached to it in its registry, and read from there.

Plans are plain data here, and what reads bases and registries is imported where it is used: attaching is a
part of a push, which is over in less time than such imports take.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from builder.attestation.provenance import PROVENANCE, make_provenance
from builder.attestation.sbom import SBOM, System, make_sbom, parse_base_sbom, read_system, record_paths
from builder.errors import ImageFormatError, ImageNotFoundError, TrainpackError, UsageError
from builder.oci import tar
from builder.oci.artifact import Artifact
from builder.oci.cache import Cache, cache_key, open_cache
from builder.oci.files import read_files
from builder.oci.image import Layer
from builder.oci.layer import write_layer
from builder.oci.remote.referrers import attach, referrers
from builder.plan_data import BASE_DIGEST, LABEL, plan_hash
from builder.reference import Reference, parse_reference
from builder.revision import is_dirty

NAMES = {SBOM: "SBOM", PROVENANCE: "provenance"}
_BASE_SBOM = "sbom.cdx.json"

if TYPE_CHECKING:
    from builder.plan import Base

Plan = Mapping[str, Any]
Tell = Callable[[str], None]


def artifacts(plan: Plan, digest: str, *, fetch: bool = True) -> tuple[Artifact, ...]:
    """The documents about the image of that manifest digest.

    Args:
        fetch: Fetch the layers of a base in a registry, where only they say what it has installed.

    Raises:
        ImageFormatError: The plan's base is not the one that is kept, or its layers would have to be fetched.
        BlobError: What is kept of it is damaged.
        RegistryError: The registry of the base failed.
    """
    return Artifact(SBOM, sbom(plan, fetch=fetch)), Artifact(PROVENANCE, make_provenance(plan, digest))


def sbom(plan: Plan, *, fetch: bool = True) -> bytes:
    """The SBOM of a plan; and the errors of `artifacts`."""
    return make_sbom(plan, base_system(plan, open_cache(), fetch=fetch))


def base_system(plan: Plan, cache: Cache, *, fetch: bool = True) -> System:
    """What the plan's base has installed; it is looked for once, and what was found is kept."""
    paths = record_paths(plan["python"])
    key = cache_key("what is installed", plan["base"]["image_id"], paths)
    records = [cache.layer(key, lambda: _records(plan, paths, cache, fetch=fetch))]
    document = read_files(records, [_BASE_SBOM]).get(_BASE_SBOM)
    return parse_base_sbom(document, key) if document else read_system(records, plan["python"])


def _records(plan: Plan, paths: tuple[str, ...], cache: Cache, *, fetch: bool) -> Layer:
    """A base's SBOM where it has one and its layers are elsewhere, else the files that say the same."""
    from builder.bases import base_image  # noqa: PLC0415
    from builder.plan import Base  # noqa: PLC0415

    wanted = Base.model_validate(plan["base"])
    base = base_image(wanted)
    if base.id != wanted.image_id:
        raise ImageFormatError(
            f"the base is {base.id} by now, expected {wanted.image_id}",
            place=wanted.reference,
            remedy="`trainpack build` builds upon the new one",
        )
    here = all(not layer.repository or cache.blobs.has(layer.digest, layer.size) for layer in base.layers)
    files = {} if here else _published_sbom(wanted)
    if not (here or files or fetch):
        raise ImageFormatError(
            "what the base has installed is only in its layers, which are not on this machine",
            place=wanted.origin,
            remedy="`trainpack base build --push` publishes a base with its SBOM",
        )
    files = files or read_files(base.layers, paths)
    return write_layer([tar.file(path, content) for path, content in files.items()], cache.blobs)


def _published_sbom(base: Base) -> dict[str, bytes]:
    """The SBOM that `base build --push` attached, as a file; none where there is none."""
    try:
        content = attached(parse_reference(str(base.origin)), SBOM, base.platform)
        parse_base_sbom(content, str(base.origin))
    except (ImageNotFoundError, ImageFormatError):
        return {}
    return {_BASE_SBOM: content}


def attest(plan: Plan, reference: Reference, digest: str, tell: Tell, *, new: bool, wanted: bool) -> None:
    """Attach SBOM and provenance to an image in its registry; those that it has already stay as they are.

    Args:
        digest: The digest of the image's manifest.
        tell: Receives one line for each document, or why there is none.
        new: Whether the image was just pushed.
        wanted: Whether that was asked for. By default, uncommitted code is not attested, and a registry that
            takes no documents costs a warning, not the push.

    Raises:
        TrainpackError: They are wanted, and could not be made or attached.
    """
    if not wanted and is_dirty(plan["manifest"]["revision"]):
        tell("the code is not committed, so no SBOM and provenance are attached; --attest attaches them")
        return
    try:
        if not new:
            _check_origin(plan, reference, digest)
        for each in attach(reference, digest, artifacts(plan, digest, fetch=wanted)):
            tell(f"attached {NAMES[str(each.artifact_type)]} {each.digest}")
    except TrainpackError as error:
        if wanted:
            raise
        tell(f"warning: pushed without SBOM and provenance: {error}; `trainpack push --attest` tries again")


def _check_origin(plan: Plan, reference: Reference, digest: str) -> None:
    """Refuse to say of an image what is only known of another one."""
    from builder.oci.remote.pull import RegistryClient  # noqa: PLC0415

    labels = RegistryClient(_by_digest(reference, digest), plan["platform"]).labels()
    if (labels.get(f"{LABEL}.plan"), labels.get(BASE_DIGEST)) != (plan_hash(plan), plan["base"]["image_id"]):
        raise UsageError(
            "the image was not built here from the last plan, which is all that is known of it",
            place=str(reference),
            remedy="build it, and push what was built",
        )


def attached(reference: Reference, media_type: str, platform: str = "linux/amd64") -> bytes:
    """A document that is attached to an image in its registry.

    Args:
        media_type: `SBOM` or `PROVENANCE`.
        platform: Which image of a multi-platform index.

    Raises:
        ImageNotFoundError: The registry has no such image, or none of these documents for it.
        RegistryError: The registry refused or failed.
    """
    from builder.oci.remote.pull import RegistryClient  # noqa: PLC0415

    image = RegistryClient(reference, platform).image_manifest().digest
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

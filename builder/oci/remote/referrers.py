"""What belongs to an image without being part of it: SBOMs, provenance. Found by the image's digest.

Registries without the referrers API keep the list under a tag that is made from the digest.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from builder.errors import ImageNotFoundError
from builder.oci.artifact import Artifact
from builder.oci.manifest import (
    INDEX_TYPES,
    MANIFEST_TYPES,
    OCI_INDEX,
    OCI_MANIFEST,
    Descriptor,
    canonical_json,
    digest_of,
    parse_index,
    parse_object,
)
from builder.oci.remote.push import put_manifest, upload
from builder.oci.remote.transport import Transport
from builder.reference import Reference


def attach(reference: Reference, digest: str, artifacts: Sequence[Artifact]) -> tuple[Descriptor, ...]:
    """Push documents that belong to an image; the same document again is the same manifest.

    Args:
        reference: The image's repository.
        digest: The digest of the image's manifest.

    Returns:
        The documents' own manifests.

    Raises:
        ImageNotFoundError: The registry has no such image.
        RegistryError: The registry refused or failed.
    """
    registry = _writer(reference)
    subject = _manifest(registry, digest)
    blobs = {blob.digest: (blob, content) for artifact in artifacts for blob, content in artifact.blobs}
    for blob, content in blobs.values():
        upload(registry, blob, content)
    attached = tuple(artifact.descriptor(subject) for artifact in artifacts)
    answers = [
        put_manifest(registry, artifact.manifest(subject), descriptor, descriptor.digest)
        for artifact, descriptor in zip(artifacts, attached, strict=True)
    ]
    if not all("OCI-Subject" in answer.headers for answer in answers):
        _list_by_tag(registry, digest, attached)
    return attached


def referrers(reference: Reference, digest: str) -> tuple[Descriptor, ...]:
    """The manifests that belong to an image.

    Raises:
        RegistryError: The registry refused or failed.
    """
    registry = Transport(reference)
    accept = {"Accept": OCI_INDEX}
    try:
        answer = registry.request("GET", f"referrers/{digest}", headers=accept)
    except ImageNotFoundError:
        return _listed(registry, digest)[0]
    with registry.format_errors():
        return parse_index(answer.content, str(reference))


def _manifest(registry: Transport, digest: str) -> Descriptor:
    accept = {"Accept": ", ".join(MANIFEST_TYPES + INDEX_TYPES)}
    answer = registry.request("GET", f"manifests/{digest}", headers=accept)
    registry.verify(digest_of(answer.content), digest)
    return Descriptor(answer.headers.get("Content-Type", OCI_MANIFEST), digest, len(answer.content))


def _writer(reference: Reference) -> Transport:
    registry = Transport(reference)
    return Transport(reference, (f"repository:{registry.path}:pull,push",))


def _tag(digest: str) -> str:
    return digest.replace(":", "-")


def _listed(registry: Transport, digest: str) -> tuple[tuple[Descriptor, ...], list[dict[str, Any]]]:
    try:
        answer = registry.request("GET", f"manifests/{_tag(digest)}", headers={"Accept": OCI_INDEX})
    except ImageNotFoundError:
        return (), []
    with registry.format_errors():
        place = str(registry.reference)
        entries = parse_index(answer.content, place)
        return entries, parse_object(answer.content, place)["manifests"]


def _list_by_tag(registry: Transport, digest: str, attached: Sequence[Descriptor]) -> None:
    known, entries = _listed(registry, digest)
    digests = {each.digest for each in known}
    added = [each.to_json() for each in attached if each.digest not in digests]
    if not added:
        return
    index = canonical_json({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [*entries, *added]})
    put_manifest(registry, index, Descriptor(OCI_INDEX, digest_of(index), len(index)), _tag(digest))

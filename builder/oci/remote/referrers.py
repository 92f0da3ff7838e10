"""What belongs to an image without being part of it: SBOMs, provenance. Found by the image's digest.

Registries without the referrers API keep the list under a tag that is made from the digest.
"""

from __future__ import annotations

from typing import Any

from builder.errors import ImageNotFoundError
from builder.oci.manifest import (
    OCI_INDEX,
    OCI_MANIFEST,
    Descriptor,
    Manifest,
    canonical_json,
    digest_of,
    parse_index,
    parse_object,
)
from builder.oci.remote.push import put_manifest, upload
from builder.oci.remote.transport import Transport
from builder.reference import Reference

EMPTY_TYPE, EMPTY = "application/vnd.oci.empty.v1+json", b"{}"


def attach(reference: Reference, subject: Descriptor, content: bytes, media_type: str) -> str:
    """Push a document that belongs to an image; the same document again is the same manifest.

    Args:
        reference: The image's repository.
        subject: The image's manifest.
        media_type: What the document is: `application/vnd.cyclonedx+json`.

    Returns:
        The digest of the document's own manifest.

    Raises:
        RegistryError: The registry refused or failed.
    """
    registry = _writer(reference)
    document = Descriptor(media_type, digest_of(content), len(content))
    empty = Descriptor(EMPTY_TYPE, digest_of(EMPTY), len(EMPTY))
    for descriptor, data in ((document, content), (empty, EMPTY)):
        upload(registry, descriptor, data)
    manifest = Manifest(OCI_MANIFEST, empty, (document,), {}, subject, media_type).to_bytes()
    descriptor = Descriptor(OCI_MANIFEST, digest_of(manifest), len(manifest))
    answer = put_manifest(registry, manifest, descriptor, descriptor.digest)
    if "OCI-Subject" not in answer.headers:
        _list_by_tag(registry, subject.digest, descriptor, media_type)
    return descriptor.digest


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


def _list_by_tag(registry: Transport, digest: str, added: Descriptor, artifact_type: str) -> None:
    _, entries = _listed(registry, digest)
    ours = added.to_json() | {"artifactType": artifact_type}
    if any(entry["digest"] == added.digest for entry in entries):
        return
    index = canonical_json({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [*entries, ours]})
    put_manifest(registry, index, Descriptor(OCI_INDEX, digest_of(index), len(index)), _tag(digest))

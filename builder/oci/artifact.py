"""A document that belongs to an image without being part of it: an SBOM, a provenance.

Source: https://github.com/opencontainers/image-spec/blob/v1.1.0/manifest.md#guidelines-for-artifact-usage.
"""

from __future__ import annotations

from dataclasses import dataclass

from builder.oci.manifest import OCI_MANIFEST, Descriptor, Manifest, digest_of

EMPTY_TYPE, EMPTY = "application/vnd.oci.empty.v1+json", b"{}"


@dataclass(frozen=True)
class Artifact:
    """One document; with the same image it always has the same manifest.

    Attributes:
        media_type: What it is: `application/vnd.cyclonedx+json`.
    """

    media_type: str
    content: bytes

    @property
    def blobs(self) -> tuple[tuple[Descriptor, bytes], ...]:
        """What its manifest refers to."""
        return (
            (_descriptor(EMPTY_TYPE, EMPTY), EMPTY),
            (_descriptor(self.media_type, self.content), self.content),
        )

    def manifest(self, subject: Descriptor) -> bytes:
        """The manifest that makes it a document of that image."""
        (empty, _), (document, _) = self.blobs
        image = Descriptor(subject.media_type, subject.digest, subject.size)
        return Manifest(OCI_MANIFEST, empty, (document,), {}, image, self.media_type).to_bytes()

    def descriptor(self, subject: Descriptor) -> Descriptor:
        """The manifest as an index names it."""
        manifest = self.manifest(subject)
        return Descriptor(OCI_MANIFEST, digest_of(manifest), len(manifest), artifact_type=self.media_type)


def _descriptor(media_type: str, content: bytes) -> Descriptor:
    return Descriptor(media_type, digest_of(content), len(content))

"""Manifests, indexes and descriptors of the OCI image specification, and what docker wrote before it.

Source: https://github.com/opencontainers/image-spec/blob/v1.1.0/manifest.md, image-index.md, descriptor.md.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from builder.errors import ImageFormatError

OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
OCI_INDEX = "application/vnd.oci.image.index.v1+json"
OCI_CONFIG = "application/vnd.oci.image.config.v1+json"
OCI_LAYER = "application/vnd.oci.image.layer.v1.tar"
OCI_LAYER_GZIP = "application/vnd.oci.image.layer.v1.tar+gzip"
DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_INDEX = "application/vnd.docker.distribution.manifest.list.v2+json"
MANIFEST_TYPES = (OCI_MANIFEST, DOCKER_MANIFEST)
INDEX_TYPES = (OCI_INDEX, DOCKER_INDEX)

# The same bytes under the name that an OCI manifest gives them.
_OCI_NAMES = {
    "application/vnd.docker.image.rootfs.diff.tar.gzip": OCI_LAYER_GZIP,
    "application/vnd.docker.image.rootfs.diff.tar": OCI_LAYER,
    "application/vnd.docker.image.rootfs.diff.tar.zstd": f"{OCI_LAYER}+zstd",
    "application/vnd.docker.container.image.v1+json": OCI_CONFIG,
}
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")


@dataclass(frozen=True)
class Descriptor:
    """What a blob or manifest is, by its content.

    Attributes:
        platform: `os/architecture`, for a manifest in an index.
        artifact_type: What a manifest in an index is, where it is no image.
    """

    media_type: str
    digest: str
    size: int
    platform: str | None = None
    annotations: Mapping[str, str] = field(default_factory=dict)
    artifact_type: str | None = None

    def to_json(self) -> dict[str, Any]:
        """The descriptor as manifests hold it."""
        document: dict[str, Any] = {"mediaType": self.media_type, "digest": self.digest, "size": self.size}
        if self.platform:
            system, _, architecture = self.platform.partition("/")
            document["platform"] = {"os": system, "architecture": architecture}
        if self.annotations:
            document["annotations"] = dict(self.annotations)
        if self.artifact_type:
            document["artifactType"] = self.artifact_type
        return document


@dataclass(frozen=True)
class Manifest:
    """What a manifest says: one image's config and layers, base first.

    Attributes:
        subject: The image that this one belongs to, for an SBOM or a provenance.
    """

    media_type: str
    config: Descriptor
    layers: tuple[Descriptor, ...]
    annotations: Mapping[str, str] = field(default_factory=dict)
    subject: Descriptor | None = None
    artifact_type: str | None = None

    def to_bytes(self) -> bytes:
        """The manifest as canonical JSON."""
        document: dict[str, Any] = {
            "schemaVersion": 2,
            "mediaType": self.media_type,
            "config": self.config.to_json(),
            "layers": [layer.to_json() for layer in self.layers],
        }
        if self.artifact_type:
            document["artifactType"] = self.artifact_type
        if self.annotations:
            document["annotations"] = dict(self.annotations)
        if self.subject:
            document["subject"] = self.subject.to_json()
        return canonical_json(document)


def canonical_json(document: Any) -> bytes:
    """The one way a document of ours is written: keys sorted, no spaces, UTF-8."""
    return json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def digest_of(content: bytes) -> str:
    """`sha256:` and the hex digest."""
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def check_digest(text: object, place: str) -> str:
    """The digest, when it is one.

    Raises:
        ImageFormatError: It is not `sha256:` and 64 hex digits: it may become a file's name.
    """
    if not isinstance(text, str) or not _DIGEST.fullmatch(text):
        raise ImageFormatError(f"the digest {shown(text)}, expected sha256: and 64 hex digits", place=place)
    return text


def shown(value: object) -> str:
    """What was met, short enough for a message."""
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}…"


def parse_object(content: bytes, place: str) -> dict[str, Any]:
    """A JSON object.

    Raises:
        ImageFormatError: It is something else.
    """
    try:
        document = json.loads(content)
    except (ValueError, RecursionError):
        raise ImageFormatError("what is not JSON", place=place) from None
    if not isinstance(document, dict):
        raise ImageFormatError("JSON that is not an object", place=place)
    return document


def parse_descriptor(document: object, place: str) -> Descriptor:
    """Read a descriptor that may be hostile.

    Raises:
        ImageFormatError: It is not one.
    """
    if not isinstance(document, dict):
        raise ImageFormatError(f"{shown(document)} in place of a descriptor", place=place)
    size, media_type = document.get("size"), document.get("mediaType")
    artifact_type = document.get("artifactType")
    if type(size) is not int or size < 0:
        raise ImageFormatError(f"the size {shown(size)} of a blob, expected a count of bytes", place=place)
    if not isinstance(media_type, str):
        raise ImageFormatError(f"the media type {shown(media_type)} of a blob", place=place)
    return Descriptor(
        media_type=media_type,
        digest=check_digest(document.get("digest"), place),
        size=size,
        platform=_platform(document.get("platform")),
        annotations=_strings(document.get("annotations"), place),
        artifact_type=artifact_type if isinstance(artifact_type, str) else None,
    )


def parse_manifest(content: bytes, place: str, media_type: str | None = None) -> Manifest:
    """Read a manifest that may be hostile.

    Args:
        place: Where it comes from, for the message.
        media_type: What its descriptor or the registry called it, for one that does not say so itself.

    Raises:
        ImageFormatError: It is not a manifest with config and layers.
    """
    document = parse_object(content, place)
    media_type = document.get("mediaType") or media_type
    if media_type not in MANIFEST_TYPES:
        raise ImageFormatError(f"a manifest of the media type {shown(media_type)}", place=place)
    layers = document.get("layers")
    if not isinstance(layers, list) or "config" not in document:
        raise ImageFormatError("a manifest without config and layers", place=place)
    subject = document.get("subject")
    artifact_type = document.get("artifactType")
    return Manifest(
        media_type=str(media_type),
        config=parse_descriptor(document["config"], place),
        layers=tuple(parse_descriptor(layer, place) for layer in layers),
        annotations=_strings(document.get("annotations"), place),
        subject=parse_descriptor(subject, place) if subject is not None else None,
        artifact_type=artifact_type if isinstance(artifact_type, str) else None,
    )


def parse_index(content: bytes, place: str) -> tuple[Descriptor, ...]:
    """The manifests of an index.

    Raises:
        ImageFormatError: It is not an index.
    """
    manifests = parse_object(content, place).get("manifests")
    if not isinstance(manifests, list):
        raise ImageFormatError("an index without manifests", place=place)
    return tuple(parse_descriptor(entry, place) for entry in manifests)


def of_platform(manifests: tuple[Descriptor, ...], platform: str, place: str) -> Descriptor:
    """The manifest for a platform; one that names no platform is taken where it is the only one.

    Raises:
        ImageFormatError: There is none.
    """
    images = [each for each in manifests if each.media_type in (*MANIFEST_TYPES, *INDEX_TYPES)]
    found = [each for each in images if each.platform == platform]
    if not found and len(images) == 1 and images[0].platform is None:
        found = images
    if not found:
        offers = ", ".join(str(each.platform) for each in images) or "no platform at all"
        raise ImageFormatError(f"the image is not for {platform}, only for {offers}", place=place)
    return found[0]


def parse_config(content: bytes, place: str) -> dict[str, Any]:
    """Read an image's config that may be hostile; what images are made from has its types afterwards.

    Raises:
        ImageFormatError: It is not one.
    """
    document = parse_object(content, place)
    settings = document.get("config") or {}
    if not isinstance(settings, dict):
        raise ImageFormatError(f"a config with the settings {shown(settings)}", place=place)
    env, history = settings.get("Env") or [], document.get("history") or []
    if not isinstance(env, list) or not all(isinstance(line, str) for line in env):
        raise ImageFormatError(f"a config with the environment {shown(env)}", place=place)
    if not isinstance(history, list):
        raise ImageFormatError(f"a config with the history {shown(history)}", place=place)
    _strings(settings.get("Labels"), place, "labels")
    return document


def diff_ids(config: dict[str, Any], place: str) -> list[str]:
    """The diff ids of a config's layers, base first.

    Raises:
        ImageFormatError: It has no list of them.
    """
    rootfs = config.get("rootfs")
    found = rootfs.get("diff_ids") if isinstance(rootfs, dict) else None
    if not isinstance(found, list):
        raise ImageFormatError("a config without the list of its layers (rootfs.diff_ids)", place=place)
    return [check_digest(each, place) for each in found]


def oci_name(media_type: str) -> str:
    """The name that OCI gives to a blob that docker's own manifest may name otherwise."""
    return _OCI_NAMES.get(media_type, media_type)


def _platform(document: object) -> str | None:
    if not isinstance(document, dict):
        return None
    return f"{document.get('os')}/{document.get('architecture')}"


def _strings(document: object, place: str, name: str = "annotations") -> dict[str, str]:
    if document is None:
        return {}
    if not isinstance(document, dict) or not all(isinstance(value, str) for value in document.values()):
        raise ImageFormatError(f"{name} that are no strings: {shown(document)}", place=place)
    return document

"""An image as a value: what it is made of, and how a new one is made from it. Nothing here touches a disk."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from typing import IO, Any

from builder.errors import ImageFormatError
from builder.oci.manifest import (
    INDEX_TYPES,
    OCI_CONFIG,
    OCI_INDEX,
    OCI_MANIFEST,
    Descriptor,
    Manifest,
    canonical_json,
    diff_ids,
    digest_of,
    oci_name,
    of_platform,
    parse_config,
    parse_index,
    parse_manifest,
    parse_object,
)

Opener = Callable[[], AbstractContextManager[IO[bytes]]]
BlobOpener = Callable[[Descriptor], AbstractContextManager[IO[bytes]]]
# What is read whole; registries themselves take manifests of up to 4 MiB.
DOCUMENT_BYTES = 8 << 20


@dataclass(frozen=True)
class Layer:
    """A layer: known by its digests, its bytes where they are until somebody opens them.

    Attributes:
        digest: Of the compressed bytes, as they travel.
        diff_id: Of the tar inside, as the config names it.
        size: Compressed bytes.
        unpacked: Bytes of the tar, None where nobody has counted them.
        open: Opens the compressed bytes as a seekable file, verified once read to the end.
        repository: Host and path of the repository that it comes from, where it comes from a registry: a push
            to the same registry takes it from there.
    """

    digest: str
    diff_id: str
    size: int
    unpacked: int | None = field(compare=False)
    media_type: str
    open: Opener = field(compare=False, repr=False)
    repository: tuple[str, str] | None = field(default=None, compare=False)

    @property
    def descriptor(self) -> Descriptor:
        """The layer as a manifest names it."""
        return Descriptor(self.media_type, self.digest, self.size)


@dataclass(frozen=True)
class Image:
    """An image: its config and manifest to the byte, and its layers, base first."""

    config: bytes
    manifest: bytes
    media_type: str
    layers: tuple[Layer, ...]

    @property
    def images(self) -> tuple[Image, ...]:
        """Itself, as an index has several."""
        return (self,)

    @functools.cached_property
    def digest(self) -> str:
        """The manifest's digest: what a registry calls the image."""
        return digest_of(self.manifest)

    @functools.cached_property
    def id(self) -> str:
        """The config's digest: what an engine calls the image."""
        return digest_of(self.config)

    @functools.cached_property
    def document(self) -> dict[str, Any]:
        """The config, read."""
        return parse_object(self.config, self.id)

    @property
    def platform(self) -> str:
        """`os/architecture`."""
        return f"{self.document.get('os')}/{self.document.get('architecture')}"

    @property
    def labels(self) -> dict[str, str]:
        """The labels of the config."""
        return dict((self.document.get("config") or {}).get("Labels") or {})

    @property
    def onbuild(self) -> tuple[str, ...]:
        """Steps that a Dockerfile runs which is FROM it: https://docs.docker.com/reference/dockerfile/#onbuild."""
        return tuple((self.document.get("config") or {}).get("OnBuild") or ())

    @property
    def descriptor(self) -> Descriptor:
        """The image as an index names it."""
        return Descriptor(self.media_type, self.digest, len(self.manifest), platform=self.platform)

    @property
    def config_descriptor(self) -> Descriptor:
        """The config as the manifest names it."""
        return parse_manifest(self.manifest, self.digest, self.media_type).config


@dataclass(frozen=True)
class Index:
    """The images of one thing for several platforms."""

    images: tuple[Image, ...]

    @functools.cached_property
    def manifest(self) -> bytes:
        """The index as canonical JSON."""
        entries = [image.descriptor.to_json() for image in self.images]
        return canonical_json({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": entries})

    @property
    def digest(self) -> str:
        """The digest of the index."""
        return digest_of(self.manifest)

    @property
    def descriptor(self) -> Descriptor:
        """The index as another index names it."""
        return Descriptor(OCI_INDEX, self.digest, len(self.manifest))


@dataclass(frozen=True)
class Addendum:
    """A layer to append, and what made it: the line that `docker history` shows."""

    layer: Layer
    created_by: str


@dataclass(frozen=True)
class Changes:
    """What a new image changes in the config of the old one; None leaves a key as it is.

    An entrypoint without a command takes the old command away, as it does in a Dockerfile.
    """

    env: Mapping[str, str] = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict)
    user: str | None = None
    workdir: str | None = None
    entrypoint: Sequence[str] | None = None
    cmd: Sequence[str] | None = None


def empty(platform: str) -> Image:
    """An image without layers, to append to: `FROM scratch`."""
    system, _, architecture = platform.partition("/")
    config = {"os": system, "architecture": architecture, "config": {}, "rootfs": _rootfs(()), "history": []}
    return _image(canonical_json(config), (), {})


def open_image(top: Descriptor, opener: BlobOpener, platform: str, place: str) -> Image:
    """The image of a manifest or index, from wherever its blobs can be opened; layers stay closed.

    Args:
        opener: Opens a blob or manifest of that place.
        platform: Which image of an index; of a single one, what it must be.
        place: For the messages.

    Raises:
        ImageFormatError: It is no image, or none for that platform.
    """
    if top.media_type in INDEX_TYPES:
        index = parse_index(read_document(opener, top, place), place)
        return open_image(of_platform(index, platform, place), opener, platform, place)
    content = read_document(opener, top, place)
    manifest = parse_manifest(content, place, top.media_type)
    config = read_document(opener, manifest.config, place)
    ids = diff_ids(parse_config(config, place), place)
    if len(ids) != len(manifest.layers):
        raise ImageFormatError(
            f"a manifest with {len(manifest.layers)} layers over a config with {len(ids)}", place=place
        )
    layers = tuple(
        Layer(each.digest, diff_id, each.size, None, each.media_type, functools.partial(opener, each))
        for each, diff_id in zip(manifest.layers, ids, strict=True)
    )
    image = Image(config, content, manifest.media_type, layers)
    if image.platform != platform:
        raise ImageFormatError(f"the image is not for {platform}, only for {image.platform}", place=place)
    return image


def read_document(opener: BlobOpener, descriptor: Descriptor, place: str) -> bytes:
    """A manifest, index or config, whole.

    Raises:
        ImageFormatError: It is larger than any of these can be, or not what its descriptor says.
    """
    if descriptor.size > DOCUMENT_BYTES:
        raise ImageFormatError(f"{descriptor.size} bytes of {descriptor.media_type}", place=place)
    with opener(descriptor) as file:
        content = file.read(DOCUMENT_BYTES + 1)
    if digest_of(content) != descriptor.digest:
        raise ImageFormatError(
            f"content with the digest {digest_of(content)}, expected {descriptor.digest}", place=place
        )
    return content


def with_layers(config: bytes, layers: Sequence[Layer]) -> Image:
    """The image of a config whose layers are these, in whatever compression: its id stays the same."""
    return _image(config, tuple(layers), {})


def append(base: Image, additions: Sequence[Addendum], changes: Changes, epoch: int) -> Image:
    """A new image: the base, then the additions, then the changes of its config.

    Args:
        epoch: The one moment that the image knows, in seconds since 1970.
    """
    created = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(epoch))
    document = base.document | {"created": created}
    layers = (*base.layers, *(each.layer for each in additions))
    document["config"] = _changed(document.get("config") or {}, changes)
    document["rootfs"] = _rootfs(tuple(layer.diff_id for layer in layers))
    document["history"] = [
        *_history(base),
        *({"created_by": each.created_by} for each in additions),
    ]
    annotations = parse_manifest(base.manifest, base.digest, base.media_type).annotations
    return _image(canonical_json(document), layers, annotations)


def merged_env(before: Sequence[str], changes: Mapping[str, str]) -> list[str]:
    """`NAME=value` lines: the old ones in their places, changed or not, then the new ones by name."""
    names = [line.partition("=")[0] for line in before]
    kept = [
        f"{name}={changes[name]}" if name in changes else line
        for name, line in zip(names, before, strict=True)
    ]
    return kept + [f"{name}={value}" for name, value in sorted(changes.items()) if name not in names]


def _changed(config: Mapping[str, Any], changes: Changes) -> dict[str, Any]:
    changed = dict(config)
    if changes.env:
        changed["Env"] = merged_env(config.get("Env") or [], changes.env)
    if changes.labels:
        changed["Labels"] = {**(config.get("Labels") or {}), **changes.labels}
    if changes.entrypoint is not None:
        changed["Entrypoint"] = list(changes.entrypoint)
        changed.pop("Cmd", None)
    if changes.cmd is not None:
        changed["Cmd"] = list(changes.cmd)
    for key, value in (("User", changes.user), ("WorkingDir", changes.workdir)):
        if value is not None:
            changed[key] = value
    return changed


def _history(base: Image) -> list[dict[str, Any]]:
    """The base's history; one line per layer where it has none, since engines match the two by count."""
    kept = [entry for entry in base.document.get("history") or () if isinstance(entry, dict)]
    if sum(not entry.get("empty_layer") for entry in kept) == len(base.layers):
        return kept
    return [{"created_by": f"base {layer.digest}"} for layer in base.layers]


def _rootfs(diff_ids: tuple[str, ...]) -> dict[str, Any]:
    return {"type": "layers", "diff_ids": list(diff_ids)}


def _image(config: bytes, layers: tuple[Layer, ...], annotations: Mapping[str, str]) -> Image:
    named = tuple(replace(each, media_type=oci_name(each.media_type)) for each in layers)
    manifest = Manifest(
        media_type=OCI_MANIFEST,
        config=Descriptor(OCI_CONFIG, digest_of(config), len(config)),
        layers=tuple(each.descriptor for each in named),
        annotations=annotations,
    )
    return Image(config, manifest.to_bytes(), OCI_MANIFEST, named)

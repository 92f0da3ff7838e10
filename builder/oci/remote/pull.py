"""What an image registry holds, verified by its digests: an image, its layers only when they are needed."""

from __future__ import annotations

import functools
import hashlib
import json
import tarfile
import tempfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import IO, Any

import requests

from builder.errors import BlobError, ImageFormatError, ImageNotFoundError, RegistryError, UsageError
from builder.oci.blobs import Blobs
from builder.oci.cache import Cache
from builder.oci.image import DOCUMENT_BYTES, Image, open_image
from builder.oci.manifest import (
    INDEX_TYPES,
    MANIFEST_TYPES,
    Descriptor,
    Manifest,
    digest_of,
    of_platform,
    parse_config,
    parse_index,
    parse_manifest,
    parse_object,
)
from builder.oci.remote import transport
from builder.oci.remote.transport import Transport
from builder.oci.streams import CHUNK
from builder.reference import Reference

IN_MEMORY_BYTES = 32_000_000
# Tries in a row that bring not one byte.
FRUITLESS_TRIES = 5
_TYPES = (*MANIFEST_TYPES, *INDEX_TYPES)

Write = Callable[[bytes], object]


@dataclass(frozen=True)
class RemoteManifest:
    """A manifest or index as a registry holds it, its digest computed from its bytes."""

    digest: str
    media_type: str
    content: bytes

    @property
    def document(self) -> dict[str, Any]:
        """The manifest, read."""
        document: dict[str, Any] = json.loads(self.content)
        return document

    @property
    def descriptor(self) -> Descriptor:
        """What another manifest would call it."""
        return Descriptor(self.media_type, self.digest, len(self.content))


class RegistryClient:
    """Reads one image from its registry.

    Args:
        reference: The image; by digest where it has one, else by tag.
        platform: Which image of a multi-platform index.

    Raises:
        UsageError: The reference has neither tag nor digest.
    """

    def __init__(self, reference: Reference, platform: str = "linux/amd64") -> None:
        if not (reference.digest or reference.tag):
            raise UsageError(f"the image reference {str(reference)!r} has neither tag nor digest")
        self.reference = reference
        self.transport = Transport(reference)
        self._platform = platform
        self._manifests: dict[str, RemoteManifest] = {}
        self._kept: Blobs | None = None

    def manifest(self) -> RemoteManifest:
        """The manifest or index that the reference named when this client first asked.

        Raises:
            ImageNotFoundError: The registry has no such image.
            RegistryDeniedError: It wants other credentials.
            RegistryUnavailableError: It does not answer.
            RegistryError: It answered something else than was asked for.
        """
        return self._manifest(str(self.reference.digest or self.reference.tag))

    def digest(self) -> str:
        """The digest of `manifest`, and its errors."""
        return self.manifest().digest

    def image_manifest(self) -> RemoteManifest:
        """The manifest of the platform's image, also where the reference names an index."""
        top = self.manifest()
        if top.media_type not in INDEX_TYPES:
            return top
        with self.transport.format_errors():
            entries = parse_index(top.content, str(self.reference))
        try:
            return self._manifest(of_platform(entries, self._platform, str(self.reference)).digest)
        except ImageFormatError as error:
            raise RegistryError(error.message, place=error.place) from None

    def config(self) -> dict[str, Any]:
        """The image configuration of the platform's image: environment, labels, history."""
        with self._blob(self._parsed().config) as blob, self.transport.format_errors():
            return parse_config(blob.read(DOCUMENT_BYTES), str(self.reference))

    def labels(self) -> dict[str, str]:
        """The image's labels."""
        return dict((self.config().get("config") or {}).get("Labels") or {})

    def document(self) -> bytes:
        """The content of what is no image but one document: an SBOM, a provenance.

        Raises:
            RegistryError: As `manifest`; or it is something else.
        """
        layers = self._parsed().layers
        if len(layers) != 1 or layers[0].size > DOCUMENT_BYTES:
            raise self.transport.odd("a manifest that is not of one document")
        with self._blob(layers[0]) as blob:
            return blob.read()

    def image_ids(self) -> tuple[str, ...]:
        """All digests that an engine may call this image's id: of its config, manifest or index."""
        return (self._parsed().config.digest, self.image_manifest().digest, self.manifest().digest)

    def read_file(self, path: str) -> bytes | None:
        """The content of a file of the image, None when no layer has it.

        Layers are read from the last to the first, each whole, until one has the file.

        Args:
            path: Without the leading slash: `opt/trainpack/image.json`.
        """
        for layer in reversed(self._parsed().layers):
            with self._blob(layer) as blob:
                content = self._member(blob, path)
            if content is not None:
                return content
        return None

    def image(self, cache: Cache) -> Image:
        """The platform's image as a value; a layer is fetched into the cache when it is first opened.

        Of an image that is named by its digest, what the cache has is not asked for.

        Raises:
            RegistryError: As `manifest`; or it is not an image for the platform.
        """
        self._kept, opener = cache.blobs, functools.partial(self._open, cache)
        try:
            image = open_image(self.manifest().descriptor, opener, self._platform, str(self.reference))
        except ImageFormatError as error:
            raise RegistryError(error.message, place=error.place) from None
        home = (self.transport.host, self.transport.path)
        return replace(image, layers=tuple(replace(layer, repository=home) for layer in image.layers))

    def fetch(self, blob: Descriptor, blobs: Blobs) -> None:
        """Bring a blob into a folder of blobs, verified; a cut connection goes on where it was cut.

        Raises:
            RegistryError: The registry failed for good, or gave other bytes.
        """
        with blobs.writer(blob.digest) as writer:
            try:
                _Download(self.transport, blob, writer.write).run()
            except ImageNotFoundError:
                what = f"a manifest that names the blob {blob.digest}, which it does not have"
                raise self.transport.odd(what) from None

    @contextmanager
    def _blob(self, blob: Descriptor) -> Iterator[IO[bytes]]:
        """A blob as a file, verified by its digest; large ones are kept on disk while they are open."""
        with tempfile.SpooledTemporaryFile(max_size=IN_MEMORY_BYTES) as file:
            _Download(self.transport, blob, file.write).run()
            file.seek(0)
            yield file

    @contextmanager
    def _open(self, cache: Cache, blob: Descriptor) -> Iterator[IO[bytes]]:
        if blob.media_type in _TYPES:
            with tempfile.SpooledTemporaryFile(max_size=DOCUMENT_BYTES) as file:
                file.write(self._manifest(blob.digest).content)
                file.seek(0)
                yield file
            return
        with cache.lock(blob.digest):
            if not cache.blobs.has(blob.digest, blob.size):
                self.fetch(blob, cache.blobs)
        with cache.blobs.open(blob.digest) as kept:
            yield kept

    def _parsed(self) -> Manifest:
        image = self.image_manifest()
        with self.transport.format_errors():
            return parse_manifest(image.content, str(self.reference), image.media_type)

    def _manifest(self, name: str) -> RemoteManifest:
        if name not in self._manifests:
            found = self._recall(name) or self._fetch_manifest(name)
            self._manifests |= {name: found, found.digest: found}
        return self._manifests[name]

    def _recall(self, digest: str) -> RemoteManifest | None:
        """A manifest that was fetched before, when it says itself what it is."""
        if self._kept is None or not digest.startswith("sha256:"):
            return None
        try:
            with self._kept.open(digest) as file:
                content = file.read(DOCUMENT_BYTES)
        except BlobError:
            return None
        media_type = parse_object(content, digest).get("mediaType")
        return RemoteManifest(digest, str(media_type), content) if media_type in _TYPES else None

    def _fetch_manifest(self, name: str) -> RemoteManifest:
        accept = {"Accept": ", ".join(_TYPES)}
        response = self.transport.request("GET", f"manifests/{name}", headers=accept)
        digest = digest_of(response.content)
        announced = response.headers.get("Docker-Content-Digest", digest)
        self.transport.verify(digest, name if name.startswith("sha256:") else announced)
        with self.transport.format_errors():
            document = parse_object(response.content, str(self.reference))
        media_type = document.get("mediaType") or response.headers.get("Content-Type", "")
        if media_type not in _TYPES:
            raise self.transport.odd(f"a manifest of the media type {media_type!r}")
        if self._kept is not None:
            self._kept.put(response.content)
        return RemoteManifest(digest=digest, media_type=media_type, content=response.content)

    def _member(self, blob: IO[bytes], path: str) -> bytes | None:
        try:
            with tarfile.open(fileobj=blob, mode="r:*") as archive:
                for member in archive:
                    if member.isfile() and member.name.removeprefix("./") == path:
                        if member.size > IN_MEMORY_BYTES:
                            raise self.transport.odd(f"a layer whose {path} has {member.size} bytes")
                        file = archive.extractfile(member)
                        return file.read() if file else None
        except (tarfile.TarError, EOFError, OSError, zlib.error) as error:
            raise RegistryError(f"a layer cannot be read: {error}", place=str(self.reference)) from None
        return None


class _Download:
    """One blob on its way; after a cut it asks for the rest only."""

    def __init__(self, transport: Transport, blob: Descriptor, write: Write) -> None:
        self._transport = transport
        self._blob = blob
        self._write = write
        self._hasher = hashlib.sha256()
        self._received = 0

    def run(self) -> None:
        """Receive all of it.

        Raises:
            RegistryError: The registry failed for good, or gave other bytes.
        """
        fruitless = 0
        while fruitless < FRUITLESS_TRIES:
            before = self._received
            try:
                self._receive()
            except requests.RequestException as error:
                failure = error
            else:
                self._transport.verify(f"sha256:{self._hasher.hexdigest()}", self._blob.digest)
                return
            fruitless = 0 if self._received > before else fruitless + 1
            self._transport.sleep(transport.pause(fruitless + 1))
        raise self._transport.unavailable(failure)

    def _receive(self) -> None:
        # What a blob is compressed with is part of it: nothing on the way may undo or add to it.
        headers = {"Accept-Encoding": "identity"}
        if self._received:
            headers["Range"] = f"bytes={self._received}-"
        path = f"blobs/{self._blob.digest}"
        with self._transport.request(
            "GET", path, headers=headers, accept=(200, 206), stream=True
        ) as response:
            known = self._received if response.status_code == 200 else 0
            for chunk in response.iter_content(CHUNK):
                self._take(chunk[known:])
                known = max(0, known - len(chunk))

    def _take(self, chunk: bytes) -> None:
        self._received += len(chunk)
        if self._received > self._blob.size:
            raise self._transport.odd(f"more than the {self._blob.size} bytes of {self._blob.digest}")
        self._hasher.update(chunk)
        self._write(chunk)

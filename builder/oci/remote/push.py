"""Pushing an image: the blobs that the registry lacks, several at once; the tag when all are there."""

from __future__ import annotations

import functools
import io
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence, Set
from concurrent.futures import FIRST_EXCEPTION, CancelledError, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass
from typing import IO

import requests

from builder.errors import BlobError, ImageNotFoundError, RegistryError, RegistryUnavailableError, UsageError
from builder.oci.image import Image, Index, Layer, Opener
from builder.oci.manifest import INDEX_TYPES, MANIFEST_TYPES, Descriptor, digest_of, parse_manifest
from builder.oci.remote import transport
from builder.oci.remote.names import endpoint
from builder.oci.remote.transport import Body, Transport
from builder.reference import Reference

# Larger blobs go in pieces, so that a cut connection costs at most one.
PIECE_BYTES = 32 << 20
UPLOADS_AT_ONCE = 4
# Tries in a row that bring a blob not one byte further.
FRUITLESS_TRIES = 5
_BLOCK = 1 << 18
_OCTETS = "application/octet-stream"

Tell = Callable[[str], None]


class TagTakenError(RegistryError):
    """Another image is under a tag that is not to be moved."""


@dataclass(frozen=True)
class Transfer:
    """What a push did.

    Attributes:
        digest: What the tag now leads to.
        sent: Bytes of bodies that were sent, tries that failed included.
        uploaded, mounted, existing: Number of blobs that were sent, taken from another repository, and there.
        requests: Number of requests.
    """

    digest: str
    sent: int
    uploaded: int
    mounted: int
    existing: int
    requests: int


@dataclass(frozen=True)
class _Blob:
    descriptor: Descriptor
    open: Opener
    repository: str | None


def push(
    image: Image | Index,
    reference: Reference,
    tell: Tell = lambda _: None,
    like: str | None = None,
    *,
    keep_tag: bool = False,
) -> Transfer:
    """Push an image, or several of one index, under the reference's tag.

    The tag is written last: until everything is there, it is what it was before. Layers that come from
    another repository of the same registry are taken from there, and not opened.

    Args:
        tell: Receives one line of progress per blob.
        like: Digest of an image that the repository may still have: where it does, it has that one's layers,
            which are not asked for one by one.
        keep_tag: Refuse to move the tag from another image.

    Raises:
        UsageError: The reference has no tag.
        TagTakenError: Another image is under the tag, and it is not to be moved.
        RegistryError: The registry refused or failed.
        BlobError: A layer's bytes are not those of its digest.
    """
    with Push(reference, tell) as pushing:
        return pushing.finish(image, like, keep_tag=keep_tag)


class Push:
    """A push on its way. Layers may go ahead of their image, while others are still being made.

    Where it ends by an error, the registry has some blobs that no image refers to, until it collects garbage.

    Args:
        reference: What the image will be called.
        tell: Receives one line of progress per blob.

    Raises:
        UsageError: The reference has no tag.
    """

    def __init__(self, reference: Reference, tell: Tell = lambda _: None) -> None:
        if not reference.tag:
            raise UsageError("a push needs a tag", place=str(reference))
        self._reference = reference
        self._tag = reference.tag
        self._tell = tell
        self._transport = Transport(reference, (f"repository:{endpoint(reference)[1]}:pull,push",))
        self._counts = {"sent": 0, "uploaded": 0, "mounted": 0, "existing": 0}
        self._lock = threading.Lock()
        self._pool = ThreadPoolExecutor(UPLOADS_AT_ONCE, "push")
        self._started: dict[str, Future[None]] = {}

    def __enter__(self) -> Push:
        """It is over when the block is."""
        return self

    def __exit__(self, error: type[BaseException] | None, *_: object) -> None:
        if error:
            # Who waits for an error does not wait for gigabytes that no longer matter.
            self._transport.stop()
        self._pool.shutdown(wait=not error, cancel_futures=True)

    def start(self, layers: Sequence[Layer]) -> None:
        """Send some layers of the image; what goes wrong with them is told by `finish`."""
        blobs = _blobs(layers, endpoint(self._reference))
        self._permit(blobs)
        self._start(blobs)

    def finish(self, image: Image | Index, like: str | None = None, *, keep_tag: bool = False) -> Transfer:
        """Send what is left of an image, and tag it; see `push`."""
        blobs = _image_blobs(image, endpoint(self._reference))
        self._permit(blobs)
        if not self._is_there(image.descriptor, keep_tag=keep_tag):
            known = self._layers_of(like) if like else frozenset()
            self._upload_all(blobs, known)
            if isinstance(image, Index):
                for each in image.images:
                    self._put_manifest(each, each.digest)
            self._put_manifest(image, self._tag)
        return Transfer(digest=image.digest, requests=self._transport.requests, **self._counts)

    def _is_there(self, top: Descriptor, *, keep_tag: bool) -> bool:
        accept = {"Accept": ", ".join(MANIFEST_TYPES + INDEX_TYPES)}
        # Some registries deny reading a repository that the first push will make.
        answer = self._transport.request(
            "HEAD", f"manifests/{self._tag}", headers=accept, accept=(200, 401, 403, 404)
        )
        found = answer.headers.get("Docker-Content-Digest") if answer.status_code == 200 else None
        if keep_tag and answer.status_code == 200 and found != top.digest:
            raise TagTakenError(
                f"the registry has another image under this tag: {found}, not {top.digest}",
                place=str(self._reference),
            )
        return found == top.digest

    def _layers_of(self, digest: str) -> frozenset[str]:
        """The layers of an image of the repository, none where it has no such image any more."""
        accept = {"Accept": ", ".join(MANIFEST_TYPES)}
        answer = self._transport.request(
            "GET", f"manifests/{digest}", headers=accept, accept=(200, 401, 403, 404)
        )
        if answer.status_code != 200 or digest_of(answer.content) != digest:
            return frozenset()
        with self._transport.format_errors():
            manifest = parse_manifest(answer.content, str(self._reference))
        return frozenset(layer.digest for layer in manifest.layers)

    def _permit(self, blobs: Iterable[_Blob]) -> None:
        """Have tokens permit what a mount needs."""
        sources = {blob.repository for blob in blobs if blob.repository}
        self._transport.ask_for(f"repository:{source}:pull" for source in sorted(sources))

    def _start(self, blobs: Iterable[_Blob]) -> None:
        with self._lock:
            for blob in blobs:
                if blob.descriptor.digest not in self._started:
                    self._started[blob.descriptor.digest] = self._pool.submit(self._bring, blob)

    def _upload_all(self, blobs: Sequence[_Blob], known: Set[str]) -> None:
        wanted = {blob.descriptor.digest for blob in blobs}
        left = wanted & known - self._started.keys()
        self._start(blob for blob in blobs if blob.descriptor.digest not in left)
        with self._lock:
            self._counts["existing"] += len(left)
        done, _ = wait(self._started.values(), return_when=FIRST_EXCEPTION)
        for future in done:
            future.result()

    def _bring(self, blob: _Blob) -> None:
        how = self._brought(blob)
        with self._lock:
            self._counts[how] += 1
        if not self._transport.is_stopped:
            self._tell(f"{blob.descriptor.digest[7:19]}: {how}")

    def _brought(self, blob: _Blob) -> str:
        digest = blob.descriptor.digest
        if _has(self._transport, digest):
            return "existing"
        started = self._mounted(digest, blob.repository) if blob.repository else None
        if started is not None and started.status_code == 201:
            return "mounted"
        _Upload(self._transport, blob, self._count_sent).run(started)
        return "uploaded"

    def _mounted(self, digest: str, repository: str) -> requests.Response | None:
        """The answer to a mount: 201, or 202 with the upload that a registry starts in its place."""
        try:
            path = f"blobs/uploads/?mount={digest}&from={repository}"
            return self._transport.request("POST", path, accept=(201, 202))
        except RegistryUnavailableError:
            raise
        except RegistryError:
            return None  # the blob can still be sent

    def _put_manifest(self, image: Image | Index, name: str) -> None:
        put_manifest(self._transport, image.manifest, image.descriptor, name)
        self._count_sent(len(image.manifest))

    def _count_sent(self, count: int) -> None:
        if self._transport.is_stopped:
            raise CancelledError
        with self._lock:
            self._counts["sent"] += count


def put_manifest(registry: Transport, content: bytes, descriptor: Descriptor, name: str) -> requests.Response:
    """Put a manifest under a tag or its digest.

    Raises:
        RegistryError: The registry refused it, or says that it is another one.
    """
    answer = registry.request(
        "PUT",
        f"manifests/{name}",
        headers={"Content-Type": descriptor.media_type},
        body=content,
        accept=(200, 201, 400, 413, 415, 422),
    )
    if answer.status_code not in (200, 201):
        raise RegistryError(
            f"the registry {registry.host} refuses the manifest: {transport.reason(answer)}",
            place=str(registry.reference),
            remedy="whoever runs it knows what it takes; the next try sends no blob again",
        )
    registry.verify(answer.headers.get("Docker-Content-Digest", descriptor.digest), descriptor.digest)
    return answer


def upload(registry: Transport, descriptor: Descriptor, content: bytes) -> None:
    """Send a small blob, unless the registry has it.

    Raises:
        RegistryError: The registry refused or failed.
    """
    if not _has(registry, descriptor.digest):
        blob = _Blob(descriptor, functools.partial(_buffer, content), None)
        _Upload(registry, blob, lambda _: None).run()


def _has(registry: Transport, digest: str) -> bool:
    return registry.request("HEAD", f"blobs/{digest}", accept=(200, 404)).status_code == 200


class _Interrupted(Exception):  # noqa: N818  (what may pass, until `told` says otherwise)
    """An upload was cut or put off.

    Args:
        told: What to tell the user when there is no going on.
        pause: Seconds before the next try, where the registry said so.
    """

    def __init__(self, told: RegistryError, pause: float | None = None) -> None:
        super().__init__(str(told))
        self.told = told
        self.pause = pause


class _Upload:
    """One blob on its way; after a cut it goes on where the registry says that it was cut."""

    def __init__(self, transport: Transport, blob: _Blob, count: Callable[[int], None]) -> None:
        self._transport = transport
        self._blob = blob
        self._count = count
        self._size = blob.descriptor.size
        self._address = ""
        self._piece = PIECE_BYTES
        self._at = 0

    def run(self, started: requests.Response | None = None) -> None:
        """Send what the registry lacks of the blob.

        Args:
            started: The answer that began the upload, where there is one.

        Raises:
            RegistryError: The registry refused or failed for good.
        """
        if started is not None:
            self._begin(started)
        fruitless = furthest = 0
        with self._blob.open() as file:
            while not self._is_sent(file):
                fruitless = 0 if self._at > furthest else fruitless + 1
                furthest = max(furthest, self._at)
                if fruitless == FRUITLESS_TRIES:
                    raise self._failure
                pause = transport.pause(fruitless + 1) if self._pause is None else self._pause
                self._transport.sleep(pause)
                # The answer to its last request may be all that was lost.
                if _has(self._transport, self._blob.descriptor.digest):
                    return
                self._recover()

    def _is_sent(self, file: IO[bytes]) -> bool:
        try:
            self._advance(file)
        except _Interrupted as interruption:
            self._failure, self._pause = interruption.told, interruption.pause
            return False
        return True

    def _advance(self, file: IO[bytes]) -> None:
        if not self._address:
            self._begin(self._transport.request("POST", "blobs/uploads/", accept=(202,)))
        if self._at == 0 and self._size <= self._piece:
            self._finish(lambda: _Part(file, 0, self._size, self._count) if self._size else b"")
            return
        while self._at < self._size:
            self._send_piece(file)
        self._finish(b"")

    def _begin(self, answer: requests.Response) -> None:
        self._address, self._at = self._transport.follow(answer), 0
        smallest = answer.headers.get("OCI-Chunk-Min-Length", "")
        self._piece = max(PIECE_BYTES, int(smallest) if smallest.isdigit() else 0)

    def _send_piece(self, file: IO[bytes]) -> None:
        start, size = self._at, min(self._piece, self._size - self._at)
        headers = {"Content-Type": _OCTETS, "Content-Range": f"{start}-{start + size - 1}"}
        body = functools.partial(_Part, file, start, size, self._count)
        answer = self._send("PATCH", self._address, headers, body, (202, 204))
        self._address = self._transport.follow(answer)
        self._at = _received(answer) or start + size

    def _finish(self, body: Body) -> None:
        joint = "&" if "?" in self._address else "?"
        address = f"{self._address}{joint}digest={self._blob.descriptor.digest}"
        answer = self._send("PUT", address, {"Content-Type": _OCTETS}, body, (201, 204))
        named = answer.headers.get("Docker-Content-Digest", self._blob.descriptor.digest)
        self._transport.verify(named, self._blob.descriptor.digest)

    def _send(
        self, method: str, address: str, headers: dict[str, str], body: Body, accept: tuple[int, ...]
    ) -> requests.Response:
        try:
            answer = self._transport.once(method, address, headers=headers, body=body)
        except requests.RequestException as error:
            raise _Interrupted(self._transport.unavailable(error)) from None
        if answer.status_code == 416:
            raise _Interrupted(self._transport.odd("another count of the bytes that it received"))
        try:
            return self._transport.checked(answer, accept)
        except (RegistryUnavailableError, ImageNotFoundError) as error:
            wait = transport.pause(1, answer) if "Retry-After" in answer.headers else None
            if wait and wait > transport.LONGEST_WAIT_SECONDS:
                raise
            raise _Interrupted(error, wait) from None

    def _recover(self) -> None:
        """Find out how far the upload got, and begin anew where the registry has forgotten it."""
        if not self._address:
            return
        answer = self._transport.request("GET", self._address, accept=(200, 204, 400, 404, 405))
        received = _received(answer) if answer.status_code in (200, 204) else 0
        if not received or received > self._size:
            self._address, self._at = "", 0
            return
        self._at = received
        if "Location" in answer.headers:
            self._address = self._transport.follow(answer)


class _Part:
    """Some bytes of a blob as the body of a request; what is sent is counted."""

    def __init__(self, file: IO[bytes], start: int, size: int, count: Callable[[int], None]) -> None:
        file.seek(start)
        self._file, self._left, self._count = file, size, count

    def __len__(self) -> int:
        return self._left

    def __iter__(self) -> Iterator[bytes]:
        """What requests knows a stream by; it reads nevertheless."""
        while chunk := self.read(_BLOCK):
            yield chunk

    def read(self, size: int) -> bytes:
        """The next bytes; those before the end of a corrupt blob are not given away.

        Raises:
            BlobError: The blob is corrupt or too short.
        """
        chunk = self._file.read(min(size, self._left))
        if self._left and not chunk:
            raise BlobError("the blob is shorter than its manifest says")
        self._left -= len(chunk)
        if not self._left:
            self._file.read(1)  # at the end of the blob, this is where its digest is compared
        self._count(len(chunk))
        return chunk


def _image_blobs(image: Image | Index, target: tuple[str, str]) -> list[_Blob]:
    """The blobs of an image, each once, the large ones first, on their way to a host's repository."""
    found = {}
    for each in image.images:
        config = _Blob(each.config_descriptor, functools.partial(_buffer, each.config), None)
        for blob in (*_blobs(each.layers, target), config):
            found[blob.descriptor.digest] = blob
    return sorted(found.values(), key=lambda blob: -blob.descriptor.size)


def _blobs(layers: Iterable[Layer], target: tuple[str, str]) -> list[_Blob]:
    return [
        _Blob(layer.descriptor, layer.open, _source(layer, target))
        for layer in layers
        # Its bytes may not be passed on; who pulls the image gets them from their own place.
        if "nondistributable" not in layer.media_type and "foreign" not in layer.media_type
    ]


def _source(layer: Layer, target: tuple[str, str]) -> str | None:
    """The other repository of the target's host that a layer can be taken from."""
    host, path = layer.repository or ("", "")
    return path if host == target[0] and path != target[1] else None


@contextmanager
def _buffer(content: bytes) -> Iterator[IO[bytes]]:
    yield io.BytesIO(content)


def _received(answer: requests.Response) -> int:
    """The number of bytes that a registry has; 0 where it does not say or may mean none (`0-0`)."""
    end = answer.headers.get("Range", "").removeprefix("bytes=").partition("-")[2]
    return int(end) + 1 if end.isdigit() and end != "0" else 0

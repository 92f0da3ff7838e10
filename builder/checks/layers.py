"""The layers of an image, read once from the engine's `save` stream: sizes, and what they should not hold.

Memory stays flat: files are passed over as they stream by, but for the small ones that may hold a secret.
"""

from __future__ import annotations

import json
import posixpath
import re
import tarfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import IO, Any, Literal, cast

from builder.checks.leftovers import Found, found_in, may_hold_secret
from builder.errors import ContractError

_CHUNK = 1 << 20
_WHITEOUT = ".wh."
_OPAQUE = ".wh..wh..opq"
# gzip, bzip2, xz, zstd
_PACKED = (b"\x1f\x8b", b"BZh", b"\xfd7zXZ", b"\x28\xb5\x2f\xfd")


@dataclass(frozen=True)
class Layer:
    """One layer of an image.

    Attributes:
        made_by: The step that made it, from the image's history.
        digest: Its diff id, `sha256:…`.
        size: Bytes of its files, unpacked.
        files: How many entries it has.
        found: What should not be in an image.
        hidden: What it takes out of the layers below; a folder whose content it takes out ends with `/`.
    """

    made_by: str
    digest: str
    size: int
    files: int
    found: tuple[Found, ...]
    hidden: frozenset[str]

    def hides(self, path: str) -> bool:
        """Whether the file of a layer below is gone from here on."""
        return path in self.hidden or any(
            parent in self.hidden or f"{parent}/" in self.hidden for parent in _parents(path)
        )


@dataclass(frozen=True)
class SavedImage:
    """An image's configuration (environment, labels, history) and its layers, base first."""

    config: Mapping[str, Any]
    layers: tuple[Layer, ...]


def read_image(chunks: Iterable[bytes]) -> SavedImage:
    """Read what `docker save` writes: an archive of one image, with an OCI layout around it or without.

    Raises:
        ContractError: It is no such archive, or a layer cannot be read.
    """
    documents: dict[str, Any] = {}
    layers: dict[str, Layer] = {}
    links: dict[str, str] = {}
    try:
        with tarfile.open(fileobj=cast("IO[bytes]", _Passing(chunks)), mode="r:") as archive:
            for member in _members(archive):
                name = posixpath.normpath(member.name)
                if member.issym():
                    links[name] = posixpath.normpath(posixpath.join(posixpath.dirname(name), member.linkname))
                elif member.isfile():
                    file = cast("Any", archive.extractfile(member))
                    head = file.peek(tarfile.BLOCKSIZE)
                    if _is_layer(name, head):
                        layers[name] = _read_layer(file, "r|*" if head.startswith(_PACKED) else "r:")
                    elif _is_document(name, head):
                        documents[name] = json.load(file)
        return _image(documents, layers, links)
    except (tarfile.TarError, ValueError, KeyError, IndexError) as error:
        raise ContractError(f"the image cannot be read from the engine: {error!r}") from None


def _image(documents: Mapping[str, Any], layers: Mapping[str, Layer], links: Mapping[str, str]) -> SavedImage:
    entry = documents["manifest.json"][0]
    config = documents[entry["Config"]]
    names = [posixpath.normpath(name) for name in entry["Layers"]]
    digests = config["rootfs"]["diff_ids"]
    steps = [step for step in config.get("history") or () if not step.get("empty_layer")]
    made_by = [step.get("created_by") or "" for step in steps]
    made_by += [""] * (len(names) - len(made_by))
    ordered = (
        Layer(step_title(step), digest, layer.size, layer.files, layer.found, layer.hidden)
        for name, digest, step in zip(names, digests, made_by, strict=False)
        for layer in (layers[links.get(name, name)],)
    )
    return SavedImage(config, tuple(ordered))


def _is_layer(name: str, head: bytes) -> bool:
    # A blob says by its first bytes what it is.
    is_tar = head[257:262] == b"ustar" or head.startswith(_PACKED)
    return name.endswith(".tar") or (name.startswith("blobs/") and is_tar)


def _is_document(name: str, head: bytes) -> bool:
    return (name.endswith(".json") or name.startswith("blobs/")) and head[:1] in (b"{", b"[")


def _read_layer(file: IO[bytes], mode: Literal["r:", "r|*"]) -> Layer:
    size = files = 0
    found: list[Found] = []
    hidden: set[str] = set()
    with tarfile.open(fileobj=file, mode=mode, bufsize=_CHUNK) as archive:
        for member in _members(archive):
            path = posixpath.normpath(f"/{member.name}")
            folder, name = posixpath.split(path)
            if name.startswith(_WHITEOUT):
                hidden.add(
                    f"{folder}/" if name == _OPAQUE else posixpath.join(folder, name.removeprefix(_WHITEOUT))
                )
                continue
            size += member.size
            files += 1
            content = _content(archive, member) if may_hold_secret(path, member) else b""
            found += found_in(path, member, content)
    return Layer("", "", size, files, tuple(found), frozenset(hidden))


def _content(archive: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    return cast("bytes", cast("Any", archive.extractfile(member)).read())


class _Passing:
    """A stream as a file that is read forwards: what is sought over passes by without being copied.

    One byte back is kept, since `tarfile` looks at the last of a member before it goes on.
    """

    def __init__(self, chunks: Iterable[bytes]) -> None:
        self._chunks = iter(chunks)
        self._window = b""
        self._start = self._position = 0

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, position: int) -> int:
        self._position = position
        return position

    def read(self, size: int) -> bytes:
        while (end := self._start + len(self._window)) < self._position + size:
            chunk = next(self._chunks, b"")
            if not chunk:
                break
            kept = max(min(self._position, end - 1), self._start)
            self._window, self._start = self._window[kept - self._start :] + chunk, kept
        if self._position < self._start:
            raise ValueError(f"byte {self._position} is past: the stream is at {self._start}")
        found = self._window[self._position - self._start :][:size]
        self._position += len(found)
        return found


def _members(archive: tarfile.TarFile) -> Iterator[tarfile.TarInfo]:
    # Not the archive's own iterator, which keeps every member until the end.
    while member := archive.next():
        cast("Any", archive).members.clear()
        yield member


def _parents(path: str) -> Iterator[str]:
    while (path := posixpath.dirname(path)) != "/":
        yield path


# How the steps of our Dockerfile are told apart; the first that fits.
_STEPS = {
    "/run/trainpack/heavy/": "heavy wheels",
    "/run/trainpack/light/": "light wheels",
    "/run/trainpack/tools/": "the entrypoint's own environment",
    "/run/trainpack/entrypoint": "the entrypoint",
    "COPY environments/ /": "Python environments",
    "COPY app/ /": "code and manifest",
    "COPY / /": "base",
}


def step_title(created_by: str) -> str:
    """What a layer's line of the history means: the step's title where it is ours, else its command."""
    for sign, title in _STEPS.items():
        if sign in created_by:
            return title
    command = re.sub(r"^/bin/sh -c (#\(nop\) )?|/bin/sh -c | # buildkit$", "", created_by)
    words = " ".join(command.split())
    return words if len(words) <= 60 else f"{words[:59]}…"

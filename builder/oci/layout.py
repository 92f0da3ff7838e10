"""Images in a folder, as an OCI image layout.

Source: https://github.com/opencontainers/image-spec/blob/v1.1.0/image-layout.md.
"""

from __future__ import annotations

import fcntl
import io
import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import IO

from builder.atomic import new_file
from builder.errors import BlobError, ImageFormatError
from builder.oci.artifact import Artifact
from builder.oci.blobs import Blobs
from builder.oci.image import Image, Index, open_image
from builder.oci.manifest import (
    INDEX_TYPES,
    OCI_INDEX,
    Descriptor,
    Manifest,
    canonical_json,
    digest_of,
    of_platform,
    parse_index,
    parse_manifest,
)
from builder.oci.streams import CHUNK, verifying

LAYOUT = b'{"imageLayoutVersion":"1.0.0"}'
REF_NAME = "org.opencontainers.image.ref.name"


def read_layout(folder: Path, platform: str, tag: str | None = None) -> Image:
    """The image of a layout for a platform; its layers stay where they are until they are opened.

    Args:
        tag: Which one, where the layout has several.

    Raises:
        ImageFormatError: It is no layout, or has no such image.
        BlobError: A manifest or config is missing or corrupt.
    """
    place = str(folder)
    return open_image(
        choose(_entries(folder), tag, platform, place), lambda each: _open(folder, each), platform, place
    )


def choose(entries: tuple[Descriptor, ...], tag: str | None, platform: str, place: str) -> Descriptor:
    """Which image of a layout's index is meant.

    Raises:
        ImageFormatError: It has none of that tag, none for that platform, or several.
    """
    entries = tuple(entry for entry in entries if not entry.artifact_type)
    names = [str(entry.annotations.get(REF_NAME)) for entry in entries]
    # Some tools write the whole reference as the name, some only its tag.
    found = tuple(entry for entry, name in zip(entries, names, strict=True) if _is_named(name, tag))
    if not found:
        raise ImageFormatError(f"no image {tag or ''}, only {', '.join(names) or 'none at all'}", place=place)
    if len({each.digest for each in found if each.platform in (platform, None)}) > 1:
        raise ImageFormatError(f"several images for {platform}, name one: {', '.join(names)}", place=place)
    return found[0] if len(found) == 1 else of_platform(found, platform, place)


def write_layout(
    folder: Path,
    image: Image | Index,
    tag: str | None = None,
    artifacts: Mapping[str, Sequence[Artifact]] = MappingProxyType({}),
) -> None:
    """Add an image to a layout, made where it is missing; what bore the tag before loses it.

    Blobs come first and the index last, so that a reader meets whole images only.

    Args:
        artifacts: Documents that belong to an image, by its digest.

    Raises:
        BlobError: A layer's bytes are not those of its digest.
    """
    (folder / "blobs" / "sha256").mkdir(parents=True, exist_ok=True)
    for each in image.images:
        for layer in each.layers:
            _put(folder, layer.digest, layer.size, layer.open())
        for content in (each.config, each.manifest):
            _put_bytes(folder, content)
    _put_bytes(folder, image.manifest)
    documents = [
        (artifact, each.descriptor) for each in image.images for artifact in artifacts.get(each.digest, ())
    ]
    for artifact, subject in documents:
        for content in (*(content for _, content in artifact.blobs), artifact.manifest(subject)):
            _put_bytes(folder, content)
    with _locked(folder):
        _replace(folder / "oci-layout", LAYOUT)
        images = _tagged(_entries_or_none(folder), image.descriptor, tag)
        added = [artifact.descriptor(subject) for artifact, subject in documents]
        _replace(folder / "index.json", _index(folder, images, added))


@dataclass(frozen=True)
class Held:
    """An image of a layout, with everything that it needs there.

    Attributes:
        tag: Its name, None where it has none.
        size: Bytes of its blobs.
        used: When one of its layers was used last.
    """

    tag: str | None
    blobs: frozenset[Path]
    size: int
    used: float


def held_images(folder: Path) -> tuple[Held, ...]:
    """The images of a layout that are whole."""
    return tuple(held for entry in _entries_or_none(folder) if (held := _held(folder, entry)))


def keep_images(folder: Path, keep: Callable[[Held], bool]) -> list[Path]:
    """Forget the images that are not whole, and those that are not to be kept.

    Returns:
        The files of blobs that no image needs; whoever writes one just now has not named it yet.
    """
    if not folder.is_dir():
        return []
    with _locked(folder):
        entries = _entries_or_none(folder)
        found = [(entry, held) for entry in entries if (held := _held(folder, entry)) and keep(held)]
        if len(found) < len(entries):
            _replace(folder / "index.json", _index(folder, tuple(entry for entry, _ in found), ()))
    needed = frozenset[Path]().union(*(held.blobs for _, held in found))
    return [path for path in Blobs(folder).paths() if path not in needed]


def _held(folder: Path, entry: Descriptor) -> Held | None:
    try:
        manifests = dict(_manifests(folder, entry))
        layers = [_path(folder, layer.digest) for each in manifests.values() for layer in each.layers]
        documents = {entry.digest, *manifests, *(each.config.digest for each in manifests.values())}
        blobs = frozenset((*layers, *(_path(folder, digest) for digest in documents)))
        size = sum(path.stat().st_size for path in blobs)
        # Not of documents, which have just been read.
        used = max((path.stat().st_atime for path in layers), default=0.0)
    except (BlobError, ImageFormatError, FileNotFoundError):
        return None
    return Held(entry.annotations.get(REF_NAME), blobs, size, used)


def _manifests(folder: Path, entry: Descriptor) -> Iterator[tuple[str, Manifest]]:
    with _open(folder, entry) as file:
        content = file.read()
    if entry.media_type in INDEX_TYPES:
        for each in parse_index(content, str(folder)):
            yield from _manifests(folder, each)
    else:
        yield entry.digest, parse_manifest(content, str(folder), entry.media_type)


def _is_named(name: str, tag: str | None) -> bool:
    return tag is None or name == tag or name.endswith(f":{tag}")


def _tagged(entries: tuple[Descriptor, ...], added: Descriptor, tag: str | None) -> tuple[Descriptor, ...]:
    others = [each for each in entries if tag is None or each.annotations.get(REF_NAME) != tag]
    kept = [each for each in others if tag is not None or each.digest != added.digest]
    return (*kept, replace(added, annotations={REF_NAME: tag}) if tag else added)


def _index(folder: Path, entries: tuple[Descriptor, ...], documents: Sequence[Descriptor]) -> bytes:
    """The index of these entries, without documents about images that are not in it any more."""
    digests = {each.digest for each in _all_images(folder, entries)}
    images = [each for each in entries if not each.artifact_type]
    kept = [each for each in entries if each.artifact_type and _subject(folder, each) in digests]
    added = [each for each in documents if each.digest not in {old.digest for old in kept}]
    manifests = [each.to_json() for each in (*images, *kept, *added)]
    return canonical_json({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": manifests})


def _all_images(folder: Path, entries: Sequence[Descriptor]) -> Iterator[Descriptor]:
    for entry in entries:
        yield entry
        if entry.media_type in INDEX_TYPES:
            with _open(folder, entry) as file:
                yield from parse_index(file.read(), str(folder))


def _subject(folder: Path, document: Descriptor) -> str | None:
    with _open(folder, document) as file:
        subject = parse_manifest(file.read(), str(folder), document.media_type).subject
    return subject.digest if subject else None


def _entries(folder: Path) -> tuple[Descriptor, ...]:
    try:
        return parse_index((folder / "index.json").read_bytes(), str(folder))
    except (FileNotFoundError, NotADirectoryError):
        raise ImageFormatError("no OCI image layout: it has no index.json", place=str(folder)) from None


def _entries_or_none(folder: Path) -> tuple[Descriptor, ...]:
    return _entries(folder) if (folder / "index.json").exists() else ()


def _path(folder: Path, digest: str) -> Path:
    return folder / "blobs" / "sha256" / digest.removeprefix("sha256:")


@contextmanager
def _open(folder: Path, blob: Descriptor) -> Iterator[IO[bytes]]:
    path = _path(folder, blob.digest)
    try:
        file = path.open("rb", buffering=0)
    except FileNotFoundError:
        remedy = "have a whole copy written"
        raise BlobError(f"the blob {blob.digest} is missing", place=str(folder), remedy=remedy) from None
    with file:
        yield verifying(file, blob.digest, str(path))


def _put_bytes(folder: Path, content: bytes) -> None:
    _put(folder, digest_of(content), len(content), _buffer(content))


@contextmanager
def _buffer(content: bytes) -> Iterator[IO[bytes]]:
    yield io.BytesIO(content)


def _put(folder: Path, digest: str, size: int, source: AbstractContextManager[IO[bytes]]) -> None:
    path = _path(folder, digest)
    if path.exists() and path.stat().st_size == size:
        return
    with new_file(path) as file, source as blob:
        shutil.copyfileobj(blob, file, CHUNK)


def _replace(path: Path, content: bytes) -> None:
    with new_file(path) as file:
        file.write(content)


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Two writers of one index would lose an image."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)

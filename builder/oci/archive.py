"""Images in one tar file: what we write is an OCI layout and what `docker load` reads, both at once.

Reads either, and what `docker save` writes: layers without compression, known by their diff ids alone.
"""

from __future__ import annotations

import hashlib
import io
import posixpath
import tarfile
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from builder.atomic import new_file
from builder.errors import BlobError, ImageFormatError
from builder.oci.image import DOCUMENT_BYTES, BlobOpener, Image, Index, open_image
from builder.oci.layout import LAYOUT, REF_NAME, choose
from builder.oci.manifest import (
    OCI_CONFIG,
    OCI_INDEX,
    OCI_LAYER,
    OCI_LAYER_GZIP,
    OCI_MANIFEST,
    Descriptor,
    Manifest,
    canonical_json,
    diff_ids,
    digest_of,
    parse_index,
    parse_object,
    shown,
)
from builder.oci.remote.names import DEFAULT, endpoint
from builder.oci.streams import CHUNK, section, verifying
from builder.oci.tar import END, Entry, header
from builder.reference import Reference

# The name by which an engine with containerd's store tags what it loads.
CONTAINERD_NAME = "io.containerd.image.name"
_GZIP_MAGIC = b"\x1f\x8b"


@dataclass(frozen=True)
class _Member:
    start: int
    size: int


def read_archive(path: Path, platform: str, name: str | None = None) -> Image:
    """The image of an archive; its layers stay in it until they are opened.

    Args:
        name: Which one, where the archive has several: its tag, or the reference that docker wrote.

    Raises:
        ImageFormatError: It is no archive of images, or has no such image.
        BlobError: A manifest or config is corrupt.
    """
    place = str(path)
    members = _members(path)
    if "index.json" in members:
        entries = parse_index(_read(path, members, "index.json"), place)
        return open_image(
            choose(entries, name, platform, place), _blob_opener(path, members), platform, place
        )
    if "manifest.json" in members:
        return _read_docker(path, members, platform, name)
    raise ImageFormatError("neither index.json nor manifest.json: no archive of images", place=place)


def write_archive(path: Path, image: Image | Index, reference: Reference | None = None) -> None:
    """Write an archive, whole or not at all.

    Raises:
        BlobError: A layer's bytes are not those of its digest.
    """
    with new_file(path) as file:
        for piece in archive(image, reference):
            file.write(piece)


def archive(
    image: Image | Index, reference: Reference | None = None, without: Collection[str] = ()
) -> Iterator[bytes]:
    """An archive as a stream.

    Args:
        reference: What the image is to be called.
        without: Diff ids of layers that are named but left out, since whoever reads it has them.
    """
    written: set[str] = set()
    for each in image.images:
        for layer in each.layers:
            if layer.diff_id not in without and layer.digest not in written:
                written.add(layer.digest)
                with layer.open() as file:
                    yield from _file(_blob_path(layer.digest), layer.size, file)
    documents = {_blob_path(digest_of(each)): each for each in _documents(image)}
    documents["oci-layout"] = LAYOUT
    documents["index.json"] = _index(image, reference)
    if isinstance(image, Image):
        documents["manifest.json"] = _docker_manifest(image, reference)
    for name, content in documents.items():
        yield from _file(name, len(content), io.BytesIO(content))
    yield END


def _documents(image: Image | Index) -> Iterator[bytes]:
    for each in image.images:
        yield from (each.config, each.manifest)
    yield image.manifest


def _blob_path(digest: str) -> str:
    return f"blobs/sha256/{digest.removeprefix('sha256:')}"


def _index(image: Image | Index, reference: Reference | None) -> bytes:
    names = {}
    if reference and reference.tag:
        full = f"{reference.registry or DEFAULT}/{endpoint(reference)[1]}"
        names = {REF_NAME: reference.tag, CONTAINERD_NAME: f"{full}:{reference.tag}"}
    entry = image.descriptor.to_json() | ({"annotations": names} if names else {})
    return canonical_json({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [entry]})


def _docker_manifest(image: Image, reference: Reference | None) -> bytes:
    tags = [f"{reference.repository}:{reference.tag}"] if reference and reference.tag else []
    layers = [_blob_path(layer.digest) for layer in image.layers]
    return canonical_json([{"Config": _blob_path(image.id), "RepoTags": tags, "Layers": layers}])


def _file(name: str, size: int, file: IO[bytes]) -> Iterator[bytes]:
    yield header(Entry(name, "file", 0o644, size=size))
    left = size
    while chunk := file.read(CHUNK):
        left -= len(chunk)
        yield chunk
    if left:
        raise BlobError(f"another size than the {size} bytes that the manifest names", place=name)
    yield bytes(-size % tarfile.BLOCKSIZE)


def _members(path: Path) -> dict[str, _Member]:
    """Where each file of the archive lies; names are looked up only, never used as paths."""
    found: dict[str, _Member] = {}
    links: dict[str, str] = {}
    try:
        with tarfile.open(path, "r:") as tar:
            for member in tar:
                name = posixpath.normpath(member.name)
                if member.isreg():
                    found[name] = _Member(member.offset_data, member.size)
                elif member.issym():
                    links[name] = posixpath.normpath(posixpath.join(posixpath.dirname(name), member.linkname))
    except (tarfile.TarError, EOFError, ValueError) as error:
        remedy = "unpack it first, when it is compressed"
        raise ImageFormatError(f"cannot be read as a tar: {error}", place=str(path), remedy=remedy) from None
    return found | {name: found[target] for name, target in links.items() if target in found}


@contextmanager
def _open(path: Path, members: Mapping[str, _Member], name: str) -> Iterator[IO[bytes]]:
    member = members.get(posixpath.normpath(name))
    if member is None:
        remedy = "have a whole copy written"
        raise BlobError(f"{shown(name)} is missing", place=str(path), remedy=remedy)
    with path.open("rb", buffering=0) as file:
        yield io.BufferedReader(section(file, member.start, member.size), CHUNK)


@contextmanager
def _open_verified(path: Path, members: Mapping[str, _Member], name: str, digest: str) -> Iterator[IO[bytes]]:
    with _open(path, members, name) as file:
        yield verifying(file, digest, f"{path}: {name}")


def _read(path: Path, members: Mapping[str, _Member], name: str) -> bytes:
    with _open(path, members, name) as file:
        content = file.read(DOCUMENT_BYTES + 1)
    if len(content) > DOCUMENT_BYTES:
        raise ImageFormatError(f"{name} is larger than {DOCUMENT_BYTES} bytes", place=str(path))
    return content


def _blob_opener(path: Path, members: Mapping[str, _Member]) -> BlobOpener:
    return lambda blob: _open_verified(path, members, _blob_path(blob.digest), blob.digest)


def _read_docker(path: Path, members: Mapping[str, _Member], platform: str, name: str | None) -> Image:
    """An image of `docker save`: the manifest that it lacks is made from what the config says."""
    place = str(path)
    entry = _docker_entry(_read(path, members, "manifest.json"), name, place)
    config_name, files = entry.get("Config"), entry.get("Layers")
    if not isinstance(config_name, str) or not isinstance(files, list):
        raise ImageFormatError("a manifest.json without config and layers", place=place)
    config = _read(path, members, config_name)
    ids = diff_ids(parse_object(config, place), place)
    if len(ids) != len(files):
        raise ImageFormatError(f"{len(files)} layers over a config with {len(ids)}", place=place)
    pairs = zip(map(str, files), ids, strict=True)
    layers = [_docker_layer(path, members, file, diff_id) for file, diff_id in pairs]
    top = Descriptor(OCI_CONFIG, digest_of(config), len(config))
    manifest = Manifest(OCI_MANIFEST, top, tuple(layers)).to_bytes()
    names = dict(zip((layer.digest for layer in layers), map(str, files), strict=True))
    documents = {digest_of(each): each for each in (config, manifest)}

    @contextmanager
    def opener(blob: Descriptor) -> Iterator[IO[bytes]]:
        if blob.digest in documents:
            yield io.BytesIO(documents[blob.digest])
            return
        with _open_verified(path, members, names[blob.digest], blob.digest) as file:
            yield file

    return open_image(Descriptor(OCI_MANIFEST, digest_of(manifest), len(manifest)), opener, platform, place)


def _docker_entry(content: bytes, name: str | None, place: str) -> dict[str, Any]:
    # An array, unlike every other document.
    entries = parse_object(b'{"images":' + content + b"}", place)["images"]
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise ImageFormatError("a manifest.json that is no list of images", place=place)
    found = [entry for entry in entries if name is None or name in (entry.get("RepoTags") or ())]
    if len(found) != 1:
        offers = ", ".join(str(tag) for entry in entries for tag in entry.get("RepoTags") or ()) or "no names"
        raise ImageFormatError(
            f"expected one image {name or ''}, found {len(found)} of {offers}", place=place
        )
    entry: dict[str, Any] = found[0]
    return entry


def _docker_layer(path: Path, members: Mapping[str, _Member], name: str, diff_id: str) -> Descriptor:
    with _open(path, members, name) as file:
        if file.read(2) != _GZIP_MAGIC:
            return Descriptor(OCI_LAYER, diff_id, members[posixpath.normpath(name)].size)
        file.seek(0)
        digest = f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}"  # type: ignore[arg-type]
    return Descriptor(OCI_LAYER_GZIP, digest, members[posixpath.normpath(name)].size)

"""Layers from entries: tar, compression and both digests in one pass, in memory that does not grow."""

from __future__ import annotations

import functools
import hashlib
import struct
import zlib
from collections.abc import Iterable

from zlib_ng import zlib_ng

from builder.oci.blobs import Blobs, BlobWriter
from builder.oci.image import Layer
from builder.oci.manifest import OCI_LAYER, OCI_LAYER_GZIP
from builder.oci.tar import CHUNK, EPOCH, Entry, arrange, stream

# Raised when the same entries become other bytes than before; part of every key under which layers are kept.
FORMAT = f"1-zlib-ng-{zlib_ng.ZLIBNG_VERSION}"
GZIP_HEADER = b"\x1f\x8b\x08\0\0\0\0\0\0\xff"
LEVEL = 6
_BLOCK = 1 << 20


def write_layer(entries: Iterable[Entry], blobs: Blobs, epoch: int = EPOCH, level: int = LEVEL) -> Layer:
    """Write a layer; the same entries are the same bytes on every machine.

    Args:
        epoch: The moment of all its files.
        level: Of the compression: 2 takes a fifth of the time of 6, and a tenth more bytes.

    Raises:
        LayerError: An entry cannot go into a layer, or its file changed while it was read.
    """
    arranged = arrange(entries)
    tar, unpacked = hashlib.sha256(), 0
    with blobs.writer() as writer:
        gzip = _Gzip(writer, level)
        for piece in stream(arranged, epoch):
            tar.update(piece)
            unpacked += len(piece)
            gzip.write(piece)
        gzip.finish()
    return kept_layer(blobs, writer.digest, f"sha256:{tar.hexdigest()}", writer.size, unpacked)


def compress(layer: Layer, blobs: Blobs) -> Layer:
    """An uncompressed layer, as `docker save` gives it, in the form of ours; a compressed one, copied."""
    with layer.open() as source, blobs.writer() as writer:
        if layer.media_type != OCI_LAYER:
            while chunk := source.read(CHUNK):
                writer.write(chunk)
        else:
            gzip = _Gzip(writer, LEVEL)
            while chunk := source.read(CHUNK):
                gzip.write(chunk)
            gzip.finish()
    unpacked = layer.size if layer.media_type == OCI_LAYER else layer.unpacked
    media_type = OCI_LAYER_GZIP if layer.media_type == OCI_LAYER else layer.media_type
    return kept_layer(blobs, writer.digest, layer.diff_id, writer.size, unpacked, media_type)


def kept_layer(
    blobs: Blobs, digest: str, diff_id: str, size: int, unpacked: int | None, media_type: str = OCI_LAYER_GZIP
) -> Layer:
    """A layer whose bytes are in `blobs`."""
    return Layer(digest, diff_id, size, unpacked, media_type, functools.partial(blobs.open, digest))


class _Gzip:
    """One gzip member without name and time.

    The compressor comes with trainpack, since the machine's zlib is one of several that make other bytes. It
    is fed blocks of one size, since its matches depend on where what it is given ends.
    """

    def __init__(self, out: BlobWriter, level: int) -> None:
        self._out = out
        self._deflate = zlib_ng.compressobj(level, zlib_ng.DEFLATED, -15)
        self._crc = self._size = 0
        self._pending = bytearray()
        out.write(GZIP_HEADER)

    def write(self, data: bytes) -> None:
        self._crc = zlib.crc32(data, self._crc)
        self._size += len(data)
        self._pending += data
        while len(self._pending) >= _BLOCK:
            self._out.write(self._deflate.compress(self._pending[:_BLOCK]))
            del self._pending[:_BLOCK]

    def finish(self) -> None:
        self._out.write(self._deflate.compress(self._pending))
        self._out.write(self._deflate.flush())
        self._out.write(struct.pack("<II", self._crc, self._size & 0xFFFFFFFF))

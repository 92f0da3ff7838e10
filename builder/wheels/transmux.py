"""Wheels into one layer by transmuxing: a wheel's deflate streams become members of the layer's gzip.

A gzip file may have many members, one after another, that unpack to one stream (RFC 1952, section 2.2). Each
larger file's stream is wrapped as it is; what lies between them is compressed as one: tar headers, byte code,
and small files, which are cheaper beside each other than each alone.
"""

from __future__ import annotations

import hashlib
import struct
import tarfile
import zlib
from collections.abc import Iterable
from dataclasses import dataclass

from zlib_ng import zlib_ng

from builder.oci import tar
from builder.oci.blobs import Blobs, BlobWriter
from builder.oci.image import Layer
from builder.oci.layer import GZIP_HEADER, LEVEL, kept_layer
from builder.wheels.archive import Member, WheelArchive
from builder.wheels.compiled import Compiled
from builder.wheels.install import Installed

_BLOCK = 1 << 20
# Packed on their own, the small files of the wheels at hand took a hundredth more of the image.
_SMALL = 16 << 10


@dataclass(frozen=True)
class Source:
    """An open wheel and where its files go, with the byte code that was compiled for them."""

    archive: WheelArchive
    installed: Installed
    bytecode: Compiled | None = None


def write_wheels(sources: Iterable[Source], blobs: Blobs, epoch: int) -> Layer:
    """Write the layer of some wheels. Where two bring the same file, the later one's is there.

    Raises:
        WheelError: A file's bytes are not those that its wheel's directory says.
        LayerError: A path cannot go into a layer.
    """
    entries: dict[str, tar.Entry] = {}
    owners: dict[str, Source] = {}
    for source in sources:
        for entry in (*source.installed.entries, *(source.bytecode.entries if source.bytecode else ())):
            entries[entry.path], owners[entry.path] = entry, source
    with blobs.writer() as writer:
        stream = _Stream(writer)
        for entry in tar.arrange(entries.values()):
            stream.write(tar.header(entry, epoch))
            if entry.kind == "file":
                _write_content(stream, entry, owners[entry.path])
                stream.write(bytes(-entry.size % tarfile.BLOCKSIZE))
        stream.write(tar.END)
        stream.flush()
    return kept_layer(blobs, writer.digest, f"sha256:{stream.tar.hexdigest()}", writer.size, stream.size)


def _write_content(stream: _Stream, entry: tar.Entry, owner: Source) -> None:
    if member := owner.installed.members.get(entry.path):
        stream.write_member(owner.archive, member)
    elif owner.bytecode and entry.path in owner.bytecode:
        stream.write(owner.bytecode.read(entry))
    elif isinstance(entry.content, bytes):
        stream.write(entry.content)


class _Stream:
    """A tar on its way into a gzip of many members.

    Attributes:
        tar, size: Over the bytes of the tar.
    """

    def __init__(self, out: BlobWriter) -> None:
        self.tar = hashlib.sha256()
        self.size = 0
        self._out = out
        self._pending = bytearray()

    def write(self, content: bytes) -> None:
        """Bytes that are compressed here."""
        self._pending += content
        if len(self._pending) >= _BLOCK:
            self.flush()

    def write_member(self, archive: WheelArchive, member: Member) -> None:
        """A file of a wheel; its compressed bytes go through as they are."""
        if not member.is_deflated or member.size < _SMALL:
            for piece in archive.pieces(member):
                self.write(piece.raw)
            return
        self.flush()
        self._out.write(GZIP_HEADER)
        for piece in archive.pieces(member):
            self._count(piece.raw)
            self._out.write(piece.packed)
        self._out.write(_trailer(member.crc, member.size))

    def flush(self) -> None:
        """Compress what is pending, as a member of its own."""
        content = bytes(self._pending)
        self._pending.clear()
        self._count(content)
        self._out.write(GZIP_HEADER + _deflated(content) + _trailer(zlib_ng.crc32(content), len(content)))

    def _count(self, content: bytes) -> None:
        self.tar.update(content)
        self.size += len(content)


def _deflated(content: bytes) -> bytes:
    deflate = zlib_ng.compressobj(LEVEL, zlib_ng.DEFLATED, -zlib.MAX_WBITS)
    return bytes(deflate.compress(content) + deflate.flush())


def _trailer(crc: int, size: int) -> bytes:
    return struct.pack("<II", crc, size & 0xFFFFFFFF)

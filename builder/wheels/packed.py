"""A wheel packed once and kept: its part of a layer, to be put beside other wheels' parts.

A gzip file may have many members, one after another, that unpack to one stream (RFC 1952, section 2.2). Each
larger file's stream stays in the wheel, and is wrapped as it is. What lies between them is compressed as one
and kept: tar headers, byte code, and small files, which are cheaper beside each other than each alone.
"""

from __future__ import annotations

import json
import os
import struct
import tarfile
import zlib
from collections.abc import Iterable, Iterator, Set
from dataclasses import astuple
from typing import IO, TYPE_CHECKING, Any

from zlib_ng import zlib_ng

from builder.oci import tar
from builder.oci.blobs import Blobs, BlobWriter
from builder.oci.cache import cache_key
from builder.oci.image import Layer
from builder.oci.layer import GZIP_HEADER, LEVEL, kept_layer
from builder.oci.manifest import OCI_LAYER, canonical_json
from builder.plan import Distribution
from builder.wheels.archive import Member, Piece, WheelArchive
from builder.wheels.bytecode import Bytecode, Interpreter
from builder.wheels.environment import Environment

if TYPE_CHECKING:
    from builder.wheels.install import Installed

# Raised when the same wheel is packed to other bytes than before.
FORMAT = 1
_BLOCK = 1 << 20
# Packed on their own, the small files of the wheels at hand took a hundredth more of the image.
_SMALL = 16 << 10
_LENGTH_BYTES = 8
_GZIP = zlib.MAX_WBITS + 16


def packed_key(
    wheel: Distribution,
    environment: Environment,
    interpreter: Interpreter | None,
    epoch: int,
    without: Iterable[str] = (),
) -> str:
    """What decides how a wheel is packed."""
    place = [environment.prefix, environment.python]
    compiler = interpreter.identity if interpreter else None
    return cache_key("packed", FORMAT, *place, compiler, epoch, wheel.filename, wheel.sha256, sorted(without))


def pack(
    archive: WheelArchive,
    installed: Installed,
    bytecode: Iterable[Bytecode],
    blobs: Blobs,
    epoch: int,
    without: Set[str] = frozenset(),
) -> Layer:
    """Pack a wheel, its files in the order of their paths, byte code after its source.

    Args:
        bytecode: In the order of its sources.
        without: Paths that are left out.

    Raises:
        WheelError: A file's bytes are not those that its wheel's directory says.
        LayerError: A path cannot go into a layer.
    """
    paths: list[str] = []
    with blobs.writer() as writer:
        packer = _Packer(writer)
        for entry in _with_bytecode(tar.arrange(installed.entries), bytecode):
            if entry.kind == "folder" or entry.path in without:
                continue
            paths.append(entry.path)
            packer.write(tar.header(entry, epoch))
            if member := installed.members.get(entry.path):
                packer.write_member(archive, member)
            elif isinstance(entry.content, bytes):
                packer.write(entry.content)
            packer.write(bytes(-entry.size % tarfile.BLOCKSIZE))
        packer.flush()
        index = canonical_json([paths, packer.parts])
        writer.write(index + len(index).to_bytes(_LENGTH_BYTES))
    return kept_layer(blobs, writer.digest, writer.digest, writer.size, writer.size, OCI_LAYER)


class Packed:
    """What `pack` wrote.

    Args:
        file: Read to its end first, which verifies it.
        archive: The wheel that was packed.

    Attributes:
        paths: The files' paths below the image's root.
    """

    def __init__(self, file: IO[bytes], archive: WheelArchive) -> None:
        while file.read(tar.CHUNK):
            pass
        self._file, self._archive = file, archive
        self.paths, self._parts = _index(file)

    def pieces(self) -> Iterator[Piece]:
        """The wheel's part of a layer: compressed, and what that unpacks to.

        Raises:
            WheelError: A file's bytes are not those that its wheel's directory says.
        """
        self._file.seek(0)
        for part in self._parts:
            if isinstance(part, int):
                packed = self._file.read(part)
                yield Piece(packed, zlib_ng.decompress(packed, _GZIP))
                continue
            member = Member(*part)
            yield Piece(GZIP_HEADER, b"")
            yield from self._archive.pieces(member)
            yield Piece(_trailer(member.crc, member.size), b"")


def gzip_member(content: bytes) -> bytes:
    """Some bytes compressed; the same on every machine."""
    deflate = zlib_ng.compressobj(LEVEL, zlib_ng.DEFLATED, -zlib.MAX_WBITS)
    packed = bytes(deflate.compress(content) + deflate.flush())
    return GZIP_HEADER + packed + _trailer(zlib_ng.crc32(content), len(content))


class _Packer:
    """Bytes of a tar on their way into a gzip of many members.

    Attributes:
        parts: How large what is compressed here became; between that, the files that stay in the wheel.
    """

    def __init__(self, out: BlobWriter) -> None:
        self.parts: list[int | tuple[Any, ...]] = []
        self._out = out
        self._pending = bytearray()

    def write(self, content: bytes) -> None:
        """Bytes that are compressed here."""
        self._pending += content
        if len(self._pending) >= _BLOCK:
            self.flush()

    def write_member(self, archive: WheelArchive, member: Member) -> None:
        """A file of a wheel; its compressed bytes go through as they are."""
        if member.is_deflated and member.size >= _SMALL:
            self.flush()
            self.parts.append(astuple(member))
            return
        for piece in archive.pieces(member):
            self.write(piece.raw)

    def flush(self) -> None:
        """Compress what is pending, as a member of its own."""
        if self._pending:
            packed = gzip_member(bytes(self._pending))
            self._pending.clear()
            self._out.write(packed)
            self.parts.append(len(packed))


def _with_bytecode(entries: Iterable[tar.Entry], bytecode: Iterable[Bytecode]) -> Iterator[tar.Entry]:
    made = iter(bytecode)
    following = next(made, None)
    for entry in entries:
        yield entry
        if following and following.source == entry.path:
            yield tar.file(following.path, following.content)
            following = next(made, None)
    if following:
        raise ValueError(f"byte code of {following.source}, which is not there, or not in this order")


def _index(file: IO[bytes]) -> tuple[list[str], list[Any]]:
    end = file.seek(-_LENGTH_BYTES, os.SEEK_END)
    length = int.from_bytes(file.read(_LENGTH_BYTES))
    file.seek(end - length)
    paths, parts = json.loads(file.read(length))
    return paths, parts


def _trailer(crc: int, size: int) -> bytes:
    return struct.pack("<II", crc, size & 0xFFFFFFFF)

"""A wheel as a zip that may be hostile: its files by name, and their bytes as they were compressed.

Everything that two readers could read in two ways is refused, so that what is hashed and checked here is what
a container gets.
"""

from __future__ import annotations

import os
import stat
import struct
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from zlib_ng import zlib_ng

from builder.errors import LayerError, WheelError
from builder.oci.tar import check_path

CHUNK = 1 << 20
# Deflate cannot do better, so who declares more lies: https://zlib.net/zlib_tech.html
_BEST_RATIO = 1032
_LOCAL_HEADER = struct.Struct("<4s5H3I2H")
_LOCAL_MAGIC = b"PK\x03\x04"
_ENCRYPTED = 0x1
_UNIX = 3


@dataclass(frozen=True, slots=True)
class Member:
    """A file of a wheel.

    Attributes:
        start: Where its local header lies.
        packed, size: Bytes as they are in the wheel, and unpacked.
        crc: Of the unpacked bytes.
        is_deflated: False where the bytes are stored as they are.
    """

    name: str
    start: int
    packed: int
    size: int
    crc: int
    is_deflated: bool
    is_executable: bool


@dataclass(frozen=True, slots=True)
class Piece:
    """Some bytes of a file: as they are compressed, and what they unpack to; either may be empty."""

    packed: bytes
    raw: bytes


class WheelArchive:
    """An open wheel.

    Attributes:
        filename: The wheel's name, which says more than the name of the file that it is in.
        members: Its files in the order of their names, without folders.
    """

    def __init__(self, filename: str, descriptor: int, members: Sequence[Member]) -> None:
        self.filename = filename
        self.members = members
        self._descriptor = descriptor

    def pieces(self, member: Member) -> Iterator[Piece]:
        """The bytes of a file, checked against what the wheel's directory says of it.

        Raises:
            WheelError: They are others.
        """
        unpacked = self._inflated(member) if member.is_deflated else self._stored(member)
        crc = size = 0
        for piece in unpacked:
            crc = zlib_ng.crc32(piece.raw, crc)
            size += len(piece.raw)
            if size > member.size:
                break
            yield piece
        if size != member.size or crc != member.crc:
            raise self._corrupt(member, "other bytes than its directory says")

    def read(self, member: Member) -> bytes:
        """A small file, whole, and the errors of `pieces`."""
        return b"".join(piece.raw for piece in self.pieces(member))

    def _stored(self, member: Member) -> Iterator[Piece]:
        for chunk in self._chunks(member):
            yield Piece(chunk, chunk)

    def _inflated(self, member: Member) -> Iterator[Piece]:
        inflate = zlib_ng.decompressobj(-zlib.MAX_WBITS)
        try:
            for chunk in self._chunks(member):
                # A megabyte can unpack to a gigabyte: memory stays flat.
                raw = inflate.decompress(chunk, CHUNK)
                yield Piece(chunk, raw)
                while inflate.unconsumed_tail:
                    yield Piece(b"", inflate.decompress(inflate.unconsumed_tail, CHUNK))
            while not inflate.eof and (raw := inflate.decompress(b"", CHUNK)):
                yield Piece(b"", raw)
        except zlib_ng.error as error:  # type: ignore[misc]  # its stub calls it an int
            raise self._corrupt(member, str(error)) from None
        # What follows the end of the stream would be read as the next member of the layer's gzip.
        if not inflate.eof or inflate.unused_data:
            raise self._corrupt(member, "compressed bytes that do not end where its directory says")

    def _chunks(self, member: Member) -> Iterator[bytes]:
        at, left = self._data_start(member), member.packed
        while left:
            chunk = os.pread(self._descriptor, min(CHUNK, left), at)
            if not chunk:
                raise self._corrupt(member, "an end before its bytes")
            at, left = at + len(chunk), left - len(chunk)
            yield chunk

    def _data_start(self, member: Member) -> int:
        header = os.pread(self._descriptor, _LOCAL_HEADER.size, member.start)
        if len(header) != _LOCAL_HEADER.size or header[:4] != _LOCAL_MAGIC:
            raise self._corrupt(member, "no header where its directory says")
        *_, name_size, extra_size = _LOCAL_HEADER.unpack(header)
        name = os.pread(self._descriptor, name_size, member.start + _LOCAL_HEADER.size)
        if name not in (member.name.encode(), member.name.encode("cp437", "replace")):
            raise self._corrupt(member, "another name than in its directory")
        return member.start + _LOCAL_HEADER.size + int(name_size) + int(extra_size)

    def _corrupt(self, member: Member, what: str) -> WheelError:
        return WheelError(f"{member.name} has {what}", place=self.filename)


@contextmanager
def open_wheel(path: Path, filename: str) -> Iterator[WheelArchive]:
    """Open a wheel, after a look at all that its directory says.

    Args:
        path: Where its bytes are.
        filename: What the wheel is called.

    Raises:
        WheelError: It is no zip, or one that readers could understand in two ways.
    """
    try:
        with path.open("rb", buffering=0) as file, zipfile.ZipFile(file) as archive:
            end = archive.start_dir
            members = _members(archive.infolist(), end, filename)
            yield WheelArchive(filename, file.fileno(), members)
    except (zipfile.BadZipFile, NotImplementedError, struct.error, ValueError, OverflowError) as error:
        raise WheelError(f"cannot be read as a zip: {error}", place=filename) from None


@contextmanager
def reopen_wheel(path: Path, filename: str) -> Iterator[WheelArchive]:
    """Open a wheel whose directory was looked at before, to read members that are known of it."""
    with path.open("rb", buffering=0) as file:
        yield WheelArchive(filename, file.fileno(), ())


def _members(infos: Sequence[zipfile.ZipInfo], end: int, filename: str) -> tuple[Member, ...]:
    _check_places(infos, end, filename)
    members: dict[str, Member] = {}
    for info in infos:
        _check(info, filename)
        if info.is_dir():
            continue
        if info.filename in members:
            raise WheelError(f"{info.filename} is there twice", place=filename)
        members[info.filename] = _member(info)
    return tuple(members[name] for name in sorted(members))


def _check_places(infos: Sequence[zipfile.ZipInfo], end: int, filename: str) -> None:
    """Refuse files that share bytes: how a small wheel unpacks to a huge one."""
    ordered = sorted(infos, key=lambda info: info.header_offset)
    if ordered and ordered[0].header_offset:
        raise WheelError("there are bytes before its first file", place=filename)
    nexts = [*(info.header_offset for info in ordered[1:]), end]
    for info, following in zip(ordered, nexts, strict=False):
        if info.header_offset + _LOCAL_HEADER.size + info.compress_size > following:
            raise WheelError(f"{info.filename} shares bytes with another file", place=filename)


def _check(info: zipfile.ZipInfo, filename: str) -> None:
    name = info.filename
    try:
        check_path(name.removesuffix("/"))
    except LayerError as error:
        raise WheelError(f"the name {name!r}: {error.message}", place=filename) from None
    refused = None
    if info.orig_filename != name or "\\" in name:
        refused = "a name that readers understand in two ways"
    elif info.flag_bits & _ENCRYPTED:
        refused = "encrypted"
    elif info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        refused = f"compressed by the method {info.compress_type}, expected deflate or none"
    elif _mode(info) and stat.S_IFMT(_mode(info)) not in (0, stat.S_IFREG, stat.S_IFDIR):
        refused = "neither a file nor a folder"
    elif info.compress_type == zipfile.ZIP_STORED and info.file_size != info.compress_size:
        refused = "stored, with two different sizes"
    elif info.file_size > (info.compress_size + 1) * _BEST_RATIO:
        refused = f"said to unpack from {info.compress_size} to {info.file_size} bytes, which nothing can"
    if refused:
        raise WheelError(f"{name} is {refused}", place=filename)


def _member(info: zipfile.ZipInfo) -> Member:
    return Member(
        name=info.filename,
        start=info.header_offset,
        packed=info.compress_size,
        size=info.file_size,
        crc=info.CRC,
        is_deflated=info.compress_type == zipfile.ZIP_DEFLATED,
        is_executable=bool(_mode(info) & 0o111),
    )


def _mode(info: zipfile.ZipInfo) -> int:
    return info.external_attr >> 16 if info.create_system == _UNIX else 0

"""Wheels for tests, written byte by byte: the same on every machine, and as hostile as a test wants."""

from __future__ import annotations

import hashlib
import struct
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from builder.plan import Distribution

STORED, DEFLATED = 0, 8
REGULAR = 0o100644


@dataclass(frozen=True)
class Part:
    """A member of a zip; what is None is told truly.

    Attributes:
        packed: Its bytes as they lie in the file.
        local_name: What its own header calls it.
        start: Where the directory says that it lies.
    """

    name: str
    content: bytes = b""
    method: int = DEFLATED
    mode: int = REGULAR
    packed: bytes | None = None
    size: int | None = None
    packed_size: int | None = None
    crc: int | None = None
    flags: int = 0x800
    local_name: str | None = None
    start: int | None = None
    is_zip64: bool = False


def deflated(content: bytes) -> bytes:
    """A deflate stream of stored blocks, which no compressor's version decides."""
    blocks = [content[at : at + 65535] for at in range(0, len(content), 65535)] or [b""]
    return b"".join(
        struct.pack("<BHH", block is blocks[-1], len(block), len(block) ^ 0xFFFF) + block for block in blocks
    )


def zip_bytes(parts: Sequence[Part], *, prefix: bytes = b"") -> bytes:
    """A zip of these members."""
    body, directory = bytearray(prefix), bytearray()
    for part in parts:
        start = len(body)
        packed = part.packed
        if packed is None:
            packed = deflated(part.content) if part.method == DEFLATED else part.content
        size = len(part.content) if part.size is None else part.size
        packed_size = len(packed) if part.packed_size is None else part.packed_size
        crc = zlib.crc32(part.content) if part.crc is None else part.crc
        extra = b""
        told = (packed_size, size)
        if part.is_zip64:
            extra = struct.pack("<HHQQ", 1, 16, size, packed_size)
            told = (0xFFFFFFFF, 0xFFFFFFFF)
        common = struct.pack("<4H3L", part.flags, part.method, 0, 0x21, crc, *told)
        local = (part.local_name or part.name).encode()
        body += b"PK\x03\x04" + struct.pack("<H", 20) + common + struct.pack("<HH", len(local), len(extra))
        body += local + extra + packed
        name = part.name.encode()
        directory += b"PK\x01\x02" + struct.pack("<HH", 3 << 8 | 20, 20) + common
        directory += struct.pack("<5H", len(name), len(extra), 0, 0, 0)
        directory += struct.pack("<LL", part.mode << 16, start if part.start is None else part.start)
        directory += name + extra
    count = len(parts)
    end = struct.pack(
        "<4s4H2LH", b"PK\x05\x06", 0, 0, count, count, len(directory), len(body) - len(prefix), 0
    )
    return bytes(body + directory + end)


def parts(files: Mapping[str, bytes], name: str = "demo", scripts: str = "") -> list[Part]:
    """The members of a wheel with these files, and its metadata."""
    info = f"{name}-1.0.dist-info"
    metadata = {
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n".encode(),
        f"{info}/WHEEL": b"Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    if scripts:
        metadata[f"{info}/entry_points.txt"] = scripts.encode()
    every = {**files, **metadata}
    record = "".join(f"{path},,\n" for path in [*every, f"{info}/RECORD"]).encode()
    return [Part(path, content) for path, content in {**every, f"{info}/RECORD": record}.items()]


def write(folder: Path, members: Iterable[Part], name: str = "demo", *, prefix: bytes = b"") -> Path:
    """Write a wheel."""
    path = folder / f"{name}-1.0-py3-none-any.whl"
    path.write_bytes(zip_bytes(list(members), prefix=prefix))
    return path


def locked(wheel: Path, name: str = "demo") -> Distribution:
    """A wheel as a lock names it."""
    content = wheel.read_bytes()
    return Distribution(
        name=name,
        version="1.0",
        filename=wheel.name,
        url=wheel.as_uri(),
        size=len(content),
        sha256=hashlib.sha256(content).hexdigest(),
    )


def with_part(members: Sequence[Part], path: str, **changes: object) -> list[Part]:
    """The same members, but for one."""
    return [replace(part, **changes) if part.name == path else part for part in members]  # type: ignore[arg-type]

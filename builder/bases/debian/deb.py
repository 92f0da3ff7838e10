"""A .deb, read: what it says of itself, and its files as entries of a layer.

Source of the format: deb(5). Nothing in it is trusted: paths, links, owners and modes are what the image's
contract allows, or the package is refused.
"""

from __future__ import annotations

import io
import lzma
import stat
import struct
import tarfile
import tempfile
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, cast

from debian_inspector.debcon import Debian822

from builder.bases.catalogue import DOCUMENTATION, LICENCES
from builder.errors import LayerError, MirrorError
from builder.oci.streams import section
from builder.oci.tar import Entry, check, file, folder, hardlink, link

# Debian has one /usr: what older packages put beside it lies below it, and the old names lead there. The last
# two are moved by base-files when it is installed.
MOVED = {
    **{name: f"usr/{name}" for name in ("bin", "lib", "lib32", "lib64", "libo32", "libx32", "sbin")},
    "var/lock": "run/lock",
    "var/run": "run",
}
# The contract: nothing runs as somebody else, nothing can be written to by others than root.
_NEVER = 0o7022
# Larger files wait on the disk, so that memory does not grow with what is unpacked.
_IN_MEMORY = 1 << 20


_AR, _AR_HEADER = b"!<arch>\n", struct.Struct("16s32x10s2s")
Members = dict[str, io.RawIOBase]


@dataclass(frozen=True)
class Deb:
    """What was read.

    Attributes:
        control: Its fields.
        stated: The same as they stand in the package.
        info: What dpkg keeps of its control files, by name: `md5sums`, `postinst`.
        paths: Every path that it holds, in its own words: `/bin/sh`.
        entries: What goes into a layer.
    """

    name: str
    control: Mapping[str, str]
    stated: str
    info: dict[str, bytes]
    paths: tuple[str, ...]
    entries: tuple[Entry, ...]


def read_deb(archive: IO[bytes], name: str, scratch: Path) -> Deb:
    """Read a package.

    Args:
        name: For the messages.
        scratch: Where large files wait until their layer is written.

    Raises:
        MirrorError: It is no .deb, or holds what no image may.
    """
    try:
        members = _members(archive)
        if "debian-binary" not in members or members["debian-binary"].read(2) != b"2.":
            raise MirrorError("not a .deb of format 2", place=name)
        info = {path.removeprefix("./"): content.read() for path, content in _files(members, "control", name)}
        paths, entries = _read_data(_open(members, "data", name), name, scratch)
        stated = info.pop("control").decode()
    except (
        OSError,
        EOFError,
        KeyError,
        ValueError,
        struct.error,
        tarfile.TarError,
        lzma.LZMAError,
        zlib.error,
    ) as error:
        raise MirrorError(f"cannot be read as a .deb: {error}", place=name) from None
    except LayerError as error:
        raise MirrorError(str(error), place=name) from None
    return Deb(name, Debian822(stated), stated, info, paths, entries)


def moved(path: str) -> str:
    """Where a path of a package lies in the image."""
    for old, new in MOVED.items():
        if path == old or path.startswith(f"{old}/"):
            return new + path[len(old) :]
    return path


def _members(archive: IO[bytes]) -> Members:
    if archive.read(len(_AR)) != _AR:
        raise ValueError("it is no ar archive")
    members: Members = {}
    while header := archive.read(_AR_HEADER.size):
        name, size, end = _AR_HEADER.unpack(header)
        if end != b"`\n" or not size.strip().isdigit():
            raise ValueError(f"a damaged header at {archive.tell() - len(header)}")
        start, length = archive.tell(), int(size)
        members[name.decode().rstrip("/ ")] = section(archive, start, length)
        archive.seek(start + length + length % 2)
    return members


def _open(members: Members, part: str, name: str) -> tarfile.TarFile:
    found = [each for each in members if each.startswith(f"{part}.tar")]
    if len(found) != 1 or found[0] not in [f"{part}.tar{each}" for each in ("", ".gz", ".xz")]:
        raise MirrorError(
            f"its {part} is {', '.join(found) or 'missing'}, expected {part}.tar, .tar.gz or .tar.xz",
            place=name,
        )
    return tarfile.open(fileobj=cast("IO[bytes]", members[found[0]]), mode="r|*")


def _files(members: Members, part: str, name: str) -> Iterator[tuple[str, IO[bytes]]]:
    with _open(members, part, name) as tar:
        for member in tar:
            if content := tar.extractfile(member):
                yield member.name, content


def _read_data(tar: tarfile.TarFile, name: str, scratch: Path) -> tuple[tuple[str, ...], tuple[Entry, ...]]:
    paths, entries = [], []
    with tar:
        for member in tar:
            path = member.name.removeprefix("./").rstrip("/")
            paths.append(f"/{path or '.'}")
            if path in ("", ".") or path in MOVED or _is_left_out(path, member):
                continue
            entry = _entry(tar, member, moved(path), name, scratch)
            check(entry)
            entries.append(entry)
    return tuple(paths), tuple(entries)


def _is_left_out(path: str, member: tarfile.TarInfo) -> bool:
    if not path.startswith(DOCUMENTATION):
        return False
    # A package may share its licence with another by a link in place of its folder.
    is_licence = path.endswith("/copyright") or (member.issym() and path.count("/") == LICENCES.count("/"))
    return not (path.startswith(LICENCES) and is_licence)


def _entry(tar: tarfile.TarFile, member: tarfile.TarInfo, path: str, name: str, scratch: Path) -> Entry:
    mode = stat.S_IMODE(member.mode) & ~_NEVER
    if member.isdir():
        return folder(path, mode)
    if member.issym():
        return link(path, member.linkname)
    if member.islnk():
        return hardlink(path, moved(member.linkname.removeprefix("./")))
    content = tar.extractfile(member)
    if not member.isreg() or content is None:
        raise MirrorError(f"{member.name} is a device or a pipe, which no image holds", place=name)
    return file(path, _keep(content, member.size, scratch), mode, size=member.size)


def _keep(content: IO[bytes], size: int, scratch: Path) -> bytes | Path:
    if size <= _IN_MEMORY:
        return content.read()
    with tempfile.NamedTemporaryFile(dir=scratch, delete=False) as kept:
        while chunk := content.read(_IN_MEMORY):
            kept.write(chunk)
    return Path(kept.name)

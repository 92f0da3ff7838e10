"""Tar streams whose bytes depend on their entries alone: sorted, owned by root, of one moment.

An entry is data; what is hostile or cannot be carried is refused before a byte is written.
"""

from __future__ import annotations

import os
import stat
import struct
import tarfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Literal

from builder.errors import LayerError

# A zip cannot hold an earlier moment: what packs files of the image again would fail.
EPOCH = 315_532_800
CHUNK = 1 << 20
END = bytes(2 * tarfile.BLOCKSIZE)

Kind = Literal["file", "folder", "link", "hardlink"]
# Name, mode, uid, gid, size, time, checksum, type, link, magic; then names of users and devices, all empty.
_USTAR = struct.Struct("100s8s8s8s12s12s8s1s100s8s247x")
_TYPES: dict[Kind, bytes] = {
    "file": tarfile.REGTYPE,
    "folder": tarfile.DIRTYPE,
    "link": tarfile.SYMTYPE,
    "hardlink": tarfile.LNKTYPE,
}


@dataclass(frozen=True, slots=True)
class Entry:
    """One member of a layer.

    Attributes:
        path: Relative to the image's root, without a leading or trailing slash.
        content: A file's bytes, or where on this machine they are read when the layer is written.
        size: A file's bytes in number; another number met while it is read is an error.
        target: Where a link leads, or the path of the entry that a hard link repeats.
        sha256: Hex digest that a file must have when it is read, where it is known.
    """

    path: str
    kind: Kind
    mode: int
    content: bytes | Path = b""
    size: int = 0
    target: str = ""
    sha256: str | None = None


def file(
    path: str, content: bytes | Path, mode: int = 0o644, *, size: int | None = None, sha256: str | None = None
) -> Entry:
    """A regular file; the size of one on disk is asked for unless it is given.

    Raises:
        LayerError: It cannot be read, or is no regular file.
    """
    if size is None:
        size = len(content) if isinstance(content, bytes) else _status(content).st_size
    return Entry(path, "file", mode, content, size, sha256=sha256)


def folder(path: str, mode: int = 0o755) -> Entry:
    """A folder; parents need none, they are made with mode 755."""
    return Entry(path, "folder", mode)


def link(path: str, target: str) -> Entry:
    """A symbolic link."""
    return Entry(path, "link", 0o777, target=target)


def hardlink(path: str, target: str) -> Entry:
    """Another name for a file of the same layer."""
    return Entry(path, "hardlink", 0o644, target=target)


def source_epoch(environment: Mapping[str, str]) -> int:
    """SOURCE_DATE_EPOCH, else the fixed moment that all layers have.

    Raises:
        LayerError: It is not a count of seconds that a tar can hold.
    """
    text = environment.get("SOURCE_DATE_EPOCH")
    if text is None:
        return EPOCH
    if not (text.isascii() and text.isdigit() and int(text) < 8**11):
        raise LayerError(f"{text!r}, expected seconds since 1970", place="SOURCE_DATE_EPOCH")
    return int(text)


def arrange(entries: Iterable[Entry]) -> list[Entry]:
    """The entries in the order in which a layer holds them: by path, parents once, hard links last.

    Raises:
        LayerError: An entry cannot go into a layer, or two of them have one path.
    """
    by_path: dict[str, Entry] = {}
    for entry in entries:
        check(entry)
        if entry.path in by_path:
            raise LayerError("there twice", place=entry.path)
        by_path[entry.path] = entry
    for path in list(by_path):
        _add_parents(by_path, path)
    for entry in by_path.values():
        if entry.kind == "hardlink" and _kind(by_path, entry.target) != "file":
            raise LayerError(f"a hard link to {entry.target!r}, no file of this layer", place=entry.path)
    return sorted(by_path.values(), key=lambda entry: (entry.kind == "hardlink", entry.path))


def check(entry: Entry) -> None:
    """Refuse what cannot go into a layer.

    Raises:
        LayerError: A name that leads outside or is not UTF-8, or a mode that is none.
    """
    check_path(entry.path)
    if not 0 <= entry.mode <= 0o7777:
        raise LayerError(f"the mode {entry.mode:o}", place=entry.path)
    if entry.kind == "hardlink":
        check_path(entry.target)
    if entry.kind == "link":
        _check_target(entry)


def check_path(path: str) -> None:
    """Refuse a path that is not one below the image's root.

    Raises:
        LayerError: It is absolute, climbs, has empty parts, or is not UTF-8.
    """
    _check_text(path, path)
    if any(part in ("", ".", "..") for part in path.split("/")):
        raise LayerError(
            "expected a path below the image's root, without empty, . and .. parts", place=repr(path)
        )


def stream(entries: Iterable[Entry], epoch: int = EPOCH) -> Iterator[bytes]:
    """The arranged entries as a tar, in pieces of bounded size.

    Raises:
        LayerError: A file cannot be read, or changed while it was.
    """
    for entry in entries:
        yield header(entry, epoch)
        if entry.kind == "file":
            yield from _content(entry)
            yield bytes(-entry.size % tarfile.BLOCKSIZE)
    yield END


def header(entry: Entry, epoch: int = EPOCH) -> bytes:
    """The tar header of an entry: ustar, with a PAX header before it only where a name or size needs one."""
    name = entry.path.encode() + (b"/" if entry.kind == "folder" else b"")
    target = entry.target.encode()
    size = entry.size if entry.kind == "file" else 0
    plain = name.isascii() and target.isascii() and len(name) <= 100 and len(target) <= 100
    if not plain or size >= 8**11:
        return _pax_header(entry, epoch)
    fields = [b"%07o" % entry.mode, b"%07o" % 0, b"%07o" % 0, b"%011o" % size, b"%011o" % epoch]
    block = _USTAR.pack(name, *fields, b" " * 8, _TYPES[entry.kind], target, b"ustar\x0000")
    return block[:148] + b"%06o\0 " % sum(block) + block[156:]


def _pax_header(entry: Entry, epoch: int) -> bytes:
    info = tarfile.TarInfo(entry.path)
    info.type, info.mode, info.mtime = _TYPES[entry.kind], entry.mode, epoch
    info.size = entry.size if entry.kind == "file" else 0
    info.linkname = entry.target
    return info.tobuf(tarfile.PAX_FORMAT)


def _add_parents(by_path: dict[str, Entry], path: str) -> None:
    parent = path.rpartition("/")[0]
    while parent:
        known = by_path.setdefault(parent, folder(parent))
        if known.kind != "folder":
            raise LayerError(f"below a {known.kind}, {parent!r}", place=path)
        parent = parent.rpartition("/")[0]


def _kind(by_path: Mapping[str, Entry], path: str) -> Kind | None:
    return by_path[path].kind if path in by_path else None


def _check_target(entry: Entry) -> None:
    _check_text(entry.target, entry.path)
    if entry.target.startswith("/"):
        return  # absolute inside the container, whose root it cannot leave
    depth = entry.path.count("/")
    for part in entry.target.split("/"):
        depth += {"..": -1, ".": 0, "": 0}.get(part, 1)
        if depth < 0:
            raise LayerError(f"a link to {entry.target!r}, above the image's root", place=entry.path)


def _check_text(text: str, place: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise LayerError(
            "the name is not UTF-8, which an image's paths must be", place=ascii(place)
        ) from None
    if not text or "\0" in text:
        raise LayerError(f"{text!r} is no name of a file", place=ascii(place))


def _content(entry: Entry) -> Iterator[bytes]:
    if isinstance(entry.content, bytes):
        yield _verified(entry, entry.content)
        return
    hasher, left = sha256() if entry.sha256 else None, entry.size
    try:
        descriptor = os.open(entry.content, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(descriptor, "rb", buffering=0) as source:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise LayerError("not a regular file", place=str(entry.content))
            while chunk := source.read(CHUNK):
                left -= len(chunk)
                if left < 0:
                    raise _changed(entry)
                if hasher:
                    hasher.update(chunk)
                yield chunk
    except OSError as error:
        raise _unreadable(entry.content, error) from None
    if left or (hasher and hasher.hexdigest() != entry.sha256):
        raise _changed(entry)


def _verified(entry: Entry, content: bytes) -> bytes:
    if len(content) != entry.size or (entry.sha256 and sha256(content).hexdigest() != entry.sha256):
        raise _changed(entry)
    return content


def _status(path: Path) -> os.stat_result:
    try:
        status = path.stat()
    except OSError as error:
        raise _unreadable(path, error) from None
    if not stat.S_ISREG(status.st_mode):
        raise LayerError("not a regular file", place=str(path))
    return status


def _changed(entry: Entry) -> LayerError:
    place = str(entry.content) if isinstance(entry.content, Path) else entry.path
    return LayerError("changed while it was read", place=place, remedy="build again")


def _unreadable(path: Path, error: OSError) -> LayerError:
    return LayerError(
        f"cannot be read: {error.strerror}", place=str(path), remedy="give yourself the right to read it"
    )

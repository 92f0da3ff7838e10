"""`/etc/ld.so.cache`, as ldconfig would write it.

The loader finds Debian's own folders without it. `ctypes.util.find_library` reads nothing else, though, and
folders that packages name in `/etc/ld.so.conf.d` are known by it alone. ldconfig needs root, for a chroot.

Source of the form: https://sourceware.org/git/?p=glibc.git;a=blob;f=sysdeps/generic/dl-cache.h.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator

from builder.bases.debian.deb import moved
from builder.bases.debian.tree import Tree, content, follow
from builder.oci.tar import Entry, file

TRIPLETS = {"amd64": "x86_64-linux-gnu", "arm64": "aarch64-linux-gnu"}
# dl-cache.h: ELF for libc6, and the architecture's own 64-bit form.
_FLAGS = {"amd64": 0x0303, "arm64": 0x0A03}
_MACHINES = {"amd64": 62, "arm64": 183}
_HEADER = struct.Struct("<17s3sIIB3xI12x")
_ENTRY = struct.Struct("<iIIIQ")
_LITTLE_ENDIAN = 2
_LIBRARY = re.compile(r"(lib.+|ld-.+)\.so(\..+)?")
_SEGMENT, _DYNAMIC = struct.Struct("<IIQQQQQQ"), struct.Struct("<qQ")
_PT_LOAD, _PT_DYNAMIC, _DT_STRTAB, _DT_SONAME = 1, 2, 5, 14


def loader_cache(tree: Tree, architecture: str) -> Iterator[Entry]:
    """The cache over the folders that the loader and the packages' own configuration name."""
    libraries: dict[str, str] = {}
    for directory in _folders(tree, architecture):
        for name in sorted(_names(tree, directory)):
            if _LIBRARY.fullmatch(name) and _soname(tree, f"{directory}/{name}", architecture) == name:
                libraries.setdefault(name, f"/{directory}/{name}")
    yield file("etc/ld.so.cache", _render(libraries, _FLAGS[architecture]))


def _folders(tree: Tree, architecture: str) -> list[str]:
    """In ldconfig's order: what is configured, then what is built in."""
    configured = [
        moved(line.strip().strip("/"))
        for path in sorted(tree)
        if path.startswith("etc/ld.so.conf.d/") and path.endswith(".conf")
        for line in content(tree, path).decode().splitlines()
        if line.startswith("/")
    ]
    return list(dict.fromkeys([*configured, f"usr/lib/{TRIPLETS[architecture]}", "usr/lib"]))


def _names(tree: Tree, directory: str) -> Iterator[str]:
    for path in tree:
        parent, _, name = path.rpartition("/")
        if parent == directory:
            yield name


def _soname(tree: Tree, path: str, architecture: str) -> str | None:
    """The name by which programs ask for the library that a path leads to."""
    found = follow(tree, path)
    if found is None:
        return None
    try:
        return soname(content(tree, found), _MACHINES[architecture])
    except (struct.error, StopIteration, IndexError, ValueError):
        return None


def soname(elf: bytes, machine: int) -> str | None:
    """The `DT_SONAME` of a 64-bit library for this machine; None for what is none, or has no name.

    Raises:
        struct.error: It is cut off.
        StopIteration: Its tables lead nowhere.
    """
    if elf[:6] != b"\x7fELF\2\1" or struct.unpack_from("<H", elf, 18)[0] != machine:
        return None
    start, size, count = *struct.unpack_from("<Q", elf, 32), *struct.unpack_from("<HH", elf, 54)
    segments = [_SEGMENT.unpack_from(elf, start + size * number) for number in range(count)]
    dynamic = next((each for each in segments if each[0] == _PT_DYNAMIC), None)
    if dynamic is None:
        return None
    table = dict(_DYNAMIC.iter_unpack(elf[dynamic[2] : dynamic[2] + dynamic[5] // 16 * 16]))
    if _DT_SONAME not in table:
        return None
    address = table[_DT_STRTAB]
    load = next(each for each in segments if each[0] == _PT_LOAD and each[3] <= address < each[3] + each[5])
    at = address - load[3] + load[2] + table[_DT_SONAME]
    return elf[at : elf.index(b"\0", at)].decode()


def _render(libraries: dict[str, str], flags: int) -> bytes:
    names = sorted(libraries, key=_order, reverse=True)
    strings, entries = b"", b""
    start = _HEADER.size + _ENTRY.size * len(names)
    for name in names:
        key, value = start + len(strings), start + len(strings) + len(name) + 1
        strings += name.encode() + b"\0" + libraries[name].encode() + b"\0"
        entries += _ENTRY.pack(flags, key, value, 0, 0)
    header = _HEADER.pack(b"glibc-ld.so.cache", b"1.1", len(names), len(strings), _LITTLE_ENDIAN, 0)
    return header + entries + strings


def _order(name: str) -> list[tuple[int, int]]:
    """As the loader's binary search expects it: numbers by value, and above any other character."""
    parts = re.findall(r"\d+|\D", name)
    return [(1, int(part)) if part[0].isdigit() else (0, ord(part)) for part in parts]

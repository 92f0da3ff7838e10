"""The files of several packages, as one tree."""

from __future__ import annotations

import posixpath
from collections.abc import Iterable, Mapping, Sequence

from builder.bases.debian.deb import MOVED, Deb, moved
from builder.bases.debian.index import Package
from builder.errors import MirrorError
from builder.oci.tar import Entry, link

Tree = Mapping[str, Entry]
# What Linux follows before it takes links for a loop.
_LINKS = 40


def merge(packages: Sequence[Package], debs: Iterable[Deb]) -> dict[str, Entry]:
    """All entries by path, with the links that make `/bin` part of `/usr`.

    Raises:
        MirrorError: Two packages hold one path, and neither replaces the other.
    """
    tree: dict[str, Entry] = {}
    owner: dict[str, Package] = {}
    for package, deb in zip(packages, debs, strict=True):
        for entry in deb.entries:
            known = tree.get(entry.path)
            if known is None or (known.kind != "folder" and _replaces(package, owner[entry.path])):
                tree[entry.path], owner[entry.path] = entry, package
            elif not (known.kind == entry.kind == "folder" or _replaces(owner[entry.path], package)):
                names = f"{owner[entry.path].name} and {package.name}"
                raise MirrorError(f"{names} both hold /{entry.path}", place=package.name)
    for old, new in MOVED.items():
        if new.startswith("usr/") and any(path.startswith(f"{new}/") for path in tree):
            tree[old] = link(old, new)
    return tree


def content(tree: Tree, path: str) -> bytes:
    """A file's bytes."""
    found = tree[path].content
    return found if isinstance(found, bytes) else found.read_bytes()


def follow(tree: Tree, path: str) -> str | None:
    """The path of the file that a path leads to, over links of the tree; None where it leads to none."""
    for _ in range(_LINKS):
        entry = tree.get(path)
        if entry is None or entry.kind == "folder":
            return None
        if entry.kind != "link":
            return path if entry.kind == "file" else entry.target
        target = posixpath.join("/", posixpath.dirname(path), entry.target)
        path = moved(posixpath.normpath(target).lstrip("/"))
    return None


def _replaces(package: Package, other: Package) -> bool:
    return any(other.satisfies(relation) for relation in package.replaces)

"""dpkg's record of what is installed: scanners read it, and so would dpkg.

Source of its form: dpkg(1), "FILES", and deb-md5sums(5).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator

from builder.bases.debian.deb import Deb, moved
from builder.bases.debian.tree import Tree, content
from builder.oci.tar import Entry, file, folder

_FOLDER = "var/lib/dpkg"
# Of the control files, what is read about an installed package. Its scripts never ran, and none shall
# run when it is removed.
_KEPT = ("conffiles", "md5sums")


def record(debs: Iterable[Deb], tree: Tree) -> Iterator[Entry]:
    """The status file and what belongs to it."""
    stanzas = []
    for deb in debs:
        stanzas.append(_stanza(deb, tree))
        name = f"{_FOLDER}/info/{_info_name(deb)}"
        yield file(f"{name}.list", "".join(f"{path}\n" for path in deb.paths).encode())
        for kept in _KEPT:
            if kept in deb.info:
                yield file(f"{name}.{kept}", deb.info[kept])
    yield file(f"{_FOLDER}/status", "\n".join(stanzas).encode())
    # dpkg wants these to be there, and says so in each of its commands.
    yield file(f"{_FOLDER}/info/format", b"1\n")
    yield folder(f"{_FOLDER}/updates")
    yield folder(f"{_FOLDER}/triggers")


def _info_name(deb: Deb) -> str:
    """Packages that can be installed for several architectures at once have theirs in the name."""
    same = deb.control.get("Multi-Arch") == "same"
    return f"{deb.control['Package']}:{deb.control['Architecture']}" if same else deb.control["Package"]


def _stanza(deb: Deb, tree: Tree) -> str:
    lines = [line.rstrip() for line in deb.stated.strip().split("\n")]
    name = next(number for number, line in enumerate(lines) if line.startswith("Package:"))
    lines.insert(name + 1, "Status: install ok installed")
    if conffiles := list(_conffiles(deb, tree)):
        lines += ["Conffiles:", *conffiles]
    return "".join(f"{line}\n" for line in lines)


def _conffiles(deb: Deb, tree: Tree) -> Iterator[str]:
    for line in deb.info.get("conffiles", b"").decode().splitlines():
        path = moved(line.split()[-1].strip("/")) if line.strip() else ""
        if path in tree and tree[path].kind == "file":
            # What dpkg compares, not what protects anything.
            yield f" {line.split()[-1]} {hashlib.md5(content(tree, path)).hexdigest()}"  # noqa: S324

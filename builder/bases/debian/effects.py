"""What Debian's installation scripts would have done, as files: they never run.

Each function adds what one package's script leaves behind and a training image needs.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Iterable, Iterator, Mapping

from builder.bases.catalogue import MOUNT_POINTS, Recipe
from builder.bases.debian.certificates import certificates
from builder.bases.debian.deb import Deb, moved
from builder.bases.debian.loader_cache import loader_cache
from builder.bases.debian.tree import Tree, content
from builder.oci.tar import Entry, file, folder, link

# Packages whose scripts were read, and do nothing for an image but what is below (or nothing at all).
REVIEWED = frozenset(
    """
    base-files base-passwd bash ca-certificates coreutils dash debianutils gzip libc-bin libc6
    libgssapi-krb5-2 libselinux1 mawk media-types netbase openssl python3 python3-minimal readline-common
    sed tar tzdata
    """.split()
)
_FOLDERS = (
    *("dev", "media", "mnt", "opt", "proc", "run/lock", "srv", "sys", "tmp", "var/mail", "var/tmp"),
    *(f"usr/local/{name}" for name in ("bin", "etc", "include", "lib", "sbin", "share", "src")),
)
_REVIEWED_PYTHON = re.compile(r"(lib)?python3\.\d+(-minimal|-stdlib)?|python3-\w+")


def effects(recipe: Recipe, tree: Tree, debs: Iterable[Deb]) -> dict[str, Entry]:
    """What is added to the packages' own files, by path."""
    added: dict[str, Entry] = {}
    steps: tuple[Callable[[], Iterator[Entry]], ...] = (
        lambda: users(tree, recipe),
        lambda: defaults(tree),
        lambda: time_zone(tree),
        lambda: certificates(tree),
        lambda: alternatives(tree, debs),
        lambda: loader_cache(tree, recipe.architecture),
        lambda: places(recipe),
    )
    for step in steps:
        added |= {entry.path: entry for entry in step()}
    return added


def unhandled_scripts(debs: Iterable[Deb]) -> list[str]:
    """The packages whose installation scripts may do more than what is done here."""
    return [
        deb.name
        for deb in debs
        if "postinst" in deb.info and deb.name not in REVIEWED and not _REVIEWED_PYTHON.fullmatch(deb.name)
    ]


def users(tree: Tree, recipe: Recipe) -> Iterator[Entry]:
    """base-passwd: Debian's fixed users, all locked, and the contract's own. Without passwords, no shadow."""
    own = {"passwd": recipe.contract.passwd, "group": recipe.contract.group}
    for name, line in own.items():
        master = f"usr/share/base-passwd/{name}.master"
        known = content(tree, master) if master in tree else b""
        yield file(f"etc/{name}", known + f"{line}\n".encode())


def defaults(tree: Tree) -> Iterator[Entry]:
    """libc-bin and base-files: configuration that is copied from a default once, so that it may be edited."""
    copies = {
        "etc/nsswitch.conf": "usr/share/libc-bin/nsswitch.conf",
        "etc/profile": "usr/share/base-files/profile",
    }
    # Before trixie the first was a part of the second package.
    fallbacks = {"etc/nsswitch.conf": "usr/share/base-files/nsswitch.conf"}
    for path, default in copies.items():
        found = default if default in tree else fallbacks.get(path, "")
        if found in tree and path not in tree:
            yield file(path, content(tree, found))


def time_zone(tree: Tree) -> Iterator[Entry]:
    """tzdata: the time zone of whoever does not choose one."""
    if "usr/share/zoneinfo/Etc/UTC" in tree:
        yield link("etc/localtime", "/usr/share/zoneinfo/Etc/UTC")
        yield file("etc/timezone", b"Etc/UTC\n")


def alternatives(tree: Tree, debs: Iterable[Deb]) -> Iterator[Entry]:
    """`awk` and others: the names that several packages offer; the one with the highest priority has them."""
    best: dict[str, tuple[int, str]] = {"usr/bin/python": (0, "usr/bin/python3")}
    for deb in debs:
        for priority, names in read_alternatives(deb.info.get("postinst", b"").decode(errors="replace")):
            for name, target in names.items():
                if target in tree and priority > best.get(name, (-1, ""))[0]:
                    best[name] = (priority, target)
    for name, (_, target) in sorted(best.items()):
        if name not in tree and target in tree:
            yield link(name, f"/{target}")


def read_alternatives(script: str) -> Iterator[tuple[int, Mapping[str, str]]]:
    """The priority and the links of each `update-alternatives --install` that a script spells out."""
    for line in re.sub(r"\\\n", " ", script).splitlines():
        if "update-alternatives" not in line or "--install" not in line:
            continue
        try:
            words = shlex.split(line, comments=True)
            at = words.index("--install")
            name, _, target, priority = words[at + 1 : at + 5]
            names = {name: target}
            for slave in (number for number, word in enumerate(words) if word == "--slave"):
                names[words[slave + 1]] = words[slave + 3]
            if not any(each.startswith("$") for each in (*names, *names.values())):
                yield int(priority), {_inside(name): _inside(target) for name, target in names.items()}
        except (ValueError, IndexError):
            # Words that the script computes: what they are is not known here.
            continue


def places(recipe: Recipe) -> Iterator[Entry]:
    """What containers mount over, what old programs expect, and the one place that can be written to."""
    for name in MOUNT_POINTS:
        yield file(name, b"")
    for name in _FOLDERS:
        yield folder(name)
    yield link("var/run", "/run")
    yield link("var/lock", "/run/lock")
    yield folder(recipe.contract.workdir.strip("/"), 0o1777)


def _inside(path: str) -> str:
    return moved(path.strip("/"))

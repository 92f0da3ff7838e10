"""What is in an image, for comparisons: every file as its container sees it, and the config."""

from __future__ import annotations

import hashlib
import tarfile
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, BinaryIO, cast

import docker

# What a container's start lays over the image, and `docker export` shows.
_ENGINES_OWN = (
    ".dockerenv",
    "dev",
    "etc/hosts",
    "etc/hostname",
    "etc/resolv.conf",
    "etc/mtab",
    "proc",
    "sys",
)
# The installer's own notes, and what it compiled.
_INSTALLERS_OWN = ("/RECORD", "/INSTALLER", "/uv_cache.json", ".pyc", "/__pycache__")

File = tuple[str, int, int, int, str]


@contextmanager
def exported(image_id: str) -> Iterator[BinaryIO]:
    """The files of an image, flattened to one tar."""
    container = docker.from_env().containers.create(image_id)
    try:
        with tempfile.TemporaryFile() as file:
            for chunk in cast("Iterator[bytes]", container.export()):
                file.write(chunk)
            file.seek(0)
            yield cast("BinaryIO", file)
    finally:
        container.remove(v=True)


def files(image_id: str, left_out: Callable[[str], bool] = lambda path: False) -> dict[str, File]:
    """Path → type, mode, owners, and content's digest or link's target."""
    found = {}
    with exported(image_id) as file, tarfile.open(fileobj=file, mode="r|") as tar:
        for member in tar:
            path = member.name.removeprefix("./").rstrip("/")
            if path.startswith(_ENGINES_OWN) or left_out(path):
                continue
            content = tar.extractfile(member) if member.isfile() else None
            told = (
                hashlib.file_digest(cast("Any", content), "sha256").hexdigest()
                if content
                else member.linkname
            )
            kind = "file" if member.isfile() else member.type.decode()
            found[path] = (kind, member.mode & 0o7777, member.uid, member.gid, told)
    return found


def is_installers_own(path: str) -> bool:
    """What two builders may do differently."""
    return path.endswith(_INSTALLERS_OWN)


def config(image_id: str) -> dict[str, Any]:
    """What a container is started with, without what is empty."""
    found = docker.from_env().images.get(image_id).attrs["Config"]
    names = (
        "User",
        "Env",
        "Entrypoint",
        "Cmd",
        "WorkingDir",
        "Labels",
        "Volumes",
        "ExposedPorts",
        "StopSignal",
    )
    told = {name: found.get(name) for name in names if found.get(name)}
    return told | {"Env": sorted(told["Env"])}

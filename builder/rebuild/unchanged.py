"""Whether the last build of a folder still stands, told from file times alone.

A build that changes nothing should cost no more than finding that out, so this imports next to nothing: a
build writes down what it looked at, with the times that it had before, and what it told. The next build with
the same arguments compares. Anything that differs, or cannot be compared, means: build.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Iterable, Sequence

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

FILE = ".trainpack/unchanged.json"
# Whose modification may fall into the same tick of the file system's clock as the look that was taken at it.
_TICK_NS = 20_000_000
# What decides an image, or where things are, beside files.
_VARIABLES = (
    *("PATH", "HOME", "SOURCE_DATE_EPOCH", "XDG_CACHE_HOME", "CI", "PYTHONPATH"),
    # Not all that begin like this: DOCKER_AUTH_CONFIG holds passwords, and what is compared is written down.
    *("DOCKER_HOST", "DOCKER_CONTEXT", "DOCKER_CONFIG", "DOCKER_CERT_PATH", "DOCKER_TLS_VERIFY"),
    *("GIT_DIR", "GIT_WORK_TREE", "GIT_COMMON_DIR", "GIT_INDEX_FILE", "GIT_CEILING_DIRECTORIES"),
)
_PREFIX = "TRAINPACK_"

Status = list[int] | None


def told_before(arguments: Sequence[str]) -> str | None:
    """What the last build told, when a build with these arguments would make and tell the same."""
    try:
        known = _note(arguments)
        changed = [path for path, seen in known["files"].items() if status(path) != seen]
        if not changed and not known["push"]:
            return str(known["told"]) if engine_has(known["engine"], known["built"]) else None
    except (OSError, ValueError, LookupError, TypeError):
        return None
    if not _is_code(known, changed):
        return None
    from builder.errors import TrainpackError  # noqa: PLC0415
    from builder.rebuild.again import build_again  # noqa: PLC0415

    try:
        return build_again(known, changed)
    except (OSError, TrainpackError):
        return None  # a whole build meets it again, and tells it


def _note(arguments: Sequence[str]) -> dict[str, Any]:
    """The note of the last build, when it was one with these arguments and its layers are there.

    Raises:
        LookupError: It was another, or they are not.
    """
    with open(os.path.join(_folder(arguments), FILE), encoding="utf-8") as file:  # noqa: PTH118, PTH123
        known: dict[str, Any] = json.load(file)
    if known["surroundings"] != surroundings(arguments):
        raise LookupError
    if not all(_is_kept(path, size, known["sealed"]) for path, size in known["blobs"].items()):
        raise LookupError
    return known


def _is_code(known: dict[str, Any], changed: Sequence[str]) -> bool:
    """Whether what changed is code, and still there."""
    return all(path in known["code"] and os.path.isfile(path) for path in changed)  # noqa: PTH113


def look(paths: Iterable[str]) -> dict[str, Status]:
    """The status of files before a build reads them."""
    return {path: status(path) for path in paths}


def is_settled(seen: dict[str, Status], since: int) -> bool:
    """Whether a later modification of any of these files would show in its times.

    Args:
        since: When the look began, in nanoseconds.
    """
    return all(each is None or max(each[:2]) < since - _TICK_NS for each in seen.values())


def status(path: str) -> Status:
    """What changes when a file does, None where there is none."""
    try:
        found = os.stat(path)  # noqa: PTH116
    except (FileNotFoundError, NotADirectoryError):
        return None
    return [found.st_mtime_ns, found.st_ctime_ns, found.st_size, found.st_ino, found.st_mode]


def surroundings(arguments: Sequence[str]) -> list[object]:
    """Everything beside files that decides what a build does."""
    variables = sorted(
        [name, value] for name, value in os.environ.items() if name in _VARIABLES or name.startswith(_PREFIX)
    )
    return [sys.version, os.getcwd(), list(arguments), variables]  # noqa: PTH109


def _folder(arguments: Sequence[str]) -> str:
    for option in ("-C", "--folder"):
        if option in arguments:
            return arguments[arguments.index(option) + 1]
    return "."


def _is_kept(path: str, size: int, sealed: int) -> bool:
    """Whether a blob of the cache is there and untouched; marks it as used."""
    found = os.stat(path)  # noqa: PTH116
    if found.st_size != size or found.st_mtime_ns != sealed * 10**9:
        return False
    os.utime(path, (time.time(), sealed))
    return True


def engine_has(engine: dict[str, Any] | None, built: dict[str, Any]) -> bool:
    """Whether the engine has what the last build loaded; None stands for a build that asked no engine."""
    if engine is None:
        return True
    answer = ask_engine(engine["socket"], f"/images/{built['reference']}/json")
    if not engine["loaded"]:
        return answer is None
    # Engines with containerd's store call an image by its manifest's digest.
    return answer is not None and json.loads(answer).get("Id") in (built["image_id"], built["digest"])


def ask_engine(path: str, url: str, body: bytes | None = None) -> bytes | None:
    """The body of an answer of the engine, `{}` for a refusal, None where no engine answers."""
    import socket  # noqa: PLC0415

    method = "GET" if body is None else "POST"
    head = f"{method} {url} HTTP/1.0\r\nHost: engine\r\nContent-Length: {len(body or b'')}\r\n\r\n"
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(60)
        try:
            connection.connect(path)
        except OSError:
            return None
        # HTTP/1.0 ends an answer with the connection: nothing to parse but one empty line.
        connection.sendall(head.encode() + (body or b""))
        answer = b""
        while chunk := connection.recv(1 << 16):
            answer += chunk
    top, _, content = answer.partition(b"\r\n\r\n")
    return content if b" 200 " in top.partition(b"\r\n")[0] else b"{}"

"""Memory and disk as the container sees them; what cannot be read is None."""

from __future__ import annotations

import os
import re

# The files of cgroup v2, then those of v1, by what `failure.json` calls them.
_MEMORY = {
    "limit": ("memory.max", "memory/memory.limit_in_bytes"),
    "peak": ("memory.peak", "memory/memory.max_usage_in_bytes"),
    "current": ("memory.current", "memory/memory.usage_in_bytes"),
}
_OOM = ("memory.events", "memory/memory.oom_control")
# cgroup v1 says "no limit" by the largest multiple of the page size that 63 bits hold.
_UNLIMITED = 1 << 62

Figures = dict[str, int | None]


def memory(cgroup: str) -> Figures:
    """Bytes of the container's limit, peak and use.

    Args:
        cgroup: Where the container's own control group is mounted, `/sys/fs/cgroup`.
    """
    return {name: _number(_text(cgroup, files)) for name, files in _MEMORY.items()}


def oom_kills(cgroup: str) -> int:
    """How many processes the kernel has killed for memory since the container started, as far as it says."""
    found = re.search(r"^oom_kill (\d+)$", _text(cgroup, _OOM), re.MULTILINE)
    return int(found[1]) if found else 0


def disk(folder: str) -> Figures:
    """Bytes of a folder's file system: in all, used, and free for this user."""
    try:
        status = os.statvfs(folder)
    except OSError:
        return {"total": None, "used": None, "free": None}
    block = status.f_frsize
    return {
        "total": status.f_blocks * block,
        "used": (status.f_blocks - status.f_bfree) * block,
        "free": status.f_bavail * block,
    }


def _text(cgroup: str, files: tuple[str, ...]) -> str:
    for file in files:
        try:
            with open(os.path.join(cgroup, file), encoding="ascii") as opened:
                return opened.read()
        except OSError:
            continue
    return ""


def _number(text: str) -> int | None:
    text = text.strip()
    return int(text) if text.isdecimal() and int(text) < _UNLIMITED else None

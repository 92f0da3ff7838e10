"""What a script started in sessions of its own, which no signal to its process group reaches."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator

# What was killed is gone in milliseconds, unless the kernel itself is stuck.
_GONE_SECONDS = 1.0


def end() -> None:
    """Kill them and wait until they are gone: they must not write what is being collected."""
    deadline = time.monotonic() + _GONE_SECONDS
    while kill() and time.monotonic() < deadline:
        time.sleep(0.001)


def kill() -> int:
    """Kill those that run now; how many there were."""
    processes = _running()
    for process in processes:
        try:
            os.kill(process, signal.SIGKILL)
        except (ProcessLookupError, PermissionError):
            continue
    return len(processes)


def _running() -> set[int]:
    parents = dict(_parents())
    # tini -s takes in every orphan: all that is below it, but ourselves, is the script's.
    above = os.getppid()
    found = {above if _is_tini(above) else os.getpid()}
    while more := {process for process, parent in parents.items() if parent in found} - found:
        found |= more
    return (found & parents.keys()) - {above, os.getpid()}


def _is_tini(process: int) -> bool:
    return _read(f"{process}/comm") == b"tini\n"


def _parents() -> Iterator[tuple[int, int]]:
    """Each process that has not ended, and its parent, as far as /proc shows them."""
    names = os.listdir("/proc") if os.path.isdir("/proc") else []
    for name in filter(str.isdecimal, names):
        # The name between the parentheses can hold anything, more of them too.
        state, parent, *_ = *_read(f"{name}/stat").rpartition(b") ")[2].split(), b"X", b"0"
        if state not in b"ZX":
            yield int(name), int(parent)


def _read(name: str) -> bytes:
    try:
        with open(f"/proc/{name}", "rb") as file:
            return file.read()
    except OSError:
        return b""

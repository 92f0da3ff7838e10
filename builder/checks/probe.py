"""Takes the script's place in a contract check and writes down what a script sees there.

Runs inside the image, in the script's environment: one file, standard library only. The host appends a call
of `main` with the check's task.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Iterator
from itertools import takewhile
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

READY = "trainpack-probe: ready"
SIGNALLED = "trainpack-probe: signalled"
REPORT = "trainpack-probe.json"
RELATIVE = "trainpack-probe-relative.txt"
SIGNAL = "trainpack-probe-signal.txt"
NOT_THE_IMAGE = frozenset(["/proc", "/sys", "/dev", "/workspace", "/mnt/trainpack"])
SITE_PACKAGES = "opt/venv/lib/python3*/site-packages"


def main(task: dict[str, Any]) -> NoReturn:
    """Observe, report, and end as the task says.

    Args:
        task: `exit`: the code to end with; `wait`: for a signal; `walk`: also look at the file system;
            `variables`: environment variables whose values are wanted, of the others only the names are.
    """
    if os.environ.get("RANK", "0") == "0":
        outputs = Path(os.environ.get("TRAINPACK_OUTPUTS", "/workspace/outputs"))
        (outputs / REPORT).write_text(json.dumps(observe(task)))
        Path(RELATIVE).write_text("written relative to the working directory\n")
        if task.get("wait"):
            _wait(outputs)
    sys.exit(task.get("exit", 0))


def observe(task: dict[str, Any]) -> dict[str, Any]:
    """What a script sees of its arguments, environment, inputs and, when asked for, the file system."""
    inputs = Path(os.environ.get("TRAINPACK_INPUTS", "/workspace/inputs"))
    return {
        "argv": sys.argv[1:],
        "cwd": str(Path.cwd()),
        "uid": os.getuid(),
        "environment": sorted(os.environ),
        "variables": {name: os.environ.get(name) for name in task.get("variables", ())},
        "home_is_writable": os.access(os.environ.get("HOME", "/"), os.W_OK),
        "parameters": _read_json(inputs / "parameters.json"),
        "labelmap": _read_json(inputs / "labelmap.json"),
        "datasets": sorted(path.name for path in (inputs / "datasets").glob("*")),
        **({"writable": writable(), "packages": packages()} if task.get("walk") else {}),
    }


def writable(top: str = "/") -> list[str]:
    """Files and folders that the current user may write to."""
    return [path for path in _paths(top) if os.access(path, os.W_OK)]


def packages(site_packages: str = SITE_PACKAGES) -> dict[str, str]:
    """What is installed beside the script, by name, from its metadata."""
    found = {}
    for path in Path("/").glob(f"{site_packages}/*.dist-info/METADATA"):
        # The headers alone: a description may run to megabytes.
        with path.open(encoding="utf-8", errors="replace") as lines:
            headers = dict(
                line.rstrip().split(": ", 1) for line in takewhile(str.strip, lines) if ": " in line
            )
        found[headers["Name"]] = headers["Version"]
    return found


def _paths(folder: str) -> Iterator[str]:
    try:
        entries = list(os.scandir(folder))
    except OSError:
        return
    for entry in entries:
        if entry.path not in NOT_THE_IMAGE and not entry.is_symlink():
            yield entry.path
            if entry.is_dir():
                yield from _paths(entry.path)


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError):
        return None


def _wait(outputs: Path) -> NoReturn:
    def arrived(number: int, frame: FrameType | None) -> NoReturn:
        (outputs / SIGNAL).write_text(signal.Signals(number).name)
        print(SIGNALLED, flush=True)
        sys.exit(0)

    signal.signal(signal.SIGTERM, arrived)
    print(READY, flush=True)
    while True:
        signal.pause()

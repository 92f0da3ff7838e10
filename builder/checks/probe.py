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
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

READY = "trainpack-probe: ready"
SIGNALLED = "trainpack-probe: signalled"
REPORT = "trainpack-probe.json"
RELATIVE = "trainpack-probe-relative.txt"
SIGNAL = "trainpack-probe-signal.txt"
NOT_THE_IMAGE = frozenset(["/proc", "/sys", "/dev", "/workspace", "/mnt/trainpack"])
KEY_NAMES = (".pem", ".key", "id_rsa", "id_dsa", "id_ecdsa", "id_ed25519")


def main(task: dict[str, Any]) -> NoReturn:
    """Observe, report, and end as the task says.

    Args:
        task: `exit`: the code to end with; `wait`: for a signal; `walk`: `writable` or `contents`;
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
    walk = {"writable": writable, "contents": contents}.get(task.get("walk", ""), dict)
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
        **walk(),
    }


def writable(top: str = "/") -> dict[str, Any]:
    """Files and folders that the current user may write to."""
    return {"writable": [path for path in _paths(top) if os.access(path, os.W_OK)]}


def contents(top: str = "/") -> dict[str, Any]:
    """Every file and folder, and those that hold a private key."""
    paths = list(_paths(top))
    return {"paths": paths, "private_keys": [path for path in paths if _holds_private_key(path)]}


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


def _holds_private_key(path: str) -> bool:
    if not path.endswith(KEY_NAMES):
        return False
    try:
        return b"PRIVATE KEY-----" in Path(path).read_bytes()
    except OSError:
        return False


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

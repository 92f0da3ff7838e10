"""The command line, driven as a user drives it: a process of its own in the project's folder."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

TRAINPACK = str(Path(sys.executable).with_name("trainpack"))


@dataclass(frozen=True)
class Ended:
    """How a command ended."""

    code: int
    stdout: str
    stderr: str

    @property
    def json(self) -> Any:
        return json.loads(self.stdout)

    @property
    def output(self) -> str:
        return self.stdout + self.stderr


def trainpack(folder: Path, *arguments: str, env: Mapping[str, str] | None = None) -> Ended:
    """Run one command to its end, whatever it ends with."""
    done = subprocess.run(
        [TRAINPACK, *arguments],
        cwd=folder,
        env=os.environ | (env or {}),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
    )
    return Ended(done.returncode, done.stdout, done.stderr)


def succeed(folder: Path, *arguments: str, env: Mapping[str, str] | None = None) -> Ended:
    """Run one command that must work."""
    ended = trainpack(folder, *arguments, env=env)
    assert ended.code == 0, f"trainpack {' '.join(arguments)} ended with {ended.code}:\n{ended.output}"
    return ended

"""A container's file tree in a temporary folder, in which the real entrypoint runs real scripts."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from textwrap import dedent
from typing import Any

import trainpack_entrypoint
from trainpack_entrypoint.manifest import Manifest, Run
from trainpack_entrypoint.schema import Parameter

ENTRYPOINT = Path(trainpack_entrypoint.__file__).parents[1]
DRIVER = """\
import sys
sys.path.insert(0, {entrypoint!r})
{setup}
from trainpack_entrypoint.main import main
main(sys.argv[1:], root={root!r})
"""


@dataclass(frozen=True)
class Ended:
    """A container that has ended."""

    root: Path
    code: int
    stdout: bytes
    stderr: bytes

    @property
    def told(self) -> str:
        """What the entrypoint and the script wrote to stderr."""
        return self.stderr.decode()

    @property
    def outputs(self) -> Path:
        return self.root / "workspace/outputs"

    @property
    def result(self) -> dict[str, Any]:
        return _json(self.root / "workspace/result.json")

    @property
    def failure(self) -> dict[str, Any]:
        return _json(self.root / "workspace/failure.json")

    @property
    def saved(self) -> list[str]:
        """The paths that result.json lists."""
        return [entry["path"] for entry in self.result["outputs"]]


class ContainerRoot:
    """What an image and its mounts would be, below one folder."""

    def __init__(self, root: Path) -> None:
        self.root = root
        # What the entrypoint is started by.
        self.prefix: tuple[str, ...] = ()
        for folder in ("opt/app", "opt/venv/bin", "opt/trainpack", "workspace"):
            (root / folder).mkdir(parents=True)
        (root / "opt/venv/bin/python").symlink_to(sys.executable)
        self.bake()

    def bake(
        self,
        *,
        parameters: Sequence[Parameter] = (),
        run: Run | None = None,
        **fields: Any,
    ) -> None:
        """Write the manifest."""
        manifest = Manifest(
            name="registry.example.com/team/model",
            version="1.0",
            run=run or Run(script="train.py"),
            trainpack="0.1",
            python="3.11",
            lock="lock-hash",
            revision="abc123",
            parameters={parameter.name: parameter for parameter in parameters},
            **fields,
        )
        self.write("opt/trainpack/image.json", json.dumps(manifest.to_json()))

    def write(self, path: str, content: str | bytes) -> Path:
        """Write a file below the root."""
        file = self.root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content if isinstance(content, bytes) else dedent(content).encode())
        return file

    def script(self, source: str, name: str = "train.py") -> None:
        """Write the training script."""
        self.write(f"opt/app/{name}", source)

    def mount(self, name: str, data: Any) -> str:
        """Mount a JSON document; text is written as it is."""
        content = data if isinstance(data, str) else json.dumps(data)
        return str(self.write(f"mnt/trainpack/{name}", content))

    def command(self, *arguments: str, setup: str = "") -> list[str]:
        """The entrypoint as a command."""
        driver = DRIVER.format(entrypoint=str(ENTRYPOINT), setup=setup, root=str(self.root))
        return [*self.prefix, sys.executable, "-I", "-c", driver, *arguments]

    def start(
        self, *arguments: str, env: Mapping[str, str] | None = None, setup: str = "", **options: Any
    ) -> subprocess.Popen[bytes]:
        """Start the entrypoint with an environment of its own."""
        return subprocess.Popen(
            self.command(*arguments, setup=setup),
            env={"PATH": os.defpath, **(env or {})},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            **options,
        )

    def ended(self, process: subprocess.Popen[bytes]) -> Ended:
        """Wait for its end."""
        stdout, stderr = process.communicate(timeout=60)
        return Ended(self.root, process.returncode, stdout, stderr)

    def run(
        self, *arguments: str, env: Mapping[str, str] | None = None, setup: str = "", **options: Any
    ) -> Ended:
        """Run the entrypoint to its end."""
        return self.ended(self.start(*arguments, env=env, setup=setup, **options))


def _json(path: Path) -> dict[str, Any]:
    document = json.loads(path.read_text())
    assert isinstance(document, dict)
    return document

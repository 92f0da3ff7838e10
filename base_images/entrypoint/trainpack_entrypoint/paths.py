"""Every path of the image contract, below one root, so that a test can move them all."""

from __future__ import annotations

import os
from typing import NamedTuple


class Paths(NamedTuple):
    """Absolute paths; see docs/contract.md for what each holds."""

    manifest: str
    app: str
    venv: str
    mounted: str
    workspace: str
    cgroup: str
    driver: str

    @classmethod
    def below(cls, root: str) -> Paths:
        """The contract's paths below a root folder; `/` in a container."""

        def at(path: str) -> str:
            return os.path.join(root, path)

        return cls(
            manifest=at("opt/trainpack/image.json"),
            app=at("opt/app"),
            venv=at("opt/venv"),
            mounted=at("mnt/trainpack"),
            workspace=at("workspace"),
            cgroup=at("sys/fs/cgroup"),
            driver=at("proc/driver/nvidia/version"),
        )

    def mount(self, name: str) -> str:
        """A mounted input, `parameters.json` or `datasets/train`."""
        return os.path.join(self.mounted, name)

    @property
    def code(self) -> str:
        """Where the script runs."""
        return os.path.join(self.workspace, "code")

    @property
    def inputs(self) -> str:
        """The inputs as the script sees them."""
        return os.path.join(self.workspace, "inputs")

    @property
    def outputs(self) -> str:
        """What a run leaves."""
        return os.path.join(self.workspace, "outputs")

    @property
    def metrics(self) -> str:
        """One `{"step", "name", "value"}` a line."""
        return os.path.join(self.outputs, "metrics.jsonl")

    @property
    def home(self) -> str:
        """The script's HOME."""
        return os.path.join(self.workspace, "home")

    @property
    def temporary(self) -> str:
        """The script's TMPDIR."""
        return os.path.join(self.workspace, "tmp")

"""uv: on the host to resolve, bound into builds to install."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from pathlib import Path

import uv
from platformdirs import user_cache_path

from builder.errors import TrainpackError

CACHE = "TRAINPACK_CACHE"
_MACHINES = {"linux/amd64": "x86_64", "linux/arm64": "aarch64"}


def cache_folder() -> Path:
    """Where trainpack keeps what can be made again: `TRAINPACK_CACHE`, else the user's cache folder."""
    named = os.environ.get(CACHE)
    return Path(named) if named else user_cache_path("trainpack")


def host_uv() -> Path:
    """The uv that came with trainpack."""
    return Path(uv.find_uv_bin())


def uv_for(target: str, index_arguments: list[str], environment: dict[str, str]) -> Path:
    """A uv that runs on the image's platform: the host's own, else the same version from the index.

    Raises:
        TrainpackError: The index does not offer it.
    """
    machine = _MACHINES[target]
    if sys.platform == "linux" and platform.machine() == machine:
        return host_uv()
    version = subprocess.run(
        [host_uv(), "--version"], capture_output=True, text=True, check=True
    ).stdout.split()[1]
    folder = cache_folder() / "uv" / f"{version}-{machine}"
    binary = folder / "bin" / "uv"
    if not binary.is_file():
        command = [str(host_uv()), "pip", "install", "--quiet", "--no-deps", "--target", str(folder)]
        command += ["--python-platform", f"{machine}-manylinux2014", *index_arguments, f"uv=={version}"]
        done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
        if done.returncode != 0:
            raise TrainpackError(
                f"uv {version} for {target} cannot be had from the package index",
                details=tuple(done.stderr.splitlines()[-5:]),
            )
    return binary

"""The user's container engine: the docker SDK for all but builds, the docker command line for those.

Both are pointed at the same engine: `DOCKER_HOST`, else the current docker context, else the default socket.
"""

from __future__ import annotations

import functools
import os
import re
import shutil
import subprocess
from pathlib import Path

import docker
from docker.context import Context, ContextAPI
from docker.errors import DockerException
from docker.tls import TLSConfig

from builder.errors import EngineUnavailableError

REMEDY = (
    "start Docker, or point DOCKER_HOST or a docker context at an engine; "
    "on Debian `apt-get install docker.io` installs one; `trainpack doctor` checks it"
)
SSH_REMEDY = "install what the docker SDK needs for ssh: `pip install 'trainpack[ssh]'`"

FULL_REMEDY = "the engine's disk is full: see `docker system df`; `docker builder prune` frees its cache"


def is_full(message: str) -> bool:
    """Whether an engine says that its disk is full."""
    return "no space left on device" in message.lower()


@functools.cache
def client() -> docker.DockerClient:
    """The engine through the docker SDK.

    Raises:
        EngineUnavailableError: None answers.
    """
    try:
        connection = _connect()
        connection.ping()
    except (DockerException, OSError) as error:
        reason = str(error).split("\n")[0]
        remedy = SSH_REMEDY if "paramiko" in reason else REMEDY
        raise EngineUnavailableError(
            f"no container engine answers at {endpoint()}: {reason}", remedy=remedy
        ) from None
    return connection


def endpoint() -> str:
    """The address that engine calls go to."""
    if host := os.environ.get("DOCKER_HOST"):
        return host
    context = _context()
    return str(context.Host) if context else "unix:///var/run/docker.sock"


def is_local() -> bool:
    """Whether the engine shares this machine's files, so that folders can be bind-mounted."""
    return endpoint().startswith(("unix://", "npipe://", "http+unix://"))


def _context() -> Context | None:
    """The docker context in force, as the docker command chooses it: the SDK does not read DOCKER_CONTEXT."""
    name = os.environ.get("DOCKER_CONTEXT")
    context = ContextAPI.get_context(name) if name else ContextAPI.get_current_context()
    if name and context is None:
        raise EngineUnavailableError(
            f"there is no docker context {name!r}",
            place="DOCKER_CONTEXT",
            remedy="`docker context ls` lists them",
        )
    return context


def _connect() -> docker.DockerClient:
    context = None if os.environ.get("DOCKER_HOST") else _context()
    if context is None or context.Name == "default":
        return docker.from_env(timeout=600, use_ssh_client=True)
    tls = context.TLSConfig
    return docker.DockerClient(
        base_url=context.Host,
        tls=tls if isinstance(tls, TLSConfig) else False,
        timeout=600,
        use_ssh_client=True,
    )


@functools.cache
def buildkit_cli() -> str:
    """The first `docker` on PATH that can drive BuildKit: with the buildx plugin, or built in before 23.0.

    Raises:
        EngineUnavailableError: There is none.
    """
    for folder in os.get_exec_path():
        candidate = shutil.which("docker", path=folder)
        if candidate and _drives_buildkit(candidate):
            return candidate
    found = shutil.which("docker")
    raise EngineUnavailableError(
        f"{found} has no buildx plugin, which BuildKit needs"
        if found
        else "there is no docker command on PATH",
        remedy="install docker-buildx (Debian 12: docker.io has BuildKit built in)",
    )


def _drives_buildkit(command: str) -> bool:
    if subprocess.run([command, "buildx", "version"], capture_output=True, check=False).returncode == 0:
        return True
    version = subprocess.run([command, "--version"], capture_output=True, text=True, check=False).stdout
    major = re.search(r"version (\d+)\.", version)
    return major is not None and int(major[1]) < 23


def has_gpu() -> bool:
    """Whether the engine knows an NVIDIA runtime or the local host has the driver's device."""
    runtimes = client().info().get("Runtimes") or {}
    return "nvidia" in runtimes or (is_local() and Path("/dev/nvidiactl").exists())

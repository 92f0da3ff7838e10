"""A container engine beside the one of this machine: a dockerd with nothing in common with it."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import docker
import pytest
from needs import unavailable

from builder.engine.containers import as_file


@contextmanager
def second_engine(data: Path, *images: str, tcp: socket.socket | None = None) -> Iterator[str]:
    """The address of an engine that keeps all it has in `data`: a socket, short for its 107 bytes.

    Args:
        images: What it is given of the first engine's images.
        tcp: Listens on this machine's loopback; the engine then answers there too.
    """
    if os.geteuid() != 0:
        pytest.skip("only root can start a second engine")
    host = f"unix://{data}/docker.sock"
    options = [f"--data-root={data}/data", f"--exec-root={data}/exec", f"--pidfile={data}/pid"]
    options += ["--containerd-namespace=second", "--containerd-plugins-namespace=second.plugins"]
    options += ["--bridge=none", "--iptables=false", "--ip6tables=false", f"--host={host}"]
    # In a network namespace of its own: two engines in one would fight over the bridge docker0. A socket that
    # was made outside still answers there, handed over as systemd does it.
    command = ["unshare", "--net", "dockerd", *options]
    if tcp:
        handed = 'exec 3<&0 0</dev/null; LISTEN_PID=$$ LISTEN_FDS=1 exec "$@"'
        command = ["sh", "-c", handed, "sh", *command, "--host=fd://"]
    with (data / "engine.log").open("wb") as log:
        process = subprocess.Popen(command, stdin=tcp.fileno() if tcp else None, stdout=log, stderr=log)
    try:
        engine = _wait(host, process, data / "engine.log")
        for image in images:
            saved = docker.from_env().images.get(image).save(named=image)
            engine.images.load(as_file(saved))
        yield host
    finally:
        process.terminate()
        process.wait(timeout=30)


def over_ssh(data: Path, host: str) -> dict[str, str]:
    """The environment in which the engine at `host` is reached through a real ssh client and server.

    The server needs no port and no process of its own: the client starts it, and they talk through a pipe.
    """
    server = shutil.which("sshd", path="/usr/sbin:/usr/bin")
    if server is None:
        unavailable("there is no ssh server: run scripts/test-services")
    Path("/run/sshd").mkdir(exist_ok=True)
    for key in ("host", "user"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", data / key], check=True)
    (data / "sshd_config").write_text(
        f"HostKey {data}/host\nAuthorizedKeysFile {data}/user.pub\nStrictModes no\nPidFile none\n"
        f"SetEnv DOCKER_HOST={host}\n"
    )
    (data / "ssh_config").write_text(
        f"ProxyCommand {server} -i -f {data}/sshd_config\nIdentityFile {data}/user\n"
        "StrictHostKeyChecking no\nUserKnownHostsFile /dev/null\nLogLevel ERROR\n"
    )
    # In front of the machine's own, as a user's ~/.ssh/config would be.
    (data / "ssh").write_text(f'#!/bin/sh\nexec {shutil.which("ssh")} -F {data}/ssh_config "$@"\n')
    (data / "ssh").chmod(0o755)
    return {"PATH": f"{data}:{os.environ['PATH']}", "DOCKER_HOST": "ssh://root@engine.example.com"}


@contextmanager
def short_folder() -> Iterator[Path]:
    """A folder of its own whose path is short; what the engine leaves is removed with it."""
    data = Path(tempfile.mkdtemp(prefix="engine-"))
    yield data
    subprocess.run(["rm", "-rf", "--one-file-system", data], check=True)


def _wait(host: str, process: subprocess.Popen[bytes], log: Path) -> docker.DockerClient:
    deadline = time.monotonic() + 30
    while True:
        try:
            return docker.DockerClient(base_url=host, timeout=600)
        except docker.errors.DockerException:
            assert process.poll() is None, log.read_text(errors="replace")
            assert time.monotonic() < deadline, log.read_text(errors="replace")
            time.sleep(0.1)

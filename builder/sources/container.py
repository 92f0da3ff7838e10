"""A container of the base that gets files and gives bytes, and nothing else of this machine.

It has no network, no mount and no variable of the user's. What it needs comes on its standard input, which
then stays open: when that ends, since whoever started it is gone, whatever the reason, the container ends.
"""

from __future__ import annotations

import io
import shutil
import subprocess
import threading
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from typing import IO, cast

from builder.errors import EngineUnavailableError
from builder.plan import LABEL, USER, WORKDIR

BUILDING = f"{LABEL}.building"
_KEPT_LINES, _LONGEST_LINE = 20, 1000
# Unpacks its input, then runs the command that it is given until that ends, or its input does. It is the
# container's first process: with it go all others.
_START = """
import os, subprocess, sys, tarfile, threading
source = open(0, "rb", buffering=0, closefd=False)
with tarfile.open(fileobj=source, mode="r|") as archive:
    archive.extraction_filter = lambda member, path: member
    archive.extractall("/")
def watch():
    while source.read(1 << 16):
        pass
    os._exit(1)
threading.Thread(target=watch, daemon=True).start()
code = subprocess.call(sys.argv[1:], stdin=subprocess.DEVNULL)
os._exit(code if code >= 0 else 128 - code)
"""


@dataclass(frozen=True)
class Ended:
    """How a container ended: its exit code, and the last lines that it told."""

    code: int
    tail: tuple[str, ...]


def docker_command() -> str:
    """The docker command.

    Raises:
        EngineUnavailableError: There is none on PATH.
    """
    found = shutil.which("docker")
    if found is None:
        raise EngineUnavailableError("there is no docker command on PATH")
    return found


def run_confined(
    image: str,
    command: Iterable[str],
    files: Iterable[bytes],
    receive: Callable[[IO[bytes]], None],
    *,
    title: str,
    environment: Mapping[str, str],
) -> Ended:
    """Run a command in a new container, which is gone at the end.

    Args:
        image: Is in the engine, and has a Python.
        files: A tar of files below the work folder, the only one that can be written to.
        receive: Reads what the command writes to its standard output, to its end.
        title: What the container is for; `docker ps` shows it as a label.
        environment: Variables of the command, seen by all who may ask the engine.

    Raises:
        EngineUnavailableError: There is no docker command.
        TrainpackError: Of what `files` is made from.
    """
    options = [
        *("--rm", "--interactive", "--pull=never", "--network=none", "--log-driver=none"),
        *("--cap-drop=ALL", "--security-opt=no-new-privileges", "--hostname=trainpack"),
        *(f"--user={USER}", f"--workdir={WORKDIR}", f"--label={BUILDING}={title}"),
        *(f"--env={name}={value}" for name, value in environment.items()),
    ]
    words = [docker_command(), "run", *options, "--entrypoint=python3", image, "-I", "-c", _START, *command]
    pipe = subprocess.PIPE
    ended = threading.Event()
    with (
        # Ctrl-C does not reach the docker command: the end of its input ends it, after the container.
        subprocess.Popen(
            words, stdin=pipe, stdout=pipe, stderr=pipe, bufsize=0, start_new_session=True
        ) as process,
        ThreadPoolExecutor(2, "container") as pool,
    ):
        assert process.stdin and process.stdout  # noqa: S101, PT018  (Popen was given pipes)
        assert process.stderr  # noqa: S101
        sent = pool.submit(_send, process.stdin, files, ended)
        told = pool.submit(_tail, io.BufferedReader(cast("io.RawIOBase", process.stderr)))
        try:
            with process.stdout:
                receive(process.stdout)
            code = process.wait()
        finally:
            ended.set()
        sent.result()
        return Ended(code, told.result())


def _send(pipe: IO[bytes], files: Iterable[bytes], ended: threading.Event) -> None:
    # A container that ends before it has read all of it says itself why.
    with suppress(BrokenPipeError), pipe:
        for piece in files:
            rest = memoryview(piece)
            while rest and not ended.is_set():
                rest = rest[pipe.write(rest) :]
        ended.wait()


def _tail(pipe: IO[bytes]) -> tuple[str, ...]:
    lines = deque(iter(lambda: pipe.readline(_LONGEST_LINE), b""), maxlen=_KEPT_LINES)
    return tuple(_shown(line.decode(errors="replace").rstrip()) for line in lines)


def _shown(line: str) -> str:
    """Without what would move the cursor of the terminal that it is shown on."""
    return "".join(character for character in line if character.isprintable() or character == "\t")

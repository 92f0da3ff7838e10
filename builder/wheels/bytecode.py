"""Byte code for the image's Python: the same on every machine that compiles with the same interpreter.

Byte code is the same for every processor, so that of an arm64 image can be made on any machine.
"""

from __future__ import annotations

import functools
import os
import platform
import shutil
import subprocess
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from dataclasses import dataclass

from builder.errors import TrainpackError

# A process compiles this many files, or bytes of them: what is in its memory decides some bits of what it
# writes, so a file's company has to be the same on every machine; and it is in this process's memory too.
_FILES_PER_PROCESS = 200
_BYTES_PER_PROCESS = 1 << 20
# Reads names and sources from standard input and writes byte code, empty where a file is no Python of this
# version; with a source's hash in place of its time, never checked: https://peps.python.org/pep-0552/.
_COMPILER = """
import sys
from importlib._bootstrap_external import _code_to_hash_pyc
from importlib.util import source_hash
def read():
    return source.read(int.from_bytes(source.read(4), "big"))
source, target = sys.stdin.buffer, sys.stdout.buffer
for _ in range(int.from_bytes(source.read(4), "big")):
    name, content = read().decode(), read()
    try:
        code = compile(content, name, "exec", dont_inherit=True, optimize=0)
        made = bytes(_code_to_hash_pyc(code, source_hash(content), False))
        del code
    except (SyntaxError, ValueError, RecursionError, MemoryError, OverflowError):
        made = b""
    target.write(len(made).to_bytes(4, "big") + made)
"""


@dataclass(frozen=True)
class Interpreter:
    """Something that compiles: what it is, `cpython-3.11.7`, and how it is started."""

    identity: str
    command: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Bytecode:
    """What a source was compiled to, and where that goes."""

    source: str
    path: str
    content: bytes


def find_interpreter(python: str, base: str) -> Interpreter | None:
    """What compiles for the image: this machine's interpreter of its minor version, else the base's own.

    Args:
        base: The base as an engine knows it, which runs its interpreter in a container.
    """
    return _host_interpreter(python) or _container_interpreter(python, base)


@functools.cache
def _host_interpreter(python: str) -> Interpreter | None:
    if sys.implementation.name == "cpython" and python == f"{sys.version_info[0]}.{sys.version_info[1]}":
        return Interpreter(f"cpython-{platform.python_version()}", (sys.executable,))
    found = shutil.which(f"python{python}")
    return _asked((found,), python) if found else None


@functools.cache
def _container_interpreter(python: str, base: str) -> Interpreter | None:
    command = (
        "docker",
        "run",
        "--rm",
        "--interactive",
        "--network=none",
        "--read-only",
        "--entrypoint=python3",
    )
    if not shutil.which(command[0]):
        return None
    return _asked((*command, "--env=PYTHONHASHSEED=0", "--pull=never", base), python)


def _asked(command: tuple[str, ...], python: str) -> Interpreter | None:
    """What a command that starts an interpreter starts, None where that is another minor version."""
    code = "import platform, sys; print(sys.implementation.name, platform.python_version(), sep='-')"
    done = subprocess.run([*command, "-I", "-c", code], capture_output=True, text=True, check=False)
    identity = done.stdout.strip()
    return Interpreter(identity, command) if identity.startswith(f"cpython-{python}.") else None


def compile_files(
    names: Iterable[str], read: Callable[[str], bytes], python: str, interpreter: Interpreter
) -> list[Bytecode]:
    """As `compile_with`, in processes of its own."""
    with ThreadPoolExecutor(os.cpu_count(), "compile") as pool:
        return list(compile_with(pool, names, read, python, interpreter))


def compile_with(
    pool: Executor, names: Iterable[str], read: Callable[[str], bytes], python: str, interpreter: Interpreter
) -> Iterator[Bytecode]:
    """The byte code of some files, in the order of their names; none for what is not valid Python.

    Args:
        pool: Waits for the processes that compile, several at once.
        names: Paths below the image's root.
        read: Reads one of them; called from one thread, and not long before it is compiled.
        python: The minor version, `3.11`.

    Raises:
        TrainpackError: The interpreter fails.
    """
    started: deque[tuple[list[str], Future[list[bytes]]]] = deque()
    for sources in _shares(sorted(names), read):
        part = [name for name, _ in sources]
        started.append((part, pool.submit(_compiled, sources, interpreter)))
        if len(started) > (os.cpu_count() or 1):
            yield from _placed(*started.popleft(), python)
    while started:
        yield from _placed(*started.popleft(), python)


def _shares(names: Iterable[str], read: Callable[[str], bytes]) -> Iterator[list[tuple[str, bytes]]]:
    """The files and their content, in the shares of a process each."""
    share: list[tuple[str, bytes]] = []
    size = 0
    for name in names:
        content = read(name)
        if share and (len(share) == _FILES_PER_PROCESS or size + len(content) > _BYTES_PER_PROCESS):
            yield share
            share, size = [], 0
        share.append((name, content))
        size += len(content)
    if share:
        yield share


def _placed(names: Sequence[str], made: Future[list[bytes]], python: str) -> Iterator[Bytecode]:
    for name, content in zip(names, made.result(), strict=True):
        if content:
            yield Bytecode(name, _cached(name, python), content)


def _compiled(sources: Sequence[tuple[str, bytes]], interpreter: Interpreter) -> list[bytes]:
    pieces = [len(sources).to_bytes(4, "big")]
    pieces += [_framed(part) for name, content in sources for part in (f"/{name}".encode(), content)]
    command = [*interpreter.command, "-s", "-S", "-B", "-W", "ignore", "-c", _COMPILER]
    done = subprocess.run(
        command, input=b"".join(pieces), capture_output=True, check=False, env=_environment(), cwd=os.sep
    )
    if done.returncode != 0:
        raise TrainpackError(
            f"{interpreter.identity} ended with {done.returncode} while it compiled",
            details=tuple(done.stderr.decode(errors="replace").splitlines()[-5:]),
        )
    return list(_frames(done.stdout))


def _environment() -> dict[str, str]:
    """Nothing of this machine's but where the engine is; the seed orders the sets that are constants."""
    engine = (
        "PATH",
        "HOME",
        "DOCKER_HOST",
        "DOCKER_CONTEXT",
        "DOCKER_CONFIG",
        "DOCKER_CERT_PATH",
        "DOCKER_TLS_VERIFY",
    )
    return {name: os.environ[name] for name in engine if name in os.environ} | {"PYTHONHASHSEED": "0"}


def _cached(path: str, python: str) -> str:
    folder, _, name = path.rpartition("/")
    return f"{folder}/__pycache__/{name.removesuffix('.py')}.cpython-{python.replace('.', '')}.pyc"


def _framed(content: bytes) -> bytes:
    return len(content).to_bytes(4, "big") + content


def _frames(content: bytes) -> Iterator[bytes]:
    at = 0
    while at < len(content):
        size = int.from_bytes(content[at : at + 4], "big")
        yield content[at + 4 : at + 4 + size]
        at += 4 + size

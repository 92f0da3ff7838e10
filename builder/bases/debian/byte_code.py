"""The standard library's byte code, made by the base's own interpreter.

It runs from where it was unpacked, through its own loader: no chroot, no root. Byte code is the same on every
processor, so a base for another one is compiled by the interpreter of the same packages for this machine.
"""

from __future__ import annotations

import platform
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path

from builder.bases.debian.loader_cache import TRIPLETS
from builder.bases.debian.tree import Tree, content, follow
from builder.errors import BuildError
from builder.oci.tar import Entry, file

_MACHINES = {"x86_64": "amd64", "aarch64": "arm64"}
# What nobody imports, and what is no valid Python on purpose.
_NEVER_COMPILED = "/(test|lib2to3/tests)/"


def host_architecture() -> str | None:
    """Whose programs this machine runs; None where it is not Linux, or another processor."""
    return _MACHINES.get(platform.machine()) if sys.platform == "linux" else None


def compile_library(library: Tree, interpreter: Tree, python: str, architecture: str) -> Iterator[Entry]:
    """The byte code of `usr/lib/python3.x` in `library`, never checked against its source, as in every layer.

    Args:
        interpreter: The files of the same packages for this machine.
        architecture: This machine's.

    Raises:
        BuildError: The interpreter does not run here, or a file cannot be compiled.
    """
    standard = f"usr/lib/python{python}"
    with tempfile.TemporaryDirectory(prefix="trainpack-") as scratch:
        root, target = Path(scratch) / "root", Path(scratch) / "target"
        _lay_out(interpreter, _of_interpreter(interpreter, python, architecture), root)
        _lay_out(library, (path for path in library if path.startswith(f"{standard}/")), target)
        _run(root, target, python, architecture)
        for path in sorted((target / standard).rglob("*.pyc")):
            yield file(str(path.relative_to(target)), path.read_bytes())


def _run(root: Path, target: Path, python: str, architecture: str) -> None:
    libraries = root / "usr/lib" / TRIPLETS[architecture]
    (loader,) = libraries.glob("ld-linux-*.so.*")
    command = [
        str(loader),
        "--library-path",
        str(libraries),
        str(root / f"usr/bin/python{python}"),
        "-S",
        "-B",
    ]
    command += ["-m", "compileall", "-q", "-x", _NEVER_COMPILED, "--invalidation-mode", "unchecked-hash"]
    command += ["-s", str(target), "-p", "/", str(target / f"usr/lib/python{python}")]
    # The seed decides the order of sets in byte code.
    environment = {"PYTHONHOME": str(root / "usr"), "PYTHONHASHSEED": "0", "LC_ALL": "C.UTF-8"}
    try:
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    except OSError as error:
        raise BuildError(
            f"Debian's Python {python} cannot be started: {error.strerror}",
            place=str(root),
            remedy="set TMPDIR to a folder that programs may be run in",
        ) from None
    if done.returncode != 0:
        raise BuildError(
            f"Debian's Python {python} cannot compile its standard library on this machine",
            details=tuple((done.stdout + done.stderr).splitlines()[-10:]),
        )


def _of_interpreter(tree: Tree, python: str, architecture: str) -> Iterator[str]:
    triplet = TRIPLETS[architecture]
    for path in tree:
        is_library = path.startswith(f"usr/lib/{triplet}/") and path.count("/") == 3
        if is_library or path.startswith((f"usr/lib/python{python}/", f"usr/bin/python{python}")):
            yield path


def _lay_out(tree: Tree, paths: Iterable[str], root: Path) -> None:
    for path in paths:
        if found := follow(tree, path):
            place = root / path
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(content(tree, found))
            place.chmod(tree[found].mode)

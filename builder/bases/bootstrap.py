"""The operating system of a base, bootstrapped from Debian's mirror by mmdebstrap."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import tarfile
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from builder import apt, tools
from builder.bases.catalogue import MOUNT_POINTS, SLIM, UPSTREAM_PREFIX, Recipe
from builder.errors import BuildError, UsageError
from builder.package_index import redact
from builder.workdir import write_atomically

Say = Callable[[str], None]
_TAIL = 20

# What a bootstrap leaves of the machine it ran on. Device nodes are the runtime's to make, and a rootless
# engine cannot unpack them.
_HOST_TRACES = re.compile(
    r"\./(dev/.+|etc/(hosts|resolv\.conf|hostname)|etc/apt/sources\.list(\.d/.+)?|etc/apt/apt\.conf\.d/\d+mmdebstrap)"
)


def bootstrap(recipe: Recipe, say: Say) -> None:
    """Make the root file system, unless it is in the cache.

    Raises:
        UsageError: No Debian release has this Python, or no mirror is known.
        BuildError: mmdebstrap is missing or failed.
    """
    target = cache_folder() / recipe.rootfs
    if target.exists():
        return
    if recipe.origin.suite is None:
        raise UsageError(
            f"no Debian release comes with Python {recipe.python}: only {recipe.origin.upstream} has it",
            remedy=f"choose another Python, or set {UPSTREAM_PREFIX} to a registry that has the image",
        )
    if not shutil.which("mmdebstrap"):
        raise BuildError(
            "mmdebstrap, which bootstraps Debian, is not installed",
            remedy="on Debian `apt-get install mmdebstrap` installs it; or make the upstream registry "
            f"reachable, or set {UPSTREAM_PREFIX} to a mirror of it",
        )
    say(f"bootstrapping Debian {recipe.origin.suite} with Python {recipe.python}: about half a minute")
    with tempfile.TemporaryDirectory(dir=target.parent, prefix="bootstrap-") as folder:
        part = Path(folder) / target.name
        _run_mmdebstrap(recipe, recipe.origin.suite, Path(folder), part)
        part.replace(target)


def _run_mmdebstrap(recipe: Recipe, suite: str, folder: Path, target: Path) -> None:
    sources, options, log = folder / "sources.list", folder / "apt.conf", folder / "log"
    write_atomically(sources, apt.sources_text(os.environ, suite))
    write_atomically(options, apt.options())
    command = [
        *("mmdebstrap", "--variant=minbase", f"--architectures={recipe.architecture}"),
        f"--include={','.join(recipe.debian_packages)}",
        *(f"--dpkgopt={option}" for option in SLIM),
        *([f"--aptopt={options}"] if options.stat().st_size else []),
        *(suite, "-", str(sources)),
    ]
    environment = os.environ | {"SOURCE_DATE_EPOCH": str(recipe.epoch), "LC_ALL": "C.UTF-8"}
    with (
        log.open("wb") as errors,
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, env=environment) as process,
    ):
        assert process.stdout is not None  # noqa: S101  (Popen was given a pipe)
        with _interruptible(process):
            complete = copy_rootfs(process.stdout, target, recipe.epoch)
    if process.returncode or not complete:
        lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
        raise BuildError(
            f"mmdebstrap ended with {process.returncode} while bootstrapping {suite}",
            details=tuple(redact(line) for line in lines[-_TAIL:]),
            remedy=f"check the mirror: the host's apt configuration, or {apt.MIRROR}",
        )


@contextmanager
def _interruptible(process: subprocess.Popen[Any]) -> Iterator[None]:
    """Leave no child behind: on Ctrl-C it is told to stop, and waited for."""
    try:
        yield
    except BaseException:
        process.send_signal(signal.SIGINT)
        process.wait()
        raise


def copy_rootfs(stream: IO[bytes], target: Path, epoch: int) -> bool:
    """Copy a tar stream without what it tells of the host; False when the stream is not a whole archive."""
    try:
        with (
            tarfile.open(fileobj=stream, mode="r|") as source,
            tarfile.open(target, mode="w", format=tarfile.PAX_FORMAT) as copy,
        ):
            for member in source:
                if not _HOST_TRACES.fullmatch(member.name):
                    copy.addfile(member, source.extractfile(member) if member.isreg() else None)
            for name in MOUNT_POINTS:
                copy.addfile(_empty_file(name, epoch))
            while stream.read(1 << 16):
                pass
    except tarfile.TarError:
        return False
    return True


def _empty_file(name: str, epoch: int) -> tarfile.TarInfo:
    file = tarfile.TarInfo(name)
    file.mode, file.mtime = 0o644, epoch
    return file


def cache_folder() -> Path:
    """Where bootstrapped systems are kept: in trainpack's cache."""
    folder = tools.cache_folder() / "bases"
    folder.mkdir(parents=True, exist_ok=True)
    return folder

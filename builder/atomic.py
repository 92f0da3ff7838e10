"""Files that take their place once they are whole.

A process that is killed leaves what it was writing beside its place. Whoever writes into that folder next
sweeps it away, once nobody has written to it for an hour.
"""

from __future__ import annotations

import errno
import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from builder.errors import TrainpackError

_PREFIX = ".trainpack-"
_ABANDONED_SECONDS = 3600


@contextmanager
def new_file(path: Path, mode: int = 0o644, *, scratch: Path | None = None) -> Iterator[IO[bytes]]:
    """A file to write, which is at its path once the block ends without an error.

    Args:
        scratch: A folder of the same file system, where it waits; without one, beside its place.

    Raises:
        TrainpackError: The disk is full.
    """
    folder = scratch or path.parent
    sweep(folder)
    with room(folder):
        descriptor, name = tempfile.mkstemp(dir=folder, prefix=_PREFIX)
        try:
            with os.fdopen(descriptor, "wb") as file:
                yield file
                os.fchmod(descriptor, mode)
            Path(name).replace(path)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise


@contextmanager
def room(folder: Path, remedy: str = "free some space on its disk") -> Iterator[None]:
    """Tell which folder's disk is full: the system names none where a file that is open cannot grow."""
    try:
        yield
    except OSError as error:
        if not is_full(error):
            raise
        raise TrainpackError(
            f"its disk is full: {error.strerror}", place=str(folder), remedy=remedy
        ) from None


def is_full(error: OSError) -> bool:
    """Whether there was no room left to write."""
    return error.errno in (errno.ENOSPC, errno.EDQUOT)


def sweep(folder: Path) -> None:
    """Remove what killed processes left in a folder."""
    for path in abandoned(folder):
        with suppress(OSError):
            path.unlink()


def abandoned(folder: Path) -> list[Path]:
    """What killed processes left in a folder."""
    found = []
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.startswith(_PREFIX) and entry.is_file(follow_symlinks=False):
                with suppress(FileNotFoundError):
                    if time.time() - entry.stat().st_mtime >= _ABANDONED_SECONDS:
                        found.append(Path(entry))
    return found

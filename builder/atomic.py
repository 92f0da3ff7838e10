"""Files that take their place once they are whole.

A process that is killed leaves what it was writing beside its place. Whoever writes into that folder next
sweeps it away, once nobody has written to it for an hour.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

_PREFIX = ".trainpack-"
_ABANDONED_SECONDS = 3600


@contextmanager
def new_file(path: Path, mode: int = 0o644, *, scratch: Path | None = None) -> Iterator[IO[bytes]]:
    """A file to write, which is at its path once the block ends without an error.

    Args:
        scratch: A folder of the same file system, where it waits; without one, beside its place.
    """
    folder = scratch or path.parent
    sweep(folder)
    descriptor, name = tempfile.mkstemp(dir=folder, prefix=_PREFIX)
    try:
        with os.fdopen(descriptor, "wb") as file:
            yield file
            os.fchmod(descriptor, mode)
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


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

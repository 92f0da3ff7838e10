"""The image of the faults: a script that was wrapped and built as a user does it."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from commands import succeed

from builder.engine import client

SCRIPT = Path(__file__).parents[1] / "scripts" / "train_faults.py"


@contextmanager
def fault_image() -> Iterator[str]:
    """The id of the image; its name is gone afterwards."""
    with tempfile.TemporaryDirectory() as parent:
        folder = Path(parent) / "faults"
        folder.mkdir()
        shutil.copy(SCRIPT, folder / "train.py")
        succeed(folder, "wrap", "train.py", "--name", "registry.example.com/trainpack/faults")
        built = succeed(folder, "build", "--json").json
        yield built["image_id"]
        client().images.remove(built["reference"], force=True)

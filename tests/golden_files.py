"""Golden files: `make golden` rewrites them, a reviewer reads the difference."""

from __future__ import annotations

import os
from pathlib import Path

FOLDER = Path(__file__).parent / "golden"


def assert_golden(name: str, text: str) -> None:
    path = FOLDER / name
    if os.environ.get("UPDATE_GOLDEN"):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    assert path.is_file(), f"{path} is missing: `make golden` writes it"
    assert text == path.read_text(encoding="utf-8"), f"{path} differs: `make golden` rewrites it"

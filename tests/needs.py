"""What a test needs of the machine, and what becomes of it where that is missing."""

from __future__ import annotations

import os
from typing import NoReturn

import pytest


def unavailable(reason: str) -> NoReturn:
    """CI has to run everything; elsewhere a machine without an engine can still run the rest."""
    if os.environ.get("CI"):
        pytest.fail(reason)
    pytest.skip(reason)

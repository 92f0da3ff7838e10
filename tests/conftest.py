"""What holds for every test."""

from __future__ import annotations

import signal


def pytest_configure() -> None:
    # A shell starts background jobs with SIGINT ignored, and what is ignored is inherited: the tests of
    # Ctrl-C must mean the same there.
    signal.signal(signal.SIGINT, signal.default_int_handler)

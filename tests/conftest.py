"""What holds for every test."""

from __future__ import annotations

import signal

from hypothesis import settings


def pytest_configure() -> None:
    # How long an example takes says how busy the machine is.
    settings.register_profile("trainpack", settings.default, deadline=None)
    settings.load_profile("trainpack")
    # A shell starts background jobs with SIGINT ignored, and what is ignored is inherited: the tests of
    # Ctrl-C must mean the same there.
    signal.signal(signal.SIGINT, signal.default_int_handler)

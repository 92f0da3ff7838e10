"""What holds for every test."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings

if TYPE_CHECKING:
    from picsellia_standin import Standin


def pytest_configure() -> None:
    # How long an example takes says how busy the machine is.
    settings.register_profile("trainpack", settings.default, deadline=None)
    settings.load_profile("trainpack")
    # A shell starts background jobs with SIGINT ignored, and what is ignored is inherited: the tests of
    # Ctrl-C must mean the same there.
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture
def platform() -> Iterator[Standin]:
    """The stand-in of the platform, empty."""
    from picsellia_standin import Standin  # noqa: PLC0415  (most tests need no platform)

    with Standin() as standin:
        yield standin

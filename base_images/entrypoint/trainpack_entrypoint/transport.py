"""Calls to Picsellia over a network that fails: sessions with timeouts, and how long a call is tried."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

# Seconds that a failing platform is tried for, counted from the first failure of an unbroken row.
PATIENCE = 60.0
TIMEOUTS = (10.0, 60.0)


def new_session() -> Any:
    """A session for the SDK, or for any request; a thread needs one of its own."""
    import requests

    class Impatient(requests.Session):
        """The SDK waits five minutes for an answer; a training container has no such time."""

        def request(self, *arguments: Any, **options: Any) -> requests.Response:
            return super().request(*arguments, **options | {"timeout": TIMEOUTS})

    return Impatient()


def is_permanent(error: Exception) -> bool:
    """Whether asking again cannot help.

    Only the error itself counts: what the SDK was handling when it was raised says nothing of it.
    """
    from picsellia import exceptions
    from requests import exceptions as transport

    permanent = (
        exceptions.UnauthorizedError,
        exceptions.ForbiddenError,
        exceptions.ResourceNotFoundError,
        exceptions.BadRequestError,
        exceptions.ResourceConflictError,
        exceptions.ResourceLockedError,
        exceptions.InsufficientResourcesError,
        exceptions.RequestTooLargeError,
        exceptions.FileNotFoundException,
        transport.InvalidURL,
        transport.MissingSchema,
        transport.InvalidSchema,
        transport.InvalidHeader,
    )
    return isinstance(error, permanent)


def reason(error: Exception) -> str:
    """An error in one line."""
    return " ".join(f"{type(error).__name__}: {error}".split())[:500]


class Patience:
    """Calls until they succeed; a platform that stays away gets one share of time, not one for each call."""

    def __init__(self) -> None:
        self._give_up: float | None = None

    def renew(self) -> None:
        """Give the next call its full time, whatever the ones before it met."""
        self._give_up = None

    def attempt(self, what: str, call: Callable[[], Any]) -> str | None:
        """Call until it succeeds, is refused, or the platform's time is up; the problem, if any."""
        pause = 0.5
        while True:
            try:
                call()
            except Exception as error:
                now = time.monotonic()
                self._give_up = self._give_up or now + PATIENCE
                if is_permanent(error) or now + pause > self._give_up:
                    return f"{what}: {reason(error)}"
                time.sleep(pause)
                pause = min(2 * pause, 10.0)
            else:
                self._give_up = None
                return None

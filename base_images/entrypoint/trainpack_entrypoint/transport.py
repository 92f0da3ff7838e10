"""Calls to Picsellia over a network that fails: sessions with timeouts, and how long a call is tried."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from trainpack_entrypoint.forms import stream_form

# Seconds that a failing platform is tried for, counted from the first failure of an unbroken row.
PATIENCE = 300.0
TIMEOUTS = (10.0, 60.0)
_LONGEST_PAUSE = 10.0
# A platform that asks for more than a minute of silence is asked again after a minute.
_LONGEST_WISH = 60.0


def new_session() -> Any:
    """A session for the SDK, or for any request; a thread needs one of its own.

    A busy answer (429, 5xx) is an exception that keeps the answer, and so its `Retry-After`. The SDK itself
    repeats a request when the connection breaks. That is safe for object storage, and spares a large upload a
    start from nothing; elsewhere perhaps only the answer was lost, and the caller must look first.
    """
    import requests

    class Patient(requests.Session):
        def prepare_request(self, request: requests.Request) -> requests.PreparedRequest:
            if request.files:
                stream_form(request)
            return super().prepare_request(request)

        def send(self, request: requests.PreparedRequest, **options: Any) -> requests.Response:
            failure = requests.RequestException
            if "Authorization" not in request.headers or "/api/object-storage/" in (request.url or ""):
                failure = requests.ConnectionError
            try:
                response = super().send(request, **options | {"timeout": _shorter(options.get("timeout"))})
            except requests.ConnectionError as error:
                raise failure(error, request=request) from None
            if response.status_code == 429 or response.status_code >= 500:
                raise failure(_told(response), response=response)
            return response

    return Patient()


def on_its_own(target: Any) -> Any:
    """An object of the SDK behind a session of its own, which another thread can use."""
    import copy

    own = copy.copy(target)
    own._connection = copy.copy(target.connection)
    own._connection.session = new_session()
    return own


def _shorter(timeout: Any) -> tuple[float, float]:
    # The SDK waits five minutes for an answer; a container that is about to end has no such time.
    asked = timeout if isinstance(timeout, int | float) else TIMEOUTS[1]
    return min(asked, TIMEOUTS[0]), min(asked, TIMEOUTS[1])


def _told(response: Any) -> str:
    return f"{response.status_code} {response.reason}: {response.text[:200]}"


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
    is_of_the_platform = isinstance(error, exceptions.PicselliaError | transport.RequestException)
    return not is_of_the_platform or isinstance(error, permanent)


def is_about_content(error: Exception) -> bool:
    """Whether the platform refused what was sent, not who sent it."""
    from picsellia import exceptions

    return isinstance(error, exceptions.BadRequestError | exceptions.RequestTooLargeError)


def reason(error: Exception) -> str:
    """An error in one line."""
    from picsellia.exceptions import UnauthorizedError

    what = "the token is refused" if isinstance(error, UnauthorizedError) else type(error).__name__
    return " ".join(f"{what}: {error}".split())[:500]


class Backoff:
    """Waits that grow from failure to failure, differ between containers, and heed the platform's wish."""

    def __init__(self) -> None:
        self._pause = 0.5

    def after(self, error: Exception) -> float:
        """Seconds to wait after this failure."""
        import random

        pause, self._pause = self._pause, min(2 * self._pause, _LONGEST_PAUSE)
        jittered = pause * random.uniform(0.5, 1.0)  # noqa: S311
        return max(jittered, min(_retry_after(error), _LONGEST_WISH))


def _retry_after(error: Exception) -> float:
    response = getattr(error, "response", None)
    wish = response.headers.get("Retry-After", "") if response is not None else ""
    return _seconds_until(wish) if wish and not wish.isdecimal() else float(wish or 0)


def _seconds_until(date: str) -> float:
    from email.utils import parsedate_to_datetime

    try:
        return parsedate_to_datetime(date).timestamp() - time.time()
    except ValueError:
        return 0.0


class Patience:
    """Calls until they succeed; a platform that stays away gets one share of time, not one for each call.

    Args:
        seconds: From the first failure of an unbroken row to the last try.
    """

    def __init__(self, seconds: float = PATIENCE) -> None:
        self._seconds = seconds
        self._give_up: float | None = None

    def grant(self, seconds: float) -> None:
        """Give the next call so much time at least, whatever the calls before it met."""
        if self._give_up is not None:
            self._give_up = max(self._give_up, time.monotonic() + seconds)

    def attempt(self, what: str, call: Callable[[], Any]) -> str | None:
        """Call until it succeeds, is refused, or the platform's time is up; the problem, if any."""
        backoff = Backoff()
        while True:
            try:
                call()
            except Exception as error:
                now = time.monotonic()
                # A refusal is an answer: it ends a row of failures.
                self._give_up = None if is_permanent(error) else self._give_up or now + self._seconds
                if self._give_up is None or now >= self._give_up:
                    return f"{what}: {reason(error)}"
                time.sleep(min(backoff.after(error), self._give_up - now))
            else:
                self._give_up = None
                return None

"""How requests to a platform are repeated: what may be, a bounded number of times, with growing pauses."""

from __future__ import annotations

import itertools
import random
import re
import time
from typing import Any

import requests
from requests.adapters import HTTPAdapter
from urllib3.exceptions import HTTPError, NewConnectionError
from urllib3.util import Retry

from builder.records import Record

CONNECT_TIMEOUT, READ_TIMEOUT = 10.0, 60.0  # seconds
LONGEST_WAIT = 30.0  # seconds; a longer Retry-After is cut to it
_NOT_PROCESSED = (429, 503)
_PERHAPS_PROCESSED = (500, 502, 504)
_REPEATABLE = ("GET", "XGET", "PUT", "PATCH", "DELETE")


class Patience(Record):
    """How often to try at most, and the pause in seconds before the second try; it doubles, with jitter."""

    tries: int = 4
    pause: float = 0.5

    @property
    def seconds(self) -> float:
        """About how long all pauses take together."""
        return float(self.pause * 2**self.tries)

    def wait(self, attempt: int) -> None:
        """Pause after the given attempt, counted from 1."""
        time.sleep(self.pause * 2 ** (attempt - 1) * random.uniform(0.75, 1.25))  # noqa: S311  (jitter)


class NoAnswerError(requests.RequestException):
    """The host gave no answer, after all tries. No ConnectionError: the SDK would repeat that, POST too."""


class PatientAdapter(HTTPAdapter):
    """Repeats a request where that is safe.

    Any request when no connection was made or the answer is 429 or 503, which say that it was not processed;
    one that can be repeated without harm also after a lost answer or another 5xx. Retry-After is kept.
    """

    def __init__(self, patience: Patience) -> None:
        super().__init__()
        self.patience = patience

    def send(self, request: requests.PreparedRequest, *args: Any, **options: Any) -> requests.Response:
        """Send a request until it is answered, or may not be repeated any more."""
        options["timeout"] = (CONNECT_TIMEOUT, READ_TIMEOUT)
        for attempt in itertools.count(1):
            more = attempt < self.patience.tries
            retry_after = None
            try:
                response = super().send(request, *args, **options)
            except (requests.ConnectionError, requests.Timeout) as error:
                if not (more and _may_follow_error(request.method, error)):
                    raise NoAnswerError(reason(error), request=request) from error
            else:
                if not (more and _may_follow_status(request.method, response.status_code)):
                    return response
                retry_after = _seconds(response.headers.get("Retry-After"))
                response.close()
            self.patience.wait(attempt) if retry_after is None else time.sleep(retry_after)
        raise AssertionError("unreachable")


def patient_session(patience: Patience) -> requests.Session:
    """A session that repeats what is safe; proxies and CA bundles come from the environment as usual."""
    session = requests.Session()
    session.auth = _keep_header
    for scheme in ("https://", "http://"):
        session.mount(scheme, PatientAdapter(patience))
    return session


def reason(error: Exception) -> str:
    """Why there was no answer, in a few words and without the address."""
    if isinstance(error, requests.exceptions.SSLError):
        return "its certificate is not trusted here (set REQUESTS_CA_BUNDLE to your CA's file)"
    if isinstance(error, requests.ConnectTimeout):
        return f"no connection within {CONNECT_TIMEOUT:g} s"
    if isinstance(error, requests.Timeout):
        return f"no answer within {READ_TIMEOUT:g} s"
    system = re.search(r"\[Errno -?\d+\] ([\w ,-]+)", str(error))
    return system[1].lower() if system else "the connection was closed without an answer"


def _keep_header(request: requests.PreparedRequest) -> requests.PreparedRequest:
    return (
        request  # without an `auth`, requests would replace the token's header by a login found in ~/.netrc
    )


def _may_follow_status(method: str | None, status: int) -> bool:
    return status in _NOT_PROCESSED or (status in _PERHAPS_PROCESSED and method in _REPEATABLE)


def _may_follow_error(method: str | None, error: requests.RequestException) -> bool:
    if isinstance(error, requests.exceptions.SSLError):
        return False
    return method in _REPEATABLE or _never_connected(error)


def _never_connected(error: requests.RequestException) -> bool:
    cause = getattr(error.args[0] if error.args else None, "reason", None)
    return isinstance(error, requests.ConnectTimeout) or isinstance(cause, NewConnectionError)


def _seconds(retry_after: str | None) -> float | None:
    try:
        return min(Retry().parse_retry_after(retry_after), LONGEST_WAIT) if retry_after else None
    except HTTPError:
        return None

"""The way to one object of the storage: presigned URLs that expire, and patience with what may pass."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Mapping
from typing import NamedTuple, Protocol

import requests

from trainpack_entrypoint.failures import RunError
from trainpack_entrypoint.transport import TIMEOUTS, Backoff, is_permanent, reason


class Remote(Protocol):
    """What the SDK can download: it knows one presigned URL, and asks the platform for another."""

    @property
    def object_name(self) -> str:
        """Its name in storage."""
        ...

    @property
    def url(self) -> str:
        """The URL that is known, which may have expired."""
        ...

    def reset_url(self) -> str:
        """Another URL, asked for at the platform."""
        ...


class Item(NamedTuple):
    """One file to fetch.

    Attributes:
        what: How messages name it.
        path: Where it goes, absolute.
    """

    what: str
    path: str
    remote: Remote


class StoppedError(Exception):
    """The others have given up."""


class Link:
    """The way to one object: patient with failures, and with a new URL when the old one has expired."""

    def __init__(self, item: Item, patience: float, stop: threading.Event) -> None:
        self._item = item
        self._patience = patience
        self._stop = stop
        self._is_expired = False
        self.progressed()

    def progressed(self) -> None:
        """Something arrived: patience starts anew."""
        if self._stop.is_set():
            raise StoppedError
        self._give_up: float | None = None
        self._backoff = Backoff()
        self._renewed = False

    def get(self, headers: Mapping[str, str]) -> requests.Response:
        """Ask until there is an answer that says something of the object: 200, 206, 304 or 416.

        Raises:
            RunError: There will be none.
        """
        while True:
            try:
                url = self._item.remote.reset_url() if self._is_expired else self._item.remote.url
                self._is_expired = False
                response = _session().get(
                    url, headers={"Accept-Encoding": "identity", **headers}, stream=True, timeout=TIMEOUTS
                )
            except Exception as error:
                self.failed(error)
                continue
            if response.status_code in (200, 206, 304, 416):
                return response
            response.close()
            self._refused(response)

    def failed(self, error: Exception) -> None:
        """Wait after a failure that may pass.

        Raises:
            RunError: It will not, or has lasted too long.
        """
        raise_if_final(error, self._item.what)
        self._give_up = self._give_up or time.monotonic() + self._patience
        left = self._give_up - time.monotonic()
        if left <= 0:
            message = f"{self._item.what}: nothing arrived for {self._patience:g} s: {why(error)}"
            raise RunError("platform", message)
        if self._stop.wait(min(self._backoff.after(error), left)):
            raise StoppedError

    def _refused(self, response: requests.Response) -> None:
        status = response.status_code
        # An expired URL is 403, in some storages 400 or 401.
        if status in (400, 401, 403) and not self._renewed:
            self._is_expired = self._renewed = True
        elif status in (408, 425, 429) or status >= 500:
            self.failed(requests.HTTPError(f"storage answers {status}", response=response))
        else:
            raise RunError("missing-input", f"{self._item.what}: storage answers {status}")


def raise_if_final(error: Exception, what: str) -> None:
    """Tell apart what may pass from what will not.

    Raises:
        RunError: The platform refuses or does not have it.
        Exception: The error itself, when it is a fault of ours.
    """
    from picsellia import exceptions
    from pydantic import ValidationError

    if isinstance(error, ValidationError):
        # Its own text shows the values, a presigned URL among them.
        fields = ", ".join(".".join(map(str, problem["loc"])) for problem in error.errors()[:5])
        raise RunError("platform", f"{what}: the platform's SDK cannot read its answer: {fields}") from None
    if isinstance(error, exceptions.UnauthorizedError | exceptions.ForbiddenError):
        raise RunError("configuration", f"{what}: {why(error)}") from None
    if not isinstance(error, exceptions.PicselliaError | requests.RequestException):
        raise error
    if is_permanent(error) or isinstance(error, exceptions.NoDataError | exceptions.NoConnectorFound):
        raise RunError("missing-input", f"{what}: {why(error)}") from None


def why(error: Exception) -> str:
    """An error in one line, without what a presigned URL holds after its path: it is the permission."""
    return re.sub(r"\?[^\s'\")]+", "?…", reason(error))


_local = threading.local()


def _session() -> requests.Session:
    if not hasattr(_local, "session"):
        _local.session = requests.Session()
    return _local.session  # type: ignore[no-any-return]

"""A connected client of the SDK, with what it lacks: whole lists, objects made once, parallel reads."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from typing import Any, TypeVar

from builder.errors import NotFoundError
from builder.models.picsellia.speaking import LostAnswerError, having, sdk, translated
from builder.models.transport import Patience

PAGE = 1000  # the most that the SDK itself asks for at once
THREADS = 8
T = TypeVar("T")
Given = TypeVar("Given")


class Platform:
    """An organization on the platform.

    Args:
        client: A connected `picsellia.Client`.
        patience: How often to try to make an object when the platform fails.
    """

    def __init__(self, client: Any, patience: Patience) -> None:
        self.client = client
        self.patience = patience

    @property
    def connection(self) -> Any:
        """The SDK's own connection."""
        return self.client.connection

    @property
    def organization(self) -> str:
        """The path below which everything of the organization is."""
        return f"/api/organization/{self.client.id}"

    def speaking(self) -> AbstractContextManager[None]:
        """Whatever the SDK raises is a StoreError, without the token."""
        return translated(self.connection.host, self.connection.api_token)

    def ask(self, call: Callable[[], T]) -> T:
        """Call the SDK.

        Raises:
            StoreError: The platform does not answer, or refuses.
        """
        with self.speaking():
            return call()

    def read(self, path: str) -> dict[str, Any]:
        """The raw answer to a GET, which holds more than the SDK's objects show.

        Raises:
            NotFoundError: There is no such object.
            StoreError: The platform does not answer, or refuses.
        """
        with self.speaking():
            answer = self.connection.get(path).json()
            if not isinstance(answer, dict):
                raise TypeError(path)
            return answer

    def post(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        """The raw answer to a POST.

        Raises:
            StoreError: The platform does not answer, or refuses.
        """
        with self.speaking():
            return self.connection.post(path, data=json.dumps(body)).json()  # type: ignore[no-any-return]

    def find(self, call: Callable[[], T]) -> T | None:
        """Call the SDK; None for what does not exist.

        Raises:
            StoreError: The platform does not answer, or refuses.
        """
        try:
            return self.ask(call)
        except NotFoundError:
            return None

    def make(self, make: Callable[[], T], find: Callable[[], T | None]) -> T:
        """Make an object; after a failure look for it first, since only the answer may have been lost.

        Raises:
            StoreError: The platform does not answer, or refuses.
        """
        for attempt in itertools.count(1):
            try:
                return self.ask(make)
            except LostAnswerError:
                with having("it is not known whether the request took effect, its answer was lost"):
                    found = find()
                if found is not None:
                    return found
                if attempt >= self.patience.tries:
                    raise
                self.patience.wait(attempt)
        raise AssertionError("unreachable")

    def repeat(self, call: Callable[[], T]) -> T:
        """Call the SDK, again after a failure: for what may be done twice without harm.

        Raises:
            StoreError: The platform does not answer, or refuses.
        """
        return self.make(call, lambda: None)

    def rows(self, path: str) -> list[dict[str, Any]]:
        """Every row of a list, over all its pages, as the platform answers them.

        The first request is the SDK's own, which takes whatever one page holds for all there is.

        Raises:
            StoreError: The platform does not answer, or refuses.
        """
        with self.speaking():
            answer = self.connection.get(path).json()
            found: list[dict[str, Any]] = answer["items"]
            while answer["items"] and len(found) < answer.get("count", 0):
                query = {"limit": PAGE, "offset": len(found)}
                answer = self.connection.get(path, params=query).json()
                found += answer["items"]
            return found

    def count(self, path: str) -> int:
        """How many rows a list has.

        Raises:
            StoreError: The platform does not answer, or refuses.
        """
        with self.speaking():
            return int(self.connection.get(path, params={"limit": 1, "offset": 0}).json()["count"])


def at_once(do: Callable[[Given], T], items: Iterable[Given]) -> Iterator[T]:
    """Do something for each item, several at a time, in order; after a failure nothing more is begun."""
    pool = ThreadPoolExecutor(THREADS)
    try:
        yield from pool.map(do, items)
    finally:
        pool.shutdown(cancel_futures=True)


def enum(kind: str, name: str) -> Any:
    """A member of one of the SDK's enums."""
    sdk()
    from picsellia.types import enums  # noqa: PLC0415

    return getattr(enums, kind)[name]

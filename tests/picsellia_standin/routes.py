"""A route, a call to it, and what every route shares."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, TypeVar

from .schemas import Field, RefusedError, Schema
from .state import Item, State

Held = TypeVar("Held")
PAGE = ("limit", "offset", "order_by")
_UUID = "[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}"


@dataclass(frozen=True)
class Call:
    """One request, parsed and checked.

    Attributes:
        base: The address under which the client reached the platform, for the URLs that it hands out.
        content: The body as bytes, for object storage.
    """

    state: State
    ids: Mapping[str, str]
    query: Mapping[str, str]
    body: Any
    base: str
    content: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Raw:
    """An answer that is not JSON.

    Attributes:
        cut: The connection breaks after so many bytes of the content.
        pause: Seconds before each piece of the content.
    """

    status: int
    content: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)
    cut: int | None = None
    pause: float = 0.0


@dataclass(frozen=True)
class Route:
    """One line of the routing table; `{name}` in the path is an id, `{name:path}` is the rest of the path.

    Attributes:
        body: The schema of the JSON body, a field where it is no object; None takes no body.
        query: The query parameters that are known.
        status: The answer's status when it works.
        public: No token is asked for: object storage, where the URL itself is the permission.
    """

    method: str
    path: str
    answer: Callable[[Call], Any]
    body: Schema | Field | None = None
    query: tuple[str, ...] = ()
    status: int = 200
    public: bool = False

    @cached_property
    def pattern(self) -> re.Pattern[str]:
        """The path as a regular expression."""
        named = re.sub(r"\{(\w+):path\}", r"(?P<\1>.+)", self.path)
        return re.compile(re.sub(r"\{(\w+)\}", rf"(?P<\1>{_UUID})", named))


def lookup(items: Mapping[str, Held], id: str, kind: str) -> Held:
    """The object of this id.

    Raises:
        RefusedError: 404.
    """
    if id not in items:
        raise RefusedError(404, f"{kind} not found", f"no {kind} has the id {id}")
    return items[id]


def find(items: Iterable[Item], query: Mapping[str, str], kind: str) -> Item:
    """The object that `?id=` or `?name=` means.

    Raises:
        RefusedError: 400 without either, 404 when there is none.
    """
    wanted = {key: query[key] for key in ("id", "name") if key in query}
    if len(wanted) != 1:
        raise RefusedError(400, "Invalid request", "exactly one of id and name is needed")
    for item in items:
        if all(getattr(item, key) == value for key, value in wanted.items()):
            return item
    raise RefusedError(404, f"{kind} not found", f"no {kind} has {wanted}")


def page(rows: Iterable[Any], query: Mapping[str, str]) -> dict[str, Any]:
    """One page of a list; all of it without `limit`."""
    if not all(query[key].isdecimal() for key in ("limit", "offset") if key in query):
        raise RefusedError(400, "Invalid request", "limit and offset are whole numbers")
    rows = list(rows)
    start = int(query.get("offset", 0))
    stop = start + int(query["limit"]) if "limit" in query else None
    return {"count": len(rows), "items": rows[start:stop]}


def require_organization(call: Call) -> None:
    """Refuse an organization that the user is not a member of."""
    if call.ids["organization"] != call.state.organization_id:
        raise RefusedError(403, "Forbidden", "you are not a member of this organization")

"""Options that several commands have, and how their words are read."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from builder.errors import UsageError
from builder.models.names import STORES

if TYPE_CHECKING:
    from builder.models.store import ModelStore


def pairs(texts: Iterable[str] | None, option: str) -> dict[str, str]:
    """`NAME=VALUE` words of a repeatable option.

    Raises:
        UsageError: A word has no `=` or no name.
    """
    result: dict[str, str] = {}
    for text in texts or ():
        name, equals, value = text.partition("=")
        if not equals or not name:
            raise UsageError(f"{text!r} is not NAME=VALUE", place=option)
        result[name] = value
    return result


def environment(texts: Iterable[str] | None, own: Mapping[str, str]) -> dict[str, str]:
    """The variables of `--env`: `NAME=VALUE`, or `NAME` to take the caller's, which no process list shows.

    Raises:
        UsageError: The caller's environment has no such variable.
    """
    result: dict[str, str] = {}
    for text in texts or ():
        name, equals, value = text.partition("=")
        if not name or (not equals and name not in own):
            raise UsageError(f"{name!r} is not set in this environment", place="--env")
        result[name] = value if equals else own[name]
    return result


def opened(name: str) -> ModelStore:
    """The store of that name.

    Raises:
        UsageError: There is no such store.
        StoreError: It cannot be opened.
    """
    from builder.models.stores import open_store  # noqa: PLC0415  (opens nothing for --help)

    return open_store(name)


def owner_name(text: str) -> tuple[str, str]:
    """The store and the name in `[STORE:]NAME`, of a model, a project or a dataset.

    Raises:
        UsageError: There is no name, or an unknown store.
    """
    head, colon, rest = text.partition(":")
    store, name = (head, rest) if colon and head in STORES else ("local", text)
    if not name.strip():
        raise UsageError(f"{text!r} is not [STORE:]NAME, with STORE local or picsellia")
    return store, name

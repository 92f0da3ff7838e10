"""Bases in the engine, for containers of the tests' own; a build of trainpack's puts them there itself."""

from __future__ import annotations

from collections.abc import Iterable

from builder.bases import ensure_base, load_base
from builder.plan import Base


def in_engine(name: str = "cpu", packages: Iterable[str] = ()) -> Base:
    """A base that is built, and that the engine has."""
    base = ensure_base(name, "3.11", "linux/amd64", packages=packages)
    load_base(base)
    return base

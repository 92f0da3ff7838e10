"""A labelmap file of the user's."""

from __future__ import annotations

import json
from pathlib import Path

from trainpack_entrypoint.schema import parse_labelmap

from builder.errors import SpecError, UsageError


def read_labelmap(path: Path) -> dict[str, str]:
    """Read a JSON file of index and name.

    Raises:
        UsageError: It cannot be read.
        SpecError: It is no labelmap.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UsageError(f"cannot be read: {error.strerror}", place=str(path)) from None
    try:
        return parse_labelmap(json.loads(content))
    except (ValueError, RecursionError) as error:
        remedy = 'a labelmap is a JSON object of index and name, like {"0": "car", "1": "person"}'
        raise SpecError(f"not a labelmap: {error}", place=str(path), remedy=remedy) from None

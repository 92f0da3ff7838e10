"""Annotations in COCO's form: recognised and counted. Pure."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from builder.errors import UsageError
from builder.records import Record

TABLES = ("images", "annotations", "categories")


class Annotations(Record):
    """How many annotations a file holds, and its labels in the order of their ids."""

    count: int
    labels: tuple[str, ...]


def read_annotations(path: Path) -> Annotations | None:
    """Read a JSON file; None when it is something else than annotations.

    Raises:
        UsageError: It is no JSON; or it holds annotations that are not in COCO's form, which is said of the
            first that is wrong.
    """
    try:
        document = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise UsageError(f"this is no JSON: {error}", place=str(path)) from None
    except OSError as error:
        raise UsageError(f"this cannot be read: {error.strerror}", place=str(path)) from None
    if not isinstance(document, dict) or "annotations" not in document:
        return None
    problem = _problem(document)
    if problem:
        raise UsageError(
            f"these annotations are not in COCO's form: {problem}",
            place=str(path),
            remedy="expected the lists images, annotations and categories, joined by their ids",
        )
    categories = sorted(document["categories"], key=lambda category: category["id"])
    return Annotations(
        count=len(document["annotations"]), labels=tuple(category["name"] for category in categories)
    )


def _problem(document: Mapping[str, Any]) -> str | None:
    for table in TABLES:
        rows = document.get(table)
        if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
            return f"{table} is not a list of objects"
    images = {row.get("id") for row in document["images"]}
    categories: dict[Any, Any] = {row.get("id"): row.get("name") for row in document["categories"]}
    for id_, name in categories.items():
        if not isinstance(id_, int) or not isinstance(name, str) or not name.strip():
            return f"the category {id_!r} with the name {name!r}"
    for number, row in enumerate(document["annotations"]):
        if row.get("image_id") not in images:
            return f"annotations[{number}] is of the image {row.get('image_id')!r}, not in images"
        if row.get("category_id") not in categories:
            return f"annotations[{number}] is of the category {row.get('category_id')!r}, not in categories"
    return None

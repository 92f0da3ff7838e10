"""Where parameters and labelmap come from; each source is read whole, its problems collected."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, NamedTuple

from trainpack_entrypoint.paths import Paths
from trainpack_entrypoint.secrets import SET


class Source(NamedTuple):
    """What one place gives.

    Attributes:
        name: Shown beside every value that comes from it.
        parameters: Values by parameter; text when `is_text`, else JSON values.
        labelmap: Unchecked; None when this place has none.
        is_text: The values are plain text or JSON text, and a key nobody declared is an error.
    """

    name: str
    parameters: Mapping[str, Any] = {}
    labelmap: Any = None
    is_text: bool = False


def environment_source(environment: Mapping[str, str]) -> Source:
    """The `TRAINPACK_SET_<name>` variables."""
    values = {name.removeprefix(SET): value for name, value in environment.items() if name.startswith(SET)}
    return Source(SET, values, is_text=True)


def mounted_sources(paths: Paths, problems: list[str]) -> list[Source]:
    """The mounted files that exist: parameters, labelmap, a local store's experiment and ModelVersion."""
    parameters, labelmap = (
        _read(paths.mount(name), problems) for name in ("parameters.json", "labelmap.json")
    )
    return [
        Source(
            paths.mount("parameters.json"), object_of(parameters, paths.mount("parameters.json"), problems)
        ),
        Source(paths.mount("labelmap.json"), labelmap=labelmap),
        *_stored("experiment", paths.mount("experiment.json"), problems),
        *_stored("ModelVersion", paths.mount("model-version.json"), problems),
    ]


def _stored(kind: str, path: str, problems: list[str]) -> list[Source]:
    """What a local store holds of an object: its name, parameters and labelmap."""
    held = object_of(_read(path, problems), path, problems)
    if not held:
        return []
    parameters = object_of(held.get("parameters"), f"parameters of {path}", problems)
    return [Source(f"{kind} {held.get('name', path)}", parameters, held.get("labelmap") or None)]


def object_of(data: Any, place: str, problems: list[str]) -> dict[str, Any]:
    """A JSON object, empty when there is none; another JSON value is a problem."""
    if isinstance(data, dict):
        return data
    if data is not None:
        problems.append(f"{place}: expected a JSON object, got {type(data).__name__}")
    return {}


def _read(path: str, problems: list[str]) -> Any:
    try:
        with open(path, encoding="utf-8") as file:
            return json.load(file, object_pairs_hook=_without_duplicates)
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        problems.append(f"{path}: {error}")
        return None


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result: dict[str, Any] = {}
    for key, value in pairs:
        if key in result:
            raise ValueError(f"the key {json.dumps(key)} stands twice")
        result[key] = value
    return result

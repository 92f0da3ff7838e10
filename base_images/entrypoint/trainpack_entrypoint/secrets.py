"""What must not be printed: values of secret parameters and of the platform's tokens."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from trainpack_entrypoint.schema import is_secret

MASK = "***"
SET = "TRAINPACK_SET_"
# A shorter value would mask ordinary words and numbers wherever they stand.
_SHORTEST = 4


class Redactor:
    """Replaces every known secret in what the entrypoint itself writes."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._values: set[str] = set()
        for name, value in environment.items():
            if is_secret(name.removeprefix(SET)):
                self.add(value)

    def add(self, value: Any) -> None:
        """Remember a secret."""
        text = str(value)
        if len(text) >= _SHORTEST and not isinstance(value, bool | None):
            self._values.add(text)

    def text(self, text: str) -> str:
        """The text with every secret masked, the longest first."""
        for value in sorted(self._values, key=len, reverse=True):
            text = text.replace(value, MASK)
        return text

    def document(self, data: Any) -> Any:
        """A JSON document with every secret in its strings masked; keys are left as they are."""
        if isinstance(data, str):
            return self.text(data)
        if isinstance(data, Mapping):
            return {key: self.document(value) for key, value in data.items()}
        if isinstance(data, list | tuple):
            return [self.document(item) for item in data]
        return data


def masked(name: str, value: Any) -> Any:
    """A parameter's value as it may be shown; null and booleans give nothing away."""
    return MASK if is_secret(name) and not isinstance(value, bool | None) else value

"""Patterns of `[outputs] exclude`, read as `.gitignore` reads them."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import NamedTuple


class _Rule(NamedTuple):
    expression: re.Pattern[str]
    is_negated: bool
    is_folder: bool


class Excludes:
    """Tells which relative paths are excluded; the last pattern that matches decides."""

    def __init__(self, patterns: Iterable[str]) -> None:
        self._rules = [_rule(pattern) for pattern in patterns if pattern.strip() and pattern[0] != "#"]

    def __contains__(self, path: str) -> bool:
        verdict = False
        for rule in self._rules:
            if _matches(rule, path):
                verdict = not rule.is_negated
        return verdict


def _matches(rule: _Rule, path: str) -> bool:
    parts = path.split("/")
    folders = ("/".join(parts[:count]) for count in range(1, len(parts)))
    if any(rule.expression.fullmatch(folder) for folder in folders):
        return True
    return not rule.is_folder and rule.expression.fullmatch(path) is not None


def _rule(pattern: str) -> _Rule:
    is_negated = pattern.startswith("!")
    body = pattern.removeprefix("!").strip()
    is_folder = body.endswith("/")
    body = body.rstrip("/")
    # A slash inside anchors the pattern; without one it matches a name at any depth.
    prefix = "" if "/" in body else "(?:.*/)?"
    return _Rule(re.compile(prefix + _expression(body.lstrip("/")), re.DOTALL), is_negated, is_folder)


_TOKEN = re.compile(r"\*\*/|/\*\*$|\*+|\?|\[!?\]?[^\]]*\]|\\.|.", re.DOTALL)


def _expression(glob: str) -> str:
    return "".join(_translated(token) for token in _TOKEN.findall(glob))


def _translated(token: str) -> str:
    fixed = {"**/": "(?:.*/)?", "/**": "/.*", "?": "[^/]"}.get(token)
    if fixed is not None:
        return fixed
    if token.startswith("*"):
        return "[^/]*"
    if len(token) > 2 and token[0] == "[":
        inner = token[1:-1].replace("\\", "\\\\")
        return f"[^{inner[1:]}]" if inner[0] == "!" else f"[{inner}]"
    return re.escape(token[-1] if token[0] == "\\" else token)

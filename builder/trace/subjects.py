"""What the argument of a trace names."""

from __future__ import annotations

import re
from pathlib import Path

from builder.errors import UsageError
from builder.models.names import STORES, ExperimentName, VersionName
from builder.reference import Reference, parse_reference
from builder.trace.links import EXPERIMENT

NAMING = (
    "name a version as [STORE:]MODEL/VERSION, an experiment as experiment:[STORE:]PROJECT/EXPERIMENT, "
    "an image as REPOSITORY:TAG or by its digest, a file by its path"
)
Subject = VersionName | ExperimentName | Reference | str | Path


def parse_subject(text: str) -> Subject:
    """Tell a file, a version, an experiment, an image and a bare digest apart.

    A version and an image are told apart by the colon of a tag or digest, which only an image has.

    Args:
        text: A version whose name holds a colon, or is the path of a file, needs its store.

    Returns:
        A digest as text.

    Raises:
        UsageError: It is none of them.
    """
    if text.startswith("sha256:"):
        return _digest(text)
    # A tag holds no slash: `experiment:1.0` is an image.
    if text.startswith(EXPERIMENT) and "/" in text:
        return ExperimentName.parse(text.removeprefix(EXPERIMENT))
    head, colon, rest = text.partition(":")
    if colon and head in STORES and "/" in rest:
        return VersionName.parse(text)
    if _is_file(text):
        return Path(text)
    if not colon:
        return VersionName.parse(text)
    reference = parse_reference(text)
    if reference.tag or reference.digest:
        return reference
    raise UsageError(f"as an image, {text!r} has neither tag nor digest", remedy=NAMING)


def _digest(text: str) -> str:
    if not re.fullmatch(r"sha256:[0-9a-f]{64}", text):
        raise UsageError(f"{text!r} is no digest: expected sha256: and 64 hexadecimal digits", remedy=NAMING)
    return text


def _is_file(text: str) -> bool:
    try:
        return Path(text).is_file()
    except (OSError, ValueError):
        return False

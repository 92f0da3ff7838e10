"""Image references, by the grammar of the OCI distribution specification.

Source: https://github.com/distribution/reference (reference.go), the grammar that docker itself parses with.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from builder.errors import UsageError

_COMPONENT = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_HOST_LABEL = r"[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?"
_DOMAIN = rf"(?:\[[0-9A-Fa-f:]+\]|{_HOST_LABEL}(?:\.{_HOST_LABEL})*)(?::[0-9]+)?"
_REPOSITORY = re.compile(rf"(?:({_DOMAIN})/)?({_COMPONENT}(?:/{_COMPONENT})*)")
TAG = re.compile(r"\w[\w.-]{0,127}", re.ASCII)
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")


@dataclass(frozen=True)
class Reference:
    """An image reference: `registry.example.com/vision/pedestrian:1.2.0@sha256:…`."""

    repository: str
    tag: str | None = None
    digest: str | None = None

    def __str__(self) -> str:
        tag = f":{self.tag}" if self.tag else ""
        return f"{self.repository}{tag}" + (f"@{self.digest}" if self.digest else "")

    @property
    def registry(self) -> str | None:
        """The registry's `host[:port]`, None for Docker's default one."""
        head, slash, _ = self.repository.partition("/")
        return head if slash and _is_host(head) else None

    @property
    def path(self) -> str:
        """The repository's name inside its registry."""
        return self.repository.removeprefix(f"{self.registry}/") if self.registry else self.repository


def _shown(text: str) -> str:
    # What stands before an @ that opens no digest may be a password.
    visible = re.sub(r"[^/]*@(?!sha256:)", "***@", text[:300])
    return repr(visible if len(text) <= 300 else f"{visible}…")


def _is_host(text: str) -> bool:
    return "." in text or ":" in text or text == "localhost"


def parse_repository(text: str) -> str:
    """Check a reference without tag or digest and return it.

    Raises:
        ValueError: It is not a valid repository name.
    """
    match = _REPOSITORY.fullmatch(text) if len(text) <= 255 else None
    # A first part with capitals and neither dot nor port is no host, and no name either.
    if not match or (match[1] and not _is_host(match[1]) and not re.fullmatch(_COMPONENT, match[1])):
        raise ValueError(
            f"{_shown(text)} is not a valid image name: lower-case letters, digits and . _ - between "
            "slashes, like registry.example.com/vision/pedestrian, without a tag"
        )
    return text


def parse_reference(text: str) -> Reference:
    """Read `repository[:tag][@digest]`.

    Raises:
        UsageError: It does not follow the grammar.
    """
    rest, at, digest = text.partition("@")
    if at and not _DIGEST.fullmatch(digest):
        raise _invalid(text)
    head, colon, tag = rest.rpartition(":")
    if not colon or "/" in tag:
        head, tag = rest, ""
    try:
        parse_repository(head)
    except ValueError as error:
        raise UsageError(str(error)) from None
    if colon and head != rest and not TAG.fullmatch(tag):
        raise _invalid(text)
    return Reference(head, tag or None, digest or None)


def _invalid(text: str) -> UsageError:
    return UsageError(
        f"{_shown(text)} is not a valid image reference: expected repository[:tag][@sha256:digest]"
    )

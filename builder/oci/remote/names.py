"""What registries are called, and which host answers for a name. Imports next to nothing."""

from __future__ import annotations

import ipaddress
from urllib.parse import urlsplit

from builder.reference import Reference

# Docker's default registry and its host; the docker SDK says the same, and takes 150 ms to be asked.
DEFAULT = "docker.io"
DEFAULT_HOST = f"index.{DEFAULT}"


def endpoint(reference: Reference) -> tuple[str, str]:
    """The host to ask and the repository's path there."""
    host = reference.registry or DEFAULT
    if host != DEFAULT:
        return host, reference.path
    path = reference.path if "/" in reference.path else f"library/{reference.path}"
    return DEFAULT_HOST, path


def is_loopback(host: str) -> bool:
    """Whether a `host[:port]` is this machine itself."""
    try:
        name = urlsplit(f"//{host}").hostname or ""
        return name == "localhost" or ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False

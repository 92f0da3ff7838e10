"""The stand-in for Picsellia, as the end-to-end tests run it in a container."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class StandinContainer:
    """Where it is.

    Attributes:
        url: Where the host reaches it.
        inside: Where containers on its network do.
        network: The docker network that it is on.
        token: The API token that it accepts.
    """

    url: str
    inside: str
    network: str
    token: str

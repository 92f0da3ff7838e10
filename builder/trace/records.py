"""What a trace is made of."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from builder.plan import LABEL
from builder.records import Record

Status = Literal["proven", "recorded", "broken"]
LABELS = {
    "plan": f"{LABEL}.plan",
    "lock": f"{LABEL}.lock",
    "revision": "org.opencontainers.image.revision",
    "base": "org.opencontainers.image.base.name",
    "base digest": "org.opencontainers.image.base.digest",
}


class Link(Record):
    """One step of a trace.

    Attributes:
        kind: What `to` is of `from_`: `image`, `digest`, `version`, `experiment`, `dataset ALIAS`,
            `parameters`, `file`, or a key of `LABELS`.
        status: `proven`, `recorded` or `broken`.
        why: What was compared, or why nothing could be.
    """

    kind: str
    from_: str = Field(serialization_alias="from")
    to: str
    status: Status
    why: str


class Trace(Record):
    """All that is linked to one image, version, experiment or file."""

    subject: str
    links: tuple[Link, ...]

    @property
    def broken(self) -> tuple[Link, ...]:
        """The links that no longer hold."""
        return tuple(link for link in self.links if link.status == "broken")


class FoundImage(Record):
    """What could be learned of an image now.

    Attributes:
        registry_digest: What its registry names by the tag or digest; None when it did not say.
        engine_digest: What the engine got from, or gave to, that repository; None when it has no such image.
        missing: The registry answers that it has no such image.
        labels: From the registry, else from the engine; None when neither has the image.
        why_not: Why the registry did not tell.
    """

    registry_digest: str | None = None
    engine_digest: str | None = None
    missing: bool = False
    labels: dict[str, str] | None = None
    why_not: str = ""

    @property
    def digest(self) -> str | None:
        """The digest as the registry says, else as the engine knows it."""
        return self.registry_digest or self.engine_digest

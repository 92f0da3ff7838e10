"""Where an image is, as users name it: a registry, an OCI layout, an archive or the engine. Reads nothing."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, cast

from builder.errors import UsageError
from builder.reference import TAG, parse_reference

Kind = Literal["registry", "oci", "archive", "engine"]
FORMS = "registry.example.com/team/base:1.2, oci:DIR[:TAG], archive:FILE or engine:REFERENCE"


@dataclass(frozen=True)
class Place:
    """The place of one image; as text, what `parse_place` reads.

    Attributes:
        name: A reference, or the path of a folder or a file.
        tag: Which image of a layout; None where it has one only.
    """

    kind: Kind
    name: str
    tag: str | None = None

    def __str__(self) -> str:
        kind = "" if self.kind == "registry" else f"{self.kind}:"
        return f"{kind}{self.name}" + (f":{self.tag}" if self.tag else "")

    @property
    def path(self) -> Path | None:
        """The folder or file, None for what is none."""
        return Path(self.name) if self.kind in ("oci", "archive") else None

    @property
    def watched(self) -> tuple[Path, ...] | None:
        """The files that change when another image is there; None where no file of this machine tells."""
        if self.path:
            return (self.path / "index.json" if self.kind == "oci" else self.path,)
        return () if self.kind == "registry" and parse_reference(self.name).digest else None

    def within(self, folder: Path) -> Place:
        """The same place, its path no longer relative to a folder."""
        return replace(self, name=str((folder / self.path).absolute())) if self.path else self


def parse_place(text: str) -> Place:
    """Read what names an image.

    Raises:
        UsageError: It names none.
    """
    kind, _, rest = text.partition(":")
    if kind not in ("oci", "archive", "engine"):
        return Place("registry", _exact(text))
    if not rest:
        raise UsageError(f"{text!r}, expected {FORMS}")
    if kind == "engine":
        return Place("engine", _exact(rest))
    folder, _, tag = rest.rpartition(":")
    if kind == "oci" and folder and TAG.fullmatch(tag):
        return Place("oci", folder, tag)
    return Place(cast("Kind", kind), rest)


def _exact(text: str) -> str:
    reference = parse_reference(text)
    if not (reference.tag or reference.digest):
        raise UsageError(f"the image reference {text!r} has neither tag nor digest")
    return text

"""The BuildPlan: everything an image is made of, as data, each choice with its reason.

`make_plan` reads nothing but its arguments. Both builders render the same plan.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any

from builder.records import Record
from builder.reference import Reference

CONTRACT = "1"
LABEL = "io.trainpack"
ENTRYPOINT = ("/usr/bin/tini", "-s", "--", "/opt/trainpack/bin/python", "-I", "-m", "trainpack_entrypoint")
VENV = "/opt/venv"
HEAVY_BYTES = 20_000_000


class Distribution(Record):
    """One locked distribution for the image's Python and platform: a wheel, or a source archive without one.

    Attributes:
        url: Where its file comes from: `https://…`, or `file://…` from a find-links folder.
        size: Bytes of the file; None where the index did not say.
        sha256: Hex digest of the file.
    """

    name: str
    version: str
    filename: str
    url: str
    size: int | None
    sha256: str


class Base(Record):
    """A base image, resolved.

    Attributes:
        name: Its name in the catalogue: `cpu`, `cuda`.
        reference: What `FROM` names.
        image_id: The config digest, `sha256:…`; None while it is not built or pulled yet.
        source: `upstream` or `debian` (bootstrapped), for labels and reasons.
    """

    name: str
    python: str
    platform: str
    reference: str
    image_id: str | None
    source: str


class CodeFile(Record):
    """A file of the code layer: path relative to the project, `0o644` or `0o755`, bytes, hex digest."""

    path: str
    mode: int
    size: int
    sha256: str


class Reason(Record):
    """Why a choice was made: `base = cuda, because the lock holds torch with CUDA 13.0`."""

    choice: str
    value: str
    because: str


class BuildPlan(Record):
    """Everything that decides the image's content. Its hash is in the tag.

    Attributes:
        heavy, light: The script's wheels, in `/opt/venv`: one layer for those over `HEAVY_BYTES`, one for
            the rest, so that a changed light dependency does not move torch.
        tools: The wheels of the entrypoint's own environment, `/opt/trainpack`.
        entrypoint_hash: Hex digest of the entrypoint package's files.
        manifest: The baked `image.json`.
        env: The image's environment, beyond the base's.
        labels: OCI labels, without the plan's own hash.
    """

    name: str
    version: str
    platform: str
    python: str
    base: Base
    system_packages: tuple[str, ...]
    heavy: tuple[Distribution, ...]
    light: tuple[Distribution, ...]
    tools: tuple[Distribution, ...]
    lock_hash: str
    entrypoint_hash: str
    code: tuple[CodeFile, ...]
    manifest: dict[str, Any]
    env: dict[str, str]
    labels: dict[str, str]
    reasons: tuple[Reason, ...]

    @property
    def hash(self) -> str:
        """Hex digest of all that decides the content; wheels count by content, not by address."""
        data = self.model_dump(mode="json", exclude={"reasons": True, "base": {"reference"}})
        for group in ("heavy", "light", "tools"):
            data[group] = [[wheel["name"], wheel["version"], wheel["sha256"]] for wheel in data[group]]
        canonical = json.dumps(data, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(canonical.encode()).hexdigest()

    @property
    def tag(self) -> str:
        """`<version>-<12 hex of the plan hash>`: never moved."""
        return f"{self.version}-{self.hash[:12]}"

    @property
    def reference(self) -> Reference:
        """Where the image goes."""
        return Reference(self.name, self.tag)


class BuiltImage(Record):
    """What a builder made.

    Attributes:
        image_id: The config digest, `sha256:…`: what links test to push.
        digest: The manifest digest, where the builder knows it before a push.
        size: Unpacked bytes, as the engine counts them.
        layers: Layer digests (diff ids), base first.
    """

    reference: str
    image_id: str
    digest: str | None
    tag: str
    size: int
    layers: tuple[str, ...]


class PublishedImage(Record):
    """An image in a registry: the image id that was pushed, and the manifest digest it got there."""

    reference: str
    image_id: str
    digest: str

"""The objects of a model store. Almost every field is optional: what is required depends on the use."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from builder.errors import UsageError
from builder.records import Record

STORES = ("local", "picsellia")
DIGEST_VARIABLE = "TRAINPACK_IMAGE_DIGEST"


class VersionName(Record):
    """`[STORE:]MODEL/VERSION`, split at the last slash; the store is `local` unless named."""

    store: str = "local"
    model: str
    version: str

    def __str__(self) -> str:
        return f"{self.store}:{self.model}/{self.version}"

    @classmethod
    def parse(cls, text: str) -> VersionName:
        """Read a name.

        Raises:
            UsageError: There is no slash, an empty part, or an unknown store.
        """
        head, colon, rest = text.partition(":")
        store, name = (head, rest) if colon and head in STORES else ("local", text)
        model, _, version = name.rpartition("/")
        if not model.strip() or not version.strip() or (colon and name == text):
            raise UsageError(f"{text!r} is not [STORE:]MODEL/VERSION, with STORE local or picsellia")
        return cls(store=store, model=model, version=version)


class DockerImage(Record):
    """The Docker image of a ModelVersion, with its digest (of the manifest) and canonical flags."""

    name: str
    tag: str
    digest: str | None = None
    flags: tuple[str, ...] = ()
    env: dict[str, str] = Field(default_factory=dict)


class VersionFields(Record):
    """What can be written on a ModelVersion; None leaves a field as it is."""

    description: str | None = None
    framework: str | None = None
    type: str | None = None
    labelmap: dict[str, str] | None = None
    parameters: dict[str, Any] | None = None
    image: DockerImage | None = None


class ModelVersion(Record):
    """A ModelVersion as a store holds it."""

    id: str
    name: VersionName
    fields: VersionFields


class Change(Record):
    """One field that a write would change."""

    field: str
    before: Any
    after: Any


class Attachment(Record):
    """The result of an attach: what was written where, and read back."""

    version: VersionName
    image: DockerImage
    changes: tuple[Change, ...]
    written: bool

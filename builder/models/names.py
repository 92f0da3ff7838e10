"""How the objects of a store are named, and the lines of their lists.

Plain dataclasses: a list of versions is shown without loading the library of the other records, which takes
longer than reading ten thousand versions.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import ClassVar, Self

from builder.errors import UsageError

STORES = ("local", "picsellia")


@dataclass(frozen=True, kw_only=True)
class Name:
    """How an object is named: `[STORE:]OWNER/NAME`, split at the last slash; the store is `local` by default.

    A subclass has two more fields, the owner's name and its own.
    """

    FORM: ClassVar[str]

    store: str = "local"

    @property
    def parts(self) -> tuple[str, str]:
        """The owner's name and its own, without the store."""
        owner, own = (str(getattr(self, field)) for field in self._fields())
        return owner, own

    def __str__(self) -> str:
        owner, own = self.parts
        return f"{self.store}:{owner}/{own}"

    @classmethod
    def _fields(cls) -> list[str]:
        return [field.name for field in fields(cls) if field.name != "store"]

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read a name.

        Raises:
            UsageError: There is no slash, an empty part, or an unknown store.
        """
        head, colon, rest = text.partition(":")
        store, name = (head, rest) if colon and head in STORES else ("local", text)
        owner, _, own = name.rpartition("/")
        if not owner.strip() or not own.strip() or (colon and name == text):
            raise UsageError(f"{text!r} is not [STORE:]{cls.FORM}, with STORE local or picsellia")
        return cls(**{"store": store, **dict(zip(cls._fields(), (owner, own), strict=True))})


@dataclass(frozen=True, kw_only=True)
class VersionName(Name):
    """`[STORE:]MODEL/VERSION`."""

    FORM: ClassVar[str] = "MODEL/VERSION"

    model: str
    version: str


@dataclass(frozen=True, kw_only=True)
class ExperimentName(Name):
    """`[STORE:]PROJECT/EXPERIMENT`."""

    FORM: ClassVar[str] = "PROJECT/EXPERIMENT"

    project: str
    experiment: str


@dataclass(frozen=True, kw_only=True)
class DatasetName(Name):
    """`[STORE:]DATASET/VERSION`."""

    FORM: ClassVar[str] = "DATASET/VERSION"

    dataset: str
    version: str


@dataclass(frozen=True, kw_only=True)
class VersionSummary:
    """One line of a list of versions; `image` is `name:tag`."""

    id: str
    name: VersionName
    framework: str | None = None
    type: str | None = None
    image: str | None = None
    digest: str | None = None


@dataclass(frozen=True, kw_only=True)
class ExperimentSummary:
    """One line of a list of experiments.

    Attributes:
        base: The version that it was made from; None also where the store does not tell it in a list.
    """

    id: str
    name: ExperimentName
    status: str | None = None
    base: VersionName | None = None

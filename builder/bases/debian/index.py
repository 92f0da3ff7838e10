"""The packages that a suite offers. Of its index of 60,000 paragraphs, only those asked for are read."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from debian_inspector.debcon import Debian822
from debian_inspector.version import Version, eval_constraint

from builder.bases.debian.mirror import File
from builder.errors import MirrorError

_FIELDS = re.compile(rb"^(Package|Provides): *(.+)$", re.MULTILINE)
# `:any` and `:native` ask for what every package of the one architecture is: they are read over.
_RELATION = re.compile(
    r"([A-Za-z0-9][A-Za-z0-9.+-]*)(?::[a-z0-9-]+)?(?:\s*\(\s*(<<|<=|=|>=|>>)\s*(\S+?)\s*\))?"
)
# The library's own reading of versions refuses those that end with a tilde or a plus.
_VERSION = re.compile(r"(?:(\d+):)?([A-Za-z0-9.+~-]+?)(?:-([A-Za-z0-9.+~]+))?")
_FIRST = ("required", "important", "standard")


@dataclass(frozen=True)
class Relation:
    """One name of a dependency, with the versions that will do: `libc6 (>= 2.34)`."""

    name: str
    operator: str | None = None
    version: str | None = None

    def accepts(self, version: str | None) -> bool:
        """Whether this version will do; None is that of a virtual package without one."""
        if self.operator is None or self.version is None:
            return True
        return version is not None and bool(
            eval_constraint(_version(version), self.operator, _version(self.version))
        )

    def __str__(self) -> str:
        return f"{self.name} ({self.operator} {self.version})" if self.operator else self.name


Alternatives = tuple[Relation, ...]


@dataclass(frozen=True)
class Package:
    """A version of a package, as an index describes it.

    Attributes:
        depends: What it needs, each with its alternatives; what it needs before its own installation too.
        rejects: What it cannot be installed beside.
    """

    name: str
    version: str
    architecture: str
    file: File
    priority: str = "optional"
    depends: tuple[Alternatives, ...] = ()
    provides: tuple[Relation, ...] = ()
    rejects: tuple[Relation, ...] = ()
    replaces: tuple[Relation, ...] = ()

    def satisfies(self, relation: Relation) -> bool:
        """Whether it is what the relation names, or provides that."""
        if relation.name == self.name:
            return relation.accepts(self.version)
        return any(each.name == relation.name and relation.accepts(each.version) for each in self.provides)


@dataclass(frozen=True, slots=True)
class _Paragraph:
    """Where a package's description begins in an index of 50 MB, which is kept once."""

    uri: str
    text: bytes
    start: int

    @property
    def content(self) -> bytes:
        end = self.text.find(b"\n\n", self.start)
        return self.text[self.start : end if end >= 0 else None]


@dataclass
class Index:
    """The packages of several suites, as one: of each name the highest version counts."""

    architecture: str
    _paragraphs: dict[str, list[_Paragraph]] = field(default_factory=lambda: defaultdict(list))
    _providers: dict[str, set[str]] = field(default_factory=lambda: defaultdict(set))
    _read: dict[str, Package | None] = field(default_factory=dict)

    def add(self, uri: str, text: bytes) -> None:
        """Add a suite's index; of equal versions, the one added first counts."""
        name = ""
        for match in _FIELDS.finditer(text):
            value = match[2].decode().strip()
            if match[1] == b"Package":
                # Indexes open each paragraph with it.
                name = value
                self._paragraphs[name].append(_Paragraph(uri, text, match.start()))
            else:
                for provided in filter(None, map(str.split, value.split(","))):
                    self._providers[provided[0]].add(name)

    @property
    def names(self) -> Iterable[str]:
        """Every package's name."""
        return self._paragraphs.keys()

    def find(self, name: str) -> Package | None:
        """The highest version of a package, None where there is none."""
        if name not in self._read:
            found = [self._package(each) for each in self._paragraphs.get(name, ())]
            self._read[name] = max(found, key=lambda each: _version(each.version), default=None)
        return self._read[name]

    def providers(self, name: str) -> list[Package]:
        """The packages that provide a name, the most usual first."""
        found = [self.find(each) for each in self._providers.get(name, ())]
        provided = [each for each in found if each and each.satisfies(Relation(name))]
        return sorted(provided, key=lambda each: (_rank(each.priority), each.name))

    def _package(self, paragraph: _Paragraph) -> Package:
        fields, uri = Debian822(paragraph.content.decode()), paragraph.uri
        try:
            _version(fields["Version"])
            return Package(
                name=fields["Package"],
                version=fields["Version"],
                architecture=fields["Architecture"],
                file=File(f"{uri}/{fields['Filename']}", fields["SHA256"], int(fields["Size"])),
                priority=fields.get("Priority", "optional"),
                depends=(*_alternatives(fields, "Pre-Depends"), *_alternatives(fields, "Depends")),
                provides=_relations(fields, "Provides"),
                rejects=(*_relations(fields, "Conflicts"), *_relations(fields, "Breaks")),
                replaces=_relations(fields, "Replaces"),
            )
        except (KeyError, ValueError) as error:
            place = f"the package index of {self.architecture}"
            raise MirrorError(f"a paragraph that cannot be read: {error}", place=place) from None


def parse_depends(text: str) -> tuple[Alternatives, ...]:
    """The value of a `Depends` field.

    Raises:
        ValueError: It is not one.
    """
    groups = filter(str.strip, text.split(","))
    return tuple(tuple(_relation(each.strip()) for each in group.split("|")) for group in groups)


def _relation(text: str) -> Relation:
    match = _RELATION.fullmatch(text)
    if match is None:
        raise ValueError(f"the relation {text!r}")
    name, operator, version = match.groups()
    if version is not None:
        _version(version)
    return Relation(name, operator, version)


def _version(text: str) -> Version:
    match = _VERSION.fullmatch(text)
    if match is None:
        raise ValueError(f"the version {text!r}")
    return Version(int(match[1] or 0), match[2], match[3] or "0")


def _alternatives(fields: Mapping[str, str], name: str) -> tuple[Alternatives, ...]:
    return parse_depends(fields.get(name, ""))


def _relations(fields: Mapping[str, str], name: str) -> tuple[Relation, ...]:
    return tuple(each for group in _alternatives(fields, name) for each in group)


def _rank(priority: str) -> int:
    return _FIRST.index(priority) if priority in _FIRST else len(_FIRST)

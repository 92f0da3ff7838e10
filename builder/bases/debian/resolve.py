"""The closure of what is wanted over what it depends on, chosen as apt chooses: no search, no surprise."""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Iterable, Iterator

from trainpack_entrypoint.schema import close_match

from builder.bases.debian.index import Alternatives, Index, Package, Relation
from builder.errors import UsageError


def resolve(wanted: Iterable[str], index: Index, unneeded: Collection[str] = ()) -> tuple[Package, ...]:
    """The packages to unpack, by name.

    The wanted ones come first, then their dependencies, nearest first: of alternatives, one that is chosen
    already, else the first that there is, else the most usual of those that provide one.

    Args:
        unneeded: Names that count as there, since only installation scripts use them, which never run.

    Raises:
        UsageError: There is no such package, a dependency cannot be met, or two packages exclude each other.
    """
    chosen: dict[str, Package] = {}
    open_ends: deque[tuple[Alternatives, str]] = deque()

    def choose(package: Package) -> None:
        chosen[package.name] = package
        open_ends.extend((group, package.name) for group in package.depends)

    for name in sorted(set(wanted)):
        choose(_wanted(name, index))
    while open_ends:
        group, dependent = open_ends.popleft()
        if not _is_met(group, chosen, unneeded):
            choose(_choose(group, dependent, index))
    _check_conflicts(chosen)
    return tuple(chosen[name] for name in sorted(chosen))


def _wanted(name: str, index: Index) -> Package:
    found = index.find(name)
    if found:
        return found
    providers = index.providers(name)
    if len(providers) == 1:
        return providers[0]
    if providers:
        names = ", ".join(package.name for package in providers)
        raise UsageError(f"the package {name!r} is a name for several", remedy=f"choose one of {names}")
    hint = close_match(name, list(index.names))
    raise UsageError(
        f"Debian has no package {name!r}{hint}", remedy="check the name, and the suite of its Python"
    )


def _is_met(group: Alternatives, chosen: dict[str, Package], unneeded: Collection[str]) -> bool:
    return any(
        relation.name in unneeded or any(each.satisfies(relation) for each in _named(relation, chosen))
        for relation in group
    )


def _named(relation: Relation, chosen: dict[str, Package]) -> Iterable[Package]:
    return (chosen[relation.name],) if relation.name in chosen else chosen.values()


def _choose(group: Alternatives, dependent: str, index: Index) -> Package:
    for relation in group:
        for candidate in _candidates(relation, index):
            if candidate.satisfies(relation):
                return candidate
    text = " | ".join(map(str, group))
    offers = ", ".join(f"{each.name} {each.version}" for each in map(index.find, _names(group)) if each)
    raise UsageError(
        f"{dependent} depends on {text}, which the suite does not have"
        + (f": it has {offers}" if offers else ""),
        remedy="the mirror may be in the middle of an update: try again; or leave the package out",
    )


def _candidates(relation: Relation, index: Index) -> Iterator[Package]:
    if found := index.find(relation.name):
        yield found
    yield from index.providers(relation.name)


def _names(group: Alternatives) -> list[str]:
    return [relation.name for relation in group]


def _check_conflicts(chosen: dict[str, Package]) -> None:
    for package in chosen.values():
        for relation in package.rejects:
            for other in chosen.values():
                if other is not package and other.satisfies(relation):
                    raise UsageError(
                        f"{package.name} {package.version} cannot be installed beside "
                        f"{other.name} {other.version}: it excludes {relation}",
                        remedy="leave one of them out, or what depends on it",
                    )

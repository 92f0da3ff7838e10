"""A base from Debian's packages: resolve, fetch, unpack, and what installation would have done."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from builder.bases.catalogue import UNPACKING, Recipe
from builder.bases.debian.byte_code import compile_library, host_architecture
from builder.bases.debian.deb import Deb, read_deb
from builder.bases.debian.effects import effects, unhandled_scripts
from builder.bases.debian.index import Index, Package
from builder.bases.debian.installed import record
from builder.bases.debian.mirror import Mirror
from builder.bases.debian.release import read_index, why_not_verifiable
from builder.bases.debian.resolve import resolve
from builder.bases.debian.tree import merge
from builder.errors import UsageError
from builder.host import apt
from builder.oci.cache import Cache, cache_key
from builder.oci.image import Addendum, Changes, Image, Layer, append, empty
from builder.oci.layer import write_layer
from builder.plan import LABEL

Say = Callable[[str], None]
_AT_ONCE = 6


def why_not_debian(recipe: Recipe, environ: Mapping[str, str]) -> str | None:
    """Why a base cannot be made of Debian's packages; None when it can. Nothing is asked of a mirror."""
    if recipe.origin.suite is None:
        return f"no Debian release comes with Python {recipe.python}"
    try:
        apt.sources_text(environ, recipe.origin.suite)
    except UsageError as error:
        return error.message
    return why_not_verifiable(environ)


def make_image(recipe: Recipe, cache: Cache, say: Say) -> Image:
    """The base's image, its layers in the cache: the system, and its standard library's byte code.

    Raises:
        UsageError: No Debian release has this Python, no mirror is known, signatures cannot be checked, or
            packages are unknown or exclude each other.
        MirrorError: A mirror does not answer, or serves what cannot be trusted or used.
        BuildError: The standard library cannot be compiled.
    """
    suite = recipe.origin.suite
    if suite is None:
        raise UsageError(
            f"no Debian release comes with Python {recipe.python}: only {recipe.origin.upstream} has it",
            remedy="choose another Python, or build the base with --source upstream",
        )
    with _workshop(Mirror(cache.blobs), recipe) as workshop:
        packages = workshop.resolve(recipe.debian_packages, recipe.architecture)
        size = sum(package.file.size for package in packages)
        say(f"{len(packages)} packages of Debian {suite}, {size / 1e6:.0f} MB")
        layers = [Addendum(_system(workshop, packages, cache, say), f"Debian {suite}, unpacked")]
        if code := _byte_code(workshop, packages, cache, say):
            layers.append(Addendum(code, f"byte code of Python {recipe.python}"))
    return append(empty(recipe.platform), layers, _changes(recipe), recipe.epoch)


@dataclass
class _Workshop:
    """Packages, resolved and unpacked once each, for as long as an image is made of them."""

    mirror: Mirror
    recipe: Recipe
    scratch: Path
    _indexes: dict[str, Index] = field(default_factory=dict)
    _debs: dict[str, Deb] = field(default_factory=dict)

    def resolve(self, wanted: Iterable[str], architecture: str) -> tuple[Package, ...]:
        if architecture not in self._indexes:
            self._indexes[architecture] = self._read_index(architecture)
        return resolve(wanted, self._indexes[architecture], self.recipe.debian.unneeded)

    def unpack(self, packages: Sequence[Package]) -> list[Deb]:
        missing = [each for each in packages if each.file.sha256 not in self._debs]
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            for package, deb in zip(missing, pool.map(self._unpack, missing), strict=True):
                self._debs[package.file.sha256] = deb
        return [self._debs[each.file.sha256] for each in packages]

    def _read_index(self, architecture: str) -> Index:
        sources = apt.sources(os.environ, str(self.recipe.origin.suite))
        index = Index(architecture)
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            texts = pool.map(lambda source: read_index(source, architecture, self.mirror), sources)
            for source, text in zip(sources, texts, strict=True):
                index.add(source.uri, text)
        return index

    def _unpack(self, package: Package) -> Deb:
        with self.mirror.open(package.file) as archive:
            return read_deb(archive, package.name, self.scratch)


@contextmanager
def _workshop(mirror: Mirror, recipe: Recipe) -> Iterator[_Workshop]:
    with tempfile.TemporaryDirectory(prefix="trainpack-") as scratch:
        yield _Workshop(mirror, recipe, Path(scratch))


def _system(workshop: _Workshop, packages: Sequence[Package], cache: Cache, say: Say) -> Layer:
    recipe = workshop.recipe
    parts = (UNPACKING, recipe.architecture, recipe.epoch, recipe.contract.model_dump(mode="json"))

    def make() -> Layer:
        debs = workshop.unpack(packages)
        tree = merge(packages, debs)
        tree |= effects(recipe, tree, debs)
        if scripts := unhandled_scripts(debs):
            say(f"their installation scripts are not run: {', '.join(scripts)}")
        entries = {**tree, **{entry.path: entry for entry in record(debs, tree)}}
        return write_layer(entries.values(), cache.blobs, recipe.epoch)

    return cache.layer(cache_key("debian", *parts, _digests(packages)), make)


def _byte_code(workshop: _Workshop, packages: Sequence[Package], cache: Cache, say: Say) -> Layer | None:
    recipe, host = workshop.recipe, host_architecture()
    if host is None:
        say("no byte code: the base's Python does not run on this machine; it starts slower in containers")
        return None
    library = [each for each in packages if "python3" in each.name]

    def make() -> Layer:
        interpreter = workshop.resolve(recipe.origin.packages, host)
        trees = [merge(each, workshop.unpack(each)) for each in (library, interpreter)]
        entries = compile_library(trees[0], trees[1], recipe.python, host)
        return write_layer(entries, cache.blobs, recipe.epoch)

    return cache.layer(cache_key("debian byte code", UNPACKING, recipe.epoch, _digests(library)), make)


def _digests(packages: Iterable[Package]) -> list[str]:
    return [package.file.sha256 for package in packages]


def _changes(recipe: Recipe) -> Changes:
    contract = recipe.contract
    labels = {"base": recipe.name, "base.python": recipe.python, "base.source": "debian"}
    return Changes(
        env=recipe.env,
        labels={f"{LABEL}.{name}": value for name, value in labels.items()},
        user=contract.user,
        workdir=contract.workdir,
        cmd=contract.command,
    )

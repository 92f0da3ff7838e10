"""A base from Debian's packages: resolve, fetch, unpack, and what installation would have done."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from builder import apt
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
    mirror = Mirror(cache.blobs)
    packages = _resolve(recipe, recipe.architecture, mirror)
    say(
        f"{len(packages)} packages of Debian {suite}, {sum(each.file.size for each in packages) / 1e6:.0f} MB"
    )
    layers = [Addendum(_system(recipe, packages, mirror, cache, say), f"Debian {suite}, unpacked")]
    if code := _byte_code(recipe, packages, mirror, cache, say):
        layers.append(Addendum(code, f"byte code of Python {recipe.python}"))
    return append(empty(recipe.platform), layers, _changes(recipe), recipe.epoch)


def _resolve(recipe: Recipe, architecture: str, mirror: Mirror) -> tuple[Package, ...]:
    sources = apt.sources(os.environ, str(recipe.origin.suite))
    index = Index(architecture)
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        texts = pool.map(lambda source: read_index(source, architecture, mirror), sources)
        for source, text in zip(sources, texts, strict=True):
            index.add(source.uri, text)
    return resolve(recipe.debian_packages, index, recipe.debian.unneeded)


def _system(recipe: Recipe, packages: Sequence[Package], mirror: Mirror, cache: Cache, say: Say) -> Layer:
    parts = (UNPACKING, recipe.architecture, recipe.epoch, recipe.contract.model_dump(mode="json"))
    key = cache_key("debian", *parts, _digests(packages))

    def make() -> Layer:
        with _unpacked(packages, mirror) as debs:
            tree = merge(packages, debs)
            tree |= effects(recipe, tree, debs)
            if scripts := unhandled_scripts(debs):
                say(f"their installation scripts are not run: {', '.join(scripts)}")
            entries = {**tree, **{entry.path: entry for entry in record(debs, tree)}}
            return write_layer(entries.values(), cache.blobs, recipe.epoch)

    return cache.layer(key, make)


def _byte_code(
    recipe: Recipe, packages: Sequence[Package], mirror: Mirror, cache: Cache, say: Say
) -> Layer | None:
    host = host_architecture()
    if host is None:
        say("no byte code: the base's Python does not run on this machine; it starts slower in containers")
        return None
    library = [each for each in packages if "python3" in each.name]
    key = cache_key("debian byte code", UNPACKING, recipe.epoch, _digests(library))

    def make() -> Layer:
        same = host == recipe.architecture
        interpreter = packages if same else _resolve(recipe, host, mirror)
        with _unpacked(library, mirror) as ours, _unpacked(interpreter, mirror) as theirs:
            trees = merge(library, ours), merge(interpreter, theirs)
            entries = list(compile_library(*trees, recipe.python, host))
        return write_layer(entries, cache.blobs, recipe.epoch)

    return cache.layer(key, make)


@contextmanager
def _unpacked(packages: Sequence[Package], mirror: Mirror) -> Iterator[list[Deb]]:
    def unpack(package: Package) -> Deb:
        with mirror.open(package.file) as archive:
            return read_deb(archive, package.name, Path(scratch))

    with tempfile.TemporaryDirectory(prefix="trainpack-") as scratch, ThreadPoolExecutor(_AT_ONCE) as pool:
        yield list(pool.map(unpack, packages))


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

"""Layers of wheels, made: each wheel brought, compiled and packed, then put together, several at once."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from concurrent.futures import FIRST_COMPLETED, Executor, Future, ThreadPoolExecutor, wait
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from builder.errors import BlobError, WheelError
from builder.oci.cache import Cache
from builder.oci.image import Layer
from builder.plan import Distribution
from builder.wheels.archive import WheelArchive, open_wheel, reopen_wheel
from builder.wheels.bytecode import Bytecode, compile_with
from builder.wheels.download import Downloads
from builder.wheels.environment import Environment
from builder.wheels.layers import Group, Settings
from builder.wheels.packed import Packed, pack, packed_key
from builder.wheels.transmux import write_wheels

if TYPE_CHECKING:
    from builder.wheels.install import Installed

# More would keep the first to be compiled waiting.
DOWNLOADS_AT_ONCE = 4


def make_layers(groups: Sequence[Group], cache: Cache, settings: Settings) -> dict[Group, Layer]:
    """Make the layers of groups; whoever makes one of them in another process is waited for.

    Raises:
        WheelError: A wheel cannot be had or installed.
    """
    cores = os.cpu_count() or 1
    with ExitStack() as stack:
        fetching, compiling, packing, making = pools = [
            stack.enter_context(ThreadPoolExecutor(workers, name))
            for workers, name in (
                (DOWNLOADS_AT_ONCE, "download"),
                (cores, "compile"),
                (cores, "pack"),
                (cores, "layer"),
            )
        ]
        work = _Work(cache, settings, Downloads(cache, settings.environ, settings.say), compiling)
        fetched = {fetching.submit(work.fetch, part): part for part in _in_order(groups, cache)}
        packed: dict[Future[Path], _Part] = {}
        here: dict[_Part, Path] = {}
        layers: dict[Group, Future[Layer]] = {}
        try:
            while True:
                for group in groups:
                    paths = {part: here[part] for part in _parts(group) if part in here}
                    if group not in layers and len(paths) == len(group.wheels):
                        layers[group] = making.submit(work.layer, group, paths)
                if not fetched and not packed:
                    return {group: layer.result() for group, layer in layers.items()}
                for done in wait((*fetched, *packed), return_when=FIRST_COMPLETED).done:
                    if part := fetched.pop(done, None):
                        packed[packing.submit(work.pack, part, done.result())] = part
                    else:
                        here[packed.pop(done)] = done.result()
        except BaseException:
            for pool in reversed(pools):
                pool.shutdown(wait=False, cancel_futures=True)
            raise


@dataclass(frozen=True)
class _Part:
    """A wheel in an environment."""

    wheel: Distribution
    environment: Environment

    @property
    def digest(self) -> str:
        return f"sha256:{self.wheel.sha256}"


def _parts(group: Group) -> list[_Part]:
    return [_Part(wheel, group.environment) for wheel in group.wheels]


def _in_order(groups: Sequence[Group], cache: Cache) -> list[_Part]:
    """The order in which wheels are fetched.

    First those that are here, the largest before the others: they take longest. Then those to be downloaded,
    the smallest before the others: they are compiled while those are on their way.
    """

    def order(part: _Part) -> tuple[bool, int]:
        is_here = cache.blobs.path(part.digest).exists()
        size = part.wheel.size or 0
        return (not is_here, -size if is_here else size)

    return sorted((part for group in groups for part in _parts(group)), key=order)


@dataclass(frozen=True)
class _Work:
    """What the threads of one build share."""

    cache: Cache
    settings: Settings
    downloads: Downloads
    compiling: Executor

    def fetch(self, part: _Part) -> Path:
        """Where a wheel lies; one that is packed is not hashed, since what is read of it has checksums."""
        path = self.cache.blobs.path(part.digest)
        if path.exists() and self.cache.recall(self._key(part)):
            return path
        return self.downloads.fetch(part.wheel)

    def pack(self, part: _Part, path: Path) -> Path:
        """Have a wheel packed that is here."""
        self._packed(part, path)
        return path

    def layer(self, group: Group, paths: Mapping[_Part, Path]) -> Layer:
        """The layer of a group whose wheels are here."""
        layer = self.cache.layer(self.settings.key(group), lambda: self._written(paths))
        self.settings.say(f"layer {group.title} ({layer.size / 1e6:.1f} MB)")
        self.settings.ready([layer])
        return layer

    def _written(self, paths: Mapping[_Part, Path]) -> Layer:
        wheels: list[Packed] = []
        later = set[str]()
        with ExitStack() as stack:
            for part, path in sorted(paths.items(), key=lambda each: each[0].wheel.name, reverse=True):
                archive = stack.enter_context(reopen_wheel(path, part.wheel.filename))
                packed = Packed(stack.enter_context(self._packed(part, path).open()), archive)
                # Of two wheels with the same file, the later one's is there, as if installed one by one.
                if shadowed := later.intersection(packed.paths):
                    packed = Packed(stack.enter_context(self._packed(part, path, shadowed).open()), archive)
                later.update(packed.paths)
                wheels.insert(0, packed)
            try:
                return write_wheels(wheels, self.cache.blobs, self.settings.epoch)
            except WheelError:
                self._check(paths)
                raise

    def _check(self, parts: Iterable[_Part]) -> None:
        """Tell whether wheels are damaged here, and not by whoever made them; those are removed."""
        for part in parts:
            if not self.cache.blobs.verify(part.digest):
                raise BlobError(
                    f"{part.wheel.filename} is corrupt in the cache",
                    place=str(self.cache.folder),
                    remedy="try again: it is brought anew",
                )

    def _packed(self, part: _Part, path: Path, without: Set[str] = frozenset()) -> Layer:
        return self.cache.layer(self._key(part, without), lambda: self._pack(part, path, without))

    def _key(self, part: _Part, without: Set[str] = frozenset()) -> str:
        interpreter, epoch = self.settings.interpreter, self.settings.epoch
        return packed_key(part.wheel, part.environment, interpreter, epoch, without)

    def _pack(self, part: _Part, path: Path, without: Set[str]) -> Layer:
        from builder.wheels.install import lay_out  # noqa: PLC0415  (what is packed already does without)

        with open_wheel(path, part.wheel.filename) as archive:
            installed = lay_out(archive, part.environment)
            made = self._compiled(archive, installed, part.environment.python)
            return pack(archive, installed, made, self.cache.blobs, self.settings.epoch, without)

    def _compiled(self, archive: WheelArchive, installed: Installed, python: str) -> Iterator[Bytecode]:
        if not self.settings.interpreter:
            return iter(())
        sources = {
            place: member
            for place, member in installed.members.items()
            if place.endswith(".py") and "/site-packages/" in place
        }
        return compile_with(
            self.compiling,
            sources,
            lambda place: archive.read(sources[place]),
            python,
            self.settings.interpreter,
        )

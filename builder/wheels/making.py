"""Layers of wheels, made: brought, laid out, compiled and written, several at once."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence, Set
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

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

DOWNLOADS_AT_ONCE = 8


def make_layers(groups: Sequence[Group], cache: Cache, settings: Settings) -> dict[Group, Layer]:
    """Make the layers of groups; whoever makes one of them in another process is waited for.

    Raises:
        WheelError: A wheel cannot be had or installed.
    """
    processes = os.cpu_count() or 1
    downloads = Downloads(cache, settings.environ, settings.say)
    wheels = {wheel.sha256: wheel for group in groups for wheel in group.wheels}
    with ExitStack() as stack:
        fetching, compiling, making = pools = [
            stack.enter_context(ThreadPoolExecutor(workers, name))
            for workers, name in (
                (DOWNLOADS_AT_ONCE, "download"),
                (processes, "compile"),
                (processes, "layer"),
            )
        ]
        ordered = sorted(wheels.values(), key=lambda wheel: -(wheel.size or 0))
        files = {wheel.sha256: fetching.submit(downloads.fetch, wheel) for wheel in ordered}
        work = _Work(cache, settings, files, compiling)
        # What takes longest first, so that nothing is waited for alone at the end.
        largest_first = sorted(groups, key=_size, reverse=True)
        layers = {group: making.submit(work.layer, group) for group in largest_first}
        try:
            return {group: layer.result() for group, layer in layers.items()}
        except BaseException:
            for pool in reversed(pools):
                pool.shutdown(wait=False, cancel_futures=True)
            raise


def _size(group: Group) -> int:
    return sum(wheel.size or 0 for wheel in group.wheels)


@dataclass(frozen=True)
class _Work:
    """What the threads of one build share."""

    cache: Cache
    settings: Settings
    files: Mapping[str, Future[Path]]
    compiling: Executor

    def layer(self, group: Group) -> Layer:
        layer = self.cache.layer(self.settings.key(group), lambda: self._written(group))
        self.settings.say(f"layer {group.title} ({layer.size / 1e6:.1f} MB)")
        self.settings.ready([layer])
        return layer

    def _written(self, group: Group) -> Layer:
        ordered = sorted(group.wheels, key=lambda wheel: wheel.name)
        with ExitStack() as stack:
            wheels = [self._packed(stack, wheel, group.environment) for wheel in ordered]
            later = set[str]()
            for place, wheel in reversed(list(enumerate(ordered))):
                # Of two wheels with the same file, the later one's is there, as if installed one by one.
                if shadowed := later.intersection(wheels[place].paths):
                    wheels[place] = self._packed(stack, wheel, group.environment, shadowed)
                later.update(wheels[place].paths)
            return write_wheels(wheels, self.cache.blobs, self.settings.epoch)

    def _packed(
        self,
        stack: ExitStack,
        wheel: Distribution,
        environment: Environment,
        without: Set[str] = frozenset(),
    ) -> Packed:
        settings = self.settings
        key = packed_key(wheel, environment, settings.interpreter, settings.epoch, without)
        kept = self.cache.layer(key, lambda: self._pack(wheel, environment, without))
        archive = stack.enter_context(reopen_wheel(self._path(wheel), wheel.filename))
        return Packed(stack.enter_context(kept.open()), archive)

    def _pack(self, wheel: Distribution, environment: Environment, without: Set[str]) -> Layer:
        from builder.wheels.install import lay_out  # noqa: PLC0415  (what is packed already does without)

        with open_wheel(self._path(wheel), wheel.filename) as archive:
            installed = lay_out(archive, environment)
            made = self._compiled(archive, installed, environment.python)
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

    def _path(self, wheel: Distribution) -> Path:
        return self.files[wheel.sha256].result()

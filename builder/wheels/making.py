"""Layers of wheels, made: brought, laid out, compiled and written, several at once."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from builder.oci.cache import Cache
from builder.oci.image import Layer
from builder.plan import Distribution
from builder.wheels.archive import open_wheel
from builder.wheels.bytecode import compile_with
from builder.wheels.compiled import Compiled, bytecode_key, keep
from builder.wheels.download import Downloads
from builder.wheels.install import lay_out
from builder.wheels.layers import Group, Settings
from builder.wheels.transmux import Source, write_wheels

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
        layers = [making.submit(work.layer, group) for group in groups]
        try:
            return {group: layer.result() for group, layer in zip(groups, layers, strict=True)}
        except BaseException:
            for pool in reversed(pools):
                pool.shutdown(wait=False, cancel_futures=True)
            raise


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
        return layer

    def _written(self, group: Group) -> Layer:
        with ExitStack() as stack:
            ordered = sorted(group.wheels, key=lambda wheel: wheel.name)
            sources = [self._source(stack, wheel, group) for wheel in ordered]
            return write_wheels(sources, self.cache.blobs, self.settings.epoch)

    def _source(self, stack: ExitStack, wheel: Distribution, group: Group) -> Source:
        path = self.files[wheel.sha256].result()
        archive = stack.enter_context(open_wheel(path, wheel.filename))
        installed = lay_out(archive, group.environment)
        interpreter, python = self.settings.interpreter, group.environment.python
        if not interpreter:
            return Source(archive, installed)
        sources = {
            place: member
            for place, member in installed.members.items()
            if place.endswith(".py") and "/site-packages/" in place
        }
        made = compile_with(
            self.compiling, sources, lambda place: archive.read(sources[place]), python, interpreter
        )
        key = bytecode_key(wheel, group.environment, interpreter)
        kept = self.cache.layer(key, lambda: keep(made, self.cache.blobs))
        return Source(archive, installed, Compiled(stack.enter_context(kept.open())))

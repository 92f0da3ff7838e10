"""The layers of an environment: which wheels share one, and each made once and kept."""

from __future__ import annotations

import os
import tarfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from builder.oci import tar
from builder.oci.cache import Cache, cache_key
from builder.oci.image import Layer
from builder.oci.layer import kept_layer
from builder.oci.manifest import OCI_LAYER
from builder.plan import Distribution
from builder.wheels.archive import WheelArchive, open_wheel
from builder.wheels.bytecode import Compiler, Interpreter
from builder.wheels.environment import Environment
from builder.wheels.install import Installed, lay_out
from builder.wheels.transmux import Source, Spool, write_wheels

# Raised when the same wheels become other bytes than before.
FORMAT = 1
# Engines refuse images of more than 127 layers; a base may bring some, and an image be a base itself.
MOST_HEAVY_LAYERS = 60
DOWNLOADS_AT_ONCE = 8


@dataclass(frozen=True)
class Group:
    """Wheels that share a layer, and the line that names it in the image's history."""

    title: str
    wheels: tuple[Distribution, ...]
    environment: Environment


def group_wheels(
    heavy: Sequence[Distribution], light: Sequence[Distribution], environment: Environment
) -> list[Group]:
    """Which wheels share a layer: heavy ones each have their own, light ones share the last.

    Who pulls a new version unpacks again all that lies on the first changed layer. CUDA's wheels change less
    often than torch, which pins them, and torch less often than smaller wheels.
    """
    ordered = sorted(heavy, key=lambda wheel: (not _is_cuda(wheel), -(wheel.size or 0), wheel.name))
    alone, rest = ordered, list[Distribution]()
    if len(ordered) > MOST_HEAVY_LAYERS:
        smallest = sorted(ordered, key=lambda wheel: (wheel.size or 0, wheel.name))
        rest = smallest[: len(ordered) - MOST_HEAVY_LAYERS + 1]
        alone = [wheel for wheel in ordered if wheel not in rest]
    groups = [Group(f"{wheel.name} {wheel.version}", (wheel,), environment) for wheel in alone]
    shared = (("smaller heavy wheels", rest), ("light wheels", light))
    return groups + [Group(title, tuple(wheels), environment) for title, wheels in shared if wheels]


def layer_key(group: Group, compiler: str | None, epoch: int) -> str:
    """What decides a layer's bytes: all but where the wheels come from."""
    wheels = sorted([wheel.filename, wheel.sha256] for wheel in group.wheels)
    environment = [group.environment.prefix, group.environment.python]
    return cache_key("wheels", FORMAT, *environment, compiler, epoch, wheels)


class LayerMaker:
    """Makes the layers of groups: those that are not kept yet, several at once.

    Args:
        fetch: Where a wheel lies on this machine, brought there first.
        interpreter: Compiles the byte code; None leaves it out.
        say: Is told each layer that was made.
    """

    def __init__(
        self,
        cache: Cache,
        fetch: Callable[[Distribution], Path],
        interpreter: Interpreter | None,
        epoch: int,
        say: Callable[[str], None],
    ) -> None:
        self._cache = cache
        self._fetch = fetch
        self._interpreter = interpreter
        self._identity = interpreter.identity if interpreter else None
        self._epoch = epoch
        self._say = say

    def layers(self, groups: Sequence[Group]) -> list[Layer]:
        """The layers of some groups, in their order.

        Raises:
            WheelError: A wheel cannot be had or installed.
        """
        keys = [layer_key(group, self._identity, self._epoch) for group in groups]
        kept = [self._cache.recall(key) for key in keys]
        missing = [group for group, layer in zip(groups, kept, strict=True) if layer is None]
        made = dict(zip(map(id, missing), self._make_all(missing), strict=True)) if missing else {}
        return [layer or made[id(group)] for group, layer in zip(groups, kept, strict=True)]

    def _make_all(self, groups: Sequence[Group]) -> list[Layer]:
        with ExitStack() as stack:
            processes = os.cpu_count() or 1
            fetching = stack.enter_context(_pool(DOWNLOADS_AT_ONCE, "download"))
            compiling = stack.enter_context(_pool(processes, "compile"))
            making = stack.enter_context(_pool(processes, "layer"))
            wheels = {wheel.sha256: wheel for group in groups for wheel in group.wheels}
            ordered = sorted(wheels.values(), key=lambda wheel: -(wheel.size or 0))
            files = {wheel.sha256: fetching.submit(self._fetch, wheel) for wheel in ordered}
            work = _Work(self._cache, files, self._compiler(compiling), self._epoch)
            layers = [making.submit(self._make, work, group) for group in groups]
            try:
                return [layer.result() for layer in layers]
            except BaseException:
                for pool in (making, compiling, fetching):
                    pool.shutdown(wait=False, cancel_futures=True)
                raise

    def _compiler(self, pool: Executor) -> Callable[[str], Compiler] | None:
        interpreter = self._interpreter
        return (lambda python: Compiler(interpreter, python, pool)) if interpreter else None

    def _make(self, work: _Work, group: Group) -> Layer:
        key = layer_key(group, self._identity, self._epoch)
        layer = self._cache.layer(key, lambda: work.layer(group))
        self._say(f"layer {group.title} ({layer.size / 1e6:.1f} MB)")
        return layer


class _Work:
    """What one run of `LayerMaker` shares between its threads."""

    def __init__(
        self,
        cache: Cache,
        files: Mapping[str, Future[Path]],
        compiler: Callable[[str], Compiler] | None,
        epoch: int,
    ) -> None:
        self._cache = cache
        self._files = files
        self._compiler = compiler
        self._epoch = epoch

    def layer(self, group: Group) -> Layer:
        """Write the layer of a group."""
        with ExitStack() as stack:
            sources = [
                self._source(stack, wheel, group)
                for wheel in sorted(group.wheels, key=lambda wheel: wheel.name)
            ]
            return write_wheels(sources, self._cache.blobs, self._epoch)

    def _source(self, stack: ExitStack, wheel: Distribution, group: Group) -> Source:
        path = self._files[wheel.sha256].result()
        archive = stack.enter_context(open_wheel(path, wheel.filename))
        installed = lay_out(archive, group.environment)
        if not self._compiler:
            return Source(archive, installed)
        compiler = self._compiler(group.environment.python)
        made = (
            _compiled(archive, installed, compiler)
            if len(group.wheels) == 1
            else self._kept_bytecode(wheel, group, _compiled(archive, installed, compiler), compiler.identity)
        )
        return Source(archive, installed, Spool(stack.enter_context(self._cache.blobs.scratch()), made))

    def _kept_bytecode(
        self, wheel: Distribution, group: Group, made: Iterable[tuple[str, bytes]], identity: str
    ) -> Iterator[tuple[str, bytes]]:
        """The byte code of a wheel that shares its layer, kept since that is made anew with any of them."""
        environment = [group.environment.prefix, group.environment.python]
        key = cache_key("bytecode", FORMAT, *environment, identity, wheel.filename, wheel.sha256)
        layer = self._cache.layer(key, lambda: _keep(made, self._cache))
        with layer.open() as file, tarfile.open(fileobj=file, mode="r|") as kept:
            for member in kept:
                content = kept.extractfile(member)
                yield member.name, content.read() if content else b""


def _compiled(archive: WheelArchive, installed: Installed, compiler: Compiler) -> Iterator[tuple[str, bytes]]:
    sources = {
        path: member
        for path, member in installed.members.items()
        if path.endswith(".py") and "/site-packages/" in path
    }
    return compiler.compile(sources, lambda path: archive.read(sources[path]))


def _keep(files: Iterable[tuple[str, bytes]], cache: Cache) -> Layer:
    entries = [tar.file(path, content) for path, content in files]
    with cache.blobs.writer() as writer:
        for piece in tar.stream(sorted(entries, key=lambda entry: entry.path)):
            writer.write(piece)
    return kept_layer(cache.blobs, writer.digest, writer.digest, writer.size, writer.size, OCI_LAYER)


def _pool(workers: int, name: str) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(workers, name)


def _is_cuda(wheel: Distribution) -> bool:
    return wheel.name.startswith("nvidia-")

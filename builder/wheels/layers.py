"""The layers of an environment: which wheels share one, and each made once and kept."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from builder.oci.cache import Cache, cache_key
from builder.oci.image import Layer
from builder.plan import Distribution
from builder.wheels.bytecode import Interpreter
from builder.wheels.environment import Environment

# Raised when the same wheels become other bytes than before.
FORMAT = 4
# Engines refuse images of more than 127 layers; a base may bring some, and an image be a base itself.
MOST_HEAVY_LAYERS = 60


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


@dataclass(frozen=True)
class Settings:
    """What all layers of an image have in common.

    Attributes:
        interpreter: Compiles the byte code; None leaves it out.
        environ: Where index, CA and proxy settings come from.
        say: Is told what was brought and made.
        ready: Is given each layer that was made, as soon as it is there.
    """

    interpreter: Interpreter | None
    epoch: int
    environ: Mapping[str, str]
    say: Callable[[str], None]
    ready: Callable[[Sequence[Layer]], None] = lambda _: None

    def key(self, group: Group) -> str:
        """What decides a layer's bytes: all but where the wheels come from."""
        wheels = sorted([wheel.filename, wheel.sha256] for wheel in group.wheels)
        environment = [group.environment.prefix, group.environment.python]
        compiler = self.interpreter.identity if self.interpreter else None
        return cache_key("wheels", FORMAT, *environment, compiler, self.epoch, wheels)


def wheel_layers(groups: Sequence[Group], cache: Cache, settings: Settings) -> list[Layer]:
    """The layers of some groups, in their order: those that are not kept yet are made, several at once.

    Raises:
        WheelError: A wheel cannot be had or installed.
    """
    kept = {group: cache.recall(settings.key(group)) for group in groups}
    missing = [group for group, layer in kept.items() if layer is None]
    if missing:
        from builder.wheels.making import make_layers  # noqa: PLC0415  (what reads wheels takes its time)

        kept |= make_layers(missing, cache, settings)
    return [layer for group in groups if (layer := kept[group])]


def _is_cuda(wheel: Distribution) -> bool:
    return wheel.name.startswith("nvidia-")

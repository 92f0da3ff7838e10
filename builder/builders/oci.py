"""The oci builder: assembles the image itself, without an engine, and makes only the layers that changed."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from builder.bases import base_image
from builder.builders.contents import entrypoint_files, environments
from builder.code_layer import code_layer
from builder.errors import OnbuildError
from builder.oci import tar
from builder.oci.cache import Cache, cache_key
from builder.oci.image import Addendum, Changes, Image, Layer, append
from builder.oci.layer import write_layer
from builder.plan import (
    ENTRYPOINT,
    LABEL,
    TOOLS,
    USER,
    VENV,
    WORKDIR,
    BuildPlan,
    BuiltImage,
    Distribution,
)
from builder.sources import built_wheels
from builder.wheels.bytecode import Interpreter, compile_files, find_interpreter
from builder.wheels.environment import Environment
from builder.wheels.layers import Group, Settings, group_wheels, wheel_layers

Say = Callable[[str], None]
Ready = Callable[[Sequence[Layer]], None]


class OciBuilder:
    """Builds without an engine, but for the wheels of distributions that have none.

    Args:
        cache: Where wheels, layers and images are kept.
        environ: Where index, CA and proxy settings, and SOURCE_DATE_EPOCH, come from.
        say: Is told each line of progress.
        ready: Is given the base's layers, and those that take their time to make, as soon as they are there.
    """

    def __init__(
        self, cache: Cache, environ: Mapping[str, str], say: Say, ready: Ready = lambda _: None
    ) -> None:
        self._cache = cache
        self._environ = environ
        self._say = say
        self._ready = ready
        self._epoch = tar.source_epoch(environ)

    def build(self, plan: BuildPlan, folder: Path) -> BuiltImage:
        """Build the plan's image into the cache; see `builder.builders.Builder`.

        Raises:
            EngineError: A distribution has no wheel, and no engine can make it one.
            BuildError: Making one failed.
            OnbuildError: The base has steps to run.
            WheelError: A wheel cannot be had or installed.
            LayerError: A file of the project changed or vanished since the plan was made.
        """
        return built_image(plan, self.image(plan, folder))

    def image(self, plan: BuildPlan, folder: Path) -> Image:
        """The plan's image as a value, its layers in the cache; and the errors of `build`."""
        base = base_image(plan.base)
        if base.onbuild:
            raise OnbuildError(
                f"the base has ONBUILD steps, which only an engine can run: {'; '.join(base.onbuild)}",
                place=plan.base.origin or plan.base.reference,
                remedy="`trainpack build --builder docker`, without --output and for one platform; "
                "or make a base without ONBUILD",
            )
        self._ready(base.layers)
        built = built_wheels(plan, folder, self._cache, self._environ, self._say)
        interpreter = self._interpreter(plan)
        with ThreadPoolExecutor(1, "entrypoint") as pool:
            entrypoint = pool.submit(self._entrypoint, plan, interpreter)
            additions = [
                *self._wheels(plan, built, interpreter),
                entrypoint.result(),
                self._code(plan, folder),
            ]
        return append(base, additions, changes(plan), self._epoch)

    def _interpreter(self, plan: BuildPlan) -> Interpreter | None:
        if not plan.bytecode:
            return None
        found = find_interpreter(plan.python, plan.base.reference)
        if not found:
            self._say(
                "no byte code in the image, so that its imports are slower: "
                f"neither this machine nor an engine has a Python {plan.python} to compile it with"
            )
        return found

    def _wheels(
        self,
        plan: BuildPlan,
        built: Mapping[Distribution, Distribution],
        interpreter: Interpreter | None,
    ) -> list[Addendum]:
        heavy, light, tools = (
            tuple(built.get(each, each) for each in group) for group in (plan.heavy, plan.light, plan.tools)
        )
        venv = Environment(VENV, plan.python)
        groups = [
            *group_wheels(heavy, (), venv),
            # Below what changes more often: who pulls a new version unpacks again all above the change.
            Group("the entrypoint's wheels", tools, Environment(TOOLS, plan.python)),
            *group_wheels((), light, venv),
        ]
        settings = Settings(interpreter, self._epoch, self._environ, self._say, self._ready)
        layers = wheel_layers(groups, self._cache, settings)
        return [Addendum(layer, group.title) for layer, group in zip(layers, groups, strict=True)]

    def _entrypoint(self, plan: BuildPlan, interpreter: Interpreter | None) -> Addendum:
        venv, tools = (Environment(prefix, plan.python).site_packages for prefix in (VENV, TOOLS))
        paths = {
            f"{venv if name == 'trainpack.py' else tools}/{name}": path
            for name, path in entrypoint_files().items()
        }

        def entries() -> list[tar.Entry]:
            files = environments(plan) + [tar.file(place, path) for place, path in paths.items()]
            if not interpreter:
                return files
            made = compile_files(paths, lambda place: paths[place].read_bytes(), plan.python, interpreter)
            return files + [tar.file(each.path, each.content) for each in made]

        compiled = interpreter.identity if interpreter else None
        key = ["entrypoint", plan.entrypoint_hash, plan.python, plan.base.source, compiled]
        return self._layer("environments and entrypoint", key, entries)

    def _code(self, plan: BuildPlan, folder: Path) -> Addendum:
        code = [file.model_dump() for file in plan.code]
        layer = code_layer(code, plan.manifest, folder, self._cache, self._epoch)
        return Addendum(layer, "code and manifest")

    def _layer(self, title: str, key: Sequence[object], entries: Callable[[], list[tar.Entry]]) -> Addendum:
        blobs, epoch = self._cache.blobs, self._epoch
        layer = self._cache.layer(cache_key(*key, epoch), lambda: write_layer(entries(), blobs, epoch))
        return Addendum(layer, title)


def changes(plan: BuildPlan) -> Changes:
    """What the plan's image changes in the config of its base: what the Dockerfile says after its steps."""
    return Changes(
        env=plan.env,
        labels=plan.labels | {f"{LABEL}.plan": plan.hash},
        user=USER,
        workdir=WORKDIR,
        entrypoint=ENTRYPOINT,
    )


def built_image(plan: BuildPlan, image: Image) -> BuiltImage:
    """What was built, as the other stages know it."""
    return BuiltImage(
        reference=str(plan.reference),
        image_id=image.id,
        digest=image.digest,
        tag=plan.tag,
        size=sum(layer.unpacked or layer.size for layer in image.layers),
        layers=tuple(layer.diff_id for layer in image.layers),
    )

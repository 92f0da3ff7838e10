"""The measures: each takes its sides in turns, so that what else the machine does falls on all of them."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable, Collection, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, cast

from docker.errors import APIError, ImageNotFound

from builder.engine import client
from builder.oci.cache import Cache
from builder.oci.manifest import canonical_json
from builder.plan import VENV, BuildPlan
from builder.project import read_plan
from builder.wheels.download import Downloads
from builder.wheels.making import DOWNLOADS_AT_ONCE
from building.projects import Project
from building.services import Registry, paced_server
from building.sides import Side, Trainpack

# Side → what was measured (`seconds`, `sent`, …) → one value for each round.
Values = dict[str, dict[str, list[float]]]
DOWNLOAD = "download alone"
# Bytes in a second of a line of 100 Mbit/s.
LINE = 12.5e6
# They install every wheel anew when one of them is another.
SLOW = ("buildkit-pip", "legacy", "buildah")
# It gives the engine a whole image, whatever the engine has of it.
WHOLE = ("buildah",)


class _Forgetful(Protocol):
    def forget(self) -> None: ...


@dataclass(frozen=True)
class Bench:
    """What a measure works with.

    Attributes:
        sides: Those that were asked for; where they keep packages, these are there.
    """

    project: Project
    registry: Registry
    sides: Mapping[str, Side]

    def only(self, *names: str) -> dict[str, Side]:
        """Those of the sides that a measure is about."""
        return {name: side for name, side in self.sides.items() if name in names}


def seconds(step: Callable[[], object]) -> float:
    """How long a step takes."""
    start = time.perf_counter()
    step()
    return time.perf_counter() - start


def in_turns(
    rounds: int,
    sides: Iterable[str],
    measure: Callable[[str], Mapping[str, float]],
    once: Collection[str] = (),
) -> Values:
    """What is measured of each side in each round, a round being one of each.

    Args:
        once: The sides of which one round is enough, since it takes them so long.
    """
    names = list(sides)
    values: Values = {name: {} for name in names}
    for number in range(rounds):
        # Who comes first may find a warmer or a colder machine: each is first in its turn.
        turn = number % len(names)
        for name in [name for name in names[turn:] + names[:turn] if number == 0 or name not in once]:
            for what, value in measure(name).items():
                values[name].setdefault(what, []).append(value)
    return values


def cold(bench: Bench, rounds: int) -> Values:
    """Build without a layer and push into an empty registry; packages are there."""

    def measure(name: str) -> dict[str, float]:
        bench.sides[name].chill()
        bench.registry.wipe()
        return {"seconds": seconds(bench.sides[name].publish), "sent": bench.registry.size()}

    return in_turns(rounds, bench.sides, measure, SLOW)


def uncompiled(bench: Bench, rounds: int) -> Values:
    """The same where no wheel's byte code is kept yet."""

    def measure(name: str) -> dict[str, float]:
        cast("Trainpack", bench.sides[name]).chill(compiled=False)
        bench.registry.wipe()
        return {"seconds": seconds(bench.sides[name].publish)}

    return in_turns(rounds, bench.only("trainpack"), measure)


def fetch(bench: Bench, rounds: int) -> Values:
    """The same without a package, beside what it takes to download the script's wheels and no more."""
    return _without_packages(bench, rounds, bench.project.plan, "trainpack", "buildkit-uv")


def paced(bench: Bench, rounds: int) -> Values:
    """The same, with wheels from a server at the end of a line of 100 Mbit/s."""
    project = bench.project
    with tempfile.TemporaryDirectory(prefix="trainpack-benchmark-") as folder:
        # Those of the cache are forgotten on the way.
        files = {
            name: Path(shutil.copyfile(path, Path(folder, name)))
            for name, path in project.download(tools=True).items()
        }
        with paced_server(files, LINE) as address, project.served_from(address):
            return _without_packages(bench, rounds, read_plan(project.folder, os.environ), "trainpack")


def _without_packages(bench: Bench, rounds: int, plan: BuildPlan, *names: str) -> Values:
    sides = bench.only(*names)

    def measure(name: str) -> dict[str, float]:
        if name == DOWNLOAD:
            return {"seconds": _download(plan)}
        cast("_Forgetful", sides[name]).forget()
        bench.registry.wipe()
        return {"seconds": seconds(sides[name].publish)}

    return in_turns(rounds, [DOWNLOAD, *sides], measure)


def _download(plan: BuildPlan) -> float:
    wheels = sorted((*plan.heavy, *plan.light, *plan.tools), key=lambda wheel: -(wheel.size or 0))
    with tempfile.TemporaryDirectory(prefix="trainpack-benchmark-") as folder:
        downloads = Downloads(Cache(Path(folder)), os.environ)
        with ThreadPoolExecutor(DOWNLOADS_AT_ONCE) as pool:
            return seconds(lambda: list(pool.map(downloads.fetch, wheels)))


def noop(bench: Bench, rounds: int) -> Values:
    """Build again when nothing changed."""
    for side in bench.sides.values():
        side.build()
    return in_turns(rounds, bench.sides, lambda name: {"seconds": seconds(bench.sides[name].build)})


def noop_loaded(bench: Bench, rounds: int) -> Values:
    """The same, and the image is in the engine afterwards."""
    for side in bench.sides.values():
        side.load()
    return in_turns(rounds, bench.sides, lambda name: {"seconds": seconds(bench.sides[name].load)}, WHOLE)


def edit(bench: Bench, rounds: int) -> Values:
    """Change one line, build and push."""
    for side in bench.sides.values():
        side.publish()

    def measure(name: str) -> dict[str, float]:
        _edit(bench.sides[name])
        before = bench.registry.size()
        taken = seconds(bench.sides[name].publish)
        return {"seconds": taken, "sent": bench.registry.size() - before}

    return in_turns(rounds, bench.sides, measure)


def edit_loaded(bench: Bench, rounds: int) -> Values:
    """Change one line and build; the image is in the engine afterwards."""
    for side in bench.sides.values():
        side.load()

    def measure(name: str) -> dict[str, float]:
        _edit(bench.sides[name])
        return {"seconds": seconds(bench.sides[name].load)}

    return in_turns(rounds, bench.sides, measure, WHOLE)


def _edit(side: Side) -> None:
    """Edit as people do: a file is saved long before the process of a build has started."""
    side.edit()
    time.sleep(0.1)


def light(bench: Bench, rounds: int) -> Values:
    """Change one light dependency, build and push; an engine that has the old version pulls the new one."""
    # Of the torch lock, one that installs anew has to do.
    names = list(
        bench.sides
        if bench.project.lock == "small"
        else bench.only("trainpack", "buildkit-uv", "buildkit-pip")
    )
    for name in names:
        bench.sides[name].publish()

    def measure(name: str) -> dict[str, float]:
        side, project = bench.sides[name], bench.project
        old = _pulled(side) if name == "trainpack" else ""
        project.change_light()
        _offer_light(project)
        side.follow(project)
        before = bench.registry.size()
        taken = seconds(side.publish)
        found = {"seconds": taken, "sent": bench.registry.size() - before}
        found["wheel"] = project.light.stat().st_size
        return found | (_pull(bench.registry, old, side.reference) if old else {})

    return in_turns(rounds, names, measure, SLOW)


def _offer_light(project: Project) -> None:
    served = project.wheels.parent / "served" / project.light.name
    served.unlink(missing_ok=True)
    os.link(project.light, served)


def _pulled(side: Side) -> str:
    repository, _, tag = side.reference.rpartition(":")
    client().images.pull(repository, tag=tag)
    return side.reference


def _pull(registry: Registry, old: str, new: str) -> dict[str, float]:
    """Seconds of the pull, and of nothing but reading the bytes that it needs."""
    known, wanted = (
        {layer["digest"] for layer in registry.manifest(reference)["layers"]} for reference in (old, new)
    )
    changed = wanted - known
    bytes_alone = seconds(lambda: registry.fetch(new, changed))
    repository, _, tag = new.rpartition(":")
    taken = seconds(lambda: client().images.pull(repository, tag=tag))
    return {"pull": taken, "pull bytes alone": bytes_alone}


def size(bench: Bench, rounds: int) -> Values:
    """Megabytes as layers travel, and as the engine unpacks them."""
    del rounds

    def measure(name: str) -> dict[str, float]:
        side = bench.sides[name]
        side.load()
        image = client().images.get(side.reference)
        side.publish()
        layers = bench.registry.manifest(side.reference)["layers"]
        return {
            "compressed": sum(layer["size"] for layer in layers) / 1e6,
            "unpacked": image.attrs["Size"] / 1e6,
            "layers": len(layers),
        }

    return in_turns(1, bench.sides, measure)


# Runs in the container: the time of a whole Python that imports and ends.
_TIMER = """
import subprocess, sys, time
start = time.perf_counter()
subprocess.run([sys.executable, "-c", "import " + sys.argv[1]], check=True)
print(time.perf_counter() - start)
"""


def imports(bench: Bench, rounds: int) -> Values:
    """Import what the script imports, in a container of each image, in turns.

    The containers are read-only: byte code that an image lacks would else be there from the second round on.
    """
    sides = bench.only("trainpack", "buildkit-uv", "buildkit-pip")
    containers = {}
    try:
        for name, side in sides.items():
            side.load()
            containers[name] = client().containers.run(
                side.reference, entrypoint=["sleep", "3600"], detach=True, network_mode="none", read_only=True
            )
        command = [f"{VENV}/bin/python", "-c", _TIMER, bench.project.modules]

        def measure(name: str) -> dict[str, float]:
            code, output = containers[name].exec_run(command)
            assert isinstance(output, bytes)
            if code:
                raise RuntimeError(output.decode())
            return {"seconds": float(output)}

        in_turns(1, sides, measure)  # reads the files into the page cache
        return in_turns(rounds, sides, measure)
    finally:
        for container in containers.values():
            with suppress(APIError, ImageNotFound):
                container.remove(force=True)


def profile(bench: Bench, rounds: int) -> Values:
    """Where trainpack's time goes, stage by stage, beside the floors: what no builder can go below."""
    sides = bench.only("trainpack")
    for side in sides.values():
        side.publish()
        _edit(side)
        side.publish()
    program = str(Path(__file__).with_name("stages.py"))

    def measure(name: str) -> dict[str, float]:
        _edit(bench.sides[name])
        command = [sys.executable, program, str(bench.project.folder)]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        stages: dict[str, float] = json.loads(done.stdout)
        python = seconds(lambda: subprocess.run([sys.executable, "-c", "pass"], check=True))
        return {"Python starts and ends": python, **stages}

    return in_turns(rounds, sides, measure)


def parts(bench: Bench, rounds: int) -> Values:
    """The bytes that an edit sends, and what is left of them without all that OCI does not ask for."""
    del rounds

    def measure(name: str) -> dict[str, float]:
        side, registry = bench.sides[name], bench.registry
        side.publish()
        manifest = registry.manifest(side.reference)
        config = json.loads(registry.blob(side.reference, manifest["config"]["digest"]))
        needed = {key: config[key] for key in ("architecture", "os", "rootfs")}
        documents = _written(manifest) + _written(needed)
        code = manifest["layers"][-1]["size"]
        return {
            f"manifest, of {len(manifest['layers'])} layers": _written(manifest),
            "config": _written(config),
            **{f"config: its {key}": _written(config[key]) for key in ("rootfs", "history", "config")},
            "layer of code and manifest": code,
            "without history, labels, variables": documents + code,
        }

    return in_turns(1, bench.only("trainpack"), measure)


def _written(document: object) -> int:
    return len(canonical_json(document))


def floors(bench: Bench, rounds: int) -> Values:
    """What a cold build cannot go below: to copy and hash the wheels, to compile them, to push the layers."""
    sides = bench.only("trainpack")
    for side in sides.values():
        side.publish()
    wheels = list(bench.project.download().values())

    def measure(name: str) -> dict[str, float]:
        bench.registry.wipe()
        return {
            "copy and hash the script's wheels": seconds(lambda: _copy(wheels)),
            "compile their byte code, every core": _compile(wheels),
            "build nothing, push everything": seconds(sides[name].publish),
        }

    return in_turns(rounds, sides, measure)


def _copy(wheels: Iterable[Path]) -> None:
    for wheel in wheels:
        digest = hashlib.sha256()
        with wheel.open("rb") as source, tempfile.TemporaryFile() as target:
            while chunk := source.read(1 << 20):
                digest.update(chunk)
                target.write(chunk)


def _compile(wheels: Iterable[Path]) -> float:
    with tempfile.TemporaryDirectory(prefix="trainpack-benchmark-") as folder:
        for wheel in wheels:
            with zipfile.ZipFile(wheel) as archive:
                archive.extractall(folder, [name for name in archive.namelist() if name.endswith(".py")])
        command = [sys.executable, "-m", "compileall", "-qq", "-j0", folder]
        return seconds(lambda: subprocess.run(command, check=False))  # 1 where a file is no Python of today


MEASURES: dict[str, Callable[[Bench, int], Values]] = {
    "cold": cold,
    "uncompiled": uncompiled,
    "fetch": fetch,
    "paced": paced,
    "noop": noop,
    "noop-loaded": noop_loaded,
    "edit": edit,
    "edit-loaded": edit_loaded,
    "light": light,
    "size": size,
    "imports": imports,
    "profile": profile,
    "parts": parts,
    "floors": floors,
}
# Those of byte code alone.
WITH_BYTECODE = ("uncompiled",)

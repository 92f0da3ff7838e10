"""The build of one source distribution: its own backend, in a container of the base."""

from __future__ import annotations

import gzip
import io
import json
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import IO, cast

from builder.bases import load_base
from builder.builders.contents import python_home
from builder.engine import FULL_REMEDY, client, is_full
from builder.engine.containers import engine_errors
from builder.errors import BuildError, EngineError, EngineUnavailableError, WheelError
from builder.oci import tar
from builder.oci.image import Layer
from builder.oci.streams import CHUNK
from builder.plan import WORKDIR, BuildPlan, Distribution
from builder.sources.container import Ended, docker_command, run_confined
from builder.sources.required import required_layer
from builder.sources.sdist import BuildSystem, checked_requirements
from builder.sources.workshop import FRONT_END, Workshop

_HERE = WORKDIR.strip("/")
_LONGEST_ANSWER = 1 << 20
_NOT_STARTED = (125, 126, 127)  # https://docs.docker.com/engine/containers/run/#exit-status
_OTHERWISE = "pin a version that has a wheel, or put a wheel of it into a find-links folder"


def prepare_engine(source: Distribution, plan: BuildPlan) -> None:
    """Have the base of a plan in an engine of its platform.

    Raises:
        EngineUnavailableError: No engine answers.
        EngineError: It has another platform, or failed.
    """
    missing = f"has no wheel for Python {plan.python} on {plan.platform}"
    try:
        with engine_errors(plan.base.reference):
            version = client().version()
        docker_command()
    except EngineUnavailableError as error:
        raise EngineUnavailableError(
            f"{missing}, and without a container engine none can be made: {error.message}",
            place=f"{source.name} {source.version}",
            remedy=f"have an engine (`trainpack doctor` checks it), {_OTHERWISE}",
        ) from None
    platform = f"{version.get('Os')}/{version.get('Arch')}"
    if platform != plan.platform:
        raise EngineError(
            f"{missing}, and the engine's platform is {platform}: it can make none",
            place=f"{source.name} {source.version}",
            remedy=f"have an engine on {plan.platform} (DOCKER_HOST, or a docker context), {_OTHERWISE}",
        )
    load_base(plan.base)


def make_wheel(
    source: Distribution, path: Path, system: BuildSystem, workshop: Workshop, made: IO[bytes]
) -> None:
    """Build a source distribution, and write its wheel as the backend made it.

    Args:
        path: Where its bytes are.

    Raises:
        BuildError: The build failed.
        LockError: What it requires cannot be resolved.
        WheelError: It requires what no package index has.
        EngineError: The container could not be run.
    """
    job = _Job(source, path, system, workshop)
    missing = job.attempt(system.requires, made)
    if missing:
        every = (*system.requires, *checked_requirements(missing, source.filename))
        missing = job.attempt(every, made)
    if missing:
        raise WheelError(
            f"its build requires something else each time it is asked: {', '.join(missing)}",
            place=source.filename,
            remedy=_OTHERWISE,
        )


@dataclass(frozen=True)
class _Job:
    source: Distribution
    path: Path
    system: BuildSystem
    workshop: Workshop

    def attempt(self, requires: Sequence[str], made: IO[bytes]) -> Sequence[str]:
        """Build with these requirements, or learn which are missing."""
        plan = self.workshop.plan
        missing: list[str] = []

        def receive(output: IO[bytes]) -> None:
            answer = io.BufferedReader(cast("io.RawIOBase", output))
            missing.extend(_missing(answer.readline(_LONGEST_ANSWER)))
            shutil.copyfileobj(answer, made, CHUNK)

        ended = run_confined(
            plan.base.reference,
            [self.workshop.environment.interpreter, "-P", f"{WORKDIR}/front_end.py"],
            self._input(requires),
            receive,
            title=f"{self.source.name} {self.source.version}",
            environment=self._variables(),
        )
        if ended.code != 0:
            raise _failure(self.source, ended)
        return missing

    def _input(self, requires: Sequence[str]) -> Iterator[bytes]:
        job = {
            "source": self.source.filename,
            "backend": self.system.backend,
            "path": self.system.path,
            "requires": requires,
        }
        entries = [
            *self.workshop.environment.skeleton(python_home(self.workshop.plan.base)),
            tar.file(f"{_HERE}/{self.source.filename}", self.path),
            tar.file(f"{_HERE}/front_end.py", FRONT_END),
            tar.file(f"{_HERE}/job.json", json.dumps(job).encode()),
        ]
        layer = required_layer(requires, self.source, self.workshop)
        return chain(_members(layer), tar.stream(tar.arrange(entries)))

    def _variables(self) -> dict[str, str]:
        """Nothing of this machine's; what build systems take times and orders from."""
        return {
            "HOME": f"{WORKDIR}/home",
            "TMPDIR": WORKDIR,
            "PATH": f"{self.workshop.environment.prefix}/bin:/usr/local/bin:/usr/bin:/bin",
            "PYTHONHASHSEED": "0",
            "SOURCE_DATE_EPOCH": str(tar.source_epoch(self.workshop.environ)),
        }


def _members(layer: Layer) -> Iterator[bytes]:
    """A layer's tar without its end, so that another can follow."""
    with layer.open() as blob:
        with gzip.GzipFile(fileobj=blob) as unpacked:
            left = (layer.unpacked or 0) - len(tar.END)
            while left and (chunk := unpacked.read(min(left, CHUNK))):
                left -= len(chunk)
                yield chunk
        while blob.read(CHUNK):
            pass  # only at its end is a blob known to be the one of its digest


def _missing(answer: bytes) -> list[str]:
    """What the front end says is missing; nothing where it said nothing, which its exit code explains."""
    try:
        missing = json.loads(answer)["missing"]
    except (ValueError, LookupError, TypeError):
        return []
    return [str(each) for each in missing]


def _failure(source: Distribution, ended: Ended) -> EngineError:
    full = FULL_REMEDY if any(is_full(line) for line in ended.tail) else None
    if ended.code in _NOT_STARTED:
        return EngineError(
            "the engine did not run the container of its build",
            place=source.filename,
            details=ended.tail,
            remedy=full or "`trainpack doctor` checks the engine",
        )
    return BuildError(
        f"it has no wheel for the image, and its build ended with {ended.code}",
        place=source.filename,
        details=ended.tail,
        remedy=full
        or f"{_OTHERWISE}; what the build needs of the system, [image] system-packages can name: a compiler "
        'is "gcc", "libc6-dev", "python3-dev"',
    )

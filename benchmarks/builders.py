"""The oci builder beside BuildKit with uv, the guide's Dockerfile, the legacy builder and buildah.

Run: .venv/bin/python benchmarks/builders.py [--locks small] [--measures noop edit] [--sides …] [--rounds 3]
     .venv/bin/python benchmarks/builders.py --write        also takes the figures into docs/speed.md
     .venv/bin/python benchmarks/builders.py --write --missing      goes on where it was interrupted
Needs an engine and docker-registry. All of it takes long; a part takes minutes, and --write keeps the rest.
Ends with 1 when a target is not met, or something could not be measured.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

from building import memory
from building.measures import MEASURES, WITH_BYTECODE, Bench, Values
from building.projects import Project, offer, torch_wheel
from building.report import Results, Run, page, read_results, tables, this_machine, verdicts
from building.services import Registry, clean_engine, registry, wheel_server
from building.sides import SIDES, Buildah, Side, make_pip_base

from builder.bases import ensure_base, load_base
from builder.host.tools import CACHE, cache_folder

ROOT = Path(__file__).parents[1]
KEPT = ROOT / "benchmarks" / "builders.json"
PAGE = ROOT / "docs" / "speed.md"
# What takes long is measured less often.
ROUNDS = {"cold": 3, "fetch": 2, "paced": 2, "light": 3, "imports": 5} | dict.fromkeys(
    ("size", "parts", "uncompiled", "floors"), 1
)
OFTEN = 7
LARGE = {"torch": {"cold": 2, "fetch": 1, "paced": 1, "light": 2, "imports": 3}}
# The others measure the same as pip in a longer time, so they have to do it once only.
WITHOUT_BYTECODE = ("trainpack", "buildkit-uv", "buildkit-pip")
BYTECODE = {"both": (True, False), "with": (True,), "without": (False,)}


def main() -> int:
    """Measure, print, judge."""
    options = _options()
    # Ended from outside, it leaves as little behind as at its end.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    # Whoever installs trainpack has its byte code, made by the installer or by the first run.
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    results = read_results(KEPT) if options.write else Results()
    if options.measures:
        results.machine = this_machine()
    complete = False
    try:
        complete = _measure(options, results)
    except KeyboardInterrupt:
        _tell("interrupted; --missing goes on from here" if options.write else "interrupted")
    finally:
        if options.write:
            PAGE.write_text(page(results), encoding="utf-8")
        print(results.json() if options.json else tables(results), end="", flush=True)
    return 0 if complete and all(met for *_, met in verdicts(results)) else 1


def _measure(options: argparse.Namespace, results: Results) -> bool:
    """Take in every run that was asked for; whether all of them came to their ends."""
    complete, began = True, time.monotonic()
    with (
        tempfile.TemporaryDirectory(prefix="trainpack-benchmark-", ignore_cleanup_errors=True) as folder,
        closing(_jobs(options, results, Path(folder))) as jobs,
    ):
        for job in jobs:
            try:
                run = job.run()
            except KeyboardInterrupt:
                _tell(f"{job.title}: interrupted; what it leaves is removed, which takes a while")
                return False
            except Exception:  # what fails leaves the rest worth measuring
                traceback.print_exc()
                _tell(f"{job.title}: failed")
                complete = False
                continue
            results.add(run)
            _tell(f"{job.title}: done after {time.monotonic() - began:.0f} s in all, load {run.load[1]:.1f}")
            if options.write:
                KEPT.write_text(results.json(), encoding="utf-8")
                PAGE.write_text(page(results), encoding="utf-8")
    return complete


@dataclass(frozen=True)
class _Job:
    """A measure of one lock, still to be taken."""

    measure: str
    lock: str
    bytecode: bool
    rounds: int
    take: Callable[[], Values]

    @property
    def title(self) -> str:
        return f"{self.measure}, {self.lock} lock, bytecode {self.bytecode}"

    def run(self) -> Run:
        load, began = os.getloadavg()[0], time.monotonic()
        values = self.take()
        loads, seconds = (load, os.getloadavg()[0]), time.monotonic() - began
        return Run(self.measure, self.lock, self.bytecode, self.rounds, loads, values, seconds)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    measures = [*MEASURES, "memory"]
    parser.add_argument("--locks", nargs="+", choices=("small", "torch"), default=["small", "torch"])
    parser.add_argument("--sides", nargs="+", choices=SIDES, default=list(SIDES))
    parser.add_argument("--measures", nargs="*", choices=measures, default=measures)
    parser.add_argument(
        "--bytecode", choices=BYTECODE, default="both", help="images with it, without, or both"
    )
    parser.add_argument("--rounds", type=int, help="how often each is measured, in place of its own number")
    parser.add_argument(
        "--write", action="store_true", help=f"into {KEPT.name} and {PAGE.name}, beside the rest"
    )
    parser.add_argument("--missing", action="store_true", help=f"only what {KEPT.name} lacks")
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    return parser.parse_args()


def _jobs(options: argparse.Namespace, results: Results, scratch: Path) -> Generator[_Job]:
    """Everything that was asked for, one after the other, each while what it works with is there."""
    wheels = scratch / "wheels"
    wheels.mkdir()
    offer(wheels, os.environ)
    _own_cache(scratch / "cache")
    with registry(scratch / "registry") as own, _cleaned(own):
        for lock in options.locks:
            if lock == "torch" and not torch_wheel():
                _tell("no find-links folder has a CPU build of torch: the torch lock is left out")
                continue
            for bytecode in BYTECODE[options.bytecode]:
                measures = [name for name in MEASURES if _is_wanted(options, results, name, lock, bytecode)]
                if measures:
                    place = scratch / f"{lock}-{bytecode}"
                    project = Project(
                        place / "project", lock, f"{own.address}/bench/{lock}", bytecode, wheels
                    )
                    sides = [side for side in options.sides if bytecode or side in WITHOUT_BYTECODE]
                    with _bench(project, place, own, sides) as bench:
                        yield from (_job(name, bench, options.rounds) for name in measures)
        if _is_wanted(options, results, "memory", "5 GB", True):
            own.wipe()
            name = f"{own.address}/bench/large"
            yield _Job("memory", "5 GB", True, 1, lambda: memory.measure(scratch / "large", name, wheels))


def _is_wanted(
    options: argparse.Namespace, results: Results, measure: str, lock: str, bytecode: bool
) -> bool:
    known = options.missing and results.find(measure, lock, bytecode)
    return measure in options.measures and not known and (bytecode or measure not in WITH_BYTECODE)


def _job(measure: str, bench: Bench, asked: int | None) -> _Job:
    lock = bench.project.lock
    rounds = asked or LARGE.get(lock, {}).get(measure) or ROUNDS.get(measure, OFTEN)
    return _Job(measure, lock, bench.project.bytecode, rounds, lambda: MEASURES[measure](bench, rounds))


def _own_cache(folder: Path) -> None:
    """A trainpack cache that holds the base and nothing else."""
    ensure_base("cpu", "3.11", "linux/amd64", say=_tell)
    kept = cache_folder() / "bases"
    folder.mkdir()
    (folder / "bases").symlink_to(kept)
    os.environ[CACHE] = str(folder)


@contextmanager
def _cleaned(own: Registry) -> Iterator[None]:
    try:
        yield
    finally:
        clean_engine(f"{own.address}/")


@contextmanager
def _bench(project: Project, place: Path, own: Registry, names: Iterable[str]) -> Iterator[Bench]:
    """The sides; where packages are kept, they are there."""
    with ExitStack() as stack:
        project.make()
        served = project.wheels.parent / "served"
        address = stack.enter_context(wheel_server(served))
        _serve(project, served)
        load_base(project.plan.base)
        base = make_pip_base(project, place, address)
        sides: dict[str, Side] = {name: SIDES[name](project, place, base) for name in names}
        for side in sides.values():
            if isinstance(side, Buildah):
                stack.callback(side.close)
            if side.keeps_packages:
                _tell(f"{side.name} brings the packages of the {project.lock} lock")
                side.publish()
        yield Bench(project, own, sides)


def _serve(project: Project, served: Path) -> None:
    for name, path in project.download().items():
        (served / name).unlink(missing_ok=True)
        os.link(path, served / name)


def _tell(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())

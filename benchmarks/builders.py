"""The oci builder beside BuildKit with uv, the guide's Dockerfile, the legacy builder and buildah.

Run: .venv/bin/python benchmarks/builders.py [--locks small] [--measures noop edit] [--sides …] [--rounds 3]
     .venv/bin/python benchmarks/builders.py --write        also takes the figures into docs/speed.md
Needs an engine and docker-registry. All of it takes long; a part takes minutes, and --write keeps the rest.
Ends with 1 when a target is not met.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from building import memory
from building.measures import MEASURES, Bench
from building.projects import Project, offer, torch_wheel
from building.report import Results, Run, page, read_results, tables, this_machine, verdicts
from building.services import Registry, clean_engine, registry, wheel_server
from building.sides import SIDES, Buildah, Side, make_pip_base

from builder.bases import ensure_base, load_base
from builder.tools import CACHE, cache_folder

ROOT = Path(__file__).parents[1]
KEPT = ROOT / "benchmarks" / "builders.json"
PAGE = ROOT / "docs" / "speed.md"
# What takes long is measured less often.
ROUNDS = {"cold": 3, "fetch": 3, "light": 5, "imports": 7, "size": 1, "floors": 3}
OFTEN = 11
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
    with tempfile.TemporaryDirectory(prefix="trainpack-benchmark-", ignore_cleanup_errors=True) as folder:
        for run in _runs(options, Path(folder)):
            results.add(run)
            _tell(f"{run.measure}, {run.lock} lock, bytecode {run.bytecode}: done, load {run.load[1]:.1f}")
            if options.write:
                KEPT.write_text(results.json(), encoding="utf-8")
                PAGE.write_text(page(results), encoding="utf-8")
    if options.write:
        PAGE.write_text(page(results), encoding="utf-8")
    print(results.json() if options.json else tables(results), end="")
    return 0 if all(met for *_, met in verdicts(results)) else 1


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
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    return parser.parse_args()


def _runs(options: argparse.Namespace, scratch: Path) -> Iterator[Run]:
    """Every run that was asked for, one after the other."""
    wheels = scratch / "wheels"
    wheels.mkdir()
    offer(wheels, os.environ)
    _own_cache(scratch / "cache")
    asked = [measure for measure in options.measures if measure != "memory"]
    with registry(scratch / "registry") as own, _cleaned(own):
        for lock in options.locks if asked else ():
            if lock == "torch" and not torch_wheel():
                _tell("no find-links folder has a CPU build of torch: the torch lock is left out")
                continue
            for bytecode in BYTECODE[options.bytecode]:
                place = scratch / f"{lock}-{bytecode}"
                project = Project(place / "project", lock, f"{own.address}/bench/{lock}", bytecode, wheels)
                with _bench(project, place, own, options.sides) as bench:
                    yield from (_run(measure, bench, options.rounds) for measure in asked)
        if "memory" in options.measures:
            own.wipe()
            load = os.getloadavg()[0]
            values = memory.measure(scratch / "large", f"{own.address}/bench/large", wheels)
            yield Run("memory", "5 GB", True, 1, (load, os.getloadavg()[0]), values)


def _run(measure: str, bench: Bench, asked: int | None) -> Run:
    rounds, load = asked or ROUNDS.get(measure, OFTEN), os.getloadavg()[0]
    values = MEASURES[measure](bench, rounds)
    project = bench.project
    return Run(measure, project.lock, project.bytecode, rounds, (load, os.getloadavg()[0]), values)


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

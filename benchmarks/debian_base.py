"""A base from Debian's packages: seconds and size, beside mmdebstrap where that is installed, in one run.

Run: .venv/bin/python benchmarks/debian_base.py [--rounds 3] [--python 3.11] [--json]
Cold: nothing kept. Packages kept: layers made anew from fetched packages. Warm: the mirror is asked whether
anything is new. mmdebstrap installs the same packages, without byte code, and fetches them each time.
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import shutil
import statistics
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from builder import bases
from builder.host import apt, tools
from builder.plan import Base

Rows = dict[str, dict[str, float]]
PLATFORM = "linux/amd64"


def seconds(step: Callable[[], object]) -> float:
    """How long a step takes."""
    start = time.perf_counter()
    step()
    return time.perf_counter() - start


def measure(python: str, rounds: int, scratch: Path) -> Rows:
    """Median seconds of each state of the cache, and the base's size in MB."""
    times: dict[str, list[float]] = {"cold": [], "packages kept": [], "warm": []}
    for number in range(rounds):
        cache = scratch / str(number)
        os.environ[tools.CACHE] = str(cache)
        command = [str(Path(sys.executable).with_name("trainpack")), "base", "build", "cpu"]
        command += ["--python", python, "--source", "debian"]

        def build(command: list[str] = command) -> None:
            subprocess.run(command, check=True, capture_output=True)

        times["cold"].append(seconds(build))
        shutil.rmtree(cache / "oci" / "keys")
        times["packages kept"].append(seconds(build))
        times["warm"].append(seconds(build))
    base = bases.resolve_base("cpu", python, PLATFORM)
    return {name: {"seconds": statistics.median(taken), **size(base)} for name, taken in times.items()}


def size(base: Base) -> dict[str, float]:
    """Megabytes of a base's files, and of its layers as they travel."""
    layers = bases.base_image(base).layers
    unpacked = 0
    for layer in layers:
        with layer.open() as file, tarfile.open(fileobj=file, mode="r|gz") as tar:
            unpacked += sum(member.size for member in tar)
    return {"unpacked": unpacked / 1e6, "compressed": sum(layer.size for layer in layers) / 1e6}


def measure_mmdebstrap(python: str, scratch: Path) -> dict[str, float]:
    """One run of mmdebstrap for the same Python."""
    recipe = bases.find_recipe("cpu", python, PLATFORM)
    suite = str(recipe.origin.suite)
    sources, target = scratch / "sources.list", scratch / "rootfs.tar"
    sources.write_text(apt.sources_text(os.environ, suite), encoding="utf-8")
    wanted = ",".join((*recipe.packages, *recipe.origin.packages))
    options = [f"--dpkgopt=path-exclude=/usr/share/{name}/*" for name in ("man", "info", "locale", "doc")]
    command = [
        "mmdebstrap",
        "--variant=minbase",
        f"--include={wanted}",
        *options,
        suite,
        str(target),
        str(sources),
    ]
    taken = seconds(lambda: subprocess.run(command, check=True, capture_output=True))
    with tarfile.open(target) as tar:
        unpacked = sum(member.size for member in tar)
    with target.open("rb") as file, gzip.open(scratch / "rootfs.tar.gz", "wb", 6) as packed:
        shutil.copyfileobj(file, packed, 1 << 20)
    compressed = (scratch / "rootfs.tar.gz").stat().st_size
    return {"seconds": taken, "unpacked": unpacked / 1e6, "compressed": compressed / 1e6}


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=3, help="how often the base is built")
    parser.add_argument("--python", default="3.11", help="the Python of the base")
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="trainpack-benchmark-") as folder:
        rows = measure(options.python, options.rounds, Path(folder))
        if shutil.which("mmdebstrap"):
            rows["mmdebstrap"] = measure_mmdebstrap(options.python, Path(folder))
    if options.json:
        print(json.dumps(rows, indent=2))
        return 0
    print(f"{'base':<16}{'s':>8}{'MB unpacked':>14}{'MB compressed':>16}")
    for name, row in rows.items():
        print(f"{name:<16}{row['seconds']:>8.1f}{row['unpacked']:>14.0f}{row['compressed']:>16.1f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())

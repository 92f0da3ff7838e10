"""How long `trainpack --help` takes, beside Python's own start, in one run.

Run: .venv/bin/python benchmarks/help_latency.py [--rounds 21] [--json]
Ends with 1 when the median is over the target.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from pathlib import Path

TARGET_MS = 150.0


def measure(command: list[str]) -> float:
    """Milliseconds from start to end of one process."""
    start = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return (time.perf_counter() - start) * 1000


def compare(commands: dict[str, list[str]], rounds: int) -> dict[str, list[float]]:
    """Times of each command, taken in turns, so that what else the machine does falls on all of them."""
    times: dict[str, list[float]] = {name: [] for name in commands}
    for command in commands.values():
        measure(command)
    for _ in range(rounds):
        for name, command in commands.items():
            times[name].append(measure(command))
    return times


def summarise(times: dict[str, list[float]]) -> dict[str, dict[str, float]]:
    """Median and extremes of each, in milliseconds."""
    return {
        name: {"median": statistics.median(taken), "min": min(taken), "max": max(taken)}
        for name, taken in times.items()
    }


def main() -> int:
    """Measure, print, judge."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=21, help="how often each is run")
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    options = parser.parse_args()
    trainpack = str(Path(sys.executable).parent / "trainpack")
    commands = {
        "python -c pass": [sys.executable, "-c", "pass"],
        "trainpack --help": [trainpack, "--help"],
        "trainpack init --help": [trainpack, "init", "--help"],
    }
    summary = summarise(compare(commands, options.rounds))
    if options.json:
        print(
            json.dumps({"rounds": options.rounds, "target_ms": TARGET_MS, "milliseconds": summary}, indent=2)
        )
    else:
        print(f"{'milliseconds, ' + str(options.rounds) + ' rounds':<26}{'median':>8}{'min':>8}{'max':>8}")
        for name, row in summary.items():
            print(f"{name:<26}{row['median']:>8.0f}{row['min']:>8.0f}{row['max']:>8.0f}")
    return 0 if summary["trainpack --help"]["median"] < TARGET_MS else 1


if __name__ == "__main__":
    sys.exit(main())

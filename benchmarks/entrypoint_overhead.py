"""What the entrypoint adds to `python train.py`, measured in turns in one container of a built image.

Run: .venv/bin/python benchmarks/entrypoint_overhead.py [--rounds 21] [--json]
Needs an engine. Ends with 1 when the medians differ by more than the target.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from builder.engine import client
from builder.plan import ENTRYPOINT, VENV

TARGET_MS = 60.0
SCRIPT = "import argparse\nparser = argparse.ArgumentParser()\nparser.add_argument('--epochs', type=int)\n"
SCRIPT += "parser.parse_args()\n"
SPEC = '[image]\nname = "registry.example.com/benchmarks/entrypoint"\n[run]\nscript = "train.py"\n'
SPEC += "[parameters]\nepochs = 3\n"
# Runs in the container: both commands in turns, so that what else the machine does falls on both.
MEASURE = """
import json, subprocess, sys, time
rounds, commands = json.loads(sys.argv[1])
times = {name: [] for name in commands}
for number in range(rounds + 1):
    for name, command in commands.items():
        start = time.perf_counter()
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        if number:
            times[name].append((time.perf_counter() - start) * 1000)
print(json.dumps(times))
"""


def build() -> str:
    """Build the image of a script that does nothing; its image id."""
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "train.py").write_text(SCRIPT, encoding="utf-8")
        (Path(folder) / "trainpack.toml").write_text(SPEC, encoding="utf-8")
        command = [str(Path(sys.executable).with_name("trainpack")), "build", "--json"]
        done = subprocess.run(command, cwd=folder, stdout=subprocess.PIPE, text=True, check=True)
        return str(json.loads(done.stdout)["image_id"])


def measure(image: str, rounds: int) -> dict[str, list[float]]:
    """Milliseconds of each round, by what ran."""
    commands = {
        "python train.py": [f"{VENV}/bin/python", "/opt/app/train.py", "--epochs", "3"],
        "entrypoint": list(ENTRYPOINT),
    }
    printed = client().containers.run(
        image,
        [json.dumps([rounds, commands])],
        entrypoint=[f"{VENV}/bin/python", "-c", MEASURE],
        remove=True,
    )
    times: dict[str, list[float]] = json.loads(printed)
    return times


def main() -> int:
    """Build, measure, print, judge."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=21, help="how often each is run")
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    options = parser.parse_args()
    times = measure(build(), options.rounds)
    medians = {name: statistics.median(taken) for name, taken in times.items()}
    added = medians["entrypoint"] - medians["python train.py"]
    if options.json:
        print(
            json.dumps(
                {"rounds": options.rounds, "target_ms": TARGET_MS, "median_ms": medians, "added_ms": added}
            )
        )
    else:
        print(f"{'milliseconds, ' + str(options.rounds) + ' rounds':<26}{'median':>8}{'min':>8}{'max':>8}")
        for name, taken in times.items():
            print(f"{name:<26}{medians[name]:>8.0f}{min(taken):>8.0f}{max(taken):>8.0f}")
        print(f"{'added by the entrypoint':<26}{added:>8.0f}")
    return 0 if added < TARGET_MS else 1


if __name__ == "__main__":
    sys.exit(main())

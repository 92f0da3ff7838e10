"""What reporting the log of a fast script costs in a container: time, and the entrypoint's memory.

Run: .venv/bin/python benchmarks/platform_log.py [--lines 200000] [--json]
Needs an engine; a stand-in on the loopback plays the platform. Ends with 1 when a line is lost, or when the
entrypoint takes more memory than the target.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from builder.engine import client
from builder.plan import ENTRYPOINT, VENV

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from picsellia_standin import Standin

TARGET_MB = 100.0
SCRIPT = """\
import os, sys, time
started = time.perf_counter()
for number in range(int(sys.argv[1])):
    print("step", number, "loss", number / 7, "accuracy", 0.98765)
with open(os.environ["TRAINPACK_OUTPUTS"] + "/took", "w") as file:
    file.write(str(time.perf_counter() - started))
"""
SPEC = '[image]\nname = "registry.example.com/benchmarks/log"\n[run]\nscript = "train.py"\n'
# Starts the entrypoint in the container and looks at its memory until it has ended.
WATCH = """
import json, os, sys, time
process = os.posix_spawn(sys.argv[1], sys.argv[1:], os.environ)
peak = 0
while os.waitpid(process, os.WNOHANG)[0] == 0:
    with open(f"/proc/{process}/status") as file:
        peak = max([peak, *(int(line.split()[1]) for line in file if line.startswith("VmHWM"))])
    time.sleep(0.005)
result = json.load(open("/workspace/result.json"))
took = float(open("/workspace/outputs/took").read())
print(json.dumps({"code": result["exit_code"], "script": took, "run": result["seconds"], "mb": peak / 1000}))
"""


def build() -> str:
    """Build the image of a script that prints; its image id."""
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "train.py").write_text(SCRIPT, encoding="utf-8")
        (Path(folder) / "trainpack.toml").write_text(SPEC, encoding="utf-8")
        command = [str(Path(sys.executable).with_name("trainpack")), "build", "--json"]
        done = subprocess.run(command, cwd=folder, stdout=subprocess.PIPE, text=True, check=True)
        return str(json.loads(done.stdout)["image_id"])


def run(image: str, lines: int, environment: dict[str, str]) -> dict[str, Any]:
    """One run: exit code, seconds of the script and of all, the entrypoint's peak memory."""
    command = [f"{VENV}/bin/python", "-c", WATCH, *ENTRYPOINT[3:], str(lines)]
    printed = client().containers.run(
        image, command[1:], entrypoint=command[:1], environment=environment, network_mode="host", remove=True
    )
    measured: dict[str, Any] = json.loads(printed.splitlines()[-1])
    return measured


def measure(image: str, lines: int) -> dict[str, dict[str, Any]]:
    """A run of each kind, by its name."""
    found = {"no platform": run(image, lines, {}) | {"requests": 0, "missing": 0}}
    for name in ("experiment", "experiment and job"):
        with Standin() as platform:
            experiment = platform.experiments[platform.add_experiment("project", "benchmark")]
            environment = {"api_token": platform.token, "host": platform.url, "experiment_id": experiment.id}
            if name.endswith("job"):
                environment["job_id"] = platform.add_job()
            found[name] = run(image, lines, environment)
            found[name]["requests"] = len(platform.requests)
            found[name]["missing"] = lines - sum(line.startswith("step ") for line in experiment.shown)
    return found


def main() -> int:
    """Build, measure, print, judge."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--lines", type=int, default=200_000, help="how many the script prints")
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    options = parser.parse_args()
    found = measure(build(), options.lines)
    if options.json:
        print(json.dumps({"lines": options.lines, "target_mb": TARGET_MB, "runs": found}))
    else:
        columns = f"{'script':>9}{'run':>9}{'memory':>10}{'requests':>10}{'missing':>9}"
        print(f"{f'{options.lines:,} lines':<20}{columns}")
        for name, row in found.items():
            times = f"{row['script']:>7.2f} s{row['run']:>7.2f} s{row['mb']:>7.0f} MB"
            print(f"{name:<20}{times}{row['requests']:>10}{row['missing']:>9}")
    is_good = all(row["code"] == row["missing"] == 0 and row["mb"] < TARGET_MB for row in found.values())
    return 0 if is_good else 1


if __name__ == "__main__":
    sys.exit(main())

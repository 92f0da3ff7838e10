"""How long `trainpack models list` takes over a store of many versions, beside Python's own start.

Run: .venv/bin/python benchmarks/models_list.py [--versions 10000] [--rounds 11] [--json]
Ends with 1 when the median is over the target.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from pathlib import Path

from help_latency import compare, summarise

from builder.models.local.database import FOLDER_VARIABLE
from builder.models.local.store import LocalStore
from builder.models.names import VersionName
from builder.models.records import DockerImage, VersionFields

TARGET_MS = 200.0
PER_MODEL = 100
LABELS = 80  # as many as COCO has


def fill(folder: Path, versions: int) -> None:
    """Make a store of versions as `attach` leaves them."""
    with LocalStore(folder) as store, store.database.transaction():
        for number in range(versions):
            name = VersionName(model=f"team/model-{number // PER_MODEL}", version=f"v{number % PER_MODEL}")
            store.versions.insert(name, _fields(number), source=None)


def _fields(number: int) -> VersionFields:
    return VersionFields(
        description=f"the model of week {number}",
        framework="PYTORCH",
        type="OBJECT_DETECTION",
        labelmap={str(index): f"label {index}" for index in range(LABELS)},
        parameters={"epochs": 10, "learning_rate": 0.001, "batch_size": 8},
        image=DockerImage(
            name="registry.example.com/vision/pedestrian",
            tag=f"1.2.{number}-0123456789ab",
            digest=f"sha256:{number:064x}",
            flags=("--gpus=all", "--ipc=host"),
            env={"architecture": "resnet18"},
        ),
    )


def main() -> int:
    """Measure, print, judge."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--versions", type=int, default=10_000, help="how many the store holds")
    parser.add_argument("--rounds", type=int, default=11, help="how often each is run")
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    options = parser.parse_args()
    trainpack = str(Path(sys.executable).parent / "trainpack")
    commands = {
        "python -c pass": [sys.executable, "-c", "pass"],
        "trainpack models --help": [trainpack, "models", "--help"],
        "trainpack models list": [trainpack, "models", "list"],
        "trainpack models list --json": [trainpack, "models", "list", "--json"],
    }
    with tempfile.TemporaryDirectory() as folder:
        os.environ[FOLDER_VARIABLE] = folder
        fill(Path(folder), options.versions)
        summary = summarise(compare(commands, options.rounds))
    if options.json:
        document = {"versions": options.versions, "rounds": options.rounds, "target_ms": TARGET_MS}
        print(json.dumps({**document, "milliseconds": summary}, indent=2))
    else:
        title = f"{options.versions} versions, ms, {options.rounds} rounds"
        print(f"{title:<40}{'median':>8}{'min':>8}{'max':>8}")
        for name, row in summary.items():
            print(f"{name:<40}{row['median']:>8.0f}{row['min']:>8.0f}{row['max']:>8.0f}")
    return 0 if summary["trainpack models list"]["median"] < TARGET_MS else 1


if __name__ == "__main__":
    sys.exit(main())

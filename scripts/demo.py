"""The main job, shown: a training script becomes a tested image on a ModelVersion of the local store.

Every step is a `trainpack` command, printed before it runs. Works in `.demo/`; can be run again.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
DEMO = ROOT / ".demo"
REGISTRY = os.environ.get("TRAINPACK_DEMO_REGISTRY", "127.0.0.1:5000")
# The same files give the same commit, and so the same image, however often the demo is run.
GIT = {
    "GIT_AUTHOR_NAME": "demo",
    "GIT_AUTHOR_EMAIL": "demo@example.com",
    "GIT_AUTHOR_DATE": "2026-01-01T00:00:00Z",
    "GIT_COMMITTER_NAME": "demo",
    "GIT_COMMITTER_EMAIL": "demo@example.com",
    "GIT_COMMITTER_DATE": "2026-01-01T00:00:00Z",
}
# Another trainpack may make another image of the same plan, and a tag in the registry never moves.
SOURCES = sorted((ROOT / "builder").rglob("*.py"))
MAKER = hashlib.sha256(b"".join(path.read_bytes() for path in SOURCES) + sys.version.encode()).hexdigest()
REPOSITORY = f"{REGISTRY}/demo-{MAKER[:8]}"
ENVIRONMENT = {**os.environ, **GIT, "TRAINPACK_STORE": str(DEMO / "store")}


@dataclass(frozen=True)
class Demo:
    """One way to start: a project folder, its ModelVersion, and what the run is given."""

    folder: Path
    version: str
    parameters: tuple[str, ...]
    labelmap: dict[str, str]


def main() -> None:
    """Run the demo that the command line names."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("start", choices=["scaffold", "wrap"])
    start = {"scaffold": from_scaffold, "wrap": from_script}[parser.parse_args().start]
    DEMO.mkdir(exist_ok=True)
    demo = start()
    commit(demo.folder)
    summarise(demo, chain(demo))


def from_scaffold() -> Demo:
    """A new repo from the scikit-learn scaffold."""
    folder = empty("wine")
    settings = ["project_name=Wine", f"image_name={REPOSITORY}/wine", "model_version=wine/v1"]
    options = [word for setting in settings for word in ("-v", setting)]
    trainpack(DEMO, "init", "sklearn-tabular", "--no-input", *options)
    labelmap = {"0": "nebbiolo", "1": "grignolino", "2": "barbera"}
    return Demo(folder, "local:wine/v1", ("max_iter=40", "learning_rate=0.2"), labelmap)


def from_script() -> Demo:
    """An existing script, copied and wrapped as it is."""
    folder = empty("digits")
    shutil.copytree(ROOT / "examples" / "digits", folder)
    trainpack(folder, "wrap", "train.py", "--name", f"{REPOSITORY}/digits")
    labelmap = {str(digit): name for digit, name in enumerate("zero one two three four five six".split())}
    return Demo(folder, "local:digits/v1", ("epochs=5",), labelmap)


def chain(demo: Demo) -> dict[str, Any]:
    """Build, test, run, push, attach, trace both ways; what each command said, by its name."""
    folder = demo.folder
    labels = DEMO / f"{folder.name}-labels.json"
    labels.write_text(json.dumps(demo.labelmap), encoding="utf-8")
    parameters = [word for parameter in demo.parameters for word in ("-p", parameter)]
    said = {"build": trainpack(folder, "build", "--json")}
    said["test"] = trainpack(folder, "test", "--json")
    said["run"] = trainpack(folder, "run", *parameters, "--labelmap", str(labels), "--json")
    said["push"] = trainpack(folder, "push", "--json")
    trainpack(folder, "attach", demo.version, "--create", "--dry-run")
    said["attach"] = trainpack(folder, "attach", demo.version, "--create", "--json")
    trainpack(folder, "trace", demo.version)
    trainpack(folder, "trace", said["build"]["reference"])
    said["version"] = trainpack(folder, "models", "show", demo.version, "--json")
    return said


def summarise(demo: Demo, said: dict[str, Any]) -> None:
    """Print what came of it, from what the commands answered and the container left."""
    ran = said["run"]["result"]
    checks = [result["status"] for result in said["test"]["results"]]
    rows = {
        "image": said["build"]["reference"],
        "digest": said["push"]["digest"],
        "size": f"{said['build']['size'] / 1e6:.0f} MB in {len(said['build']['layers'])} layers",
        "tag": said["build"]["tag"],
        "flags": " ".join(said["attach"]["image"]["flags"]) or "none",
        "version": demo.version,
        "checks": f"{checks.count('passed')} passed, {checks.count('failed')} failed",
        "parameters": ", ".join(
            f"{name}={entry['value']} ({entry['source']})" for name, entry in ran["parameters"].items()
        ),
        "labels": f"{', '.join(ran['labelmap'].values())} ({ran['labelmap_source']})",
        "metrics": ", ".join(f"{name}={value:.4g}" for name, value in ran["metrics"].items())
        or "none logged",
        "files": ", ".join(f"{entry['path']} ({entry['size']:,} bytes)" for entry in ran["outputs"]),
        "outputs in": str(demo.folder / said["run"]["output"]),
    }
    width = max(map(len, rows))
    print("\n== summary ==")
    for name, value in rows.items():
        print(f"{name:<{width}}  {value}")


def empty(name: str) -> Path:
    """A folder of the demo's own, without what an earlier demo left there."""
    folder = DEMO / name
    shutil.rmtree(folder, ignore_errors=True)
    return folder


def commit(folder: Path) -> None:
    """Make the project a git repo, as a team's would be, so that the image can be traced to a commit."""
    for arguments in (["init", "--quiet"], ["add", "--all"], ["commit", "--quiet", "--message", "Training"]):
        subprocess.run(["git", *arguments], cwd=folder, env=ENVIRONMENT, check=True)


def trainpack(folder: Path, *arguments: str) -> Any:
    """Run one command, shown as it is typed; its JSON answer, when it was asked for one."""
    print(f"\n$ trainpack {' '.join(arguments)}", flush=True)
    as_json = "--json" in arguments
    command = [str(Path(sys.executable).with_name("trainpack")), *arguments]
    done = subprocess.run(
        command,
        cwd=folder,
        env=ENVIRONMENT,
        stdout=subprocess.PIPE if as_json else None,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        sys.exit(f"`trainpack {' '.join(arguments)}` ended with {done.returncode}: {done.stdout or ''}")
    return json.loads(done.stdout) if as_json else None


if __name__ == "__main__":
    main()

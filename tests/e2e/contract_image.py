"""A small image that keeps the contract, made by hand: no wheels, no builder, a few seconds."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
import trainpack_entrypoint
from trainpack_entrypoint.manifest import Manifest, Run
from trainpack_entrypoint.schema import Parameter

from builder.engine import buildkit_cli, client
from builder.plan import CONTRACT, ENTRYPOINT, LABEL

NAME = "registry.example.com/trainpack/contract"

# It does what the words after its parameters say, so that one image serves many tests.
SCRIPT = """
import argparse, json, os, signal, sys, time
from pathlib import Path

parser = argparse.ArgumentParser()
parser.add_argument("--epochs", type=int, default=2)
parser.add_argument("--learning-rate", type=float, default=0.1)
parser.add_argument("--amp", action="store_true")
parser.add_argument("--exit", type=int, default=0)
parser.add_argument("--print-bytes", action="store_true")
parser.add_argument("--show-data")
parser.add_argument("--show-files", action="store_true")
parser.add_argument("--variable")
parser.add_argument("--wait", action="store_true")
parser.add_argument("--stubborn", action="store_true")
parser.add_argument("--link-outside", action="store_true")
options = parser.parse_args()

def stop(number, frame):
    Path("saved.txt").write_text("saved on signal")
    print("saved", flush=True)
    sys.exit(0)

signal.signal(signal.SIGTERM, signal.SIG_IGN if options.stubborn else stop)
print("first line", flush=True)
print("an error line", file=sys.stderr, flush=True)
if options.print_bytes:
    sys.stdout.buffer.write(bytes(range(256)) + b"\\n")
    sys.stdout.flush()
if options.show_data:
    folder = Path(os.environ["TRAINPACK_INPUTS"], "datasets", options.show_data)
    print("data", sorted(str(path.relative_to(folder)) for path in folder.rglob("*")))
    print("text", (folder / "a.txt").read_text())
    print("writable", os.access(folder, os.W_OK) or os.access(folder / "a.txt", os.W_OK))
if options.show_files:
    folder = Path(os.environ["TRAINPACK_INPUTS"], "files")
    paths = [Path(top, name) for top, _, names in os.walk(folder, followlinks=True) for name in names]
    print("files", sorted((str(path.relative_to(folder)), path.read_text()) for path in paths))
    print("writable", any(os.access(path, os.W_OK) for path in paths))
if options.variable:
    print("variable", len(os.environ[options.variable]))
if options.link_outside:
    os.symlink("/etc/passwd", "outside")
    os.symlink("weights.json", "latest")
Path("weights.json").write_text(json.dumps(vars(options)))
outputs = Path(os.environ["TRAINPACK_OUTPUTS"])
(outputs / "metrics.jsonl").write_text(json.dumps({"step": 1, "name": "accuracy", "value": 0.5}) + "\\n")
if options.wait:
    print("waiting", flush=True)
    while True:
        time.sleep(60)
print("last line", end="", flush=True)
sys.exit(options.exit)
"""

MANIFEST = Manifest(
    name=NAME,
    version="1.0.0",
    run=Run(script="train.py", args=()),
    trainpack="0.1.0",
    python="3.11",
    lock="a" * 64,
    revision="b" * 40,
    parameters={
        "epochs": Parameter("epochs", type="int", default=2, ge=1),
        "learning_rate": Parameter(
            "learning_rate", type="float", default=0.1, gt=0, le=1, argument="--learning-rate"
        ),
        "amp": Parameter("amp", type="bool", default=False),
    },
    labelmap={"0": "car", "1": "person"},
)

LABELS = {
    "org.opencontainers.image.title": "contract",
    "org.opencontainers.image.version": MANIFEST.version,
    "org.opencontainers.image.revision": str(MANIFEST.revision),
    "org.opencontainers.image.base.name": "trainpack-base",
    f"{LABEL}.contract": CONTRACT,
    f"{LABEL}.version": MANIFEST.trainpack,
    f"{LABEL}.lock": MANIFEST.lock,
    f"{LABEL}.plan": "c" * 64,
    f"{LABEL}.base": "cpu",
}

DOCKERFILE = """\
FROM {base}
USER root
RUN python3 -m venv --without-pip /opt/trainpack && python3 -m venv --without-pip /opt/venv
COPY entrypoint /opt/trainpack/lib/python3.11/site-packages/trainpack_entrypoint
ENV PATH=/opt/venv/bin:$PATH
LABEL {labels}
COPY app /opt/app
COPY image.json /opt/trainpack/image.json
USER 1000:1000
ENTRYPOINT {entrypoint}
"""


@pytest.fixture(scope="session")
def contract_image(base_image: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The reference of an image that keeps the whole contract."""
    # Under a name of its own: tests of another process must not lose theirs when this one is removed.
    tag = f"{NAME}-{os.urandom(4).hex()}:1.0.0-{'c' * 12}"
    context = tmp_path_factory.mktemp("contract-image")
    lay_out(context, base_image)
    build(context, tag)
    yield tag
    client().images.remove(tag, force=True)


@pytest.fixture
def changed_image(contract_image: str, tmp_path: Path) -> Iterator[Callable[[Sequence[str]], str]]:
    """Makes an image that differs from the contract image by a few Dockerfile lines."""
    made: list[str] = []

    def change(lines: Sequence[str]) -> str:
        context = tmp_path / f"image-{len(made)}"
        context.mkdir()
        (context / "Dockerfile").write_text("\n".join([f"FROM {contract_image}", *lines]) + "\n")
        made.append(f"{NAME}-changed:{os.urandom(4).hex()}")
        build(context, made[-1])
        return made[-1]

    yield change
    for tag in made:
        client().images.remove(tag, force=True)


def lay_out(context: Path, base: str) -> None:
    """Write the build context of the contract image."""
    package = Path(trainpack_entrypoint.__file__).parent
    shutil.copytree(package, context / "entrypoint", ignore=shutil.ignore_patterns("__pycache__"))
    (context / "app").mkdir()
    (context / "app" / "train.py").write_text(SCRIPT)
    (context / "image.json").write_text(json.dumps(MANIFEST.to_json()))
    labels = " ".join(f'"{name}"="{value}"' for name, value in LABELS.items())
    dockerfile = DOCKERFILE.format(base=base, labels=labels, entrypoint=json.dumps(ENTRYPOINT))
    (context / "Dockerfile").write_text(dockerfile)


def build(context: Path, tag: str) -> None:
    """Build a context with the engine's BuildKit."""
    command = [buildkit_cli(), "build", "--quiet", "--tag", tag, str(context)]
    done = subprocess.run(
        command, env={**os.environ, "DOCKER_BUILDKIT": "1"}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr

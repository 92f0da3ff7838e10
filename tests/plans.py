"""Plans for tests: a spec's text and fixed inputs, so that what is rendered from them can be golden."""

from __future__ import annotations

from builder.plan import Base, BuildPlan, CodeFile, Distribution, Inputs, make_plan
from builder.spec import parse_spec

SPEC = """
[image]
name = "registry.example.com/vision/pedestrian"
version = "1.2.0"

[run]
script = "train.py"
args = ["--data-dir", "data"]
flags = ["--gpus all", "--ipc=host"]
env = { architecture = "resnet18" }

[data]
train = "data/train"

[model]
version = "pedestrian/v3"
framework = "PYTORCH"

[parameters]
epochs = 10
learning_rate = { default = 0.001, gt = 0, help = "initial learning rate" }

[labelmap]
0 = "car"
1 = "person"
"""


def distribution(
    name: str, version: str, size: int, where: str = "https://index.example.com"
) -> Distribution:
    filename = f"{name.replace('-', '_')}-{version}-py3-none-any.whl"
    return Distribution(
        name=name,
        version=version,
        filename=filename,
        url=f"{where}/{filename}",
        size=size,
        sha256=f"{size:064x}",
    )


def inputs(*, cuda: bool = False) -> Inputs:
    heavy = [distribution("nvidia-cublas", "13.0.0", 400_000_000)] if cuda else []
    return Inputs(
        base=Base(
            name="cuda" if cuda else "cpu",
            python="3.11",
            platform="linux/amd64",
            reference=f"trainpack-base:{'cuda' if cuda else 'cpu'}-py3.11-0123456789ab",
            image_id=f"sha256:{'b' * 64}",
            content="a" * 64,
            source="debian",
        ),
        packages=(
            *heavy,
            distribution("numpy", "2.4.6", 4_700_000),
            distribution("scipy", "1.17.1", 35_000_000),
        ),
        tools=(distribution("picsellia", "6.37.0", 400_000),),
        lock_hash="c" * 64,
        cuda="13.0" if cuda else None,
        driver="580.65.06" if cuda else None,
        entrypoint_hash="e" * 64,
        code=(CodeFile(path="train.py", mode=0o644, size=120, sha256="d" * 64),),
        revision="f" * 40,
        options={"epochs": ("--epochs", None)},
    )


def plan(text: str = SPEC, *, cuda: bool = False) -> BuildPlan:
    return make_plan(parse_spec(text), inputs(cuda=cuda))

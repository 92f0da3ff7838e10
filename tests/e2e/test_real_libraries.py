"""Libraries that want a home, a user name, a cache or shared memory work under a uid that nobody knows."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from commands import Ended, succeed, trainpack
from machine import cpu_wheels_of_torch

from builder.engine import client

pytestmark = [pytest.mark.engine, pytest.mark.slow]

SCRIPTS = Path(__file__).parents[1] / "scripts"
CONFINED = ["--user=42420:42420", "--read-only", "--cap-drop=ALL", "--shm-size=64m"]


@contextmanager
def project(folder: Path, script: str, requirements: str, base: object) -> Iterator[Path]:
    shutil.copy(SCRIPTS / script, folder / "train.py")
    (folder / "requirements.txt").write_text(requirements)
    name = f"registry.example.com/libraries/{Path(script).stem.replace('_', '-')}"
    (folder / "trainpack.toml").write_text(
        f'[image]\nname = "{name}"\ntorch = "cpu"\n[run]\nscript = "train.py"\nflags = {CONFINED}\n'
    )
    built = succeed(folder, "build", "--json").json
    yield folder
    client().images.remove(built["reference"], force=True)


def run(folder: Path) -> Ended:
    ended = trainpack(folder, "run", "--network", "none", "--output", "output")
    assert ended.code == 0, ended.output
    return ended


def test_plots_datasets_and_worker_processes_work_for_a_nameless_user(tmp_path: Path, base: object) -> None:
    wanted = "matplotlib\nnumpy\njoblib\ndatasets\n"
    with project(tmp_path, "train_libraries.py", wanted, base) as folder:
        printed = run(folder).stdout
        assert "user trainer home /workspace/home temporary /workspace/tmp" in printed
        assert "in /workspace/home/" in printed
        assert "dataset [2, 4, 6] in ('/', 'workspace', 'home'" in printed
        assert "parallel [0, 1, 4, 9, 16, 25, 36, 49]" in printed
        assert (folder / "output" / "outputs" / "curve.png").read_bytes().startswith(b"\x89PNG")


def test_torch_finds_a_place_to_compile_for_a_nameless_user(tmp_path: Path, base: object) -> None:
    if not cpu_wheels_of_torch():
        pytest.skip("no configured find-links folder has a CPU wheel of torch for the image")
    with project(tmp_path, "train_inductor.py", "torch\nnumpy\n", base) as folder:
        printed = run(folder).stdout
        assert "user trainer inductor /workspace/tmp/torchinductor_trainer True" in printed
        assert (folder / "output" / "outputs" / "model.pt").is_file()

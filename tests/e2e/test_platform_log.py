"""A real image's log and outputs on the platform when memory or disk is short."""

from __future__ import annotations

import json
from collections.abc import Iterator

import docker
import pytest
from commands import succeed
from picsellia_standin import Experiment, Standin
from platform_runs import environment, finals

pytestmark = pytest.mark.engine

SCRIPT = """
import os, pathlib
if os.environ["WHAT"] == "print":
    for number in range(200_000):
        print("step", number, "loss", number / 7)
elif os.environ["WHAT"] == "fill":
    print("before", flush=True)
    filler = pathlib.Path("/workspace/filler")
    try:
        with filler.open("wb") as file:
            while True:
                file.write(bytes(1 << 16))
                file.flush()
    except OSError as error:
        print(error.strerror, flush=True)
    for number in range(100_000):
        print("step", number, flush=number % 100 == 0)
    filler.unlink()
    print("after")
else:
    folder = pathlib.Path("runs/deep/deeper")
    folder.mkdir(parents=True)
    (folder / "model.bin").write_bytes(bytes(5 << 20))
    pathlib.Path("metrics.json").write_text("{}")
"""
SPEC = '[image]\nname = "registry.example.com/platform/log"\n[run]\nscript = "train.py"\n'


@pytest.fixture(scope="module")
def image(base_image: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The id of the script's image."""
    folder = tmp_path_factory.mktemp("log")
    (folder / "train.py").write_text(SCRIPT, encoding="utf-8")
    (folder / "trainpack.toml").write_text(SPEC, encoding="utf-8")
    return str(succeed(folder, "build", "--json").json["image_id"])


@pytest.fixture
def platform() -> Iterator[Standin]:
    with Standin() as running:
        yield running


@pytest.fixture
def experiment(platform: Standin) -> Experiment:
    return platform.experiments[platform.add_experiment("project", "first")]


def run(image: str, platform: Standin, experiment: Experiment, what: str, workspace: str) -> tuple[int, str]:
    """The exit code and everything that was printed; root read-only, and a uid that nobody has."""
    container = docker.from_env().containers.run(
        image,
        environment=environment(platform, experiment.id, WHAT=what),
        network_mode="host",
        user="12345:12345",
        read_only=True,
        tmpfs={"/workspace": f"mode=1777,size={workspace}"},
        mem_limit="160m",
        memswap_limit="160m",
        detach=True,
    )
    try:
        return container.wait(timeout=120)["StatusCode"], container.logs().decode()
    finally:
        container.remove(force=True)


def steps(lines: list[str]) -> list[str]:
    return [line.rstrip("\n") for line in lines if line.startswith("step ")]


def test_every_line_of_a_fast_script_arrives_from_a_container_with_little_memory(
    image: str, platform: Standin, experiment: Experiment
) -> None:
    # The log and its copy for the end lie in this memory too: a workspace on a disk costs none.
    code, printed = run(image, platform, experiment, "print", "64m")
    assert code == 0, printed[-2000:]
    assert steps(experiment.shown) == steps(printed.splitlines())
    assert len(steps(experiment.shown)) == 200_000
    assert experiment.logging_file is not None
    logs = json.loads(platform.objects[experiment.logging_file])["--#--Training"]["logs"]
    assert len(steps(list(logs.values()))) == 200_000


def test_a_disk_that_is_full_costs_lines_of_the_log_and_not_the_training(
    image: str, platform: Standin, experiment: Experiment
) -> None:
    code, printed = run(image, platform, experiment, "fill", "8m")
    assert code == 0, printed[-2000:]
    assert len(steps(printed.splitlines())) == 100_000
    assert "No space left on device\n" in printed
    assert finals(experiment) == ["SUCCESS"]
    gaps = [line for line in experiment.shown if "lines are missing here" in line]
    missing = sum(int(line.split()[1]) for line in gaps)
    assert gaps
    assert len(steps(experiment.shown)) + missing >= 100_000
    assert f"{missing} lines of the log did not reach" in printed
    assert "before\n" in experiment.shown
    assert "after\n" in experiment.shown


def test_a_folder_without_room_for_its_archive_ends_with_74_and_the_rest_is_stored(
    image: str, platform: Standin, experiment: Experiment
) -> None:
    code, printed = run(image, platform, experiment, "save", "8m")
    assert code == 74
    assert "output runs: it cannot be packed below /workspace/tmp: No space left on device" in printed
    assert set(experiment.artifacts) == {"metrics.json"}
    assert finals(experiment) == ["FAILED"]

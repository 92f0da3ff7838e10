"""Files and datasets of an experiment, downloaded in a real container by the real SDK from the stand-in."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import docker
import pytest
from commands import succeed, trainpack
from picsellia_standin import Standin

from builder.engine.containers import create_volume, remove_volume
from builder.workdir import last_build

pytestmark = pytest.mark.engine

SCRIPT = """
import hashlib, json
from pathlib import Path

import trainpack

folder = Path("data/train")
coco = json.loads((folder / "annotations.json").read_text())
print(json.dumps({
    "weights": hashlib.sha256(trainpack.file("weights.pt").read_bytes()).hexdigest(),
    "images": {path.name: path.read_text() for path in sorted((folder / "images").iterdir())},
    "categories": [each["name"] for each in coco["categories"]],
    "same": sorted(path.name for path in trainpack.dataset("train").iterdir()),
}))
Path("model.bin").write_bytes(b"trained")
"""
WEIGHTS = os.urandom(3 << 20)


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory, base_image: str) -> Iterator[Path]:
    """A script that reads a dataset and weights, built."""
    folder = tmp_path_factory.mktemp("inputs") / "project"
    folder.mkdir()
    (folder / "train.py").write_text(SCRIPT, encoding="utf-8")
    (folder / "requirements.txt").touch()
    succeed(folder, "wrap", "train.py", "--name", "registry.example.com/trainpack-tests/inputs")
    with (folder / "trainpack.toml").open("a", encoding="utf-8") as spec:
        spec.write('\n[data]\ntrain = "data/train"\n')
    succeed(folder, "build")
    yield folder
    docker.from_env().images.remove(last_build(folder).image_id, force=True)


@pytest.fixture
def platform() -> Iterator[Standin]:
    with Standin() as running:
        running.checksums = {"x-goog-hash"}
        running.add_model_version("pedestrian", "v1", files={"weights.pt": WEIGHTS}, labels={"0": "car"})
        box = {"rectangles": [{"label": "car", "x": 1, "y": 2, "w": 3, "h": 4}]}
        assets = [{"filename": f"{n}.png", "content": f"image {n}", "shapes": box} for n in range(3)]
        running.add_dataset("roads", labels=["car"], assets=assets)
        yield running


def environment(platform: Standin) -> dict[str, str]:
    experiment = platform.add_experiment(
        "project", "first", base_version="pedestrian/v1", datasets={"train": "roads/v1"}
    )
    return {
        "api_token": platform.token,
        "host": platform.url,
        "organization_id": platform.organization_id,
        "experiment_id": experiment,
    }


def test_a_script_reads_the_files_and_the_dataset_of_its_experiment(
    project: Path, platform: Standin, tmp_path: Path
) -> None:
    env = environment(platform)
    passed = [word for name in env for word in ("--env", name)]
    mine = tmp_path / "config.yaml"
    mine.write_text("a: 1")
    ended = trainpack(project, "run", "--network", "host", "--file", str(mine), *passed, env=env)
    assert ended.code == 0, ended.output
    saw = json.loads(ended.stdout)
    assert saw["images"] == {"0.png": "image 0", "1.png": "image 1", "2.png": "image 2"}
    assert saw["categories"] == ["car"]
    assert saw["same"] == ["annotations.json", "images"]
    assert "inputs: 4 files to download, 3.1 MB" in ended.stderr
    experiment = platform.experiments[env["experiment_id"]]
    assert experiment.status == "SUCCESS"
    assert sorted(experiment.artifacts) == ["model.bin", "weights.pt"], "an input is no output"
    assert platform.token not in ended.output
    assert "signature" not in ended.output


def test_a_container_that_is_started_again_goes_on_with_its_downloads(
    project: Path, platform: Standin
) -> None:
    image = last_build(project).image_id
    volume = create_volume("restarted")
    container = docker.from_env().containers.create(
        image,
        environment=environment(platform) | {"TRAINPACK_CONNECT_TIMEOUT": "1"},
        network_mode="host",
        user="12345",
        read_only=True,
        cap_drop=["ALL"],
        volumes={volume: {"bind": "/workspace"}},
    )
    try:
        platform.fail("GET", "weights.pt$", cut_after=1 << 20, times=2)
        platform.fail("GET", "weights.pt$", status=503, times=None, after=True)
        container.start()
        assert container.wait()["StatusCode"] == 69, container.logs().decode()
        platform.faults.clear()
        platform.requests.clear()
        container.start()
        assert container.wait()["StatusCode"] == 0, container.logs().decode()
    finally:
        container.remove(force=True)
        remove_volume(volume)
    (served,) = [
        r.sent for r in platform.requests if r.path.endswith("weights.pt") and r.status == 206 and r.sent > 1
    ]
    assert served == len(WEIGHTS) - (1 << 20)

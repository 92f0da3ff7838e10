"""`trainpack run --experiment`: exactly the experiment's image, parameters, files and data; reported back."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from registries import registry

from builder.engine import client
from builder.models.local.store import LocalStore
from builder.models.names import DatasetName, ExperimentName, VersionName
from builder.models.records import DatasetFields, DockerImage, ExperimentFields, VersionFields

pytest_plugins = ["contract_image"]
pytestmark = pytest.mark.engine

VERSION = VersionName(model="pedestrian", version="v3")
NAME = ExperimentName(project="night", experiment="run 1")
DATA = DatasetName(dataset="street", version="v1")
DECLARE = """RUN python3 -c "import json; path='/opt/trainpack/image.json'; image=json.load(open(path)); \
image['data']={'train': 'data/train'}; json.dump(image, open(path, 'w'))" """
SCRIPT = r"""
import json, os
from pathlib import Path
inputs = Path(os.environ['TRAINPACK_INPUTS'])
walked = [Path(folder, name) for folder, _, names in os.walk(inputs, followlinks=True) for name in names]
found = {str(path.relative_to(inputs)): path.read_text() for path in walked}
outputs = Path(os.environ['TRAINPACK_OUTPUTS'])
(outputs / 'seen.json').write_text(json.dumps({'found': found, 'data': sorted(os.listdir('data/train'))}))
(outputs / 'deep').mkdir()
(outputs / 'deep' / 'model.pt').write_text('trained')
lines = [{'step': n, 'name': 'loss', 'value': v} for n, v in enumerate([2.0, 1.0])]
(outputs / 'metrics.jsonl').write_text(''.join(json.dumps(line) + '\n' for line in lines))
"""


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    return LocalStore(tmp_path / "store")


@pytest.fixture
def image(changed_image: Callable[[Path], str], tmp_path: Path) -> str:
    """The contract image with a script that tells what it sees, and a dataset that it declares."""
    added = tmp_path / "added"
    added.mkdir()
    (added / "train.py").write_text(SCRIPT)
    (added / "Dockerfile").write_text(
        f"USER root\n{DECLARE}\nCOPY train.py /opt/app/train.py\nUSER 1000:1000\n"
    )
    return changed_image(added)


def docker_image(reference: str, digest: str | None = None) -> DockerImage:
    name, _, tag = reference.rpartition(":")
    found = digest or str(client().images.get(reference).id)
    return DockerImage(name=name, tag=tag, digest=found, flags=("--ipc=host",), env={"MODE": "x"})


def make(store: LocalStore, tmp_path: Path, image: DockerImage, **fields: Any) -> None:
    """A version with files, an experiment made from it, and a dataset that is attached."""
    (tmp_path / "weights.pt").write_text("pretrained")
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "1.jpg").write_text("image")
    given = {"parameters": {"epochs": 9}, "labelmap": {"0": "tram"}} | fields
    store.versions.create(VERSION, VersionFields(image=image, **given))
    store.versions.store_file(VERSION, tmp_path / "weights.pt", "pretrained weights")
    store.datasets.add(DATA, DatasetFields(), tmp_path / "images")
    store.experiments.create(NAME, ExperimentFields(), VERSION)
    store.experiments.attach_dataset(NAME, "train", DATA)
    store.experiments.attach_dataset(NAME, "unused", DATA)


def trainpack(tmp_path: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", "from builder.cli import main; main()", *arguments],
        cwd=tmp_path,
        env=os.environ | {"TRAINPACK_STORE": str(tmp_path / "store")},
        capture_output=True,
        text=True,
        check=False,
    )


def artifact(store: LocalStore, label: str, into: Path) -> str:
    into.mkdir(exist_ok=True)
    return store.experiments.fetch_artifact(NAME, label, into).read_text()


def test_an_experiment_trains_with_what_it_holds_and_holds_what_came_of_it(
    store: LocalStore, tmp_path: Path, image: str
) -> None:
    make(store, tmp_path, docker_image(image))
    ended = trainpack(tmp_path, "run", "--experiment", str(NAME), "--output", "output")
    assert ended.returncode == 0, ended.stderr
    assert "unused: local:street/v1 is attached, and the image declares no such dataset" in ended.stderr
    experiment = store.experiments.get(NAME)
    assert experiment.fields.status == "SUCCESS"
    assert {"seen.json", "deep/model.pt", "pretrained weights"} <= {
        file.name for file in experiment.artifacts
    }
    seen = json.loads(artifact(store, "seen.json", tmp_path / "got"))
    assert seen["found"]["files/weights.pt"] == "pretrained"
    assert seen["data"] == ["1.jpg"]
    assert json.loads(seen["found"]["parameters.json"])["epochs"] == 9
    assert json.loads(seen["found"]["labelmap.json"]) == {"0": "tram"}
    logs = {log.name: log.data for log in experiment.logs}
    assert logs["loss"] == [2.0, 1.0]
    wanted = experiment.fields.image
    assert wanted is not None
    assert (logs["trainpack"]["digest"], logs["trainpack"]["lock"]) == (wanted.digest, "a" * 64)


def test_a_run_that_fails_leaves_its_experiment_failed(store: LocalStore, tmp_path: Path, image: str) -> None:
    make(store, tmp_path, docker_image(image), parameters={"epochs": 0})
    ended = trainpack(tmp_path, "run", "--experiment", str(NAME))
    assert ended.returncode == 78, ended.stderr
    assert store.experiments.get(NAME).fields.status == "FAILED"


def test_a_published_experiment_is_the_source_of_its_version_and_can_be_traced(
    store: LocalStore, tmp_path: Path, image: str
) -> None:
    make(store, tmp_path, docker_image(image))
    assert trainpack(tmp_path, "run", "--experiment", str(NAME)).returncode == 0
    assert trainpack(tmp_path, "experiments", "publish", str(NAME), "pedestrian/v4").returncode == 0
    version = store.versions.get(VersionName(model="pedestrian", version="v4"))
    assert version.source is not None
    assert version.source.experiment == NAME
    assert "deep/model.pt" in {file.name for file in version.files}
    traced = trainpack(tmp_path, "trace", "pedestrian/v4", "--json")
    kinds = {link["kind"] for link in json.loads(traced.stdout)["links"]}
    assert {"image", "experiment", "dataset train", "parameters"} <= kinds


@pytest.fixture
def pushed(image: str, tmp_path: Path) -> Iterator[DockerImage]:
    """The image in a registry, under a digest, and not in the engine any more."""
    folder = tmp_path / "registry"
    folder.mkdir()
    with registry(folder) as address:
        name = f"{address}/vision/contract"
        client().images.get(image).tag(name, "1")
        events = list(client().api.push(name, tag="1", stream=True, decode=True))
        digest = next(event["aux"]["Digest"] for event in events if event.get("aux", {}).get("Digest"))
        client().images.remove(f"{name}:1")
        client().images.remove(image)
        yield DockerImage(name=name, tag="1", digest=digest)
        for found in client().images.list():
            if any(text.endswith(digest) for text in found.attrs.get("RepoDigests") or ()):
                client().images.get(str(found.id)).tag(*image.rsplit(":", 1))
                client().images.remove(f"{name}@{digest}")


def test_an_image_that_the_engine_lacks_is_pulled_by_its_digest(
    store: LocalStore, tmp_path: Path, pushed: DockerImage
) -> None:
    make(store, tmp_path, pushed)
    ended = trainpack(tmp_path, "run", "--experiment", str(NAME))
    assert ended.returncode == 0, ended.stderr
    assert f"pulling {pushed.name}@{pushed.digest}" in ended.stderr
    logs = {log.name: log.data for log in store.experiments.get(NAME).logs}
    assert logs["trainpack"]["digest"] == pushed.digest


def test_a_version_gives_its_files_too(store: LocalStore, tmp_path: Path, image: str) -> None:
    make(store, tmp_path, docker_image(image))
    data = f"train={tmp_path / 'images'}"
    ended = trainpack(tmp_path, "run", image, "--model", str(VERSION), "--data", data, "--output", "output")
    assert ended.returncode == 0, ended.stderr
    seen = json.loads((tmp_path / "output" / "outputs" / "seen.json").read_text())
    assert seen["found"]["files/weights.pt"] == "pretrained"


def test_a_flag_that_is_dangerous_here_is_refused_before_anything_starts(
    store: LocalStore, tmp_path: Path, image: str
) -> None:
    dangerous = docker_image(image).model_copy(update={"flags": ("--privileged",)})
    make(store, tmp_path, dangerous)
    ended = trainpack(tmp_path, "run", "--experiment", str(NAME))
    assert (ended.returncode, "gives the container the whole host" in ended.stderr) == (2, True)
    assert store.experiments.get(NAME).fields.status == "WAITING"


@pytest.mark.parametrize(
    "options",
    [["-p", "epochs=1"], ["--labelmap", "l.json"], ["--model", "a/b"], ["an:image"], ["--", "--amp"]],
)
def test_what_would_change_an_experiment_is_refused(tmp_path: Path, options: list[str]) -> None:
    ended = trainpack(tmp_path, "run", "--experiment", str(NAME), *options)
    assert (ended.returncode, "with exactly what it says" in ended.stderr) == (2, True)


def test_an_experiment_that_is_not_there_or_has_no_image_is_told(store: LocalStore, tmp_path: Path) -> None:
    assert trainpack(tmp_path, "run", "--experiment", "no/such").returncode == 1
    assert trainpack(tmp_path, "run", "--experiment", "no").returncode == 2
    store.experiments.create(NAME, ExperimentFields())
    ended = trainpack(tmp_path, "run", "--experiment", str(NAME))
    assert (ended.returncode, "no image to train with" in ended.stderr) == (2, True)

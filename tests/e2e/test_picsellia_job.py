"""The platform's side of the main job: attached from here, trained in a container that reports to it.

A stand-in plays the platform; the SDK on both sides is the real one, over HTTP.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import docker
import pytest
from commands import Ended, succeed, trainpack
from picsellia_standin import Standin

pytestmark = pytest.mark.engine

SCRIPT = """
import argparse, json, pathlib
parser = argparse.ArgumentParser()
parser.add_argument("--epochs", type=int, default=1)
parser.add_argument("--rate", type=float, default=0.1)
options = parser.parse_args()
for epoch in range(options.epochs):
    print(f"epoch {epoch} at rate {options.rate}")
pathlib.Path("model.bin").write_bytes(bytes(range(256)))
if options.epochs == 13:
    raise SystemExit("thirteen brings bad luck")
"""


@pytest.fixture
def platform() -> Iterator[Standin]:
    with Standin() as running:
        yield running


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory, registry: str) -> Path:
    """A wrapped script, built, tested and pushed."""
    folder = tmp_path_factory.mktemp("platform") / "project"
    folder.mkdir()
    (folder / "train.py").write_text(SCRIPT, encoding="utf-8")
    succeed(folder, "wrap", "train.py", "--name", f"{registry}/platform/project")
    spec = (folder / "trainpack.toml").read_text(encoding="utf-8")
    extra = '\n[labelmap]\n0 = "baked"\n'
    flags = 'flags = ["--gpus all", "--ipc host"]\nenv = { architecture = "resnet18" }\n'
    (folder / "trainpack.toml").write_text(
        spec.replace("[run]\n", f"[run]\n{flags}") + extra, encoding="utf-8"
    )
    for command in ("build", "test", "push"):
        succeed(folder, command)
    return folder


def credentials(platform: Standin) -> dict[str, str]:
    return {
        "PICSELLIA_API_TOKEN": platform.token,
        "PICSELLIA_HOST": platform.url,
        "PICSELLIA_ORGANIZATION_ID": platform.organization_id,
    }


def train(project: Path, platform: Standin, experiment: str, *extra: str, token: str | None = None) -> Ended:
    """Run the image as the platform does: with its own environment, on the host's network."""
    env = {
        "api_token": token or platform.token,
        "host": platform.url,
        "organization_id": platform.organization_id,
        "experiment_id": experiment,
        "TRAINPACK_CONNECT_TIMEOUT": "20",
    }
    passed = [word for name in env for word in ("--env", name)]
    ended = trainpack(project, "run", "--network", "host", *passed, "--json", *extra, env=env)
    if volume := ended.json.get("volume"):
        docker.from_env().volumes.get(volume).remove()
    return ended


def test_attach_writes_every_field_and_reads_it_back(project: Path, platform: Standin) -> None:
    env = credentials(platform)
    refused = trainpack(project, "attach", "picsellia:pedestrian/v3", env=env)
    assert (refused.code, "--create" in refused.stderr) == (1, True), refused.output
    attached = succeed(project, "attach", "picsellia:pedestrian/v3", "--create", "--json", env=env).json
    (version,) = platform.versions.values()
    assert version.fields["docker_image"] == attached["image"]["name"]
    assert version.fields["docker_tag"] == attached["image"]["tag"]
    assert version.fields["docker_flags"] == ["--gpus=all", "--ipc=host"]
    assert version.fields["docker_env_variables"] == {
        "TRAINPACK_IMAGE_DIGEST": attached["image"]["digest"],
        "architecture": "resnet18",
    }
    assert version.fields["parameters"] == {"epochs": 1, "rate": 0.1}
    assert version.fields["labels"] == {"0": "baked"}
    again = succeed(project, "attach", "picsellia:pedestrian/v3", "--json", env=env).json
    assert again["written"] is False
    assert "proven" in succeed(project, "trace", "picsellia:pedestrian/v3", env=env).stdout


def test_a_platform_error_is_loud_and_a_wrong_token_is_never_printed(
    project: Path, platform: Standin
) -> None:
    env = credentials(platform)
    succeed(project, "attach", "picsellia:pedestrian/v3", "--create", env=env)
    (version,) = platform.versions.values()
    version.fields["docker_tag"] = "edited-by-hand"
    platform.fail("PATCH", "/api/model/version/.*", status=500, times=None)
    failed = trainpack(project, "attach", "picsellia:pedestrian/v3", env=env)
    assert failed.code == 1
    assert version.fields["docker_tag"] == "edited-by-hand"
    wrong = env | {"PICSELLIA_API_TOKEN": "wrong-token-that-nobody-may-see"}
    unauthorised = trainpack(project, "attach", "picsellia:pedestrian/v3", env=wrong)
    assert unauthorised.code == 1
    assert "wrong-token-that-nobody-may-see" not in unauthorised.output
    assert "trainpack login" in unauthorised.stderr


def test_a_container_takes_its_experiments_parameters_and_labelmap_and_reports_back(
    project: Path, platform: Standin
) -> None:
    base = platform.add_model_version("pedestrian", "v1", parameters={"rate": 0.5}, labels={"0": "car"})
    experiment = platform.experiments[
        platform.add_experiment(
            "project", "first", parameters={"epochs": 3}, labelmap={"0": "bus", "1": "van"}
        )
    ]
    experiment.base_model_version_id = base
    ended = train(project, platform, experiment.id)
    assert ended.code == 0, ended.output
    result = ended.json["result"]
    assert result["parameters"]["epochs"]["value"] == 3
    assert "experiment" in result["parameters"]["epochs"]["source"]
    assert result["parameters"]["rate"]["value"] == 0.5
    assert result["labelmap"] == {"0": "bus", "1": "van"}
    assert experiment.status == "SUCCESS"
    assert experiment.statuses.count("SUCCESS") == 1
    artifact = next(file for file in experiment.artifacts.values() if file.filename == "model.bin")
    assert artifact.data == bytes(range(256))
    printed = "\n".join(experiment.lines)
    assert "epoch 0 at rate 0.5" in printed
    assert "epoch 2 at rate 0.5" in printed
    assert platform.token not in ended.output


def test_a_parameter_set_for_the_run_wins_and_a_misspelt_one_stops_it(
    project: Path, platform: Standin
) -> None:
    experiment = platform.add_experiment("project", "second", parameters={"epochs": 3})
    ended = train(project, platform, experiment, "-p", "epochs=2")
    assert ended.json["result"]["parameters"]["epochs"]["value"] == 2
    misspelt = platform.add_experiment("project", "third", parameters={"epoch": 3})
    ended = train(project, platform, misspelt)
    assert ended.code == 78
    assert 'did you mean "epochs"?' in ended.stderr
    assert platform.experiments[misspelt].status == "FAILED"


def test_a_bad_labelmap_of_the_experiment_ends_with_78(project: Path, platform: Standin) -> None:
    experiment = platform.add_experiment("project", "fourth", labelmap={"0": "car", "1": "car"})
    ended = train(project, platform, experiment)
    assert ended.code == 78
    assert '"car" stands at both 0 and 1' in ended.stderr


def test_a_failing_script_keeps_its_exit_code_and_fails_the_experiment(
    project: Path, platform: Standin
) -> None:
    experiment = platform.add_experiment("project", "fifth", parameters={"epochs": 13})
    ended = train(project, platform, experiment)
    assert ended.code == 1
    assert platform.experiments[experiment].status == "FAILED"
    assert platform.experiments[experiment].artifacts, "what was saved before the failure is kept"


def test_a_wrong_token_ends_with_78_and_an_absent_platform_with_69(project: Path, platform: Standin) -> None:
    experiment = platform.add_experiment("project", "sixth")
    wrong = train(project, platform, experiment, token="wrong-token-that-nobody-may-see")
    assert wrong.code == 78
    assert "wrong-token-that-nobody-may-see" not in wrong.output
    platform.stop()
    absent = train(project, platform, experiment, "--env", "TRAINPACK_CONNECT_TIMEOUT=2")
    assert absent.code == 69


def test_an_experiment_of_the_platform_trains_with_its_own_image_and_reports_itself(
    project: Path, platform: Standin
) -> None:
    env = credentials(platform) | {"TRAINPACK_STORE": str(project / "store")}
    version, name = "picsellia:pedestrian/v3", "picsellia:night/run"
    attached = succeed(project, "attach", version, "--create", "--json", env=env).json
    succeed(project, "experiments", "create", name, "--from", version, "-p", "epochs=3", env=env)
    ended = succeed(project, "run", "--experiment", name, "--network", "host", env=env)
    (experiment,) = platform.experiments.values()
    assert experiment.status == "SUCCESS"
    assert [line for line in ended.stdout.splitlines() if line.startswith("epoch")] == [
        "epoch 0 at rate 0.1",
        "epoch 1 at rate 0.1",
        "epoch 2 at rate 0.1",
    ]
    assert experiment.artifacts["model.bin"].data == bytes(range(256))
    assert attached["image"]["digest"] in str(experiment.logs["trainpack"].data)
    assert platform.token not in ended.output

"""What an experiment gives to its run, and what the run reports; real runs are in tests/e2e."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from builder.errors import StoreError, UsageError
from builder.experiment_run import (
    checked_flags,
    placed,
    platform_environment,
    received_files,
    report,
    run_logs,
    version_files,
)
from builder.host.credentials import make_credentials
from builder.models.local.store import LocalStore
from builder.models.names import ExperimentName, VersionName
from builder.models.records import DockerImage, Experiment, ExperimentFields, Log, VersionFields
from builder.run import RunOutcome, RunRequest

NAME = ExperimentName(project="night", experiment="run 1")
BASE = VersionName(model="pedestrian", version="v3")
IMAGE = DockerImage(name="registry.example.com/a", tag="1", digest=f"sha256:{'ab' * 32}")


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    """With an experiment whose version has two files."""
    made = LocalStore(tmp_path / "store")
    (tmp_path / "weights.pt").write_text("pretrained")
    (tmp_path / "config").mkdir()
    (tmp_path / "config" / "a.yaml").write_text("a: 1")
    made.versions.create(BASE, VersionFields(image=IMAGE))
    made.versions.store_file(BASE, tmp_path / "weights.pt", "weights")
    made.versions.store_file(BASE, tmp_path / "config")
    made.experiments.create(NAME, ExperimentFields(), BASE)
    return made


def outcome(tmp_path: Path, **result: Any) -> RunOutcome:
    return RunOutcome(exit_code=0, result=result or None, failure=None, output=tmp_path / "out", volume=None)


def test_the_files_of_the_version_are_given_by_their_own_names(store: LocalStore, tmp_path: Path) -> None:
    for files in (
        received_files(store, store.experiments.get(NAME), tmp_path / "1"),
        version_files(store, store.versions.get(BASE), tmp_path / "2"),
    ):
        assert files.keys() == {"weights.pt", "config"}
        assert files["weights.pt"].read_text() == "pretrained"
        assert (files["config"] / "a.yaml").read_text() == "a: 1"


def test_an_artifact_takes_the_place_of_a_file_of_its_name_and_no_other_is_an_input(
    store: LocalStore, tmp_path: Path
) -> None:
    (tmp_path / "left").mkdir()
    (tmp_path / "left" / "weights").write_text("trained further")
    (tmp_path / "left" / "report.txt").write_text("of an earlier run")
    experiment = store.experiments.report(NAME, "SUCCESS", [], tmp_path / "left")
    files = received_files(store, experiment, tmp_path / "files")
    assert {name: path.read_text() for name, path in files.items() if path.is_file()} == {
        "weights": "trained further"
    }
    assert files.keys() == {"weights", "config"}


def test_an_experiment_without_a_version_is_given_no_files(store: LocalStore, tmp_path: Path) -> None:
    alone = ExperimentName(project="night", experiment="run 2")
    assert received_files(store, store.experiments.create(alone, ExperimentFields()), tmp_path) == {}


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        ({"latest": "model.pt"}, {"model.pt"}),
        ({"latest": "model.pt", "best": "model.pt"}, {"latest/model.pt", "best/model.pt"}),
        ({"runs/best/model.pt": "model.pt", "latest": "model.pt"}, {"runs/best/model.pt", "latest/model.pt"}),
        ({"a": "x.pt", "b": "y.pt"}, {"x.pt", "y.pt"}),
    ],
)
def test_files_that_share_a_name_are_placed_by_their_labels(
    labels: dict[str, str], expected: set[str]
) -> None:
    files = {label: Path(label.replace("/", "_"), name) for label, name in labels.items()}
    assert placed(files).keys() == expected


@pytest.mark.parametrize(
    ("result", "status"),
    [
        ({"status": "success"}, "SUCCESS"),
        ({"status": "preempted"}, "TERMINATED"),
        ({"status": "failed"}, "FAILED"),
        ({}, "FAILED"),
    ],
)
def test_the_status_is_what_became_of_the_run(
    store: LocalStore, tmp_path: Path, result: dict[str, Any], status: str
) -> None:
    report(store, NAME, outcome(tmp_path, **result))
    assert store.experiments.get(NAME).fields.status == status


def test_metrics_outputs_and_the_image_are_reported(store: LocalStore, tmp_path: Path) -> None:
    outputs = tmp_path / "out" / "outputs"
    outputs.mkdir(parents=True)
    lines = ['{"step": 1, "name": "loss", "value": 2.0}', "not json", "[]", '{"name": "loss", "value": NaN}']
    (outputs / "metrics.jsonl").write_text("\n".join(lines))
    report(store, NAME, outcome(tmp_path, status="success", image={"digest": IMAGE.digest}))
    experiment = store.experiments.get(NAME)
    assert [(log.name, log.type, log.data) for log in experiment.logs] == [
        ("loss", "LINE", [2.0, None]),
        ("trainpack", "TABLE", {"digest": IMAGE.digest}),
    ]
    assert "metrics.jsonl" in {file.name for file in experiment.artifacts}


def test_without_a_file_of_metrics_their_last_values_are_reported(tmp_path: Path) -> None:
    facts: Mapping[str, Any] = {"metrics": {"accuracy": 0.5}}
    assert list(run_logs(facts, tmp_path)) == [Log(name="accuracy", type="LINE", data=[0.5])]


def test_a_report_that_fails_says_where_the_outputs_are(store: LocalStore, tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="could not be reported") as caught:
        report(store, ExperimentName(project="no", experiment="such"), outcome(tmp_path, status="success"))
    assert str(tmp_path / "out") in " ".join(caught.value.details)


def test_the_platforms_own_variables_name_the_experiment_and_are_never_shown() -> None:
    experiment = Experiment(id="e-1", name=NAME, fields=ExperimentFields(image=IMAGE))
    given = {"token": "s3cret-token", "host": "https://example.com", "organization_name": "vision"}
    env = platform_environment(experiment, make_credentials(given, "the test"))
    assert env == {
        "api_token": "s3cret-token",
        "host": "https://example.com",
        "organization_name": "vision",
        "experiment_id": "e-1",
    }
    assert "s3cret" not in repr(RunRequest(image="i", output=Path("o"), env=env))


def test_a_flag_of_somebody_else_is_checked_again_here() -> None:
    image = IMAGE.model_copy(update={"flags": ("--volume=/:/host", "--gpus=all")})
    with pytest.raises(UsageError, match="mounts a folder of the host"):
        checked_flags(image)
    assert checked_flags(image, ("volume",)) == ("--gpus=all", "--volume=/:/host")
    assert json.dumps(checked_flags(IMAGE)) == "[]"

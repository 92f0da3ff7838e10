"""`import trainpack` in a script: in a container, and on the desk of whoever wrote it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from textwrap import dedent

import pytest
from container_root import ENTRYPOINT, ContainerRoot
from trainpack_entrypoint.schema import Parameter

SPEC = """
    [image]
    name = "registry.example.com/team/model"
    [data]
    train = "data/train"
    [parameters]
    epochs = 10
    learning_rate = { default = 0.001, gt = 0 }
    model = { depth = 3 }
    [labelmap]
    0 = "car"
"""


def run(folder: Path, source: str, script: str = "train.py") -> subprocess.CompletedProcess[str]:
    """Run a script in a folder, outside any container."""
    file = folder / script
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(dedent(source))
    env = {name: value for name, value in os.environ.items() if not name.startswith("TRAINPACK_")}
    env["PYTHONPATH"] = str(ENTRYPOINT)
    return subprocess.run(
        [sys.executable, str(file)], cwd=folder, env=env, capture_output=True, text=True, check=False
    )


@pytest.fixture
def project(tmp_path: Path) -> Path:
    (tmp_path / "trainpack.toml").write_text(dedent(SPEC))
    return tmp_path


@pytest.fixture
def container(tmp_path: Path) -> ContainerRoot:
    container = ContainerRoot(tmp_path)
    container.write("opt/app/trainpack.py", (ENTRYPOINT / "trainpack.py").read_bytes())
    return container


def test_outside_a_container_the_specs_defaults_are_given(project: Path) -> None:
    ended = run(project, "import trainpack; print(trainpack.parameters, trainpack.labelmap)")
    expected = {"epochs": 10, "learning_rate": 0.001, "model": {"depth": 3}}
    assert ended.stdout == f"{expected} {{'0': 'car'}}\n", ended.stderr


def test_a_spec_above_the_script_is_found_from_any_folder(project: Path, tmp_path: Path) -> None:
    ended = run(
        project, "import os; os.chdir('/'); import trainpack; print(trainpack.labelmap)", "src/train.py"
    )
    assert ended.stdout == "{'0': 'car'}\n", ended.stderr


def test_without_a_spec_there_are_no_parameters(tmp_path: Path) -> None:
    assert run(tmp_path, "import trainpack; print(trainpack.parameters)").stdout == "{}\n"


def test_a_dataset_is_found_by_its_alias(project: Path) -> None:
    (project / "data/train").mkdir(parents=True)
    ended = run(project, "import trainpack; print(trainpack.dataset('train'))")
    assert ended.stdout == f"{project}/data/train\n"


def test_an_unknown_or_missing_dataset_says_what_there_is(project: Path) -> None:
    assert (
        "no dataset 'test'; there are: train"
        in run(project, "import trainpack; trainpack.dataset('test')").stderr
    )
    ended = run(project, "import trainpack; trainpack.dataset('train')")
    assert "dataset 'train'" in ended.stderr
    assert "does not exist" in ended.stderr


def test_a_file_is_found_by_its_name_and_an_unknown_one_says_what_there_is(project: Path) -> None:
    (project / "files/runs").mkdir(parents=True)
    (project / "files/runs/weights.pt").touch()
    ended = run(project, "import trainpack; print(trainpack.file('runs/weights.pt'))")
    assert ended.stdout == f"{project}/files/runs/weights.pt\n"
    ended = run(project, "import trainpack; trainpack.file('weights.pt')")
    assert f"no file 'weights.pt' in {project}/files; there are: runs" in ended.stderr


def test_outside_a_container_metrics_and_files_go_to_outputs_beside_the_spec(project: Path) -> None:
    ended = run(
        project,
        """
        import pathlib, trainpack
        pathlib.Path("runs").mkdir()
        pathlib.Path("runs/model.pt").write_text("weights")
        trainpack.log_metric("loss", 2)
        trainpack.log_metric("loss", float("nan"))
        trainpack.log_metric("loss", 0.5, step=10)
        trainpack.log_metric("loss", 0.25)
        print(trainpack.save("runs/model.pt"))
        """,
    )
    assert ended.stdout == f"{project}/outputs/runs/model.pt\n", ended.stderr
    assert (project / "outputs/runs/model.pt").read_text() == "weights"
    metrics = [json.loads(line) for line in (project / "outputs/metrics.jsonl").read_text().splitlines()]
    assert [(metric["step"], metric["value"]) for metric in metrics] == [
        (0, 2),
        (1, None),
        (10, 0.5),
        (11, 0.25),
    ]
    assert {metric["name"] for metric in metrics} == {"loss"}


def test_a_folder_is_saved_with_everything_in_it(project: Path) -> None:
    ended = run(
        project,
        """
        import pathlib, tempfile, trainpack
        folder = pathlib.Path(tempfile.mkdtemp()) / "export"
        (folder / "a/b/c").mkdir(parents=True)
        (folder / "a/b/c/weights").write_text("deep")
        trainpack.save(folder)
        """,
    )
    assert ended.returncode == 0, ended.stderr
    assert (project / "outputs/export/a/b/c/weights").read_text() == "deep"


def test_saving_what_is_not_there_fails(project: Path) -> None:
    assert "FileNotFoundError" in run(project, "import trainpack; trainpack.save('no.pt')").stderr


def test_an_attribute_that_does_not_exist_is_an_attribute_error(project: Path) -> None:
    assert "has no attribute 'epochs'" in run(project, "import trainpack; trainpack.epochs").stderr


def test_in_a_container_everything_comes_from_the_run(container: ContainerRoot) -> None:
    container.bake(
        parameters=[Parameter("epochs", type="int", default=10)],
        labelmap={"0": "car"},
        data={"train": "data/train"},
    )
    container.write("mnt/trainpack/datasets/train/a.csv", "1")
    container.write("mnt/trainpack/files/weights.pt", "start")
    container.script("""
        import pathlib, trainpack
        assert trainpack.parameters == {"epochs": 3}, trainpack.parameters
        assert trainpack.labelmap == {"0": "car"}
        assert (trainpack.dataset("train") / "a.csv").exists()
        assert trainpack.file("weights.pt").read_text() == "start"
        trainpack.log_metric("accuracy", 0.97)
        pathlib.Path("model.pt").write_text("weights")
        trainpack.save("model.pt")
        trainpack.save("model.pt")
    """)
    ended = container.run(env={"TRAINPACK_SET_epochs": "3"})
    assert ended.code == 0, ended.told
    assert ended.saved == ["metrics.jsonl", "model.pt"]
    assert ended.result["metrics"] == {"accuracy": 0.97}


def test_in_a_container_without_a_labelmap_it_is_empty(container: ContainerRoot) -> None:
    container.script("import trainpack; print(trainpack.labelmap)")
    assert container.run().stdout == b"{}\n"

"""A training repo's own tests, through the pytest plugin: a real build, real containers."""

from __future__ import annotations

import json
from collections.abc import Iterator

import docker
import pytest

pytest_plugins = ["contract_image", "pytester"]
pytestmark = pytest.mark.engine

SPEC = """
[image]
name = "registry.example.com/tests/plugin"
[run]
script = "train.py"
[parameters]
epochs = 1
"""
SCRIPT = """
import argparse, json
from pathlib import Path
parser = argparse.ArgumentParser()
parser.add_argument("--epochs", type=int)
epochs = parser.parse_args().epochs
Path("metrics.json").write_text(json.dumps({"accuracy": 1 - 0.5 ** epochs}))
"""
BUILDS = """
import builder.building

build = builder.building.build_project

def counted(folder, *given, **options):
    with (folder / "builds.txt").open("a") as file:
        print("built", file=file)
    return build(folder, *given, **options)

builder.building.build_project = counted
"""
LEARNS = """
def test_more_epochs_learn_more(trainpack_run):
    once, often = trainpack_run({"epochs": 1}), trainpack_run({"epochs": 3})
    assert once.metrics["accuracy"] == 0.5
    assert often.metrics["accuracy"] == 0.875
    assert often.outputs["metrics.json"].is_file()

def test_it_ends_well(trainpack_run):
    assert trainpack_run().status == "success"
"""


@pytest.fixture
def repo(pytester: pytest.Pytester, base_image: str) -> Iterator[pytest.Pytester]:
    pytester.makefile(".toml", trainpack=SPEC)
    (pytester.path / "train.py").write_text(SCRIPT)
    yield pytester
    built = pytester.path / ".trainpack" / "last-build.json"
    if built.exists():
        docker.from_env().images.remove(json.loads(built.read_text())["image_id"], force=True)


def test_workers_of_one_session_share_one_build(repo: pytest.Pytester) -> None:
    repo.makeconftest(BUILDS)
    repo.makepyfile(test_one=LEARNS, test_two=LEARNS)
    repo.runpytest_subprocess("--numprocesses=2").assert_outcomes(passed=4)
    assert (repo.path / "builds.txt").read_text() == "built\n"


@pytest.mark.parametrize("options", [[], ["--numprocesses=2"]], ids=["alone", "workers"])
def test_a_failed_build_shows_its_own_error(repo: pytest.Pytester, options: list[str]) -> None:
    (repo.path / "requirements.txt").write_text("no-such-distribution-of-trainpack==1.0\n")
    repo.makepyfile(LEARNS)
    result = repo.runpytest_subprocess(*options)
    result.assert_outcomes(errors=2)
    result.stdout.fnmatch_lines("*no-such-distribution-of-trainpack*")
    result.stdout.no_fnmatch_line("*Traceback*")
    result.stdout.no_fnmatch_line("*pytest_plugin.py*")


def test_all_that_a_run_takes_and_tells_is_there_to_assert_on(
    pytester: pytest.Pytester, contract_image: str
) -> None:
    pytester.makepyfile(
        """
        import json

        def test_inputs(trainpack_run, tmp_path):
            (tmp_path / "images").mkdir()
            (tmp_path / "images" / "a.txt").write_text("from the host")
            run = trainpack_run(
                {"learning_rate": 0.5, "amp": True},
                labelmap={"0": "tram"},
                data={"train": tmp_path / "images"},
                arguments=["--show-data", "train", "--variable", "GIVEN"],
                env={"GIVEN": "four"},
            )
            assert (run.exit_code, run.status, run.failure) == (0, "success", None)
            assert run.result["labelmap"] == {"0": "tram"}
            assert "text from the host" in run.stdout
            assert "variable 4" in run.stdout
            assert "an error line" in run.stderr
            assert run.metrics == {"accuracy": 0.5}
            assert json.loads(run.outputs["weights.json"].read_bytes())["learning_rate"] == 0.5

        def test_failure(trainpack_run):
            run = trainpack_run(arguments=["--exit", "3"])
            assert (run.exit_code, run.status, run.failure["cause"]) == (3, "failed", "script")

        def test_refusal(trainpack_run):
            run = trainpack_run({"epochs": "many"})
            assert run.exit_code == 0
        """
    )
    result = pytester.runpytest_subprocess("--trainpack-image", contract_image)
    result.assert_outcomes(passed=2, failed=1)
    result.stdout.fnmatch_lines("*where 78 = <Run failed, exit code 78: configuration: *")


def test_an_image_that_the_engine_lacks_is_told(pytester: pytest.Pytester, contract_image: str) -> None:
    pytester.makepyfile(LEARNS)
    result = pytester.runpytest_subprocess("--trainpack-image", "registry.example.com/no/such:1")
    result.stdout.fnmatch_lines("*registry.example.com/no/such:1: the engine has no such image*")
    result.stdout.no_fnmatch_line("*pytest_plugin.py*")

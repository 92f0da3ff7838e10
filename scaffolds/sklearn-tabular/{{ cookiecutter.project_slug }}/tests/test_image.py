"""The image trains as the script does, through its own entrypoint. Run: python -m pytest

`trainpack_run` is a fixture of trainpack's pytest plugin: it builds the image once and runs it, a container each time.
Where no container engine answers these tests are skipped, but in CI they fail.
"""

import json

import pytest

pytest.importorskip("builder.pytest_plugin", reason="trainpack is not installed here: pip install trainpack")


def test_the_image_learns_and_leaves_the_model(trainpack_run):
    run = trainpack_run(parameters={"max_iter": 20})
    assert run.exit_code == 0
    assert run.metrics["accuracy"] > 0.8
    assert "model.joblib" in run.outputs


def test_the_labelmap_of_the_run_names_the_classes(trainpack_run):
    labelmap = {"0": "red", "1": "white", "2": "orange"}
    run = trainpack_run(parameters={"max_iter": 2}, labelmap=labelmap)
    assert json.loads(run.outputs["metrics.json"].read_text())["class_names"] == labelmap
    assert "orange" in run.stdout


def test_a_value_out_of_bounds_is_refused_before_training(trainpack_run):
    run = trainpack_run(parameters={"max_iter": 0})
    assert run.exit_code == 78
    assert "max_iter" in run.stderr

"""The image trains as the script does, through its own entrypoint. Run: python -m pytest

`trainpack_run` is a fixture of trainpack's pytest plugin: it builds the image once and runs it, a container each time.
Where no container engine answers these tests are skipped, but in CI they fail.
"""

import json

import pytest

pytest.importorskip("builder.pytest_plugin", reason="trainpack is not installed here: pip install trainpack")


def test_the_image_learns_and_leaves_the_model(trainpack_run):
    run = trainpack_run(parameters={"epochs": 1})
    assert run.exit_code == 0
    assert run.metrics["accuracy"] > 0.8
    assert "model.pt" in run.outputs


def test_the_labelmap_of_the_run_names_the_classes(trainpack_run):
    run = trainpack_run(parameters={"epochs": 1, "samples": 60}, labelmap={"0": "coin", "1": "tile"})
    assert json.loads(run.outputs["metrics.json"].read_text())["class_names"] == ["coin", "tile"]


def test_a_value_out_of_bounds_is_refused_before_training(trainpack_run):
    run = trainpack_run(parameters={"epochs": 0})
    assert run.exit_code == 78
    assert "epochs" in run.stderr

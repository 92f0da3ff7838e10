"""What a plan decides, and what moves its tag."""

from __future__ import annotations

import json
from typing import Any

import pytest
from golden_files import assert_golden
from plans import SPEC, distribution, inputs, plan
from trainpack_entrypoint.manifest import Manifest

from builder.changes import compare
from builder.plan import CodeFile, base_name, make_plan
from builder.plan_data import plan_hash, with_code
from builder.spec import parse_spec


@pytest.mark.parametrize("cuda", [False, True], ids=["cpu", "cuda"])
def test_the_plan_is_golden(cuda: bool) -> None:
    text = json.dumps(plan(cuda=cuda).model_dump(mode="json"), indent=2) + "\n"
    assert_golden(f"plan/{'cuda' if cuda else 'cpu'}.json", text)


def test_the_same_inputs_give_the_same_tag() -> None:
    assert plan().tag == plan().tag
    assert plan().tag.startswith("1.2.0-")
    assert len(plan().tag) == len("1.2.0-") + 12


def test_the_address_that_a_wheel_comes_from_does_not_move_the_tag() -> None:
    elsewhere = inputs().model_copy(
        update={
            "packages": tuple(
                package.model_copy(update={"url": f"https://mirror.example.com/{package.filename}"})
                for package in inputs().packages
            )
        }
    )
    assert make_plan(parse_spec(SPEC), elsewhere).tag == plan().tag


def test_a_base_of_the_same_content_built_elsewhere_does_not_move_the_tag() -> None:
    elsewhere = inputs().base.model_copy(update={"image_id": "sha256:" + "0" * 64})
    assert make_plan(parse_spec(SPEC), inputs().model_copy(update={"base": elsewhere})).tag == plan().tag


@pytest.mark.parametrize(
    ("layer", "change"),
    [
        ("base", {"base": inputs().base.model_copy(update={"content": "0" * 64})}),
        ("light wheels", {"packages": (*inputs().packages, distribution("tqdm", "4.0", 80_000))}),
        ("heavy wheels", {"packages": (*inputs().packages, distribution("torch", "2.0", 200_000_000))}),
        ("entrypoint", {"entrypoint_hash": "1" * 64}),
        ("code", {"code": (inputs().code[0].model_copy(update={"sha256": "1" * 64}),)}),
        ("metadata", {"revision": "0" * 40}),
    ],
)
def test_each_input_moves_the_tag_and_names_its_layer(layer: str, change: dict[str, Any]) -> None:
    changed = make_plan(parse_spec(SPEC), inputs().model_copy(update=change))
    assert changed.tag != plan().tag
    assert layer in {difference.layer for difference in compare(plan(), changed)}


def test_nothing_differs_from_itself() -> None:
    assert compare(plan(), plan()) == ()


def test_wheels_over_the_limit_are_a_layer_below_the_light_ones() -> None:
    assert [package.name for package in plan(cuda=True).heavy] == ["nvidia-cublas", "scipy"]
    assert [package.name for package in plan(cuda=True).light] == ["numpy"]


def test_the_base_follows_the_lock_unless_the_spec_names_it() -> None:
    assert base_name(parse_spec(SPEC), None) == "cpu"
    assert base_name(parse_spec(SPEC), "13.0") == "cuda"
    named = parse_spec(SPEC.replace('version = "1.2.0"', 'version = "1.2.0"\nbase = "own"'))
    assert base_name(named, "13.0") == "own"


def test_a_cuda_plan_carries_the_driver_that_the_lock_needs() -> None:
    planned = plan(cuda=True)
    assert planned.env["NVIDIA_REQUIRE_CUDA"] == "driver>=580"
    assert planned.labels["io.trainpack.driver"] == "580.65.06"
    assert planned.manifest["gpu"] == {"cuda": "13.0", "driver": "580.65.06"}
    assert "NVIDIA_REQUIRE_CUDA" not in plan().env


def test_the_baked_manifest_is_what_the_entrypoint_reads() -> None:
    manifest = Manifest.from_json(json.loads(json.dumps(plan().manifest)))
    assert manifest.parameters["learning_rate"].gt == 0
    assert manifest.parameters["epochs"].argument == "--epochs"
    assert manifest.labelmap == {"0": "car", "1": "person"}
    assert manifest.run.args == ("--data-dir", "data")


def test_an_option_declared_in_the_spec_wins_over_the_scan() -> None:
    text = SPEC.replace("epochs = 10", 'epochs = { default = 10, argument = "-e" }')
    assert plan(text).manifest["parameters"]["epochs"]["argument"] == "-e"


def test_a_plan_over_other_code_is_the_plan_that_would_be_made() -> None:
    code = (CodeFile(path="train.py", mode=0o755, size=7, sha256="1" * 64),)
    for before, after in (("f" * 40, "e" * 40), ("f" * 40, f"{'f' * 40}-dirty"), (None, None)):
        first = make_plan(parse_spec(SPEC), inputs(cuda=True).model_copy(update={"revision": before}))
        changes = {"revision": after, "code": code}
        expected = make_plan(parse_spec(SPEC), inputs(cuda=True).model_copy(update=changes))
        data = with_code(first.model_dump(mode="json"), [file.model_dump() for file in code], after)
        assert data == expected.model_dump(mode="json")
        assert plan_hash(data) == expected.hash

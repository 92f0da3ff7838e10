"""`wrap`: the files that it writes for scripts as strangers write them."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import pytest
from commands import trainpack
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from tiny_index import tree

from builder.errors import SpecError, TrainpackError, UsageError
from builder.scan.distributions import distribution_of
from builder.spec import FILE, TrainingSpec, load_spec
from builder.wrap import REQUIREMENTS, Wrapping, wrap_script

SCRIPTS = sorted((Path(__file__).parents[1] / "scripts").glob("*.py"))
EXAMPLE = Path(__file__).parents[2] / "examples" / "digits" / "train.py"


def place(folder: Path, script: Path) -> Path:
    """A copy of a script in a project folder of its own."""
    project = folder / "Pedestrian Detector"
    project.mkdir()
    shutil.copy(script, project / "train.py")
    return project / "train.py"


def wrap(script: Path, *, force: bool = False) -> tuple[TrainingSpec, Wrapping]:
    wrapping = wrap_script(script, name=None, force=force)
    return load_spec(script.parent), wrapping


def wrap_named(folder: Path, name: str) -> tuple[TrainingSpec, Wrapping]:
    return wrap(place(folder, SCRIPTS[0].with_name(name)))


def source(folder: Path, text: str, name: str = "train.py") -> Path:
    path = folder / name
    path.write_text(text)
    return path


def defaults(spec: TrainingSpec) -> dict[str, Any]:
    return {name: parameter.default for name, parameter in spec.parameters.items()}


def requirements(folder: Path) -> list[str]:
    """What is really required, without comments."""
    lines = (folder / REQUIREMENTS).read_text().splitlines()
    return [line.partition("#")[0].strip() for line in lines if line.partition("#")[0].strip()]


# Every script


@pytest.mark.parametrize("script", [*SCRIPTS, EXAMPLE], ids=lambda path: path.stem)
def test_what_is_written_is_a_spec_and_the_script_stays_as_it_is(tmp_path: Path, script: Path) -> None:
    copy = place(tmp_path, script)
    before = copy.stat()
    spec, _ = wrap(copy)
    assert (spec.run.script, spec.image.requirements) == ("train.py", REQUIREMENTS)
    assert spec.image.name == "pedestrian-detector"
    assert copy.read_bytes() == script.read_bytes()
    assert (copy.stat().st_mtime_ns, copy.stat().st_mode) == (before.st_mtime_ns, before.st_mode)
    assert sorted(path.name for path in copy.parent.iterdir()) == [REQUIREMENTS, "train.py", FILE]


@pytest.mark.parametrize("script", [*SCRIPTS, EXAMPLE], ids=lambda path: path.stem)
def test_what_is_to_be_checked_is_marked_in_the_files_and_told(tmp_path: Path, script: Path) -> None:
    copy = place(tmp_path, script)
    _, wrapping = wrap(copy)
    assert any(guess.check for guess in wrapping.guesses), "the image's name is always a guess"
    assert "# check: the folder is called Pedestrian Detector" in (copy.parent / FILE).read_text()


def test_wrapping_twice_writes_the_same(tmp_path: Path) -> None:
    script = place(tmp_path, EXAMPLE)
    wrap(script)
    first = tree(script.parent)
    wrap(script, force=True)
    assert tree(script.parent) == first


# The scripts, one by one


def test_a_detection_script_of_pytorch(tmp_path: Path) -> None:
    spec, wrapping = wrap_named(tmp_path, "train_detector.py")
    assert spec.model.framework == "PYTORCH"
    assert defaults(spec) == {
        "data_path": "/datasets/coco",
        "model": "resnet18",
        "device": None,
        "batch_size": 2,
        "epochs": 26,
        "workers": None,
        "lr": 0.02,
        "lr_steps": [16, 22],
        "opt": "sgd",
        "amp": False,
        "augment": True,
        "ema": True,
        "resume": "",
        "image_size": 640,
        "hub_token": None,
        "output_dir": None,
        "weights": None,
    }
    assert spec.parameters["batch_size"].argument == "--batch-size"
    assert spec.parameters["augment"].argument_false == "--no-augment"
    assert spec.parameters["augment"].argument is None
    assert spec.parameters["ema"].argument_false == "--no-ema"
    assert spec.parameters["weights"].required
    assert spec.parameters["model"].choices == ("resnet18", "resnet50")
    assert spec.parameters["batch_size"].help == "per GPU"
    folder = tmp_path / "Pedestrian Detector"
    assert requirements(folder) == [
        "numpy",
        "opencv-python-headless",
        "pillow",
        "PyYAML",
        "torch",
        "torchvision",
    ]
    assert "# wandb  # check: train.py:16 imports wandb" in (folder / REQUIREMENTS).read_text()
    text = (folder / FILE).read_text()
    assert "abc" not in text
    assert "# check: its default, os.cpu_count(), is known only when the script runs" in text
    assert "# check: train.py:42: --verbose: action count cannot be given one value" in text
    to_check = {guess.what for guess in wrapping.guesses if guess.check}
    assert {"wandb left out", "[parameters] device", "[parameters] hub_token", "train.py:42"} <= to_check
    assert "[parameters] lr" not in to_check


def test_a_tabular_script_of_scikit_learn(tmp_path: Path) -> None:
    spec, wrapping = wrap_named(tmp_path, "train_tabular.py")
    assert spec.model.framework == "NOT_CONFIGURED"
    assert defaults(spec) == {
        "target": "label",
        "trees": 100,
        "max_depth": None,
        "seed": 42,
        "features": ["age", "height"],
        "folds": None,
        "holdout": None,
    }
    assert requirements(tmp_path / "Pedestrian Detector") == ["joblib", "pandas", "scikit-learn"]
    text = (tmp_path / "Pedestrian Detector" / FILE).read_text()
    assert "# check: train.py:10: the script needs the positional argument table; write its value" in text
    assert spec.run.args == ()
    assert any(guess.check and "table" in guess.because for guess in wrapping.guesses)


@pytest.mark.parametrize("library", ["click", "typer"])
def test_options_of_another_library_are_left_to_the_user(tmp_path: Path, library: str) -> None:
    spec, wrapping = wrap_named(tmp_path, f"train_{library}.py")
    assert spec.parameters == {}
    text = (tmp_path / "Pedestrian Detector" / FILE).read_text()
    assert f": options declared with {library} are not read" in text
    assert any(guess.check and library in guess.because for guess in wrapping.guesses)


def test_a_script_without_options_and_requirements(tmp_path: Path) -> None:
    spec, _ = wrap_named(tmp_path, "train_plain.py")
    assert (spec.parameters, requirements(tmp_path / "Pedestrian Detector")) == ({}, [])


def test_switches_that_can_say_false(tmp_path: Path) -> None:
    spec, _ = wrap_named(tmp_path, "train_switches.py")
    assert defaults(spec) == {"shuffle": False, "cache": True, "augment": True}
    named = {name: (found.argument, found.argument_false) for name, found in spec.parameters.items()}
    assert named["cache"] == (None, "--no-cache")
    assert named["augment"][1] == "--no-augment"
    assert spec.model.framework == "TENSORFLOW"


def test_the_example_needs_no_edit(tmp_path: Path) -> None:
    spec, wrapping = wrap(place(tmp_path, EXAMPLE))
    assert defaults(spec)["hidden"] == [64, 32]
    assert [guess.what for guess in wrapping.guesses if guess.check] == ["[image] name"]


# Distributions


@pytest.mark.parametrize(
    ("module", "distribution"),
    [
        ("sklearn.svm", "scikit-learn"),
        ("cv2", "opencv-python-headless"),
        ("PIL.Image", "pillow"),
        ("yaml", "PyYAML"),
        ("skimage", "scikit-image"),
        ("pytorch_lightning", "pytorch-lightning"),
        ("google.cloud.storage", "google-cloud-storage"),
        ("numpy", "numpy"),
    ],
)
def test_known_modules_have_a_distribution_without_doubt(module: str, distribution: str) -> None:
    assert distribution_of(module) == (distribution, None)


@pytest.mark.parametrize("module", ["somelab_tools", "google.somewhere"])
def test_an_unknown_module_is_a_guess(module: str) -> None:
    assert "guess" in (distribution_of(module)[1] or "")


def test_an_unknown_module_is_marked_in_the_requirements(tmp_path: Path) -> None:
    _, wrapping = wrap(source(tmp_path, "import somelab_tools\n"))
    assert "somelab_tools  # check: train.py:1 imports" in (tmp_path / REQUIREMENTS).read_text()
    assert any(guess.what == "requires somelab_tools" and guess.check for guess in wrapping.guesses)


def test_imports_for_type_checkers_are_not_required(tmp_path: Path) -> None:
    script = "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import pandas\nimport numpy\n"
    wrap(source(tmp_path, script))
    assert requirements(tmp_path) == ["numpy"]


# Requirements that are there


def test_requirements_that_are_there_stay_and_what_they_do_not_name_is_told(tmp_path: Path) -> None:
    (tmp_path / REQUIREMENTS).write_text("opencv-python>=4  # headless is not enough\nnumpy\n")
    before = (tmp_path / REQUIREMENTS).read_bytes()
    spec, wrapping = wrap(source(tmp_path, "import cv2, numpy, scipy\n"))
    assert spec.image.requirements == REQUIREMENTS
    assert (tmp_path / REQUIREMENTS).read_bytes() == before
    assert [guess.what for guess in wrapping.guesses if guess.what.endswith("?")] == ["requires scipy?"]


def test_dependencies_of_a_pyproject_are_taken(tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_text('[project]\nname = "a"\ndependencies = ["numpy"]\n')
    spec, _ = wrap(source(tmp_path, "import numpy\n"))
    assert spec.image.requirements == "pyproject.toml"
    assert not (tmp_path / REQUIREMENTS).exists()


# Refusals


def test_an_existing_spec_is_replaced_only_by_force(tmp_path: Path) -> None:
    script = source(tmp_path, "import numpy\n")
    (tmp_path / FILE).write_text("mine")
    before = tree(tmp_path)
    with pytest.raises(UsageError, match="exists already") as caught:
        wrap_script(script, name=None, force=False)
    assert (caught.value.exit_code, "--force" in (caught.value.remedy or "")) == (2, True)
    assert tree(tmp_path) == before
    spec, _ = wrap(script, force=True)
    assert spec.run.script == "train.py"


@pytest.mark.parametrize("failing", [1, 2])
def test_both_files_are_written_or_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failing: int
) -> None:
    script = source(tmp_path, "import numpy\n")
    synced: list[int] = []

    def full(handle: int) -> None:
        synced.append(handle)
        if len(synced) == failing:
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(TrainpackError, match="No space"):
        wrap_script(script, name=None, force=False)
    assert len(synced) == failing
    assert [path.name for path in tmp_path.iterdir()] == ["train.py"]


@pytest.mark.parametrize("name", ["Not A Name", "registry.example.com/a:tag", ""])
def test_a_name_that_is_no_repository_is_refused(tmp_path: Path, name: str) -> None:
    script = source(tmp_path, "import numpy\n")
    with pytest.raises(UsageError) as caught:
        wrap_script(script, name=name, force=False)
    assert caught.value.place == "--name"
    assert [path.name for path in tmp_path.iterdir()] == ["train.py"]


def test_a_syntax_error_leaves_nothing(tmp_path: Path) -> None:
    script = source(tmp_path, "def train(:\n")
    with pytest.raises(SpecError, match=r"train\.py:1:"):
        wrap_script(script, name=None, force=False)
    assert [path.name for path in tmp_path.iterdir()] == ["train.py"]


# Hostile text

HOSTILE = st.text(
    st.sampled_from("\"'\\\n\r\t\x00\x1b\u2028#[]{}=%$é💥 ab,") | st.characters(exclude_categories=["Cs"]),
    max_size=20,
)
FAST = settings(
    max_examples=40, database=None, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@FAST
@given(value=HOSTILE, choice=HOSTILE, text=HOSTILE)
@example(value='"\n[run]\nscript = "other.py"\n', choice="'''", text='"\n[image]')
@example(value="\\", choice='\\"', text="%(default)s")
def test_defaults_choices_and_help_come_through_whatever_they_hold(
    tmp_path: Path, value: str, choice: str, text: str
) -> None:
    choices = [value, choice]
    script = source(
        tmp_path,
        "import argparse\n"
        "parser = argparse.ArgumentParser()\n"
        f"parser.add_argument('--value', default={value!a})\n"
        f"parser.add_argument('--choice', default={value!a}, choices={choices!a}, help={text!a})\n"
        f"parser.add_argument('--many', nargs='*', default={choices!a})\n"
        f"parser.add_argument('-p', default=unknown({value!a}))\n"
        f"parser.add_argument({text!a} or 'rest')\n",
    )
    spec, _ = wrap(script, force=True)
    found = defaults(spec)
    assert {name: found[name] for name in ("value", "choice", "many", "p")} == {
        "value": value,
        "choice": value,
        "many": choices,
        "p": None,
    }
    assert spec.parameters["choice"].choices == (value, choice)
    assert (spec.run.script, spec.run.args, spec.image.requirements) == ("train.py", (), REQUIREMENTS)


@FAST
@given(stem=HOSTILE.filter(lambda text: "/" not in text and "\0" not in text and len(text.encode()) < 200))
@example(stem='tra"in')
@example(stem="tra'in #")
@example(stem="a\n[run]\nscript = 'b'")
@example(stem="a\\b")
@example(stem="💥 é")
def test_a_hostile_file_name_comes_through_or_is_refused_with_nothing_written(
    tmp_path: Path, stem: str
) -> None:
    folder = tmp_path / "project"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    script = source(
        folder, "import argparse, numpy\nargparse.ArgumentParser().add_argument('x')\n", f"{stem}.py"
    )
    before = tree(folder)
    try:
        spec, _ = wrap(script)
    except SpecError:
        assert tree(folder) == before
        assert "\\" in stem or not stem.isprintable()
    else:
        assert spec.run.script == f"{stem}.py"
        assert requirements(folder) == ["numpy"]


def test_a_hostile_folder_name_stays_inside_its_comment(tmp_path: Path) -> None:
    folder = tmp_path / "a\n[labelmap]\n0 = 'x'"
    folder.mkdir()
    spec, _ = wrap(source(folder, "import numpy\n"))
    assert (spec.image.name, spec.labelmap) == ("a-labelmap-0-x", None)


# The command


def test_the_command_tells_what_it_wrote_and_what_to_look_at(tmp_path: Path) -> None:
    script = place(tmp_path, EXAMPLE)
    ended = trainpack(script.parent, "wrap", "train.py", "--name", "registry.example.com/vision/digits")
    assert (ended.code, ended.stdout) == (0, f"wrote {FILE}\nwrote {REQUIREMENTS}\nnext: trainpack build\n")
    assert "requires scikit-learn: train.py:11 imports sklearn.datasets" in ended.stderr
    again = trainpack(script.parent, "wrap", "train.py", "--json")
    assert (again.code, again.json["error"]["message"]) == (2, "exists already")
    forced = trainpack(script.parent, "wrap", "train.py", "--force", "--json").json
    assert forced["written"] == [FILE]
    assert {"what", "because", "check"} == set(forced["guesses"][0])


def test_the_command_refuses_a_folder_and_a_missing_script(tmp_path: Path) -> None:
    for script in (".", "missing.py"):
        ended = trainpack(tmp_path, "wrap", script)
        assert ended.code == 2
        assert "not a file" in ended.stderr
    assert not list(tmp_path.iterdir())

"""What is read off a script that nobody executes: imports, parameters, framework."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from builder.errors import SpecError
from builder.scan import Import, ScannedParameter, ScriptFacts, option_names, scan_script


def scan(folder: Path, source: str, **modules: str) -> ScriptFacts:
    """Scan a script beside these modules: path without suffix → source."""
    for name, text in modules.items():
        path = folder / f"{name}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    (folder / "train.py").write_text(source)
    return scan_script(folder, "train.py")


def options(folder: Path, *calls: str, before: str = "") -> ScriptFacts:
    """Scan a script with these `add_argument` calls."""
    lines = ["import argparse", before, "parser = argparse.ArgumentParser()"]
    return scan(folder, "\n".join([*lines, *(f"parser.add_argument({call})" for call in calls)]) + "\n")


def option(folder: Path, call: str, before: str = "") -> ScannedParameter:
    [found] = options(folder, call, before=before).parameters
    return found


def needs(facts: ScriptFacts) -> dict[str, str]:
    return {found.module: found.need for found in facts.imports}


# Imports


def test_imports_are_found_wherever_they_stand_without_the_standard_library(tmp_path: Path) -> None:
    facts = scan(
        tmp_path,
        """
import os, json
import numpy as np, pandas
from sklearn.linear_model import Ridge
def main():
    import torch
    class Late:
        with open("x"):
            for _ in ():
                import scipy.stats
if __name__ == "__main__":
    import joblib
""",
    )
    assert needs(facts) == dict.fromkeys(
        ["numpy", "pandas", "sklearn.linear_model", "torch", "scipy.stats", "joblib"], "always"
    )
    torch = next(found for found in facts.imports if found.module == "torch")
    assert (torch.place, torch.reason, torch.package) == ("train.py:6", "imported inside main()", "torch")


def test_our_own_helper_is_not_a_requirement(tmp_path: Path) -> None:
    assert scan(tmp_path, "import trainpack\nfrom trainpack import save\n").imports == ()


def test_local_modules_are_followed_and_are_no_requirements(tmp_path: Path) -> None:
    facts = scan(
        tmp_path,
        "import helpers\nfrom models import resnet\nfrom models.heads import Linear\nimport space.tools\n",
        **{
            "helpers": "import numpy\n",
            "models/__init__": "from . import blocks\n",
            "models/resnet": "from .blocks import Block\nfrom ..models import heads\nimport torch\n",
            "models/blocks": "import einops\n",
            "models/heads": "import helpers\nimport train\n",
            "space/tools": "import scipy\n",
        },
    )
    assert set(facts.files) == {
        "train.py",
        "helpers.py",
        "models/__init__.py",
        "models/resnet.py",
        "models/blocks.py",
        "models/heads.py",
        "space/tools.py",
    }
    assert set(needs(facts)) == {"numpy", "torch", "einops", "scipy"}
    assert [found.place for found in facts.imports if found.module == "torch"] == ["models/resnet.py:3"]


def test_a_local_module_hides_the_distribution_of_the_same_name(tmp_path: Path) -> None:
    assert scan(tmp_path, "import yaml\n", yaml="import numpy\n").imports[0].module == "numpy"


def test_modules_beside_a_script_in_a_subfolder_and_below_the_project_are_local(tmp_path: Path) -> None:
    (tmp_path / "src").mkdir()
    (tmp_path / "src" / "train.py").write_text("import beside\nimport top\nimport numpy\n")
    (tmp_path / "src" / "beside.py").write_text("")
    (tmp_path / "top.py").write_text("")
    facts = scan_script(tmp_path, "src/train.py")
    assert facts.files == ("src/train.py", "src/beside.py", "top.py")
    assert set(needs(facts)) == {"numpy"}


def test_what_a_module_does_as_a_script_does_not_count_when_it_is_imported(tmp_path: Path) -> None:
    main = 'if __name__ == "__main__":\n    import matplotlib\n'
    assert needs(scan(tmp_path, "import helpers\n", helpers=f"import numpy\n{main}")) == {"numpy": "always"}


@pytest.mark.parametrize(
    ("source", "need"),
    [
        ("if True:\n    import lib\n", "conditional"),
        ("def f(gpu):\n    if gpu:\n        import lib\n", "conditional"),
        ("from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import lib\n", "typing"),
        ("import typing\nif typing.TYPE_CHECKING:\n    import lib\n", "typing"),
        ("from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    pass\nelse:\n    import lib\n", "always"),
        ("try:\n    import lib\nexcept ImportError:\n    lib = None\n", "optional"),
        ("try:\n    import lib\nexcept:\n    pass\n", "optional"),
        ("try:\n    import lib\nexcept (OSError, ModuleNotFoundError):\n    lib = None\n", "optional"),
        ("try:\n    import lib\nexcept ImportError:\n    raise SystemExit('install lib')\n", "always"),
        ("import sys\ntry:\n    import lib\nexcept ImportError:\n    sys.exit(1)\n", "always"),
        ("try:\n    import lib\nexcept KeyError:\n    pass\n", "always"),
        ("try:\n    import lib\nfinally:\n    pass\n", "always"),
        ("try:\n    import json\nexcept ImportError:\n    import lib\n", "optional"),
        ("try:\n    import lib\nexcept ImportError:\n    import json as lib\n", "conditional"),
    ],
)
def test_how_badly_a_module_is_needed(tmp_path: Path, source: str, need: str) -> None:
    assert needs(scan(tmp_path, source)) == {"lib": need}


# Parameters


@pytest.mark.parametrize(
    ("call", "kind", "default"),
    [
        ('"--x", type=int, default=3', "int", 3),
        ('"--x", type=float, default=1', "float", 1.0),
        ('"--x", type=float, default=1e-3', "float", 0.001),
        ('"--x", type=int, default=-2 ** 3', "int", -8),
        ('"--x", type=str, default="a"', "str", "a"),
        ('"--x", default="a"', "str", "a"),
        ('"--x", default=""', "str", ""),
        ('"--x", default="none"', "str", "none"),
        ('"--x"', "str", None),
        ('"--x", type=int', "int", None),
        ('"--x", type=int, default=None', "int", None),
        ('"--x", type=int, default="3"', "int", 3),
        ('"--x", type=Path, default=Path("runs") ', "str", "runs"),
        ('"--x", type=argparse.FileType("r"), default="in.txt"', "str", "in.txt"),
        ('"--x", nargs="+", type=int, default=[1, 2]', "list[int]", [1, 2]),
        ('"--x", nargs="*", type=float, default=(0.5,)', "list[float]", [0.5]),
        ('"--x", nargs=2, default=["a", "b"]', "list[str]", ["a", "b"]),
        ('"--x", nargs="?", type=int, default=3', "int", 3),
        ('"--x", action="extend", nargs="+", type=int', "list[int]", None),
        ('"--x", action="store_true"', "bool", False),
        ('"--x", action=argparse.BooleanOptionalAction, default=True', "bool", True),
        ('"--x", type=int, default=argparse.SUPPRESS', "int", None),
        ('"--x", type=int, default=DEFAULT', "int", 12),
        ('"--x", choices=list(KNOWN), default="a"', "str", "a"),
        ('"--x", type=str.lower, default="a"', "str", "a"),
    ],
)
def test_types_and_defaults_are_those_that_argparse_gives(
    tmp_path: Path, call: str, kind: str, default: Any
) -> None:
    found = option(tmp_path, call, before='DEFAULT = 4 * 3\nKNOWN = {"a": print, "b": print}')
    assert (found.name, found.type, found.default) == ("x", kind, default)
    assert type(found.default) is type(default)


@pytest.mark.parametrize(
    ("call", "name", "argument", "negative"),
    [
        ('"--batch-size"', "batch_size", "--batch-size", None),
        ('"-b", "--batch-size"', "batch_size", "--batch-size", None),
        ('"-b"', "b", "-b", None),
        ('"--lr", "--learning-rate"', "lr", "--lr", None),
        ('"--lr", dest="rate"', "rate", "--lr", None),
        ('"--no-aug", dest="aug", action="store_false"', "aug", None, "--no-aug"),
        ('"--aug", action=argparse.BooleanOptionalAction', "aug", "--aug", "--no-aug"),
    ],
)
def test_names_and_options_follow_argparse(
    tmp_path: Path, call: str, name: str, argument: str | None, negative: str | None
) -> None:
    assert option_names(options(tmp_path, call)) == {name: (argument, negative)}


def test_a_name_that_is_assigned_twice_is_no_constant(tmp_path: Path) -> None:
    found = option(tmp_path, '"--x", type=int, default=N', before="N = 1\nN = cpus()")
    assert found.default is None
    again = option(tmp_path, '"--x", type=int, default=N', before="N = 1\nfor N in range(3):\n    pass")
    assert again.default is None


def test_a_store_false_option_is_true_by_default(tmp_path: Path) -> None:
    assert option(tmp_path, '"--no-cache", dest="cache", action="store_false"').default is True


def test_a_pair_of_switches_with_one_destination_is_one_parameter(tmp_path: Path) -> None:
    found = options(
        tmp_path,
        '"--aug", dest="aug", action="store_true", default=True',
        '"--no-aug", dest="aug", action="store_false"',
    )
    assert option_names(found) == {"aug": ("--aug", "--no-aug")}


def test_set_defaults_wins_over_the_option(tmp_path: Path) -> None:
    source = 'import argparse\np = argparse.ArgumentParser()\np.add_argument("--x", type=int, default=1)\n'
    assert scan(tmp_path, f"{source}p.set_defaults(x=5)\n").parameters[0].default == 5


def test_choices_and_required_are_kept(tmp_path: Path) -> None:
    assert option(tmp_path, '"--x", choices=("a", "b"), default="b"').choices == ("a", "b")
    assert option(tmp_path, '"--x", type=int, choices=range(3)').choices == (0, 1, 2)
    required = option(tmp_path, '"--x", type=int, required=True, default=3')
    assert (required.required, required.default) == (True, None)


def test_help_is_one_line_as_argparse_prints_it(tmp_path: Path) -> None:
    assert option(tmp_path, '"--x", help="a\\n  b 5%% (default: %(default)s)"').help == "a b 5%"
    assert option(tmp_path, '"--x", help=argparse.SUPPRESS').help is None


def test_options_of_groups_and_of_local_modules_are_read(tmp_path: Path) -> None:
    facts = scan(
        tmp_path,
        "from cli import get_parser\nget_parser().parse_args()\n",
        cli="""
import argparse
def get_parser():
    p = argparse.ArgumentParser()
    p.add_argument_group("a").add_argument("--one", type=int, default=1)
    group = p.add_argument_group("b")
    group.add_argument("--two", type=int, default=2)
    return p
""",
    )
    assert [(found.name, found.file) for found in facts.parameters] == [("one", "cli.py"), ("two", "cli.py")]


def test_positional_arguments_are_no_parameters(tmp_path: Path) -> None:
    facts = options(tmp_path, '"data", help="folder"', '"more", nargs="*"', 'dest="third"')
    assert [(found.name, found.required) for found in facts.positionals] == [
        ("data", True),
        ("more", False),
        ("third", True),
    ]
    assert facts.parameters == ()


def test_help_and_version_are_no_parameters(tmp_path: Path) -> None:
    assert options(tmp_path, '"--version", action="version"', '"--usage", action="help"').parameters == ()


def test_add_argument_of_something_else_is_not_read(tmp_path: Path) -> None:
    assert scan(tmp_path, 'function.add_argument("--x")\n').parameters == ()


@pytest.mark.parametrize(
    ("call", "told"),
    [
        ('"--x", type=int, default=os.cpu_count()', "its default, os.cpu_count(), is known only when"),
        ('"--x", default=f"{HOME}/a"', "known only when the script runs"),
        ('"--x", choices=MODELS.names(), default="a"', "its choices, MODELS.names(), are known only when"),
        ('"--x", type=bool, default=False', "type=bool takes any text"),
        ('"--x", type=parse, default="a"', "its value goes through parse"),
        ('"--x", default=5', "without type= hands the script text"),
        ('"--x", nargs="?", const=3, type=int', "--x alone means 3"),
        ('"--x", type=int, required=STRICT', "required=STRICT is known only"),
        ('"--x", type=float, default=float("inf")', "JSON cannot say"),
        ('"--x", type=float, nargs="+", default=[1.0, float("inf")]', "JSON cannot say"),
        ('"--x", action="extend", nargs="+", default=["a"]', "what is given extends its default"),
        ('"--api-key", default="abc"', "secret"),
        ('"--x", default="/home/me/data"', "a path of the machine"),
        ('"--x", type=int, default="many"', "does not fit"),
        ('"--x", type=int, choices=[1, 2], default=3', "does not fit"),
        ('"--x", nargs="+", default="a"', "is not a list"),
        ('"--x", action="store_true", default=True', "no way to say false"),
        ('"--x", **settings', "unpacked with **"),
    ],
)
def test_what_the_source_does_not_settle_is_to_be_checked(tmp_path: Path, call: str, told: str) -> None:
    assert told in (option(tmp_path, call).check or "")


@pytest.mark.parametrize(
    "call",
    [
        '"--x", type=int, default=os.cpu_count()',
        '"--api-key", default="abc"',
        '"--x", action="extend", nargs="+", default=["a"]',
        '"--x", type=float, nargs="+", default=[float("inf")]',
        '"--x", default="\\ud800"',
    ],
)
def test_a_default_that_cannot_be_passed_on_is_left_to_the_script(tmp_path: Path, call: str) -> None:
    assert option(tmp_path, call).default is None


def test_defaults_of_options_that_exclude_each_other_are_not_passed(tmp_path: Path) -> None:
    facts = scan(
        tmp_path,
        """
import argparse
parser = argparse.ArgumentParser()
kind = parser.add_mutually_exclusive_group()
kind.add_argument("--folds", type=int, default=5)
kind.add_argument("--holdout", type=float)
kind.add_argument("--all", action="store_true")
parser.add_argument("--seed", type=int, default=1)
""",
    )
    assert {found.name: found.default for found in facts.parameters} == {
        "folds": None,
        "holdout": None,
        "all": False,
        "seed": 1,
    }
    assert "excludes others" in (facts.parameters[0].check or "")


def test_an_option_declared_twice_is_to_be_checked(tmp_path: Path) -> None:
    [found] = options(tmp_path, '"--x", type=int, default=1', '"--x", type=int, default=2').parameters
    assert (found.default, found.check) == (1, "declared again at train.py:5")


@pytest.mark.parametrize(
    ("call", "told"),
    [
        ("name, type=int", "an option is named by name, known only when the script runs"),
        ("*names", "an option is named by *names"),
        ('"-v", action="count"', "action count cannot be given one value"),
        ('"--x", action="append"', "action append cannot be given one value"),
        ('"--x", action=Custom', "action Custom cannot be given one value"),
        ('"--rest", nargs=argparse.REMAINDER', "whatever is left"),
        ('"--3d"', "cannot be a parameter's name"),
        ('"--a\\nb", dest="x"', "cannot be a parameter's name"),
    ],
)
def test_what_cannot_be_a_parameter_is_noted_with_its_line(tmp_path: Path, call: str, told: str) -> None:
    facts = options(tmp_path, call)
    assert facts.parameters == ()
    assert [note.place for note in facts.notes] == ["train.py:4"]
    assert told in facts.notes[0].reason


def test_options_of_a_subcommand_are_noted(tmp_path: Path) -> None:
    source = """
import argparse
parser = argparse.ArgumentParser()
parser.add_argument("--seed", type=int, default=1)
commands = parser.add_subparsers()
train = commands.add_parser("train")
train.add_argument("--epochs", type=int, default=3)
train.set_defaults(seed=7)
"""
    facts = scan(tmp_path, source)
    assert {found.name: found.default for found in facts.parameters} == {"seed": 1}
    assert "subcommand" in facts.notes[0].reason


@pytest.mark.parametrize(
    ("source", "title"),
    [
        ("import click\n", "click"),
        ("import typer\n", "typer"),
        ("from absl import app, flags\n", "absl flags"),
        ("from tyro import cli\n", "tyro"),
    ],
)
def test_other_option_libraries_are_noted(tmp_path: Path, source: str, title: str) -> None:
    [note] = scan(tmp_path, source).notes
    assert (note.place, f"declared with {title} are not read" in note.reason) == ("train.py:1", True)


# Framework


@pytest.mark.parametrize(
    ("source", "framework"),
    [
        ("import torch\n", "PYTORCH"),
        ("import numpy\nfrom lightning.pytorch import Trainer\n", "PYTORCH"),
        ("from tensorflow import keras\n", "TENSORFLOW"),
        ("import keras\n", "TENSORFLOW"),
        ("import onnxruntime\n", "ONNX"),
        ("import onnx\nimport torch\n", "PYTORCH"),
        ("import sklearn\n", "NOT_CONFIGURED"),
        ("from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import torch\n", "NOT_CONFIGURED"),
    ],
)
def test_the_framework_is_the_one_that_is_imported(tmp_path: Path, source: str, framework: str) -> None:
    assert scan(tmp_path, source).framework == framework


def test_two_frameworks_are_to_be_checked(tmp_path: Path) -> None:
    facts = scan(tmp_path, "import tensorflow\nimport torch\n")
    assert facts.framework == "PYTORCH"
    assert facts.framework_reason == "check: train.py:2 imports torch, train.py:1 imports tensorflow"


# What cannot be read


@pytest.mark.parametrize(
    ("modules", "place"),
    [
        ({"source": "x = 1\nif x:\n    y = (1,\n"}, "train.py:3:9"),
        ({"source": "print 'hello'\n"}, "train.py:1:1"),
        ({"source": "import helpers\n", "helpers": "def f(:\n"}, "helpers.py:1:7"),
    ],
)
def test_a_syntax_error_is_told_with_file_line_and_column(
    tmp_path: Path, modules: dict[str, str], place: str
) -> None:
    with pytest.raises(SpecError) as caught:
        scan(tmp_path, **modules)
    assert (caught.value.place, caught.value.exit_code) == (place, 2)


@pytest.mark.parametrize(
    "content", [b"x = 1\0", b"# coding: nonsense\n", b"\xff\xfe = 1", b"-" * 100_000 + b"1"]
)
def test_a_file_that_is_no_python_is_a_clear_error(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "train.py").write_bytes(content)
    with pytest.raises(SpecError, match=r"^train\.py(:\d+:\d+)?: not valid Python"):
        scan_script(tmp_path, "train.py")


def test_a_missing_script_and_a_notebook_are_clear_errors(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="does not exist"):
        scan_script(tmp_path, "train.py")
    (tmp_path / "train.ipynb").write_text("{}")
    with pytest.raises(SpecError, match="notebook"):
        scan_script(tmp_path, "train.ipynb")


def test_nothing_is_executed(tmp_path: Path) -> None:
    leave = "import pathlib\npathlib.Path(__file__).with_name('trace').touch()\n"
    facts = scan(
        tmp_path,
        f"import helpers\n{leave}import argparse\nargparse.ArgumentParser().add_argument(exit())",
        helpers=leave,
    )
    assert facts.files == ("train.py", "helpers.py")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["helpers.py", "train.py"]


def test_doubtful_escapes_of_the_script_are_not_reported_as_ours(
    tmp_path: Path, recwarn: pytest.WarningsRecorder
) -> None:
    scan(tmp_path, "x = '\\d'\n")
    assert not list(recwarn)


def test_every_fact_has_a_place_and_a_reason(tmp_path: Path) -> None:
    facts = options(tmp_path, '"--x", type=int', '"data"', before="import numpy")
    for fact in (*facts.imports, *facts.parameters, *facts.positionals):
        assert fact.place.startswith("train.py:")
        assert fact.reason
    assert isinstance(facts.imports[0], Import)


# Hydra

HYDRA = """
import hydra
NAME = "config"
@hydra.main(version_base=None, config_path="conf", config_name=NAME)
def main(cfg):
    pass
"""


def hydra(folder: Path, config: str) -> ScriptFacts:
    (folder / "conf").mkdir()
    (folder / "conf/config.yaml").write_text(config)
    return scan(folder, HYDRA)


def test_the_values_of_a_hydra_config_are_parameters_by_their_dotted_names(tmp_path: Path) -> None:
    facts = hydra(
        tmp_path, "seed: 0\noptimizer:\n  lr: 1e-3\n  betas: [0.9, 0.999]\n  _target_: torch.Adam\n"
    )
    assert facts.arguments == "overrides"
    assert [(each.place, each.name, each.type, each.default) for each in facts.parameters] == [
        ("conf/config.yaml:1", "seed", "int", 0),
        ("conf/config.yaml:3", "optimizer.lr", "float", 0.001),
        ("conf/config.yaml:4", "optimizer.betas", "list[float]", [0.9, 0.999]),
    ]
    assert option_names(facts)["optimizer.lr"] == (None, None)


def test_what_a_hydra_config_computes_or_keeps_secret_is_no_default(tmp_path: Path) -> None:
    text = "out: ${hydra:runtime.cwd}\nhydra:\n  verbose: true\ndata: ???\napi_token: abc\nwhen: 2024-01-01\n"
    found = {each.name: each for each in hydra(tmp_path, text).parameters}
    assert sorted(found) == ["api_token", "data"]
    assert (found["data"].required, found["data"].default) == (True, None)
    assert found["api_token"].default is None
    assert "secret" in (found["api_token"].check or "")


@pytest.mark.parametrize(
    ("config", "place", "reason"),
    [
        ("defaults:\n  - model: resnet\n", "conf/config.yaml:2", "groups of this list"),
        ("a: [1\nb: 2\n", "conf/config.yaml:2", "cannot be read"),
    ],
)
def test_what_is_not_read_of_a_hydra_config_is_noted(
    tmp_path: Path, config: str, place: str, reason: str
) -> None:
    [note] = hydra(tmp_path, config).notes
    assert (note.place, reason in note.reason) == (place, True)


def test_a_hydra_config_outside_the_project_is_noted_and_not_read(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("seed: 1\n")
    (tmp_path / "project").mkdir()
    facts = scan(tmp_path / "project", HYDRA.replace('"conf"', '".."'))
    assert (facts.parameters, facts.notes[0].place) == ((), "train.py:4")
    assert "not in the project" in facts.notes[0].reason

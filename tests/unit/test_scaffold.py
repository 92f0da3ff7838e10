"""Scaffolds are complete, and `trainpack init` makes a whole repo or nothing."""

from __future__ import annotations

import ast
import io
import json
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from packaging.requirements import Requirement

from builder import __version__
from builder.cli.dispatch import run
from builder.errors import TrainpackError, UsageError
from builder.scaffold import RECORD, Scaffold, answer, find_scaffold, generate, list_scaffolds
from builder.spec import load_spec

NAMES = ["pytorch", "sklearn-tabular"]


def make(name: str, parent: Path, **given_values: str) -> Path:
    scaffold = find_scaffold(name)
    return generate(scaffold, answer(scaffold, given_values, ask=False), parent)


def files_of(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): path.read_text(encoding="utf-8")
        for path in folder.rglob("*")
        if path.is_file()
    }


def write_template(folder: Path, **files: str) -> Scaffold:
    """A scaffold of our own, to see what becomes of a template that fails."""
    template = folder / "broken"
    repo = template / "{{ cookiecutter.project_slug }}"
    repo.mkdir(parents=True)
    context = {"_description": "a broken one", "_patterns": {}, "project_slug": "thing"}
    (template / "cookiecutter.json").write_text(json.dumps(context))
    for name, text in files.items():
        (repo / name.replace("_", ".")).write_text(text)
    return find_scaffold("broken", folder)


@pytest.fixture(autouse=True)
def _no_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A home that can be looked into: nothing may be written there."""
    (tmp_path / "home").mkdir()
    monkeypatch.setenv("HOME", str(tmp_path / "home"))


def test_the_scaffolds_that_come_with_trainpack_are_listed_by_name_with_a_description() -> None:
    listed = list_scaffolds()
    assert [scaffold.name for scaffold in listed] == NAMES
    assert all(len(scaffold.description) > 20 and "\n" not in scaffold.description for scaffold in listed)


@pytest.mark.parametrize("name", NAMES)
def test_a_generated_repo_is_complete_and_its_spec_is_valid(name: str, tmp_path: Path) -> None:
    repo = make(name, tmp_path)
    files = files_of(repo)
    assert {
        "train.py",
        "trainpack.toml",
        "requirements.txt",
        "README.md",
        "tests/test_train.py",
        ".gitignore",
        ".dockerignore",
        RECORD,
    } <= set(files)
    assert not [
        path for path, text in files.items() if "cookiecutter" in text or "{{" in text or "{%" in text
    ]
    spec = load_spec(repo)
    assert spec.run.script == "train.py"
    assert spec.image.requirements == "requirements.txt"
    assert all(parameter.help for parameter in spec.parameters.values())
    assert spec.labelmap


@pytest.mark.parametrize("name", NAMES)
def test_every_declared_parameter_is_an_option_of_the_generated_script(name: str, tmp_path: Path) -> None:
    repo = make(name, tmp_path)
    tree = ast.parse((repo / "train.py").read_text(), feature_version=(3, 11))
    options = {
        node.args[0].value
        for node in ast.walk(tree)
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr == "add_argument"
        and isinstance(node.args[0], ast.Constant)
    }
    for parameter, spec in load_spec(repo).parameters.items():
        assert (spec.argument or f"--{parameter}") in options


@pytest.mark.parametrize("name", NAMES)
def test_every_import_of_a_generated_script_is_a_requirement_or_standard(name: str, tmp_path: Path) -> None:
    repo = make(name, tmp_path)
    lines = (repo / "requirements.txt").read_text().splitlines()
    required = {Requirement(line).name for line in lines if line and not line.startswith("#")}
    modules = {"scikit-learn": "sklearn", "pillow": "PIL"}
    allowed = {modules.get(distribution, distribution) for distribution in required} | {
        *("argparse json os pathlib signal sys".split()),
        *(("numpy", "trainpack") if name == "pytorch" else ()),
    }
    tree = ast.parse((repo / "train.py").read_text())
    imported = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    imported |= {str(node.module) for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert {module.split(".")[0] for module in imported} <= allowed


def test_values_given_reach_the_generated_files_and_the_defaults_made_from_them(tmp_path: Path) -> None:
    repo = make("pytorch", tmp_path, project_name="Pedestrian Detection", python="3.12", version="2.1.0")
    spec = load_spec(repo)
    assert repo == tmp_path / "pedestrian-detection"
    assert spec.image.name == "registry.example.com/training/pedestrian-detection"
    assert (spec.image.python, spec.image.version) == ("3.12", "2.1.0")
    assert spec.model.version == "pedestrian-detection/v1"
    assert (repo / "README.md").read_text().startswith("# Pedestrian Detection\n")


def test_the_repo_records_its_scaffold_and_the_answers(tmp_path: Path) -> None:
    record = json.loads((make("sklearn-tabular", tmp_path, version="3.0.0") / RECORD).read_text())
    assert (record["scaffold"], record["trainpack"]) == ("sklearn-tabular", __version__)
    assert record["variables"]["version"] == "3.0.0"
    assert set(record["variables"]) == set(find_scaffold("sklearn-tabular").variables)


def test_nothing_is_written_to_the_home_folder(tmp_path: Path) -> None:
    make("pytorch", tmp_path / "out")
    assert list((tmp_path / "home").iterdir()) == []


def test_an_unknown_scaffold_is_refused_with_a_suggestion() -> None:
    with pytest.raises(UsageError, match='did you mean "pytorch"') as caught:
        find_scaffold("pytorhc")
    assert "sklearn-tabular" in str(caught.value.remedy)


def test_an_unknown_variable_is_refused_with_a_suggestion() -> None:
    with pytest.raises(UsageError, match='did you mean "image_name"'):
        answer(find_scaffold("pytorch"), {"image-name": "x"}, ask=False)


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("project_name", 'a "quoted" name'),
        ("project_name", "two\nlines"),
        ("project_name", "{{ 7 * 7 }}"),
        ("project_name", "___"),
        ("project_slug", "../elsewhere"),
        ("project_slug", ".git"),
        ("image_name", "registry.example.com/a//b"),
        ("image_name", "registry.example.com/a:latest"),
        ("model_version", "no-version"),
        ("version", "latest"),
        ("version", "1.0+local"),
        ("python", "2.7"),
    ],
)
def test_a_bad_value_is_a_usage_error_and_nothing_is_written(
    variable: str, value: str, tmp_path: Path
) -> None:
    with pytest.raises(UsageError):
        make("pytorch", tmp_path / "out", **{variable: value})
    assert not (tmp_path / "out").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["home"]


@settings(max_examples=150, deadline=None)
@given(
    variable=st.sampled_from(["project_name", "image_name", "model_version", "version"]),
    value=st.one_of(st.text(max_size=12), st.text(alphabet='abA1./-_: "\\\n$#{}%', max_size=12)),
)
def test_any_value_is_either_refused_or_arrives_as_it_is(variable: str, value: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        try:
            repo = make("sklearn-tabular", Path(folder), project_slug="fixed", **{variable: value})
        except UsageError:
            assert list(Path(folder).iterdir()) == []
            return
        spec = load_spec(repo)
        arrived = {
            "project_name": str(spec.model.description).removesuffix(": gradient boosting on a table"),
            "image_name": spec.image.name,
            "model_version": spec.model.version,
            "version": spec.image.version,
        }
        assert arrived[variable] == value


@pytest.mark.parametrize("there", ["file", "folder", "dangling link"])
def test_what_is_there_already_is_refused_and_left_as_it_was(there: str, tmp_path: Path) -> None:
    target = tmp_path / "image-training"
    if there == "file":
        target.write_text("mine")
    elif there == "folder":
        target.mkdir()
        (target / "train.py").write_text("mine")
    else:
        target.symlink_to(tmp_path / "nowhere")
    before = files_of(tmp_path)
    with pytest.raises(UsageError, match="already"):
        make("pytorch", tmp_path)
    assert files_of(tmp_path) == before


def test_an_empty_folder_of_the_repos_name_is_filled(tmp_path: Path) -> None:
    (tmp_path / "image-training").mkdir()
    assert (make("pytorch", tmp_path) / "train.py").is_file()


def test_a_template_that_fails_half_way_leaves_nothing(tmp_path: Path) -> None:
    scaffold = write_template(tmp_path / "t", a_txt="fine", b_txt="{{ cookiecutter.missing }}")
    with pytest.raises(Exception, match="Unable to create file"):
        generate(scaffold, answer(scaffold, {}, ask=False), tmp_path / "out" / "deep")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["home", "t"]


def test_a_place_that_cannot_be_written_to_is_a_clear_failure(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(TrainpackError, match="cannot be written") as caught:
        make("pytorch", tmp_path / "file" / "below")
    assert caught.value.exit_code == 1


def test_init_prints_the_folder_and_the_answers_as_json(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["init", "pytorch", "-o", str(tmp_path), "-v", "project_name=Foo", "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed["folder"] == str(tmp_path / "foo")
    assert printed["variables"]["project_slug"] == "foo"


def test_init_asks_nothing_without_a_terminal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.TextIOBase())  # not a terminal, and reading it raises
    assert run(["init", "pytorch", "-o", str(tmp_path)]) == 0


def test_init_asks_on_a_terminal_and_takes_the_answers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setattr("sys.stdin", Terminal("Bar\n\n\n\n\n2\n"))
    monkeypatch.setattr("sys.stdout", Terminal())
    assert run(["init", "pytorch", "-o", str(tmp_path)]) == 0
    assert load_spec(tmp_path / "bar").image.python == "3.12"


def test_an_end_of_input_while_asking_is_a_usage_error_and_nothing_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("Bar\n"))
    with pytest.raises(UsageError, match="input ended"):
        answer(find_scaffold("pytorch"), {}, ask=True)


@pytest.mark.parametrize(
    "arguments", [[], ["pytorhc"], ["pytorch", "-v", "project_name"], ["pytorch", "-v", "=x"]]
)
def test_a_wrong_call_of_init_exits_2(
    arguments: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["init", *arguments, "-o", str(tmp_path / "out"), "--json"]) == 2
    assert json.loads(capsys.readouterr().out)["error"]["message"]
    assert not (tmp_path / "out").exists()

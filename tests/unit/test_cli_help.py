"""The command line explains itself, fast, and its errors are readable by people and machines."""

from __future__ import annotations

import importlib
import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from builder import __version__
from builder.cli import COMMANDS
from builder.cli.dispatch import root, run

ROOT = Path(__file__).parents[2]
HEAVY = ("cookiecutter", "docker", "jinja2", "picsellia", "pydantic", "requests", "rich", "typer", "uv")


def trainpack(*arguments: str) -> subprocess.CompletedProcess[str]:
    """The command line in a process of its own, as its console script starts it."""
    code = "import sys; from builder.cli import main; sys.argv[0] = 'trainpack'; main()"
    return subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False, cwd=ROOT
    )


def test_the_root_help_lists_every_command_with_its_summary() -> None:
    answer = trainpack("--help")
    assert answer.returncode == 0
    lines = [line.split(maxsplit=1) for line in answer.stdout.splitlines()]
    assert all([name, summary] in lines for name, summary in COMMANDS.items())


def test_no_command_at_all_prints_the_help_and_is_a_usage_error() -> None:
    answer = trainpack()
    assert answer.returncode == 2
    assert answer.stdout == trainpack("--help").stdout


def test_the_version_is_the_packages() -> None:
    assert trainpack("--version").stdout == f"trainpack {__version__}\n"


@pytest.mark.parametrize("argument", ["--help", "--version"])
def test_answering_the_root_options_imports_nothing_heavy(argument: str) -> None:
    code = f"""
import sys
from builder.cli import main
sys.argv = ["trainpack", {argument!r}]
try:
    main()
except SystemExit:
    print("loaded:", *sorted({{module.partition(".")[0] for module in sys.modules}}))
"""
    printed = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT
    )
    loaded = printed.stdout.rpartition("loaded: ")[2].split()
    assert "builder" in loaded
    assert [name for name in HEAVY if name in loaded] == []


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_is_a_module_with_an_app(command: str) -> None:
    assert importlib.util.find_spec(f"builder.cli.{command}"), f"builder/cli/{command}.py is missing"
    assert isinstance(importlib.import_module(f"builder.cli.{command}").app, typer.Typer)


@pytest.mark.parametrize("command", COMMANDS)
def test_the_help_of_every_command_shows_an_example_and_json(command: str) -> None:
    answer = CliRunner().invoke(root, [command, "--help"])
    assert answer.exit_code == 0, answer.output
    helps = [answer.output]
    for subcommand in _subcommands(command):
        helps.append(CliRunner().invoke(root, [command, subcommand, "--help"]).output)
    assert any("Example" in text and f"trainpack {command}" in text for text in helps), helps
    assert any("--json" in text for text in helps)
    assert not any("--install-completion" in text for text in helps)


def _subcommands(command: str) -> list[str]:
    found = typer.main.get_command(importlib.import_module(f"builder.cli.{command}").app)
    return list(getattr(found, "commands", {}))


def test_every_module_of_the_command_line_is_in_the_table() -> None:
    modules = {path.stem for path in (ROOT / "builder" / "cli").glob("*.py")}
    with_an_app = {
        name
        for name in modules
        if "app = typer.Typer(" in (ROOT / "builder" / "cli" / f"{name}.py").read_text()
    }
    assert with_an_app == set(COMMANDS)


def test_an_unknown_command_is_a_usage_error_that_names_it(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["biuld"]) == 2
    assert "biuld" in capsys.readouterr().err


def test_an_unknown_option_is_a_usage_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["init", "--lsit"]) == 2
    assert "--lsit" in capsys.readouterr().err


def test_an_error_is_told_on_standard_error_with_its_remedy_and_no_traceback(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run(["init", "nothing"]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith("error: there is no scaffold 'nothing'")
    assert "→ choose one of" in printed.err
    assert "Traceback" not in printed.err


def test_with_json_an_error_is_one_document_on_standard_output(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["init", "nothing", "--json"]) == 2
    error = json.loads(capsys.readouterr().out)["error"]
    assert error["message"] == "there is no scaffold 'nothing'"
    assert error["remedy"].startswith("choose one of")
    assert error["place"] is None


def test_with_json_the_problems_of_a_spec_are_listed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "trainpack.toml").write_text('[image]\nnaem = "a"\n[run]\nscrpit = "train.py"\n')
    assert run(["plan", "-C", str(tmp_path), "--json"]) == 2
    details = json.loads(capsys.readouterr().out)["error"]["details"]
    assert any("naem" in line for line in details)
    assert any("scrpit" in line for line in details)


def test_every_command_has_a_section_in_the_reference() -> None:
    text = (ROOT / "docs" / "cli.md").read_text(encoding="utf-8")
    assert [name for name in COMMANDS if f"\n## `trainpack {name}" not in text] == []

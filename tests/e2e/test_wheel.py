"""The built wheel, installed into a clean environment, works from any folder."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from dataclasses import dataclass
from pathlib import Path

import pytest
import uv

from builder.cli import COMMANDS
from builder.host.package_index import index_settings, uv_arguments, uv_environment

ROOT = Path(__file__).parents[2]

pytestmark = pytest.mark.slow


def run_uv(*arguments: str, indexes: bool = True) -> None:
    """uv, with this machine's package index settings where it takes any."""
    settings = index_settings(os.environ)
    # An environment that is active here is not the one that is meant.
    environ = uv_environment(settings, {k: v for k, v in os.environ.items() if k != "VIRTUAL_ENV"})
    command = [uv.find_uv_bin(), *arguments, *(uv_arguments(settings) if indexes else ())]
    done = subprocess.run(command, cwd=ROOT, env=environ, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout}{done.stderr}"


@dataclass(frozen=True)
class Installed:
    """An environment that holds the wheel and what it depends on, and a folder far from any checkout."""

    bin: Path
    folder: Path

    def run(self, *command: str) -> str:
        """What the command prints; it must work, and see nothing of this checkout."""
        environ = {k: v for k, v in os.environ.items() if not k.startswith("PYTHON") and k != "VIRTUAL_ENV"}
        done = subprocess.run(
            [str(self.bin / command[0]), *command[1:]],
            cwd=self.folder,
            env=environ | {"HOME": str(self.folder)},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout}{done.stderr}"
        return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of this checkout."""
    folder = tmp_path_factory.mktemp("dist")
    run_uv("build", "--quiet", "--wheel", "--python", sys.executable, "--out-dir", str(folder))
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Installed:
    """The wheel in a virtual environment of its own."""
    venv = tmp_path_factory.mktemp("environment") / "venv"
    run_uv("venv", "--quiet", "--python", sys.executable, str(venv), indexes=False)
    python = str(venv / "bin" / "python")
    run_uv("pip", "install", "--quiet", "--python", python, str(wheel))
    return Installed(venv / "bin", tmp_path_factory.mktemp("elsewhere"))


def test_the_wheel_carries_every_base_image_and_scaffold_file(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    listed = subprocess.run(
        ["git", "ls-files", "-z", "scaffolds", "base_images/catalogue.toml", "base_images/Dockerfile.j2"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    carried = {f"builder/_data/{name}" for name in listed.split("\0") if name}
    assert any(name.endswith("/.dockerignore") for name in carried)
    assert carried - names == set()
    folder = ROOT / "base_images/entrypoint"
    code = (folder / "trainpack_entrypoint").rglob("*.py")
    assert {path.relative_to(folder).as_posix() for path in code} <= names
    assert {"trainpack.py", "builder/py.typed", "builder/templates/Dockerfile.j2"} <= names


def test_the_wheel_holds_nothing_but_the_package(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    tops = {name.split("/")[0] for name in names}
    metadata = next(top for top in tops if top.endswith(".dist-info"))
    assert tops == {"builder", "trainpack_entrypoint", "trainpack.py", metadata}
    assert f"{metadata}/licenses/LICENSE" in names
    assert [name for name in names if "__pycache__" in name or name.endswith(".pyc")] == []


def test_the_installed_command_answers_from_any_folder(installed: Installed) -> None:
    printed = installed.run("trainpack", "--help")
    assert all(name in printed for name in COMMANDS)
    assert str(ROOT) not in installed.run("python", "-c", "import builder; print(builder.__file__)")


def test_the_installed_command_makes_a_repo_from_each_scaffold(installed: Installed) -> None:
    listed = installed.run("trainpack", "init", "--list")
    for name in ("sklearn-tabular", "pytorch"):
        assert name in listed
        installed.run("trainpack", "init", name, "--no-input", "-v", f"project_slug={name}")
        original = ROOT / "scaffolds" / name / "{{ cookiecutter.project_slug }}"
        expected = {str(path.relative_to(original)) for path in original.rglob("*") if path.is_file()}
        made = installed.folder / name
        files = {str(path.relative_to(made)) for path in made.rglob("*") if path.is_file()}
        assert files == expected | {".trainpack-scaffold.json"}


def test_the_installed_command_knows_the_base_images(installed: Installed) -> None:
    printed = installed.run("trainpack", "base", "list")
    assert "cpu" in printed
    assert "cuda" in printed


def test_a_script_can_import_the_helper(installed: Installed) -> None:
    assert installed.run("python", "-c", "import trainpack; print(trainpack.parameters)") == "{}\n"


def test_pytest_finds_the_plugin_of_the_installed_wheel(installed: Installed) -> None:
    code = "from importlib.metadata import entry_points; print(*entry_points(group='pytest11'))"
    assert "builder.pytest_plugin" in installed.run("python", "-c", code)

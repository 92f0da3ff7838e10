"""The build context holds exactly what the Dockerfile reads, whatever happens while it is laid out."""

from __future__ import annotations

import hashlib
import json
import tomllib
from pathlib import Path

import pytest
from plans import SPEC, inputs

from builder.builders.contents import entrypoint_files, entrypoint_hash
from builder.builders.context import stage_context
from builder.code import read_code
from builder.errors import SpecError, TrainpackError
from builder.plan import BuildPlan, Distribution, make_plan
from builder.spec import parse_spec


@pytest.fixture
def project(tmp_path: Path) -> Path:
    folder = tmp_path / "project"
    folder.mkdir()
    (folder / "train.py").write_text("print(1)\n", encoding="utf-8")
    return folder


@pytest.fixture
def uv(tmp_path: Path) -> Path:
    path = tmp_path / "uv"
    path.write_bytes(b"uv")
    return path


def planned(project: Path, packages: tuple[Distribution, ...] = ()) -> BuildPlan:
    update = {"code": read_code(project).files, "packages": packages, "entrypoint_hash": entrypoint_hash()}
    return make_plan(parse_spec(SPEC), inputs().model_copy(update=update))


def test_code_and_manifest_are_one_tree_at_their_places_in_the_image(project: Path, uv: Path) -> None:
    target = project / "context"
    plan = planned(project)
    stage_context(plan, project, uv, target)
    assert (target / "app/opt/app/train.py").read_text(encoding="utf-8") == "print(1)\n"
    assert json.loads((target / "app/opt/trainpack/image.json").read_text(encoding="utf-8")) == plan.manifest


def test_times_follow_content_so_that_buildkit_sees_an_edit_of_the_same_size(project: Path, uv: Path) -> None:
    def staged_time() -> float:
        stage_context(planned(project), project, uv, project / "context")
        return (project / "context/app/opt/app/train.py").stat().st_mtime

    first, again = staged_time(), staged_time()
    (project / "train.py").write_text("print(2)\n", encoding="utf-8")
    assert first == again != staged_time()


def test_a_wheel_of_this_machine_is_laid_beside_the_lock_and_no_path_of_it_is_told(
    project: Path, uv: Path, tmp_path: Path
) -> None:
    wheel = tmp_path / "torch-2.13.0+cpu-py3-none-any.whl"
    wheel.write_bytes(b"wheel")
    local = Distribution(
        name="torch",
        version="2.13.0+cpu",
        filename=wheel.name,
        url=f"file://{tmp_path}/torch-2.13.0%2Bcpu-py3-none-any.whl",
        size=5,
        sha256=hashlib.sha256(b"wheel").hexdigest(),
    )
    stage_context(planned(project, (local,)), project, uv, project / "context")
    folder = project / "context/locks/light"
    text = (folder / "pylock.toml").read_text(encoding="utf-8")
    assert (folder / wheel.name).read_bytes() == b"wheel"
    assert tomllib.loads(text)["packages"][0]["wheels"][0]["path"] == wheel.name
    assert str(tmp_path) not in text


def test_a_file_that_changed_since_the_plan_stops_the_build_and_leaves_the_old_context(
    project: Path, uv: Path
) -> None:
    plan = planned(project)
    stage_context(plan, project, uv, project / "context")
    (project / "train.py").write_text("changed", encoding="utf-8")
    with pytest.raises(TrainpackError, match="changed while"):
        stage_context(plan, project, uv, project / "context")
    (project / "train.py").unlink()
    with pytest.raises(SpecError, match="cannot be read any more"):
        stage_context(plan, project, uv, project / "context")
    assert (project / "context/app/opt/app/train.py").read_text(encoding="utf-8") == "print(1)\n"
    assert [path.name for path in project.iterdir() if "context" in path.name] == ["context"]


def test_the_entrypoint_that_is_baked_is_the_one_that_is_imported_here() -> None:
    names = entrypoint_files()
    assert {
        "trainpack.py",
        "trainpack_entrypoint/__main__.py",
        "trainpack_entrypoint/schema.py",
    } <= names.keys()

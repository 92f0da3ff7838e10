"""The revision is the last commit that touched the build context."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from builder.revision import revision


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    git(tmp_path, "init", "--quiet")
    (tmp_path / "train.py").write_text("1", encoding="utf-8")
    commit(tmp_path)
    return tmp_path


def git(folder: Path, *arguments: str) -> str:
    identity = ["-c", "user.name=t", "-c", "user.email=t@example.com"]
    return subprocess.run(
        ["git", "-C", folder, *identity, *arguments], capture_output=True, text=True, check=True
    ).stdout.strip()


def commit(folder: Path) -> str:
    git(folder, "add", "--all")
    git(folder, "commit", "--quiet", "--message", "change")
    return git(folder, "rev-parse", "HEAD")


def test_a_commit_outside_the_context_does_not_move_it(repository: Path) -> None:
    before = revision(repository, ["train.py"])
    (repository / "README.md").write_text("new", encoding="utf-8")
    assert commit(repository) != before
    assert revision(repository, ["train.py"]) == before


def test_a_change_or_an_untracked_file_is_dirty(repository: Path) -> None:
    clean = revision(repository, ["train.py"])
    (repository / "new.py").write_text("", encoding="utf-8")
    assert revision(repository, ["train.py"]) == clean
    assert revision(repository, ["train.py", "new.py"]) == f"{clean}-dirty"
    (repository / "train.py").write_text("2", encoding="utf-8")
    assert revision(repository, ["train.py"]) == f"{clean}-dirty"


def test_without_a_repository_there_is_none(tmp_path: Path) -> None:
    assert revision(tmp_path, ["train.py"]) is None

"""The git revision of a build context."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Sequence
from pathlib import Path

# The kernel takes 2 MiB of arguments; beyond this many paths the whole folder is asked for.
_MAX_PATHS = 5000


def is_dirty(commit: str | None) -> bool:
    """Whether a revision stands for files that differ from those of its commit."""
    return bool(commit) and str(commit).endswith("-dirty")


def revision(folder: Path, paths: Sequence[str]) -> str | None:
    """The last commit that touched one of `paths`, plus `-dirty` when one differs from it or is untracked.

    None when the folder is in no git repository or no commit touched these files. Commits that touch
    nothing of the image leave the revision, and so the tag, as they are.
    """
    selected = list(paths) if len(paths) <= _MAX_PATHS else ["."]
    commit = _git(folder, "log", "-1", "--format=%H", "--", *selected)
    if not commit:
        return None
    changed = _git(folder, "status", "--porcelain", "--untracked-files=all", "--", *selected)
    return f"{commit}-dirty" if changed else commit


def _git(folder: Path, *arguments: str) -> str | None:
    command = ["git", "-C", str(folder), "--literal-pathspecs", *arguments]
    try:
        # Looking at a repository leaves its index as it is: its time tells whether anything was staged.
        environment = {**os.environ, "GIT_OPTIONAL_LOCKS": "0"}
        done = subprocess.run(
            command, capture_output=True, text=True, errors="replace", check=False, env=environment
        )
    except FileNotFoundError:
        return None
    return done.stdout.strip() if done.returncode == 0 else None

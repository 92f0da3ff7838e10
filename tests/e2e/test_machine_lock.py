"""Locking against what this machine has configured."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from packaging.utils import parse_wheel_filename

from builder.bases import glibc_of
from builder.lock.pylock import lock_project, read_lock
from builder.lock.target import tags
from builder.package_index import index_settings
from builder.spec import TrainingSpec, parse_spec

SPEC = '[image]\nname = "registry.example.com/a/b"\ntorch = "cpu"\n[run]\nscript = "train.py"\n'


def cpu_wheels(spec: TrainingSpec, glibc: str) -> set[str]:
    """The CPU wheels of torch for the image in the find-links folders of this machine."""
    fitting = set(tags(spec.image, glibc))
    folders = [Path(place) for place in index_settings(os.environ).find_links]
    names = [file.name for folder in folders if folder.is_dir() for file in folder.glob("torch-*+cpu*.whl")]
    return {name for name in names if parse_wheel_filename(name)[3] & fitting}


@pytest.mark.slow
def test_torch_cpu_locks_the_cpu_wheel_of_a_configured_folder(tmp_path: Path) -> None:
    spec = parse_spec(SPEC)
    glibc = glibc_of(spec.image.python)
    wheels = cpu_wheels(spec, glibc)
    if not wheels:
        pytest.skip("no configured find-links folder has a CPU wheel of torch for the image")
    (tmp_path / "requirements.txt").write_text("torch\n")
    lock_project(spec, tmp_path, glibc=glibc, environ=os.environ)
    lock = read_lock(spec, tmp_path, glibc=glibc)
    [torch] = [package for package in lock.packages if package.name == "torch"]
    assert torch.filename in wheels
    assert torch.url.startswith("file:")
    assert (lock.cuda, lock.driver) == (None, None)

"""Locking against what this machine has configured."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from machine import SPEC, cpu_wheels_of_torch

from builder.bases import glibc_of
from builder.lock.pylock import lock_project, read_lock
from builder.spec import parse_spec


@pytest.mark.slow
def test_torch_cpu_locks_the_cpu_wheel_of_a_configured_folder(tmp_path: Path) -> None:
    wheels = cpu_wheels_of_torch()
    if not wheels:
        pytest.skip("no configured find-links folder has a CPU wheel of torch for the image")
    spec = parse_spec(SPEC)
    glibc = glibc_of(spec.image.python)
    (tmp_path / "requirements.txt").write_text("torch\n")
    lock_project(spec, tmp_path, glibc=glibc, environ=os.environ)
    lock = read_lock(spec, tmp_path, glibc=glibc)
    [torch] = [package for package in lock.packages if package.name == "torch"]
    assert torch.filename in wheels
    assert torch.url.startswith("file:")
    assert (lock.cuda, lock.driver) == (None, None)

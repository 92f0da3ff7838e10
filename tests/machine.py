"""What this machine has that others may lack."""

from __future__ import annotations

import os
from pathlib import Path

from packaging.utils import parse_wheel_filename

from builder.bases import glibc_of
from builder.host.package_index import index_settings
from builder.lock.target import tags
from builder.spec import parse_spec

SPEC = '[image]\nname = "registry.example.com/a/b"\ntorch = "cpu"\n[run]\nscript = "train.py"\n'


def cpu_wheels_of_torch() -> set[str]:
    """The CPU wheels of torch for an image, in the find-links folders that this machine has configured."""
    spec = parse_spec(SPEC)
    fitting = set(tags(spec.image, glibc_of(spec.image.python)))
    folders = [Path(place) for place in index_settings(os.environ).find_links]
    names = [file.name for folder in folders if folder.is_dir() for file in folder.glob("torch-*+cpu*.whl")]
    return {name for name in names if parse_wheel_filename(name)[3] & fitting}

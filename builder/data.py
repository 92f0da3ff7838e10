"""Where the data files of the package lie: in a wheel below `builder/_data`, in a checkout in place."""

from __future__ import annotations

from pathlib import Path


def base_images() -> Path:
    """The folder of the bases' catalogue and Dockerfile template."""
    return _folder("base_images")


def scaffolds() -> Path:
    """The folder of the cookiecutter templates."""
    return _folder("scaffolds")


def _folder(name: str) -> Path:
    package = Path(__file__).parent
    installed = package / "_data" / name
    return installed if installed.is_dir() else package.parent / name

"""What every builder puts into an image beside wheels and code."""

from __future__ import annotations

import hashlib
from pathlib import Path

import trainpack_entrypoint

from builder.oci.tar import Entry
from builder.plan import TOOLS, VENV, Base, BuildPlan
from builder.wheels.environment import Environment


def entrypoint_files() -> dict[str, Path]:
    """The files that `import trainpack_entrypoint` and a script's `import trainpack` need, by name."""
    package = Path(trainpack_entrypoint.__file__).parent
    folder = package.parent
    files = {path.relative_to(folder).as_posix(): path for path in sorted(package.rglob("*.py"))}
    return files | {"trainpack.py": folder / "trainpack.py"}


def entrypoint_hash() -> str:
    """Hex digest over names and contents of the entrypoint's files."""
    digest = hashlib.sha256()
    for name, path in entrypoint_files().items():
        digest.update(f"{name}\0{hashlib.sha256(path.read_bytes()).hexdigest()}\n".encode())
    return digest.hexdigest()


def environments(plan: BuildPlan) -> list[Entry]:
    """The two environments before anything is installed into them: `uv venv` without its scripts."""
    home = python_home(plan.base)
    return [entry for prefix in (VENV, TOOLS) for entry in Environment(prefix, plan.python).skeleton(home)]


def python_home(base: Base) -> str:
    """The folder of a base's interpreter."""
    return "/usr/local/bin" if base.source == "upstream" else "/usr/bin"

"""For scripts that want it: parameters, labelmap, datasets, files, metrics and outputs of the run.

    import trainpack

    epochs = trainpack.parameters["epochs"]
    images = trainpack.dataset("train")
    weights = trainpack.file("weights.pt")
    trainpack.log_metric("accuracy", 0.97)
    trainpack.save("model.pt")

In a container everything comes from the entrypoint. Outside one, parameters, labelmap and dataset paths are
the defaults of `trainpack.toml` in the working directory, or beside the script or above it, files are below
`files/` beside it, and what is logged or saved goes to `outputs/` there. One file, standard library only.
"""

from __future__ import annotations

import functools
import json
import math
import os
import shutil
import sys
from pathlib import Path
from typing import Any

__all__ = ["dataset", "file", "labelmap", "log_metric", "parameters", "save"]

parameters: dict[str, Any]
labelmap: dict[str, str]

_SPEC = "trainpack.toml"
_LONG_FORM = frozenset(
    "default type required optional choices gt ge lt le argument argument-false help".split()
)
_steps: dict[str, int] = {}


def __getattr__(name: str) -> Any:
    # Read at first use: a script may import this module where neither a container nor a spec is.
    if name == "parameters":
        value: Any = _parameters()
    elif name == "labelmap":
        value = _labelmap()
    else:
        raise AttributeError(f"module 'trainpack' has no attribute {name!r}")
    globals()[name] = value
    return value


def dataset(alias: str) -> Path:
    """The folder (or file) of a dataset, by the alias it has under `[data]` or was mounted as.

    Raises:
        KeyError: No dataset has this alias.
        FileNotFoundError: Its path, outside a container, does not exist.
    """
    if inputs := os.environ.get("TRAINPACK_INPUTS"):
        folder = Path(inputs) / "datasets"
        known = sorted(entry.name for entry in folder.iterdir()) if folder.is_dir() else []
        path = folder / alias
    else:
        data = _spec().get("data", {})
        known, path = sorted(data), _project() / data.get(alias, alias)
    if alias not in known:
        raise KeyError(f"no dataset {alias!r}; there are: {', '.join(known) or 'none'}")
    if not path.exists():
        raise FileNotFoundError(f"dataset {alias!r}: {path} does not exist")
    return path


def file(name: str) -> Path:
    """A file (or folder) of the ModelVersion that the run starts from: weights, a config.

    Args:
        name: Its path below the files.

    Raises:
        FileNotFoundError: There is no such file.
    """
    inputs = os.environ.get("TRAINPACK_INPUTS")
    folder = Path(inputs or _project()) / "files"
    path = folder / name
    if not path.exists():
        known = sorted(entry.name for entry in folder.iterdir()) if folder.is_dir() else []
        raise FileNotFoundError(f"no file {name!r} in {folder}; there are: {', '.join(known) or 'none'}")
    return path


def log_metric(name: str, value: float, step: int | None = None) -> None:
    """Record one value of a metric.

    Args:
        value: Anything that `float()` takes, a 0-d tensor too; NaN and infinities are kept as null.
        step: Epoch or batch; counted up from 0 for each name unless given.
    """
    number = float(value)
    if step is None:
        step = _steps.get(name, -1) + 1
    _steps[name] = step
    line = json.dumps({"step": step, "name": name, "value": number if math.isfinite(number) else None})
    # One write to a file opened for appending: lines of several processes do not mix.
    with (_outputs() / "metrics.jsonl").open("ab", buffering=0) as file:
        file.write(line.encode() + b"\n")


def save(path: str | os.PathLike[str]) -> Path:
    """Copy a file or folder to the run's outputs, at its path relative to the working directory.

    Returns:
        Where it is now. What lies outside the working directory is put there by its name alone.
    """
    source = Path(path).resolve(strict=True)
    folder = Path.cwd()
    name = source.relative_to(folder) if source.is_relative_to(folder) else Path(source.name)
    target = _outputs() / name
    if source == target or source.is_relative_to(_outputs().resolve()):
        return source
    if source.is_dir():
        shutil.copytree(source, target, dirs_exist_ok=True, copy_function=_copy)
    else:
        target.parent.mkdir(parents=True, exist_ok=True)
        _copy(source, target)
    return target


def _copy(source: str | Path, target: str | Path) -> None:
    # In one step: a run that is stopped while it saves leaves the old file or the new one.
    partial = Path(f"{target}.trainpack-partial")
    shutil.copy2(source, partial)
    partial.replace(target)


def _outputs() -> Path:
    folder = Path(os.environ.get("TRAINPACK_OUTPUTS") or _project() / "outputs")
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _parameters() -> dict[str, Any]:
    if path := os.environ.get("TRAINPACK_PARAMETERS"):
        return dict(json.loads(Path(path).read_text(encoding="utf-8")))
    return {name: _default(entry) for name, entry in _spec().get("parameters", {}).items()}


def _default(entry: Any) -> Any:
    return entry.get("default") if isinstance(entry, dict) and entry.keys() & _LONG_FORM else entry


def _labelmap() -> dict[str, str]:
    path = os.environ.get("TRAINPACK_LABELMAP")
    if path is None:
        return dict(_spec().get("labelmap", {}))
    return dict(json.loads(Path(path).read_text(encoding="utf-8"))) if Path(path).is_file() else {}


def _spec() -> dict[str, Any]:
    import tomllib

    path = _project() / _SPEC
    return tomllib.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}


@functools.cache
def _project() -> Path:
    """The folder of `trainpack.toml`; the working directory when there is none."""
    script = getattr(sys.modules.get("__main__"), "__file__", None)
    folders = [Path.cwd(), *(Path(script).resolve().parents if script else ())]
    return next((folder for folder in folders if (folder / _SPEC).is_file()), folders[0])

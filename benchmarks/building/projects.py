"""The project that every builder builds: a script, a lock, and what changes between two builds."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import uuid
import zipfile
from collections.abc import Iterator, MutableMapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from builder.host.package_index import index_settings
from builder.lock.pylock import FILE as LOCK
from builder.lock.pylock import TOOLS_FILE
from builder.oci.cache import open_cache
from builder.plan import BuildPlan, Distribution
from builder.project import read_plan
from builder.wheels.download import Downloads

TRAINPACK = str(Path(sys.executable).with_name("trainpack"))
LIGHT = "trainpack-benchmark-light"
SMALL = ("numpy", "pandas", "scikit-learn", "pillow")
MODULES = {"numpy": "numpy", "pandas": "pandas", "scikit-learn": "sklearn", "pillow": "PIL", "torch": "torch"}
REQUIREMENTS = {"small": SMALL, "torch": (*SMALL, "torch")}
# So large is a light wheel of the small lock: joblib's has 50 modules.
LIGHT_MODULES = 50
_WHEEL_URL = re.compile(r'url = "[^"]+/([^"/]+\.whl)"')
_SCRIPT = """import argparse

import {modules}

parser = argparse.ArgumentParser()
parser.add_argument("--epochs", type=int, default=1)
print(parser.parse_args().epochs)
print("trained")
"""
_SPEC = """[image]
name = "{name}"
torch = "cpu"
bytecode = {bytecode}
[run]
script = "train.py"
[parameters]
epochs = 1
"""


@dataclass
class Project:
    """A training repo in a folder.

    Attributes:
        lock: `small` or `torch`.
        name: The repository of its image.
        wheels: A folder that the package index settings name, for the light wheel.
        plan: What the last `lock_version` made.
    """

    folder: Path
    lock: str
    name: str
    bytecode: bool
    wheels: Path
    plan: BuildPlan = field(init=False)
    light: Path = field(init=False)
    _versions: int = 0

    @property
    def modules(self) -> str:
        """What the script imports, `numpy, pandas`."""
        return ", ".join(MODULES[name] for name in REQUIREMENTS[self.lock])

    @property
    def script(self) -> str:
        """The text of the script."""
        return _SCRIPT.format(modules=self.modules)

    def make(self) -> None:
        """Write it and lock it."""
        self.folder.mkdir(parents=True)
        (self.folder / "train.py").write_text(self.script, encoding="utf-8")
        spec = _SPEC.format(name=self.name, bytecode=str(self.bytecode).lower())
        (self.folder / "trainpack.toml").write_text(spec, encoding="utf-8")
        self.change_light()

    def change_light(self) -> None:
        """Require another version of the light dependency, and lock that."""
        self._versions += 1
        self.light = write_light_wheel(self.wheels, str(self._versions))
        required = [*REQUIREMENTS[self.lock], f"{LIGHT}=={self._versions}"]
        (self.folder / "requirements.txt").write_text("\n".join(required) + "\n", encoding="utf-8")
        subprocess.run([TRAINPACK, "lock"], cwd=self.folder, check=True, capture_output=True)
        self.plan = read_plan(self.folder, os.environ)

    @contextmanager
    def served_from(self, address: str) -> Iterator[None]:
        """Have its locks name a server for every wheel."""
        locks = {self.folder / name: (self.folder / name).read_text("utf-8") for name in (LOCK, TOOLS_FILE)}
        try:
            for lock, text in locks.items():
                lock.write_text(_WHEEL_URL.sub(rf'url = "{address}/\1"', text), encoding="utf-8")
            yield
        finally:
            for lock, text in locks.items():
                lock.write_text(text, encoding="utf-8")

    @property
    def packages(self) -> tuple[Distribution, ...]:
        """The script's own wheels."""
        return (*self.plan.heavy, *self.plan.light)

    def download(self, *, tools: bool = False) -> dict[str, Path]:
        """The script's wheels in the cache, by name: brought there where they are missing.

        Args:
            tools: The entrypoint's too.
        """
        downloads = Downloads(open_cache(), os.environ)
        wheels = (*self.packages, *(self.plan.tools if tools else ()))
        return {wheel.filename: downloads.fetch(wheel) for wheel in wheels}


def torch_wheel() -> Path | None:
    """A CPU build of torch in one of the configured find-links folders."""
    places = [Path(place) for place in index_settings(os.environ).find_links if "://" not in place]
    return next((wheel for place in places for wheel in place.glob("torch-*+cpu-*.whl")), None)


def offer(folder: Path, environ: MutableMapping[str, str]) -> None:
    """Add a folder of wheels to the package index settings."""
    settings = index_settings(environ)
    name, joint = ("UV_FIND_LINKS", ",") if settings.source == "uv" else ("PIP_FIND_LINKS", " ")
    environ[name] = joint.join([*settings.find_links, str(folder)])


def edit_line(script: Path) -> None:
    """Change the script's last line into one that nobody has seen before."""
    lines = script.read_text(encoding="utf-8").splitlines()
    script.write_text("\n".join([*lines[:-1], f"print('trained {uuid.uuid4()}')", ""]), encoding="utf-8")


def write_light_wheel(folder: Path, version: str) -> Path:
    """A pure wheel of some modules, the same in no two runs."""
    package, run = LIGHT.replace("-", "_"), uuid.uuid4()
    module = "".join(f"def f{number}(value):\n    return [value, {number}]\n\n\n" for number in range(60))
    files = {f"{package}/m{number}.py": f'"""{run}"""\n\n\n{module}' for number in range(LIGHT_MODULES)}
    return write_wheel(folder, LIGHT, version, {name: text.encode() for name, text in files.items()})


def write_wheel(folder: Path, name: str, version: str, files: dict[str, bytes]) -> Path:
    """A wheel for any Python and platform."""
    package = name.replace("-", "_")
    info = f"{package}-{version}.dist-info"
    wheel_text = "Wheel-Version: 1.0\nGenerator: trainpack\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    metadata = {
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n",
        f"{info}/WHEEL": wheel_text,
    }
    contents = files | {path: text.encode() for path, text in metadata.items()}
    record = "".join(f"{path},,\n" for path in [*contents, f"{info}/RECORD"])
    path = folder / f"{package}-{version}-py3-none-any.whl"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as wheel:
        for place, content in contents.items():
            wheel.writestr(place, content)
        wheel.writestr(f"{info}/RECORD", record)
    return path

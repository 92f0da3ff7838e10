"""The sides: each builds the same project, and pushes it, with the commands that its user would type."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Protocol

from builder.builders.context import stage_context
from builder.builders.dockerfile import render_dockerfile
from builder.engine import buildkit_cli
from builder.host.certificates import ca_bundle
from builder.host.package_index import index_settings, uv_arguments, uv_environment
from builder.host.tools import cache_folder, host_uv
from builder.oci.cache import open_cache
from builder.oci.tar import source_epoch
from builder.plan import TOOLS, VENV, BuildPlan
from builder.wheels.bytecode import find_interpreter
from builder.wheels.environment import Environment
from builder.wheels.packed import packed_key
from building.projects import TRAINPACK, Project, edit_line
from building.services import MARK

_BUILDKIT = {"DOCKER_BUILDKIT": "1", "BUILDX_BUILDER": "default", "BUILDX_NO_DEFAULT_ATTESTATIONS": "1"}
# What Picsellia's guide shows: requirements first, code last.
GUIDE = f"""FROM {{base}}
WORKDIR /experiment
COPY requirements.txt .
RUN python -m pip install -r requirements.txt # {MARK}
COPY . .
CMD ["python", "train.py"]
"""


class Side(Protocol):
    """One way to build; what a method is named after is what it is timed for.

    Attributes:
        keeps_packages: Whether a package that it brought for one image is there for the next.
    """

    name: str
    keeps_packages: bool

    @property
    def reference(self) -> str:
        """The image that was built last."""
        ...

    def chill(self) -> None:
        """Forget every layer, so that the next build is cold; packages stay."""
        ...

    def edit(self) -> None:
        """Change one line of the script."""
        ...

    def follow(self, project: Project) -> None:
        """Take over what the project's lock now says."""
        ...

    def build(self) -> None:
        """Build."""
        ...

    def publish(self) -> None:
        """Build and push."""
        ...

    def load(self) -> None:
        """Build; the image is in the engine afterwards."""
        ...


def run(command: Sequence[str], folder: Path, environment: Mapping[str, str] | None = None) -> str:
    """Run a command to its end; its output, which is shown when it fails."""
    done = subprocess.run(
        command,
        cwd=folder,
        env={**os.environ, **(environment or {})},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} ended with {done.returncode}:\n{done.stdout[-4000:]}")
    return done.stdout


class Trainpack:
    """trainpack's own builder, without an engine unless the image is loaded into one."""

    name = "trainpack"
    keeps_packages = True

    def __init__(self, project: Project) -> None:
        self._project = project

    @property
    def reference(self) -> str:
        from builder.workdir import last_build  # noqa: PLC0415

        return last_build(self._project.folder).reference

    def chill(self, *, compiled: bool = True) -> None:
        """Forget every layer; packages stay, and with `compiled` their byte code."""
        kept = set(self._packages(compiled=compiled))
        for file in [path for path in open_cache().folder.rglob("*") if path.is_file()]:
            if file.name not in kept:
                file.unlink()
        shutil.rmtree(self._project.folder / ".trainpack", ignore_errors=True)

    def _packages(self, *, compiled: bool) -> Iterator[str]:
        """The names of the cache's files that are kept of a package, not of an image."""
        plan, cache = self._project.plan, open_cache()
        interpreter = find_interpreter(plan.python, plan.base.reference) if plan.bytecode else None
        epoch = source_epoch(os.environ)
        for prefix, wheels in ((VENV, (*plan.heavy, *plan.light)), (TOOLS, plan.tools)):
            for wheel in wheels:
                yield wheel.sha256
                if compiled:
                    key = packed_key(wheel, Environment(prefix, plan.python), interpreter, epoch)
                    if layer := cache.recall(key):
                        yield from (key, layer.digest.removeprefix("sha256:"))

    def forget(self) -> None:
        """Forget the packages too."""
        shutil.rmtree(cache_folder() / "oci", ignore_errors=True)
        shutil.rmtree(self._project.folder / ".trainpack", ignore_errors=True)

    def edit(self) -> None:
        edit_line(self._project.folder / "train.py")

    def follow(self, project: Project) -> None:
        """The project is its own."""

    def build(self) -> None:
        self._run("--no-load")

    def publish(self) -> None:
        # What BuildKit pushes is an image and no documents about it.
        self._run("--no-load", "--push", "--no-attest")

    def load(self) -> None:
        self._run("--load")

    def _run(self, *options: str) -> None:
        run([TRAINPACK, "build", "--builder=oci", *options], self._project.folder)


class _Tagged:
    """What the docker-like sides share: a context with a script, and a tag for each build."""

    keeps_packages = False

    def __init__(self, context: Path, repository: str, script: Path) -> None:
        self._context = context
        self._repository = repository
        self._script = script
        self._cold = False
        self._tag = "first"

    @property
    def reference(self) -> str:
        return f"{self._repository}:{self._tag}"

    def chill(self) -> None:
        self._cold = True
        self._tag = uuid.uuid4().hex[:12]

    def edit(self) -> None:
        edit_line(self._script)
        self._tag = uuid.uuid4().hex[:12]

    def _no_cache(self) -> list[str]:
        cold, self._cold = self._cold, False
        return ["--no-cache"] if cold else []


class BuildKit(_Tagged):
    """A Dockerfile by the docker command."""

    name = "BuildKit"

    def build(self) -> None:
        bundle = ca_bundle(os.environ)
        secrets = [f"--secret=id=ca,src={bundle}"] if bundle else []
        command = [buildkit_cli(), "build", "--quiet", f"--tag={self.reference}", *self._network, *secrets]
        run([*command, *self._no_cache(), "."], self._context, _BUILDKIT)

    _network: tuple[str, ...] = ()

    def publish(self) -> None:
        self.build()
        run([buildkit_cli(), "push", "--quiet", self.reference], self._context)

    load = build


class BuildKitUv(BuildKit):
    """The Dockerfile of trainpack's docker builder: the same plan, wheels by uv from a cache mount."""

    name = "BuildKit + uv"
    keeps_packages = True

    def __init__(self, project: Project, scratch: Path) -> None:
        context = scratch / "uv"
        super().__init__(context, f"{project.name}-uv", context / "app/opt/app/train.py")
        self._packages = MARK
        self._project = project
        self.follow(project)

    def follow(self, project: Project) -> None:
        self._project = project
        self._tag = uuid.uuid4().hex[:12]
        stage_context(project.plan, project.folder, host_uv(), self._context)
        self._write_dockerfile(project.plan)

    def forget(self) -> None:
        """Give it an empty package cache, and no layers."""
        self._packages = f"{MARK}-{uuid.uuid4().hex[:12]}"
        self._write_dockerfile(self._project.plan)
        self.chill()

    def _write_dockerfile(self, plan: BuildPlan) -> None:
        text = render_dockerfile(plan).replace("id=trainpack-uv", f"id={self._packages}")
        text = text.replace("/var/cache/uv", f"/var/cache/{MARK}")
        (self._context / "Dockerfile").write_text(text, encoding="utf-8")


class BuildKitPip(BuildKit):
    """The guide's Dockerfile; wheels from a server on the loopback, so that no network is measured."""

    name = "BuildKit + pip"
    _network = ("--network=host",)

    def __init__(self, project: Project, scratch: Path, base: str) -> None:
        context = scratch / "pip"
        super().__init__(context, f"{project.name}-pip", context / "train.py")
        write_guide(context, project, base)

    def follow(self, project: Project) -> None:
        self._tag = uuid.uuid4().hex[:12]
        write_requirements(self._context, project)


class Legacy(_Tagged):
    """The same by the docker SDK, which only knows the legacy builder."""

    name = "legacy builder"

    def __init__(self, project: Project, scratch: Path, base: str) -> None:
        context = scratch / "legacy"
        super().__init__(context, f"{project.name}-legacy", context / "train.py")
        write_guide(context, project, base)

    def follow(self, project: Project) -> None:
        self._tag = uuid.uuid4().hex[:12]
        write_requirements(self._context, project)

    def build(self) -> None:
        self._run()

    def publish(self) -> None:
        self._run("--push")

    load = build

    def _run(self, *options: str) -> None:
        program = str(Path(__file__).with_name("legacy.py"))
        run([sys.executable, program, self.reference, *options, *self._no_cache()], self._context)


class Buildah(_Tagged):
    """The same by buildah, in a storage of its own."""

    name = "buildah"

    def __init__(self, project: Project, scratch: Path, base: str) -> None:
        context = scratch / "buildah"
        super().__init__(context, f"{project.name}-buildah", context / "train.py")
        self._storage = [f"--root={scratch / 'storage'}", f"--runroot={scratch / 'run'}"]
        write_guide(context, project, base)
        self._buildah("pull", f"docker-daemon:{base}")

    def follow(self, project: Project) -> None:
        self._tag = uuid.uuid4().hex[:12]
        write_requirements(self._context, project)

    def build(self) -> None:
        options = ["--runtime=runc", "--network=host", "--layers", "--pull-never", *self._no_cache()]
        self._buildah("build", *options, f"--tag={self.reference}", ".")

    def publish(self) -> None:
        self.build()
        self._buildah("push", "--tls-verify=false", self.reference, f"docker://{self.reference}")

    def load(self) -> None:
        self.build()
        self._buildah("push", self.reference, f"docker-daemon:{self.reference}")

    def close(self) -> None:
        """Let go of its storage's mounts, also those of a build that was interrupted, and end its step."""
        for process in Path("/proc").glob("[0-9]*/cmdline"):
            with suppress(OSError):
                if MARK.encode() in process.read_bytes():
                    os.kill(int(process.parent.name), signal.SIGKILL)
        below = self._context.parent
        for line in reversed(Path("/proc/self/mounts").read_text(encoding="utf-8").splitlines()):
            place = line.split()[1]
            if Path(place).is_relative_to(below):
                run(["umount", place], Path("/"))

    def _buildah(self, command: str, *arguments: str) -> None:
        run(["buildah", *self._storage, command, *arguments], self._context)


def write_guide(context: Path, project: Project, base: str) -> None:
    """A context with the guide's Dockerfile."""
    context.mkdir(parents=True)
    (context / "Dockerfile").write_text(GUIDE.format(base=base), encoding="utf-8")
    (context / "train.py").write_text(project.script, encoding="utf-8")
    write_requirements(context, project)


def write_requirements(context: Path, project: Project) -> None:
    """The lock as requirements, exact versions."""
    lines = sorted(f"{wheel.name}=={wheel.version}" for wheel in project.packages)
    (context / "requirements.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")


def make_pip_base(project: Project, scratch: Path, wheels: str) -> str:
    """The plan's base with an environment that has pip, as the guide's base has; in the engine.

    Args:
        wheels: The address where pip finds wheels; the index is not asked.
    """
    context, tag = scratch / "pip-base", f"{project.name}-pip-base:{project.plan.python}"
    target = context / "pip"
    settings = index_settings(os.environ)
    command = [
        str(host_uv()),
        "pip",
        "install",
        "--quiet",
        f"--target={target}",
        *uv_arguments(settings),
        "pip",
    ]
    context.mkdir(parents=True)
    run(command, context, uv_environment(settings, os.environ))
    compiled = "" if project.bytecode else " PIP_NO_COMPILE=1"
    site = f"{VENV}/lib/python{project.plan.python}/site-packages"
    (context / "Dockerfile").write_text(
        f"FROM {project.plan.base.reference}\nUSER 0\nENTRYPOINT []\n"
        f"ENV PATH={VENV}/bin:$PATH PIP_NO_CACHE_DIR=1 PIP_NO_INDEX=1 PIP_FIND_LINKS={wheels}{compiled}\n"
        f"RUN python3 -m venv --without-pip {VENV} # {MARK}\nCOPY pip/ {site}/\n",
        encoding="utf-8",
    )
    run([buildkit_cli(), "build", "--quiet", f"--tag={tag}", "."], context, _BUILDKIT)
    return tag


Make = Callable[[Project, Path, str], Side]
SIDES: dict[str, Make] = {
    "trainpack": lambda project, scratch, base: Trainpack(project),
    "buildkit-uv": lambda project, scratch, base: BuildKitUv(project, scratch),
    "buildkit-pip": BuildKitPip,
    "legacy": Legacy,
    "buildah": Buildah,
}

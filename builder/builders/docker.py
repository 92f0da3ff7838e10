"""The docker builder: BuildKit, driven through the docker command line, builds the rendered Dockerfile.

The docker SDK cannot drive BuildKit (docker-py#2230), so builds alone go through the command line.
"""

from __future__ import annotations

import fcntl
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from builder import engine
from builder.bases import package_sources
from builder.builders.context import stage_context
from builder.builders.progress import Step, read_progress, show, step_places
from builder.errors import BuildError, EngineError
from builder.package_index import ca_bundle, index_settings, netrc_text, uv_arguments, uv_environment
from builder.plan import BuildPlan, BuiltImage
from builder.tools import uv_for
from builder.workdir import workdir, write_atomically

# The engine's own builder, whichever one buildx has selected: the image has to be in the engine.
BUILDKIT = {"DOCKER_BUILDKIT": "1", "BUILDX_BUILDER": "default", "BUILDX_NO_DEFAULT_ATTESTATIONS": "1"}
# Build arguments that BuildKit keeps out of the image and of its cache keys.
PROXIES = ("http_proxy", "https_proxy", "no_proxy", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY")
_SHOWN_LINES = 20


class DockerBuilder:
    """Builds with the engine's BuildKit."""

    def __init__(self, environ: Mapping[str, str], *, live: bool | None = None) -> None:
        """Make a builder.

        Args:
            environ: Where index, CA and engine settings come from.
            live: Show moving progress; None asks whether standard error is a terminal.
        """
        self._environ = environ
        self._live = sys.stderr.isatty() and not environ.get("CI") if live is None else live

    def build(self, plan: BuildPlan, folder: Path) -> BuiltImage:
        """Build the plan's image; see `builder.builders.Builder`."""
        engine.client()
        settings = index_settings(self._environ)
        uv = uv_for(plan.platform, uv_arguments(settings), uv_environment(settings, self._environ))
        context = workdir(folder) / "context"
        with _alone(workdir(folder) / "build.lock"), tempfile.TemporaryDirectory() as scratch:
            stage_context(plan, folder, uv, context)
            secrets = _secrets(plan, Path(scratch), self._environ)
            image_id = self._run(plan, context, secrets, Path(scratch) / "image-id")
        return _inspect(plan, image_id)

    def _run(self, plan: BuildPlan, context: Path, secrets: Mapping[str, Path], iidfile: Path) -> str:
        places = step_places((context / "Dockerfile").read_text(encoding="utf-8"))
        command = [engine.buildkit_cli(), "build", "--progress=plain", f"--iidfile={iidfile}"]
        command += [f"--tag={plan.reference}", f"--platform={plan.platform}"]
        command += [f"--secret=id={name},src={path}" for name, path in secrets.items()]
        command += [f"--build-arg={name}" for name in PROXIES if name in self._environ]
        environment = {**self._environ, **BUILDKIT}
        process = subprocess.Popen(
            [*command, str(context)],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
        )
        with _ended(process):
            assert process.stdout is not None  # noqa: S101  (Popen was given a pipe)
            titles = {number: title for number, (_, title) in places.items()}
            steps = show(read_progress(process.stdout, titles), live=self._live)
        if process.returncode != 0:
            raise failure(steps, places)
        return iidfile.read_text(encoding="ascii").strip()


@contextmanager
def _ended(process: subprocess.Popen[str]) -> Iterator[None]:
    """Leave no build behind: on Ctrl-C BuildKit's client is told to stop, and waited for."""
    try:
        yield
    except BaseException:
        process.send_signal(signal.SIGINT)
        raise
    finally:
        process.wait()


@contextmanager
def _alone(path: Path) -> Iterator[None]:
    """One build at a time in a folder, since the context is laid out in place."""
    with path.open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print("another build of this folder is running; waiting for it", file=sys.stderr, flush=True)
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _secrets(plan: BuildPlan, scratch: Path, environ: Mapping[str, str]) -> dict[str, Path]:
    """The build's secrets as files: mounted while a step runs, in no layer and no cache key."""
    secrets = {}
    if bundle := ca_bundle(environ):
        secrets["ca"] = bundle
    texts = {"netrc": netrc_text(index_settings(environ), environ)}
    if plan.system_packages:
        texts["apt-sources"] = package_sources(plan.base, environ)
    for name, text in texts.items():
        if text:
            secrets[name] = scratch / name
            write_atomically(secrets[name], text, mode=0o600)
    return secrets


def _inspect(plan: BuildPlan, image_id: str) -> BuiltImage:
    attributes = engine.client().images.get(image_id).attrs
    return BuiltImage(
        reference=str(plan.reference),
        image_id=image_id,
        digest=None,
        tag=plan.tag,
        size=attributes["Size"],
        layers=tuple(attributes["RootFS"]["Layers"]),
    )


def failure(steps: list[Step], places: Mapping[int, tuple[int, str]]) -> EngineError:
    """What went wrong, from the steps of an ended build: the step, its line and its last words."""
    failed = next((step for step in steps if step.state == "failed"), None)
    tail = tuple(failed.tail if failed and failed.tail else steps[-1].tail if steps else ())[-_SHOWN_LINES:]
    remedy = None
    if any("no space left on device" in line.lower() for step in steps for line in step.tail):
        remedy = "the engine's disk is full: see `docker system df`; `docker builder prune` frees its cache"
    if failed is None:
        return EngineError("the engine ended the build", details=tail, remedy=remedy)
    line = places[failed.number][0] if failed.number else None
    return BuildError(
        f"the step failed: {failed.text}",
        place=f"Dockerfile:{line}" if line else "Dockerfile",
        details=tail,
        remedy=remedy or "`trainpack plan --dockerfile` shows the whole Dockerfile",
    )

"""BuildKit, driven through the docker command line.

The docker SDK cannot drive it (docker-py#2230), so builds alone go through the command line.
"""

from __future__ import annotations

import signal
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from builder.builders.progress import Events, Step, read_progress, step_places
from builder.engine import FULL_REMEDY, buildkit_cli, is_full
from builder.errors import BuildError, EngineError
from builder.host.package_index import redact

# The engine's own builder, whichever one buildx has selected: the image has to be in the engine.
_ENVIRONMENT = {"DOCKER_BUILDKIT": "1", "BUILDX_BUILDER": "default", "BUILDX_NO_DEFAULT_ATTESTATIONS": "1"}
# Build arguments that BuildKit keeps out of the image and of its cache keys.
_PROXIES = ("http_proxy", "https_proxy", "no_proxy", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY")
# `host` lets a build reach a proxy or a package index that listens on the engine's loopback alone.
NETWORK = "TRAINPACK_BUILD_NETWORK"
_SHOWN_LINES = 20

Follow = Callable[[Events], list[Step]]


def run_build(
    context: Path,
    *,
    tag: str,
    platform: str,
    secrets: Mapping[str, Path],
    environ: Mapping[str, str],
    follow: Follow,
) -> str:
    """Build the Dockerfile of a folder and return the image id.

    Args:
        secrets: Files that are mounted while a step runs, in no layer and no cache key.
        environ: The docker command's; proxies in it are handed to the build.
        follow: Shows the events of the build while it runs.

    Raises:
        BuildError: A step failed; with its line of the Dockerfile and its last words.
        EngineError: The build ended otherwise.
    """
    places = step_places((context / "Dockerfile").read_text(encoding="utf-8"))
    titles = {place: title for place, (_, title) in places.items()}
    with tempfile.TemporaryDirectory() as scratch:
        iidfile = Path(scratch) / "image-id"
        command = [buildkit_cli(), "build", "--progress=plain", f"--iidfile={iidfile}"]
        command += [f"--tag={tag}", f"--platform={platform}"]
        command += [f"--secret=id={name},src={path}" for name, path in secrets.items()]
        command += [f"--build-arg={name}" for name in _PROXIES if name in environ]
        command += [f"--network={environ[NETWORK]}"] if environ.get(NETWORK) else []
        with _started([*command, str(context)], {**environ, **_ENVIRONMENT}) as process:
            assert process.stdout is not None  # noqa: S101  (Popen was given a pipe)
            steps = follow(read_progress(process.stdout, titles))
        if process.returncode != 0:
            raise failure(steps, places)
        return iidfile.read_text(encoding="ascii").strip()


@contextmanager
def _started(command: Sequence[str], environment: Mapping[str, str]) -> Iterator[subprocess.Popen[str]]:
    """Leave no build behind: on Ctrl-C BuildKit's client is told to stop, and waited for."""
    process = subprocess.Popen(
        command,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
    )
    try:
        yield process
    except BaseException:
        process.send_signal(signal.SIGINT)
        raise
    finally:
        process.wait()


def failure(steps: Sequence[Step], places: Mapping[str, tuple[int, str]]) -> EngineError:
    """What went wrong, from the steps of an ended build: the step, its line and its last words."""
    failed = next((step for step in steps if step.state == "failed"), None)
    tail = tuple(failed.tail if failed and failed.tail else steps[-1].tail if steps else ())
    details = tuple(redact(line) for line in tail[-_SHOWN_LINES:])
    remedy = FULL_REMEDY if any(is_full(line) for step in steps for line in step.tail) else None
    if failed is None:
        return EngineError("the engine ended the build", details=details, remedy=remedy)
    line, _ = places.get(failed.place or "", (None, ""))
    return BuildError(
        f"the step failed: {failed.text}",
        place=f"Dockerfile:{line}" if line else "Dockerfile",
        details=details,
        remedy=remedy or "`trainpack doctor` checks engine, disk and network",
    )

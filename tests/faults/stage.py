"""One real container and the stand-in platform that it reports to: acted on while it runs, then looked at."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from docker.models.containers import Container
from docker.types import Mount
from picsellia_standin import Experiment, Job, Standin

from builder.engine import client
from builder.engine.containers import WORKSPACE, created, read_files, temporary_volume

PATIENCE = 60.0
RUNNING = "RUNNING"


@dataclass
class Stage:
    """A run under way."""

    platform: Standin
    experiment: Experiment
    job: Job
    container: Container
    output: bytearray = field(default_factory=bytearray)

    def wait_for(self, text: str) -> None:
        """Wait until the container has printed a text."""
        wait(lambda: text.encode() in self.output, f"the container prints {text!r}", self.told)

    def wait_until(self, reached: Callable[[], bool], what: str) -> None:
        """Wait until something holds."""
        wait(reached, what, self.told)

    def go(self) -> None:
        """Let a script that waits half way go on."""
        code, output = self.container.exec_run(["python3", "-c", f"open('{WORKSPACE}/go', 'w').close()"])
        assert code == 0, output

    def told(self) -> str:
        """What the container printed so far."""
        return self.output.decode(errors="replace")[-4000:]


def wait(reached: Callable[[], bool], what: str, told: Callable[[], str]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not reached():
        assert time.monotonic() < deadline, f"waited {PATIENCE:g} s until {what}:\n{told()}"
        time.sleep(0.02)


@dataclass(frozen=True)
class Ended:
    """What was left when the container had ended.

    Attributes:
        printed: The script's lines, as the container's standard output had them.
        told: The entrypoint's words.
        workspace: The files of the workspace, by relative path.
    """

    exit_code: int
    seconds: float
    printed: list[str]
    told: str
    result: dict[str, Any]
    failure: dict[str, Any]
    workspace: dict[str, bytes]

    @property
    def outputs(self) -> dict[str, bytes]:
        """The files of the outputs folder."""
        return below("outputs", self.workspace)


def below(folder: str, files: Mapping[str, bytes]) -> dict[str, bytes]:
    prefix = f"{folder}/"
    return {name.removeprefix(prefix): data for name, data in files.items() if name.startswith(prefix)}


@contextmanager
def staged(
    image: str,
    platform: Standin,
    command: Sequence[str],
    environment: Mapping[str, str],
    options: Mapping[str, Any],
    megabytes: int | None = None,
) -> Iterator[Stage]:
    """A container of the image, created and not started, with an experiment and a job to report to.

    Args:
        megabytes: How large its workspace is, when that matters.
    """
    experiment = platform.experiments[platform.add_experiment("faults", "run", parameters={"steps": 4})]
    job = platform.jobs[platform.add_job()]
    variables = {
        "api_token": platform.token,
        "host": platform.url,
        "organization_id": platform.organization_id,
        "experiment_id": experiment.id,
        "job_id": job.id,
        "TRAINPACK_GRACE": "2",
        **environment,
    }
    with workspace(image, megabytes) as volume:
        mounts = [Mount(WORKSPACE, volume)]
        with created(
            image,
            command=list(command),
            environment=variables,
            network_mode="host",
            mounts=mounts,
            **options,
        ) as container:
            yield Stage(platform, experiment, job, container)


@contextmanager
def workspace(image: str, megabytes: int | None) -> Iterator[str]:
    """A volume for the workspace; a small one is a tmpfs, which lasts only while a container holds it."""
    with temporary_volume("fault") as ordinary:
        if megabytes is None:
            yield ordinary
            return
        size = {"type": "tmpfs", "device": "tmpfs", "o": f"size={megabytes}m,mode=1777"}
        volume = client().volumes.create(f"{ordinary}-small", driver_opts=size)
        holder = {"entrypoint": ["sleep", "600"], "mounts": [Mount(WORKSPACE, volume.name)]}
        with created(image, **holder) as container:
            container.start()
            yield volume.name
        volume.remove()


def run(stage: Stage, act: Callable[[Stage], None]) -> Ended:
    """Start the container, act on it, and wait until it has ended."""
    stdout = bytearray()
    stream = stage.container.attach(stdout=True, stderr=True, stream=True, demux=True)
    reader = threading.Thread(target=_read, args=(stream, stdout, stage.output), daemon=True)
    start = time.monotonic()
    stage.container.start()
    reader.start()
    act(stage)
    code = int(stage.container.wait(timeout=PATIENCE)["StatusCode"])
    seconds = time.monotonic() - start
    reader.join(PATIENCE)
    files = {
        name: content
        for part in ("outputs", "result.json", "failure.json")
        for name, content in _named(part, read_files(stage.container, f"{WORKSPACE}/{part}"))
    }
    return Ended(
        exit_code=code,
        seconds=seconds,
        printed=stdout.decode(errors="replace").splitlines(),
        told="\n".join(line for line in stage.told().splitlines() if line.startswith("trainpack:")),
        result=_document(files.get("result.json")),
        failure=_document(files.get("failure.json")),
        workspace=files,
    )


def _named(part: str, files: Mapping[str, bytes]) -> Iterator[tuple[str, bytes]]:
    return ((f"{part}/{name}" if name else part, content) for name, content in files.items())


def _read(stream: Any, stdout: bytearray, output: bytearray) -> None:
    for out, err in stream:
        stdout += out or b""
        output += (out or b"") + (err or b"")


def _document(content: bytes | None) -> dict[str, Any]:
    return dict(json.loads(content)) if content else {}

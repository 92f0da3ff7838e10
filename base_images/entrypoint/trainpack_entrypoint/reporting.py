"""What Picsellia is told of a run: its image, log, metrics, outputs and end."""

from __future__ import annotations

import math
import os
import tempfile
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from trainpack_entrypoint.display import Message
from trainpack_entrypoint.packing import Artifact, artifacts
from trainpack_entrypoint.platform import Platform
from trainpack_entrypoint.spool import Spool
from trainpack_entrypoint.statuses import set_experiment_status, set_job_status, set_launched_status
from trainpack_entrypoint.transport import Patience, on_its_own

# The start of a training does not wait for long for what it can do without.
_START_PATIENCE = 10.0
# What there is for the final status, when the platform's time was used up before.
_LAST_WORD = 10.0
_STATUSES = {
    "success": ("SUCCESS", "SUCCEEDED"),
    "failed": ("FAILED", "FAILED"),
    "preempted": ("TERMINATED", "FAILED"),
}


class Reporter:
    """Reports to an experiment and a job, each of which may be missing.

    Args:
        patience: Seconds that a failing platform is tried for at the end of the run.
    """

    def __init__(self, platform: Platform, patience: float) -> None:
        self.host = platform.host
        self.status = "RUNNING"
        self._experiment, self._job = platform.experiment, platform.job
        self._patience = Patience(patience)

    @property
    def experiment(self) -> dict[str, str] | None:
        """What `result.json` says of the experiment."""
        if self._experiment is None:
            return None
        return {"id": str(self._experiment.id), "name": self._experiment.name, "status": self.status}

    @property
    def _targets(self) -> list[Any]:
        return [target for target in (self._experiment, self._job) if target is not None]

    def sends(self) -> list[Callable[[Message], None]]:
        """For the telemetry of experiment and job: what sends it a message, in a thread of its own."""
        return [_send_to(target) for target in self._targets]

    def begin(self, image: Mapping[str, str]) -> list[str]:
        """Record which image trains, and that it does; the problems."""
        if self._experiment is None:
            return []
        experiment, patience = self._experiment, Patience(_START_PATIENCE)
        problems = [patience.attempt("trainpack", lambda: experiment.log("trainpack", dict(image), "TABLE"))]
        if self._job is None:
            problems.append(
                patience.attempt("job status", lambda: set_launched_status(experiment, "RUNNING"))
            )
        return [problem for problem in problems if problem]

    def log_metrics(self, metrics: Iterable[Mapping[str, Any]]) -> list[str]:
        """Record each metric as a line; the problems."""
        lines: dict[str, list[float]] = {}
        for metric in metrics:
            if isinstance(metric["value"], int | float) and math.isfinite(metric["value"]):
                lines.setdefault(metric["name"], []).append(metric["value"])
        if self._experiment is None:
            return []
        problems = [self._log_line(name, values) for name, values in lines.items()]
        return [problem for problem in problems if problem]

    def _log_line(self, name: str, values: list[float]) -> str | None:
        line = _Line(self._experiment, name, values)
        return self._patience.attempt(f"metric {name}", line.write)

    def store(self, folder: str, files: Iterable[Mapping[str, Any]], temporary: str) -> list[str]:
        """Store each file and each folder of the outputs as an artifact of its name; the problems.

        Args:
            temporary: Where a folder is packed before it is sent.
        """
        if self._experiment is None:
            return []
        problems = [
            self._store(artifact, temporary)
            for artifact in artifacts(folder, [file["path"] for file in files])
        ]
        return [problem for problem in problems if problem]

    def _store(self, artifact: Artifact, temporary: str) -> str | None:
        try:
            with _place_below(temporary) as place:
                path = artifact.pack(place)
                return self._patience.attempt(f"output {artifact.name}", lambda: self._put(artifact, path))
        except OSError as error:
            return f"output {artifact.name}: it cannot be packed below {temporary}: {error.strerror or error}"

    def _put(self, artifact: Artifact, path: str) -> None:
        from picsellia.exceptions import ResourceConflictError

        try:
            self._experiment.store(artifact.name, path)
        except ResourceConflictError:
            # The artifact was made by a request whose answer was lost: now it is found, and updated.
            self._experiment.store(artifact.name, path)

    def store_log(self, spool: Spool, exit_code: int, temporary: str) -> list[str]:
        """Store the full log; the problems."""
        from trainpack_entrypoint.full_log import write_full_log

        try:
            with _place_below(temporary) as place:
                path = os.path.join(place, f"{self._targets[0].id}-logs.json")
                write_full_log(path, spool, exit_code)
                problems = [self._store_log(target, path) for target in self._targets]
        except OSError as error:
            problems = [f"log: it cannot be written below {temporary}: {error.strerror or error}"]
        return [problem for problem in problems if problem]

    def _store_log(self, target: Any, path: str) -> str | None:
        return self._patience.attempt("log", lambda: target.store_logging_file(path))

    def finish(self, outcome: str) -> list[str]:
        """Set the one final status on experiment and job; the problems.

        Args:
            outcome: `success`, `failed` or `preempted`.
        """
        status, job_status = _STATUSES[outcome]
        self._patience.grant(_LAST_WORD)
        attempt, problems = self._patience.attempt, []
        if self._experiment is not None:
            problems.append(attempt("status", lambda: set_experiment_status(self._experiment, status)))
        if self._job is not None:
            problems.append(attempt("job status", lambda: set_job_status(self._job, job_status)))
        elif self._experiment is not None:
            problems.append(attempt("job status", lambda: set_launched_status(self._experiment, status)))
        if not any(problems):
            self.status = status
        return [problem for problem in problems if problem]


def _place_below(temporary: str) -> tempfile.TemporaryDirectory[str]:
    os.makedirs(temporary, exist_ok=True)
    return tempfile.TemporaryDirectory(dir=temporary, prefix="trainpack-")


def _send_to(target: Any) -> Callable[[Message], None]:
    own = on_its_own(target)

    def send(message: Message) -> None:
        own.line_nb = message.number
        own.send_logging(message.content, message.part, special=message.special)

    return send


class _Line:
    """A metric's values on their way into a LINE log, which grows by what is sent: it is sent once."""

    def __init__(self, experiment: Any, name: str, values: list[float]) -> None:
        self._experiment = experiment
        self._name = name
        self._values = values
        self._before: tuple[Any] | None = None

    def write(self) -> None:
        """Send the values, unless a try whose answer was lost did."""
        held = self._held()
        if self._before is None:
            self._before = (held,)
        if held == self._before[0]:
            self._experiment.log(self._name, self._values, "LINE")

    def _held(self) -> Any:
        from picsellia.exceptions import ResourceNotFoundError

        try:
            return self._experiment.get_log(self._name).data
        except ResourceNotFoundError:
            return None

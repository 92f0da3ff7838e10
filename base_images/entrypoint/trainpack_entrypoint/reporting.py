"""What Picsellia is told of a run: its image, log, metrics, outputs and end.

How lines are shown (chapters, buffers, the exit code) is the protocol of the platform's own training images.
"""

from __future__ import annotations

import functools
import math
import os
from collections.abc import Iterable, Mapping
from typing import Any

from trainpack_entrypoint.platform import Platform
from trainpack_entrypoint.relay import CHAPTER
from trainpack_entrypoint.transport import Patience, new_session

_STATUSES = {
    "success": ("SUCCESS", "SUCCEEDED"),
    "failed": ("FAILED", "FAILED"),
    "preempted": ("TERMINATED", "FAILED"),
}


class Reporter:
    """Reports to an experiment and a job, each of which may be missing."""

    def __init__(self, platform: Platform) -> None:
        self.host = platform.host
        self.status = "RUNNING"
        self._experiment, self._job = platform.experiment, platform.job
        self._patience = Patience()
        self._part = f"{CHAPTER}Training"
        self._line = 0
        targets = [target for target in (self._experiment, self._job) if target is not None]
        self._telemetry = [self._own_connection(target) for target in targets]

    def _own_connection(self, target: Any) -> Any:
        """The same object behind a session of its own, which the relay's thread can use."""
        import copy

        result = copy.copy(target)
        result._connection = copy.copy(target.connection)
        result._connection.session = new_session()
        return result

    @property
    def experiment(self) -> dict[str, str] | None:
        """What `result.json` says of the experiment."""
        if self._experiment is None:
            return None
        return {"id": str(self._experiment.id), "name": self._experiment.name, "status": self.status}

    def log_image(self, image: Mapping[str, str]) -> str | None:
        """Record which image trains; the problem, if any."""
        if self._experiment is None:
            return None
        return self._patience.attempt(
            "trainpack", lambda: self._experiment.log("trainpack", dict(image), "TABLE")
        )

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
        return self._patience.attempt(f"metric {name}", lambda: self._experiment.log(name, values, "LINE"))

    def store(self, folder: str, files: Iterable[Mapping[str, Any]]) -> list[str]:
        """Store every output as an artifact named by its relative path; the problems."""
        if self._experiment is None:
            return []
        problems = [self._store(folder, file["path"]) for file in files]
        return [problem for problem in problems if problem]

    def _store(self, folder: str, path: str) -> str | None:
        name = path.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
        return self._patience.attempt(
            f"output {name}", lambda: self._experiment.store(name, os.path.join(folder, path))
        )

    def send(self, lines: list[str]) -> None:
        """Send lines to the telemetry of experiment and job: a chapter's heading, or lines of one chapter.

        Raises:
            Exception: Any failure of one of them.
        """
        is_heading = lines[0].startswith(CHAPTER)
        if is_heading:
            self._part = lines[0]
        for target in self._telemetry:
            target.line_nb = self._line
            if is_heading:
                target.send_logging(self._part, self._part)
            else:
                target.send_logging([line + "\n" for line in lines], self._part, special="buffer")
        self._line += len(lines)

    def send_exit_code(self, code: int) -> None:
        """Close the telemetry; a failure loses nothing that the status does not say."""
        for target in self._telemetry:
            target.line_nb = self._line
            send = functools.partial(target.send_logging, str(code), self._part, special="exit_code")
            self._patience.attempt("exit code", send)

    def finish(self, outcome: str) -> list[str]:
        """Set the one final status on experiment and job; the problems.

        Args:
            outcome: `success`, `failed` or `preempted`.
        """
        from picsellia.types.enums import JobRunStatus

        status, job_status = _STATUSES[outcome]
        self._patience.renew()
        problems = []
        if self._experiment is not None:
            problems.append(self._patience.attempt("status", lambda: self._experiment.update(status=status)))
        if self._job is not None:
            move = self._job.update_job_run_with_status
            problems.append(self._patience.attempt("job status", lambda: move(JobRunStatus(job_status))))
        if not any(problems):
            self.status = status
        return [problem for problem in problems if problem]

"""The status of a run on experiment and job: each is set once, also when the answer to that was lost."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


def set_experiment_status(experiment: Any, status: str) -> None:
    """Bring an experiment to a status."""
    _settle(experiment, status, lambda: experiment.update(status=status))


def set_job_status(job: Any, status: str) -> None:
    """Bring a job run to a status."""
    from picsellia.types.enums import JobRunStatus

    _settle(job, status, lambda: job.update_job_run_with_status(JobRunStatus(status)))


def set_launched_status(experiment: Any, status: str) -> None:
    """Bring the job that an experiment was launched as to a status; most experiments have none."""
    from trainpack_entrypoint.transport import is_permanent

    try:
        experiment.update_job_status(status)
    except Exception as error:
        if not is_permanent(error):
            raise


def _settle(target: Any, status: str, move: Callable[[], Any]) -> None:
    from picsellia.exceptions import BadRequestError

    if target.sync()["status"] == status:
        return
    try:
        move()
    except BadRequestError:
        # An earlier move may have been made after all, which makes this one illegal.
        if target.sync()["status"] != status:
            raise

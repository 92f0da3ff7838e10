"""Picsellia, through its own SDK: an experiment's inputs, and everything that is reported back.

Standard library only until `connect` is called. How lines are shown (chapters, buffers, the exit code) is the
protocol of the platform's own training images.
"""

from __future__ import annotations

import functools
import math
import os
import re
import time
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from trainpack_entrypoint.failures import RunError
from trainpack_entrypoint.relay import CHAPTER
from trainpack_entrypoint.sources import Source, object_of

if TYPE_CHECKING:
    from trainpack_entrypoint.platform_inputs import PlatformInputs

DEFAULT_HOST = "https://app.picsellia.com"
# Seconds that a failing platform is tried for, counted from the first failure of an unbroken row.
PATIENCE = 60.0
_TIMEOUTS = (10.0, 60.0)
_STATUSES = {
    "success": ("SUCCESS", "SUCCEEDED"),
    "failed": ("FAILED", "FAILED"),
    "preempted": ("TERMINATED", "FAILED"),
}
_UUID = re.compile(r"[0-9a-f]{8}-?([0-9a-f]{4}-?){3}[0-9a-f]{12}", re.IGNORECASE)
_IDS = ("organization_id", "experiment_id", "project_token", "job_id")


class Settings(NamedTuple):
    """What Picsellia's environment says; None for what it does not."""

    api_token: str
    host: str
    organization_id: str | None
    organization_name: str | None
    experiment_id: str | None
    experiment_name: str | None
    project_token: str | None
    project_name: str | None
    job_id: str | None


def settings_of(environment: Mapping[str, str], problems: list[str]) -> Settings | None:
    """The platform that an environment with an experiment or a job configures; None, with the problems."""
    values = {name: environment.get(name) or None for name in Settings._fields}
    known = len(problems)
    for name in _IDS:
        if (value := values[name]) and not _UUID.fullmatch(value):
            problems.append(f"{name}: {value!r} is not a UUID")
    if not values["api_token"]:
        problems.append("api_token: required when an experiment or a job is given")
    is_by_name = values["experiment_name"] and not values["experiment_id"]
    if is_by_name and not (values["project_token"] or values["project_name"]):
        problems.append("experiment_name: project_token or project_name is required beside it")
    if len(problems) > known:
        return None
    host = values.pop("host") or DEFAULT_HOST
    return Settings(api_token=values.pop("api_token") or "", host=host, **values)


def connect(settings: Settings, timeout: float, say: Callable[[str], None]) -> Platform:
    """Connect, read the experiment's inputs and say that it is running.

    Args:
        timeout: Seconds to wait for a platform that does not answer.

    Raises:
        RunError: `configuration` when the platform refuses what was configured, `platform` when it does not
            answer in time.
    """
    # Else the SDK prints to stdout, which belongs to the script, and draws progress bars.
    os.environ["PICSELLIA_SDK_CUSTOM_LOGGING"] = os.environ["TQDM_DISABLE"] = "1"
    deadline, pause, told = time.monotonic() + timeout, 0.5, False
    while True:
        try:
            return _attempt(settings, min(timeout, _TIMEOUTS[0]))
        except Exception as error:
            left = deadline - time.monotonic()
            _raise_if_final(error, settings, timeout, left)
            if not told:
                say(f"{settings.host} does not answer, trying for {timeout:g} s: {_reason(error)}")
        told = True
        time.sleep(min(pause, max(left, 0)))
        pause = min(2 * pause, 10.0)


def _raise_if_final(error: Exception, settings: Settings, timeout: float, left: float) -> None:
    from picsellia.exceptions import PicselliaError
    from requests import RequestException

    if _is_permanent(error):
        raise RunError("configuration", f"{settings.host} refused: {_reason(error)}") from None
    if not isinstance(error, PicselliaError | RequestException):
        raise error
    if left <= 0:
        message = f"{settings.host} did not answer within {timeout:g} s: {_reason(error)}"
        raise RunError("platform", message) from None


def _attempt(settings: Settings, timeout: float) -> Platform:
    from picsellia import Client

    session = _session()
    _probe(session, settings, timeout)
    client = Client(
        settings.api_token,
        organization_id=settings.organization_id,
        organization_name=settings.organization_name,
        host=settings.host,
        session=session,
    )
    platform = Platform(settings, _experiment(client, settings), _job(client, settings))
    platform.read_inputs()
    platform.set_running()
    return platform


def _session() -> Any:
    import requests

    class Impatient(requests.Session):
        """The SDK waits five minutes for an answer; a training container has no such time."""

        def request(self, *arguments: Any, **options: Any) -> requests.Response:
            return super().request(*arguments, **options | {"timeout": _TIMEOUTS})

    return Impatient()


def _probe(session: Any, settings: Settings, timeout: float) -> None:
    """Ask once, shortly: the SDK itself would try an address where nobody listens for 8 s."""
    from urllib.parse import urljoin

    import requests
    from picsellia.sdk.connection import check_status_code

    headers = {"Authorization": f"Bearer {settings.api_token}"}
    url = urljoin(settings.host, "/api/home/ping")
    response = requests.Session.request(session, "GET", url, headers=headers, timeout=timeout)
    check_status_code(response)


def _experiment(client: Any, settings: Settings) -> Any:
    if settings.experiment_id:
        return client.get_experiment_by_id(settings.experiment_id)
    if not settings.experiment_name:
        return None
    if settings.project_token:
        project = client.get_project_by_id(settings.project_token)
    else:
        project = client.get_project(settings.project_name)
    return project.get_experiment(settings.experiment_name)


def _job(client: Any, settings: Settings) -> Any:
    return client.get_job_by_id(settings.job_id) if settings.job_id else None


def _is_permanent(error: Exception) -> bool:
    """Whether asking again cannot help.

    Only the error itself counts: what the SDK was handling when it was raised says nothing of it.
    """
    from picsellia import exceptions
    from requests import exceptions as transport

    permanent = (
        exceptions.UnauthorizedError,
        exceptions.ForbiddenError,
        exceptions.ResourceNotFoundError,
        exceptions.BadRequestError,
        exceptions.ResourceConflictError,
        exceptions.ResourceLockedError,
        exceptions.InsufficientResourcesError,
        exceptions.RequestTooLargeError,
        exceptions.FileNotFoundException,
        transport.InvalidURL,
        transport.MissingSchema,
        transport.InvalidSchema,
        transport.InvalidHeader,
    )
    return isinstance(error, permanent)


def _reason(error: Exception) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())[:500]


class Platform:
    """An experiment and a job, each of which may be missing."""

    def __init__(self, settings: Settings, experiment: Any, job: Any) -> None:
        self._experiment = experiment
        self._job = job
        self._give_up: float | None = None
        self._part = f"{CHAPTER}Training"
        self._line = 0
        self.sources: list[Source] = []
        self.problems: list[str] = []
        self.status = "RUNNING"
        self.host = settings.host
        self._telemetry = [self._own_connection(target) for target in (experiment, job) if target is not None]

    def _own_connection(self, target: Any) -> Any:
        """The same object behind a session of its own, which the relay's thread can use."""
        import copy

        result = copy.copy(target)
        result._connection = copy.copy(target.connection)
        result._connection.session = _session()
        return result

    @property
    def experiment(self) -> dict[str, str] | None:
        """What `result.json` says of the experiment."""
        if self._experiment is None:
            return None
        return {"id": str(self._experiment.id), "name": self._experiment.name, "status": self.status}

    def read_inputs(self) -> None:
        """Read parameters and labelmap of the experiment, then of the ModelVersion that it starts from."""
        if self._experiment is None:
            return
        self.sources, self.problems = [self._experiment_source()], []
        if version := self._base_version():
            self.sources.append(self._version_source(version))

    def _experiment_source(self) -> Source:
        name = f"experiment {self._experiment.name}"
        parameters = object_of(self._log_data("parameters"), f"parameters of {name}", self.problems)
        return Source(name, parameters, self._log_data("labelmap") or None)

    def _log_data(self, name: str) -> Any:
        from picsellia.exceptions import ResourceNotFoundError

        try:
            return self._experiment.get_log(name).data
        except ResourceNotFoundError:
            return None

    def _base_version(self) -> Any:
        from picsellia.exceptions import NoBaseModelVersionError

        try:
            return self._experiment.get_base_model_version()
        except NoBaseModelVersionError:
            return None

    def _version_source(self, version: Any) -> Source:
        # The SDK's object shows neither: only the raw answer holds the parameters, under either name.
        raw, name = version.sync(), f"ModelVersion {version.origin_name}/{version.name}"
        parameters = raw.get("parameters") or raw.get("base_parameters")
        return Source(
            name, object_of(parameters, f"parameters of {name}", self.problems), raw.get("labels") or None
        )

    def inputs(self, patience: float, say: Callable[[str], None]) -> PlatformInputs | None:
        """The files and datasets that the experiment offers; None without one.

        Args:
            patience: Seconds without an answer after which the platform is given up.

        Raises:
            RunError: The platform refuses or does not answer.
        """
        from trainpack_entrypoint.platform_inputs import PlatformInputs

        if self._experiment is None:
            return None
        return PlatformInputs(self._own_connection(self._experiment), patience, say)

    def set_running(self) -> None:
        """Say that the run has begun."""
        from picsellia.types.enums import JobRunStatus

        if self._experiment is not None:
            self._experiment.update(status="RUNNING")
        if self._job is not None:
            self._job.update_job_run_with_status(JobRunStatus.RUNNING)

    def log_image(self, image: Mapping[str, str]) -> str | None:
        """Record which image trains; the problem, if any."""
        if self._experiment is None:
            return None
        return self._try("trainpack", lambda: self._experiment.log("trainpack", dict(image), "TABLE"))

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
        return self._try(f"metric {name}", lambda: self._experiment.log(name, values, "LINE"))

    def store(self, folder: str, files: Iterable[Mapping[str, Any]]) -> list[str]:
        """Store every output as an artifact named by its relative path; the problems."""
        if self._experiment is None:
            return []
        problems = [self._store(folder, file["path"]) for file in files]
        return [problem for problem in problems if problem]

    def _store(self, folder: str, path: str) -> str | None:
        name = path.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
        return self._try(f"output {name}", lambda: self._experiment.store(name, os.path.join(folder, path)))

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
            self._try("exit code", send)

    def finish(self, outcome: str) -> list[str]:
        """Set the one final status on experiment and job; the problems.

        Args:
            outcome: `success`, `failed` or `preempted`.
        """
        from picsellia.types.enums import JobRunStatus

        status, job_status = _STATUSES[outcome]
        self._give_up = None
        problems = []
        if self._experiment is not None:
            problems.append(self._try("status", lambda: self._experiment.update(status=status)))
        if self._job is not None:
            move = self._job.update_job_run_with_status
            problems.append(self._try("job status", lambda: move(JobRunStatus(job_status))))
        if not any(problems):
            self.status = status
        return [problem for problem in problems if problem]

    def _try(self, what: str, call: Callable[[], Any]) -> str | None:
        """Call until it succeeds, is refused, or the platform's time is up; the problem, if any."""
        pause = 0.5
        while True:
            try:
                call()
            except Exception as error:
                now = time.monotonic()
                self._give_up = self._give_up or now + PATIENCE
                if _is_permanent(error) or now + pause > self._give_up:
                    return f"{what}: {_reason(error)}"
                time.sleep(pause)
                pause = min(2 * pause, 10.0)
            else:
                self._give_up = None
                return None

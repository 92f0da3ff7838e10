"""Picsellia, through its own SDK: which experiment and job a run belongs to, and the connection to them.

Standard library only until `connect` is called.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from trainpack_entrypoint.failures import RunError
from trainpack_entrypoint.platform_inputs import read_inputs
from trainpack_entrypoint.sources import Source
from trainpack_entrypoint.statuses import set_experiment_status, set_job_status
from trainpack_entrypoint.transport import TIMEOUTS, Backoff, is_permanent, new_session, reason

if TYPE_CHECKING:
    from trainpack_entrypoint.experiment_inputs import ExperimentInputs

DEFAULT_HOST = "https://app.picsellia.com"
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
    deadline, backoff, told = time.monotonic() + timeout, Backoff(), False
    while True:
        try:
            return _attempt(settings, min(timeout, TIMEOUTS[0]))
        except Exception as error:
            left = deadline - time.monotonic()
            _raise_if_final(error, settings, timeout, left)
            if not told:
                say(f"{settings.host} does not answer, trying for {timeout:g} s: {reason(error)}")
            told = True
            time.sleep(min(backoff.after(error), left))


def _raise_if_final(error: Exception, settings: Settings, timeout: float, left: float) -> None:
    from picsellia.exceptions import PicselliaError
    from requests import RequestException

    if not isinstance(error, PicselliaError | RequestException):
        raise error
    if is_permanent(error):
        raise RunError("configuration", f"{settings.host} refused: {reason(error)}") from None
    if left <= 0:
        message = f"{settings.host} did not answer within {timeout:g} s: {reason(error)}"
        raise RunError("platform", message) from None


def _attempt(settings: Settings, timeout: float) -> Platform:
    from picsellia import Client

    session = new_session()
    _probe(session, settings, timeout)
    client = Client(
        settings.api_token,
        organization_id=settings.organization_id,
        organization_name=settings.organization_name,
        host=settings.host,
        session=session,
    )
    platform = Platform(settings.host, _experiment(client, settings), _job(client, settings))
    platform.sources, platform.problems = read_inputs(platform.experiment)
    platform.set_running()
    return platform


def _probe(session: Any, settings: Settings, timeout: float) -> None:
    """Ask once, for no longer than there is time."""
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


class Platform:
    """An experiment and a job, each of which may be missing.

    Attributes:
        experiment: The SDK's object.
        job: The SDK's object.
        sources: What experiment and ModelVersion say of parameters and labelmap, the strongest first.
        problems: What of that cannot be used.
    """

    def __init__(self, host: str, experiment: Any, job: Any) -> None:
        self.host = host
        self.experiment = experiment
        self.job = job
        self.sources: list[Source] = []
        self.problems: list[str] = []

    def inputs(self, patience: float, say: Callable[[str], None]) -> ExperimentInputs | None:
        """The files and datasets that the experiment offers; None without one.

        Args:
            patience: Seconds without an answer after which the platform is given up.

        Raises:
            RunError: The platform refuses or does not answer.
        """
        from trainpack_entrypoint.experiment_inputs import ExperimentInputs

        if self.experiment is None:
            return None
        return ExperimentInputs(self.experiment, patience, say)

    def set_running(self) -> None:
        """Say that the run has begun."""
        if self.experiment is not None:
            set_experiment_status(self.experiment, "RUNNING")
        if self.job is not None:
            set_job_status(self.job, "RUNNING")

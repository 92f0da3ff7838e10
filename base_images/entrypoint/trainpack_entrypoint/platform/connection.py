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
from trainpack_entrypoint.inputs.sources import Source
from trainpack_entrypoint.platform.parameters import read_inputs
from trainpack_entrypoint.platform.statuses import set_experiment_status, set_job_status
from trainpack_entrypoint.platform.transport import TIMEOUTS, Backoff, is_permanent, new_session, reason

if TYPE_CHECKING:
    from trainpack_entrypoint.platform.inputs import ExperimentInputs

DEFAULT_HOST = "https://app.picsellia.com"
_UUID = re.compile(r"[0-9a-f]{8}-?([0-9a-f]{4}-?){3}[0-9a-f]{12}", re.IGNORECASE)
_IDS = ("organization_id", "experiment_id", "project_token", "job_id")


class Account(NamedTuple):
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


def account_of(environment: Mapping[str, str], problems: list[str]) -> Account | None:
    """The platform that an environment with an experiment or a job configures; None, with the problems."""
    values = {name: environment.get(name) or None for name in Account._fields}
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
    return Account(api_token=values.pop("api_token") or "", host=host, **values)


def connect(account: Account, timeout: float, say: Callable[[str], None]) -> Platform:
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
            return _attempt(account, min(timeout, TIMEOUTS[0]))
        except Exception as error:
            left = deadline - time.monotonic()
            _raise_if_final(error, account, timeout, left)
            if not told:
                say(f"{account.host} does not answer, trying for {timeout:g} s: {reason(error)}")
            told = True
            time.sleep(min(backoff.after(error), left))


def _raise_if_final(error: Exception, account: Account, timeout: float, left: float) -> None:
    from picsellia.exceptions import PicselliaError
    from requests import RequestException

    if not isinstance(error, PicselliaError | RequestException):
        raise error
    if is_permanent(error):
        raise RunError("configuration", f"{account.host} refused: {reason(error)}") from None
    if left <= 0:
        message = f"{account.host} did not answer within {timeout:g} s: {reason(error)}"
        raise RunError("platform", message) from None


def _attempt(account: Account, timeout: float) -> Platform:
    from picsellia import Client

    session = new_session()
    _probe(session, account, timeout)
    client = Client(
        account.api_token,
        organization_id=account.organization_id,
        organization_name=account.organization_name,
        host=account.host,
        session=session,
    )
    platform = Platform(account.host, _experiment(client, account), _job(client, account))
    platform.sources, platform.problems = read_inputs(platform.experiment)
    platform.set_running()
    return platform


def _probe(session: Any, account: Account, timeout: float) -> None:
    """Ask once, for no longer than there is time."""
    from urllib.parse import urljoin

    import requests
    from picsellia.sdk.connection import check_status_code

    headers = {"Authorization": f"Bearer {account.api_token}"}
    url = urljoin(account.host, "/api/home/ping")
    response = requests.Session.request(session, "GET", url, headers=headers, timeout=timeout)
    check_status_code(response)


def _experiment(client: Any, account: Account) -> Any:
    if account.experiment_id:
        return client.get_experiment_by_id(account.experiment_id)
    if not account.experiment_name:
        return None
    if account.project_token:
        project = client.get_project_by_id(account.project_token)
    else:
        project = client.get_project(account.project_name)
    return project.get_experiment(account.experiment_name)


def _job(client: Any, account: Account) -> Any:
    return client.get_job_by_id(account.job_id) if account.job_id else None


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
        from trainpack_entrypoint.platform.inputs import ExperimentInputs

        if self.experiment is None:
            return None
        return ExperimentInputs(self.experiment, patience, say)

    def set_running(self) -> None:
        """Say that the run has begun."""
        if self.experiment is not None:
            set_experiment_status(self.experiment, "RUNNING")
        if self.job is not None:
            set_job_status(self.job, "RUNNING")

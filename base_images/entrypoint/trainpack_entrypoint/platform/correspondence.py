"""A run's correspondence with its platform: its inputs asked for, its log sent, its end told."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from trainpack_entrypoint.failures import UNSAVED, RunError
from trainpack_entrypoint.inputs.sources import Source
from trainpack_entrypoint.outcome.report import Report
from trainpack_entrypoint.paths import Paths
from trainpack_entrypoint.platform.connection import Account, Platform, connect
from trainpack_entrypoint.platform.inputs import ExperimentInputs
from trainpack_entrypoint.platform.log.relay import Relay
from trainpack_entrypoint.platform.log.spool import Spool
from trainpack_entrypoint.platform.reporting import Reporter
from trainpack_entrypoint.settings import Settings

# What is left of a log may be late, but the end of a run does not wait for it for long.
FLUSH_SECONDS = 30.0
Say = Callable[[str], None]


class Correspondence:
    """With the experiment and the job that a run belongs to.

    Args:
        say: Tells a line to people, and to the platform once it is connected.

    Raises:
        RunError: The platform refuses what was configured, or does not answer in time.
    """

    def __init__(self, account: Account, settings: Settings, paths: Paths, say: Say) -> None:
        self._settings = settings
        self._paths = paths
        self._say = say
        self._platform: Platform = connect(account, settings.connect_timeout, say)
        self._reporter = Reporter(self._platform, settings.save_timeout)
        self._spool = Spool(paths.workspace, settings.log_limit)
        self._relay = Relay(self._spool, self._reporter.sends())

    @property
    def sources(self) -> list[Source]:
        """What experiment and ModelVersion say of parameters and labelmap, the strongest first."""
        return self._platform.sources

    @property
    def problems(self) -> list[str]:
        """What of the sources cannot be used."""
        return self._platform.problems

    @property
    def experiment(self) -> dict[str, str] | None:
        """What `result.json` says of the experiment."""
        return self._reporter.experiment

    def begin(self, image: Mapping[str, str]) -> None:
        """Say which image trains, and that it does."""
        self._warn(self._reporter.begin(image))

    def inputs(self) -> ExperimentInputs | None:
        """The files and datasets that the experiment offers; None without one.

        Raises:
            RunError: The platform refuses or does not answer.
        """
        return self._platform.inputs(self._settings.connect_timeout, self._say)

    def send(self, lines: Sequence[bytes]) -> None:
        """Take lines of the log; never waits for the platform."""
        self._relay.add(lines)

    def end(
        self, report: Report, metrics: Sequence[Mapping[str, Any]], fail: Callable[[RunError], None]
    ) -> None:
        """Tell how the run ended: outputs, metrics, log and status.

        Args:
            fail: Takes what the platform did not, after which the report's exit code is another.
        """
        # Who sends a signal kills soon after: what must be known is told before what takes long.
        is_preempted = report.received is not None
        problems = self._reporter.finish(report.status) if is_preempted else []
        problems += self._reporter.store(self._paths.outputs, report.outputs.files, self._paths.temporary)
        self._warn(self._reporter.log_metrics(metrics))
        self._unsaved("does not hold every output", problems, fail)
        self._end_log(report.exit_code)
        if not is_preempted:
            self._unsaved("does not know how the run ended", self._reporter.finish(report.status), fail)

    def _end_log(self, code: int) -> None:
        if unsent := self._relay.close(code, min(FLUSH_SECONDS, self._settings.save_timeout)):
            self._say(f"warning: {unsent} lines of the log did not reach {self._reporter.host} in time")
        if self._spool.lost:
            self._say(f"warning: {self._spool.lost} lines were not kept for the full log")
        self._warn(self._reporter.store_log(self._spool, code, self._paths.temporary))

    def _unsaved(self, what: str, problems: Sequence[str], fail: Callable[[RunError], None]) -> None:
        if problems:
            fail(RunError("platform", f"{self._reporter.host} {what}", problems, code=UNSAVED))

    def _warn(self, problems: Sequence[str]) -> None:
        for problem in problems:
            self._say(f"warning: {problem}")

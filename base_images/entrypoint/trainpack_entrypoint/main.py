"""The order of things, from the container's start to its exit code."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NoReturn

from trainpack_entrypoint import workspace
from trainpack_entrypoint.command import script_command, script_environment
from trainpack_entrypoint.failures import UNSAVED, InterruptedEarlyError, RunError
from trainpack_entrypoint.manifest import Manifest
from trainpack_entrypoint.merge import Merged, merge, table
from trainpack_entrypoint.output import Lines
from trainpack_entrypoint.outputs import collect, read_metrics
from trainpack_entrypoint.paths import Paths
from trainpack_entrypoint.process import Signals, run_script, write_all
from trainpack_entrypoint.report import Report
from trainpack_entrypoint.secrets import Redactor, masked
from trainpack_entrypoint.sources import environment_source, mounted_sources

if TYPE_CHECKING:
    from trainpack_entrypoint.platform import Platform
    from trainpack_entrypoint.relay import Relay
    from trainpack_entrypoint.reporting import Reporter
    from trainpack_entrypoint.spool import Spool

GRACE_SECONDS = 7.0
_PLATFORM = ("experiment_id", "experiment_name", "job_id")
CONNECT_SECONDS = 300.0
# What is left of a log may be late, but the end of a run does not wait for it for long.
FLUSH_SECONDS = 30.0


def main(arguments: Sequence[str], root: str = "/") -> NoReturn:
    """Run the script of the image and exit with the container's code.

    Args:
        arguments: Given to the container, for the script.
        root: The folder that the contract's paths are below.
    """
    # The interpreter's own end would wait for threads that talk to a platform which may be away.
    os._exit(_Run(Paths.below(root), dict(os.environ)).run(arguments))


class _Run:
    def __init__(self, paths: Paths, environment: Mapping[str, str]) -> None:
        self.paths = paths
        self.environment = environment
        self.redactor = Redactor(environment)
        self.signals = Signals()
        self.report = Report(digest=environment.get("TRAINPACK_IMAGE_DIGEST"))
        self.lines = Lines(None)
        self.platform: Platform | None = None
        self.reporter: Reporter | None = None
        self.spool: Spool | None = None
        self.relay: Relay | None = None
        self.laid_out: dict[str, workspace.Stamp] = {}
        self.metrics: list[dict[str, Any]] = []
        self.patience = CONNECT_SECONDS

    def run(self, arguments: Sequence[str]) -> int:
        self.signals.install()
        try:
            self.train(arguments)
        except InterruptedEarlyError as interrupted:
            self.report.received = interrupted.number
        except RunError as error:
            self.report.failure = error
        except Exception as error:
            self.report.failure = self.internal(error)
        self.signals.end()
        try:
            self.finish()
        except Exception as error:
            self.report.failure = self.internal(error)
        return self.report.exit_code

    def internal(self, error: Exception) -> RunError:
        import traceback

        lines = "".join(traceback.format_exception(error)).splitlines()
        return RunError("internal", f"a fault of the entrypoint: {type(error).__name__}: {error}", lines)

    def say(self, *lines: str) -> None:
        text = [f"trainpack: {line}" for line in self.redactor.text("\n".join(lines)).splitlines()]
        encoded = [line.encode("utf-8", "backslashreplace") for line in text]
        write_all(2, b"\n".join(encoded) + b"\n")
        if self.relay:
            self.relay.add(encoded)

    def train(self, arguments: Sequence[str]) -> None:
        manifest = self.report.manifest = _read_manifest(self.paths)
        merged = self.report.merged = self.merge(manifest)
        for name, value in merged.parameters.items():
            if masked(name, value.value) is not value.value:
                self.redactor.add(value.value)
        self.say(*table(merged), *(f"warning: {warning}" for warning in merged.warnings))
        self.lay_out(manifest, merged)
        self.start(manifest, merged, arguments)

    def merge(self, manifest: Manifest) -> Merged:
        problems: list[str] = []
        self.signals.grace = self.seconds("TRAINPACK_GRACE", GRACE_SECONDS, problems)
        timeout = self.patience = self.seconds("TRAINPACK_CONNECT_TIMEOUT", CONNECT_SECONDS, problems)
        mounted = mounted_sources(self.paths, problems)
        if any(self.environment.get(name) for name in _PLATFORM):
            self.connect(manifest, timeout, problems)
        platform_sources = self.platform.sources if self.platform else []
        problems += self.platform.problems if self.platform else []
        # A mounted ModelVersion is as strong as the platform's, and more deliberate.
        sources = [environment_source(self.environment), *mounted[:2], *platform_sources[:1], *mounted[2:]]
        return merge(manifest.parameters, manifest.labelmap, [*sources, *platform_sources[1:]], problems)

    def seconds(self, name: str, default: float, problems: list[str]) -> float:
        text = self.environment.get(name)
        try:
            seconds = float(text) if text else default
        except ValueError:
            seconds = -1.0
        if not 0 <= seconds <= 1e9:
            problems.append(f"{name}: {text!r} is not a number of seconds")
        return seconds

    def bytes(self, name: str, default: int, problems: list[str]) -> int:
        text = self.environment.get(name)
        if text and not text.isdecimal():
            problems.append(f"{name}: {text!r} is not a number of bytes")
            return default
        return int(text) if text else default

    def connect(self, manifest: Manifest, timeout: float, problems: list[str]) -> None:
        from trainpack_entrypoint.platform import connect, settings_of
        from trainpack_entrypoint.relay import Relay
        from trainpack_entrypoint.reporting import Reporter
        from trainpack_entrypoint.spool import LIMIT, Spool
        from trainpack_entrypoint.transport import PATIENCE

        patience = self.seconds("TRAINPACK_SAVE_TIMEOUT", PATIENCE, problems)
        limit = self.bytes("TRAINPACK_LOG_LIMIT", LIMIT, problems)
        settings = settings_of(self.environment, problems)
        if settings is None:
            return
        self.platform = connect(settings, timeout, self.say)
        reporter = self.reporter = Reporter(self.platform, patience)
        spool = self.spool = Spool(self.paths.workspace, limit)
        self.relay = Relay(spool, reporter.sends())
        self.lines.deliver = self.relay.add
        image = {"image": manifest.name, "version": manifest.version, "lock": manifest.lock}
        image |= {"revision": manifest.revision or "", "digest": self.report.digest or ""}
        for problem in reporter.begin(image):
            self.say(f"warning: {problem}")

    def lay_out(self, manifest: Manifest, merged: Merged) -> None:
        downloaded = self.fetch_inputs(manifest, merged)
        values = {name: value.value for name, value in merged.parameters.items()}
        self.laid_out = workspace.lay_out(self.paths, manifest.data, values, merged.labelmap, downloaded)

    def fetch_inputs(self, manifest: Manifest, merged: Merged) -> Sequence[str] | None:
        """Download what the experiment gives; the aliases of its datasets, None without an experiment."""
        wanted = workspace.absent_datasets(self.paths, manifest.data)
        inputs = self.platform.inputs(self.patience, self.say) if self.platform else None
        attached = inputs.aliases if inputs else ()
        if missing := [alias for alias in wanted if alias not in attached]:
            raise _missing(self.paths, manifest.data, missing, has_experiment=inputs is not None)
        if inputs is None:
            return None
        if unused := sorted(set(attached) - manifest.data.keys()):
            self.say(f"attached but not in [data], and so not downloaded: {', '.join(map(repr, unused))}")
        inputs.fetch(self.paths, wanted, merged.labelmap)
        return wanted

    def start(self, manifest: Manifest, merged: Merged, arguments: Sequence[str]) -> None:
        values = {name: value.value for name, value in merged.declared.items()}
        shown = {name: masked(name, value) for name, value in values.items()}
        self.report.command = script_command(manifest, shown, arguments, self.paths)
        command = script_command(manifest, values, arguments, self.paths)
        environment = script_environment(self.environment, manifest, values, self.paths)
        code = run_script(command, environment, self.paths.code, self.signals, self.lines)
        self.report.received = self.signals.received
        self.report.script_ended(code)

    def finish(self) -> None:
        if self.report.script_exit_code is not None and self.report.manifest:
            self.write_report()
            self.collect(self.report.manifest)
        self.write_report()
        self.tell()
        if self.reporter:
            self.tell_platform(self.reporter)
            self.write_report()

    def collect(self, manifest: Manifest) -> None:
        data = manifest.data.values()
        self.report.outputs = collect(self.paths, self.laid_out, data, manifest.outputs_exclude)
        self.metrics = read_metrics(self.paths, self.report.outputs.files)
        self.report.metrics = {metric["name"]: metric["value"] for metric in self.metrics}
        if problems := self.report.outputs.problems:
            self.fail(
                RunError("workspace", "outputs could not be collected; they are in the workspace", problems)
            )

    def fail(self, failure: RunError) -> None:
        """Remember the first failure, and tell every one."""
        self.report.failure = self.report.failure or failure
        self.say(f"error: {failure.message}", *(f"  {problem}" for problem in failure.problems))

    def tell(self) -> None:
        report = self.report
        if report.exit_code == 0:
            self.say(f"saved {len(report.outputs.files)} output files")
        elif report.script_exit_code is None and report.received is None and report.failure:
            self.fail(report.failure)
        else:
            self.say(report.message)

    def tell_platform(self, reporter: Reporter) -> None:
        # Who sends a signal kills soon after: what must be known is told before what takes long.
        is_preempted = self.report.received is not None
        problems = reporter.finish(self.report.status) if is_preempted else []
        problems += reporter.store(self.paths.outputs, self.report.outputs.files, self.paths.temporary)
        for problem in reporter.log_metrics(self.metrics):
            self.say(f"warning: {problem}")
        self.unsaved(f"{reporter.host} does not hold every output", problems)
        if self.relay and self.spool:
            self.tell_log(reporter, self.relay, self.spool)
        if not is_preempted:
            self.unsaved(
                f"{reporter.host} does not know how the run ended", reporter.finish(self.report.status)
            )

    def unsaved(self, message: str, problems: Sequence[str]) -> None:
        if problems:
            self.fail(RunError("platform", message, problems, code=UNSAVED))

    def tell_log(self, reporter: Reporter, relay: Relay, spool: Spool) -> None:
        code = self.report.exit_code
        if unsent := relay.close(code, FLUSH_SECONDS):
            self.say(f"warning: {unsent} lines of the log did not reach {reporter.host} in time")
        if spool.lost:
            self.say(f"warning: {spool.lost} lines were not kept for the full log")
        for problem in reporter.store_log(spool, code, self.paths.temporary):
            self.say(f"warning: {problem}")

    def write_report(self) -> None:
        if self.reporter:
            self.report.experiment = self.reporter.experiment
        try:
            self.report.write(self.paths, self.lines.tail, self.redactor)
        except OSError as error:
            if self.report.failure is None:
                message = f"{error.filename}: {error.strerror}"
                self.fail(RunError("workspace", f"result.json could not be written: {message}"))


def _missing(
    paths: Paths, data: Mapping[str, str], aliases: Sequence[str], *, has_experiment: bool
) -> RunError:
    third = "attached to the experiment" if has_experiment else "given by an experiment, as there is none"
    problems = [
        f"dataset {alias!r}: not mounted at {paths.mount(f'datasets/{alias}')} (`trainpack run --data "
        f"{alias}=DIR`), not in the image at {data[alias]}, not {third}"
        for alias in aliases
    ]
    return RunError("missing-input", "missing input", problems)


def _read_manifest(paths: Paths) -> Manifest:
    try:
        with open(paths.manifest, encoding="utf-8") as file:
            return Manifest.from_json(json.load(file))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RunError(
            "internal", f"{paths.manifest} is unreadable: {type(error).__name__}: {error}"
        ) from None

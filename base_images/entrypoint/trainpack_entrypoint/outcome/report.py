"""`result.json` and `failure.json`: what happened, as documents that other programs read."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from trainpack_entrypoint.failures import RunError
from trainpack_entrypoint.inputs.merge import Merged
from trainpack_entrypoint.manifest import Manifest
from trainpack_entrypoint.outcome import resources
from trainpack_entrypoint.outcome.outputs import Outputs
from trainpack_entrypoint.paths import Paths
from trainpack_entrypoint.script.output import Lines
from trainpack_entrypoint.secrets import Redactor, masked

if TYPE_CHECKING:
    from trainpack_entrypoint.outcome.diagnosis import Diagnosis
    from trainpack_entrypoint.outcome.tracebacks import Raised

SCHEMA = 1


class Report:
    """Filled as the run goes; every exit code and status word is derived from it.

    Attributes:
        arguments: What the container was given for the script.
        script_exit_code: As a shell shows it, 128+n for a signal; None when the script never started.
        script_signal: The signal that ended the script itself.
        received: The signal that the container got.
        failure: Why the run ended early, or why its outputs are not safe.
    """

    def __init__(self, paths: Paths, environment: Mapping[str, str], lines: Lines) -> None:
        self.manifest: Manifest | None = None
        self.merged: Merged | None = None
        self.arguments: Sequence[str] = ()
        self.command: list[str] = []
        self.script_exit_code: int | None = None
        self.script_signal: int | None = None
        self.received: int | None = None
        self.failure: RunError | None = None
        self.outputs = Outputs()
        self.metrics: dict[str, Any] = {}
        self.experiment: dict[str, Any] | None = None
        self.digest = environment.get("TRAINPACK_IMAGE_DIGEST")
        self._paths = paths
        self._environment = environment
        self._lines = lines
        self._oom_kills = 0
        self._figures: tuple[resources.Figures, resources.Figures] | None = None
        self._started = time.time()
        self._clock = time.monotonic()

    def script_starts(self) -> None:
        """Note what earlier runs in the same control group have left."""
        self._oom_kills = resources.oom_kills(self._paths.cgroup)

    def script_ended(self, code: int) -> None:
        """Take the script's return code, negative for a signal, and how it left memory and disk."""
        self.script_signal = -code if code < 0 else None
        self.script_exit_code = 128 - code if code < 0 else code
        self._oom_kills = resources.oom_kills(self._paths.cgroup) - self._oom_kills
        self._figures = self._measure()

    def _measure(self) -> tuple[resources.Figures, resources.Figures]:
        return resources.memory(self._paths.cgroup), resources.disk(self._paths.workspace)

    @property
    def status(self) -> str:
        """`success`, `failed` or `preempted`."""
        if self.received is not None:
            return "preempted"
        return "success" if self.exit_code == 0 else "failed"

    @property
    def exit_code(self) -> int:
        """The container's exit code: signal, then script, then our own failure."""
        if self.received is not None:
            return 128 + self.received
        if self.script_exit_code:
            return self.script_exit_code
        return self.failure.code if self.failure else 0

    @property
    def message(self) -> str:
        """What happened, in one line, when the run did not succeed."""
        return self._diagnose()[0].message

    def _diagnose(self) -> tuple[Diagnosis, Raised | None, dict[str, resources.Figures]]:
        # Imported here: a run that succeeds needs neither.
        from trainpack_entrypoint.outcome.diagnosis import Facts, diagnose
        from trainpack_entrypoint.outcome.tracebacks import last_raised

        has_failed = bool(self.script_exit_code)
        errors = self._lines.errors if has_failed else []
        raised = last_raised(errors, os.path.realpath(self._paths.code))
        memory, disk = self._figures or self._measure()
        kills = self._oom_kills if self.script_exit_code is not None else 0
        facts = Facts(
            received=self.received,
            script_exit_code=self.script_exit_code,
            script_signal=self.script_signal,
            failure=self.failure,
            raised=raised,
            errors=errors,
            oom_kills=kills,
            memory_limit=memory["limit"],
            disk_free=disk["free"],
        )
        return diagnose(facts), raised, {"memory": {**memory, "oom_kills": kills}, "disk": disk}

    def result(self) -> dict[str, Any]:
        """The document of `result.json`."""
        merged, manifest = self.merged, self.manifest
        # The wall clock may jump: it is read once, the rest is told from the clock that cannot.
        seconds = time.monotonic() - self._clock
        return {
            "schema": SCHEMA,
            "status": self.status,
            "exit_code": self.exit_code,
            "script_exit_code": self.script_exit_code,
            "signal": self.received,
            "started": _timestamp(self._started),
            "finished": _timestamp(self._started + seconds),
            "seconds": round(seconds, 3),
            "command": self.command,
            "parameters": {
                name: {"value": masked(name, value.value), "source": value.source}
                for name, value in (merged.parameters if merged else {}).items()
            },
            "labelmap": merged.labelmap if merged else None,
            "labelmap_source": merged.labelmap_source if merged else None,
            "metrics": self.metrics,
            "outputs": self.outputs.files,
            "image": _image(manifest, self.digest) if manifest else None,
            "experiment": self.experiment,
        }

    def failed(self) -> dict[str, Any]:
        """The document of `failure.json`."""
        diagnosis, raised, figures = self._diagnose()
        return {
            "schema": SCHEMA,
            "cause": diagnosis.cause,
            "exit_code": self.exit_code,
            "signal": self.received or self.script_signal,
            "message": diagnosis.message,
            "problems": list(self.failure.problems) if self.failure else [],
            **(raised.to_json() if raised else {"exception": None, "location": None, "traceback": None}),
            "tail": self._lines.tail,
            **figures,
            "versions": _versions(self.manifest) if self.manifest else None,
            "run": self._repeat(self.manifest) if self.manifest else None,
        }

    def _repeat(self, manifest: Manifest) -> str:
        from trainpack_entrypoint.outcome.repeat import repeat_line

        mounted = self._paths.mount("datasets")
        datasets = sorted(os.listdir(mounted)) if os.path.isdir(mounted) else []
        return repeat_line(manifest, self.merged, self._environment, datasets, self.arguments)

    def write(self, redactor: Redactor) -> None:
        """Write both documents, each in one step.

        Raises:
            OSError: The workspace cannot be written.
        """
        _write(os.path.join(self._paths.workspace, "result.json"), redactor.document(self.result()))
        failure = os.path.join(self._paths.workspace, "failure.json")
        if self.exit_code:
            _write(failure, redactor.document(self.failed()))
        elif os.path.lexists(failure):
            os.unlink(failure)


def _versions(manifest: Manifest) -> dict[str, Any]:
    return {
        "trainpack": manifest.trainpack,
        "image": manifest.version,
        "python": ".".join(map(str, sys.version_info[:3])),
        "packages": manifest.packages,
    }


def _image(manifest: Manifest, digest: str | None) -> dict[str, str | None]:
    return {
        "name": manifest.name,
        "version": manifest.version,
        "lock": manifest.lock,
        "revision": manifest.revision,
        "digest": digest,
    }


def _timestamp(seconds: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))


def _write(path: str, document: Any) -> None:
    partial = path + ".partial"
    with open(partial, "w", encoding="utf-8") as file:
        json.dump(document, file, indent=1)
    os.replace(partial, path)


class Reserve:
    """Space that is kept free for the documents: a script may fill the disk, and they must still be written.

    Args:
        folder: The workspace.
    """

    _SIZES = (1 << 20, 1 << 18, 1 << 16)

    def __init__(self, folder: str) -> None:
        self._path = os.path.join(folder, ".reserve")

    def take(self) -> None:
        """Allocate it, or as much as there is."""
        try:
            descriptor = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
        except OSError:
            return
        try:
            self._allocate(descriptor)
        finally:
            os.close(descriptor)

    def _allocate(self, descriptor: int) -> None:
        for size in self._SIZES:
            try:
                os.posix_fallocate(descriptor, 0, size)
            except OSError:
                continue
            return

    def release(self) -> None:
        """Give it back."""
        try:
            os.unlink(self._path)
        except OSError:
            return

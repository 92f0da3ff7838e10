"""`result.json` and `failure.json`: what happened, as documents that other programs read."""

from __future__ import annotations

import json
import os
import signal
import time
from typing import Any

from trainpack_entrypoint.failures import RunError
from trainpack_entrypoint.manifest import Manifest
from trainpack_entrypoint.merge import Merged
from trainpack_entrypoint.outputs import Outputs
from trainpack_entrypoint.paths import Paths
from trainpack_entrypoint.secrets import Redactor, masked

SCHEMA = 1


class Report:
    """Filled as the run goes; every exit code and status word is derived from it.

    Attributes:
        script_exit_code: As a shell shows it, 128+n for a signal; None when the script never started.
        script_signal: The signal that ended the script itself.
        received: The signal that the container got.
        failure: Why the run ended early, or why its outputs are not safe.
    """

    def __init__(self, digest: str | None) -> None:
        self.manifest: Manifest | None = None
        self.merged: Merged | None = None
        self.command: list[str] = []
        self.script_exit_code: int | None = None
        self.script_signal: int | None = None
        self.received: int | None = None
        self.failure: RunError | None = None
        self.outputs = Outputs()
        self.metrics: dict[str, Any] = {}
        self.experiment: dict[str, Any] | None = None
        self.digest = digest
        self._started = time.time()
        self._clock = time.monotonic()

    def script_ended(self, code: int) -> None:
        """Take the script's return code, negative for a signal."""
        self.script_signal = -code if code < 0 else None
        self.script_exit_code = 128 - code if code < 0 else code

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
    def cause(self) -> str:
        """The `cause` of `failure.json`."""
        if self.received is not None or self.script_signal is not None:
            return "signal"
        if self.script_exit_code:
            return "script"
        return self.failure.cause if self.failure else "internal"

    @property
    def message(self) -> str:
        """What happened, in one line."""
        if self.received is not None:
            return f"{_signal_name(self.received)} stopped the run; the script {self._script_end()}"
        if self.script_signal is not None:
            return f"the script was ended by {_signal_name(self.script_signal)}"
        if self.script_exit_code:
            return f"the script ended with {self.script_exit_code}"
        return self.failure.message if self.failure else "the run succeeded"

    def _script_end(self) -> str:
        return "had not started" if self.script_exit_code is None else f"ended with {self.script_exit_code}"

    def result(self) -> dict[str, Any]:
        """The document of `result.json`."""
        now = time.time()
        merged, manifest = self.merged, self.manifest
        return {
            "schema": SCHEMA,
            "status": self.status,
            "exit_code": self.exit_code,
            "script_exit_code": self.script_exit_code,
            "signal": self.received,
            "started": _timestamp(self._started),
            "finished": _timestamp(now),
            "seconds": round(time.monotonic() - self._clock, 3),
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

    def failed(self, tail: list[str]) -> dict[str, Any]:
        """The document of `failure.json`."""
        return {
            "schema": SCHEMA,
            "cause": self.cause,
            "exit_code": self.exit_code,
            "message": self.message,
            "problems": list(self.failure.problems) if self.failure else [],
            "tail": tail,
        }

    def write(self, paths: Paths, tail: list[str], redactor: Redactor) -> None:
        """Write both documents, each in one step.

        Raises:
            OSError: The workspace cannot be written.
        """
        _write(os.path.join(paths.workspace, "result.json"), redactor.document(self.result()))
        failure = os.path.join(paths.workspace, "failure.json")
        if self.exit_code:
            _write(failure, redactor.document(self.failed(tail)))
        elif os.path.lexists(failure):
            os.unlink(failure)


def _image(manifest: Manifest, digest: str | None) -> dict[str, str | None]:
    return {
        "name": manifest.name,
        "version": manifest.version,
        "lock": manifest.lock,
        "revision": manifest.revision,
        "digest": digest,
    }


def _signal_name(number: int) -> str:
    try:
        return f"{signal.Signals(number).name} ({number})"
    except ValueError:
        return f"signal {number}"


def _timestamp(seconds: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))


def _write(path: str, document: Any) -> None:
    partial = path + ".partial"
    with open(partial, "w", encoding="utf-8") as file:
        json.dump(document, file, indent=1)
    os.replace(partial, path)

"""The script as a process: its own session, output copied as it comes, signals forwarded to its group."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from types import FrameType

from trainpack_entrypoint.failures import InterruptedEarlyError, RunError
from trainpack_entrypoint.output import Lines

DRAIN_SECONDS = 5.0
_STOPPING = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT)
# Schedulers warn with these; a script that handles them goes on, so they do not end the run.
_PASSING = (signal.SIGUSR1, signal.SIGUSR2)
_CHUNK = 1 << 16
# A pipe holds 64 KiB, 1 MiB at most.
_PIPE_READS = 64


class Signals:
    """What a signal to the container does.

    Before the script is started a stopping signal ends the run at once; while it runs, it is forwarded to
    the script's process group, which gets SIGKILL after the grace; afterwards it changes nothing.

    Attributes:
        received: The first stopping signal, as a number.
    """

    def __init__(self) -> None:
        self.received: int | None = None
        self.grace = 0.0
        self._group: int | None = None
        self._is_starting = False
        self._is_early = True

    def install(self) -> None:
        """Handle signals from now on; only in the main thread."""
        for number in _STOPPING:
            signal.signal(number, self._stop)
        for number in _PASSING:
            signal.signal(number, self._pass)
        signal.signal(signal.SIGALRM, self._kill)

    def start(
        self, command: Sequence[str], environment: Mapping[str, str], folder: str
    ) -> subprocess.Popen[bytes]:
        """Start the script in a session of its own; a signal that arrives meanwhile is forwarded."""
        self._is_starting, self._is_early = True, False
        try:
            process = subprocess.Popen(
                command,
                cwd=folder,
                env=environment,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                start_new_session=True,
            )
            self._group = process.pid
        finally:
            self._is_starting = False
        if self.received is not None:
            self._forward(self.received)
        return process

    def end(self) -> None:
        """The script has ended: end what it left running, and from now on change nothing."""
        self._is_early = False
        signal.setitimer(signal.ITIMER_REAL, 0)
        self._send(signal.SIGKILL)
        self._group = None

    def _stop(self, number: int, frame: FrameType | None) -> None:
        if self._is_early:
            self.received, self._is_early = number, False
            raise InterruptedEarlyError(number)
        if self._group is not None or self._is_starting:
            self.received = self.received or number
        self._forward(number)

    def _forward(self, number: int) -> None:
        self._send(number)
        if self._group is None or signal.getitimer(signal.ITIMER_REAL)[0]:
            return
        # A timer, not the copying loop: a reader that is slow to take output must not prolong the grace.
        signal.setitimer(signal.ITIMER_REAL, max(self.grace, 0.001))

    def _pass(self, number: int, frame: FrameType | None) -> None:
        self._send(number)

    def _kill(self, number: int, frame: FrameType | None) -> None:
        self._send(signal.SIGKILL)

    def _send(self, number: int) -> None:
        if self._group is not None:
            try:
                os.killpg(self._group, number)
            except (ProcessLookupError, PermissionError):
                return


def run_script(
    command: Sequence[str], environment: Mapping[str, str], folder: str, signals: Signals, lines: Lines
) -> int:
    """Run the script to its end.

    Returns:
        Its exit code, negative when a signal ended it.

    Raises:
        RunError: It cannot be started.
    """
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    signal.signal(signal.SIGCHLD, lambda number, frame: None)
    signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    try:
        process = signals.start(command, environment, folder)
    except OSError as error:
        raise RunError("configuration", f"cannot start {command[0]}: {error.strerror}") from None
    copier = _Copier(process, reader, lines)
    copier.run()
    signals.end()
    copier.finish()
    return process.returncode


class _Copier:
    """Copies the script's streams to ours, byte for byte, until it ends and for at most the drain."""

    def __init__(self, process: subprocess.Popen[bytes], wakeup: int, lines: Lines) -> None:
        assert process.stdout is not None
        assert process.stderr is not None
        self._process = process
        self._wakeup = wakeup
        self._lines = lines
        self._targets = {process.stdout.fileno(): 1, process.stderr.fileno(): 2}
        self._poll = select.poll()
        for descriptor in (*self._targets, wakeup):
            os.set_blocking(descriptor, False)
            self._poll.register(descriptor, select.POLLIN)

    def run(self) -> None:
        while self._process.poll() is None:
            self._copy_ready(1.0)
        drained = time.monotonic() + DRAIN_SECONDS
        while self._targets and (left := drained - time.monotonic()) > 0:
            self._copy_ready(left)

    def finish(self) -> None:
        """Take what is left in the pipes: what they hold, not what somebody may go on writing."""
        for _ in range(_PIPE_READS):
            if not self._targets or not self._copy_ready(0):
                break
        self._lines.close()

    def _copy_ready(self, seconds: float) -> bool:
        ready = [descriptor for descriptor, _ in self._poll.poll(seconds * 1000)]
        for descriptor in ready:
            if descriptor == self._wakeup:
                os.read(self._wakeup, _CHUNK)
            else:
                self._copy(descriptor)
        return bool(ready)

    def _copy(self, descriptor: int) -> None:
        data = os.read(descriptor, _CHUNK)
        if not data:
            self._poll.unregister(descriptor)
            del self._targets[descriptor]
            return
        target = self._targets[descriptor]
        write_all(target, data)
        self._lines.feed(target, data)


def write_all(descriptor: int, data: bytes) -> None:
    """Write everything; a reader that went away (a closed log) must not end the training."""
    view = memoryview(data)
    while view:
        try:
            view = view[os.write(descriptor, view) :]
        except BlockingIOError:
            select.select([], [descriptor], [])
        except OSError:
            return

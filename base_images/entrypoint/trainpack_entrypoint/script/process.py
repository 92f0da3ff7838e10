"""The script as a process: its own session, output copied as it comes, signals forwarded to its group."""

from __future__ import annotations

import os
import select
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from types import FrameType

from trainpack_entrypoint.failures import InterruptedEarlyError, RunError
from trainpack_entrypoint.script import descendants
from trainpack_entrypoint.script.output import Lines

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
    the script's process group, which gets SIGKILL after the grace; afterwards it changes nothing. Each is
    forwarded once: a handler that is saving would be interrupted by itself, and tear its own file.

    Attributes:
        received: The first stopping signal, as a number.
    """

    def __init__(self) -> None:
        self.received: int | None = None
        self.grace = 0.0
        self._forwarded: set[int] = set()
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

    def start(self, spawn: Callable[[], int]) -> int:
        """Start the script; a signal that arrives meanwhile is forwarded.

        Args:
            spawn: Starts it as the leader of a process group, and returns its process id.
        """
        self._is_starting, self._is_early = True, False
        try:
            self._group = spawn()
        finally:
            self._is_starting = False
        if self.received is not None:
            self._forward(self.received)
        return self._group

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
        if self._group is None or number in self._forwarded:
            return
        self._forwarded.add(number)
        self._send(number)
        if signal.getitimer(signal.ITIMER_REAL)[0]:
            return
        # A timer, not the copying loop: a reader that is slow to take output must not prolong the grace.
        signal.setitimer(signal.ITIMER_REAL, max(self.grace, 0.001))

    def _pass(self, number: int, frame: FrameType | None) -> None:
        self._send(number)

    def _kill(self, number: int, frame: FrameType | None) -> None:
        self._send(signal.SIGKILL)
        descendants.kill()

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
    wakeup, waker = os.pipe()
    os.set_blocking(waker, False)
    signal.signal(signal.SIGCHLD, lambda number, frame: None)
    signal.set_wakeup_fd(waker, warn_on_full_buffer=False)
    streams = {1: os.pipe(), 2: os.pipe()}
    try:
        # Its own folder is nothing to the entrypoint, and the child's only through the parent's.
        os.chdir(folder)
        process = signals.start(lambda: _spawn(command, environment, streams))
    except OSError as error:
        raise RunError("configuration", f"cannot start {command[0]}: {error.strerror}") from None
    for _, writer in streams.values():
        os.close(writer)
    copier = _Copier(process, {reader: target for target, (reader, _) in streams.items()}, wakeup, lines)
    code = copier.run()
    signals.end()
    descendants.end()
    copier.finish()
    return code


def _spawn(
    command: Sequence[str], environment: Mapping[str, str], streams: Mapping[int, tuple[int, int]]
) -> int:
    # The subprocess module alone would cost every start of a container 6 ms.
    return os.posix_spawn(
        _found(command[0], environment.get("PATH", os.defpath)),
        list(command),
        environment,
        file_actions=[(os.POSIX_SPAWN_DUP2, writer, target) for target, (_, writer) in streams.items()],
        setsid=True,
        setsigdef=[signal.SIGPIPE, signal.SIGXFSZ],
    )


def _found(program: str, search: str) -> str:
    if "/" in program:
        return program
    places = (os.path.join(folder, program) for folder in search.split(os.pathsep))
    return next((place for place in places if os.access(place, os.X_OK)), program)


class _Copier:
    """Copies the script's streams to ours, byte for byte, until it ends and for at most the drain."""

    def __init__(self, process: int, targets: dict[int, int], wakeup: int, lines: Lines) -> None:
        self._process = process
        self._targets = targets
        self._wakeup = wakeup
        self._lines = lines
        self._poll = select.poll()
        for descriptor in (*targets, wakeup):
            os.set_blocking(descriptor, False)
            self._poll.register(descriptor, select.POLLIN)

    def run(self) -> int:
        """Copy to the script's end and for at most the drain; its exit code, negative for a signal."""
        while (ended := os.waitpid(self._process, os.WNOHANG))[0] == 0:
            self._copy_ready(1.0)
        drained = time.monotonic() + DRAIN_SECONDS
        while self._targets and (left := drained - time.monotonic()) > 0:
            self._copy_ready(left)
        return os.waitstatus_to_exitcode(ended[1])

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

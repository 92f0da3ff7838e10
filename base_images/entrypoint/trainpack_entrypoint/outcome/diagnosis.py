"""Why a run failed, from what is known of it: facts in, a cause and its remedy out. Touches nothing."""

from __future__ import annotations

import re
import signal
from collections.abc import Sequence
from typing import NamedTuple

from trainpack_entrypoint.failures import RunError
from trainpack_entrypoint.outcome.tracebacks import Raised

# Less than this and even a small checkpoint's last block has no place.
NO_SPACE = 64 * 1024
# Only what was printed last can be why a script without a traceback ended.
_LAST_LINES = 20
_GPU = re.compile(
    r"CUDA (?:out of memory|error|driver|GPUs are available)|CUDA-capable device|CUDA_ERROR_|cudaError"
    r"|NVIDIA driver|NVML|no kernel image is available|not compiled with CUDA|CU(?:DNN|BLAS)_STATUS_",
    re.IGNORECASE,
)
# An index of the script's own is out of range: no other driver or device would change that.
_NOT_GPU = re.compile(r"device-side assert", re.IGNORECASE)
_GPU_MEMORY = re.compile(r"CUDA out of memory|CUDA_ERROR_OUT_OF_MEMORY|CUBLAS_STATUS_ALLOC_FAILED")
_MEMORY = re.compile(r"(^|[._])MemoryError|_ArrayMemoryError|can't allocate memory|Cannot allocate memory")
_DISK = re.compile(r"No space left on device|\[Errno 28\]|Disk quota exceeded|\[Errno 122\]")
# The engine gives a container 64 MB of it, which is what data loaders pass their batches through.
_SHARED_MEMORY = re.compile(r"shared memory.*\(28\)|out of shared memory|\[Errno 28\].*/dev/shm", re.DOTALL)


class Facts(NamedTuple):
    """What is known when a run has failed.

    Attributes:
        received: The signal that the container got.
        script_exit_code: As a shell shows it; None when the script never started.
        script_signal: The signal that ended the script itself.
        failure: What went wrong in the entrypoint.
        raised: The exception of the last traceback that the script printed.
        errors: The end of the script's standard error.
        oom_kills: Processes that the kernel killed for memory while the script ran.
        memory_limit: Bytes, None for no limit.
        disk_free: Bytes that were left in the workspace; None when it cannot be read.
    """

    received: int | None = None
    script_exit_code: int | None = None
    script_signal: int | None = None
    failure: RunError | None = None
    raised: Raised | None = None
    errors: Sequence[str] = ()
    oom_kills: int = 0
    memory_limit: int | None = None
    disk_free: int | None = None


class Diagnosis(NamedTuple):
    """The `cause` and `message` of `failure.json`."""

    cause: str
    message: str


def diagnose(facts: Facts) -> Diagnosis:
    """The cause of a failed run, and what happened in one line; the script's own failure comes first."""
    if facts.received is not None:
        return Diagnosis("signal", f"{signal_name(facts.received)} stopped the run; the script {_end(facts)}")
    if facts.script_exit_code:
        cause, remedy = _of_script(facts)
        return Diagnosis(cause, _script_message(facts) + remedy)
    if facts.failure is None:
        return Diagnosis("internal", "the run failed for no known reason")
    return Diagnosis(_of_failure(facts.failure), facts.failure.message)


def _of_failure(failure: RunError) -> str:
    is_full = _DISK.search("\n".join([failure.message, *failure.problems]))
    return "disk-full" if is_full and failure.cause in ("workspace", "platform") else failure.cause


def _of_script(facts: Facts) -> tuple[str, str]:
    said = f"{facts.raised.type}: {facts.raised.message}" if facts.raised else ""
    if _GPU.search(said) and not _NOT_GPU.search(said):
        smaller = "; a smaller batch needs less of the GPU's memory" if _GPU_MEMORY.search(said) else ""
        return "gpu", smaller
    if _SHARED_MEMORY.search(said):
        return "out-of-memory", "; shared memory is full: give it more with --shm-size or --ipc=host"
    if facts.oom_kills or _MEMORY.search(said):
        return "out-of-memory", f"; {_memory_remedy(facts)}"
    if _is_disk_full(facts, said):
        left = "" if facts.disk_free is None else f", where {facts.disk_free // 2**20} MiB are free"
        return "disk-full", f"; no space left: give /workspace a larger volume{left}"
    return ("script" if facts.script_signal is None else "signal"), ""


def _memory_remedy(facts: Facts) -> str:
    count = "a process" if facts.oom_kills == 1 else f"{facts.oom_kills} processes"
    killed = f"the kernel killed {count} for memory: " if facts.oom_kills else ""
    limit = f" than {facts.memory_limit // 2**20} MiB (--memory)" if facts.memory_limit else ""
    return f"{killed}give it more{limit}, or a smaller batch or fewer workers"


def _is_disk_full(facts: Facts, said: str) -> bool:
    last = "\n".join(facts.errors[-_LAST_LINES:])
    is_said = _DISK.search(said if facts.raised else last)
    return bool(is_said) or (facts.disk_free is not None and facts.disk_free < NO_SPACE)


def _script_message(facts: Facts) -> str:
    if facts.script_signal is not None:
        return f"the script was ended by {signal_name(facts.script_signal)}"
    ended = f"the script ended with {facts.script_exit_code}"
    if facts.raised is None:
        return ended
    place = f" ({facts.raised.location})" if facts.raised.location else ""
    return f"{ended}: {facts.raised}{place}"


def _end(facts: Facts) -> str:
    if facts.script_exit_code is None:
        return "had not started"
    return f"ended with {facts.script_exit_code}"


def signal_name(number: int) -> str:
    """`SIGKILL (9)`."""
    try:
        return f"{signal.Signals(number).name} ({number})"
    except ValueError:
        return f"signal {number}"

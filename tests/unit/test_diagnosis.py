"""Why a run failed: a table of facts and causes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from trainpack_entrypoint.failures import CODES, RunError
from trainpack_entrypoint.outcome.diagnosis import Facts, diagnose
from trainpack_entrypoint.outcome.resources import disk, memory, oom_kills
from trainpack_entrypoint.outcome.tracebacks import Location, Raised

MIB = 2**20


def raised(kind: str, message: str = "") -> Raised:
    return Raised(kind, message, "the text", Location("train.py", 3, "main"))


def script(code: int = 1, **facts: Any) -> Facts:
    return Facts(script_exit_code=code, disk_free=100 * MIB, **facts)


TABLE = [
    (Facts(received=15), "signal", "SIGTERM (15) stopped the run; the script had not started"),
    (
        Facts(received=15, script_exit_code=0),
        "signal",
        "SIGTERM (15) stopped the run; the script ended with 0",
    ),
    (
        Facts(received=64, script_exit_code=0),
        "signal",
        "SIGRTMAX (64) stopped the run; the script ended with 0",
    ),
    (script(3), "script", "the script ended with 3"),
    (
        script(raised=raised("ValueError", "bad\nmore")),
        "script",
        "the script ended with 1: ValueError: bad (train.py:3)",
    ),
    (script(139, script_signal=11), "signal", "the script was ended by SIGSEGV (11)"),
    (
        script(137, script_signal=9, oom_kills=1, memory_limit=64 * MIB),
        "out-of-memory",
        "the script was ended by SIGKILL (9); the kernel killed a process for memory: "
        "give it more than 64 MiB (--memory), or a smaller batch or fewer workers",
    ),
    # A data loader's worker was killed: the script itself ends by an exception.
    (
        script(oom_kills=2, raised=raised("RuntimeError", "worker (pid 7) is killed")),
        "out-of-memory",
        "2 processes",
    ),
    (script(raised=raised("MemoryError")), "out-of-memory", "give it more, or a smaller batch"),
    (
        script(raised=raised("numpy._core._exceptions._ArrayMemoryError", "Unable")),
        "out-of-memory",
        "give it more",
    ),
    (
        script(raised=raised("RuntimeError", "[enforce fail] DefaultCPUAllocator: can't allocate memory")),
        "out-of-memory",
        "give it more",
    ),
    (
        script(
            raised=raised(
                "RuntimeError",
                "unable to allocate shared memory(shm) for file </torch_7>: No space left (28)",
            )
        ),
        "out-of-memory",
        "--shm-size",
    ),
    (
        script(
            raised=raised(
                "RuntimeError", "DataLoader worker is killed by signal: Bus error. out of shared memory"
            )
        ),
        "out-of-memory",
        "--shm-size",
    ),
    (
        script(raised=raised("OSError", "[Errno 28] No space left on device: 'model.pt'")),
        "disk-full",
        "give /workspace a larger volume, where 100 MiB are free",
    ),
    (script(errors=["cp: error writing 'x': No space left on device"]), "disk-full", "larger volume"),
    (script(errors=["No space left on device", *["later"] * 20]), "script", "the script ended with 1"),
    (
        script(raised=raised("ValueError", "x"), errors=["warning: No space left on device"]),
        "script",
        "ValueError: x",
    ),
    (
        Facts(script_exit_code=1, disk_free=0, raised=raised("RuntimeError", "PytorchStreamWriter failed")),
        "disk-full",
        "0 MiB are free",
    ),
    (script(raised=raised("torch.OutOfMemoryError", "CUDA out of memory. Tried")), "gpu", "a smaller batch"),
    (
        script(raised=raised("RuntimeError", "CUDA error: no kernel image is available")),
        "gpu",
        "no kernel image",
    ),
    (
        script(
            raised=raised("RuntimeError", "Found no NVIDIA driver on your system. Please check that you have")
        ),
        "gpu",
        "Found no NVIDIA driver",
    ),
    (
        script(raised=raised("RuntimeError", "CUDA driver version is insufficient for CUDA runtime version")),
        "gpu",
        "insufficient",
    ),
    (script(raised=raised("RuntimeError", "No CUDA GPUs are available")), "gpu", "No CUDA GPUs"),
    (script(raised=raised("AssertionError", "Torch not compiled with CUDA enabled")), "gpu", "not compiled"),
    (script(raised=raised("RuntimeError", "cuDNN error: CUDNN_STATUS_NOT_INITIALIZED")), "gpu", "CUDNN"),
    (script(raised=raised("RuntimeError", "CUDA error: device-side assert triggered")), "script", "assert"),
    (script(raised=raised("KeyError", "'cuda'")), "script", "KeyError: 'cuda'"),
    (Facts(failure=RunError("configuration", "bad")), "configuration", "bad"),
    (Facts(failure=RunError("missing-input", "no data")), "missing-input", "no data"),
    (Facts(failure=RunError("gpu", "no driver")), "gpu", "no driver"),
    (Facts(failure=RunError("workspace", "code: Read-only file system; uid 7")), "workspace", "uid 7"),
    (Facts(failure=RunError("workspace", "code/x: No space left on device; uid 7")), "disk-full", "uid 7"),
    (
        Facts(
            script_exit_code=0, failure=RunError("workspace", "lost", ["model.pt: No space left on device"])
        ),
        "disk-full",
        "lost",
    ),
    (Facts(script_exit_code=0, failure=RunError("platform", "away", code=74)), "platform", "away"),
    (Facts(script_exit_code=3, failure=RunError("workspace", "lost")), "script", "the script ended with 3"),
    (Facts(script_exit_code=0), "internal", "no known reason"),
]


@pytest.mark.parametrize(("facts", "cause", "message"), TABLE)
def test_facts_have_a_cause_and_a_message(facts: Facts, cause: str, message: str) -> None:
    diagnosis = diagnose(facts)
    assert diagnosis.cause == cause
    assert message in diagnosis.message
    assert "\n" not in diagnosis.message


def test_every_cause_is_in_the_table() -> None:
    assert {cause for _, cause, _ in TABLE} >= {*CODES, "script", "signal", "out-of-memory", "disk-full"}


def cgroup(folder: Path, **files: str) -> str:
    """A stand-in for the kernel's control group files."""
    for name, text in files.items():
        path = folder / name.replace("__", "/").replace("_OF_", ".")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return str(folder)


def test_memory_is_read_from_cgroup_v2(tmp_path: Path) -> None:
    folder = cgroup(
        tmp_path,
        memory_OF_max="67108864\n",
        memory_OF_peak="5000\n",
        memory_OF_current="4000\n",
        memory_OF_events="low 0\noom 3\noom_kill 2\noom_group_kill 0\n",
    )
    assert memory(folder) == {"limit": 67108864, "peak": 5000, "current": 4000}
    assert oom_kills(folder) == 2


def test_memory_is_read_from_cgroup_v1(tmp_path: Path) -> None:
    folder = cgroup(
        tmp_path,
        memory__memory_OF_limit_in_bytes="67108864\n",
        memory__memory_OF_max_usage_in_bytes="5000\n",
        memory__memory_OF_usage_in_bytes="4000\n",
        memory__memory_OF_oom_control="oom_kill_disable 0\nunder_oom 0\noom_kill 1\n",
    )
    assert memory(folder) == {"limit": 67108864, "peak": 5000, "current": 4000}
    assert oom_kills(folder) == 1


@pytest.mark.parametrize("text", ["max\n", "9223372036854771712\n", "", "junk"])
def test_no_limit_is_null(tmp_path: Path, text: str) -> None:
    assert memory(cgroup(tmp_path, memory_OF_max=text))["limit"] is None


def test_files_that_are_missing_are_null_and_no_kill(tmp_path: Path) -> None:
    assert memory(str(tmp_path)) == {"limit": None, "peak": None, "current": None}
    assert oom_kills(str(tmp_path)) == 0
    assert disk(str(tmp_path / "missing")) == {"total": None, "used": None, "free": None}


def test_disk_figures_add_up(tmp_path: Path) -> None:
    figures = disk(str(tmp_path))
    total, used, free = figures["total"], figures["used"], figures["free"]
    assert total is not None
    assert used is not None
    assert free is not None
    assert 0 < used < total
    assert 0 <= free <= total - used

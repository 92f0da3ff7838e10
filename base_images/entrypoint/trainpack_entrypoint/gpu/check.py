"""The GPU check: before a framework is imported, the driver is asked whether it can train what was locked."""

from __future__ import annotations

import json
import os
import re
import select
import signal
import sys
import time
from collections.abc import Mapping
from typing import Any

from trainpack_entrypoint.failures import RunError
from trainpack_entrypoint.manifest import Gpu

VARIABLE = "TRAINPACK_GPUS"
# A host with many GPUs and no persistence daemon takes tens of seconds to initialise them.
PATIENCE = 120.0
# CUDA_ERROR_NO_DEVICE of cuda.h; the other codes are told by number.
_NO_DEVICE = 100
_HIDING = ("NVIDIA_VISIBLE_DEVICES", "CUDA_VISIBLE_DEVICES")
_LOOK = "`nvidia-smi` on the host says why"
_CPU = f"{VARIABLE}=none trains on the CPU"


def wanted(gpus: str, problems: list[str]) -> int:
    """How many GPUs `all`, `none`, a number or `device=0,1` asks for at least."""
    if gpus.isdecimal():
        return int(gpus)
    if gpus.startswith("device="):
        return len(gpus.split(","))
    if gpus not in ("all", "none"):
        problems.append(f"{VARIABLE}: {gpus!r} is not all, none, a number or device=…")
    return 0 if gpus == "none" else 1


def check(count: int, needs: Gpu | None, environment: Mapping[str, str], driver_file: str) -> None:
    """Refuse a host whose driver or devices cannot run the image.

    Args:
        count: The GPUs that are needed.
        needs: CUDA and driver of the lock; None when it holds no CUDA.
        driver_file: Where the kernel's module says its version.

    Raises:
        RunError: `gpu`.
    """
    if problem := fault(ask(), count, needs, environment, _driver(driver_file)):
        raise RunError("gpu", f"{problem}; {_CPU}")


def fault(
    answer: Mapping[str, Any],
    count: int,
    needs: Gpu | None,
    environment: Mapping[str, str],
    driver: str | None,
) -> str | None:
    """What is wrong with what the driver answered, and the remedy; None when it will do.

    Args:
        answer: Of `ask`.
        driver: Its own version, where the kernel tells it.
    """
    named = f"NVIDIA driver {driver}" if driver else "NVIDIA driver"
    if not answer:
        return f"the host's {named} crashed when it was asked, or took over {PATIENCE:g} s: {_LOOK}"
    if "error" in answer:
        return f"no NVIDIA driver in this container ({answer['error']}): {_start_with_gpus(environment)}"
    if answer["init"] not in (0, _NO_DEVICE):
        return f"the host's {named} does not start (cuInit returned {answer['init']}): {_LOOK}"
    if needs and answer["version"] // 1000 < int(needs.cuda.partition(".")[0]):
        has = f"{answer['version'] // 1000}.{answer['version'] % 1000 // 10}"
        return (
            f"the host's {named} is too old: it runs CUDA {has} and the image needs CUDA {needs.cuda}: "
            f"install driver {needs.driver} or newer on the host"
        )
    if answer["devices"] < count:
        few = (
            f"{answer['devices']} of the {count} GPUs that were asked for are"
            if answer["devices"]
            else "no GPU is"
        )
        return f"{few} visible to this container, which has the {named}: {_start_with_gpus(environment)}"
    return None


def _start_with_gpus(environment: Mapping[str, str]) -> str:
    # Shown, not obeyed: NVIDIA_VISIBLE_DEVICES=void is also what a container with CDI's devices gets.
    set_here = [f"{name}={environment[name]!r} is set" for name in _HIDING if name in environment]
    return "; ".join(
        ["start it with --gpus=all on a host with the driver, GPUs and NVIDIA's container toolkit", *set_here]
    )


def _driver(path: str) -> str | None:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            found = re.search(r"Kernel Module.*?\s(\d+\.\d+(?:\.\d+)?)\s", file.read())
    except OSError:
        return None
    return found[1] if found else None


def ask() -> dict[str, Any]:
    """What `libcuda.answer` prints in a process of its own; empty when it prints nothing in time."""
    from trainpack_entrypoint.gpu import libcuda

    reader, writer = os.pipe()
    command = [sys.executable, "-I", libcuda.__file__]
    process = os.posix_spawn(
        sys.executable, command, os.environ, file_actions=[(os.POSIX_SPAWN_DUP2, writer, 1)]
    )
    os.close(writer)
    try:
        return _parsed(_read(reader, time.monotonic() + PATIENCE))
    finally:
        os.close(reader)
        os.kill(process, signal.SIGKILL)
        os.waitpid(process, 0)


def _read(reader: int, deadline: float) -> bytes:
    data = b""
    while (left := deadline - time.monotonic()) > 0 and select.select([reader], [], [], left)[0]:
        if not (chunk := os.read(reader, 4096)):
            break
        data += chunk
    return data


def _parsed(data: bytes) -> dict[str, Any]:
    try:
        return dict(json.loads(data))
    except ValueError:
        return {}

"""Asks NVIDIA's driver what it offers and prints the answer as JSON: a program of its own.

A driver that crashes or hangs, and the memory that it takes, must not be the entrypoint's.
"""

from __future__ import annotations

import ctypes
import json

LIBRARY = "libcuda.so.1"


def answer() -> dict[str, object]:
    """`version` (13000 is CUDA 13.0), `init` and `devices`; `error` when the library cannot be loaded."""
    try:
        library = ctypes.CDLL(LIBRARY)
    except OSError as error:
        return {"error": str(error)}
    version, devices = ctypes.c_int(0), ctypes.c_int(0)
    library.cuDriverGetVersion(ctypes.byref(version))
    init = library.cuInit(0)
    if init == 0:
        library.cuDeviceGetCount(ctypes.byref(devices))
    return {"version": version.value, "init": init, "devices": devices.value}


if __name__ == "__main__":
    print(json.dumps(answer()))

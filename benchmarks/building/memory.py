"""The peak memory of a build and push of a large image, all processes of it together."""

from __future__ import annotations

import random
import subprocess
import threading
import time
from pathlib import Path

from building.measures import Values
from building.projects import TRAINPACK, write_wheel

WHEELS = 5
_FILES, _FILE_BYTES = 10, 100_000_000
_EVERY_SECONDS = 0.01


def measure(folder: Path, name: str, wheels: Path) -> Values:
    """Build and push an image of 5 GB; megabytes of memory at the peak, and what else it took."""
    names = [_write(wheels, number) for number in range(WHEELS)]
    folder.mkdir()
    (folder / "train.py").write_text("print('trained')\n", encoding="utf-8")
    (folder / "requirements.txt").write_text("\n".join(names) + "\n", encoding="utf-8")
    (folder / "trainpack.toml").write_text(
        f'[image]\nname = "{name}"\n[run]\nscript = "train.py"\n', encoding="utf-8"
    )
    subprocess.run([TRAINPACK, "lock"], cwd=folder, check=True, capture_output=True)
    start = time.perf_counter()
    command = [TRAINPACK, "build", "--builder=oci", "--no-load", "--push", "--no-attest"]
    process = subprocess.Popen(command, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    peaks = _watch(process)
    if process.returncode:
        raise RuntimeError(f"the build of {WHEELS} large wheels ended with {process.returncode}")
    taken = time.perf_counter() - start
    unpacked = WHEELS * _FILES * _FILE_BYTES / 1e6
    found = {"peak MB": peaks["all"], "peak MB of the process": peaks["one"], "unpacked MB": unpacked}
    return {"trainpack": {what: [value] for what, value in {**found, "seconds": taken}.items()}}


def _write(wheels: Path, number: int) -> str:
    """A wheel of 1 GB that deflate makes a third of."""
    name = f"trainpack-benchmark-large{number}"
    source = random.Random(number)
    block = bytes(value for value in source.randbytes(_FILE_BYTES // 100) for _ in range(4))
    content = block * (_FILE_BYTES // len(block))
    write_wheel(
        wheels, name, "1", {f"{name.replace('-', '_')}/{part}.bin": content for part in range(_FILES)}
    )
    return name


def _watch(process: subprocess.Popen[bytes]) -> dict[str, float]:
    """Megabytes at the peak: of the process alone, as the kernel keeps it, and with its children."""
    assert process.stderr
    # A full pipe would stop the build.
    threading.Thread(target=process.stderr.read, daemon=True).start()
    peaks = {"one": 0.0, "all": 0.0}
    while process.poll() is None:
        alone = _kilobytes(process.pid, "VmHWM")
        together = sum(_kilobytes(each, "VmRSS") for each in _family(process.pid))
        peaks = {"one": max(peaks["one"], alone / 1e3), "all": max(peaks["all"], together / 1e3)}
        time.sleep(_EVERY_SECONDS)
    return peaks | {"all": max(peaks.values())}


def _family(pid: int) -> list[int]:
    """A process and its children; one that has started no program yet is still in its parent's memory."""
    try:
        tasks = list(Path(f"/proc/{pid}/task").iterdir())
        children = [child for task in tasks for child in (task / "children").read_text().split()]
    except OSError:
        return [pid]
    started = [int(child) for child in children if _command(int(child)) != _command(pid)]
    return [pid, *(each for child in started for each in _family(child))]


def _command(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


def _kilobytes(pid: int, what: str) -> float:
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0.0
    return next((float(line.split()[1]) for line in lines if line.startswith(f"{what}:")), 0.0)

"""Failures that only a real kernel and engine make: each has its exit code, its cause and both documents."""

from __future__ import annotations

import io
import json
import os
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from docker.types import Mount

from builder.checks.runner import Train, check_image
from builder.engine import client
from builder.engine.containers import (
    WORKSPACE,
    created,
    find_image,
    read_files,
    remove_volume,
    temporary_volume,
)
from builder.run import RunRequest, run_container

pytest_plugins = ["contract_image"]
pytestmark = pytest.mark.engine

# What a pod of a strict cluster is given.
STRICT: dict[str, Any] = {
    "user": "54321:54321",
    "read_only": True,
    "cap_drop": ["ALL"],
    "network_mode": "none",
}

SCRIPT = """
import os, signal, sys, time
from pathlib import Path

def grow():
    chunks = []
    while True:
        chunks.append(bytearray(1 << 20))

def fill():
    with open("model.pt", "wb") as file:
        while True:
            file.write(bytes(1 << 16))

def worker():
    if os.fork() == 0:
        grow()
    _, status = os.wait()
    raise RuntimeError(f"DataLoader worker ended with {status}")

def daemon():
    if os.fork() == 0:
        os.setsid()
        os.closerange(0, 3)
        while True:
            with open(Path(os.environ["TRAINPACK_OUTPUTS"], "growing.txt"), "a") as file:
                file.write("still here ")
    while not Path(os.environ["TRAINPACK_OUTPUTS"], "growing.txt").exists():
        time.sleep(0.001)

for word in sys.argv:
    if word in ("grow", "fill", "worker", "daemon"):
        globals()[word]()
"""

DOCKERFILE = """\
USER root
COPY train.py /opt/app/train.py
RUN sed -i 's/"gpus": null/"gpus": "all"/' /opt/trainpack/image.json
USER 1000:1000
"""


@pytest.fixture
def failing_image(changed_image: Callable[[Path], str], tmp_path: Path) -> str:
    """The contract image with a script that fails as it is told, and a flag that asks for all GPUs."""
    added = tmp_path / "added"
    added.mkdir()
    (added / "train.py").write_text(SCRIPT)
    (added / "Dockerfile").write_text(DOCKERFILE)
    return changed_image(added)


@dataclass
class Ended:
    code: int
    result: dict[str, Any]
    failure: dict[str, Any]
    outputs: dict[str, bytes]
    log: str


def run(image: str, *words: str, gpus: str = "none", volume: str | None = None, **options: Any) -> Ended:
    """Run the image as any launcher would, and read its workspace."""
    environment = {"TRAINPACK_GPUS": gpus} if gpus else {}
    with ExitStack() as stack:
        volume = volume or stack.enter_context(temporary_volume("workspace"))
        mounts = [Mount(WORKSPACE, volume)]
        options |= {"command": list(words), "environment": environment, "mounts": mounts}
        container = stack.enter_context(created(find_image(image).image_id, **options))
        # Keeps a workspace in memory alive until it has been read.
        keeper = stack.enter_context(created(image, entrypoint=["sleep", "600"], mounts=mounts))
        keeper.start()
        container.start()
        code = int(container.wait(timeout=120)["StatusCode"])
        documents = (
            read_files(keeper, f"{WORKSPACE}/{name}.json").get("", b"{}") for name in ("result", "failure")
        )
        result, failure = map(json.loads, documents)
        return Ended(
            code, result, failure, read_files(keeper, f"{WORKSPACE}/outputs"), container.logs().decode()
        )


def test_a_script_that_the_kernel_kills_for_memory(failing_image: str) -> None:
    ended = run(failing_image, "grow", mem_limit="64m", memswap_limit="64m", **STRICT)
    assert ended.code == 137, ended.log
    assert ended.failure["cause"] == "out-of-memory"
    assert ended.failure["memory"]["limit"] == 64 << 20
    assert ended.failure["memory"]["oom_kills"] == 1
    assert "more than 64 MiB" in ended.failure["message"]
    assert ended.result["status"] == "failed"


def test_a_worker_that_the_kernel_kills_for_memory(failing_image: str) -> None:
    ended = run(failing_image, "worker", mem_limit="64m", memswap_limit="64m")
    assert ended.code == 1
    assert ended.failure["cause"] == "out-of-memory"
    assert ended.failure["exception"]["type"] == "RuntimeError"


def test_a_disk_that_is_full_while_the_script_saves(failing_image: str) -> None:
    name = f"trainpack-{os.urandom(4).hex()}-small"
    small = {"type": "tmpfs", "device": "tmpfs", "o": "size=6m,mode=1777"}
    client().volumes.create(name, driver="local", driver_opts=small)
    try:
        ended = run(failing_image, "fill", volume=name, **STRICT)
    finally:
        remove_volume(name)
    assert ended.code == 1, ended.log
    assert ended.failure["cause"] == "disk-full"
    assert ended.failure["location"]["function"] == "fill"
    assert ended.failure["disk"]["total"] == 6 << 20
    assert [output["path"] for output in ended.result["outputs"]] == ["model.pt"]


def test_a_daemon_in_another_session_no_longer_writes_what_is_collected(failing_image: str) -> None:
    ended = run(failing_image, "daemon")
    assert ended.code == 0, ended.log
    (output,) = ended.result["outputs"]
    content = ended.outputs["growing.txt"]
    assert output == {"path": "growing.txt", "size": len(content), "sha256": sha256(content).hexdigest()}


def test_a_gpu_image_started_without_gpus_says_how_to_train_on_the_cpu(failing_image: str) -> None:
    ended = run(failing_image, gpus="", **STRICT)
    assert ended.code == 71
    assert ended.failure["cause"] == "gpu"
    assert "no NVIDIA driver in this container" in ended.log
    assert "TRAINPACK_GPUS=none trains on the CPU" in ended.log
    assert run(failing_image, gpus="none").code == 0


def test_a_local_run_says_which_gpus_the_container_really_gets(
    failing_image: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("builder.run.has_gpu", lambda: False)
    told: list[str] = []
    request = RunRequest(image=failing_image, output=tmp_path / "output", flags=("--gpus=all",))
    outcome = run_container(request, stdout=io.BytesIO(), stderr=io.BytesIO(), tell=told.append)
    assert outcome.exit_code == 0
    assert any("running on the CPU" in line for line in told)


def test_a_gpu_image_passes_the_contract_checks_on_a_host_without_gpus(failing_image: str) -> None:
    report = check_image(find_image(failing_image), train=Train({}))
    assert report.passed, [(check.name, check.detail) for check in report.results]


def test_the_run_line_names_the_image_and_repeats_the_failure(failing_image: str, tmp_path: Path) -> None:
    request = RunRequest(
        image=failing_image, output=tmp_path / "output", parameters={"epochs": "0"}, arguments=("fill",)
    )
    outcome = run_container(request, stdout=io.BytesIO(), stderr=io.BytesIO(), tell=lambda line: None)
    assert outcome.failure
    assert outcome.exit_code == 78
    assert outcome.failure["run"] == f"trainpack run {failing_image} -p epochs=0 -- fill"

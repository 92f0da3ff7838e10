"""The GPU check, against a stand-in of NVIDIA's driver library: no test machine has a GPU."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from container_root import ContainerRoot
from trainpack_entrypoint.gpu.check import fault, wanted
from trainpack_entrypoint.manifest import Gpu

# Not NVIDIA's: it answers what the compiler was told, and nothing else of the driver is there.
STANDIN = """
const char *trainpack_standin = "a stand-in for libcuda.so.1 of the trainpack tests";
int cuDriverGetVersion(int *version) { *version = VERSION; return 0; }
int cuInit(unsigned flags) { INIT }
int cuDeviceGetCount(int *count) { *count = DEVICES; return 0; }
"""
NEEDS = Gpu(cuda="13.0", driver="580.65.06")
GOOD = {"version": 13000, "init": 0, "devices": 1}
Driver = Callable[..., dict[str, str]]


@pytest.fixture
def driver(tmp_path: Path) -> Driver:
    """Makes a driver library, and gives the environment in which it is found."""
    compiler = shutil.which("gcc")
    if compiler is None:
        if os.environ.get("CI"):
            pytest.fail("there is no gcc: scripts/test-services installs it")
        pytest.skip("there is no gcc: scripts/test-services installs it")

    def make(version: int = 13000, devices: int = 1, init: str = "return 0;") -> dict[str, str]:
        (tmp_path / "libcuda.c").write_text(STANDIN)
        command = [compiler, "-shared", "-nostdlib", "-fPIC", "-fno-stack-protector"]
        command += [f"-DVERSION={version}", f"-DDEVICES={devices}", f"-DINIT={init}"]
        subprocess.run([*command, "-o", tmp_path / "libcuda.so.1", tmp_path / "libcuda.c"], check=True)
        return {"LD_LIBRARY_PATH": str(tmp_path)}

    return make


@pytest.fixture
def container(tmp_path: Path) -> ContainerRoot:
    """An image for CUDA 13 whose flags ask for all GPUs."""
    container = ContainerRoot(tmp_path / "root")
    container.bake(gpu=NEEDS, gpus="all")
    container.script("print('imported the framework')")
    return container


def test_a_driver_that_will_do_lets_the_script_start(container: ContainerRoot, driver: Driver) -> None:
    ended = container.run(env=driver())
    assert (ended.code, ended.stdout) == (0, b"imported the framework\n")


def test_without_a_driver_the_run_ends_with_71_before_the_script(container: ContainerRoot) -> None:
    ended = container.run(env={"NVIDIA_VISIBLE_DEVICES": "void"})
    assert (ended.code, ended.stdout) == (71, b"")
    assert ended.failure["cause"] == "gpu"
    message = ended.failure["message"]
    assert message.startswith(
        "no NVIDIA driver in this container (libcuda.so.1: cannot open shared object file"
    )
    assert "start it with --gpus=all on a host with the driver" in message
    assert "NVIDIA_VISIBLE_DEVICES='void' is set" in message
    assert message.endswith("TRAINPACK_GPUS=none trains on the CPU")
    assert message in ended.told


def test_without_a_device_the_run_ends_with_71(container: ContainerRoot, driver: Driver) -> None:
    # CUDA_ERROR_NO_DEVICE is how the driver says it, rather than a count of 0.
    ended = container.run(env=driver(init="return 100;") | {"CUDA_VISIBLE_DEVICES": ""})
    assert ended.code == 71
    assert ended.failure["message"].startswith(
        "no GPU is visible to this container, which has the NVIDIA driver"
    )
    assert "CUDA_VISIBLE_DEVICES='' is set" in ended.failure["message"]


def test_a_driver_older_than_the_lock_needs_ends_with_71(container: ContainerRoot, driver: Driver) -> None:
    container.write(
        "proc/driver/nvidia/version",
        "NVRM version: NVIDIA UNIX x86_64 Kernel Module  535.129.03  Thu Oct 19 18:56:32 UTC 2023\n",
    )
    ended = container.run(env=driver(version=12020))
    assert ended.code == 71
    assert ended.failure["message"] == (
        "the host's NVIDIA driver 535.129.03 is too old: it runs CUDA 12.2 and the image needs CUDA 13.0: "
        "install driver 580.65.06 or newer on the host; TRAINPACK_GPUS=none trains on the CPU"
    )


def test_the_open_kernel_modules_version_is_read_too(container: ContainerRoot, driver: Driver) -> None:
    container.write(
        "proc/driver/nvidia/version",
        "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  545.23.08  Release Build  (dvs-builder)\n",
    )
    assert "driver 545.23.08 is too old" in container.run(env=driver(version=12030)).failure["message"]


def test_a_driver_that_crashes_does_not_take_the_entrypoint_along(
    container: ContainerRoot, driver: Driver
) -> None:
    ended = container.run(env=driver(init="*(volatile int *) 0 = 0; return 0;"))
    assert ended.code == 71
    assert "the host's NVIDIA driver crashed when it was asked" in ended.failure["message"]


def test_a_stop_while_the_driver_hangs_ends_at_once(container: ContainerRoot, driver: Driver) -> None:
    container.write("opt/app/other.txt", "")
    process = container.start(env=driver(init="for (;;) ;"))
    assert process.stderr is not None
    assert process.stderr.readline() == b"trainpack: parameters: none\n"
    process.terminate()
    ended = container.ended(process)
    assert ended.code == 143
    assert ended.result["status"] == "preempted"


@pytest.mark.parametrize("gpus", ["none", "0"])
def test_a_run_that_asks_for_no_gpu_asks_no_driver(container: ContainerRoot, gpus: str) -> None:
    assert container.run(env={"TRAINPACK_GPUS": gpus}).code == 0


def test_what_the_run_asks_for_is_stronger_than_the_images_flags(
    container: ContainerRoot, driver: Driver
) -> None:
    container.bake()
    assert container.run().code == 0
    ended = container.run(env=driver(devices=1) | {"TRAINPACK_GPUS": "2"})
    assert ended.code == 71
    assert "1 of the 2 GPUs that were asked for are visible" in ended.failure["message"]


def test_what_is_no_number_of_gpus_is_told_with_the_other_problems(container: ContainerRoot) -> None:
    ended = container.run(env={"TRAINPACK_GPUS": "some", "TRAINPACK_SET_epoch": "1"})
    assert ended.code == 78
    assert ended.failure["problems"][0] == "TRAINPACK_GPUS: 'some' is not all, none, a number or device=…"
    assert len(ended.failure["problems"]) == 2


def test_a_flag_in_a_form_that_only_the_engine_knows_asks_for_one(
    container: ContainerRoot, driver: Driver
) -> None:
    container.bake(gpus="all,capabilities=utility")
    assert container.run(env=driver()).code == 0
    assert container.run().code == 71


@pytest.mark.parametrize(
    ("gpus", "count"),
    [("all", 1), ("none", 0), ("0", 0), ("3", 3), ("device=0", 1), ("device=0,GPU-1a", 2)],
)
def test_what_is_asked_for_is_a_least_number(gpus: str, count: int) -> None:
    problems: list[str] = []
    assert wanted(gpus, problems) == count
    assert problems == []


@pytest.mark.parametrize(
    ("answer", "needs", "problem"),
    [
        (GOOD, NEEDS, None),
        (GOOD | {"version": 13010}, NEEDS, None),
        (GOOD | {"version": 14000}, NEEDS, None),
        # Minor versions of one major run on each other's drivers.
        (GOOD | {"version": 12000}, Gpu("12.8", "525.60.13"), None),
        (GOOD | {"version": 11080}, Gpu("12.0", "525.60.13"), "it runs CUDA 11.8"),
        (GOOD | {"version": 10020}, None, None),
        (GOOD | {"init": 803, "devices": 0}, NEEDS, "does not start (cuInit returned 803)"),
        (GOOD | {"devices": 0}, None, "no GPU is visible"),
    ],
)
def test_what_the_driver_answers_is_judged(
    answer: dict[str, Any], needs: Gpu | None, problem: str | None
) -> None:
    found = fault(answer, 1, needs, {}, None)
    assert found is None if problem is None else problem in str(found)

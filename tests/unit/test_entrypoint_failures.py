"""The entrypoint as a process: what `failure.json` says, and that both documents are always there."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import time
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

import pytest
from container_root import ContainerRoot
from trainpack_entrypoint.manifest import Run
from trainpack_entrypoint.schema import Parameter

NAME = "registry.example.com/team/model"


@pytest.fixture
def container(tmp_path: Path) -> ContainerRoot:
    return ContainerRoot(tmp_path)


def skip_or_fail(reason: str) -> None:
    """CI runs everything."""
    if os.environ.get("CI"):
        pytest.fail(reason)
    pytest.skip(reason)


def test_a_script_exception_is_told_with_type_message_place_and_traceback(container: ContainerRoot) -> None:
    container.bake(packages={"numpy": "2.4.6"})
    container.script("def main():\n    raise ValueError('bad rate')\nprint('starting')\nmain()\n")
    ended = container.run()
    failure = ended.failure
    assert ended.code == 1
    assert failure["cause"] == "script"
    assert failure["message"] == "the script ended with 1: ValueError: bad rate (train.py:2)"
    assert failure["exception"] == {"type": "ValueError", "message": "bad rate"}
    assert failure["location"] == {"file": "train.py", "line": 2, "function": "main"}
    assert failure["traceback"].startswith("Traceback (most recent call last):")
    assert failure["traceback"].endswith("ValueError: bad rate")
    assert "starting" in failure["tail"]
    assert failure["tail"][-1] == "ValueError: bad rate"
    assert failure["versions"]["trainpack"] == "0.1"
    assert failure["versions"]["image"] == "1.0"
    assert failure["versions"]["packages"] == {"numpy": "2.4.6"}
    assert failure["disk"]["free"] > 0
    assert failure["memory"] == {"limit": None, "peak": None, "current": None, "oom_kills": 0}
    assert f"trainpack: {failure['message']}" in ended.told


def test_a_traceback_of_hundreds_of_lines_is_whole(container: ContainerRoot) -> None:
    container.script("""
        import sys
        def deep(number):
            if number == 0:
                raise RuntimeError("deep")
            (deep_even if number % 2 else deep)(number - 1)
        def deep_even(number):
            deep(number)
        for _ in range(5000):
            print("x" * 100, file=sys.stderr)
        deep(150)
    """)
    failure = container.run().failure
    assert failure["exception"] == {"type": "RuntimeError", "message": "deep"}
    assert len(failure["traceback"].splitlines()) > 400
    assert len(failure["tail"]) == 50


def test_a_failing_shell_script_has_no_exception(container: ContainerRoot) -> None:
    container.bake(run=Run(script="train.sh", launcher=("/bin/sh",)))
    container.script("echo broken >&2; exit 4", "train.sh")
    failure = container.run().failure
    assert (failure["cause"], failure["exception"], failure["traceback"]) == ("script", None, None)
    assert failure["location"] is None
    assert failure["message"] == "the script ended with 4"


def test_a_secret_is_in_no_part_of_the_failure(container: ContainerRoot) -> None:
    container.bake(parameters=[Parameter("api_key", type="str", default=None, optional=True)])
    container.script("""
        import sys
        raise ValueError(f"refused {sys.argv[-1]}")
    """)
    ended = container.run(env={"TRAINPACK_SET_api_key": "very-secret"})
    assert ended.failure["exception"]["message"] == "refused ***"
    assert "very-secret" not in json.dumps(ended.failure)
    assert shlex.split(ended.failure["run"])[-2:] == ["-p", "api_key=…"]


def test_the_run_line_repeats_the_run(container: ContainerRoot) -> None:
    container.bake(
        parameters=[
            Parameter("epochs", type="int", default=3),
            Parameter("rate", type="float", default=0.1),
            Parameter("name", type="str", default="net"),
            Parameter("sizes", type="list[int]", default=[1]),
            Parameter("seed", type="int", default=7, optional=True),
        ],
        labelmap={"0": "car"},
        gpus="all",
    )
    container.mount("parameters.json", {"epochs": 3, "sizes": [2, 3], "seed": None})
    container.mount("labelmap.json", {"0": "bus"})
    container.write("mnt/trainpack/datasets/train/x", "1")
    container.script("raise SystemExit(1)")
    env = {"TRAINPACK_SET_name": "it's here", "TRAINPACK_GPUS": "none", "TRAINPACK_IMAGE": f"{NAME}:1.0-ab"}
    line = container.run("--verbose", "a b", env=env).failure["run"]
    words = ["trainpack", "run", f"{NAME}:1.0-ab", "-p", "name=it's here", "-p", "sizes=[2, 3]"]
    words += [
        "-p",
        "seed=null",
        "--labelmap",
        "labelmap.json",
        "--data",
        "train=DIR",
        "--",
        "--verbose",
        "a b",
    ]
    assert shlex.split(line) == words
    assert "'a b'" in line


@pytest.mark.parametrize(
    ("env", "image"),
    [({}, f"{NAME}:1.0"), ({"TRAINPACK_IMAGE_DIGEST": "sha256:ab"}, f"{NAME}@sha256:ab")],
)
def test_the_run_line_names_the_image_as_exactly_as_it_is_known(
    container: ContainerRoot, env: dict[str, str], image: str
) -> None:
    container.script("raise SystemExit(1)")
    assert container.run(env=env).failure["run"] == f"trainpack run {image}"


def test_a_refused_configuration_repeats_what_was_set(container: ContainerRoot) -> None:
    ended = container.run(env={"TRAINPACK_SET_epoch": "1"})
    assert ended.code == 78
    assert ended.failure["run"].endswith(":1.0 -p epoch=1")


def test_what_no_option_can_say_is_a_file_in_the_run_line(container: ContainerRoot) -> None:
    container.mount("parameters.json", {"undeclared": 1})
    container.script("raise SystemExit(1)")
    assert container.run().failure["run"].endswith(":1.0 --parameters parameters.json")


@pytest.mark.parametrize("before", [0, 2])
def test_only_kills_while_the_script_ran_count(container: ContainerRoot, before: int) -> None:
    # Stand-ins for the kernel's files, which only a kill changes; the end-to-end tests have one.
    events = container.write("sys/fs/cgroup/memory.events", f"oom_kill {before}\n")
    container.write("sys/fs/cgroup/memory.max", "1048576\n")
    container.script(f"""
        import os, signal
        open({str(events)!r}, "w").write("oom_kill {before + 1}\\n")
        os.kill(os.getpid(), signal.SIGKILL)
    """)
    ended = container.run()
    assert ended.code == 137
    assert ended.failure["cause"] == "out-of-memory"
    assert ended.failure["signal"] == 9
    assert ended.failure["memory"]["oom_kills"] == 1
    assert "more than 1 MiB" in ended.failure["message"]
    container.script("raise SystemExit(1)")
    assert container.run().failure["cause"] == "script"


@pytest.fixture
def small_disk(container: ContainerRoot) -> Iterator[ContainerRoot]:
    """A container whose workspace is a file system of 4 MiB."""
    workspace = container.root / "workspace"
    mount = ["mount", "-t", "tmpfs", "-o", "size=4m,mode=1777", "tmpfs", str(workspace)]
    if os.geteuid() != 0 or subprocess.run(mount, check=False).returncode != 0:
        skip_or_fail("a small disk is a tmpfs, which only root can mount")
    yield container
    subprocess.run(["umount", "--lazy", workspace], check=True)


FILL = """
    import os
    with open("model.pt", "wb") as file:
        while True:
            os.write(file.fileno(), bytes(4096))
"""


def test_a_disk_full_while_saving_leaves_both_documents(small_disk: ContainerRoot) -> None:
    small_disk.script(FILL)
    ended = small_disk.run()
    assert ended.code == 1
    assert ended.failure["cause"] == "disk-full"
    assert "give /workspace a larger volume, where 0 MiB are free" in ended.failure["message"]
    assert ended.failure["exception"]["type"] == "OSError"
    assert ended.failure["disk"]["free"] == 0
    assert ended.failure["disk"]["total"] == 4 << 20
    assert ended.result["status"] == "failed"
    assert ended.saved == ["model.pt"]
    assert not (small_disk.root / "workspace/.reserve").exists()


def test_a_script_that_fills_the_disk_and_succeeds_has_its_result(small_disk: ContainerRoot) -> None:
    small_disk.script("""
        import contextlib, os
        with contextlib.suppress(OSError), open("model.pt", "wb") as file:
            while True:
                os.write(file.fileno(), bytes(4096))
    """)
    ended = small_disk.run()
    assert ended.code == 0, ended.told
    assert ended.saved == ["model.pt"]


def test_a_disk_that_the_code_does_not_fit_on_is_full(small_disk: ContainerRoot) -> None:
    small_disk.write("opt/app/weights.bin", bytes(5 << 20))
    ended = small_disk.run()
    assert ended.code == 74
    assert ended.failure["cause"] == "disk-full"
    assert "No space left on device" in ended.failure["message"]
    assert ended.result["exit_code"] == 74


def test_what_an_error_in_collecting_is_told_in_both_documents(container: ContainerRoot) -> None:
    container.script("print('trained')")
    ended = container.run(setup="import trainpack_entrypoint.main as m; m.read_metrics = lambda *_: 1 / 0")
    assert ended.code == 70
    assert ended.failure["cause"] == "internal"
    assert (ended.result["status"], ended.result["exit_code"]) == ("failed", 70)


@pytest.fixture
def movable_clock(tmp_path: Path) -> dict[str, str]:
    """The environment in which a file says what the wall clock shows; the monotonic clock stays real."""
    found = [str(path) for path in Path("/usr/lib").glob("*/faketime/libfaketime.so.1")]
    if not found:
        skip_or_fail("there is no libfaketime: scripts/test-services installs it")
    (tmp_path / "clock").write_text("+0")
    return {
        "LD_PRELOAD": found[0],
        "FAKETIME_TIMESTAMP_FILE": str(tmp_path / "clock"),
        "FAKETIME_NO_CACHE": "1",
        "DONT_FAKE_MONOTONIC": "1",
    }


@pytest.mark.parametrize("jump", ["-400d", "+400d"])
def test_a_clock_that_jumps_spoils_no_duration_and_no_timestamp(
    container: ContainerRoot, movable_clock: dict[str, str], jump: str
) -> None:
    container.script("""
        import os, sys
        os.write(1, b"ready\\n")
        sys.stdin.read(1)
        open("model.pt", "w").write("trained")
        sys.exit(3)
    """)
    before = time.time()
    process = container.start(env=movable_clock, stdin=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdin is not None
    assert process.stdout.readline() == b"ready\n"
    Path(movable_clock["FAKETIME_TIMESTAMP_FILE"]).write_text(jump)
    process.stdin.write(b"x")
    process.stdin.flush()
    ended = container.ended(process)
    assert ended.code == 3
    assert 0 < ended.result["seconds"] < 60
    started, finished = (datetime.fromisoformat(ended.result[name]) for name in ("started", "finished"))
    assert before - 2 < started.timestamp() <= finished.timestamp() < time.time() + 2
    assert ended.saved == ["model.pt"]

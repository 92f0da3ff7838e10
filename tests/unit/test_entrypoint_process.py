"""The entrypoint as a process: output, exit codes, signals."""

from __future__ import annotations

import os
import select
import signal
import subprocess
from pathlib import Path

import pytest
from container_root import ContainerRoot


@pytest.fixture
def container(tmp_path: Path) -> ContainerRoot:
    return ContainerRoot(tmp_path)


def started(container: ContainerRoot, **env: str) -> subprocess.Popen[bytes]:
    """A container whose script has printed its first line."""
    process = container.start(env=env)
    assert process.stdout is not None
    assert process.stdout.readline() == b"ready\n"
    return process


def test_stdout_and_stderr_pass_verbatim_on_their_own_streams(container: ContainerRoot) -> None:
    container.script(r"""
        import sys
        sys.stdout.buffer.write(b"\xff\x00--ec-- 1\r\n" + b"x" * (1 << 20) + b"\n--#--Chapter\nno end")
        sys.stderr.buffer.write(b"to stderr \xfe\n")
    """)
    ended = container.run()
    assert ended.code == 0
    assert ended.stdout == b"\xff\x00--ec-- 1\r\n" + b"x" * (1 << 20) + b"\n--#--Chapter\nno end"
    assert b"to stderr \xfe\n" in ended.stderr
    own = [line for line in ended.stderr.splitlines() if not line.startswith(b"to stderr")]
    assert own
    assert all(line.startswith(b"trainpack: ") for line in own)


def test_two_hundred_thousand_lines_arrive_whole(container: ContainerRoot) -> None:
    container.script("for number in range(200_000): print('line', number)")
    ended = container.run()
    assert ended.stdout == b"".join(b"line %d\n" % number for number in range(200_000))


def test_the_table_is_told_before_the_script_starts(container: ContainerRoot) -> None:
    container.script("import sys; print('script', file=sys.stderr)")
    container.bake(labelmap={"0": "car"})
    told = container.run().told
    assert told.index("labelmap: 1 from image default: 0 car") < told.index("script")


@pytest.mark.parametrize("code", [1, 3, 78, 255])
def test_the_scripts_exit_code_is_the_containers(container: ContainerRoot, code: int) -> None:
    container.script(f"import sys; print('last words'); sys.exit({code})")
    ended = container.run()
    assert ended.code == code
    assert ended.result["status"] == "failed"
    assert ended.result["script_exit_code"] == code
    assert ended.failure["cause"] == "script"
    assert ended.failure["tail"] == ["last words"]


def test_a_script_that_kills_itself_ends_with_128_plus_the_signal(container: ContainerRoot) -> None:
    container.script("import os, signal; os.kill(os.getpid(), signal.SIGKILL)")
    ended = container.run()
    assert ended.code == 137
    assert ended.failure["cause"] == "signal"
    assert ended.failure["message"] == "the script was ended by SIGKILL (9)"
    assert ended.result["status"] == "failed"
    assert ended.result["signal"] is None


def test_a_broken_pipe_ends_a_scripts_pipeline_as_it_would_anywhere(container: ContainerRoot) -> None:
    container.script("import subprocess, sys; sys.exit(subprocess.call('yes | head -1', shell=True))")
    assert container.run().stdout == b"y\n"


@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT", "SIGHUP"])
def test_a_signal_reaches_the_script_whose_save_is_collected(container: ContainerRoot, name: str) -> None:
    container.script(f"""
        import signal, sys, time, pathlib
        def save(number, frame):
            print("saving")
            pathlib.Path("checkpoint.pt").write_text("weights")
            sys.exit(0)
        signal.signal(signal.{name}, save)
        print("ready", flush=True)
        while True:
            time.sleep(0.01)
    """)
    process = started(container)
    number = signal.Signals[name]
    process.send_signal(number)
    ended = container.ended(process)
    assert ended.code == 128 + number
    assert ended.stdout == b"saving\n"
    assert (ended.outputs / "checkpoint.pt").read_text() == "weights"
    assert ended.result["status"] == "preempted"
    assert ended.result["signal"] == number
    assert ended.result["script_exit_code"] == 0
    assert ended.failure["cause"] == "signal"


def test_a_script_that_ignores_sigterm_is_killed_after_the_grace(container: ContainerRoot) -> None:
    container.script("""
        import signal, time
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        print("ready", flush=True)
        while True:
            time.sleep(0.01)
    """)
    process = started(container, TRAINPACK_GRACE="0.2")
    process.send_signal(signal.SIGTERM)
    ended = container.ended(process)
    assert ended.code == 143
    assert ended.result["script_exit_code"] == 137
    assert ended.result["status"] == "preempted"


def test_a_second_signal_changes_nothing(container: ContainerRoot) -> None:
    container.script("""
        import pathlib, signal, sys, time
        count = 0
        def note(number, frame):
            global count
            count += 1
            print("signal", count, flush=True)
            if count == 2:
                sys.exit(5)
        signal.signal(signal.SIGTERM, note)
        print("ready", flush=True)
        while True:
            time.sleep(0.01)
    """)
    process = started(container)
    process.send_signal(signal.SIGTERM)
    assert process.stdout is not None
    assert process.stdout.readline() == b"signal 1\n"
    process.send_signal(signal.SIGTERM)
    ended = container.ended(process)
    assert ended.code == 143
    assert ended.result["script_exit_code"] == 5


def test_sigusr1_is_passed_on_and_does_not_end_the_run(container: ContainerRoot) -> None:
    container.script("""
        import signal
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})
        print("ready", flush=True)
        signal.sigwait({signal.SIGUSR1})
        print("checkpoint")
    """)
    process = started(container)
    process.send_signal(signal.SIGUSR1)
    ended = container.ended(process)
    assert ended.stdout == b"checkpoint\n"
    assert ended.code == 0
    assert ended.result["status"] == "success"


def test_a_signal_before_the_script_starts_ends_the_run_at_once(container: ContainerRoot) -> None:
    container.script("print('ran')")
    # The labelmap is a pipe that nobody writes to: the entrypoint waits in it, before the script.
    (container.root / "mnt/trainpack").mkdir(parents=True)
    os.mkfifo(container.root / "mnt/trainpack/labelmap.json")
    process = container.start()
    with (container.root / "mnt/trainpack/labelmap.json").open("wb"):
        process.send_signal(signal.SIGTERM)
        ended = container.ended(process)
    assert ended.code == 143
    assert ended.stdout == b""
    assert ended.result["status"] == "preempted"
    assert ended.result["script_exit_code"] is None


def test_what_a_script_leaves_running_is_ended_with_it(container: ContainerRoot) -> None:
    container.script("""
        import subprocess, sys
        subprocess.Popen([sys.executable, "-c", "import signal; signal.pause()"], close_fds=False)
    """)
    # The pipe ends when the last process that inherited it does.
    reader, writer = os.pipe()
    setup = "import trainpack_entrypoint.process as process; process.DRAIN_SECONDS = 0.2"
    process = container.start(setup=setup, pass_fds=(writer,))
    os.close(writer)
    assert container.ended(process).code == 0
    assert select.select([reader], [], [], 10)[0] == [reader]
    assert os.read(reader, 1) == b""
    os.close(reader)


def test_what_children_still_print_is_copied_before_the_end(container: ContainerRoot) -> None:
    container.script("""
        import os, sys
        if os.fork() == 0:
            os.read(0, 1)
            print("from the child", flush=True)
    """)
    process = container.start(stdin=subprocess.PIPE)
    assert process.stdin is not None
    process.stdin.write(b"x")
    process.stdin.flush()
    assert container.ended(process).stdout == b"from the child\n"


def test_a_reader_that_goes_away_does_not_end_the_training(container: ContainerRoot) -> None:
    container.script("""
        import pathlib
        print("ready", flush=True)
        for _ in range(1000):
            print("x" * 1000)
        pathlib.Path("model.pt").write_text("trained")
    """)
    process = started(container)
    assert process.stdout is not None
    process.stdout.close()
    assert process.stderr is not None
    process.stderr.read()
    assert process.wait(30) == 0
    assert (container.root / "workspace/outputs/model.pt").read_text() == "trained"


def test_the_tail_shows_what_a_terminal_would(container: ContainerRoot) -> None:
    container.script(r"""
        import sys
        print("10%\r50%\r100%\r\n" + "\n".join(f"line {i}" for i in range(60)), end="")
        sys.exit(1)
    """)
    tail = container.run().failure["tail"]
    assert tail == [f"line {number}" for number in range(10, 60)]


def test_a_fault_of_the_entrypoint_ends_with_70_and_its_traceback(container: ContainerRoot) -> None:
    container.script("print('trained')")
    setup = "import trainpack_entrypoint.workspace as w; w.absent_datasets = lambda *_: 1 / 0"
    ended = container.run(setup=setup)
    assert ended.code == 70
    assert ended.failure["cause"] == "internal"
    assert any("ZeroDivisionError" in line for line in ended.failure["problems"])

"""What a hostile platform does to a run: nothing is lost, nothing doubled, and the end tells the truth."""

from __future__ import annotations

import json
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import requests
from container_root import ContainerRoot, Ended
from picsellia_standin import Experiment, Standin
from platform_runs import environment, finals
from trainpack_entrypoint.platform.transport import Backoff, Patience, reason

METRICS = """
import json, os
from pathlib import Path
lines = [{"step": step, "name": "loss", "value": step / 2} for step in range(3)]
text = "".join(json.dumps(line) + "\\n" for line in lines)
(Path(os.environ["TRAINPACK_OUTPUTS"]) / "metrics.jsonl").write_text(text)
"""
WAIT = "print('ready', flush=True); input()\n"


@pytest.fixture
def container(tmp_path: Path) -> ContainerRoot:
    return ContainerRoot(tmp_path)


@pytest.fixture
def experiment(platform: Standin) -> Experiment:
    return platform.experiments[platform.add_experiment("traffic", "first")]


def run_through(
    container: ContainerRoot, env: dict[str, str], *midway: Callable[[], object], setup: str = ""
) -> Ended:
    """Run a script that says `ready` and waits for a line, once for each thing that happens midway."""
    process = container.start(env=env, setup=setup, stdin=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdin is not None
    for happen in midway:
        assert process.stdout.readline() == b"ready\n"
        happen()
        process.stdin.write(b"\n")
        process.stdin.flush()
    return container.ended(process)


def printed(lines: list[str]) -> list[str]:
    """The script's own lines, without the exit code at the end."""
    return [line.rstrip("\n") for line in lines if not line.startswith("trainpack: ")][:-1]


def stored_log(platform: Standin, object_name: str | None) -> dict[str, Any]:
    assert object_name is not None
    document = json.loads(platform.objects[object_name])
    assert isinstance(document, dict)
    return document


# Lost answers: what was done is not done again.

LOST = pytest.mark.parametrize("status", [0, 504], ids=["dropped", "504"])


@LOST
def test_a_metric_whose_answer_is_lost_is_not_doubled(
    platform: Standin, container: ContainerRoot, experiment: Experiment, status: int
) -> None:
    container.script(WAIT + METRICS)
    ended = run_through(
        container,
        environment(platform, experiment.id),
        lambda: platform.fail("POST", r"/logs$", status=status, after=True),
    )
    assert ended.code == 0, ended.told
    assert experiment.logs["loss"].data == [0, 0.5, 1]


def test_a_metric_grows_what_the_experiment_has_of_it(
    platform: Standin, container: ContainerRoot, experiment: Experiment
) -> None:
    platform.put_log(experiment, "loss", "LINE", [0, 0.5, 1])
    container.script(WAIT + METRICS)
    env = environment(platform, experiment.id)
    run_through(container, env, lambda: platform.fail("POST", r"/logs$", status=503, times=2))
    assert experiment.logs["loss"].data == [0, 0.5, 1, 0, 0.5, 1]


@LOST
@pytest.mark.parametrize(
    "path", ["/artifacts$", "generate_object_name$", "generate_presigned_url$", "^/storage/"]
)
def test_an_artifact_whose_answer_is_lost_is_there_once(
    platform: Standin, container: ContainerRoot, experiment: Experiment, path: str, status: int
) -> None:
    container.script("open('model.pt', 'w').write('x')")
    platform.fail("POST", path, status=status, after=True)
    ended = container.run(env=environment(platform, experiment.id))
    assert ended.code == 0, ended.told
    assert {name: file.data for name, file in experiment.artifacts.items()} == {"model.pt": b"x"}


@LOST
@pytest.mark.parametrize(("method", "path"), [("PATCH", "/api/experiment/[^/]*$"), ("POST", "/running$")])
def test_a_status_at_the_start_whose_answer_is_lost_is_set_once(
    platform: Standin, container: ContainerRoot, experiment: Experiment, method: str, path: str, status: int
) -> None:
    container.script("")
    job = platform.jobs[platform.add_job()]
    platform.fail(method, path, status=status, after=True)
    ended = container.run(env=environment(platform, experiment.id, job_id=job.id))
    assert ended.code == 0, ended.told
    assert experiment.statuses == ["RUNNING", "SUCCESS"]
    assert job.history == ["PENDING", "RUNNING", "SUCCEEDED"]


@LOST
@pytest.mark.parametrize(("method", "path"), [("PATCH", "/api/experiment/[^/]*$"), ("POST", "/succeed$")])
def test_a_status_at_the_end_whose_answer_is_lost_is_set_once(
    platform: Standin, container: ContainerRoot, experiment: Experiment, method: str, path: str, status: int
) -> None:
    container.script(WAIT)
    job = platform.jobs[platform.add_job()]
    env = environment(platform, experiment.id, job_id=job.id)
    ended = run_through(container, env, lambda: platform.fail(method, path, status=status, after=True))
    assert ended.code == 0, ended.told
    assert experiment.statuses == ["RUNNING", "SUCCESS"]
    assert job.history == ["PENDING", "RUNNING", "SUCCEEDED"]
    assert ended.result["experiment"]["status"] == "SUCCESS"


def test_a_job_that_ended_otherwise_is_a_problem(
    platform: Standin, container: ContainerRoot, experiment: Experiment
) -> None:
    container.script(WAIT)
    job = platform.jobs[platform.add_job()]

    def kill() -> None:
        job.status = "KILLED"

    ended = run_through(container, environment(platform, experiment.id, job_id=job.id), kill)
    assert ended.code == 74
    assert "Illegal transition" in ended.told


@LOST
def test_lines_whose_answer_is_lost_are_shown_once(
    platform: Standin, container: ContainerRoot, experiment: Experiment, status: int
) -> None:
    container.script("print('first'); print('last')")
    platform.fail("POST", "/logging$", status=status, times=2, after=True)
    assert container.run(env=environment(platform, experiment.id)).code == 0
    assert printed(experiment.shown) == ["first", "last"]


# A platform that is busy, slow, away, or hangs up.


@pytest.mark.parametrize("cut", ["request", "answer"])
@pytest.mark.parametrize("path", ["/logging$", "/artifacts$", "^/storage/", "/api/experiment/[^/]*$"])
def test_a_connection_cut_half_way_loses_nothing(
    platform: Standin, container: ContainerRoot, experiment: Experiment, path: str, cut: str
) -> None:
    container.script("print('first'); open('model.pt', 'wb').write(b'x' * 300_000); print('last')")
    platform.fail("*", path, cut=cut)
    ended = container.run(env=environment(platform, experiment.id))
    assert ended.code == 0, ended.told
    assert printed(experiment.shown) == ["first", "last"]
    assert experiment.artifacts["model.pt"].data == b"x" * 300_000
    assert experiment.statuses == ["RUNNING", "SUCCESS"]


def test_answers_that_come_too_late_double_nothing(
    platform: Standin, container: ContainerRoot, experiment: Experiment
) -> None:
    container.script(WAIT + METRICS + "open('model.pt', 'w').write('x')")
    job = platform.jobs[platform.add_job()]
    calm = threading.Timer(4.0, setattr, (platform, "delay", 0.0))

    def slow_down() -> None:
        platform.delay = 1.2
        calm.start()

    env = environment(platform, experiment.id, job_id=job.id)
    setup = "import trainpack_entrypoint.platform.transport as t; t.TIMEOUTS = (1.0, 0.8)"
    ended = run_through(container, env, slow_down, setup=setup)
    assert ended.code == 0, ended.told
    assert experiment.logs["loss"].data == [0, 0.5, 1]
    assert experiment.artifacts["model.pt"].data == b"x"
    assert printed(experiment.shown) == printed(job.shown) == ["ready"]
    assert experiment.statuses == ["RUNNING", "SUCCESS"]
    assert job.history == ["PENDING", "RUNNING", "SUCCEEDED"]


def test_a_storm_of_busy_answers_loses_nothing(
    platform: Standin, container: ContainerRoot, experiment: Experiment
) -> None:
    container.script("print('first'); open('model.pt', 'w').write('x'); print('last')")
    for status in (429, 503):
        platform.fail("*", "", status=status)
    for path in ("/logging$", "^/storage/", "/artifacts", "/api/experiment/[^/]*$"):
        platform.fail("*", path, status=429, headers={"Retry-After": "1"})
    ended = container.run(env=environment(platform, experiment.id))
    assert ended.code == 0, ended.told
    assert printed(experiment.shown) == ["first", "last"]
    assert experiment.artifacts["model.pt"].data == b"x"
    assert finals(experiment) == ["SUCCESS"]


def test_a_part_of_a_large_output_is_sent_again_alone(
    platform: Standin, container: ContainerRoot, experiment: Experiment
) -> None:
    container.script("open('model.pt', 'wb').write(bytes(30 << 20))")
    platform.fail("PUT", "^/storage/", status=503)
    platform.fail("PUT", "^/storage/", status=0, after=True)
    assert container.run(env=environment(platform, experiment.id)).code == 0
    assert experiment.artifacts["model.pt"].data == bytes(30 << 20)
    begun = [request for request in platform.requests if request.path.endswith("/init_multipart_upload")]
    assert len(begun) == 1


def test_a_platform_that_is_away_for_a_while_slows_nothing_and_gets_everything(
    platform: Standin, container: ContainerRoot, experiment: Experiment
) -> None:
    container.script(
        WAIT
        + "for number in range(20_000): print('line', number)\n"
        + WAIT
        + "open('model.pt', 'w').write('x')"
    )
    env = environment(platform, experiment.id)
    process = container.start(env=env, stdin=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdin is not None
    assert process.stdout.readline() == b"ready\n"
    platform.stop()
    process.stdin.write(b"\n")
    process.stdin.flush()
    lines = [process.stdout.readline() for _ in range(20_000)]
    assert process.stdout.readline() == b"ready\n"
    platform.start()
    process.stdin.write(b"\n")
    process.stdin.flush()
    ended = container.ended(process)
    assert ended.code == 0, ended.told
    expected = [line.decode().rstrip("\n") for line in lines]
    assert printed(experiment.shown) == ["ready", *expected, "ready"]
    assert experiment.artifacts["model.pt"].data == b"x"


def test_a_platform_that_is_away_at_the_end_is_waited_for_so_long_and_no_longer(
    platform: Standin, container: ContainerRoot, experiment: Experiment
) -> None:
    container.script(WAIT + "for name in 'abcdef': open(name, 'w').write(name)")
    env = environment(platform, experiment.id, TRAINPACK_SAVE_TIMEOUT="1")
    setup = "import trainpack_entrypoint.platform.correspondence as m; m.FLUSH_SECONDS = 0.5\n"
    setup += "import trainpack_entrypoint.platform.reporting as r; r._LAST_WORD = 0.5"
    started = time.monotonic()
    ended = run_through(container, env, platform.stop, setup=setup)
    assert time.monotonic() - started < 20
    assert ended.code == 74
    assert sorted(path.name for path in ended.outputs.iterdir()) == list("abcdef")
    assert f"{platform.url} does not hold every output" in ended.told
    assert "lines of the log did not reach" in ended.told
    assert ended.result["experiment"]["status"] == "RUNNING"
    assert ended.result["status"] == "failed"


def test_the_status_is_tried_again_when_the_time_for_all_else_is_used_up(
    platform: Standin, container: ContainerRoot, experiment: Experiment
) -> None:
    container.script(WAIT + "open('model.pt', 'w').write('x')")

    def break_down() -> None:
        platform.fail("POST", "/artifacts$|/logging/save$", status=500, times=None)
        platform.fail("PATCH", "/api/experiment/[^/]*$", status=503, times=2)

    env = environment(platform, experiment.id, TRAINPACK_SAVE_TIMEOUT="0.2")
    assert run_through(container, env, break_down).code == 74
    assert finals(experiment) == ["FAILED"]


def test_the_signature_of_an_address_is_not_printed() -> None:
    with pytest.raises(requests.ConnectionError) as refused:
        requests.put("http://127.0.0.1:9/bucket/model.pt?X-Signature=s3cret&part=1", timeout=5)
    told = reason(refused.value)
    assert "/bucket/model.pt?... " in told
    assert "s3cret" not in told


def test_a_platform_that_comes_back_before_the_end_of_patience_gets_everything(
    platform: Standin, container: ContainerRoot, experiment: Experiment
) -> None:
    container.script(WAIT + "print('last'); open('model.pt', 'w').write('x')")
    back = threading.Timer(2.0, platform.start)

    def leave() -> None:
        platform.stop()
        back.start()

    ended = run_through(container, environment(platform, experiment.id), leave)
    assert ended.code == 0, ended.told
    assert experiment.artifacts["model.pt"].data == b"x"
    assert printed(experiment.shown) == ["ready", "last"]
    assert finals(experiment) == ["SUCCESS"]


def test_a_revoked_token_is_named_as_the_reason(
    platform: Standin, container: ContainerRoot, experiment: Experiment
) -> None:
    container.script(WAIT + "open('model.pt', 'w').write('x')")
    env = environment(platform, experiment.id)
    started = time.monotonic()
    ended = run_through(container, env, platform.revoke)
    assert time.monotonic() - started < 20
    assert ended.code == 74
    assert "output model.pt: the token is refused" in ended.failure["problems"][0]
    assert (ended.outputs / "model.pt").exists()


def test_a_revoked_token_leaves_the_code_of_a_failed_script(
    platform: Standin, container: ContainerRoot, experiment: Experiment
) -> None:
    container.script(WAIT + "raise SystemExit(9)")
    assert run_through(container, environment(platform, experiment.id), platform.revoke).code == 9


@pytest.mark.parametrize(
    ("header", "at_least", "at_most"),
    [
        ("7", 7, 7),
        ("", 0.2, 0.5),
        ("86400", 60, 60),
        ("Thu, 31 Dec 2099 00:00:00 GMT", 60, 60),
        ("soon", 0.2, 0.5),
    ],
)
def test_what_the_platform_asks_for_is_waited_within_bounds(
    header: str, at_least: float, at_most: float
) -> None:
    response = requests.Response()
    response.headers["Retry-After"] = header
    waited = Backoff().after(requests.RequestException("busy", response=response))
    assert at_least <= waited <= at_most


def test_what_was_granted_is_there_when_all_other_time_is_used_up() -> None:
    patience, calls = Patience(0.0), 0

    def comes_back() -> None:
        nonlocal calls
        calls += 1
        if calls < 3:
            raise requests.RequestException("away")

    assert patience.attempt("output", comes_back) == "output: RequestException: away"
    assert patience.attempt("status", comes_back) is not None
    calls = 1
    patience.grant(10.0)
    assert patience.attempt("status", comes_back) is None


def test_waits_grow_and_differ() -> None:
    backoff, other = Backoff(), Backoff()
    waits = [backoff.after(RuntimeError()) for _ in range(12)]
    assert waits[0] <= 0.5
    assert 5 <= waits[-1] <= 10
    assert waits != [other.after(RuntimeError()) for _ in range(12)]


# What is reported.


@pytest.mark.parametrize(("code", "status"), [(0, "SUCCESS"), (3, "FAILED")])
def test_the_job_of_a_launched_experiment_gets_its_status_once(
    platform: Standin, container: ContainerRoot, experiment: Experiment, code: int, status: str
) -> None:
    experiment.is_launched = True
    container.script(f"raise SystemExit({code})")
    assert container.run(env=environment(platform, experiment.id)).code == code
    assert experiment.job_status == ["RUNNING", status]


def test_an_experiment_whose_job_is_given_has_no_other(
    platform: Standin, container: ContainerRoot, experiment: Experiment
) -> None:
    container.script("")
    env = environment(platform, experiment.id, job_id=platform.add_job())
    assert container.run(env=env).code == 0
    assert not any(request.path.endswith("/job/status") for request in platform.requests)


def test_a_container_that_starts_again_finds_its_job_running(
    platform: Standin, container: ContainerRoot
) -> None:
    container.script("")
    job = platform.jobs[platform.add_job(status="RUNNING")]
    assert container.run(env=environment(platform, None, job_id=job.id)).code == 0
    assert job.history == ["RUNNING", "SUCCEEDED"]


def test_the_full_log_is_stored_on_experiment_and_job_with_what_was_replaced(
    platform: Standin, container: ContainerRoot, experiment: Experiment
) -> None:
    container.script(r"""
        print("-----")
        for step in range(100): print(step, "%")
        print("--*--")
        print("--#--Evaluate")
        print("--ec-- 0")
        print("10 %\r100 %")
        raise SystemExit(4)
    """)
    job = platform.jobs[platform.add_job()]
    assert container.run(env=environment(platform, experiment.id, job_id=job.id)).code == 4
    documents = [stored_log(platform, name) for name in (experiment.logging_file, job.logging_object_name)]
    assert documents[0] == documents[1]
    logs = {name: list(part.get("logs", {}).values()) for name, part in documents[0].items()}
    assert [f"{step} %\n" for step in range(100)] == [line for line in logs["--#--Training"] if "%" in line]
    assert logs["--#--Evaluate"][:3] == ["--#--Evaluate\n", "--ec-- 0\n", "100 %\n"]
    assert documents[0]["exit_code"]["exit_code"] == 4
    assert "99 %\n" in experiment.shown
    assert job.shown == experiment.shown
    assert {body["special"] for body in experiment.telemetry if "--ec-- 0\n" in body["log"]} == {"buffer"}
    assert list((container.root / "workspace/tmp").iterdir()) == []


def test_a_log_that_cannot_be_stored_is_a_warning(
    platform: Standin, container: ContainerRoot, experiment: Experiment
) -> None:
    container.script("")
    platform.fail("POST", "/logging/save$", status=400, times=None)
    ended = container.run(env=environment(platform, experiment.id))
    assert ended.code == 0
    assert "warning: log: BadRequestError" in ended.told


def test_binary_junk_and_long_lines_survive(
    platform: Standin, container: ContainerRoot, experiment: Experiment
) -> None:
    container.script(r"""
        import os, sys
        long = b"x" * (1 << 20)
        junk = bytes(byte for byte in range(256) if byte not in b"\n\r")
        for line in (b"first", long, junk, b"10 %\r50 %\r100 %", "\u2028 \u00e9".encode(), long, b"last"):
            sys.stdout.buffer.write(line + b"\n")
    """)
    ended = container.run(env=environment(platform, experiment.id))
    assert ended.code == 0, ended.told
    lines = printed(experiment.shown)
    assert [len(line) for line in lines] == [5, 1 << 20, 254, 5, 3, 1 << 20, 4]
    assert (lines[0], lines[3], lines[4], lines[-1]) == ("first", "100 %", "\u2028 \u00e9", "last")
    assert (
        "x" * (1 << 20) + "\n"
        in stored_log(platform, experiment.logging_file)["--#--Training"]["logs"].values()
    )
    assert ended.stdout.count(b"\x00\x01\x02") == 1


def test_a_small_limit_costs_lines_of_the_log_and_says_so(
    platform: Standin, container: ContainerRoot, experiment: Experiment
) -> None:
    container.script("for number in range(250_000): print('line', number)")
    platform.fail("POST", "/logging$", status=503, times=3)
    env = environment(platform, experiment.id, TRAINPACK_LOG_LIMIT="2000000")
    ended = container.run(env=env)
    assert ended.code == 0
    assert len(ended.stdout.splitlines()) == 250_000
    assert "lines were not kept for the full log" in ended.told
    lines = list(stored_log(platform, experiment.logging_file)["--#--Training"]["logs"].values())
    assert any(line.startswith("trainpack: ") and "are missing here" in line for line in lines)
    assert "line 0\n" in lines
    assert "line 249999\n" in lines


@pytest.mark.parametrize("limit", ["1 GB", "-1"])
def test_a_limit_that_is_no_number_of_bytes_ends_with_78(
    platform: Standin, container: ContainerRoot, experiment: Experiment, limit: str
) -> None:
    container.script("")
    ended = container.run(env=environment(platform, experiment.id, TRAINPACK_LOG_LIMIT=limit))
    assert ended.code == 78
    assert f"TRAINPACK_LOG_LIMIT: {limit!r} is not a number of bytes" in ended.told


def test_outputs_whose_names_are_not_text_are_stored_under_names_that_are(
    platform: Standin, container: ContainerRoot, experiment: Experiment
) -> None:
    container.script(r"""
        import os
        for name in (b"a\xff", b"a\xfe", "é ü%.txt".encode()):
            open(name, "wb").write(name)
        os.makedirs(b"d\xff")
        open(b"d\xff/x\xff", "w").close()
    """)
    ended = container.run(env=environment(platform, experiment.id))
    assert ended.code == 0, ended.told
    assert {name: file.data for name, file in experiment.artifacts.items() if name[0] != "d"} == {
        "a\\xff": b"a\xff",
        "a\\xfe": b"a\xfe",
        "é ü%.txt": "é ü%.txt".encode(),
    }
    assert experiment.artifacts["d\\xff"].filename == "d\\xff.zip"


def test_a_folder_that_cannot_be_packed_ends_with_74_and_the_rest_is_stored(
    platform: Standin, container: ContainerRoot, experiment: Experiment
) -> None:
    container.script("""
        import os, shutil
        os.makedirs("runs/deep")
        open("runs/deep/model.pt", "w").write("x")
        os.makedirs("other")
        shutil.rmtree(os.environ["TMPDIR"])
        open(os.environ["TMPDIR"], "w").close()
    """)
    ended = container.run(env=environment(platform, experiment.id))
    assert ended.code == 74
    assert ended.failure["problems"][0].startswith("output runs: it cannot be packed below ")
    assert (ended.outputs / "runs/deep/model.pt").read_text() == "x"


def test_two_hundred_thousand_lines_arrive_within_a_hundred_megabytes(
    platform: Standin, container: ContainerRoot, experiment: Experiment
) -> None:
    container.script("""
        for number in range(200_000): print("step", number, "loss", number / 7, "accuracy", 0.98765)
        open("model.pt", "wb").write(bytes(24 << 20))
        open("large.pt", "wb").write(bytes(60 << 20))
    """)
    process = container.start(env=environment(platform, experiment.id))
    peak = 0

    def sample() -> None:
        nonlocal peak
        while process.poll() is None:
            peak = max(peak, peak_memory(process.pid))
            time.sleep(0.01)

    sampler = threading.Thread(target=sample)
    sampler.start()
    ended = container.ended(process)
    sampler.join()
    assert ended.code == 0, ended.told
    assert printed(experiment.shown) == ended.stdout.decode().splitlines()
    logs = stored_log(platform, experiment.logging_file)["--#--Training"]["logs"]
    assert sum(line.startswith("step ") for line in logs.values()) == 200_000
    assert {name: len(file.data) for name, file in experiment.artifacts.items()} == {
        "model.pt": 24 << 20,
        "large.pt": 60 << 20,
    }
    assert 0 < peak < 100_000
    assert len(platform.requests) < 2_000


def peak_memory(process: int) -> int:
    """The most that a process had in memory, in kB."""
    try:
        status = Path(f"/proc/{process}/status").read_text()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM")), 0)

"""The entrypoint with the real SDK against the stand-in platform: inputs, status, log, artifacts."""

from __future__ import annotations

import io
import json
import signal
import socket
import subprocess
import zipfile
from pathlib import Path

import pytest
from container_root import ContainerRoot, Ended
from picsellia_standin import Standin
from platform_runs import environment, finals
from trainpack_entrypoint.manifest import Run
from trainpack_entrypoint.schema import Parameter

EPOCHS = Parameter("epochs", type="int", default=10)
SIZE = Parameter("image_size", type="int", default=64)
IMPATIENT = {"TRAINPACK_SAVE_TIMEOUT": "0.3"}


@pytest.fixture
def container(tmp_path: Path) -> ContainerRoot:
    container = ContainerRoot(tmp_path)
    container.bake(parameters=[EPOCHS, SIZE], labelmap={"0": "baked"})
    container.script("import sys; print(sys.argv[1:])")
    return container


def test_parameters_and_labelmap_come_from_the_experiment_and_its_base_version(
    platform: Standin, container: ContainerRoot
) -> None:
    version = platform.add_model_version("detector", "v3", parameters={"epochs": 3, "image_size": 32})
    experiment = platform.add_experiment(
        "traffic", "first", parameters={"epochs": 5}, labelmap={"0": "car", "1": "bus"}, base_version=version
    )
    ended = container.run(env=environment(platform, experiment))
    assert ended.code == 0, ended.told
    assert ended.stdout == b"['--epochs', '5', '--image_size', '32']\n"
    assert ended.result["parameters"] == {
        "epochs": {"value": 5, "source": "experiment first"},
        "image_size": {"value": 32, "source": "ModelVersion detector/v3"},
    }
    assert ended.result["labelmap"] == {"0": "car", "1": "bus"}
    assert ended.result["labelmap_source"] == "experiment first"
    assert ended.result["experiment"] == {"id": experiment, "name": "first", "status": "SUCCESS"}


def test_parameters_under_the_other_key_of_the_wire_are_read(container: ContainerRoot) -> None:
    with Standin(parameters_key="base_parameters") as platform:
        version = platform.add_model_version("detector", "v3", parameters={"epochs": 3})
        experiment = platform.add_experiment("traffic", "first", parameters={}, base_version=version)
        ended = container.run(env=environment(platform, experiment))
    assert ended.result["parameters"]["epochs"] == {"value": 3, "source": "ModelVersion detector/v3"}


def test_a_mounted_file_beats_the_experiment(platform: Standin, container: ContainerRoot) -> None:
    experiment = platform.add_experiment("traffic", "first", parameters={"epochs": 5}, labelmap={"0": "car"})
    container.mount("parameters.json", {"epochs": 1})
    container.mount("labelmap.json", {"0": "mounted"})
    result = container.run(env=environment(platform, experiment)).result
    assert result["parameters"]["epochs"]["value"] == 1
    assert result["labelmap"] == {"0": "mounted"}


@pytest.mark.parametrize("project", ["project_name", "project_token"])
@pytest.mark.parametrize("organization", ["organization_name", "default"])
def test_an_experiment_is_found_by_name_in_every_form(
    platform: Standin, container: ContainerRoot, project: str, organization: str
) -> None:
    experiment = platform.add_experiment("traffic", "first", parameters={"epochs": 5})
    owner = platform.experiments[experiment].project
    env = {"api_token": platform.token, "host": platform.url, "experiment_name": "first"}
    env[project] = owner.name if project == "project_name" else owner.id
    if organization != "default":
        env[organization] = platform.organization_name
    assert container.run(env=env).result["parameters"]["epochs"]["value"] == 5
    assert finals(platform.experiments[experiment]) == ["SUCCESS"]


def test_a_file_is_an_artifact_and_a_folder_an_archive_with_all_its_levels(
    platform: Standin, container: ContainerRoot
) -> None:
    container.script(r"""
        import os
        from pathlib import Path
        Path("runs/best").mkdir(parents=True)
        Path("runs/best/model.pt").write_bytes(bytes(range(256)) * 100)
        Path("runs/a/b/c/d").mkdir(parents=True)
        Path("runs/a/b/c/d/deep").write_text("deep")
        Path("model.pt").write_bytes(b"other")
        Path("runs.zip").write_bytes(b"no archive")
        Path("empty").touch()
        os.utime("runs/best/model.pt", (0, 0))
    """)
    experiment = platform.add_experiment("traffic", "first")
    ended = container.run(env=environment(platform, experiment))
    assert ended.code == 0, ended.told
    artifacts = platform.experiments[experiment].artifacts
    archive = artifacts.pop("runs")
    assert archive.filename == "runs.zip"
    with zipfile.ZipFile(io.BytesIO(archive.data)) as opened:
        assert {name: opened.read(name) for name in opened.namelist()} == {
            "best/model.pt": bytes(range(256)) * 100,
            "a/b/c/d/deep": b"deep",
        }
        assert {member.compress_type for member in opened.infolist()} == {zipfile.ZIP_STORED}
    files = {"model.pt": b"other", "runs.zip": b"no archive", "empty": b""}
    assert {name: file.data for name, file in artifacts.items()} == files
    assert {file.filename for file in artifacts.values()} == set(files)
    assert list((container.root / "workspace/tmp").iterdir()) == []


def test_metrics_and_the_image_are_logged(platform: Standin, container: ContainerRoot) -> None:
    container.script("""
        import json, os
        from pathlib import Path
        lines = [{"step": 0, "name": "loss", "value": 2}, {"step": 1, "name": "loss", "value": 0.5},
                 {"step": 0, "name": "acc", "value": None}]
        text = "".join(json.dumps(line) + "\\n" for line in lines)
        (Path(os.environ["TRAINPACK_OUTPUTS"]) / "metrics.jsonl").write_text(text)
    """)
    experiment = platform.add_experiment("traffic", "first")
    ended = container.run(env=environment(platform, experiment, TRAINPACK_IMAGE_DIGEST="sha256:abc"))
    logs = platform.experiments[experiment].logs
    assert (logs["loss"].type, logs["loss"].data) == ("LINE", [2, 0.5])
    assert "acc" not in logs
    assert logs["trainpack"].data["digest"] == "sha256:abc"
    assert logs["trainpack"].data["image"] == "registry.example.com/team/model"
    assert ended.result["image"]["digest"] == "sha256:abc"


def test_every_line_reaches_the_platform_in_order_with_its_chapter(
    platform: Standin, container: ContainerRoot
) -> None:
    container.script(r"""
        print("first")
        for number in range(3000): print("line", number)
        print("--#--Evaluate")
        print("--ec-- 0")
        print("last", end="")
    """)
    experiment = platform.add_experiment("traffic", "first")
    assert container.run(env=environment(platform, experiment)).code == 0
    sent = platform.experiments[experiment]
    lines = [line.rstrip("\n") for line in sent.lines if not line.startswith("trainpack: ")]
    expected = [
        "first",
        *(f"line {number}" for number in range(3000)),
        "--#--Evaluate",
        "--ec-- 0",
        "last",
        "0",
    ]
    assert lines == expected
    assert sent.telemetry[-1]["special"] == "exit_code"
    chapters = {line: body["part"] for body in sent.telemetry for line in body["log"]}
    assert chapters["first\n"] == "--#--Training"
    assert chapters["--ec-- 0\n"] == "--#--Evaluate"
    numbers = [body["line_nb"] for body in sent.telemetry]
    assert numbers == sorted(set(numbers))
    assert any("parameters:" in line for line in sent.lines)


@pytest.mark.parametrize(("code", "status", "job"), [(0, "SUCCESS", "SUCCEEDED"), (4, "FAILED", "FAILED")])
def test_experiment_and_job_get_one_final_status(
    platform: Standin, container: ContainerRoot, code: int, status: str, job: str
) -> None:
    container.script(f"raise SystemExit({code})")
    experiment, run = platform.add_experiment("traffic", "first"), platform.add_job()
    ended = container.run(env=environment(platform, experiment, job_id=run))
    assert ended.code == code
    assert finals(platform.experiments[experiment]) == [status]
    assert platform.jobs[run].history[-2:] == ["RUNNING", job]
    assert platform.jobs[run].telemetry[-1]["log"] == str(code)


def test_a_preempted_run_is_terminated_its_job_failed_and_its_save_stored(
    platform: Standin, container: ContainerRoot
) -> None:
    container.script("""
        import signal, sys, time
        def save(number, frame):
            open("checkpoint.pt", "w").write("weights")
            sys.exit(0)
        signal.signal(signal.SIGTERM, save)
        print("ready", flush=True)
        while True:
            time.sleep(0.01)
    """)
    experiment, run = platform.add_experiment("traffic", "first"), platform.add_job()
    process = container.start(env=environment(platform, experiment, job_id=run))
    assert process.stdout is not None
    assert process.stdout.readline() == b"ready\n"
    process.send_signal(signal.SIGTERM)
    ended = container.ended(process)
    assert ended.code == 143
    assert finals(platform.experiments[experiment]) == ["TERMINATED"]
    assert platform.jobs[run].history[-2:] == ["RUNNING", "FAILED"]
    assert platform.experiments[experiment].artifacts["checkpoint.pt"].data == b"weights"
    assert ended.result["experiment"]["status"] == "TERMINATED"


def test_a_job_without_an_experiment_is_reported_to(platform: Standin, container: ContainerRoot) -> None:
    run = platform.add_job()
    ended = container.run(env=environment(platform, None, job_id=run))
    assert ended.code == 0, ended.told
    assert platform.jobs[run].history[-2:] == ["RUNNING", "SUCCEEDED"]
    assert ended.result["experiment"] is None


def test_bad_parameters_of_the_experiment_end_with_78_and_a_failed_experiment(
    platform: Standin, container: ContainerRoot
) -> None:
    experiment = platform.add_experiment("traffic", "first", parameters={"epochs": "many", "epoch": 1})
    ended = container.run(env=environment(platform, experiment))
    assert ended.code == 78
    assert len(ended.failure["problems"]) == 2
    assert 'epochs: "many" is not an int (from experiment first)' in ended.told
    assert finals(platform.experiments[experiment]) == ["FAILED"]
    assert any("is not an int" in line for line in platform.experiments[experiment].lines)
    assert ended.stdout == b""


def test_a_wrong_token_ends_with_78_and_is_never_printed(platform: Standin, container: ContainerRoot) -> None:
    experiment = platform.add_experiment("traffic", "first")
    ended = container.run(env=environment(platform, experiment, api_token="wr0ng-t0ken"))
    assert ended.code == 78
    assert ended.failure["cause"] == "configuration"
    assert f"{platform.url} refused" in ended.told
    written = ended.stdout + ended.stderr + json.dumps([ended.result, ended.failure]).encode()
    assert b"wr0ng-t0ken" not in written
    assert platform.token.encode() not in written
    assert platform.experiments[experiment].statuses == []


def test_an_experiment_that_does_not_exist_ends_with_78(platform: Standin, container: ContainerRoot) -> None:
    ended = container.run(env=environment(platform, "00000000-0000-0000-0000-000000000000"))
    assert ended.code == 78
    assert "not found" in ended.told


def test_a_platform_that_does_not_answer_ends_with_69(container: ContainerRoot) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        host = f"http://127.0.0.1:{taken.getsockname()[1]}"
        env = {
            "api_token": "some-token",
            "host": host,
            "experiment_id": "00000000-0000-0000-0000-000000000000",
            "TRAINPACK_CONNECT_TIMEOUT": "0.3",
        }
        ended = container.run(env=env)
    assert ended.code == 69
    assert f"{host} did not answer within 0.3 s" in ended.told
    assert ended.failure["cause"] == "platform"
    assert ended.stdout == b""


def test_a_platform_that_answers_late_is_waited_for(platform: Standin, container: ContainerRoot) -> None:
    platform.fail("GET", "/api/home/ping", status=503, times=5)
    experiment = platform.add_experiment("traffic", "first")
    ended = container.run(env=environment(platform, experiment))
    assert ended.code == 0, ended.told
    assert "does not answer, trying for 300 s" in ended.told


def test_short_failures_of_the_platform_lose_nothing(platform: Standin, container: ContainerRoot) -> None:
    container.script("print('first'); open('model.pt', 'w').write('x'); print('last')")
    experiment = platform.add_experiment("traffic", "first")
    platform.fail("POST", r"/logging$", status=500, times=2)
    platform.fail("POST", r"/artifacts$", status=429, times=1)
    ended = container.run(env=environment(platform, experiment))
    assert ended.code == 0, ended.told
    held = platform.experiments[experiment]
    assert [line for line in held.lines if line in ("first\n", "last\n")] == ["first\n", "last\n"]
    assert held.artifacts["model.pt"].data == b"x"
    assert finals(held) == ["SUCCESS"]


def test_outputs_that_cannot_be_stored_end_with_74_and_stay(
    platform: Standin, container: ContainerRoot
) -> None:
    container.script("open('model.pt', 'w').write('x'); open('other.pt', 'w').write('y')")
    experiment = platform.add_experiment("traffic", "first")
    platform.fail("POST", r"/artifacts$", status=500, times=None)
    ended = container.run(env=environment(platform, experiment) | IMPATIENT)
    assert ended.code == 74
    assert ended.failure["cause"] == "platform"
    assert [problem.split(":")[0] for problem in ended.failure["problems"]] == [
        "output model.pt",
        "output other.pt",
    ]
    assert (ended.outputs / "model.pt").read_text() == "x"
    assert finals(platform.experiments[experiment]) == ["FAILED"]
    assert ended.result["status"] == "failed"


def test_a_failed_script_keeps_its_code_when_outputs_cannot_be_stored(
    platform: Standin, container: ContainerRoot
) -> None:
    container.script("open('model.pt', 'w').write('x'); raise SystemExit(5)")
    experiment = platform.add_experiment("traffic", "first")
    platform.fail("POST", r"/artifacts$", status=500, times=None)
    assert container.run(env=environment(platform, experiment) | IMPATIENT).code == 5


def test_a_token_revoked_during_the_run_is_told_and_ends_with_74(
    platform: Standin, container: ContainerRoot
) -> None:
    container.script("print('ready', flush=True); input(); open('model.pt', 'w').write('x')")
    experiment = platform.add_experiment("traffic", "first")
    setup = "import trainpack_entrypoint.platform.correspondence as m; m.FLUSH_SECONDS = 0.3"
    env = environment(platform, experiment) | IMPATIENT
    process = container.start(env=env, setup=setup, stdin=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdin is not None
    assert process.stdout.readline() == b"ready\n"
    revoked, platform.token = platform.token, "another"
    process.stdin.write(b"\n")
    process.stdin.flush()
    ended = container.ended(process)
    assert ended.code == 74
    assert (ended.outputs / "model.pt").exists()
    assert revoked.encode() not in ended.stdout + ended.stderr


def test_the_sdk_writes_nothing_to_the_scripts_stdout(platform: Standin, container: ContainerRoot) -> None:
    container.script("print('only this')")
    experiment = platform.add_experiment("traffic", "first")
    assert container.run(env=environment(platform, experiment)).stdout == b"only this\n"


def test_a_token_without_an_experiment_asks_nobody(platform: Standin, container: ContainerRoot) -> None:
    container.bake(run=Run(script="train.py"))
    ended: Ended = container.run(env={"api_token": platform.token, "host": platform.url})
    assert ended.code == 0
    assert platform.requests == []

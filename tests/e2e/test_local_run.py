from __future__ import annotations

import io
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import docker
import pytest
from second_engine import over_ssh, second_engine, short_folder

from builder.engine import client
from builder.engine.containers import remove_volume
from builder.errors import EngineError, UsageError
from builder.models.names import VersionName
from builder.models.records import ModelVersion, VersionFields
from builder.run import RunOutcome, RunRequest, run_container

pytest_plugins = ["contract_image"]
pytestmark = pytest.mark.engine

TRAINPACK = [sys.executable, "-c", "from builder.cli import main; main()"]


class Run:
    """Runs the contract image in a folder of its own and keeps what it printed and said."""

    def __init__(self, image: str, output: Path) -> None:
        self.image = image
        self.output = output
        self.stdout, self.stderr = io.BytesIO(), io.BytesIO()
        self.told: list[str] = []

    def __call__(self, **options: Any) -> RunOutcome:
        request = RunRequest(**{"image": self.image, "output": self.output} | options)
        outcome = run_container(request, stdout=self.stdout, stderr=self.stderr, tell=self.told.append)
        if outcome.volume:
            remove_volume(outcome.volume)
        return outcome

    def script_saw(self) -> dict[str, Any]:
        document: dict[str, Any] = json.loads((self.output / "outputs" / "weights.json").read_text())
        return document


@pytest.fixture
def run(contract_image: str, tmp_path: Path) -> Run:
    return Run(contract_image, tmp_path / "output")


@pytest.fixture
def nothing_left(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Fails the test whose run leaves a volume behind, or a container: that would still hold its volumes."""
    mark = os.urandom(4).hex()
    monkeypatch.setattr("builder.engine.containers.secrets.token_hex", lambda size: mark)
    yield
    assert [each.name for each in client().volumes.list() if mark in each.name] == []


def test_parameters_labelmap_and_arguments_reach_the_script(run: Run, tmp_path: Path) -> None:
    (tmp_path / "labels.json").write_text('{"1": "tram", "2": "bus"}')
    (tmp_path / "parameters.json").write_text('{"epochs": 4, "learning_rate": 0.5}')
    outcome = run(
        parameters={"epochs": "7"},
        arguments=("--amp",),
        labelmap=tmp_path / "labels.json",
        parameters_file=tmp_path / "parameters.json",
    )
    assert outcome.exit_code == 0
    saw = run.script_saw()
    assert (saw["epochs"], saw["learning_rate"], saw["amp"]) == (7, 0.5, True)
    assert outcome.result
    assert outcome.result["labelmap"] == {"1": "tram", "2": "bus"}
    assert outcome.result["parameters"]["epochs"] == {"value": 7, "source": "TRAINPACK_SET_epochs"}


def test_a_model_version_gives_parameters_and_labelmap(run: Run) -> None:
    fields = VersionFields(parameters={"epochs": 9}, labelmap={"0": "tram"})
    version = ModelVersion(id="1", name=VersionName.parse("pedestrian/v3"), fields=fields)
    outcome = run(version=version, parameters={"learning_rate": "0.25"})
    saw = run.script_saw()
    assert (saw["epochs"], saw["learning_rate"]) == (9, 0.25)
    assert outcome.result
    assert outcome.result["labelmap"] == {"0": "tram"}


@pytest.mark.parametrize("where", ["local", "remote"])
def test_files_are_seen_read_only_below_the_inputs(
    run: Run, tmp_path: Path, where: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("builder.run.is_local", lambda: where == "local")
    (tmp_path / "weights.pt").write_bytes(b"weights")
    (tmp_path / "hub/deep").mkdir(parents=True)
    (tmp_path / "hub/deep/config.json").write_text("{}")
    given = {"runs/best.pt": tmp_path / "weights.pt", "hub": tmp_path / "hub"}
    assert run(files=given, arguments=("--show-files",)).exit_code == 0
    printed = run.stdout.getvalue().decode()
    assert "files [('hub/deep/config.json', '{}'), ('runs/best.pt', 'weights')]\nwritable False" in printed


@pytest.mark.usefixtures("nothing_left")
def test_outputs_belong_to_the_caller_and_nothing_is_left_on_the_engine(run: Run) -> None:
    outcome = run()
    files = [path for path in outcome.output.rglob("*") if path.is_file()]
    assert {path.name for path in files} == {"metrics.jsonl", "weights.json", "result.json"}
    assert {path.stat().st_uid for path in files} == {os.getuid()}
    assert (outcome.volume, outcome.failure) == (None, None)


def test_output_is_verbatim_from_the_first_line_to_the_last(run: Run) -> None:
    run(arguments=("--print-bytes",))
    assert run.stdout.getvalue() == b"first line\n" + bytes(range(256)) + b"\nlast line"
    assert b"an error line\n" in run.stderr.getvalue()


def test_the_exit_code_is_the_scripts_and_the_workspace_is_kept_and_named(
    contract_image: str, tmp_path: Path
) -> None:
    told: list[str] = []
    request = RunRequest(image=contract_image, output=tmp_path, arguments=("--exit", "3"))
    outcome = run_container(request, stdout=io.BytesIO(), stderr=io.BytesIO(), tell=told.append)
    assert outcome.exit_code == 3
    assert outcome.failure
    assert outcome.failure["cause"] == "script"
    assert outcome.volume
    assert any(outcome.volume in line for line in told)
    client().volumes.get(outcome.volume).remove()


@pytest.mark.usefixtures("nothing_left")
def test_a_run_that_never_started_the_script_leaves_no_volume(contract_image: str, tmp_path: Path) -> None:
    request = RunRequest(image=contract_image, output=tmp_path, parameters={"epochs": "many"})
    outcome = run_container(request, stdout=io.BytesIO(), stderr=io.BytesIO(), tell=lambda line: None)
    assert (outcome.exit_code, outcome.volume) == (78, None)


def test_an_unknown_parameter_ends_with_78(run: Run) -> None:
    outcome = run(parameters={"epoch": "1"})
    assert outcome.exit_code == 78
    assert b'did you mean "epochs"?' in run.stderr.getvalue()


def test_data_is_bound_read_only(run: Run, tmp_path: Path) -> None:
    folder = _data_folder(tmp_path)
    run(data={"train": folder}, arguments=("--show-data", "train"))
    _assert_data_was_seen(run.stdout.getvalue())


def test_flags_of_the_spec_reach_the_engine(run: Run) -> None:
    assert run(flags=("--memory=256m", "--read-only", "--shm-size=1m")).exit_code == 0


def test_a_link_that_leads_outside_is_not_followed(run: Run) -> None:
    run(arguments=("--link-outside",))
    passwd = Path("/etc/passwd").read_bytes()
    assert all(path.read_bytes() != passwd for path in run.output.rglob("*") if path.is_file())


def test_gpus_that_only_the_flags_ask_for_are_left_out_with_a_word(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("builder.run.has_gpu", lambda: False)
    assert run(flags=("--gpus=all",)).exit_code == 0
    assert any("no NVIDIA GPU" in line for line in run.told)


def test_gpus_that_are_asked_for_must_be_there(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("builder.run.has_gpu", lambda: False)
    with pytest.raises(EngineError, match="no NVIDIA GPU"):
        run(gpus="all")


@pytest.mark.usefixtures("nothing_left")
def test_an_image_that_the_engine_lacks_is_an_error_with_a_remedy(run: Run) -> None:
    with pytest.raises(EngineError, match="no such image") as caught:
        run(image="registry.example.com/no/such:1")
    assert "trainpack build" in str(caught.value.remedy)
    assert not run.output.exists()


def test_outputs_of_two_runs_never_mix(run: Run) -> None:
    run.output.mkdir()
    (run.output / "precious.pt").write_text("weights")
    with pytest.raises(UsageError, match="not empty"):
        run()
    assert [path.name for path in run.output.iterdir()] == ["precious.pt"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_stop_lets_the_script_save(number: signal.Signals, contract_image: str, tmp_path: Path) -> None:
    with _started(contract_image, tmp_path, "--wait") as process:
        process.send_signal(number)
        stdout, stderr = process.communicate(timeout=60)
    assert process.returncode == 143, stderr
    assert b"saved" in stdout
    assert (tmp_path / "output" / "outputs" / "saved.txt").read_text() == "saved on signal"
    assert json.loads((tmp_path / "output" / "result.json").read_text())["status"] == "preempted"
    _remove_named_volume(stderr.decode())


def test_a_second_stop_kills_a_script_that_will_not_end(contract_image: str, tmp_path: Path) -> None:
    with _started(contract_image, tmp_path, "--wait", "--stubborn") as process:
        process.send_signal(signal.SIGINT)
        assert process.stderr
        stderr = b""
        while b"once more kills it" not in stderr:
            stderr += process.stderr.readline()
        process.send_signal(signal.SIGINT)
        _, rest = process.communicate(timeout=60)
    assert process.returncode == 137
    _remove_named_volume((stderr + rest).decode())


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        (["--labelmap", "twice.json"], "stands at both 0 and 1"),
        (["--labelmap", "number.json"], "is not a non-empty string"),
        (["--labelmap", "missing.json"], "No such file"),
        (["--data", "train=missing"], "is not a folder"),
        (["--data", "../train=."], "is not a dataset's alias"),
        (["-p", "epochs"], "is not NAME=VALUE"),
        (["--env", "NOT_SET_ANYWHERE"], "is not set"),
        (["--gpus", "some"], "is not all, a number"),
    ],
)
def test_bad_usage_ends_with_2_and_makes_nothing(
    options: list[str], complaint: str, contract_image: str, tmp_path: Path
) -> None:
    (tmp_path / "twice.json").write_text('{"0": "car", "1": "car"}')
    (tmp_path / "number.json").write_text('{"0": 5}')
    done = _trainpack(tmp_path, "run", contract_image, "--output", "output", *options)
    assert done.returncode == 2, done.stderr
    assert complaint in done.stderr.decode()
    assert not (tmp_path / "output").exists()


def test_json_goes_to_stdout_and_the_scripts_output_to_stderr(contract_image: str, tmp_path: Path) -> None:
    done = _trainpack(tmp_path, "run", contract_image, "--json", "-p", "epochs=3")
    document = json.loads(done.stdout)
    assert document["exit_code"] == 0
    assert document["result"]["parameters"]["epochs"]["value"] == 3
    assert Path(tmp_path, document["output"], "outputs", "weights.json").is_file()
    assert b"first line" in done.stderr


def test_a_variable_of_the_caller_is_passed_and_never_printed(contract_image: str, tmp_path: Path) -> None:
    secret = "s3cr3t-" + "x" * 20
    environment = os.environ | {"A_TOKEN": secret}
    arguments = ["run", contract_image, "--env", "A_TOKEN", "--", "--variable", "A_TOKEN"]
    done = subprocess.run(
        [*TRAINPACK, *arguments], cwd=tmp_path, env=environment, capture_output=True, check=True
    )
    assert f"variable {len(secret)}" in done.stdout.decode()
    assert secret not in (done.stdout + done.stderr).decode()


def test_on_a_remote_engine_data_is_copied_in_and_outputs_out(
    contract_image: str, tmp_path: Path, remote_engine: dict[str, str]
) -> None:
    _data_folder(tmp_path)
    arguments = ["run", contract_image, "--output", "output", "--data", "train=data"]
    done = _trainpack(tmp_path, *arguments, "--", "--show-data", "train", env=remote_engine)
    assert done.returncode == 0, done.stderr
    _assert_data_was_seen(done.stdout)
    assert (tmp_path / "output" / "outputs" / "weights.json").is_file()


def test_on_a_remote_engine_a_failed_run_ends_with_the_scripts_code_and_names_its_volume(
    contract_image: str, tmp_path: Path, remote_engine: dict[str, str]
) -> None:
    done = _trainpack(tmp_path, "run", contract_image, "--", "--exit", "3", env=remote_engine)
    assert done.returncode == 3, done.stderr
    there = docker.DockerClient(base_url=remote_engine["DOCKER_HOST"])
    (volume,) = there.volumes.list()
    assert f"kept in the volume {volume.name}" in done.stderr.decode()
    assert volume.name not in [each.name for each in client().volumes.list()]
    volume.remove()


def test_on_a_remote_engine_every_check_of_the_contract_passes(
    contract_image: str, tmp_path: Path, remote_engine: dict[str, str]
) -> None:
    done = _trainpack(tmp_path, "test", contract_image, "--json", env=remote_engine)
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert {each["status"] for each in report["results"]} == {"passed"}
    assert sum(layer["size"] for layer in report["layers"]) > 1_000_000


def test_an_engine_is_reached_over_ssh(
    contract_image: str, tmp_path: Path, engine_elsewhere: Elsewhere
) -> None:
    _data_folder(tmp_path)
    arguments = ["run", contract_image, "--output", "output", "--data", "train=data"]
    env = over_ssh(engine_elsewhere.folder, engine_elsewhere.socket)
    done = _trainpack(tmp_path, *arguments, "--", "--show-data", "train", env=env)
    assert done.returncode == 0, done.stderr
    _assert_data_was_seen(done.stdout)
    assert (tmp_path / "output" / "outputs" / "weights.json").is_file()


@dataclass(frozen=True)
class Elsewhere:
    """An engine that has the image and shares nothing with this machine's, by its two addresses."""

    folder: Path
    socket: str
    tcp: str


@pytest.fixture(scope="module")
def engine_elsewhere(contract_image: str) -> Iterator[Elsewhere]:
    with short_folder() as data, socket.create_server(("127.0.0.1", 0)) as server:
        address = f"tcp://127.0.0.1:{server.getsockname()[1]}"
        with second_engine(data, contract_image, tcp=server) as host:
            yield Elsewhere(data, host, address)


@pytest.fixture
def remote_engine(engine_elsewhere: Elsewhere) -> dict[str, str]:
    return {"DOCKER_HOST": engine_elsewhere.tcp}


def _data_folder(parent: Path) -> Path:
    folder = parent / "data"
    (folder / "images").mkdir(parents=True)
    (folder / "a.txt").write_text("from the host")
    (folder / "images" / "b.bin").write_bytes(bytes(3_000_000))
    # Open to all: only the mount keeps the script from writing here.
    folder.chmod(0o777)
    (folder / "a.txt").chmod(0o666)
    return folder


def _assert_data_was_seen(stdout: bytes) -> None:
    lines = stdout.decode().splitlines()
    assert "data ['a.txt', 'images', 'images/b.bin']" in lines
    assert "text from the host" in lines
    assert "writable False" in lines


def _trainpack(
    folder: Path, *arguments: str, env: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[bytes]:
    environ = os.environ | (env or {})
    return subprocess.run([*TRAINPACK, *arguments], cwd=folder, env=environ, capture_output=True, check=False)


def _started(image: str, folder: Path, *arguments: str) -> subprocess.Popen[bytes]:
    """The command, once its script waits."""
    command = [*TRAINPACK, "run", image, "--output", "output", "--", *arguments]
    process = subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout
    for line in process.stdout:
        if line == b"waiting\n":
            return process
    raise AssertionError(process.communicate())


def _remove_named_volume(text: str) -> None:
    line = next(line for line in text.splitlines() if "kept in the volume" in line)
    remove_volume(line.partition("volume ")[2].partition(":")[0])

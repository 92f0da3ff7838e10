"""The docker builder: what it caches, what it tells when a step fails, and what never gets into an image."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import docker
import pytest
from commands import TRAINPACK, succeed, trainpack
from docker.models.images import Image

pytestmark = pytest.mark.engine

SPEC = """[image]
name = "registry.example.com/tests/builder"
{image}
[run]
script = "train.py"
env = {{ QUOTED = '{value}' }}
"""
VALUE = 'a "b" $HOME \\ back'


@pytest.fixture
def project(tmp_path: Path, base_image: str) -> Iterator[Path]:
    folder = tmp_path / "project"
    folder.mkdir()
    (folder / "train.py").write_text("print('training')\n", encoding="utf-8")
    (folder / "trainpack.toml").write_text(SPEC.format(image="", value=VALUE), encoding="utf-8")
    yield folder
    if (folder / ".trainpack/last-build.json").exists():
        docker.from_env().images.remove(str(image_of(folder).id), force=True)


def image_of(project: Path) -> Image:
    built = json.loads((project / ".trainpack/last-build.json").read_text(encoding="utf-8"))
    return docker.from_env().images.get(built["image_id"])


def test_values_arrive_in_the_image_as_they_were_written(project: Path) -> None:
    succeed(project, "build", "--builder", "docker")
    assert f"QUOTED={VALUE}" in image_of(project).attrs["Config"]["Env"]


@pytest.mark.slow
def test_system_packages_are_in_the_image_and_apt_is_not(project: Path) -> None:
    spec = SPEC.format(image='system-packages = ["git"]', value=VALUE)
    (project / "trainpack.toml").write_text(spec, encoding="utf-8")
    succeed(project, "build", "--builder", "docker")
    script = "git --version && ! command -v apt-get"
    output: bytes = docker.from_env().containers.run(
        image_of(project), ["-c", script], entrypoint="sh", remove=True, network_mode="none"
    )
    assert output.startswith(b"git version")


def test_a_build_without_changes_gives_the_same_image_and_an_edit_moves_only_the_last_layer(
    project: Path,
) -> None:
    first = succeed(project, "build", "--builder", "docker", "--json").json
    again = succeed(project, "build", "--builder", "docker", "--json")
    assert again.json["image_id"] == first["image_id"]
    assert "RUN" not in again.stderr.replace("(cached)", "").split("building")[0]
    (project / "train.py").write_text("print('training', 2)\n", encoding="utf-8")
    edited = succeed(project, "build", "--builder", "docker", "--json").json
    assert edited["tag"] != first["tag"]
    assert edited["layers"][:-2] == first["layers"][:-2]
    assert edited["layers"] != first["layers"]
    differences = succeed(project, "plan", "--diff")
    assert "nothing differs" in differences.stdout


def test_no_tool_secret_ca_or_address_of_a_package_index_is_in_the_image(
    project: Path, tmp_path: Path
) -> None:
    (project / ".env").write_text("TOKEN=hidden-in-dotenv\n", encoding="utf-8")
    netrc = tmp_path / "netrc"
    netrc.write_text("machine index.example.com login me password hidden-in-netrc\n", encoding="utf-8")
    netrc.chmod(0o600)
    built = succeed(project, "build", "--builder", "docker", env={"NETRC": str(netrc)})
    exported = tmp_path / "image.tar"
    with exported.open("wb") as file:
        file.writelines(image_of(project).save())
    unpacked = tmp_path / "unpacked"
    unpacked.mkdir()
    subprocess.run(["tar", "-xf", exported, "-C", unpacked], check=True)
    listed = "".join(
        subprocess.run(["tar", "-tf", layer], capture_output=True, text=True, check=True).stdout
        for layer in unpacked.rglob("layer.tar")
    )
    files = {Path(line).name for line in listed.splitlines() if not line.endswith("/")}
    assert "train.py" in files
    assert files & {".env", "netrc", "uv", "pip", "gcc", "pylock.toml"} == set()
    found = subprocess.run(
        ["grep", "-rlaE", "hidden-in-", unpacked], capture_output=True, text=True, check=False
    )
    assert found.stdout == ""
    assert "hidden-in-" not in built.output


def test_a_requirement_that_does_not_exist_is_a_spec_error_and_leaves_no_lock(project: Path) -> None:
    (project / "requirements.txt").write_text(
        "numpy\nno-such-distribution-of-trainpack==1.0\n", encoding="utf-8"
    )
    ended = trainpack(project, "build", "--builder", "docker")
    assert ended.code == 2
    assert "no-such-distribution-of-trainpack" in ended.stderr
    assert "Traceback" not in ended.output
    assert not list(project.glob("pylock*"))


def test_a_failing_step_shows_its_last_lines_and_the_line_of_the_dockerfile(project: Path) -> None:
    image = 'system-packages = ["no-such-package-of-debian"]'
    (project / "trainpack.toml").write_text(SPEC.format(image=image, value="x"), encoding="utf-8")
    ended = trainpack(project, "build", "--builder", "docker")
    assert ended.code == 1
    assert "Unable to locate package no-such-package-of-debian" in ended.stderr
    assert "error: Dockerfile:10: the step failed: system packages" in ended.stderr
    assert "Traceback" not in ended.output
    assert not (project / ".trainpack/last-build.json").exists()


def test_system_packages_are_installed_and_leave_no_package_lists(project: Path) -> None:
    image = 'system-packages = ["libgomp1"]'
    (project / "trainpack.toml").write_text(SPEC.format(image=image, value="x"), encoding="utf-8")
    succeed(project, "build", "--builder", "docker")
    listing = docker.from_env().containers.run(
        image_of(project),
        ["-c", "ls /usr/lib/x86_64-linux-gnu/libgomp.so.1 /var/lib/apt/lists"],
        entrypoint="/bin/sh",
        remove=True,
    )
    assert b"libgomp.so.1" in listing
    assert b"Packages" not in listing


def test_an_engine_that_does_not_answer_is_named_with_its_remedy(project: Path) -> None:
    ended = trainpack(
        project, "build", "--builder", "docker", env={"DOCKER_HOST": "unix:///nowhere/docker.sock"}
    )
    assert ended.code == 1
    assert "unix:///nowhere/docker.sock" in ended.stderr
    assert "DOCKER_HOST" in ended.stderr
    assert "Traceback" not in ended.output


def test_ctrl_c_while_building_ends_with_130_and_leaves_nothing_half_written(project: Path) -> None:
    (project / "requirements.txt").write_text("scikit-learn\n", encoding="utf-8")
    succeed(project, "lock")
    process = subprocess.Popen(
        [TRAINPACK, "build", "--builder", "docker"],
        cwd=project,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        env=os.environ,
    )
    assert process.stderr is not None
    for line in process.stderr:
        if line.startswith("building"):
            break
    deadline = time.monotonic() + 30
    while not (project / ".trainpack/context").exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGINT)
    assert process.wait(timeout=60) == 130
    assert "Traceback" not in process.stderr.read()
    assert not (project / ".trainpack/last-build.json").exists()
    assert not [path.name for path in (project / ".trainpack").iterdir() if path.name.startswith("context.")]


def mount_small(folder: Path, size: str) -> None:
    if os.geteuid() != 0:
        pytest.skip("a small disk is a tmpfs, which only root can mount")
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", folder], check=True)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "small"
    folder.mkdir()
    mount_small(folder, "1m")
    yield folder
    subprocess.run(["umount", "--lazy", folder], check=True)


def test_a_full_disk_is_told_and_leaves_no_half_written_state(small_disk: Path, base_image: str) -> None:
    (small_disk / "train.py").write_text("print('training')\n", encoding="utf-8")
    (small_disk / "trainpack.toml").write_text(SPEC.format(image="", value="x"), encoding="utf-8")
    (small_disk / "weights.bin").write_bytes(b"x" * 700_000)
    ended = trainpack(small_disk, "build", "--builder", "docker")
    assert ended.code == 1
    assert "No space left on device" in ended.stderr
    assert "Traceback" not in ended.output
    assert not list((small_disk / ".trainpack").glob("context*"))
    assert not (small_disk / ".trainpack/last-build.json").exists()


@pytest.fixture
def small_engine(tmp_path: Path, base_image: str) -> Iterator[dict[str, str]]:
    """An engine of its own that has the base and little room beside it."""
    # A path of its own, since a socket's may not be longer than 107 bytes.
    data = Path(tempfile.mkdtemp(prefix="engine-"))
    mount_small(data, "520m")
    host = f"unix://{data}/docker.sock"
    options = [
        f"--host={host}",
        f"--data-root={data}/data",
        f"--exec-root={data}/exec",
        f"--pidfile={data}/pid",
    ]
    options += ["--bridge=none", "--iptables=false", "--ip6tables=false"]
    with (tmp_path / "engine.log").open("wb") as log:
        # In a network namespace of its own: two engines in one would fight over the bridge docker0.
        process = subprocess.Popen(["unshare", "--net", "dockerd", *options], stdout=log, stderr=log)
    try:
        small = wait_for_engine(host)
        small.images.load(b"".join(docker.from_env().images.get(base_image).save(named=True)))
        yield {"DOCKER_HOST": host}
    finally:
        process.terminate()
        process.wait(timeout=30)
        subprocess.run(["umount", "--lazy", data], check=True)
        data.rmdir()


def wait_for_engine(host: str) -> docker.DockerClient:
    deadline = time.monotonic() + 30
    while True:
        try:
            return docker.DockerClient(base_url=host)
        except docker.errors.DockerException:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.1)


def test_an_engine_with_a_full_disk_is_told_with_its_remedy(
    project: Path, small_engine: dict[str, str]
) -> None:
    (project / "weights.bin").write_bytes(os.urandom(1 << 20) * 400)
    ended = trainpack(project, "build", "--builder", "docker", env=small_engine)
    assert ended.code == 1
    assert "no space left on device" in ended.stderr
    assert "docker system df" in ended.stderr
    assert "Traceback" not in ended.output
    assert not (project / ".trainpack/last-build.json").exists()

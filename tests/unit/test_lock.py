"""Requirements to locks, with the real uv and indexes of tiny wheels: nothing leaves this machine."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
from commands import TRAINPACK, trainpack
from tiny_index import environment, pure, sdist, served, simple_index, tree, wheel

from builder.errors import LockError, TrainpackError
from builder.lock.cuda import cuda_version, minimum_driver
from builder.lock.pylock import FILE, TOOLS_FILE, Lock, is_locked, lock_project, read_lock
from builder.plan import Distribution
from builder.spec import TrainingSpec, parse_spec
from builder.workdir import workdir

GLIBC = "2.36"
MANY = "manylinux_2_28_x86_64"
CPU = "torch-2.6.0+cpu-cp311-cp311-manylinux_2_28_x86_64.whl"


@dataclass(frozen=True)
class Project:
    """A project folder, a folder of wheels and an environment that knows no others."""

    folder: Path
    wheels: Path
    env: dict[str, str]

    def spec(self, image: str = "") -> TrainingSpec:
        text = f'[image]\nname = "registry.example.com/a/b"\n{image}\n[run]\nscript = "train.py"\n'
        (self.folder / "trainpack.toml").write_text(text)
        return parse_spec(text)

    def require(self, *lines: str) -> None:
        (self.folder / "requirements.txt").write_text("\n".join(lines) + "\n")

    def write(self, image: str = "", *, env: Mapping[str, str] | None = None, upgrade: bool = False) -> None:
        environ = self.env | dict(env or {})
        lock_project(self.spec(image), self.folder, glibc=GLIBC, environ=environ, upgrade=upgrade)

    def read(self, image: str = "") -> Lock:
        return read_lock(self.spec(image), self.folder, glibc=GLIBC)

    def lock(self, image: str = "", *, env: Mapping[str, str] | None = None, upgrade: bool = False) -> Lock:
        self.write(image, env=env, upgrade=upgrade)
        return self.read(image)

    def index(self, *filenames: str) -> str:
        """A second place that offers these wheels, as a simple index."""
        folder = self.wheels.with_name("index")
        for filename in filenames:
            wheel(folder, filename)
        return simple_index(folder)


@pytest.fixture
def project(tmp_path: Path) -> Project:
    folder, wheels = tmp_path / "project", tmp_path / "wheels"
    folder.mkdir()
    (folder / "train.py").write_text("")
    pure(wheels, "picsellia", "6.37.0")
    return Project(folder, wheels, environment(tmp_path, PIP_FIND_LINKS=str(wheels), PIP_NO_INDEX="1"))


def versions(packages: Sequence[Distribution]) -> dict[str, str]:
    return {package.name: package.version for package in packages}


def told(error: TrainpackError) -> str:
    return "\n".join([str(error), *error.details, error.remedy or "", repr(error)])


def refused(project: Project, image: str = "") -> LockError:
    before = tree(project.folder)
    with pytest.raises(LockError) as caught:
        project.write(image)
    after = dict(tree(project.folder))
    after.pop("trainpack.toml")
    assert after == {name: content for name, content in before.items() if name != "trainpack.toml"}
    assert caught.value.exit_code == 2
    return caught.value


def only(index: str, extra: str = "") -> dict[str, str]:
    """The settings for indexes, without the folder of wheels."""
    return {"PIP_INDEX_URL": index, "PIP_EXTRA_INDEX_URL": extra, "PIP_NO_INDEX": "", "PIP_FIND_LINKS": ""}


def closed_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


# Resolving


def test_requirements_are_locked_with_what_they_need_to_one_hashed_file_each(project: Project) -> None:
    file = pure(project.wheels, "vision", "1.2.0", requires=["tensors>=1"])
    pure(project.wheels, "tensors", "1.5.0")
    project.require("vision")
    lock = project.lock()
    assert versions(lock.packages) == {"vision": "1.2.0", "tensors": "1.5.0"}
    assert versions(lock.tools) == {"picsellia": "6.37.0"}
    vision = lock.packages[-1]
    assert (vision.filename, vision.url, vision.size) == (file.name, file.as_uri(), file.stat().st_size)
    assert all(len(package.sha256) == 64 for package in (*lock.packages, *lock.tools))
    assert (lock.cuda, lock.driver) == (None, None)


def test_a_project_without_requirements_has_a_lock_without_packages(project: Project) -> None:
    assert project.lock().packages == ()


def test_the_script_and_the_sdk_may_need_what_conflicts(project: Project) -> None:
    for version in ("1.0", "2.0"):
        pure(project.wheels, "tensors", version)
    pure(project.wheels, "picsellia", "6.38.0", requires=["tensors<2"])
    project.require("tensors>=2")
    lock = project.lock()
    assert versions(lock.packages) == {"tensors": "2.0"}
    assert versions(lock.tools) == {"picsellia": "6.38.0", "tensors": "1.0"}


def test_the_lock_is_valid_by_pep_751_and_names_no_scratch_folder(project: Project) -> None:
    pure(project.wheels, "vision", "1.0")
    project.require("vision")
    project.write()
    text = (project.folder / FILE).read_text()
    assert tomllib.loads(text)["lock-version"] == "1.0"
    assert "trainpack-lock-" not in text
    assert sorted(path.name for path in project.folder.iterdir() if path.suffix == ".toml") == [
        FILE,
        TOOLS_FILE,
        "trainpack.toml",
    ]


def test_the_hash_does_not_depend_on_where_the_files_come_from(project: Project, tmp_path: Path) -> None:
    pure(project.wheels, "vision", "1.0")
    project.require("vision")
    here = project.lock()
    moved = project.wheels.rename(tmp_path / "moved")
    there = project.lock(env={"PIP_FIND_LINKS": str(moved)}, upgrade=True)
    assert here.packages[0].url != there.packages[0].url
    assert here.hash == there.hash


def test_the_hash_changes_with_the_content_of_a_file_of_the_same_version(project: Project) -> None:
    pure(project.wheels, "vision", "1.0")
    project.require("vision")
    before = project.lock().hash
    pure(project.wheels, "vision", "1.0", content="fixed = True")
    assert project.lock(upgrade=True).hash != before


def test_locked_versions_stay_until_upgrade(project: Project) -> None:
    pure(project.wheels, "vision", "1.0")
    project.require("vision")
    project.write()
    pure(project.wheels, "vision", "2.0")
    pure(project.wheels, "tensors", "1.0")
    project.require("vision", "tensors")
    assert versions(project.lock().packages) == {"vision": "1.0", "tensors": "1.0"}
    assert versions(project.lock(upgrade=True).packages) == {"vision": "2.0", "tensors": "1.0"}


def test_a_damaged_lock_is_made_anew(project: Project) -> None:
    (project.folder / FILE).write_text("<<<<<<< HEAD\n")
    assert project.lock().packages == ()


def test_pyproject_is_read_for_requirements(project: Project) -> None:
    pure(project.wheels, "vision", "1.0")
    (project.folder / "pyproject.toml").write_text(
        '[project]\nname = "mine"\nversion = "1"\ndependencies = ["vision"]\n'
    )
    assert versions(project.lock().packages) == {"vision": "1.0"}


def test_requirements_txt_is_read_before_pyproject_unless_the_spec_names_it(project: Project) -> None:
    pure(project.wheels, "vision", "1.0")
    pure(project.wheels, "tensors", "1.0")
    project.require("tensors")
    (project.folder / "pyproject.toml").write_text(
        '[project]\nname = "mine"\nversion = "1"\ndependencies = ["vision"]\n'
    )
    assert versions(project.lock().packages) == {"tensors": "1.0"}
    assert versions(project.lock('requirements = "pyproject.toml"').packages) == {"vision": "1.0"}


def test_included_files_count_wherever_they_lie(project: Project) -> None:
    pure(project.wheels, "vision", "1.0")
    for version in ("1.0", "2.0"):
        pure(project.wheels, "tensors", version)
    (project.folder / "deps").mkdir()
    (project.folder / "deps" / "base.txt").write_text("tensors\n-c limits.txt\n")
    (project.folder / "deps" / "limits.txt").write_text("tensors<2\n")
    project.require("-r deps/base.txt", "vision")
    assert versions(project.lock().packages) == {"vision": "1.0", "tensors": "1.0"}
    (project.folder / "deps" / "limits.txt").write_text("tensors<3\n")
    with pytest.raises(LockError, match="stale"):
        project.read()


def test_an_included_file_that_is_missing_is_told_with_its_place(project: Project) -> None:
    project.require("# all", "-r base.txt")
    error = refused(project)
    assert (error.place, error.message) == ("requirements.txt:2", "base.txt does not exist")


# For the image, not for this machine


def test_of_several_wheels_the_one_for_the_image_is_taken(project: Project) -> None:
    tags = ("cp311-cp311", "cp312-cp312")
    platforms = (
        "manylinux_2_28_x86_64",
        "manylinux_2_28_aarch64",
        "manylinux_2_99_x86_64",
        "musllinux_1_2_x86_64",
        "win_amd64",
        "macosx_11_0_arm64",
    )
    for tag in tags:
        for platform in platforms:
            wheel(project.wheels, f"fast-1.0-{tag}-{platform}.whl")
    project.require("fast")
    images = {
        "": "fast-1.0-cp311-cp311-manylinux_2_28_x86_64.whl",
        'platform = "linux/arm64"': "fast-1.0-cp311-cp311-manylinux_2_28_aarch64.whl",
        'python = "3.12"': "fast-1.0-cp312-cp312-manylinux_2_28_x86_64.whl",
        'python = "3.12"\nplatform = "linux/arm64"': "fast-1.0-cp312-cp312-manylinux_2_28_aarch64.whl",
    }
    for image, filename in images.items():
        assert project.lock(image).packages[0].filename == filename


def test_a_wheel_for_the_image_is_preferred_to_one_for_any_platform(project: Project) -> None:
    pure(project.wheels, "fast", "1.0")
    wheel(project.wheels, "fast-1.0-cp39-abi3-manylinux2014_x86_64.whl")
    project.require("fast")
    assert project.lock().packages[0].filename == "fast-1.0-cp39-abi3-manylinux2014_x86_64.whl"


def test_a_wheel_that_needs_a_newer_c_library_is_not_for_the_image(project: Project) -> None:
    wheel(project.wheels, "fast-2.0-cp311-cp311-manylinux_2_39_x86_64.whl")
    wheel(project.wheels, "fast-1.0-cp311-cp311-manylinux_2_36_x86_64.whl")
    project.require("fast")
    assert versions(project.lock().packages) == {"fast": "1.0"}


def test_markers_are_those_of_the_image(project: Project) -> None:
    for name in ("always", "arm", "old", "windows", "mac"):
        pure(project.wheels, name, "1.0")
    project.require(
        "always",
        "arm; platform_machine == 'aarch64'",
        "old; python_version < '3.12'",
        "windows; sys_platform == 'win32'",
        "mac; platform_system == 'Darwin'",
    )
    assert set(versions(project.lock().packages)) == {"always", "old"}
    image = 'python = "3.12"\nplatform = "linux/arm64"'
    assert set(versions(project.lock(image).packages)) == {"always", "arm"}


def test_a_source_distribution_is_locked_where_there_is_no_wheel(project: Project) -> None:
    file = sdist(project.wheels, "source", "1.0")
    project.require("source")
    [package] = project.lock().packages
    assert (package.filename, package.url) == (file.name, file.as_uri())


# Reading


def test_a_lock_that_is_missing_is_told_with_what_to_do(project: Project) -> None:
    with pytest.raises(LockError, match="no lock yet") as caught:
        project.read()
    assert (caught.value.exit_code, caught.value.place) == (2, FILE)
    assert "`trainpack lock`" in (caught.value.remedy or "")


@pytest.mark.parametrize("name", [FILE, TOOLS_FILE])
def test_one_lock_alone_is_not_a_lock(project: Project, name: str) -> None:
    project.write()
    assert is_locked(project.folder)
    (project.folder / name).unlink()
    assert not is_locked(project.folder)
    with pytest.raises(LockError, match="no lock yet") as caught:
        project.read()
    assert caught.value.place == name


@pytest.mark.parametrize(
    "image", ['python = "3.12"', 'platform = "linux/arm64"', 'torch = "cpu"'], ids=["python", "arm", "torch"]
)
def test_a_lock_for_another_image_is_stale(project: Project, image: str) -> None:
    project.write()
    with pytest.raises(LockError, match="stale"):
        project.read(image)


def test_a_lock_is_stale_when_the_requirements_changed_and_only_then(project: Project) -> None:
    pure(project.wheels, "vision", "1.0")
    project.require("vision")
    project.write()
    project.require("# a comment", "", "vision  # why")
    assert versions(project.read().packages) == {"vision": "1.0"}
    project.require("vision<2")
    with pytest.raises(LockError, match="stale") as caught:
        project.read()
    assert caught.value.exit_code == 2
    assert "--update-lock" in (caught.value.remedy or "")


@pytest.mark.parametrize(
    "text",
    ["not toml", "", 'lock-version = "1.0"', "packages = 3"],
    ids=["syntax", "empty", "parts", "types"],
)
def test_a_damaged_lock_is_a_clear_error(project: Project, text: str) -> None:
    project.write()
    (project.folder / FILE).write_text(text)
    with pytest.raises(LockError) as caught:
        project.read()
    assert caught.value.place == FILE


def test_a_lock_edited_by_hand_is_told_to_be_damaged(project: Project) -> None:
    pure(project.wheels, "vision", "1.0")
    project.require("vision")
    project.write()
    path = project.folder / FILE
    path.write_text(path.read_text().replace('version = "1.0"\n', 'version = "one"\n'))
    with pytest.raises(LockError, match="not a lock that can be read"):
        project.read()


# What cannot be resolved


def test_a_requirement_that_does_not_exist_is_named_with_its_place(project: Project) -> None:
    pure(project.wheels, "vision", "1.0")
    project.require("vision", "no-such-thing>=3")
    error = refused(project)
    assert (error.place, error.message) == ("requirements.txt:2", "no-such-thing>=3 cannot be resolved")
    assert error.remedy


def test_a_version_that_does_not_exist_is_named(project: Project) -> None:
    pure(project.wheels, "vision", "1.0")
    project.require("vision==9.9")
    assert "vision==9.9 cannot be resolved" in told(refused(project))


def test_a_requirement_without_a_wheel_for_the_image_is_named(project: Project) -> None:
    wheel(project.wheels, "fast-1.0-cp311-cp311-win_amd64.whl")
    project.require("fast")
    assert refused(project).place == "requirements.txt:1"


def test_a_conflict_is_told_with_both_sides(project: Project) -> None:
    pure(project.wheels, "vision", "1.0", requires=["tensors<2"])
    pure(project.wheels, "tensors", "1.0")
    pure(project.wheels, "tensors", "2.0")
    project.require("vision", "tensors>=2")
    text = told(refused(project))
    assert "tensors<2" in text
    assert "tensors>=2" in text


def test_a_line_that_is_no_requirement_is_told(project: Project) -> None:
    project.require("vision=>1")
    error = refused(project)
    assert error.place == "requirements.txt"
    assert "vision=>1" in told(error)


def test_pyproject_that_is_no_toml_is_told(project: Project) -> None:
    (project.folder / "pyproject.toml").write_text("[project\n")
    assert refused(project).place == "pyproject.toml"


def test_an_sdk_that_is_not_on_offer_is_not_blamed_on_the_requirements(project: Project) -> None:
    (project.wheels / "picsellia-6.37.0-py3-none-any.whl").unlink()
    pure(project.wheels, "vision", "1.0")
    project.require("vision")
    assert refused(project).place == "the entrypoint's own requirements"


@pytest.mark.parametrize("line", ["-e .", "mine @ file://{folder}"])
def test_the_projects_own_folder_is_refused_before_anything_is_written(project: Project, line: str) -> None:
    (project.folder / "pyproject.toml").write_text(
        '[build-system]\nrequires = []\nbuild-backend = "none"\n[project]\nname = "mine"\nversion = "1"\n'
    )
    project.require(line.format(folder=project.folder))
    assert "mine is a folder" in told(refused(project))


def test_after_a_failure_the_locks_of_before_are_there(project: Project) -> None:
    pure(project.wheels, "vision", "1.0")
    project.require("vision")
    project.write()
    project.require("vision", "no-such-thing")
    refused(project)
    project.require("vision")
    assert versions(project.read().packages) == {"vision": "1.0"}


def test_both_locks_are_written_or_none(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    project.spec()
    workdir(project.folder)
    before = tree(project.folder)
    synced: list[int] = []

    def full(handle: int) -> None:
        synced.append(handle)
        if len(synced) == 2:
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(TrainpackError, match="No space"):
        project.write()
    assert len(synced) == 2
    assert tree(project.folder) == before


# The index


def test_an_index_that_does_not_answer_is_not_a_fault_of_the_requirements(project: Project) -> None:
    project.require("vision")
    index = f"http://user:s3cret@127.0.0.1:{closed_port()}/simple"
    with pytest.raises(TrainpackError) as caught:
        project.write(env=only(index))
    assert not isinstance(caught.value, LockError)
    assert caught.value.exit_code == 1
    assert "doctor" in (caught.value.remedy or "")
    assert "127.0.0.1" in told(caught.value)
    assert "s3cret" not in told(caught.value)


@pytest.mark.parametrize("variable", ["PIP_INDEX_URL", "UV_DEFAULT_INDEX", "UV_INDEX"])
def test_an_index_with_a_login_is_used_and_the_login_is_kept_nowhere(project: Project, variable: str) -> None:
    pure(project.wheels, "vision", "1.0")
    simple_index(project.wheels)
    project.require("vision")
    with served(project.wheels, login="user:s3cret") as index:
        url = f"{index.with_login('user', 's3cret')}/simple"
        lock = project.lock(env=only(index.address) | {variable: url})
        assert lock.packages[0].url == f"{index.address}/vision-1.0-py3-none-any.whl"
    text = (project.folder / FILE).read_text() + (project.folder / TOOLS_FILE).read_text()
    assert "s3cret" not in text
    assert "user" not in text


def test_of_two_indexes_the_newest_version_counts_as_pip_has_it(project: Project) -> None:
    pure(project.wheels, "vision", "1.0")
    newer = project.index("vision-2.0-py3-none-any.whl")
    project.require("vision")
    lock = project.lock(env=only(newer, simple_index(project.wheels)))
    assert versions(lock.packages) == {"vision": "2.0"}


def test_a_page_of_links_with_a_login_is_used_and_the_login_is_kept_nowhere(project: Project) -> None:
    pure(project.wheels, "vision", "1.0")
    project.require("vision")
    with served(project.wheels, login="user:s3cret") as index:
        lock = project.lock(env={"PIP_FIND_LINKS": f"{index.with_login('user', 's3cret')}/"})
    assert versions(lock.packages) == {"vision": "1.0"}
    assert "s3cret" not in (project.folder / FILE).read_text()


@pytest.mark.parametrize("indexes", [1, 2])
def test_a_wrong_login_is_no_fault_of_the_requirements_and_is_not_printed(
    project: Project, indexes: int
) -> None:
    pure(project.wheels, "vision", "1.0")
    simple_index(project.wheels)
    project.require("vision")
    with served(project.wheels, login="user:right") as index:
        url = f"{index.with_login('user', 'wr0ng')}/simple"
        env = only(url) if indexes == 1 else only(project.index("other-1.0-py3-none-any.whl"), url)
        with pytest.raises(TrainpackError) as caught:
            project.write(env=env)
    assert not isinstance(caught.value, LockError)
    assert "wr0ng" not in told(caught.value)


def test_a_login_in_a_requirement_is_neither_printed_nor_kept(project: Project) -> None:
    pure(project.wheels, "vision", "1.0")
    with served(project.wheels, login="user:s3cret") as index:
        project.require(f"vision @ {index.with_login('user', 's3cret')}/vision-1.0-py3-none-any.whl")
        error = refused(project)
    assert "vision is a folder, a repository or a bare archive" in error.message
    assert "s3cret" not in told(error)


def test_ctrl_c_while_the_index_keeps_us_waiting_leaves_the_locks_of_before(project: Project) -> None:
    project.write()
    project.require("vision")
    before = tree(project.folder)
    with served(project.wheels) as index:
        index.answer.clear()
        env = project.env | only(index.address)
        running = subprocess.Popen(
            [TRAINPACK, "lock"],
            cwd=project.folder,
            env=env,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        assert index.asked.wait(timeout=30)
        os.killpg(running.pid, signal.SIGINT)
        _, errors = running.communicate(timeout=30)
    assert running.returncode == 130, errors
    assert "Traceback" not in errors
    assert tree(project.folder) == before


# PyTorch


def test_torch_cpu_takes_the_cpu_wheel_of_a_folder_even_when_an_index_offers_a_newer_cuda_build(
    project: Project,
) -> None:
    wheel(project.wheels, CPU)
    wheel(project.wheels, CPU.replace("2.6.0", "2.5.0"))
    index = project.index(f"torch-2.9.0-cp311-cp311-{MANY}.whl")
    project.require("torch")
    offered = {"PIP_INDEX_URL": index, "PIP_NO_INDEX": ""}
    assert versions(project.lock('torch = "cpu"', env=offered).packages) == {"torch": "2.6.0+cpu"}
    assert versions(project.lock('torch = "auto"', env=offered, upgrade=True).packages) == {"torch": "2.9.0"}


def test_torch_cpu_takes_the_cpu_build_of_an_index(project: Project) -> None:
    index = project.index(CPU, CPU.replace("+cpu", "+cu130"))
    project.require("torch")
    lock = project.lock('torch = "cpu"', env={"PIP_INDEX_URL": index, "PIP_NO_INDEX": ""})
    assert versions(lock.packages) == {"torch": "2.6.0+cpu"}


def test_torch_cuda_leaves_the_cpu_builds_out(project: Project) -> None:
    wheel(project.wheels, CPU)
    wheel(project.wheels, f"torch-2.5.0-cp311-cp311-{MANY}.whl")
    project.require("torch")
    assert versions(project.lock('torch = "cuda"').packages) == {"torch": "2.5.0"}
    assert versions(project.lock('torch = "auto"', upgrade=True).packages) == {"torch": "2.6.0+cpu"}


def test_torch_cpu_is_followed_by_its_companions(project: Project) -> None:
    wheel(project.wheels, CPU)
    for local in ("+cpu", "+cu130"):
        wheel(project.wheels, f"torchvision-0.21.0{local}-cp311-cp311-{MANY}.whl", requires=["torch==2.6.0"])
    project.require("torchvision")
    lock = project.lock('torch = "cpu"')
    assert versions(lock.packages) == {"torch": "2.6.0+cpu", "torchvision": "0.21.0+cpu"}


def test_torch_cpu_takes_the_newest_build_that_the_rest_agrees_with(project: Project) -> None:
    for version in ("2.4.0", "2.5.0", "2.6.0"):
        wheel(project.wheels, CPU.replace("2.6.0", version))
    wheel(project.wheels, CPU.replace("2.6.0", "2.7.0.dev20260101"))
    pure(project.wheels, "lightning", "1.0", requires=["torch<2.6"])
    project.require("torch>=2.4", "lightning")
    assert versions(project.lock('torch = "cpu"').packages)["torch"] == "2.5.0+cpu"
    project.require("torch>=2.4")
    assert versions(project.lock('torch = "cpu"', upgrade=True).packages)["torch"] == "2.6.0+cpu"


def test_a_locked_cpu_build_stays_until_upgrade(project: Project) -> None:
    wheel(project.wheels, CPU)
    project.require("torch")
    project.write('torch = "cpu"')
    wheel(project.wheels, CPU.replace("2.6.0", "2.7.0"))
    assert versions(project.lock('torch = "cpu"').packages)["torch"] == "2.6.0+cpu"
    assert versions(project.lock('torch = "cpu"', upgrade=True).packages)["torch"] == "2.7.0+cpu"


def test_a_cpu_build_for_another_python_is_not_on_offer(project: Project) -> None:
    wheel(project.wheels, CPU)
    wheel(project.wheels, "torch-2.7.0+cpu-cp313-cp313-manylinux_2_28_x86_64.whl")
    project.require("torch")
    assert versions(project.lock('torch = "cpu"').packages) == {"torch": "2.6.0+cpu"}


def test_a_requirement_that_no_cpu_build_fits_is_told_with_what_there_is(project: Project) -> None:
    wheel(project.wheels, CPU)
    project.require("torch==2.1")
    error = refused(project, 'torch = "cpu"')
    assert error.place == "requirements.txt:1"
    assert "torch==2.1" in error.message
    assert "2.6.0+cpu" in error.message


@pytest.mark.parametrize("torch", [(), ("torch",)], ids=["indirect", "declared"])
def test_a_conflict_with_every_cpu_build_is_told_by_the_newest(project: Project, torch: tuple[str]) -> None:
    for version in ("2.4.0", "2.5.0", "2.6.0"):
        wheel(project.wheels, CPU.replace("2.6.0", version))
    pure(project.wheels, "lightning", "1.0", requires=["torch>=3"])
    project.require("lightning", *torch)
    text = told(refused(project, 'torch = "cpu"'))
    assert "torch==2.6.0+cpu" in text
    assert "torch>=3" in text


def test_what_has_nothing_to_do_with_torch_is_told_once_torch_was_tried_once(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    for version in ("2.5.0", "2.6.0"):
        wheel(project.wheels, CPU.replace("2.6.0", version))
    project.require("torch", "no-such-thing")
    real, calls = subprocess.run, []

    def counted(*args: object, **keywords: object) -> object:
        calls.append(args)
        return real(*args, **keywords)  # type: ignore[call-overload]

    monkeypatch.setattr(subprocess, "run", counted)
    assert "no-such-thing cannot be resolved" in told(refused(project, 'torch = "cpu"'))
    assert len(calls) == 1


# CUDA


def locked(name: str, version: str) -> Distribution:
    return Distribution(name=name, version=version, filename="f", url="u", size=None, sha256="0" * 64)


@pytest.mark.parametrize(
    ("packages", "cuda", "driver"),
    [
        ([("numpy", "2.0.0"), ("torch", "2.6.0+cpu")], None, None),
        ([("torch", "2.6.0+cu124")], "12.4", "525.60.13"),
        ([("torch", "2.0.1+cu118")], "11.8", "450.80.02"),
        ([("torch", "2.9.0+cu130"), ("torchvision", "0.24.0+cu130")], "13.0", "580"),
        ([("nvidia-cuda-runtime-cu12", "12.8.90"), ("nvidia-cudnn-cu12", "9.10.2.21")], "12.8", "525.60.13"),
        ([("nvidia-cuda-runtime", "13.0.48"), ("nvidia-cudnn-cu13", "9.13.0.50")], "13.0", "580"),
        ([("cuda-toolkit", "13.0.2")], "13.0", "580"),
        ([("nvidia-nccl-cu12", "2.27.3")], "12.0", "525.60.13"),
        ([("cupy-cuda12x", "13.4.1")], "12.0", "525.60.13"),
        ([("jax-cuda13-plugin", "0.8.0")], "13.0", "580"),
        ([("nvidia-nccl-cu12", "2.27.3"), ("torch", "2.6.0+cu126")], "12.6", "525.60.13"),
        ([("torch", "9.9.9+cu990")], "99.0", None),
        ([("nvidia-ml-py", "13.580.82"), ("cuda-bindings", "13.0.1")], None, None),
    ],
)
def test_cuda_and_its_driver_are_read_off_the_wheels(
    packages: list[tuple[str, str]], cuda: str | None, driver: str | None
) -> None:
    found = cuda_version(locked(name, version) for name, version in packages)
    assert (found, minimum_driver(found)) == (cuda, driver)


def test_the_lock_says_which_cuda_its_packages_need(project: Project) -> None:
    wheel(project.wheels, f"torch-2.9.0-cp311-cp311-{MANY}.whl", requires=["nvidia-cuda-runtime-cu12"])
    wheel(project.wheels, "nvidia_cuda_runtime_cu12-12.8.90-py3-none-manylinux2014_x86_64.whl")
    project.require("torch")
    lock = project.lock()
    assert (lock.cuda, lock.driver) == ("12.8", "525.60.13")


# The command


def test_the_command_prints_what_it_locked(project: Project) -> None:
    pure(project.wheels, "vision", "1.0")
    project.require("vision")
    project.spec()
    text = trainpack(project.folder, "lock", env=project.env)
    assert (text.code, text.stdout) == (0, f"vision 1.0\n1 packages in {FILE}, no CUDA\n")
    data = trainpack(project.folder, "lock", "--json", env=project.env).json
    assert data["files"] == [FILE, TOOLS_FILE]
    assert data["hash"] == project.read().hash


def test_the_command_ends_with_2_for_what_does_not_exist(project: Project) -> None:
    project.require("no-such-thing")
    project.spec()
    before = tree(project.folder)
    ended = trainpack(project.folder, "lock", env=project.env)
    assert ended.code == 2
    assert "requirements.txt:1: no-such-thing cannot be resolved" in ended.stderr
    assert tree(project.folder) == before

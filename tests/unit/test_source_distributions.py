"""Source distributions, read and refused before anything runs; and the one form of the wheel that is made."""

from __future__ import annotations

import hashlib
import io
import random
import tarfile
import time
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path

import plans
import pytest
import tiny_index
import tiny_project
from commands import succeed
from tiny_project import Project

from builder.errors import WheelError
from builder.plan import BuildPlan, Distribution
from builder.sources.repack import check_wheel, repack, wheel_name
from builder.sources.sdist import BuildSystem, checked_requirements, read_build_system
from builder.wheels.archive import open_wheel

NAME = "demo-1.0.tar.gz"
SETUPTOOLS = BuildSystem(("setuptools>=40.8.0",), "setuptools.build_meta:__legacy__", ())


def packed(folder: Path, files: Mapping[str, str]) -> Path:
    with tarfile.open(folder / NAME, "w:gz") as archive:
        for name, text in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(text.encode())
            archive.addfile(entry, io.BytesIO(text.encode()))
    return folder / NAME


def zipped(folder: Path, files: Mapping[str, str]) -> Path:
    with zipfile.ZipFile(folder / "demo-1.0.zip", "w") as archive:
        for name, text in files.items():
            archive.writestr(name, text)
    return folder / "demo-1.0.zip"


def system(folder: Path, project: str) -> BuildSystem:
    return read_build_system(packed(folder, {"demo-1.0/pyproject.toml": project}), NAME)


# Reading


def test_what_declares_no_build_system_is_built_by_setuptools(tmp_path: Path) -> None:
    legacy = packed(tmp_path, {"demo-1.0/setup.py": "", "demo-1.0/sub/pyproject.toml": "[build-system]\n"})
    assert read_build_system(legacy, NAME) == SETUPTOOLS
    assert system(tmp_path, '[project]\nname = "demo"\n') == SETUPTOOLS


def test_the_declared_build_system_is_read_from_a_tar_and_from_a_zip(tmp_path: Path) -> None:
    text = '[build-system]\nrequires = ["flit-core >=3", "toml; python_version < \'3\'"]\n'
    text += 'build-backend = "own:api"\nbackend-path = ["tools"]\n'
    expected = BuildSystem(("flit-core >=3", "toml; python_version < '3'"), "own:api", ("tools",))
    assert system(tmp_path, text) == expected
    archive = zipped(tmp_path, {"./demo-1.0/": "", "./demo-1.0/pyproject.toml": text})
    assert read_build_system(archive, archive.name) == expected


def test_what_names_requirements_only_is_built_by_setuptools(tmp_path: Path) -> None:
    found = system(tmp_path, '[build-system]\nrequires = ["setuptools", "numpy"]\n')
    assert found == BuildSystem(("setuptools", "numpy"), SETUPTOOLS.backend, ())


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ({"demo-1.0/../../etc/passwd": ""}, "'demo-1.0/../../etc/passwd', which leads out"),
        ({"/etc/passwd": ""}, "'/etc/passwd', which leads out"),
        ({"demo-1.0\\x": ""}, "which leads out"),
        ({"demo-1.0/setup.py": "", "other/setup.py": ""}, "one folder in it, found demo-1.0, other"),
        ({}, "one folder in it, found nothing"),
        ({"demo-1.0/pyproject.toml": "[build-system"}, "its pyproject.toml is not valid TOML"),
        ({"demo-1.0/pyproject.toml": "build-system = 1"}, "is no table"),
        ({"demo-1.0/pyproject.toml": "[build-system]\nrequires = 'x'"}, "requires = 'x', expected a list"),
        ({"demo-1.0/pyproject.toml": "[build-system]\nbuild-backend = 1"}, "build-backend = 1, expected"),
        ({"demo-1.0/pyproject.toml": "[build-system]\nbackend-path = [1]"}, "backend-path = .*, expected"),
    ],
)
@pytest.mark.parametrize("pack", [packed, zipped])
def test_a_hostile_or_broken_source_distribution_is_refused_by_name(
    pack: Iterator[Path], files: dict[str, str], said: str, tmp_path: Path
) -> None:
    archive = pack(tmp_path, files)  # type: ignore[operator]
    with pytest.raises(WheelError, match=said) as caught:
        read_build_system(archive, archive.name)
    assert caught.value.place == archive.name


@pytest.mark.parametrize("name", [NAME, "demo-1.0.zip"])
def test_what_is_no_archive_is_refused(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(b"\x1f\x8bneither" * 9)
    with pytest.raises(WheelError, match="not a source distribution that can be read"):
        read_build_system(tmp_path / name, name)


def test_a_cut_archive_is_refused(tmp_path: Path) -> None:
    noise = random.Random(0).randbytes(5000).hex()
    archive = packed(tmp_path, {"demo-1.0/setup.py": noise, "demo-1.0/x": noise})
    archive.write_bytes(archive.read_bytes()[:3000])
    with pytest.raises(WheelError, match="not a source distribution that can be read"):
        read_build_system(archive, NAME)


@pytest.mark.parametrize(
    "text",
    [
        "--index-url=http://127.0.0.1/",
        "-r /etc/passwd",
        "demo @ file:///etc/passwd",
        "demo @ git+ssh://example.com/x",
        "setuptools\n--no-index",
        "",
    ],
)
def test_a_build_may_require_nothing_but_distributions_of_the_index(text: str) -> None:
    with pytest.raises(WheelError, match="expected a distribution of a package index"):
        checked_requirements(["setuptools", text], NAME)


# The wheel


SOURCE = Distribution(name="my-demo", version="1.0", filename=NAME, url="", size=1, sha256="0" * 64)
FILES = {
    "my_demo.py": "VALUE = 1\n",
    "my_demo-1.0.dist-info/METADATA": "Metadata-Version: 2.1\nName: My.Demo\nVersion: 1.0\n",
    "my_demo-1.0.dist-info/WHEEL": "Wheel-Version: 1.0\nTag: py3-none-any\nTag: py2-none-any\n",
    "my_demo-1.0.dist-info/RECORD": "my_demo.py,,\n",
}


def wheel(folder: Path, files: Mapping[str, str], seed: int = 0) -> Path:
    """A wheel as a build makes it: each seed has another order, time and compression, and other modes."""
    chance = random.Random(seed)
    path = folder / f"made-{seed}"
    with zipfile.ZipFile(path, "w") as archive:
        for name in chance.sample(sorted(files), len(files)):
            info = zipfile.ZipInfo(name, time.gmtime(chance.randrange(10**9, 2 * 10**9))[:6])
            info.external_attr = chance.choice([0o100644, 0o100600, 0o100664]) << 16
            archive.writestr(info, files[name], chance.choice([zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED]))
    return path


def repacked(folder: Path, files: Mapping[str, str], seed: int = 0) -> bytes:
    out = io.BytesIO()
    with open_wheel(wheel(folder, files, seed), NAME) as archive:
        repack(archive, SOURCE, out)
    return out.getvalue()


def test_the_same_content_is_the_same_wheel_whatever_the_build_did_differently(tmp_path: Path) -> None:
    shuffled = {**FILES, "my_demo-1.0.dist-info/RECORD": "other,,\nmy_demo.py,,\n"}
    made = {repacked(tmp_path, files, seed) for seed in range(8) for files in (FILES, shuffled)}
    assert len(made) == 1
    assert repacked(tmp_path, {**FILES, "my_demo.py": "VALUE = 2\n"}) not in made


def test_the_record_lists_what_is_in_the_wheel_in_order(tmp_path: Path) -> None:
    with zipfile.ZipFile(io.BytesIO(repacked(tmp_path, FILES))) as archive:
        contents = {name: archive.read(name).decode() for name in archive.namelist()}
    record = contents.pop("my_demo-1.0.dist-info/RECORD").splitlines()
    assert contents == {name: text for name, text in FILES.items() if name in contents}
    assert [line.partition(",")[0] for line in record] == [*sorted(contents), "my_demo-1.0.dist-info/RECORD"]
    assert "my_demo.py,sha256=4T34xEr13qHkEkA5ELmcxaSPLMv2imazN01quc75_GU,10" in record


def test_a_program_stays_one(tmp_path: Path) -> None:
    path = tmp_path / "made"
    with zipfile.ZipFile(path, "w") as archive:
        for name, text in FILES.items():
            archive.writestr(zipfile.ZipInfo(name), text)
        tool = zipfile.ZipInfo("my_demo-1.0.data/scripts/tool")
        tool.external_attr = 0o100711 << 16
        archive.writestr(tool, "#!/bin/sh\n")
    out = io.BytesIO()
    with open_wheel(path, NAME) as opened:
        repack(opened, SOURCE, out)
    with zipfile.ZipFile(out) as again:
        modes = {info.filename: info.external_attr >> 16 for info in again.infolist()}
    assert modes.pop(tool.filename) == 0o100755
    assert set(modes.values()) == {0o100644}


def test_a_wheel_is_called_by_its_tags(tmp_path: Path) -> None:
    with open_wheel(wheel(tmp_path, FILES), NAME) as archive:
        assert wheel_name(archive, SOURCE) == "my_demo-1.0-py2.py3-none-any.whl"


def plan_for(python: str, platform: str) -> BuildPlan:
    return plans.plan().model_copy(update={"python": python, "platform": platform})


def tagged(tag: str) -> dict[str, str]:
    return FILES | {"my_demo-1.0.dist-info/WHEEL": f"Wheel-Version: 1.0\nTag: {tag}\n"}


@pytest.mark.parametrize(
    "tag", ["py3-none-any", "cp311-cp311-linux_x86_64", "cp39-abi3-manylinux_2_17_x86_64"]
)
def test_a_wheel_that_the_image_takes_is_taken(tag: str, tmp_path: Path) -> None:
    with open_wheel(wheel(tmp_path, tagged(tag)), NAME) as archive:
        check_wheel(archive, SOURCE, plan_for("3.11", "linux/amd64"))


@pytest.mark.parametrize("tag", ["cp312-cp312-linux_x86_64", "cp311-cp311-linux_aarch64", "py2-none-any"])
def test_a_wheel_for_another_python_or_platform_is_refused(tag: str, tmp_path: Path) -> None:
    with (
        open_wheel(wheel(tmp_path, tagged(tag)), NAME) as archive,
        pytest.raises(WheelError, match=f"a wheel for {tag}, which the image does not take"),
    ):
        check_wheel(archive, SOURCE, plan_for("3.11", "linux/amd64"))


@pytest.mark.parametrize(
    ("name", "version"), [("other", "1.0"), ("my-demo", "1.1"), ("my-demo", "1.0+local"), ("my-demo", "x")]
)
def test_a_wheel_of_another_name_or_version_than_the_locks_is_refused(
    name: str, version: str, tmp_path: Path
) -> None:
    files = FILES | {"my_demo-1.0.dist-info/METADATA": f"Name: {name}\nVersion: {version}\n"}
    with (
        open_wheel(wheel(tmp_path, files), NAME) as archive,
        pytest.raises(WheelError, match=rf"made {name} .*, the lock says my-demo 1\.0"),
    ):
        check_wheel(archive, SOURCE, plan_for("3.11", "linux/amd64"))


@pytest.mark.parametrize("missing", ["METADATA", "WHEEL"])
def test_what_is_no_wheel_is_refused(missing: str, tmp_path: Path) -> None:
    files = {name: text for name, text in FILES.items() if not name.endswith(missing)}
    with (
        open_wheel(wheel(tmp_path, files), NAME) as archive,
        pytest.raises(WheelError, match=f"without {missing}"),
    ):
        check_wheel(archive, SOURCE, plan_for("3.11", "linux/amd64"))


# Building, as a user does it


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Project:
    return tiny_project.make(tmp_path_factory.mktemp("made"))


@pytest.fixture
def project(made: Project, tmp_path: Path) -> Project:
    return made.copied(tmp_path / "project").with_cold_cache(tmp_path / "cache")


@pytest.mark.parametrize("builder", ["auto", "oci"])
def test_without_an_engine_the_distribution_is_named_with_the_remedy(project: Project, builder: str) -> None:
    tiny_index.sdist(project.home / "wheels", "rare", "1.0")
    project.require("rare")
    ended = project.build("--builder", builder)
    assert ended.code == 1
    told = tiny_project.error_of(ended)
    assert told.matches(
        "rare 1.0: has no wheel for Python 3.11 on linux/amd64", "no container engine answers"
    )
    assert "a version that has a wheel" in told.remedy
    assert "a find-links folder" in told.remedy


def test_the_plan_says_what_is_made_from_source(project: Project) -> None:
    tiny_index.sdist(project.home / "wheels", "sourced", "1.0")
    project.require("sourced")
    planned = succeed(project.folder, "plan", env=project.environment).stdout
    assert "from source" in planned
    assert "sourced" in planned


def test_a_source_distribution_that_is_not_the_locked_one_is_never_opened(project: Project) -> None:
    path = tiny_index.sdist(project.home / "wheels", "swapped", "1.0")
    project.require("swapped")
    path.write_bytes(path.read_bytes() + b"x")
    ended = project.build()
    assert ended.code == 1
    assert tiny_project.error_of(ended).matches("swapped-1.0.tar.gz", "its sha256 is .*, the lock says")


def test_a_source_distribution_that_climbs_is_refused_before_an_engine_is_asked(project: Project) -> None:
    path = tiny_index.sdist(project.home / "wheels", "climber", "1.0")
    project.require("climber")
    locked = hashlib.sha256(path.read_bytes()).hexdigest()
    climbing = {"climber-1.0/../../../etc/cron.d/x": "* * * * * root true\n"}
    tiny_index.sdist(path.parent, "climber", "1.0", files=climbing)
    lock = project.folder / "pylock.toml"
    text = lock.read_text(encoding="utf-8").replace(locked, hashlib.sha256(path.read_bytes()).hexdigest())
    lock.write_text(text, encoding="utf-8")
    ended = project.build()
    assert ended.code == 1
    assert "which leads out of its folder" in ended.stderr
    assert "Traceback" not in ended.output

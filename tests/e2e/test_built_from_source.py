"""Distributions without a wheel: built once, in a container of the base that has nothing of this machine."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import time
import zipfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import docker
import pytest
import tiny_index
import tiny_project
from commands import TRAINPACK, succeed, trainpack
from docker.models.containers import Container
from tiny_project import Project, error_of

from builder.bases import base_image
from builder.engine import endpoint
from builder.lock.pylock import FILE as LOCK
from builder.plan import Base
from builder.sources.container import BUILDING

pytestmark = pytest.mark.engine

LIMIT_SECONDS = 60
NOWHERE = "unix:///nowhere/docker.sock"
GZIP = b"\x1f\x8b"
MAKING = "has no wheel: making one in a container of the base"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, base: Base) -> Project:
    """A project on the real base, with a package index of its own."""
    project = replace(tiny_project.make(tmp_path_factory.mktemp("made")), engine=endpoint())
    shutil.rmtree(project.cache / "bases")
    tiny_project.keep_base(project.cache, base_image(base))
    return project


@pytest.fixture
def project(made: Project, tmp_path: Path) -> Project:
    """The project in a folder of its own, with a cache that holds the base alone."""
    project = made.copied(tmp_path / "project").with_cold_cache(tmp_path / "cache")
    shutil.copytree(made.home, tmp_path / "home")
    return replace(project, home=tmp_path / "home")


def sdist(project: Project, name: str, content: str = "", **options: Any) -> Path:
    """A source distribution that the project requires."""
    path = tiny_index.sdist(project.home / "wheels", name, "1.0", content, **options)
    (project.folder / LOCK).unlink()
    project.require(name)
    return path


def containers(name: str) -> list[Container]:
    """Those that build a source distribution, and what is left of them."""
    label = f"{BUILDING}={name} 1.0"
    return docker.from_env().containers.list(all=True, filters={"label": label}, ignore_removed=True)


def is_running(name: str) -> bool:
    return any(each.status == "running" for each in containers(name))


def built_file(project: Project, name: str) -> bytes:
    """A file of a wheel that was made."""
    paths = [path for path in project.layers.blobs.paths() if zipfile.is_zipfile(path)]
    (content,) = [wheel.read(name) for wheel in map(zipfile.ZipFile, paths) if name in wheel.namelist()]
    return content


def wait_for(what: Callable[[], bool]) -> None:
    deadline = time.monotonic() + LIMIT_SECONDS
    while not what():
        assert time.monotonic() < deadline, "it did not come"
        time.sleep(0.05)


def started(project: Project) -> subprocess.Popen[str]:
    command = [TRAINPACK, *tiny_project.BUILD]
    return subprocess.Popen(
        command,
        cwd=project.folder,
        env=os.environ | project.environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def test_what_was_built_from_source_is_imported_by_the_script_that_trains(project: Project) -> None:
    sdist(project, "pure-one", "VALUE = 41\n")
    project.edit("import pure_one\nprint('trained', pure_one.VALUE + 1)\n")
    ended = project.built()
    assert f"pure-one 1.0 {MAKING}" in ended.stderr
    assert "trained 42" in succeed(project.folder, "run", env=project.environment).stdout
    docker.from_env().images.remove(ended.json["image_id"], force=True)


def test_it_is_built_once_and_then_needs_neither_engine_nor_network(project: Project) -> None:
    sdist(project, "once")
    first = project.built()
    shutil.rmtree(project.home / "wheels")
    (project.folder / ".trainpack/unchanged.json").unlink(missing_ok=True)
    again = replace(project, engine=NOWHERE).built()
    assert MAKING not in again.stderr
    assert again.json == first.json


def test_a_layer_that_is_gone_is_made_from_the_kept_wheel_without_an_engine(project: Project) -> None:
    sdist(project, "kept")
    first = project.built()
    for path in project.layers.blobs.paths():
        if path.read_bytes().startswith(GZIP):
            path.unlink()
    (project.folder / ".trainpack/unchanged.json").unlink(missing_ok=True)
    again = replace(project, engine=NOWHERE).built()
    assert MAKING not in again.stderr
    assert again.json == first.json


def test_a_flipped_bit_in_the_kept_wheel_is_found_and_the_wheel_made_again(project: Project) -> None:
    sdist(project, "flipped", "VALUE = 'flip me'\n")
    first = project.built()
    (kept,) = [path for path in project.layers.blobs.paths() if b"'flip me'" in path.read_bytes()]
    status, content = kept.stat(), kept.read_bytes()
    kept.chmod(0o644)
    kept.write_bytes(content.replace(b"flip me", b"flop me"))
    os.utime(kept, ns=(status.st_atime_ns, status.st_mtime_ns))
    (project.folder / ".trainpack/unchanged.json").unlink(missing_ok=True)
    again = project.built()
    assert MAKING in again.stderr
    assert again.json == first.json
    assert kept.read_bytes() == content


def test_two_machines_make_the_same_digest_of_what_their_builds_pack_differently(
    project: Project, tmp_path: Path
) -> None:
    sdist(project, "shuffled", "VALUE = 1\n" * 100)
    other = project.copied(tmp_path / "elsewhere").with_cold_cache(tmp_path / "another cache")
    ended = [project.built(), other.built()]
    assert all(MAKING in each.stderr for each in ended)
    assert ended[0].json == ended[1].json


def test_two_builds_at_once_share_one_container(project: Project, tmp_path: Path) -> None:
    sdist(project, "shared", build="time.sleep(3)")
    other = project.copied(tmp_path / "elsewhere")
    with ThreadPoolExecutor() as pool:
        ended = list(pool.map(lambda each: each.built(), (project, other)))
    assert "".join(each.stderr for each in ended).count(MAKING) == 1
    assert ended[0].json == ended[1].json


def test_a_build_gets_what_it_asks_its_index_for_at_run_time_too(project: Project) -> None:
    tiny_index.pure(project.home / "wheels", "declared", "1.0", content="VALUE = 1\n")
    tiny_index.pure(project.home / "wheels", "asked-for", "1.0", content="VALUE = 2\n")
    extra = "\ndef get_requires_for_build_wheel(config_settings=None):\n    return ['asked-for']\n"
    build = "import declared, asked_for\nassert declared.VALUE + asked_for.VALUE == 3"
    sdist(project, "asking", build=build, requires=["declared"], after=extra)
    assert "layer build requirements of asking" in project.built().stderr


def test_what_a_build_requires_and_no_index_has_is_named(project: Project) -> None:
    sdist(project, "wanting", requires=["no-such-distribution"])
    ended = project.build()
    assert ended.code == 2
    told = error_of(ended)
    assert told.matches("wanting-1.0.tar.gz", "cannot be resolved to wheels: no-such-distribution")


def test_a_build_has_no_root_no_network_and_nothing_of_this_machine(project: Project) -> None:
    facts = {
        "user": "os.getuid()",
        "rights": "[l.split() for l in open('/proc/self/status') if l.startswith(('CapBnd', 'NoNew'))]",
        "networks": "os.listdir('/sys/class/net')",
        "variables": "sorted(os.environ)",
        "mounts": "[l.split()[1] for l in open('/proc/mounts') if l.startswith('/dev/')]",
        "writable": "[each for each in ('/', '/usr', '/opt', '/workspace') if os.access(each, os.W_OK)]",
    }
    told = "{" + ", ".join(f"{name!r}: {code}" for name, code in facts.items()) + "}"
    sdist(project, "curious", build=f"import json\nfiles.append(('curious.json', json.dumps({told})))")
    project.built()
    seen = json.loads(built_file(project, "curious.json"))
    assert (seen["user"], seen["networks"]) == (1000, ["lo"])
    assert seen["rights"] == [["CapBnd:", "0" * 16], ["NoNewPrivs:", "1"]]
    assert seen["writable"] == ["/workspace"]
    assert set(seen["mounts"]) <= {"/etc/resolv.conf", "/etc/hostname", "/etc/hosts"}
    assert set(seen["variables"]) <= {
        *("HOME", "HOSTNAME", "LANG", "PATH", "PYTHONHASHSEED", "SOURCE_DATE_EPOCH", "TMPDIR"),
        *("PYTHONUNBUFFERED", "PYTHONDONTWRITEBYTECODE", "LC_CTYPE"),
    }


def test_the_login_of_an_index_brings_what_a_build_requires_and_is_nowhere_in_it(project: Project) -> None:
    tiny_index.pure(project.home / "wheels", "helper", "1.0")
    waits = "import helper, pathlib\nprint(pathlib.Path('/workspace/job.json').read_text())\n"
    waits += "print(dict(os.environ))\ntime.sleep(3)\nraise SystemExit('seen enough')"
    sdist(project, "nosy", build=waits, requires=["helper"])
    with tiny_index.served(project.home / "wheels", "reader:hidden-word") as index:
        project = replace(project, index=f"{index.with_login('reader', 'hidden-word')}/simple/")
        (project.folder / LOCK).unlink()
        succeed(project.folder, "lock", env=project.environment)
        process = started(project)
        wait_for(lambda: is_running("nosy"))
        (container,) = containers("nosy")
        seen = json.dumps(container.attrs)
        seen += subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True, check=True).stdout
        told = "".join(process.communicate(timeout=LIMIT_SECONDS))
    assert "seen enough" in told
    assert "hidden-word" not in told + seen
    assert index.address.removeprefix("http://") not in seen
    assert not [path for path in project.layers.blobs.paths() if b"hidden-word" in path.read_bytes()]


def test_a_failing_build_is_told_with_its_last_words_and_the_remedy(project: Project) -> None:
    build = "print('\\x1b[2Jcompiling the flux')\nraise RuntimeError('the flux does not compile')"
    sdist(project, "failing", build=build)
    ended = project.build()
    assert ended.code == 1
    error = ended.json["error"]
    assert error["place"] == "failing-1.0.tar.gz"
    assert error["message"] == "it has no wheel for the image, and its build ended with 1"
    assert error["details"][-1] == "RuntimeError: the flux does not compile"
    assert "[2Jcompiling the flux" in error["details"]  # without what clears the terminal
    assert "pin a version that has a wheel" in error["remedy"]
    assert containers("failing") == []


# A module of C, compiled as setuptools does it.
COMPILES = """import subprocess, sysconfig
with open("answer.c", "w") as source:
    source.write('''#include <Python.h>
static struct PyModuleDef module = {PyModuleDef_HEAD_INIT, "answer", 0, -1, 0};
PyMODINIT_FUNC PyInit_answer(void) {
    PyObject *made = PyModule_Create(&module);
    PyModule_AddIntConstant(made, "VALUE", 42);
    return made;
}
''')
compiler = sysconfig.get_config_var("CC").split()
include = sysconfig.get_path("include")
subprocess.run([*compiler, "-shared", "-fPIC", f"-I{include}", "answer.c", "-o", "answer.so"], check=True)
with open("answer.so", "rb") as module:
    files.append(("answer.so", module.read()))
"""
NATIVE = "native-1.0-cp311-cp311-linux_x86_64.whl"


def test_a_build_that_needs_a_compiler_says_so_and_what_to_do(project: Project) -> None:
    sdist(project, "native", build=COMPILES, made=NATIVE)
    ended = project.build()
    assert ended.code == 1
    assert "No such file or directory: 'x86_64-linux-gnu-gcc'" in ended.stderr
    assert '[image] system-packages can name: a compiler is "gcc", "libc6-dev", "python3-dev"' in ended.stderr


@pytest.mark.slow
def test_with_a_compiler_among_the_system_packages_it_is_built_and_imported(project: Project) -> None:
    sdist(project, "native", build=COMPILES, made=NATIVE)
    spec = project.folder / "trainpack.toml"
    packages = 'system-packages = ["gcc", "libc6-dev", "python3-dev"]'
    text = spec.read_text(encoding="utf-8").replace("[run]", f"{packages}\n[run]")
    spec.write_text(text, encoding="utf-8")
    project.edit("import answer\nprint('the answer is', answer.VALUE)\n")
    ended = project.built()
    assert "the answer is 42" in succeed(project.folder, "run", env=project.environment).stdout
    planned = json.loads((project.folder / ".trainpack/last-plan.json").read_text(encoding="utf-8"))
    for image in (ended.json["image_id"], planned["base"]["reference"]):
        docker.from_env().images.remove(image, force=True)


@pytest.mark.parametrize(
    ("names", "said"),
    [
        ("impostor-1.0-py3-none-any.whl", "another distribution"),
        ("honest-2.0-py3-none-any.whl", "made honest 2.0, the lock says honest 1.0"),
        ("honest-1.0-cp39-cp39-win_amd64.whl", "made a wheel for cp39-cp39-win_amd64, which the image"),
    ],
)
def test_a_build_that_makes_another_wheel_than_the_locks_is_refused_and_nothing_kept(
    project: Project, names: str, said: str
) -> None:
    sdist(project, "honest", made=names)
    for _ in range(2):
        ended = project.build()
        assert ended.code == 1
        assert error_of(ended).text.startswith("honest-1.0.tar.gz: ")
        assert said in ended.stderr
    assert not [path for path in project.layers.blobs.paths() if path.read_bytes().startswith(b"PK")]


@pytest.mark.parametrize("path", ["../../../etc/x", "/etc/x"])
def test_a_wheel_that_climbs_out_is_refused(project: Project, path: str) -> None:
    sdist(project, "hostile", build=f"files.append(({path!r}, ''))")
    ended = project.build()
    assert ended.code == 1
    assert "expected a path below the image's root" in ended.stderr


def test_an_engine_of_another_platform_is_told_and_no_emulation_tried(project: Project) -> None:
    other = tiny_project.base(project.layers, b"base", "linux/arm64")
    tiny_project.keep_base(project.cache, other)
    sdist(project, "foreign")
    ended = project.build("--platform", "linux/arm64")
    assert ended.code == 1
    told = error_of(ended)
    said = "no wheel for Python 3.11 on linux/arm64, and the engine's platform is linux/amd64"
    assert told.matches("foreign 1.0", said)
    assert "an engine on linux/arm64" in told.remedy


def test_an_engine_without_a_docker_command_is_told(project: Project, tmp_path: Path) -> None:
    sdist(project, "commandless")
    ended = trainpack(project.folder, *tiny_project.BUILD, env=project.environment | {"PATH": str(tmp_path)})
    assert ended.code == 1
    assert error_of(ended).matches("commandless 1.0", "there is no docker command on PATH")


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_a_stopped_build_leaves_no_container_and_nothing_half_written(
    project: Project, sent: signal.Signals
) -> None:
    name = f"endless-{sent.name.lower()}"
    sdist(project, name, build="time.sleep(3600)")
    process = started(project)
    wait_for(lambda: is_running(name))
    keys = sorted(path.name for path in (project.cache / "oci/keys").iterdir())
    os.kill(process.pid, sent)
    told = "".join(process.communicate(timeout=LIMIT_SECONDS))
    assert process.returncode == (130 if sent == signal.SIGINT else -sent)
    assert "Traceback" not in told
    wait_for(lambda: containers(name) == [])
    assert sorted(path.name for path in (project.cache / "oci/keys").iterdir()) == keys
    assert project.layers.verify() == ()


def test_a_build_after_a_killed_one_makes_what_an_undisturbed_one_makes(
    project: Project, tmp_path: Path
) -> None:
    sdist(project, "recovering", build="time.sleep(2)")
    quiet = project.copied(tmp_path / "quiet").with_cold_cache(tmp_path / "quiet cache")
    process = started(project)
    wait_for(lambda: is_running("recovering"))
    process.kill()
    process.communicate()
    assert project.built().json["digest"] == quiet.built().json["digest"]


def test_the_docker_builder_installs_the_very_same_wheel(project: Project) -> None:
    sdist(project, "both")
    theirs = succeed(project.folder, "build", "--builder", "docker", "--json", env=project.environment)
    assert f"both 1.0 {MAKING}" in theirs.stderr
    ours = replace(project, engine=NOWHERE).built()
    assert MAKING not in ours.stderr
    assert ours.json["tag"] == theirs.json["tag"]
    docker.from_env().images.remove(theirs.json["image_id"], force=True)

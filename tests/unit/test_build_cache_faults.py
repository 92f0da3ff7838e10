"""`trainpack build` over a cache that others use, that was damaged, or whose last user was killed."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

import pytest
import tiny_index
import tiny_project
from commands import TRAINPACK, succeed
from hostile_registry import HostileRegistry, hostile_registry
from tiny_project import Project

from builder.lock.pylock import FILE as LOCK
from builder.lock.pylock import TOOLS_FILE

WEIGHT = 500_000
GZIP = b"\x1f\x8b"
Found = TypeVar("Found")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Project:
    return tiny_project.make(tmp_path_factory.mktemp("made"), weight=WEIGHT)


@pytest.fixture
def project(made: Project, tmp_path: Path) -> Project:
    """The project in a folder of its own, and a cache that holds its base alone."""
    return made.copied(tmp_path / "project").with_cold_cache(tmp_path / "cache")


@pytest.fixture
def registry(project: Project) -> Iterator[HostileRegistry]:
    with hostile_registry() as running:
        project.name(f"{running.address}/team/app")
        yield running


def digest_of(made: Project, tmp_path: Path, name: str = "") -> str:
    """What the project's image is when nothing disturbs its build."""
    quiet = made.copied(tmp_path / "quiet").with_cold_cache(tmp_path / "quiet-cache")
    if name:
        quiet.name(name)
    return str(quiet.built().json["digest"])


@pytest.mark.parametrize("locked", [True, False])
def test_builds_at_once_in_one_folder_and_in_another_agree(
    made: Project, project: Project, tmp_path: Path, locked: bool
) -> None:
    expected = digest_of(made, tmp_path)
    other = project.copied(tmp_path / "other")
    if not locked:
        for each in (project, other):
            (each.folder / LOCK).unlink()
            (each.folder / TOOLS_FILE).unlink()
    with ThreadPoolExecutor() as pool:
        ended = list(pool.map(lambda each: each.built(), (project, project, other)))
    assert {each.json["digest"] for each in ended} == {expected}
    # Whoever came second waited for the first one's work.
    told = "".join(each.stderr for each in ended)
    assert told.count("downloaded light") == 1
    assert project.layers.verify() == ()
    remembered = json.loads((project.folder / ".trainpack/last-build.json").read_bytes())
    assert remembered["digest"] == expected
    assert project.built().json["digest"] == expected


def flip(path: Path, at: int, *, keep_times: bool) -> None:
    """Flip one bit, as a program does it or as a bad disk does."""
    status = path.stat()
    content = bytearray(path.read_bytes())
    content[at] ^= 1
    path.chmod(0o644)
    path.write_bytes(content)
    if keep_times:
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def forget_layers(project: Project) -> None:
    """Leave nothing but the wheels, so that layers are made of them again."""
    wheels = {path.read_bytes() for path in (project.home / "wheels").glob("*.whl")}
    for path in project.layers.blobs.paths():
        if path.read_bytes() not in wheels:
            path.unlink()


def is_packed(content: bytes) -> bool:
    """Whether it is what is kept of a wheel: compressed pieces, then an index and its size."""
    return content.startswith(GZIP) and content[-8 - int.from_bytes(content[-8:]) : -8].startswith(b'[["opt/')


def largest_layer(project: Project) -> Path:
    return max(layers_of(project), key=size_of)


def layers_of(project: Project) -> list[Path]:
    return kept(project, lambda content: content.startswith(GZIP) and not is_packed(content))


def kept(project: Project, wanted: Callable[[bytes], bool]) -> list[Path]:
    return [path for path in project.layers.blobs.paths() if wanted(path.read_bytes())]


def size_of(path: Path) -> int:
    return path.stat().st_size


@pytest.mark.parametrize("at", [0, 31, WEIGHT])
def test_a_flipped_bit_in_a_kept_wheel_is_found_and_the_wheel_brought_again(
    project: Project, at: int
) -> None:
    expected = project.built().json["digest"]
    forget_layers(project)
    flip(max(kept(project, lambda content: content.startswith(b"PK")), key=size_of), at, keep_times=True)
    ended = project.built()
    assert ended.stderr.count("downloaded") == 1
    assert ended.json["digest"] == expected
    assert project.layers.verify() == ()


@pytest.mark.parametrize("keep_times", [False, True], ids=["times change", "times stay"])
def test_a_flipped_bit_in_a_kept_layer_is_found_and_never_published(
    project: Project, registry: HostileRegistry, keep_times: bool
) -> None:
    expected = project.built().json
    flip(largest_layer(project), WEIGHT // 2, keep_times=keep_times)
    ended = project.build("--push")
    if keep_times:
        assert ended.code == 1
        assert tiny_project.error_of(ended).matches("", "the blob sha256:[0-9a-f]{64} is corrupt")
        assert registry.manifests.get("team/app", {}) == {}
    else:
        assert ended.json == expected
    assert project.built("--push").json == expected
    assert expected["digest"] in registry.manifests["team/app"]


def test_a_flipped_bit_in_the_base_is_found_by_a_push_and_the_base_is_made_anew(
    project: Project, registry: HostileRegistry
) -> None:
    expected = project.built().json
    (layer,) = [
        path for path in (project.cache / "bases/blobs/sha256").iterdir() if path.stat().st_size > WEIGHT
    ]
    whole = layer.read_bytes()
    flip(layer, WEIGHT // 2, keep_times=True)
    ended = project.build("--push")
    assert ended.code == 1
    assert tiny_project.error_of(ended).matches("", f"{layer.name} is corrupt")
    assert registry.manifests.get("team/app", {}) == {}
    assert not layer.exists()
    layer.write_bytes(whole)  # what the next build of the base does; this one has no mirror
    assert project.built("--push").json == expected


def test_a_flipped_bit_in_every_record_of_a_layer_is_found(project: Project) -> None:
    expected = project.built().json
    chance = random.Random(1)
    for record in (project.cache / "oci/keys").iterdir():
        flip(record, chance.randrange(record.stat().st_size), keep_times=True)
    # What the last build noted would make this one ask for nothing.
    (project.folder / ".trainpack/unchanged.json").unlink(missing_ok=True)
    assert project.built().json == expected


@pytest.mark.parametrize("at", [20, -20], ids=["compressed", "index"])
def test_a_flipped_bit_in_a_packed_wheel_never_gets_into_a_layer(project: Project, at: int) -> None:
    expected = project.built().json["digest"]
    for layer in layers_of(project):
        layer.unlink()
    flip(kept(project, is_packed)[0], at, keep_times=True)
    ended = project.build()
    assert ended.code == 1
    assert tiny_project.error_of(ended).matches("", "is corrupt")
    assert project.built().json["digest"] == expected
    assert project.layers.verify() == ()


# Each line starts a build and kills it after so many seconds, in a process that has imported everything.
KILLED = """
import os, signal, sys, time
import builder.rebuild.again, builder.building, builder.publish, builder.wheels.making
from builder.cli import build, main, dispatch
from builder.builders import oci
print("ready", flush=True)
for line in sys.stdin:
    if not (child := os.fork()):
        os.setpgid(0, 0)
        sys.argv = ["trainpack", *sys.argv[1:]]
        silent = os.open(os.devnull, os.O_WRONLY)
        os.dup2(silent, 1)
        try:
            main()
        except SystemExit as ending:
            os._exit(ending.code)
    deadline = time.monotonic() + float(line)
    ending = os.WEXITED | os.WNOHANG | os.WNOWAIT
    while time.monotonic() < deadline and not os.waitid(os.P_PID, child, ending):
        time.sleep(0.001)
    try:
        os.killpg(child, signal.SIGKILL)
    except ProcessLookupError:
        os.kill(child, signal.SIGKILL)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""


@pytest.mark.slow
def test_after_kills_at_fifty_random_moments_a_build_succeeds_with_the_right_digest(
    made: Project, project: Project, registry: HostileRegistry, tmp_path: Path
) -> None:
    expected = digest_of(made, tmp_path, f"{registry.address}/team/app")
    chance = random.Random(11)
    helper = subprocess.Popen(
        [sys.executable, "-c", KILLED, *tiny_project.BUILD, "--push"],
        cwd=project.folder,
        env=os.environ | project.environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert helper.stdin
    assert helper.stdout
    assert helper.stdout.readline() == "ready\n"

    def killed_after(seconds: float) -> int:
        assert helper.stdin
        assert helper.stdout
        helper.stdin.write(f"{seconds}\n")
        helper.stdin.flush()
        return int(helper.stdout.readline())

    def start_over() -> None:
        project.layers.clear()
        registry.blobs.clear()
        registry.manifests.clear()
        shutil.rmtree(project.folder / ".trainpack", ignore_errors=True)

    ended = killed = midway = 0
    longest = 1.0
    while killed < 50:
        if chance.random() < 0.7:
            start_over()
        code = killed_after(chance.random() * longest)
        assert code in (0, -9)
        killed += code != 0
        ended += code == 0
        midway += code != 0 and bool(project.layers.blobs.paths()) and not registry.manifests
        longest *= 0.95 if code == 0 else 1.02
        assert all(project.layers.blobs.verify(digest) for digest in project.layers.blobs.digests())
        for manifest in registry.manifests.get("team/app", {}):
            assert manifest.startswith("sha256:") or expected in registry.manifests["team/app"]
        if killed % 10 == 0 and code:
            assert killed_after(60) == 0
            assert expected in registry.manifests["team/app"]
    helper.communicate()
    print(f"{killed} builds killed, {midway} of them half-way; {ended} ended before that")
    assert midway > 10
    assert project.built("--push").json["digest"] == expected
    assert expected in registry.manifests["team/app"]
    assert project.layers.verify() == ()


# A cache on a file system of its own, which has no room for the build at first.
FULL = """
mount -t tmpfs -o size="$1" tmpfs "$TRAINPACK_CACHE" && cp -r "$2" "$TRAINPACK_CACHE/bases" || exit 99
told=$3
shift 3
"$@" > "$told/first.json"
echo $? > "$told/first.code"
find "$TRAINPACK_CACHE/oci/fresh" -type f > "$told/left"
mount -o remount,size=100m "$TRAINPACK_CACHE" || exit 99
"$@"
"""
OWN_MOUNTS = ("unshare", "--map-root-user", "--mount")


@pytest.mark.parametrize("share", [0.2, 0.5, 0.95])
def test_a_disk_that_is_full_is_named_with_the_remedy_and_the_next_build_has_room(
    made: Project, project: Project, tmp_path: Path, share: float
) -> None:
    if subprocess.run([*OWN_MOUNTS, "true"], capture_output=True, check=False).returncode:
        pytest.skip("no user namespaces here")
    expected = digest_of(made, tmp_path)
    base, needed = (
        sum(path.stat().st_size for path in folder.rglob("*"))
        for folder in (project.cache / "bases", tmp_path / "quiet-cache/oci")
    )
    own = tmp_path / "own"
    own.mkdir()
    settings = (str(base + int(needed * share)), str(project.cache / "bases"), str(tmp_path))
    done = subprocess.run(
        [*OWN_MOUNTS, "sh", "-c", FULL, "sh", *settings, TRAINPACK, *tiny_project.BUILD],
        cwd=project.folder,
        env=os.environ | project.environment | {"TRAINPACK_CACHE": str(own)},
        capture_output=True,
        text=True,
        check=False,
    )
    first = json.loads((tmp_path / "first.json").read_text(encoding="utf-8"))
    assert (tmp_path / "first.code").read_text(encoding="utf-8") == "1\n"
    assert "Traceback" not in done.stderr
    assert first["error"]["place"] == str(own / "oci")
    assert "No space left on device" in first["error"]["message"]
    assert "`trainpack cache prune`" in first["error"]["remedy"]
    assert (tmp_path / "left").read_text(encoding="utf-8") == ""
    assert (done.returncode, json.loads(done.stdout)["digest"]) == (0, expected)


def compilers_of(pid: int) -> list[Path]:
    """The processes that a build compiles in."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            parent = int((process / "stat").read_text().rpartition(")")[2].split()[1])
            if parent == pid and b"_code_to_hash_pyc" in (process / "cmdline").read_bytes():
                found.append(process)
    return found


def is_running(process: Path) -> bool:
    try:
        return (process / "stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def seen(look: Callable[[], Found]) -> Found:
    """What a look finds, once it finds something."""
    deadline = time.monotonic() + 60
    while not (found := look()):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    return found


def test_a_kill_while_a_wheel_is_compiled_leaves_no_compiler_and_the_next_build_succeeds(
    made: Project, project: Project, tmp_path: Path
) -> None:
    lines = "".join(f"    (a + {number}, 'b'),\n" for number in range(60_000))
    tiny_index.pure(project.home / "wheels", "heavy", "1.0", content=f"a = 1\nTABLE = [\n{lines}]\n")
    tiny_index.simple_index(project.home / "wheels")
    (project.folder / "requirements.txt").write_text("heavy\nlight\n", encoding="utf-8")
    succeed(project.folder, "lock", env=project.environment)
    expected = digest_of(project, tmp_path)
    process = subprocess.Popen(
        [TRAINPACK, *tiny_project.BUILD],
        cwd=project.folder,
        env=os.environ | project.environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    compilers = seen(lambda: compilers_of(process.pid))
    process.kill()
    assert process.wait() == -signal.SIGKILL
    seen(lambda: not any(map(is_running, compilers)))
    assert project.layers.verify() == ()
    assert project.built().json["digest"] == expected

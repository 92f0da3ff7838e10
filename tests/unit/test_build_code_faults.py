"""`trainpack build` over a code folder that is hostile, broken, huge, or changes while it is read."""

from __future__ import annotations

import hashlib
import json
import os
import resource
import socket
import stat
import subprocess
import sys
import tarfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
import tiny_project
from commands import Ended
from tiny_project import Project

from builder.builders.oci import OciBuilder
from builder.errors import LayerError
from builder.project import read_plan

# What root may read whatever its mode says, another user may not.
ANOTHER_USER = ("unshare", "--user", "--map-user=1234", "--map-group=1234")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Project:
    project = tiny_project.make(tmp_path_factory.mktemp("made"))
    project.built()
    return project


@pytest.fixture
def project(made: Project, tmp_path: Path) -> Project:
    return made.copied(tmp_path / "project")


def code(project: Project, ended: Ended) -> dict[str, tarfile.TarInfo]:
    """What lies in the code's folder of the image that was built."""
    return {info.name: info for info, _ in members(project, ended)}


def members(project: Project, ended: Ended) -> Iterator[tuple[tarfile.TarInfo, bytes]]:
    last = ended.json["layers"][-1]
    keys = [path.name for path in (project.cache / "oci/keys").iterdir()]
    kept = [layer for key in keys if (layer := project.layers.recall(key))]
    (digest,) = {each.digest for each in kept if each.diff_id == last}
    with tarfile.open(project.layers.blobs.path(digest)) as archive:
        for info in archive:
            if info.name.startswith("opt/app/"):
                content = archive.extractfile(info)
                yield info, content.read() if content else b""


def test_nothing_of_a_hostile_folder_is_in_the_image_but_its_plain_files(
    project: Project, tmp_path: Path
) -> None:
    folder = project.folder
    (tmp_path / "secret").write_text("outside", encoding="utf-8")
    (folder / ".env").write_text("TOKEN=inside", encoding="utf-8")
    os.mkfifo(folder / "pipe")
    with suppress(PermissionError):  # only root may, and not in every container
        os.mknod(folder / "device", stat.S_IFCHR | 0o666, os.makedev(1, 5))
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(os.path.relpath(folder / "socket"))
    links = {
        "absolute": "/etc/passwd",
        "outside": "../secret",
        "up-and-down": f"../../{tmp_path.name}/secret",
        "folder": "/etc",
        "to-credentials": ".env",
        "loop": "loop",
        "a": "b",
        "b": "a",
        "dangling": "nothing",
        "endless": "x" * 255 + "/y",
        "much-too-long": "x" * 3000,
        "to-pipe": "pipe",
        os.fsdecode(b"link\xe9"): "/etc/passwd",
    }
    for name, target in links.items():
        (folder / name).symlink_to(target)
    (folder / "within").symlink_to(folder / "train.py")
    (folder / "tool").write_text("#!/bin/sh\n", encoding="utf-8")
    (folder / "tool").chmod(0o6755)
    (folder / "..data").write_text("dots", encoding="utf-8")
    (folder / "line\nbreak").write_text("x", encoding="utf-8")
    ended = project.built()
    listener.close()
    found = code(project, ended)
    kept = {"train.py", "trainpack.toml", "requirements.txt", "within", "tool", "..data", "line\nbreak"}
    assert set(found) == {f"opt/app/{name}" for name in kept}
    assert all(info.isreg() for info in found.values())
    assert {info.mode for name, info in found.items() if name != "opt/app/tool"} == {0o644}
    assert found["opt/app/tool"].mode == 0o755


@pytest.mark.parametrize("name", [b"caf\xe9.txt", b"caf\xe9/x.txt"])
def test_a_name_that_is_not_utf8_is_refused_with_the_remedy(project: Project, name: bytes) -> None:
    path = project.folder / os.fsdecode(name)
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(b"x")
    ended = project.build()
    assert ended.code == 2
    assert tiny_project.error_of(ended).matches("", r"caf\\udce9.*is not UTF-8")


@pytest.mark.parametrize("name", ["pkg/data.bin", "pkg", ".gitignore"])
def test_what_cannot_be_read_is_named_with_the_remedy(project: Project, name: str) -> None:
    if subprocess.run([*ANOTHER_USER, "true"], capture_output=True, check=False).returncode:
        pytest.skip("no user namespaces here")
    (project.folder / "pkg").mkdir()
    for path in ("pkg/data.bin", ".gitignore"):
        (project.folder / path).write_text("x", encoding="utf-8")
    (project.folder / name).chmod(0)
    program = "import sys; from builder.cli import main; sys.argv[0] = 'trainpack'; main()"
    done = subprocess.run(
        [*ANOTHER_USER, sys.executable, "-c", program, *tiny_project.BUILD],
        cwd=project.folder,
        env=os.environ | project.environment,
        capture_output=True,
        text=True,
        check=False,
    )
    (project.folder / name).chmod(0o755)
    ended = Ended(done.returncode, done.stdout, done.stderr)
    assert ended.code == 2
    assert tiny_project.error_of(ended).matches(name, "cannot be read: Permission denied")
    project.built()


@pytest.mark.parametrize("text", ["print('traineD')\n", "", "longer than it was" * 9, None])
def test_a_file_that_changes_between_plan_and_layer_ends_the_build_and_leaves_no_layer(
    project: Project, monkeypatch: pytest.MonkeyPatch, text: str | None
) -> None:
    for name, value in project.environment.items():
        monkeypatch.setenv(name, value)
    project.edit(f"print({str(project.folder)!r})\n")
    plan = read_plan(project.folder, os.environ)
    before = project.layers.blobs.digests()
    if text is None:
        (project.folder / "train.py").unlink()
    else:
        project.edit(text)
    with pytest.raises(LayerError) as caught:
        OciBuilder(project.layers, os.environ, print).build(plan, project.folder)
    assert str(project.folder / "train.py") in str(caught.value)
    assert caught.value.remedy
    assert project.layers.blobs.digests() == before
    assert list((project.cache / "oci/fresh").iterdir()) == []


@contextmanager
def rewritten(path: Path) -> Iterator[None]:
    """A file that another program writes all the time, in place and in other sizes."""
    done = threading.Event()

    def write() -> None:
        number = 0
        while not done.is_set():
            number += 1
            path.write_text(f"{number}\n" * (number % 50_000), encoding="utf-8")

    thread = threading.Thread(target=write)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def test_a_file_that_is_written_during_a_build_is_refused_or_carried_as_it_was_planned(
    project: Project,
) -> None:
    log = project.folder / "log.txt"
    for _ in range(3):
        with rewritten(log):
            ended = project.build()
        if ended.code:
            assert ended.code == 1
            assert tiny_project.error_of(ended).matches(str(log.name), "changed while it was read")
            continue
        planned = json.loads((project.folder / ".trainpack/last-plan.json").read_bytes())["code"]
        carried = {
            info.name.removeprefix("opt/app/"): hashlib.sha256(content).hexdigest()
            for info, content in members(project, ended)
            if info.isreg()
        }
        assert carried == {file["path"]: file["sha256"] for file in planned}
    project.built()


@pytest.mark.slow
def test_a_hundred_thousand_files_are_built(project: Project) -> None:
    for folder in range(100):
        place = project.folder / f"data/{folder}"
        place.mkdir(parents=True)
        (place / "0.txt").write_bytes(b"x")
        for number in range(1, 1000):
            os.link(place / "0.txt", f"{place}/{number}.txt")
    began, before = time.monotonic(), resource.getrusage(resource.RUSAGE_CHILDREN)
    ended = project.built()
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    work = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    print(
        f"100,000 files: {time.monotonic() - began:.1f} s, {work:.1f} s of processor time, "
        f"at most {after.ru_maxrss / 1000:.0f} MB"
    )
    assert sum(1 for _ in members(project, ended)) == 100_003 + 101

"""A build that changes nothing is told from file times; anything else is noticed."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import oci_images
import pytest
from plans import plan

from builder.builders.contents import entrypoint_files
from builder.oci.cache import open_cache
from builder.plan import BuiltImage
from builder.rebuild import unchanged
from builder.rebuild.watch import Build, Watch
from builder.workdir import workdir

SPEC = '[image]\nname = "registry.example.com/a/b"\n[run]\nscript = "train.py"\n[data]\ntrain = "data"\n'
ARGUMENTS = ["build"]
LONG_AGO = 1_700_000_000


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "project"
    for name in ("pkg/empty", "data", "environment", "left-out"):
        (folder / name).mkdir(parents=True)
    texts = {"trainpack.toml": SPEC, "train.py": "x = 1\n", "pkg/a.py": "", "requirements.txt": "six\n"}
    texts |= {"pylock.toml": "", ".gitignore": "left-out/\n", "environment/pyvenv.cfg": "", "data/x": ""}
    for name, text in texts.items():
        (folder / name).write_text(text, encoding="utf-8")
    git(folder, "init", "--quiet")
    git(folder, "add", ".")
    git(folder, "commit", "--quiet", "--message=first")
    workdir(folder)
    monkeypatch.chdir(folder)
    monkeypatch.setenv("TRAINPACK_CACHE", str(tmp_path / "cache"))
    return folder


def git(folder: Path, *arguments: str) -> None:
    who = ["-c", "user.name=me", "-c", "user.email=me@example.com"]
    subprocess.run(["git", "-C", folder, *who, *arguments], check=True, capture_output=True)


def build(folder: Path, engine: dict[str, object] | None = None) -> BuiltImage:
    """What a build does at its begin and end."""
    # Real builds begin long after the last edit: its process has to start.
    time.sleep(0.03)
    watch = Watch.start(folder)
    return end(watch, engine)


def end(watch: Watch, engine: dict[str, object] | None = None) -> BuiltImage:
    image = oci_images.image(open_cache().blobs, b"layer")
    built = BuiltImage(
        reference="registry.example.com/a/b:1",
        image_id=image.id,
        digest=image.digest,
        tag="1",
        size=1,
        layers=(),
    )
    watch.remember(Build(ARGUMENTS, plan(), image, built, "told", False, False, engine))
    return built


def test_a_second_build_without_changes_tells_the_same(project: Path) -> None:
    assert unchanged.told_before(ARGUMENTS) is None
    build(project)
    assert unchanged.told_before(ARGUMENTS) == "told"


def edit_and_hide(folder: Path) -> None:
    (folder / "train.py").write_text("x = 2\n", encoding="utf-8")
    os.utime(folder / "train.py", (LONG_AGO, LONG_AGO))


def stage(folder: Path) -> None:
    (folder / "left-out/x").touch()
    git(folder, "add", "--force", "left-out/x")


def touch_blobs(_: Path) -> None:
    for path in open_cache().blobs.paths():
        path.touch()


CHANGES: dict[str, Callable[[Path], object]] = {
    "an edited file": lambda folder: (folder / "pkg/a.py").write_text("y", encoding="utf-8"),
    "an edit of the same size": lambda folder: (folder / "train.py").write_text("x = 2\n", encoding="utf-8"),
    "an edit that hides its time": edit_and_hide,
    "a new file": lambda folder: (folder / "new.py").touch(),
    "a new file in an empty folder": lambda folder: (folder / "pkg/empty/new.py").touch(),
    "a removed file": lambda folder: (folder / "pkg/a.py").unlink(),
    "a file that becomes executable": lambda folder: (folder / "train.py").chmod(0o755),
    "a renamed file": lambda folder: (folder / "train.py").rename(folder / "train2.py"),
    "a new ignore file": lambda folder: (folder / "pkg/.dockerignore").touch(),
    "a folder that is no environment any more": lambda folder: (folder / "environment/pyvenv.cfg").unlink(),
    "the spec": lambda folder: (folder / "trainpack.toml").write_text(SPEC + " ", encoding="utf-8"),
    "the requirements": lambda folder: (folder / "requirements.txt").write_text("toml\n", encoding="utf-8"),
    "a new lock": lambda folder: (folder / "pylock.trainpack.toml").touch(),
    "something staged": stage,
    "a commit": lambda folder: git(folder, "commit", "--allow-empty", "--message=second"),
    "another branch": lambda folder: git(folder, "checkout", "--quiet", "-b", "other"),
    "a layer that is gone": lambda _: open_cache().clear(),
    "a layer that was touched": touch_blobs,
    "another environment": lambda _: os.environ.update(TRAINPACK_X="1"),
    "another folder": lambda folder: os.chdir(folder.parent),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES.keys())
def test_every_change_is_noticed(
    project: Path, change: Callable[[Path], object], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRAINPACK_X", "0")
    build(project)
    assert unchanged.told_before(ARGUMENTS) == "told"
    change(project)
    assert unchanged.told_before(ARGUMENTS) != "told"


def test_what_is_no_part_of_the_image_may_change(project: Path) -> None:
    build(project)
    (project / "left-out/x").touch()
    (project / "data/y").touch()
    assert unchanged.told_before(ARGUMENTS) == "told"


def test_other_arguments_are_another_build(project: Path) -> None:
    build(project)
    assert unchanged.told_before(["build", "--json"]) is None


def test_the_entrypoint_and_trainpack_itself_are_watched(project: Path) -> None:
    build(project)
    watched = json.loads((project / unchanged.FILE).read_text(encoding="utf-8"))["files"]
    assert {str(path) for path in entrypoint_files().values()} <= set(watched)
    assert unchanged.__file__ in watched


def test_requirements_that_include_another_file_are_read_each_time(project: Path) -> None:
    (project / "requirements.txt").write_text("-r ../shared.txt\n", encoding="utf-8")
    build(project)
    assert unchanged.told_before(ARGUMENTS) is None


def test_a_file_that_is_edited_while_the_build_looks_at_it_is_not_trusted(project: Path) -> None:
    now = time.time_ns()
    seen = {"x": [now - 1, now - 1, 1, 1, 1], "gone": None}
    assert not unchanged.is_settled(seen, now)
    assert unchanged.is_settled(seen, now + 10**9)


def test_an_edit_after_the_look_is_noticed_though_the_build_came_to_its_end(project: Path) -> None:
    time.sleep(0.03)
    watch = Watch.start(project)
    (project / "train.py").write_text("x = 3\n", encoding="utf-8")
    end(watch)
    assert unchanged.told_before(ARGUMENTS) != "told"


@contextmanager
def engine(folder: Path, body: bytes, status: str = "200 OK") -> Iterator[str]:
    """A socket that answers one request as an engine does."""
    path = str(folder / "engine.sock")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(path)
        server.listen()

        def answer() -> None:
            connection, _ = server.accept()
            with connection:
                connection.recv(1000)
                connection.sendall(f"HTTP/1.0 {status}\r\nA: b\r\n\r\n".encode() + body)

        thread = threading.Thread(target=answer)
        thread.start()
        yield path
        thread.join()


def test_an_engine_that_lost_the_image_is_given_it_again(project: Path, tmp_path: Path) -> None:
    built = build(project, {"socket": str(tmp_path / "engine.sock"), "loaded": True})
    for body, status, expected in (
        (json.dumps({"Id": built.image_id}).encode(), "200 OK", "told"),
        (b'{"Id": "sha256:other"}', "200 OK", None),
        (b'{"message": "no such image"}', "404 Not Found", None),
    ):
        with engine(tmp_path, body, status):
            assert unchanged.told_before(ARGUMENTS) == expected
        (tmp_path / "engine.sock").unlink()
    assert unchanged.told_before(ARGUMENTS) is None


def test_an_engine_that_appeared_is_given_the_image(project: Path, tmp_path: Path) -> None:
    build(project, {"socket": str(tmp_path / "engine.sock"), "loaded": False})
    assert unchanged.told_before(ARGUMENTS) == "told"
    with engine(tmp_path, b"{}"):
        assert unchanged.told_before(ARGUMENTS) is None


def test_a_damaged_note_means_build(project: Path) -> None:
    build(project)
    (project / unchanged.FILE).write_text("{", encoding="utf-8")
    assert unchanged.told_before(ARGUMENTS) is None


def test_it_imports_next_to_nothing() -> None:
    root = str(Path(unchanged.__file__).parents[2])
    code = f"import sys; sys.path.insert(0, {root!r}); import builder.rebuild.unchanged; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", code], capture_output=True, text=True, check=True
    )
    assert {"pathlib", "typing", "dataclasses", "typer", "pydantic"}.isdisjoint(done.stdout.split())


def test_no_password_of_the_environment_is_written_down(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("DOCKER_AUTH_CONFIG", "GIT_HTTP_EXTRAHEADER", "PICSELLIA_API_TOKEN", "PIP_INDEX_URL"):
        monkeypatch.setenv(name, "tell-nobody")
    build(project)
    assert unchanged.told_before(ARGUMENTS) is not None
    assert "tell-nobody" not in (project / unchanged.FILE).read_text(encoding="utf-8")

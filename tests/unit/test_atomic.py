"""Files that take their place once they are whole, and what kills leave of them."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import oci_images
import pytest

from builder.atomic import new_file
from builder.oci.blobs import Blobs
from builder.oci.layout import write_layout
from builder.workdir import write_all_atomically, write_atomically

KILLED = """
import os, signal, sys
from pathlib import Path
from builder.atomic import new_file

with new_file(Path(sys.argv[1])) as file:
    file.write(b"half")
    file.flush()
    os.kill(os.getpid(), signal.SIGKILL)
"""


def leave(folder: Path, age: float) -> Path:
    """What a process that was killed so many seconds ago left in a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    before = set(folder.iterdir())
    subprocess.run([sys.executable, "-c", KILLED, str(folder / "target")], check=False)
    (left,) = set(folder.iterdir()) - before
    os.utime(left, (time.time() - age,) * 2)
    return left


def test_a_file_has_its_old_content_until_the_new_one_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("old")
    with new_file(path) as file:
        file.write(b"new")
        file.flush()
        assert path.read_text() == "old"
    assert (path.read_text(), list(tmp_path.iterdir())) == ("new", [path])


def test_an_error_leaves_the_old_content_and_nothing_beside_it(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("old")
    with pytest.raises(TypeError), new_file(path) as file:
        file.writelines([b"half", None])  # type: ignore[list-item]
    assert (path.read_text(), list(tmp_path.iterdir())) == ("old", [path])


def test_of_several_files_none_is_new_when_one_cannot_be_written(tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "missing" / "second"
    first.write_text("old")
    with pytest.raises(FileNotFoundError):
        write_all_atomically({first: "new", second: "new"})
    assert (first.read_text(), list(tmp_path.iterdir())) == ("old", [first])


def test_what_a_kill_left_is_swept_by_the_next_write_into_the_folder_once_it_is_old(tmp_path: Path) -> None:
    old, young = leave(tmp_path, age=3601), leave(tmp_path, age=10)
    write_atomically(tmp_path / "other", "text")
    assert (old.exists(), young.exists()) == (False, True)


def test_a_layout_does_not_keep_what_kills_left_in_it(tmp_path: Path) -> None:
    layout = tmp_path / "layout"
    left = [leave(layout, age=4000), leave(layout / "blobs" / "sha256", age=4000)]
    write_layout(layout, oci_images.image(Blobs(tmp_path / "cache"), b"content"), "1")
    assert [path for path in left if path.exists()] == []

"""Folders as one file: what they hold, and what is refused."""

from __future__ import annotations

import io
import stat
import zipfile
from pathlib import Path

import pytest

from builder.errors import StoreError, UsageError
from builder.models.folders import MARK, files_below, is_packed, pack, unpack


def packed(folder: Path, target: Path) -> Path:
    with target.open("wb") as file:
        pack(folder, file)
    return target


def hostile(target: Path, entry: zipfile.ZipInfo | str, content: str = "x", *, twice: bool = False) -> Path:
    with zipfile.ZipFile(target, "w") as archive:
        archive.comment = MARK
        for _ in range(2 if twice else 1):
            archive.writestr(entry, content)
    return target


def link(name: str) -> zipfile.ZipInfo:
    entry = zipfile.ZipInfo(name)
    entry.create_system = 3
    entry.external_attr = (stat.S_IFLNK | 0o777) << 16
    return entry


@pytest.mark.parametrize(
    "entry", ["../outside", "a/../../outside", "/outside", "..", "a\\..\\outside", link("link")], ids=str
)
def test_an_entry_that_does_not_belong_below_the_folder_is_refused(
    tmp_path: Path, entry: zipfile.ZipInfo | str
) -> None:
    archive = hostile(tmp_path / "packed", entry, "../../outside")
    with pytest.raises(StoreError, match="no file below it") as caught:
        unpack(archive, tmp_path / "out")
    assert caught.value.place == str(archive)
    assert not (tmp_path / "outside").exists()
    assert not Path("/outside").exists()


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_an_entry_that_stands_twice_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="cannot be unpacked"):
        unpack(hostile(tmp_path / "packed", "a", twice=True), tmp_path / "out")


def test_a_packed_folder_that_is_cut_off_is_refused(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a").write_text("a" * 1000)
    archive = packed(tmp_path / "in", tmp_path / "packed")
    archive.write_bytes(archive.read_bytes()[:-40])
    with pytest.raises(StoreError, match="cannot be unpacked"):
        unpack(archive, tmp_path / "out")


def test_a_folder_that_is_in_the_way_stays(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    with pytest.raises(FileExistsError):
        unpack(packed(tmp_path / "in", tmp_path / "packed"), tmp_path / "in")


def test_only_what_was_packed_here_is_taken_for_a_folder(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    with packed(tmp_path / "in", tmp_path / "packed").open("rb") as file:
        assert is_packed(file)
    own = io.BytesIO()
    with zipfile.ZipFile(own, "w") as archive:
        archive.writestr("a", "a")
    assert not is_packed(own)
    assert not is_packed(io.BytesIO(b""))


@pytest.mark.parametrize("target", ["folder", "missing"])
def test_a_link_that_is_no_file_is_named(tmp_path: Path, target: str) -> None:
    (tmp_path / "in" / "sub").mkdir(parents=True)
    (tmp_path / "folder").mkdir()
    (tmp_path / "in" / "sub" / "link").symlink_to(tmp_path / target)
    with pytest.raises(UsageError, match="no file") as caught:
        files_below(tmp_path / "in")
    assert caught.value.place == str(tmp_path / "in" / "sub" / "link")


@pytest.mark.parametrize("name", ["missing", "file"])
def test_what_is_no_folder_is_named(tmp_path: Path, name: str) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="cannot be read") as caught:
        files_below(tmp_path / name)
    assert caught.value.place == str(tmp_path / name)


def test_a_compressed_entry_that_is_damaged_is_told(tmp_path: Path) -> None:
    archive = tmp_path / "packed"
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as made:
        made.writestr("a", b"a" * 10_000)
    content = bytearray(archive.read_bytes())
    content[33:36] = b"\xff\xff\xff"
    archive.write_bytes(content)
    with pytest.raises(StoreError, match="cannot be unpacked"):
        unpack(archive, tmp_path / "out")

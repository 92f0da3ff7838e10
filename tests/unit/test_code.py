"""Which files of a project go into the image."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from builder import code
from builder.code import check_script_is_carried, read_code
from builder.errors import SpecError


def write(folder: Path, *paths: str) -> None:
    for path in paths:
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(path, encoding="utf-8")


def carried(folder: Path, exclude: tuple[str, ...] = (), data: tuple[str, ...] = ()) -> list[str]:
    return [file.path for file in read_code(folder, exclude, data).files]


def test_files_are_sorted_with_fixed_modes(tmp_path: Path) -> None:
    write(tmp_path, "train.py", "pkg/b.py", "pkg/a.sh")
    (tmp_path / "pkg/a.sh").chmod(0o700)
    (tmp_path / "train.py").chmod(0o600)
    files = read_code(tmp_path).files
    assert [(file.path, oct(file.mode)) for file in files] == [
        ("pkg/a.sh", "0o755"),
        ("pkg/b.py", "0o644"),
        ("train.py", "0o644"),
    ]


@pytest.mark.parametrize(
    "path",
    [
        ".env",
        ".env.production",
        ".git/config",
        "certs/server.key",
        "certs/server.pem",
        "id_rsa",
        ".netrc",
        ".aws/credentials",
        "pkg/__pycache__/a.cpython-311.pyc",
        ".venv/bin/python",
        ".trainpack/last-build.json",
        "pylock.toml",
        "pylock.trainpack.toml",
    ],
)
def test_credentials_caches_and_locks_never_go_in_even_when_an_ignore_file_asks_for_them(
    tmp_path: Path, path: str
) -> None:
    write(tmp_path, "train.py", path)
    (tmp_path / ".dockerignore").write_text(f"!{path}\n!**\n", encoding="utf-8")
    assert carried(tmp_path) == [".dockerignore", "train.py"]


def test_a_virtual_environment_of_any_name_stays_out(tmp_path: Path) -> None:
    write(tmp_path, "train.py", "myenv/pyvenv.cfg", "myenv/lib/x.py")
    assert carried(tmp_path) == ["train.py"]


def test_gitignore_counts_in_its_own_folder_and_below(tmp_path: Path) -> None:
    write(
        tmp_path,
        "train.py",
        "runs/1.log",
        "pkg/runs/2.log",
        "pkg/keep.py",
        "other/keep.py",
        "other/x/keep.py",
    )
    (tmp_path / ".gitignore").write_text("runs/\n.gitignore\n", encoding="utf-8")
    (tmp_path / "other/.gitignore").write_text("/keep.py\n", encoding="utf-8")
    assert carried(tmp_path) == ["other/x/keep.py", "pkg/keep.py", "train.py"]


def test_dockerignore_patterns_are_relative_to_its_folder_and_can_take_back(tmp_path: Path) -> None:
    write(tmp_path, "train.py", "notes.md", "pkg/notes.md", "big/a.bin", "big/keep.bin")
    (tmp_path / ".dockerignore").write_text(
        "notes.md\nbig/*\n!big/keep.bin\n.dockerignore\n", encoding="utf-8"
    )
    assert carried(tmp_path) == ["big/keep.bin", "pkg/notes.md", "train.py"]


def test_excludes_and_data_paths_stay_out(tmp_path: Path) -> None:
    write(tmp_path, "train.py", "data/train/1.png", "data/readme.md", "notebooks/a.ipynb")
    assert carried(tmp_path, ("*.ipynb",), ("data/train",)) == ["data/readme.md", "train.py"]


def test_links_are_carried_as_files_only_inside_the_project(tmp_path: Path) -> None:
    project = tmp_path / "project"
    write(project, "train.py", "configs/base.yaml")
    write(tmp_path, "secret.txt")
    (project / "config.yaml").symlink_to("configs/base.yaml")
    (project / "outside.txt").symlink_to(tmp_path / "secret.txt")
    (project / "loop").symlink_to(project)
    tree = read_code(project)
    assert [file.path for file in tree.files] == ["config.yaml", "configs/base.yaml", "train.py"]
    assert sorted(tree.skipped) == ["loop", "outside.txt"]


def test_a_pipe_is_left_out_and_named(tmp_path: Path) -> None:
    write(tmp_path, "train.py")
    os.mkfifo(tmp_path / "pipe")
    assert read_code(tmp_path).skipped == {"pipe": "neither a file nor a folder"}


def test_a_name_that_is_not_utf8_is_refused_with_the_remedy(tmp_path: Path) -> None:
    write(tmp_path, "train.py")
    (Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.txt"))).write_text("x", encoding="utf-8")
    with pytest.raises(SpecError, match="not UTF-8"):
        read_code(tmp_path)


def test_an_ignored_script_is_an_error(tmp_path: Path) -> None:
    write(tmp_path, "train.py", "pkg/train.py")
    (tmp_path / ".gitignore").write_text("/train.py\n", encoding="utf-8")
    files = read_code(tmp_path).files
    with pytest.raises(SpecError, match="left out of the image"):
        check_script_is_carried(files, "train.py", None)
    check_script_is_carried(files, None, "pkg.train")


def test_a_link_that_leads_nowhere_or_in_circles_is_left_out_and_named(tmp_path: Path) -> None:
    write(tmp_path, "train.py")
    for name, target in {"loop": "loop", "nothing": "gone", "long": "x" * 300}.items():
        (tmp_path / name).symlink_to(target)
    assert carried(tmp_path) == ["train.py"]
    assert set(read_code(tmp_path).skipped) == {"loop", "nothing", "long"}


def test_a_link_does_not_carry_what_never_goes_in(tmp_path: Path) -> None:
    write(tmp_path, "train.py", ".env", ".git/config")
    (tmp_path / "settings").symlink_to(".env")
    (tmp_path / "pkg").mkdir()
    (tmp_path / "pkg/config").symlink_to("../.git/config")
    assert carried(tmp_path) == ["train.py"]
    assert set(read_code(tmp_path).skipped.values()) == {"a link to what never goes into an image"}


def test_what_is_left_out_may_have_a_name_that_is_not_utf8(tmp_path: Path) -> None:
    write(tmp_path, "train.py")
    os.mkfifo(os.fsencode(tmp_path) + b"/pipe\xe9")
    assert read_code(tmp_path).skipped == {"pipe\\xe9": "neither a file nor a folder"}


def test_a_file_that_is_gone_again_is_no_part_of_the_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path, "train.py", ".train.py.swp")
    listed = code._entries

    def saved_meanwhile(folder: Path) -> list[os.DirEntry[str]]:
        entries = listed(folder)
        (tmp_path / ".train.py.swp").unlink()
        return entries

    monkeypatch.setattr(code, "_entries", saved_meanwhile)
    assert carried(tmp_path) == ["train.py"]

"""Wheels into layers: what is in them, what is refused, and that nothing but the wheel decides the bytes."""

from __future__ import annotations

import gzip
import io
import random
import subprocess
import sys
import tarfile
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tiny_wheels import STORED, Part, deflated, locked, parts, with_part, write, zip_bytes

from builder.errors import BlobError, LayerError, TrainpackError, WheelError
from builder.host.tools import host_uv
from builder.oci import tar
from builder.oci.cache import Cache
from builder.oci.image import Layer
from builder.wheels.environment import Environment
from builder.wheels.layers import Group, Settings, wheel_layers

VENV = Environment("/opt/venv", "3.11")
SETTINGS = Settings(None, tar.EPOCH, {}, lambda _: None)
SITE = "opt/venv/lib/python3.11/site-packages"
FILES = {"demo/__init__.py": b"VALUE = 1\n" * 40, "demo/data.bin": bytes(range(256)) * 100}


def cache_of(folder: Path) -> Cache:
    return Cache(folder / "cache")


def layer_of(folder: Path, *wheels: Path, environment: Environment = VENV) -> Layer:
    (layer,) = wheel_layers([group_of(wheels, environment)], cache_of(folder), SETTINGS)
    return layer


def group_of(wheels: Sequence[Path], environment: Environment = VENV) -> Group:
    named = (locked(wheel, wheel.name.partition("-")[0]) for wheel in wheels)
    return Group("demo", tuple(named), environment)


def unpacked(layer: Layer) -> dict[str, tuple[tarfile.TarInfo, bytes]]:
    with layer.open() as file:
        content = gzip.decompress(file.read())
    with tarfile.open(fileobj=io.BytesIO(content)) as archive:
        members = archive.getmembers()
        return {
            each.name: (each, found.read() if (found := archive.extractfile(each)) else b"")
            for each in members
        }


def contents(layer: Layer) -> dict[str, bytes]:
    return {name: content for name, (info, content) in unpacked(layer).items() if info.isfile()}


def test_the_bytes_of_a_layer_are_the_same_everywhere(tmp_path: Path) -> None:
    wheel = write(tmp_path, parts(FILES, scripts="[console_scripts]\ndemo = demo:main\n"))
    layer = layer_of(tmp_path, wheel)
    assert layer.diff_id == "sha256:f9ed0656a7018440e8eb5a3bdb7d023cd7123f1d5e2d3d0e4c8dd902aa11f0db"
    assert layer.digest == "sha256:246792ffcfc74abf2119c4fed2ac354bfbb2d45be30c0eed8da38f016c246c0e"


def test_files_are_owned_by_root_readable_by_all_and_of_one_moment(tmp_path: Path) -> None:
    members = with_part(parts({**FILES, "demo/tool.sh": b"#!/bin/sh\n"}), "demo/tool.sh", mode=0o100700)
    found = unpacked(layer_of(tmp_path, write(tmp_path, with_part(members, "demo/data.bin", mode=0o100600))))
    modes = {name.removeprefix(f"{SITE}/demo/"): info.mode for name, (info, _) in found.items()}
    assert (modes["tool.sh"], modes["data.bin"], modes["__init__.py"]) == (0o755, 0o644, 0o644)
    assert {(info.uid, info.gid, info.uname, info.mtime) for info, _ in found.values()} == {
        (0, 0, "", tar.EPOCH)
    }
    folders = [name for name, (info, _) in found.items() if info.isdir()]
    files = [name for name, (info, _) in found.items() if info.isfile()]
    assert list(found) == [*sorted(folders), *sorted(files)]


def test_a_wheels_compressed_bytes_are_in_its_layer_as_they_are(tmp_path: Path) -> None:
    content = random.Random(0).randbytes(20_000)
    layer = layer_of(tmp_path, write(tmp_path, parts({"demo/noise": content})))
    with layer.open() as file:
        assert deflated(content) in file.read()
    assert contents(layer)[f"{SITE}/demo/noise"] == content


def test_small_files_of_a_wheel_are_compressed_beside_each_other(tmp_path: Path) -> None:
    content = random.Random(0).randbytes(10_000)
    layer = layer_of(
        tmp_path, write(tmp_path, parts({f"demo/noise{number}": content for number in range(8)}))
    )
    assert layer.size < 2 * len(content)
    assert contents(layer)[f"{SITE}/demo/noise7"] == content


def test_a_file_of_many_megabytes_goes_through_in_pieces(tmp_path: Path) -> None:
    content = bytes(5 << 20)
    packed = zlib.compress(content, 9, -15)
    members = with_part(parts({"demo/zeros": content}), "demo/zeros", packed=packed)
    assert contents(layer_of(tmp_path, write(tmp_path, members)))[f"{SITE}/demo/zeros"] == content


def test_stored_empty_and_zip64_members_and_names_that_differ_in_case_are_carried(tmp_path: Path) -> None:
    members = [
        *parts({"demo/A.py": b"a" * 999, "demo/a.py": b"b", "demo/empty": b""}),
        Part("demo/stored", b"s" * 999, STORED),
        Part("demo/large", b"z" * 999, is_zip64=True),
    ]
    found = contents(layer_of(tmp_path, write(tmp_path, members)))
    assert found[f"{SITE}/demo/A.py"] == b"a" * 999
    assert found[f"{SITE}/demo/a.py"] == b"b"
    assert found[f"{SITE}/demo/empty"] == b""
    assert found[f"{SITE}/demo/stored"] == b"s" * 999
    assert found[f"{SITE}/demo/large"] == b"z" * 999


DEMO = parts(FILES)
HOSTILE: dict[str, Any] = {
    "a climbing name": [*DEMO, Part("demo/../../../etc/passwd", b"x")],
    "an absolute name": [*DEMO, Part("/etc/passwd", b"x")],
    "a backslash": [*DEMO, Part("demo\\evil", b"x")],
    "a name that ends early": [*DEMO, Part("demo/x\0y", b"x")],
    "a symbolic link": [*DEMO, Part("demo/link", b"/etc/passwd", mode=0o120777)],
    "a device": [*DEMO, Part("demo/null", b"", mode=0o020666)],
    "the same name twice": [*DEMO, Part("demo/data.bin", b"other")],
    "a file below a file": [*DEMO, Part("demo/data.bin/x", b"x")],
    "an encrypted file": with_part(DEMO, "demo/data.bin", flags=0x801),
    "another compression": with_part(DEMO, "demo/data.bin", method=12),
    "a wrong checksum": with_part(DEMO, "demo/data.bin", crc=1),
    "fewer bytes than said": with_part(DEMO, "demo/data.bin", size=6000),
    "more bytes than said": with_part(DEMO, "demo/data.bin", size=100),
    "a size that nothing unpacks to": with_part(DEMO, "demo/data.bin", size=1 << 30),
    "bytes after the stream's end": with_part(
        DEMO, "demo/data.bin", packed=deflated(FILES["demo/data.bin"]) + b"x"
    ),
    "a stream without an end": with_part(DEMO, "demo/data.bin", packed=deflated(FILES["demo/data.bin"])[:-1]),
    "no deflate stream": with_part(DEMO, "demo/data.bin", packed=b"\xff" * 100),
    "two names": with_part(DEMO, "demo/data.bin", local_name="demo/DATA.bin"),
    "members that share bytes": with_part(DEMO, "demo/data.bin", start=0),
    "no record": [part for part in DEMO if not part.name.endswith("RECORD")],
    "a second metadata folder": [*DEMO, Part("other-1.0.dist-info/METADATA", b"")],
    "another distribution's metadata": parts(FILES, name="other"),
    "another version of the format": with_part(
        DEMO, "demo-1.0.dist-info/WHEEL", content=b"Wheel-Version: 2.0\n"
    ),
    "an unknown scheme": [*DEMO, Part("demo-1.0.data/nowhere/x", b"x")],
    "a script that climbs": parts(FILES, scripts="[console_scripts]\n../../../etc/x = demo:main\n"),
    "a script without a function": parts(FILES, scripts="[console_scripts]\nx = demo\n"),
}


@pytest.mark.parametrize("members", HOSTILE.values(), ids=HOSTILE.keys())
def test_a_hostile_wheel_is_refused_by_name_and_leaves_nothing(members: list[Part], tmp_path: Path) -> None:
    wheel = write(tmp_path, members)
    with pytest.raises(TrainpackError) as caught:
        layer_of(tmp_path, wheel)
    assert "demo" in str(caught.value)
    assert cache_of(tmp_path).recall(SETTINGS.key(group_of([wheel]))) is None
    assert not list((tmp_path / "cache/fresh").iterdir())


def test_bytes_before_a_wheels_first_file_are_refused(tmp_path: Path) -> None:
    with pytest.raises(WheelError, match="before its first file"):
        layer_of(tmp_path, write(tmp_path, DEMO, prefix=b"#!/bin/sh\n"))


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(changes=st.lists(st.tuples(st.integers(0, 20000), st.integers(0, 255)), min_size=1, max_size=4))
def test_a_damaged_wheel_is_refused_or_unpacks_to_what_its_directory_says(
    changes: list[tuple[int, int]], tmp_path: Path
) -> None:
    content = bytearray(zip_bytes(DEMO))
    for at, value in changes:
        content[at % len(content)] = value
    wheel = tmp_path / "demo-1.0-py3-none-any.whl"
    wheel.write_bytes(content)
    try:
        layer = layer_of(tmp_path, wheel)
    except TrainpackError:
        return
    for name in unpacked(layer):
        assert name.startswith("opt")
        assert ".." not in name.split("/")


SCHEMES = {
    **FILES,
    "demo/tool.sh": b"#!/bin/sh\n",
    "demo-1.0.data/scripts/a": b"#!python\nprint(1)\n",
    "demo-1.0.data/scripts/b": b"#!/bin/sh\n",
    "demo-1.0.data/scripts/c": b"#!pythonw -x\nprint(1)\n",
    "demo-1.0.data/scripts/program": b"\x7fELF" + bytes(400),
    "demo-1.0.data/headers/demo.h": b"//\n",
    "demo-1.0.data/data/share/demo/x.json": b"{}",
    "demo-1.0.data/platlib/demo_p.py": b"",
    "demo-1.0.data/purelib/demo_q.py": b"Q = 1\n",
}
SCRIPTS = "[console_scripts]\nd = demo:main\nd2 = demo.x:A.b [extra]\n[gui_scripts]\ng = demo:main\n"


def test_files_go_where_uv_puts_them(tmp_path: Path) -> None:
    wheel = write(tmp_path, with_part(parts(SCHEMES, scripts=SCRIPTS), "demo/tool.sh", mode=0o100755))
    prefix = tmp_path / "venv"
    uv = [str(host_uv()), "--no-config", "--offline", "--quiet"]
    subprocess.run([*uv, "venv", "--python", sys.executable, prefix], check=True)
    subprocess.run([*uv, "pip", "install", "--no-deps", "--python", prefix / "bin/python", wheel], check=True)
    python = f"{sys.version_info[0]}.{sys.version_info[1]}"
    layer = layer_of(tmp_path, wheel, environment=Environment(str(prefix), python))
    ours = {name: (info.mode, content) for name, (info, content) in unpacked(layer).items() if info.isfile()}
    theirs = {
        str(path).lstrip("/"): (path.stat().st_mode & 0o7777, path.read_bytes())
        for path in prefix.rglob("*")
        if path.is_file() and not path.is_symlink()
    }
    own: tuple[str, ...] = ("RECORD", "INSTALLER", "direct_url.json", "uv_cache.json", "pyvenv.cfg", ".bat")
    own += (".gitignore", ".lock", "CACHEDIR.TAG")
    wanted = {
        name: file for name, file in theirs.items() if not name.endswith(own) and "/bin/activate" not in name
    }
    assert {name: file for name, file in ours.items() if not name.endswith(own)} == wanted


def test_the_record_lists_every_file_where_it_is(tmp_path: Path) -> None:
    found = contents(layer_of(tmp_path, write(tmp_path, parts(SCHEMES, scripts=SCRIPTS))))
    record = found[f"{SITE}/demo-1.0.dist-info/RECORD"].decode().splitlines()
    paths = {str(Path("/", SITE, line.split(",")[0]).resolve().relative_to("/")) for line in record}
    assert paths == set(found)
    assert [line for line in record if line.startswith("../../../bin/a,")] == [
        "../../../bin/a,sha256=qnLk2Db4y5EWyEuOvsYXbL0BJtk-rw7i9qoOJ0mULl8,32"
    ]


def test_of_two_wheels_with_the_same_file_the_later_ones_is_there_once(tmp_path: Path) -> None:
    first = write(tmp_path, parts({"shared/x.py": b"first", "shared/y.py": b"y"}, name="first"), "first")
    second = write(tmp_path, parts({"shared/x.py": b"second"}, name="second"), "second")
    layer = layer_of(tmp_path, first, second)
    found = contents(layer)
    assert (found[f"{SITE}/shared/x.py"], found[f"{SITE}/shared/y.py"]) == (b"second", b"y")
    with layer.open() as file, tarfile.open(fileobj=file, mode="r:gz") as archive:
        names = archive.getnames()
    assert len(names) == len(set(names))


def test_a_file_of_one_wheel_where_another_has_a_folder_is_refused(tmp_path: Path) -> None:
    first = write(tmp_path, parts({"shared": b"a file"}, name="first"), "first")
    second = write(tmp_path, parts({"shared/x.py": b"x"}, name="second"), "second")
    with pytest.raises(LayerError, match=f"{SITE}/shared"):
        layer_of(tmp_path, first, second)


def test_a_wheel_that_was_damaged_since_it_was_packed_is_found_and_brought_again(tmp_path: Path) -> None:
    wheel = write(tmp_path, parts(FILES))
    layer = layer_of(tmp_path, wheel)
    blobs = cache_of(tmp_path).blobs
    blobs.path(layer.digest).unlink()
    damaged = blobs.path(f"sha256:{locked(wheel).sha256}")
    content = bytearray(damaged.read_bytes())
    content[content.index(deflated(FILES["demo/data.bin"])) + 9] ^= 1
    damaged.chmod(0o644)
    damaged.write_bytes(content)
    with pytest.raises(BlobError, match=r"demo-1\.0-py3-none-any\.whl is corrupt in the cache"):
        layer_of(tmp_path, wheel)
    assert layer_of(tmp_path, wheel) == layer

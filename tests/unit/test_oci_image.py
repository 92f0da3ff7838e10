"""Images, layers and the tar streams in them: values, known to the byte."""

from __future__ import annotations

import contextlib
import gzip
import io
import json
import os
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

import oci_images
import pytest
from hypothesis import given
from hypothesis import strategies as st

from builder.errors import BlobError, ImageFormatError, LayerError, UsageError
from builder.oci import manifest, tar
from builder.oci.archive import read_archive, write_archive
from builder.oci.blobs import Blobs
from builder.oci.image import Addendum, Changes, Index, append, empty, open_image, with_layers
from builder.oci.layer import compress, write_layer
from builder.oci.layout import read_layout, write_layout
from builder.oci.manifest import digest_of
from builder.reference import parse_reference

ENTRIES = [
    tar.file("opt/app/train.py", b"print('hello')\n" * 100, 0o755),
    tar.file("opt/app/ä/ü.txt", b"\0" * 2000),
    tar.file(f"opt/{'long/' * 60}name", b"deep"),
    tar.folder("workspace", 0o1777),
    tar.link("opt/venv/bin/python", "/usr/bin/python3"),
    tar.hardlink("opt/app/again.py", "opt/app/train.py"),
]
# Changes only together with FORMAT in builder/oci/layer.py.
GOLDEN = (
    "sha256:0c1797fe9db697c4f693aa6fd7975a60886d4111c30a4663a7059d44fb177e54",
    "sha256:a8ef6467198a7e085bf3596321e148a42c625b09f3b18ba1056c41ce4566cdd1",
)


@pytest.fixture
def blobs(tmp_path: Path) -> Blobs:
    return Blobs(tmp_path / "blobs")


def members(blobs: Blobs, entries: list[tar.Entry]) -> dict[str, tarfile.TarInfo]:
    with write_layer(entries, blobs).open() as file, tarfile.open(fileobj=file, mode="r:gz") as archive:
        return {info.name: info for info in archive}


def test_a_layer_knows_the_digests_of_its_compressed_and_its_plain_bytes(blobs: Blobs) -> None:
    layer = write_layer(ENTRIES, blobs)
    with layer.open() as file:
        content = file.read()
    assert (digest_of(content), len(content)) == (layer.digest, layer.size)
    plain = gzip.decompress(content)
    assert (digest_of(plain), len(plain)) == (layer.diff_id, layer.unpacked)


def test_the_same_entries_are_the_same_bytes_as_ever(blobs: Blobs) -> None:
    layer = write_layer(ENTRIES, blobs)
    assert (layer.digest, layer.diff_id) == GOLDEN


def test_the_order_of_the_entries_does_not_matter(blobs: Blobs) -> None:
    assert write_layer(ENTRIES[::-1], blobs).digest == GOLDEN[0]


@pytest.mark.parametrize("umask", [0o000, 0o077])
@pytest.mark.parametrize("seed", ["0", "1"])
def test_folder_umask_hash_seed_and_user_do_not_matter(tmp_path: Path, umask: int, seed: str) -> None:
    program = f"""
import os, sys
from pathlib import Path
from builder.oci import tar
from builder.oci.blobs import Blobs
from builder.oci.layer import write_layer
os.umask({umask})
if os.getuid() == 0 and {umask}:
    os.setgid(1234)
    os.setuid(1234)
here = Path(sys.argv[1]); here.mkdir(); (here / "a").write_bytes(b"content")
entries = [tar.file("b/c", here / "a"), tar.file("a", b"x"), tar.link("l", "b/c")]
print(write_layer(entries, Blobs(here)).digest)
"""
    # Not tmp_path, which other users cannot enter.
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o777)
        command = [sys.executable, "-c", program, f"{folder}/{umask}-{seed}"]
        environment = os.environ | {"PYTHONHASHSEED": seed, "PYTHONPATH": str(Path.cwd())}
        printed = subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout
    expected = write_layer(
        [tar.file("a", b"x"), tar.file("b/c", b"content"), tar.link("l", "b/c")], Blobs(tmp_path / "here")
    )
    assert printed.strip() == expected.digest


def test_members_are_sorted_owned_by_root_and_of_one_moment_with_parents_once(blobs: Blobs) -> None:
    found = members(blobs, ENTRIES)
    names = [name for name, info in found.items() if not info.islnk()]
    assert names == sorted(names)
    assert {(info.uid, info.gid, info.uname, info.gname, info.mtime) for info in found.values()} == {
        (0, 0, "", "", tar.EPOCH)
    }
    assert (found["opt"].mode, found["workspace"].mode) == (0o755, 0o1777)
    assert found["opt/app/train.py"].mode == 0o755


def test_links_are_what_they_were_and_hard_links_come_after_their_files(blobs: Blobs) -> None:
    found = members(blobs, ENTRIES)
    assert found["opt/venv/bin/python"].linkname == "/usr/bin/python3"
    assert list(found)[-1] == "opt/app/again.py"
    assert found["opt/app/again.py"].linkname == "opt/app/train.py"


def test_extended_headers_are_written_only_where_a_name_needs_one() -> None:
    assert len(tar.header(tar.file("short", b""))) == 512
    assert len(tar.header(tar.file("ü", b""))) > 512
    assert len(tar.header(tar.file("x" * 101, b""))) > 512


@given(
    st.sampled_from(["file", "folder", "link"]),
    st.text("ab/.-_", min_size=1, max_size=104) | st.text("a", min_size=98, max_size=102),
)
def test_plain_headers_are_those_that_python_writes(kind: tar.Kind, name: str) -> None:
    entry = tar.Entry(name.strip("/") or "a", kind, 0o755, size=77, target=name if kind == "link" else "")
    assert tar.header(entry) == tar._pax_header(entry, tar.EPOCH)


def test_the_epoch_is_source_date_epoch_where_it_is_set(blobs: Blobs) -> None:
    assert tar.source_epoch({}) == tar.EPOCH
    assert tar.source_epoch({"SOURCE_DATE_EPOCH": "1700000000"}) == 1_700_000_000
    for text in ("-1", "soon", "", "٣", "9" * 20):
        with pytest.raises(LayerError, match="seconds since 1970"):
            tar.source_epoch({"SOURCE_DATE_EPOCH": text})
    layer = write_layer([tar.file("a", b"")], blobs, 1_700_000_000)
    assert layer.digest != write_layer([tar.file("a", b"")], blobs).digest


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        (tar.file("/etc/passwd", b""), "below the image's root"),
        (tar.file("../etc/passwd", b""), "below the image's root"),
        (tar.file("a/../../b", b""), "below the image's root"),
        (tar.file("a//b", b""), "below the image's root"),
        (tar.file("a/", b""), "below the image's root"),
        (tar.file("./a", b""), "below the image's root"),
        (tar.file("", b""), "no name of a file"),
        (tar.file("a\0b", b""), "no name of a file"),
        (tar.file("caf\udce9", b""), "not UTF-8"),
        (tar.file("a", b"", 0o100644), "the mode"),
        (tar.link("a/b", "../../etc"), "above the image's root"),
        (tar.link("a", "caf\udce9"), "not UTF-8"),
        (tar.hardlink("a", "/etc/passwd"), "below the image's root"),
        (tar.hardlink("a", "b"), "no file of this layer"),
    ],
)
def test_an_entry_that_leads_outside_or_cannot_be_named_is_refused(
    blobs: Blobs, entry: tar.Entry, message: str
) -> None:
    with pytest.raises(LayerError, match=message):
        write_layer([entry], blobs)
    assert blobs.paths() == []


def test_two_entries_of_one_path_and_a_file_below_a_file_are_refused(blobs: Blobs) -> None:
    with pytest.raises(LayerError, match="twice"):
        write_layer([tar.file("a", b"1"), tar.file("a", b"2")], blobs)
    with pytest.raises(LayerError, match="below a file"):
        write_layer([tar.file("a", b"1"), tar.file("a/b", b"2")], blobs)
    with pytest.raises(LayerError, match="below a link"):
        write_layer([tar.link("a", "/etc"), tar.file("a/passwd", b"2")], blobs)


def test_what_is_no_regular_file_or_cannot_be_read_is_refused(blobs: Blobs, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for source in (tmp_path / "pipe", Path("/dev/null"), tmp_path):
        with pytest.raises(LayerError, match="not a regular file"):
            tar.file("a", source)
        with pytest.raises(LayerError, match=r"not a regular file|cannot be read"):
            write_layer([tar.file("a", source, size=0)], blobs)
    with pytest.raises(LayerError, match="cannot be read: No such file"):
        tar.file("a", tmp_path / "none")


@pytest.mark.parametrize("change", [b"", b"short", b"longer than it was", b"same sizE"])
def test_a_file_that_changes_after_it_was_looked_at_is_refused_and_nothing_is_kept(
    blobs: Blobs, tmp_path: Path, change: bytes
) -> None:
    source = tmp_path / "source"
    source.write_bytes(b"same size")
    entry = tar.file("a", source, sha256=digest_of(b"same size").removeprefix("sha256:"))
    source.write_bytes(change)
    with pytest.raises(LayerError, match="changed while it was read") as caught:
        write_layer([entry], blobs)
    assert caught.value.place == str(source)
    assert (blobs.paths(), list((blobs.folder / "fresh").iterdir())) == ([], [])


def test_a_file_that_grows_while_it_is_read_is_refused(blobs: Blobs, tmp_path: Path) -> None:
    source = tmp_path / "log"
    source.write_bytes(bytes(tar.CHUNK + 1))
    pieces = tar.stream([tar.file("log", source)])
    assert len(next(pieces) + next(pieces)) == 512 + tar.CHUNK
    with source.open("ab") as file:
        file.write(b"more")
    with pytest.raises(LayerError, match="changed while it was read"):
        list(pieces)


names = st.text(
    st.characters(blacklist_categories=["Cs"], blacklist_characters="/\0"), min_size=1, max_size=120
).filter(lambda name: name not in (".", ".."))
paths = st.lists(names, min_size=1, max_size=6).map("/".join)


@given(st.dictionaries(paths, st.binary(max_size=2000), max_size=8))
def test_what_python_and_we_read_from_a_layer_is_what_was_put_into_it(files: dict[str, bytes]) -> None:
    entries = [tar.file(path, content) for path, content in files.items()]
    if any(path.startswith(f"{other}/") for path in files for other in files):
        with pytest.raises(LayerError, match="below a file"):
            tar.arrange(entries)
        return
    arranged = tar.arrange(entries)
    stream = io.BytesIO(b"".join(tar.stream(arranged)))
    with tarfile.open(fileobj=stream, mode="r:") as archive:
        found = {info.name: archive.extractfile(info) for info in archive if info.isfile()}
        assert {name: file.read() for name, file in found.items() if file} == files


@given(st.text(max_size=40), st.text(max_size=40))
def test_whatever_the_names_are_a_layer_holds_no_path_that_leads_outside(path: str, target: str) -> None:
    try:
        arranged = tar.arrange([tar.file(path, b""), tar.link("links/here", target)])
    except LayerError:
        return
    for entry in arranged:
        assert not entry.path.startswith("/")
        assert ".." not in entry.path.split("/")


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=12), inner, max_size=4),
    max_leaves=20,
)
parts = st.fixed_dictionaries(
    {},
    optional={
        "mediaType": st.sampled_from([*manifest.MANIFEST_TYPES, *manifest.INDEX_TYPES]) | json_values,
        "config": json_values,
        "layers": json_values,
        "manifests": json_values,
        "annotations": json_values,
        "subject": json_values,
        "digest": st.just(f"sha256:{'0' * 64}") | json_values,
        "size": json_values,
    },
)
documents = st.fixed_dictionaries(
    {}, optional={"config": parts, "layers": st.lists(parts, max_size=3), "manifests": st.lists(parts)}
).flatmap(lambda inner: parts.map(lambda outer: outer | inner))


@given(
    st.binary(max_size=100)
    | json_values.map(json.dumps).map(str.encode)
    | documents.map(json.dumps).map(str.encode)
)
def test_a_manifest_is_read_or_refused_whatever_it_holds(content: bytes) -> None:
    for read in (manifest.parse_manifest, manifest.parse_index, manifest.parse_object):
        try:
            found = read(content, "here")
        except ImageFormatError:
            continue
        if isinstance(found, manifest.Manifest):
            assert manifest.parse_manifest(found.to_bytes(), "here") == found


settings = st.fixed_dictionaries({}, optional={"Env": json_values, "Labels": json_values, "Cmd": json_values})
configs: st.SearchStrategy[dict[str, object]] = st.fixed_dictionaries(
    {"rootfs": st.just({"diff_ids": []}) | json_values},
    optional={"os": st.just("linux"), "config": settings | json_values, "history": json_values},
)


@given(configs)
def test_an_image_of_any_config_is_built_upon_or_refused(config: dict[str, object]) -> None:
    content = json.dumps({"os": "linux", "architecture": "amd64"} | config).encode()
    described = manifest.Descriptor(manifest.OCI_CONFIG, digest_of(content), len(content))
    top = manifest.Manifest(manifest.OCI_MANIFEST, described, ()).to_bytes()
    documents = {digest_of(each): each for each in (content, top)}
    try:
        image = open_image(
            manifest.Descriptor(manifest.OCI_MANIFEST, digest_of(top), len(top)),
            lambda blob: contextlib.nullcontext(io.BytesIO(documents[blob.digest])),
            "linux/amd64",
            "here",
        )
    except ImageFormatError:
        return
    made = append(image, [], Changes(env={"A": "b"}, labels={"c": "d"}, entrypoint=["/x"]), tar.EPOCH)
    assert made.labels.items() >= {("c", "d")}


@given(st.text(max_size=80) | st.from_regex(r"[a-z./:@0-9-]{1,60}"))
def test_a_reference_is_read_or_refused_whatever_it_holds(text: str) -> None:
    try:
        found = parse_reference(text)
    except UsageError:
        return
    assert parse_reference(str(found)) == found
    assert ".." not in found.path.split("/")


def test_json_is_written_in_one_way_only() -> None:
    assert manifest.canonical_json({"b": "ü", "a": [1, None]}) == '{"a":[1,null],"b":"ü"}'.encode()


def test_an_image_is_appended_to_and_the_old_one_is_as_it_was(blobs: Blobs) -> None:
    base = oci_images.image(blobs, b"base", env={"PATH": "/bin", "A": "1"}, labels={"x": "1"}, cmd=["sh"])
    before = (base.digest, base.id)
    layer = write_layer([tar.file("code", b"")], blobs)
    changes = Changes(
        env={"A": "2", "Z": "3", "B": "4"},
        labels={"y": "2"},
        user="1000",
        workdir="/opt/app",
        entrypoint=["/entry"],
    )
    image = append(base, [Addendum(layer, "the code")], changes, tar.EPOCH)
    assert (base.digest, base.id) == before
    assert image.layers == (*base.layers, layer)
    config = image.document["config"]
    assert config["Env"] == ["A=2", "PATH=/bin", "B=4", "Z=3"]
    assert image.labels == {"x": "1", "y": "2"}
    assert (config["User"], config["WorkingDir"], config["Entrypoint"]) == ("1000", "/opt/app", ["/entry"])
    assert "Cmd" not in config
    assert image.document["rootfs"]["diff_ids"] == [each.diff_id for each in image.layers]
    assert [entry["created_by"] for entry in image.document["history"]] == ["test", "the code"]
    assert image.document["created"] == "1980-01-01T00:00:00Z"


def test_the_same_image_made_twice_has_one_digest(blobs: Blobs, tmp_path: Path) -> None:
    first = oci_images.image(blobs, b"one", env={"A": "1", "B": "2"})
    second = oci_images.image(Blobs(tmp_path / "other"), b"one", env={"B": "2", "A": "1"})
    assert (first.digest, first.manifest) == (second.digest, second.manifest)


def test_a_base_without_history_gets_a_line_for_each_layer(blobs: Blobs) -> None:
    base = oci_images.image(blobs, b"one", b"two")
    silent = with_layers(
        manifest.canonical_json({k: v for k, v in base.document.items() if k != "history"}), base.layers
    )
    image = append(silent, [], Changes(), tar.EPOCH)
    assert len(image.document["history"]) == 2


def test_layers_of_a_docker_manifest_get_the_names_of_oci(blobs: Blobs) -> None:
    plain = oci_images.image(blobs, b"one")
    docker = [
        layer.__class__(
            layer.digest,
            layer.diff_id,
            layer.size,
            None,
            "application/vnd.docker.image.rootfs.diff.tar.gzip",
            layer.open,
        )
        for layer in plain.layers
    ]
    assert with_layers(plain.config, docker).digest == plain.digest


def test_a_layout_gives_back_the_image_and_keeps_the_others(blobs: Blobs, tmp_path: Path) -> None:
    first, second = oci_images.image(blobs, b"1"), oci_images.image(blobs, b"2")
    folder = tmp_path / "layout"
    write_layout(folder, first, "a")
    write_layout(folder, second, "b")
    write_layout(folder, second, "b")
    assert read_layout(folder, "linux/amd64", "a") == first
    assert read_layout(folder, "linux/amd64", "b") == second
    write_layout(folder, second, "a")
    assert read_layout(folder, "linux/amd64", "a") == second
    assert len(json.loads((folder / "index.json").read_bytes())["manifests"]) == 2
    with pytest.raises(ImageFormatError, match="no image c, only b, a"):
        read_layout(folder, "linux/amd64", "c")
    with pytest.raises(ImageFormatError, match=r"no index\.json"):
        read_layout(tmp_path, "linux/amd64")


def test_an_index_gives_each_platform_its_image(blobs: Blobs, tmp_path: Path) -> None:
    amd = oci_images.image(blobs, b"1")
    arm = append(empty("linux/arm64"), [Addendum(amd.layers[0], "x")], Changes(), tar.EPOCH)
    write_layout(tmp_path / "layout", Index((amd, arm)), "1")
    write_archive(tmp_path / "archive", Index((amd, arm)))
    for read in (
        read_layout(tmp_path / "layout", "linux/arm64"),
        read_archive(tmp_path / "archive", "linux/arm64"),
    ):
        assert read == arm
    with pytest.raises(ImageFormatError, match="not for linux/s390x, only for linux/amd64, linux/arm64"):
        read_layout(tmp_path / "layout", "linux/s390x")


def test_a_corrupt_layer_of_a_layout_is_an_error_where_its_end_would_be(blobs: Blobs, tmp_path: Path) -> None:
    image = oci_images.image(blobs, oci_images.noise(3000))
    write_layout(tmp_path / "layout", image)
    path = tmp_path / "layout" / "blobs" / "sha256" / image.layers[0].digest.removeprefix("sha256:")
    content = bytearray(path.read_bytes())
    content[1000] ^= 1
    path.write_bytes(content)
    layer = read_layout(tmp_path / "layout", "linux/amd64").layers[0]
    with layer.open() as file, pytest.raises(BlobError, match="corrupt"):
        file.read()
    path.unlink()
    with (
        pytest.raises(BlobError, match="missing"),
        read_layout(tmp_path / "layout", "linux/amd64").layers[0].open(),
    ):
        pass


def test_an_archive_gives_back_the_image(blobs: Blobs, tmp_path: Path) -> None:
    image = oci_images.image(blobs, b"1", oci_images.noise(5000))
    write_archive(tmp_path / "image.tar", image, parse_reference("a/b:1"))
    found = read_archive(tmp_path / "image.tar", "linux/amd64", "1")
    assert found == image
    for ours, theirs in zip(found.layers, image.layers, strict=True):
        with ours.open() as one, theirs.open() as other:
            assert one.read() == other.read()


def docker_archive(path: Path, config: bytes, layers: dict[str, bytes], links: dict[str, str]) -> None:
    listed = json.dumps([{"Config": "config.json", "RepoTags": ["a:1"], "Layers": [*layers, *links]}])
    with tarfile.open(path, "w") as archive:
        for name, content in {**layers, "config.json": config, "manifest.json": listed.encode()}.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
        for name, target in links.items():
            info = tarfile.TarInfo(name)
            info.type, info.linkname = tarfile.SYMTYPE, target
            archive.addfile(info)


def test_an_archive_of_docker_save_gives_layers_that_compress_to_ours(blobs: Blobs, tmp_path: Path) -> None:
    image = oci_images.image(blobs, b"same", b"other")
    one, two = (
        b"".join(tar.stream(tar.arrange([tar.file(f"data/{i}", c)])))
        for i, c in ((0, b"same"), (1, b"other"))
    )
    docker_archive(tmp_path / "saved.tar", image.config, {"1/layer.tar": one, "2/layer.tar": two}, {})
    saved = read_archive(tmp_path / "saved.tar", "linux/amd64", "a:1")
    assert saved.id == image.id
    assert [layer.digest for layer in saved.layers] == [layer.diff_id for layer in image.layers]
    compressed = with_layers(saved.config, [compress(layer, Blobs(tmp_path / "b")) for layer in saved.layers])
    assert compressed.digest == image.digest


def test_a_layer_that_docker_saved_as_a_link_is_followed_inside_the_archive_only(
    blobs: Blobs, tmp_path: Path
) -> None:
    layer = oci_images.layers(blobs, b"same")[0]
    twice = append(empty("linux/amd64"), [Addendum(layer, "x")] * 2, Changes(), tar.EPOCH)
    content = b"".join(tar.stream(tar.arrange([tar.file("data/0", b"same")])))
    docker_archive(
        tmp_path / "ok.tar", twice.config, {"1/layer.tar": content}, {"2/layer.tar": "../1/layer.tar"}
    )
    assert len(read_archive(tmp_path / "ok.tar", "linux/amd64").layers) == 2
    docker_archive(
        tmp_path / "evil.tar", twice.config, {"1/layer.tar": content}, {"2/layer.tar": "/etc/passwd"}
    )
    with pytest.raises(BlobError, match="missing"):
        read_archive(tmp_path / "evil.tar", "linux/amd64")


@pytest.mark.parametrize("content", [b"", b"not a tar" * 200, bytes(10240)])
def test_what_is_no_archive_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x.tar").write_bytes(content)
    with pytest.raises(ImageFormatError):
        read_archive(tmp_path / "x.tar", "linux/amd64")


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    folder = tmp_path_factory.mktemp("archive")
    image = oci_images.image(Blobs(folder), b"content", b"more")
    write_archive(folder / "image.tar", image, parse_reference("a/b:1"))
    return (folder / "image.tar").read_bytes()


damages = st.lists(st.tuples(st.floats(0, 1), st.binary(min_size=1, max_size=24)), min_size=1, max_size=4)


@given(damages, st.floats(0, 1))
def test_a_damaged_archive_is_read_or_refused_whatever_the_damage(
    whole: bytes, tmp_path_factory: pytest.TempPathFactory, damage: list[tuple[float, bytes]], cut: float
) -> None:
    content = bytearray(whole)
    for where, what in damage:
        at = int(where * (len(content) - len(what)))
        content[at : at + len(what)] = what
    if cut < 0.3:
        del content[int(cut * 3 * len(content)) :]
    path = tmp_path_factory.getbasetemp() / "damaged.tar"
    path.write_bytes(content)
    try:
        for layer in read_archive(path, "linux/amd64").layers:
            with layer.open() as file:
                file.read()
    except (ImageFormatError, BlobError):
        pass

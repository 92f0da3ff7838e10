"""What a saved image is read as, whatever engine saved it, and what is found in its layers."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import tarfile
import tracemalloc
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import chain

import pytest
from plans import SPEC, plan

from builder.builders.dockerfile import render_dockerfile
from builder.checks.contract import places
from builder.checks.layers import read_image, step_title
from builder.checks.leftovers import Found, found_in, is_secret_setting, may_hold_secret, secret_settings
from builder.errors import ContractError

KEY = b"-----BEGIN OPENSSH PRIVATE KEY-----"
TOKEN = b"token = 'ghp_" + b"a" * 36 + b"'"


def entry(path: str, mode: int = 0o644, size: int = 1) -> tarfile.TarInfo:
    info = tarfile.TarInfo(path.lstrip("/"))
    info.mode, info.size = mode, size
    return info


def pieces(content: bytes, size: int = 512) -> Iterator[bytes]:
    """As it comes from an engine, with borders wherever a member may begin."""
    return (content[start : start + size] for start in range(0, len(content), size))


def tar(files: Mapping[str, bytes | tarfile.TarInfo]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, content in files.items():
            info = content if isinstance(content, tarfile.TarInfo) else entry(name, size=len(content))
            info.name = name
            archive.addfile(info, io.BytesIO(content) if isinstance(content, bytes) else None)
    return buffer.getvalue()


def config(layers: Sequence[bytes]) -> bytes:
    digests = [f"sha256:{hashlib.sha256(layer).hexdigest()}" for layer in layers]
    history: list[dict[str, object]] = [{"created_by": f"RUN step {number}"} for number in range(len(layers))]
    history.insert(1, {"created_by": "ENV A=b", "empty_layer": True})
    return json.dumps({"rootfs": {"diff_ids": digests}, "history": history, "config": {}}).encode()


def archive_of_folders(layers: Sequence[bytes]) -> bytes:
    """As engines before 25 save: a folder for each layer, in the order of random names, equal ones linked."""
    names = [f"{'cab'[number]}{number}/layer.tar" for number in range(len(layers))]
    manifest = json.dumps([{"Config": "f00.json", "Layers": names}]).encode()
    files: dict[str, bytes | tarfile.TarInfo] = {}
    for name, layer in sorted(zip(names, layers, strict=True)):
        folder = name.partition("/")[0]
        files |= {f"{folder}/VERSION": b"1.0", f"{folder}/json": b"{}"}
        same = [first for first, content in files.items() if content == layer]
        link = tarfile.TarInfo()
        link.type, link.linkname = tarfile.SYMTYPE, f"../{same[0]}" if same else ""
        files[name] = link if same else layer
    return tar({**files, "f00.json": config(layers), "manifest.json": manifest, "repositories": b"{}"})


def layout(layers: Sequence[bytes], *, packed: bool) -> bytes:
    """As engines from 25 on save, with a containerd store compressed: blobs by digest."""
    blobs = {}
    names = []
    for layer in layers:
        blob = gzip.compress(layer) if packed else layer
        names.append(f"blobs/sha256/{hashlib.sha256(blob).hexdigest()}")
        blobs[names[-1]] = blob
    described = config(layers)
    name = f"blobs/sha256/{hashlib.sha256(described).hexdigest()}"
    manifest = json.dumps([{"Config": name, "Layers": names}]).encode()
    blobs |= {name: described, "blobs/sha256/0a": b'{"schemaVersion": 2}'}
    return tar({**blobs, "index.json": b"{}", "manifest.json": manifest, "oci-layout": b"{}"})


LAYERS = (
    tar({"opt/app/train.py": b"print()", "./opt/app/.env": b"TOKEN=1"}),
    tar({"opt/app/.wh..env": b"", "opt/app/model.py": b"12345"}),
    tar({"opt/app/.wh..env": b"", "opt/app/model.py": b"12345"}),
)


@pytest.mark.parametrize(
    "saved",
    [archive_of_folders(LAYERS), layout(LAYERS, packed=False), layout(LAYERS, packed=True)],
    ids=["folders", "layout", "compressed layout"],
)
@pytest.mark.parametrize("size", [1, 512, 1000, 1 << 20])
def test_layers_are_read_in_their_order_from_whatever_an_engine_saves(saved: bytes, size: int) -> None:
    image = read_image(pieces(saved, size))
    assert [layer.size for layer in image.layers] == [14, 5, 5]
    assert [layer.made_by for layer in image.layers] == ["RUN step 0", "RUN step 1", "RUN step 2"]
    assert [layer.digest for layer in image.layers] == json.loads(config(LAYERS))["rootfs"]["diff_ids"]
    assert list(places(image.layers, "secrets")) == ["/opt/app/.env in layer 1, removed later"]


@pytest.mark.parametrize("path", ["a/.wh.b", "a/b/.wh..wh..opq", ".wh.a"])
def test_what_is_below_a_removed_folder_is_removed(path: str) -> None:
    layers = read_image(pieces(archive_of_folders([tar({"a/b/.env": b"x"}), tar({path: b""})]))).layers
    assert list(places(layers, "secrets")) == ["/a/b/.env in layer 1, removed later"]


def test_what_a_later_layer_leaves_alone_is_not_said_to_be_removed() -> None:
    other = tar({"a/.wh.c": b"", "a/b.wh.c": b""})
    layers = read_image(pieces(archive_of_folders([tar({"a/b/.env": b"x"}), other]))).layers
    assert list(places(layers, "secrets")) == ["/a/b/.env in layer 1"]


@pytest.mark.parametrize(
    "saved",
    [
        b"",
        b"no tar at all" * 100,
        tar({"manifest.json": b"[]"}),
        tar({"manifest.json": b"[{"}),
        archive_of_folders(LAYERS)[:2000],
        archive_of_folders([b"no tar" * 200]),
        layout([b"\x28\xb5\x2f\xfd" + bytes(1000)], packed=False),
    ],
)
def test_what_is_no_image_is_told_and_never_passes(saved: bytes) -> None:
    with pytest.raises(ContractError, match="cannot be read from the engine"):
        read_image(pieces(saved))


ENDING = tar({"c.json": config([b""]), "manifest.json": b'[{"Config": "c.json", "Layers": ["a.tar"]}]'})


def saved_with_a_layer(size: int, content: Iterable[bytes]) -> Iterator[bytes]:
    yield entry("a.tar", size=size + 2 * tarfile.BLOCKSIZE).tobuf()
    yield from content
    yield bytes(2 * tarfile.BLOCKSIZE) + ENDING


def one_large_file() -> Iterator[bytes]:
    header = entry("opt/venv/lib/big.so", size=1 << 30).tobuf()
    content = (bytes(1 << 20) for _ in range(1 << 10))
    return saved_with_a_layer(len(header) + (1 << 30), chain([header], content))


def many_small_files() -> Iterator[bytes]:
    headers = (entry(f"opt/venv/lib/{number}.py", size=0).tobuf() for number in range(15_000))
    return saved_with_a_layer(15_000 * tarfile.BLOCKSIZE, headers)


@pytest.mark.parametrize(
    ("saved", "size", "files"), [(one_large_file, 1 << 30, 1), (many_small_files, 0, 15_000)]
)
def test_memory_stays_flat(saved: Callable[[], Iterator[bytes]], size: int, files: int) -> None:
    tracemalloc.start()
    try:
        (layer,) = read_image(saved()).layers
        assert (layer.size, layer.files) == (size, files)
        assert tracemalloc.get_traced_memory()[1] < 10_000_000
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/opt/app/.env", "secrets"),
        ("/opt/app/.env.production", "secrets"),
        ("/home/u/.aws/credentials", "secrets"),
        ("/root/.ssh/config", "secrets"),
        ("/opt/app/sub/.git", "version control"),
        ("/var/cache/uv/archive", "caches"),
        ("/var/cache/apt/pkgcache.bin", "caches"),
        ("/usr/bin/cc", "build tools"),
        ("/usr/bin/g++-12", "build tools"),
        ("/usr/local/bin/pip3.11", "build tools"),
        ("/usr/lib/gcc/x86_64-linux-gnu/12/cc1plus", "build tools"),
    ],
)
def test_what_must_not_be_in_an_image_is_found(path: str, kind: str) -> None:
    assert list(found_in(path, entry(path))) == [Found(kind, path)]


@pytest.mark.parametrize(
    "path",
    [
        "/opt/app/.env.example",
        "/opt/app/train.py",
        "/opt/app/environment.yml",
        "/opt/venv/bin/pip",
        "/opt/venv/lib/python3.11/site-packages/pip/_vendor/cc",
        "/etc/ssl/certs/ca-certificates.crt",
        "/var/lib/apt/lists",
        "/var/lib/apt/lists/partial",
        "/usr/bin/tini",
        "/usr/bin/ldconfig",
    ],
)
def test_what_belongs_in_an_image_is_left_alone(path: str) -> None:
    assert list(found_in(path, entry(path))) == []


def test_a_key_that_comes_with_a_package_is_public() -> None:
    theirs = "/opt/venv/lib/python3.11/site-packages/tornado/test/test.key"
    assert not may_hold_secret(theirs, entry(theirs))
    assert list(found_in(theirs, entry(theirs), KEY)) == []


@pytest.mark.parametrize("content", [KEY, TOKEN, b"aws_key: AKIAIOSFODNN7EXAMPLE"])
def test_a_file_whose_content_is_a_secret_is_found_whatever_its_name(content: bytes) -> None:
    assert may_hold_secret("/opt/app/notes.txt", entry("notes.txt"))
    found = list(found_in("/opt/app/notes.txt", entry("notes.txt"), content))
    assert found == [Found("secrets", "/opt/app/notes.txt")]


@pytest.mark.parametrize("path", ["/usr/share/doc/x", "/opt/app/weights.bin"])
def test_what_is_the_systems_or_large_is_not_read(path: str) -> None:
    assert not may_hold_secret(path, entry(path, size=1 if path.startswith("/usr") else 1 << 20))


@pytest.mark.parametrize(
    ("mode", "kinds"),
    [(0o644, []), (0o4755, ["setuid"]), (0o2755, ["setgid"]), (0o646, ["writable by all"]), (0o664, [])],
)
def test_a_mode_that_gives_too_much_is_found(mode: int, kinds: list[str]) -> None:
    assert [found.kind for found in found_in("/usr/bin/x", entry("x", mode))] == kinds


def test_the_workspace_is_for_all_and_a_links_mode_means_nothing() -> None:
    folder, link = entry("workspace", 0o1777), entry("a", 0o777)
    folder.type, link.type = tarfile.DIRTYPE, tarfile.SYMTYPE
    assert [*found_in("/workspace", folder), *found_in("/a", link)] == []


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("API_TOKEN", "x"),
        ("AWS_SECRET_ACCESS_KEY", "x"),
        ("db-password", "x"),
        ("INDEX", "https://me:word@index.example.com/simple"),
        ("ANYTHING", TOKEN.decode()),
    ],
)
def test_a_setting_that_holds_a_secret_is_found(name: str, value: str) -> None:
    assert is_secret_setting(name, value)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("TOKENIZERS_PARALLELISM", "false"),
        ("TOKENIZER", "bert-base-uncased"),
        ("MAX_TOKENS", "512"),
        ("USE_TOKEN", "true"),
        ("API_TOKEN", ""),
        ("CREDENTIALS", "/run/secrets/key.json"),
        ("PASSWORD", "$(cat"),
        ("INDEX", "https://index.example.com/simple"),
    ],
)
def test_a_setting_that_only_sounds_like_a_secret_is_left_alone(name: str, value: str) -> None:
    assert not is_secret_setting(name, value)


def test_secrets_of_a_configuration_are_named_and_never_shown() -> None:
    history = [
        {"created_by": "ENV API_TOKEN=hidden"},
        {"created_by": "RUN |1 PIP_PASSWORD=hidden /bin/sh -c pip install x"},
        {"created_by": "RUN --mount=type=secret,id=t /bin/sh -c TOKEN=$(cat /run/secrets/t) make"},
        {"created_by": "RUN pip install --index-url https://me:hidden@index.example.com/simple x"},
    ]
    settings = {"Env": ["PATH=/bin", "API_TOKEN=hidden"], "Labels": {"deploy.password": "hidden"}}
    found = list(secret_settings({"config": settings, "history": history}))
    assert found == [
        "ENV API_TOKEN",
        "LABEL deploy.password",
        "PIP_PASSWORD in step 2 of the history",
        "an address with a password in step 4 of the history",
    ]


def test_every_step_of_our_dockerfile_has_its_title_in_the_layers() -> None:
    spec = SPEC.replace('version = "1.2.0"', 'version = "1.2.0"\nsystem-packages = ["libgl1"]')
    steps = [block.partition("\n") for block in render_dockerfile(plan(spec, cuda=True)).split("\n\n")]
    titles = {
        title: command for title, _, command in steps if command.startswith(("RUN", "COPY", "# hadolint"))
    }
    assert {"# light wheels", "# heavy wheels", "# code and manifest"} <= titles.keys()
    for title, command in titles.items():
        assert f"# {step_title(command)}" == title


def test_a_step_that_is_not_ours_is_shown_by_its_command_in_one_short_line() -> None:
    assert step_title("/bin/sh -c #(nop) COPY dir:1 in /opt ") == "COPY dir:1 in /opt"
    assert (
        step_title("RUN /bin/sh -c apt-get   update \\\n && true # buildkit")
        == "RUN apt-get update \\ && true"
    )
    assert len(step_title("RUN " + "x" * 100)) == 60

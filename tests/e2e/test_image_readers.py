"""What others make of our images: docker, podman, buildah, skopeo and umoci read, unpack and run them."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path

import docker
import pytest
from commands import succeed

from builder.oci import tar
from builder.oci.archive import write_archive
from builder.oci.cache import Cache
from builder.oci.image import Addendum, Changes, Image, append
from builder.oci.layer import write_layer
from builder.oci.layout import write_layout
from builder.oci.local_engine import load, read_engine
from builder.oci.remote.pull import RegistryClient
from builder.oci.remote.push import push
from builder.reference import Reference, parse_reference

pytestmark = pytest.mark.engine

HELLO = b"import os, sys\nprint('hello', os.getuid(), os.environ['GREETING'], open('/opt/app/data').read())\n"
SAID = "hello 1234 hi from a link\n"


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Cache:
    return Cache(tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="module")
def below(base_image: str, cache: Cache) -> Image:
    return read_engine(base_image, "linux/amd64", cache)


def with_code(below: Image, cache: Cache, note: bytes = b"from a link") -> Image:
    entries = [
        tar.file("opt/app/hello.py", HELLO),
        tar.file("opt/app/deep/note.txt", note),
        tar.hardlink("opt/app/deep/again.txt", "opt/app/deep/note.txt"),
        tar.link("opt/app/data", "deep/again.txt"),
        tar.file(f"opt/app/{'long/' * 40}ünïcode.txt", b""),
    ]
    changes = Changes(env={"GREETING": "hi"}, user="1234", entrypoint=["python3", "/opt/app/hello.py"])
    return append(below, [Addendum(write_layer(entries, cache.blobs), "code")], changes, tar.EPOCH)


@pytest.fixture(scope="module")
def image(below: Image, cache: Cache) -> Image:
    return with_code(below, cache)


@pytest.fixture(scope="module")
def layout(image: Image, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("layout") / "image"
    write_layout(folder, image, "1")
    return folder


@pytest.fixture
def reference(engine: docker.DockerClient) -> Iterator[Reference]:
    name = parse_reference(f"trainpack-tests/readers:{uuid.uuid4().hex[:12]}")
    yield name
    engine.images.remove(str(name), force=True)


def tool(*command: str, cwd: Path | None = None) -> str:
    if shutil.which(command[0]) is None:
        message = f"{command[0]} is not installed: run scripts/test-services"
        pytest.fail(message) if os.environ.get("CI") else pytest.skip(message)
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=cwd)
    assert done.returncode == 0, done.stderr
    return done.stdout


def run(engine: docker.DockerClient, name: str) -> str:
    return engine.containers.run(name, remove=True, network_mode="none").decode()


def test_what_the_engine_gives_is_the_image_with_the_same_id(
    below: Image, base_image: str, cache: Cache
) -> None:
    engine_id = tool("docker", "image", "inspect", "--format", "{{.Id}}", base_image).strip()
    assert below.id == engine_id
    assert read_engine(base_image, "linux/amd64", cache) == below


def test_the_engine_gets_only_the_layer_that_it_lacks_and_runs_the_image(
    engine: docker.DockerClient, image: Image, base_image: str, reference: Reference
) -> None:
    loaded = load(image, reference, [base_image])
    assert loaded.image_id == image.id
    assert loaded.sent < 32_000
    assert run(engine, str(reference)) == SAID
    assert load(image, reference, [base_image]).sent == 0


def test_an_engine_that_lost_a_layer_gets_all_of_them(
    engine: docker.DockerClient, below: Image, cache: Cache, reference: Reference
) -> None:
    extra = Addendum(write_layer([tar.file("opt/extra", uuid.uuid4().bytes)], cache.blobs), "x")
    lower = append(below, [extra], Changes(), tar.EPOCH)
    image = with_code(lower, cache)
    assert load(image, reference).sent > sum(layer.size for layer in below.layers)
    assert run(engine, str(reference)) == SAID


def test_docker_loads_our_archive(
    engine: docker.DockerClient, image: Image, reference: Reference, tmp_path: Path
) -> None:
    write_archive(tmp_path / "image.tar", image, reference)
    tool("docker", "load", "--input", str(tmp_path / "image.tar"))
    assert engine.images.get(str(reference)).id == image.id
    assert run(engine, str(reference)) == SAID


def test_docker_pulls_what_we_push_and_its_base_was_mounted(
    engine: docker.DockerClient, below: Image, cache: Cache, registry: str
) -> None:
    source, ours = (parse_reference(f"{registry}/readers/{name}:1") for name in ("base", "app"))
    push(below, source)
    pulled = RegistryClient(source).image(cache)
    done = push(with_code(pulled, cache, b"pulled"), ours)
    assert done.mounted == len(below.layers)
    assert done.sent < 10_000
    # The engine may know the same image from another registry.
    exact = f"{ours.repository}@{done.digest}"
    assert exact in engine.images.pull(ours.repository, tag="1").attrs["RepoDigests"]
    assert run(engine, str(ours)) == "hello 1234 hi pulled\n"


def test_skopeo_copies_the_layout_and_the_archive_without_changing_a_byte(
    image: Image, layout: Path, tmp_path: Path
) -> None:
    write_archive(tmp_path / "image.tar", image)
    for source in (f"oci:{layout}:1", f"oci-archive:{tmp_path / 'image.tar'}"):
        tool("skopeo", "copy", "--quiet", source, f"oci:{tmp_path / 'copy'}:1")
        index = json.loads((tmp_path / "copy" / "index.json").read_bytes())
        assert [entry["digest"] for entry in index["manifests"]] == [image.digest]


def test_umoci_unpacks_the_layout(layout: Path, tmp_path: Path) -> None:
    tool("umoci", "unpack", "--rootless", "--image", f"{layout}:1", str(tmp_path / "bundle"))
    app = tmp_path / "bundle" / "rootfs" / "opt" / "app"
    assert (app / "data").read_bytes() == b"from a link"
    assert (app / "hello.py").read_bytes() == HELLO
    assert (app / ("long/" * 40) / "ünïcode.txt").is_file()


def test_podman_runs_the_layout(layout: Path, tmp_path: Path) -> None:
    # Where no limit may be raised, as in a container, podman's own would be refused.
    limits = [f"--ulimit={name}=1024:1024" for name in ("nofile", "nproc")]
    with tempfile.TemporaryDirectory() as run_folder:  # podman takes no longer names than 50 characters
        store = ["--root", str(tmp_path / "root"), "--runroot", run_folder, "--storage-driver=vfs"]
        podman = ["podman", "--cgroup-manager=cgroupfs", "--runtime=runc", *store]
        said = tool(*podman, "run", "--rm", "--network=none", *limits, f"oci:{layout}:1")
        assert said == SAID
        tool(*podman, "rmi", "--all", "--force")


def test_buildah_builds_upon_the_layout(layout: Path, tmp_path: Path) -> None:
    store = ["--root", str(tmp_path / "root"), "--runroot", str(tmp_path / "run"), "--storage-driver=vfs"]
    name = tool("buildah", *store, "from", f"oci:{layout}:1").strip()
    mounted = Path(tool("buildah", *store, "mount", name).strip())
    assert (mounted / "opt" / "app" / "data").read_bytes() == b"from a link"
    assert (mounted / "opt" / "app" / "hello.py").stat().st_uid == 0
    tool("buildah", *store, "rm", name)
    tool("buildah", *store, "rmi", "--all", "--force")


SPEC = """[image]
name = "{name}"
[run]
script = "train.py"
[parameters]
epochs = 1
"""
TRAIN = """import argparse, pkg.rates, six
parser = argparse.ArgumentParser()
parser.add_argument("--epochs", type=int)
print("trained", parser.parse_args().epochs, pkg.rates.RATE, six.PY3)
"""
TRAINED = "trained 1 0.5 True"


class Built:
    """A project, built as a user does: in a layout, in an archive and in a registry."""

    def __init__(self, folder: Path, registry: str) -> None:
        project = folder / "project"
        (project / "pkg").mkdir(parents=True)
        files = {"train.py": TRAIN, "pkg/rates.py": "RATE = 0.5\n", "requirements.txt": "six\n"}
        files["trainpack.toml"] = SPEC.format(name=f"{registry}/readers/{uuid.uuid4().hex[:12]}")
        for name, text in files.items():
            (project / name).write_text(text, encoding="utf-8")
        self.layout, self.archive = folder / "layout", folder / "image.tar"
        once = ("build", "--builder", "oci", "--no-load", "--json")
        self.told = succeed(project, *once, "--push", "--output", f"oci:{self.layout}").json
        succeed(project, *once, "--output", f"archive:{self.archive}")

    @property
    def source(self) -> str:
        return f"oci:{self.layout}:{self.told['tag']}"


@pytest.fixture(scope="module")
def built(base_image: str, registry: str, tmp_path_factory: pytest.TempPathFactory) -> Built:
    return Built(tmp_path_factory.mktemp("built"), registry)


def test_skopeo_finds_the_built_image_under_one_digest_wherever_it_was_written(
    built: Built, tmp_path: Path
) -> None:
    pushed = f"docker://{built.told['reference']}"
    for source in (built.source, f"oci-archive:{built.archive}", pushed):
        insecure = ["--src-tls-verify=false"] if source == pushed else []
        tool("skopeo", "copy", "--quiet", *insecure, source, f"oci:{tmp_path / 'copy'}:1")
        index = json.loads((tmp_path / "copy" / "index.json").read_bytes())
        assert [entry["digest"] for entry in index["manifests"]] == [built.told["digest"]]


def test_umoci_unpacks_the_built_image(built: Built, tmp_path: Path) -> None:
    image = built.source.removeprefix("oci:")
    tool("umoci", "unpack", "--rootless", "--image", image, str(tmp_path / "bundle"))
    root = tmp_path / "bundle" / "rootfs"
    assert (root / "opt/app/train.py").read_text(encoding="utf-8") == TRAIN
    assert list(root.glob("opt/venv/lib/python3.*/site-packages/six.py"))


@pytest.mark.slow  # this storage driver works everywhere, and copies all files for each layer
def test_podman_trains_with_the_built_image_and_buildah_builds_upon_it(built: Built, tmp_path: Path) -> None:
    limits = [f"--ulimit={name}=1024:1024" for name in ("nofile", "nproc")]
    with tempfile.TemporaryDirectory() as run_folder:  # podman takes no longer names than 50 characters
        store = ["--root", str(tmp_path / "root"), "--runroot", run_folder, "--storage-driver=vfs"]
        podman = ["podman", "--cgroup-manager=cgroupfs", "--runtime=runc", *store]
        image = tool(*podman, "pull", "--quiet", built.source).strip()
        assert f"sha256:{image}" == built.told["image_id"]
        assert TRAINED in tool(*podman, "run", "--rm", "--network=none", *limits, image)
        container = tool("buildah", *store, "from", image).strip()
        mounted = Path(tool("buildah", *store, "mount", container).strip())
        assert (mounted / "opt/app/pkg/rates.py").read_text(encoding="utf-8") == "RATE = 0.5\n"
        assert (mounted / "opt/app/train.py").stat().st_uid == 0
        tool("buildah", *store, "rm", container)
        tool(*podman, "rmi", "--all", "--force")


def test_docker_pulls_and_loads_the_built_image_and_trains_with_it(
    engine: docker.DockerClient, built: Built
) -> None:
    name = built.told["reference"]
    pulled = engine.images.pull(name)
    assert any(text.endswith(f"@{built.told['digest']}") for text in pulled.attrs["RepoDigests"])
    assert TRAINED in run(engine, name)
    engine.images.remove(name, force=True)
    tool("docker", "load", "--input", str(built.archive))
    assert engine.images.get(name).id == pulled.id
    assert TRAINED in run(engine, name)
    engine.images.remove(name, force=True)

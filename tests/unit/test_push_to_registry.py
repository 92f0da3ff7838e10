"""Pushing to a real registry, Debian's docker-registry: mounts, pieces, counts, memory."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import oci_images
import pytest
from registries import HTPASSWD, PASSWORD, USER, log_in, registry

from builder.errors import RegistryDeniedError
from builder.oci.artifact import Artifact
from builder.oci.blobs import Blobs
from builder.oci.cache import Cache
from builder.oci.image import Image, Index
from builder.oci.remote import push as pushing
from builder.oci.remote.pull import RegistryClient
from builder.oci.remote.push import push
from builder.oci.remote.referrers import attach, referrers
from builder.reference import Reference, parse_reference

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with registry(tmp_path_factory.mktemp("registry")) as address:
        yield address


@pytest.fixture(autouse=True)
def _no_credentials(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))


@pytest.fixture
def image(tmp_path: Path) -> Image:
    return oci_images.image(Blobs(tmp_path / "blobs"), b"small", oci_images.noise(300_000))


def target(host: str, name: str) -> Reference:
    return parse_reference(f"{host}/{name}")


def test_a_pushed_image_is_pulled_back_to_the_byte(host: str, image: Image, tmp_path: Path) -> None:
    done = push(image, target(host, "a/whole:1"))
    pulled = RegistryClient(target(host, "a/whole:1")).image(Cache(tmp_path / "cache"))
    assert (pulled, pulled.digest, done.uploaded) == (image, done.digest, 3)
    for layer in pulled.layers:
        with layer.open() as file:
            assert len(file.read()) == layer.size


@pytest.mark.parametrize("piece", [1000, 65_536, 299_999])
def test_a_large_blob_goes_in_pieces(
    host: str, image: Image, piece: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pushing, "PIECE_BYTES", piece)
    done = push(image, target(host, f"a/pieces{piece}:1"))
    assert RegistryClient(target(host, f"a/pieces{piece}:1")).digest() == done.digest
    assert done.requests > 300_000 // piece


def test_a_push_of_what_is_there_is_one_request_and_no_bytes(host: str, image: Image) -> None:
    push(image, target(host, "a/noop:1"))
    again = push(image, target(host, "a/noop:1"))
    assert (again.requests, again.sent, again.digest) == (1, 0, image.digest)


def test_an_edit_sends_its_layer_config_and_manifest(host: str, image: Image, tmp_path: Path) -> None:
    push(image, target(host, "a/edit:1"))
    edited = oci_images.image(Blobs(tmp_path / "blobs"), b"print(1)\n" * 20, base=image)
    done = push(edited, target(host, "a/edit:2"))
    assert (done.uploaded, done.existing) == (2, 2)
    assert done.sent < 4000


def test_the_layers_of_a_base_are_mounted(host: str, image: Image, tmp_path: Path) -> None:
    base, ours = target(host, "a/base:1"), target(host, "a/mounted:1")
    push(image, base)
    cache = Cache(tmp_path / "cache")
    pulled = RegistryClient(base).image(cache)
    built = oci_images.image(Blobs(tmp_path / "blobs"), b"code", base=pulled)
    done = push(built, ours)
    assert (done.mounted, done.uploaded) == (2, 2)
    assert done.sent == built.layers[-1].size + len(built.config) + len(built.manifest)
    assert [layer for layer in image.layers if cache.blobs.has(layer.digest, layer.size)] == []


def test_an_index_leads_each_platform_to_its_image(host: str, image: Image, tmp_path: Path) -> None:
    push(Index((image,)), target(host, "a/index:1"))
    client = RegistryClient(target(host, "a/index:1"))
    assert client.image(Cache(tmp_path / "cache")) == image


def test_a_document_is_found_by_the_image_that_it_belongs_to(host: str, image: Image) -> None:
    reference = target(host, "a/sbom:1")
    push(image, reference)
    artifact = Artifact("application/vnd.cyclonedx+json", b'{"bomFormat":"CycloneDX"}')
    attach(reference, image.digest, [artifact])
    found = referrers(reference, image.digest)
    assert len(found) == 1
    assert found[0].artifact_type == artifact.media_type
    client = RegistryClient(Reference(reference.repository, digest=found[0].digest))
    assert client.document() == artifact.content


def test_a_push_needs_the_right_password(image: Image, tmp_path: Path) -> None:
    (tmp_path / "htpasswd").write_text(HTPASSWD)
    settings = {"auth": {"htpasswd": {"realm": "private", "path": str(tmp_path / "htpasswd")}}}
    with registry(tmp_path, **settings) as private:
        with pytest.raises(RegistryDeniedError, match="denies access"):
            push(image, target(private, "a/b:1"))
        log_in(tmp_path, private, USER, PASSWORD)
        assert push(image, target(private, "a/b:1")).uploaded == 3


MEMORY = """
import resource, sys
from pathlib import Path
from builder.oci import tar
from builder.oci.blobs import Blobs
from builder.oci.cache import Cache
from builder.oci.image import Addendum, Changes, append, empty
from builder.oci.layer import kept_layer
from builder.oci.manifest import OCI_LAYER
from builder.oci.remote.pull import RegistryClient
from builder.oci.remote.push import push
from builder.reference import parse_reference
here, reference = Path(sys.argv[1]), parse_reference(sys.argv[2])
blobs = Blobs(here)
with blobs.writer() as writer:
    for piece in tar.stream([tar.file("big", here / "big")]):
        writer.write(piece)
layer = kept_layer(blobs, writer.digest, writer.digest, writer.size, writer.size, OCI_LAYER)
image = append(empty("linux/amd64"), [Addendum(layer, "x")], Changes(), tar.EPOCH)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print(push(image, reference).sent)
with RegistryClient(reference).image(Cache(here / "cache")).layers[0].open() as file:
    while file.read(1 << 20):
        pass
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


@pytest.mark.slow
def test_a_layer_of_a_gigabyte_is_pushed_and_pulled_in_memory_that_does_not_grow(
    host: str, tmp_path: Path
) -> None:
    with (tmp_path / "big").open("wb") as file:
        file.truncate(1_000_000_000)
    done = subprocess.run(
        [sys.executable, "-c", MEMORY, str(tmp_path), f"{host}/a/big:1"],
        check=True,
        capture_output=True,
        text=True,
        cwd=ROOT,
    )
    sent, kibibytes = map(int, done.stdout.split())
    assert sent > 10**9
    assert kibibytes < 30_000

"""An image to build upon that lacks a layer, has a damaged one, or is for another platform."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import oci_images
import pytest
import tiny_project
from hostile_registry import hostile_registry

from builder import bases
from builder.errors import TrainpackError
from builder.oci.archive import read_archive, write_archive
from builder.oci.blobs import Blobs
from builder.oci.cache import Cache
from builder.oci.image import Image
from builder.oci.layout import read_layout, write_layout
from builder.oci.remote.pull import RegistryClient
from builder.oci.remote.push import push
from builder.plan import Base
from builder.reference import parse_reference

Damage = Callable[[bytes], bytes | None]
Read = Callable[[str], Image]
Place = Callable[[Path, Image, Damage], AbstractContextManager[Read]]


@contextmanager
def in_a_layout(folder: Path, image: Image, damage: Damage) -> Iterator[Read]:
    write_layout(folder / "layout", image)
    damage_file(folder / "layout", image, damage)
    yield lambda platform: read_layout(folder / "layout", platform)


@contextmanager
def in_an_archive(folder: Path, image: Image, damage: Damage) -> Iterator[Read]:
    write_archive(folder / "whole.tar", image)
    name = f"blobs/sha256/{image.layers[0].digest.removeprefix('sha256:')}"
    with tarfile.open(folder / "whole.tar") as whole, tarfile.open(folder / "image.tar", "w") as copy:
        for member in whole:
            content = whole.extractfile(member)
            assert content
            kept = damage(content.read()) if member.name == name else content.read()
            if kept is not None:
                member.size = len(kept)
                copy.addfile(member, io.BytesIO(kept))
    yield lambda platform: read_archive(folder / "image.tar", platform)


@contextmanager
def in_a_registry(folder: Path, image: Image, damage: Damage) -> Iterator[Read]:
    with hostile_registry() as registry:
        reference = parse_reference(f"{registry.address}/team/base:1")
        push(image, reference)
        blobs, digest = registry.blobs["team/base"], image.layers[0].digest
        kept = damage(blobs.pop(digest))
        if kept is not None:
            blobs[digest] = kept
        yield lambda platform: RegistryClient(reference, platform).image(Cache(folder / "pulled"))


@contextmanager
def among_the_bases(folder: Path, image: Image, damage: Damage) -> Iterator[Read]:
    tiny_project.keep_base(folder / "cache", image)
    damage_file(folder / "cache/bases", image, damage)
    recipe = bases.find_recipe("cpu", "3.11", "linux/amd64", ())

    def read(platform: str) -> Image:
        return bases.base_image(
            Base(
                name="cpu",
                python="3.11",
                platform=platform,
                reference=recipe.reference,
                image_id=None,
                content=None,
                source="debian",
            )
        )

    yield read


def damage_file(layout: Path, image: Image, damage: Damage) -> None:
    path = layout / "blobs/sha256" / image.layers[0].digest.removeprefix("sha256:")
    kept = damage(path.read_bytes())
    path.unlink()
    if kept is not None:
        path.write_bytes(kept)


def flipped(content: bytes) -> bytes:
    return content[:700] + bytes([content[700] ^ 1]) + content[701:]


PLACES = [in_a_layout, in_an_archive, in_a_registry, among_the_bases]


@pytest.fixture
def image(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Image:
    monkeypatch.setenv("TRAINPACK_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    return oci_images.image(Blobs(tmp_path / "made"), oci_images.noise(2000), b"second")


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda content: None, r"[0-9a-f]{64}\W+(is missing|which it does not have|is not there any more)"),
        (flipped, r"corrupt|digest"),
        (lambda content: content[:-100], r"corrupt|digest|does not answer"),
    ],
    ids=["missing", "a flipped bit", "cut short"],
)
def test_a_layer_that_is_not_what_it_was_is_an_error_before_its_end(
    image: Image, tmp_path: Path, place: Place, damage: Damage, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("builder.oci.remote.transport.BACKOFF_SECONDS", 0.001)
    with place(tmp_path, image, damage) as read:
        found = read("linux/amd64")
        with pytest.raises(TrainpackError, match=said), found.layers[0].open() as layer:
            layer.read()
        with found.layers[1].open() as layer, image.layers[1].open() as whole:
            assert layer.read() == whole.read()


@pytest.mark.parametrize("place", PLACES)
def test_an_image_for_another_platform_is_refused_with_what_there_is(
    image: Image, tmp_path: Path, place: Place
) -> None:
    with (
        place(tmp_path, image, lambda content: content) as read,
        pytest.raises(TrainpackError, match=r"not for linux/arm64, only for linux/amd64"),
    ):
        read("linux/arm64")

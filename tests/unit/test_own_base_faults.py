"""What is no base, what is damaged, who does not answer: told, and nothing is published or half written."""

from __future__ import annotations

import io
import shutil
import tarfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import tiny_project
from counting_proxy import Passed
from hostile_registry import hostile_registry
from registries import HTPASSWD, PASSWORD, USER, log_in, registry
from tiny_project import WEIGHT, Project

from builder.oci.archive import write_archive
from builder.oci.cache import Cache
from builder.oci.image import Image
from builder.oci.layout import write_layout
from builder.oci.manifest import OCI_MANIFEST
from builder.oci.remote.push import push
from builder.reference import parse_reference

pytest_plugins = ["own_bases"]

Damage = Callable[[bytes], bytes | None]
Place = Callable[[Path, Image, Damage], AbstractContextManager[str]]


@pytest.fixture(autouse=True)
def _no_credentials(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))


@dataclass(frozen=True)
class Refused:
    """How a build must end, and what its error says: the place (as it begins), the reason, the remedy."""

    code: int
    place: str
    said: str
    remedy: str = ""


def refuses(project: Project, expected: Refused) -> None:
    """Whether a build ends so, and leaves nothing of an image."""
    ended = project.build("--push")
    told = tiny_project.error_of(ended)
    assert (ended.code, told.matches(expected.place, expected.said)) == (expected.code, True), ended.output
    assert expected.remedy in told.remedy
    assert not (project.folder / ".trainpack/last-build.json").exists()


@pytest.mark.parametrize(
    ("labels", "said"),
    [
        ({"base": ""}, "is no base of trainpack: it has no label io.trainpack.base"),
        ({"base": "x\nRUN y"}, r"it has the label io.trainpack.base = 'x\\nRUN y'"),
        ({"base.source": "mine"}, r"it has the label io.trainpack.base.source = 'mine'"),
        ({"base.python": "3.13"}, r"with Python 3\.13, expected 3\.11"),
        ({"plan": "0" * 64}, "that trainpack built of a project, expected a base"),
    ],
)
def test_an_image_that_is_no_base_for_the_project_is_refused(
    project: Project, tmp_path: Path, labels: dict[str, str], said: str
) -> None:
    write_layout(tmp_path / "bases", tiny_project.base(Cache(tmp_path / "made"), b"x", **labels))
    project.build_upon("oci:../bases")
    refuses(project, Refused(2, "trainpack.toml [image] base: oci:", said, "trainpack base build"))


def test_an_image_for_another_platform_is_refused(project: Project, tmp_path: Path) -> None:
    write_layout(tmp_path / "bases", tiny_project.base(Cache(tmp_path / "made"), b"x", "linux/arm64"))
    project.build_upon("oci:../bases")
    said = "not for linux/amd64, only for linux/arm64"
    refuses(project, Refused(1, str(project.folder), said, "`platform` in [image]"))


def test_a_layout_with_several_images_wants_a_tag(project: Project, base: Image, tmp_path: Path) -> None:
    write_layout(tmp_path / "bases", base, "new")
    write_layout(tmp_path / "bases", tiny_project.base(Cache(tmp_path / "made"), b"x"), "old")
    project.build_upon("oci:../bases")
    refuses(project, Refused(1, str(project.folder), "several images .*name one: new, old"))
    project.build_upon("oci:../bases:older")
    refuses(project, Refused(1, str(project.folder), "no image older, only new, old"))


def test_a_place_with_nothing_in_it_is_told(project: Project, tmp_path: Path) -> None:
    project.build_upon("oci:../bases")
    refuses(project, Refused(1, str(project.folder), "no OCI image layout", "`base`"))
    project.build_upon("archive:../base.tar")
    refuses(project, Refused(2, "archive:", "cannot be read: No such file", "`base`"))
    (tmp_path / "base.tar").write_bytes(b"")
    refuses(project, Refused(1, str(project.folder), "cannot be read as a tar|no archive of images"))


@pytest.mark.parametrize("size", [100, WEIGHT // 2, WEIGHT + 3000])
def test_an_archive_that_is_cut_short_is_told(
    project: Project, base: Image, tmp_path: Path, size: int
) -> None:
    write_archive(tmp_path / "base.tar", base)
    content = (tmp_path / "base.tar").read_bytes()
    assert size < len(content)
    (tmp_path / "base.tar").write_bytes(content[:size])
    project.build_upon("archive:../base.tar")
    refuses(project, Refused(1, str(project.folder), "cannot be read as a tar|no archive of images"))


def test_what_a_registry_refuses_or_lacks_is_told(
    project: Project, base: Image, host: Passed, repository: str, tmp_path: Path
) -> None:
    project.build_upon(f"{host.address}/{repository}/base:1")
    lacks = Refused(1, f"{host.address}/{repository}/base:1", "has no such image: 404", "`base` and")
    refuses(project, lacks)
    (tmp_path / "htpasswd").write_text(HTPASSWD)
    auth = {"htpasswd": {"realm": "private", "path": str(tmp_path / "htpasswd")}}
    with registry(tmp_path, auth=auth) as private:
        project.build_upon(f"{private}/team/base:1")
        refuses(
            project, Refused(1, f"{private}/team/base:1", "denies access: 401", f"docker login {private}")
        )
        log_in(project.home, private, USER, PASSWORD)
        refuses(project, Refused(1, f"{private}/team/base:1", "has no such image: 404"))
    (project.home / "config.json").unlink()
    project.build_upon("127.0.0.1:1/team/base:1")
    refuses(project, Refused(1, "127.0.0.1:1/team/base:1", "does not answer", "by its digest"))


def test_a_manifest_of_an_unknown_kind_is_told(project: Project, base: Image, tmp_path: Path) -> None:
    kind = "application/vnd.oci.thing.v2"
    content = base.manifest.replace(OCI_MANIFEST.encode(), kind.encode())
    with hostile_registry() as strange:
        strange.manifests["team/base"] = {"1": (kind, content)}
        place = f"{strange.address}/team/base:1"
        project.build_upon(place)
        refuses(project, Refused(1, place, f"a manifest of the media type '{kind}'"))
    write_layout(tmp_path / "bases", replace(base, manifest=content))
    project.build_upon("oci:../bases")
    refuses(project, Refused(1, str(project.folder), f"a manifest of the media type '{kind}'", "`base`"))


def missing(content: bytes) -> None:
    return None


def flipped(content: bytes) -> bytes:
    return content[:2000] + bytes([content[2000] ^ 1]) + content[2001:]


@contextmanager
def damaged_layout(folder: Path, base: Image, damage: Damage) -> Iterator[str]:
    write_layout(folder / "bases", base)
    path = folder / "bases/blobs/sha256" / base.layers[0].digest.removeprefix("sha256:")
    kept = damage(path.read_bytes())
    path.unlink() if kept is None else path.write_bytes(kept)
    yield "oci:../bases"


@contextmanager
def damaged_archive(folder: Path, base: Image, damage: Damage) -> Iterator[str]:
    write_archive(folder / "whole.tar", base)
    name = base.layers[0].digest.removeprefix("sha256:")
    with tarfile.open(folder / "whole.tar") as whole, tarfile.open(folder / "base.tar", "w") as copy:
        for member in whole:
            content = whole.extractfile(member)
            assert content
            kept = damage(content.read()) if member.name.endswith(name) else content.read()
            if kept is not None:
                copy.addfile(member, io.BytesIO(kept))
    yield "archive:../base.tar"


@contextmanager
def damaged_registry(folder: Path, base: Image, damage: Damage) -> Iterator[str]:
    with hostile_registry() as registry:
        push(base, parse_reference(f"{registry.address}/team/base:1"))
        blobs, digest = registry.blobs["team/base"], base.layers[0].digest
        kept = damage(blobs.pop(digest))
        if kept is not None:
            blobs[digest] = kept
        yield f"{registry.address}/team/base:1"


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (missing, "is missing|which it does not have"),
        (flipped, r"corrupt|with the digest sha256:\w+, expected"),
    ],
)
@pytest.mark.parametrize("place", [damaged_layout, damaged_archive, damaged_registry])
def test_a_layer_that_is_missing_or_damaged_is_named_and_nothing_is_published(
    project: Project, base: Image, tmp_path: Path, place: Place, damage: Damage, said: str
) -> None:
    with hostile_registry() as target, place(tmp_path, base, damage) as named:
        project.build_upon(named)
        ended = project.build("--push", "--tag", f"{target.address}/team/app:1")
        assert ended.code == 1
        told = tiny_project.error_of(ended)
        assert base.layers[0].digest.removeprefix("sha256:") in told.text
        assert told.matches("", said)
        assert target.manifests.get("team/app", {}) == {}
        assert base.layers[0].digest not in target.blobs.get("team/app", {})
        # Once it is whole, the next try goes on from there.
        shutil.rmtree(tmp_path / "bases", ignore_errors=True)
        write_layout(tmp_path / "bases", base)
        project.build_upon("oci:../bases")
        project.built("--push", "--tag", f"{target.address}/team/app:1")
        assert base.layers[0].digest in target.blobs["team/app"]

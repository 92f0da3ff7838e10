"""A base of the user's own: in a registry, a layout or an archive, under a project that names it."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import oci_images
import pytest
import requests
import tiny_project
from commands import succeed, trainpack
from counting_proxy import Passed, counting
from registries import registry
from tiny_project import LITTLE, WEIGHT, Project

from builder.bases.catalogue import find_recipe
from builder.bases.publish import publish_base
from builder.oci.archive import write_archive
from builder.oci.blobs import Blobs
from builder.oci.cache import Cache
from builder.oci.image import Image, Index
from builder.oci.layout import read_layout, write_layout
from builder.oci.remote.pull import RegistryClient
from builder.oci.remote.push import push
from builder.oci.remote.referrers import referrers
from builder.plan import Base
from builder.reference import parse_reference

pytest_plugins = ["own_bases"]


@pytest.fixture(autouse=True)
def _no_credentials(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))


def has_layer(address: str, path: str, image: Image) -> bool:
    return requests.head(f"http://{address}/v2/{path}/blobs/{image.layers[0].digest}", timeout=5).ok


def keeps_layer(project: Project, image: Image) -> bool:
    return project.layers.blobs.path(image.layers[0].digest).exists()


# In a registry


def test_a_push_to_the_registry_of_the_base_moves_none_of_its_layers_in_either_direction(
    project: Project, base: Image, host: Passed, repository: str
) -> None:
    push(base, parse_reference(f"{host.address}/{repository}/base:1"))
    project.build_upon(f"{host.address}/{repository}/base:1")
    host.reset()
    built = project.built("--push", "--tag", f"{host.address}/{repository}/app:1")
    assert host.total < LITTLE
    assert built.stderr.count(": mounted") == 1
    assert has_layer(host.address, f"{repository}/app", base)
    assert not keeps_layer(project, base)
    # Whoever pulls the image has all of it.
    whole = RegistryClient(parse_reference(f"{host.address}/{repository}/app:1"))
    assert whole.read_file("usr/lib/base") == oci_images.noise(WEIGHT)


def test_a_push_to_another_registry_passes_the_layers_through_once_and_verified(
    project: Project, base: Image, host: Passed, repository: str, tmp_path: Path
) -> None:
    push(base, parse_reference(f"{host.address}/{repository}/base:1"))
    project.build_upon(f"{host.address}/{repository}/base:1")
    (tmp_path / "other").mkdir()
    with registry(tmp_path / "other") as address, counting(address) as other:
        host.reset()
        project.built("--push", "--tag", f"{other.address}/team/app:1")
        assert WEIGHT < host.down < WEIGHT + LITTLE
        assert host.up < LITTLE
        assert WEIGHT < other.up < WEIGHT + LITTLE
        assert has_layer(address, "team/app", base)


def test_an_sbom_is_made_of_what_a_published_base_says_without_its_layers(
    project: Project, host: Passed, repository: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = published(project, host, repository, tmp_path, monkeypatch)
    project.build_upon(f"{host.address}/{repository}/base:1")
    host.reset()
    target = f"{host.address}/{repository}/app:1"
    built = project.built("--push", "--attest", "--tag", target)
    assert host.total < LITTLE
    assert not keeps_layer(project, base)
    assert len(referrers(parse_reference(target), built.json["digest"])) == 2
    found = project.done("sbom", target, "--json")
    packages = [each for each in found.json["components"] if each.get("purl", "").startswith("pkg:deb/")]
    assert [(each["name"], each["version"]) for each in packages] == [("libgl1", "1.6.0-1")]


def published(
    project: Project, host: Passed, repository: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Image:
    """A base that its builder published, from another cache."""
    image = tiny_project.base(Cache(tmp_path / "theirs"), oci_images.noise(WEIGHT))
    tiny_project.keep_base(tmp_path / "theirs", image)
    recipe = find_recipe("cpu", "3.11", "linux/amd64", ())
    monkeypatch.setenv("TRAINPACK_CACHE", str(tmp_path / "theirs"))
    kept = Base(
        name="cpu",
        python="3.11",
        platform="linux/amd64",
        reference=recipe.reference,
        image_id=image.id,
        content="",
        source="debian",
    )
    reference = parse_reference(f"{host.address}/{repository}/base:1")
    assert publish_base([kept], reference, lambda _: None, move=False).digest == image.digest
    return image


def test_where_only_its_layers_say_what_a_base_has_they_are_not_fetched_unless_an_sbom_is_asked_for(
    project: Project, base: Image, host: Passed, repository: str
) -> None:
    push(base, parse_reference(f"{host.address}/{repository}/base:1"))
    project.build_upon(f"{host.address}/{repository}/base:1")
    target = f"{host.address}/{repository}/app:1"
    host.reset()
    command = [each for each in tiny_project.BUILD if each != "--no-attest"]
    built = project.done(*command, "--push", "--tag", target)
    assert host.total < LITTLE
    assert "warning: pushed without SBOM and provenance: " in built.stderr
    assert referrers(parse_reference(target), built.json["digest"]) == ()
    project.done("push", "--attest")
    assert WEIGHT < host.down < WEIGHT + 2 * LITTLE
    assert len(referrers(parse_reference(target), built.json["digest"])) == 2


# The same base, wherever it is


def in_a_registry(base: Image, host: Passed, name: str, folder: Path) -> str:
    push(base, parse_reference(f"{host.address}/{name}:1"))
    return f"{host.address}/{name}:1"


def pinned(base: Image, host: Passed, name: str, folder: Path) -> str:
    push(base, parse_reference(f"{host.address}/{name}:1"))
    return f"{host.address}/{name}@{base.digest}"


def in_a_layout(base: Image, host: Passed, name: str, folder: Path) -> str:
    write_layout(folder / "bases", base, "1")
    return "oci:../bases"


def by_its_tag(base: Image, host: Passed, name: str, folder: Path) -> str:
    write_layout(folder / "bases", oci_images.image(Blobs(folder / "made"), b"another"), "0")
    write_layout(folder / "bases", base, "1")
    return f"oci:{folder / 'bases'}:1"


def in_an_archive(base: Image, host: Passed, name: str, folder: Path) -> str:
    write_archive(folder / "base.tar", base)
    return "archive:../base.tar"


PLACES = [in_a_registry, pinned, in_a_layout, by_its_tag, in_an_archive]
Put = Callable[[Image, Passed, str, Path], str]


def test_it_makes_the_same_plan_and_the_same_image(
    project: Project, base: Image, host: Passed, repository: str, tmp_path: Path
) -> None:
    made = set()
    for number, put in enumerate(PLACES):
        place = put(base, host, f"{repository}/{number}", tmp_path)
        # The file itself is code, unless it is left out.
        project.build_upon(place, 'exclude = ["trainpack.toml"]')
        built = project.built().json
        planned = project.done("plan", "--json").json
        assert planned["base"]["image_id"] == base.id
        assert (built["tag"], planned["tag"]) == (planned["tag"], built["tag"])
        made.add((built["digest"], built["image_id"], planned["hash"]))
        shutil.rmtree(tmp_path / "bases", ignore_errors=True)
    assert len(made) == 1


def test_the_plan_names_the_base_by_its_digest_and_says_why(
    project: Project, base: Image, host: Passed, repository: str
) -> None:
    push(base, parse_reference(f"{host.address}/{repository}/base:1"))
    project.build_upon(f"{host.address}/{repository}/base:1")
    project.built()
    exact = f"{host.address}/{repository}/base:1@{base.digest}"
    planned = project.done("plan", "--json").json
    assert planned["base"]["origin"] == exact
    assert planned["labels"]["org.opencontainers.image.base.digest"] == base.id
    assert host.address not in str(planned["labels"])
    (why,) = (each for each in planned["reasons"] if each["choice"] == "base")
    assert (why["value"], base.id in why["because"]) == (exact, True)
    told = project.done("plan").stdout
    assert exact in told
    traced = project.done(
        "trace",
        "--json",
        project.built("--push", "--tag", f"{host.address}/{repository}/app:1").json["reference"],
    )
    assert [each["to"] for each in traced.json["links"] if each["kind"] == "base digest"] == [base.id]


def test_an_index_gives_the_base_of_each_platform(
    project: Project, base: Image, host: Passed, repository: str, tmp_path: Path
) -> None:
    other = tiny_project.base(Cache(tmp_path / "elsewhere"), b"arm", "linux/arm64")
    push(Index((base, other)), parse_reference(f"{host.address}/{repository}/base:1"))
    project.build_upon(f"{host.address}/{repository}/base:1")
    project.built("--platform", "linux/arm64,linux/amd64", "--output", f"oci:{tmp_path / 'both'}")
    for platform, below in (("linux/arm64", other), ("linux/amd64", base)):
        image = read_layout(tmp_path / "both", platform)
        assert image.layers[0] == below.layers[0]
        assert image.labels["org.opencontainers.image.base.digest"] == below.id


def test_a_base_that_lies_in_the_project_is_no_code(project: Project, base: Image) -> None:
    write_layout(project.folder / "bases/cpu", base, "1")
    (project.folder / "bases/notes.txt").write_text("a note", encoding="utf-8")
    project.build_upon("oci:bases/cpu")
    project.built()
    planned = project.done("plan", "--json").json
    assert {each["path"] for each in planned["code"]} >= {"bases/notes.txt", "train.py"}
    assert not [each for each in planned["code"] if each["path"].startswith("bases/cpu")]


# Whether a build has nothing to do


def is_quick(project: Project) -> bool:
    """Whether a build that changes nothing is told from file times, once no file is too new for that."""
    return any("building" not in project.built().stderr for _ in range(4))


@pytest.mark.parametrize("put", [pinned, in_a_layout, in_an_archive])
def test_what_cannot_move_unseen_is_not_looked_at_again(
    project: Project, base: Image, host: Passed, repository: str, tmp_path: Path, put: Put
) -> None:
    project.build_upon(put(base, host, f"{repository}/base", tmp_path))
    assert is_quick(project)
    host.reset()
    project.built()
    assert host.total == 0


@pytest.mark.parametrize("put", [in_a_registry, in_a_layout, by_its_tag, in_an_archive])
def test_a_base_that_is_another_by_now_makes_another_image(
    project: Project, base: Image, host: Passed, repository: str, tmp_path: Path, put: Put
) -> None:
    place = put(base, host, f"{repository}/base", tmp_path)
    project.build_upon(place)
    assert is_quick(project) == (put is not in_a_registry)
    first = project.built().json
    other = tiny_project.base(Cache(tmp_path / "elsewhere"), b"another one")
    shutil.rmtree(tmp_path / "bases", ignore_errors=True)
    assert put(other, host, f"{repository}/base", tmp_path) == place
    second = project.built().json
    assert second["tag"] != first["tag"]
    assert second["layers"][0] == other.layers[0].diff_id
    # An edit takes the quick way where there is one, and keeps the base.
    project.edit("print('edited')\n")
    assert project.built().json["layers"][0] == other.layers[0].diff_id


def test_without_its_registry_a_base_by_digest_is_what_the_cache_has_and_one_by_tag_is_an_error(
    project: Project, base: Image, tmp_path: Path
) -> None:
    with registry(tmp_path) as address:
        push(base, parse_reference(f"{address}/team/base:1"))
        project.build_upon(f"{address}/team/base:1")
        project.built()
    ended = project.build()
    assert ended.code == 1
    said = tiny_project.error_of(ended)
    assert said.matches(f"{address}/team/base:1", "does not answer")
    assert "by its digest" in said.remedy
    project.build_upon(f"{address}/team/base:1@{base.digest}")
    assert project.built().json["layers"][0] == base.layers[0].diff_id


# Publishing one


@pytest.fixture
def kept(tmp_path: Path) -> tuple[Image, dict[str, str]]:
    """A base of the catalogue that is built, and the settings of the cache that has it."""
    cache = tmp_path / "kept"
    image = tiny_project.base(Cache(cache), oci_images.noise(1000))
    tiny_project.keep_base(cache, image)
    return image, {"TRAINPACK_CACHE": str(cache), "DOCKER_HOST": "unix:///nowhere/docker.sock"}


BASE_BUILD = ("base", "build", "cpu", "--missing")


def test_a_base_is_published_and_told_as_trainpack_toml_may_name_it(
    project: Project, kept: tuple[Image, dict[str, str]], host: Passed, repository: str, tmp_path: Path
) -> None:
    image, env = kept
    reference = f"{host.address}/{repository}/base:1"
    told = succeed(tmp_path, *BASE_BUILD, "--push", reference, env=env).stdout.splitlines()[-1]
    assert told == f'base = "{reference}@{image.digest}"'
    project.build_upon(told.split('"')[1])
    assert project.built().json["layers"][0] == image.layers[0].diff_id
    again = succeed(tmp_path, *BASE_BUILD, "--push", reference, "--json", env=env)
    assert again.json[0]["published"] == f"{reference}@{image.digest}"
    (sbom,) = referrers(parse_reference(reference), image.digest)
    assert sbom.artifact_type == "application/vnd.cyclonedx+json"


def test_a_tag_leaves_another_base_only_when_told(
    kept: tuple[Image, dict[str, str]], host: Passed, repository: str, tmp_path: Path
) -> None:
    image, env = kept
    reference = f"{host.address}/{repository}/base:1"
    push(tiny_project.base(Cache(tmp_path / "made"), b"of somebody else"), parse_reference(reference))
    refused = trainpack(tmp_path, *BASE_BUILD, "--push", reference, env=env)
    assert refused.code == 1
    assert tiny_project.error_of(refused).matches(reference, "another image under this tag")
    assert "--move-tag" in tiny_project.error_of(refused).remedy
    succeed(tmp_path, *BASE_BUILD, "--push", reference, "--move-tag", env=env)
    assert RegistryClient(parse_reference(reference)).digest() == image.digest


def test_a_base_is_written_to_a_file_that_is_built_upon(
    project: Project, kept: tuple[Image, dict[str, str]], tmp_path: Path
) -> None:
    image, env = kept
    for output in (f"oci:{tmp_path / 'bases'}", f"archive:{tmp_path / 'base.tar'}"):
        succeed(tmp_path, *BASE_BUILD, "--output", output, env=env)
        project.build_upon(output)
        assert project.built().json["layers"][0] == image.layers[0].diff_id


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--push", "registry.example.com/base"), "expected REPOSITORY:TAG"),
        (("--output", "zip:x"), "expected oci:DIR or archive:FILE"),
        (("--platform", "linux/arm"), "expected linux/amd64 or linux/arm64"),
    ],
)
def test_a_base_that_goes_nowhere_is_refused(
    kept: tuple[Image, dict[str, str]], tmp_path: Path, options: tuple[str, str], said: str
) -> None:
    ended = trainpack(tmp_path, *BASE_BUILD, *options, env=kept[1])
    assert ended.code == 2
    assert said in tiny_project.error_of(ended).text

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from golden_files import assert_golden

from builder import bases, data
from builder.bases import find_recipe, render_dockerfile, upstream_reference
from builder.errors import EngineUnavailableError, UsageError
from builder.host import apt, tools

HADOLINT = Path(sys.executable).with_name("hadolint")
AMD64 = "linux/amd64"
CATALOGUE = bases.load_catalogue()


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(tools.CACHE, str(tmp_path))
    return tmp_path / "bases"


@pytest.fixture
def no_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    def client() -> Any:
        raise EngineUnavailableError("no engine")

    monkeypatch.setattr("builder.engine.client", client)


def render(name: str, python: str = "3.11") -> str:
    recipe = find_recipe(name, python, AMD64)
    return render_dockerfile(recipe, upstream_reference(recipe.origin, {}))


@pytest.mark.parametrize("name", CATALOGUE.base)
def test_golden_dockerfiles_of_the_bases(name: str) -> None:
    assert_golden(f"base-{name}-upstream.Dockerfile", render(name))


@pytest.mark.parametrize("python", CATALOGUE.python)
def test_hadolint_finds_nothing_in_any_dockerfile(python: str, tmp_path: Path) -> None:
    path = tmp_path / "Dockerfile"
    path.write_text(render("cuda", python), encoding="utf-8")
    done = subprocess.run([HADOLINT, path], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")


def test_the_cuda_base_lets_the_driver_in_and_the_cpu_base_does_not() -> None:
    for variable in ("NVIDIA_VISIBLE_DEVICES=all", "NVIDIA_DRIVER_CAPABILITIES=compute,utility"):
        assert variable in render("cuda")
        assert variable not in render("cpu")


def test_each_upstream_tag_names_its_own_python() -> None:
    for python, origin in CATALOGUE.python.items():
        assert origin.upstream == f"python:{python}-slim-{origin.upstream_suite}"
        assert origin.suite is None or origin.packages


def test_a_digest_pins_the_upstream_image_and_a_prefix_moves_it() -> None:
    origin = CATALOGUE.python["3.11"].model_copy(update={"digest": "sha256:" + "0" * 64})
    moved = upstream_reference(origin, {bases.UPSTREAM_PREFIX: "registry.example.com/mirror/"})
    assert moved == f"registry.example.com/mirror/python:3.11-slim-bookworm@sha256:{'0' * 64}"


def test_the_tag_changes_with_anything_that_decides_the_content() -> None:
    recipe = find_recipe("cpu", "3.11", AMD64)
    changes: list[dict[str, Any]] = [
        {"revision": 99},
        {"template": "FROM scratch"},
        {"packages": ("tini",)},
        {"contract": CATALOGUE.contract.model_copy(update={"command": ("sh",)})},
        {"debian": CATALOGUE.debian.model_copy(update={"unneeded": ()})},
        {"platform": "linux/arm64"},
        {"base": CATALOGUE.base["cuda"]},
        {"origin": CATALOGUE.python["3.13"]},
    ]
    tags = {recipe.reference, *(recipe.model_copy(update=change).reference for change in changes)}
    assert len(tags) == len(changes) + 1


@pytest.mark.parametrize(
    ("name", "python", "words"),
    [("cpuu", "3.11", ["'cpuu'", 'did you mean "cpu"']), ("cpu", "3.7", ["Python '3.7'"])],
)
def test_what_the_catalogue_does_not_have_is_a_usage_error_that_lists_it(
    name: str, python: str, words: list[str]
) -> None:
    with pytest.raises(UsageError) as refused:
        find_recipe(name, python, AMD64)
    assert all(word in refused.value.message for word in words)
    assert refused.value.remedy in ("it has cpu, cuda", f"it has {', '.join(CATALOGUE.python)}")


@pytest.mark.usefixtures("no_engine")
def test_a_base_that_was_never_built_resolves_as_unbuilt_without_an_engine() -> None:
    base = bases.resolve_base("cpu", "3.11", AMD64)
    assert (base.image_id, base.source) == (None, bases.UNBUILT)


@pytest.mark.usefixtures("no_engine")
def test_where_debian_cannot_be_unpacked_an_engine_is_needed_and_the_reason_is_told() -> None:
    said: list[str] = []
    with pytest.raises(EngineUnavailableError):
        bases.build_base("cpu", "3.12", AMD64, say=said.append)
    assert said == ["no Debian release comes with Python 3.12: building on python:3.12-slim-bookworm instead"]


def test_packages_of_the_users_own_are_part_of_the_base_and_of_its_tag_whatever_their_order() -> None:
    plain, one, other = (
        find_recipe("cpu", "3.11", AMD64, packages) for packages in ((), ("libgl1", "git"), ("git", "libgl1"))
    )
    assert one == other
    assert one.reference != plain.reference
    assert {"git", "libgl1", "tini"} < set(one.debian_packages)
    assert "tini tzdata" in render_dockerfile(plain, "p:1")
    assert "git libgl1" in render_dockerfile(one, "p:1")


def test_a_python_without_a_debian_release_is_refused_from_debian() -> None:
    with pytest.raises(UsageError, match=r"no Debian release comes with Python 3\.12"):
        bases.build_base("cpu", "3.12", AMD64, "debian")


def test_a_mirror_setting_wins_over_the_hosts_apt() -> None:
    environ = {apt.MIRROR: "https://mirror.example.com/debian"}
    assert apt.sources_text(environ, "trixie").splitlines() == [
        "deb https://mirror.example.com/debian trixie main",
        "deb https://mirror.example.com/debian trixie-updates main",
    ]
    security = {apt.SECURITY_MIRROR: "https://mirror.example.com/security"}
    assert "deb https://mirror.example.com/security trixie-security main" in apt.sources_text(
        environ | security, "trixie"
    )


def test_the_hosts_mirrors_serve_another_release_and_other_vendors_are_left_out() -> None:
    targets = """\
http://mirror.example.com/debian/ bookworm main
http://mirror.example.com/debian/ bookworm contrib
http://mirror.example.com/debian/ bookworm main
http://mirror.example.com/debian/ bookworm-updates main
http://mirror.example.com/debian-security/ bookworm-security main
https://vendor.example.com/linux bookworm main
https://vendor.example.com/apt vendor-bookworm main
"""
    assert apt.translate(targets, "bookworm", "trixie") == [
        "deb http://mirror.example.com/debian/ trixie main",
        "deb http://mirror.example.com/debian/ trixie-updates main",
        "deb http://mirror.example.com/debian-security/ trixie-security main",
    ]


def test_a_mirror_whose_address_does_not_say_debian_is_taken_when_it_is_the_only_one() -> None:
    assert apt.translate("http://apt.example.com/m/ bookworm main", "bookworm", "bookworm") == [
        "deb http://apt.example.com/m/ bookworm main"
    ]


def test_without_any_mirror_the_remedy_names_the_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(UsageError) as refused:
        apt.sources_text({}, "bookworm")
    assert apt.MIRROR in str(refused.value.remedy)


def test_a_checkout_finds_its_data_in_place_and_a_wheel_finds_it_inside(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert (data.base_images() / "catalogue.toml").is_file()
    inside = tmp_path / "builder" / "_data" / "base_images"
    inside.mkdir(parents=True)
    monkeypatch.setattr(data, "__file__", str(tmp_path / "builder" / "data.py"))
    assert data.base_images() == inside
    assert data.scaffolds() == tmp_path / "scaffolds"

from __future__ import annotations

import io
import stat
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Any

import pytest
from golden_files import assert_golden

from builder import apt, bases, data, tools
from builder.bases import copy_rootfs, find_recipe, package_sources, render_dockerfile, upstream_reference
from builder.errors import BuildError, EngineUnavailableError, UsageError
from builder.plan import Base

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


def render(name: str, source: str, python: str = "3.11") -> str:
    recipe = find_recipe(name, python, AMD64)
    return render_dockerfile(recipe, source, upstream_reference(recipe.origin, {}))


@pytest.mark.parametrize("name", CATALOGUE.base)
@pytest.mark.parametrize("source", ["upstream", "debian"])
def test_golden_dockerfiles_of_the_bases(name: str, source: str) -> None:
    assert_golden(f"base-{name}-{source}.Dockerfile", render(name, source))


@pytest.mark.parametrize("python", CATALOGUE.python)
@pytest.mark.parametrize("source", ["upstream", "debian"])
def test_hadolint_finds_nothing_in_any_dockerfile(python: str, source: str, tmp_path: Path) -> None:
    path = tmp_path / "Dockerfile"
    path.write_text(render("cuda", source, python), encoding="utf-8")
    done = subprocess.run([HADOLINT, path], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")


def test_both_sources_end_in_the_same_instructions() -> None:
    ways = [render("cuda", source).partition("\n# What trains needs")[2] for source in ("upstream", "debian")]
    assert "USER 1000:1000" in ways[0]
    assert ways[0] == ways[1].replace("source=debian", "source=upstream")


def test_the_cuda_base_lets_the_driver_in_and_the_cpu_base_does_not() -> None:
    for variable in ("NVIDIA_VISIBLE_DEVICES=all", "NVIDIA_DRIVER_CAPABILITIES=compute,utility"):
        assert variable in render("cuda", "debian")
        assert variable not in render("cpu", "debian")


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
        {"platform": "linux/arm64"},
        {"base": CATALOGUE.base["cuda"]},
        {"origin": CATALOGUE.python["3.13"]},
    ]
    tags = {recipe.reference, *(recipe.model_copy(update=change).reference for change in changes)}
    assert len(tags) == len(changes) + 1


def test_the_cuda_base_is_made_from_the_root_file_system_of_the_cpu_base() -> None:
    assert find_recipe("cuda", "3.11", AMD64).rootfs == find_recipe("cpu", "3.11", AMD64).rootfs
    assert find_recipe("cpu", "3.11", "linux/arm64").rootfs != find_recipe("cpu", "3.11", AMD64).rootfs


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
def test_without_an_engine_a_base_resolves_as_unbuilt() -> None:
    base = bases.resolve_base("cpu", "3.11", AMD64)
    assert (base.image_id, base.source) == (None, bases.UNBUILT)


@pytest.mark.usefixtures("no_engine")
def test_building_without_an_engine_fails_before_anything_is_bootstrapped(cache: Path) -> None:
    with pytest.raises(EngineUnavailableError):
        bases.build_base("cpu", "3.11", AMD64, "debian")
    assert [path.name for path in cache.iterdir()] == ["build.lock"]


def test_without_mmdebstrap_the_remedy_names_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("builder.engine.client", object)
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(BuildError) as failed:
        bases.build_base("cpu", "3.11", AMD64, "debian")
    assert "apt-get install mmdebstrap" in str(failed.value.remedy)


def test_a_python_without_a_debian_release_is_refused_from_debian(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("builder.engine.client", object)
    with pytest.raises(UsageError, match=r"no Debian release comes with Python 3\.12"):
        bases.build_base("cpu", "3.12", AMD64, "debian")


def test_a_failed_bootstrap_shows_its_last_lines_without_the_mirrors_password(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tool = tmp_path / "mmdebstrap"
    tool.write_text('#!/bin/bash\ncat "${@: -1}" >&2\nexit 25\n')
    tool.chmod(tool.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setattr("builder.engine.client", object)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.setenv(apt.MIRROR, "https://reader:s3cret@mirror.example.com/debian")
    with pytest.raises(BuildError, match="mmdebstrap ended with 25") as failed:
        bases.build_base("cpu", "3.11", AMD64, "debian")
    said = "\n".join(failed.value.details)
    assert "mirror.example.com/debian bookworm main" in said
    assert "s3cret" not in said
    assert [path.name for path in cache.iterdir()] == ["build.lock"]


def archive(names: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, content in names.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


def test_a_root_file_system_keeps_nothing_of_the_host(tmp_path: Path) -> None:
    kept = {"./dev": b"", "./etc/passwd": b"root", "./usr/etc/hostname": b"mine"}
    traces = [
        "./dev/null",
        "./etc/resolv.conf",
        "./etc/hostname",
        "./etc/apt/sources.list",
        "./etc/apt/sources.list.d/0000sources.list",
        "./etc/apt/apt.conf.d/99mmdebstrap",
    ]
    target = tmp_path / "rootfs.tar"
    assert copy_rootfs(io.BytesIO(archive(kept | dict.fromkeys(traces, b"host"))), target, epoch=7)
    with tarfile.open(target) as copy:
        found = {member.name: member for member in copy}
        contents = {name: copy.extractfile(found[name]).read() for name in kept}  # type: ignore[union-attr]
    assert contents == kept
    assert found.keys() - kept == {"./etc/hosts", "./etc/resolv.conf"}
    assert {(found[name].size, found[name].mtime) for name in found.keys() - kept} == {(0, 7)}


def test_a_cut_off_root_file_system_is_noticed(tmp_path: Path) -> None:
    whole = archive({"./etc/passwd": b"x" * 4096})
    assert not copy_rootfs(io.BytesIO(whole[:1024]), tmp_path / "rootfs.tar", epoch=0)
    assert not copy_rootfs(io.BytesIO(b""), tmp_path / "rootfs.tar", epoch=0)


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


def test_system_packages_come_from_the_bases_own_sources_or_from_a_mirror() -> None:
    environ = {apt.MIRROR: "https://mirror.example.com/debian"}
    upstream = Base(
        name="cpu",
        python="3.14",
        platform=AMD64,
        reference="b:1",
        image_id=None,
        content=None,
        source="upstream",
    )
    assert package_sources(upstream, {}) == ""
    assert "trixie main" in package_sources(upstream, environ)
    debian = upstream.model_copy(update={"source": "debian"})
    assert "forky main" in package_sources(debian, environ)


def test_a_checkout_finds_its_data_in_place_and_a_wheel_finds_it_inside(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert (data.base_images() / "catalogue.toml").is_file()
    inside = tmp_path / "builder" / "_data" / "base_images"
    inside.mkdir(parents=True)
    monkeypatch.setattr(data, "__file__", str(tmp_path / "builder" / "data.py"))
    assert data.base_images() == inside
    assert data.scaffolds() == tmp_path / "scaffolds"

"""Bases unpacked from the packages of Debian's own mirror."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Any

import docker
import pytest
from commands import succeed
from engine_bases import lent

from builder import bases
from builder.errors import MirrorError
from builder.host import tools
from builder.host.package_index import index_settings, uv_arguments, uv_environment
from builder.oci.image import Image
from builder.oci.layout import write_layout
from builder.plan import Base

pytestmark = pytest.mark.engine

SYFT = Path(sys.executable).with_name("syft")
# Half of what the bootstrapped base had, that this one replaces.
MOST_UNPACKED, MOST_COMPRESSED = 225e6 / 2, 82e6 / 2


def run(engine: docker.DockerClient, image: str, *command: str, **options: Any) -> str:
    output: bytes = engine.containers.run(image, list(command), remove=True, network_mode="none", **options)
    return output.decode()


def opened(image: Image, number: int = 0) -> tarfile.TarFile:
    with image.layers[number].open() as file:
        return tarfile.open(fileobj=io.BytesIO(file.read()))


def test_the_base_is_at_most_half_of_a_bootstrapped_one(base: Base) -> None:
    layers = bases.base_image(base).layers
    assert sum(layer.size for layer in layers) <= MOST_COMPRESSED
    assert sum(layer.unpacked or unpacked(layer) for layer in layers) <= MOST_UNPACKED


def unpacked(layer: Any) -> int:
    with layer.open() as file, tarfile.open(fileobj=file, mode="r|gz") as tar:
        return sum(member.size for member in tar)


@pytest.mark.slow
def test_the_same_packages_give_the_same_image_with_a_cold_cache(
    base: Base, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(tools.CACHE, str(tmp_path))
    fresh = bases.build_base("cpu", "3.11", "linux/amd64", "debian")
    again = bases.build_base("cpu", "3.11", "linux/amd64", "debian")
    assert fresh == again
    if fresh.image_id != base.image_id:
        # The mirror moved on since the other one was built: its packages say so.
        assert statuses(fresh) != statuses(base)


def statuses(base: Base) -> bytes:
    with opened(bases.base_image(base)) as layer:
        content = layer.extractfile("var/lib/dpkg/status")
        assert content
        return content.read()


def test_a_scanner_sees_the_packages_with_their_licences(base: Base, tmp_path: Path) -> None:
    write_layout(tmp_path, bases.base_image(base))
    command = [str(SYFT), "scan", f"oci-dir:{tmp_path}", "--output=json", "--quiet"]
    environment = {"SYFT_CHECK_FOR_APP_UPDATE": "false", "HOME": str(tmp_path)}
    found = subprocess.run(command, env=environment, capture_output=True, check=True).stdout
    artifacts = json.loads(found)["artifacts"]
    packages = {each["name"]: each for each in artifacts if each["type"] == "deb"}
    assert {"libc6", "libssl3", "python3.11-minimal", "tini"} <= packages.keys()
    assert json.loads(found)["distro"]["versionID"] == "12"
    assert packages["libc6"]["purl"].startswith("pkg:deb/debian/libc6@")
    assert packages["libc6"]["licenses"]
    assert packages["libc6"]["metadata"]["files"]


def test_native_libraries_are_found_by_name_and_loaded(engine: docker.DockerClient, base: Base) -> None:
    script = (
        "import ctypes, ctypes.util, json;"
        "names = ['c', 'm', 'ssl', 'z', 'stdc++', 'gcc_s', 'sqlite3', 'expat'];"
        "found = {name: ctypes.util.find_library(name) for name in names};"
        "[ctypes.CDLL(path) for path in found.values()]; print(json.dumps(found))"
    )
    found = json.loads(run(engine, base.reference, "python3", "-c", script))
    assert found["c"] == "libc.so.6"
    assert found["stdc++"] == "libstdc++.so.6"
    assert None not in found.values()


def test_the_loaders_cache_holds_what_ldconfig_itself_finds(engine: docker.DockerClient, base: Base) -> None:
    names = "sed -n 's/ =>.*//p' | sort -u"
    cache = "/workspace/cache"
    script = f"ldconfig -p | {names}; echo; ldconfig -C {cache}; ldconfig -C {cache} -p | {names}"
    ours, _, theirs = run(engine, base.reference, "sh", "-c", script, user="0").partition("\n\n")
    assert "libc.so.6" in ours
    assert ours.split("\n") == theirs.rstrip("\n").split("\n")


def test_openssl_finds_certificates_in_the_bundle_and_in_the_folder(
    engine: docker.DockerClient, base: Base
) -> None:
    script = (
        "cd /etc/ssl/certs && for name in *.pem; do"
        " openssl verify -no-CAfile -CApath . $name;"
        " openssl verify -no-CApath -CAfile ca-certificates.crt $name;"
        " done | grep -vc ': OK$'; true"
    )
    assert run(engine, base.reference, "sh", "-c", script).strip() == "0"


@pytest.mark.slow
def test_wheels_with_native_code_are_imported(
    engine: docker.DockerClient, base: Base, tmp_path: Path
) -> None:
    settings = index_settings(os.environ)
    command = [str(tools.host_uv()), "pip", "install", "--quiet", "--target", str(tmp_path), "--no-deps"]
    command += [
        "--python-version=3.11",
        "--python-platform=x86_64-manylinux_2_28",
        *uv_arguments(settings),
        "numpy",
    ]
    subprocess.run(command, check=True, env=uv_environment(settings, os.environ))
    tmp_path.chmod(0o755)
    mount = {str(tmp_path): {"bind": "/mnt/wheels", "mode": "ro"}}
    script = "import numpy; print(numpy.linalg.inv(numpy.eye(3)).sum())"
    found = run(
        *(engine, base.reference, "python3", "-c", script),
        volumes=mount,
        environment={"PYTHONPATH": "/mnt/wheels"},
    )
    assert found.strip() == "3.0"


@pytest.mark.slow
def test_a_base_for_arm64_is_made_on_amd64_with_the_same_byte_code() -> None:
    arm = bases.base_image(bases.ensure_base("cpu", "3.11", "linux/arm64"))
    assert arm.platform == "linux/arm64"
    with opened(arm) as layer:
        loader = layer.extractfile("usr/lib/aarch64-linux-gnu/ld-linux-aarch64.so.1")
        cache = layer.extractfile("etc/ld.so.cache")
        assert loader
        assert cache
        assert loader.read(20)[18:] == bytes([183, 0])
        assert b"/usr/lib/aarch64-linux-gnu/libc.so.6" in cache.read()
    amd = bases.base_image(bases.ensure_base("cpu", "3.11", "linux/amd64"))
    name = "usr/lib/python3.11/json/__pycache__/decoder.cpython-311.pyc"
    assert byte_code(arm, name) == byte_code(amd, name)


def byte_code(image: Image, name: str) -> bytes:
    with opened(image, 1) as layer:
        content = layer.extractfile(name)
        assert content
        return content.read()


@pytest.mark.slow
@pytest.mark.parametrize("python", ["3.13", "3.14"])
def test_every_debian_release_of_the_catalogue_makes_a_base_that_runs(
    engine: docker.DockerClient, python: str
) -> None:
    try:
        base = bases.ensure_base("cpu", python, "linux/amd64")
    except MirrorError as error:
        if "valid until" not in str(error):
            raise
        pytest.skip(f"the mirror is outdated: {error}")
    script = (
        "import ssl, sqlite3, ctypes, ctypes.util, lzma, bz2, zoneinfo, multiprocessing, sys, json.decoder;"
        "zoneinfo.ZoneInfo('Europe/Paris'); ssl.create_default_context().get_ca_certs()[0];"
        "assert json.decoder.__cached__; print(sys.version_info[:2], ctypes.util.find_library('stdc++'))"
    )
    with lent(base):
        found = run(engine, base.reference, "python", "-c", script)
    assert found.strip() == f"({python.replace('.', ', ')}) libstdc++.so.6"


@pytest.mark.slow
def test_packages_of_the_users_own_come_with_what_they_need_and_the_command_adds_them(
    engine: docker.DockerClient, tmp_path: Path
) -> None:
    done = succeed(
        tmp_path, "base", "build", "cpu", "--missing", "--package=git", "--package=libgl1", "--json"
    )
    base = bases.ensure_base("cpu", "3.11", "linux/amd64", packages=["libgl1", "git"])
    assert done.json[0]["image_id"] == base.image_id
    script = "git --version; python -c 'import ctypes; ctypes.CDLL(\"libGL.so.1\")' && echo loaded"
    with lent(base):
        lines = run(engine, base.reference, "sh", "-c", script).splitlines()
    assert lines[0].startswith("git version")
    assert lines[1] == "loaded"

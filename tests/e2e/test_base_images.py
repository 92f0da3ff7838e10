"""The bases that the engine really runs: what docs/contract.md promises of them."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import docker
import pytest
import requests
from commands import succeed
from engine_bases import in_engine, lent
from standin_container import StandinContainer

from builder import bases
from builder.bases import catalogue
from builder.engine import buildkit_cli
from builder.host import apt
from builder.plan import Base

pytestmark = pytest.mark.engine

WRITABLE = r"""
find / -xdev \( -path /proc -o -path /sys -o -path /dev \) -prune -o ! -type l -writable -print 2>/dev/null
true
"""
# What an upstream image has and a base of ours lacks; apt insists on what its packages name.
UPSTREAM_PACKAGES = ("apt", "debconf", "diffutils", "dpkg", "init-system-helpers")
UPSTREAM_LOOKALIKE = r"""
FROM {base}
USER 0
RUN dpkg --purge --force-all tini && sed -i /trainpack/d /etc/passwd /etc/group && rm -r /workspace \
    && echo '_apt:*:42:65534::/nonexistent:/usr/sbin/nologin' >> /etc/passwd \
    && chmod 1777 /tmp && chmod u+s /usr/bin/tar && mkdir -m 777 /scratch && touch /usr/local/bin/pip
WORKDIR /
"""


def shell(engine: docker.DockerClient, image: str, script: str, user: str = "") -> str:
    output: bytes = engine.containers.run(image, ["sh", "-c", script], user=user, remove=True)
    return output.decode()


@pytest.fixture(scope="module")
def cuda(engine: docker.DockerClient) -> Base:
    return in_engine("cuda")


@pytest.fixture(scope="module")
def upstream(
    engine: docker.DockerClient, registry: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Base]:
    """A base made the upstream way, from an image of a registry that lacks what the contract wants."""
    lookalike = bases.ensure_base("cpu", "3.11", "linux/amd64", packages=UPSTREAM_PACKAGES)
    folder = tmp_path_factory.mktemp("upstream")
    (folder / "Dockerfile").write_text(UPSTREAM_LOOKALIKE.format(base=lookalike.reference))
    image = f"{registry}/library/python:3.11-slim-bookworm"
    environment = os.environ | {"DOCKER_BUILDKIT": "1", "BUILDX_BUILDER": "default"}
    with lent(lookalike):
        for arguments in (["build", "--quiet", f"--tag={image}", str(folder)], ["push", "--quiet", image]):
            subprocess.run([buildkit_cli(), *arguments], env=environment, check=True, capture_output=True)
    subprocess.run([buildkit_cli(), "rmi", image], check=True, capture_output=True)
    lines = apt.sources_text(os.environ, "bookworm").splitlines()
    mirrors = {line.split()[2]: line.split()[1] for line in lines}
    # A tag of its own, so that the base of the other tests stays what it is.
    changed = {**bases.load_catalogue().model_dump(), "revision": 999}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(catalogue, "load_catalogue", lambda: bases.Catalogue.model_validate(changed))
        patch.setenv(bases.UPSTREAM_PREFIX, f"{registry}/library")
        patch.setenv(apt.MIRROR, mirrors["bookworm"])
        built = bases.build_base("cpu", "3.11", "linux/amd64", "upstream")
    with lent(built):
        yield built


@pytest.fixture(params=["debian", "cuda", "upstream"])
def image(request: pytest.FixtureRequest) -> str:
    fixture = "base" if request.param == "debian" else request.param
    found: Base = request.getfixturevalue(fixture)
    return found.reference


def test_each_way_says_where_the_system_came_from(base: Base, upstream: Base) -> None:
    assert upstream.source == "upstream"
    assert upstream.reference != base.reference
    assert upstream.image_id != base.image_id


def test_python_and_tini_are_on_the_path_and_installers_and_compilers_are_not(
    engine: docker.DockerClient, image: str
) -> None:
    script = "python -c 'import sys; print(sys.version_info[:2])'; python3 -V; tini --version; id -u; pwd"
    lines = shell(engine, image, script).splitlines()
    assert lines[0] == "(3, 11)"
    assert lines[1].startswith("Python 3.11.")
    assert lines[2].startswith("tini version")
    assert lines[3:] == ["1000", "/workspace"]
    unwanted = "pip pip3 uv gcc cc g++ make git"
    assert shell(engine, image, f"for name in {unwanted}; do command -v $name || true; done") == ""


def test_the_whole_standard_library_is_there_with_byte_code_that_is_valid(
    engine: docker.DockerClient, image: str
) -> None:
    script = (
        "python -c 'import ssl, sqlite3, ctypes, lzma, bz2, distutils.util, multiprocessing, zoneinfo;"
        'zoneinfo.ZoneInfo("Europe/Paris"); ssl.create_default_context().get_ca_certs()[0]\''
        " && python -v -c 'import json.decoder' 2>&1 | grep -c 'code object from .*/usr.*[.]py$' || true"
    )
    assert shell(engine, image, script).splitlines()[-1] == "0"


@pytest.mark.parametrize("user", ["", "42420", "42420:0", "33:33", "1000:8"])
def test_nothing_but_the_workspace_is_writable_whoever_runs_it(
    engine: docker.DockerClient, image: str, user: str
) -> None:
    assert shell(engine, image, WRITABLE, user).split() == ["/workspace"]
    assert shell(engine, image, "stat -c %a /workspace", user).strip() == "1777"


def test_no_file_changes_its_user_and_all_belong_to_root(engine: docker.DockerClient, image: str) -> None:
    assert shell(engine, image, "find / -xdev ! -type c -perm /6000", "0") == ""
    assert shell(engine, image, "find / -xdev ! -user root", "0") == ""


def test_no_address_of_a_mirror_and_no_package_lists_are_left(
    engine: docker.DockerClient, image: str
) -> None:
    script = (
        "find /var/lib/apt/lists /var/cache/apt /var/log /tmp /run/secrets /etc/apt/sources.list* -type f"
    )
    assert shell(engine, image, f"{script} 2>/dev/null || true", "0") == ""
    assert shell(engine, image, "grep -rlE 'https?://' /etc/apt || true", "0") == ""


def test_what_was_removed_is_in_no_layer(engine: docker.DockerClient, image: str) -> None:
    layers = engine.images.get(image).attrs["RootFS"]["Layers"]
    # The second is WORKDIR's, which is empty.
    assert len(layers) <= 2


def test_the_cuda_base_differs_in_its_environment_alone(
    engine: docker.DockerClient, base: Base, cuda: Base
) -> None:
    cpu, gpu = (engine.images.get(each.reference).attrs for each in (base, cuda))
    assert cpu["RootFS"]["Layers"] == gpu["RootFS"]["Layers"]
    assert set(gpu["Config"]["Env"]) - set(cpu["Config"]["Env"]) == {
        "NVIDIA_VISIBLE_DEVICES=all",
        "NVIDIA_DRIVER_CAPABILITIES=compute,utility",
    }


def test_a_base_that_is_there_is_not_built_again(base: Base) -> None:
    said: list[str] = []
    assert bases.ensure_base("cpu", "3.11", "linux/amd64", say=said.append) == base
    assert said == []


def test_the_command_lists_what_is_built(base: Base, tmp_path: Path) -> None:
    rows = succeed(tmp_path, "base", "list", "--json").json
    found = {(row["name"], row["python"]): row for row in rows}
    assert found["cpu", "3.11"]["image_id"] == base.image_id
    assert {"3.11", "3.12", "3.13", "3.14"} == {python for _, python in found}


def test_the_stand_in_runs_in_a_container_and_answers_on_its_network(
    engine: docker.DockerClient, base: Base, standin_container: StandinContainer
) -> None:
    seen = requests.get(f"{standin_container.url}/_standin/state", timeout=10).json()
    script = (
        "import urllib.request, json; "
        f"print(json.dumps(json.load(urllib.request.urlopen('{standin_container.inside}/_standin/state'))))"
    )
    output = engine.containers.run(
        base.reference, ["python3", "-c", script], network=standin_container.network, remove=True
    )
    assert json.loads(output) == seen

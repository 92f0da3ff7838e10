"""The engine, the base image and the services of the end-to-end tests."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

import docker
import pytest
import requests
from engine_bases import in_engine
from standin_container import StandinContainer

from builder.engine import buildkit_cli, client
from builder.errors import EngineUnavailableError
from builder.plan import Base

TESTS = Path(__file__).parents[1]
TOKEN = "standin-token"


def unavailable(reason: str) -> NoReturn:
    """CI has to run everything; elsewhere a machine without an engine can still run the rest."""
    if os.environ.get("CI"):
        pytest.fail(reason)
    pytest.skip(reason)


@pytest.fixture(scope="session")
def engine() -> docker.DockerClient:
    try:
        return client()
    except EngineUnavailableError as error:
        unavailable(f"{error} ({error.remedy})")


@pytest.fixture(scope="session")
def base(engine: docker.DockerClient) -> Base:
    return in_engine()


@pytest.fixture(scope="session")
def base_image(base: Base) -> str:
    return base.reference


@pytest.fixture(scope="session")
def docker_compose_command(engine: docker.DockerClient) -> str:
    for command in (["docker", "compose"], ["docker-compose"]):
        if (
            shutil.which(command[0])
            and subprocess.run([*command, "version"], capture_output=True, check=False).returncode == 0
        ):
            return " ".join(command)
    unavailable("there is neither `docker compose` nor docker-compose: run scripts/test-services")


@pytest.fixture(scope="session")
def docker_compose_file() -> str:
    return str(TESTS / "services" / "compose.yml")


@pytest.fixture(scope="session")
def docker_setup(base: Base) -> str:
    os.environ["STANDIN_TOKEN"] = TOKEN
    build_service("registry", in_engine(packages=["docker-registry"]).reference)
    build_service("standin", base.reference)
    return "up --detach --no-build"


def build_service(name: str, base: str) -> None:
    command = [buildkit_cli(), "build", "--quiet", f"--build-arg=BASE={base}"]
    command += [f"--tag=trainpack-tests:{name}", f"--file={TESTS / 'services' / name}.Dockerfile", str(TESTS)]
    environment = os.environ | {"DOCKER_BUILDKIT": "1", "BUILDX_BUILDER": "default"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="session")
def registry(docker_services: Any, engine: docker.DockerClient) -> Iterator[str]:
    """`127.0.0.1:port` of an image registry, shared by the tests of a session: use names of your own."""
    address = _address(docker_services, "registry", 5000, "/v2/")
    yield address
    for tag in [tag for image in engine.images.list() for tag in image.tags if tag.startswith(f"{address}/")]:
        engine.images.remove(tag, force=True)


@pytest.fixture(scope="session")
def standin_container(docker_services: Any, docker_compose_project_name: str) -> StandinContainer:
    address = _address(docker_services, "standin", 8000, "/_standin/state")
    network = f"{docker_compose_project_name}_default"
    return StandinContainer(f"http://{address}", "http://standin:8000", network, TOKEN)


def _address(services: Any, name: str, port: int, path: str) -> str:
    address = f"127.0.0.1:{services.port_for(name, port)}"
    services.wait_until_responsive(
        check=lambda: _answers(f"http://{address}{path}"), timeout=60.0, pause=0.05
    )
    return address


def _answers(url: str) -> bool:
    try:
        return requests.get(url, timeout=5).ok
    except requests.ConnectionError:
        return False

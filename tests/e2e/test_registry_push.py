from __future__ import annotations

import base64
import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from commands import trainpack
from registries import HTPASSWD, PASSWORD, USER
from registries import registry as running_registry

from builder.engine import client
from builder.engine.containers import find_image
from builder.errors import (
    EngineError,
    RegistryDeniedError,
    RegistryError,
    RegistryUnavailableError,
    UsageError,
)
from builder.oci.remote.pull import RegistryClient
from builder.plan import BuiltImage
from builder.publish import adopt, publish
from builder.reference import parse_reference
from builder.workdir import last_push

pytest_plugins = ["contract_image"]
pytestmark = pytest.mark.engine


@pytest.fixture
def repository() -> str:
    return f"push/{os.urandom(4).hex()}"


@pytest.fixture
def image(contract_image: str, registry: str, repository: str) -> Iterator[BuiltImage]:
    """The contract image under a name in the tests' registry, where it is not yet."""
    yield from _tagged(contract_image, f"{registry}/{repository}:1.0.0-cccccccccccc")


def _tagged(source: str, reference: str) -> Iterator[BuiltImage]:
    name, _, tag = reference.rpartition(":")
    client().images.get(source).tag(name, tag=tag)
    yield find_image(reference)
    client().images.remove(reference, force=True)


def test_the_registry_then_has_that_image_under_the_digest(image: BuiltImage) -> None:
    told: list[str] = []
    published = publish(image, told.append)
    assert published.image_id == image.image_id
    registry = RegistryClient(parse_reference(image.reference))
    assert registry.digest() == published.digest
    assert image.image_id in registry.image_ids()
    assert len(told) >= len(set(image.layers))


def test_pushing_the_same_image_again_is_done_already(image: BuiltImage) -> None:
    first = publish(image, lambda line: None)
    told: list[str] = []
    assert publish(image, told.append) == first.model_copy(update={"new": False})
    assert told == [f"{image.reference} is in the registry already, with this image id"]


def test_a_tag_is_never_moved(image: BuiltImage, base_image: str) -> None:
    first = publish(image, lambda line: None)
    name, _, tag = image.reference.rpartition(":")
    client().images.get(base_image).tag(name, tag=tag)
    other = find_image(image.reference)
    assert other.image_id != image.image_id
    with pytest.raises(RegistryError, match="never moved"):
        publish(other, lambda line: None)
    assert RegistryClient(parse_reference(image.reference)).digest() == first.digest


def test_the_registrys_image_can_be_adopted_in_place_of_ones_own(image: BuiltImage, base_image: str) -> None:
    first = publish(image, lambda line: None)
    name, _, tag = image.reference.rpartition(":")
    client().images.get(base_image).tag(name, tag=tag)
    own = find_image(image.reference)
    with pytest.raises(RegistryError) as refused:
        publish(own, lambda line: None)
    assert "trainpack push --adopt" in str(refused.value.remedy)
    there = first.model_copy(update={"new": False})
    assert adopt(own, lambda line: None) == (find_image(image.reference), there)
    assert find_image(image.reference).image_id == image.image_id != own.image_id


def test_the_image_of_the_record_is_pushed_or_none(image: BuiltImage, base_image: str) -> None:
    name, _, tag = image.reference.rpartition(":")
    client().images.get(base_image).tag(name, tag=tag)
    with pytest.raises(EngineError, match=f"expected {image.image_id}"):
        publish(image, lambda line: None)


@pytest.mark.parametrize("tag", ["latest", ""])
def test_latest_is_refused(tag: str, contract_image: str, registry: str, repository: str) -> None:
    image = find_image(contract_image)
    reference = f"{registry}/{repository}" + (f":{tag}" if tag else "")
    with pytest.raises(UsageError, match="never moves"):
        publish(image.model_copy(update={"reference": reference}), lambda line: None)


def test_an_unreachable_registry_is_told(contract_image: str) -> None:
    for image in _tagged(contract_image, "127.0.0.1:1/push:1.0.0"):
        with pytest.raises(RegistryUnavailableError, match="registry 127"):
            publish(image, lambda line: None)


def test_a_registry_that_wants_credentials_refuses_with_a_remedy(
    contract_image: str, repository: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    (tmp_path / "htpasswd").write_text(HTPASSWD)
    auth = {"htpasswd": {"realm": "tests", "path": str(tmp_path / "htpasswd")}}
    with running_registry(tmp_path, auth=auth) as address:
        for image in _tagged(contract_image, f"{address}/{repository}:1.0.0"):
            with pytest.raises(RegistryDeniedError) as caught:
                publish(image, lambda line: None)
    assert f"docker login {address}" in str(caught.value.remedy)


def test_the_command_uses_dockers_login_prints_the_digest_and_remembers_it(
    contract_image: str, repository: str, tmp_path: Path
) -> None:
    (tmp_path / "htpasswd").write_text(HTPASSWD)
    (tmp_path / "project").mkdir()
    auth = {"htpasswd": {"realm": "tests", "path": str(tmp_path / "htpasswd")}}
    with running_registry(tmp_path, auth=auth) as address:
        login = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
        (tmp_path / "config.json").write_text(json.dumps({"auths": {address: {"auth": login}}}))
        for image in _tagged(contract_image, f"{address}/{repository}:1.0.0"):
            env = {"DOCKER_CONFIG": str(tmp_path)}
            done = trainpack(tmp_path / "project", "push", image.reference, "--json", env=env)
            assert done.code == 0, done.output
            assert PASSWORD not in done.output
            remembered = last_push(tmp_path / "project", image.image_id)
            assert remembered
            assert done.json == remembered.model_dump()
            assert done.json["digest"].startswith("sha256:")

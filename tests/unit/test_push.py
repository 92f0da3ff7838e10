from __future__ import annotations

from typing import Any

import pytest

from builder.errors import RegistryDeniedError, RegistryError, RegistryUnavailableError
from builder.publish import follow_push, push_error
from builder.reference import Reference

REFERENCE = Reference("registry.example.com/vision/pedestrian", "1.2.0-0123456789ab")


def test_a_push_ends_with_the_registrys_digest_and_tells_each_layer_once() -> None:
    events: list[dict[str, Any]] = [
        {"status": "The push refers to repository [registry.example.com/vision/pedestrian]"},
        {"status": "Preparing", "progressDetail": {}, "id": "aaa"},
        {"status": "Pushing", "progressDetail": {"current": 1, "total": 2}, "id": "aaa"},
        {"status": "Layer already exists", "progressDetail": {}, "id": "bbb"},
        {"status": "Pushed", "progressDetail": {}, "id": "aaa"},
        {"status": "1.2.0: digest: sha256:1 size: 1"},
        {"progressDetail": {}, "aux": {"Tag": "1.2.0", "Digest": "sha256:1", "Size": 1}},
    ]
    told: list[str] = []
    assert follow_push(REFERENCE, events, told.append) == "sha256:1"
    assert told == ["bbb: layer already exists", "aaa: pushed"]


def test_a_push_without_a_digest_has_failed() -> None:
    with pytest.raises(RegistryError, match="without a digest"):
        follow_push(REFERENCE, [{"status": "Pushed", "id": "aaa"}], lambda line: None)


def test_an_error_event_fails_the_push() -> None:
    events = [{"errorDetail": {"message": "denied"}, "error": "denied: access forbidden"}]
    with pytest.raises(RegistryDeniedError, match="access forbidden"):
        follow_push(REFERENCE, events, lambda line: None)


@pytest.mark.parametrize(
    ("message", "kind", "remedy"),
    [
        ("denied: requested access is denied", RegistryDeniedError, "docker login registry.example.com"),
        ("unauthorized: authentication required", RegistryDeniedError, "docker login registry.example.com"),
        ("no basic auth credentials", RegistryDeniedError, "docker login registry.example.com"),
        ("dial tcp: lookup x: no such host", RegistryUnavailableError, "network"),
        ("dial tcp 10.0.0.1:443: i/o timeout", RegistryUnavailableError, "network"),
        ("manifest invalid", RegistryError, "None"),
    ],
)
def test_a_failed_push_says_what_to_do(message: str, kind: type[RegistryError], remedy: str) -> None:
    error = push_error(REFERENCE, message)
    assert type(error) is kind
    assert remedy in str(error.remedy)


def test_without_a_registry_in_the_name_the_login_is_dockers_default() -> None:
    error = push_error(Reference("pedestrian", "1"), "denied")
    assert str(error.remedy).startswith("`docker login`")

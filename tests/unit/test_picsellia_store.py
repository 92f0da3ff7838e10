"""PicselliaStore over the unmodified SDK, against the stand-in platform."""

from __future__ import annotations

import os
import subprocess
import sys
import time
import traceback
from pathlib import Path
from typing import Any

import pytest
from picsellia_standin import Standin

from builder.errors import NotFoundError, StoreError, UsageError
from builder.host.credentials import Credentials, make_credentials
from builder.models.names import VersionName
from builder.models.picsellia import PicselliaStore
from builder.models.picsellia.fields import readable_flags
from builder.models.records import DIGEST_VARIABLE, DockerImage, VersionFields
from builder.models.store import ModelStore
from builder.models.transport import Patience

NAME = VersionName(store="picsellia", model="pedestrian", version="v3")
IMAGE = DockerImage(
    name="registry.example.com/vision/pedestrian",
    tag="1.2.0-0123456789ab",
    digest="sha256:" + "ab" * 32,
    flags=("--gpus=all", "--ipc=host"),
    env={"architecture": "resnet18"},
)
FIELDS = VersionFields(
    description="finds people",
    framework="PYTORCH",
    type="OBJECT_DETECTION",
    labelmap={"0": "car", "1": "person"},
    parameters={"epochs": 10, "rate": 0.001, "augment": True, "sizes": [1, 2]},
    image=IMAGE,
)
IMPATIENT = Patience(tries=3, pause=0.001)


@pytest.fixture
def store(platform: Standin) -> PicselliaStore:
    return connect(platform)


def connect(platform: Standin, **values: str) -> PicselliaStore:
    return PicselliaStore.connect(credentials(platform, **values), IMPATIENT)


def credentials(platform: Standin, **values: str) -> Credentials:
    return make_credentials({"token": platform.token, "host": platform.url} | values, "the test")


def methods(platform: Standin, since: int = 0) -> list[str]:
    return [request.method for request in platform.requests[since:]]


def test_it_is_a_model_store(store: PicselliaStore) -> None:
    checked: ModelStore = store
    assert list(checked.versions.list()) == []


def test_a_created_version_reads_back_with_every_field(store: PicselliaStore) -> None:
    created = store.versions.create(NAME, FIELDS)
    assert created.fields == FIELDS
    assert store.versions.get(NAME) == created
    assert created.name == NAME


def test_every_field_is_on_the_wire_under_the_platforms_own_key(
    platform: Standin, store: PicselliaStore
) -> None:
    version = platform.versions[store.versions.create(NAME, FIELDS).id]
    assert version.model.name == "pedestrian"
    assert version.fields | {"notebook_link": None, "thumbnail_object_name": None} == {
        "description": "finds people",
        "framework": "PYTORCH",
        "type": "OBJECT_DETECTION",
        "labels": {"0": "car", "1": "person"},
        "parameters": FIELDS.parameters,
        "docker_image": IMAGE.name,
        "docker_tag": IMAGE.tag,
        "docker_flags": ["--gpus=all", "--ipc=host"],
        "docker_env_variables": {"architecture": "resnet18", DIGEST_VARIABLE: IMAGE.digest},
        "notebook_link": None,
        "thumbnail_object_name": None,
    }


def test_a_version_of_an_existing_model_joins_it(platform: Standin, store: PicselliaStore) -> None:
    platform.add_model_version("pedestrian", "v2")
    store.versions.create(NAME, FIELDS)
    assert [version.name for version in platform.versions.values()] == ["v2", "v3"]
    assert len(platform.models) == 1


def test_an_empty_version_reads_as_nothing_set(platform: Standin, store: PicselliaStore) -> None:
    platform.add_model_version("pedestrian", "v3")
    assert store.versions.get(NAME).fields == VersionFields(parameters={})


@pytest.mark.parametrize("key", ["parameters", "base_parameters"])
def test_parameters_are_read_under_both_names(platform: Standin, store: PicselliaStore, key: str) -> None:
    platform.add_model_version("pedestrian", "v3", parameters={"epochs": 3})
    platform.parameters_key = key
    assert store.versions.get(NAME).fields.parameters == {"epochs": 3}


def test_an_update_is_one_patch_and_leaves_other_fields(platform: Standin, store: PicselliaStore) -> None:
    store.versions.create(NAME, FIELDS)
    before = len(platform.requests)
    image = IMAGE.model_copy(update={"tag": "1.3.0-ba9876543210", "digest": None, "env": {}})
    updated = store.versions.update(NAME, VersionFields(image=image, parameters={"epochs": 1}))
    assert methods(platform, before).count("PATCH") == 1
    assert updated.fields == FIELDS.model_copy(update={"image": image, "parameters": {"epochs": 1}})
    assert platform.versions[updated.id].fields["docker_env_variables"] == {}


def test_an_empty_update_sends_no_patch(platform: Standin, store: PicselliaStore) -> None:
    store.versions.create(NAME, FIELDS)
    assert store.versions.update(NAME, VersionFields()).fields == FIELDS
    assert "PATCH" not in methods(platform)


def test_every_version_is_listed_with_its_image(platform: Standin, store: PicselliaStore) -> None:
    platform.add_model_version("a", "v1", docker_image="x", docker_tag="1")
    platform.add_model_version("a", "v2", parameters={"epochs": 2})
    platform.add_model_version("b", "v1")
    found = {str(version.name): version for version in store.versions.list()}
    assert list(found) == ["picsellia:a/v1", "picsellia:a/v2", "picsellia:b/v1"]
    assert found["picsellia:a/v1"].image == "x:1"
    assert found["picsellia:a/v2"].image is None
    assert [summary.name.version for summary in store.versions.list("b")] == ["v1"]


@pytest.mark.parametrize(("model", "missing"), [("other", "model 'pedestrian'"), ("pedestrian", "'v3'")])
@pytest.mark.parametrize("operation", ["get", "update"])
def test_a_missing_version_is_told_with_the_way_to_create_it(
    platform: Standin, store: PicselliaStore, model: str, missing: str, operation: str
) -> None:
    platform.add_model_version(model, "v2")
    with pytest.raises(NotFoundError, match=missing) as caught:
        store.versions.get(NAME) if operation == "get" else store.versions.update(NAME, FIELDS)
    assert caught.value.remedy == "create it: trainpack attach picsellia:pedestrian/v3 --create"


def test_creating_an_existing_version_is_refused_and_changes_nothing(
    platform: Standin, store: PicselliaStore
) -> None:
    id = platform.add_model_version("pedestrian", "v3", description="old")
    with pytest.raises(StoreError, match="exists already"):
        store.versions.create(NAME, FIELDS)
    assert platform.versions[id].fields["description"] == "old"
    assert "POST" not in methods(platform)


def test_a_model_made_for_a_version_that_fails_is_removed(platform: Standin, store: PicselliaStore) -> None:
    platform.fail("POST", "/versions$", status=400, times=None, message="no more versions")
    with pytest.raises(StoreError, match="no more versions"):
        store.versions.create(NAME, FIELDS)
    assert not platform.models


def test_a_model_that_was_there_stays_when_its_version_fails(
    platform: Standin, store: PicselliaStore
) -> None:
    platform.add_model("pedestrian")
    platform.fail("POST", "/versions$", status=400, times=None)
    with pytest.raises(StoreError):
        store.versions.create(NAME, FIELDS)
    assert [model.name for model in platform.models.values()] == ["pedestrian"]


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"type": "MULTI"}, "takes no type MULTI for a version, though it lists it"),
        ({"type": "DETECTION"}, "'DETECTION' is no type: .* OBJECT_DETECTION"),
        ({"framework": "SKLEARN"}, "'SKLEARN' is no framework: .* TENSORFLOW, PYTORCH, ONNX"),
        ({"parameters": {"rate": float("nan")}}, "the parameters cannot be stored as JSON"),
        ({"image": IMAGE.model_copy(update={"env": {DIGEST_VARIABLE: "x"}})}, "set by trainpack itself"),
    ],
)
def test_what_the_platform_does_not_take_is_refused_before_any_write(
    platform: Standin, store: PicselliaStore, fields: dict[str, Any], expected: str
) -> None:
    with pytest.raises(UsageError, match=expected):
        store.versions.create(NAME, VersionFields(**fields))
    assert not platform.models
    store.versions.create(NAME, FIELDS)
    with pytest.raises(UsageError, match=expected):
        store.versions.update(NAME, VersionFields(**fields))
    assert "PATCH" not in methods(platform)


@pytest.mark.parametrize("type", ["MASK", "mask", "LINE", "POINT"])
def test_a_version_can_be_created_with_any_type_that_the_sdk_lets_through(
    store: PicselliaStore, type: str
) -> None:
    assert store.versions.create(NAME, VersionFields(type=type)).fields.type == type.upper()


def test_not_configured_is_never_sent(platform: Standin, store: PicselliaStore) -> None:
    nothing = VersionFields(type="NOT_CONFIGURED", framework="NOT_CONFIGURED")
    assert store.versions.create(NAME, nothing).fields.type is None
    store.versions.update(NAME, nothing)
    assert "PATCH" not in methods(platform)


@pytest.mark.parametrize("field", ["type", "framework"])
def test_a_field_cannot_go_back_to_not_configured(store: PicselliaStore, field: str) -> None:
    store.versions.create(NAME, FIELDS)
    with pytest.raises(UsageError, match=f"{field} .* cannot go back") as caught:
        store.versions.update(NAME, VersionFields(**{field: "NOT_CONFIGURED"}))
    assert f"leave [model] {field} out" in str(caught.value.remedy)


def test_an_existing_version_cannot_become_mask(platform: Standin, store: PicselliaStore) -> None:
    store.versions.create(NAME, FIELDS)
    with pytest.raises(UsageError, match="cannot become MASK"):
        store.versions.update(NAME, VersionFields(type="MASK"))
    assert "PATCH" not in methods(platform)


def test_a_mask_version_can_be_updated_with_its_own_type(store: PicselliaStore) -> None:
    store.versions.create(NAME, VersionFields(type="MASK"))
    updated = store.versions.update(NAME, VersionFields(type="MASK", description="new"))
    assert (updated.fields.type, updated.fields.description) == ("MASK", "new")


@pytest.mark.parametrize(
    ("stored", "shown"),
    [
        (["--gpus all", "--ipc host"], ("--gpus=all", "--ipc=host")),
        ("--gpus all --ipc=host --ulimit memlock=-1", ("--gpus=all", "--ipc=host", "--ulimit=memlock=-1")),
        (["--privileged", "--name training"], ("--name=training", "--privileged")),
        (["--frobnicate", "-v /a:/b"], ("--frobnicate", "--volume=/a:/b")),
        (["just words"], ("just words",)),
        (['--label "open'], ('--label "open',)),
    ],
)
def test_any_stored_flags_are_readable(stored: str | list[str], shown: tuple[str, ...]) -> None:
    assert readable_flags(stored) == shown


def test_a_wrong_token_is_refused_and_never_shown(
    platform: Standin, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    wrong = "wrong-0123456789"
    platform.fail("GET", "/api/home/ping", status=401, message=f"the token {wrong} is unknown")
    with pytest.raises(StoreError, match="refused the token") as caught:
        connect(platform, token=wrong)
    assert caught.value.remedy == "run `trainpack login`"
    captured = capfd.readouterr()
    shown = "".join(traceback.format_exception(caught.value)) + repr(caught.value)
    assert wrong not in shown + captured.out + captured.err + caplog.text
    assert "the token *** is unknown" in shown


def test_a_token_that_stops_working_is_told(platform: Standin, store: PicselliaStore) -> None:
    platform.token = "another"
    with pytest.raises(StoreError, match="refused the token: Unauthorized"):
        store.versions.get(NAME)


def test_a_foreign_organization_is_told(platform: Standin) -> None:
    with pytest.raises(StoreError, match="not a member of this organization"):
        connect(platform, organization_id="00000000-0000-4000-8000-000000000000")
    with pytest.raises(NotFoundError, match="Organization not found"):
        connect(platform, organization_name="elsewhere")


def test_an_organization_is_chosen_by_name_or_id(platform: Standin) -> None:
    by_name = connect(platform, organization_name="standin").account()
    assert by_name == connect(platform, organization_id=platform.organization_id).account()
    assert (by_name.user, by_name.organization, by_name.host) == ("ada", "standin", platform.url)


@pytest.mark.parametrize("status", [500, 502, 503, 504, 429, 0])
@pytest.mark.parametrize("method", ["GET", "PATCH"])
def test_a_passing_failure_is_outlasted(
    platform: Standin, store: PicselliaStore, status: int, method: str
) -> None:
    store.versions.create(NAME, FIELDS)
    platform.fail(method, "/api/model/", status=status, times=2)
    assert store.versions.update(NAME, VersionFields(description="new")).fields.description == "new"


@pytest.mark.parametrize("status", [500, 502, 503, 504, 429, 0])
@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("path", ["/models$", "/versions$"])
def test_a_failure_while_creating_makes_one_version_and_no_second(
    platform: Standin, store: PicselliaStore, status: int, after: bool, path: str
) -> None:
    platform.fail("POST", path, status=status, after=after and status not in (429, 503))
    assert store.versions.create(NAME, FIELDS).fields == FIELDS
    assert (len(platform.models), len(platform.versions)) == (1, 1)
    assert 409 not in [request.status for request in platform.requests]


def test_retry_after_is_kept(
    platform: Standin, store: PicselliaStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    waits: list[float] = []
    monkeypatch.setattr(time, "sleep", waits.append)
    platform.add_model_version("pedestrian", "v3")
    platform.fail("GET", "/models/find", status=429, headers={"Retry-After": "7"})
    platform.fail("GET", "/versions/find", status=503, headers={"Retry-After": "86400"})
    store.versions.get(NAME)
    assert [seconds for seconds in waits if seconds] == [7.0, 30.0]


@pytest.mark.parametrize("status", [500, 502, 503, 504])
def test_a_lasting_failure_ends_after_a_bounded_number_of_tries(
    platform: Standin, store: PicselliaStore, status: int
) -> None:
    platform.fail("GET", "/models/find", status=status, times=None, message="out of order")
    before = len(platform.requests)
    with pytest.raises(StoreError, match="the platform failed") as caught:
        store.versions.get(NAME)
    assert len(platform.requests) - before == IMPATIENT.tries
    assert caught.value.place == platform.url


def test_creating_ends_after_a_bounded_number_of_tries(platform: Standin, store: PicselliaStore) -> None:
    platform.add_model("pedestrian")
    platform.fail("POST", "/versions$", status=500, times=None)
    with pytest.raises(StoreError, match="the platform failed"):
        store.versions.create(NAME, FIELDS)
    assert methods(platform).count("POST") == IMPATIENT.tries


def test_an_overloaded_platform_is_told(platform: Standin, store: PicselliaStore) -> None:
    platform.fail("GET", "/models/find", status=429, times=None)
    with pytest.raises(StoreError, match="overloaded"):
        store.versions.get(NAME)


def test_a_refused_connection_is_told_with_the_host(platform: Standin) -> None:
    platform.stop()
    with pytest.raises(StoreError, match="does not answer: connection refused") as caught:
        connect(platform)
    assert caught.value.place == platform.url
    assert "Traceback" not in str(caught.value)


def test_a_platform_that_goes_away_and_comes_back_is_found_again(
    platform: Standin, store: PicselliaStore
) -> None:
    platform.add_model_version("pedestrian", "v3")
    platform.stop()
    with pytest.raises(StoreError, match="does not answer"):
        store.versions.get(NAME)
    platform.start()
    assert store.versions.get(NAME).name == NAME


def test_a_host_that_is_no_platform_is_told(platform: Standin) -> None:
    platform.fail("GET", "/api/home/ping", status=200)
    with pytest.raises(StoreError, match="not what the SDK expects") as caught:
        connect(platform)
    assert caught.value.remedy == "check that the host is a Picsellia platform"


def test_a_login_in_netrc_does_not_replace_the_token(
    platform: Standin, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login ada password other\n")
    netrc.chmod(0o600)
    monkeypatch.setenv("NETRC", str(netrc))
    assert connect(platform).account().user == "ada"


def test_a_missing_sdk_is_told_with_the_way_to_install_it(
    platform: Standin, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "picsellia", None)
    with pytest.raises(StoreError, match="SDK cannot be imported") as caught:
        connect(platform)
    assert caught.value.remedy == "pip install 'trainpack[picsellia]'"


def test_connecting_prints_nothing_and_leaves_logging_alone(platform: Standin) -> None:
    script = (
        "import logging, sys\n"
        "from builder.host.credentials import make_credentials\n"
        "from builder.models.picsellia import PicselliaStore\n"
        "assert 'picsellia' not in sys.modules\n"
        "PicselliaStore.connect(make_credentials({'token': sys.argv[1], 'host': sys.argv[2]}, 'test'))\n"
        "assert logging.getLogger().handlers == []\n"
    )
    env = {key: value for key, value in os.environ.items() if key != "PICSELLIA_SDK_CUSTOM_LOGGING"}
    done = subprocess.run(
        [sys.executable, "-c", script, platform.token, platform.url],
        env=env,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")

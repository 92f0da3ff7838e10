"""The read side of the registry client, against a real registry; faults against a scripted server."""

from __future__ import annotations

import base64
import gzip
import hashlib
import io
import json
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import oci_images
import pytest
import requests
from docker import auth
from hypothesis import given
from hypothesis import strategies as st
from registries import (
    HTPASSWD,
    MANIFEST_TYPE,
    PASSWORD,
    USER,
    layer,
    log_in,
    push,
    push_index,
    put_manifest,
    registry,
)

from builder.errors import (
    ImageNotFoundError,
    RegistryDeniedError,
    RegistryError,
    RegistryUnavailableError,
    UsageError,
)
from builder.oci.blobs import Blobs
from builder.oci.remote import transport
from builder.oci.remote.pull import RegistryClient
from builder.oci.remote.push import push as push_image
from builder.reference import Reference, parse_reference

Answer = tuple[int, dict[str, str], bytes]


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with registry(tmp_path_factory.mktemp("registry")) as address:
        yield address


@pytest.fixture(autouse=True)
def _no_credentials(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transport, "BACKOFF_SECONDS", 0.001)
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))


def client(reference: str, **options: str) -> RegistryClient:
    return RegistryClient(parse_reference(reference), **options)


@contextmanager
def scripted(answers: dict[str, list[Answer]]) -> Iterator[tuple[str, list[tuple[str, str, str]]]]:
    """A server that gives each path's answers in turn, the last for ever; and what it was asked."""
    asked: list[tuple[str, str, str]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            length = int(self.headers.get("Content-Length") or 0)
            asked.append((self.path, self.headers.get("Authorization", ""), self.rfile.read(length).decode()))
            queue = answers.get(self.path.partition("?")[0], [(404, {}, b"")])
            status, headers, body = queue.pop(0) if len(queue) > 1 else queue[0]
            self.send_response(status)
            for name, value in {"Content-Length": str(len(body)), **headers}.items():
                self.send_header(name, value.replace("HOST", self.headers["Host"]))
            self.end_headers()
            self.wfile.write(body)

        do_POST = do_GET  # noqa: N815

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    try:
        yield f"127.0.0.1:{server.server_port}", asked
    finally:
        server.shutdown()
        server.server_close()


def manifest_answer(**changes: object) -> tuple[bytes, dict[str, str]]:
    body = json.dumps({"schemaVersion": 2, "mediaType": MANIFEST_TYPE, **changes}).encode()
    return body, {"Content-Type": MANIFEST_TYPE}


def test_a_tag_resolves_to_the_digest_that_the_registry_gave_at_the_push(host: str) -> None:
    pushed = push(f"{host}/a/tagged:1", [layer({"x": b"1"})])
    manifest = client(pushed.reference).manifest()
    assert manifest.digest == pushed.digest
    assert manifest.media_type == MANIFEST_TYPE
    assert manifest.document["config"]["digest"] == pushed.image_id


def test_a_digest_in_the_reference_wins_over_its_tag(host: str) -> None:
    first = push(f"{host}/a/moved:1", [layer({"x": b"1"})])
    push(f"{host}/a/moved:1", [layer({"x": b"2"})])
    assert client(f"{first.reference}@{first.digest}").digest() == first.digest
    assert client(first.reference).digest() != first.digest


def test_config_and_labels_are_those_of_the_image(host: str) -> None:
    pushed = push(f"{host}/a/labelled:1", labels={"io.trainpack.contract": "1"})
    assert client(pushed.reference).config()["architecture"] == "amd64"
    assert client(pushed.reference).labels() == {"io.trainpack.contract": "1"}


def test_an_image_without_labels_has_none(host: str) -> None:
    assert client(push(f"{host}/a/bare:1").reference).labels() == {}


def test_an_index_is_followed_to_the_image_of_the_platform(host: str) -> None:
    arm = push(f"{host}/a/multi:arm", labels={"for": "arm64"})
    amd = push(f"{host}/a/multi:amd", labels={"for": "amd64"})
    index = push_index(f"{host}/a/multi:1", {"linux/arm64": arm.digest, "linux/amd64": amd.digest})
    assert client(f"{host}/a/multi:1").labels() == {"for": "amd64"}
    assert client(f"{host}/a/multi:1", platform="linux/arm64").labels() == {"for": "arm64"}
    assert client(f"{host}/a/multi:1").image_ids() == (amd.image_id, amd.digest, index)


def test_an_index_without_the_platform_names_the_platforms_it_has(host: str) -> None:
    arm = push(f"{host}/a/onlyarm:arm")
    push_index(f"{host}/a/onlyarm:1", {"linux/arm64": arm.digest})
    with pytest.raises(RegistryError, match=r"not for linux/amd64, only for linux/arm64"):
        client(f"{host}/a/onlyarm:1").config()


def test_a_file_is_read_from_the_uppermost_layer_that_has_it(host: str) -> None:
    layers = [layer({"etc/a": b"below"}), layer({"etc/a": b"above"}), layer({"./etc/b": b"dotted"})]
    reader = client(push(f"{host}/a/files:1", layers).reference)
    assert reader.read_file("etc/a") == b"above"
    assert reader.read_file("etc/b") == b"dotted"
    assert reader.read_file("etc/none") is None


def test_a_layer_that_is_no_archive_is_an_error_not_a_traceback(host: str) -> None:
    pushed = push(f"{host}/a/garbage:1", [b"not a tar"])
    with pytest.raises(RegistryError, match="a layer cannot be read"):
        client(pushed.reference).read_file("etc/a")


@given(st.lists(st.tuples(st.floats(0, 1), st.binary(min_size=1, max_size=24)), max_size=4), st.booleans())
def test_a_damaged_layer_is_read_or_refused_whatever_the_damage(
    damage: list[tuple[float, bytes]], compressed: bool
) -> None:
    content = bytearray(layer({"etc/a": b"1" * 600, "ü" * 80: b"2"}))
    if not compressed:
        content = bytearray(gzip.decompress(content))
    for where, what in damage:
        at = int(where * (len(content) - len(what)))
        content[at : at + len(what)] = what
    with suppress(RegistryError):
        client("127.0.0.1:1/a/b:1")._member(io.BytesIO(content), "etc/a")


def test_an_unknown_tag_and_an_unknown_repository_are_not_found(host: str) -> None:
    push(f"{host}/a/known:1")
    for name in ("a/known:2", "a/unknown:1"):
        with pytest.raises(ImageNotFoundError, match="404"):
            client(f"{host}/{name}").digest()


def test_a_reference_without_tag_and_digest_is_refused(host: str) -> None:
    with pytest.raises(UsageError, match="neither tag nor digest"):
        RegistryClient(Reference(f"{host}/a/b"))


def test_a_registry_that_does_not_listen_is_unavailable(host: str) -> None:
    with scripted({}) as (closed, _):
        pass
    with pytest.raises(RegistryUnavailableError, match=rf"{closed} does not answer: .*refused"):
        client(f"{closed}/a/b:1").digest()


@pytest.fixture(scope="module")
def private(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("private")
    (folder / "htpasswd").write_text(HTPASSWD)
    settings = {"auth": {"htpasswd": {"realm": "private", "path": str(folder / "htpasswd")}}}
    with registry(folder, **settings) as address:
        session = requests.Session()
        session.auth = (USER, PASSWORD)
        push(f"{address}/a/b:1", session=session)
        yield address


def test_basic_credentials_come_from_docker_login(private: str, tmp_path: Path) -> None:
    log_in(tmp_path, private, USER, PASSWORD)
    assert client(f"{private}/a/b:1").digest().startswith("sha256:")


def test_without_credentials_access_is_denied_with_the_login_command(private: str) -> None:
    with pytest.raises(RegistryDeniedError, match="denies access") as caught:
        client(f"{private}/a/b:1").digest()
    assert f"docker login {private}" in str(caught.value.remedy)


def test_a_wrong_password_is_denied_and_not_shown(private: str, tmp_path: Path) -> None:
    log_in(tmp_path, private, USER, "wr0ng-word")
    with pytest.raises(RegistryDeniedError) as caught:
        client(f"{private}/a/b:1").digest()
    assert "wr0ng-word" not in f"{caught.value} {caught.value.remedy} {caught.value.details}"


def test_credentials_come_from_a_credential_helper(
    private: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    helper = tmp_path / "docker-credential-testing"
    answer = json.dumps({"Username": USER, "Secret": PASSWORD, "ServerURL": private})
    helper.write_text(f"#!/bin/sh\ncat > /dev/null\necho '{answer}'\n")
    helper.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    (tmp_path / "config.json").write_text(json.dumps({"credHelpers": {private: "testing"}}))
    assert client(f"{private}/a/b:1").digest().startswith("sha256:")


@pytest.mark.filterwarnings("ignore:docker-credential-nowhere")
def test_a_missing_credential_helper_is_a_clear_error(private: str, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"credsStore": "nowhere"}))
    with pytest.raises(RegistryError, match=f"docker's credentials for {private} cannot be read"):
        client(f"{private}/a/b:1").digest()


def test_a_netrc_entry_is_never_sent(private: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    netrc = tmp_path / "netrc"
    netrc.write_text(f"machine 127.0.0.1 login {USER} password {PASSWORD}\n")
    monkeypatch.setenv("NETRC", str(netrc))
    with pytest.raises(RegistryDeniedError):
        client(f"{private}/a/b:1").digest()


BEARER = {"WWW-Authenticate": 'Bearer realm="http://HOST/token",service="here",scope="repository:a/b:pull"'}


def bearer_answers() -> dict[str, list[Answer]]:
    body, headers = manifest_answer()
    return {
        "/v2/a/b/manifests/1": [(401, BEARER, b""), (200, headers, body)],
        "/token": [(200, {}, b'{"token": "short-lived"}')],
    }


def test_a_token_is_asked_for_with_the_credentials_and_then_sent(tmp_path: Path) -> None:
    with scripted(bearer_answers()) as (host, asked):
        log_in(tmp_path, host, "u", "p")
        client(f"{host}/a/b:1").digest()
    requests_by_path = {path: authorization for path, authorization, _ in asked}
    basic = base64.b64encode(b"u:p").decode()
    assert requests_by_path["/token?service=here&scope=repository%3Aa%2Fb%3Apull"] == f"Basic {basic}"
    assert requests_by_path["/v2/a/b/manifests/1"] == "Bearer short-lived"


def test_an_anonymous_token_is_asked_for_without_credentials() -> None:
    with scripted(bearer_answers()) as (host, asked):
        client(f"{host}/a/b:1").digest()
    assert [authorization for path, authorization, _ in asked if path.startswith("/token")] == [""]


def test_an_identity_token_is_exchanged_by_post(tmp_path: Path) -> None:
    with scripted(bearer_answers()) as (host, asked):
        config = {"auths": {host: {"auth": "", "identitytoken": "long-lived"}}}
        (tmp_path / "config.json").write_text(json.dumps(config))
        client(f"{host}/a/b:1").digest()
    bodies = [body for path, _, body in asked if path == "/token"]
    assert len(bodies) == 1
    assert "refresh_token=long-lived" in bodies[0]


def test_credentials_are_not_sent_to_a_token_address_without_tls(tmp_path: Path) -> None:
    challenge = {"WWW-Authenticate": 'Bearer realm="http://registry.example.com/token"'}
    with scripted({"/v2/a/b/manifests/1": [(401, challenge, b"")]}) as (host, _):
        log_in(tmp_path, host, "u", "p")
        with pytest.raises(RegistryError, match="not https"):
            client(f"{host}/a/b:1").digest()


@pytest.mark.parametrize("status", [500, 503])
def test_a_broken_registry_is_unavailable_and_the_status_is_told(status: int) -> None:
    with (
        scripted({"/v2/a/b/manifests/1": [(status, {}, b"")]}) as (host, _),
        pytest.raises(RegistryUnavailableError, match=str(status)),
    ):
        client(f"{host}/a/b:1").digest()


def test_a_busy_registry_is_asked_again() -> None:
    body, headers = manifest_answer()
    with scripted({"/v2/a/b/manifests/1": [(503, {}, b""), (200, headers, body)]}) as (host, asked):
        assert client(f"{host}/a/b:1").digest() == f"sha256:{hashlib.sha256(body).hexdigest()}"
    assert len([path for path, _, _ in asked if "manifests" in path]) == 2


def test_content_of_another_digest_than_announced_is_refused() -> None:
    body, headers = manifest_answer()
    headers["Docker-Content-Digest"] = f"sha256:{'0' * 64}"
    with (
        scripted({"/v2/a/b/manifests/1": [(200, headers, body)]}) as (host, _),
        pytest.raises(RegistryError, match=f"expected sha256:{'0' * 64}"),
    ):
        client(f"{host}/a/b:1").digest()


def test_content_of_another_digest_than_asked_for_is_refused() -> None:
    body, headers = manifest_answer()
    wanted = f"sha256:{'0' * 64}"
    with (
        scripted({f"/v2/a/b/manifests/{wanted}": [(200, headers, body)]}) as (host, _),
        pytest.raises(RegistryError, match=f"expected {wanted}"),
    ):
        client(f"{host}/a/b@{wanted}").digest()


def config_of(size: int, digest: str) -> dict[str, object]:
    return {"mediaType": "application/vnd.oci.image.config.v1+json", "digest": digest, "size": size}


def test_a_blob_of_another_digest_is_refused() -> None:
    wanted = f"sha256:{'0' * 64}"
    body, headers = manifest_answer(config=config_of(2, wanted), layers=[])
    answers: dict[str, list[Answer]] = {
        "/v2/a/b/manifests/1": [(200, headers, body)],
        f"/v2/a/b/blobs/{wanted}": [(200, {}, b"{}")],
    }
    with scripted(answers) as (host, _), pytest.raises(RegistryError, match=f"expected {wanted}"):
        client(f"{host}/a/b:1").config()


def test_a_blob_that_is_cut_off_is_an_error_of_the_registry() -> None:
    wanted = f"sha256:{'0' * 64}"
    body, headers = manifest_answer(config=config_of(2, wanted), layers=[])
    answers: dict[str, list[Answer]] = {
        "/v2/a/b/manifests/1": [(200, headers, body)],
        f"/v2/a/b/blobs/{wanted}": [(200, {"Content-Length": "100", "Connection": "close"}, b"{}")],
    }
    with scripted(answers) as (host, _), pytest.raises(RegistryError):
        client(f"{host}/a/b:1").config()


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"<html>", "not JSON"),
        (b"[]", "not an object"),
        (b'{"mediaType": "text/html"}', "media type 'text/html'"),
    ],
)
def test_an_answer_that_is_no_manifest_is_refused(body: bytes, message: str) -> None:
    with (
        scripted({"/v2/a/b/manifests/1": [(200, {}, body)]}) as (host, _),
        pytest.raises(RegistryError, match=message),
    ):
        client(f"{host}/a/b:1").digest()


@pytest.mark.parametrize(
    "parts",
    [
        {},
        {"config": {}, "layers": []},
        {"config": {"digest": 1}, "layers": []},
        {"config": {"digest": "sha256:1"}, "layers": None},
        {"config": {"digest": "sha256:1"}, "layers": [{}]},
    ],
)
def test_a_manifest_without_config_or_layers_is_refused(parts: dict[str, object]) -> None:
    body, headers = manifest_answer(**parts)
    with (
        scripted({"/v2/a/b/manifests/1": [(200, headers, body)]}) as (odd, _),
        pytest.raises(RegistryError, match=r"answers with .*(config|size|layers)"),
    ):
        client(f"{odd}/a/b:1").config()


def test_plain_http_is_spoken_with_loopback_only() -> None:
    assert client("registry.example.com:5000/a/b:1").transport.base == "https://registry.example.com:5000"
    assert client("127.example.com/a/b:1").transport.base == "https://127.example.com"


def test_docker_s_default_registry_is_the_one_of_the_docker_sdk() -> None:
    official, named = client("debian:12"), client(f"{auth.INDEX_NAME}/vision/pedestrian:1")
    assert official.transport.host == named.transport.host
    assert official.transport.host in auth.INDEX_URL
    assert (official.transport.path, named.transport.path) == ("library/debian", "vision/pedestrian")


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("ca")
    crt, key = folder / "ca.crt", folder / "ca.key"
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"),
            *("-days", "1", "-subj", "/CN=test", "-addext", "subjectAltName=IP:127.0.0.1"),
            *("-keyout", str(key), "-out", str(crt)),
        ],
        check=True,
        capture_output=True,
    )
    return crt, key


def test_a_private_ca_is_named_as_for_package_indexes_for_what_is_pushed_too(
    certificate: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    crt, key = certificate
    image = oci_images.image(Blobs(tmp_path / "made"), b"content")
    for name in ("TRAINPACK_CA_BUNDLE", "SSL_CERT_FILE", "REQUESTS_CA_BUNDLE"):
        monkeypatch.delenv(name, raising=False)
    tls = {"tls": {"certificate": str(crt), "key": str(key)}}
    with registry(tmp_path, http=tls) as secure:
        with pytest.raises(RegistryUnavailableError, match="certificate verify failed") as refused:
            client(f"{secure}/a/b:1").digest()
        assert "TRAINPACK_CA_BUNDLE" in str(refused.value.remedy)
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(crt))
        with pytest.raises(ImageNotFoundError):
            client(f"{secure}/a/b:1").digest()
        # Its name comes first, also where another bundle, which lacks that CA, is named for requests.
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", requests.utils.DEFAULT_CA_BUNDLE_PATH)
        monkeypatch.setenv("TRAINPACK_CA_BUNDLE", str(crt))
        push_image(image, parse_reference(f"{secure}/a/b:1"))
        assert client(f"{secure}/a/b:1").digest() == image.digest


def test_a_manifest_put_by_digest_is_found_by_it(host: str) -> None:
    pushed = push(f"{host}/a/again:1")
    document = client(pushed.reference).manifest().document
    digest = put_manifest(f"http://{host}/v2/a/again", "2", document, requests.Session())
    assert client(f"{host}/a/again@{digest}").manifest().document == document

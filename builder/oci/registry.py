"""A client of the OCI distribution API: what an image registry holds, verified by its digests.

Source: https://github.com/opencontainers/distribution-spec/blob/v1.1.0/spec.md; tokens as in
https://distribution.github.io/distribution/spec/auth/token/.
"""

from __future__ import annotations

import base64
import functools
import hashlib
import ipaddress
import json
import os
import re
import tarfile
import tempfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, Any
from urllib.parse import urlsplit

import requests
from docker import auth
from docker.credentials.errors import StoreError as HelperError
from docker.errors import DockerException
from requests.adapters import HTTPAdapter
from requests.auth import AuthBase
from urllib3.util import Retry

from builder.errors import (
    ImageNotFoundError,
    RegistryDeniedError,
    RegistryError,
    RegistryUnavailableError,
    UsageError,
)
from builder.records import Record
from builder.reference import Reference

TIMEOUT = (10.0, 60.0)
BUSY = (429, 502, 503, 504)
IN_MEMORY_BYTES = 32_000_000
CHUNK_BYTES = 1 << 20
INDEX_TYPES = (
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
)
MANIFEST_TYPES = (
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.v2+json",
)


class RemoteManifest(Record):
    """A manifest or index as a registry holds it, its digest computed from its bytes."""

    digest: str
    media_type: str
    document: dict[str, Any]


class RegistryClient:
    """Reads one image from its registry.

    Credentials are those of `docker login`, credential helpers included. Plain HTTP is spoken with loopback
    registries only. `REQUESTS_CA_BUNDLE` names further certificate authorities.

    Args:
        reference: The image; by digest where it has one, else by tag.
        platform: Which image of a multi-platform index.

    Raises:
        UsageError: The reference has neither tag nor digest.
    """

    def __init__(self, reference: Reference, platform: str = "linux/amd64") -> None:
        if not (reference.digest or reference.tag):
            raise UsageError(f"the image reference {str(reference)!r} has neither tag nor digest")
        self.reference = reference
        self.host, self.path = _endpoint(reference)
        self._platform = platform
        self._authorization = _Authorization()
        self._session = _session(self.host, self._authorization)
        self._manifests: dict[str, RemoteManifest] = {}

    def manifest(self) -> RemoteManifest:
        """The manifest or index that the reference named when this client first asked.

        Raises:
            ImageNotFoundError: The registry has no such image.
            RegistryDeniedError: It wants other credentials.
            RegistryUnavailableError: It does not answer.
            RegistryError: It answered something else than was asked for.
        """
        return self._manifest(str(self.reference.digest or self.reference.tag))

    def digest(self) -> str:
        """The digest of `manifest`, and its errors."""
        return self.manifest().digest

    def image_manifest(self) -> RemoteManifest:
        """The manifest of the platform's image, also where the reference names an index."""
        top = self.manifest()
        image = self._manifest(self._of_platform(top)) if top.media_type in INDEX_TYPES else top
        try:
            parts = (image.document["config"], *image.document["layers"])
            complete = all(isinstance(part["digest"], str) for part in parts)
        except (LookupError, TypeError):
            complete = False
        if not complete:
            raise self._odd("a manifest without config and layers")
        return image

    def config(self) -> dict[str, Any]:
        """The image configuration of the platform's image: environment, labels, history."""
        with self.blob(self._config_digest()) as blob:
            return self._document(blob.read())

    def labels(self) -> dict[str, str]:
        """The image's labels."""
        return dict((self.config().get("config") or {}).get("Labels") or {})

    def image_ids(self) -> tuple[str, ...]:
        """All digests that an engine may call this image's id: of its config, manifest or index."""
        return (self._config_digest(), self.image_manifest().digest, self.manifest().digest)

    def read_file(self, path: str) -> bytes | None:
        """The content of a file of the image, None when no layer has it.

        Layers are read from the last to the first, each whole, until one has the file.

        Args:
            path: Without the leading slash: `opt/trainpack/image.json`.
        """
        for layer in reversed(self.image_manifest().document["layers"]):
            with self.blob(layer["digest"]) as blob:
                content = self._member(blob, path)
            if content is not None:
                return content
        return None

    @contextmanager
    def blob(self, digest: str) -> Iterator[IO[bytes]]:
        """A blob as a file, verified by its digest; large ones are kept on disk while they are open."""
        with (
            self._get(f"blobs/{digest}", stream=True) as response,
            tempfile.SpooledTemporaryFile(max_size=IN_MEMORY_BYTES) as file,
        ):
            hasher = hashlib.sha256()
            try:
                for chunk in response.iter_content(CHUNK_BYTES):
                    hasher.update(chunk)
                    file.write(chunk)
            except requests.RequestException as error:
                raise self._unavailable(error) from None
            self._verify(f"sha256:{hasher.hexdigest()}", digest)
            file.seek(0)
            yield file

    def _manifest(self, name: str) -> RemoteManifest:
        if name not in self._manifests:
            self._manifests[name] = self._fetch_manifest(name)
        return self._manifests[name]

    def _fetch_manifest(self, name: str) -> RemoteManifest:
        response = self._get(f"manifests/{name}", accept=", ".join(MANIFEST_TYPES + INDEX_TYPES))
        digest = f"sha256:{hashlib.sha256(response.content).hexdigest()}"
        announced = response.headers.get("Docker-Content-Digest", digest)
        self._verify(digest, name if name.startswith("sha256:") else announced)
        document = self._document(response.content)
        media_type = document.get("mediaType") or response.headers.get("Content-Type", "")
        if media_type not in MANIFEST_TYPES + INDEX_TYPES:
            raise self._odd(f"a manifest of the media type {media_type!r}")
        return RemoteManifest(digest=digest, media_type=media_type, document=document)

    def _of_platform(self, index: RemoteManifest) -> str:
        system, _, architecture = self._platform.partition("/")
        offers = []
        for entry in index.document.get("manifests", ()):
            platform = entry.get("platform") or {}
            offers.append(f"{platform.get('os')}/{platform.get('architecture')}")
            if (platform.get("os"), platform.get("architecture")) == (system, architecture):
                return str(entry["digest"])
        raise RegistryError(
            f"the image is not for {self._platform}, only for {', '.join(offers) or 'no platform at all'}",
            place=str(self.reference),
        )

    def _config_digest(self) -> str:
        digest: str = self.image_manifest().document["config"]["digest"]
        return digest

    def _member(self, blob: IO[bytes], path: str) -> bytes | None:
        try:
            with tarfile.open(fileobj=blob, mode="r:*") as archive:
                for member in archive:
                    if member.isfile() and member.name.removeprefix("./") == path:
                        file = archive.extractfile(member)
                        return file.read() if file else None
        except (tarfile.TarError, EOFError, OSError, zlib.error) as error:
            raise RegistryError(f"a layer cannot be read: {error}", place=str(self.reference)) from None
        return None

    def _get(self, path: str, *, accept: str = "*/*", stream: bool = False) -> requests.Response:
        response = self._send(path, accept, stream)
        if response.status_code == 401:
            self._authorization.header = self._answer(response.headers.get("WWW-Authenticate", ""))
            response = self._send(path, accept, stream)
        return self._checked(response)

    def _send(self, path: str, accept: str, stream: bool) -> requests.Response:
        url = f"{self._base}/v2/{self.path}/{path}"
        try:
            return self._session.get(url, headers={"Accept": accept}, stream=stream, timeout=TIMEOUT)
        except requests.RequestException as error:
            raise self._unavailable(error) from None

    @functools.cached_property
    def _base(self) -> str:
        if not _is_loopback(self.host):
            return f"https://{self.host}"
        try:
            self._session.get(f"https://{self.host}/v2/", timeout=TIMEOUT)
        except requests.exceptions.SSLError as error:
            if "CERTIFICATE_VERIFY_FAILED" not in str(error):
                return f"http://{self.host}"
        except requests.RequestException as error:
            raise self._unavailable(error) from None
        return f"https://{self.host}"

    def _answer(self, challenge: str) -> str | None:
        """The Authorization header that a challenge asks for, None when there are no credentials for it."""
        scheme, _, rest = challenge.partition(" ")
        credentials = _credentials(self.host)
        if scheme.lower() == "basic":
            return _basic(credentials) if "username" in credentials else None
        if scheme.lower() != "bearer":
            raise self._odd(f"the authentication scheme {scheme!r}")
        fields = dict(re.findall(r'(\w+)="([^"]*)"', rest))
        return f"Bearer {self._token(fields, credentials)}"

    def _token(self, challenge: dict[str, str], credentials: dict[str, str]) -> str:
        realm = challenge.get("realm", "")
        url = urlsplit(realm)
        if url.scheme != "https" and not (url.scheme == "http" and _is_loopback(url.netloc)):
            raise self._odd(f"the token address {realm!r}, which is not https")
        scope = {key: challenge[key] for key in ("service", "scope") if challenge.get(key)}
        try:
            response = self._ask_token(realm, scope, credentials)
        except requests.RequestException as error:
            raise self._unavailable(error) from None
        answer = self._document(self._checked(response).content)
        token = answer.get("token") or answer.get("access_token")
        if not token:
            raise self._odd("a token answer without a token")
        return str(token)

    def _ask_token(self, realm: str, scope: dict[str, str], credentials: dict[str, str]) -> requests.Response:
        if "identity_token" in credentials:
            refresh = {"grant_type": "refresh_token", "client_id": "trainpack"}
            data = refresh | scope | {"refresh_token": credentials["identity_token"]}
            return self._session.post(realm, data=data, timeout=TIMEOUT, auth=_Authorization())
        auth = _Authorization(_basic(credentials) if "username" in credentials else None)
        return self._session.get(realm, params=scope, timeout=TIMEOUT, auth=auth)

    def _checked(self, response: requests.Response) -> requests.Response:
        status, place = response.status_code, str(self.reference)
        if status == 200:
            return response
        reason = _reason(response)
        if status in (401, 403):
            raise RegistryDeniedError(
                f"the registry {self.host} denies access: {reason}",
                place=place,
                remedy=f"`docker login {self.host}` with an account that may read it",
            )
        if status == 404:
            raise ImageNotFoundError(
                f"the registry {self.host} has no such image: {reason}",
                place=place,
                remedy="check the name, or `trainpack push` it",
            )
        if status == 429 or status >= 500:
            raise RegistryUnavailableError(
                f"the registry {self.host} answers {reason}", place=place, remedy="try again later"
            )
        raise RegistryError(f"the registry {self.host} answers {reason}", place=place)

    def _unavailable(self, error: requests.RequestException) -> RegistryUnavailableError:
        return RegistryUnavailableError(
            f"the registry {self.host} does not answer: {_cause(error)}",
            place=str(self.reference),
            remedy="check the network and the registry's name; REQUESTS_CA_BUNDLE names a private CA",
        )

    def _odd(self, what: str) -> RegistryError:
        return RegistryError(f"the registry {self.host} answers with {what}", place=str(self.reference))

    def _verify(self, met: str, expected: str) -> None:
        if met != expected:
            raise RegistryError(
                f"the registry {self.host} answers content with the digest {met}, expected {expected}",
                place=str(self.reference),
            )

    def _document(self, content: bytes) -> dict[str, Any]:
        try:
            document = json.loads(content)
        except ValueError:
            raise self._odd("what is not JSON") from None
        if not isinstance(document, dict):
            raise self._odd("JSON that is not an object")
        return document


class _Authorization(AuthBase):
    """The Authorization header as it is now. Being there, it also keeps requests from reading ~/.netrc."""

    def __init__(self, header: str | None = None) -> None:
        self.header = header

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        if self.header:
            request.headers["Authorization"] = self.header
        return request


def _session(host: str, authorization: _Authorization) -> requests.Session:
    session = requests.Session()
    session.auth = authorization
    retry = Retry(
        total=3,
        connect=0,
        read=0,
        other=0,
        respect_retry_after_header=False,
        backoff_factor=0.2,
        status_forcelist=BUSY,
        allowed_methods={"GET", "HEAD"},
        raise_on_status=False,
    )
    session.mount("https://", HTTPAdapter(max_retries=retry))
    session.mount("http://", HTTPAdapter(max_retries=retry))
    if _is_loopback(host):
        # A proxy cannot reach this machine's own loopback; the engine does not use one there either.
        session.trust_env = False
        session.verify = os.environ.get("REQUESTS_CA_BUNDLE") or True
    return session


def _endpoint(reference: Reference) -> tuple[str, str]:
    """The host to ask and the repository's path there; the docker SDK knows its default registry."""
    if reference.registry and reference.registry != auth.INDEX_NAME:
        return reference.registry, reference.path
    path = reference.path if "/" in reference.path else f"library/{reference.path}"
    return urlsplit(auth.INDEX_URL).netloc, path


def _is_loopback(host: str) -> bool:
    name = urlsplit(f"//{host}").hostname or ""
    try:
        return name == "localhost" or ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


def _credentials(host: str) -> dict[str, str]:
    """`username` and `password`, or `identity_token`, or nothing: what `docker login` has kept."""
    default = urlsplit(auth.INDEX_URL).netloc
    try:
        found = auth.load_config().resolve_authconfig(auth.INDEX_NAME if host == default else host) or {}
    except (DockerException, HelperError, ValueError) as error:
        raise RegistryError(
            f"docker's credentials for {host} cannot be read: {type(error).__name__}",
            remedy=f"`docker login {host}` writes them anew",
        ) from None
    names = {"identitytoken": "identity_token", "username": "username", "password": "password"}
    return {names[key.lower()]: value for key, value in found.items() if key.lower() in names and value}


def _basic(credentials: dict[str, str]) -> str:
    pair = f"{credentials['username']}:{credentials.get('password', '')}"
    return f"Basic {base64.b64encode(pair.encode()).decode()}"


def _reason(response: requests.Response) -> str:
    """The status, and the first error of the body where it is in the specification's form."""
    status = f"{response.status_code} {response.reason}".strip()
    try:
        error = response.json()["errors"][0]
        return f"{status} ({error['code']}: {error.get('message', '')})"
    except (ValueError, LookupError, TypeError):
        return status


def _cause(error: BaseException) -> str:
    """The innermost reason: requests and urllib3 wrap it in the address and their own objects' names."""
    inner = next((arg for arg in error.args if isinstance(arg, BaseException)), None)
    inner = getattr(inner, "reason", None) or inner or error.__cause__
    return _cause(inner) if isinstance(inner, BaseException) else str(error).split("\n")[0]

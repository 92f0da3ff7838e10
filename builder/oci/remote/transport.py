"""HTTP with one registry: connections kept, tokens renewed, what may pass tried again, refusals told."""

from __future__ import annotations

import email.utils
import functools
import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import CancelledError
from contextlib import contextmanager
from typing import Any
from urllib.parse import urljoin, urlsplit

import requests
from requests.adapters import HTTPAdapter

from builder.errors import (
    ImageFormatError,
    ImageNotFoundError,
    RegistryDeniedError,
    RegistryError,
    RegistryUnavailableError,
)
from builder.host.certificates import ca_bundle
from builder.oci.manifest import parse_object
from builder.oci.remote.auth import Authorizer, Header
from builder.oci.remote.names import endpoint, is_loopback
from builder.reference import Reference

TIMEOUT = (10.0, 60.0)
PASSING = (408, 425, 429, 500, 502, 503, 504)
ATTEMPTS = 5
BACKOFF_SECONDS = 0.2
# A registry that asks for more patience than this is told of instead of waited for.
LONGEST_WAIT_SECONDS = 120.0
_BLOCK = 1 << 18
_CHANGED = "try again; if it stays so, tell whoever runs the registry, or the proxy before it"

Body = bytes | Callable[[], Any] | None


class Transport:
    """Requests to one repository of a registry, from any number of threads.

    Credentials are those of `docker login`, credential helpers included. Plain HTTP is spoken with loopback
    registries only. Certificates are judged by `ca_bundle`, as those of package indexes are.

    Attributes:
        requests: Number of requests so far, those for tokens aside.

    Args:
        reference: The repository; also the place that errors name.
        scopes: What tokens shall permit beyond what the registry asks for.
    """

    def __init__(self, reference: Reference, scopes: tuple[str, ...] = ()) -> None:
        self.reference = reference
        self.host, self.path = endpoint(reference)
        self._authorizer = Authorizer(self.host, scopes, self._ask_token)
        self._threads = threading.local()
        self._answered = False
        self._lock = threading.Lock()
        self._stopped = threading.Event()
        self.requests = 0

    @property
    def is_stopped(self) -> bool:
        """Whether nobody waits for an answer any more."""
        return self._stopped.is_set()

    def stop(self) -> None:
        """Give up in all threads: none waits for a next try, however long the registry wants it to."""
        self._stopped.set()

    def sleep(self, seconds: float) -> None:
        """Wait before a next try.

        Raises:
            CancelledError: There will be none.
        """
        if self._stopped.wait(seconds):
            raise CancelledError

    def ask_for(self, scopes: Iterable[str]) -> None:
        """Have tokens permit more, from the next one on."""
        self._authorizer.ask_for(scopes)

    def request(
        self,
        method: str,
        path: str,
        *,
        headers: Mapping[str, str] | None = None,
        body: Body = None,
        accept: tuple[int, ...] = (200,),
        stream: bool = False,
    ) -> requests.Response:
        """Send a request until it is answered; every answer is one of `accept`.

        Args:
            path: Below the repository (`blobs/…`), or a whole address that the registry gave.
            body: Bytes, or what makes a fresh reader of them for each try.

        Raises:
            RegistryDeniedError: The registry wants other credentials.
            ImageNotFoundError: It has no such thing.
            RegistryUnavailableError: It does not answer, or is broken or busy for longer than we try.
            RegistryError: It answered something else than was asked for.
        """
        send = functools.partial(self.once, method, path, headers=headers, body=body, stream=stream)
        return self._patiently(send, accept)

    def once(
        self,
        method: str,
        path: str,
        *,
        headers: Mapping[str, str] | None = None,
        body: Body = None,
        stream: bool = False,
    ) -> requests.Response:
        """Send a request, and again with a new token when the registry wants one.

        Raises:
            requests.RequestException: The connection failed.
        """
        url = path if "://" in path else f"{self.base}/v2/{self.path}/{path}"
        header = self._header(url)
        response = self._send(method, url, headers, body, stream, header)
        if response.status_code == 401 and "WWW-Authenticate" in response.headers:
            response.close()
            self._authorizer.renew(response.headers["WWW-Authenticate"], header)
            response = self._send(method, url, headers, body, stream, self._header(url))
        return response

    def follow(self, response: requests.Response) -> str:
        """The address of an answer's Location, absolute.

        Raises:
            RegistryError: It is none, or one without TLS on another machine.
        """
        location = urljoin(response.url, response.headers.get("Location", ""))
        url = urlsplit(location)
        if "Location" not in response.headers or not (
            url.scheme == "https" or (url.scheme == "http" and is_loopback(url.netloc))
        ):
            raise self.odd(f"the upload address {location!r}, expected one with https")
        return location

    def checked(self, response: requests.Response, accept: tuple[int, ...] = (200,)) -> requests.Response:
        """The response, when its status is one of these; else what it means, as an error."""
        status, place = response.status_code, str(self.reference)
        if status in accept:
            return response
        why = reason(response)
        response.close()
        if status in (401, 403):
            raise RegistryDeniedError(
                f"the registry {self.host} denies access: {why}",
                place=place,
                remedy=f"`docker login {self.host}` with an account that may do this",
            )
        if status == 404:
            raise ImageNotFoundError(
                f"the registry {self.host} has no such image: {why}",
                place=place,
                remedy="check the name, or `trainpack push` it",
            )
        if status == 507 or "no space left" in why:
            raise RegistryError(
                f"the registry {self.host} has no space left: {why}",
                place=place,
                remedy="whoever runs it has to make room",
            )
        if status in PASSING or status >= 500:
            raise RegistryUnavailableError(
                f"the registry {self.host} answers {why}", place=place, remedy="try again later"
            )
        raise RegistryError(f"the registry {self.host} answers {why}", place=place)

    def verify(self, met: str, expected: str) -> None:
        """Refuse content or a claim of another digest.

        Raises:
            RegistryError: They differ.
        """
        if met != expected:
            raise RegistryError(
                f"the registry {self.host} answers content with the digest {met}, expected {expected}",
                place=str(self.reference),
                remedy=_CHANGED,
            )

    def unavailable(self, error: BaseException) -> RegistryUnavailableError:
        """A failed connection, as an error of ours."""
        return RegistryUnavailableError(
            f"the registry {self.host} does not answer: {_cause(error)}",
            place=str(self.reference),
            remedy="check the network and the registry's name; TRAINPACK_CA_BUNDLE names a private CA",
        )

    def odd(self, what: str) -> RegistryError:
        """An answer that follows no specification, as an error of ours."""
        return RegistryError(
            f"the registry {self.host} answers with {what}", place=str(self.reference), remedy=_CHANGED
        )

    @contextmanager
    def format_errors(self) -> Iterator[None]:
        """Tell what the registry sent and cannot be read as the registry's fault."""
        try:
            yield
        except ImageFormatError as error:
            raise self.odd(error.message) from None

    @functools.cached_property
    def base(self) -> str:
        """The registry's address: https, on loopback http where it speaks that."""
        if is_loopback(self.host) and self._speaks_http():
            return f"http://{self.host}"
        return f"https://{self.host}"

    def _speaks_http(self) -> bool:
        # Asked first, since TLS would have to read all of the machine's certificates.
        url = f"http://{self.host}/v2/"
        try:
            answer = self._session.get(url, timeout=TIMEOUT, auth=Header(), allow_redirects=False)
        except requests.RequestException:
            return False
        # What servers with TLS say to who speaks none: https://go.dev/src/net/http/server.go
        return answer.status_code != 400 and not answer.is_redirect

    @property
    def _session(self) -> requests.Session:
        # A session is not made for several threads at once.
        if not hasattr(self._threads, "session"):
            self._threads.session = _session(self.host)
        session: requests.Session = self._threads.session
        return session

    @functools.cached_property
    def _certificates(self) -> str | bool:
        # Given with each request: what a session is told gives way to requests' own variables.
        return str(ca_bundle(os.environ) or "") or True

    def _header(self, url: str) -> Header:
        """Ours for the registry; none for another host that it sent us to."""
        return self._authorizer.header() if urlsplit(url).netloc == self.host else Header()

    def _send(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str] | None,
        body: Body,
        stream: bool,
        header: Header,
    ) -> requests.Response:
        with self._lock:
            self.requests += 1
        response = self._session.request(
            method,
            url,
            headers=dict(headers or {}),
            data=body() if callable(body) else body,
            auth=header,
            stream=stream,
            timeout=TIMEOUT,
            verify=self._certificates,
            allow_redirects=method in ("GET", "HEAD"),
        )
        self._answered = True
        return response

    def _may_pass(self, error: requests.RequestException) -> bool:
        """A host that never answered may be a wrong name; one that did has a bad moment."""
        return self._answered and not isinstance(error, requests.exceptions.SSLError)

    def _ask_token(self, method: str, url: str, **options: Any) -> dict[str, Any]:
        options |= {"timeout": TIMEOUT, "verify": self._certificates}
        send = functools.partial(self._session.request, method, url, **options)
        response = self._patiently(send, (200,))
        with self.format_errors():
            return parse_object(response.content, self.host)

    def _patiently(self, send: Callable[[], requests.Response], accept: tuple[int, ...]) -> requests.Response:
        for attempt in range(1, ATTEMPTS + 1):
            try:
                response = send()
            except requests.RequestException as error:
                if attempt == ATTEMPTS or not self._may_pass(error):
                    raise self.unavailable(error) from None
                wait = pause(attempt)
            else:
                wait = pause(attempt, response)
                passing = response.status_code in PASSING and response.status_code not in accept
                if not passing or attempt == ATTEMPTS or wait > LONGEST_WAIT_SECONDS:
                    return self.checked(response, accept)
                response.close()
            self.sleep(wait)
        raise AssertionError("the last try returns or raises")


def pause(attempt: int, response: requests.Response | None = None) -> float:
    """Seconds before the next try: as long as the registry asks for, else longer each time."""
    asked = response.headers.get("Retry-After", "") if response is not None else ""
    if asked.isdigit():
        return float(asked)
    if moment := email.utils.parsedate_tz(asked):
        return max(0.0, email.utils.mktime_tz(moment) - time.time())
    return float(BACKOFF_SECONDS * 2 ** (attempt - 1))


class _Adapter(HTTPAdapter):
    """Sends bodies in larger blocks than http.client does by itself."""

    def init_poolmanager(self, *args: Any, **options: Any) -> None:
        super().init_poolmanager(*args, blocksize=_BLOCK, **options)


def _session(host: str) -> requests.Session:
    session = requests.Session()
    session.mount("https://", _Adapter())
    session.mount("http://", _Adapter())
    if is_loopback(host):
        # A proxy cannot reach this machine's own loopback; the engine does not use one there either.
        session.trust_env = False
    return session


def reason(response: requests.Response) -> str:
    """The status, and the first error of the body where it is in the specification's form."""
    status = f"{response.status_code} {response.reason}".strip()
    try:
        error = response.json()["errors"][0]
        detail = error.get("detail")
        told = f"{error.get('message', '')}{f', {str(detail)[:200]}' if detail else ''}"
        return f"{status} ({error['code']}: {told})"
    except (ValueError, LookupError, TypeError, AttributeError, requests.RequestException):
        return status


def _cause(error: BaseException) -> str:
    """The innermost reason: requests and urllib3 wrap it in the address and their own objects' names."""
    inner = next((arg for arg in error.args if isinstance(arg, BaseException)), None)
    inner = getattr(inner, "reason", None) or inner or error.__cause__
    return _cause(inner) if isinstance(inner, BaseException) else str(error).split("\n")[0]

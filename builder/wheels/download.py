"""Wheels from where the lock says they are, verified while they stream into the cache, several at once."""

from __future__ import annotations

import functools
import shutil
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from urllib.parse import unquote, urlsplit

import requests
from requests.auth import AuthBase, HTTPBasicAuth

from builder.atomic import is_full
from builder.errors import BlobError, TrainpackError, WheelError
from builder.host.certificates import ca_bundle
from builder.host.package_index import IndexSettings, index_settings, logins, without_credentials
from builder.oci.blobs import BlobWriter
from builder.oci.cache import Cache
from builder.oci.remote.transport import LONGEST_WAIT_SECONDS, PASSING, pause
from builder.plan import Distribution

TIMEOUT = (10.0, 60.0)
# Tries in a row that bring not one byte.
FRUITLESS_TRIES = 5
_CHUNK = 1 << 18

Say = Callable[[str], None]


class Downloads:
    """Brings files of a lock into the cache, from any number of threads.

    Args:
        environ: Where index, CA and proxy settings come from.
        say: Is told one line for each file that was brought.
    """

    def __init__(self, cache: Cache, environ: Mapping[str, str], say: Say = lambda _: None) -> None:
        self._cache = cache
        self._environ = environ
        self._say = say
        self._threads = threading.local()

    def fetch(self, wheel: Distribution) -> Path:
        """Where a file of the lock lies on this machine; brought there first where it is missing.

        Raises:
            WheelError: It is not there, or is another file than the one that was locked.
            TrainpackError: Its server cannot be reached, or refuses.
        """
        digest = f"sha256:{wheel.sha256}"
        if not self._has(digest):
            with self._cache.lock(wheel.sha256):
                if not self._has(digest):
                    self._bring(wheel, digest)
        return self._cache.blobs.path(digest)

    def _has(self, digest: str) -> bool:
        blobs = self._cache.blobs
        try:
            size = blobs.path(digest).stat().st_size
        except FileNotFoundError:
            return False
        # Wheels are read in parts, and what is in none of them that has a checksum of its own may be damaged.
        return blobs.verify(digest) and blobs.has(digest, size)

    def _bring(self, wheel: Distribution, digest: str) -> None:
        try:
            with self._cache.blobs.writer(digest) as writer:
                if wheel.url.startswith("file:"):
                    _copy(wheel, writer)
                else:
                    _Download(wheel, writer, self._get).run()
        except BlobError:
            raise WheelError(
                f"its sha256 is {writer.digest.removeprefix('sha256:')}, the lock says {wheel.sha256}",
                place=wheel.filename,
                remedy="it was replaced since it was locked, or damaged on the way: find out which, "
                "then `trainpack lock`",
            ) from None
        self._say(f"downloaded {wheel.name} {wheel.version} ({writer.size / 1e6:.1f} MB)")

    def _get(self, url: str, headers: Mapping[str, str]) -> requests.Response:
        host = urlsplit(url).hostname or ""
        return self._session.get(
            url,
            headers=dict(headers),
            auth=_Login(self._logins.get(host)),
            verify=host not in self._trusted and self._certificates,
            stream=True,
            timeout=TIMEOUT,
        )

    @property
    def _session(self) -> requests.Session:
        # A session is not made for several threads at once.
        if not hasattr(self._threads, "session"):
            self._threads.session = requests.Session()
        session: requests.Session = self._threads.session
        return session

    @functools.cached_property
    def _settings(self) -> IndexSettings:
        return index_settings(self._environ)

    @functools.cached_property
    def _logins(self) -> dict[str, tuple[str, str]]:
        return logins(self._settings, self._environ)

    @functools.cached_property
    def _trusted(self) -> frozenset[str]:
        return frozenset(host.partition(":")[0] for host in self._settings.trusted_hosts)

    @functools.cached_property
    def _certificates(self) -> str | bool:
        bundle = ca_bundle(self._environ)
        return str(bundle) if bundle else True


class _Login(AuthBase):
    """Basic credentials, or none. Being there, it also keeps requests from reading ~/.netrc for any host."""

    def __init__(self, login: tuple[str, str] | None) -> None:
        self._login = login

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        if self._login:
            user, password = self._login
            HTTPBasicAuth(user.encode(), password.encode())(request)
        return request


class _Download:
    """One file on its way; after a cut it asks for the rest only."""

    def __init__(
        self,
        wheel: Distribution,
        writer: BlobWriter,
        get: Callable[[str, Mapping[str, str]], requests.Response],
    ) -> None:
        self._wheel = wheel
        self._writer = writer
        self._get = get
        self._place = without_credentials(wheel.url)

    def run(self) -> None:
        """Receive all of it.

        Raises:
            WheelError: The server does not have it.
            TrainpackError: It failed for good, or wants other credentials.
        """
        fruitless = 0
        while True:
            before = self._writer.size
            try:
                wait = self._receive(fruitless + 1)
                if wait is None:
                    return
                failure = "it answers that it is broken or busy"
            except requests.RequestException as error:
                wait, failure = pause(fruitless + 1), _cause(error)
            fruitless = 0 if self._writer.size > before else fruitless + 1
            if fruitless == FRUITLESS_TRIES or wait > LONGEST_WAIT_SECONDS:
                raise TrainpackError(
                    f"cannot be downloaded: {failure}",
                    place=self._place,
                    remedy="check the network; `trainpack doctor` checks the package index",
                )
            time.sleep(wait)

    def _receive(self, attempt: int) -> float | None:
        """Receive what is left; seconds to wait where the server asks to come back later, None at the end."""
        # What a wheel is compressed with is part of it: nothing on the way may undo or add to it.
        headers = {"Accept-Encoding": "identity"}
        received = self._writer.size
        if received:
            headers["Range"] = f"bytes={received}-"
        with self._get(self._wheel.url, headers) as response:
            if response.status_code in PASSING or response.status_code >= 500:
                return pause(attempt, response)
            self._check(response)
            known = received if response.status_code == 200 else 0
            for chunk in response.iter_content(_CHUNK):
                self._writer.write(chunk[known:])
                known = max(0, known - len(chunk))
                self._check_size()
        if self._writer.size < (self._wheel.size or 0):
            raise requests.ConnectionError("the connection was cut")
        return None

    def _check(self, response: requests.Response) -> None:
        status = response.status_code
        if status in (401, 403):
            raise TrainpackError(
                f"the package index denies access: {status} {response.reason}",
                place=self._place,
                remedy="give uv or pip credentials for it, in the index address or in ~/.netrc",
            )
        if status not in (200, 206):
            raise WheelError(
                f"the package index does not have it: {status} {response.reason}",
                place=self._place,
                remedy="`trainpack lock` resolves the requirements again",
            )

    def _check_size(self) -> None:
        if self._wheel.size is not None and self._writer.size > self._wheel.size:
            raise WheelError(f"more than the {self._wheel.size} bytes that the lock says", place=self._place)


def _copy(wheel: Distribution, writer: BlobWriter) -> None:
    path = Path(unquote(urlsplit(wheel.url).path))
    try:
        with path.open("rb") as file:
            shutil.copyfileobj(file, writer, _CHUNK)
    except OSError as error:
        if is_full(error):
            raise
        raise WheelError(
            f"cannot be read: {error.strerror}",
            place=str(path),
            remedy="it is where the lock found it; `trainpack lock` looks for it again",
        ) from None


def _cause(error: BaseException) -> str:
    """The innermost reason: requests and urllib3 wrap it in addresses and their own objects' names."""
    inner = next((arg for arg in error.args if isinstance(arg, BaseException)), None)
    inner = getattr(inner, "reason", None) or inner or error.__cause__
    return _cause(inner) if isinstance(inner, BaseException) else str(error).split("\n")[0]

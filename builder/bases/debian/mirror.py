"""A mirror over HTTP, reached as apt reaches it."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import IO

import requests

from builder.errors import BlobError, MirrorError
from builder.host import apt
from builder.host.certificates import ca_bundle
from builder.host.package_index import redact
from builder.oci.blobs import Blobs

_TRIES = 4
_TIMEOUT = (20, 60)
_CHUNK = 1 << 18
_MOST = 16 << 20
_BUSY = (408, 429)

Attempt = Callable[[], list[bytes]]


@dataclass(frozen=True)
class File:
    """A file of a mirror, named by what it must hold."""

    url: str
    sha256: str
    size: int

    @property
    def digest(self) -> str:
        """As the cache names it."""
        return f"sha256:{self.sha256}"


class Mirror:
    """Fetches what Debian's mirrors serve; what has a known digest is kept, and fetched once."""

    def __init__(self, blobs: Blobs) -> None:
        self.blobs = blobs
        self._session = requests.Session()
        self._session.proxies.update(apt.proxy_addresses())
        bundle = apt.ca_info() or ca_bundle(os.environ)
        if bundle:
            self._session.verify = str(bundle)

    def read(self, url: str) -> bytes:
        """A small file whose digest nobody knows beforehand.

        Raises:
            MirrorError: The mirror does not have it, does not answer, or does not end.
        """
        return b"".join(self._retried(url, lambda: list(_bounded(self._chunks(url)))))

    @contextmanager
    def open(self, file: File) -> Iterator[IO[bytes]]:
        """A verified file, from the cache where it is there.

        Raises:
            MirrorError: The mirror does not have it, does not answer, or serves other bytes.
        """
        self.keep(file)
        with self.blobs.open(file.digest) as kept:
            yield kept

    def keep(self, file: File) -> None:
        """Have a file in the cache; see `open`."""
        if not self.blobs.has(file.digest, file.size):
            self._retried(file.url, lambda: self._fetch(file))

    def _fetch(self, file: File) -> list[bytes]:
        with self.blobs.writer(file.digest) as writer:
            for chunk in self._chunks(file.url):
                writer.write(chunk)
                if writer.size > file.size:
                    raise BlobError(f"more than the {file.size} bytes that the index names")
        return []

    def _chunks(self, url: str) -> Iterator[bytes]:
        with self._session.get(url, stream=True, timeout=_TIMEOUT) as answer:
            answer.raise_for_status()
            yield from answer.iter_content(_CHUNK)

    def _retried(self, url: str, attempt: Attempt) -> list[bytes]:
        for number in range(1, _TRIES + 1):
            try:
                return attempt()
            except (requests.RequestException, BlobError) as error:
                if number == _TRIES or not _is_passing(error):
                    raise _failure(url, error) from None
                time.sleep(2 ** (number - 2))
        raise AssertionError


def _bounded(chunks: Iterator[bytes]) -> Iterator[bytes]:
    size = 0
    for chunk in chunks:
        size += len(chunk)
        if size > _MOST:
            raise BlobError(f"more than {_MOST} bytes, where a release has less than one million")
        yield chunk


def _is_passing(error: Exception) -> bool:
    if not isinstance(error, requests.HTTPError):
        return True
    return error.response.status_code >= 500 or error.response.status_code in _BUSY


def _failure(url: str, error: Exception) -> MirrorError:
    reason = str(error) if isinstance(error, BlobError) else redact(f"{type(error).__name__}: {error}")
    if isinstance(error, requests.HTTPError):
        reason = f"the mirror answers {error.response.status_code}"
    return MirrorError(
        reason,
        place=redact(url),
        remedy=f"check the mirror and the proxy: the host's apt configuration, or {apt.MIRROR}",
    )

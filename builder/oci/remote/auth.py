"""Who we are to a registry: docker's credentials, and the tokens that they are exchanged for.

Source: https://distribution.github.io/distribution/spec/auth/token/.
"""

from __future__ import annotations

import base64
import re
import threading
import time
from collections.abc import Callable, Iterable
from typing import Any
from urllib.parse import urlsplit

import requests
from requests.auth import AuthBase

from builder.errors import RegistryError
from builder.oci.remote.names import DEFAULT, DEFAULT_HOST, is_loopback

# What a token answer without `expires_in` means, and how long before its end a token is no longer used.
TOKEN_SECONDS, SPARE_SECONDS = 60, 10

TokenRequest = Callable[..., dict[str, Any]]


class Header(AuthBase):
    """An Authorization header, or none. Being there, it also keeps requests from reading ~/.netrc."""

    def __init__(self, value: str | None = None) -> None:
        self.value = value

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        """Set it."""
        if self.value:
            request.headers["Authorization"] = self.value
        return request


class Authorizer:
    """Keeps the Authorization header of one registry, and makes a new one when it is asked to.

    Args:
        scopes: What tokens shall permit beyond what the registry's challenge names: `repository:a/b:pull`.
        ask: Sends a token request and returns the answer: method, address, parameters or form, header.
    """

    def __init__(self, host: str, scopes: tuple[str, ...], ask: TokenRequest) -> None:
        self._host = host
        self._scopes = scopes
        self._ask = ask
        self._lock = threading.Lock()
        self._value: str | None = None
        self._challenge = ""
        self._expires = float("inf")

    def ask_for(self, scopes: Iterable[str]) -> None:
        """Have the next token permit more."""
        self._scopes = tuple(dict.fromkeys((*self._scopes, *scopes)))

    def header(self) -> Header:
        """The header of the next request; renewed when its token is about to end."""
        with self._lock:
            if time.monotonic() > self._expires:
                self._answer(self._challenge)
            return Header(self._value)

    def renew(self, challenge: str, refused: Header) -> None:
        """Answer a 401; of many threads that were refused at once, one asks for the token.

        Args:
            challenge: The `WWW-Authenticate` header.
            refused: The header that the registry did not take.

        Raises:
            RegistryError: It asks for what cannot be answered.
        """
        with self._lock:
            if self._value == refused.value:
                self._answer(challenge)

    def _answer(self, challenge: str) -> None:
        self._challenge, self._expires = challenge, float("inf")
        scheme, _, rest = challenge.partition(" ")
        credentials = find_credentials(self._host)
        if scheme.lower() == "basic":
            self._value = _basic(credentials) if "username" in credentials else None
        elif scheme.lower() == "bearer":
            fields = dict(re.findall(r'(\w+)="([^"]*)"', rest))
            self._value = f"Bearer {self._token(fields, credentials)}"
        else:
            raise self._odd(f"the authentication scheme {scheme!r}")

    def _token(self, challenge: dict[str, str], credentials: dict[str, str]) -> str:
        realm = challenge.get("realm", "")
        url = urlsplit(realm)
        if url.scheme != "https" and not (url.scheme == "http" and is_loopback(url.netloc)):
            raise self._odd(f"the token address {realm!r}, which is not https")
        answer = self._asked(realm, self._wanted(challenge), credentials)
        token = answer.get("token") or answer.get("access_token")
        if not token:
            raise self._odd("a token answer without a token")
        lasts = answer.get("expires_in")
        seconds = lasts if isinstance(lasts, int | float) else TOKEN_SECONDS
        self._expires = time.monotonic() + max(seconds - SPARE_SECONDS, seconds / 2)
        return str(token)

    def _wanted(self, challenge: dict[str, str]) -> dict[str, str | list[str]]:
        named = challenge.get("scope", "").split()
        scopes = [*named, *(scope for scope in self._scopes if scope not in named)]
        service: dict[str, str | list[str]] = (
            {"service": challenge["service"]} if challenge.get("service") else {}
        )
        return service | ({"scope": scopes} if scopes else {})

    def _asked(
        self, realm: str, wanted: dict[str, str | list[str]], credentials: dict[str, str]
    ) -> dict[str, Any]:
        if "identity_token" in credentials:
            scope = {
                key: " ".join(value) if isinstance(value, list) else value for key, value in wanted.items()
            }
            refresh = {"grant_type": "refresh_token", "client_id": "trainpack"}
            form = refresh | scope | {"refresh_token": credentials["identity_token"]}
            return self._ask("POST", realm, data=form, auth=Header())
        header = Header(_basic(credentials) if "username" in credentials else None)
        return self._ask("GET", realm, params=wanted, auth=header)

    def _odd(self, what: str) -> RegistryError:
        return RegistryError(f"the registry answers with {what}", place=self._host)


def find_credentials(host: str) -> dict[str, str]:
    """`username` and `password`, or `identity_token`, or nothing: what `docker login` has kept.

    Raises:
        RegistryError: Docker's configuration or its credential helper is broken.
    """
    # The SDK takes 40 ms to import, and registries on loopback rarely ask who we are.
    from docker import auth  # noqa: PLC0415
    from docker.credentials.errors import StoreError as HelperError  # noqa: PLC0415
    from docker.errors import DockerException  # noqa: PLC0415

    try:
        found = auth.load_config().resolve_authconfig(DEFAULT if host == DEFAULT_HOST else host) or {}
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

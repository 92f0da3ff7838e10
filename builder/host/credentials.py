"""Picsellia credentials: from the environment in the platform's own names, else from the file of `login`.

They come whole from one place, so that a token is never sent to a host that it was not meant for.
"""

from __future__ import annotations

import json
import os
import re
import stat
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import urlsplit
from uuid import UUID

from platformdirs import user_config_dir
from pydantic import SecretStr, ValidationError, field_serializer, field_validator

from builder.atomic import new_file
from builder.errors import StoreError, UsageError
from builder.records import Record

DEFAULT_HOST = "https://app.picsellia.com"
CONFIG_VARIABLE = "TRAINPACK_CONFIG"
ENVIRONMENT = "the environment"
_VARIABLES = {
    "token": ("PICSELLIA_API_TOKEN", "api_token"),
    "host": ("PICSELLIA_HOST", "host"),
    "organization_id": ("PICSELLIA_ORGANIZATION_ID", "organization_id"),
    "organization_name": ("PICSELLIA_ORGANIZATION_NAME", "organization_name"),
}
_TOKEN = re.compile(r"[\x21-\x7e]+")  # what an HTTP header can hold: printable ASCII without spaces


class Credentials(Record):
    """Who to be, and where; printing it never shows the token.

    Attributes:
        host: The platform's address, `https://HOST[:PORT]`.
        organization_id: Wins over `organization_name`; without either, the account's own organization.
        source: Where they came from, for people.
    """

    token: SecretStr
    host: str = DEFAULT_HOST
    organization_id: str | None = None
    organization_name: str | None = None
    source: str = ENVIRONMENT

    @field_validator("token")
    @classmethod
    def _is_header_value(cls, token: SecretStr) -> SecretStr:
        if _TOKEN.fullmatch(token.get_secret_value()) is None:
            raise ValueError("a token is printable ASCII, not empty and without spaces or line ends")
        return token

    @field_validator("host")
    @classmethod
    def _is_address(cls, host: str) -> str:
        parts = urlsplit(host.strip().rstrip("/"))
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.path or parts.query:
            raise ValueError(f"the host must be an address like {DEFAULT_HOST}")
        if "@" in parts.netloc:
            raise ValueError("the host must not hold a user name or password")
        return parts.geturl()

    @field_validator("organization_id")
    @classmethod
    def _is_uuid(cls, value: str | None) -> str | None:
        return None if value is None else str(UUID(value))

    @field_serializer("token", when_used="json")
    def _mask(self, token: SecretStr) -> str:
        return str(token)


def make_credentials(values: Mapping[str, str | None], source: str) -> Credentials:
    """Credentials from plain values; empty ones are left out.

    Raises:
        UsageError: One of them is malformed; the message names it and never shows the token.
    """
    try:
        return Credentials.model_validate(
            {"source": source} | {key: value for key, value in values.items() if value}
        )
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        name, reason = ".".join(map(str, first["loc"])), first["msg"].removeprefix("Value error, ")
        raise UsageError(f"the {name.replace('_', ' ')} is not valid: {reason}", place=source) from None


def load_credentials(environ: Mapping[str, str] = os.environ) -> Credentials:
    """The credentials to use: those of the environment when it has a token, else those of `login`.

    Raises:
        StoreError: There are none, or the file is readable by others or malformed.
        UsageError: A value of the environment is malformed, or contradicts the file.
    """
    given = {key: _first(environ, names) for key, names in _VARIABLES.items()}
    if given["token"]:
        return make_credentials(given, ENVIRONMENT)
    stored = _read(credentials_file(environ))
    _refuse_contradiction(stored, environ)
    return stored


def environment_token(environ: Mapping[str, str]) -> str | None:
    """The name of the variable that holds a token, or None."""
    return next((name for name in _VARIABLES["token"] if environ.get(name)), None)


def credentials_file(environ: Mapping[str, str] = os.environ) -> Path:
    """Where `login` keeps the credentials: below the user's configuration folder, or `TRAINPACK_CONFIG`."""
    return Path(environ.get(CONFIG_VARIABLE) or user_config_dir("trainpack")) / "credentials.json"


def save_credentials(credentials: Credentials, environ: Mapping[str, str] = os.environ) -> Path:
    """Write the file: readable by its owner alone, and whole or not at all; returns its path.

    Raises:
        StoreError: It cannot be written.
    """
    path = credentials_file(environ)
    plain = credentials.model_dump(exclude={"source", "token"}, exclude_none=True)
    text = json.dumps({"token": credentials.token.get_secret_value(), **plain}, indent=2)
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        _replace(path, text)
    except OSError as error:
        raise StoreError(f"the credentials cannot be written: {error.strerror}", place=str(path)) from None
    return path


def forget_credentials(environ: Mapping[str, str] = os.environ) -> Path | None:
    """Remove the file; returns its path, or None when there was none."""
    path = credentials_file(environ)
    try:
        path.unlink()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise StoreError(f"the credentials cannot be removed: {error.strerror}", place=str(path)) from None
    return path


def _first(environ: Mapping[str, str], names: tuple[str, ...]) -> str | None:
    return next((environ[name] for name in names if environ.get(name)), None)


def _read(path: Path) -> Credentials:
    try:
        with path.open(encoding="utf-8") as file:
            _refuse_open_mode(path, os.fstat(file.fileno()).st_mode)
            values = json.load(file)
    except FileNotFoundError:
        raise StoreError(
            "there are no Picsellia credentials", remedy="run `trainpack login`, or set PICSELLIA_API_TOKEN"
        ) from None
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not JSON"
        raise StoreError(
            f"the credentials cannot be read: {reason}", place=str(path), remedy="run `trainpack login` again"
        ) from None
    return make_credentials(values if isinstance(values, dict) else {}, str(path))


def _refuse_open_mode(path: Path, mode: int) -> None:
    if mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise StoreError(
            f"the credentials can be read by others: mode {stat.S_IMODE(mode):04o}, expected 0600",
            place=str(path),
            remedy=f"run `chmod 600 {path}`, and make a new token if others use this machine",
        )


def _refuse_contradiction(stored: Credentials, environ: Mapping[str, str]) -> None:
    for field in ("host", "organization_id", "organization_name"):
        variable = _VARIABLES[field][0]
        value = environ.get(variable, "").rstrip("/")
        if value and value != getattr(stored, field):
            raise UsageError(
                f"{variable} is set without a token, and differs from what `login` stored",
                place=stored.source,
                remedy=f"set PICSELLIA_API_TOKEN too, unset {variable}, or run `trainpack login` again",
            )


def _replace(path: Path, text: str) -> None:
    with new_file(path, mode=0o600) as file:
        file.write(text.encode())
        file.flush()
        os.fsync(file.fileno())

"""The user's package index settings: uv's own where there are any, else pip's.

uv does not read pip's settings, while most machines and companies configure pip. What pip knows is handed to
uv as arguments without credentials, and the credentials through the environment or a netrc file, so that
none is on a command line.

Sources: https://pip.pypa.io/en/stable/topics/configuration/ and
https://docs.astral.sh/uv/reference/environment/.
"""

from __future__ import annotations

import netrc
import re
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal
from urllib.parse import quote, unquote, urlsplit, urlunsplit

from builder.host.certificates import ca_bundle
from builder.host.pip_settings import home_folder, pip_values
from builder.records import Record

_UV_VARIABLES = ("UV_DEFAULT_INDEX", "UV_INDEX_URL", "UV_INDEX", "UV_EXTRA_INDEX_URL", "UV_FIND_LINKS")
_UV_KEYS = ("index", "index-url", "extra-index-url", "find-links", "no-index")
_PIP_KEYS = ("index-url", "extra-index-url", "find-links", "no-index", "trusted-host", "constraint")
_CREDENTIALS = re.compile(r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]*://)[^\s/]*@")


class IndexSettings(Record):
    """Where packages come from. Addresses may hold credentials: print them through `redact` only.

    Attributes:
        source: Whose settings these are; uv reads its own itself.
        default_index: None means uv's default.
        indexes: Further simple indexes.
        find_links: Folders and pages that hold files.
        trusted_hosts: Hosts whose certificates are not verified.
        constraints: Constraints files that cap versions on this machine.
    """

    source: Literal["uv", "pip", "none"] = "none"
    default_index: str | None = None
    indexes: tuple[str, ...] = ()
    find_links: tuple[str, ...] = ()
    no_index: bool = False
    trusted_hosts: tuple[str, ...] = ()
    constraints: tuple[str, ...] = ()

    def __repr__(self) -> str:
        return redact(super().__repr__())

    __str__ = __repr__

    @property
    def addresses(self) -> tuple[str, ...]:
        """Every address, the default index first."""
        first = (self.default_index,) if self.default_index else ()
        return (*first, *self.indexes, *self.find_links)


def index_settings(environ: Mapping[str, str]) -> IndexSettings:
    """The settings in force for an environment."""
    return _uv_settings(environ) or _pip_settings(environ) or IndexSettings()


def uv_arguments(settings: IndexSettings) -> list[str]:
    """What uv must be told on its command line, free of credentials; nothing of what it reads itself."""
    if settings.source != "pip":
        return []
    # pip merges all indexes and takes the best version of any; uv's own default stops at the first index.
    arguments = ["--index-strategy=unsafe-best-match"] if settings.indexes else []
    for option, name, url in _named_indexes(settings):
        arguments.append(f"{option}={name}={without_credentials(url)}")
    if not _find_links_in_environment(settings):
        arguments += [f"--find-links={place}" for place in settings.find_links]
    arguments += ["--no-index"] if settings.no_index else []
    return arguments + [f"--allow-insecure-host={host}" for host in settings.trusted_hosts]


def uv_environment(settings: IndexSettings, environ: Mapping[str, str]) -> dict[str, str]:
    """The whole environment for a uv process: the given one, credentials and the CA bundle."""
    result = dict(environ)
    if bundle := ca_bundle(environ):
        result["SSL_CERT_FILE"] = str(bundle)
    if settings.source != "pip":
        return result
    for _, name, url in _named_indexes(settings):
        user, password = _credentials(url)
        variable = name.upper().replace("-", "_")
        values = {"USERNAME": user, "PASSWORD": password}
        result |= {f"UV_INDEX_{variable}_{key}": value for key, value in values.items() if value}
    if _find_links_in_environment(settings):
        result["UV_FIND_LINKS"] = ",".join(place.replace(",", "%2C") for place in settings.find_links)
    return result


def logins(settings: IndexSettings, environ: Mapping[str, str]) -> dict[str, tuple[str, str]]:
    """Host → (user, password), for the configured hosts and no others.

    Credentials in an address win over the user's own netrc file.
    """
    known = _user_netrc(environ)
    found: dict[str, tuple[str, str]] = {}
    for address in settings.addresses:
        host = urlsplit(address).hostname
        if host and any(_credentials(address)):
            found.setdefault(host, _credentials(address))
        elif host and host in known:
            found.setdefault(host, known[host])
    return found


def netrc_text(settings: IndexSettings, environ: Mapping[str, str]) -> str | None:
    """The `logins` as a netrc file, to be given to a build as a secret; None when there are none."""
    lines = [
        f"machine {host} login {_quoted(user)} password {_quoted(password)}\n"
        for host, (user, password) in logins(settings, environ).items()
    ]
    return "".join(lines) or None


def redact(text: str) -> str:
    """The text with the credentials of every address in it replaced by `***`."""
    return _CREDENTIALS.sub(r"\g<scheme>***@", text)


def without_credentials(address: str) -> str:
    """An address without user and password."""
    parts = urlsplit(address)
    if "@" not in parts.netloc:
        return address
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))


def _named_indexes(settings: IndexSettings) -> Iterator[tuple[str, str, str]]:
    """Option, name and address: a name is what ties credentials in the environment to an index."""
    if settings.default_index:
        yield "--default-index", "trainpack-default", settings.default_index
    for number, url in enumerate(settings.indexes):
        yield "--index", f"trainpack-{number}", url


def _find_links_in_environment(settings: IndexSettings) -> bool:
    return any(any(_credentials(place)) for place in settings.find_links)


def _credentials(address: str) -> tuple[str, str]:
    parts = urlsplit(address)
    return unquote(parts.username or ""), unquote(parts.password or "")


def _user_netrc(environ: Mapping[str, str]) -> dict[str, tuple[str, str]]:
    path = Path(environ.get("NETRC") or home_folder(environ) / ".netrc")
    try:
        hosts = netrc.netrc(path).hosts
    except (OSError, UnicodeDecodeError, netrc.NetrcParseError):
        return {}
    return {host: (login, password) for host, (login, _, password) in hosts.items() if password is not None}


def _quoted(value: str) -> str:
    if not re.search(r"[\s\"\\#]", value) and value:
        return value
    escaped = value.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def _uv_settings(environ: Mapping[str, str]) -> IndexSettings | None:
    files = [_uv_file(path) for path in _uv_files(environ)]
    if not any(environ.get(name) for name in _UV_VARIABLES) and not any(files):
        return None
    tables = [entry for file in files for entry in _tables(file.get("index"))]
    defaults = [
        _with_login(entry["url"], entry.get("name"), environ) for entry in tables if _is_default(entry)
    ]
    extra = [
        _with_login(entry["url"], entry.get("name"), environ) for entry in tables if not _is_default(entry)
    ]
    defaults += [str(file["index-url"]) for file in files if "index-url" in file]
    defaults = [_plain(environ[name], environ) for name in _UV_VARIABLES[:2] if environ.get(name)] + defaults
    variables = f"{environ.get('UV_INDEX', '')} {environ.get('UV_EXTRA_INDEX_URL', '')}".split()
    links = [place for place in environ.get("UV_FIND_LINKS", "").split(",") if place]
    return IndexSettings(
        source="uv",
        default_index=next(iter(defaults), None),
        indexes=(
            *(_plain(index, environ) for index in variables),
            *extra,
            *_listed(files, "extra-index-url"),
        ),
        find_links=tuple(_place(place, environ) for place in [*links, *_listed(files, "find-links")]),
        no_index=any(bool(file.get("no-index")) for file in files),
    )


def _plain(index: str, environ: Mapping[str, str]) -> str:
    """`name=https://…` → the address, with the credentials that uv looks up by that name."""
    match = re.match(r"([A-Za-z0-9._-]+)=(?=[A-Za-z][A-Za-z0-9+.-]*:)", index)
    return _with_login(index[match.end() :], match[1], environ) if match else index


def _with_login(address: str, name: str | None, environ: Mapping[str, str]) -> str:
    variable = re.sub(r"[^A-Z0-9]", "_", (name or "").upper())
    user, password = (environ.get(f"UV_INDEX_{variable}_{key}", "") for key in ("USERNAME", "PASSWORD"))
    parts = urlsplit(address)
    if not name or not (user or password) or "@" in parts.netloc:
        return address
    login = f"{quote(user, safe='')}:{quote(password, safe='')}"
    return urlunsplit(parts._replace(netloc=f"{login}@{parts.netloc}"))


def _is_default(table: Mapping[str, Any]) -> bool:
    return table.get("default") is True


def _listed(files: Iterable[Mapping[str, Any]], key: str) -> list[str]:
    return [place for file in files for place in _texts(file.get(key))]


def _tables(value: Any) -> list[dict[str, Any]]:
    tables = value if isinstance(value, list) else []
    return [entry for entry in tables if isinstance(entry, dict) and isinstance(entry.get("url"), str)]


def _texts(value: Any) -> list[str]:
    return [item for item in value if isinstance(item, str)] if isinstance(value, list) else []


def _uv_files(environ: Mapping[str, str]) -> Iterator[Path]:
    if environ.get("UV_NO_CONFIG", "").lower() in ("1", "true", "yes", "on"):
        return
    if named := environ.get("UV_CONFIG_FILE"):
        yield Path(named)
        return
    yield Path(environ.get("XDG_CONFIG_HOME") or home_folder(environ) / ".config") / "uv" / "uv.toml"
    for folder in (environ.get("XDG_CONFIG_DIRS") or "/etc/xdg").split(":"):
        yield Path(folder) / "uv" / "uv.toml"
    yield Path("/etc/uv/uv.toml")


def _uv_file(path: Path) -> dict[str, Any]:
    """The index settings of a `uv.toml`, empty when it has none (or uv will complain about it itself)."""
    try:
        data = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError):
        return {}
    # `uv pip` takes what its own table says before the top level.
    merged = data | (data["pip"] if isinstance(data.get("pip"), dict) else {})
    return {key: merged[key] for key in _UV_KEYS if key in merged}


def _pip_settings(environ: Mapping[str, str]) -> IndexSettings | None:
    values = pip_values(environ)
    if not any(values.get(key) for key in _PIP_KEYS):
        return None
    return IndexSettings(
        source="pip",
        default_index=values.get("index-url"),
        indexes=tuple(values.get("extra-index-url", "").split()),
        find_links=tuple(_place(place, environ) for place in values.get("find-links", "").split()),
        no_index=values.get("no-index", "").lower() in ("1", "true", "yes", "on"),
        trusted_hosts=tuple(values.get("trusted-host", "").split()),
        constraints=tuple(values.get("constraint", "").split()),
    )


def _place(place: str, environ: Mapping[str, str]) -> str:
    """A find-links address; a folder becomes absolute, since uv may run elsewhere."""
    if "://" in place or place.startswith("file:"):
        return place
    if place.startswith("~"):
        place = str(home_folder(environ)) + place[1:]
    return str(Path(place).absolute())

"""What has no place in an image: rules over the files of its layers and over its configuration."""

from __future__ import annotations

import re
import tarfile
from collections.abc import Iterator, Mapping
from fnmatch import fnmatch
from typing import Any, NamedTuple

SECRETS, VERSION_CONTROL, CACHES, TOOLS = "secrets", "version control", "caches", "build tools"
LOOSE = {0o4000: "setuid", 0o2000: "setgid", 0o002: "writable by all"}

_SECRETS = (".env", ".env.*", ".netrc", ".pypirc", ".git-credentials", ".npmrc", "id_rsa", "id_ed25519")
_HARMLESS = (".env.example", ".env.sample", ".env.template")
_SECRET_PATHS = ("*/.aws/credentials", "*/.docker/config.json", "*/.kube/config", "*/.ssh/*")
_CACHES = ("*/.cache/pip/*", "*/.cache/uv/*", "/var/cache/uv/*", "/var/cache/apt/*.bin", "*/archives/*.deb")
_TOOLS = re.compile(
    r"(.+-linux-gnu-)?(gcc|g\+\+|cc|c\+\+|cpp|clang|clang\+\+)(-\d+)?|cc1|cc1plus|uvx?|pip[\d.]*"
)
# Public and wanted: a requirement may well bring pip, or a test's key.
_PACKAGES = re.compile(r"/site-packages/|/dist-packages/")
_SYSTEM = ("/usr/", "/lib", "/bin/", "/sbin/", "/var/", "/opt/venv/", "/opt/trainpack/")
_KEY_NAMES = (".pem", ".key", "id_rsa", "id_dsa", "id_ecdsa", "id_ed25519")
_SMALL = 1 << 16
_PRIVATE_KEY = re.compile(rb"-----BEGIN [A-Z ]*PRIVATE KEY-----")
# The forms that issuers give tokens so that they are found: AWS, GitHub, GitLab, Hugging Face, Slack.
_TOKEN = re.compile(
    rb"\b(AKIA[0-9A-Z]{16}|gh[pousr]_[A-Za-z0-9]{36}|github_pat_\w{60,}|glpat-[\w-]{20}|hf_[A-Za-z0-9]{34}"
    rb"|xox[abprs]-[\w-]{10,})\b"
)
_SECRET_NAME = re.compile(
    r"(TOKEN|SECRET|PASSWORD|PASSWD|(API|ACCESS|PRIVATE)[_-]?KEY|CREDENTIALS?)([_-]|$)", re.IGNORECASE
)
# A number, a switch, a path or a variable is no secret, whatever it is called.
_NO_SECRET = re.compile(r"|[\d.]+|true|false|none|[/$\"'].*", re.IGNORECASE)
_WITH_PASSWORD = re.compile(r"\w+://[^/\s:@]*:[^/\s@$]+@")
_ASSIGNMENT = re.compile(r"\b([A-Za-z_][\w-]*)=(\S*)")


class Found(NamedTuple):
    """What a layer holds that it should not: `secrets`, `/opt/app/.env`."""

    kind: str
    path: str


def found_in(path: str, member: tarfile.TarInfo, content: bytes = b"") -> Iterator[Found]:
    """What is wrong with one entry of a layer; nothing for almost all.

    Args:
        content: Of a file that `may_hold_secret`.
    """
    if kind := _unwanted(path, content):
        yield Found(kind, path)
    if (member.isreg() or member.isdir()) and path != "/workspace":
        yield from (Found(kind, path) for bit, kind in LOOSE.items() if member.mode & bit)


def may_hold_secret(path: str, member: tarfile.TarInfo) -> bool:
    """Whether the content is worth a look: small, and neither the system's nor a package's."""
    if not member.isreg() or not 0 < member.size <= _SMALL or _PACKAGES.search(path):
        return False
    return path.endswith(_KEY_NAMES) or not path.startswith(_SYSTEM)


def _unwanted(path: str, content: bytes) -> str | None:
    if _PACKAGES.search(path):
        return None
    if _is_secret(path) or _PRIVATE_KEY.search(content) or _TOKEN.search(content):
        return SECRETS
    if path.endswith("/.git"):
        return VERSION_CONTROL
    if _is_cache(path):
        return CACHES
    return TOOLS if _is_tool(path) else None


def _is_secret(path: str) -> bool:
    name = path.rpartition("/")[2]
    if name in _HARMLESS:
        return False
    return any(fnmatch(name, pattern) for pattern in _SECRETS) or any(
        fnmatch(path, pattern) for pattern in _SECRET_PATHS
    )


def _is_cache(path: str) -> bool:
    is_list = path.startswith("/var/lib/apt/lists/") and not path.endswith(("/lock", "/partial", "/auxfiles"))
    return is_list or any(fnmatch(path, pattern) for pattern in _CACHES)


def _is_tool(path: str) -> bool:
    folder, _, name = path.rpartition("/")
    in_reach = folder.endswith(("/bin", "/sbin")) or name.startswith("cc1")
    return in_reach and not path.startswith("/opt/venv/") and _TOOLS.fullmatch(name) is not None


def secret_settings(config: Mapping[str, Any]) -> Iterator[str]:
    """Which variables, labels and build steps of an image's configuration hold a secret; never the secret."""
    settings: Mapping[str, Any] = config.get("config") or {}
    variables = dict(entry.partition("=")[::2] for entry in settings.get("Env") or ())
    set_here = {"ENV": variables, "LABEL": settings.get("Labels") or {}}
    told: set[str] = set()
    for kind, values in set_here.items():
        for name, value in values.items():
            if is_secret_setting(name, value):
                told.add(name)
                yield f"{kind} {name}"
    for number, step in enumerate(config.get("history") or (), 1):
        for what in secrets_of_command(step.get("created_by") or ""):
            if what not in told:
                yield f"{what} in step {number} of the history"


def secrets_of_command(command: str) -> Iterator[str]:
    """The names of what a build step's line holds: an ARG's value, a token, an address with a password."""
    for name, value in _ASSIGNMENT.findall(command):
        if is_secret_setting(name, value):
            yield name
    if _TOKEN.search(command.encode()):
        yield "an access token"
    if _WITH_PASSWORD.search(command):
        yield "an address with a password"


def is_secret_setting(name: str, value: str) -> bool:
    """Whether a setting's name says that it is secret, or its value looks it."""
    named = _SECRET_NAME.search(name) is not None and not _NO_SECRET.fullmatch(value)
    return named or bool(_TOKEN.search(value.encode()) or _WITH_PASSWORD.search(value))

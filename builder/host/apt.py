"""Debian's mirror, as this machine is set up to reach it: for the packages of a base.

Addresses come from `TRAINPACK_DEBIAN_MIRROR` (and `TRAINPACK_DEBIAN_SECURITY_MIRROR`), else from the host's
own apt. They may hold passwords: hand them on in files or secret mounts, never on a command line.
"""

from __future__ import annotations

import platform
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass

from builder.errors import UsageError

MIRROR = "TRAINPACK_DEBIAN_MIRROR"
SECURITY_MIRROR = "TRAINPACK_DEBIAN_SECURITY_MIRROR"


@dataclass(frozen=True)
class Source:
    """One line of a `sources.list`: `deb URI SUITE COMPONENT`."""

    uri: str
    suite: str
    component: str


def sources(environ: Mapping[str, str], suite: str) -> tuple[Source, ...]:
    """Where the packages of a Debian suite are, with its updates and its security fixes.

    Raises:
        UsageError: See `sources_text`.
    """
    lines = [line.split()[1:] for line in sources_text(environ, suite).splitlines()]
    return tuple(Source(uri.rstrip("/"), name, component) for uri, name, component in lines)


def sources_text(environ: Mapping[str, str], suite: str) -> str:
    """The text of a `sources.list` for a Debian suite.

    Raises:
        UsageError: No mirror is known: no setting, and this machine is not Debian.
    """
    lines = _configured(suite, environ) or _from_host(suite)
    if not lines:
        raise UsageError(
            f"no Debian mirror is known for {suite}",
            remedy=f"set {MIRROR} to the address of one: this machine's own apt configuration names none",
        )
    return "".join(f"{line}\n" for line in lines)


def proxies() -> str:
    """The text of an apt configuration file with the host's proxies; empty without any."""
    return _dump("Acquire::http::Proxy", "Acquire::https::Proxy")


def proxy_addresses() -> dict[str, str]:
    """The host's proxies by scheme; empty without any."""
    found = {scheme: _value(f"Acquire::{scheme}::Proxy") for scheme in ("http", "https")}
    return {scheme: address for scheme, address in found.items() if address and address != "DIRECT"}


def ca_info() -> str | None:
    """The CA bundle that the host's apt trusts mirrors by, where one is configured."""
    return _value("Acquire::https::CaInfo")


def checks_valid_until() -> bool:
    """Whether outdated releases are refused: they are, unless the host's apt is told otherwise."""
    return (_value("Acquire::Check-Valid-Until") or "true").lower() not in ("false", "no", "0")


def _value(name: str) -> str | None:
    if not shutil.which("apt-config"):
        return None
    return _output("apt-config", "dump", "--no-empty", "--format", "%v%n", name).strip() or None


def _dump(*names: str) -> str:
    if not shutil.which("apt-config"):
        return ""
    return _output("apt-config", "dump", "--no-empty", "--format", '%F "%v";%n', *names)


def _configured(suite: str, environ: Mapping[str, str]) -> list[str]:
    mirror, security = environ.get(MIRROR), environ.get(SECURITY_MIRROR)
    if not mirror:
        return []
    lines = [f"deb {mirror} {suite} main", f"deb {mirror} {suite}-updates main"]
    return lines + ([f"deb {security} {suite}-security main"] if security else [])


def _from_host(suite: str) -> list[str]:
    codename = _debian_codename()
    if not codename or not shutil.which("apt-get"):
        return []
    # Without --no-release-info apt lists only what an `apt-get update` fetched before.
    targets = _output(
        *("apt-get", "indextargets", "--no-release-info"),
        *("--format", "$(REPO_URI) $(RELEASE) $(COMPONENT)", "Identifier: Packages"),
    )
    return translate(targets, codename, suite)


def translate(targets: str, codename: str, suite: str) -> list[str]:
    """Lines of `URI RELEASE COMPONENT` of one Debian release as the sources of another.

    Other vendors use the same release names: addresses ending in `debian…`, as mirrors' do, win over others.
    """
    wanted = {f"{codename}{pocket}": f"{suite}{pocket}" for pocket in ("", "-updates", "-security")}
    rows = [row for line in targets.splitlines() if len(row := line.split()) == 3]
    main = [(uri, wanted[release]) for uri, release, part in rows if release in wanted and part == "main"]
    debian = [(uri, release) for uri, release in main if "debian" in uri.rstrip("/").rpartition("/")[2]]
    return list(dict.fromkeys(f"deb {uri} {release} main" for uri, release in debian or main))


def _debian_codename() -> str | None:
    try:
        fields = platform.freedesktop_os_release()
    except OSError:
        return None
    return fields.get("VERSION_CODENAME") if fields["ID"] == "debian" else None


def _output(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout

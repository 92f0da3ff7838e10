"""Debian's mirror, as this machine is set up to reach it: for bootstrapping a base and for system packages.

Addresses come from `TRAINPACK_DEBIAN_MIRROR` (and `TRAINPACK_DEBIAN_SECURITY_MIRROR`), else from the host's
own apt. They may hold passwords: hand them on in files or secret mounts, never on a command line.
"""

from __future__ import annotations

import platform
import shutil
import subprocess
from collections.abc import Mapping

from builder.errors import UsageError

MIRROR = "TRAINPACK_DEBIAN_MIRROR"
SECURITY_MIRROR = "TRAINPACK_DEBIAN_SECURITY_MIRROR"


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


def options() -> str:
    """The same with the host's CA bundle, a path of the host."""
    return proxies() + _dump("Acquire::https::CaInfo")


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

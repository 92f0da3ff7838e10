"""From a suite's signed InRelease to its package index, each link verified.

The signature is checked by gpgv with Debian's archive keyring: the host's, else the one that a setting names.
Without both nothing is built: a mirror, its proxy or its cache could otherwise put anything into a base.
"""

from __future__ import annotations

import lzma
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from pathlib import Path

from debian_inspector.debcon import Debian822

from builder.bases.debian.mirror import File, Mirror
from builder.errors import MirrorError, UsageError
from builder.host import apt
from builder.host.package_index import redact

KEYRING = "TRAINPACK_DEBIAN_KEYRING"
# Where the package debian-archive-keyring puts it, in the form of each of its releases.
_KEYRINGS = (
    "/usr/share/keyrings/debian-archive-keyring.gpg",
    "/usr/share/keyrings/debian-archive-keyring.pgp",
)
_SIGNED = re.compile(r"^\[GNUPG:\] VALIDSIG ", re.MULTILINE)
_BAD = re.compile(r"^\[GNUPG:\] BADSIG ", re.MULTILINE)


def why_not_verifiable(environ: Mapping[str, str]) -> str | None:
    """What is missing to check Debian's signatures; None when they can be checked."""
    if not shutil.which("gpgv"):
        return "gpgv, which checks Debian's signatures, is not installed"
    if _keyring(environ) is None:
        return "there is no keyring of Debian's archive to check its signatures with"
    return None


def read_index(source: apt.Source, architecture: str, mirror: Mirror) -> bytes:
    """The text of a suite's package index.

    Raises:
        UsageError: Signatures cannot be checked on this machine.
        MirrorError: The mirror does not answer, or what it serves is forged, outdated or damaged.
    """
    place = f"{source.uri}/dists/{source.suite}"
    text = verify(mirror.read(f"{place}/InRelease"), f"{place}/InRelease", os.environ)
    release = Debian822(text.decode())
    check_release(release, source.suite, f"{place}/InRelease")
    file = find_index(release, f"{source.component}/binary-{architecture}/Packages.xz", place)
    with mirror.open(file) as compressed:
        return lzma.decompress(compressed.read())


def verify(signed: bytes, place: str, environ: Mapping[str, str]) -> bytes:
    """The signed part of a clear-signed document, when a key of Debian's archive signed it.

    Raises:
        UsageError: There is no gpgv or no keyring.
        MirrorError: No key of the keyring signed it, or a signature is wrong.
    """
    if reason := why_not_verifiable(environ):
        raise UsageError(
            reason,
            remedy="on Debian and Ubuntu `apt-get install gpgv debian-archive-keyring`; elsewhere install "
            f"GnuPG and set {KEYRING} to that package's keyring; or use --source upstream",
        )
    with tempfile.TemporaryDirectory() as scratch:
        document, text = Path(scratch) / "InRelease", Path(scratch) / "text"
        document.write_bytes(signed)
        command = ["gpgv", "--status-fd=1", "--keyring", str(_keyring(environ)), "--output", str(text)]
        done = subprocess.run([*command, str(document)], capture_output=True, text=True, check=False)
        # Debian signs with several keys, and gpgv fails when the keyring lacks any one of them: as for apt,
        # one that is known and right is enough, and one that is wrong too many.
        if not _SIGNED.search(done.stdout) or _BAD.search(done.stdout) or not text.is_file():
            raise MirrorError(
                "it is not signed by a key of Debian's archive",
                place=redact(place),
                details=tuple(done.stderr.splitlines()[-8:]),
                remedy="the mirror serves something else, or the keyring is too old: install the newest "
                f"debian-archive-keyring, or name another keyring in {KEYRING}",
            )
        return text.read_bytes()


def check_release(release: Mapping[str, str], suite: str, place: str, now: datetime | None = None) -> None:
    """Refuse another suite's release, and one that an attacker or a forgotten mirror kept for too long.

    Raises:
        MirrorError: It is one of these.
    """
    # A rolling suite goes by its code name, a frozen one of a mirror's own may go by its suite.
    if suite not in (release.get("Codename"), release.get("Suite")):
        raise MirrorError(f"it is the release of {release.get('Codename')}, not {suite}", place=redact(place))
    until = release.get("Valid-Until")
    if until and apt.checks_valid_until() and parsedate_to_datetime(until) < (now or datetime.now(UTC)):
        raise MirrorError(
            f"it was valid until {until}: the mirror is outdated, or this machine's clock is wrong",
            place=redact(place),
            remedy=f"set {apt.MIRROR} to a mirror that is kept, or, as for apt, "
            'set Acquire::Check-Valid-Until "false" in its configuration to use old packages',
        )


def find_index(release: Mapping[str, str], name: str, place: str) -> File:
    """Where a release's index is, and what it must hold.

    Raises:
        MirrorError: The release does not name it.
    """
    for sha256, size, path in map(str.split, release.get("SHA256", "").splitlines()):
        if path == name:
            by_hash = f"{name.rpartition('/')[0]}/by-hash/SHA256/{sha256}"
            # By its hash, an index is still there when the mirror is updated at this moment.
            is_kept = release.get("Acquire-By-Hash") == "yes"
            return File(f"{place}/{by_hash if is_kept else name}", sha256, int(size))
    raise MirrorError(f"the release names no {name}", place=redact(place))


def _keyring(environ: Mapping[str, str]) -> Path | None:
    named = environ.get(KEYRING)
    candidates = (named,) if named else _KEYRINGS
    return next((Path(each) for each in candidates if Path(each).is_file()), None)

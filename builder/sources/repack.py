"""A wheel as its build made it, in the one form that its content has.

What build systems do differently each time (the order and times of a zip, its compression, the order of
RECORD) is evened out; what is in the files is theirs.
"""

from __future__ import annotations

import base64
import csv
import hashlib
import io
import zipfile
from email.message import Message
from email.parser import BytesParser
from typing import IO

from packaging.tags import Tag, parse_tag
from packaging.utils import canonicalize_name
from packaging.version import InvalidVersion, Version

from builder.bases import glibc_of
from builder.errors import WheelError
from builder.lock.target import tags
from builder.plan import BuildPlan, Distribution
from builder.wheels.archive import Member, WheelArchive
from builder.wheels.install import dist_info

_RECORD = "RECORD"


def check_wheel(archive: WheelArchive, source: Distribution, plan: BuildPlan) -> None:
    """Refuse a wheel of another distribution or version than was locked, or for another platform.

    Raises:
        WheelError: It is one, or no wheel.
    """
    metadata = _headers(archive, "METADATA", source)
    name, version = str(metadata["Name"]), str(metadata["Version"])
    if canonicalize_name(name) != source.name or not _is_same_version(version, source.version):
        raise WheelError(
            f"its build made {name} {version}, the lock says {source.name} {source.version}",
            place=source.filename,
            remedy="pin a version that has a wheel, or one whose build says what it is",
        )
    made = _tags(archive, source)
    if made.isdisjoint(tags(plan, glibc_of(plan.python))):
        told = ", ".join(sorted(map(str, made))) or "nothing"
        raise WheelError(
            f"its build made a wheel for {told}, which the image does not take",
            place=source.filename,
            remedy="pin a version that has a wheel",
        )


def wheel_name(archive: WheelArchive, source: Distribution) -> str:
    """What a wheel is called, by the tags that it says it has."""
    every = _tags(archive, source)
    parts = (
        {tag.interpreter for tag in every},
        {tag.abi for tag in every},
        {tag.platform for tag in every},
    )
    joined = "-".join(".".join(sorted(part)) for part in parts)
    return f"{source.name.replace('-', '_')}-{source.version}-{joined}.whl"


def repack(archive: WheelArchive, source: Distribution, out: IO[bytes]) -> None:
    """Write the wheel again: stored, sorted, of one moment, with a RECORD of what is in it.

    Nothing is compressed, since the layer that it goes into is.

    Raises:
        WheelError: Its bytes are not those that its directory says.
    """
    record_path = f"{_info(archive, source)}/{_RECORD}"
    rows = []
    with zipfile.ZipFile(out, "w", zipfile.ZIP_STORED) as target:
        for member in archive.members:
            if member.name != record_path:
                rows.append(_copy(archive, member, target))
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerows([*rows, (record_path, "", "")])
        target.writestr(_entry(record_path, executable=False), text.getvalue())


def _copy(archive: WheelArchive, member: Member, target: zipfile.ZipFile) -> tuple[str, str, int]:
    digest = hashlib.sha256()
    entry = _entry(member.name, executable=member.is_executable)
    entry.file_size = member.size
    with target.open(entry, "w") as file:
        for piece in archive.pieces(member):
            digest.update(piece.raw)
            file.write(piece.raw)
    encoded = base64.urlsafe_b64encode(digest.digest()).decode().rstrip("=")
    return member.name, f"sha256={encoded}", member.size


def _entry(name: str, *, executable: bool) -> zipfile.ZipInfo:
    entry = zipfile.ZipInfo(name)  # of 1980, the first moment that a zip can hold
    entry.create_system = 3
    entry.external_attr = (0o100755 if executable else 0o100644) << 16
    return entry


def _info(archive: WheelArchive, source: Distribution) -> str:
    return dist_info([member.name for member in archive.members], source.filename, source.name)


def _headers(archive: WheelArchive, name: str, source: Distribution) -> Message:
    path = f"{_info(archive, source)}/{name}"
    found = next((member for member in archive.members if member.name == path), None)
    if not found:
        raise WheelError(f"its build made a wheel without {name}", place=source.filename)
    return BytesParser().parsebytes(archive.read(found), headersonly=True)


def _tags(archive: WheelArchive, source: Distribution) -> frozenset[Tag]:
    written = _headers(archive, "WHEEL", source).get_all("Tag", [])
    return frozenset(tag for text in written for tag in parse_tag(str(text).strip()))


def _is_same_version(text: str, expected: str) -> bool:
    try:
        return Version(text) == Version(expected)
    except InvalidVersion:
        return False

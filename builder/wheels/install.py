"""Where a wheel's files go, as pip and uv would put them: pure data, nothing is unpacked.

The library `installer` knows the schemes, scripts and records; it is given a wheel to read from and a place
to write to that only remembers.
"""

from __future__ import annotations

import base64
import hashlib
import posixpath
import warnings
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from typing import Any, BinaryIO, cast

from installer import install
from installer.destinations import WheelDestination
from installer.exceptions import InstallerError
from installer.records import Hash, RecordEntry, parse_record_file
from installer.sources import WheelContentElement, WheelSource
from installer.utils import Scheme, canonicalize_name, construct_record_file, parse_wheel_filename

from builder.errors import LayerError, WheelError
from builder.oci import tar
from builder.wheels.archive import Member, WheelArchive
from builder.wheels.environment import Environment

# REQUESTED: what is in a lock was asked for by it.
_METADATA = {"INSTALLER": b"trainpack\n", "REQUESTED": b""}
# Byte for byte what uv writes, so that both builders make the same script.
_SCRIPT = """\
#!{python}
# -*- coding: utf-8 -*-
import sys
from {module} import {name}
if __name__ == "__main__":
    if sys.argv[0].endswith("-script.pyw"):
        sys.argv[0] = sys.argv[0][:-11]
    elif sys.argv[0].endswith(".exe"):
        sys.argv[0] = sys.argv[0][:-4]
    sys.exit({call}())
"""


@dataclass(frozen=True)
class Installed:
    """What a wheel becomes.

    Attributes:
        entries: Files with content of their own, and those of the wheel, whose content is in `members`.
        members: Path → the wheel's file that lies there unchanged.
    """

    entries: list[tar.Entry] = field(default_factory=list)
    members: dict[str, Member] = field(default_factory=dict)


def lay_out(archive: WheelArchive, environment: Environment) -> Installed:
    """Where everything in a wheel goes.

    Raises:
        WheelError: It is no wheel that can be installed.
    """
    try:
        source = _Source(archive)
        destination = _Destination(source, environment)
        with warnings.catch_warnings():
            # It leaves out byte code that a wheel brings along: ours is made for this very Python.
            warnings.simplefilter("ignore", RuntimeWarning)
            install(source, destination, _METADATA)
    except (LayerError, InstallerError, ValueError, AssertionError, LookupError, TypeError) as error:
        raise WheelError(f"not a wheel that can be installed: {error}", place=archive.filename) from None
    return destination.installed


class _Source(WheelSource):
    def __init__(self, archive: WheelArchive) -> None:
        parsed = parse_wheel_filename(archive.filename)
        super().__init__(parsed.distribution, parsed.version)
        self.archive = archive
        self._members = {member.name: member for member in archive.members}
        self._info = dist_info(self._members, archive.filename, parsed.distribution)
        lines = self.read_dist_info("RECORD").splitlines()
        self.records = {elements[0]: elements for elements in parse_record_file(lines)}

    @property
    def dist_info_dir(self) -> str:
        return self._info

    @property
    def data_dir(self) -> str:
        return f"{self._info.removesuffix('.dist-info')}.data"

    @property
    def dist_info_filenames(self) -> list[str]:
        folder = f"{self._info}/"
        return [name.removeprefix(folder) for name in self._members if name.startswith(folder)]

    def read_dist_info(self, filename: str) -> str:
        return self.archive.read(self._members[f"{self._info}/{filename}"]).decode()

    def get_contents(self) -> Iterator[WheelContentElement]:
        for name, member in self._members.items():
            # The destination knows what a member is; nothing reads it as a stream.
            yield self.record(name), cast("BinaryIO", member), member.is_executable

    def record(self, name: str) -> tuple[str, str, str]:
        return self.records.get(name, (name, "", ""))


class _Destination(WheelDestination):
    def __init__(self, source: _Source, environment: Environment) -> None:
        self.installed = Installed()
        self._source = source
        self._environment = environment
        prefix, site = environment.folder, environment.site_packages
        headers = f"{prefix}/include/site/python{environment.python}/{source.distribution}"
        self._folders = {
            "purelib": site,
            "platlib": site,
            "scripts": f"{prefix}/bin",
            "headers": headers,
            "data": prefix,
        }

    def write_script(self, name: str, module: str, attr: str, section: str) -> RecordEntry:
        text = _SCRIPT.format(
            python=self._environment.interpreter, module=module, name=attr.partition(".")[0], call=attr
        )
        return self._write("scripts", name, text.encode(), 0o755)

    def write_file(self, scheme: Scheme, path: Any, stream: BinaryIO, is_executable: bool) -> RecordEntry:
        mode = 0o755 if is_executable or scheme == "scripts" else 0o644
        if not isinstance(stream, Member):
            return self._write(scheme, path, stream.read(), mode)
        if scheme == "scripts":
            return self._write(scheme, path, self._with_interpreter(self._source.archive.read(stream)), mode)
        place = f"{self._folders[scheme]}/{path}"
        self.installed.entries.append(tar.file(place, b"", mode, size=stream.size))
        self.installed.members[place] = stream
        return RecordEntry.from_elements(path, *self._source.record(stream.name)[1:])

    def finalize_installation(self, scheme: Scheme, record_file_path: Any, records: Any) -> None:
        site = self._environment.site_packages
        prefixes = {
            name: f"{posixpath.relpath(folder, site)}/" if folder != site else None
            for name, folder in self._folders.items()
        }
        with construct_record_file(records, lambda each: prefixes[each]) as record:
            self._write(scheme, record_file_path, record.read(), 0o644)

    def _write(self, scheme: str, path: str, content: bytes, mode: int) -> RecordEntry:
        place = f"{self._folders[scheme]}/{path}"
        # A script's name comes from a text inside the wheel, which is checked nowhere else.
        tar.check_path(place)
        self.installed.entries.append(tar.file(place, content, mode))
        digest = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).decode().rstrip("=")
        return RecordEntry(path, Hash("sha256", digest), len(content))

    def _with_interpreter(self, script: bytes) -> bytes:
        if not script.startswith(b"#!python"):
            return script
        return f"#!{self._environment.interpreter}\n".encode() + script.partition(b"\n")[2]


def dist_info(names: Collection[str], filename: str, distribution: str) -> str:
    """The one metadata folder among a wheel's files, which belongs to its name.

    Raises:
        WheelError: There are none or several, or it is another distribution's.
    """
    found = sorted({name.partition("/")[0] for name in names if ".dist-info/" in name})
    folders = [name for name in found if name.endswith(".dist-info")]
    if len(folders) != 1:
        raise WheelError(
            f"expected one .dist-info folder, found {', '.join(folders) or 'none'}", place=filename
        )
    name = folders[0].removesuffix(".dist-info").rsplit("-", 1)[0]
    if canonicalize_name(name) != canonicalize_name(distribution):
        raise WheelError(f"its {folders[0]} is of another distribution", place=filename)
    return folders[0]

"""What a workspace has of its downloads, so that a restarted container fetches only the rest.

An ETag tells two contents of one object apart, which is what going on with a broken download needs. It is no
checksum: of an object that was uploaded in parts, or that is encrypted, it is not a digest of the content. A
checksum is what storage itself calls one; it is not asked for, since S3 refuses a presigned URL with an
`x-amz-…` header that was not signed.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import os
import zlib
from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

from trainpack_entrypoint.links import Item
from trainpack_entrypoint.workspace import stamp

_FOLDER = ".downloads"
_CHUNK = 1 << 20


class _Entry(NamedTuple):
    """What is known of a file.

    Attributes:
        checksum: An algorithm and the digest in base64.
        stamp: Of the file when it was complete; None while it is not.
    """

    object: str
    etag: str | None
    checksum: tuple[str, str] | None
    stamp: tuple[int, ...] | None


class Journal:
    """What was downloaded into this workspace: a line for each beginning and end; the last one counts."""

    def __init__(self, folder: str, items: Iterable[Item]) -> None:
        self.folder = os.path.join(folder, _FOLDER)
        os.makedirs(self.folder, exist_ok=True)
        path = os.path.join(self.folder, "journal.jsonl")
        entries = dict(_entries(path))
        known = {item.path: entries[item.path] for item in items if item.path in entries}
        self._entries = {
            item.path: known[item.path]
            for item in items
            if item.path in known and known[item.path].object == item.remote.object_name
        }
        self._remove_others(self.part(path) for path, entry in self._entries.items() if entry.stamp is None)
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND, 0o600)
        for path, entry in self._entries.items():
            self._append(path, entry)

    def _remove_others(self, parts: Iterable[str]) -> None:
        for name in {entry.name for entry in os.scandir(self.folder)} - {os.path.basename(p) for p in parts}:
            os.unlink(os.path.join(self.folder, name))

    def close(self) -> None:
        """Everything is there; not before, since a thread that is left to itself may still write."""
        os.close(self._file)

    def _append(self, path: str, entry: _Entry) -> None:
        self._entries[path] = entry
        os.write(self._file, json.dumps([path, *entry]).encode() + b"\n")

    def part(self, path: str) -> str:
        """Where a file is while it is not complete."""
        return os.path.join(self.folder, hashlib.sha256(path.encode()).hexdigest()[:32] + ".part")

    def is_complete(self, item: Item) -> bool:
        """Whether the file is there, as it was when it was complete."""
        entry = self._entries.get(item.path)
        try:
            return entry is not None and entry.stamp == stamp(os.lstat(item.path))
        except OSError:
            return False

    def received(self, item: Item) -> int:
        """How many bytes are there of a file that can be gone on with."""
        entry = self._entries.get(item.path)
        if entry is None or entry.etag is None or entry.stamp is not None:
            return 0
        try:
            return os.path.getsize(self.part(item.path))
        except OSError:
            return 0

    def conditions(self, item: Item) -> dict[str, str]:
        """The headers that ask for what is not there."""
        etag = self.etag(item) or ""
        if self.is_complete(item):
            return {"If-None-Match": etag} if etag else {}
        offset = self.received(item)
        return {"Range": f"bytes={offset}-", "If-Range": etag} if offset else {}

    def etag(self, item: Item) -> str | None:
        """The content that is there, or of which a part is."""
        entry = self._entries.get(item.path)
        return entry.etag if entry else None

    def begin(self, item: Item, headers: Mapping[str, str]) -> None:
        """A file is received from its start."""
        etag = None if is_encoded(headers) else headers.get("ETag")
        etag = None if etag and etag.startswith("W/") else etag
        self._append(item.path, _Entry(item.remote.object_name, etag, _checksum(headers), None))

    def finish(self, item: Item, size: int | None) -> str | None:
        """Put a file in place; the problem, when it is not what was announced."""
        part, entry = self.part(item.path), self._entries[item.path]
        received = os.path.getsize(part)
        if size is not None and received != size:
            return f"{received} bytes came of {size}"
        if entry.checksum and _digest(entry.checksum[0], part) != entry.checksum[1]:
            return f"its {entry.checksum[0]} checksum is not the one that storage gives"
        os.makedirs(os.path.dirname(item.path), exist_ok=True)
        os.replace(part, item.path)
        self._append(item.path, entry._replace(stamp=stamp(os.lstat(item.path))))
        return None

    def drop(self, item: Item) -> None:
        """Forget what is there of a file."""
        self._entries.pop(item.path, None)
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self.part(item.path))


def _entries(path: str) -> Iterator[tuple[str, _Entry]]:
    try:
        with open(path, "rb") as file:
            lines = file.readlines()
    except FileNotFoundError:
        return
    for line in lines:
        # A container that was killed may have left half a line.
        with contextlib.suppress(ValueError, TypeError):
            name, object_name, etag, checksum, then = json.loads(line)
            yield (
                name,
                _Entry(
                    object_name, etag, tuple(checksum) if checksum else None, tuple(then) if then else None
                ),
            )


def is_encoded(headers: Mapping[str, str]) -> bool:
    """Whether what arrives is not the object as it is stored."""
    return headers.get("Content-Encoding", "identity") not in ("", "identity")


def _checksum(headers: Mapping[str, str]) -> tuple[str, str] | None:
    """The checksum of a whole object that storage gives, of those that the standard library can compute."""
    if is_encoded(headers):
        return None
    google = dict(part.strip().partition("=")[::2] for part in headers.get("x-goog-hash", "").split(","))
    known = {
        "sha256": headers.get("x-amz-checksum-sha256"),
        "sha1": headers.get("x-amz-checksum-sha1"),
        "md5": google.get("md5") or headers.get("Content-MD5"),
        "crc32": headers.get("x-amz-checksum-crc32"),
    }
    # One of an upload in parts, `…-3`, is a checksum of checksums.
    return next(((name, value) for name, value in known.items() if value and "-" not in value), None)


def _digest(algorithm: str, path: str) -> str:
    with open(path, "rb") as file:
        if algorithm == "crc32":
            value = 0
            while chunk := file.read(_CHUNK):
                value = zlib.crc32(chunk, value)
            digest = value.to_bytes(4, "big")
        else:
            digest = hashlib.file_digest(file, lambda: hashlib.new(algorithm, usedforsecurity=False)).digest()
    return base64.b64encode(digest).decode()

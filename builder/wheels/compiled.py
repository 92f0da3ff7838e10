"""The byte code of a wheel, compiled once and kept: its files one after another, then paths and sizes."""

from __future__ import annotations

import itertools
import json
import os
from collections.abc import Iterable
from typing import IO

from builder.oci import tar
from builder.oci.blobs import Blobs
from builder.oci.cache import cache_key
from builder.oci.image import Layer
from builder.oci.layer import kept_layer
from builder.oci.manifest import OCI_LAYER, canonical_json
from builder.plan import Distribution
from builder.wheels.bytecode import Interpreter
from builder.wheels.environment import Environment

# Raised when the same wheel is kept as other bytes than before.
_FORMAT = 3
_LENGTH_BYTES = 8


def bytecode_key(wheel: Distribution, environment: Environment, interpreter: Interpreter) -> str:
    """What decides the byte code of a wheel."""
    place = [environment.prefix, environment.python]
    return cache_key("bytecode", _FORMAT, *place, interpreter.identity, wheel.filename, wheel.sha256)


def keep(files: Iterable[tuple[str, bytes]], blobs: Blobs) -> Layer:
    """Write the byte code as it comes, so that memory stays flat."""
    sizes = []
    with blobs.writer() as writer:
        for path, content in files:
            writer.write(content)
            sizes.append((path, len(content)))
        index = canonical_json(sizes)
        writer.write(index + len(index).to_bytes(_LENGTH_BYTES))
    return kept_layer(blobs, writer.digest, writer.digest, writer.size, writer.size, OCI_LAYER)


class Compiled:
    """The byte code that `keep` wrote.

    Args:
        file: Read to its end first, which verifies it.

    Attributes:
        entries: The files, without their content.
    """

    def __init__(self, file: IO[bytes]) -> None:
        while file.read(tar.CHUNK):
            pass
        sizes = _index(file)
        starts = itertools.accumulate((size for _, size in sizes), initial=0)
        self.entries = [tar.file(path, b"", size=size) for path, size in sizes]
        self._file = file
        self._starts = {path: start for (path, _), start in zip(sizes, starts, strict=False)}

    def __contains__(self, path: str) -> bool:
        return path in self._starts

    def read(self, entry: tar.Entry) -> bytes:
        """The content of one of the entries."""
        self._file.seek(self._starts[entry.path])
        return self._file.read(entry.size)


def _index(file: IO[bytes]) -> list[tuple[str, int]]:
    end = file.seek(-_LENGTH_BYTES, os.SEEK_END)
    length = int.from_bytes(file.read(_LENGTH_BYTES))
    file.seek(end - length)
    sizes: list[tuple[str, int]] = json.loads(file.read(length))
    return sizes

"""Packed wheels into one layer: a wheel's deflate streams become members of the layer's gzip."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from itertools import chain

from builder.errors import LayerError
from builder.oci import tar
from builder.oci.blobs import Blobs, BlobWriter
from builder.oci.image import Layer
from builder.oci.layer import kept_layer
from builder.wheels.archive import Piece
from builder.wheels.packed import Packed, gzip_member


def write_wheels(wheels: Sequence[Packed], blobs: Blobs, epoch: int) -> Layer:
    """Write the layer of some wheels that have no path in common: all their folders, then wheel by wheel.

    Raises:
        WheelError: A file's bytes are not those that its wheel's directory says.
        LayerError: A file of one lies where another one has a folder.
    """
    folders = b"".join(tar.header(folder, epoch) for folder in _folders(wheels))
    with blobs.writer() as writer:
        stream = _Stream(writer)
        stream.write(Piece(gzip_member(folders), folders))
        for piece in chain.from_iterable(wheel.pieces() for wheel in wheels):
            stream.write(piece)
        stream.write(Piece(gzip_member(tar.END), tar.END))
    return kept_layer(blobs, writer.digest, f"sha256:{stream.tar.hexdigest()}", writer.size, stream.size)


def _folders(wheels: Iterable[Packed]) -> list[tar.Entry]:
    files = {path for wheel in wheels for path in wheel.paths}
    parents = {path.rpartition("/")[0] for path in files}
    arranged = tar.arrange(tar.folder(path) for path in parents)
    for entry in arranged:
        if entry.path in files:
            raise LayerError("a file of one wheel, and a folder of another", place=entry.path)
    return arranged


class _Stream:
    """A tar on its way into a gzip.

    Attributes:
        tar, size: Over the bytes of the tar.
    """

    def __init__(self, out: BlobWriter) -> None:
        self.tar = hashlib.sha256()
        self.size = 0
        self._out = out

    def write(self, piece: Piece) -> None:
        self.tar.update(piece.raw)
        self.size += len(piece.raw)
        self._out.write(piece.packed)

"""Single files of an image, read out of its layers."""

from __future__ import annotations

import tarfile
import zlib
from collections.abc import Iterator, Sequence

from builder.errors import ImageFormatError
from builder.oci.image import Layer
from builder.oci.streams import CHUNK

# What is read this way is a record or a setting, never data.
LARGEST_BYTES = 32_000_000


def read_files(layers: Sequence[Layer], paths: Sequence[str]) -> dict[str, bytes]:
    """The regular files of these paths, each from the last layer that has it; what none has is left out.

    Args:
        layers: Base first; they are opened from the last to the first, until all is found.
        paths: Without the leading slash: `usr/lib/os-release`.

    Raises:
        ImageFormatError: A layer cannot be read, or such a file is larger than any record is.
        BlobError: A layer's bytes are not those of its digest.
    """
    found: dict[str, bytes] = {}
    for layer in reversed(layers):
        missing = [path for path in paths if path not in found]
        if not missing:
            break
        found |= dict(_members(layer, missing))
    return found


def _members(layer: Layer, paths: Sequence[str]) -> Iterator[tuple[str, bytes]]:
    try:
        with layer.open() as blob:
            with tarfile.open(fileobj=blob, mode="r:*") as archive:
                for member in archive:
                    path = member.name.removeprefix("./")
                    if member.isfile() and path in paths:
                        yield path, _content(archive, member, layer)
            while blob.read(CHUNK):
                pass  # only at its end is a blob known to be the one of its digest
    except (tarfile.TarError, EOFError, OSError, zlib.error) as error:
        raise ImageFormatError(f"a layer that cannot be read: {error}", place=layer.digest) from None


def _content(archive: tarfile.TarFile, member: tarfile.TarInfo, layer: Layer) -> bytes:
    file = archive.extractfile(member)
    if file is None or member.size > LARGEST_BYTES:
        raise ImageFormatError(f"the file {member.name} of {member.size} bytes", place=layer.digest)
    return file.read()

"""Images and layers as values."""

from __future__ import annotations

import gzip
import io
import tarfile
from pathlib import Path

from builder.oci import tar
from builder.oci.blobs import Blobs
from builder.oci.layer import write_layer
from builder.oci.manifest import digest_of


def test_a_layer_knows_the_digests_of_its_compressed_and_its_plain_bytes(tmp_path: Path) -> None:
    layer = write_layer([tar.file("a/b", b"hello")], Blobs(tmp_path))
    with layer.open() as file:
        content = file.read()
    assert (digest_of(content), len(content)) == (layer.digest, layer.size)
    plain = gzip.decompress(content)
    assert (digest_of(plain), len(plain)) == (layer.diff_id, layer.unpacked)
    with tarfile.open(fileobj=io.BytesIO(plain)) as archive:
        assert [(info.name, info.isdir(), info.mtime) for info in archive] == [
            ("a", True, tar.EPOCH),
            ("a/b", False, tar.EPOCH),
        ]

"""An upload's form as a stream: `requests` would hold the whole file in memory, three times over."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from typing import IO, TYPE_CHECKING

if TYPE_CHECKING:
    import requests

_CHUNK = 1 << 16


class _Body:
    def __init__(self, head: bytes, file: IO[bytes], tail: bytes) -> None:
        self._head, self._file, self._tail = head, file, tail
        self._size = len(head) + os.fstat(file.fileno()).st_size + len(tail)

    def __len__(self) -> int:
        return self._size

    def __iter__(self) -> Iterator[bytes]:
        yield self._head
        while chunk := self._file.read(_CHUNK):
            yield chunk
        yield self._tail


def stream_form(request: requests.Request) -> None:
    """Make the body of a request that sends one open file with its fields a stream."""
    from urllib3.filepost import encode_multipart_formdata

    ((field, (name, file)),) = request.files.items()
    place = secrets.token_bytes(16)
    form, content_type = encode_multipart_formdata([*request.data.items(), (field, (name, place))])
    head, _, tail = form.partition(place)
    request.data, request.files = _Body(head, file, tail), []
    request.headers["Content-Type"] = content_type

"""What `update-ca-certificates` and `openssl rehash` make: one bundle, and a link by each name's hash."""

from __future__ import annotations

import base64
import hashlib
import re
from collections import Counter
from collections.abc import Iterator

from builder.bases.debian.tree import Tree, content
from builder.oci.tar import Entry, file, link

_SOURCE = "usr/share/ca-certificates/"
_TARGET = "etc/ssl/certs"
_PEM = re.compile(rb"-----BEGIN CERTIFICATE-----(.+?)-----END CERTIFICATE-----", re.DOTALL)
# ASN.1 types of a name's parts that OpenSSL compares without case, with the encoding of each: UTF8,
# Printable, T61, IA5, Visible, Universal and BMP strings.
_TEXTS = {
    12: "utf-8",
    19: "latin-1",
    20: "latin-1",
    22: "latin-1",
    26: "latin-1",
    28: "utf-32-be",
    30: "utf-16-be",
}
_SPACES = re.compile(r"[ \t\n\v\f\r]+")
_UTF8, _SEQUENCE, _SET = 12, 0x30, 0x31


def certificates(tree: Tree) -> Iterator[Entry]:
    """The bundle, a name for each certificate, and the links by which OpenSSL finds one in a folder."""
    bundle, taken = b"", Counter[str]()
    names = sorted(
        path.removeprefix(_SOURCE) for path in tree if path.startswith(_SOURCE) and path.endswith(".crt")
    )
    for name in names:
        certificate = content(tree, _SOURCE + name)
        bundle += certificate if certificate.endswith(b"\n") else certificate + b"\n"
        pem = f"{name.rpartition('/')[2].removesuffix('.crt')}.pem"
        yield link(f"{_TARGET}/{pem}", f"/{_SOURCE}{name}")
        digest = subject_hash(certificate)
        yield link(f"{_TARGET}/{digest}.{taken[digest]}", pem)
        taken[digest] += 1
    if names:
        yield file("etc/ca-certificates.conf", "".join(f"{name}\n" for name in names).encode())
        yield file(f"{_TARGET}/ca-certificates.crt", bundle)


def subject_hash(pem: bytes) -> str:
    """What `openssl x509 -hash` prints: SHA-1 over the subject in OpenSSL's canonical form.

    Source: x509_name_canon in https://github.com/openssl/openssl/blob/master/crypto/x509/x_name.c.

    Raises:
        ValueError: It is no certificate.
    """
    match = _PEM.search(pem)
    if not match:
        raise ValueError("no certificate in PEM form")
    ((_, certificate),) = _elements(base64.b64decode(match[1]))
    (_, body), *_ = _elements(certificate)
    # Serial number, signature, issuer, validity, subject; before them the version, where there is one.
    fields = [value for tag, value in _elements(body) if tag != 0xA0]
    canonical = b"".join(_canonical_set(value) for _, value in _elements(fields[4]))
    digest = hashlib.sha1(canonical).digest()  # noqa: S324  (a name, not a protection)
    return f"{int.from_bytes(digest[:4], 'little'):08x}"


def _canonical_set(content: bytes) -> bytes:
    parts = []
    for _, attribute in _elements(content):
        (oid_tag, oid), (tag, value) = _elements(attribute)
        if tag in _TEXTS:
            text = _SPACES.sub(" ", value.decode(_TEXTS[tag])).strip(" ")
            tag, value = _UTF8, _lower(text).encode()
        parts.append(_encoded(_SEQUENCE, _encoded(oid_tag, oid) + _encoded(tag, value)))
    return _encoded(_SET, b"".join(sorted(parts)))


def _lower(text: str) -> str:
    """In lower case where OpenSSL makes it so: in ASCII."""
    return re.sub("[A-Z]+", lambda match: match[0].lower(), text)


def _elements(data: bytes) -> Iterator[tuple[int, bytes]]:
    """The tags and contents of DER, one after the other."""
    at = 0
    while at < len(data):
        tag, size, at = data[at], data[at + 1], at + 2
        if size >= 0x80:
            count = size & 0x7F
            size, at = int.from_bytes(data[at : at + count]), at + count
        yield tag, data[at : at + size]
        at += size


def _encoded(tag: int, content: bytes) -> bytes:
    if len(content) < 0x80:
        return bytes([tag, len(content)]) + content
    size = len(content).to_bytes((len(content).bit_length() + 7) // 8)
    return bytes([tag, 0x80 | len(size)]) + size + content

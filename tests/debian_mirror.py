"""A mirror of Debian's, made on the spot: tiny packages, signed by a key of its own, served on loopback."""

from __future__ import annotations

import gzip
import hashlib
import io
import lzma
import os
import subprocess
import tarfile
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

SUITE = "bookworm"
MODES = {tarfile.DIRTYPE: 0o755, tarfile.SYMTYPE: 0o777}


def member(
    name: str, content: bytes = b"", mode: int | None = None, **fields: Any
) -> tuple[tarfile.TarInfo, bytes]:
    """A member of a package's data: `type`, `linkname` and what else a tar can hold."""
    info = tarfile.TarInfo(name)
    info.size = len(content)
    for key, value in fields.items():
        setattr(info, key, value)
    info.mode = MODES.get(info.type, 0o644) if mode is None else mode
    return info, content


def tar(members: list[tuple[tarfile.TarInfo, bytes]]) -> bytes:
    """The members as a tar."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for info, content in members:
            archive.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


def ar(members: Mapping[str, bytes]) -> bytes:
    """The members as the archive that a .deb is."""
    data = b"!<arch>\n"
    for name, content in members.items():
        data += f"{name:<16}{0:<12}{0:<6}{0:<6}{'100644':<8}{len(content):<10}`\n".encode() + content
        data += b"\n" * (len(content) % 2)
    return data


def deb(
    fields: Mapping[str, str],
    data: list[tuple[tarfile.TarInfo, bytes]],
    info: Mapping[str, bytes] | None = None,
) -> bytes:
    """A package."""
    control = "".join(f"{name}: {value}\n" for name, value in fields.items()).encode()
    files = [member(f"./{name}", content) for name, content in {"control": control, **(info or {})}.items()]
    return ar(
        {
            "debian-binary": b"2.0\n",
            "control.tar.gz": gzip.compress(tar(files), mtime=0),
            "data.tar.xz": lzma.compress(tar(data)),
        }
    )


@dataclass
class SigningKey:
    """A key that signs releases, and the keyring to verify them with."""

    home: Path
    keyring: Path

    def sign(self, text: str) -> bytes:
        """The text, clear-signed."""
        return self._gpg("--clearsign", stdin=text.encode())

    def _gpg(self, *arguments: str, stdin: bytes = b"") -> bytes:
        command = ["gpg", "--homedir", str(self.home), "--batch", "--quiet", "--passphrase", "", *arguments]
        return subprocess.run(command, input=stdin, check=True, capture_output=True).stdout


@contextmanager
def signing_key(folder: Path) -> Iterator[SigningKey]:
    """A new key, and no agent left behind."""
    home = folder / "gnupg"
    home.mkdir(mode=0o700, parents=True)
    key = SigningKey(home, folder / "keyring.gpg")
    try:
        key._gpg("--quick-generate-key", "Tests <tests@example.com>", "ed25519", "sign", "never")
        key.keyring.write_bytes(key._gpg("--export"))
        yield key
    finally:
        subprocess.run(["gpgconf", "--homedir", str(home), "--kill", "all"], check=False, capture_output=True)


@dataclass
class Archive:
    """A folder that is served as a mirror; `publish` once the packages are in."""

    folder: Path
    key: SigningKey
    url: str
    paragraphs: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)
    broken: dict[str, int] = field(default_factory=dict)

    def add(
        self,
        name: str,
        *data: tuple[tarfile.TarInfo, bytes],
        info: Mapping[str, bytes] | None = None,
        **fields: str,
    ) -> Path:
        """A package with these files; `Depends` and the like as fields."""
        stated = {"Package": name, "Version": "1.0", "Architecture": "amd64", "Maintainer": "Tests", **fields}
        stated["Description"] = "for tests"
        path = self.folder / f"pool/{name}_{stated['Version']}.deb"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(deb(stated, list(data), info))
        self.paragraphs.append(_paragraph(stated, path, self.folder))
        return path

    def publish(self, until: str = "", suite: str = SUITE) -> None:
        """Write and sign the indexes of the suite and of its updates, which are empty."""
        for name, text in ((suite, "\n".join(self.paragraphs)), (f"{suite}-updates", "")):
            packed = lzma.compress(text.encode())
            place = self.folder / "dists" / name / "main/binary-amd64"
            place.mkdir(parents=True, exist_ok=True)
            (place / "Packages.xz").write_bytes(packed)
            release = f"Codename: {name}\n" + (f"Valid-Until: {until}\n" if until else "")
            digest = hashlib.sha256(packed).hexdigest()
            release += f"SHA256:\n {digest} {len(packed)} main/binary-amd64/Packages.xz\n"
            (place.parents[1] / "InRelease").write_bytes(self.key.sign(release))


@contextmanager
def archive(folder: Path, key: SigningKey) -> Iterator[Archive]:
    """An empty mirror."""
    folder.mkdir(parents=True)
    made = Archive(folder, key, "")

    class Handler(SimpleHTTPRequestHandler):
        def do_GET(self) -> None:
            made.requests.append(self.path)
            status = next((code for end, code in made.broken.items() if self.path.endswith(end)), None)
            if status is None:
                super().do_GET()
            else:
                self.send_error(status)

        def log_message(self, format: str, *arguments: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=os.fspath(folder))) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        made.url = f"http://127.0.0.1:{server.server_address[1]}"
        yield made
        server.shutdown()


def _paragraph(fields: Mapping[str, str], path: Path, root: Path) -> str:
    content = path.read_bytes()
    where = {
        "Filename": str(path.relative_to(root)),
        "Size": str(len(content)),
        "SHA256": hashlib.sha256(content).hexdigest(),
    }
    return "".join(f"{name}: {value}\n" for name, value in {**fields, **where}.items())

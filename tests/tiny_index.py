"""Package indexes made on the spot: tiny wheels in a folder, as a simple index, or served on loopback."""

from __future__ import annotations

import base64
import io
import os
import shutil
import tarfile
import textwrap
import threading
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import MappingProxyType

from packaging.utils import parse_wheel_filename


def wheel(folder: Path, filename: str, requires: Sequence[str] = (), content: str = "") -> Path:
    """A wheel of that name, valid for what its name says."""
    folder.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(folder / filename, "w") as archive:
        for file, text in _wheel_files(filename, requires, content).items():
            archive.writestr(zipfile.ZipInfo(file), text)
    return folder / filename


def _wheel_files(filename: str, requires: Sequence[str], content: str) -> dict[str, str]:
    name, version, *_ = filename.split("-")
    info = f"{name}-{version}.dist-info"
    tags = sorted(map(str, parse_wheel_filename(filename)[3]))
    lines = [
        "Wheel-Version: 1.0",
        "Generator: tests",
        "Root-Is-Purelib: true",
        *(f"Tag: {tag}" for tag in tags),
    ]
    files = {
        f"{name}.py": content,
        f"{info}/METADATA": _metadata(name, version, requires),
        f"{info}/WHEEL": "\n".join([*lines, ""]),
    }
    return files | {f"{info}/RECORD": "".join(f"{file},,\n" for file in [*files, f"{info}/RECORD"])}


def pure(folder: Path, name: str, version: str, requires: Sequence[str] = (), content: str = "") -> Path:
    """A wheel for every platform."""
    return wheel(folder, f"{name.replace('-', '_')}-{version}-py3-none-any.whl", requires, content)


_BACKEND = """
import os, random, time, zipfile

def build_wheel(folder, config_settings=None, metadata_directory=None):
    name, files = {made!r}, list({files!r}.items())
{build}
    # Each time in another order, at another moment and with another compression.
    random.SystemRandom().shuffle(files)
    moment = time.localtime(time.time() - random.SystemRandom().randrange(10 ** 8))[:6]
    with zipfile.ZipFile(os.path.join(folder, name), "w") as wheel:
        for path, text in files:
            method = random.SystemRandom().choice([zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
            wheel.writestr(zipfile.ZipInfo(path, moment), text, method)
    return name
"""


def sdist(
    folder: Path,
    name: str,
    version: str,
    content: str = "",
    *,
    build: str = "pass",
    made: str = "",
    requires: Sequence[str] = (),
    after: str = "",
    files: Mapping[str, str] = MappingProxyType({}),
) -> Path:
    """A source distribution with a build system of its own, and static metadata: resolving builds nothing.

    Args:
        content: Of its one module.
        build: What its build does first, as Python; it may change `name` and `files`, a list, of the wheel.
        made: The wheel that its build makes, in place of its own.
        requires: What its build requires.
        after: Other Python of its backend.
        files: Others that it holds, by their paths in the archive.
    """
    stem = f"{name.replace('-', '_')}-{version}"
    made = made or f"{stem}-py3-none-any.whl"
    backend = _BACKEND.format(
        made=made, files=_wheel_files(made, (), content), build=textwrap.indent(build, "    ")
    )
    system = f'[build-system]\nrequires = {list(requires)}\nbuild-backend = "backend"\nbackend-path = ["."]\n'
    texts = {
        "pyproject.toml": f'{system}[project]\nname = "{name}"\nversion = "{version}"\n',
        "backend.py": backend + after,
    }
    return source(
        folder, name, version, {f"{stem}/{file}": text for file, text in texts.items()} | dict(files)
    )


def source(folder: Path, name: str, version: str, files: Mapping[str, str]) -> Path:
    """A source distribution of these files, by their paths in the archive, and its static metadata."""
    folder.mkdir(parents=True, exist_ok=True)
    stem = f"{name.replace('-', '_')}-{version}"
    every = {f"{stem}/PKG-INFO": _metadata(name, version, ()), **files}
    with tarfile.open(folder / f"{stem}.tar.gz", "w:gz") as archive:
        for file, text in every.items():
            entry = tarfile.TarInfo(file)
            entry.size = len(text.encode())
            archive.addfile(entry, io.BytesIO(text.encode()))
    return folder / f"{stem}.tar.gz"


def simple_index(folder: Path) -> str:
    """Lay the distributions of a folder out as a simple index (PEP 503) below it; returns its address."""
    root = folder / "simple"
    shutil.rmtree(root, ignore_errors=True)
    for file in sorted(folder.glob("*.whl")) + sorted(folder.glob("*.tar.gz")):
        page = root / file.name.split("-")[0].replace("_", "-").lower() / "index.html"
        page.parent.mkdir(parents=True, exist_ok=True)
        before = page.read_text() if page.exists() else "<!DOCTYPE html>\n"
        page.write_text(f'{before}<a href="../../{file.name}">{file.name}</a>\n')
    return root.as_uri()


def environment(home: Path, **variables: str) -> dict[str, str]:
    """An environment in which no setting of the machine counts, only these variables."""
    isolated = {
        "HOME": str(home),
        "PATH": os.environ["PATH"],
        "PIP_CONFIG_FILE": os.devnull,
        "UV_NO_CONFIG": "1",
        "UV_CACHE_DIR": str(home / "uv-cache"),
        "UV_HTTP_RETRIES": "0",
        "UV_KEYRING_PROVIDER": "disabled",
    }
    return isolated | variables


@dataclass
class Served:
    """A folder on loopback.

    Attributes:
        authorizations: The `Authorization` header of each request.
        asked: Set when the first request arrives.
        answer: Cleared to keep every client waiting.
    """

    address: str = ""
    authorizations: list[str | None] = field(default_factory=list)
    asked: threading.Event = field(default_factory=threading.Event)
    answer: threading.Event = field(default_factory=threading.Event)

    def with_login(self, user: str, password: str) -> str:
        return self.address.replace("://", f"://{user}:{password}@")


class _Handler(SimpleHTTPRequestHandler):
    def __init__(self, *args: object, served: Served, login: str | None, **keywords: object) -> None:
        self.served = served
        self.login = login
        super().__init__(*args, **keywords)  # type: ignore[arg-type]

    def send_head(self) -> io.BytesIO | None:
        authorization = self.headers.get("Authorization")
        self.served.authorizations.append(authorization)
        self.served.asked.set()
        self.served.answer.wait()
        if self.login and authorization != f"Basic {base64.b64encode(self.login.encode()).decode()}":
            self.send_response(401)
            self.send_header("WWW-Authenticate", "Basic")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return None
        return super().send_head()  # type: ignore[return-value]

    def log_message(self, *args: object) -> None:
        pass


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, *args: object) -> None:
        """Clients hang up when they are interrupted."""


@contextmanager
def served(folder: Path, login: str | None = None) -> Iterator[Served]:
    """Serve a folder, to those with the login `user:password` only where there is one."""
    state = Served()
    state.answer.set()
    handler = partial(_Handler, served=state, login=login, directory=str(folder))
    server = _Server(("127.0.0.1", 0), handler)
    state.address = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield state
    finally:
        state.answer.set()
        server.shutdown()
        thread.join()
        server.server_close()


def _metadata(name: str, version: str, requires: Sequence[str]) -> str:
    lines = ["Metadata-Version: 2.2", f"Name: {name}", f"Version: {version}"]
    return "\n".join([*lines, *(f"Requires-Dist: {requirement}" for requirement in requires), "", ""])


def tree(folder: Path) -> Mapping[str, bytes]:
    """Every file below a folder with its content, to see that nothing changed."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }

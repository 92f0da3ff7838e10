"""What the builders need around them: a registry, a wheel server, an engine left as it was found."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import IO, Any
from urllib.parse import unquote

import requests
from docker.errors import APIError

from builder.engine import client

# In the commands of the build steps, so that what BuildKit keeps of them can be told from anybody else's.
MARK = f"trainpack-benchmark-{uuid.uuid4().hex[:8]}"
# How long the engine may count its disk usage before it counts as stuck.
COUNTING_SECONDS = 120.0
_PACKET = 1 << 16
_MANIFESTS = (
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.v2+json",
)


class Registry:
    """A running image registry; nothing between it and the builders, and no memory but its folder."""

    def __init__(self, address: str, folder: Path) -> None:
        self.address = address
        self._folder = folder

    def wipe(self) -> None:
        """Make it as empty as a new one."""
        shutil.rmtree(self._folder / "docker", ignore_errors=True)

    def size(self) -> int:
        """Bytes of all that was sent to it: layers, configs and manifests."""
        return sum(path.stat().st_size for path in self._folder.glob("docker/registry/v2/blobs/*/*/*/data"))

    def manifest(self, reference: str) -> dict[str, Any]:
        """The manifest of `address/path:tag`."""
        path, _, tag = reference.removeprefix(f"{self.address}/").rpartition(":")
        answer = requests.get(
            f"http://{self.address}/v2/{path}/manifests/{tag}",
            headers={"Accept": ", ".join(_MANIFESTS)},
            timeout=60,
        )
        answer.raise_for_status()
        document: dict[str, Any] = answer.json()
        return document

    def blob(self, reference: str, digest: str) -> bytes:
        """A small blob, whole."""
        path = reference.removeprefix(f"{self.address}/").rpartition(":")[0]
        answer = requests.get(f"http://{self.address}/v2/{path}/blobs/{digest}", timeout=60)
        answer.raise_for_status()
        return answer.content

    def fetch(self, reference: str, digests: Iterable[str]) -> None:
        """Read blobs to their ends."""
        path = reference.removeprefix(f"{self.address}/").rpartition(":")[0]
        for digest in digests:
            url = f"http://{self.address}/v2/{path}/blobs/{digest}"
            with requests.get(url, stream=True, timeout=60) as answer:
                answer.raise_for_status()
                for _ in answer.iter_content(1 << 20):
                    pass


@contextmanager
def registry(folder: Path) -> Iterator[Registry]:
    """Debian's docker-registry on a loopback port of its own."""
    folder.mkdir()
    configuration = {
        "version": "0.1",
        "storage": {"filesystem": {"rootdirectory": str(folder)}},
        "http": {"addr": "127.0.0.1:0"},
    }
    (folder / "config.yml").write_text(json.dumps(configuration), encoding="utf-8")
    command = ["docker-registry", "serve", str(folder / "config.yml")]
    with _serving(command, r"listening on (127\.0\.0\.1:\d+)") as address:
        yield Registry(address, folder)


@contextmanager
def wheel_server(folder: Path) -> Iterator[str]:
    """A folder of wheels as a page that pip reads; gives its address."""
    folder.mkdir(exist_ok=True)
    command = [sys.executable, "-u", "-m", "http.server", "--bind=127.0.0.1", f"--directory={folder}", "0"]
    with _serving(command, r"\((http://127\.0\.0\.1:\d+/)\)") as address:
        yield address


@contextmanager
def paced_server(files: Mapping[str, Path], rate: float) -> Iterator[str]:
    """Files by name, over a line of so many bytes in a second, however many ask; gives its address."""
    pace = _Pace(rate)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            path = files.get(unquote(self.path.removeprefix("/")))
            if path is None:
                self.send_error(404)
                return
            self.send_response(200)
            self.send_header("Content-Length", str(path.stat().st_size))
            self.end_headers()
            with path.open("rb") as file:
                while chunk := file.read(_PACKET):
                    pace.wait(len(chunk))
                    self.wfile.write(chunk)

        def log_message(self, format: str, *arguments: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


class _Pace:
    """Lets bytes pass at a rate, over all threads."""

    def __init__(self, rate: float) -> None:
        self._rate = rate
        self._lock = threading.Lock()
        self._free = time.monotonic()

    def wait(self, size: int) -> None:
        with self._lock:
            self._free = max(self._free, time.monotonic()) + size / self._rate
            until = self._free
        time.sleep(max(0.0, until - time.monotonic()))


@contextmanager
def _serving(command: list[str], pattern: str) -> Iterator[str]:
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert process.stdout
    try:
        yield _announced(process.stdout, pattern)
    finally:
        process.terminate()
        process.wait()


def _announced(log: IO[str], pattern: str) -> str:
    seen = []
    for line in log:
        if found := re.search(pattern, line):
            # A full pipe would stop the server: its log is read to its end.
            threading.Thread(target=log.read, daemon=True).start()
            return found[1]
        seen.append(line)
    raise RuntimeError(f"the server ended: {''.join(seen)}")


def clean_engine(prefix: str) -> None:
    """Remove images whose names begin so, and what BuildKit keeps of the benchmark's steps."""
    engine = client()
    for image in engine.images.list():
        for tag in image.tags:
            if tag.startswith(prefix):
                engine.images.remove(tag, force=True)
    ours = _build_records()
    while ours:
        # A record that others are based on goes once they are gone.
        # The engine takes any filter, one pattern of each; the SDK's types know only some.
        filters: Any = {"id": [f"^({'|'.join(ours)})$"]}
        engine.api.prune_builds(filters=filters, all=True)
        left = _build_records()
        if len(left) == len(ours):
            break
        ours = left


def _build_records() -> list[str]:
    """The ids of BuildKit's records of our steps, and of what was built on them."""
    records = _disk_usage()["BuildCache"] or []
    ours = {record["ID"] for record in records if MARK in record.get("Description", "")}
    while True:
        based = {record["ID"] for record in records if record.get("Parent") in ours} - ours
        if not based:
            return sorted(ours)
        ours |= based


def _disk_usage() -> dict[str, Any]:
    """What the engine keeps; asked again while it counts for another, which it does for one at a time."""
    until = time.monotonic() + COUNTING_SECONDS
    while True:
        try:
            usage: dict[str, Any] = client().df()
        except APIError as error:
            if "already running" not in str(error) or time.monotonic() > until:
                raise
            time.sleep(0.5)
        else:
            return usage

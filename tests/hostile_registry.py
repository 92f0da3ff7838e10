"""An image registry in this process: it keeps to the specification, but for the faults it is told of."""

from __future__ import annotations

import hashlib
import json
import re
import socket
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit


@dataclass(frozen=True)
class Fault:
    """What happens in place of the right answer.

    Attributes:
        status: Answered without doing anything, unless it is 0.
        cut_after: Bytes of the body that are still taken in before the connection is cut.
        lost: The work is done, the answer never arrives.
        changes: Headers that are answered other than they should be.
    """

    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    cut_after: int | None = None
    lost: bool = False
    changes: dict[str, str] = field(default_factory=dict)


Judge = Callable[[str, str, int], Fault | None]


@dataclass
class HostileRegistry:
    """The state of the registry, and what it was asked.

    Attributes:
        judge: Decides by method, path and number of the request (from 1) whether there is a fault.
        token_uses: Requests that a token is good for; None wants no tokens.
    """

    address: str = ""
    judge: Judge = lambda method, path, number: None
    token_uses: int | None = None
    denied_scopes: tuple[str, ...] = ()
    referrers: bool = True
    blobs: dict[str, dict[str, bytes]] = field(default_factory=dict)
    manifests: dict[str, dict[str, tuple[str, bytes]]] = field(default_factory=dict)
    uploads: dict[str, bytearray] = field(default_factory=dict)
    asked: list[tuple[str, str]] = field(default_factory=list)
    scopes: list[list[str]] = field(default_factory=list)
    received: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)
    tokens: dict[str, int] = field(default_factory=dict)

    def count(self, method: str, pattern: str = "") -> int:
        return sum(each == method and re.search(pattern, path) is not None for each, path in self.asked)


@contextmanager
def hostile_registry() -> Iterator[HostileRegistry]:
    state = HostileRegistry()

    class Handler(_Handler):
        registry = state

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    state.address = f"127.0.0.1:{server.server_port}"
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    try:
        yield state
    finally:
        server.shutdown()
        server.server_close()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    registry: HostileRegistry

    def log_message(self, format: str, *args: object) -> None:
        pass

    def handle(self) -> None:
        try:
            super().handle()
        except (ConnectionError, ValueError):
            self.close_connection = True

    def do_GET(self) -> None:
        url = urlsplit(self.path)
        self.query = {name: values[-1] for name, values in parse_qs(url.query).items()}
        if url.path == "/token":
            self.give_token(url.query)
            return
        if url.path == "/v2/":
            self.answer(200)
            return
        with self.registry.lock:
            self.registry.asked.append((self.command, self.path))
            number = len(self.registry.asked)
            self.fault = self.registry.judge(self.command, self.path, number) or Fault()
            permitted = self.is_permitted()
        if self.fault.status:
            self.read_body()
            self.answer(self.fault.status, self.fault.body, self.fault.headers)
        elif not permitted:
            self.read_body()
            self.challenge(url.path)
        else:
            self.route(url.path)

    do_HEAD = do_POST = do_PUT = do_PATCH = do_GET  # noqa: N815

    def route(self, path: str) -> None:
        for pattern, method in (
            (r"/v2/(.+)/blobs/uploads/(.*)", self.upload),
            (r"/v2/(.+)/blobs/(sha256:[0-9a-f]{64})", self.blob),
            (r"/v2/(.+)/manifests/(.+)", self.manifest),
            (r"/v2/(.+)/referrers/(.+)", self.refer),
        ):
            if found := re.fullmatch(pattern, path):
                method(found[1], found[2])
                return
        self.answer(404)

    def upload(self, repository: str, session: str) -> None:
        uploads, blobs = self.registry.uploads, self.registry.blobs.setdefault(repository, {})
        if self.command == "POST":
            wanted = self.query.get("mount", "")
            if wanted in self.registry.blobs.get(self.query.get("from", ""), {}):
                blobs[wanted] = self.registry.blobs[self.query["from"]][wanted]
                self.answer(201, headers={"Docker-Content-Digest": wanted})
                return
            session = f"s{len(uploads)}-{threading.get_ident()}-{len(self.registry.asked)}"
            uploads[session] = bytearray()
        if session not in uploads:
            self.read_body()
            self.answer(404, error("BLOB_UPLOAD_UNKNOWN"))
            return
        kept = uploads[session]
        if self.command == "PATCH" and int(self.headers["Content-Range"].split("-")[0]) != len(kept):
            self.read_body()
            self.answer(416)
            return
        if self.command in ("PATCH", "PUT"):
            self.read_body(kept)
        if self.command == "PUT":
            met = f"sha256:{hashlib.sha256(kept).hexdigest()}"
            if met != self.query["digest"]:
                self.answer(400, error("DIGEST_INVALID"))
                return
            blobs[met] = bytes(uploads.pop(session))
            self.answer(201, headers={"Docker-Content-Digest": met})
            return
        status = {"POST": 202, "PATCH": 202, "GET": 204}[self.command]
        where = {
            "Location": f"/v2/{repository}/blobs/uploads/{session}",
            "Range": f"0-{max(0, len(kept) - 1)}",
        }
        self.answer(status, headers=where)

    def blob(self, repository: str, digest: str) -> None:
        content = self.registry.blobs.get(repository, {}).get(digest)
        if content is None:
            self.answer(404, error("BLOB_UNKNOWN"))
            return
        start = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        self.answer(206 if start else 200, content[int(start[1]) :] if start else content)

    def manifest(self, repository: str, name: str) -> None:
        manifests = self.registry.manifests.setdefault(repository, {})
        if self.command != "PUT":
            if name not in manifests:
                self.answer(404, error("MANIFEST_UNKNOWN"))
                return
            media_type, content = manifests[name]
            digest = f"sha256:{hashlib.sha256(content).hexdigest()}"
            self.answer(200, content, {"Content-Type": media_type, "Docker-Content-Digest": digest})
            return
        content = bytes(self.read_body())
        document = json.loads(content)
        blobs = self.registry.blobs.get(repository, {})
        parts = [*document.get("layers", ()), *([document["config"]] if "config" in document else [])]
        missing = [part["digest"] for part in parts if part["digest"] not in blobs]
        missing += [m["digest"] for m in document.get("manifests", ()) if m["digest"] not in manifests]
        if missing:
            self.answer(400, error("MANIFEST_BLOB_UNKNOWN"))
            return
        digest = f"sha256:{hashlib.sha256(content).hexdigest()}"
        manifests[name] = manifests[digest] = (self.headers["Content-Type"], content)
        headers = {"Docker-Content-Digest": digest}
        if "subject" in document and self.registry.referrers:
            headers["OCI-Subject"] = document["subject"]["digest"]
        self.answer(201, headers=headers)

    def refer(self, repository: str, digest: str) -> None:
        if not self.registry.referrers:
            self.answer(404)
            return
        found = []
        for name, (media_type, content) in self.registry.manifests.get(repository, {}).items():
            document = json.loads(content)
            if name.startswith("sha256:") and document.get("subject", {}).get("digest") == digest:
                entry = {"mediaType": media_type, "digest": name, "size": len(content)}
                found.append(entry | {"artifactType": document.get("artifactType")})
        self.answer(200, json.dumps({"schemaVersion": 2, "manifests": found}).encode())

    def is_permitted(self) -> bool:
        if self.registry.token_uses is None:
            return True
        token = self.headers.get("Authorization", "").removeprefix("Bearer ")
        left = self.registry.tokens.get(token, 0)
        if left:
            self.registry.tokens[token] = left - 1
        return left > 0

    def challenge(self, path: str) -> None:
        repository = path.removeprefix("/v2/").partition("/blobs/")[0].partition("/manifests/")[0]
        realm = f'Bearer realm="http://{self.registry.address}/token",service="s"'
        self.answer(401, headers={"WWW-Authenticate": f'{realm},scope="repository:{repository}:pull"'})

    def give_token(self, query: str) -> None:
        with self.registry.lock:
            self.registry.scopes.append(parse_qs(query).get("scope", []))
            token = f"t{len(self.registry.scopes)}"
            self.registry.tokens[token] = self.registry.token_uses or 0
        self.answer(200, json.dumps({"token": token}).encode())

    def read_body(self, into: bytearray | None = None) -> bytearray:
        into = bytearray() if into is None else into
        left = int(self.headers.get("Content-Length") or 0)
        cut = getattr(self, "fault", Fault()).cut_after
        stop = left if cut is None else min(cut, left)
        while stop:
            chunk = self.rfile.read(min(stop, 1 << 16))
            if not chunk:  # who sent it was killed
                raise ConnectionAbortedError
            stop -= len(chunk)
            with self.registry.lock:
                self.registry.received += len(chunk)
            into += chunk
        if cut is not None:
            self.cut()
        return into

    def cut(self) -> None:
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        self.connection.close()
        raise ConnectionAbortedError

    def answer(self, status: int, body: bytes = b"", headers: Mapping[str, str] | None = None) -> None:
        fault = getattr(self, "fault", Fault())
        if fault.lost:
            self.cut()
        sent = len(body)
        if self.command == "GET" and fault.cut_after is not None and status in (200, 206):
            sent = min(fault.cut_after, len(body))
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **(headers or {}), **fault.changes}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body[:sent])
            self.wfile.flush()
        if sent < len(body):
            self.cut()


def error(code: str, **more: Any) -> bytes:
    return json.dumps({"errors": [{"code": code, "message": code.lower(), **more}]}).encode()

"""The HTTP side: one request in, checked against its route, one answer out."""

from __future__ import annotations

import json
import socket
import sys
import time
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

from . import control, datalake, datasets, experiments, models, storage
from .routes import Call, Raw, Route
from .schemas import RefusedError, require
from .state import Request, State

ROUTES = (
    *models.ROUTES,
    *datasets.ROUTES,
    *datalake.ROUTES,
    *experiments.ROUTES,
    *storage.ROUTES,
    *control.ROUTES,
)
_PIECE = 64 * 1024


class Server(ThreadingHTTPServer):
    """A server over one state; closing it also ends the connections that clients keep open."""

    daemon_threads = True
    block_on_close = False
    request_queue_size = 64

    def __init__(self, address: tuple[str, int], state: State) -> None:
        super().__init__(address, Handler)
        self.state = state
        self.connections: set[socket.socket] = set()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that hangs up is normal; anything else is a fault of the stand-in and is shown."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)

    def close_connections(self) -> None:
        """End every connection that is still open."""
        for connection in list(self.connections):
            try:
                connection.shutdown(socket.SHUT_RDWR)
            except OSError:
                continue


class Handler(BaseHTTPRequestHandler):
    """Answers one connection's requests."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = -1  # headers and body in one packet
    server: Server

    def setup(self) -> None:
        """Remember the connection, so that the server can end it."""
        super().setup()
        self.server.connections.add(self.connection)

    def finish(self) -> None:
        """Forget the connection."""
        self.server.connections.discard(self.connection)
        super().finish()

    def log_message(self, *_: Any) -> None:
        """Requests are in the state, not on standard error."""

    def respond(self) -> None:
        """Answer one request: delay, injected failure, the route, the record of it."""
        state, path = self.server.state, unquote(urlsplit(self.path).path)
        length = int(self.headers.get("Content-Length") or 0)
        if self._is_cut(path, "request"):
            self.rfile.read(length // 2)
            self._drop()
            return
        content = self.rfile.read(length)
        if state.delay and not path.startswith("/_standin/"):
            time.sleep(state.delay)
        with state.lock:
            answer = self._answer(state, path, content)
            if not path.startswith("/_standin/"):
                sent = len(answer.content[: answer.cut])
                state.requests.append(
                    Request(self.command, path, answer.status, sent, self.headers.get("Range"))
                )
        if self._is_cut(path, "answer"):
            answer = Raw(answer.status, answer.content[: len(answer.content) // 2], answer.headers)
            self._send(answer, missing=max(len(answer.content), 1))
            self._drop()
        else:
            self._send(answer)

    do_GET = do_XGET = do_POST = do_PUT = do_PATCH = do_DELETE = respond  # noqa: N815

    def _is_cut(self, path: str, what: str) -> bool:
        state = self.server.state
        with state.lock:
            return not path.startswith("/_standin/") and bool(state.take_fault(self.command, path, cut=what))

    def _drop(self) -> None:
        self.close_connection = True
        self.wfile.flush()
        self.connection.shutdown(socket.SHUT_RDWR)

    def _answer(self, state: State, path: str, content: bytes) -> Raw:
        if failed := self._injected(state, path, after=False):
            return failed
        try:
            answer = self._called(state, path, content)
        except RefusedError as error:
            answer = _as_json(error.status, {"message": error.message, "detail": error.detail})
        return self._injected(state, path, after=True, answer=answer) or answer

    def _injected(self, state: State, path: str, *, after: bool, answer: Raw | None = None) -> Raw | None:
        fault = None if path.startswith("/_standin/") else state.take_fault(self.command, path, after=after)
        if fault is None:
            return None
        if answer and fault.cut_after is not None:
            return replace(answer, cut=fault.cut_after)
        if answer and fault.corrupt:
            return replace(answer, content=answer.content[:-1] + bytes([answer.content[-1] ^ 1]))
        answer = _as_json(fault.status, {"message": fault.message, "detail": None})
        return Raw(answer.status, answer.content, {**answer.headers, **fault.headers})

    def _called(self, state: State, path: str, content: bytes) -> Raw:
        route, ids = find_route(self.command, path)
        headers = {name.lower(): value for name, value in self.headers.items()}
        if not route.public and headers.get("authorization") != f"Bearer {state.token}":
            raise RefusedError(401, "Unauthorized", "the token is missing or wrong")
        query = dict(parse_qsl(urlsplit(self.path).query))
        unknown = sorted(set(query) - set(route.query))
        if unknown:
            raise RefusedError(
                400, "Invalid request", [f"{name}: unknown query parameter" for name in unknown]
            )
        body = _body(route, content)
        base = f"http://{self.headers.get('Host')}"
        result = route.answer(Call(state, ids, query, body, base, content, headers))
        return result if isinstance(result, Raw) else _as_json(route.status, result)

    def _send(self, answer: Raw, missing: int = 0) -> None:
        if answer.status == 0:
            self._drop()
            return
        self.send_response(answer.status)
        for name, value in answer.headers.items():
            self.send_header(name, value)
        if answer.status not in (204, 304):
            self.send_header("Content-Length", str(len(answer.content) + missing))
        self.end_headers()
        if answer.status in (204, 304):
            return
        self._send_content(answer)

    def _send_content(self, answer: Raw) -> None:
        content = answer.content[: answer.cut]
        if answer.pause:
            for start in range(0, len(content), _PIECE):
                time.sleep(answer.pause)
                self.wfile.write(content[start : start + _PIECE])
                self.wfile.flush()
        else:
            self.wfile.write(content)
        if len(content) < len(answer.content):
            self._drop()


def find_route(method: str, path: str) -> tuple[Route, dict[str, str]]:
    """The route of a request, with the ids in its path.

    Raises:
        RefusedError: 405 for another method; 501 where the stand-in has no route, so that a call that it
            does not cover is not mistaken for an object that does not exist.
    """
    matches = [(route, match) for route in ROUTES if (match := route.pattern.fullmatch(path))]
    for route, match in matches:
        if route.method == method:
            return route, match.groupdict()
    if matches:
        raise RefusedError(405, "Method not allowed", f"{method} {path}")
    raise RefusedError(501, "Not in the stand-in", f"{method} {path}")


def _body(route: Route, content: bytes) -> Any:
    if route.path.startswith("/storage/"):
        return None
    if route.body is None:
        if content:
            raise RefusedError(400, "Invalid request", "this call takes no body")
        return None
    try:
        body = json.loads(content, parse_constant=_refuse_constant)
    except ValueError as error:
        raise RefusedError(400, "Invalid JSON", str(error)) from None
    require(body, route.body)
    return body


def _refuse_constant(name: str) -> float:
    raise ValueError(f"{name} is not JSON")


def _as_json(status: int, data: Any) -> Raw:
    if status == 204:
        return Raw(204)
    return Raw(status, json.dumps(data).encode(), {"Content-Type": "application/json"})

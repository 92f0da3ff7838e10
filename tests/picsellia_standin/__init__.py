"""A stand-in for the Picsellia platform: the HTTP contract that its SDK speaks, kept strictly.

In a test: `with Standin() as platform: Client(platform.token, host=platform.url)`. In a container:
`python -m picsellia_standin --port 8000 --seed seed.json`, with `/_standin/state` to look at it.
"""

from __future__ import annotations

import socket
import threading
from typing import Any, Self

from .schemas import RefusedError
from .server import Server
from .state import Experiment, Job, Log, Request, State, StoredFile, Version

__all__ = ["Experiment", "Job", "Log", "RefusedError", "Request", "Standin", "StoredFile", "Version"]


class Standin(State):
    """The platform: its state, and a server that can be stopped and started again on the same port.

    Args:
        host: The address to listen on.
        port: 0 takes a free one, which later starts keep.
        state: The fields of `State`.
    """

    def __init__(self, host: str = "127.0.0.1", port: int = 0, **state: Any) -> None:
        super().__init__(**state)
        self._address = (host, port)
        self._server: Server | None = None
        self._reserved: socket.socket | None = None

    @property
    def port(self) -> int:
        """The port, known after the first start."""
        return self._address[1]

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://{self._address[0]}:{self.port}"

    def start(self) -> Self:
        """Listen, and answer in the background."""
        if self._reserved is not None:
            self._reserved.close()
        self._server = Server(self._address, self)
        self._address = (self._address[0], self._server.server_address[1])
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def stop(self) -> None:
        """Refuse connections from now on; the state stays, and so does the port."""
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._server.close_connections()
            self._server = None
            self._reserved = _bound(self._address)

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()
        if self._reserved is not None:
            self._reserved.close()


def _bound(address: tuple[str, int]) -> socket.socket:
    """A socket that holds a port without listening, so that no other process answers there."""
    holder = socket.socket()
    holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    holder.bind(address)
    return holder

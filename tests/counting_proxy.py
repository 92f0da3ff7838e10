"""What stands before a server on loopback and counts the bytes that pass, each way."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field


@dataclass
class Passed:
    """Bytes since the last `reset`, requests and answers whole.

    Attributes:
        address: Where the proxy listens.
        up: To the server.
        down: From the server.
    """

    address: str
    up: int = 0
    down: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def total(self) -> int:
        return self.up + self.down

    def reset(self) -> None:
        self.up = self.down = 0


@contextmanager
def counting(server: str) -> Iterator[Passed]:
    """A proxy before `127.0.0.1:port`."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        passed = Passed(f"127.0.0.1:{listener.getsockname()[1]}")
        threading.Thread(target=_accept, args=(listener, server, passed), daemon=True).start()
        yield passed
        listener.shutdown(socket.SHUT_RDWR)


def _accept(listener: socket.socket, server: str, passed: Passed) -> None:
    host, _, port = server.partition(":")
    with suppress(OSError):
        while True:
            client, _ = listener.accept()
            upstream = socket.create_connection((host, int(port)))
            for pair in ((client, upstream, "up"), (upstream, client, "down")):
                threading.Thread(target=_copy, args=(*pair, passed), daemon=True).start()


def _copy(source: socket.socket, target: socket.socket, way: str, passed: Passed) -> None:
    with suppress(OSError):
        while data := source.recv(1 << 16):
            with passed.lock:
                setattr(passed, way, getattr(passed, way) + len(data))
            target.sendall(data)
    with suppress(OSError):
        target.shutdown(socket.SHUT_WR)

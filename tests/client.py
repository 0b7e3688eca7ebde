"""What tests share that talk to a server: one for a whole module, and a connection that is kept."""

from __future__ import annotations

import http.client
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self

from server import PATIENCE, Reply, Server


def served(program: str | Path, folder: Path, *arguments: str) -> Iterator[Server]:
    """A server for the tests of a module; it must end well."""
    server = Server(program, *arguments, folder=folder).wait_until_serving()
    try:
        yield server
        assert server.stop() == 0
    finally:
        server.kill()


class Client:
    """One keep-alive connection."""

    def __init__(self, server: Server, receive_buffer: int = 0) -> None:
        self.socket = socket.socket()
        if receive_buffer:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self.socket.settimeout(PATIENCE)
        self.socket.connect(("127.0.0.1", server.port))
        self.http = http.client.HTTPConnection("127.0.0.1", server.port)
        self.http.sock = self.socket

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def request(self, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None) -> Reply:
        self.http.request(method, path, body, headers or {}, encode_chunked=isinstance(body, list))
        return Reply(self.http.getresponse())

    def send(self, text: str | bytes) -> None:
        self.socket.sendall(text.encode() if isinstance(text, str) else text)

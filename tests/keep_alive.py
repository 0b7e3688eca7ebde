"""Clients that keep their connections and check every answer, while a test does something to the server."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable
from typing import Self

from server import PATIENCE, wait_until


class Crowd:
    """So many threads, each with a connection on which it asks, reads the whole answer, checks it, and asks again.

    `paths`: for each thread in turn. `check(path, body)` says whether a body is right. An answer with another status
    than 200, one that ends its connection, and a connection that fails are wrong: `wrong` lists them. With `again`, a
    client whose connection is gone makes a new one, and only answers are checked: `lost` counts the connections.
    """

    def __init__(
        self,
        port: int,
        size: int,
        check: Callable[[str, bytes], bool],
        paths: tuple[str, ...] = ("/",),
        again: bool = False,
    ) -> None:
        self.port = port
        self.check = check
        self.again = again
        self.answers = 0
        self.lost = 0
        self.wrong: list[object] = []
        self._going = True
        self._threads = [
            threading.Thread(target=self._run, args=(paths[number % len(paths)],)) for number in range(size)
        ]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        self.wait(1)
        return self

    def __exit__(self, *_: object) -> None:
        self._going = False
        for thread in self._threads:
            thread.join(PATIENCE)
        assert not any(thread.is_alive() for thread in self._threads)

    def wait(self, answers: int) -> None:
        """Wait for so many answers more, or for a wrong one."""
        wanted = self.answers + answers
        wait_until(lambda: self.answers >= wanted or self.wrong, f"{answers} answers")

    def _run(self, path: str) -> None:
        request = f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode()
        while self._going:
            try:
                with socket.create_connection(("127.0.0.1", self.port), PATIENCE) as client:
                    while self._going:
                        right = self.expect(path)
                        client.sendall(request)
                        self._look(path, *read_answer(client), right)
            except (OSError, EOFError) as error:
                self.lost += 1
                if not self.again:
                    self.wrong.append(error)
                    return

    def expect(self, path: str) -> Callable[[bytes], bool]:
        """Called before each request: what says whether its answer's body is right."""
        return lambda body: self.check(path, body)

    def _look(self, path: str, head: bytes, body: bytes, right: Callable[[bytes], bool]) -> None:
        whole = head.startswith(b"HTTP/1.1 200 ") and (self.again or b"connection: close" not in head.lower())
        if not whole or not right(body):
            self.wrong.append((path, head, body))
        self.answers += 1


class Versions(Crowd):
    """An answer must be of a version that has served at some time between question and answer.

    `answer(path, version)`: what a version answers. The test says which may: from `oldest` to `newest`.
    """

    oldest = newest = 1

    def __init__(self, port: int, size: int, answer: Callable[[str, int], str], paths: tuple[str, ...]) -> None:
        super().__init__(port, size, lambda path, body: False, paths)
        self.answer = answer

    def expect(self, path: str) -> Callable[[bytes], bool]:
        """Of those that may answer from now on."""
        oldest = self.oldest
        return lambda body: body.decode() in {self.answer(path, each) for each in range(oldest, self.newest + 1)}


def read_answer(client: socket.socket, data: bytes = b"") -> tuple[bytes, bytes]:
    """Head and body of one answer with a Content-Length. Raises EOFError where it is not whole."""
    while b"\r\n\r\n" not in data:
        data += _more(client)
    head, _, body = data.partition(b"\r\n\r\n")
    fields = dict(line.lower().split(b": ", 1) for line in head.split(b"\r\n")[1:])
    length = int(fields[b"content-length"])
    while len(body) < length:
        body += _more(client)
    if len(body) > length:
        raise EOFError(f"{len(body) - length} bytes too many")
    return head, body


def _more(client: socket.socket) -> bytes:
    data = client.recv(65536)
    if not data:
        raise EOFError("the connection ended")
    return data

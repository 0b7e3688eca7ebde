"""A file, its Route and an engine that listens, for the tests of StaticFile."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Awaitable, Callable
from email.utils import formatdate
from pathlib import Path
from typing import Any

from sockets import PATIENCE, House, Peer, in_house, until
from wire import Answer, read_answer

from eighties import Request
from eighties._engine import Route, StaticFile

BODY = b"body { color: red }\n"
LONG = bytes(range(256)) * 400  # sent from where it is, not copied
MUCH = LONG * 160  # more than the kernel holds
CLOCK = 1_445_412_480
VARY = "Vary: Accept-Encoding"
OF_THE_BODY = ("Last-Modified", "Content-Encoding")  # not in a 304


def describe(path: Path, body: bytes, etag: str, *lines: str) -> dict[str, Any]:
    """What StaticFile is told of a file; `lines`: field lines, besides ETag and Last-Modified."""
    status = path.stat()
    date = formatdate(status.st_mtime_ns // 10**9, usegmt=True)
    ended = [f"{line}\r\n" for line in (f"ETag: {etag}", f"Last-Modified: {date}", *lines)]
    return {
        "mtime_ns": status.st_mtime_ns,
        "size": status.st_size,
        "inode": status.st_ino,
        "content_type": b"text/css",
        "fields": "".join(line for line in ended if not line.startswith(OF_THE_BODY)).encode(),
        "more": "".join(line for line in ended if line.startswith(OF_THE_BODY)).encode(),
        "etag": etag.encode(),
        "last_modified": date.encode(),
        "body": body,
    }


class Site:
    """A file with a Route, on an engine that listens."""

    def __init__(self, house: House, folder: Path, *codings: str, body: bytes = BODY) -> None:
        self.house = house
        self.path = folder / "a.css"
        self.write(self.path, body)
        self.siblings = {coding: folder / f"a.css.{coding}" for coding in codings}
        for coding, path in self.siblings.items():
            self.write(path, coding.encode() * 10)
        self.file = self.make(body)
        self.route = Route("/a.css", "GET", self.handler, name="a", file=self.file)
        self.handled = 0
        house.engine.set_routes([self.route])
        with socket.create_server(("127.0.0.1", 0)) as listener:
            self.address = listener.getsockname()
            house.engine.listen(listener.fileno())

    def make(self, body: bytes = BODY) -> StaticFile:
        encodings = [
            (coding.encode(), StaticFile(path, **describe(path, path.read_bytes(), f'"{coding}"', *self.coded(coding))))
            for coding, path in self.siblings.items()
        ]
        more = [VARY] if encodings else []
        return StaticFile(self.path, **describe(self.path, body, '"a"', *more), encodings=encodings)

    @staticmethod
    def coded(coding: str) -> list[str]:
        return [VARY, f"Content-Encoding: {coding}"]

    @staticmethod
    def write(path: Path, body: bytes, clock: int = CLOCK) -> None:
        path.write_bytes(body)
        os.utime(path, (clock, clock))

    def handler(self, request: Request) -> str:
        self.handled += 1
        return "handler"

    async def connect(self) -> Peer:
        sock = socket.socket()
        self.house.peers.append(sock)
        sock.setblocking(False)
        await self.house.loop.sock_connect(sock, self.address)
        return Peer(self.house.loop, sock)

    async def ask(self, *fields: str, target: str = "/a.css", method: str = "GET", body: bytes = b"") -> Answer:
        """One request on a connection of its own, that is closed; the only answer."""
        peer = await self.connect()
        lines = [f"{method} {target} HTTP/1.1", "Host: x", "Connection: close", *fields, "", ""]
        await peer.send("\r\n".join(lines).encode("latin-1") + body)
        answer, rest = read_answer(await heard(peer), method)
        assert rest == b"" and answer.get("connection") == "close"
        return answer


async def heard(peer: Peer) -> bytes:
    """All that comes until the connection is closed."""
    data = bytearray()
    async with asyncio.timeout(PATIENCE):
        while chunk := await peer.loop.sock_recv(peer.sock, 1 << 16):
            data += chunk
    return bytes(data)


async def new_second(site: Site) -> None:
    """Until the engine looks at its files again; its clock is the monotonic one."""
    loop = site.house.loop
    start = int(loop.time())
    await until(lambda: int(loop.time()) > start)


def static(*codings: str, body: bytes = BODY) -> Callable[[Callable[[Site], Awaitable[None]]], Callable[..., None]]:
    """A test of a site, `async def test_it(site)`, whose file has siblings of these codings."""

    def decorate(test: Callable[[Site], Awaitable[None]]) -> Callable[..., None]:
        async def run(house: House, tmp_path: Path) -> None:
            await test(Site(house, tmp_path, *codings, body=body))

        run.__name__, run.__doc__ = test.__name__, test.__doc__
        return in_house(run)

    return decorate

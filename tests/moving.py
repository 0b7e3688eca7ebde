"""An old engine with clients, a new one, and between them what `serve/passing.py` makes; for tests in one process."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import Awaitable, Callable
from functools import wraps
from typing import Any

import pytest
from sockets import PATIENCE, House, Peer, in_house, until

from eighties import App, Request
from eighties._engine import Engine
from eighties.serve import passing
from eighties.serve.passing import Giver, Taker

GET = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"


class Client(Peer):
    """What it has heard behind the last answer is kept."""

    rest = b""

    async def answer(self) -> str:
        """The body of one answer."""
        while b"\r\n\r\n" not in self.rest:
            await self._hear()
        head, _, self.rest = self.rest.partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200 ") and b"\r\nConnection: close" not in head, head
        length = int(head.partition(b"Content-Length: ")[2].split()[0])
        while len(self.rest) < length:
            await self._hear()
        body, self.rest = self.rest[:length], self.rest[length:]
        return body.decode()

    async def _hear(self) -> None:
        async with asyncio.timeout(PATIENCE):
            data = await self.loop.sock_recv(self.sock, 65536)
        assert data, self.rest
        self.rest += data


class Move:
    """An old engine with clients, and a new one; between them a pair of sockets."""

    def __init__(self, house: House) -> None:
        self.house = house
        self.new = House()
        self.new.peers = house.peers  # which are closed with the new engine
        self.loop = house.loop
        self.release = asyncio.Event()
        self.begun = 0
        self.ends = passing.pair()
        self.giver = Giver(self.old, self.ends[0], self.loop)
        self.taker = Taker(self.new.engine, self.ends[1], self.loop)
        self.told: list[tuple[str, str]] = []
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.serve(self.old, "old")
        self.serve(self.new.engine, "new")
        self.old.listen(self.listener.fileno())

    @property
    def old(self) -> Engine:
        return self.house.engine

    def serve(self, engine: Engine, name: str) -> None:
        """`/` says which engine it is, `/slow` as soon as it is released, with the query."""
        app = App()

        @app.get("/")
        def root(request: Request) -> str:
            return name

        @app.get("/slow")
        async def slow(request: Request) -> str:
            self.begun += 1
            await self.release.wait()
            return f"{name} {request.query_string}"

        @app.get("/peer")
        def peer(request: Request) -> str:
            return str(request.peername)

        engine.set_routes(app.routes())

    def begin(self) -> None:
        self.old.close_listeners()
        self.giver.begin()
        self.taker.begin()

    async def client(self, *sent: bytes) -> Client:
        sock = socket.socket()
        self.house.peers.append(sock)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setblocking(False)
        await self.loop.sock_connect(sock, self.listener.getsockname())
        peer = Client(self.loop, sock)
        for data in sent:
            await peer.send(data)
        return peer

    async def read(self, size: int) -> None:
        """Until the old engine has read so many bytes in all."""
        await until(lambda: self.old.stats()["bytes_in"] == size)

    async def moved(self, count: int = 1) -> None:
        await until(lambda: self.taker.taken == count)
        assert self.giver.given == count and self.new.engine.connections == count

    async def close(self) -> None:
        self.giver.close()
        self.taker.close()
        for fd in self.ends:
            with contextlib.suppress(OSError):  # closed by the test
                os.close(fd)
        self.listener.close()
        await self.new.close()
        assert self.new.log == [] and self.new.reports == []


def moving(test: Callable[..., Awaitable[None]]) -> Callable[..., None]:
    """A test of a Move on either loop: `async def test_it(move)`. It says itself what is told: `move.told`."""

    @wraps(test)
    async def run(house: House, **fixtures: Any) -> None:
        move = Move(house)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("eighties.serve.logs.log", lambda level, message: move.told.append((level, message)))
            try:
                await test(move, **fixtures)
            finally:
                await move.close()
        assert move.told == []

    return in_house(run)


def slow(number: int) -> bytes:
    return f"GET /slow?{number} HTTP/1.1\r\nHost: x\r\n\r\n".encode()

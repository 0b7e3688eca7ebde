"""An engine in the test's own process, with sockets and their other ends; nothing of it is left when a test ends."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import inspect
import os
import socket
from collections.abc import Awaitable, Callable, Generator
from functools import wraps
from typing import Any

import pytest

from eighties import App, http
from eighties._engine import Engine, live
from eighties.limits import DEFAULTS
from eighties.streams import Socket

PATIENCE = 30


def loops() -> list[Any]:
    found: list[Any] = [pytest.param(asyncio.SelectorEventLoop, id="asyncio")]
    with contextlib.suppress(ImportError):
        import uvloop

        found.append(pytest.param(uvloop.new_event_loop, id="uvloop"))
    return found


class House:
    """An engine on the running loop, the other ends of its sockets, and what went wrong on the way."""

    def __init__(self) -> None:
        self.loop = asyncio.get_running_loop()
        self.log: list[tuple[str, str]] = []
        self.reports: list[BaseException] = []
        self.errors: list[dict[str, Any]] = []
        self.peers: list[socket.socket] = []
        app = App()
        self.engine = Engine(
            self.loop,
            DEFAULTS,
            request_type=http.Request,
            respond=http.respond,
            failed=app.failed,
            pump=http.pump,
            settle=http.settle,
            log=lambda level, message: self.log.append((level, message)),
            socket_type=Socket,
            report=lambda where, error: self.reports.append(error),
        )
        self.loop.add_reader(self.engine.fileno(), self.engine.poll)
        self.loop.set_exception_handler(lambda loop, context: self.errors.append(context))

    def pair(self, kind: int = socket.SOCK_STREAM) -> tuple[Socket, Peer]:
        """A connected Socket, and its other end."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, kind)
        ours.setblocking(False)
        theirs.setblocking(False)
        self.peers.append(theirs)
        sock = Socket(self.engine, "datagram" if kind == socket.SOCK_DGRAM else "stream")
        sock.attach(ours.detach())
        return sock, Peer(self.loop, theirs)

    def tcp_pair(self) -> tuple[Socket, Peer]:
        """As pair, of a kind that can be reset."""
        with socket.create_server(("127.0.0.1", 0)) as listener:
            ours = socket.create_connection(listener.getsockname())
            theirs, _ = listener.accept()
        theirs.setblocking(False)
        self.peers.append(theirs)
        sock = Socket(self.engine)
        sock.attach(ours.detach())
        return sock, Peer(self.loop, theirs)

    async def close(self) -> None:
        """The peers leave, and with them every connection has to go."""
        for peer in self.peers:
            peer.close()
        await until(lambda: not self.engine.connections)
        self.loop.remove_reader(self.engine.fileno())
        self.engine.close()


class Peer:
    """The other end of a socket."""

    def __init__(self, loop: asyncio.AbstractEventLoop, sock: socket.socket) -> None:
        self.loop = loop
        self.sock = sock

    async def send(self, data: bytes) -> None:
        async with asyncio.timeout(PATIENCE):
            await self.loop.sock_sendall(self.sock, data)

    async def send_each(self, data: bytes) -> None:
        """Single bytes, each of which is read before the next is sent."""
        for at in range(len(data)):
            self.sock.send(data[at : at + 1])
            await turns(2)

    def end(self) -> None:
        """No more input; answers are still read."""
        self.sock.shutdown(socket.SHUT_WR)

    def leave(self) -> None:
        self.sock.close()

    def reset(self) -> None:
        """Break the connection off (TCP only): no end of input is sent."""
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
        self.sock.close()

    async def receive(self, size: int) -> bytes:
        data = b""
        async with asyncio.timeout(PATIENCE):
            while len(data) < size and (chunk := await self.loop.sock_recv(self.sock, size - len(data))):
                data += chunk
        return data

    async def receive_all(self) -> bytes:
        """Until the connection is closed."""
        return await self.receive(1 << 30)


def open_descriptors() -> dict[str, str]:
    """What is open in this process."""
    found = {}
    for fd in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):  # the listing's own
            found[fd] = os.readlink(f"/proc/self/fd/{fd}")
    return found


async def turns(number: int = 10) -> None:
    """Let the loop go round, and its poller see what has come."""
    for _ in range(number):
        await asyncio.sleep(0)


async def until(condition: Callable[[], object]) -> None:
    """Wait for what is going to happen."""
    async with asyncio.timeout(PATIENCE):
        while not condition():
            await asyncio.sleep(0.001)


def in_house(test: Callable[..., Awaitable[None]]) -> Callable[..., None]:
    """A test of an engine on either loop: `async def test_it(house)`. Nothing may be left, and nothing may have failed.

    What is expected to fail, the test takes out of `house.errors` and `house.reports` itself.
    """

    async def run(*args: Any, **kwargs: Any) -> None:
        house = House()
        try:
            await test(house, *args, **kwargs)
        finally:
            await house.close()
        await turns()
        gc.collect()
        await turns()
        house.loop.set_exception_handler(None)  # or the loop keeps the house, for whoever keeps the loop
        assert house.errors == [] and house.reports == [] and house.log == []
        assert [task for task in asyncio.all_tasks() if task is not asyncio.current_task()] == []

    @wraps(test)
    def wrapped(loop: Any, *args: Any, **kwargs: Any) -> None:
        with asyncio.Runner(loop_factory=loop) as runner:  # what a first loop opens for good is open now
            runner.run(asyncio.sleep(0))
        gc.collect()
        before, descriptors = live(), open_descriptors()
        with asyncio.Runner(loop_factory=loop) as runner:
            runner.run(run(*args, **kwargs))
        gc.collect()
        assert live()["sockets"] <= before["sockets"] and live()["left_over"] == 0
        assert open_descriptors() == descriptors

    signature = inspect.signature(test)
    first, *others = signature.parameters.values()
    vars(wrapped)["__signature__"] = signature.replace(parameters=[first.replace(name="loop"), *others])
    marked: Callable[..., None] = pytest.mark.parametrize("loop", loops())(wrapped)
    return marked


# ---- readers that several files use ----

Reading = Generator[Any, Any, Any]
Read = Callable[..., Awaitable[bytes]]


def message() -> Reading:
    """A reader of one message: a length, and so many bytes."""
    size = yield 4
    return (yield int.from_bytes(size, "big"))


def framed(data: bytes) -> bytes:
    return len(data).to_bytes(4, "big") + data


def holds(sock: Socket, size: int) -> bool:
    """Whether so much has come that was not read."""
    return sock.inbox is not None and sock.inbox.held == size

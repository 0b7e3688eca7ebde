"""Ten thousand sockets, opened, used and closed at random, by both ends: nobody hears what was meant for another.

One engine in the test's own process serves a raw program, and the sockets of the other end are partly plain ones,
partly the engine's own. Delays and ends are drawn from a seeded generator, so a failure can be run again.
"""

from __future__ import annotations

import asyncio
import gc
import os
import random
import socket
import struct
from collections.abc import Awaitable, Callable

import pytest
import uvloop
from sockets import make_engine

from eighties._engine import Socket, find_socket, live
from eighties._engine import close as net_close
from eighties._engine import write as net_write

SOCKETS = 10_000
AT_ONCE = 300
LONGEST_PAUSE = 0.02
PATIENCE = 120.0
RESET = struct.pack("ii", 1, 0)
TOKEN = 8
SEED = 80


class Crowd:
    """The program, and what it has seen: which token each handle belongs to, and which handles are over."""

    def __init__(self, loop: asyncio.AbstractEventLoop, dice: random.Random) -> None:
        self.loop = loop
        self.dice = dice
        self.tokens: dict[int, bytes] = {}
        self.open: set[int] = set()
        self.over: list[int] = []
        self.wrong: list[str] = []
        self.heard = 0
        self.engine = make_engine(
            loop,
            log=lambda level, message: self.wrong.append(message),
            report=lambda where, error: self.wrong.append(f"{where}: {error!r}"),
            accept_batch=16,
        )
        hooks: dict[str, Callable[..., object]] = {"on_accept": self.on_accept, "on_data": self.on_data}
        hooks["on_close"] = self.on_close
        self.engine.set_hooks(hooks, True)
        with socket.create_server(("127.0.0.1", 0), backlog=1000) as listener:
            self.address = listener.getsockname()
            self.engine.listen(listener.fileno())
        self.elfd = self.engine.fileno()
        loop.add_reader(self.elfd, self.engine.poll)

    # ---- the program ----

    def on_accept(self, elfd: int, parentfd: int, childfd: int) -> None:
        if childfd in self.open or childfd in self.tokens:
            self.wrong.append(f"{childfd} was accepted twice")
        self.open.add(childfd)

    def on_data(self, elfd: int, childfd: int, data: bytes, length: int) -> None:
        if childfd not in self.open:
            self.wrong.append(f"{childfd} had data, and is not open")
        token = self.tokens.setdefault(childfd, data[:TOKEN])
        if len(data) % TOKEN or data != token * (length // TOKEN):
            self.wrong.append(f"{childfd} is {token!r} and heard {data!r}")
        self.heard += 1
        net_write(elfd, childfd, data)
        chance = self.dice.random()
        if chance < 0.1:
            net_close(elfd, childfd)
            if net_write(elfd, childfd, b"too late"):
                self.wrong.append("a closed handle took a message")
        elif chance < 0.2 and (found := find_socket(elfd, childfd)) is not None:
            found.abort()
        elif chance < 0.3:
            self.loop.call_later(self.dice.random() * LONGEST_PAUSE, net_close, elfd, childfd)
        self.bother_the_dead()

    def on_close(self, elfd: int, childfd: int) -> None:
        if childfd not in self.open:
            self.wrong.append(f"{childfd} was closed twice, or never opened")
        self.open.discard(childfd)
        self.over.append(childfd)

    def bother_the_dead(self) -> None:
        """A handle whose connection is over reaches nobody, though its slot and its descriptor have new owners."""
        if self.over and net_write(self.elfd, self.dice.choice(self.over), b"STRANGER"):
            self.wrong.append("a handle that is over took a message")

    # ---- the other end ----

    async def plain(self, token: bytes) -> None:
        """An ordinary client: a few messages, then one of many ends."""
        with socket.socket() as sock:
            sock.setblocking(False)
            await self.loop.sock_connect(sock, self.address)
            try:
                for _ in range(self.dice.randrange(4)):
                    await self.pause()
                    await self.loop.sock_sendall(sock, token)
                    self.check(token, await self.loop.sock_recv(sock, 64))
                if self.dice.random() < 0.3:
                    await self.loop.sock_sendall(sock, token * 3)  # and no wait for the answer
                await self.pause()
                if self.dice.random() < 0.3:
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
                elif self.dice.random() < 0.3:
                    sock.shutdown(socket.SHUT_WR)
                    await self.pause()
            except OSError:  # the program was first
                return

    async def own(self, token: bytes) -> None:
        """A socket of the engine's at the client's end."""
        sock = Client(self.engine)
        over: asyncio.Future[None] = self.loop.create_future()

        def ended(elfd: int, fd: int) -> None:
            if over.done():
                self.wrong.append("on_close came twice")
            else:
                over.set_result(None)

        sock.on_data = lambda elfd, fd, data, length: self.check(token, data, over)
        sock.on_close = ended
        plain = socket.socket()
        plain.setblocking(False)
        sock.write(token)  # before there is a connection
        await self.loop.sock_connect(plain, self.address)
        sock.attach(plain.detach())
        for _ in range(self.dice.randrange(3)):
            await self.pause()
            sock.write(token)
        await self.pause()
        if self.dice.random() < 0.5:
            sock.close()
        else:
            sock.abort()
        await over
        over_again = sock.write(token)
        if over_again or not sock.closed:
            self.wrong.append("a socket that is over took a message")

    def check(self, token: bytes, data: bytes, over: asyncio.Future[None] | None = None) -> None:
        if over is not None and over.done():
            self.wrong.append("data came after on_close")
        if data and (len(data) % TOKEN or data != token * (len(data) // TOKEN)):
            self.wrong.append(f"{token!r} was told {data!r}")

    async def pause(self) -> None:
        await asyncio.sleep(self.dice.random() * LONGEST_PAUSE if self.dice.random() < 0.7 else 0)


class Client(Socket):
    """A socket with callbacks of its own."""


async def crowd() -> None:
    loop = asyncio.get_running_loop()
    program = Crowd(loop, random.Random(SEED))
    room = asyncio.Semaphore(AT_ONCE)

    async def visit(number: int, kind: Callable[[bytes], Awaitable[None]]) -> None:
        async with room:
            await kind(b"%0*d" % (TOKEN, number))

    kinds = (program.plain, program.plain, program.own)
    async with asyncio.timeout(PATIENCE), asyncio.TaskGroup() as visits:
        for number in range(SOCKETS):
            visits.create_task(visit(number, kinds[number % len(kinds)]))
    async with asyncio.timeout(PATIENCE):
        while program.open:
            await asyncio.sleep(0.01)
    assert not program.wrong, program.wrong[:5]
    assert len(program.over) == len(set(program.over)) == SOCKETS
    assert program.heard > SOCKETS / 2
    stats = program.engine.stats()
    counters = ("connections", "live_connections", "live_chunks", "live_handles")
    assert {name: stats[name] for name in counters} == dict.fromkeys(counters, 0)
    loop.remove_reader(program.elfd)
    program.engine.close()


@pytest.mark.parametrize("run", [asyncio.run, uvloop.run], ids=["asyncio", "uvloop"])
def test_ten_thousand_sockets(run: Callable[[Awaitable[None]], None]) -> None:
    run(asyncio.sleep(0))  # a loop's library may keep descriptors of its own
    gc.collect()
    descriptors = len(os.listdir("/proc/self/fd"))
    run(crowd())
    gc.collect()
    assert live() == {"engines": 0, "requests": 0, "sockets": 0, "left_over": 0}
    assert len(os.listdir("/proc/self/fd")) == descriptors

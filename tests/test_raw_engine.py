"""Raw connections where it is hard: what must not be lost, end early, or find freed memory, whatever a program does.

Each test is one history that once went wrong, with an engine in the test's own process (see sockets.py).
"""

from __future__ import annotations

import asyncio
import os
import socket
import sys
from collections.abc import Callable
from typing import Any

import pytest
from sockets import House, Peer, in_house, until

from eighties import App, Request, _engine
from eighties._engine import close as net_close
from eighties._engine import engine_of, find_socket
from eighties._engine import write as net_write
from eighties.streams import Socket

MUCH = 4 << 20
GET = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"


def listen(house: House) -> Callable[[], Any]:
    """Have the engine listen; what is returned connects to it."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = listener.getsockname()
        house.engine.listen(listener.fileno())

    async def client() -> Peer:
        sock = socket.socket()
        house.peers.append(sock)
        sock.setblocking(False)
        await house.loop.sock_connect(sock, address)
        return Peer(house.loop, sock)

    return client


def serve(house: House, handler: Callable[..., object], method: str = "GET") -> Callable[[], Any]:
    app = App()
    app.route("/", (method,), stream=True)(handler)
    house.engine.set_routes(app.routes())
    return listen(house)


# ---- taking over ----


@in_house
async def test_a_handler_that_takes_over_at_once_goes_on(house: House) -> None:
    async def handler(request: Request) -> None:
        sock = request.take_over()
        await asyncio.sleep(0.01)
        sock.write(b"answer")
        sock.close()

    peer = await serve(house, handler)()
    await peer.send(GET)
    assert await peer.receive_all() == b"answer"


@in_house
async def test_half_closed_before_there_is_a_reader(house: House) -> None:
    """A socket that nobody reads yet is not closed by an end of input: its reader may want to answer."""
    taken: list[Socket] = []

    async def handler(request: Request) -> None:
        sock = request.take_over()
        assert isinstance(sock, Socket)
        taken.append(sock)

    peer = await serve(house, handler)()
    await peer.send(GET)
    peer.end()
    await until(lambda: taken)
    await asyncio.sleep(0.02)
    sock = taken[0]
    ended: list[str] = []

    def on_eof(elfd: int, fd: int) -> bool:
        ended.append("eof")
        return True

    sock.on_eof = on_eof
    sock.on_data = lambda *_: None
    await until(lambda: ended)
    assert sock.write(b"answer")
    sock.close()
    assert await peer.receive_all() == b"answer"


# ---- ends ----


@in_house
async def test_close_sends_what_is_queued_while_the_peer_still_talks(house: House) -> None:
    client = listen(house)

    def on_data(elfd: int, fd: int, data: bytes, length: int) -> None:
        if net_write(elfd, fd, b"z" * MUCH):
            net_close(elfd, fd)

    house.engine.set_hooks({"on_data": on_data}, True)
    peer = await client()
    talking = asyncio.create_task(talk(peer))
    assert len(await peer.receive(MUCH)) == MUCH
    talking.cancel()
    await asyncio.gather(talking, return_exceptions=True)


async def talk(peer: Peer) -> None:
    while True:
        await peer.loop.sock_sendall(peer.sock, b"x" * 65536)
        await asyncio.sleep(0)


@in_house
async def test_a_failed_write_loses_nothing_that_has_come(house: House) -> None:
    sock, peer = house.pair()
    heard: list[object] = []
    sock.on_data = lambda elfd, fd, data, length: heard.append(data)
    sock.on_close = lambda elfd, fd: heard.append("closed")
    await peer.send(b"last words")
    peer.leave()
    sock.write("too late")
    await until(lambda: len(heard) > 1)
    assert heard == [b"last words", "closed"]


@in_house
async def test_a_reset_while_paused_is_noticed(house: House) -> None:
    client = listen(house)
    closed: list[int] = []
    accepted: list[int] = []
    house.engine.set_hooks(
        {"on_close": lambda elfd, fd: closed.append(fd), "on_accept": lambda elfd, parent, fd: accepted.append(fd)},
        True,
    )
    peer = await client()
    await until(lambda: accepted)
    sock = find_socket(house.engine.fileno(), accepted[0])
    assert sock is not None
    sock.pause()
    peer.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    peer.leave()
    await until(lambda: closed == accepted)


@in_house
async def test_written_and_closed_before_there_is_a_connection(house: House) -> None:
    sock = Socket(house.engine)
    calls: list[str] = []
    sock.on_connect = lambda elfd, fd: calls.append("connected")
    sock.on_close = lambda elfd, fd: calls.append("closed")
    assert sock.write("sent all the same", close=True) and sock.closed
    ours, theirs = socket.socketpair()
    house.peers.append(theirs)
    theirs.setblocking(False)
    sock.attach(ours.detach())
    assert await Peer(house.loop, theirs).receive_all() == b"sent all the same"
    theirs.close()
    await until(lambda: calls)
    assert calls == ["closed"]


@in_house
async def test_a_blocking_descriptor_does_not_block(house: House) -> None:
    ours, theirs = socket.socketpair()
    house.peers.append(theirs)
    ours.setblocking(True)
    sock = Socket(house.engine)
    heard: list[int] = []
    sock.on_data = lambda elfd, fd, data, length: heard.append(length)
    theirs.send(b"x" * 65536)  # a whole read: the engine looks for more
    sock.attach(ours.detach())
    await until(lambda: sum(heard) == 65536)


@in_house
async def test_datagrams_keep_their_bounds(house: House) -> None:
    sock, peer = house.pair(socket.SOCK_DGRAM)
    heard: list[bytes] = []
    sock.on_data = lambda elfd, fd, data, length: heard.append(data)
    for data in (b"one", b"", b"three"):
        peer.sock.send(data)
        assert sock.write(data)
    await until(lambda: len(heard) == 3)
    assert heard == [b"one", b"", b"three"]
    assert [peer.sock.recv(9) for _ in heard] == heard
    with pytest.raises(ValueError, match="65507"):
        sock.write(b"x" * 65508)


# ---- programs that run code where nobody expects it ----


@pytest.mark.skipif(sys.version_info < (3, 12), reason="no __buffer__")
@in_house
async def test_objects_that_run_code_while_they_are_read(house: House) -> None:
    sock, _ = house.pair()

    class Data:
        def __buffer__(self, flags: int) -> memoryview:
            sock.abort()
            house.engine.poll()
            return memoryview(b"data")

    assert not sock.write(Data())  # type: ignore[arg-type]
    assert sock.closed

    class Number:
        def __index__(self) -> int:
            return house.engine.fileno()

    with pytest.raises(TypeError):
        net_write(house.engine.fileno(), Number(), b"x")  # type: ignore[arg-type]
    assert engine_of(Number()) is house.engine  # type: ignore[arg-type]


@in_house
async def test_a_matcher_may_do_anything(house: House) -> None:
    client = listen(house)

    def choose(data: bytes) -> None:
        house.engine.set_protocols(None)
        house.engine.close()

    house.engine.set_protocols(choose)
    peer = await client()
    await peer.send(GET)
    assert await peer.receive_all() == b""


@in_house
async def test_a_callback_that_is_no_plain_function_is_an_error(house: House) -> None:
    sock, peer = house.pair()

    async def on_data(elfd: int, fd: int, data: bytes, length: int) -> None:
        raise AssertionError

    with pytest.raises(TypeError, match="function"):
        sock.on_eof = 3  # type: ignore[assignment]
    sock.on_data = on_data
    await peer.send(b"x")
    await until(lambda: house.reports)
    assert "plain function" in str(house.reports.pop())
    assert await peer.receive_all() == b""


@in_house
async def test_foreign_handles(house: House) -> None:
    elfd = house.engine.fileno()
    sock, _ = house.pair()
    for handle in (0, 1, -1, elfd, sock.fd + 1, sock.fd ^ 1 << 40, 1 << 100):
        assert not net_write(elfd, handle, b"x") and not net_close(elfd, handle)
        assert find_socket(elfd, handle) is None
    assert find_socket(elfd, sock.fd) is sock
    for foreign in (elfd + 1000, 1 << 100):
        with pytest.raises(OSError, match="descriptor"):
            net_write(foreign, sock.fd, b"x")
    with pytest.raises(TypeError):
        net_write(elfd, sock.fd, "text")  # type: ignore[arg-type]
    reader, writer = os.pipe()
    os.close(writer)
    with pytest.raises(OSError, match="connected|descriptor"):
        sock.attach(reader)
    os.close(reader)
    with pytest.raises(OSError):
        Socket(house.engine).attach(-1)


def test_no_socket_of_a_closed_engine() -> None:
    async def run() -> None:
        house = House()
        open_one = _engine.Socket(house.engine)
        house.loop.remove_reader(house.engine.fileno())
        house.engine.close()
        assert open_one.closed
        with pytest.raises(RuntimeError, match="closed"):
            _engine.Socket(house.engine)

    asyncio.run(run())


@in_house
async def test_writing_and_draining_ends_when_the_peer_has_left(house: House) -> None:
    """Though there is still something of it to be read: this loop would hold the worker for ever."""
    sock, peer = house.pair()
    await peer.send(b"unread")
    peer.leave()
    with pytest.raises(ConnectionError):
        while True:
            sock.write(bytes(100_000))
            await sock.drain()
    assert not sock.writable
    sock.abort()

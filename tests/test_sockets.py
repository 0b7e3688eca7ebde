"""The methods of a Socket, and what holds for all of its readers: real sockets, both loops, one engine here."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from sockets import House, Peer, Reading, framed, in_house, message, turns, until

from eighties.promise import prepare_promise
from eighties.streams import (
    WRITE_HOLD,
    Overflow,
    Socket,
    buffered_cor,
    cor,
    read_stream,
)

# ---- await sock.read() ----


def step(awaitable: Any) -> bytes:
    """The value of what is here already: whoever awaits it is not suspended."""
    with pytest.raises(StopIteration) as stop:
        awaitable.__await__().send(None)
    value: bytes = stop.value.value
    return value


@in_house
async def test_what_is_here_is_read_without_waiting(house: House) -> None:
    sock, peer = house.pair()
    await peer.send(b"one two\nthree four")
    assert await sock.read(4) == b"one "
    assert step(sock.read(b"\n")) == b"two"
    assert step(sock.read(5)) == b"three"
    assert step(sock.read(0)) == b""
    assert step(sock.read()) == b" four"


@in_house
async def test_a_cancelled_read_loses_nothing(house: House) -> None:
    sock, peer = house.pair()
    for arrived in (b"", b"half"):
        reading = asyncio.ensure_future(sock.read(8))
        await peer.send(arrived) if arrived else None
        await turns()
        reading.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await reading
    reading = asyncio.ensure_future(sock.read(8))
    await turns()
    peer.sock.send(b"full")
    sock.on_data(sock.elfd, sock.fd, b"", 0)  # type: ignore[misc]
    reading.cancel()  # just when it is about to go on
    with contextlib.suppress(asyncio.CancelledError):
        await reading
    assert await sock.read(8) == b"halffull"


@in_house
async def test_the_end_of_awaited_input(house: House) -> None:
    sock, peer = house.pair()
    await peer.send(b"line\nhalf")
    peer.end()
    assert await sock.read(b"\n") == b"line"
    await asyncio.sleep(0.01)
    assert sock.write(b"an answer, a while after the end")
    with pytest.raises(asyncio.IncompleteReadError) as caught:
        await sock.read(b"\n")
    assert caught.value.partial == b"half"
    assert await sock.read() == b""
    with pytest.raises(asyncio.IncompleteReadError):
        await sock.read(1)
    sock.close()
    assert await peer.receive_all() == b"an answer, a while after the end"


@in_house
async def test_reading_before_there_is_a_connection(house: House) -> None:
    sock = Socket(house.engine)
    promise = buffered_cor(sock, message)
    assert sock.write("sent before")
    ours, theirs = socket.socketpair()
    house.peers.append(theirs)
    theirs.setblocking(False)
    ours.setblocking(False)
    sock.attach(ours.detach())
    peer = Peer(house.loop, theirs)
    await peer.send(framed(b"x"))
    assert await promise == b"x"
    assert await peer.receive(11) == b"sent before"


@in_house
async def test_reading_after_a_cancelled_read_that_has_not_ended_yet(house: House) -> None:
    sock, peer = house.pair()
    first = asyncio.ensure_future(sock.read(4))
    await turns()
    first.cancel()
    second = asyncio.ensure_future(sock.read(4))
    await turns()
    assert first.cancelled()
    with pytest.raises(RuntimeError, match="has a reader already"):
        await sock.read(4)
    await peer.send(b"data")
    assert await second == b"data"


# ---- the program's own on_data, after something was read ----


def noting(calls: list[Any]) -> Callable[[int, int, bytes, int], None]:
    """An on_data that notes what it gets."""

    def on_data(elfd: int, fd: int, data: bytes, length: int) -> None:
        assert len(data) == length
        calls.append(data)

    return on_data


@in_house
async def test_on_data_gets_what_was_not_read(house: House) -> None:
    sock, peer = house.pair()
    calls: list[bytes] = []
    await peer.send(b"one\ntwo\nth")
    assert await sock.read(b"\n") == b"one"
    function = noting(calls)
    sock.on_data = function
    assert calls == [] and sock.on_data is function  # not from within the assignment
    await peer.send(b"ree\n")
    await until(lambda: b"".join(calls) == b"two\nthree\n")
    await peer.send(b"four")
    await until(lambda: calls[-1] == b"four")
    assert sock.on_data is function
    peer.end()
    assert await peer.receive_all() == b""  # without on_eof the end is the end


@in_house
async def test_on_data_has_a_held_back_sender_go_on(house: House) -> None:
    data = bytes(range(256)) * 8000
    sock, peer = house.pair()
    calls: list[bytes] = []
    sending = asyncio.ensure_future(peer.send(data))
    assert await sock.read(1) == data[:1]
    await until(lambda: sock.inbox.paused)
    sock.on_data = noting(calls)
    await sending
    await until(lambda: sum(map(len, calls)) == len(data) - 1)
    assert b"".join(calls) == data[1:]


@in_house
async def test_on_data_after_the_end_of_input(house: House) -> None:
    for keep in (False, True):
        sock, peer = house.pair()
        calls: list[Any] = []
        await peer.send(b"line\nrest")
        peer.end()
        assert await sock.read(b"\n") == b"line"
        await until(lambda sock=sock: sock.inbox.ended)  # type: ignore[misc]
        sock.on_data = noting(calls)
        sock.on_eof = lambda elfd, fd, keep=keep, calls=calls: calls.append("end") or keep
        await until(lambda calls=calls: len(calls) == 2)  # type: ignore[misc]
        await turns()
        assert calls == [b"rest", "end"] and sock.closed is not keep
        sock.write("bye", close=True)
        assert await peer.receive_all() == (b"bye" if keep else b"")
        peer.leave()


@in_house
async def test_on_data_gets_what_came_before_the_connection_broke(house: House) -> None:
    sock, peer = house.tcp_pair()
    calls: list[Any] = []
    await peer.send(b"line\nrest")
    assert await sock.read(b"\n") == b"line"
    house.loop.remove_reader(house.engine.fileno())
    peer.reset()
    sock.on_close = lambda elfd, fd: calls.append("closed")
    sock.on_data = noting(calls)
    house.engine.poll()
    assert calls == [b"rest", "closed"]
    house.loop.add_reader(house.engine.fileno(), house.engine.poll)


@in_house
async def test_on_data_that_is_replaced_or_taken_back_in_time(house: House) -> None:
    sock, peer = house.pair()
    first: list[bytes] = []
    second: list[bytes] = []
    await peer.send(b"line\nrest")
    assert await sock.read(b"\n") == b"line"
    sock.on_data = noting(first)
    sock.on_data = None
    await turns()
    sock.on_data = noting(first)
    sock.on_data = noting(second)
    await until(lambda: second == [b"rest"])
    await turns()
    assert first == []
    await peer.send(b"next")
    await until(lambda: second[-1] == b"next")
    sock.on_data = noting(first)
    await peer.send(b"line\nrest")
    await until(lambda: first == [b"line\nrest"])
    reading = asyncio.ensure_future(sock.read(3))
    await turns()
    await peer.send(b"abcdef")
    assert await reading == b"abc"
    sock.on_data = noting(second)
    assert await sock.read(3) == b"def"
    await turns()
    assert second[-1] == b"next" and first == [b"line\nrest"]


@in_house
async def test_on_data_that_fails_with_what_was_held(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    def failing(elfd: int, fd: int, data: bytes, length: int) -> None:
        raise LookupError("of the program")

    async def asynchronous(elfd: int, fd: int, data: bytes, length: int) -> None: ...

    errors: list[Any] = []
    monkeypatch.setattr(logging.getLogger("eighties"), "handle", lambda record: errors.append(record.exc_info[0]))
    functions: list[Callable[[int, int, bytes, int], object]] = [failing, asynchronous]
    for function in functions:
        sock, peer = house.pair()
        await peer.send(b"line\nrest")
        assert await sock.read(b"\n") == b"line"
        sock.on_data = function
        assert await peer.receive_all() == b""
    assert errors == [LookupError, TypeError]


# ---- whole streams, datagrams, writing ----


@in_house
async def test_read_stream_collects_all(house: House) -> None:
    data = bytes(range(256)) * 10_000
    sock, peer = house.pair()
    promise = read_stream(sock)
    await peer.send(data)
    peer.end()
    assert await promise == data


@in_house
async def test_read_stream_has_a_limit(house: House) -> None:
    sock, peer = house.pair()
    promise = read_stream(sock, 1000)
    await peer.send(bytes(1001))
    with pytest.raises(Overflow, match="more than 1000 bytes"):
        await promise
    assert await peer.receive_all() == b""
    sock, peer = house.pair()
    promise = read_stream(sock, 1000)
    await peer.send(bytes(1000))
    peer.end()
    assert await promise == bytes(1000)


@in_house
async def test_datagrams_stay_what_they_are(house: House) -> None:
    def reader() -> Reading:
        first = yield
        yield promise
        chunks = [first, (yield), (yield None), (yield)]
        try:
            yield 1
        except TypeError as error:
            return chunks, str(error)

    resolve, promise = prepare_promise()
    sock, peer = house.pair(socket.SOCK_DGRAM)
    reading = buffered_cor(sock, reader)
    for datagram in (b"one", b"two", b"three", b"four"):
        peer.sock.send(datagram)
    await until(lambda: sock.inbox.held == 12)
    resolve()
    chunks, error = await reading
    assert chunks == [b"one", b"two", b"three", b"four"]
    assert "whole datagrams" in error
    peer.sock.send(b"five")
    assert await sock.read() == b"five"
    sock.close()


@in_house
async def test_drain_waits_until_little_is_unsent(house: House) -> None:
    sock, peer = house.pair()
    written: list[int] = []
    sock.on_write = lambda elfd, fd: written.append(sock.buffered)
    await sock.drain()
    sock.write(bytes(4 << 20))
    assert sock.buffered > WRITE_HOLD
    draining = [asyncio.ensure_future(sock.drain()) for _ in range(2)]
    await turns()
    assert not any(task.done() for task in draining)
    assert len(await peer.receive(4 << 20)) == 4 << 20
    await asyncio.gather(*draining)
    assert sock.buffered <= WRITE_HOLD and written


@in_house
async def test_drain_within_a_callback_is_not_forgotten(house: House) -> None:
    """There, what is written waits for the callback to end, and not for the kernel."""

    async def reader(stream: AsyncIterator[bytes]) -> None:
        async for _ in stream:
            sock.write(bytes(WRITE_HOLD + 1))
            await sock.drain()
            sock.close()

    sock, peer = house.pair()
    promise = cor(sock, reader)
    await peer.send(b"go")
    assert len(await peer.receive_all()) == WRITE_HOLD + 1
    assert await promise is None


@in_house
async def test_drain_hears_of_the_end(house: House) -> None:
    sock, peer = house.pair()
    sock.write(bytes(4 << 20))
    draining = asyncio.ensure_future(sock.drain())
    await turns()
    peer.leave()
    with pytest.raises(ConnectionError):
        await draining
    with pytest.raises(ConnectionError):
        await sock.drain()


@in_house
async def test_text_is_written_as_utf8(house: House) -> None:
    sock, peer = house.pair()
    sock.note = "programs may put anything on a socket"  # type: ignore[attr-defined]
    assert sock.name is None and sock.error is None
    assert sock.write("grüße ")
    assert sock.write(bytearray(b"and "))
    assert sock.write(memoryview(b"bye"), close=True)
    assert not sock.write("more")
    assert await peer.receive_all() == "grüße and bye".encode()


@in_house
async def test_http_response(house: House) -> None:
    sock, peer = house.pair()
    assert sock.http_response(200, None, "hello")
    sock.close()
    head, _, body = (await peer.receive_all()).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 OK\r\n") and b"\r\nContent-Length: 5" in head and body == b"hello"
    assert not sock.http_response(200, None, "again")

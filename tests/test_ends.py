"""How an input ends: whole, by the program, or broken, which looks like none of the others. And who never stops."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Callable, Generator
from functools import partial
from typing import Any

import pytest
from ports import unused_port
from sockets import House, Peer, Read, Reading, framed, holds, in_house, message, turns, until

from eighties.incoming import MANY_REFUSALS, comes_of
from eighties.outgoing import connect
from eighties.promise import Promise
from eighties.streams import Overflow, Socket, buffered_cor, cor, read_stream


def chunks() -> Reading:
    data = b""
    while chunk := (yield):
        data += chunk
    return data


def frames() -> Reading:
    while True:
        yield from message()


async def each(stream: AsyncIterator[bytes]) -> bytes:
    return b"".join([chunk async for chunk in stream])


async def pieces(read: Read) -> None:
    while True:
        await read(int.from_bytes(await read(4), "big"))


async def awaited(sock: Socket) -> bytes:
    data = b""
    while chunk := await sock.read():
        data += chunk
    return data


def ways(sock: Socket) -> Any:
    """Every way of reading one socket to its end, to be begun."""
    return [
        lambda: cor(sock, chunks),
        lambda: cor(sock, each),
        lambda: buffered_cor(sock, frames),
        lambda: buffered_cor(sock, pieces),
        lambda: read_stream(sock),
        lambda: asyncio.ensure_future(awaited(sock)),
        lambda: asyncio.ensure_future(sock.read(100)),
        lambda: asyncio.ensure_future(sock.read(b"\n")),
    ]


WAYS = range(8)


# ---- broken ----


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("sent", [b"", b"\0\0\0\0", b"\0\0\0\x09half"])
@in_house
async def test_a_reset_is_no_end_of_input(house: House, way: int, sent: bytes) -> None:
    sock, peer = house.tcp_pair()
    reading = ways(sock)[way]()
    if sent:
        await peer.send(sent)
        await until(lambda: sock.inbox is not None and sock.inbox.came == len(sent))
    await turns()
    peer.reset()
    with pytest.raises(ConnectionResetError, match="before its input had ended") as caught:
        await reading
    assert comes_of(caught.value, sock) and sock.left and sock.closed


@pytest.mark.parametrize("way", WAYS)
@in_house
async def test_a_reset_that_nobody_was_waiting_for_is_none_either(house: House, way: int) -> None:
    """Read after it: no reader, and not even a stream, has heard of it."""
    for read_before in (False, True):
        sock, peer = house.tcp_pair()
        if read_before:
            await peer.send(b"line\n")
            assert await sock.read(b"\n") == b"line"
        await turns()
        peer.reset()
        await until(lambda sock=sock: sock.closed)  # type: ignore[misc]
        for _ in range(2):
            with pytest.raises(ConnectionResetError):
                await ways(sock)[way]()


@pytest.mark.parametrize("way", WAYS)
@in_house
async def test_a_connection_that_cannot_be_made_has_no_end_of_input(house: House, way: int) -> None:
    port = unused_port()
    for late in (False, True):
        sock = connect("127.0.0.1", port)
        if late:
            await until(lambda sock=sock: sock.closed)  # type: ignore[misc]
        with pytest.raises(ConnectionRefusedError, match=str(port)) as caught:
            await ways(sock)[way]()
        assert caught.value is not sock.error and sock.error is not None and sock.error.__traceback__ is None
        with pytest.raises(ConnectionRefusedError):
            await sock.drain()


@in_house
async def test_pieces_that_have_come_are_given_before_the_error(house: House) -> None:
    def reader() -> Reading:
        yield ready
        return [(yield 4), (yield b"\n"), (yield from last())]

    def last() -> Generator[Any, Any, object]:
        with pytest.raises(ConnectionResetError):
            yield 9
        return (yield 4)

    ready: asyncio.Future[None] = house.loop.create_future()
    sock, peer = house.tcp_pair()
    promise = buffered_cor(sock, reader)
    await peer.send(b"HEADline\nrest")
    await until(partial(holds, sock, 13))
    peer.reset()
    await until(lambda: sock.closed)
    ready.set_result(None)
    assert await promise == [b"HEAD", b"line", b"rest"]


@in_house
async def test_after_a_whole_end_a_reset_breaks_nothing(house: House) -> None:
    sock, peer = house.tcp_pair()
    await peer.send(b"all")
    peer.end()
    assert await awaited(sock) == b"all"
    peer.reset()
    sock.write("x")
    await until(lambda: sock.closed)
    assert await sock.read() == b""
    with pytest.raises(asyncio.IncompleteReadError):
        await sock.read(1)


@in_house
async def test_who_closes_by_itself_breaks_nothing(house: House) -> None:
    """Neither now, nor when somebody waits, nor later."""
    for end in (Socket.close, Socket.abort):
        for way in WAYS:
            sock, peer = house.pair()
            reading = ways(sock)[way]()
            await turns()
            end(sock)
            for _ in range(2):
                with contextlib.suppress(asyncio.IncompleteReadError):
                    assert await reading in (None, b"")
                reading = ways(sock)[way]()
            with contextlib.suppress(asyncio.IncompleteReadError):
                await reading
            assert not sock.left
            peer.leave()


@in_house
async def test_peers_do_not_fill_the_log_by_leaving(house: House, caplog: pytest.LogCaptureFixture) -> None:
    """With a promise that nobody looks at, or one that is resolved long since. In the middle of a piece it is told."""

    def early(resolve: Callable[..., bool]) -> Reading:
        resolve((yield 4))
        while True:
            yield 4

    for function in (chunks, early):
        sock, peer = house.tcp_pair()
        cor(sock, function)
        await peer.send(b"once")
        await until(lambda sock=sock: sock.inbox.came == 4)  # type: ignore[misc]
        peer.reset()
        await until(lambda sock=sock: sock.closed)  # type: ignore[misc]
        await turns()
    assert not house.errors and not [one for one in caplog.records if one.levelno >= logging.ERROR]
    sock, peer = house.tcp_pair()
    buffered_cor(sock, frames)
    await peer.send(framed(b"a piece")[:-1])
    await until(lambda: sock.inbox.came == 10)
    peer.reset()
    await until(lambda: house.errors)
    assert isinstance(house.errors.pop()["exception"], ConnectionResetError)


# ---- who never stops asking ----


def overflowing() -> Reading:
    while True:
        with contextlib.suppress(Overflow):
            yield b"\n", 10


def ended() -> Reading:
    while True:
        with contextlib.suppress(asyncio.IncompleteReadError):
            yield


async def overflowing_coroutine(read: Read) -> None:
    while True:
        with contextlib.suppress(Overflow):
            await read(b"\n", 10)


async def ended_coroutine(read: Read) -> None:
    while True:
        await read()


async def swallowing(read: Read) -> None:
    """As bad as can be: it takes itself out of the way of all errors, so the loop must go round."""
    with contextlib.suppress(asyncio.CancelledError):
        while True:
            with contextlib.suppress(Exception):
                await read()


@pytest.mark.parametrize("function", [overflowing, ended, overflowing_coroutine, ended_coroutine])
@in_house
async def test_who_takes_nothing_and_asks_on_and_on_is_stopped(house: House, function: Callable[..., Any]) -> None:
    for by_program in (False, True):
        sock, peer = house.pair()
        promise = buffered_cor(sock, function)
        if "ended" not in function.__name__:
            await peer.send(b"x" * 50)
        elif by_program:
            sock.close()
        else:
            peer.end()
        with pytest.raises(RuntimeError, match="told 16 times"):
            await promise


@in_house
async def test_a_closed_socket_is_not_read_for_ever(house: House) -> None:
    sock, peer = house.pair()
    sock.close()
    peer.leave()
    await until(lambda: sock.inbox is None)
    for _ in range(MANY_REFUSALS):
        assert await sock.read() == b""
    with pytest.raises(RuntimeError, match="told 16 times"):
        await sock.read()


@in_house
async def test_who_outlives_all_errors_does_not_hold_the_loop(house: House) -> None:
    sock, peer = house.pair()
    promise = buffered_cor(sock, swallowing)
    peer.end()
    await turns(100)
    assert not promise.done()
    promise.cancel()
    await promise


@in_house
async def test_who_goes_on_after_a_refusal_may_do_so_for_ever(house: House) -> None:
    """Lines that are too long are skipped one by one: something is taken in between, however the input is split."""
    count = 3 * MANY_REFUSALS

    def skipping() -> Reading:
        skipped = 0
        while skipped < count:
            try:
                yield b"\n", 10
            except Overflow:
                yield 21
                skipped += 1
        return skipped

    async def coroutine(read: Read) -> int:
        skipped = 0
        while skipped < count:
            try:
                await read(b"\n", 10)
            except Overflow:
                await read(21)
                skipped += 1
        return skipped

    functions: list[Callable[..., Any]] = [skipping, coroutine]
    for function in functions:
        for send in (Peer.send, Peer.send_each):
            sock, peer = house.pair()
            promise: Promise = buffered_cor(sock, function)
            await send(peer, (b"x" * 20 + b"\n") * count)
            assert await promise == count


# ---- what else a generator raises ----


@in_house
async def test_a_generator_that_exits_is_told_once_and_ends_nothing_else(house: House) -> None:
    def exiting() -> Reading:
        yield 1
        raise SystemExit(3)

    def at_once() -> Reading:
        raise SystemExit(3)
        yield

    for function in (exiting, at_once):
        sock, peer = house.pair()
        promise = buffered_cor(sock, function)
        await peer.send(b"x")
        await until(promise.done)
        assert isinstance(promise.exception(), SystemExit)
        assert await peer.receive_all() == b""

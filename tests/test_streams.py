"""Sockets read by generators and coroutines: what they get, and the end. Real sockets, both loops, one engine here."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from functools import partial
from typing import Any

import pytest
from sockets import House, Peer, Read, Reading, framed, in_house, message, turns, until

from eighties.incoming import MANY_REFUSALS
from eighties.promise import BrokenPromise
from eighties.streams import (
    Socket,
    buffered_cor,
    cor,
    read_stream,
)

# ---- generators ----


@in_house
async def test_a_generator_gets_what_it_wants(house: House) -> None:
    def reader() -> Reading:
        return [(yield 4), (yield b"\r\n"), (yield b"\r\n", 10), (yield 3, 10), (yield 0)]

    sent = b"HEADone line\r\nanother\r\nxyz"
    for send in (Peer.send, Peer.send_each):
        sock, peer = house.pair()
        promise = buffered_cor(sock, reader)
        await send(peer, sent)
        assert await promise == [b"HEAD", b"one line", b"another", b"xyz", b""]
        assert sock.inbox.held == 0


@in_house
async def test_a_reader_starts_at_once(house: House) -> None:
    def greeting() -> Reading:
        sock.write("welcome\n")
        return (yield b"\n")

    sock, peer = house.pair()
    promise = buffered_cor(sock, greeting)
    assert await peer.receive(8) == b"welcome\n"
    await peer.send(b"hello\n")
    assert await promise == b"hello"


@in_house
async def test_many_frames_in_few_chunks(house: House) -> None:
    def reader() -> Reading:
        total = count = 0
        while count < 100_000:
            frame = yield 8
            total += int.from_bytes(frame, "big")
            count += 1
        return total

    sock, peer = house.pair()
    promise = buffered_cor(sock, reader)
    await peer.send(b"".join(number.to_bytes(8, "big") for number in range(100_000)))
    assert await promise == sum(range(100_000))


@in_house
async def test_cor_hands_on_chunks_and_the_end(house: House) -> None:
    def collect() -> Reading:
        chunks = []
        while True:
            chunk = yield
            chunks.append(chunk)
            if not chunk:
                return chunks

    sock, peer = house.pair()
    promise = cor(sock, collect)
    for chunk in (b"one", b"two", b"three"):
        await peer.send(chunk)
        await turns()
    peer.end()
    assert await promise == [b"one", b"two", b"three", b""]


@in_house
async def test_resolve_takes_several_values_and_reading_goes_on(house: House) -> None:
    later = []

    def reader(resolve: Callable[..., bool]) -> Reading:
        assert resolve((yield 1), (yield 1))
        later.append((yield 1))

    sock, peer = house.pair()
    promise = buffered_cor(sock, reader)
    called: list[tuple[Any, ...]] = []
    promise(lambda *values: called.append(values))
    await peer.send(b"ab")
    assert await promise == (b"a", b"b")
    await peer.send(b"c")
    await until(lambda: later)
    assert later == [b"c"] and called == [(b"a", b"b")]


@in_house
async def test_resolve_may_be_called_after_the_reader_has_ended(house: House) -> None:
    kept: list[Callable[..., bool]] = []

    def reader(resolve: Callable[..., bool]) -> Reading:
        yield 1
        kept.append(resolve)

    sock, peer = house.pair()
    promise = buffered_cor(sock, reader)
    await peer.send(b"x")
    await until(lambda: kept)
    await turns()
    assert not promise.done()
    kept.pop()("at last")
    assert await promise == "at last"


@in_house
async def test_a_resolve_that_is_let_go_breaks_the_promise(house: House) -> None:
    def reader(resolve: Callable[..., bool]) -> Reading:
        yield 1

    sock, peer = house.pair()
    promise = buffered_cor(sock, reader)
    await peer.send(b"x")
    with pytest.raises(BrokenPromise):
        await promise


# ---- coroutines ----


@in_house
async def test_a_coroutine_iterates_a_stream(house: House) -> None:
    async def echo(stream: AsyncIterator[bytes]) -> int:
        size = 0
        async for chunk in stream:
            size += len(chunk)
            sock.write(chunk)
        return size

    sock, peer = house.pair()
    promise = cor(sock, echo)
    await peer.send(b"a" * 1000)
    assert await peer.receive(1000) == b"a" * 1000
    await peer.send(b"b" * 1000)
    peer.end()
    assert await peer.receive_all() == b"b" * 1000
    assert await promise == 2000


@in_house
async def test_a_coroutine_reads_pieces(house: House) -> None:
    async def reader(read: Read) -> list[bytes]:
        return [await read(4), await read(b"\r\n"), await read(b"\r\n", 10), await read((3, 10)), await read(0)]

    for send in (Peer.send, Peer.send_each):
        sock, peer = house.pair()
        promise = buffered_cor(sock, reader)
        await send(peer, b"HEADone line\r\nanother\r\nxyz")
        assert await promise == [b"HEAD", b"one line", b"another", b"xyz", b""]


@in_house
async def test_coroutines_take_resolve_too(house: House) -> None:
    async def pieces(read: Read, resolve: Callable[..., bool]) -> None:
        resolve(await read(1), await read(1))

    async def chunks(stream: AsyncIterator[bytes], resolve: Callable[..., bool]) -> None:
        async for chunk in stream:
            resolve(chunk)

    sock, peer = house.pair()
    promise = buffered_cor(sock, pieces)
    await peer.send(b"ab")
    assert await promise == (b"a", b"b")
    promise = cor(sock, chunks)
    await peer.send(b"cd")
    assert await promise == b"cd"


@in_house
async def test_functions_of_every_shape(house: House) -> None:
    """Methods, partials, callable objects and defaults: what must be given counts."""

    class Reader:
        def method(self) -> Reading:
            return (yield 1)

        def with_resolve(self, resolve: Callable[..., bool], size: int = 1) -> Reading:
            resolve((yield size))

        async def coroutine(self, read: Read) -> bytes:
            return await read(1)

        async def __call__(self, read: Read, resolve: Callable[..., bool]) -> None:
            resolve(await read(1))

    def sized(size: int) -> Reading:
        return (yield size)

    async def sized_coroutine(read: Read, *, size: int) -> bytes:
        return await read(size)

    def not_a_generator() -> int:
        return 1

    one = Reader()
    sock, peer = house.pair()
    shapes: list[Callable[..., Any]] = [
        one.method,
        one.with_resolve,
        one.coroutine,
        one,
        partial(sized, 1),
        partial(sized_coroutine, size=1),
    ]
    shapes += [lambda: sized(1)]
    for shape in shapes:
        promise = buffered_cor(sock, shape)
        await peer.send(b"x")
        assert await promise == b"x", shape
    with pytest.raises(TypeError, match="takes 2 parameters"):
        buffered_cor(sock, lambda one, two: sized(1))
    with pytest.raises(TypeError, match="neither a generator function nor a coroutine function"):
        buffered_cor(sock, not_a_generator)
    assert sock.inbox.reader is None


# ---- the end of input ----


@in_house
async def test_a_clean_end_is_no_error(house: House) -> None:
    def forever() -> Reading:
        while True:
            yield from message()

    async def coroutine(read: Read) -> None:
        while True:
            await read(int.from_bytes(await read(4), "big"))

    def chunks() -> Reading:
        while True:
            yield

    def resolving(resolve: Callable[..., bool]) -> Reading:
        while True:
            yield 5

    for begin, function in (
        (buffered_cor, forever),
        (buffered_cor, coroutine),
        (cor, chunks),
        (buffered_cor, resolving),
    ):
        sock, peer = house.pair()
        promise = begin(sock, function)
        await peer.send(framed(b"x"))
        peer.end()
        assert await promise is None
        assert await peer.receive_all() == b""
        await until(lambda: not house.engine.connections)


@in_house
async def test_an_end_within_a_piece_is_one(house: House) -> None:
    async def coroutine(read: Read) -> bytes:
        return await read(int.from_bytes(await read(4), "big"))

    def line() -> Reading:
        return (yield b"\r\n")

    cases: list[tuple[Callable[..., Any], bytes, bytes, int | None]] = [
        (message, framed(b"1234567")[:-2], b"12345", 7),
        (coroutine, framed(b"1234567")[:-2], b"12345", 7),
        (line, b"no end of line\r", b"no end of line\r", None),
    ]
    for function, sent, rest, expected in cases:
        sock, peer = house.pair()
        promise = buffered_cor(sock, function)
        await peer.send(sent)
        peer.end()
        with pytest.raises(asyncio.IncompleteReadError) as caught:
            await promise
        assert (caught.value.partial, caught.value.expected) == (rest, expected)
        assert await peer.receive_all() == b""


@in_house
async def test_a_reader_may_answer_after_the_end(house: House) -> None:
    """The client half-closes and must still get its answer (what was caught, what came before, what takes a while)."""

    def caught() -> Reading:
        try:
            yield b"\n"
        except asyncio.IncompleteReadError as error:
            yield asyncio.sleep(0.01)
            sock.write(error.partial.upper())

    def chunks() -> Reading:
        data = b""
        while chunk := (yield):
            data += chunk
        sock.write(data.upper())

    async def coroutine(stream: AsyncIterator[bytes]) -> None:
        data = b"".join([chunk async for chunk in stream])
        await asyncio.sleep(0.01)
        sock.write(data.upper())

    for function in (caught, chunks, coroutine):
        sock, peer = house.pair()
        cor(sock, function)
        await peer.send(b"question")
        peer.end()
        assert await peer.receive_all() == b"QUESTION"


@in_house
async def test_who_awaits_a_reader_may_answer_after_the_end(house: House) -> None:
    async def serve(sock: Socket) -> None:
        sock.write(b"got " + await buffered_cor(sock, message))

    async def collect(sock: Socket) -> None:
        sock.write(b"got " + await read_stream(sock))

    for function in (serve, collect):
        sock, peer = house.pair()
        task = asyncio.ensure_future(function(sock))
        await peer.send(framed(b"it"))
        peer.end()
        assert (await peer.receive_all()).endswith(b"it")
        await task


@in_house
async def test_messages_that_came_with_the_end_are_all_read(house: House) -> None:
    async def serve(sock: Socket) -> int:
        count = 0
        while (await buffered_cor(sock, message)) is not None:
            count += 1
            sock.write(b".")
        return count

    sock, peer = house.pair()
    task = asyncio.ensure_future(serve(sock))
    await peer.send(framed(b"one") + framed(b"two") + framed(b"three"))
    peer.end()
    assert await peer.receive_all() == b"..."
    assert await task == 3


@in_house
async def test_a_reset_ends_reading(house: House) -> None:
    sock, peer = house.pair()
    closed: list[int] = []
    sock.on_close = lambda elfd, fd: closed.append(fd)
    promise = buffered_cor(sock, message)
    await peer.send(framed(b"12345")[:-1])
    await until(lambda: sock.inbox.held)
    fd = sock.fd
    sock.abort()
    with pytest.raises(asyncio.IncompleteReadError) as caught:
        await promise
    assert caught.value.partial == b"1234"
    assert closed == [fd] and sock.inbox is None


@in_house
async def test_a_reader_may_close_its_socket(house: House) -> None:
    told: list[bytes] = []

    def reader() -> Reading:
        yield 1
        sock.write("bye", close=True)
        try:
            yield 5
        except asyncio.IncompleteReadError as error:
            told.append(error.partial)
            assert not sock.write(b"more")
            raise

    sock, peer = house.pair()
    promise = buffered_cor(sock, reader)
    await peer.send(b"xyz")
    assert await peer.receive_all() == b"bye"
    await until(lambda: told)
    peer.leave()
    with pytest.raises(asyncio.IncompleteReadError):
        await promise
    assert told == [b"yz"]


@in_house
async def test_a_generator_that_never_stops_asking_is_stopped(house: House) -> None:
    asked = []

    def stubborn() -> Reading:
        while True:
            with contextlib.suppress(asyncio.IncompleteReadError):
                asked.append(1)
                yield 4

    sock, peer = house.pair()
    promise = buffered_cor(sock, stubborn)
    peer.end()
    with pytest.raises(RuntimeError, match="told 16 times"):
        await promise
    assert len(asked) == MANY_REFUSALS + 1


@in_house
async def test_reading_a_socket_that_is_closed(house: House) -> None:
    sock, _ = house.pair()
    sock.abort()
    await until(lambda: not house.engine.connections)
    assert await cor(sock, message) is None
    with pytest.raises(asyncio.IncompleteReadError):
        await sock.read(1)
    assert await sock.read() == b""


@in_house
async def test_on_close_is_the_programs_whenever_it_is_set(house: House) -> None:
    calls: list[str] = []

    def reader() -> Reading:
        try:
            yield 1
        finally:
            calls.append("reader")

    for early in (True, False):
        calls.clear()
        sock, peer = house.pair()
        if early:
            sock.on_close = lambda elfd, fd: calls.append("program")
        promise = buffered_cor(sock, reader)
        if not early:
            sock.on_close = lambda elfd, fd: calls.append("program")
        sock.close()
        assert await promise is None and calls == ["reader"]
        peer.leave()
        await until(lambda: len(calls) == 2)
        assert calls == ["reader", "program"] and sock.on_close is None

"""Readers among others: limits, failures, waiting for other things, one reader after another, nothing left."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
from sockets import House, Peer, Read, Reading, framed, holds, in_house, message, turns, until

from eighties.inbox import Inbox
from eighties.incoming import HOLD
from eighties.promise import Promise, prepare_promise
from eighties.streams import (
    READ_LIMIT,
    Overflow,
    buffered_cor,
    cor,
    read_stream,
)

# ---- limits, and what cannot be wanted ----


@in_house
async def test_overflow_is_told_apart_and_may_be_outlived(house: House) -> None:
    def reader() -> Reading:
        try:
            yield b"\n", 10
        except Overflow as error:
            return error.limit, error.want, (yield 20), (yield b"\n", 10)

    async def coroutine(read: Read) -> Any:
        try:
            await read(b"\n", 10)
        except Overflow as error:
            return error.limit, error.want, await read(20), await read((b"\n", 10))

    for function in (reader, coroutine):
        for send in (Peer.send, Peer.send_each):
            sock, peer = house.pair()
            promise = buffered_cor(sock, function)
            await send(peer, b"x" * 20 + b"end\n")
            assert await promise == (10, b"\n", b"x" * 20, b"end")


@in_house
async def test_overflow_closes_when_nobody_catches_it(house: House) -> None:
    def line() -> Reading:
        return (yield b"\n", 10)

    def frame() -> Reading:
        return (yield READ_LIMIT + 1)

    for function in (line, frame):
        sock, peer = house.pair()
        promise = buffered_cor(sock, function)
        await peer.send(b"x" * 20)
        with pytest.raises(Overflow):
            await promise
        sock.write(b"too long\n")
        assert await peer.receive_all() == b"too long\n"


@in_house
async def test_nonsense_is_thrown_in_where_it_was_yielded(house: House) -> None:
    def reader() -> Reading:
        errors = []
        for want in ("text", -1, b"", 1.5, (1, 2, 3), True):
            try:
                yield want
            except (TypeError, ValueError) as error:
                errors.append(str(error))
        return errors, (yield 1)

    sock, peer = house.pair()
    promise = buffered_cor(sock, reader)
    await peer.send(b"x")
    errors, piece = await promise
    assert [error.split(" wanted")[0] for error in errors] == ["'text'", "-1 bytes", "b''", "1.5", "(1, 2, 3)", "True"]
    assert piece == b"x"


@in_house
async def test_a_reader_that_fails_rejects_and_closes(house: House) -> None:
    def generator() -> Reading:
        yield 1
        raise LookupError("of the program")

    async def coroutine(read: Read) -> None:
        await read(1)
        raise LookupError("of the program")

    functions: list[Callable[..., Any]] = [generator, coroutine]
    for function in functions:
        sock, peer = house.pair()
        promise = buffered_cor(sock, function)
        await peer.send(b"xyz")
        with pytest.raises(LookupError, match="of the program"):
            await promise
        assert await peer.receive_all() == b""


@in_house
async def test_a_failure_that_nobody_looks_at_is_logged(house: House) -> None:
    def reader() -> Reading:
        yield 1
        raise LookupError("of the program")

    sock, peer = house.pair()
    buffered_cor(sock, reader)
    await peer.send(b"x")
    assert await peer.receive_all() == b""
    await until(lambda: house.errors)
    context = house.errors.pop()
    assert isinstance(context["exception"], LookupError) and "test_readers.py" in repr(context["future"])


@in_house
async def test_a_failure_after_resolving_is_logged(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    def reader(resolve: Callable[..., bool]) -> Reading:
        resolve((yield 1))
        raise LookupError("too late")

    logged: list[tuple[int, str]] = []
    logger = logging.getLogger("eighties")
    monkeypatch.setattr(logger, "handle", lambda record: logged.append((record.levelno, repr(record.exc_info[1]))))
    sock, peer = house.pair()
    promise = buffered_cor(sock, reader)
    await peer.send(b"x")
    assert await promise == b"x"
    assert logged == [(logging.ERROR, "LookupError('too late')")]
    assert await peer.receive_all() == b""


# ---- awaiting within a generator ----


@in_house
async def test_a_generator_may_wait_for_other_things(house: House) -> None:
    resolve, promise = prepare_promise()

    async def coroutine() -> str:
        await asyncio.sleep(0)
        return "coroutine"

    async def failing() -> None:
        raise LookupError("row")

    def reader() -> Reading:
        first = yield 1
        values = [(yield promise), (yield coroutine()), (yield asyncio.sleep(0.001, "future"))]
        try:
            yield failing()
        except LookupError as error:
            values.append(str(error))
        return first, values, (yield 3)

    sock, peer = house.pair()
    reading = buffered_cor(sock, reader)
    await peer.send(b"abcd")
    await turns()
    assert not reading.done() and sock.inbox.held == 3
    resolve("promise")
    assert await reading == (b"a", ["promise", "coroutine", "future", "row"], b"bcd")


@in_house
async def test_what_is_awaited_may_be_cancelled_by_others(house: House) -> None:
    future: asyncio.Future[None] = house.loop.create_future()

    def reader() -> Reading:
        try:
            yield future
        except asyncio.CancelledError:
            return "cancelled", (yield 1)

    def careless() -> Reading:
        yield future

    sock, peer = house.pair()
    promise = buffered_cor(sock, reader)
    future.cancel()
    await peer.send(b"x")
    assert await promise == ("cancelled", b"x")
    promise = buffered_cor(sock, careless)
    with contextlib.suppress(asyncio.CancelledError):
        await promise
    assert promise.cancelled() and not sock.closed


@in_house
async def test_the_connection_may_end_while_a_generator_waits(house: House) -> None:
    resolve, promise = prepare_promise()

    def reader() -> Reading:
        yield 1
        value = yield promise
        rest = yield 2
        try:
            yield 1
        except asyncio.IncompleteReadError as error:
            return value, rest, error.partial

    sock, peer = house.pair()
    reading = buffered_cor(sock, reader)
    await peer.send(b"abc")
    await until(partial(holds, sock, 2))
    sock.abort()
    await until(lambda: not house.engine.connections)
    resolve("value")
    assert await reading == ("value", b"bc", b"")


@in_house
async def test_who_is_busy_makes_the_sender_wait(house: House) -> None:
    """A reader that waits, one that has ended, and none: what is held is bounded, and nothing of it is lost."""
    data = bytes(range(256)) * 40_000

    def waiting() -> Reading:
        yield promise
        return (yield len(data), len(data))

    async def coroutine(read: Read) -> bytes:
        await promise
        return await read(len(data), len(data))

    def nothing() -> Reading:
        return None
        yield

    for function in (waiting, coroutine, nothing):
        resolve, promise = prepare_promise()
        sock, peer = house.pair()
        reading = buffered_cor(sock, function)
        sending = asyncio.ensure_future(peer.send(data))
        inbox = sock.inbox
        await until(partial(getattr, inbox, "paused"))
        await turns(100)
        assert HOLD <= sock.inbox.held < 8 * HOLD and not sending.done()
        resolve()
        if function is nothing:
            assert await reading is None
            assert await sock.read(len(data), len(data)) == data
        else:
            assert await reading == data
        await sending
        await peer.send(b"x")
        assert await sock.read(1) == b"x"


# ---- one reader after another, and two at once ----


@in_house
async def test_what_a_reader_leaves_is_the_next_ones(house: House) -> None:
    sock, peer = house.pair()
    await peer.send(framed(b"one") + framed(b"two") + b"line\nrest")
    assert await buffered_cor(sock, message) == b"one"
    assert sock.inbox.held > 0
    assert await buffered_cor(sock, message) == b"two"
    assert await sock.read(b"\n") == b"line"
    assert await sock.read() == b"rest"


@in_house
async def test_two_readers_at_once_are_refused(house: House) -> None:
    async def coroutine(read: Read) -> bytes:
        return await read(3)

    sock, peer = house.pair()
    others = [partial(buffered_cor, sock, message), partial(cor, sock, coroutine), partial(read_stream, sock)]
    for function in (message, coroutine):
        promise = buffered_cor(sock, function)
        for other in others:
            with pytest.raises(RuntimeError, match="has a reader already"):
                other()
        with pytest.raises(RuntimeError, match="has a reader already"):
            await sock.read(1)
        promise.cancel()
        await turns()
    reading = asyncio.ensure_future(sock.read(1))
    await turns()
    with pytest.raises(RuntimeError, match="has a reader already"):
        await sock.read(1)
    with pytest.raises(RuntimeError, match="has a reader already"):
        buffered_cor(sock, message)
    await peer.send(b"x")
    assert await reading == b"x"


@in_house
async def test_a_cancelled_reader_is_ended_and_the_socket_is_not(house: House) -> None:
    ended = []

    def generator() -> Reading:
        try:
            yield 1
            yield 10
        finally:
            ended.append("generator")

    async def coroutine(read: Read) -> None:
        try:
            await read(1)
            await read(10)
        finally:
            ended.append("coroutine")

    def waiting() -> Reading:
        try:
            yield 1
            yield inner
        finally:
            ended.append("waiting")

    inner: asyncio.Future[None] = house.loop.create_future()
    for function in (generator, coroutine, waiting):
        sock, peer = house.pair()
        promise = buffered_cor(sock, function)
        await peer.send(b"abc")
        await until(partial(holds, sock, 2))
        promise.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await promise
        assert promise.cancelled()
        assert await sock.read(2) == b"bc"
    assert ended == ["generator", "coroutine", "waiting"] and inner.cancelled()


@in_house
async def test_a_timeout_ends_a_reader(house: House) -> None:
    sock, peer = house.pair()
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(buffered_cor(sock, message), 0.01)
    await peer.send(framed(b"later"))
    assert await buffered_cor(sock, message) == b"later"


@in_house
async def test_a_generator_may_begin_and_settle_others(house: House) -> None:
    """Nothing a generator does brings it to be resumed while it runs."""
    inner_promises: list[Promise] = []

    def inner() -> Reading:
        other.write(b"from inner")
        return (yield 2)

    def outer() -> Reading:
        yield 1
        inner_promises.append(buffered_cor(other, inner))
        other.close()
        sock.write(b"x" * 100_000)
        sock.pause()
        sock.resume()
        sock.on_data(sock.elfd, sock.fd, b"by hand", 7)  # type: ignore[misc]
        return (yield 9)

    sock, peer = house.pair()
    other, other_peer = house.pair()
    await other_peer.send(b"12")
    promise = buffered_cor(sock, outer)
    await peer.send(b"abc")
    assert await promise == b"bcby hand"
    assert await other_peer.receive_all() == b"from inner"
    other_peer.leave()
    with contextlib.suppress(asyncio.IncompleteReadError):
        await inner_promises[0]


# ---- nothing is left ----


@in_house
async def test_no_circles_are_left(house: House) -> None:
    """When a reader has ended and its connection is gone, nothing waits for the garbage collector."""
    import gc
    import weakref

    class Witness:
        pass

    def chunks() -> Reading:
        witness = Witness()
        alive.add(witness)
        while (yield):
            pass

    def incomplete() -> Reading:
        witness = Witness()
        alive.add(witness)
        yield 100

    async def coroutine(read: Read) -> None:
        witness = Witness()
        alive.add(witness)
        await read(100)

    def failing() -> Reading:
        witness = Witness()
        alive.add(witness)
        yield 1
        raise LookupError

    alive: weakref.WeakSet[Any] = weakref.WeakSet()
    gc.collect()
    gc.disable()
    try:
        for function in (chunks, incomplete, coroutine, failing):
            for sent in (b"", b"abc"):
                sock, peer = house.pair()
                promise = buffered_cor(sock, function)
                inbox = weakref.ref(sock)
                await peer.send(sent) if sent else None
                peer.end()
                with contextlib.suppress(asyncio.IncompleteReadError, LookupError):
                    await promise
                await peer.receive_all()
                await until(lambda: not house.engine.connections)
                del sock, promise
                await turns()
                assert inbox() is None, (function, sent)
                assert not alive, (function, sent)
    finally:
        gc.enable()


def test_an_inbox_is_no_larger_than_it_must_be() -> None:
    assert not hasattr(Inbox(), "__dict__")

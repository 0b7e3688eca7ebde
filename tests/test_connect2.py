"""connect2: a connection is either somebody's or closed, whenever who awaits it is cancelled."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import random
from typing import Any

from sockets import House, in_house, open_descriptors, turns, until
from test_outgoing import Listener, full

from eighties import outgoing
from eighties._engine import find_socket
from eighties.outgoing import connect2
from eighties.promise import Promise, gather


@in_house
async def test_connect2_whose_waiter_is_cancelled_when_it_is_settled_leaves_nothing(house: House) -> None:
    """The promise has the socket, and nobody ever gets it: the task that awaits it is cancelled before it runs."""

    async def wait(promise: Promise) -> None:
        found.append(await promise)

    found: list[Any] = []
    listener = Listener(house)
    before = open_descriptors()
    for _ in range(5):
        promise = connect2(host="127.0.0.1", port=listener.port)
        task = asyncio.ensure_future(wait(promise))
        promise.add_done_callback(lambda _, task=task: task.cancel())  # type: ignore[misc]
        await asyncio.wait([task])
        (await listener.accept()).leave()
        assert task.cancelled() and promise.done() and not promise.cancelled()
        del task, promise
    await until(lambda: open_descriptors() == before)
    assert not found


@in_house
async def test_connect2_within_tiny_timeouts_leaves_nothing(house: House) -> None:
    listener = Listener(house)
    before = open_descriptors()
    chance = random.Random(80)
    made = 0
    for _ in range(300):
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(chance.random() * 0.0008):
                sock = await connect2(host="127.0.0.1", port=listener.port)
                made += 1
                sock.abort()
        with contextlib.suppress(BlockingIOError):
            while True:  # the queue of those who have come must not be full
                listener.sock.accept()[0].close()
    await until(lambda: open_descriptors() == before)
    assert not outgoing._under_way


@in_house
async def test_a_socket_that_connect2_gave_is_the_programs(house: House) -> None:
    """However it was taken, and be it kept by nothing but its handle."""
    listener = Listener(house)
    promise = connect2(host="127.0.0.1", port=listener.port)
    handles = [(await promise).fd, (await promise).fd]
    called: list[int] = []
    promise = connect2(host="127.0.0.1", port=listener.port)
    promise(lambda sock: called.append(sock.fd))
    await until(lambda: called)
    (gathered,) = await gather(connect2(host="127.0.0.1", port=listener.port))
    handles += [*called, gathered.fd, (await asyncio.wait_for(connect2(host="127.0.0.1", port=listener.port), 9)).fd]
    del promise, gathered
    gc.collect()
    await turns()
    sockets = [find_socket(house.engine.fileno(), handle) for handle in handles]
    assert [sock is not None and sock.connected for sock in sockets] == [True] * 5
    for sock in sockets:
        sock.close()  # type: ignore[union-attr]


@in_house
async def test_cancelling_who_awaits_connect2_ends_the_attempt(house: House) -> None:
    async def wait() -> None:
        await connect2(host="127.0.0.1", port=listener.getsockname()[1])

    with full() as listener:
        before = open_descriptors()
        task = asyncio.ensure_future(wait())
        await turns()
        assert outgoing._under_way
        task.cancel()
        await asyncio.wait([task])
        assert task.cancelled() and not outgoing._under_way and open_descriptors() == before

"""The pool by itself, with links that are none."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncGenerator, Sequence
from typing import Any

import pytest
from database import run

from eighties.sql import ClientClosed, PoolTimeout, Result, ServerDown
from eighties.sql.pool import Pool, Row

pytestmark = pytest.mark.pure


class Fake:
    """A link. `made` has all of them."""

    made: list[Fake]
    in_transaction = False

    def __init__(self) -> None:
        self.good = True
        self.stale = False
        self.dropped = 0
        self.users = 0

    def alive(self) -> bool:
        return self.good

    def usable(self) -> bool:
        return self.good

    def fresh(self) -> bool:
        return self.good and not self.stale

    def reset(self) -> None:
        self.drop()

    def drop(self) -> None:
        self.good = False
        self.dropped += 1

    async def close(self) -> None:
        self.good = False

    async def refresh(self) -> None: ...

    async def run(self, sql: str, args: Sequence[object]) -> Result:
        raise NotImplementedError

    def stream(self, sql: str, args: Sequence[object]) -> AsyncGenerator[tuple[Sequence[Row], Sequence[str]], None]:
        raise NotImplementedError


class Server:
    """Makes links, or fails to."""

    def __init__(self) -> None:
        self.links: list[Fake] = []
        self.down = False
        self.bad = False
        self.slow = 0.0

    async def connect(self) -> Fake:
        await asyncio.sleep(self.slow)
        if self.down:
            raise ServerDown("down")
        self.links.append(Fake())
        self.links[-1].good = not self.bad
        return self.links[-1]

    def pool(self, size: int, timeout: float = 5.0) -> Pool[Fake]:
        return Pool(self.connect, size, timeout, "test")


def check(pool: Pool[Any]) -> None:
    """What always holds when nobody has a link."""
    assert len(pool._links) == len(pool._idle) and set(pool._idle) == pool._links
    assert len(pool._links) + len(pool._making) <= pool.size and not pool._waiting


def test_links_are_made_when_wanted_and_used_again() -> None:
    async def main() -> None:
        server = Server()
        pool = server.pool(2)
        first = await pool.acquire()
        pool.put(first)
        assert pool.take() is first and await pool.acquire() is not first
        waiting = asyncio.create_task(pool.acquire())
        await asyncio.sleep(0)
        pool.put(first)
        assert await waiting is first and len(server.links) == 2
        pool.put(first)
        pool.put(server.links[1])
        check(pool)

    run(main())


def test_lost_links_are_replaced() -> None:
    async def main() -> None:
        server = Server()
        pool = server.pool(2)
        links = [await pool.acquire(), await pool.acquire()]
        for link in links:
            pool.put(link)
            link.stale = True
        fresh = await pool.acquire()
        assert fresh not in links and all(link.dropped for link in links)
        waiting = [asyncio.create_task(pool.acquire()) for _ in range(2)]
        await asyncio.sleep(0.01)
        fresh.good = False
        pool.put(fresh)  # its place goes to the one who waits
        for one in waiting:
            pool.put(await one)
        check(pool)

    run(main())


def test_failures_are_told_to_all_who_wait() -> None:
    async def main() -> None:
        server = Server()
        pool = server.pool(1)
        server.down, server.slow = True, 0.01
        results = await asyncio.gather(*[pool.acquire() for _ in range(5)], return_exceptions=True)
        assert [type(one) for one in results] == [ServerDown] * 5 and len({id(one) for one in results}) == 5
        server.down = False
        pool.put(await pool.acquire())
        check(pool)

    run(main())


def test_who_waits_less_than_connecting_takes() -> None:
    """The link is made all the same, and the next one has it."""

    async def main() -> None:
        server = Server()
        server.slow = 0.2
        pool = server.pool(2)
        for _ in range(3):
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.02):
                    await pool.acquire()
        assert len(pool._making) == 2
        while pool._making:
            await asyncio.sleep(0.01)
        assert len(server.links) == 2 and pool.take() is not None
        await pool.close(0)
        assert not any(link.good for link in server.links)

    run(main())


def test_no_more_than_the_server_allows() -> None:
    """Who cannot have a new link waits for those that are there."""

    async def main() -> None:
        server = Server()
        pool = server.pool(3, 0.1)
        link = await pool.acquire()
        server.down = True
        waiting = asyncio.create_task(pool.acquire())
        await asyncio.sleep(0.01)
        pool.put(link)
        assert await waiting is link
        with pytest.raises(PoolTimeout, match="1, and no more could be made: down"):
            await pool.acquire()
        waiting = asyncio.create_task(pool.acquire())
        await asyncio.sleep(0.01)
        link.good = False
        pool.put(link)
        with pytest.raises(ServerDown, match="down"):
            await waiting
        check(pool)

    run(main())


def test_links_that_are_bad_from_the_beginning() -> None:
    """Are not made again and again."""

    async def main() -> None:
        server = Server()
        server.bad = True
        pool = server.pool(1)
        links = [await pool.acquire()]
        pool.put(links[0])
        assert len(server.links) == 1
        check(pool)

    run(main())


def test_a_silent_server() -> None:
    """One deadline for waiting and for connecting, and a true word."""

    async def main() -> None:
        server = Server()
        server.slow = 0.15
        pool = server.pool(1, 0.1)
        started = asyncio.get_running_loop().time()
        results = await asyncio.gather(*[pool.acquire() for _ in range(5)], return_exceptions=True)
        assert asyncio.get_running_loop().time() - started < 0.14
        assert {str(one) for one in results} == {"test: no connection within 0.1 s"}
        assert {type(one) for one in results} == {ServerDown}
        await pool.close(0)
        check(pool)

    run(main())


def test_time_is_bounded() -> None:
    async def main() -> None:
        pool = Server().pool(1, 0.05)
        link = await pool.acquire()
        with pytest.raises(PoolTimeout, match=r"test: all connections of the pool \(pool=1\) were in use for 0.05 s"):
            await pool.acquire()
        pool.put(link)
        check(pool)

    run(main())


def test_first_come_first_served() -> None:
    async def main() -> None:
        pool = Server().pool(1)
        link = await pool.acquire()
        order: list[int] = []

        async def use(number: int) -> None:
            mine = await pool.acquire()
            order.append(number)
            await asyncio.sleep(0)
            pool.put(mine)

        tasks = [asyncio.create_task(use(number)) for number in range(10)]
        await asyncio.sleep(0)
        tasks[3].cancel()
        pool.put(link)
        await asyncio.wait(tasks)
        assert order == [0, 1, 2, 4, 5, 6, 7, 8, 9]
        check(pool)

    run(main())


def test_cancelled_when_its_turn_has_come() -> None:
    async def main() -> None:
        pool = Server().pool(1)
        for good in (True, False):
            link = await pool.acquire()
            task = asyncio.create_task(pool.acquire())
            await asyncio.sleep(0)
            link.good = good
            pool.put(link)  # the task has it, or the place
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            check(pool)
            pool.put(await pool.acquire())

    run(main())


def test_a_storm() -> None:
    """Cancelled, lost and failing at random: no link is used twice at once, and none is missing in the end."""

    async def main() -> None:
        chance = random.Random(80)
        server = Server()
        pool = server.pool(3)

        async def use() -> None:
            link = await pool.acquire()
            try:
                link.users += 1
                assert link.users == 1 and link.good
                await asyncio.sleep(chance.random() * 0.002)
                link.stale = chance.random() < 0.1
                if chance.random() < 0.1:
                    link.good = False
            finally:
                link.users -= 1
                pool.put(link)

        for turn in range(30):
            server.down = turn % 7 == 6
            server.slow = chance.random() * 0.002
            tasks = [asyncio.create_task(use()) for _ in range(30)]
            for task in tasks:
                if chance.random() < 0.4:
                    asyncio.get_running_loop().call_later(chance.random() * 0.02, task.cancel)
            results = await asyncio.gather(*tasks, return_exceptions=True)
            wrong = [one for one in results if not isinstance(one, asyncio.CancelledError | ServerDown | None)]
            assert not wrong
            check(pool)
        assert len(server.links) > 10

    run(main())


def test_closing() -> None:
    async def main() -> None:
        pool = Server().pool(2)
        used, idle = await pool.acquire(), await pool.acquire()
        waiting = asyncio.create_task(pool.acquire())
        await asyncio.sleep(0)
        closing = asyncio.create_task(pool.close(5))
        with pytest.raises(ClientClosed):
            await waiting
        with pytest.raises(ClientClosed):
            await pool.acquire()
        assert used.good and not closing.done()
        pool.put(idle)
        pool.put(used)
        await closing
        assert not used.good and not idle.good
        stuck = Server().pool(1)
        link = await stuck.acquire()
        await stuck.close(0.01)
        assert not link.good
        stuck.put(link)

    run(main())

"""Promises of queries: they run where they are awaited, and are promises all the same."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Callable
from typing import Any

import pytest
from promise_loops import Loop, turns

from eighties import aio
from eighties.promise import Promise
from eighties.sql import ClientClosed, connect
from eighties.sql.promised import promised


class Steps:
    """A coroutine that tells how far it is."""

    def __init__(self, error: type[Exception] | None = None) -> None:
        self.seen: list[str] = []
        self.go = asyncio.Event()
        self.error = error
        self.task: asyncio.Task[Any] | None = None

    async def run(self) -> int:
        self.seen.append("began")
        self.task = asyncio.current_task()
        try:
            await self.go.wait()
            if self.error is not None:
                raise self.error()
            return 7
        except asyncio.CancelledError:
            self.seen.append("cancelled")
            raise
        finally:
            self.seen.append("ended")


def make(steps: Steps) -> Promise:
    return promised(steps.run())


def test_awaited_at_once_it_runs_in_that_task(loop: Loop) -> None:
    async def main() -> None:
        steps = Steps()
        steps.go.set()
        promise = make(steps)
        assert steps.seen == [] and await promise == 7
        assert steps.task is asyncio.current_task()
        assert promise.done() and promise.result() == 7 and await promise == 7
        assert "test_awaited_at_once" in promise.place

    loop.run(main)
    assert not loop.told


def test_not_awaited_it_runs_all_the_same(loop: Loop) -> None:
    async def main() -> None:
        steps = Steps()
        promise = make(steps)
        await turns(2)
        assert steps.seen == ["began"] and not promise.done()
        steps.go.set()
        assert await promise == 7 and steps.task is not asyncio.current_task()
        called: list[int] = []
        other = Steps()
        other.go.set()
        make(other)(called.append)
        await turns()
        assert called == [7]
        first, second = Steps(), Steps()
        first.go.set()
        second.go.set()
        assert await aio.gather(make(first), make(second)) == (7, 7)
        third = Steps()
        third.go.set()
        assert await asyncio.wait_for(make(third), 30) == 7

    loop.run(main)
    assert not loop.told


def test_several_who_await(loop: Loop) -> None:
    async def main() -> None:
        steps = Steps()
        promise = make(steps)

        async def wait() -> Any:
            return await promise

        tasks = [asyncio.create_task(wait()) for _ in range(3)]
        await turns(2)
        assert steps.seen == ["began"]
        steps.go.set()
        assert await asyncio.gather(*tasks) == [7, 7, 7]

    loop.run(main)
    assert not loop.told


@pytest.mark.parametrize("awaited", [True, False])
def test_failures_are_told_once(loop: Loop, awaited: bool) -> None:
    async def main() -> None:
        steps = Steps(ZeroDivisionError)
        steps.go.set()
        promise = make(steps)
        if awaited:
            for _ in range(2):
                with pytest.raises(ZeroDivisionError):
                    await promise
        del promise
        await turns()
        gc.collect()

    loop.run(main)
    assert [type(error) for error in loop.errors()] == ([] if awaited else [ZeroDivisionError])


@pytest.mark.parametrize("how", ["at once", "in a task of its own", "where it is awaited", "who awaits it"])
def test_cancelling(loop: Loop, how: str) -> None:
    async def main() -> None:
        steps = Steps()
        promise = make(steps)
        waiting: asyncio.Future[Any] = promise

        async def wait() -> None:
            await promise

        if how in ("where it is awaited", "who awaits it"):
            waiting = asyncio.create_task(wait())
        if how != "at once":
            await turns(2)
        (waiting if how == "who awaits it" else promise).cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        await turns(2)
        assert promise.cancelled()
        assert steps.seen == ([] if how == "at once" else ["began", "cancelled", "ended"])

    loop.run(main)
    assert not loop.told


@pytest.mark.parametrize("swallow", [False, True])
def test_cancelled_where_it_is_awaited_the_task_is_not(loop: Loop, swallow: bool) -> None:
    async def main() -> None:
        steps = Steps()

        async def run() -> int:
            try:
                return await steps.run()
            except asyncio.CancelledError:
                if swallow:
                    return 8
                raise

        promise = promised(run())

        async def wait() -> str:
            task = asyncio.current_task()
            assert task is not None
            try:
                async with asyncio.timeout(5):
                    await promise
            except asyncio.CancelledError:
                assert not swallow
            assert task.cancelling() == 0
            await asyncio.sleep(0)
            return "well"

        waiting = asyncio.create_task(wait())
        await turns(2)
        assert promise.cancel()
        assert await waiting == "well"

    loop.run(main)
    assert not loop.told


def test_nothing_is_held_in_a_cycle(loop: Loop) -> None:
    async def main() -> None:
        gone: list[int] = []

        class Watched(Steps):
            def __del__(self) -> None:
                gone.append(1)

        async def fail() -> None:
            steps = Watched(ZeroDivisionError)
            steps.go.set()
            try:
                await make(steps)
            except ZeroDivisionError:
                pass

        gc.collect()
        gc.disable()
        try:
            await fail()
            await turns()
            assert gone
        finally:
            gc.enable()

    loop.run(main)


def test_without_a_loop() -> None:
    with pytest.raises(RuntimeError):
        connect("sqlite://:memory:").select("SELECT 1")


def test_begun_in_a_transaction_it_belongs_to_it(loop: Loop) -> None:
    async def main() -> None:
        db = connect("sqlite://:memory:")
        await db.exec("CREATE TABLE t (id INTEGER)")
        async with db.transaction():
            db.exec("INSERT INTO t VALUES (%s)", 1)
        assert await db.select_value("SELECT COUNT(*) FROM t") == 1
        failing: Callable[..., Promise] = db.select
        await db.close()
        with pytest.raises(ClientClosed):
            await failing("SELECT 1")

    loop.run(main)
    assert not loop.told

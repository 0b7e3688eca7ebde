"""Promises of several things: gather, chain, map, async_. On asyncio and on uvloop."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Awaitable, Callable, Generator
from typing import Any

import pytest
from promise_loops import Calls, Custom, Loop, turns

from eighties import promise as promises
from eighties.promise import (
    Promise,
    Resolver,
    async_,
    await_,
    chain,
    gather,
    prepare_promise,
)

# --- gather


def test_gather(quiet: Loop) -> None:
    async def main() -> None:
        async def coroutine() -> str:
            await asyncio.sleep(0)
            return "coroutine"

        calls = Calls()
        resolve, promise = prepare_promise()
        resolve2, promise2 = prepare_promise()
        together = gather(promise, promise2, coroutine(), "plain", promise)
        together(calls.on_value)
        resolve2(2, 3)
        await turns()
        assert not together.done()
        resolve(1)
        assert await together == (1, (2, 3), "coroutine", "plain", 1)
        await turns()
        assert calls.values == [(1, (2, 3), "coroutine", "plain", 1)]

    quiet.run(main)


@pytest.mark.parametrize("values", [(), ("one",), ((1, 2),)])
def test_gather_of_few(quiet: Loop, values: tuple[Any, ...]) -> None:
    async def main() -> None:
        calls = Calls()
        together = gather(*values)
        together(calls.on_value)
        assert await together == values
        await turns()
        assert calls.values == [values]

    quiet.run(main)


def test_gather_rejects_at_once_and_tells_of_the_rest(loop: Loop) -> None:
    async def main() -> None:
        pairs = [prepare_promise() for _ in range(4)]
        together = gather(*(promise for _, promise in pairs))
        pairs[1][0].reject(ValueError("first"))
        with pytest.raises(ValueError, match="first"):
            await together
        pairs[0][0](1)
        pairs[2][0].reject(KeyError("second"))
        pairs[3][0].reject(asyncio.CancelledError())
        await turns()

    loop.run(main)
    assert [type(error) for error in loop.errors()] == [KeyError]
    assert "gather" in loop.told[0]["message"] and __file__ in loop.told[0]["message"]


def test_gather_of_the_same_failure_twice(quiet: Loop) -> None:
    async def main() -> None:
        resolve, promise = prepare_promise()
        together = gather(promise, promise)
        resolve.reject(ValueError())
        with pytest.raises(ValueError):
            await together

    quiet.run(main)


def test_gather_nobody_looks_at_is_told(loop: Loop) -> None:
    async def main() -> None:
        resolve, promise = prepare_promise()
        gather(promise)(lambda value: None)
        resolve.reject(ValueError("unseen"))

    loop.run(main)
    assert [str(error) for error in loop.errors()] == ["unseen"]
    assert __file__ in repr(loop.told[0]["future"])


def test_cancelled_gather_cancels_all(quiet: Loop) -> None:
    async def main() -> None:
        _resolve, promise = prepare_promise()
        task = asyncio.ensure_future(asyncio.sleep(60))
        together = gather(promise, task, 3)
        await turns()
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(together, 0.001)
        assert promise.cancelled() and together.cancelled()
        await turns()
        assert task.cancelled()

    quiet.run(main)


# --- chain and map


def test_chain(quiet: Loop) -> None:
    async def main() -> None:
        async def double(value: int) -> int:
            await asyncio.sleep(0)
            return value * 2

        resolve, promise = prepare_promise()
        end = chain(promise, double, lambda value: value + 1, lambda value: gather(value, "b"), lambda a, b: (a, b))
        resolve(5)
        assert await end == (11, "b")
        assert await chain(7) == 7
        assert await chain(double(1), double) == 4

        calls = Calls()
        chain(gather(1, 2))(calls.on_value)
        chain(1, lambda value: (value, 2))(calls.on_value)
        await turns()
        assert calls.values == [(1, 2), ((1, 2),)]

    quiet.run(main)


@pytest.mark.parametrize("late", [False, True])
def test_chain_ends_with_the_first_error(quiet: Loop, late: bool) -> None:
    async def main() -> None:
        async def coroutine(value: int) -> float:
            await asyncio.sleep(0)
            return 1 / value

        def plain(value: int) -> float:
            return 1 / value

        with pytest.raises(ZeroDivisionError):
            await chain(0, coroutine if late else plain, called.append)
        resolve, promise = prepare_promise()
        end = chain(promise, called.append)
        resolve.reject(ValueError())
        with pytest.raises(ValueError):
            await end

    called: list[float] = []
    quiet.run(main)
    assert called == []


def test_chain_nobody_looks_at_is_told(loop: Loop) -> None:
    async def main() -> None:
        chain(0, lambda value: 1 / value)
        await turns()

    loop.run(main)
    assert [type(error) for error in loop.errors()] == [ZeroDivisionError]


def test_cancelled_chain_cancels_its_step(quiet: Loop) -> None:
    async def main() -> None:
        _resolve, promise = prepare_promise()
        end = chain(1, lambda value: promise, called.append)
        await turns()
        assert end.cancel()
        with pytest.raises(asyncio.CancelledError):
            await end
        assert promise.cancelled()

    called: list[int] = []
    quiet.run(main)
    assert called == []


def test_map(quiet: Loop) -> None:
    def tell(item: str, index: int, *more: int) -> tuple[Any, ...]:
        return (item, index, *more)

    assert promises.map("ab", tell, 7, 8) == [("a", 0, 7, 8), ("b", 1, 7, 8)]
    assert promises.map([], tell) == []


# --- async_ and await_


def test_async_generator_function(quiet: Loop) -> None:
    async def main() -> None:
        def work() -> Generator[Any, Any, list[Any]]:
            got = [(yield promise), (yield 5), (yield), (yield gather(1, 2)), (yield Custom())]
            try:
                yield failing
            except ValueError as error:
                got.append(str(error))
            return got

        resolve, promise = prepare_promise()
        reject, failing = prepare_promise()
        end = async_(work)
        resolve("first")
        reject.reject(ValueError("thrown in"))
        assert await end == ["first", 5, None, (1, 2), "custom", "thrown in"]

    quiet.run(main)


def test_async_of_other_functions(quiet: Loop) -> None:
    async def main() -> None:
        async def coroutine() -> str:
            return str(await await_(promise)) + str(await await_("plain"))

        resolve, promise = prepare_promise()
        end = async_(coroutine)
        resolve("awaited ")
        assert await end == "awaited plain"
        assert await async_(lambda: 3) == 3
        assert await async_(lambda: promise) == "awaited "

    quiet.run(main)


def failing_plain() -> None:
    raise ValueError("no")


async def failing_coroutine() -> None:
    await asyncio.sleep(0)
    raise ValueError("no")


def failing_generator() -> Generator[Any, Any, None]:
    yield 1
    raise ValueError("no")


FAILING = [failing_plain, failing_coroutine, failing_generator]


@pytest.mark.parametrize("function", FAILING)
def test_async_failure_calls_back(quiet: Loop, function: Callable[[], object]) -> None:
    async def main() -> None:
        calls = Calls()
        end = async_(function, calls.on_error)
        with pytest.raises(ValueError, match="no"):
            await end
        await turns()
        assert [str(error) for error in calls.errors] == ["no"]
        async_(function, calls.on_error)
        await turns()
        assert len(calls.errors) == 2

    quiet.run(main)


@pytest.mark.parametrize("function", FAILING)
def test_async_failure_nobody_looks_at_is_told(loop: Loop, function: Callable[[], object]) -> None:
    async def main() -> None:
        async_(function)
        await turns()

    loop.run(main)
    assert [str(error) for error in loop.errors()] == ["no"]
    assert f"{__file__}:{main.__code__.co_firstlineno + 1} in " in repr(loop.told[0]["future"])


def test_async_cancelled_runs_the_generators_finally(quiet: Loop) -> None:
    async def main() -> None:
        def work() -> Generator[Any, Any, None]:
            try:
                yield asyncio.sleep(60)
            finally:
                events.append((yield asyncio.sleep(0, "tidied")))

        events: list[str] = []
        end = async_(work)
        await turns()
        end.cancel()
        with pytest.raises(asyncio.CancelledError):
            await end
        assert events == ["tidied"]

    quiet.run(main)


def test_async_generator_that_raises_stop_iteration(quiet: Loop) -> None:
    async def main() -> None:
        def plain() -> None:
            raise StopIteration(1)

        with pytest.raises(RuntimeError):
            await async_(plain)

    quiet.run(main)


def test_no_cycles_are_left(quiet: Loop) -> None:
    """Promises, combined in all ways, go when the last reference does: the garbage collector finds nothing of them."""

    async def main() -> None:
        async def work(promise: Awaitable[Any]) -> Any:
            return await promise

        def some() -> tuple[Resolver, Promise]:
            resolve, promise = prepare_promise()
            gathered = gather(promise, chain(promise, work_of), async_(lambda: work(promise)))
            return resolve, gathered

        def work_of(value: Any) -> Any:
            return value

        await turns()
        gc.collect()
        before = {id(thing) for thing in gc.get_objects() if isinstance(thing, Promise)}
        gc.disable()
        try:
            for _ in range(10):
                resolve, gathered = some()
                resolve(1)
                assert await gathered == (1, 1, 1)
            del resolve, gathered
            await turns()
            left = [thing for thing in gc.get_objects() if isinstance(thing, Promise)]
            assert [thing for thing in left if id(thing) not in before] == []
        finally:
            gc.enable()

    quiet.run(main)

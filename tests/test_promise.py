"""One promise: awaited, called back, cancelled, lost. On asyncio and on uvloop."""

from __future__ import annotations

import asyncio
import gc
import os
import subprocess
import sys
import threading
from typing import Any

import pytest
from promise_loops import Calls, Custom, Loop, turns

from eighties import promise as promises
from eighties.promise import (
    BrokenPromise,
    Promise,
    Resolver,
    async_,
    await_,
    chain,
    gather,
    prepare_promise,
    promise_of,
)

EAGER = sys.version_info >= (3, 12)


# --- one promise


@pytest.mark.parametrize(
    ("given", "awaited", "called"),
    [
        ((), None, (None,)),
        ((7,), 7, (7,)),
        ((None,), None, (None,)),
        (((1, 2),), (1, 2), ((1, 2),)),
        ((1, 2), (1, 2), (1, 2)),
        (((1, 2), 3), ((1, 2), 3), ((1, 2), 3)),
    ],
)
def test_values(quiet: Loop, given: tuple[Any, ...], awaited: Any, called: tuple[Any, ...]) -> None:
    async def main() -> None:
        early, late = Calls(), Calls()
        resolve, promise = prepare_promise()
        promise(early.on_value, early.on_error)
        assert resolve(*given) is True
        assert await promise == awaited
        promise(late.on_value, late.on_error)
        assert late.values == []  # never from within the call
        await turns()
        assert early.values == late.values == [called]
        assert early.errors == late.errors == []

    quiet.run(main)


def test_awaited_before_resolved(quiet: Loop) -> None:
    async def main() -> None:
        resolve, promise = prepare_promise()
        asyncio.get_running_loop().call_soon(resolve, "late")
        assert await promise == "late"
        assert await promise == "late"

    quiet.run(main)


def test_settles_once(quiet: Loop) -> None:
    async def main() -> None:
        resolve, promise = prepare_promise()
        assert resolve(1)
        assert resolve(2) is False
        assert resolve(2, 3) is False
        assert resolve() is False
        assert resolve.reject(ValueError()) is False
        assert promise.settle(()) is promise.settle((1, 2)) is False
        assert await promise == 1

        resolve, promise = prepare_promise()
        assert resolve.reject(ValueError("first"))
        assert resolve(1) is False
        with pytest.raises(ValueError, match="first"):
            await promise

    quiet.run(main)


def test_settle_as_the_house_does(quiet: Loop) -> None:
    async def main() -> None:
        for values, value in [((), None), (((1,),), (1,)), ((1, 2), (1, 2))]:
            promise = Promise()
            assert promise.settle(values)
            assert await promise == value
            assert promise.several == (len(values) > 1)

    quiet.run(main)


def test_rejected_with_what_is_no_exception(quiet: Loop) -> None:
    async def main() -> None:
        resolve, promise = prepare_promise()
        with pytest.raises(TypeError):
            resolve.reject("no exception")  # type: ignore[arg-type]
        assert not promise.done()
        assert resolve.reject(StopIteration(3))
        with pytest.raises(RuntimeError) as caught:
            await promise
        assert isinstance(caught.value.__cause__, StopIteration)

    quiet.run(main)


def test_rejected_calls_back(quiet: Loop) -> None:
    async def main() -> None:
        calls = Calls()
        resolve, promise = prepare_promise()
        promise(calls.on_value, calls.on_error)
        resolve.reject(error := ValueError("no"))
        await turns()
        promise(calls.on_value, calls.on_error)
        await turns()
        assert calls.errors == [error, error]
        assert calls.values == []

    quiet.run(main)


def test_callback_that_fails_is_told(loop: Loop) -> None:
    async def main() -> None:
        resolve, promise = prepare_promise()
        promise(lambda value: 1 / value)
        promise(after.append)
        resolve(0)
        await turns()

    after: list[int] = []
    loop.run(main)
    assert after == [0]
    assert [type(error) for error in loop.errors()] == [ZeroDivisionError]


def test_callback_may_be_a_coroutine_function(loop: Loop) -> None:
    async def main() -> None:
        async def on_value(value: int) -> None:
            await asyncio.sleep(0)
            seen.append(10 // value)

        for value in (5, 0):
            resolve, promise = prepare_promise()
            promise(on_value)
            resolve(value)
        await turns()

    seen: list[int] = []
    loop.run(main)
    assert seen == [2]
    assert [type(error) for error in loop.errors()] == [ZeroDivisionError]


def make_one() -> tuple[Resolver, Promise]:
    return prepare_promise()


PLACE = f"{__file__}:{make_one.__code__.co_firstlineno + 1} in make_one"


@pytest.mark.parametrize("with_callback", [False, True])
def test_failure_nobody_looks_at_is_told_with_the_place(loop: Loop, with_callback: bool) -> None:
    async def main() -> None:
        resolve, promise = make_one()
        if with_callback:
            promise(lambda value: None)
        resolve.reject(ValueError("unseen"))

    loop.run(main)
    [context] = loop.told
    assert "never retrieved" in context["message"]
    assert str(context["exception"]) == "unseen"
    assert PLACE in repr(context["future"])


def test_repr_names_the_place(quiet: Loop) -> None:
    async def main() -> None:
        resolve, promise = make_one()
        assert repr(promise).startswith("<Promise pending")
        assert repr(promise).endswith(f" made at {PLACE}>")
        assert PLACE in repr(resolve)
        resolve(1)
        assert repr(promise).startswith("<Promise finished result=1")
        line = sys._getframe().f_lineno + 2
        for made in (
            gather(1), chain(1), promise_of(1), async_(lambda: 1), promises.new_promise(),
        ):  # fmt: skip
            assert made.place == f"{__file__}:{line} in {main.__qualname__}"
        assert repr(Promise()).startswith("<Promise pending")

    quiet.run(main)


# --- with asyncio


def test_wait_for(quiet: Loop) -> None:
    async def main() -> None:
        resolve, promise = prepare_promise()
        asyncio.get_running_loop().call_later(0.001, resolve, 5)
        assert await asyncio.wait_for(promise, 60) == 5
        resolve, promise = prepare_promise()
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(promise, 0.001)
        assert promise.cancelled()
        assert resolve(1) is False

    quiet.run(main)


def test_asyncio_gather_shield_wait(quiet: Loop) -> None:
    async def main() -> None:
        pairs = [prepare_promise() for _ in range(4)]
        together = asyncio.gather(*(promise for _, promise in pairs[:3]))
        shielded = asyncio.shield(pairs[3][1])
        shielded.cancel()
        for number, (resolve, _) in enumerate(pairs):
            assert resolve(number)
        assert await together == [0, 1, 2]
        assert await pairs[3][1] == 3
        done, pending = await asyncio.wait([promise for _, promise in pairs])
        assert len(done) == 4 and not pending

    quiet.run(main)


def test_cancelled_task_cancels_the_promise(quiet: Loop) -> None:
    async def main() -> None:
        calls = Calls()
        resolve, promise = prepare_promise()
        promise(calls.on_value, calls.on_error)
        task = asyncio.ensure_future(await_(promise))
        await turns()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert promise.cancelled()
        assert resolve(1) is resolve(1, 2) is resolve.reject(ValueError()) is False
        await turns()
        assert [type(error) for error in calls.errors] == [asyncio.CancelledError]
        assert calls.values == []

    quiet.run(main)


def test_rejecting_with_cancelled_error_cancels(quiet: Loop) -> None:
    async def main() -> None:
        resolve, promise = prepare_promise()
        assert resolve.reject(asyncio.CancelledError("why"))
        assert promise.cancelled()
        with pytest.raises(asyncio.CancelledError, match="why"):
            await promise

    quiet.run(main)


# --- broken promises


def test_lost_resolver_breaks_the_promise(quiet: Loop) -> None:
    async def main() -> None:
        resolve, promise = make_one()
        waiting = asyncio.ensure_future(await_(promise))
        calls = Calls()
        promise(calls.on_value, calls.on_error)
        await turns()
        del resolve
        with pytest.raises(BrokenPromise) as caught:
            await waiting
        assert PLACE in str(caught.value)
        await turns()
        assert calls.errors == [caught.value]

    quiet.run(main)


def test_lost_before_anyone_waits(quiet: Loop) -> None:
    async def main() -> None:
        promise = prepare_promise()[1]
        with pytest.raises(BrokenPromise):
            await promise

    quiet.run(main)


def test_lost_resolver_in_a_cycle(quiet: Loop) -> None:
    async def main() -> None:
        resolve, promise = prepare_promise()
        cycle: list[Any] = [resolve]
        cycle.append(cycle)
        del resolve, cycle
        assert not promise.done()
        gc.collect()
        with pytest.raises(BrokenPromise):
            await promise

    quiet.run(main)


def test_broken_promise_with_a_callback_is_told(loop: Loop) -> None:
    async def main() -> None:
        resolve, promise = prepare_promise()
        promise(lambda value: None)
        del resolve

    loop.run(main)
    assert [type(error) for error in loop.errors()] == [BrokenPromise]


def test_dropped_on_both_sides_is_no_failure(quiet: Loop) -> None:
    async def main() -> None:
        prepare_promise()
        resolve, promise = prepare_promise()
        del resolve
        del promise
        resolve, promise = prepare_promise()
        del promise
        del resolve

    quiet.run(main)


def test_settled_promise_is_not_broken(quiet: Loop) -> None:
    async def main() -> None:
        resolve, promise = prepare_promise()
        promise.cancel()
        del resolve
        assert promise.cancelled()

    quiet.run(main)


def test_lost_in_another_thread(quiet: Loop) -> None:
    async def main() -> None:
        resolve, promise = prepare_promise()
        held = [resolve]
        del resolve
        thread = threading.Thread(target=held.clear)
        thread.start()
        with pytest.raises(BrokenPromise):
            await asyncio.wait_for(promise, 60)
        thread.join()

    quiet.run(main)


def test_lost_when_the_loop_is_closed(quiet: Loop) -> None:
    async def main() -> None:
        kept.extend(prepare_promise())

    kept: list[Any] = []
    quiet.run(main)
    promise = kept[1]
    kept.clear()
    assert not promise.done()


@pytest.mark.parametrize("close", [True, False])
def test_no_noise_when_the_interpreter_ends(close: bool) -> None:
    program = f"""
import asyncio
from eighties.promise import prepare_promise

async def main():
    global resolve, promise
    resolve, promise = prepare_promise()
    promise(print, print)
    class Cycle: pass
    Cycle.me, Cycle.pair = Cycle, prepare_promise()

loop = asyncio.new_event_loop()
loop.run_until_complete(main())
if {close}:
    loop.close()
"""
    env = {**os.environ, "PYTHONASYNCIODEBUG": ""}  # it would tell of the loop
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, env=env)
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")


# --- promise_of


def test_promise_of_anything(quiet: Loop) -> None:
    async def main() -> None:
        async def coroutine() -> int:
            await asyncio.sleep(0)
            return 1

        resolve, promise = prepare_promise()
        assert promise_of(promise) is promise
        resolve(0)
        future: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        future.set_result(3)
        assert await promise_of(coroutine()) == 1
        assert await promise_of(asyncio.ensure_future(coroutine())) == 1
        assert await promise_of(future) == 3
        assert await promise_of(Custom()) == "custom"
        plain = promise_of(None)
        assert plain.done() and await plain is None
        assert await promise_of(Custom) is Custom

    quiet.run(main)


def test_coroutine_starts_at_once(quiet: Loop) -> None:
    async def main() -> None:
        async def coroutine() -> str:
            seen.append(asyncio.current_task())
            return "value"

        seen: list[Any] = []
        promise = promise_of(coroutine())
        assert promise.done() == bool(seen) == EAGER
        assert await promise == "value"
        assert seen != [asyncio.current_task()]

    quiet.run(main)


def test_cancelling_reaches_the_coroutine(quiet: Loop) -> None:
    async def main() -> None:
        async def tidy() -> None:
            try:
                await asyncio.sleep(60)
            finally:
                await asyncio.sleep(0)
                events.append("tidied")

        async def stubborn() -> str:
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                return "stayed"
            return "slept"

        events: list[str] = []
        promise = promise_of(tidy())
        await turns()
        assert promise.cancel()
        with pytest.raises(asyncio.CancelledError):
            await promise
        assert events == ["tidied"]
        assert promise.cancelled() and not promise.cancel()

        promise = promise_of(stubborn())
        await turns()
        assert promise.cancel()
        assert await promise == "stayed"

    quiet.run(main)


def test_cancelling_comes_from_the_coroutine(quiet: Loop) -> None:
    async def main() -> None:
        task = asyncio.ensure_future(asyncio.sleep(60))
        promise = promise_of(task)
        await turns()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await promise
        assert promise.cancelled()

    quiet.run(main)


def test_timeout_ends_a_coroutine(quiet: Loop) -> None:
    async def main() -> None:
        async def slow() -> None:
            try:
                await asyncio.sleep(60)
            finally:
                events.append("ended")

        events: list[str] = []
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.001):
                await promise_of(slow())
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(promise_of(slow()), 0.001)
        assert events == ["ended", "ended"]

    quiet.run(main)

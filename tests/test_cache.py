"""The cache: kept, shared while computed, bounded, and never an error or a dead future. On asyncio and on uvloop."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from promise_loops import Loop, turns

from eighties import cache
from eighties.cache import cached, forget, set_max_cache_size
from eighties.promise import BrokenPromise, Promise, Resolver, gather, prepare_promise


@pytest.fixture(autouse=True)
def clean() -> Iterator[None]:
    """The caches are the module's: each test begins with an empty one."""
    yield
    forget("test")
    set_max_cache_size(cache.MAX_ENTRIES)


class Clock:
    """Stands for time.monotonic."""

    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(cache, "monotonic", clock)
    return clock


class Source:
    """Counts how often it is asked; gives the count in the way that `kind` names."""

    def __init__(self, kind: str = "value") -> None:
        self.kind = kind
        self.count = 0

    def __call__(self) -> object:
        self.count += 1
        if self.kind == "value":
            return self.count
        if self.kind == "coroutine":
            return self.later(self.count)
        if self.kind == "task":
            return asyncio.ensure_future(self.later(self.count))
        resolve, promise = prepare_promise()
        asyncio.get_running_loop().call_soon(resolve, self.count)
        return promise

    async def later(self, count: int) -> int:
        await asyncio.sleep(0)
        return count


KINDS = pytest.mark.parametrize("kind", ["value", "coroutine", "promise", "task"])


@KINDS
def test_kept(quiet: Loop, kind: str) -> None:
    async def main() -> None:
        source = Source(kind)
        for _ in range(3):
            assert await cached("test", ("any", 1), source) == 1
        assert await cached("test", "other", source) == 2
        assert await cached("test", ("any", 1), source, True) == 1
        calls: list[int] = []
        cached("test", "other", source)(calls.append)
        await turns()
        assert calls == [2]

    quiet.run(main)


@KINDS
def test_not_kept_on_condition(quiet: Loop, kind: str) -> None:
    async def main() -> None:
        source = Source(kind)
        assert await cached("test", "key", source, False) == 1
        assert await cached("test", "key", source, False, 60) == 2
        assert await cached("test", "key", source) == 3
        assert await cached("test", "key", source, False) == 4
        assert await cached("test", "key", source) == 3

    quiet.run(main)


@KINDS
@pytest.mark.parametrize("arguments", [(10,), (10.0,), (None, 10), (True, 10), (99, 10)])
def test_expires(quiet: Loop, clock: Clock, kind: str, arguments: tuple[Any, ...]) -> None:
    async def main() -> None:
        source = Source(kind)
        assert await cached("test", "key", source, *arguments) == 1
        clock.now += 9.9
        assert await cached("test", "key", source, *arguments) == 1
        clock.now += 0.1
        assert await cached("test", "key", source, *arguments) == 2
        clock.now += 9.9
        assert await cached("test", "key", source, *arguments) == 2

    quiet.run(main)


def test_expiry_counts_from_completion(quiet: Loop, clock: Clock) -> None:
    async def main() -> None:
        resolve, promise = prepare_promise()
        asked = cached("test", "key", lambda: promise, 10)
        clock.now += 100
        resolve("slow")
        assert await asked == "slow"
        clock.now += 9
        assert await cached("test", "key", lambda: "anew", 10) == "slow"

    quiet.run(main)


def test_arguments_that_are_wrong(quiet: Loop) -> None:
    async def main() -> None:
        wrong: list[tuple[Any, ...]] = [("x",), (None, "x"), (None, True), (10, True), (None, False)]
        for arguments in wrong:
            with pytest.raises(TypeError):
                cached("test", "key", source, *arguments)
        for negative in (-1, float("nan")):
            with pytest.raises(ValueError):
                cached("test", "key", source, negative)
        with pytest.raises(TypeError):
            cached("test", [], source)  # type: ignore[arg-type]
        with pytest.raises(ValueError):
            set_max_cache_size(-1)

    source = Source()
    quiet.run(main)
    assert source.count == 0


def test_several_values_stay_several(quiet: Loop) -> None:
    async def main() -> None:
        calls: list[tuple[Any, ...]] = []
        for _ in range(2):
            cached("test", "several", lambda: gather(1, 2))(lambda a, b: calls.append((a, b)))
            cached("test", "tuple", lambda: (1, 2))(calls.append)
            await turns()
            assert await cached("test", "several", lambda: None) == (1, 2)
        assert calls == [(1, 2)] * 4

    quiet.run(main)


@pytest.mark.parametrize("kind", ["coroutine", "promise", "task"])
def test_one_computation_for_many(quiet: Loop, kind: str) -> None:
    async def main() -> None:
        source = Source(kind)
        assert await asyncio.gather(*(cached("test", "key", source) for _ in range(50))) == [1] * 50
        assert await cached("test", "key", source) == 1
        assert await asyncio.gather(*(cached("test", "now", source, expire=0) for _ in range(50))) == [2] * 50
        assert await cached("test", "now", source, expire=0) == 3

    quiet.run(main)


def test_one_asker_gives_up(quiet: Loop) -> None:
    async def main() -> None:
        resolve, promise = prepare_promise()
        first, second, third = (cached("test", "key", lambda: promise) for _ in range(3))
        first.cancel()
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(second, 0.001)
        assert not promise.done()
        resolve("value")
        assert await third == "value"
        assert first.cancelled()

    quiet.run(main)


def test_all_askers_give_up(quiet: Loop) -> None:
    async def main() -> None:
        async def slow() -> str:
            await gate.wait()
            return "value"

        gate = asyncio.Event()
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(cached("test", "key", slow), 0.001)
        gate.set()
        await turns()
        assert await cached("test", "key", lambda: "anew") == "value"

    quiet.run(main)


def fail() -> None:
    raise ValueError("at once")


async def fail_in_coroutine() -> None:
    fail()


async def fail_later() -> None:
    await asyncio.sleep(0)
    raise ValueError("later")


@pytest.mark.parametrize("function", [fail, fail_in_coroutine, fail_later])
def test_an_error_is_not_kept(quiet: Loop, function: Callable[[], object]) -> None:
    async def main() -> None:
        asked = [cached("test", "key", function) for _ in range(3)]
        for promise in asked:
            with pytest.raises(ValueError):
                await promise
        assert await cached("test", "key", lambda: "anew") == "anew"

    quiet.run(main)


@pytest.mark.parametrize("give_up", [False, True])
def test_an_error_nobody_looks_at_is_told(loop: Loop, give_up: bool) -> None:
    async def main() -> None:
        promise = cached("test", "key", fail_later)
        if give_up:
            promise.cancel()
        del promise
        await turns()

    loop.run(main)
    assert [str(context["exception"]) for context in loop.told] == ["later"]


def test_a_cancelled_computation_is_not_kept(quiet: Loop) -> None:
    async def main() -> None:
        resolve, promise = prepare_promise()
        asked = cached("test", "key", lambda: promise)
        promise.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asked
        assert await cached("test", "key", lambda: "anew") == "anew"

    quiet.run(main)


def test_bounded_and_oldest_out_first(quiet: Loop) -> None:
    async def main() -> None:
        set_max_cache_size(3)
        for key in range(4):
            await cached("test", key, lambda: "old")
        assert await cached("test", 3, lambda: "anew") == "old"
        assert await cached("test", 1, lambda: "anew") == "old"
        assert await cached("test", 0, lambda: "anew") == "anew"  # was the oldest; now 1 has gone for it
        assert await cached("test", 2, lambda: "anew") == "old"
        set_max_cache_size(1)
        assert await cached("test", 0, lambda: "newest") == "anew"
        assert await cached("test", 2, lambda: "newest") == "newest"
        set_max_cache_size(0)
        assert [await cached("test", 2, source) for _ in range(3)] == [1, 2, 3]
        shared = [cached("test", 2, later) for _ in range(3)]
        assert [await promise for promise in shared] == [1, 1, 1]

    source, later = Source(), Source("coroutine")
    quiet.run(main)


def test_bound_by_default(quiet: Loop) -> None:
    async def main() -> None:
        for key in range(cache.MAX_ENTRIES + 10):
            await cached("test", key, lambda key=key: key)  # type: ignore[misc]
        assert await cached("test", 10, lambda: "anew") == 10
        assert await cached("test", 9, lambda: "anew") == "anew"

    assert cache.MAX_ENTRIES == 10_000
    quiet.run(main)


def test_renewed_entries_are_the_newest(quiet: Loop, clock: Clock) -> None:
    async def main() -> None:
        set_max_cache_size(2)
        await cached("test", "a", lambda: 1, 10)
        await cached("test", "b", lambda: 1)
        clock.now += 10
        assert await cached("test", "a", lambda: 2, 10) == 2
        await cached("test", "c", lambda: 1)  # the oldest is b
        assert await cached("test", "a", lambda: 3) == 2

    quiet.run(main)


@pytest.mark.parametrize("keys", [("a",), ()])
def test_forget(quiet: Loop, keys: tuple[str, ...]) -> None:
    async def main() -> None:
        source = Source()
        assert await cached("test", "a", source) == 1
        assert await cached("test", "b", source) == 2
        forget("test", *keys)
        assert await cached("test", "a", source) == 3
        assert await cached("test", "b", source) == (2 if keys else 4)
        forget("test", "unknown")
        forget("unknown")

    quiet.run(main)


def test_forgotten_while_computed(quiet: Loop) -> None:
    async def main() -> None:
        resolve, promise = prepare_promise()
        asked = cached("test", "key", lambda: promise)
        forget("test", "key")
        anew = cached("test", "key", Source("coroutine"))
        resolve("stale")
        assert await asked == "stale"
        assert await anew == 1
        assert await cached("test", "key", lambda: "later") == 1

    quiet.run(main)


def test_caches_are_apart(quiet: Loop) -> None:
    async def main() -> None:
        assert await cached("test", "key", lambda: 1) == 1
        assert await cached(("test", 2), "key", lambda: 2) == 2
        forget(("test", 2))

    quiet.run(main)


def test_kept_from_one_loop_to_the_next(quiet: Loop) -> None:
    async def first() -> None:
        assert await cached("test", "key", Source("coroutine")) == 1
        prepared.extend(prepare_promise())
        kept.append(cached("test", "stuck", lambda: prepared[1]))

    async def second() -> None:
        assert await cached("test", "key", lambda: "anew") == 1
        assert await cached("test", "stuck", lambda: "anew") == "anew"

    prepared: list[Any] = []
    kept: list[Promise] = []
    quiet.run(first)
    quiet.run(second)


@pytest.mark.parametrize("condition", [False, True])
@pytest.mark.parametrize("function", [fail, fail_in_coroutine, fail_later])
def test_an_error_is_told_without_collecting(loop: Loop, function: Callable[[], object], condition: bool) -> None:
    """The error holds the frames that ran, and with them the fd of who asked; neither waits for the collector."""

    def program(fd: Resolver) -> None:
        def work() -> object:
            assert fd
            return function()

        promise = cached("test", "key", work, condition)
        promise(fd)

    async def main() -> None:
        tell = asyncio.get_running_loop().set_exception_handler
        tell(lambda _, context: told.append(str(context["exception"])))
        fd, answer = prepare_promise()
        gc.disable()
        try:
            program(fd)
            del fd
            await turns()
            assert isinstance(answer.exception(), BrokenPromise)
            assert told == ["later" if function is fail_later else "at once"]
        finally:
            gc.enable()

    told: list[str] = []
    loop.run(main)

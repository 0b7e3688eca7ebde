"""Failures of promises are told at once, not when the garbage collector comes. On asyncio and on uvloop."""

from __future__ import annotations

import asyncio
import gc
import traceback
from collections.abc import Callable, Generator
from typing import Any

import pytest
from promise_loops import Loop, Main, turns

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

# --- failures are told without the garbage collector


class Uncollected(Loop):
    """A loop that has no garbage collector; what it is told is kept as text, which holds nothing."""

    def __init__(self, factory: Callable[[], asyncio.AbstractEventLoop]) -> None:
        super().__init__(factory)
        self.texts: list[str] = []

    def run(self, main: Main) -> None:
        def tell(_: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
            self.texts.append("".join([context["message"], "\n", *traceback.format_exception(context["exception"])]))

        async def watched() -> None:
            asyncio.get_running_loop().set_exception_handler(tell)
            await main()

        gc.disable()
        try:
            with asyncio.Runner(loop_factory=self.factory) as runner:
                runner.run(watched())
        finally:
            gc.enable()

    def run_program(self, program: Callable[[Resolver], object]) -> None:
        """Run what gets an `fd` as handlers do, and see that it is let go."""

        async def main() -> None:
            fd, answer = prepare_promise()
            program(fd)
            del fd
            await turns(20)
            assert isinstance(answer.exception(), BrokenPromise)

        self.run(main)


@pytest.fixture
def uncollected(loop: Loop) -> Uncollected:
    return Uncollected(loop.factory)


def working(how: str, fd: Resolver) -> Callable[..., Any]:
    """A function that fails in this way, and has the fd in its frame."""

    def raises(*_: object) -> Any:
        mine = fd
        raise ValueError(f"boom {type(mine).__name__}")

    def generator(*_: object) -> Generator[Any, Any, None]:
        if how != "first step of a generator":
            yield async_(raises) if how == "generator, of a promise" else asyncio.sleep(0)
        raises(fd)

    async def coroutine(*_: object) -> None:
        if how == "coroutine, later":
            await turns(2)
        elif how == "coroutine, of a promise":
            await await_(async_(raises))
        raises(fd)

    return raises if how == "at once" else generator if "generator" in how else coroutine


COROUTINES = ["coroutine, at once", "coroutine, later", "coroutine, of a promise"]
GENERATORS = ["first step of a generator", "generator, later", "generator, of a promise"]

# What makes a promise of a function, how the function may fail, and how often it is told.
SHAPES: dict[str, tuple[Callable[[Callable[..., Any]], Promise], list[str], int]] = {
    "async_": (async_, ["at once", *COROUTINES, *GENERATORS], 1),
    "promise_of": (lambda work: promise_of(work()), COROUTINES, 1),
    "promise_of a task": (lambda work: promise_of(asyncio.ensure_future(work())), COROUTINES, 1),
    "gather": (lambda work: gather(work(), 1), COROUTINES, 1),
    "gather, several": (lambda work: gather(1, work(), asyncio.sleep(0), work(), work()), COROUTINES, 3),
    "gather, others open": (lambda work: gather(OPEN[0][1], async_(work)), ["at once", *COROUTINES], 1),
    "chain, first": (lambda work: chain(work(), print), COROUTINES, 1),
    "chain, middle": (lambda work: chain(1, lambda _: 2, work, print), ["at once", *COROUTINES], 1),
    "chain, last": (lambda work: chain(asyncio.sleep(0), work), ["at once", *COROUTINES], 1),
    "nested": (lambda work: gather(chain(1, lambda _: gather(async_(work)))), ["at once", *COROUTINES, *GENERATORS], 1),
}
OPEN: list[tuple[Resolver, Promise]] = []


@pytest.mark.parametrize(("shape", "how"), [(shape, how) for shape, (_, hows, _) in SHAPES.items() for how in hows])
def test_a_failure_is_told_without_collecting(uncollected: Uncollected, shape: str, how: str) -> None:
    make, _, times = SHAPES[shape]

    def program(fd: Resolver) -> None:
        OPEN[:] = [prepare_promise()]
        promise = make(working(how, fd))
        promise(fd)

    uncollected.run_program(program)
    OPEN.clear()
    assert len(uncollected.texts) == times
    for text in uncollected.texts:
        assert "in raises" in text and "ValueError: boom Resolver" in text


def test_a_failure_in_a_coroutine_that_called_is_told_without_collecting(uncollected: Uncollected) -> None:
    async def main() -> None:
        async def program(fd: Resolver) -> None:
            promise = gather(async_(working("at once", fd)), chain(1, working("coroutine, at once", fd)))
            promise(fd)
            await asyncio.sleep(0)

        fd, answer = prepare_promise()
        promise_of(program(fd))
        del fd
        await turns(20)
        assert isinstance(answer.exception(), BrokenPromise)

    uncollected.run(main)
    assert len(uncollected.texts) == 2


@pytest.mark.parametrize("handled", ["never", "before", "after"])
def test_a_rejection_is_told_without_collecting(uncollected: Uncollected, handled: str) -> None:
    def program(fd: Resolver) -> None:
        resolve, promise = prepare_promise()
        promise(fd, errors.append if handled == "before" else None)
        resolve.reject(ValueError("boom"))
        if handled == "after":
            promise(fd, errors.append)

    errors: list[BaseException] = []
    uncollected.run_program(program)
    assert len(uncollected.texts) == (handled == "never")
    assert len(errors) == (handled != "never")


@pytest.mark.parametrize("how", ["at once", *COROUTINES])
@pytest.mark.parametrize("rejected", [False, True])
def test_a_callback_that_fails_is_told_without_collecting(uncollected: Uncollected, how: str, rejected: bool) -> None:
    def program(fd: Resolver) -> None:
        resolve, promise = prepare_promise()
        work = working(how, fd)
        if rejected:
            promise(None, work)
            resolve.reject(KeyError())
        else:
            promise(work)
            resolve(1)

    uncollected.run_program(program)
    [text] = uncollected.texts
    assert "in raises" in text and "ValueError: boom Resolver" in text


def test_gather_tells_of_each_failure_once(uncollected: Uncollected) -> None:
    async def main() -> None:
        def reject(resolve: Resolver, index: int) -> None:
            resolve.reject(ValueError(index))

        pairs = [prepare_promise() for _ in range(3)]
        gather(*(promise for _, promise in pairs))
        pairs[0][0](1)
        for index in (1, 2):
            reject(pairs[index][0], index)
            await turns()
            assert len(uncollected.texts) == index

    uncollected.run(main)
    assert [text.splitlines()[-1] for text in uncollected.texts] == ["ValueError: 1", "ValueError: 2"]


def test_what_ends_the_program_ends_it_from_a_callback(quiet: Loop) -> None:
    async def main() -> None:
        def end(_: object) -> None:
            raise SystemExit(3)

        promise_of(1)(end)
        await turns()

    with pytest.raises(SystemExit):
        quiet.run(main)

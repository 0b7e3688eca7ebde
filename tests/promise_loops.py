"""Loops for tests of promises: what they are told of failures, and callbacks that keep what they get."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Callable, Coroutine, Generator, Iterator
from typing import Any

import pytest

Main = Callable[[], Coroutine[Any, Any, None]]


class Loop:
    """Runs a test's coroutine, and keeps what the loop was told of failures."""

    def __init__(self, factory: Callable[[], asyncio.AbstractEventLoop]) -> None:
        self.factory = factory
        self.told: list[dict[str, Any]] = []

    def run(self, main: Main) -> None:
        async def watched() -> None:
            loop = asyncio.get_running_loop()
            loop.set_exception_handler(lambda _, context: self.told.append(context))
            await main()
            await turns()
            gc.collect()
            await turns()

        with asyncio.Runner(loop_factory=self.factory) as runner:
            runner.run(watched())

    def errors(self) -> list[BaseException]:
        return [context["exception"] for context in self.told]


async def turns(count: int = 10) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


@pytest.fixture(params=["asyncio", "uvloop"])
def loop(request: pytest.FixtureRequest) -> Iterator[Loop]:
    if request.param == "uvloop":
        yield Loop(pytest.importorskip("uvloop").new_event_loop)
    else:
        yield Loop(asyncio.SelectorEventLoop)


@pytest.fixture
def quiet(loop: Loop) -> Iterator[Loop]:
    """A loop that must be told of no failure."""
    yield loop
    assert loop.told == []


class Calls:
    """Callbacks that keep what they were called with."""

    def __init__(self) -> None:
        self.values: list[tuple[Any, ...]] = []
        self.errors: list[BaseException] = []

    def on_value(self, *values: Any) -> None:
        self.values.append(values)

    def on_error(self, error: BaseException) -> None:
        self.errors.append(error)


class Custom:
    def __await__(self) -> Generator[Any, Any, str]:
        yield from asyncio.sleep(0).__await__()
        return "custom"

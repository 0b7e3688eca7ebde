"""What a promise costs, beside an asyncio.Future, on uvloop: nanoseconds as JSON, medians of alternating rounds."""

import asyncio
import json
import time
from collections.abc import Awaitable, Callable
from statistics import median

import uvloop

from eighties import aio

COUNT = 20_000
ROUNDS = 15


async def future_ready(loop: asyncio.AbstractEventLoop) -> None:
    future = loop.create_future()
    future.set_result(1)
    await future


async def promise_ready(_: asyncio.AbstractEventLoop) -> None:
    resolve, promise = aio.prepare_promise()
    resolve(1)
    await promise


async def future_later(loop: asyncio.AbstractEventLoop) -> None:
    future = loop.create_future()
    loop.call_soon(future.set_result, 1)
    await future


async def promise_later(loop: asyncio.AbstractEventLoop) -> None:
    resolve, promise = aio.prepare_promise()
    loop.call_soon(resolve, 1)
    await promise


async def took(once: Callable[[asyncio.AbstractEventLoop], Awaitable[None]]) -> float:
    loop = asyncio.get_running_loop()
    begin = time.perf_counter()
    for _ in range(COUNT):
        await once(loop)
    return (time.perf_counter() - begin) / COUNT * 1e9


async def main() -> None:
    kinds = (future_ready, promise_ready, future_later, promise_later)
    times: dict[str, list[float]] = {kind.__name__: [] for kind in kinds}
    for _ in range(ROUNDS):
        for kind in kinds:
            times[kind.__name__].append(await took(kind))
    ratios = {
        when: median(p / f for p, f in zip(times[f"promise_{when}"], times[f"future_{when}"], strict=True))
        for when in ("ready", "later")
    }
    print(json.dumps({"ns": {name: median(values) for name, values in times.items()}, "ratio": ratios}))


uvloop.run(main())

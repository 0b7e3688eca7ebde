"""What a row by its id costs from SQLite on uvloop: by the bare module in a thread, the client, and a repository.

Prints µs of CPU and of time per call as JSON, medians of alternating rounds, with one call at a time and with 32.
"""

import asyncio
import json
import sqlite3
import sys
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from statistics import median
from typing import Any

import uvloop
from visitors import Visitor, Visitors

from eighties.sql import SQLite

COUNT = 4_000
ROUNDS = 9
CROWD = 32
ROWS = 1_000
SELECT = "SELECT id, name, text FROM visitors WHERE id = ?"


class Bare:
    """The sqlite3 module: one connection, used in one thread."""

    def __init__(self, path: str) -> None:
        self._connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        self._thread = ThreadPoolExecutor(1)

    def _select(self, id: int) -> Any:
        return self._connection.execute(SELECT, (id,)).fetchall()

    async def in_executor(self, id: int) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._select, id)

    async def to_thread(self, id: int) -> Any:
        return await asyncio.to_thread(self._select, id)


Call = Callable[[int], Awaitable[Any]]


async def took(call: Call, crowd: int) -> tuple[float, float]:
    """µs of CPU of the whole process, and of time, per call."""

    async def ask(first: int) -> None:
        for number in range(first, COUNT, crowd):
            await call(number % ROWS + 1)

    cpu, begin = time.process_time(), time.perf_counter()
    await asyncio.gather(*[ask(first) for first in range(crowd)])
    return (time.process_time() - cpu) / COUNT * 1e6, (time.perf_counter() - begin) / COUNT * 1e6


async def main(path: str) -> None:
    client, bare = SQLite(path), Bare(path)
    visitors = Visitors(client)
    await visitors.create_table()
    await visitors.insert(*[Visitor(f"Visitor {number}", "The quick brown fox") for number in range(ROWS)])
    # asyncio.to_thread shares its connection among the threads of the default executor: let it have one, too.
    asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(1))
    calls: dict[str, Call] = {
        "executor": bare.in_executor,
        "to_thread": bare.to_thread,
        "plain": lambda id: client.select_one("SELECT id, name, text FROM visitors WHERE id = %s", id),
        "by_id": visitors.find_by_id,
        "derived": visitors.get_by_id,
    }
    figures: dict[str, dict[str, dict[str, list[float]]]] = {}
    for crowd in (1, CROWD):
        found = figures[str(crowd)] = {name: {"cpu": [], "time": []} for name in calls}
        for number in range(ROUNDS + 1):
            for name, call in calls.items():
                cpu, passed = await took(call, crowd)
                if number:  # the first one warms up
                    found[name]["cpu"].append(cpu)
                    found[name]["time"].append(passed)
    await client.close()
    print(
        json.dumps(
            {
                crowd: {
                    name: {what: median(values) for what, values in one.items()}
                    | {
                        f"{what}_ratio": median(
                            mine / bares for mine, bares in zip(one[what], found["executor"][what], strict=True)
                        )
                        for what in ("cpu", "time")
                    }
                    for name, one in found.items()
                }
                for crowd, found in figures.items()
            }
        )
    )


uvloop.run(main(sys.argv[1]))

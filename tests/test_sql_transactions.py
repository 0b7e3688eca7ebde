"""Transactions where tasks, generators and hand-written ends come together; one suite for both databases."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from typing import Any

import pytest
from database import run

from eighties.sql import Entity, Repository, TransactionError, connect, field

pytestmark = [pytest.mark.usefixtures("loops"), pytest.mark.pure]


async def table(url: str) -> Any:
    """A client, and an empty table."""
    client = connect(url)
    await client.exec("CREATE TABLE t (id INTEGER PRIMARY KEY)")
    return client


async def stored(db: Any) -> list[int]:
    return [row["id"] for row in await db.select("SELECT id FROM t ORDER BY id")]


def test_a_generator_that_is_left(database: str) -> None:
    """Its transaction ends in another task; its consumer is in none then, or in the one it was in before."""

    async def main() -> None:
        db = await table(database)

        async def rows() -> AsyncGenerator[int, None]:
            async with db.transaction():
                await db.exec("INSERT INTO t VALUES (%s)", 1)
                yield 1
                yield 2

        async def leave() -> None:
            async for _ in rows():
                break
            while "0 of" not in repr(db._pools[0]):
                await asyncio.sleep(0.01)

        await leave()
        assert await stored(db) == [], "it was rolled back"
        await db.exec("INSERT INTO t VALUES (%s)", 2)
        child = asyncio.create_task(stored(db))
        assert await child == [2]
        async with db.transaction():
            async for _ in rows():
                break
            await asyncio.sleep(0.05)
            await db.exec("INSERT INTO t VALUES (%s)", 3)
        assert await stored(db) == [2, 3]
        await db.close()

    run(main())


def test_savepoints_side_by_side(database: str) -> None:
    """Who comes later waits for the end of the one that is open, and so does a plain statement."""

    class Row(Entity, source="t"):
        id: int = field(primary=True, auto=False)

    class Rows(Repository[Row]):
        pass

    async def main() -> None:
        db = await table(database)
        rows = Rows(db)

        async def add(number: int) -> None:
            async with db.transaction():
                await db.exec("INSERT INTO t VALUES (%s)", number)
                await asyncio.sleep(0.005)
                async with db.transaction():
                    await db.exec("INSERT INTO t VALUES (%s)", number + 1)
                if number % 20 == 0:
                    raise ZeroDivisionError

        async with db.transaction():
            results = await asyncio.gather(
                *[add(number) for number in range(0, 100, 10)],
                *[stored(db) for _ in range(5)],
                rows.insert(*[Row(number) for number in range(1000, 4000)]),
                rows.insert(*[Row(number) for number in range(4000, 7000)]),
                return_exceptions=True,
            )
        wrong = [one for one in results if isinstance(one, BaseException)]
        assert [type(one) for one in wrong] == [ZeroDivisionError] * 5
        kept = [number + more for number in range(10, 100, 20) for more in (0, 1)]
        assert await stored(db) == kept + list(range(1000, 7000))
        await db.close()

    run(main())


def test_ended_by_hand(database: str) -> None:
    async def main() -> None:
        db = await table(database)
        with pytest.raises(TransactionError, match="rolled back by hand"):
            async with db.transaction():
                await db.exec("INSERT INTO t VALUES (1)")
                await db.exec("ROLLBACK")
        async with db.transaction():
            await db.exec("INSERT INTO t VALUES (2)")
            await db.exec("COMMIT")
            with pytest.raises(TransactionError, match="committed by hand"):
                await db.exec("INSERT INTO t VALUES (3)")
        assert await stored(db) == [2]
        await db.close()

    run(main())

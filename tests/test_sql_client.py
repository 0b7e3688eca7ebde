"""The client, one suite for both databases: queries, values, transactions, streams, bounds and ends."""

from __future__ import annotations

import asyncio
import contextvars
import enum
import gc
import logging
import random
import uuid
from contextlib import aclosing
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from typing import Any

import pytest
from database import PASSWORD, run

from eighties import aio
from eighties.promise import Promise
from eighties.sql import (
    ClientClosed,
    Duplicate,
    MarkerError,
    PoolTimeout,
    QueryError,
    TransactionError,
    connect,
)

pytestmark = [pytest.mark.usefixtures("loops"), pytest.mark.pure]

TABLE = "CREATE TABLE t (id INTEGER PRIMARY KEY {}, name VARCHAR(50) UNIQUE, number BIGINT)"


async def table(url: str) -> Any:
    """A client, and an empty table."""
    client = connect(url)
    await client.exec(TABLE.format("AUTO_INCREMENT" if client.dialect == "mysql" else ""))
    return client


def test_the_methods(database: str) -> None:
    async def main() -> None:
        db = await table(database)
        made = await db.exec("INSERT INTO t (name, number) VALUES (%s, %d)", "it's", 7)
        assert (made.affected_rows, made.last_insert_id) == (1, 1)
        made = await db.exec("INSERT INTO t (name, number) VALUES ('%s', '%d')", 'a "quote"', 8)
        assert (made.affected_rows, made.last_insert_id) == (1, 2)
        assert await db.select("SELECT id, name FROM t ORDER BY id") == [
            {"id": 1, "name": "it's"},
            {"id": 2, "name": 'a "quote"'},
        ]
        assert await db.select("SELECT id FROM t WHERE id = '%d'", 3) == []
        assert await db.select_one("SELECT name FROM t WHERE id = %s", 1) == {"name": "it's"}
        assert await db.select_one("SELECT name FROM t WHERE id = %s", 9) is None
        assert await db.select_value("SELECT COUNT(*) FROM t WHERE number > %s AND name LIKE '%%s'", 1) == 1
        assert await db.select_value("SELECT name FROM t WHERE id = %s", 9) is None
        assert [row async for row in db.stream("SELECT id FROM t WHERE id < %s ORDER BY id", 5)] == [
            {"id": 1},
            {"id": 2},
        ]
        changed = await db.exec("UPDATE t SET number = %s", 8)  # one of the two is 8 already, and counts
        assert (changed.affected_rows, changed.last_insert_id) == (2, 0)
        assert (await db.exec("DELETE FROM t WHERE id = %s", 1)).affected_rows == 1
        raw = await db.raw_exec(f"SELECT id, name FROM t WHERE id = {'?' if db.dialect == 'sqlite' else '%s'}", 2)
        assert list(raw.rows) == [(2, 'a "quote"')] and list(raw.columns) == ["id", "name"]
        marker = "?" if db.dialect == "sqlite" else "%s"
        assert await db.fetch(f"SELECT id FROM t WHERE id = {marker}", [2]) == [(2,)]
        assert await db.fetch("SELECT id FROM t") == [(2,)]
        assert (await db.execute(f"DELETE FROM t WHERE id = {marker}", (2,))).affected_rows == 1
        await db.close()

    run(main())


def test_promises_are_called_back_and_gathered(database: str) -> None:
    async def main() -> None:
        db = await table(database)
        promise = db.exec("INSERT INTO t (name) VALUES (%s)", "a")
        assert isinstance(promise, Promise)
        called: list[Any] = []
        promise(lambda result: called.append(result.affected_rows))
        db.select("SELECT nonsense FROM t")(called.append, lambda error: called.append(type(error)))
        await promise
        both = await aio.gather(db.select_value("SELECT 1"), db.select_value("SELECT 2"))
        while len(called) < 2:
            await asyncio.sleep(0.01)
        assert both == (1, 2) and set(called) == {1, QueryError}
        db.exec("INSERT INTO t (name) VALUES (%s)", "nobody waits for this")
        while await db.select_value("SELECT COUNT(*) FROM t") < 2:
            await asyncio.sleep(0.01)
        await db.close()

    run(main())


class Colour(enum.Enum):
    RED = "red"


class Text(str):
    pass


MOMENT = datetime(2024, 2, 29, 23, 59, 58, 123456)
ID = uuid.UUID("12345678-1234-5678-1234-567812345678")
VALUES = [  # column, argument, what MySQL gives, what SQLite gives (None: the argument)
    ("VARCHAR(200)", "", None, None),
    ("VARCHAR(200)", "'; DROP TABLE v; -- \\ %s ? \" ` \0 \x1a \r\n 🎸", None, None),
    ("VARCHAR(200)", Text("derived"), None, None),
    ("VARCHAR(200)", Colour.RED, "red", "red"),
    ("VARCHAR(200)", ID, str(ID), str(ID)),
    ("TEXT", {"ä": [1, None, "'"]}, '{"ä": [1, null, "\'"]}', '{"ä": [1, null, "\'"]}'),
    ("TEXT", [1, 2], "[1, 2]", "[1, 2]"),
    ("TEXT", "x" * 20000, None, None),
    ("BIGINT", -(2**63), None, None),
    ("BIGINT", 2**63 - 1, None, None),
    ("BIGINT", None, None, None),
    ("BIGINT", True, 1, 1),
    ("DOUBLE", 0.1, None, None),
    ("DOUBLE", 1.7e308, None, None),
    ("DOUBLE", -5e-324, None, None),
    ("LONGBLOB", bytes(range(256)), None, None),
    ("LONGBLOB", bytearray(b"\\'"), b"\\'", b"\\'"),
    ("LONGBLOB", b"", None, None),
    ("DATETIME(6)", MOMENT, None, "2024-02-29 23:59:58.123456"),
    ("DATETIME(6)", MOMENT.replace(microsecond=0), None, "2024-02-29 23:59:58"),
    (
        "DATETIME(6)",
        MOMENT.replace(tzinfo=timezone(timedelta(hours=2))),
        MOMENT - timedelta(hours=2),
        "2024-02-29 21:59:58.123456",
    ),
    ("DATETIME(6)", MOMENT.replace(tzinfo=UTC), MOMENT, "2024-02-29 23:59:58.123456"),
    ("DATE", date(1000, 1, 1), None, "1000-01-01"),
    ("TIME(6)", timedelta(hours=-30, microseconds=1), None, "-29:59:59.999999"),
    ("TIME(6)", timedelta(days=2, seconds=1), None, "48:00:01"),
    ("TIME(6)", time(1, 2, 3, 4), timedelta(hours=1, minutes=2, seconds=3, microseconds=4), "01:02:03.000004"),
    ("VARCHAR(40)", Decimal("12345678901234567890.10"), "12345678901234567890.10", "12345678901234567890.10"),
]


@pytest.mark.parametrize(("column", "value", "mysql", "sqlite"), VALUES, ids=range(len(VALUES)))
def test_values(database: str, column: str, value: Any, mysql: Any, sqlite: Any) -> None:
    """Each goes in as an argument, and comes out the same with arguments, without, and in a stream."""

    async def main() -> None:
        db = connect(database)
        await db.exec(f"CREATE TABLE v (id INTEGER, v {column})")
        await db.exec("INSERT INTO v VALUES (1, %s)", value)
        wanted = mysql if db.dialect == "mysql" else sqlite
        wanted = value if wanted is None else wanted
        found = [
            await db.select_value("SELECT v FROM v WHERE id = %s", 1),
            await db.select_value("SELECT v FROM v"),
            [row["v"] async for row in db.stream("SELECT v FROM v WHERE id = %s", 1)][0],
        ]
        assert found == [wanted] * 3 and {type(one) for one in found} == {type(wanted) if wanted != "derived" else str}
        if value is not None:  # as a literal too, where a query is not prepared
            assert [row async for row in db.stream("SELECT id FROM v WHERE v = %s", value)] == [{"id": 1}]
        await db.close()

    run(main())


@pytest.mark.parametrize(
    "value", [float("nan"), float("inf"), Decimal("NaN"), 2**64, -(2**63) - 1, "\ud800", time(tzinfo=UTC), object()]
)
def test_values_of_no_use(database: str, value: Any) -> None:
    async def main() -> None:
        db = await table(database)
        for _ in range(3):
            with pytest.raises((ValueError, TypeError, QueryError)):
                await db.exec("INSERT INTO t (name) VALUES (%s)", value)
        assert await db.select_value("SELECT COUNT(*) FROM t WHERE id > %s", 0) == 0
        assert len(db._pools[0]._links) == 1, "no connection was given up for it"
        await db.close()

    run(main())


def test_errors(database: str) -> None:
    async def main() -> None:
        db = await table(database)
        await db.exec("INSERT INTO t (name) VALUES (%s)", "twice")
        with pytest.raises(Duplicate) as caught:
            await db.exec("INSERT INTO t (name) VALUES (%s)", "twice")
        assert caught.value.code in (1062, 2067) and caught.value.__cause__ is not None
        for _ in range(2):
            with pytest.raises(QueryError, match="missing") as failed:
                await db.select("SELECT * FROM missing WHERE id = %s" + " AND 1=1" * 100, "secret")
            assert "secret" not in str(failed.value) and len(str(failed.value)) < 400
            with pytest.raises(QueryError, match="SELEC '%s', 7 %% 2$"):
                await db.exec("SELEC '%s', 7 %% 2", "secret")
            with pytest.raises(QueryError, match="SELEC %s$"):
                [row async for row in db.stream("SELEC %s", "secret")]
            with pytest.raises(MarkerError):
                await db.select("SELECT %s")
        with pytest.raises((QueryError, TypeError)):
            await db.exec("SELECT 1; SELECT 2")
        assert await db.select_value("SELECT COUNT(*) FROM t") == 1
        await db.close()

    run(main())


def test_escape(database: str) -> None:
    async def main() -> None:
        db = connect(database)
        for text in ("it's", 'a "b" \\ c', "\n\r\x1a", "ü🎸", "\\'"):
            escaped = (await db.escape(text)).replace("%", "%%")
            assert await db.select_value(f"SELECT '{escaped}'") == text
        await db.close()

    run(main())


def test_transactions(database: str) -> None:
    async def main() -> None:
        db = await table(database)
        add = "INSERT INTO t (name) VALUES (%s)"
        names = "SELECT name FROM t ORDER BY id"

        async def stored() -> list[str]:
            return [row["name"] for row in await db.select(names)]

        async with db.transaction():
            await db.exec(add, "a")
            assert await stored() == ["a"]
            other = asyncio.create_task(stored(), context=contextvars.Context())
            assert await other == [], "nobody else sees it"
        assert await stored() == ["a"]

        with pytest.raises(ZeroDivisionError):
            async with db.transaction():
                await db.exec(add, "b")
                raise ZeroDivisionError
        with pytest.raises(Duplicate):
            async with db.transaction():
                await db.exec(add, "b")
                await db.exec(add, "a")
        assert await stored() == ["a"]

        async with db.transaction():
            await db.exec(add, "c")
            with pytest.raises(ZeroDivisionError):
                async with db.transaction():
                    await db.exec(add, "d")
                    async with db.transaction():
                        await db.exec(add, "e")
                    raise ZeroDivisionError
            with pytest.raises(Duplicate):  # a statement that failed ends no transaction
                await db.exec(add, "a")
            async with db.transaction():
                await db.exec(add, "f")
            assert await aio.gather(*[db.select_value("SELECT %s", n) for n in range(20)]) == tuple(range(20))
            assert [row["name"] async for row in db.stream(names)] == ["a", "c", "f"]
        assert await stored() == ["a", "c", "f"]
        assert "0 of" in repr(db._pools[0])
        await db.close()

    run(main())


def test_what_a_transaction_refuses(database: str) -> None:
    async def main() -> None:
        db = await table(database + "?timeout=0.3")
        add = "INSERT INTO t (name) VALUES (%s)"
        late = asyncio.Event()

        async def task() -> None:
            await late.wait()
            await db.exec(add, "too late")

        async with db.transaction() as transaction:
            left = asyncio.create_task(task())
            await db.exec(add, "a")
            async with db.transaction():
                entered, leave = asyncio.Event(), asyncio.Event()

                async def inner() -> None:
                    async with db.transaction():
                        entered.set()
                        await leave.wait()

                within = asyncio.create_task(inner())
                await entered.wait()
                with pytest.raises(TransactionError, match="another task"):
                    await db.exec(add, "b")
                leave.set()
                await within
            parts = db.stream("SELECT id FROM t")
            async with aclosing(parts):
                await anext(parts)
                with pytest.raises(TransactionError, match="stream"):
                    await db.exec(add, "c")
                assert [row async for row in parts] == []
        late.set()
        with pytest.raises(TransactionError, match="is over"):
            await left
        with pytest.raises(TransactionError, match="entered once"):
            async with transaction:
                pass
        with pytest.raises(TransactionError, match="transaction()"):
            await db.exec("BEGIN")
        assert await db.select("SELECT name FROM t") == [{"name": "a"}]
        await db.close()

    run(main())


def test_cancelled_in_a_transaction(database: str) -> None:
    async def main() -> None:
        db = await table(database)

        reached = asyncio.Event()

        async def task(swallow: bool) -> None:
            async with db.transaction():
                await db.exec("INSERT INTO t (name) VALUES (%s)", "a")
                try:
                    reached.set()
                    await slow(db)
                except asyncio.CancelledError:
                    if not swallow:
                        raise
                    await db.exec("INSERT INTO t (name) VALUES (%s)", "b")

        for swallow in (False, True):
            reached.clear()
            running = asyncio.create_task(task(swallow))
            await reached.wait()
            await asyncio.sleep(0.1)
            running.cancel()
            with pytest.raises(TransactionError if swallow else asyncio.CancelledError):
                await running
        assert await db.select_value("SELECT COUNT(*) FROM t") == 0
        async with db.transaction():
            await db.exec("INSERT INTO t (name) VALUES (%s)", "a")
        assert await db.select_value("SELECT COUNT(*) FROM t") == 1
        await db.close()

    run(main())


SLOW = {
    "mysql": "SELECT SLEEP(20)",
    "sqlite": "WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c) SELECT COUNT(*) FROM c",
}


async def slow(db: Any) -> None:
    """A query that takes longer than any test."""
    await db.select(SLOW[db.dialect])


def test_cancelled_queries(database: str) -> None:
    async def main() -> None:
        db = connect(database + "?pool=2&timeout=30")
        for _ in range(5):
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.03):
                    await slow(db)
            promise = db.select(SLOW[db.dialect])
            await asyncio.sleep(0.02)
            promise.cancel()
            with pytest.raises(asyncio.CancelledError):
                await promise
            assert await db.select_value("SELECT %s", 5) == 5
        await db.close()

    run(main())


def test_a_storm_of_cancellations(database: str) -> None:
    """Whoever is not cancelled gets what it asked for, and nobody else's rows."""

    async def main() -> None:
        db = connect(database + "?pool=4")
        chance = random.Random(80)
        span = 0.02 if db.dialect == "mysql" else 0.005
        outcome = {"own": 0, "cancelled": 0}

        async def ask(number: int) -> None:
            try:
                if number % 3 == 0:
                    rows = await db.fetch(f"SELECT {number} AS n", ())
                    assert rows == [(number,)]
                elif number % 3 == 1:
                    assert await db.select("SELECT %s AS a, %s AS b", number, str(number)) == [
                        {"a": number, "b": str(number)}
                    ]
                else:
                    async with db.transaction():
                        assert await db.select_value("SELECT %s", number) == number
                outcome["own"] += 1
            except asyncio.CancelledError:
                outcome["cancelled"] += 1
                raise

        for round_ in range(20):
            tasks = [asyncio.create_task(ask(round_ * 100 + n)) for n in range(40)]
            for task in tasks:
                if chance.random() < 0.5:
                    asyncio.get_running_loop().call_later(chance.random() ** 3 * span, task.cancel)
            results = await asyncio.gather(*tasks, return_exceptions=True)
            assert not [one for one in results if one is not None and not isinstance(one, asyncio.CancelledError)]
        assert min(outcome.values()) > 50, outcome
        answers = await asyncio.gather(*[db.select_value("SELECT %s", n) for n in range(200)])
        assert list(answers) == list(range(200))
        await db.close()

    run(main())


def test_streams(database: str) -> None:
    async def main() -> None:
        db = await table(database)
        async with db.transaction():
            for start in range(0, 3000, 500):
                rows = ",".join(f"('{n}', {n})" for n in range(start, start + 500))
                await db.exec(f"INSERT INTO t (name, number) VALUES {rows}")
        seen = 0
        async for row in db.stream("SELECT number FROM t ORDER BY number"):
            assert row == {"number": seen}
            if seen % 1000 == 0:
                assert await db.select_value("SELECT number FROM t WHERE number = %s", seen) == seen
            seen += 1
        assert seen == 3000
        assert [row async for row in db.iterate("SELECT number FROM t WHERE number < 2 ORDER BY number")] == [
            (0,),
            (1,),
        ]
        for _ in range(3):  # left early
            async with aclosing(db.stream("SELECT number FROM t ORDER BY number")) as parts:
                async for row in parts:
                    assert row == {"number": 0}
                    break
            assert await db.select_value("SELECT %s", 5) == 5
        with pytest.raises(QueryError):
            async for _ in db.stream("SELECT missing FROM t"):
                pass
        assert "0 of" in repr(db._pools[-1])
        await db.close()

    run(main())


def test_waiting_for_the_pool(database: str) -> None:
    async def main() -> None:
        db = connect(database + "?pool=1&timeout=1")
        assert await db.select_value("SELECT 1") == 1
        held = asyncio.create_task(slow(db))
        await asyncio.sleep(0.05)
        with pytest.raises(PoolTimeout, match=r"pool=1\) were in use for 1 s"):
            await db.select("SELECT 1")
        held.cancel()
        await asyncio.wait([held])
        order: list[int] = []
        await asyncio.gather(*[_note(db, order, n) for n in range(30)])
        assert order == list(range(30)), "first come, first served"
        await db.close()

    run(main())


async def _note(db: Any, order: list[int], number: int) -> None:
    assert await db.select_value("SELECT %s", number) == number
    order.append(number)


def test_closing(database: str) -> None:
    async def main() -> None:
        db = connect(database)
        under_way = [db.select_value("SELECT %s", n) for n in range(4)]
        await asyncio.sleep(0.05)
        while any(pool._waiting for pool in db._pools):  # who still waits for a connection is refused
            await asyncio.sleep(0.001)
        await db.close()
        assert await aio.gather(*under_way) == (0, 1, 2, 3)
        with pytest.raises(ClientClosed, match="closed"):
            await db.select("SELECT 1")
        with pytest.raises(ClientClosed, match="closed"):
            async with db.transaction():
                pass
        await db.close()
        unused = connect(database)
        await unused.close()
        with pytest.raises(ClientClosed, match="closed"):
            await unused.select("SELECT 1")

    run(main())


def test_loops(database: str) -> None:
    """A client begins anew on a new loop; while the first one lives, it is refused on another."""
    db = connect(database)

    async def main() -> Any:
        return await db.select_value("SELECT 1")

    async def elsewhere() -> None:
        await main()
        with pytest.raises(ClientClosed, match="another event loop"):
            await asyncio.to_thread(run, main())

    for _ in range(2):
        assert run(main()) == 1
    run(elsewhere())


def test_clients_that_are_forgotten_are_closed(database: str) -> None:
    async def main() -> None:
        db = connect(database)
        await db.exec("CREATE TABLE t (id INTEGER)")
        (link, *_) = [link for pool in db._pools for link in pool._links]
        del db
        gc.collect()
        for _ in range(100):
            await asyncio.sleep(0.01)
            if not link.usable():
                break
        assert not link.usable()

    run(main())


def test_nothing_shows_the_password(mysql: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)

    async def main() -> None:
        db = connect(mysql)
        wrong = connect(mysql.replace("tester", "nobody"))
        with pytest.raises(Exception, match="nobody") as caught:
            await wrong.select("SELECT 1")
        await db.select("SELECT 1")
        for text in (repr(db), repr(db._pools), repr(caught.value), repr(caught.value.__cause__), caplog.text):
            assert PASSWORD not in text and "p%40ss" not in text
        await db.close()
        await wrong.close()

    run(main())


GOOD = [
    ("mysql://u:p@h:1/db", "u@h:1/db"),
    ("mariadb://u@h/db?pool=2&timeout=1.5", "u@h:3306/db"),
    ("mysql://u:a%40b%2Fc@h/d%20b?ssl=unverified", "u@h:3306/d b"),
    ("mysql://u@/db?socket=/run/my.sock", "u@/run/my.sock/db"),
    ("mysql://u@[::1]:2/db", "u@::1:2/db"),
    ("sqlite://:memory:", ":memory:"),
    ("sqlite:///file.db", "file.db"),
    ("sqlite:////a/b%20c.db?pool=2", "/a/b c.db"),
]
BAD = [
    ("postgres://h/db", "begins with mysql://"),
    ("mysql:h/db", "begins with mysql://"),
    ("mysql://u:secret@h", "the name of the database"),
    ("mysql://u:sec/ret@h/db", "port are none|name of the database"),
    ("mysql://u:sec#ret@h/db", "write %23|port are none|name of the database"),
    ("mysql://u:sec?ret=1@h/db", "write %3F"),
    ("mysql://u:secret@h:port/db", "port are none"),
    ("mysql://u:secret@h/db?pol=1", "no option 'pol'"),
    ("mysql://u:secret@h/db?pool=x", "pool=x is no number"),
    ("mysql://u:secret@h/db?pool=0", "pool: 0"),
    ("mysql://u:secret@h/db?timeout=0", "timeout: 0"),
    ("mysql://u:secret@h/db?timeout=nan", "timeout: nan"),
    ("mysql://u:secret@h/db?pool=1&pool=2", "pool twice"),
    ("mysql://u:secret@h/db?pool", "name=value"),
    ("mysql://u:secret@h/db?ssl=", "ssl=: on, off"),
    ("mysql://u:secret@h/db?ssl=requierd", "ssl=requierd: on, off"),
    ("sqlite:///f.db?ssl=on", "no option 'ssl'"),
    ("sqlite://file.db", "sqlite:///file.db"),
    ("sqlite:///", "sqlite:///file.db"),
]


@pytest.mark.parametrize(("url", "name"), GOOD)
def test_urls(url: str, name: str) -> None:
    assert repr(connect(url)).endswith(f" {name}>")


@pytest.mark.parametrize(("url", "says"), BAD)
def test_urls_that_are_none(url: str, says: str) -> None:
    with pytest.raises(ValueError, match=says) as caught:
        connect(url)
    assert "sec" not in str(caught.value).replace("seconds", "") and "ret" not in str(caught.value)

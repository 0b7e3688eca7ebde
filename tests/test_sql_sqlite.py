"""What is SQLite's own: its threads, its file, its locks."""

from __future__ import annotations

import asyncio
import gc
import os
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from database import run

from eighties.sql import PoolTimeout, QueryError, ServerDown, SQLite, connect
from eighties.sql.threads import Job, Thread

pytestmark = pytest.mark.pure

ENDLESS = "WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c) SELECT SUM(x) FROM c"


def threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("sqlite ")]


def until_no_threads() -> None:
    deadline = time.monotonic() + 30
    while threads():
        assert time.monotonic() < deadline, threads()
        time.sleep(0.005)


def test_the_file(tmp_path: Path) -> None:
    async def main() -> None:
        db = SQLite(str(tmp_path / "a.db"))
        assert await db.select_value("PRAGMA journal_mode") == "wal"
        assert await db.select_value("PRAGMA foreign_keys") == 1
        await db.exec("CREATE TABLE t (id INTEGER PRIMARY KEY)")
        for _ in range(3):
            assert await asyncio.gather(*[db.fetch("SELECT ?", (n,)) for n in range(20)]) == [[(n,)] for n in range(20)]
        assert 2 <= len(threads()) <= 4, "one for writing, up to three for reading"
        # These begin as if they read.
        written = await db.select("WITH n(x) AS (SELECT 7) INSERT INTO t SELECT x FROM n RETURNING id")
        assert written == [{"id": 7}]
        assert await db.select("INSERT INTO t VALUES (%s) RETURNING id", 8) == [{"id": 8}]
        assert (await db.exec("INSERT INTO t VALUES (%s), (%s)", 9, 10)).last_insert_id == 10
        assert (await db.exec("INSERT OR IGNORE INTO t VALUES (9)")).last_insert_id == 0
        assert await db.select_value("SELECT COUNT(*) FROM t") == 4, "what was written is read at once"
        await db.close()
        assert not threads()

    run(main())


def test_in_memory() -> None:
    async def main() -> None:
        db = connect("sqlite://:memory:?timeout=0.5")
        await db.exec("CREATE TABLE t (id INTEGER PRIMARY KEY)")
        await asyncio.gather(*[db.exec("INSERT INTO t VALUES (%s)", n) for n in range(20)])
        with pytest.raises(asyncio.CancelledError):
            waiting = db.select(ENDLESS)
            await asyncio.sleep(0.05)
            waiting.cancel()
            await waiting
        with pytest.raises(ZeroDivisionError):
            async with db.transaction():
                await db.exec("DELETE FROM t")
                raise ZeroDivisionError
        seen = 0
        async for row in db.stream("SELECT id FROM t"):
            seen += await db.select_value("SELECT COUNT(*) FROM t WHERE id = %s", row["id"])
        assert seen == 20
        await db.close()
        with pytest.raises(ValueError, match="path: "):
            SQLite("")
        other = SQLite()
        for bad in ("", ":memory:"):
            with pytest.raises(ValueError, match="path|pool"):
                await other.connect(db_name=bad, pool=0 if bad else 1)
        with pytest.raises(QueryError, match="no such table"):
            await other.select("SELECT * FROM t")
        assert await other.connect(db_name=":memory:") is other
        await other.close()

    run(main())


def test_a_file_that_cannot_be(tmp_path: Path) -> None:
    async def main() -> None:
        db = connect(f"sqlite:///{tmp_path}/missing/a.db")
        with pytest.raises(ServerDown, match="unable to open"):
            await db.select("SELECT 1")
        (tmp_path / "missing").mkdir()
        assert await db.select_value("SELECT 1") == 1
        await db.close()
        (tmp_path / "text.db").write_text("no database " * 1000)
        wrong = connect(f"sqlite:///{tmp_path}/text.db")
        with pytest.raises(ServerDown, match="not a database"):
            await wrong.select("SELECT 1")
        await wrong.close()

    run(main())
    until_no_threads()


def test_a_file_that_is_replaced(tmp_path: Path) -> None:
    """Or deleted: nobody reads or writes what has no name any more."""

    async def main() -> None:
        path = tmp_path / "a.db"
        db = connect(f"sqlite:///{path}")
        for value in (1, 2, 3):
            await db.exec("CREATE TABLE t (id INTEGER)")
            await db.exec("INSERT INTO t VALUES (%s)", value)
            for _ in range(3):
                assert await asyncio.gather(*[db.select("SELECT id FROM t") for _ in range(5)]) == [[{"id": value}]] * 5
            assert [row async for row in db.stream("SELECT id FROM t")] == [{"id": value}]
            for name in ("a.db", "a.db-wal", "a.db-shm"):
                (tmp_path / name).rename(tmp_path / f"old{value}{name}")
            if value == 2:
                with pytest.raises(QueryError, match="no such table"):
                    await db.select("SELECT id FROM t")
        await db.close()
        assert not threads()

    run(main())


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """One that every user may look into."""
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        yield Path(name)


def test_a_file_that_can_only_be_read(open_folder: Path) -> None:
    path = open_folder / "a.db"
    with sqlite3.connect(path) as made:
        made.execute("CREATE TABLE t (id INTEGER)")
        made.execute("INSERT INTO t VALUES (7)")
    made.close()
    path.chmod(0o444)
    script = f"""
import asyncio, os
from eighties.sql import QueryError, connect
db = connect("sqlite:///{path}")
if os.getuid() == 0:  # who may write everything
    os.setgid(65534)
    os.setuid(65534)
async def main():
    assert await db.select("SELECT id FROM t") == [{{"id": 7}}]
    try:
        await db.exec("DELETE FROM t")
    except QueryError as error:
        assert "readonly" in str(error)
        print("well")
    await db.close()
asyncio.run(main())
"""
    done = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        timeout=30,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert done.stdout == "well\n", done.stderr


def test_a_transaction_that_is_left_ends_what_it_does(tmp_path: Path) -> None:
    """Its child's query is interrupted: the writer is free at once."""

    async def main() -> None:
        db = connect(f"sqlite:///{tmp_path}/a.db")
        children: list[asyncio.Future[Any]] = []

        async def leave() -> None:
            async with db.transaction():
                children.append(asyncio.ensure_future(db.fetch(ENDLESS)))
                await asyncio.sleep(50)

        leaving = asyncio.create_task(leave())
        while not children:
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.05)
        leaving.cancel()
        await asyncio.sleep(0.05)
        leaving.cancel()
        async with asyncio.timeout(30):
            with pytest.raises(QueryError, match="interrupted"):
                await children[0]
            await asyncio.wait([leaving])
            await db.exec("CREATE TABLE t (id INTEGER)")
        await db.close()

    run(main())


def test_locks_of_others(tmp_path: Path) -> None:
    """A writer elsewhere is waited for, within the timeout; waiting can be cancelled at once."""

    async def main() -> None:
        path = tmp_path / "a.db"
        db = connect(f"sqlite:///{path}?timeout=1.2")
        await db.exec("CREATE TABLE t (id INTEGER PRIMARY KEY)")
        other = sqlite3.connect(path, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        assert await db.select_value("SELECT COUNT(*) FROM t") == 0, "who reads does not wait"
        started = time.monotonic()
        with pytest.raises(QueryError, match="locked") as caught:
            await db.exec("INSERT INTO t VALUES (1)")
        assert "timeout" in str(caught.value)
        assert 0.4 < time.monotonic() - started < 20 and caught.value.code == sqlite3.SQLITE_BUSY
        with pytest.raises(QueryError, match="locked"):
            async with db.transaction():
                pass
        waiting = db.exec("INSERT INTO t VALUES (2)")
        await asyncio.sleep(0.1)
        waiting.cancel()
        waiting = db.exec("INSERT INTO t VALUES (3)")
        await asyncio.sleep(0.15)
        other.execute("COMMIT")
        await waiting
        assert await db.select("SELECT id FROM t") == [{"id": 3}]
        other.close()
        await db.close()

    run(main())


def test_two_clients_write_at_once(tmp_path: Path) -> None:
    async def main() -> None:
        clients = [connect(f"sqlite:///{tmp_path}/a.db") for _ in range(3)]
        await clients[0].exec("CREATE TABLE t (n INTEGER)")
        await clients[0].exec("INSERT INTO t VALUES (0)")

        async def count(db: Any) -> None:
            for _ in range(30):
                async with db.transaction():
                    n = await db.select_value("SELECT n FROM t")
                    await db.exec("UPDATE t SET n = %s", n + 1)

        await asyncio.gather(*[count(db) for db in clients])
        assert await clients[0].select_value("SELECT n FROM t") == 90
        for db in clients:
            await db.close()

    run(main())


def test_a_long_query_keeps_nobody_waiting(tmp_path: Path) -> None:
    async def main() -> None:
        db = connect(f"sqlite:///{tmp_path}/a.db?pool=2&timeout=1")
        running = db.select(ENDLESS)
        await asyncio.sleep(0.05)
        await db.exec("CREATE TABLE t (id INTEGER)")  # the loop is free, and so is the writer
        with pytest.raises(PoolTimeout, match="pool=1"):
            await db.select("SELECT 1")
        running.cancel()
        assert await db.select_value("SELECT 1") == 1
        db.select(ENDLESS).cancel()
        db.select(ENDLESS).cancel()
        await db.close()
        assert not threads()

    run(main())


def test_short_queries_are_done_by_one_thread(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("eighties.sql.threads.LATENCY", 60)  # on a busy machine every query may last

    async def main() -> None:
        db = connect(f"sqlite:///{tmp_path}/a.db?pool=4")
        await db.exec("CREATE TABLE t (id INTEGER)")
        for _ in range(20):
            assert await db.select_value("SELECT %s", 1) == 1
        assert len(threads()) == 2
        await db.close()

    run(main())


def test_long_queries_get_help(tmp_path: Path) -> None:
    """Where one takes long, the others go on."""

    async def main() -> None:
        db = connect(f"sqlite:///{tmp_path}/a.db?pool=4&timeout=30")
        await db.exec("CREATE TABLE t (id INTEGER)")
        for _ in range(3):
            running = [db.select(ENDLESS) for _ in range(2)]
            for _ in range(5):
                async with asyncio.timeout(20):
                    found = await asyncio.gather(*[db.fetch("SELECT ?", (n,)) for n in range(50)])
                assert found == [[(n,)] for n in range(50)]
            assert len(threads()) <= 4
            for one in running:
                one.cancel()
            await asyncio.wait(running)
            assert await db.select_value("SELECT %s", 1) == 1
        await db.close()
        assert not threads()

    run(main())


def test_cancelled_while_it_connects(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """There is nothing to interrupt yet; the query must not go on for ever afterwards."""
    opened = Thread.open

    def slowly(thread: Thread, job: Job) -> None:
        time.sleep(0.2)
        opened(thread, job)

    monkeypatch.setattr(Thread, "open", slowly)

    async def main() -> None:
        db = connect(f"sqlite:///{tmp_path}/a.db?pool=2&timeout=20")
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await db.select(ENDLESS)
        assert await db.select_value("SELECT 5") == 5
        await db.close()

    run(main())


def test_threads_end_with_the_loop_and_with_the_client(tmp_path: Path) -> None:
    async def main(keep: list[Any]) -> None:
        db = connect(f"sqlite:///{tmp_path}/a.db")
        await db.select("SELECT 1")
        assert threads()
        keep.append(db)

    kept: list[Any] = []
    run(main(kept))
    until_no_threads()

    async def forgotten() -> None:
        await main([])
        gc.collect()
        for _ in range(500):
            await asyncio.sleep(0.01)
            if not threads():
                break
        assert not threads()

    run(forgotten())


PROGRAM = """
import asyncio, sys
from eighties.sql import connect
loop = asyncio.new_event_loop()
db = connect(sys.argv[1])
async def main():
    await db.exec("CREATE TABLE IF NOT EXISTS t (id INTEGER)")
    await db.select("SELECT 1")
    db.select("WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c) SELECT SUM(x) FROM c")(print)
    await asyncio.sleep(0.1)
{}
print("over")
"""


@pytest.mark.parametrize("end", ["asyncio.run(main())", "loop.run_until_complete(main())", "asyncio.run(main()); 1/0"])
def test_programs_end(tmp_path: Path, end: str) -> None:
    """Whether or not a program closes anything, and whatever its queries do just then."""
    started = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM.format(end), f"sqlite:///{tmp_path}/a.db"],
        capture_output=True,
        timeout=30,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert done.returncode == ("1/0" in end), done.stderr
    assert "1/0" in end or (done.stdout == "over\n" and "Traceback" not in done.stderr), done.stderr
    assert time.monotonic() - started < 25


def test_after_a_fork(tmp_path: Path) -> None:
    """The child is refused, and told why, while the parent goes on."""
    script = f"""
import asyncio, os
from eighties.sql import ClientClosed, connect
db = connect("sqlite:///{tmp_path}/a.db")
loop = asyncio.new_event_loop()
assert loop.run_until_complete(db.fetch("SELECT 1")) == [(1,)]
pid = os.fork()
if pid == 0:
    try:
        asyncio.new_event_loop().run_until_complete(db.fetch("SELECT 2"))
    except ClientClosed as error:
        os._exit("another event loop or process" in str(error))
    os._exit(2)
assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 1
assert loop.run_until_complete(db.fetch("SELECT 3")) == [(3,)]
loop.run_until_complete(loop.shutdown_asyncgens())
loop.close()
"""
    done = subprocess.run(
        [sys.executable, "-W", "ignore::DeprecationWarning", "-c", script],
        capture_output=True,
        timeout=30,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert done.returncode == 0, done.stderr


def test_nothing_is_imported_that_is_not_used() -> None:
    script = """
import sys
import eighties.sql
from eighties.sql import connect
db = connect("sqlite://:memory:")
loaded = {"asyncmy", "aiosqlite", "sqlalchemy", "ssl", "cryptography"} & set(sys.modules)
import asyncio
assert not loaded - ({"ssl"} if "ssl" in dir(asyncio.sslproto) else set()), loaded
"""
    subprocess.run(
        [sys.executable, "-c", script], check=True, env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    )

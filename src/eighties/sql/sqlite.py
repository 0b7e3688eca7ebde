"""SQLite, embedded: a writer and a few readers of one file in WAL mode, each connection with a thread of its own.

A call is one job for a thread: statement, rows and what was written come back in one wake of the loop. aiosqlite needs
three such hops (docs/data-notes.md has the figures). Threads end with their connection, and at exit.
"""

from __future__ import annotations

import asyncio
import atexit
import sqlite3
import threading
import time
from collections.abc import AsyncGenerator, Callable, Sequence
from functools import partial
from queue import SimpleQueue
from typing import Any, TypeVar
from weakref import finalize

from ..promise import Promise, promise_of
from .arguments import for_sqlite
from .client import TIMEOUT, Client
from .errors import ConnectionLost, Duplicate, QueryError, ServerDown
from .pool import Pool, Result, Row

READERS_AND_WRITER = 4
"""Connections, one of them for writing: more than cores would only hold memory, 2 MB of page cache each."""
BUSY_TIMEOUT = 0.1
"""Seconds that SQLite itself waits for a lock; between its tries a query can be cancelled."""
PART = 256
"""Rows that a stream fetches in one job."""
KNOWN_WRITERS = 1024
"""How many texts of queries are remembered that begin as if they read, and write."""

_T = TypeVar("_T")
_READING = ("SELECT", "WITH", "VALUES", "EXPLAIN")
_INSERTING = ("INSERT", "REPLACE", "WITH")
_DUPLICATES = (sqlite3.SQLITE_CONSTRAINT_UNIQUE, sqlite3.SQLITE_CONSTRAINT_PRIMARYKEY, sqlite3.SQLITE_CONSTRAINT_ROWID)
_FAILURES = (sqlite3.Error, sqlite3.Warning, OverflowError)  # an int of more than 64 bits is the last one
_threads: set[_Thread] = set()


class SQLite(Client):
    """A database in a file, or in memory: there one connection does everything, and it goes with the client's loop."""

    dialect = "sqlite"

    def __init__(self, path: str = ":memory:", pool: int = READERS_AND_WRITER, timeout: float = TIMEOUT) -> None:
        """
        Arguments:
            path: the file, made if it is missing; ":memory:" for none.
            pool: connections at once, one for writing, the others for reading.
            timeout: seconds to wait for a connection, and for the locks of other processes.
        """
        super().__init__(path, pool, timeout)
        self._path = path
        self._writers: dict[str, None] = {}

    def connect(
        self,
        username: str = "",
        password: str = "",
        db_name: str = ":memory:",
        host: str = "",
        port: int = 0,
        pool: int = READERS_AND_WRITER,
    ) -> Promise:
        """Use another file, `db_name`: a promise of the client. What only a server needs is not looked at."""
        self._path = self._name = db_name
        self._size = pool
        return promise_of(self._reconfigured())

    def _make_pools(self) -> list[Pool[Any]]:
        if self._path == ":memory:" and self._loop is not None:
            raise ServerDown("the database in memory has gone with the loop it was made on")
        memory = self._path == ":memory:"
        writer = Pool(partial(_connect, self._path, self._timeout, False), 1, self._timeout, self._name)
        if memory or self._size == 1:
            return [writer, writer]
        readers = Pool(partial(_connect, self._path, self._timeout, True), self._size - 1, self._timeout, self._name)
        return [writer, readers]

    async def _run(self, sql: str, args: Sequence[object], writes: bool) -> Result:
        if writes or sql in self._writers or not _head(sql).startswith(_READING):
            return await super()._run(sql, args, True)
        try:
            return await super()._run(sql, args, False)
        except QueryError as error:
            if error.code is None or error.code & 0xFF != sqlite3.SQLITE_READONLY or self._transaction() is not None:
                raise
        # WITH … INSERT, and functions of the program: a reader has refused it, and nothing was written.
        if len(self._writers) >= KNOWN_WRITERS:
            self._writers.clear()
        self._writers[sql] = None
        return await super()._run(sql, args, True)

    async def _parts(
        self, sql: str, args: Sequence[object]
    ) -> AsyncGenerator[tuple[Sequence[Row], Sequence[str]], None]:
        if self._path == ":memory:" and self._transaction() is None:  # its only connection is for others too
            result = await self._run(sql, args, False)
            yield result.rows, result.columns
            return
        async for part in super()._parts(sql, args):
            yield part

    async def _escape(self, text: str) -> str:
        if "\0" in text:
            raise ValueError("a text with a NUL cannot stand in SQLite's queries: give it as an argument")
        return text.replace("'", "''")


class _Job:
    """One call of a function in the thread. The loop's side owns the future, the thread reads `cancelled`."""

    __slots__ = ("args", "cancelled", "error", "function", "future", "result")

    def __init__(self, future: asyncio.Future[Any], function: Callable[..., Any], args: tuple[Any, ...]) -> None:
        self.future = future
        self.function = function
        self.args = args
        self.cancelled = False
        self.error: Exception | None = None
        self.result: Any = None

    def done(self) -> None:
        """Called on the loop."""
        future = self.future
        if not future.done():
            if self.error is None:
                future.set_result(self.result)
            else:
                future.set_exception(self.error)


class _Thread:
    """A thread with a connection, and its jobs, done one after the other; None is the last one."""

    def __init__(self, path: str, timeout: float, reads: bool) -> None:
        self.jobs: SimpleQueue[_Job | None] = SimpleQueue()
        self.connection: sqlite3.Connection | None = None
        self.in_transaction = False
        self._path = path
        self._timeout = timeout
        self._reads = reads
        self._job: _Job | None = None
        # No worker waits for a daemon thread when it stops; `_end_threads` does, for a bounded time.
        self._thread = threading.Thread(target=self._work, name=f"sqlite {path}", daemon=True)
        _threads.add(self)
        self._thread.start()

    def _work(self) -> None:
        get = self.jobs.get
        try:
            while (job := get()) is not None:
                self._job = job
                self._perform(job)
                self._job = job = None
        finally:
            if self.connection is not None:
                self.connection.close()
            _threads.discard(self)

    def _perform(self, job: _Job) -> None:
        if not job.cancelled:
            try:
                job.result = job.function(job, *job.args)
            except Exception as error:  # noqa: BLE001 it goes to whoever waits
                job.error = error
        if self.connection is not None:
            self.in_transaction = self.connection.in_transaction
        try:
            job.future.get_loop().call_soon_threadsafe(job.done)
        except RuntimeError:  # the loop is closed, and with it whoever waited
            pass

    # ---- jobs ----

    def open(self, job: _Job) -> None:
        """Connect."""
        self.connection = connection = sqlite3.connect(self._path, timeout=BUSY_TIMEOUT, isolation_level=None)
        self._retry(job, connection.execute, "PRAGMA journal_mode=WAL", ())
        connection.execute("PRAGMA foreign_keys=ON")
        if self._reads:
            connection.execute("PRAGMA query_only=ON")

    def run(self, job: _Job, sql: str, args: tuple[Any, ...]) -> Result:
        """A statement, with all that it gives."""
        assert self.connection is not None
        cursor = self._retry(job, self.connection.execute, sql, args)
        description = cursor.description
        rows = [] if description is None else cursor.fetchall()
        written = cursor.rowcount  # -1 for what is neither INSERT, UPDATE nor DELETE
        if written < 0:
            return Result(len(rows), 0, rows, description or ())
        # SQLite tells the id of the connection's last INSERT, whatever was run since.
        inserted = cursor.lastrowid if written and _head(sql).startswith(_INSERTING) else 0
        return Result(written, inserted or 0, rows, description or ())

    def begin(self, job: _Job, sql: str, args: tuple[Any, ...]) -> tuple[sqlite3.Cursor, list[Row]]:
        """The first part of a stream, and the cursor that gives the others."""
        assert self.connection is not None
        cursor = self._retry(job, self.connection.execute, sql, args)
        return cursor, cursor.fetchmany(PART)

    def more(self, job: _Job, cursor: sqlite3.Cursor) -> list[Row]:
        """A further part."""
        return cursor.fetchmany(PART)

    def end(self, job: _Job, cursor: sqlite3.Cursor) -> None:
        """No more of it."""
        cursor.close()

    def rollback(self, job: _Job) -> None:
        """If there is anything to roll back."""
        if self.connection is not None and self.connection.in_transaction:
            self.connection.execute("ROLLBACK")

    def _retry(self, job: _Job, execute: Callable[..., sqlite3.Cursor], sql: str, args: Any) -> sqlite3.Cursor:
        """Execute; while others hold a lock, again and again within the timeout."""
        deadline = 0.0
        while True:
            try:
                return execute(sql, args)
            except sqlite3.OperationalError as error:
                code = getattr(error, "sqlite_errorcode", 0)
                locked = code & 0xFF in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)
                if not locked or code == sqlite3.SQLITE_BUSY_SNAPSHOT or job.cancelled:
                    raise
                now = time.monotonic()
                deadline = deadline or now + self._timeout - BUSY_TIMEOUT
                if now >= deadline:
                    raise
                time.sleep(0.005)  # SQLITE_LOCKED comes at once

    def stop(self, interrupt: bool) -> None:
        """Have it end, at once or when its jobs are done."""
        self.jobs.put(None)
        if interrupt:
            job = self._job
            if job is not None:
                job.cancelled = True
            self.interrupt()

    def interrupt(self) -> None:
        """End the statement under way, if there is one."""
        if self.connection is not None:
            try:
                self.connection.interrupt()
            except sqlite3.ProgrammingError:  # closed
                pass

    def join(self, timeout: float) -> None:
        """Wait for its end."""
        self._thread.join(timeout)


def _end_threads() -> None:
    threads = list(_threads)
    for thread in threads:
        thread.stop(True)
    for thread in threads:
        thread.join(2.0)


atexit.register(_end_threads)


async def _connect(path: str, timeout: float, reads: bool) -> _Link:
    link = _Link(_Thread(path, timeout, reads))
    try:
        await link.do(link.thread.open)
    except BaseException as error:
        link.drop()
        if isinstance(error, _FAILURES):
            raise ServerDown(f"{path}: {error}") from error
        raise
    return link


class _Link:
    """The loop's side of a thread. (A `Link` of pool.py.)"""

    def __init__(self, thread: _Thread) -> None:
        self.thread = thread
        self._loop = asyncio.get_running_loop()
        self._open = True
        self._finalizer = finalize(self, thread.jobs.put, None)
        self._finalizer.atexit = False

    def alive(self) -> bool:
        return self._open

    def usable(self) -> bool:
        return self._open

    def fresh(self) -> bool:
        return self._open

    @property
    def in_transaction(self) -> bool:
        return self.thread.in_transaction

    async def do(self, function: Callable[..., _T], *args: Any) -> _T:
        """A job. Cancelled, it is interrupted; the next one waits for its end."""
        future: asyncio.Future[_T] = self._loop.create_future()
        job = _Job(future, function, args)
        self.thread.jobs.put(job)
        try:
            return await future
        except asyncio.CancelledError:
            job.cancelled = True
            if self.thread._job is job:
                self.thread.interrupt()
            raise

    async def run(self, sql: str, args: Sequence[object]) -> Result:
        values = for_sqlite(args) if args else ()
        if not self._open:
            raise ConnectionLost("the connection was closed")
        try:
            return await self.do(self.thread.run, sql, values)
        except _FAILURES as error:
            raise _error(error, sql) from error

    async def stream(
        self, sql: str, args: Sequence[object]
    ) -> AsyncGenerator[tuple[Sequence[Row], Sequence[str]], None]:
        values = for_sqlite(args)
        cursor: sqlite3.Cursor | None = None
        try:
            first, rows = await self.do(self.thread.begin, sql, values)
            cursor = first
            columns = [column[0] for column in first.description or ()]
            while rows:
                yield rows, columns
                rows = await self.do(self.thread.more, first)
        except _FAILURES as error:
            raise _error(error, sql) from error
        finally:
            if cursor is not None and self._open:
                self._post(self.thread.end, cursor)

    def _post(self, function: Callable[..., None], *args: Any) -> None:
        """A job that nobody waits for."""
        self.thread.jobs.put(_Job(self._loop.create_future(), function, args))

    async def refresh(self) -> None:
        """Each job tells it."""

    def reset(self) -> None:
        self._post(self.thread.rollback)

    def drop(self) -> None:
        if self._open:
            self._open = False
            self._finalizer.detach()
            self.thread.stop(True)

    async def close(self) -> None:
        if self._open:
            self._open = False
            self._finalizer.detach()
            self.thread.stop(False)
            await asyncio.to_thread(self.thread.join, 2.0)


def _head(sql: str) -> str:
    return sql.lstrip()[:7].upper()


def _error(error: Exception, sql: str) -> QueryError:
    code: int | None = getattr(error, "sqlite_errorcode", None)
    return (Duplicate if code in _DUPLICATES else QueryError)(str(error), sql, code)

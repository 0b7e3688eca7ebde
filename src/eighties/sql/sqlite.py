"""SQLite, embedded: a writer and a few readers of one file in WAL mode, each connection with a thread of its own.

A call is one job for a thread: statement, rows and what was written come back in one wake of the loop. aiosqlite needs
three such hops (docs/design.md §10). Threads end with their connection, and at exit.
"""

from __future__ import annotations

import asyncio
import os
import sqlite3
from collections.abc import AsyncGenerator, Callable, Sequence
from functools import partial
from typing import Any, TypeVar
from weakref import finalize

from ..promise import Promise, promise_of
from .arguments import for_sqlite
from .client import TIMEOUT, Client, check_bounds
from .errors import ClientClosed, ConnectionLost, Duplicate, QueryError, ServerDown
from .pool import Pool, Result, Row
from .threads import FAILURES, Job, Readers, Thread, file_of, head

READERS_AND_WRITER = 4
"""Connections, one of them for writing: more than cores would only hold memory, 2 MB of page cache each."""
KNOWN_WRITERS = 1024
"""How many texts of queries are remembered that begin as if they read, and write."""

_T = TypeVar("_T")
_READING = ("SELECT", "WITH", "VALUES", "EXPLAIN")
_DUPLICATES = (sqlite3.SQLITE_CONSTRAINT_UNIQUE, sqlite3.SQLITE_CONSTRAINT_PRIMARYKEY, sqlite3.SQLITE_CONSTRAINT_ROWID)


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
        self._path = _checked(path)
        self._writers: dict[str, None] = {}
        self._readers: Readers | None = None

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
        check_bounds(pool, self._timeout)
        self._path = self._name = _checked(db_name)
        self._size = pool
        return promise_of(self._reconfigured())

    def _make_pools(self) -> list[Pool[Any]]:
        if self._path == ":memory:" and self._loop is not None:
            raise ServerDown("the database in memory has gone with the loop it was made on")
        path = self._path
        if path != ":memory:":
            path = os.path.abspath(path)  # a program may change its folder
        writer = Pool(partial(_connect, path, self._timeout, False), 1, self._timeout, self._name)
        self._readers = None
        if self._path == ":memory:" or self._size == 1:
            return [writer, writer]
        size = self._size - 1
        readers = self._readers = Readers(path, self._timeout, size, self._name)
        # Streams need a connection each, for longer.
        connect = partial(_connect, path, self._timeout, True)
        return [writer, Pool(connect, size, self._timeout, self._name, readers.close)]

    async def _run(self, sql: str, args: Sequence[object], writes: bool) -> Result:
        if writes or sql in self._writers or not head(sql).startswith(_READING) or self._transaction() is not None:
            return await super()._run(sql, args, True)
        pool = self._pool(False)
        readers = self._readers
        if readers is None:
            return await super()._run(sql, args, True)
        if pool.closed:
            raise ClientClosed(f"{self._name}: the client is closed")
        try:
            return await readers.run(sql, for_sqlite(args) if args else ())
        except FAILURES as error:
            if getattr(error, "sqlite_errorcode", 0) & 0xFF != sqlite3.SQLITE_READONLY:
                raise _error(error, sql) from error
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


def _checked(path: str) -> str:
    if not path:  # SQLite takes that for a file of its own for each connection
        raise ValueError('path: that of a file, or ":memory:"')
    return path


async def _connect(path: str, timeout: float, reads: bool) -> _Link:
    link = _Link(Thread(path, timeout, reads), path)
    try:
        await link.do(Thread.open)
    except BaseException as error:
        link.drop()
        if isinstance(error, FAILURES):
            raise ServerDown(f"{path}: {error}") from error
        raise
    return link


class _Link:
    """The loop's side of a thread. (A `Link` of pool.py.)"""

    def __init__(self, thread: Thread, path: str) -> None:
        self.thread = thread
        self._loop = asyncio.get_running_loop()
        self._open = True
        self._path = path
        self._job: Job | None = None
        self._finalizer = finalize(self, thread.jobs.put, None)
        self._finalizer.atexit = False

    def alive(self) -> bool:
        return self._open

    def usable(self) -> bool:
        return self._open

    def fresh(self) -> bool:
        file = self.thread.file
        return self._open and (file is None or file == file_of(self._path))

    @property
    def in_transaction(self) -> bool:
        return self.thread.in_transaction

    async def do(self, function: Callable[..., _T], *args: Any) -> _T:
        """A job. Cancelled, it is interrupted; the next one waits for its end."""
        future: asyncio.Future[_T] = self._loop.create_future()
        job = Job(future, function, args)
        self._job = job
        self.thread.jobs.put(job)
        try:
            return await future
        except asyncio.CancelledError:
            self.thread.interrupt(job)
            raise
        finally:
            self._job = None
            del job, future  # an error's traceback has this frame, and the future has the error

    async def run(self, sql: str, args: Sequence[object]) -> Result:
        values = for_sqlite(args) if args else ()
        if not self._open:
            raise ConnectionLost("the connection was closed")
        try:
            return await self.do(Thread.run, sql, values)
        except FAILURES as error:
            raise _error(error, sql) from error

    async def stream(
        self, sql: str, args: Sequence[object]
    ) -> AsyncGenerator[tuple[Sequence[Row], Sequence[str]], None]:
        values = for_sqlite(args)
        cursor: sqlite3.Cursor | None = None
        try:
            first, rows = await self.do(Thread.begin, sql, values)
            cursor = first
            columns = [column[0] for column in first.description or ()]
            while rows:
                yield rows, columns
                rows = await self.do(Thread.more, first)
        except FAILURES as error:
            raise _error(error, sql) from error
        finally:
            if cursor is not None and self._open:
                self._post(Thread.end, cursor)

    def _post(self, function: Callable[..., None], *args: Any) -> None:
        """A job that nobody waits for."""
        self.thread.jobs.put(Job(self._loop.create_future(), function, args))

    async def refresh(self) -> None:
        """Each job tells it."""

    def reset(self) -> None:
        self.thread.interrupt(self._job)
        self._post(Thread.rollback)

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


def _error(error: Exception, sql: str) -> QueryError:
    code: int | None = getattr(error, "sqlite_errorcode", None)
    text = str(error)
    if code is not None and code & 0xFF == sqlite3.SQLITE_BUSY:
        text += " (another one has been writing for longer than `timeout`: keep transactions short, or wait longer)"
    return (Duplicate if code in _DUPLICATES else QueryError)(text, sql, code)

"""Threads with connections to SQLite: what is asked of them on a loop is done there, one job after the other.

A thread owns its connection, and tells the loop of each job that is done; the loop's side owns everything else.
`sqlite.py` is the only caller. Threads end when they are told to, and at exit.
"""

from __future__ import annotations

import asyncio
import atexit
import contextvars
import os
import sqlite3
import threading
import time
from collections import deque
from collections.abc import Callable
from queue import Empty, SimpleQueue
from typing import Any
from weakref import finalize

from .errors import PoolTimeout, ServerDown
from .pool import CLOSING_TIMEOUT, Result, Row

BUSY_TIMEOUT = 0.1
"""Seconds that SQLite itself waits for a lock; between its tries a query can be cancelled."""
PART = 256
"""Rows that a stream fetches in one job."""
STEPS = 1_000_000
"""Steps of SQLite's machine, tens of milliseconds, after which a query looks whether it is still wanted."""
LATENCY = 0.002
"""Seconds that a query may wait for a thread before another one helps."""

FAILURES = (sqlite3.Error, sqlite3.Warning, OverflowError)  # an int of more than 64 bits is the last one
_INSERTING = ("INSERT", "REPLACE", "WITH")
_threads: set[Thread] = set()


class Job:
    """A call of one of Thread's methods. The loop's side owns the future, and `since` by its clock."""

    __slots__ = ("args", "begun", "cancelled", "error", "function", "future", "result", "since")

    def __init__(self, future: asyncio.Future[Any], function: Callable[..., Any], args: tuple[Any, ...]) -> None:
        self.future = future
        self.function = function
        self.args = args
        self.begun = False
        self.cancelled = False
        self.since = 0.0
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
                self.error = None


class Thread:
    """A thread with a connection, and its jobs, done one after the other; None is the last one."""

    def __init__(self, path: str, timeout: float, reads: bool, jobs: SimpleQueue[Job | None] | None = None) -> None:
        self.jobs: SimpleQueue[Job | None] = SimpleQueue() if jobs is None else jobs
        self.connection: sqlite3.Connection | None = None
        self.file: tuple[int, int] | None = None  # which file it was connected to
        self.in_transaction = False
        self._path = path
        self._timeout = timeout
        self._reads = reads
        self._job: Job | None = None
        self._turn = threading.RLock()  # held while it goes from one job to the next, and while one is interrupted
        # No worker waits for a daemon thread when it stops; `_end_threads` does, for a bounded time.
        self._thread = threading.Thread(target=self._work, name=f"sqlite {path}", daemon=True)
        _threads.add(self)
        self._thread.start()

    def _work(self) -> None:
        try:
            while (job := self.next()) is not None:
                with self._turn:
                    self._job = job
                job.begun = True
                self._perform(job)
                job = None
        finally:
            if self.connection is not None:
                self.connection.close()
            _threads.discard(self)

    def next(self) -> Job | None:
        """Its next job, waited for; None to end."""
        return self.jobs.get()

    def _perform(self, job: Job) -> None:
        if job.cancelled:
            job.error = sqlite3.OperationalError("interrupted")
        else:
            try:
                job.result = job.function(self, job, *job.args)
            except Exception as error:  # noqa: BLE001 it goes to whoever waits
                job.error = error.with_traceback(None)  # this frame has the job
        with self._turn:
            self._job = None
        if self.connection is not None:
            self.in_transaction = self.connection.in_transaction
        try:
            job.future.get_loop().call_soon_threadsafe(job.done)
        except RuntimeError:  # the loop is closed, and with it whoever waited
            pass

    # ---- jobs ----

    def open(self, job: Job) -> None:
        """Connect."""
        self.connection = connection = sqlite3.connect(self._path, timeout=BUSY_TIMEOUT, isolation_level=None)
        # An interruption has no effect on a statement that is just about to begin, or on who still connects.
        connection.set_progress_handler(self._unwanted, STEPS)
        try:
            self._retry(job, connection.execute, "PRAGMA journal_mode=WAL", ())
        except sqlite3.OperationalError as error:
            if getattr(error, "sqlite_errorcode", 0) & 0xFF != sqlite3.SQLITE_READONLY:  # such a file can be read
                raise
        self.file = file_of(self._path)
        connection.execute("PRAGMA foreign_keys=ON")
        if self._reads:
            connection.execute("PRAGMA query_only=ON")

    def run(self, job: Job, sql: str, args: tuple[Any, ...]) -> Result:
        """A statement, with all that it gives."""
        assert self.connection is not None
        cursor = self._retry(job, self.connection.execute, sql, args)
        description = cursor.description
        rows: list[Row] = []
        columns: list[str] = []
        if description is not None:
            rows, columns = cursor.fetchall(), [column[0] for column in description]
        written = cursor.rowcount  # -1 for what is neither INSERT, UPDATE nor DELETE
        if written < 0:
            return Result(len(rows), 0, rows, columns)
        # SQLite tells the id of the connection's last INSERT, whatever was run since.
        inserted = cursor.lastrowid if written and head(sql).startswith(_INSERTING) else 0
        return Result(written, inserted or 0, rows, columns)

    def begin(self, job: Job, sql: str, args: tuple[Any, ...]) -> tuple[sqlite3.Cursor, list[Row]]:
        """The first part of a stream, and the cursor that gives the others."""
        assert self.connection is not None
        cursor = self._retry(job, self.connection.execute, sql, args)
        return cursor, cursor.fetchmany(PART)

    def more(self, job: Job, cursor: sqlite3.Cursor) -> list[Row]:
        """A further part."""
        return cursor.fetchmany(PART)

    def end(self, job: Job, cursor: sqlite3.Cursor) -> None:
        """No more of it."""
        cursor.close()

    def rollback(self, job: Job) -> None:
        """If there is anything to roll back."""
        if self.connection is not None and self.connection.in_transaction:
            self.connection.execute("ROLLBACK")

    def _retry(self, job: Job, execute: Callable[..., sqlite3.Cursor], sql: str, args: Any) -> sqlite3.Cursor:
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

    def _unwanted(self) -> bool:
        """Whether SQLite is to end what it does."""
        job = self._job
        return job is not None and job.cancelled

    def stop(self, interrupt: bool) -> None:
        """Have it end, at once or when its jobs are done."""
        self.jobs.put(None)
        if interrupt:
            self.interrupt(self._job)

    def interrupt(self, job: Job | None) -> None:
        """End a job, if it is the one that is under way."""
        if job is None:
            return
        job.cancelled = True
        with self._turn:
            if self._job is job and self.connection is not None:
                self.connection.interrupt()

    def join(self, timeout: float) -> None:
        """Wait for its end."""
        self._thread.join(timeout)


class Reader(Thread):
    """One of several threads with the same jobs. The first always waits for them, helpers only when they are called."""

    def __init__(self, path: str, timeout: float, jobs: SimpleQueue[Job | None], helps: bool) -> None:
        self._call = threading.Semaphore(0) if helps else None
        self.idle = False
        self._stopped = False
        super().__init__(path, timeout, True, jobs)

    def next(self) -> Job | None:
        if self._call is None:
            return self.jobs.get()
        while not self._stopped:
            try:
                job = self.jobs.get_nowait()
            except Empty:
                self.idle = True
                self._call.acquire()
                continue
            if job is None:  # that was for the first, the last one to end
                self.jobs.put(None)
            return job
        return None

    def call(self) -> None:
        """Have it look for jobs."""
        self.idle = False
        assert self._call is not None
        self._call.release()

    def stop(self, interrupt: bool) -> None:
        self._stopped = True
        if self._call is not None:
            self._call.release()
        else:
            self.jobs.put(None)
        if interrupt:
            self.interrupt(self._job)

    def read(self, job: Job, sql: str, args: tuple[Any, ...]) -> Result:
        """A statement that only reads."""
        if self.connection is None:
            try:
                self.open(job)
            except FAILURES as error:
                connection, self.connection = self.connection, None
                if connection is not None:
                    connection.close()
                raise ServerDown(f"{self._path}: {error}") from error
        return self.run(job, sql, args)


class Readers:
    """Threads that read, for queries of no length: one does them all, the next ones help where a query keeps it.

    Two threads that are awake hand Python's lock to and fro at each step of each query, which costs four times as
    much. So others are called only when a query has waited for LATENCY.
    """

    def __init__(self, path: str, timeout: float, size: int, name: str) -> None:
        self._loop = asyncio.get_running_loop()
        self._jobs: SimpleQueue[Job | None] = SimpleQueue()
        self._threads: list[Reader] = []
        self._waiting: deque[Job] = deque()
        self._under_way = 0
        self._timer: asyncio.TimerHandle | None = None
        self._path, self._timeout, self._size, self._name = path, timeout, size, name
        self._finalizer = finalize(self, _stop, self._threads)
        self._finalizer.atexit = False

    async def run(self, sql: str, args: tuple[Any, ...]) -> Result:
        """Raises what sqlite3 raises, ServerDown and PoolTimeout."""
        loop = self._loop
        threads = self._threads
        if threads and (file := threads[0].file) is not None and file != file_of(self._path):
            self._leave()
        job = Job(loop.create_future(), Reader.read, (sql, args))
        job.since = loop.time()
        self._waiting.append(job)
        if self._timer is None:
            self._timer = loop.call_later(LATENCY, self._look, context=contextvars.Context())
        if not self._threads:
            self._start()
        self._under_way += 1
        self._jobs.put(job)
        try:
            result: Result = await job.future
            return result
        except asyncio.CancelledError:
            job.cancelled = True
            for thread in self._threads:
                thread.interrupt(job)
            raise
        finally:
            self._under_way -= 1
            del job  # an error's traceback has this frame, and the job's future has the error

    def _leave(self) -> None:
        """The file is another one: these threads end with what they have to do, and others begin."""
        for thread in self._threads:
            thread.stop(False)
        self._threads.clear()
        self._jobs = SimpleQueue()

    def _start(self) -> None:
        self._threads.append(Reader(self._path, self._timeout, self._jobs, bool(self._threads)))

    def _look(self) -> None:
        """Whether the jobs are getting on."""
        self._timer = None
        waiting = self._waiting
        while waiting and (waiting[0].begun or waiting[0].future.done()):
            waiting.popleft()
        if not waiting:
            return
        age = self._loop.time() - waiting[0].since
        if age > self._timeout:
            job = waiting.popleft()
            job.cancelled = True
            used = f"all connections of the pool that read (pool={self._size}) were in use for {self._timeout:g} s"
            job.future.set_exception(PoolTimeout(f"{self._name}: {used}"))
        elif age > LATENCY:
            helper = next((thread for thread in self._threads if thread.idle), None)
            if helper is not None:
                helper.call()
            elif len(self._threads) < self._size:
                self._start()
        self._timer = self._loop.call_later(LATENCY, self._look, context=contextvars.Context())

    async def close(self, timeout: float = CLOSING_TIMEOUT) -> None:
        """Let what is under way end, within the time; then end the threads."""
        until = self._loop.time() + timeout
        while self._under_way and self._loop.time() < until:
            await asyncio.sleep(LATENCY)
        if self._timer is not None:
            self._timer.cancel()
        self._finalizer.detach()
        _stop(self._threads)
        for thread in self._threads:
            await asyncio.to_thread(thread.join, 2.0)


def _stop(threads: list[Reader]) -> None:
    for thread in threads:
        thread.stop(True)


def file_of(path: str) -> tuple[int, int] | None:
    """Which file is there, if there is one: another one, or none, is not the one that was opened."""
    try:
        status = os.stat(path)
    except (OSError, ValueError):
        return None
    return status.st_dev, status.st_ino


def head(sql: str) -> str:
    """How a statement begins, as far as that tells what it is."""
    return sql.lstrip()[:7].upper()


def _end_threads() -> None:
    threads = list(_threads)
    for thread in threads:
        thread.stop(True)
    for thread in threads:
        thread.join(2.0)


atexit.register(_end_threads)

"""What a program asks of a database, whichever it is: `Client` and its transactions, and `connect(url)`.

A client owns the pools of one worker's connections, made when first used, on the loop that runs then; they are closed
with the client or with the loop. Repositories call its coroutines `fetch`, `execute` and `iterate`, programs the rest.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Sequence
from contextvars import ContextVar
from typing import Any, Self, TypeVar
from urllib.parse import parse_qsl, unquote, urlsplit
from weakref import ref

from ..promise import Promise
from .errors import (
    ClientClosed,
    ConnectionLost,
    DatabaseError,
    Duplicate,
    PoolTimeout,
    QueryError,
    ServerDown,
    TransactionError,
)
from .markers import MarkerError, translate
from .pool import Link, Pool, Result, Row
from .promised import promised

__all__ = [
    "Client",
    "ClientClosed",
    "ConnectionLost",
    "DatabaseError",
    "Duplicate",
    "MarkerError",
    "PoolTimeout",
    "QueryError",
    "Result",
    "ServerDown",
    "Transaction",
    "TransactionError",
    "connect",
]

TIMEOUT = 10.0
"""Seconds until there is a connection, waited for or made, and for SQLite's locks: three tries of TCP's first packet,
and well within the 60 s a handler has."""

_COMMITTED = "a statement committed it, as MySQL does before it changes a table"
_ENDED = {"ROLLBACK": "it was rolled back by hand, with ROLLBACK", "COMMIT": "it was committed by hand, with COMMIT"}

_T = TypeVar("_T")
_ClientType = TypeVar("_ClientType", bound="Client")
_transactions: ContextVar[dict[int, Transaction] | None] = ContextVar("transactions", default=None)


class Client:
    """A database. Use `connect(url)`, `MySQL` or `SQLite`.

    Methods that a program calls give promises; `%s` or `%d` in their queries stand for the arguments, which travel
    beside the text and are never pasted into it. They may be str, int, float, bool, None, bytes, Decimal, UUID, an Enum
    (its value), dates and times, and dict or list (as JSON); moments with a time zone are stored in UTC. Promises are
    rejected with a DatabaseError, with MarkerError where the query and its arguments do not fit, and with TypeError or
    ValueError for an argument that is of no use.
    """

    dialect = ""
    """ "mysql" or "sqlite", as SQLAlchemy names them."""

    def __init__(self, name: str, pool: int, timeout: float) -> None:
        check_bounds(pool, timeout)
        self._name = name
        self._size = pool
        self._timeout = timeout
        self._closed = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self._pools: list[Pool[Any]] = []
        self._guard: AsyncGenerator[None, None] | None = None

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self._name}>"

    # ---- for programs ----

    def connect(
        self,
        username: str,
        password: str,
        db_name: str,
        host: str = "127.0.0.1",
        port: int = 3306,
        pool: int = 8,
    ) -> Promise:
        """Use that database from now on, and see whether it can be reached: a promise of the client itself."""
        raise NotImplementedError

    def exec(self, query: str, *args: object) -> Promise:
        """Run a statement: a promise of its Result."""
        return promised(self._exec(query, args))

    def select(self, query: str, *args: object) -> Promise:
        """A promise of the rows, a list of dicts. Of columns of the same name the last one counts."""
        return promised(self._select(query, args))

    def select_one(self, query: str, *args: object) -> Promise:
        """A promise of the first row, a dict, or None. All rows are fetched: write LIMIT 1 if there may be many."""
        return promised(self._select_one(query, args))

    def select_value(self, query: str, *args: object) -> Promise:
        """A promise of the first column of the first row, or None."""
        return promised(self._select_value(query, args))

    async def stream(self, query: str, *args: object) -> AsyncGenerator[dict[str, Any], None]:
        """`async for row in client.stream(…)`: rows as dicts, as they come; for more than should be held in memory.

        It holds a connection until its end. Left early with MySQL, that connection is closed: use
        `contextlib.aclosing` to have that done at once.
        """
        try:
            async for rows, columns in self._parts(translate(self.dialect, query, len(args)), args):
                for row in rows:
                    yield dict(zip(columns, row, strict=True))
        except QueryError as error:
            error.show(query)
            raise

    def raw_exec(self, query: str, *args: object) -> Promise:
        """A promise of the Result of a query in the driver's own text: `%s` and `%%` with MySQL, `?` with SQLite."""
        return promised(self.execute(query, args))

    def escape(self, text: str) -> Promise:
        """A promise of a text that may stand between single quotes in a query. Arguments need none of this."""
        return promised(self._escape(text))

    def transaction(self) -> Transaction:
        """`async with client.transaction():` commits at the end, and rolls back if it is left by an exception.

        Within it every call of this client from the same task, and from tasks and promises started in it, uses its
        connection, one after the other. One within another is a savepoint.
        """
        return Transaction(self)

    def close(self) -> Promise:
        """Refuse new queries, let those under way end within seconds, close the connections: a promise of None."""
        return promised(self._close())

    # ---- for repositories: the driver's own markers, no promises ----

    async def fetch(self, sql: str, args: Sequence[object] = ()) -> list[Row]:
        """The rows of a query in the driver's text."""
        rows = (await self._run(sql, args, False)).rows
        return rows if type(rows) is list else list(rows)

    async def execute(self, sql: str, args: Sequence[object] = ()) -> Result:
        """Run a statement in the driver's text."""
        return await self._run(sql, args, True)

    async def iterate(self, sql: str, args: Sequence[object] = ()) -> AsyncIterator[Row]:
        """The rows of a query in the driver's text, as they come."""
        async for rows, _ in self._parts(sql, args):
            for row in rows:
                yield row

    # ---- inside ----

    async def _exec(self, query: str, args: tuple[object, ...]) -> Result:
        return await self._ask(query, args, True)

    async def _select(self, query: str, args: tuple[object, ...]) -> list[dict[str, Any]]:
        result = await self._ask(query, args, False)
        columns = result.columns
        return [dict(zip(columns, row, strict=True)) for row in result.rows]

    async def _select_one(self, query: str, args: tuple[object, ...]) -> dict[str, Any] | None:
        result = await self._ask(query, args, False)
        return dict(zip(result.columns, result.rows[0], strict=True)) if result.rows else None

    async def _select_value(self, query: str, args: tuple[object, ...]) -> Any:
        rows = (await self._ask(query, args, False)).rows
        return rows[0][0] if rows else None

    async def _ask(self, query: str, args: tuple[object, ...], writes: bool) -> Result:
        """A query of a program, whose errors show it as it was written."""
        try:
            return await self._run(translate(self.dialect, query, len(args)), args, writes)
        except QueryError as error:
            error.show(query)
            raise

    async def _run(self, sql: str, args: Sequence[object], writes: bool) -> Result:
        transaction = self._transaction()
        if transaction is not None:
            return await transaction.run(sql, args)
        pool = self._pool(writes)
        link = pool.take() or await pool.acquire()
        try:
            result: Result = await link.run(sql, args)
            if link.in_transaction:
                link.reset()
                raise TransactionError("a transaction is begun with transaction(), nothing else: it was rolled back")
            return result
        finally:
            pool.put(link)

    async def _parts(
        self, sql: str, args: Sequence[object]
    ) -> AsyncGenerator[tuple[Sequence[Row], Sequence[str]], None]:
        transaction = self._transaction()
        if transaction is not None:
            async for part in transaction.stream(sql, args):
                yield part
            return
        pool = self._pool(False)
        link = pool.take() or await pool.acquire()
        parts = link.stream(sql, args)
        try:
            async for part in parts:
                yield part
        finally:
            try:
                await parts.aclose()
            finally:
                pool.put(link)

    def _transaction(self) -> Transaction | None:
        """The one that the running task is in."""
        transactions = _transactions.get()
        transaction = None if transactions is None else transactions.get(id(self))
        if transaction is None or not transaction.left_elsewhere():
            return transaction
        _transactions.set(transaction.before)
        return self._transaction()

    def _pool(self, writes: bool) -> Pool[Any]:
        """The pool of this loop, for statements that write, or for those that only read."""
        if asyncio.get_running_loop() is not self._loop:
            self._settle()
        return self._pools[not writes]

    def _settle(self) -> None:
        """Begin on the running loop, and have everything closed with it."""
        if self._closed:
            raise ClientClosed(f"{self._name}: the client is closed")
        if self._loop is not None and not self._loop.is_closed():
            raise ClientClosed(f"{self._name}: the client belongs to another event loop or process; make one for each")
        self._pools = pools = self._make_pools()
        self._loop = asyncio.get_running_loop()
        self._guard = _guard(list(dict.fromkeys(pools)))
        try:
            self._guard.__anext__().send(None)  # loops end their asynchronous generators well
        except StopIteration:
            pass

    def _make_pools(self) -> list[Pool[Any]]:
        """The pool for writing, and the pool for reading, which may be the same."""
        raise NotImplementedError

    async def _escape(self, text: str) -> str:
        raise NotImplementedError

    async def _close(self) -> None:
        self._closed = True
        if self._loop is asyncio.get_running_loop():
            for pool in self._pools:
                pool.closed = True
            for pool in dict.fromkeys(self._pools):
                await pool.close()
        self._guard = None

    async def _reconfigured(self: _ClientType) -> _ClientType:
        """Connect anew, to see whether it works: what `connect` promises."""
        if self._loop is asyncio.get_running_loop():
            for pool in dict.fromkeys(self._pools):
                await pool.close()
        self._loop = self._guard = None
        self._closed = False
        await self._run("SELECT 1", (), False)
        return self


def check_bounds(pool: int, timeout: float) -> None:
    """Raises ValueError: they are none."""
    if pool < 1:
        raise ValueError(f"pool: {pool} connections are none")
    if not timeout > 0:
        raise ValueError(f"timeout: {timeout} is no time in seconds")


async def _guard(pools: list[Pool[Any]]) -> AsyncGenerator[None, None]:
    """Waits for the end of its loop, or of the client, and closes the pools."""
    try:
        yield
    finally:
        for pool in pools:
            await pool.close(0)


class Transaction:
    """What `Client.transaction` gives. One object, one `async with`."""

    # Of all that are open on one connection, each within the other, the outermost holds `_stack`: whose turn it is.
    def __init__(self, client: Client) -> None:
        self._client = client
        self._outer: Transaction | None = None
        self._stack: list[Transaction] = []
        self._link: Link | None = None
        self._pool: Pool[Any] | None = None
        self._lock = asyncio.Lock()
        self._failure = ""
        self._streaming = False
        self._task: ref[asyncio.Task[Any]] | None = None
        self._savepoint = ""
        self._savepoints = 0  # of the outermost: how many there were
        self._over: asyncio.Event | None = None  # of an inner one, if somebody waits for its end
        self.before: dict[int, Transaction] | None = None
        """What the task that entered it was in before."""

    async def __aenter__(self) -> Self:
        client = self._client
        if self._link is not None or self._failure:
            raise TransactionError("a transaction is entered once: call transaction() for another")
        outer = client._transaction()
        if outer is None:
            self._pool = client._pool(True)
            self._link = self._pool.take() or await self._pool.acquire()
            await self._command("BEGIN IMMEDIATE" if client.dialect == "sqlite" else "BEGIN")
        else:
            self._outer, self._stack, self._lock = outer, outer._stack, outer._lock
            root = outer._stack[0] if outer._stack else outer
            root._savepoints += 1
            self._savepoint = f"s{root._savepoints}"
            await outer.run(f"SAVEPOINT {self._savepoint}", ())
            self._link = outer._link
        self._stack.append(self)
        self.before = _transactions.get()
        task = asyncio.current_task()
        self._task = None if task is None else ref(task)
        _transactions.set({**(self.before or {}), id(client): self})
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        _transactions.set(self.before)
        if not getattr(error, "is_failure", True):  # a page that ends with a redirect
            error = None
        try:
            await asyncio.sleep(0)  # promises that were made in it and are not awaited begin now
            async with self._lock:  # what its tasks have under way
                if self._stack[-1:] != [self]:
                    self._fail("a part of it was left before one within that")
                await self._finish(error)
        except DatabaseError:
            if error is None:  # else that is what is told
                raise
        finally:
            self._end()

    async def run(self, sql: str, args: Sequence[object]) -> Result:
        """One statement in it."""
        link = await self._turn()
        try:
            return await self._watched(link, link.run(sql, args), sql)
        finally:
            self._lock.release()

    async def stream(
        self, sql: str, args: Sequence[object]
    ) -> AsyncGenerator[tuple[Sequence[Row], Sequence[str]], None]:
        """The rows of one statement in it. Until they are read nothing else may be asked."""
        link = await self._turn()
        root = self._stack[0]
        parts = link.stream(sql, args)
        root._streaming = True
        self._lock.release()
        try:
            while (part := await self._watched(link, anext(parts, None), sql)) is not None:
                yield part
        finally:
            try:
                await parts.aclose()
            finally:
                root._streaming = False
                if not link.alive():
                    self._fail("a stream was left early")

    def left_elsewhere(self) -> bool:
        """Whether it has ended, and the running task, which entered it, has not left it itself.

        A generator that is left by `break` is ended in another task: its consumer would be in this one for ever.
        """
        if self._link is not None or self._task is None:
            return False
        task = self._task()
        return task is not None and task is asyncio.current_task()

    async def _turn(self) -> Link:
        """Its link, and `_lock`, held: it is its turn.

        Others on the same connection come first: the statement under way, and transactions that other tasks have opened
        within it.
        """
        while True:
            await self._lock.acquire()
            try:
                link = self._check()
                last = self._stack[-1]
                if last is self:
                    return link
            except BaseException:
                self._lock.release()
                raise
            self._lock.release()
            last._over = last._over or asyncio.Event()
            try:
                async with asyncio.timeout(self._client._timeout):
                    await last._over.wait()
            except TimeoutError:
                raise TransactionError(
                    "another task has opened a transaction within this one, and has not ended it for "
                    f"{self._client._timeout:g} s; does it wait for this one?"
                ) from None

    def _check(self) -> Link:
        """Its link, if a statement may be sent when its turn has come."""
        root = self._stack[0] if self._stack else self
        if root._failure or self._failure or self._link is None:
            raise TransactionError(
                f"the transaction is over: {root._failure or self._failure or 'it was left'}. A task that is started "
                "within one belongs to it, unless it gets a context of its own: context=contextvars.Context()"
            )
        if root._streaming:
            raise TransactionError("the transaction's connection is busy with a stream: read it to its end first")
        return self._link

    async def _watched(self, link: Link, step: Awaitable[_T], sql: str) -> _T:
        """A step on the link; if it ends the transaction, that is noted."""
        try:
            try:
                result = await step
            except QueryError:
                await link.refresh()
                if not link.in_transaction:
                    self._fail("an error ended it, and nothing of it is written")
                raise
        except (QueryError, TypeError, ValueError):  # of these two nothing was sent
            raise
        except BaseException as error:
            self._fail("its connection was lost" if isinstance(error, DatabaseError) else "a statement was cancelled")
            raise
        if not link.in_transaction:
            self._fail(_ENDED.get(sql.lstrip()[:8].rstrip("; ").upper(), _COMMITTED))
        return result

    def _fail(self, reason: str) -> None:
        root = self._stack[0] if self._stack else self
        root._failure = root._failure or reason

    async def _finish(self, error: BaseException | None) -> None:
        """Commit, or roll back."""
        root, link = self._stack[0], self._link
        assert link is not None
        if root._failure:
            if self is root and link.in_transaction and link.alive():
                await self._command("ROLLBACK")
            if error is None and "committed" not in root._failure:
                raise TransactionError(f"the transaction cannot be committed: {root._failure}")
        elif self is root:
            await self._command("COMMIT" if error is None else "ROLLBACK")
        else:
            if error is not None:
                await self._command(f"ROLLBACK TO SAVEPOINT {self._savepoint}")
            await self._command(f"RELEASE SAVEPOINT {self._savepoint}")

    async def _command(self, sql: str) -> None:
        """Begin or end it. If that fails nobody knows what is open."""
        link = self._link
        assert link is not None
        try:
            await link.run(sql, ())
        except BaseException:
            self._fail("it could not be begun" if sql.startswith("BEGIN") else "it could not be ended")
            link.reset()
            if not self._stack:
                self._end()
            raise

    def _end(self) -> None:
        """Nothing may use it any more."""
        link, self._link = self._link, None
        self._failure = self._failure or "it was left"
        if self in self._stack:
            self._stack.remove(self)
        if self._over is not None:
            self._over.set()
        if self._pool is not None and link is not None:
            if link.in_transaction:
                link.reset()
            self._pool.put(link)


# ---- addresses ----


def connect(url: str) -> Client:
    """The client of a database. Nothing is sent before its first query.

    Arguments:
        url: `mysql://user:password@host:3306/db` or `mariadb://…`, with percent signs for what is special in them, or
            `sqlite:///file.db` (in the current folder), `sqlite:////folder/file.db`, `sqlite://:memory:`. Options after
            a `?`: `pool=8` (connections at once), `timeout=10` (seconds, see TIMEOUT), and for MySQL
            `socket=/path` and `ssl=` as `MySQL` has them.
    Raises:
        ValueError: names the part that is wrong.
    """
    scheme, colon, rest = url.partition("://")
    scheme = scheme.lower()
    if not colon or scheme not in ("mysql", "mariadb", "sqlite"):
        raise ValueError("the database's URL begins with mysql://, mariadb:// or sqlite://")
    rest, _, query = rest.partition("?")
    if "@" in query:
        raise ValueError("the database's URL: write %3F for ? in a password, and %40 for @")
    options = _options(query, scheme)
    if scheme == "sqlite":
        from .sqlite import SQLite

        return SQLite(_file(rest), **options)
    try:
        from .mysql import MySQL
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f"for MySQL a driver is needed: pip install asyncmy ({error})", name=error.name
        ) from None
    try:
        parts = urlsplit(f"mysql://{rest}")
        port = parts.port
    except ValueError:
        raise ValueError(
            "the database's URL: host or port are none (write %40 for @ in a password, %2F for /)"
        ) from None
    name = unquote(parts.path[1:])
    if "/" in name or not name:
        raise ValueError("the database's URL: after the host comes /, and the name of the database")
    if parts.fragment or "#" in rest:
        raise ValueError("the database's URL: write %23 for #")
    host = unquote(parts.hostname or "") or "127.0.0.1"
    return MySQL(unquote(parts.username or ""), unquote(parts.password or ""), name, host, port or 3306, **options)


def _options(query: str, scheme: str) -> dict[str, Any]:
    kinds: dict[str, Any] = {"pool": int, "timeout": float}
    if scheme != "sqlite":
        kinds |= {"ssl": str, "socket": str}
    options: dict[str, Any] = {}
    try:
        pairs = parse_qsl(query, keep_blank_values=True, strict_parsing=bool(query))
    except ValueError:
        raise ValueError("the database's URL: options are name=value, with & between them") from None
    for name, value in pairs:
        if name not in kinds:
            raise ValueError(f"the database's URL: no option {name!r}; there are {', '.join(sorted(kinds))}")
        if name in options:
            raise ValueError(f"the database's URL: option {name} twice")
        try:
            options[name] = kinds[name](value)
        except ValueError:
            raise ValueError(f"the database's URL: {name}={value} is no number") from None
    return options


def _file(rest: str) -> str:
    if rest == ":memory:" or rest == "/:memory:":
        return ":memory:"
    if not rest.startswith("/") or len(rest) == 1:
        raise ValueError("the database's URL: sqlite:///file.db, sqlite:////folder/file.db or sqlite://:memory:")
    return unquote(rest[1:])

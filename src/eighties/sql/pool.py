"""The connections of one worker to one database: bounded, made when first wanted, handed out first come, first served.

A pool owns its links; who takes one puts it back whatever happens, and a link that cannot be used again is closed then.
Links are made in tasks of the pool: who wanted one may be gone when it is there. It belongs to one loop; `Client` is
its only caller.
"""

from __future__ import annotations

import asyncio
import contextvars
from collections import OrderedDict
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from typing import Any, Generic, Protocol, TypeVar, cast

from .errors import ClientClosed, DatabaseError, PoolTimeout, ServerDown

CLOSING_TIMEOUT = 5.0
"""Seconds that `close` waits for queries under way; a worker has 10 s to stop (DESIGN §5)."""

Row = tuple[Any, ...]


class Result:
    """What a statement gave.

    Attributes:
        affected_rows: rows that were written, or that an UPDATE found, changed by it or not.
        last_insert_id: the id that an INSERT made, of several rows MySQL's first and SQLite's last; 0 if it made none.
        rows: tuples, if it gave any.
        columns: their names.
    """

    __slots__ = ("affected_rows", "columns", "last_insert_id", "rows")

    def __init__(
        self,
        affected_rows: int,
        last_insert_id: int = 0,
        rows: Sequence[Row] = (),
        columns: Sequence[str] = (),
    ) -> None:
        self.affected_rows = affected_rows
        self.columns = columns
        self.last_insert_id = last_insert_id
        self.rows = rows

    def __repr__(self) -> str:
        return (
            f"Result(affected_rows={self.affected_rows}, last_insert_id={self.last_insert_id}, rows={len(self.rows)})"
        )


class Link(Protocol):
    """One connection. Its owner uses it for one thing at a time."""

    def alive(self) -> bool:
        """Whether it can still be used by who has it."""

    def usable(self) -> bool:
        """Whether it can be put back: nothing is left of what was done with it. Costs next to nothing."""

    def fresh(self) -> bool:
        """Whether it is still connected after a time of idleness. Asks the system, not the server."""

    @property
    def in_transaction(self) -> bool:
        """Whether the database says so, when it was last heard."""

    async def run(self, sql: str, args: Sequence[object]) -> Result:
        """One statement, in the driver's text. Raises the errors of errors.py, and nothing else but cancellation."""

    def stream(self, sql: str, args: Sequence[object]) -> AsyncGenerator[tuple[Sequence[Row], Sequence[str]], None]:
        """The rows of one, in parts, and their columns. Left early, the link may be of no more use."""

    async def refresh(self) -> None:
        """Learn whether a transaction is open, after an error."""

    def reset(self) -> None:
        """Have no transaction open, whatever it does: roll it back without waiting, or drop the link."""

    def drop(self) -> None:
        """Close it at once, whatever it does."""

    async def close(self) -> None:
        """Close it well. Idle ones only."""


L = TypeVar("L", bound=Link)


class Pool(Generic[L]):
    """`take` or `acquire` a link, and `put` it back."""

    def __init__(
        self,
        connect: Callable[[], Awaitable[L]],
        size: int,
        timeout: float,
        name: str,
        finish: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        """
        Arguments:
            connect: makes a link; bounds the time it takes itself.
            size: the most there may be at once.
            timeout: seconds to wait for one, whether it is in use or being made.
            name: of the database, for errors.
            finish: awaited when the pool is closed, at the end.
        """
        self.size = size
        self.closed = False
        self._connect = connect
        self._finish = finish
        self._timeout = timeout
        self._name = name
        self._links: set[L] = set()
        self._idle: list[L] = []  # the last one used is taken first: what is not needed stays idle
        self._making: set[asyncio.Task[None]] = set()
        self._failure = ""  # of the last one that could not be made, if none was made since
        self._waiting: OrderedDict[asyncio.Future[L], float] = OrderedDict()  # until when, by the loop's clock
        self._timer: asyncio.TimerHandle | None = None
        self._empty: asyncio.Future[None] | None = None

    def __repr__(self) -> str:
        busy = len(self._links) - len(self._idle)
        return f"<Pool of {self._name}: {busy} of {self.size} in use, {len(self._waiting)} waiting>"

    def take(self) -> L | None:
        """An idle link if there is one: those that were lost while idle are thrown away."""
        idle = self._idle
        while idle:
            link = idle.pop()
            if link.fresh():
                return link
            self._lose(link)
        return None

    async def acquire(self) -> L:
        """A link: an idle one, a new one, or the next that is put back.

        Raises:
            ServerDown, PoolTimeout, ClientClosed
        """
        if self.closed:
            raise ClientClosed(f"{self._name}: the client is closed")
        link = self.take()
        if link is not None:
            return link
        self._make()
        return await self._wait()

    def put(self, link: L) -> None:
        """Give a link back. The one who waits longest gets it."""
        if self.closed or not link.usable():
            self._lose(link)
        else:
            self._hand(link)

    def _hand(self, link: L) -> None:
        waiter = self._next()
        if waiter is None:
            self._idle.append(link)
        else:
            waiter.set_result(link)

    async def close(self, timeout: float = CLOSING_TIMEOUT) -> None:
        """Refuse whoever waits, close what is idle, let queries under way end within `timeout` seconds."""
        self.closed = True
        if self._timer is not None:
            self._timer.cancel()
        self._fail(ClientClosed(f"{self._name}: the client was closed"))
        making = list(self._making)
        for task in making:
            task.cancel()
        idle, self._idle = self._idle, []
        for link in idle:
            self._links.discard(link)
        try:
            if idle:
                await asyncio.wait([asyncio.ensure_future(link.close()) for link in idle], timeout=CLOSING_TIMEOUT)
            if self._links and timeout > 0:
                self._empty = asyncio.get_running_loop().create_future()
                await asyncio.wait([self._empty], timeout=timeout)
        finally:
            for link in idle:
                link.drop()
            self.drop()
        if making:
            await asyncio.wait(making, timeout=CLOSING_TIMEOUT)
        if self._finish is not None:
            await self._finish()
        await asyncio.sleep(0)  # transports that were aborted say so at the loop's next turn

    def drop(self) -> None:
        """Close everything at once."""
        self.closed = True
        for task in self._making:
            task.cancel()
        links, self._links, self._idle = self._links, set(), []
        for link in links:
            link.drop()

    def _make(self) -> None:
        """Begin to make a link, if there may be one more."""
        if len(self._links) + len(self._making) < self.size:
            loop = asyncio.get_running_loop()
            task = loop.create_task(self._open(), context=contextvars.Context())
            self._making.add(task)
            task.add_done_callback(self._made)

    async def _open(self) -> None:
        """A new link, for whoever waits then."""
        link = await self._connect()
        self._making.discard(cast(asyncio.Task[None], asyncio.current_task()))
        self._failure = ""
        if self.closed:
            link.drop()
            return
        self._links.add(link)
        self._hand(link)  # whatever it is like: one that is refused would be made again and again

    def _made(self, task: asyncio.Task[None]) -> None:
        """A link was made, or could not be: then nobody waits in vain, unless there are others that come back."""
        self._making.discard(task)
        error = asyncio.CancelledError() if task.cancelled() else task.exception()
        if error is None:
            return
        if not isinstance(error, Exception):
            error = ClientClosed(f"{self._name}: the client was closed")
        self._failure = str(error)
        if not self._links and not self._making:
            self._fail(error)

    def _fail(self, error: Exception) -> None:
        """Tell all who wait."""
        while (waiter := self._next()) is not None:
            waiter.set_exception(_another(error))

    async def _wait(self) -> L:
        """Wait for a link."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[L] = loop.create_future()
        self._waiting[future] = loop.time() + self._timeout
        if self._timer is None:
            # Of nobody's context: a timer would hold the variables of who waits, and so a program that is gone.
            self._timer = loop.call_later(self._timeout, self._expire, context=contextvars.Context())
        try:
            return await future
        except asyncio.CancelledError:
            if future.done() and not future.cancelled() and future.exception() is None:  # ours, and not wanted any more
                self.put(future.result())
            raise
        finally:
            self._waiting.pop(future, None)
            del future  # an error's traceback has this frame, and the future has the error

    def _expire(self) -> None:
        """Those who came first have waited long enough; one timer does for all, and comes again while anyone waits."""
        loop = asyncio.get_running_loop()
        self._timer = None
        while self._waiting:
            future, deadline = next(iter(self._waiting.items()))
            if deadline > loop.time():
                self._timer = loop.call_at(deadline, self._expire, context=contextvars.Context())
                return
            del self._waiting[future]
            if not future.done():
                future.set_exception(self._late())

    def _late(self) -> DatabaseError:
        """What is told to those who have waited long enough."""
        if not self._links:
            return ServerDown(f"{self._name}: no connection within {self._timeout:g} s")
        size = f"pool={self.size}"
        if self._failure:
            size = f"{len(self._links)}, and no more could be made: {self._failure}"
        return PoolTimeout(f"{self._name}: all connections of the pool ({size}) were in use for {self._timeout:g} s")

    def _next(self) -> asyncio.Future[L] | None:
        """Who waits longest."""
        while self._waiting:
            future, _ = self._waiting.popitem(last=False)
            if not future.done():
                return future
        return None

    def _lose(self, link: L) -> None:
        """A link that is of no more use: if somebody waits, another is made in its place."""
        link.drop()
        if link not in self._links:
            return
        self._links.discard(link)
        if self._waiting and not self.closed:
            self._make()
        if self._empty is not None and not self._links and not self._empty.done():
            self._empty.set_result(None)


def _another(error: Exception) -> Exception:
    """The same once more: each who waits gets one of his own, with his own traceback."""
    if not isinstance(error, DatabaseError):
        return error
    copy = type(error)(*error.args)
    copy.__cause__ = error.__cause__
    return copy

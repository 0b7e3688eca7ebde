"""asyncmy's connection as `mysql.py` needs it: typed, made as we want it, and ended on the server too.

What is used of the driver's insides is named here (tests/test_sql_driver.py sees to it that it is there).
"""

from __future__ import annotations

import asyncio
import contextvars
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any, NoReturn, Protocol

from asyncmy import errors as driver
from asyncmy.constants import CLIENT
from asyncmy.cursors import SSCursor

from .errors import ServerDown
from .pool import Row

if TYPE_CHECKING:
    from ssl import SSLContext

    class Answer(Protocol):
        """asyncmy's MySQLResult."""

        affected_rows: int
        insert_id: int
        rows: tuple[Row, ...] | None
        server_status: int
        description: tuple[tuple[Any, ...], ...]
        has_next: int

    class Prepared(Protocol):
        """asyncmy's PreparedStatement."""

        parameter_count: int

        async def _execute_cursor(self, args: tuple[Any, ...], cursor: Any) -> bool: ...
        async def close(self) -> None: ...

    class _State(Protocol):
        """What it holds of a stream: `buffer[pos:length]` was received and not yet read."""

        length: int
        pos: int

    class Connection:
        """asyncmy's, whose own stubs leave out most of this."""

        server_capabilities: int
        server_status: int
        server_thread_id: tuple[int]
        loop: asyncio.AbstractEventLoop
        _client_flag: int
        _proto: _State
        _result: Answer
        _auth_plugin_map: dict[bytes, Any]
        _ssl_context: SSLContext | None
        _stream_broken: bool
        _transport: asyncio.Transport | None

        def __init__(self, **options: Any) -> None: ...
        async def connect(self) -> object: ...
        async def query(self, sql: str) -> int: ...
        async def next_result(self) -> int: ...
        async def prepare(self, sql: str) -> Prepared: ...
        async def ensure_closed(self) -> None: ...
        async def _get_server_information(self) -> None: ...
        def close(self) -> None: ...
        def cursor(self, cursor: type[SSCursor]) -> SSCursor: ...
else:
    from asyncmy.connection import Connection

KILLING_TIMEOUT = 1.0
"""Seconds that closing a client waits for cancelled queries to be ended on the server."""
KILLED_AT_ONCE = 64
"""Queries that wait to be ended on the server; more are left to end by themselves."""

# Whatever the server's init_connect has done to the session: it runs after the server has let us in.
_SESSION = (
    "SET autocommit = 1, sql_mode = REPLACE(@@sql_mode, 'NO_BACKSLASH_ESCAPES', ''), character_set_client = utf8mb4, "
    "character_set_results = utf8mb4, collation_connection = utf8mb4_general_ci"
)
_IDENTITY = "SELECT @@hostname, @@port, @@server_id"
_UPTIME = "SHOW GLOBAL STATUS LIKE 'Uptime'"

Connect = Callable[[], Awaitable["Session"]]


class Session:
    """A connection, and who is at its other end: behind one address there may be several servers."""

    def __init__(self, connection: Connection, server: Row) -> None:
        self.connection = connection
        self.server = server
        self.since = time.monotonic()


class _Refused:
    """Stands for the ways of telling the password in clear."""

    def __init__(self, connection: Connection) -> None:
        pass

    def authenticate(self, packet: object) -> NoReturn:
        raise driver.OperationalError(
            2059, "the server asks for the password in clear, which needs TLS with a certificate that is looked at"
        )


_CLEAR = {b"mysql_clear_password": _Refused, b"dialog": _Refused}


async def _greeted(connection: Connection, tls_required: bool) -> None:
    """What the server has told of itself is followed by what we want: no more than we need, and TLS where there is any.

    Put in the place of the driver's method of an object, not of a class: of a derived class it would be slower.
    """
    await Connection._get_server_information(connection)
    connection._client_flag = (connection._client_flag | CLIENT.FOUND_ROWS) & ~CLIENT.MULTI_STATEMENTS
    context = connection._ssl_context
    if context is not None and not connection.server_capabilities & CLIENT.SSL:
        if tls_required:
            raise driver.OperationalError(2026, "TLS is required, and the server has none")
        context = connection._ssl_context = None
        connection._client_flag &= ~CLIENT.SSL
    if context is None or not context.verify_mode or not context.check_hostname:
        connection._auth_plugin_map = _CLEAR


async def open_session(options: dict[str, Any], tls_required: bool, timeout: float, name: str) -> Session:
    """Connect, within the timeout. Raises ServerDown."""
    connection = Connection(**options)
    vars(connection)["_get_server_information"] = partial(_greeted, connection, tls_required)
    try:
        async with asyncio.timeout(timeout):
            await connection.connect()
            await connection.query(_SESSION)
            session = Session(connection, await _identity(connection))
            connection._result = None  # type: ignore[assignment]  # the driver's faster ways begin so
            return session
    except BaseException as error:
        abort(connection)
        if isinstance(error, TimeoutError):
            raise ServerDown(f"{name}: no connection within {timeout:g} s") from error
        if isinstance(error, driver.MySQLError):
            raise ServerDown(f"{name}: {message(error)}") from error
        if isinstance(error, Exception):  # the driver stumbles in many ways over what is no server
            what = f"{type(error).__name__}: {error}"
            raise ServerDown(f"{name}: that is no server of MySQL, or TLS failed ({what})") from error
        raise


async def _identity(connection: Connection) -> Row:
    """Which server it is; nothing if it does not say."""
    try:
        await connection.query(_IDENTITY)
    except driver.MySQLError as error:
        if connection._stream_broken or len(error.args) < 2 or error.args[0] >= 2000:
            raise
        return ()
    return (connection._result.rows or ((),))[0]


class Killer:
    """Ends on the server what was given up here: it would go on, and hold its locks, until it has an answer to give.

    Of a client's links; for as long as there are such queries it has one connection more than the pool. That one may
    come to another server, or to the same one after a new start: a number means somebody else there.
    """

    def __init__(self, connect: Connect, timeout: float) -> None:
        self._connect = connect
        self._timeout = timeout
        self._wanted: list[Session] = []
        self._task: asyncio.Task[None] | None = None

    def kill(self, session: Session) -> None:
        """End a session that is closed here."""
        loop = session.connection.loop
        if loop.is_closed() or len(self._wanted) >= KILLED_AT_ONCE:
            return
        self._wanted.append(session)
        if self._task is None:
            self._task = loop.create_task(self._work(), context=contextvars.Context())

    async def close(self) -> None:
        """Have what is wanted done, within a time."""
        if self._task is not None:
            await asyncio.wait([self._task], timeout=KILLING_TIMEOUT)
        if self._task is not None:
            self._task.cancel()

    async def _work(self) -> None:
        try:
            async with asyncio.timeout(self._timeout):
                own = await self._connect()
                try:
                    await own.connection.query(_UPTIME)
                    started = time.monotonic() - int((own.connection._result.rows or ((0, 0),))[0][1])
                    while self._wanted:
                        session = self._wanted.pop()
                        if own.server and session.server == own.server and session.since >= started:
                            with suppress(driver.OperationalError):  # it is gone already
                                await own.connection.query(f"KILL {session.connection.server_thread_id[0]}")
                finally:
                    abort(own.connection)
        except Exception:  # noqa: BLE001 then they end by themselves
            pass
        finally:
            self._wanted.clear()
            self._task = None


def abort(connection: Connection) -> None:
    """Close it at once."""
    if connection._transport is not None:
        connection._transport.abort()
    connection.close()


def message(error: BaseException) -> str:
    """The text of a driver's error."""
    return str(error.args[-1]) if error.args else type(error).__name__

"""MySQL and MariaDB, through asyncmy: queries with arguments are prepared statements, so the arguments are never text.

Each link keeps its prepared statements. A link whose stream may be out of step (a query cancelled, an answer that makes
no sense, rows left unread) is closed, not put back: nobody ever gets another's rows. `Client` owns the links' pool.
"""

from __future__ import annotations

import asyncio
import os
import re
import select
import socket
import struct
from collections import OrderedDict
from collections.abc import AsyncGenerator, Sequence
from contextlib import suppress
from decimal import Decimal
from functools import lru_cache, partial
from typing import TYPE_CHECKING, Any, NoReturn, cast

from asyncmy import errors as driver
from asyncmy.constants import FIELD_TYPE
from asyncmy.cursors import SSCursor
from asyncmy.protocol import pack_binary_params

from ..promise import Promise, promise_of
from .arguments import for_mysql, for_sqlite
from .client import TIMEOUT, Client, check_bounds
from .driver import Connect, Killer, Session, abort, message, open_session
from .errors import ConnectionLost, DatabaseError, Duplicate, QueryError
from .pool import Pool, Result, Row

if TYPE_CHECKING:
    from ssl import SSLContext

    from .driver import Connection, Prepared

POOL = 8
"""Connections of a worker: with 4 workers and 3 machines 96 of the 151 that a server allows unless it is told more."""
STATEMENTS = 128
"""Prepared statements of a link; with a pool of 8 and 4 workers a quarter of the server's 16,382."""
PART = 256
"""Rows of a stream that are handed on at once."""
KEEPALIVE = 60
"""Seconds of silence until the system asks the server's for a sign; after 6 questions, 10 s apart, it is gone."""
UNSENT_TIMEOUT = 30
"""Seconds until the system gives up what the server's does not confirm."""

_IN_TRANSACTION = 1
_AUTOCOMMIT = 2
_BETWEEN = _IN_TRANSACTION | _AUTOCOMMIT
_DUPLICATES = (1022, 1062, 1586)
_UNPREPARED = (1295, 1461)  # no such statement can be prepared; there are too many on the server
# The server's last words on a connection: shutting down, killed, idle for too long, network errors as it saw them.
_FAREWELLS = frozenset({1053, 1077, 1079, 1080, 1152, 1158, 1159, 1160, 1161, 1184, 1927, 3169, 4031})
_DATES = (FIELD_TYPE.TIMESTAMP, FIELD_TYPE.DATETIME, FIELD_TYPE.DATE, FIELD_TYPE.NEWDATE)


class MySQL(Client):
    """A database on a server of MySQL or MariaDB.

    Sessions are in utf8mb4 and commit each statement; time zone and sql_mode are the server's, but for
    NO_BACKSLASH_ESCAPES, which is taken out. LOAD DATA LOCAL and several statements in one query are off. What a
    program sets in a session (variables, temporary tables, locks) stays with a connection that others get next.
    """

    dialect = "mysql"

    def __init__(
        self,
        username: str = "",
        password: str = "",
        db_name: str = "",
        host: str = "127.0.0.1",
        port: int = 3306,
        pool: int = POOL,
        timeout: float = TIMEOUT,
        ssl: str | bool | SSLContext | None = None,
        socket: str | None = None,
    ) -> None:
        """
        Arguments:
            username, password, db_name: whose it is, and which.
            host, port: where the server is; socket: the path of its unix socket instead.
            pool: connections at once.
            timeout: seconds until there is a connection, waited for or made.
            ssl: None: TLS if the server offers it, and its certificate is not looked at. "on" or True: TLS, with a
                certificate that the system trusts and that is for `host`. A path: with one that the authorities of that
                file have signed. "unverified": TLS. "off" or False: none. Or a context of your own.
        Raises:
            ValueError: `pool`, `timeout` or `ssl` are none of these.
        """
        super().__init__(_name(username, db_name, host, port, socket), pool, timeout)
        _tls(ssl, check=True)
        self._where: dict[str, Any] = {"host": host, "port": port, "unix_socket": socket}
        self._who: dict[str, Any] = {
            "user": username or None,
            "password": password.encode(),
            "database": db_name or None,
        }
        self._ssl = ssl

    def connect(
        self,
        username: str,
        password: str,
        db_name: str,
        host: str = "127.0.0.1",
        port: int = 3306,
        pool: int = POOL,
    ) -> Promise:
        """Use that database, and see whether it can be reached: a promise of the client."""
        check_bounds(pool, self._timeout)
        self._name = _name(username, db_name, host, port, None)
        self._where = {"host": host, "port": port, "unix_socket": None}
        self._who = {"user": username or None, "password": password.encode(), "database": db_name or None}
        self._size = pool
        return promise_of(self._reconfigured())

    def _make_pools(self) -> list[Pool[Any]]:
        context, required = _tls(self._ssl, check=False)
        options = {**self._where, **self._who, "ssl": context, "autocommit": None, "connect_timeout": self._timeout}
        if options["unix_socket"] and not required:
            options["ssl"] = None
        connect = partial(open_session, options, required, self._timeout, self._name)
        killer = Killer(connect, self._timeout)
        pool = Pool(partial(_connect, connect, killer), self._size, self._timeout, self._name, killer.close)
        return [pool, pool]

    async def _escape(self, text: str) -> str:
        return text.translate(_ESCAPES)


# A quote is doubled: that ends no text, whatever sql_mode has backslashes mean.
_ESCAPES = str.maketrans({"\0": "\\0", "\n": "\\n", "\r": "\\r", "\x1a": "\\Z", '"': '\\"', "'": "''", "\\": "\\\\"})


def _name(username: str, db_name: str, host: str, port: int, path: str | None) -> str:
    """What errors call the database. The password is not in it."""
    return f"{username}@{path or f'{host}:{port}'}/{db_name}"


def _tls(option: str | bool | SSLContext | None, check: bool) -> tuple[SSLContext | None, bool]:
    """The context, and whether there must be TLS. With `check` only whether the option is one."""
    if option is False or option in ("off", "false", "0", "no"):
        return None, False
    trusted = option is True or option in ("on", "true", "1", "yes")
    if check:
        if isinstance(option, str) and not trusted and option != "unverified" and not os.path.isfile(option):
            raise ValueError(f"ssl={option}: on, off, unverified, or the path of a file of certificates")
        return None, False
    import ssl

    if isinstance(option, ssl.SSLContext):
        return option, True
    if option is None or option == "unverified":
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        return context, option is not None
    return ssl.create_default_context(cafile=None if trusted else str(option)), True


# ---- links ----


class _Statement:
    """A prepared statement, and what is known of its columns. It takes the place of a cursor of the driver's."""

    __slots__ = ("columns", "description", "floats", "known", "prepared", "rows")

    def __init__(self, prepared: Prepared) -> None:
        self.prepared = prepared
        self.rows: Sequence[Row] = ()
        self.description: tuple[tuple[Any, ...], ...] = ()
        self.known: object = None  # the description that the next two were made from
        self.columns: tuple[str, ...] = ()
        self.floats: tuple[int, ...] = ()

    def _set_cached_rows(self, rows: tuple[Row, ...], description: tuple[tuple[Any, ...], ...]) -> None:
        self.rows, self.description = rows, description

    async def execute(self, connection: Connection, values: tuple[Any, ...]) -> Result:
        """What it gives for these arguments."""
        if not await self.prepared._execute_cursor(values, self):
            result = connection._result
            if result.rows is None:
                connection.server_status = result.server_status  # the driver overlooks 0
                return Result(result.affected_rows, result.insert_id)
            self.rows, self.description = result.rows, result.description
        rows, self.rows = self.rows, ()
        if self.known is not self.description:
            self.known = self.description
            self.columns = tuple([column[0] for column in self.description])
            self.floats = _columns(self.description, (FIELD_TYPE.FLOAT,))
        if self.floats:
            rows = [_repaired(row, self.floats, _shortest) for row in rows]
        return Result(len(rows), 0, rows, self.columns)


async def _connect(connect: Connect, killer: Killer) -> _Link:
    return _Link(await connect(), killer)


class _Link:
    """A connection. (A `Link` of pool.py.)"""

    def __init__(self, session: Session, killer: Killer) -> None:
        self._session = session
        self._connection = connection = session.connection
        self._killer = killer
        self._busy = False  # the server has not begun to answer
        self._between = connection.server_status & _AUTOCOMMIT  # what it says between statements, if it says so
        self._statements: OrderedDict[str, _Statement] = OrderedDict()
        self._whole = True
        transport = cast(asyncio.Transport, connection._transport)
        sock: socket.socket = transport.get_extra_info("socket")
        if sock.family in (socket.AF_INET, socket.AF_INET6):
            _watch(sock)
        self._poll = select.poll()
        self._poll.register(sock.fileno(), select.POLLIN | select.POLLHUP | select.POLLERR)

    def alive(self) -> bool:
        return self._whole

    def usable(self) -> bool:
        return self._whole and self._connection.server_status & _BETWEEN == self._between

    def fresh(self) -> bool:
        connection = self._connection
        state = connection._proto
        # Bytes that nobody asked for are the end of the stream, or the server's last words.
        return not (connection._stream_broken or state.length != state.pos or self._poll.poll(0))

    @property
    def in_transaction(self) -> bool:
        return bool(self._connection.server_status & _IN_TRANSACTION)

    async def run(self, sql: str, args: Sequence[object]) -> Result:
        if not args:
            return await self._text(sql, ())
        values = for_mysql(args)
        self._busy = True
        try:
            kept = self._statements.get(sql)
            if kept is None:
                try:
                    kept = await self._prepare(sql, len(values))
                except driver.MySQLError as error:
                    if error.args[:1] and error.args[0] in _UNPREPARED:
                        return await self._text(sql, values)
                    raise
            else:
                self._statements.move_to_end(sql)
            try:
                result = await kept.execute(self._connection, values)
            except driver.MySQLError as error:
                if not _forgotten(error, sql):
                    raise
                del self._statements[sql]
                kept = await self._prepare(sql, len(values))
                result = await kept.execute(self._connection, values)
            self._busy = False
            return result
        except BaseException as error:  # noqa: BLE001
            self._fail(error, sql, values)

    async def _prepare(self, sql: str, given: int) -> _Statement:
        """Prepare and keep a statement."""
        statement = await self._connection.prepare(_question_marks(sql))
        if statement.parameter_count != given:
            await statement.close()
            raise QueryError(f"the query has {statement.parameter_count} markers, but {given} arguments", sql)
        kept = self._statements[sql] = _Statement(statement)
        if len(self._statements) > STATEMENTS:
            _, oldest = self._statements.popitem(last=False)
            await oldest.prepared.close()
        return kept

    async def _text(self, sql: str, values: tuple[Any, ...]) -> Result:
        """A statement as text: without arguments, or such as the server does not prepare."""
        connection = self._connection
        text = _filled(sql, values)
        self._busy = True
        try:
            await connection.query(text)
            result = connection._result
            while connection._result.has_next:  # of a procedure: its first rows count
                await connection.next_result()
            self._busy = False
        except BaseException as error:  # noqa: BLE001
            self._fail(error, sql, values)
        rows: Sequence[Row] | None = result.rows
        if rows is None:
            if result is connection._result:
                connection.server_status = result.server_status  # the driver overlooks 0
            return Result(result.affected_rows, result.insert_id)
        dates = _columns(result.description, _DATES)
        if dates:
            rows = [_repaired(row, dates, _no_text) for row in rows]
        return Result(result.affected_rows, result.insert_id, rows, [column[0] for column in result.description])

    async def stream(
        self, sql: str, args: Sequence[object]
    ) -> AsyncGenerator[tuple[Sequence[Row], Sequence[str]], None]:
        values = for_mysql(args)
        text = _filled(sql, values)
        whole, self._whole = self._whole, False  # until the end was read
        self._busy = True
        try:
            cursor = self._connection.cursor(SSCursor)
            await cursor.execute(text)
            self._busy = False
            description = cast("Sequence[Sequence[Any]]", cursor.description or ())
            names = [column[0] for column in description]
            dates = _columns(description, _DATES)
            while description and (rows := cast("list[Row]", await cursor.fetchmany(PART))):
                yield [_repaired(row, dates, _no_text) for row in rows] if dates else rows, names
            while await cursor.nextset():
                pass
            self._whole = whole
        except GeneratorExit:
            self.drop()
            raise
        except BaseException as error:  # noqa: BLE001
            self._whole = whole
            self._busy = True
            self._fail(error, sql, values)
        finally:
            if not self._whole:
                self.drop()

    def _fail(self, error: BaseException, sql: str, values: tuple[Any, ...]) -> NoReturn:
        """Raise what an error of the driver's means. The link is closed unless it is in step with the server."""
        busy, self._busy = self._busy, False
        if isinstance(error, DatabaseError):
            _again(error)
        code = error.args[0] if isinstance(error, driver.MySQLError) and len(error.args) > 1 else None
        if isinstance(code, int) and 1000 <= code and not 2000 <= code < 3000 and code not in _FAREWELLS:
            raise (Duplicate if code in _DUPLICATES else QueryError)(message(error), sql, code) from error
        if isinstance(error, ValueError):  # of an argument before it was sent, or of the answer
            pack_binary_params(values, "utf8")
        self._busy = busy and not isinstance(error, Exception)  # given up: the server does not know
        self.drop()
        if not isinstance(error, Exception):
            _again(error)
        if isinstance(error, driver.MySQLError):
            raise ConnectionLost(f"the connection was lost in a query: {message(error)}") from error
        raise ConnectionLost(f"the server's answer makes no sense ({type(error).__name__}: {error})") from error

    async def refresh(self) -> None:
        await self._text("DO 0", ())

    def reset(self) -> None:
        self.drop()

    def drop(self) -> None:
        busy, self._busy = self._busy, False
        self._whole = False
        self._statements.clear()
        abort(self._connection)
        if busy:
            self._killer.kill(self._session)

    async def close(self) -> None:
        self._whole = False
        with suppress(Exception):
            await self._connection.ensure_closed()


def _again(error: BaseException) -> NoReturn:
    try:
        raise error
    finally:
        del error  # its traceback has this frame


def _forgotten(error: driver.MySQLError, sql: str) -> bool:
    """Whether an execution did nothing, since the server has not that statement any more, or must make it anew.

    What a procedure runs may fail in the same way, after it has done other things.
    """
    if error.args[:1] == (1243,):
        return message(error).endswith("mysqld_stmt_execute")
    return error.args[:1] == (1615,) and not sql.lstrip()[:4].upper() == "CALL"


def _filled(sql: str, values: tuple[Any, ...]) -> str:
    """A query with its arguments as literals, for what is not prepared: neither charset nor sql_mode matter to these.

    Raises:
        QueryError: they do not fit. ValueError: one of them cannot be written.
    """
    if "%" not in sql:
        return sql
    literals = tuple([_literal(value) for value in values])
    try:
        return sql % literals
    except (TypeError, ValueError):
        raise QueryError(f"markers and {len(values)} arguments do not fit", sql) from None


def _literal(value: Any) -> str:
    if value is None:
        return "NULL"
    if isinstance(value, Decimal):
        return format(value, "f")
    (plain,) = for_sqlite((value,))
    if isinstance(plain, bytes):
        return f"X'{plain.hex()}'"
    if isinstance(plain, str):
        return f"_utf8mb4 X'{plain.encode().hex()}'"
    return repr(float(plain)) if isinstance(plain, float) else str(int(plain))


def _watch(sock: socket.socket) -> None:
    """Have the system notice a server that goes without a word."""
    for option, value in (("TCP_KEEPIDLE", KEEPALIVE), ("TCP_KEEPINTVL", 10), ("TCP_KEEPCNT", 6)):
        if hasattr(socket, option):
            sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), value)
    if hasattr(socket, "TCP_USER_TIMEOUT"):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, UNSENT_TIMEOUT * 1000)


@lru_cache(1024)
def _question_marks(sql: str) -> str:
    """The server's own markers for the driver's."""
    if re.sub("%%|%s", "", sql).find("%") >= 0:
        raise QueryError("a percent sign is written %% beside arguments", sql)
    return re.sub("%(.)", lambda match: "?" if match[1] == "s" else "%", sql)


# ---- values: a row must not tell whether its query had arguments ----


def _columns(description: Sequence[Sequence[Any]], kinds: tuple[int, ...]) -> tuple[int, ...]:
    return tuple([index for index, column in enumerate(description) if column[1] in kinds])


def _repaired(row: Row, columns: tuple[int, ...], repair: Any) -> Row:
    values = list(row)
    for index in columns:
        values[index] = repair(values[index])
    return tuple(values)


def _no_text(value: Any) -> Any:
    """Dates that are none, such as 0000-00-00, come as text in the text protocol, and as None in the binary one."""
    return None if isinstance(value, str) else value


def _shortest(value: Any) -> Any:
    """The shortest number that is the same FLOAT: 0.1, where the nearest double is 0.10000000149011612."""
    if value is None:
        return None
    wanted = struct.pack("f", value)
    for digits in (6, 7, 8):
        short = float(f"{value:.{digits}g}")
        with suppress(OverflowError):
            if struct.pack("f", short) == wanted:
                return short
    return value

"""What MySQL's sessions are made of: the driver's insides, what the server does to sessions, what is ended on it."""

from __future__ import annotations

import asyncio
import inspect
from typing import Any

import asyncmy.connection
import asyncmy.protocol
import pytest
from database import USER, MariaDB, run, statement

from eighties.sql import ConnectionLost, MySQL, QueryError, ServerDown, TransactionError, connect

pytestmark = [pytest.mark.usefixtures("loops"), pytest.mark.pure]


def test_the_insides_that_are_used_are_there(mysql: str) -> None:
    """asyncmy is pinned to versions that have them; a new one is tried here first."""
    connections: Any = asyncmy.connection.Connection
    statements: Any = asyncmy.connection.PreparedStatement
    assert list(inspect.signature(connections._process_auth).parameters) == ["self", "plugin_name", "auth_packet"]
    assert callable(connections._get_server_information) and callable(statements._execute_cursor)
    assert callable(asyncmy.protocol.pack_binary_params)

    async def main() -> None:
        db = connect(mysql)
        assert await db.select_value("SELECT %s", 1) == 1
        (link,) = db._pools[0]._links
        connection: Any = link._connection
        for name in (
            "_auth_plugin_map _client_flag _proto _result _ssl_context _stream_broken _transport server_capabilities "
            "server_status server_thread_id ensure_closed next_result prepare query"
        ).split():
            assert hasattr(connection, name), name
        state = connection._proto
        assert state.length == state.pos
        assert link._statements["SELECT %s"].prepared.parameter_count == 1
        await db.close()

    run(main())


def test_nothing_is_run_twice(mysql: str) -> None:
    """Errors of what a procedure runs are those that a statement has which cannot be prepared, or is not there."""

    async def main() -> None:
        db = connect(mysql + "?pool=1")
        await db.exec("CREATE TABLE t (id INT)")
        await db.exec("CREATE PROCEDURE p1(a INT) BEGIN INSERT INTO t VALUES (a); EXECUTE missing; END")
        await db.exec("CREATE PROCEDURE p2(a INT) BEGIN INSERT INTO t VALUES (a); PREPARE s FROM 'PREPARE x'; END")
        for code in (1295, 1461, 1243, 1615):
            await db.exec(
                f"CREATE PROCEDURE s{code}(a INT) BEGIN INSERT INTO t VALUES (a); "
                f"SIGNAL SQLSTATE 'HY000' SET MYSQL_ERRNO = {code}, MESSAGE_TEXT = 'no'; END"
            )
        calls = ["p1", "p2", "s1295", "s1461", "s1243", "s1615"]
        for number, name in enumerate(calls):
            with pytest.raises(QueryError):
                await db.exec(f"CALL {name}(%s)", number)
        assert await db.fetch("SELECT id, COUNT(*) FROM t GROUP BY id ORDER BY id") == [
            (number, 1) for number in range(len(calls))
        ]
        # A statement that the server has forgotten is made anew.
        (link,) = db._pools[0]._links
        assert await db.select_value("SELECT %s", 1) == 1
        for number in range(1, 30):
            link._connection._write_bytes(b"\5\0\0\0\x19" + number.to_bytes(4, "little"))  # COM_STMT_CLOSE
        assert await db.select_value("SELECT %s", 2) == 2
        await db.close()

    run(main())


def test_what_the_server_does_to_sessions(mariadb: MariaDB, mysql: str) -> None:
    """`init_connect` runs after the server has let us in, and without its word in what it said then."""
    name = "reader"
    statement(mysql, f"CREATE OR REPLACE USER {name}@'%' IDENTIFIED BY 'x'")  # who may everything is spared it
    mode = "CONCAT(@@sql_mode, ',NO_BACKSLASH_ESCAPES')"
    statement(mysql, f'SET GLOBAL init_connect = "SET NAMES gbk, autocommit = 0, sql_mode = {mode}"')

    async def main() -> None:
        db = MySQL(name, "x", "", "127.0.0.1", mariadb.port)
        asked = "SELECT @@autocommit, @@character_set_client, @@character_set_connection, @@character_set_results"
        assert await db.fetch(asked) == [(1, "utf8mb4", "utf8mb4", "utf8mb4")]
        assert "NO_BACKSLASH" not in await db.select_value("SELECT @@sql_mode")
        assert await db.select_value("SELECT 'it\\'s ü🎸'") == "it's ü🎸"
        await db.close()

    try:
        run(main())
    finally:
        statement(mysql, "SET GLOBAL init_connect = ''")
        statement(mysql, f"DROP USER {name}@'%'")


def test_literals_in_any_charset(mysql: str) -> None:
    """Of a stream: after SET NAMES gbk a byte before a backslash may swallow it."""

    async def main() -> None:
        db = connect(mysql + "?pool=1")
        await db.exec("SET NAMES gbk")
        for evil in ("뿿' OR 1=1 -- ", "\ubfff\\' OR 1=1 -- ", "縗' OR 1=1 -- ", "\\", "'", ""):
            rows = [row async for row in db.iterate("SELECT HEX(%s), 1 = 0 AND %s = 'x'", (evil, evil))]
            assert rows == [(evil.encode().hex().upper(), 0)], evil
        await db.close()

    run(main())


def test_autocommit_that_was_turned_off_is_not_handed_on(mysql: str) -> None:
    async def main() -> None:
        db = connect(mysql + "?pool=1")
        await db.exec("SET autocommit = 0")
        assert await db.select_value("SELECT @@autocommit") == 1
        await db.close()

    run(main())


@pytest.mark.parametrize("plugin", ["mysql_clear_password", "dialog"])
@pytest.mark.parametrize("option", [None, "off"])
def test_the_password_is_not_told_in_clear(plugin: str, option: str | None) -> None:
    """To whoever answers at the server's address."""
    heard = bytearray()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        def send(number: int, body: bytes) -> None:
            writer.write(len(body).to_bytes(3, "little") + bytes([number]) + body)

        capabilities = 0x000FF7FF & ~0x800  # no TLS
        low, high = capabilities & 0xFFFF, capabilities >> 16
        greeting = b"\x0a8.0.1\0" + (7).to_bytes(4, "little") + b"12345678\0" + low.to_bytes(2, "little") + b"\x2d\2\0"
        greeting += high.to_bytes(2, "little") + b"\x15" + b"\0" * 10 + b"123456789012\0mysql_native_password\0"
        send(0, greeting)
        await reader.read(4096)
        send(2, b"\xfe" + plugin.encode() + b"\0" + (b"\2Password: " if plugin == "dialog" else b""))
        while part := await reader.read(4096):
            heard.extend(part)
        writer.close()

    async def main() -> None:
        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        db = MySQL(USER, "geheim", "db", "127.0.0.1", port, timeout=3, ssl=option)
        with pytest.raises(ServerDown, match="password in clear"):
            await db.select("SELECT 1")
        await db.close()
        server.close()

    run(main())
    assert b"geheim" not in heard


# ---- ended on the server, too ----

LISTED = "SELECT COUNT(*) FROM information_schema.processlist WHERE info LIKE 'SELECT SLEEP(%%), %%''sleepy'''"


async def sleepers(db: Any, wanted: int) -> None:
    """Until there are so many."""
    async with asyncio.timeout(30):
        while await db.select_value(LISTED.replace("%%", "%")) != wanted:
            await asyncio.sleep(0.01)


@pytest.mark.parametrize("how", ["another server", "it was started anew", "it does not say"])
def test_nobody_else_is_killed(mysql: str, how: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A number is somebody else's on another server, and on the same one after its end."""

    async def main() -> None:
        db, other = connect(mysql + "?pool=1"), connect(mysql)
        if how == "it does not say":
            monkeypatch.setattr("eighties.sql.driver._IDENTITY", "SELECT @@missing")
        number = await db.select_value("SELECT CONNECTION_ID()")
        (link,) = db._pools[0]._links
        if how == "another server":
            link._session.server = ("elsewhere", 3306, 1)
        elif how == "it was started anew":
            link._session.since -= 1e9
        asleep = db.select("SELECT SLEEP(50), 'sleepy'")
        await sleepers(other, 1)
        asleep.cancel()
        await asyncio.sleep(0.4)
        await sleepers(other, 1)
        assert link._killer._task is None and not link._killer._wanted
        await other.exec(f"KILL {number}")
        await sleepers(other, 0)
        await db.close()
        await other.close()

    run(main())


def test_what_is_given_up_ends_on_the_server(mysql: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """By `close` that has waited long enough, and by a transaction that is left while its child still asks."""
    monkeypatch.setattr("eighties.sql.pool.CLOSING_TIMEOUT", 0.1)
    monkeypatch.setattr("eighties.sql.pool.Pool.close.__defaults__", (0.1,))

    async def main() -> None:
        db, other = connect(mysql), connect(mysql)

        async def leave() -> None:
            async with db.transaction():
                children.append(asyncio.ensure_future(db.fetch("SELECT SLEEP(50), 'sleepy'")))
                await asyncio.sleep(50)

        children: list[asyncio.Future[Any]] = []
        leaving = asyncio.create_task(leave())
        await sleepers(other, 1)
        leaving.cancel()
        await asyncio.sleep(0.05)
        leaving.cancel()  # it waits for its child
        with pytest.raises(asyncio.CancelledError):
            await leaving
        await sleepers(other, 0)
        with pytest.raises((ConnectionLost, TransactionError)):
            await children[0]
        asleep = asyncio.ensure_future(db.fetch("SELECT SLEEP(50), 'sleepy'"))
        await sleepers(other, 1)
        await db.close()
        await sleepers(other, 0)
        with pytest.raises(ConnectionLost):
            await asleep
        await other.close()

    run(main())


def test_the_one_who_ends_them_is_bounded(mysql: str) -> None:
    """In time, when its connection hangs, and in what it remembers."""

    async def main() -> None:
        db = connect(mysql + "?timeout=0.5")
        await db.select("SELECT 1")
        (link,) = db._pools[0]._links
        killer = link._killer

        async def hang() -> Any:
            await asyncio.sleep(60)

        killer._connect = hang
        for _ in range(1000):
            killer.kill(link._session)
        task = killer._task
        assert task is not None and 0 < len(killer._wanted) <= 64
        async with asyncio.timeout(30):
            await task
        assert not killer._wanted and killer._task is None
        await db.close()

    run(main())

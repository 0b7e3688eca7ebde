"""MySQL where the network or the server fails: with a proxy that cuts and garbles, and a server that is killed."""

from __future__ import annotations

import asyncio
import datetime
import random
import ssl
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from database import PASSWORD, USER, MariaDB, run, statement
from proxy import Fault, Kind, Proxy

from eighties.sql import ConnectionLost, DatabaseError, MySQL, QueryError, ServerDown, TransactionError, connect

pytestmark = [pytest.mark.usefixtures("loops"), pytest.mark.pure]


async def ask(db: Any, number: int) -> None:
    """A query that gets its own answer."""
    assert await db.select_value("SELECT %s", number) == number


@pytest.mark.parametrize("kind", ["close", "reset", "stall", "garbage"])
@pytest.mark.parametrize("after", [0, 1, 40, 90])
def test_faults_in_the_handshake(mariadb: MariaDB, kind: Kind, after: int) -> None:
    """An error within the timeout, and the next query connects."""

    async def main() -> None:
        async with Proxy(mariadb.port) as proxy:
            db = connect(mariadb.url(port=proxy.port, options="?timeout=1"))
            proxy.fault = Fault(kind, after, b"\xff\x00\x00\x01 no such protocol \x00\xfe\xff")
            started = time.monotonic()
            with pytest.raises(ServerDown) as caught:
                await ask(db, 1)
            assert time.monotonic() - started < 20 and PASSWORD not in str(caught.value)
            proxy.fault = None
            await asyncio.gather(*[ask(db, number) for number in range(20)])
            await db.close()

    run(main())


@pytest.mark.parametrize("arguments", [True, False], ids=["prepared", "text"])
@pytest.mark.parametrize("kind", ["close", "reset"])
@pytest.mark.parametrize("after", [0, 1, 3, 4, 5, 20, 60, 2000])
def test_cut_in_the_answer(mariadb: MariaDB, kind: Kind, after: int, arguments: bool) -> None:
    """The query fails, the next ones do not."""

    async def main() -> None:
        async with Proxy(mariadb.port) as proxy:
            db = connect(mariadb.url(port=proxy.port, options="?timeout=10&pool=2"))
            await ask(db, 1)
            long = "SELECT '" + "x" * 4000 + "', 1"
            for _ in range(2):
                while db._pools[0]._making:  # those that nobody waits for any more
                    await asyncio.sleep(0.001)
                proxy.fault = Fault(kind, after)
                with pytest.raises(ConnectionLost):
                    await (db.select(long + " + %s", 1) if arguments else db.select(long))
                await asyncio.gather(*[ask(db, number) for number in range(10)])
            await db.close()

    run(main())


GARBAGE = [
    b"\x00" * 64,
    b"\xff" * 64,
    b"\x01\x00\x00\x01\xff",
    b"\x09\x00\x00\x01\xff\x15\x04#HY000x",
    b"\x01\x00\x00\x01\x00",
    b"\x01\x00\x00\x01\xfb",
    b"\x05\x00\x00\x01\xfe\xff\xff\xff\xff",
    b"\x01\x00\x00\x01\x02\x05\x00\x00\x02\x03defX",
    b"\x01\x00\x00\x01\x01\x03\x00\x00\x02\x63\xff\xff",
    b"HTTP/1.1 400 Bad Request\r\n\r\n",
]


def test_garbage_in_the_answer(mariadb: MariaDB) -> None:
    """Whatever comes: an error or a wait that can be ended, and then other queries get what they ask for."""

    async def main() -> None:
        chance = random.Random(80)
        more = [bytes(chance.choices([0, 1, 2, 3, 5, 8, 250, 251, 252, 253, 254, 255], k=60)) for _ in range(60)]
        async with Proxy(mariadb.port) as proxy:
            db = connect(mariadb.url(port=proxy.port, options="?timeout=10&pool=2"))
            await ask(db, 1)
            for garbage in GARBAGE + more:
                for after in (0, 5):
                    proxy.fault = Fault("garbage", after, garbage)
                    try:
                        async with asyncio.timeout(0.05):
                            await db.fetch("SELECT %s, 'a'" if after else "SELECT 1, 'a'", (1,) if after else ())
                    except (DatabaseError, TimeoutError):
                        pass
                    proxy.fault = None
                    await ask(db, 7)
            await asyncio.gather(*[ask(db, number) for number in range(20)])
            await db.close()

    run(main())


@pytest.mark.parametrize("reset", [False, True])
@pytest.mark.parametrize("noticed", [False, True], ids=["at once", "noticed"])
def test_lost_while_idle(mariadb: MariaDB, reset: bool, noticed: bool) -> None:
    """No query fails for it, whether the loop has heard of it or not."""

    async def main() -> None:
        async with Proxy(mariadb.port) as proxy:
            db = connect(mariadb.url(port=proxy.port, options="?pool=4"))
            for _ in range(5):
                await asyncio.gather(*[ask(db, number) for number in range(8)])
                proxy.cut(reset)
                if noticed:
                    await asyncio.sleep(0.02)
                else:
                    await asyncio.sleep(0)
                    time.sleep(0.005)
            async with db.transaction():
                await ask(db, 1)
            await db.close()

    run(main())


def test_killed_while_idle(mysql: str) -> None:
    """The server ends a session, with some last words: the next query has another one."""

    async def main() -> None:
        db, other = connect(mysql + "?pool=1"), connect(mysql)
        for _ in range(3):
            session = await db.select_value("SELECT CONNECTION_ID()")
            await other.exec(f"KILL {session}")
            await asyncio.sleep(0.01)
            assert await db.select_value("SELECT CONNECTION_ID()") != session
        await db.exec("SET SESSION wait_timeout = 1")
        session = await db.select_value("SELECT CONNECTION_ID()")
        await asyncio.sleep(1.3)
        assert await db.select_value("SELECT CONNECTION_ID()") != session
        await db.close()
        await other.close()

    run(main())


def test_killed_in_a_query(mysql: str) -> None:
    async def main() -> None:
        db, other = connect(mysql + "?pool=1"), connect(mysql)
        session = await db.select_value("SELECT CONNECTION_ID()")
        for command, error in ((f"KILL QUERY {session}", QueryError), (f"KILL {session}", ConnectionLost)):
            assert await db.select_value("SELECT CONNECTION_ID()") == session
            asleep = db.select_value("SELECT SLEEP(%s)", 50)
            begun = "SELECT COUNT(*) FROM information_schema.processlist WHERE id = %s AND info LIKE %s"
            while not await other.select_value(begun, session, "SELECT SLEEP%"):
                await asyncio.sleep(0.01)
            await other.exec(command)
            with pytest.raises(error, match="interrupted|killed|Lost"):
                await asleep
        assert await db.select_value("SELECT CONNECTION_ID()") != session
        await db.close()
        await other.close()

    run(main())


def test_a_cancelled_query_ends_on_the_server_too(mysql: str) -> None:
    async def main() -> None:
        db, other = connect(mysql), connect(mysql)
        asleep = db.select("SELECT SLEEP(50), 'sleepy'")
        await asyncio.sleep(0.05)
        asleep.cancel()
        listed = "SELECT COUNT(*) FROM information_schema.processlist WHERE info LIKE '%%sleepy%%' AND id <> %s"
        async with asyncio.timeout(20):
            while await other.select_value(listed, await other.select_value("SELECT CONNECTION_ID()")):
                await asyncio.sleep(0.01)
        db.select("SELECT SLEEP(50), 'sleepy'").cancel()
        await db.close()
        await other.close()

    run(main())


def test_lost_in_a_transaction(mariadb: MariaDB, mysql: str) -> None:
    async def main() -> None:
        name = mysql.rpartition("/")[2]
        async with Proxy(mariadb.port) as proxy:
            db = connect(mariadb.url(name, port=proxy.port))
            await db.exec("CREATE TABLE t (id INT PRIMARY KEY)")
            with pytest.raises(ConnectionLost):
                async with db.transaction():
                    await db.exec("INSERT INTO t VALUES (%s)", 1)
                    proxy.cut()
                    await db.exec("INSERT INTO t VALUES (%s)", 2)
            with pytest.raises(TransactionError, match="connection was lost"):
                async with db.transaction():
                    await db.exec("INSERT INTO t VALUES (%s)", 1)
                    proxy.cut()
                    with pytest.raises(ConnectionLost):
                        await db.exec("INSERT INTO t VALUES (%s)", 2)
                    with pytest.raises(TransactionError, match="connection was lost"):
                        await db.exec("INSERT INTO t VALUES (%s)", 3)
            with pytest.raises(ConnectionLost):
                async with db.transaction():
                    await db.exec("INSERT INTO t VALUES (%s)", 1)
                    proxy.cut()
            assert await db.select_value("SELECT COUNT(*) FROM t") == 0
            await db.close()

    run(main())


def test_what_ends_a_transaction_by_itself(mysql: str) -> None:
    """A deadlock rolls back, a change of tables commits: nothing runs on outside of the transaction, unnoticed."""

    async def main() -> None:
        db = connect(mysql)
        await db.exec("CREATE TABLE t (id INT PRIMARY KEY, n INT)")
        await db.exec("INSERT INTO t VALUES (1, 0), (2, 0)")
        both = asyncio.Barrier(2)

        async def lock(first: int, second: int) -> str:
            try:
                async with db.transaction():
                    await db.exec("UPDATE t SET n = n + 1 WHERE id = %s", first)
                    await both.wait()
                    try:
                        await db.exec("UPDATE t SET n = n + 1 WHERE id = %s", second)
                    except QueryError as error:
                        assert error.code == 1213
                        with pytest.raises(TransactionError, match="an error ended it"):
                            await db.exec("UPDATE t SET n = 100")
                        raise
            except QueryError:
                return "lost"
            return "won"

        assert sorted(await asyncio.gather(lock(1, 2), lock(2, 1))) == ["lost", "won"]
        assert await db.select("SELECT n FROM t") == [{"n": 1}, {"n": 1}]
        async with db.transaction():
            await db.exec("UPDATE t SET n = 5")
            await db.exec("CREATE TABLE u (id INT)")
            with pytest.raises(TransactionError, match="a statement committed it"):
                await db.exec("UPDATE t SET n = 6")
        assert await db.select("SELECT n FROM t") == [{"n": 5}, {"n": 5}]
        await db.close()

    run(main())


def test_down_and_up_again(mariadb: MariaDB) -> None:
    async def main() -> None:
        async with Proxy(mariadb.port) as proxy:
            db = connect(mariadb.url(port=proxy.port, options="?pool=2&timeout=1"))
            await ask(db, 1)
            for _ in range(2):
                await proxy.stop()
                for _ in range(3):
                    with pytest.raises(ServerDown, match=f"127.0.0.1:{proxy.port}/tests: Can't connect"):
                        await ask(db, 1)
                results = await asyncio.gather(*[db.select("SELECT 1") for _ in range(10)], return_exceptions=True)
                assert {type(one) for one in results} == {ServerDown}
                await proxy.resume()
                await asyncio.gather(*[ask(db, number) for number in range(10)])
            await db.close()

    run(main())


def test_who_is_not_let_in(mariadb: MariaDB) -> None:
    async def main() -> None:
        for username, password, name in (
            ("nobody", "x", "tests"),
            (USER, "wrong", "tests"),
            (USER, PASSWORD, "no_such_database"),
        ):
            db = MySQL(username, password, name, "127.0.0.1", mariadb.port)
            with pytest.raises(ServerDown, match="denied|Unknown database"):
                await db.select("SELECT 1")
            await db.close()
        by_socket = MySQL(USER, PASSWORD, "tests", socket=str(mariadb.socket))
        await ask(by_socket, 1)
        await by_socket.close()
        client = MySQL()
        assert await client.connect(USER, PASSWORD, "tests", port=mariadb.port, pool=2) is client
        await ask(client, 1)
        with pytest.raises(ServerDown):
            await client.connect(USER, "wrong", "tests", port=mariadb.port)
        await client.close()

    run(main())


def test_killed_under_load(mariadb: MariaDB) -> None:
    """SIGKILL, and a new start: rows go to who asked, what was acknowledged is there, and all works afterwards."""
    statement(mariadb.url(), "CREATE OR REPLACE TABLE load_test (id VARCHAR(20) PRIMARY KEY) ENGINE=InnoDB")

    async def main() -> None:
        db = connect(mariadb.url(options="?pool=6&timeout=5"))
        written: list[str] = []
        failed: list[DatabaseError] = []
        stop = False

        async def load(worker: int) -> None:
            number = 0
            while not stop:
                number += 1
                name = f"{worker}-{number}"
                try:
                    if number % 3:
                        assert await db.select("SELECT %s AS name", name) == [{"name": name}]
                    elif number % 2:
                        await db.exec("INSERT INTO load_test VALUES (%s)", name)
                        written.append(name)
                    else:
                        async with db.transaction():
                            await db.exec("INSERT INTO load_test VALUES (%s)", name)
                            assert await db.select_value("SELECT %s", name) == name
                        written.append(name)
                except DatabaseError as error:
                    failed.append(error)
                    await asyncio.sleep(0.02)

        tasks = [asyncio.create_task(load(worker)) for worker in range(16)]
        for enough in (60, 120):
            while len(written) < enough:
                await asyncio.sleep(0.01)
            await asyncio.to_thread(mariadb.kill)
            await asyncio.sleep(0.2)
            await asyncio.to_thread(mariadb.start)
        await asyncio.sleep(0.3)
        stop = True
        await asyncio.gather(*tasks)
        kinds = {type(error) for error in failed}
        assert kinds == {ConnectionLost, ServerDown} or kinds == {ConnectionLost, ServerDown, TransactionError}, kinds
        await asyncio.gather(*[ask(db, number) for number in range(100)])
        found = {name for (name,) in await db.fetch("SELECT id FROM load_test")}
        assert len(written) > 100 and not set(written) - found
        await db.close()

    run(main())
    statement(mariadb.url(), "DROP TABLE load_test")


# ---- sessions ----


def test_sessions(mysql: str) -> None:
    async def main() -> None:
        db = connect(mysql)
        assert await db.select_value("SELECT @@character_set_client") == "utf8mb4"
        assert await db.select_value("SELECT @@autocommit") == 1
        with pytest.raises(QueryError):
            await db.exec("CREATE TABLE t (line TEXT); DROP TABLE t")
        await db.exec("CREATE TABLE t (line TEXT)")
        with pytest.raises(DatabaseError):
            await db.exec("LOAD DATA LOCAL INFILE '/etc/passwd' INTO TABLE t")
        assert await db.select("SELECT * FROM t") == []
        await db.close()

    run(main())


def test_no_backslash_escapes(mysql: str) -> None:
    """A server that takes backslashes for themselves is told not to; in a session that does, values are still safe."""
    statement(mysql, "SET GLOBAL sql_mode = CONCAT(@@sql_mode, ',NO_BACKSLASH_ESCAPES')")

    async def main() -> None:
        db = connect(mysql + "?pool=1")
        evil = "\\' OR 1=1 -- "
        assert "NO_BACKSLASH" not in await db.select_value("SELECT @@sql_mode")
        assert await db.select_value(r"SELECT 'it\'s'") == "it's"
        await db.exec("SET SESSION sql_mode = 'NO_BACKSLASH_ESCAPES'")
        escaped = await db.escape("it's ' OR 1=1 -- ")
        assert await db.select_value(f"SELECT '{escaped}'") == "it's ' OR 1=1 -- "
        for value in (evil, evil.encode(), [evil], datetime.date(2000, 1, 1)):
            (wanted,) = [row async for row in db.iterate("SELECT 1 FROM DUAL WHERE 1 = 0 OR %s IS NOT NULL", (value,))]
            assert wanted == (1,)
        assert [row async for row in db.iterate("SELECT %s", (evil,))] == [(evil,)]
        assert [row async for row in db.iterate("SELECT %s", (evil.encode(),))] == [(evil.encode(),)]
        await db.close()

    try:
        run(main())
    finally:
        statement(mysql, "SET GLOBAL sql_mode = REPLACE(@@sql_mode, 'NO_BACKSLASH_ESCAPES', '')")


def test_both_protocols_give_the_same(mysql: str) -> None:
    async def main() -> None:
        db = connect(mysql)
        await db.exec("SET SESSION sql_mode = ''")
        await db.exec(
            "CREATE TABLE t (f FLOAT, d DOUBLE, e DATE, m DATETIME, y YEAR, b BIT(8), t TINYINT UNSIGNED, j JSON,"
            "n DECIMAL(20,5), s SMALLINT, u BIGINT UNSIGNED, x ENUM('a','b'), z TIME, v VARBINARY(9), w TIMESTAMP NULL)"
        )
        await db.exec(
            "INSERT INTO t VALUES (0.1, 0.1, '0000-00-00', '0000-00-00 00:00:00', 1999, b'101', 255, '{\"a\": 1}', "
            "1.5, -7, 18446744073709551615, 'b', '-838:59:59', 'abc', '2000-01-01 00:00:00'), "
            "(NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL), "
            "(3.5, 1e300, '2000-02-29', '2000-02-29 01:02:03', 2155, b'0', 0, '[]', -1.5, 7, 0, 'a', '01:02:03', '', "
            "NULL)"
        )
        text = await db.fetch("SELECT * FROM t")
        prepared = await db.fetch("SELECT * FROM t WHERE 1 = %s", (1,))
        streamed = [row async for row in db.iterate("SELECT * FROM t WHERE 1 = %s", (1,))]
        assert text == prepared == streamed
        assert text[0][:4] == (0.1, 0.1, None, None)
        assert [[type(value) for value in row] for row in text] == [[type(value) for value in row] for row in prepared]
        await db.close()

    run(main())


def test_statements_are_kept_within_a_bound_and_follow_changes(mysql: str) -> None:
    async def main() -> None:
        db = connect(mysql + "?pool=1")
        await db.exec("CREATE TABLE t (id INT PRIMARY KEY)")
        await db.exec("INSERT INTO t VALUES (1)")
        every = "SELECT * FROM t WHERE id = %s"
        assert await db.select(every, 1) == [{"id": 1}]
        await db.exec("ALTER TABLE t ADD COLUMN name VARCHAR(5) DEFAULT 'x'")
        assert await db.select(every, 1) == [{"id": 1, "name": "x"}]
        await db.exec("DROP TABLE t")
        with pytest.raises(QueryError):
            await db.select(every, 1)
        await db.exec("CREATE TABLE t (id VARCHAR(5))")
        await db.exec("INSERT INTO t VALUES ('1')")
        assert await db.select(every, 1) == [{"id": "1"}]
        for number in range(200):
            assert await db.select_value(f"SELECT %s + {number}", 1) == number + 1
        kept = await db.select_one("SHOW SESSION STATUS LIKE 'Prepared_stmt_count'")
        assert int(kept["Value"]) <= 128
        await db.exec("CREATE PROCEDURE p(a INT) BEGIN SELECT a; SELECT a + 1; END")
        assert await db.select("CALL p(%s)", 5) == [{"a": 5}]
        assert await db.select("CALL p(6)") == [{"a": 6}]
        await ask(db, 9)
        await db.close()

    run(main())


# ---- TLS ----


@pytest.fixture(scope="module")
def secured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MariaDB]:
    """A server that offers TLS, with a certificate for 127.0.0.1 that it has signed itself."""
    folder = tmp_path_factory.mktemp("tls")
    certificate(folder)
    server = MariaDB()
    for name in ("cert.pem", "key.pem"):
        target = server.folder / name
        target.write_bytes((folder / name).read_bytes())
        target.chmod(0o644)
    server._command += [f"--ssl-cert={server.folder}/cert.pem", f"--ssl-key={server.folder}/key.pem"]
    try:
        yield server.start()
    finally:
        server.remove()


def certificate(folder: Path) -> None:
    """A key and a certificate, in a folder."""
    import ipaddress

    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import rsa

    key = rsa.generate_private_key(65537, 2048)
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "tests")])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), False)
        .add_extension(x509.BasicConstraints(True, None), True)
        .sign(key, hashes.SHA256())
    )
    (folder / "cert.pem").write_bytes(made.public_bytes(serialization.Encoding.PEM))
    pem, pkcs8 = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    (folder / "key.pem").write_bytes(key.private_bytes(pem, pkcs8, serialization.NoEncryption()))


CIPHER = "SHOW SESSION STATUS LIKE 'Ssl_cipher'"


def test_tls(secured: MariaDB) -> None:
    async def main() -> None:
        trusted = quote(str(secured.folder / "cert.pem"), safe="")
        for option, encrypted in (("", True), ("ssl=unverified", True), (f"ssl={trusted}", True), ("ssl=off", False)):
            db = connect(secured.url(options="?" + option if option else ""))
            for _ in range(3):
                assert bool((await db.select_one(CIPHER))["Value"]) is encrypted
                await asyncio.gather(*[ask(db, number) for number in range(20)])
            assert len(await db.fetch("SELECT seq, REPEAT('x', 100) FROM seq_1_to_20000 WHERE seq > %s", (0,))) == 20000
            assert len(db._pools[0]._links) <= 8
            await db.close()
        own = ssl.create_default_context(cafile=str(secured.folder / "cert.pem"))
        for wrong in (
            connect(secured.url(options="?ssl=on")),
            MySQL(USER, PASSWORD, "tests", "localhost", secured.port, ssl=own),
        ):
            with pytest.raises(ServerDown, match="TLS failed|certificate"):
                await wrong.select("SELECT 1")
            await wrong.close()

    run(main())


def test_tls_is_required(mariadb: MariaDB, secured: MariaDB) -> None:
    async def main() -> None:
        db = connect(mariadb.url(options="?ssl=unverified"))
        with pytest.raises(ServerDown, match="TLS is required, and the server has none"):
            await db.select("SELECT 1")
        await db.close()
        db = connect(mariadb.url())
        assert (await db.select_one(CIPHER))["Value"] == ""
        await db.close()
        async with Proxy(secured.port) as proxy:
            db = connect(secured.url(port=proxy.port, options="?timeout=10"))
            for after in (0, 50, 120, 800):
                proxy.fault = Fault("close", after)
                with pytest.raises(ServerDown):
                    await db.select("SELECT 1")
                proxy.fault = None
                await ask(db, 1)
                proxy.cut()
                await asyncio.sleep(0.02)
                await ask(db, 2)
                proxy.cut()
                await asyncio.sleep(0.02)
            await db.close()

    run(main())

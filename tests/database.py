"""Databases for tests: MariaDB servers that the test run starts for itself, and the URL of an empty database.

A server lives in a temporary folder, listens on a free loopback port and a unix socket, and is ended by its process id.
"""

from __future__ import annotations

import asyncio
import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Coroutine, Iterator
from itertools import count
from pathlib import Path
from typing import Any, Self, TypeVar

import pytest
from ports import unused_port
from server import foreign_environment

PATIENCE = 60.0
USER, PASSWORD = "tester", "p@ss/w:rd?#é"
QUOTED = "p%40ss%2Fw%3Ard%3F%23%C3%A9"
SCRIPTS = Path("/usr/share/mysql")
TUNING = (
    "--innodb-buffer-pool-size=16M --innodb-log-file-size=4M --innodb-flush-log-at-trx-commit=2 --skip-log-bin "
    "--performance-schema=OFF --skip-name-resolve --max-connections=200 --innodb-use-native-aio=0"
).split()

T = TypeVar("T")
_numbers = count(1)
_factory: Callable[[], asyncio.AbstractEventLoop] | None = None


def run(main: Coroutine[Any, Any, T], patience: float = PATIENCE) -> T:
    """Run a test's coroutine on a loop of its own, for a bounded time."""

    async def bounded() -> T:
        async with asyncio.timeout(patience):
            return await main

    with asyncio.Runner(loop_factory=_factory) as runner:
        return runner.run(bounded())


@pytest.fixture(params=["asyncio", "uvloop"])
def loops(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both kinds of loops, for `run`."""
    import uvloop

    monkeypatch.setattr("database._factory", {"asyncio": None, "uvloop": uvloop.new_event_loop}[request.param])


class MariaDB:
    """A server. `kill` and `start` as often as wanted: it keeps its port and its data."""

    def __init__(self, *options: str) -> None:
        program = shutil.which("mariadbd") or shutil.which("mariadbd", path="/usr/sbin:/usr/local/sbin")
        tables = [SCRIPTS / "mysql_system_tables.sql", SCRIPTS / "mysql_system_tables_data.sql"]
        if program is None or not all(path.exists() for path in tables):
            pytest.fail("the tests of sql need MariaDB's server: apt-get install mariadb-server-core", pytrace=False)
        self.folder = Path(tempfile.mkdtemp(prefix="eighties-mariadb-"))
        self.socket = self.folder / "socket"
        self.port = unused_port()
        self._process: subprocess.Popen[bytes] | None = None
        data = self.folder / "data"
        data.mkdir()
        self._command = [program, "--no-defaults", f"--datadir={data}", *TUNING]
        if os.getuid() == 0:  # as which it does not run unless it is told to
            user = next(name for name in ("mysql", "nobody", "daemon") if _exists(name))
            self._command.append(f"--user={user}")
            for path in (self.folder, data):
                shutil.chown(path, user)
        before = "create database mysql;\nuse mysql;\nset @auth_root_socket=NULL;\nset @skip_auth_anonymous=1;\n"
        text = before + "".join(path.read_text() for path in tables)
        self._run([*self._command, "--bootstrap"], text)
        first = self.folder / "first.sql"
        first.write_text(
            f"create database if not exists tests character set utf8mb4;\n"
            f"create or replace user {USER}@'%' identified by '{PASSWORD}';\ngrant all on *.* to {USER}@'%';\n"
        )
        self._command += [f"--socket={self.socket}", f"--port={self.port}", "--bind-address=127.0.0.1"]
        self._command += [f"--pid-file={self.folder / 'pid'}", f"--init-file={first}", *options]

    def _run(self, command: list[str], text: str) -> None:
        done = subprocess.run(command, input=text.encode(), env=foreign_environment(), capture_output=True, timeout=60)
        assert done.returncode == 0, done.stderr.decode(errors="replace")

    @property
    def pid(self) -> int:
        """Of its process."""
        assert self._process is not None
        return self._process.pid

    def start(self) -> Self:
        """Start it, and wait until it lets us in."""
        log = (self.folder / "log").open("ab")
        self._process = subprocess.Popen(
            self._command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=foreign_environment()
        )
        log.close()
        deadline = time.monotonic() + PATIENCE
        while not self._listens():
            text = (self.folder / "log").read_text(errors="replace")[-2000:]
            assert self._process.poll() is None and time.monotonic() < deadline, text
            time.sleep(0.02)
        return self

    def _listens(self) -> bool:
        try:
            with socket.create_connection(("127.0.0.1", self.port), 1) as sock:
                sock.settimeout(5)
                return bool(sock.recv(5))
        except OSError:
            return False

    def kill(self, number: signal.Signals = signal.SIGKILL) -> None:
        """End its process, and wait for that."""
        if self._process is not None:
            self._process.send_signal(number)
            try:
                self._process.wait(20)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
            self._process = None

    def remove(self) -> None:
        """End it for good."""
        self.kill()
        shutil.rmtree(self.folder, ignore_errors=True)

    def url(self, name: str = "tests", options: str = "", port: int | None = None) -> str:
        """The URL of one of its databases."""
        return f"mysql://{USER}:{QUOTED}@127.0.0.1:{port or self.port}/{name}{options}"


def _exists(name: str) -> bool:
    try:
        return bool(pwd.getpwnam(name))
    except KeyError:
        return False


@pytest.fixture(scope="session")
def mariadb() -> Iterator[MariaDB]:
    """A server for the whole run. Who kills it starts it again."""
    server = MariaDB()
    try:
        yield server.start()
    finally:
        server.remove()


@pytest.fixture(params=["sqlite", "mysql"])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """The URL of an empty database, of either kind."""
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path}/test.db"
        return
    yield from mysql_database(request.getfixturevalue("mariadb"))


@pytest.fixture
def mysql(mariadb: MariaDB) -> Iterator[str]:
    """The URL of an empty database of MySQL's kind."""
    yield from mysql_database(mariadb)


def mysql_database(server: MariaDB) -> Iterator[str]:
    """Make one, and drop it."""
    name = f"test_{next(_numbers)}"
    statement(server.url(), f"CREATE DATABASE {name} CHARACTER SET utf8mb4")
    yield server.url(name)
    statement(server.url(), f"DROP DATABASE {name}")


def statement(url: str, query: str, *args: object) -> Any:
    """One statement, outside of any loop."""
    from eighties.sql import connect

    async def main() -> Any:
        client = connect(url)
        try:
            return await client.exec(query, *args)
        finally:
            await client.close()

    return run(main())

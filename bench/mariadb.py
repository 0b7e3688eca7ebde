"""A MariaDB server of the bench's own: in a temporary folder, on a free loopback port, ended by its process id.

Its data are visitors with a text each, and a guestbook of as many posts (examples/www). The tests have one of their own
(tests/database.py).
"""

import os
import pwd
import shutil
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Self

from exchange import connect, free_port
from processes import START_LIMIT, STOP_LIMIT, ServerError, without_paths
from toolbox import UnavailableError

PACKAGE = "mariadb-server-core"
SCRIPTS = Path("/usr/share/mysql")
OPTIONS = (
    "--innodb-buffer-pool-size=64M --innodb-flush-log-at-trx-commit=2 --skip-log-bin --performance-schema=OFF "
    "--skip-name-resolve --innodb-use-native-aio=0 --bind-address=127.0.0.1"
).split()
USER, PASSWORD, NAME = "bench", "bench", "bench"
BEFORE = "create database mysql;\nuse mysql;\nset @auth_root_socket=NULL;\nset @skip_auth_anonymous=1;\n"


def program() -> str:
    """Where the server is. Raises UnavailableError."""
    found = shutil.which("mariadbd") or shutil.which("mariadbd", path="/usr/sbin:/usr/local/sbin")
    if found is None:
        raise UnavailableError(f"MariaDB's server is not installed (Debian: {PACKAGE})")
    return found


def version() -> str:
    return subprocess.run([program(), "--version"], capture_output=True, text=True).stdout.split("Ver ")[-1].split()[0]


class MariaDB:
    """A context manager: on leaving, process and folder are gone."""

    def __init__(self, core: int, first: str) -> None:
        """`first`: SQL that is run in its database at the start."""
        self.port = free_port()
        self._folder = Path(tempfile.mkdtemp(prefix="80s-bench-mariadb-"))
        data = self._folder / "data"
        data.mkdir()
        command = ["taskset", "-c", str(core), program(), "--no-defaults", f"--datadir={data}", *OPTIONS]
        if os.getuid() == 0:  # as which it does not run unless it is told to
            known = {entry.pw_name for entry in pwd.getpwall()}
            user = next(name for name in ("mysql", "nobody", "daemon") if name in known)
            command.append(f"--user={user}")
            for path in (self._folder, data):
                shutil.chown(path, user)
        tables = ("mysql_system_tables.sql", "mysql_system_tables_data.sql")
        text = BEFORE + "".join((SCRIPTS / name).read_text() for name in tables)
        done = subprocess.run([*command, "--bootstrap"], input=text.encode(), capture_output=True)
        if done.returncode != 0:
            raise UnavailableError(f"MariaDB: {without_paths(done.stderr.decode(errors='replace'))[-200:]}")
        start = self._folder / "first.sql"
        # An init file has a statement a line.
        start.write_text(
            f"create database {NAME} character set utf8mb4;\ncreate user {USER}@'%' identified by '{PASSWORD}';\n"
            f"grant all on {NAME}.* to {USER}@'%';\nuse {NAME};\n{first}"
        )
        command += [f"--port={self.port}", f"--socket={self._folder / 'socket'}", f"--init-file={start}"]
        command += [f"--pid-file={self._folder / 'pid'}"]
        self._log = self._folder.joinpath("log").open("wb")
        self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=self._log, stderr=self._log)

    @property
    def url(self) -> str:
        return f"mysql://{USER}:{PASSWORD}@127.0.0.1:{self.port}/{NAME}"

    def __enter__(self) -> Self:
        deadline = time.monotonic() + START_LIMIT
        while self._process.poll() is None and time.monotonic() < deadline:
            try:
                with connect(self.port) as connection:
                    if connection.recv(5):
                        return self
            except OSError:
                time.sleep(0.02)
        self.__exit__()
        raise ServerError("MariaDB does not start")

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        try:
            self._process.wait(STOP_LIMIT)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._log.close()
        shutil.rmtree(self._folder, ignore_errors=True)

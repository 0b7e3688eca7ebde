"""Sockets that the server is started with: `--fd`, and systemd's (sd_listen_fds(3))."""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from client import Client
from crowd import ask, whole
from server import Server

from eighties.serve.settings import SettingsError, collect

PROGRAM = """
    import os, stat
    from eighties import App
    app = App()

    @app.get("/")
    def root(request):
        return "hello"

    @app.get("/env")
    def env(request):
        return sorted(name for name in os.environ if name.startswith("LISTEN_"))

    @app.get("/inherited")
    def inherited(request):
        fds = []
        for name in os.listdir("/proc/self/fd"):
            try:
                if os.get_inheritable(int(name)) and int(name) > 2:
                    fds.append(int(name))
            except OSError:
                pass
        return fds
"""
# What systemd does between fork and exec; LISTEN_PID must be the process's own number.
ACTIVATE = """
import fcntl, os, sys
given = [int(fd) for fd in sys.argv[1].split(",")]
high = [fcntl.fcntl(fd, fcntl.F_DUPFD, 100) for fd in given]
os.closerange(3, 100)
for number, fd in enumerate(high, 3):
    os.dup2(fd, number)
    os.close(fd)
pid = os.getpid() + int(os.environ.pop("WRONG", 0))
os.environ.update(LISTEN_PID=str(pid), LISTEN_FDS=os.environ.pop("COUNT", str(len(given))), LISTEN_FDNAMES="a:b")
os.execv(sys.argv[2], sys.argv[2:])
"""


@pytest.fixture
def tcp() -> Iterator[socket.socket]:
    """A listening socket, held as systemd holds it."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener


class Start:
    """Starts servers with sockets; those that still run are ended."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.servers: list[Server] = []

    def __call__(self, sockets: list[socket.socket], *arguments: str, port: str | None = None) -> Server:
        """By `--fd`."""
        fds = [each.fileno() for each in sockets]
        named = ["--fd", ",".join(map(str, fds))] if fds else []
        server = Server(PROGRAM, *named, *arguments, folder=self.folder, port=port, pass_fds=fds)
        self.servers.append(server)
        return server

    def activated(
        self, sockets: list[socket.socket], *arguments: str, port: str | None = None, env: dict[str, str] | None = None
    ) -> Server:
        """As systemd does."""
        fds = [each.fileno() for each in sockets]
        command = (sys.executable, "-c", ACTIVATE, ",".join(map(str, fds)), sys.executable, "-m", "eighties")
        server = Server(PROGRAM, *arguments, folder=self.folder, port=port, command=command, pass_fds=fds, env=env)
        self.servers.append(server)
        return server


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """See `Start`."""
    starts = Start(tmp_path)
    yield starts
    codes = []
    try:
        codes += [server.stop() for server in starts.servers if not server.ended]
    finally:
        for server in starts.servers:
            server.kill()
    assert not any(codes), starts.servers[-1].stderr


def urls(server: Server, count: int = 1) -> list[str]:
    """Where it listens: at so many places, each of which is a line."""
    server.wait_for("listening", count)
    return [line["url"] for line in server.log if line["message"] == "listening"]


def refusal(server: Server, code: int = 1) -> str:
    """Why it does not start: one line."""
    assert server.wait() == code
    (line,) = server.log
    return str(line["message"])


def test_a_socket_given_by_number(start: Start, tcp: socket.socket, workers: int) -> None:
    server = start([tcp], "-c", str(workers))
    assert server.url == f"http://127.0.0.1:{tcp.getsockname()[1]}"
    server.wait_for_workers(workers)
    assert server.get("/").text == "hello"
    assert server.get("/inherited").json() == []
    assert len(urls(server)) == 1


def test_the_socket_outlives_the_server(start: Start, tcp: socket.socket) -> None:
    first = start([tcp]).wait_until_serving()
    assert first.get("/").text == "hello"
    assert first.stop() == 0
    # Nobody serves, and nobody is refused.
    with Client(first) as waiting:
        waiting.send("GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        start([tcp])
        assert waiting.socket.recv(65536).startswith(b"HTTP/1.1 200 ")


def test_a_bound_socket_is_made_to_listen(start: Start) -> None:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        assert start([bound]).get("/").text == "hello"


@pytest.mark.parametrize("address", ["::1", "::"])
def test_ipv6(address: str, start: Start) -> None:
    with socket.create_server((address, 0), family=socket.AF_INET6) as listener:
        server = start([listener])
        assert server.url == f"http://[{address}]:{listener.getsockname()[1]}"
        assert whole(ask(("::1", server.port)))


def test_a_unix_socket_keeps_its_file(start: Start, tmp_path: Path) -> None:
    path = str(tmp_path / "80s.socket")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen()
        server = start([listener])
        assert server.url == f"unix:{path}"
        assert whole(ask(path))
        assert server.stop() == 0
        assert os.path.exists(path)


def test_a_unix_socket_in_no_folder(start: Start) -> None:
    name = f"80s-test-{os.getpid()}"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind("\0" + name)
        listener.listen()
        server = start([listener])
        assert server.url == f"unix:@{name}"
        assert whole(ask("\0" + name))


def test_a_port_as_well_only_if_it_is_named(start: Start, tcp: socket.socket, tmp_path: Path) -> None:
    server = start([tcp], "--uds", "other.socket", port="0")
    assert server.get("/").text == "hello"
    first, second, third = urls(server, 3)
    assert first.endswith(f":{tcp.getsockname()[1]}")
    assert second == "unix:other.socket"
    assert third.startswith("http://127.0.0.1:")
    assert third != first
    assert whole(ask(("127.0.0.1", int(third.rpartition(":")[2]))))
    assert whole(ask(str(tmp_path / "other.socket")))


# ---- systemd's ----


def test_activation(start: Start, tcp: socket.socket, tmp_path: Path) -> None:
    path = str(tmp_path / "80s.socket")
    with socket.socket(socket.AF_UNIX) as unix:
        unix.bind(path)
        unix.listen()
        server = start.activated([tcp, unix], "-c", "2")
        assert server.get("/").text == "hello"
        assert whole(ask(path))
        assert urls(server, 2) == [f"http://127.0.0.1:{tcp.getsockname()[1]}", f"unix:{path}"]
        assert server.get("/env").json() == []
        assert server.get("/inherited").json() == []
        assert server.stop() == 0
        assert os.path.exists(path)


def test_activation_and_a_port(start: Start, tcp: socket.socket) -> None:
    server = start.activated([tcp], port="0")
    assert server.get("/").text == "hello"
    assert len(urls(server, 2)) == 2


def test_the_command_line_chooses_among_systemds(start: Start, tcp: socket.socket) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        server = start.activated([other, tcp], "--fd", "4")
        assert server.get("/inherited").json() == []
        assert urls(server) == [f"http://127.0.0.1:{tcp.getsockname()[1]}"]


def test_sockets_of_another_process(start: Start, tcp: socket.socket) -> None:
    server = start.activated([tcp], port="0", env={"WRONG": "1"})
    assert server.get("/env").json() == []
    (url,) = urls(server)
    assert not url.endswith(f":{tcp.getsockname()[1]}")


@pytest.mark.parametrize("count", ["", "x", "-1", "100000"])
def test_a_count_that_is_none(count: str, start: Start, tcp: socket.socket) -> None:
    assert "LISTEN_FDS must be a whole number" in refusal(start.activated([tcp], env={"COUNT": count}))


def test_fewer_sockets_than_said(start: Start, tcp: socket.socket) -> None:
    assert "descriptor 4 is not" in refusal(start.activated([tcp], env={"COUNT": "2"}))


# ---- what cannot be ----


def test_descriptors_nobody_can_listen_on(start: Start, tcp: socket.socket, tmp_path: Path) -> None:
    datagrams, unbound, connection = socket.socket(type=socket.SOCK_DGRAM), socket.socket(), socket.socket()
    netlink = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW)
    connection.connect(tcp.getsockname())
    with datagrams, unbound, connection, netlink:
        for wrong, words in (
            (datagrams, "is not a stream socket"),
            (unbound, "is bound to no address"),
            (connection, "is a connection, not a listening socket"),
            (netlink, "is neither a TCP nor a unix socket"),
        ):
            message = refusal(start([wrong]))
            assert f"descriptor {wrong.fileno()} " in message
            assert words in message


def test_descriptors_that_are_no_sockets(start: Start, tmp_path: Path) -> None:
    assert "descriptor 999 is not open" in refusal(start([], "--fd", "999"))
    with (tmp_path / "file").open("w") as file:
        server = Server("program.py", "--fd", str(file.fileno()), folder=tmp_path, port=None, pass_fds=[file.fileno()])
        start.servers.append(server)
        assert f"descriptor {file.fileno()} is not a socket" in refusal(server)


def test_a_socket_for_each_worker_cannot_be_made_of_one(start: Start, tcp: socket.socket) -> None:
    assert "--reuseport makes a socket for each worker" in refusal(start([tcp], "--reuseport"), 2)
    assert "--reuseport makes a socket for each worker" in refusal(start.activated([tcp], "--reuseport"))


def test_how_descriptors_are_written() -> None:
    for typed in (["--fd", "3,4"], ["--fd", "3", "--fd", "4"], ["--fd=3, 4,3"]):
        assert collect(typed, {}).fd == "3,4"
    assert collect([], {"EIGHTIES_FD": "5"}).fd == "5"
    for wrong in ("2", "x", "", "3,", "-3", "99999999"):
        with pytest.raises(SettingsError, match="--fd must be descriptors from 3 on"):
            collect([f"--fd={wrong}"], {})

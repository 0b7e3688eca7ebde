"""net: the raw level's names, in a program that speaks bytes, and those that need no server."""

from __future__ import annotations

import ast
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import Serve
from hypothesis import given
from hypothesis import strategies as st
from server import PATIENCE, Server

import eighties
from eighties import _engine, net

# ---- names ----


def test_every_name_of_the_api_is_there() -> None:
    wanted = (
        "write close connect sockname mail reload quit popen info clock listdir readfile mkdir partscan "
        "parse_http_headers ELFD"
    )
    assert set(wanted.split()) == set(net.__all__)
    for name in set(net.__all__) - {"ELFD"}:
        assert callable(getattr(net, name)) and getattr(net, name).__doc__, name


def test_hot_names_are_the_engine_s_own() -> None:
    assert net.write is _engine.write
    assert net.close is _engine.close


def test_import_is_lazy() -> None:
    """The parent process imports the package, and must not pay for asyncio, the engine, or what a program may use."""
    program = (
        "import sys, eighties\n"
        "heavy = {'asyncio', 'json', 'eighties._engine', 'eighties.net', 'eighties.aio'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
        "eighties.net.clock()\n"
        "light = {'eighties.aio', 'eighties.outgoing', 'eighties.streams', 'watchfiles', 'anyio'} & set(sys.modules)\n"
        "assert not light, light\n"
        "eighties.aio.gather\n"
        "assert not {'watchfiles', 'anyio'} & set(sys.modules)\n"
        "from eighties import App, aio, net, state\n"
        "assert aio is eighties.aio and net is eighties.net\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
    assert {"aio", "net"} <= set(dir(eighties))


def test_outside_of_a_worker() -> None:
    with pytest.raises(AttributeError, match="worker"):
        _ = net.ELFD
    with pytest.raises(AttributeError, match="no attribute 'elfd'"):
        _ = net.elfd  # type: ignore[attr-defined]
    with pytest.raises(OSError):
        net.sockname(1)
    with pytest.raises(RuntimeError):
        net.mail(0, b"x")
    with pytest.raises(RuntimeError):
        net.quit()
    with pytest.raises(RuntimeError):
        net.reload()
    with pytest.raises(RuntimeError):
        net.reload(full=True)
    assert net.info()["version"] == eighties.__version__
    assert "worker" not in net.info()
    assert 0 < net.clock() <= net.clock()


# ---- partscan ----


def slow_partscan(haystack: bytes, needle: bytes, offset: int) -> tuple[int, int]:
    """What partscan must do, said plainly."""
    for position in range(offset, len(haystack)):
        if needle and haystack[position:].startswith(needle):
            return position, len(needle)
    for position in range(offset, len(haystack)):
        if needle.startswith(haystack[position:]):
            return position, len(haystack) - position
    return len(haystack), 0


@pytest.mark.parametrize(
    ("haystack", "needle", "offset", "expected"),
    [
        ("hello world", "world", 0, (6, 5)),
        ("hello wor", "world", 0, (6, 3)),
        ("hello", "world", 0, (5, 0)),
        ("abcabcab", "abcabd", 0, (3, 5)),
        ("aXa", "a", 1, (2, 1)),
        ("\r\n\r", "\r\n\r\n", 0, (0, 3)),
        ("ab", "abc", 1, (2, 0)),
        ("ab", "bc", 1, (1, 1)),
        ("", "a", 0, (0, 0)),
        ("abc", "", 0, (3, 0)),
        ("abc", "a", 7, (3, 0)),
        ("é" * 3 + "ü", "üé", 0, (3, 1)),
    ],
)
def test_partscan_cases(haystack: str, needle: str, offset: int, expected: tuple[int, int]) -> None:
    assert net.partscan(haystack, needle, offset) == expected
    if haystack.isascii():
        assert net.partscan(haystack.encode(), needle.encode(), offset) == expected


SHORT = st.binary(max_size=12).map(lambda data: bytes(97 + byte % 2 for byte in data))  # two letters: many matches


@given(SHORT, SHORT, st.integers(0, 14))
def test_partscan_is_what_the_plain_search_says(haystack: bytes, needle: bytes, offset: int) -> None:
    assert net.partscan(haystack, needle, offset) == slow_partscan(haystack, needle, offset)
    assert net.partscan(haystack.decode(), needle.decode(), offset) == slow_partscan(haystack, needle, offset)


def test_partscan_of_what_an_attacker_would_send() -> None:
    """Each kind of search that is quadratic when done simply, at the size that a request line allows and far beyond."""
    for size in (4_000, 100_000):
        assert net.partscan("a" * size, "a" * size + "b") == (0, size)
        assert net.partscan("a" * size, "a" * (size // 2) + "b" + "a" * size) == (size - size // 2, size // 2)
        assert net.partscan("ab" * size, "ab" * size + "c" + "ab" * size) == (0, 2 * size)
        assert net.partscan("a" * size + "c", "a" * size + "b") == (size + 1, 0)


def test_partscan_refuses() -> None:
    with pytest.raises(ValueError, match="negative"):
        net.partscan("a", "a", -1)
    with pytest.raises(TypeError):
        net.partscan("a", b"a")  # type: ignore[type-var]


# ---- parse_http_headers ----


def test_parse_a_request() -> None:
    head = net.parse_http_headers(
        b"GET /a?b=c HTTP/1.1\r\nHost: example.org\r\nX-Empty:\r\n"
        b"Cookie: a=1\r\nCOOKIE:\t b=2 \r\nName: caf\xc3\xa9\r\n\r\n"
    )
    assert (head[":method"], head[":script"], head[":http"]) == ("GET", "/a?b=c", "HTTP/1.1")
    assert head["host"] == head["Host"] == "example.org"
    assert head["x-empty"] == ""
    assert head.getall("cookie") == ["a=1", "b=2"]
    assert head["name"] == "café"
    assert ":status" not in head


@pytest.mark.parametrize(
    ("line", "status", "reason"),
    [("HTTP/1.1 200 OK", "200", "OK"), ("HTTP/1.0 404 Not here", "404", "Not here"), ("HTTP/1.1 204 ", "204", "")],
)
def test_parse_an_answer(line: str, status: str, reason: str) -> None:
    for end in ("", "\r\n", "\r\n\r\n", "\r\nA: b", "\r\nA: b\r\n\r\n"):
        head = net.parse_http_headers(line + end)
        assert (head[":http"], head[":status"], head[":reason"]) == (line[:8], status, reason)
        assert head.get("a") == ("b" if "A" in end else None)
        assert ":method" not in head


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ("", "line 1: neither"),
        ("Host: x", "line 1: neither"),
        ("GET /", "line 1: neither"),
        ("GET  / HTTP/1.1", "line 1: neither"),
        ("GET / HTTP/1.1 ", "line 1: neither"),
        ("GET / http/1.1", "line 1: neither"),
        ("GET /\x00 HTTP/1.1", "line 1: neither"),
        ("G(T / HTTP/1.1", "line 1: neither"),
        ("HTTP/1.1 20 OK", "line 1: neither"),
        ("HTTP/1.1 2000 OK", "line 1: neither"),
        ("GET / HTTP/1.1\nHost: x", "line 1: neither"),
        ("GET / HTTP/1.1\r\nA: b\nC: d", "line 2: a CR or LF by itself"),
        ("GET / HTTP/1.1\r\nA: b\rC: d", "line 2: a CR or LF by itself"),
        ("GET / HTTP/1.1\r\nA: b\r\n C: d", "line 3: a line folded"),
        ("GET / HTTP/1.1\r\n\tC: d", "line 2: a line folded"),
        ("GET / HTTP/1.1\r\nA : b", "line 2: no field"),
        ("GET / HTTP/1.1\r\n: b", "line 2: no field"),
        ("GET / HTTP/1.1\r\nno colon", "line 2: no field"),
        ("GET / HTTP/1.1\r\nB\xe9: b", "line 2: no field"),
        ("GET / HTTP/1.1\r\n:method: POST", "line 2: no field"),
        ("GET / HTTP/1.1\r\nA: b\x00", "line 2: a control character"),
        ("GET / HTTP/1.1\r\nA: b\x7f", "line 2: a control character"),
        ("GET / HTTP/1.1\r\n\r\nA: b", "line 2: an empty line within"),
        ("GET / HTTP/1.1\r\nA: b\r\n\r\n\r\n", "line 3: an empty line within"),
    ],
)
def test_parse_refuses(lines: str, message: str) -> None:
    for data in (lines, lines.encode()):
        with pytest.raises(ValueError, match=message) as caught:
            net.parse_http_headers(data)
        assert str(caught.value).isprintable()


# ---- in a worker ----

PROGRAM = """
    from eighties import net

    owners = {}  # by the handle of what was opened: who asked for it
    started = []

    def on_init(elfd, parentfd):
        started.append(elfd)

    def sockname(elfd, childfd):
        return net.sockname(childfd)

    def facts(elfd, childfd):
        assert started == [elfd] == [net.ELFD]
        return net.info()

    def foreign(elfd, childfd):
        assert net.write(elfd, childfd + 1000, b"x") is False
        assert net.close(elfd, childfd + 1000) is False
        for call in (lambda: net.write(elfd + 1000, childfd, b"x"), lambda: net.sockname(childfd + 1000),
                     lambda: net.connect(elfd + 1000, "localhost", 1), lambda: net.popen(elfd + 1000, "true"),
                     lambda: net.popen(elfd, "/no/such/command")):
            try:
                call()
            except OSError:
                continue
            raise AssertionError(call)
        return "fine"

    def closed(elfd, childfd):
        handle = net.connect(elfd, "unix:/no/such/socket", 0)
        owners[handle] = childfd
        assert net.close(elfd, handle) is True
        assert net.close(elfd, handle) is False
        assert net.write(elfd, handle, b"x") is False
        try:
            net.sockname(handle)
        except OSError:
            return "fine"

    def connect(elfd, childfd, host, port, udp=""):
        owners[net.connect(elfd, host, int(port), bool(udp))] = childfd

    def popen(elfd, childfd, *command):
        reader, writer = net.popen(elfd, *command)
        owners[reader] = childfd
        net.write(elfd, writer, b"input")
        net.close(elfd, writer)
        try:
            net.sockname(reader)
        except OSError:
            return "no name "

    def mail(elfd, childfd, text):
        return str(net.mail(None, text, sender=childfd, target=childfd))

    def quit(elfd, childfd):
        net.quit()

    def on_message(sender_worker, sender_fd, elfd, fd, message):
        assert sender_fd == fd
        net.write(elfd, fd, f" worker {sender_worker}: ".encode() + message)

    def on_write(elfd, childfd):
        if childfd in owners:
            net.write(elfd, childfd, b"hello")

    def on_close(elfd, childfd):
        if childfd in owners:
            net.write(elfd, owners.pop(childfd), b" closed")

    def on_data(elfd, childfd, data, length):
        assert length == len(data)
        if childfd in owners:
            net.write(elfd, owners[childfd], data)
            return
        name, *arguments = data.decode().split()
        value = globals()[name](elfd, childfd, *arguments)
        if value is not None:
            net.write(elfd, childfd, (value if isinstance(value, str) else repr(value)).encode())
"""


@pytest.fixture
def program(serve: Serve) -> Server:
    return serve(PROGRAM)


def say(server: Server, text: str, expected: str) -> str:
    """Ask the program for something, on a connection of its own; gives what comes until it holds the text."""
    with socket.create_connection(("127.0.0.1", server.port), PATIENCE) as client:
        client.sendall(text.encode())
        answer = ""
        while expected not in answer:
            chunk = client.recv(4096).decode()
            assert chunk, f"{answer!r}, not {expected!r}\n{server.stderr}"
            answer += chunk
        return answer


def test_sockname_and_info(program: Server) -> None:
    with socket.create_connection(("127.0.0.1", program.port), PATIENCE) as client:
        client.sendall(b"sockname")
        assert ast.literal_eval(client.recv(4096).decode()) == client.getsockname()
    info = ast.literal_eval(say(program, "facts", "}"))
    assert (info["worker"], info["workers"], info["version"]) == (0, 1, eighties.__version__)
    assert info["connections"] >= 1
    assert info["node"]


def test_foreign_and_closed_handles(program: Server) -> None:
    assert say(program, "foreign", "fine") == "fine"
    assert "fine" in say(program, "closed", "closed")


def test_connect(program: Server, tmp_path: Path) -> None:
    path = str(tmp_path / "s")
    for family, address, host in (
        (socket.AF_INET, ("127.0.0.1", 0), "localhost"),
        (socket.AF_INET6, ("::1", 0), "v6:::1"),
        (socket.AF_UNIX, path, f"unix:{path}"),
    ):
        with socket.socket(family) as listener, socket.socket() as client:
            listener.bind(address)
            listener.listen()
            port = 0 if family == socket.AF_UNIX else listener.getsockname()[1]
            client.connect(("127.0.0.1", program.port))
            client.sendall(f"connect {host} {port}".encode())
            with listener.accept()[0] as peer:
                assert peer.recv(4096) == b"hello"
                peer.sendall(b"welcome")
            answer = b""
            while b"closed" not in answer:
                answer += client.recv(4096)
            assert answer == b"welcome closed"
    say(program, "connect unix:/no/such/socket 0", " closed")


def test_connect_udp(program: Server) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as peer, socket.socket() as client:
        peer.bind(("127.0.0.1", 0))
        peer.settimeout(PATIENCE)
        client.connect(("127.0.0.1", program.port))
        client.sendall(f"connect 127.0.0.1 {peer.getsockname()[1]} udp".encode())
        data, sender = peer.recvfrom(4096)
        assert data == b"hello"
        peer.sendto(b"welcome", sender)
        assert client.recv(4096) == b"welcome"


def test_popen(program: Server) -> None:
    assert say(program, "popen cat", "input closed") == "no name input closed"
    assert say(program, f"popen {sys.executable} -c print({os.getpid()})", "closed").split() == [
        "no",
        "name",
        str(os.getpid()),
        "closed",
    ]


def test_mail_and_quit(program: Server) -> None:
    assert say(program, "mail hello", "hello") == "True worker 0: hello"
    with socket.create_connection(("127.0.0.1", program.port), PATIENCE) as client:
        client.sendall(b"quit")
    assert program.wait() == 0

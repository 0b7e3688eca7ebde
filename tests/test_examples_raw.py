"""The examples of the raw level and of aio: each serves what it says, to real clients."""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Self

import pytest
from client import served
from conftest import Serve
from ports import unused_port
from server import PATIENCE, Server, foreign_environment

EXAMPLES = Path(__file__).parent.parent / "examples"


class Wire:
    """A raw connection, and what was read from it."""

    def __init__(self, server: Server, first: bytes = b"") -> None:
        self.socket = socket.create_connection(("127.0.0.1", server.port), PATIENCE)
        self.heard = b""
        self.send(first)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.socket.close()

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def hear(self, expected: bytes) -> bytes:
        """Read until this has come; gives all up to its end."""
        while expected not in self.heard:
            chunk = self.socket.recv(65536)
            assert chunk, f"the connection ended with {self.heard!r}, not {expected!r}"
            self.heard += chunk
        before, _, self.heard = self.heard.partition(expected)
        return before + expected

    def hear_all(self) -> bytes:
        while chunk := self.socket.recv(65536):
            self.heard += chunk
        return self.heard


def assert_quiet(server: Server) -> None:
    assert server.stop() == 0
    assert not [line for line in server.log if line["level"] in ("warning", "error", "critical")], server.stderr


# ---- raw_echo.py ----


def test_raw_echo(serve: Serve, workers: int) -> None:
    server = serve(EXAMPLES / "raw_echo.py", "-c", str(workers))
    wires = [Wire(server) for _ in range(20)]
    for number, wire in enumerate(wires):
        wire.send(f"GET {number}\0\r\n".encode())
    for number, wire in enumerate(wires):
        wire.hear(f"GET {number}\0\r\n".encode())
        wire.socket.close()
    with Wire(server) as wire:
        data = os.urandom(3_000_000)
        wire.socket.setblocking(False)
        wire.socket.settimeout(PATIENCE)
        sent, view = 0, memoryview(data)
        while len(wire.heard) < len(data):
            if sent < len(data):
                sent += wire.socket.send(view[sent : sent + 100_000])
            wire.heard += wire.socket.recv(100_000)
        assert wire.heard == data
    assert_quiet(server)


# ---- chat.py ----

HEAD = b"GET /chat HTTP/1.1\r\nHost: x\r\n\r\n"


def enter(server: Server, name: str) -> Wire:
    """Join the chat as somebody with netcat would."""
    wire = Wire(server, HEAD)
    head = wire.hear(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200") and b"content-length" not in head.lower()
    wire.hear(b"Enter your name: ")
    wire.send(name.encode() + b"\n")
    wire.hear(b"You: ")
    return wire


def enter_on_each_worker(server: Server, count: int) -> list[Wire]:
    """People until every worker holds one of them: then what all hear has gone by mail."""
    wires: list[Wire] = []
    while len({owner(server, wire) for wire in wires}) < count:
        wires.append(enter(server, f"p{len(wires)}"))
        for other in wires[:-1]:
            other.hear(f"* p{len(wires) - 1} is here\nYou: ".encode())
    return wires


def owner(server: Server, wire: Wire) -> int:
    """The worker process that holds the other end of a connection."""
    port = wire.socket.getsockname()[1]
    inodes = [
        line.split()[9] for line in Path("/proc/net/tcp").read_text().splitlines()[1:] if f":{port:04X} 01" in line
    ]
    for pid in server.workers:
        for link in Path(f"/proc/{pid}/fd").iterdir():
            try:
                if os.readlink(link) in {f"socket:[{inode}]" for inode in inodes}:
                    return pid
            except OSError:
                continue
    raise AssertionError(f"nobody holds port {port}")


def test_chat_reaches_everyone_on_all_workers(serve: Serve, workers: int) -> None:
    server = serve(EXAMPLES / "chat.py", "-c", str(workers))
    server.wait_for_workers(workers)
    wires = enter_on_each_worker(server, workers)
    extra = enter(server, "Ada")
    for wire in wires:
        wire.hear(b"* Ada is here\nYou: ")
    extra.send("Grüße\n".encode())
    for wire in wires:
        assert wire.hear(b"You: ") == "\nAda: Grüße\nYou: ".encode()
    assert extra.hear(b"You: ") == b"You: "  # not her own words
    extra.socket.close()
    for wire in wires:
        assert wire.hear(b"You: ") == b"\n* Ada has left\nYou: "
        wire.socket.close()
    assert_quiet(server)


def test_chat_cleans_what_people_type(serve: Serve) -> None:
    server = serve(EXAMPLES / "chat.py")
    with enter(server, "Grace") as grace:
        with Wire(server, HEAD) as eve:
            eve.send(b"\x1b[2JEve\x07\r\n\x00hel\x1blo \xff\xe2\x80\xae\r\n   \r\nbye\n")
            assert grace.hear(b"You: ") == b"\n* [2JEve is here\nYou: "
            assert grace.hear(b"You: ") == "\n[2JEve: hello \ufffd\nYou: ".encode()
            assert grace.hear(b"You: ") == b"\n[2JEve: bye\nYou: "
        assert grace.hear(b"You: ") == b"\n* [2JEve has left\nYou: "
    with enter(server, "") as nobody, enter(server, "Ada"):
        nobody.hear(b"* Ada is here\nYou: ")
    assert_quiet(server)


@pytest.mark.parametrize("text", [b"x" * 41, b"x" * 41 + b"\n", b"Ada\n" + b"x" * 1001 + b"\n"])
def test_chat_shows_out_who_sends_long_lines(serve: Serve, text: bytes) -> None:
    server = serve(EXAMPLES / "chat.py")
    with Wire(server, HEAD + text) as wire:
        wire.hear_all()
    assert server.wait_for("chat: ")["level"] == "warning"
    with enter(server, "x" * 40) as wire:
        wire.send(b"x" * 1000 + b"\n")
        wire.hear(b"You: ")


def test_chat_drops_who_does_not_read(serve: Serve) -> None:
    server = serve(EXAMPLES / "chat.py")
    with enter(server, "Ada") as ada, enter(server, "Deaf"):
        ada.hear(b"* Deaf is here\nYou: ")
        deadline = time.monotonic() + PATIENCE
        while b"Deaf has left" not in ada.heard:
            assert time.monotonic() < deadline
            ada.send((b"x" * 999 + b"\n") * 100)
            chunk = ada.socket.recv(100_000)  # there is always her own prompt
            assert chunk, server.stderr
            ada.heard = ada.heard[-100:] + chunk
    server.stop()


def test_chat_does_not_read_on_for_who_does_not_read(serve: Serve) -> None:
    """Each empty line is answered by a prompt: without a bound the server would keep them all."""
    server = serve(EXAMPLES / "chat.py")
    with enter(server, "Ada") as ada, enter(server, "Deaf") as deaf:
        ada.hear(b"* Deaf is here\nYou: ")
        deaf.socket.settimeout(1)
        with pytest.raises(TimeoutError):
            for _ in range(1000):
                deaf.send(b"\n" * 100_000)
        ada.send(b"hello\n")
        ada.hear(b"You: ")


@contextmanager
def curl(server: Server, *arguments: str) -> Iterator[subprocess.Popen[bytes]]:
    """A real curl, whose standard input and output are pipes."""
    if shutil.which("curl") is None:
        pytest.skip("there is no curl")
    command = ["curl", "-sS", "-N", "-T", ".", *arguments, f"http://127.0.0.1:{server.port}/chat"]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, bufsize=0, env=foreign_environment()) as process:
        try:
            yield process
        finally:
            process.kill()


def test_chat_by_curl(serve: Serve, workers: int) -> None:
    server = serve(EXAMPLES / "chat.py", "-c", str(workers))
    with enter(server, "Ada") as ada, curl(server) as process:
        assert process.stdin is not None and process.stdout is not None
        heard = b""

        def hear(expected: bytes) -> None:
            nonlocal heard
            assert process.stdout is not None
            while expected not in heard:
                chunk = os.read(process.stdout.fileno(), 65536)
                assert chunk, heard
                heard += chunk

        hear(b"Enter your name: ")
        process.stdin.write(b"Grace\n")
        ada.hear(b"* Grace is here\nYou: ")
        hear(b"You: ")
        process.stdin.write(b"It is 1984\n")
        assert ada.hear(b"You: ") == b"\nGrace: It is 1984\nYou: "
        ada.send(b"So it is\n")
        hear(b"\nAda: So it is\nYou: ")
        process.stdin.close()  # the end of the body: she leaves, and the answer is whole
        ada.hear(b"* Grace has left\nYou: ")
        process.stdin = None
        assert process.wait(PATIENCE) == 0
    assert_quiet(server)


# ---- visit.py ----


@pytest.fixture(scope="module", params=[1, 2], ids=["1 worker", "2 workers"])
def visiting(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One server for all; it has nothing to complain of."""
    for server in served(EXAMPLES / "visit.py", tmp_path_factory.mktemp("visit"), "-c", str(request.param)):
        yield server
        assert_quiet(server)


def test_visit_fetches(visiting: Server) -> None:
    url = f"http://localhost:{visiting.port}/hello"
    reply = visiting.get(f"/visit?url={url}")
    assert (reply.status, reply.text) == (200, "It is 1984\n")
    reply = visiting.get(f"/visit?url=http://127.0.0.1:{visiting.port}/none")
    assert (reply.status, reply.text) == (404, "Not Found\n")
    nested = f"/visit?url=http://127.0.0.1:{visiting.port}/visit?url={url}"
    assert visiting.get(nested).text == "It is 1984\n"
    assert re.match(r"Linux \w+\n", visiting.get("/run").text)


@pytest.mark.parametrize(
    ("url", "status"),
    [
        ("", 400),
        ("ftp://localhost/", 400),
        ("http://localhost:x/", 400),
        ("http://localhost:99999/", 400),
        ("http://localhost/%0D%0AX:%20y", 400),
        ("http://localhost/a%20b", 400),
        ("http://169.254.169.254/latest", 403),
        ("http://localhost@example.org/", 403),
        ("http://example.org%23@localhost.example.org/", 403),
        ("http://[::2]/", 403),
        ("http:///path", 403),
    ],
)
def test_visit_refuses(visiting: Server, url: str, status: int) -> None:
    reply = visiting.get(f"/visit?url={url}")
    assert (reply.status, "http" in reply.text or "hosts" in reply.text or "ort" in reply.text) == (status, True)


@contextmanager
def other_server(*answers: bytes) -> Iterator[str]:
    """A server that gives each visitor the next answer, and a URL of it."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def answer() -> None:
            for text in answers:
                with listener.accept()[0] as client:
                    client.recv(4096)
                    try:
                        client.sendall(text)
                    except ConnectionError:
                        continue

        thread = threading.Thread(target=answer, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}/"
        thread.join(PATIENCE)
        assert not thread.is_alive()


@pytest.mark.parametrize(
    ("answer", "status", "text"),
    [
        (b"HTTP/1.0 200 OK\r\n\r\nuntil the end", 200, "until the end"),
        (b"HTTP/1.0 200 OK\r\nContent-Length: 3\r\n\r\nabcdef", 200, "abc"),
        (b"HTTP/1.0 200 OK\r\nContent-Length: 30\r\n\r\nabc", 502, "IncompleteReadError"),
        (b"HTTP/1.0 200 OK\r\nContent-Length: 3000000\r\n\r\nabc", 502, "Overflow"),
        (b"HTTP/1.0 200 OK\r\n\r\n" + b"x" * 2_000_000, 502, "Overflow"),
        (b"HTTP/1.0 200 OK\r\nA: " + b"x" * 40_000, 502, "Overflow"),
        (b"220 ready\r\n\r\n", 502, "ValueError"),
        (b"", 502, "IncompleteReadError"),
    ],
)
def test_visit_of_all_kinds_of_servers(visiting: Server, answer: bytes, status: int, text: str) -> None:
    with other_server(answer) as url:
        reply = visiting.get(f"/visit?url={url}")
    assert reply.status == status and text in reply.text
    assert visiting.get(f"/visit?url=http://127.0.0.1:{unused_port()}/").status == 502

"""HTTP by hand: bytes in, answers out, read by a strict reader of our own, so that wrong framing fails here."""

from __future__ import annotations

import contextlib
import json
import re
import socket
import time
from collections.abc import Sequence
from typing import Any, NamedTuple, Self

from server import PATIENCE, Server


class Answer(NamedTuple):
    """One answer as it came. `body` without chunk framing."""

    status: int
    fields: list[tuple[str, str]]
    body: bytes

    def get(self, name: str) -> str | None:
        """The only field of that name, or None."""
        values = [value for other, value in self.fields if other.lower() == name]
        assert len(values) < 2, f"{name} stands {len(values)} times"
        return values[0] if values else None

    @property
    def text(self) -> str:
        return self.body.decode()

    def json(self) -> Any:
        return json.loads(self.body)

    def without_date(self) -> Answer:
        """What does not depend on when it was made."""
        return self._replace(fields=[pair for pair in self.fields if pair[0] != "Date"])


def read_chunks(data: bytes) -> tuple[bytes, bytes]:
    """A chunked body, and what follows it."""
    body: list[bytes] = []
    at = 0
    while True:
        end = data.find(b"\r\n", at)
        assert end > 0 and re.fullmatch(rb"[0-9a-f]+", data[at:end]), f"no chunk size: {data[at : at + 40]!r}"
        size, at = int(data[at:end], 16), end + 2
        if not size:
            assert data[at : at + 2] == b"\r\n", "no end of the trailers"
            return b"".join(body), data[at + 2 :]
        assert data[at + size : at + size + 2] == b"\r\n", "a chunk is cut short"
        body.append(data[at : at + size])
        at += size + 2


def read_answer(data: bytes, method: str = "GET") -> tuple[Answer, bytes]:
    """The first answer in `data`, and what follows it."""
    head, end, data = data.partition(b"\r\n\r\n")
    assert end, f"no whole head: {head[:200]!r}"
    first, *lines = head.decode("latin-1").split("\r\n")
    match = re.fullmatch(r"HTTP/1\.1 (\d{3}) [A-Za-z ]*", first)
    assert match, f"no status line: {first!r}"
    pairs = [re.fullmatch(r"([!-9;-~]+): ([^\r\n\0]*)", line) for line in lines]
    assert all(pairs), head
    answer = Answer(int(match[1]), [(pair[1], pair[2]) for pair in pairs if pair], b"")
    length, coding = answer.get("content-length"), answer.get("transfer-encoding")
    assert not (length and coding)
    if answer.status < 200:
        assert not length and not coding
        return answer, data
    assert answer.get("date")
    if method == "HEAD" or answer.status in (204, 304):
        return answer, data
    if coding:
        assert coding == "chunked"
        body, data = read_chunks(data)
        return answer._replace(body=body), data
    if length is None:
        assert answer.get("connection") == "close", "an answer without framing on a connection that is kept"
        return answer._replace(body=data), b""
    assert len(data) >= int(length), f"{len(data)} of {length} bytes of body"
    return answer._replace(body=data[: int(length)]), data[int(length) :]


def read_answers(data: bytes, methods: Sequence[str] = ()) -> list[Answer]:
    """Every answer in `data`; nothing may be left over."""
    answers: list[Answer] = []
    final = 0
    while data:
        answer, data = read_answer(data, methods[final] if final < len(methods) else "GET")
        final += answer.status >= 200
        answers.append(answer)
    return answers


class Raw:
    """A connection for bytes. Any end of it, a reset too, is told by `receive_all`."""

    def __init__(self, server: Server | None, receive_buffer: int = 0, uds: str = "") -> None:
        self.socket = socket.socket(socket.AF_UNIX if uds else socket.AF_INET)
        if receive_buffer:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self.socket.settimeout(PATIENCE)
        self.asked = time.monotonic()  # when it last began to say something: before the server heard of it
        if server:
            self.socket.connect(("127.0.0.1", server.port))
            self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        else:
            self.socket.connect(uds)
        self.data = b""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def send(self, data: bytes, pause: float | None = None) -> bool:
        """Send all, or byte by byte with a pause after each. False when the server has closed meanwhile."""
        self.asked = time.monotonic()
        try:
            if pause is None:
                self.socket.sendall(data)
            else:
                for i in range(len(data)):
                    self.socket.sendall(data[i : i + 1])
                    time.sleep(pause)
        except (BrokenPipeError, ConnectionResetError):
            return False
        return True

    def receive_all(self) -> bytes:
        """Everything up to the end of the connection. A reset fails the test."""
        while chunk := self.socket.recv(1 << 20):
            self.data += chunk
        return self.data

    def receive(self, method: str = "GET") -> Answer:
        """One answer of a connection that is kept."""
        while True:
            with contextlib.suppress(AssertionError):
                answer, self.data = read_answer(self.data, method)
                return answer
            chunk = self.socket.recv(1 << 20)
            assert chunk, f"the connection ended within an answer: {self.data[:500]!r}"
            self.data += chunk

    def reset(self) -> None:
        """Close with a RST."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        self.socket.close()


def talk(server: Server, data: bytes, methods: Sequence[str] = (), pause: float | None = None) -> list[Answer]:
    """Send `data` on a new connection and read its answers until the server closes."""
    with Raw(server) as raw:
        raw.send(data, pause)
        return read_answers(raw.receive_all(), methods)


LINGER = 2.0  # LINGER_SECONDS of engine.h: who has his last answer and still talks after that gets a reset
BYTE_PAUSE = 0.0001  # long enough for the server to take most bytes one by one


def agree(server: Server, data: bytes, methods: Sequence[str] = ()) -> list[Answer]:
    """The answers to `data` sent whole, which must be those to it sent byte by byte (BEHAVIOURS 11)."""
    whole = talk(server, data, methods)
    deadline = time.monotonic() + PATIENCE
    while True:
        begun = time.monotonic()
        try:
            slow = talk(server, data, methods, BYTE_PAUSE if len(data) < 2000 else 0)
            break
        except ConnectionResetError:
            if time.monotonic() - begun < LINGER or time.monotonic() > deadline:
                raise
            time.sleep(1)  # the machine is busy: not even a hundred bytes are sent in that time
    assert [a.without_date() for a in whole] == [a.without_date() for a in slow]
    return whole

"""HTTP/1.x as it goes over the wire: BEHAVIOURS 1 to 14, each sent whole and byte by byte, against one server.

Bytes go in by hand, and what comes back is read by a strict reader of our own (`read_answers`), so that an answer that
is framed wrongly fails here, however lenient clients are. `Raw`, `Answer`, `talk` serve test_limits, test_connections.
"""

from __future__ import annotations

import contextlib
import json
import re
import socket
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Self

import pytest
from client import served
from conftest import Serve
from server import PATIENCE, Server

PROGRAM = """
    import asyncio
    from eighties import App, Response

    app = App()
    seen = []

    @app.route("/echo", ["GET", "POST", "PUT"])
    def echo(request):
        seen.append(request.query_string)
        return {"method": request.method, "target": request.target, "version": request.http_version,
                "body": request.body.decode("latin-1"), "headers": request.headers.pairs()}

    @app.get("/last")
    def last(request):
        return "last"

    @app.get("/smuggled")
    def smuggled(request):
        seen.append("smuggled")
        return "smuggled"

    @app.get("/seen")
    def what(request):
        return seen

    @app.get("/later")
    async def later(request):
        await asyncio.sleep(0.2)
        return "later"

    @app.route("/unread", ["POST"], stream=True)
    async def unread(request):
        return "unread"

    @app.route("/refuse", ["POST"], stream=True)
    async def refuse(request):
        await asyncio.sleep(0.05)
        return Response.text("no", 403)

    @app.route("/take", ["POST"], stream=True)
    async def take(request):
        seen.append("begun")
        size = 0
        async for chunk in request.stream():
            size += len(chunk)
        seen.append("whole")
        return str(size)

    @app.get("/lines")
    async def lines(request):
        for n in range(3):
            await asyncio.sleep(0)
            yield f"line {n}\\n"

    @app.get("/file")
    def file(request):
        return Response.file(__file__)

    @app.get("/status/{code:int}")
    def status(request, code):
        return Response(b"body" if code not in (204, 304) else None, code)

    @app.get("/header/{kind}")
    def header(request, kind):
        name, value = {
            "cr": ("X-A", "a\\rb"), "lf": ("X-A", "a\\nSet-Cookie: x=y"), "nul": ("X-A", "a\\0b"),
            "crlf": ("X-A", "a\\r\\n\\r\\nHTTP/1.1 200 OK"), "name": ("X A", "a"), "name-colon": ("X:A", "a"),
            "name-lf": ("X\\nA", "a"), "name-empty": ("", "a"), "del": ("X-A", "\\x7f"), "wide": ("X-A", "\\u20ac"),
            "wide-name": ("X-\\u0141", "a"), "coding": ("Transfer-Encoding", "chunked"), "number": ("X-A", 7),
            "surrogate": ("X-A", "\\udc0a"),
        }[kind]
        return Response("body", 200, [(name, value)])

    @app.get("/type")
    def content_type(request):
        return Response("body", content_type="text/html\\r\\nX-Evil: 1")

    @app.get("/cookie")
    def cookie(request):
        answer = Response.text("cookie")
        answer.fields.append(("Set-Cookie", "a=b\\r\\nX-Evil: 1"))
        return answer
"""

HOST = b"Host: a\r\n"
LAST = b"GET /last HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
SMUGGLED = b"GET /smuggled HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
POST = b"POST /echo HTTP/1.1\r\nHost: a\r\n"
CHUNKED = POST + b"Transfer-Encoding: chunked\r\n\r\n"

# ---- what serves the other files too ----


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


BYTE_PAUSE = 0.0001  # long enough for the server to take most bytes one by one


def agree(server: Server, data: bytes, methods: Sequence[str] = ()) -> list[Answer]:
    """The answers to `data` sent whole, which must be those to it sent byte by byte (BEHAVIOURS 11)."""
    whole = talk(server, data, methods)
    slow = talk(server, data, methods, BYTE_PAUSE if len(data) < 2000 else 0)
    assert [a.without_date() for a in whole] == [a.without_date() for a in slow]
    return whole


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    yield from served(PROGRAM, tmp_path_factory.mktemp("protocol"))


def seen(server: Server) -> list[str]:
    """What the program has noted so far."""
    notes: list[str] = server.get("/seen").json()
    return notes


# ---- what is refused ----


def head(*lines: bytes, first: bytes = b"POST /echo HTTP/1.1") -> bytes:
    """A request head with a good Host."""
    return b"\r\n".join((first, b"Host: a", *lines, b"", b""))


def line(first: bytes) -> bytes:
    """A request with that request line."""
    return first + b"\r\nHost: a\r\n\r\n"


LENGTHS = {
    "empty": b"", "plus": b"+1", "minus": b"-1", "underscore": b"1_0", "hex": b"0x1", "list": b"1,1",
    "list-ows": b"1, 1", "space": b"1 1", "comma": b"1,", "2^64": b"18446744073709551616",
    "2^63": b"9223372036854775808",
    "2^64+1": b"18446744073709551617", "long": b"0" * 40 + b"1", "other-digits": "१".encode(), "superscript": b"\xb2",
    "float": b"1.0", "word": b"one", "quotes": b'"1"', "nbsp": b"\xa01", "nel": b"1\x85",
}  # fmt: skip
CODINGS = {
    "twice-in-list": b"chunked, chunked", "gzip": b"gzip, chunked", "identity": b"identity", "last": b"chunked, gzip",
    "parameter": b"chunked;a=b", "prefix": b"xchunked", "suffix": b"chunkedx", "empty": b"", "comma": b",chunked",
    "quotes": b'"chunked"', "vt": b"\x0bchunked", "nbsp": b"\xa0chunked", "short": b"chunke", "cut": b"chun ked",
}  # fmt: skip
CHUNKS = {
    "empty": b"\r\n", "word": b"x\r\n", "0x": b"0x5\r\nhello\r\n", "minus": b"-5\r\nhello\r\n",
    "plus": b"+5\r\nhello\r\n",
    "space-before": b" 5\r\nhello\r\n", "space-after": b"5 \r\nhello\r\n", "underscore": b"0_5\r\nhello\r\n",
    "long": b"0000000000000005\r\nhello\r\n", "2^64": b"10000000000000005\r\nhello\r\n", "lf": b"5\nhello\r\n",
    "cr": b"5\rhello\r\n", "extension-lf": b"5;a\nhello\r\n", "extension-cr": b"5;a\rb\r\nhello\r\n",
    "extension-nul": b"5;\0\r\nhello\r\n", "extension-quoted-lf": b'5;a="\n"\r\nhello\r\n', "data-lf": b"5\r\nhello\n",
    "data-cr": b"5\r\nhello\r", "data-short": b"5\r\nhell\r\n", "data-long": b"5\r\nhello!\r\n",
    "data-none": b"5\r\nhello0",
    "only-extension": b";a\r\n", "last-lf": b"0\n\n", "end-lf": b"0\r\n\n", "end-crx": b"0\r\n\rx",
    "trailer-name": b"0\r\nX A: b\r\n\r\n", "trailer-colon": b"0\r\nX\r\n\r\n", "trailer-space": b"0\r\nX : a\r\n\r\n",
    "trailer-fold": b"0\r\nX: a\r\n b\r\n\r\n", "trailer-lf": b"0\r\nX: a\n\r\n", "trailer-cr": b"0\r\nX: a\rb\r\n\r\n",
    "trailer-nul": b"0\r\nX: \0\r\n\r\n", "extensions-4097": b"5;" + b"a" * 4097 + b"\r\nhello\r\n",
    "extensions-sum": (b"1;" + b"a" * 100 + b"\r\nx\r\n") * 41,
}  # fmt: skip
HOSTS = {
    "empty": b"", "slash": b"a/b", "question": b"a?b", "hash": b"a#b", "at": b"a@b", "word-port": b"a:b",
    "space": b"a b",
    "big-port": b"a:65536", "long-port": b"a:000080", "minus-port": b"a:-1", "only-port": b":80", "open": b"[::1",
    "after": b"[::1]a", "close": b"::1]", "bare-v6": b"::1", "url": b"http://a", "percent": b"a%4",
    "percent-g": b"a%gg",
    "backslash": b"a\\b", "utf-8": "ä".encode(), "quote": b'"a"', "brackets": b"[]", "two": b"a:1:2", "tab": b"a\tb",
}  # fmt: skip
FIELDS = {
    "space-before-colon": b"X-A : b", "tab-before-colon": b"X-A\t: b", "fold-space": b"X-A: a\r\n b",
    "fold-tab": b"X-A: a\r\n\tb", "fold-empty": b"X-A: a\r\n \r\nX-B: c", "no-name": b": b", "no-colon": b"X-A",
    "nul-name": b"X\0A: b", "nul-value": b"X-A: a\0b", "cr-name": b"X\rA: b", "cr-value": b"X-A: a\rb",
    "cr-end": b"X-A: a\r\r\nX-B: c", "lf-name": b"X\nA: b", "lf-value": b"X-A: a\nX-B: c", "lf-end": b"X-A: a\n",
    "del": b"X-A: a\x7f", "bell": b"X-A: \a", "escape": b"X-A: \x1b[0m", "utf-8-name": "Ä: a".encode(),
    "nbsp-name": b"X-A\xa0: b", "nel-name": b"\x85X-A: b", "vt": b"X-A: \x0ba", "quote-name": b'"X": b',
    "slash-name": b"X/A: b", "space-in-name": b"X A: b",
}  # fmt: skip
REQUEST_LINES = {
    "no-version": (b"GET /", 400), "0.9": (b"GET /echo HTTP/0.9", 505), "2.0": (b"GET /echo HTTP/2.0", 505),
    "1.10": (b"GET /echo HTTP/1.10", 400), "11": (b"GET /echo HTTP/11", 400), "lower": (b"GET /echo http/1.1", 400),
    "dot": (b"GET /echo HTTP/1.", 400), "x": (b"GET /echo HTTP/1.x", 400), "space-end": (b"GET /echo HTTP/1.1 ", 400),
    "tab-end": (b"GET /echo HTTP/1.1\t", 400), "plus": (b"GET /echo HTTP/+1.1", 400),
    "ICY": (b"GET /echo ICY/1.1", 400),
    "two-spaces": (b"GET  /echo HTTP/1.1", 400), "two-spaces-end": (b"GET /echo  HTTP/1.1", 400),
    "tab": (b"GET\t/echo\tHTTP/1.1", 400), "space": (b"GET /ec ho HTTP/1.1", 400),
    "leading-space": (b" GET /echo HTTP/1.1", 400),
    "nul": (b"GET /ec\0ho HTTP/1.1", 400), "nul-method": (b"G\0ET /echo HTTP/1.1", 400),
    "cr": (b"GET /ec\rho HTTP/1.1", 400),
    "hash": (b"GET /echo#a HTTP/1.1", 400), "utf-8": ("GET /ä HTTP/1.1".encode(), 400),
    "del": (b"GET /\x7f HTTP/1.1", 400),
    "relative": (b"GET echo HTTP/1.1", 400), "asterisk": (b"GET * HTTP/1.1", 400),
    "authority": (b"GET a:80 HTTP/1.1", 400),
    "connect": (b"CONNECT a:80 HTTP/1.1", 501), "connect-path": (b"CONNECT / HTTP/1.1", 501),
    "ftp": (b"GET ftp://a/ HTTP/1.1", 400),
    "userinfo": (b"GET http://u@a/ HTTP/1.1", 400), "no-host": (b"GET http:///echo HTTP/1.1", 400),
    "bad-port": (b"GET http://a:x/echo HTTP/1.1", 400), "no-target": (b"GET  HTTP/1.1", 400), "one-word": (b"GET", 400),
    "method-at": (b"G@T /echo HTTP/1.1", 400), "no-method": (b"/echo HTTP/1.1", 400),
    "asterisk-path": (b"OPTIONS *a HTTP/1.1", 400),
    "tls": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400), "h2": (b"PRI * HTTP/2.0", 505),
}  # fmt: skip


def refused() -> Iterator[Any]:
    """Every request that must be refused: bytes and status."""
    for name, value in LENGTHS.items():
        yield pytest.param(head(b"Content-Length: " + value) + b"x", 400, id=f"length-{name}")
    for first, second in ((b"1", b"2"), (b"2", b"1"), (b"1", b"1"), (b"1", b"")):
        data = head(b"Content-Length: " + first, b"Content-Length: " + second) + b"xy"
        yield pytest.param(data, 400, id=f"lengths-{first.decode()}-{second.decode()}")
    for value in (b"4294967297", b"4294967296", b"999999999999999999"):
        yield pytest.param(head(b"Content-Length: " + value) + b"x", 413, id=f"length-{value.decode()}")
    both = [b"Content-Length: 5", b"Transfer-Encoding: chunked"]
    yield pytest.param(head(*both) + b"0\r\n\r\n", 400, id="length-and-coding")
    yield pytest.param(head(*reversed(both)) + b"0\r\n\r\n", 400, id="coding-and-length")
    yield pytest.param(head(b"Content-Length: 0", both[1]) + b"0\r\n\r\n", 400, id="length-0-and-coding")
    for name, value in CODINGS.items():
        status = 400 if name == "vt" else 501
        yield pytest.param(head(b"Transfer-Encoding: " + value) + b"0\r\n\r\n", status, id=f"coding-{name}")
    yield pytest.param(head(both[1], both[1]) + b"0\r\n\r\n", 400, id="codings")
    yield pytest.param(head(both[1], first=b"POST /echo HTTP/1.0") + b"0\r\n\r\n", 400, id="coding-1.0")
    for name, value in CHUNKS.items():
        yield pytest.param(CHUNKED + value, 400, id=f"chunk-{name}")
    fields = b"".join(b"X-%d: a\r\n" % n for n in range(101))
    yield pytest.param(CHUNKED + b"0\r\n" + fields + b"\r\n", 431, id="trailer-fields")
    yield pytest.param(CHUNKED + b"0\r\nX: " + b"a" * 8192 + b"\r\n\r\n", 431, id="trailer-bytes")
    for name, value in HOSTS.items():
        yield pytest.param(b"GET /echo HTTP/1.1\r\nHost: " + value + b"\r\n\r\n", 400, id=f"host-{name}")
    yield pytest.param(b"GET /echo HTTP/1.0\r\nHost: a/b\r\n\r\n", 400, id="host-1.0")
    yield pytest.param(b"GET /echo HTTP/1.1\r\nX-A: a\r\n\r\n", 400, id="host-missing")
    yield pytest.param(b"GET http://a/echo HTTP/1.1\r\n\r\n", 400, id="host-missing-absolute")
    yield pytest.param(head(b"Host: a", first=b"GET /echo HTTP/1.1"), 400, id="host-twice")
    yield pytest.param(head(b"hOST: b", first=b"GET /echo HTTP/1.1"), 400, id="host-differs")
    for name, value in FIELDS.items():
        yield pytest.param(head(value, first=b"GET /echo HTTP/1.1"), 400, id=f"field-{name}")
    yield pytest.param(b"GET /echo HTTP/1.1\r\n Host: a\r\n\r\n", 400, id="field-first-folded")
    yield pytest.param(b"GET /echo HTTP/1.1\r\nHost : a\r\n\r\n", 400, id="host-space")
    yield pytest.param(b"GET /echo HTTP/1.1\nHost: a\n\n", 400, id="lf-only")
    for name, (first, status) in REQUEST_LINES.items():
        yield pytest.param(line(first), status, id=f"line-{name}")
    yield pytest.param(b"\n" + line(b"GET /echo HTTP/1.1"), 400, id="leading-lf")
    yield pytest.param(b"\r" + line(b"GET /echo HTTP/1.1"), 400, id="leading-cr")
    yield pytest.param(b"\r\n" * 9 + line(b"GET /echo HTTP/1.1"), 400, id="leading-crlfs")
    yield pytest.param(head(b"Expect: 200-ok", first=b"GET /echo HTTP/1.1"), 417, id="expect")
    yield pytest.param(head(b"Expect: 100-continue, x", b"Content-Length: 1") + b"x", 417, id="expect-list")


@pytest.mark.parametrize(("data", "status"), list(refused()))
def test_refused(server: Server, data: bytes, status: int) -> None:
    """Answered with that status and closed; what follows is not run, the request before it is answered."""
    before = seen(server)
    (answer,) = agree(server, data + SMUGGLED)
    assert answer.status == status
    assert answer.get("connection") == "close"
    assert answer.get("content-type") == "text/plain; charset=utf-8"
    assert answer.text.startswith(f"{status} ")
    assert seen(server) == before
    first, second, third = talk(server, LAST.replace(b"Connection: close\r\n", b"") * 2 + data + SMUGGLED)
    assert (first.text, second.text, third.status) == ("last", "last", status)
    assert seen(server) == before


# ---- what is taken ----

TAKEN = {
    "length": (POST + b"Content-Length: 5\r\n\r\nhello", "hello"),
    "length-0": (POST + b"Content-Length: 0\r\n\r\n", ""),
    "length-zeros": (POST + b"Content-Length: 000000000000000005\r\n\r\nhello", "hello"),
    "length-ows": (POST + b"Content-Length:\t 5 \t\r\n\r\nhello", "hello"),
    "length-case": (POST + b"cOnTeNt-LeNgTh:5\r\n\r\nhello", "hello"),
    "no-body": (POST + b"\r\n", ""),
    "get-body": (b"GET /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello", "hello"),
    "chunked": (CHUNKED + b"5\r\nhello\r\n0\r\n\r\n", "hello"),
    "chunked-case": (POST + b"transfer-ENCODING:\t CHUNKED \t\r\n\r\n1\r\nx\r\n0\r\n\r\n", "x"),
    "chunked-empty": (CHUNKED + b"0\r\n\r\n", ""),
    "chunked-zeros": (CHUNKED + b"000000000000005\r\nhello\r\n000\r\n\r\n", "hello"),
    "chunked-hex": (CHUNKED + b"A\r\n0123456789\r\na\r\n0123456789\r\n0\r\n\r\n", "0123456789" * 2),
    "chunked-pieces": (CHUNKED + b"1\r\nh\r\n1\r\ne\r\n3\r\nllo\r\n0\r\n\r\n", "hello"),
    "chunked-crlf-data": (CHUNKED + b"4\r\n\r\n\r\n\r\n0\r\n\r\n", "\r\n\r\n"),
    "extensions": (CHUNKED + b'5;a;b=c;d=";"\r\nhello\r\n0;e\r\n\r\n', "hello"),
    "extensions-4096": (CHUNKED + b"5;" + b"a" * 4095 + b"\r\nhello\r\n0\r\n\r\n", "hello"),
    "trailers": (CHUNKED + b"5\r\nhello\r\n0\r\nX-A: a\r\nX-B:\t b\r\n\r\n", "hello"),
    "trailer-framing": (CHUNKED + b"5\r\nhello\r\n0\r\nContent-Length: 50\r\nTransfer-Encoding: gzip\r\n\r\n", "hello"),
    "trailer-close": (CHUNKED + b"5\r\nhello\r\n0\r\nConnection: close\r\nHost: b\r\n\r\n", "hello"),
    "trailers-100": (CHUNKED + b"0\r\n" + b"".join(b"X-%d: a\r\n" % n for n in range(100)) + b"\r\n", ""),
    "leading-crlf": (b"\r\n" + POST + b"Content-Length: 5\r\n\r\nhello", "hello"),
    "leading-crlfs": (b"\r\n" * 4 + POST + b"Content-Length: 5\r\n\r\nhello", "hello"),
    "1.9": (b"POST /echo HTTP/1.9\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello", "hello"),
}


@pytest.mark.parametrize("name", TAKEN)
def test_taken(server: Server, name: str) -> None:
    data, body = TAKEN[name]
    first, second = agree(server, data + LAST)
    assert (first.status, first.json()["body"], second.text) == (200, body, "last")
    assert first.get("connection") is None
    assert first.get("server") == "80s"
    assert first.json()["version"] == "1.1"
    assert not {"content-length", "x-a"} & {name for name, _ in first.json()["headers"]} or b"\r\n0" not in data


GOOD_HOSTS = [
    b"a",
    b"a.b",
    b"a:80",
    b"a:",
    b"a:0",
    b"1.2.3.4:65535",
    b"[::1]",
    b"[::1]:8080",
    b"[::ffff:1.2.3.4]:",
    b"a_b",
    b"a%20b",
]


@pytest.mark.parametrize("host", GOOD_HOSTS)
def test_hosts(server: Server, host: bytes) -> None:
    first, _ = agree(server, b"GET /echo HTTP/1.1\r\nHost: \t" + host + b" \r\n\r\n" + LAST)
    assert first.json()["headers"] == [["host", host.decode()]]


def test_nothing_but_blanks_is_trimmed(server: Server) -> None:
    first, _ = agree(server, head(b"X-A: \t\xa0\x85a \t b\x85\xa0\t ", b"X-B:", first=b"GET /echo HTTP/1.1") + LAST)
    assert first.json()["headers"][1:] == [["x-a", "\xa0\x85a \t b\x85\xa0"], ["x-b", ""]]


@pytest.mark.parametrize(
    ("target", "seen_target", "host"),
    [
        (b"http://b/echo?x=1", "/echo?x=1", "b"),
        (b"HTTP://B:81/echo", "/echo", "B:81"),
        (b"https://[::1]:1/echo?", "/echo?", "[::1]:1"),
    ],
)
def test_absolute_form(server: Server, target: bytes, seen_target: str, host: str) -> None:
    """RFC 9112 3.2.2: the authority of the target replaces Host."""
    first, _ = agree(server, b"GET " + target + b" HTTP/1.1\r\nHost: other\r\n\r\n" + LAST)
    assert first.status == 200
    assert first.json()["headers"] == [["host", host]]
    assert first.json()["target"] in (seen_target, target.decode())


def test_absolute_form_without_a_path(server: Server) -> None:
    statuses = [
        a.status
        for a in agree(
            server, b"GET http://b HTTP/1.1\r\nHost: b\r\n\r\nGET http://b?x HTTP/1.1\r\nHost: b\r\n\r\n" + LAST
        )
    ]
    assert statuses == [404, 404, 200]
    first, _ = agree(server, b"OPTIONS http://b HTTP/1.1\r\nHost: b\r\n\r\n" + LAST)
    assert first.status == 204  # RFC 9112 3.2.4: this is OPTIONS *


# ---- bodies that are cut short, and those nobody reads ----


@pytest.mark.parametrize("path", [b"echo", b"take", b"nowhere"])
@pytest.mark.parametrize(
    "rest",
    [
        b"Content-Length: 6\r\n\r\nhello", b"Content-Length: 6\r\n\r\n",
        b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n",
        b"Transfer-Encoding: chunked\r\n\r\n5\r\nhell", b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n",
        b"Transfer-Encoding: chunked\r\n\r\n", b"Transfer-Encoding: chunked\r\n\r\n0\r\nX: a\r\n",
    ],
)  # fmt: skip
def test_a_body_cut_short_is_never_whole(server: Server, path: bytes, rest: bytes) -> None:
    before = seen(server)
    for pause in (None, BYTE_PAUSE):
        with Raw(server) as raw:
            raw.send(b"POST /" + path + b"?cut HTTP/1.1\r\nHost: a\r\n" + rest, pause)
            raw.socket.shutdown(socket.SHUT_WR)
            (answer,) = read_answers(raw.receive_all())
        assert (answer.status, answer.get("connection")) == (400, "close")
        with Raw(server) as raw:
            raw.send(b"POST /" + path + b"?cut HTTP/1.1\r\nHost: a\r\n" + rest, pause)
            raw.reset()
    assert {*seen(server)[len(before) :]} <= {"begun"}


@pytest.mark.parametrize("size", [1, 1000, 200_000])
@pytest.mark.parametrize("chunked", [False, True])
@pytest.mark.parametrize("path", [b"/unread", b"/nowhere", b"/last"])
def test_an_unread_body_is_drained(server: Server, path: bytes, chunked: bool, size: int) -> None:
    body = b"%x\r\n%s\r\n0\r\n\r\n" % (size, b"x" * size) if chunked else b"x" * size
    field = b"Transfer-Encoding: chunked" if chunked else b"Content-Length: %d" % size
    first, second = talk(server, b"POST " + path + b" HTTP/1.1\r\nHost: a\r\n" + field + b"\r\n\r\n" + body + LAST)
    assert first.status == {b"/unread": 200, b"/nowhere": 404, b"/last": 405}[path]
    assert second.text == "last"


@pytest.mark.parametrize("chunked", [False, True])
def test_an_unread_body_is_drained_within_a_bound(server: Server, chunked: bool) -> None:
    """The answer arrives, then the connection ends: nothing in the rest is taken for a request."""
    field = b"Transfer-Encoding: chunked" if chunked else b"Content-Length: 10000000"
    before = seen(server)
    with Raw(server) as raw:
        raw.send(b"POST /unread HTTP/1.1\r\nHost: a\r\n" + field + b"\r\n\r\n")
        assert raw.receive().text == "unread"
        piece = b"10000\r\n" + b"x" * 0x10000 + b"\r\n" if chunked else b"x" * 0x10000
        sent = 0
        while sent < 10_000_000 and raw.send(piece + SMUGGLED if sent > 9_000_000 else piece):
            sent += len(piece)
        assert sent < 10_000_000
    assert seen(server) == before


@pytest.mark.parametrize(
    "field",
    [
        b"Connection: close", b"Connection: CLOSE", b"Connection: keep-alive, close", b"Connection: close, keep-alive",
        b"Connection: keep-alive\r\nConnection: close", b"Connection: close\r\nConnection: keep-alive",
        b"Connection:\tclose\t", b"Connection: , ,\tclose ,", b"Connection: x,close", b"Connection: keep-alive,\tclose",
    ],
)  # fmt: skip
def test_nothing_runs_after_close(server: Server, field: bytes) -> None:
    (answer,) = agree(server, head(field, first=b"GET /last HTTP/1.1") + SMUGGLED)
    assert (answer.text, answer.get("connection")) == ("last", "close")
    assert "smuggled" not in seen(server)


@pytest.mark.parametrize(
    "field", [b"Connection: keep-alive", b"Connection: closed", b"Connection: x-close", b"Connection:"]
)
def test_other_connection_options_close_nothing(server: Server, field: bytes) -> None:
    first, second = agree(server, head(field, first=b"GET /last HTTP/1.1") + LAST)
    assert (first.text, first.get("connection"), second.get("connection")) == ("last", None, "close")


# ---- HTTP/1.0, half-closed clients ----


def test_http_1_0(server: Server) -> None:
    (answer,) = agree(server, b"GET /echo HTTP/1.0\r\n\r\n" + SMUGGLED)
    assert (answer.status, answer.get("connection"), answer.json()["version"]) == (200, "close", "1.0")
    (answer,) = agree(server, b"GET /lines HTTP/1.0\r\nConnection: keep-alive\r\n\r\n" + SMUGGLED)
    assert (answer.body, answer.get("transfer-encoding")) == (b"line 0\nline 1\nline 2\n", None)
    kept = b"POST /echo HTTP/1.0\r\nConnection: Keep-Alive\r\nContent-Length: 2\r\n\r\nhi"
    first, second, third = agree(server, kept * 2 + b"GET /last HTTP/1.0\r\n\r\n" + SMUGGLED)
    assert [first.get("connection"), second.get("connection"), third.get("connection")] == ["keep-alive"] * 2 + [
        "close"
    ]
    assert (first.json()["body"], third.text) == ("hi", "last")
    # An error that leaves the framing whole keeps the connection, in both versions
    first, second = agree(server, b"GET /no HTTP/1.0\r\nConnection: keep-alive\r\n\r\nGET /last HTTP/1.0\r\n\r\n")
    assert (first.status, second.text) == (404, "last")


@pytest.mark.parametrize("path", ["echo", "later", "lines", "file"])
@pytest.mark.parametrize("version", ["1.0", "1.1"])
def test_a_half_closed_client_gets_its_answer(server: Server, path: str, version: str) -> None:
    for count in (1, 3):
        if version == "1.0" and count == 3:
            continue
        with Raw(server) as raw:
            raw.send(f"GET /{path} HTTP/{version}\r\nHost: a\r\n\r\n".encode() * count)
            raw.socket.shutdown(socket.SHUT_WR)
            # A 100 may come first: the server asks whether the client is still there
            final = [a.status for a in read_answers(raw.receive_all()) if a.status != 100]
            assert final == [200] * count


def test_a_client_that_says_nothing(server: Server) -> None:
    for data in (b"", b"\r\n", b"GET / HT", b"GET /echo HTTP/1.1\r\nHost: a\r\n"):
        with Raw(server) as raw:
            raw.send(data)
            raw.socket.shutdown(socket.SHUT_WR)
            assert raw.receive_all() == b""


# ---- pipelining ----


def test_pipelined_answers_come_in_order_and_in_one_piece(server: Server) -> None:
    with Raw(server) as raw:
        raw.send(b"".join(b"GET /echo?n=%d HTTP/1.1\r\nHost: a\r\n\r\n" % n for n in range(16)))
        first = raw.socket.recv(1 << 20)
        answers = read_answers(first)
        assert [a.json()["target"] for a in answers] == [f"/echo?n={n}" for n in range(16)]


def test_pipelined_requests_of_all_kinds_stay_in_order(server: Server) -> None:
    paths = ["later", "last", "lines", "echo", "nowhere", "file", "later", "status/304", "last"]
    data = b"".join(f"GET /{path} HTTP/1.1\r\nHost: a\r\n\r\n".encode() for path in paths)
    methods = ["GET"] * len(paths) + ["POST", "HEAD", "GET"]
    data += TAKEN["chunked"][0] + b"HEAD /lines HTTP/1.1\r\nHost: a\r\n\r\n" + LAST
    answers = agree(server, data, methods)
    assert [a.status for a in answers] == [200, 200, 200, 200, 404, 200, 200, 304, 200, 200, 200, 200]
    assert [answers[0].text, answers[6].text, answers[-1].text] == ["later", "later", "last"]


def test_good_requests_ahead_of_a_bad_one_are_answered(server: Server) -> None:
    """BEHAVIOURS 12, with requests that wait ahead of the bad one."""
    data = b"GET /later HTTP/1.1\r\nHost: a\r\n\r\n" + POST + b"Content-Length: 2\r\n\r\nhi" + b"BAD\r\n\r\n"
    answers = agree(server, data + SMUGGLED)
    assert [a.status for a in answers] == [200, 200, 400]
    assert answers[2].get("connection") == "close"
    assert "smuggled" not in seen(server)


@pytest.mark.parametrize("bad", [b"BAD\r\n\r\n", head(b"Content-Length: x")])
def test_a_bad_request_after_others_is_answered_for_itself(server: Server, bad: bytes) -> None:
    """Nothing of the request before, HEAD or HTTP/1.0, bears on the answer to one that cannot be read."""
    told, refused = agree(server, b"HEAD /last HTTP/1.0\r\nConnection: keep-alive\r\n\r\n" + bad, ["HEAD"])
    assert (told.status, told.body, refused.status, refused.text[:4]) == (200, b"", 400, "400 ")


# ---- 100 (Continue) ----

EXPECT = b"Expect: 100-continue\r\n"


@pytest.mark.parametrize("path", [b"/echo", b"/take"])
@pytest.mark.parametrize("chunked", [False, True])
def test_continue_is_sent_when_the_body_is_wanted(server: Server, path: bytes, chunked: bool) -> None:
    field, body = (b"Transfer-Encoding: chunked", b"2\r\nhi\r\n0\r\n\r\n") if chunked else (b"Content-Length: 2", b"hi")
    with Raw(server) as raw:
        for _ in range(2):
            raw.send(b"POST " + path + b" HTTP/1.1\r\nHost: a\r\nexpect: 100-CONTINUE\r\n" + field + b"\r\n\r\n")
            assert raw.receive().status == 100
            raw.send(body)
            assert raw.receive().status == 200
        raw.send(LAST)
        assert raw.receive().text == "last"


@pytest.mark.parametrize(
    ("first", "fields", "status"),
    [
        pytest.param(b"POST /echo", b"Content-Length: 2\r\n\r\nhi", 200, id="sent already"),
        pytest.param(b"POST /echo", b"Content-Length: 0\r\n\r\n", 200, id="length 0"),
        pytest.param(b"GET /echo", b"\r\n", 200, id="no body"),
        pytest.param(b"POST /nowhere", b"Content-Length: 2\r\n\r\n", 404, id="404"),
        pytest.param(b"POST /last", b"Content-Length: 2\r\n\r\n", 405, id="405"),
        pytest.param(b"BREW /last", b"Content-Length: 2\r\n\r\n", 501, id="501"),
        pytest.param(b"POST /echo", b"Content-Length: 9999999\r\n\r\n", 413, id="413"),
        pytest.param(b"POST /refuse", b"Content-Length: 9\r\n\r\n", 403, id="unread"),
        pytest.param(b"POST /unread", b"Content-Length: 9\r\n\r\n", 200, id="unread at once"),
        pytest.param(b"POST /unread", b"Transfer-Encoding: chunked\r\n\r\n", 200, id="unread chunked"),
    ],
)
def test_continue_is_not_sent(server: Server, first: bytes, fields: bytes, status: int) -> None:
    """The final answer comes first; where the body may still come or not, the connection ends and says so."""
    with Raw(server) as raw:
        raw.send(first + b" HTTP/1.1\r\nHost: a\r\n" + EXPECT + fields)
        answer = raw.receive()
        assert answer.status == status
        if not first.endswith(b"/echo") or status == 413:
            assert raw.receive_all() == b""
            assert answer.get("connection") == "close", "the connection ends and the answer does not say so"
        else:
            raw.socket.shutdown(socket.SHUT_WR)
            assert raw.receive_all() == b""


def test_continue_is_not_sent_to_1_0(server: Server) -> None:
    with Raw(server) as raw:
        raw.send(b"POST /echo HTTP/1.0\r\nContent-Length: 2\r\n" + EXPECT + b"\r\n")
        raw.socket.settimeout(0.2)
        with pytest.raises(TimeoutError):
            raw.socket.recv(100)
        raw.socket.settimeout(PATIENCE)
        raw.send(b"hi")
        assert raw.receive().json()["body"] == "hi"


def test_continue_waits_for_its_turn(server: Server) -> None:
    """Behind an answer that waits, 100 comes after that answer."""
    with Raw(server) as raw:
        raw.send(b"GET /later HTTP/1.1\r\nHost: a\r\n\r\n" + POST + EXPECT + b"Content-Length: 2\r\n\r\n")
        assert [raw.receive().text, raw.receive().status] == ["later", 100]
        raw.send(b"hi" + LAST)
        assert [raw.receive().status, raw.receive().text] == [200, "last"]


# ---- methods ----


@pytest.mark.parametrize("path", ["echo", "last", "lines", "file", "nowhere", "status/204", "status/304", "status/500"])
def test_head_tells_what_get_would(server: Server, path: str) -> None:
    data = f"GET /{path} HTTP/1.1\r\nHost: a\r\n\r\nHEAD /{path} HTTP/1.1\r\nHost: a\r\n\r\n".encode()
    get, told, last = agree(server, data + LAST, ["GET", "HEAD"])
    assert (told.status, told.body, last.text) == (get.status, b"", "last")
    assert {name for name, _ in get.fields} == {name for name, _ in told.fields}
    if path != "echo":
        assert told.without_date().fields == get.without_date().fields


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"HEAD /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 9999999\r\n\r\n", 413),
        (b"HEAD /nowhere HTTP/1.1\r\nHost: a\r\nContent-Length: 9999999\r\n\r\n", 404),
        (b"HEAD /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nx\r\n", 400),
    ],
)
def test_errors_have_no_body_for_head(server: Server, data: bytes, status: int) -> None:
    """The body of a HEAD's answer would be read as another answer (RFC 9110 9.3.2)."""
    answers = agree(server, data, ["HEAD"])
    assert [a.status for a in answers] == [status]


def test_other_methods(server: Server) -> None:
    data = b"".join(
        first + b"\r\nHost: a\r\n\r\n"
        for first in (
            b"OPTIONS * HTTP/1.1", b"OPTIONS /echo HTTP/1.1", b"OPTIONS /nowhere HTTP/1.1", b"DELETE /echo HTTP/1.1",
            b"POST /last HTTP/1.1", b"BREW /echo HTTP/1.1", b"get /echo HTTP/1.1", b"TRACE /echo HTTP/1.1",
        )
    )  # fmt: skip
    answers = agree(server, data + LAST)
    assert [a.status for a in answers] == [204, 204, 404, 405, 405, 501, 501, 501, 200]
    allowed = [sorted((a.get("allow") or "").split(", ")) for a in answers]
    assert allowed[0] == sorted("GET HEAD POST PUT DELETE PATCH OPTIONS".split())
    assert allowed[1] == allowed[3] == sorted("GET HEAD POST PUT OPTIONS".split())
    assert allowed[4] == sorted("GET HEAD OPTIONS".split())
    assert [a.get("content-length") for a in answers[:2]] == [None, None]
    assert all(a.get("connection") is None for a in answers[:-1])


# ---- Date and Server ----


def test_date(server: Server) -> None:
    date = re.compile(r"(Mon|Tue|Wed|Thu|Fri|Sat|Sun), \d\d [A-Z][a-z]{2} \d{4} \d\d:\d\d:\d\d GMT")
    for data in (
        LAST,
        b"GET /no HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
        b"x\r\n\r\n",
        b"BREW / HTTP/1.0\r\n\r\n",
    ):
        (answer,) = talk(server, data)
        value = answer.get("date")
        assert value and date.fullmatch(value), value
        assert abs(time.mktime(time.strptime(value, "%a, %d %b %Y %H:%M:%S GMT")) - time.timezone - time.time()) < 3


def test_no_server_header(serve: Serve) -> None:
    server = serve(PROGRAM, "--no-server-header")
    for data in (LAST, b"x\r\n\r\n", b"GET /no HTTP/1.0\r\n\r\n", b"GET /header/lf HTTP/1.0\r\n\r\n"):
        (answer,) = talk(server, data)
        assert answer.get("server") is None
        assert answer.get("date")


# ---- what the program hands over ----

KINDS = [
    "cr",
    "lf",
    "nul",
    "crlf",
    "name",
    "name-colon",
    "name-lf",
    "name-empty",
    "del",
    "wide",
    "wide-name",
    "coding",
    "number",
    "surrogate",
]


@pytest.mark.parametrize("path", [f"header/{kind}" for kind in KINDS] + ["type", "cookie"])
def test_header_fields_of_the_program_are_checked(server: Server, path: str) -> None:
    count = len([entry for entry in server.log if entry["level"] == "error"])
    first, second = talk(server, f"GET /{path} HTTP/1.1\r\nHost: a\r\n\r\n".encode() + LAST)
    assert (first.status, second.text) == (500, "last")
    assert not {"X-A", "X-Evil", "Set-Cookie"} & {name for name, _ in first.fields}
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline and len([e for e in server.log if e["level"] == "error"]) == count:
        time.sleep(0.01)
    assert "traceback" in server.log[-1] or "header" in str(server.log[-1]["message"]), server.log[-1]


def test_what_a_status_may_have(server: Server) -> None:
    """204 and 304 have no body and no length, whatever the program says (RFC 9110 6.4.1)."""
    data = b"".join(
        b"GET /status/%d HTTP/1.1\r\nHost: a\r\n\r\n" % code for code in (200, 204, 304, 299, 599, 600, 100)
    )
    answers = agree(server, data + LAST)
    assert [a.status for a in answers] == [200, 204, 304, 299, 599, 500, 500, 200]
    assert [a.get("content-length") for a in answers[:4]] == ["4", None, None, "4"]


def test_the_case_tables_have_no_doubles(tmp_path: Path) -> None:
    """A case that stands twice is a slip."""
    values = [param.values[0] for param in refused()]
    assert len(values) == len(set(values))

"""HTTP/1.x as it goes over the wire: BEHAVIOURS 1 to 14, each sent whole and byte by byte, against one server.

Bytes go in by hand, and what comes back is read by a strict reader of our own (`read_answers`), so that an answer that
is framed wrongly fails here, however lenient clients are. See wire.py, and refused.py for the tables.
"""

from __future__ import annotations

import re
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from client import served
from conftest import Serve
from refused import CHUNKED, POST, head, refused
from server import PATIENCE, Server
from wire import BYTE_PAUSE, Raw, agree, read_answers, talk

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


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    yield from served(PROGRAM, tmp_path_factory.mktemp("protocol"))


def seen(server: Server) -> list[str]:
    """What the program has noted so far."""
    notes: list[str] = server.get("/seen").json()
    return notes


# ---- what is refused ----


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

"""Requests and their answers over real sockets: every kind of value, bodies, forms, and streams both ways."""

from __future__ import annotations

import http.client
import json
import re
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from client import Client, served
from conftest import Serve
from server import PATIENCE, Reply, Server, wait_until

# ---- every kind of value, and of request ----

PROGRAM = """
    import asyncio, contextvars, dataclasses, functools, os
    from eighties import App, HTTPError, Request, Response

    app = App(max_body=4_000_000)
    notes = {"made": 0, "read": 0, "cancelled": 0, "closed": 0}
    variable = contextvars.ContextVar("variable", default="unset")
    release = asyncio.Event()

    @dataclasses.dataclass
    class User:
        id: int
        name: str

    class Lines:
        def __init__(self): self.left = 3
        def __aiter__(self): return self
        async def __anext__(self):
            if not self.left: raise StopAsyncIteration
            self.left -= 1
            return b"line\\n"

    class Later:
        def __await__(self):
            yield from asyncio.sleep(0.001).__await__()
            return "later"

    async def two():
        yield "a"
        yield "ö".encode()
    async def none():
        return
        yield
    async def bad_chunk():
        yield 7
    async def breaks():
        yield "begun"
        raise RuntimeError("broke in the middle")
    async def breaks_first():
        raise RuntimeError("broke at once")
        yield
    def lazy():
        yield "sync"

    VALUES = {
        "str": lambda: "ö", "bytes": lambda: b"\\x00\\xff", "none": lambda: None, "dict": lambda: {"a": "ö"},
        "list": lambda: [1, None], "dataclass": lambda: User(1, "x"), "generator": two, "empty": none,
        "response": lambda: Response.html("<p>", 201, headers={"X-A": "ö"}), "later": Later,
        "created": lambda: Response(None, 201), "stream": lambda: Response.stream(two(), content_type="a/b"),
        "length": lambda: Response.stream(two(), length=3), "short": lambda: Response.stream(two(), length=4),
        "long": lambda: Response.stream(two(), length=2), "lines": lambda: Response.stream(Lines()),
        "redirect": lambda: Response.redirect("/a\\r\\nb"), "task": lambda: asyncio.ensure_future(later()),
        "file": lambda: Response.file(__file__), "subclass": lambda: type("Sub", (str,), {})("sub"),
        "bytearray": lambda: bytearray(b"x"), "tuple": lambda: ("a", 200), "int": lambda: 7, "bool": lambda: True,
        "object": object, "class": lambda: User, "sync": lazy, "set": lambda: {1},
        "bad_chunk": bad_chunk, "breaks": breaks, "breaks_first": breaks_first, "nan": lambda: {"x": float("nan")},
        "unjson": lambda: [object()], "surrogate": lambda: "\\ud800", "json_surrogate": lambda: ["\\ud800"],
        "header": lambda: Response.text("", headers={"X-A": "a\\r\\nSet-Cookie: x=y"}),
        "header_name": lambda: Response.text("", headers={"X A": "a"}), "status": lambda: Response(None, 1000),
        "type": lambda: Response("", content_type="a\\r\\nb"), "header_type": lambda: Response("", 200, [("a", 7)]),
        "latin": lambda: Response.text("", headers={"X-A": "\\u20ac"}), "body": lambda: Response(7),
    }

    async def later():
        await asyncio.sleep(0.001)
        return "task"

    @app.get("/sync/{kind}")
    def sync(request, kind):
        return VALUES[kind]()

    @app.get("/async/{kind}")
    async def asynchronous(request, kind):
        await asyncio.sleep(0)
        return VALUES[kind]()

    @app.get("/nested")
    def nested(request):
        async def outer():
            return later()
        return outer()

    @app.get("/raise/{how}")
    def fail(request, how):
        if how == "http":
            raise HTTPError(429, "slow down", {"Retry-After": "7"})
        raise RuntimeError("sync failure")

    @app.get("/raise-async")
    async def fail_async(request):
        await asyncio.sleep(0.001)
        raise RuntimeError("async failure")

    @app.route("/about", ["GET", "PUT"])
    def about(request):
        return {"method": request.method, "path": request.path, "target": request.target, "scheme": request.scheme,
                "query_string": request.query_string, "query": request.query.pairs(), "host": request.client.host,
                "version": request.http_version, "headers": request.headers.pairs(), "cookies": request.cookies,
                "worker": request.worker, "params": request.params, "same": request.cookies is request.cookies,
                "agent": request.headers.get("User-AGENT"), "body": request.body.decode(), "name": request.handler_name}

    @app.get("/params/{a}/{b:int}/{c:path}")
    def params(request, a, b, c):
        return [a, b, c, request.params]

    @app.get("/keep")
    async def keep(request):
        path = request.path
        await asyncio.sleep(0.01)
        return [path, request.path, request.headers["x-big"][:3], request.query.getall("a")]

    @app.get("/context")
    async def context(request):
        before = variable.get()
        variable.set(request.query["v"])
        await asyncio.sleep(0.002)
        return [before, variable.get()]

    @app.get("/context-sync")
    def context_sync(request):
        before = variable.get()
        variable.set(request.query["v"])
        return [before, variable.get()]

    @app.post("/text")
    def text(request): return request.text()
    @app.post("/json")
    def as_json(request): return {"got": request.json()}
    @app.post("/form")
    def form(request):
        fields = request.form(max_fields=3)
        assert request.form() is fields
        return [[k, v if isinstance(v, str) else [v.filename, v.content_type, v.size, v.read().decode("latin1")]]
                for k, v in fields.pairs()]
    @app.post("/big-form", stream=True)
    async def big_form(request):
        fields = await request.read_form(max_bytes=3_000_000)
        return {"size": fields["file"].size, "left": len(fields["file"].read()), "name": fields["name"]}
    @app.post("/buffered")
    async def buffered(request):
        return [len(chunk) async for chunk in request.stream()]
    @app.post("/streamed", stream=True)
    async def streamed(request):
        return [len(chunk) > 0 async for chunk in request.stream()]
    @app.post("/streamed-wrong", stream=True)
    async def streamed_wrong(request):
        return request.body
    @app.post("/cookies")
    def cookies(request):
        response = Response.text("set")
        for name, value in request.cookies.items():
            response.set_cookie(name, value + "!", httponly=True)
        response.delete_cookie("old")
        return response

    @app.get("/notes")
    def read_notes(request): return notes
    @app.get("/release")
    def let_go(request):
        release.set()
    @app.get("/flood")
    async def flood(request):
        try:
            while True:
                notes["made"] += 1
                yield b"x" * 16384
        finally:
            notes["closed"] += 1
    @app.post("/slow-reader", stream=True)
    async def slow_reader(request):
        await release.wait()
        length = 0
        async for chunk in request.stream():
            length += len(chunk)
        return str(length)
    @app.route("/wait", ["GET", "POST"])
    async def wait(request):
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            notes["cancelled"] += 1
            raise
    @app.post("/cut", stream=True)
    async def cut(request):
        try:
            async for chunk in request.stream():
                notes["read"] += len(chunk)
            notes["ended"] = "whole"
        except BaseException as error:
            notes["ended"] = type(error).__name__
            raise
"""


@pytest.fixture(scope="module", params=[1, 2], ids=["1 worker", "2 workers"])
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    yield from served(PROGRAM, tmp_path_factory.mktemp("program"), "-c", str(request.param))


TEXT = "text/plain; charset=utf-8"
BINARY = "application/octet-stream"
JSON = "application/json"


@pytest.mark.parametrize("way", ["sync", "async"])
@pytest.mark.parametrize(
    ("kind", "status", "content_type", "body"),
    [
        ("str", 200, TEXT, "ö".encode()),
        ("bytes", 200, BINARY, b"\x00\xff"),
        ("none", 204, None, b""),
        ("dict", 200, JSON, '{"a":"ö"}'.encode()),
        ("list", 200, JSON, b"[1,null]"),
        ("dataclass", 200, JSON, b'{"id":1,"name":"x"}'),
        ("generator", 200, TEXT, "aö".encode()),
        ("empty", 200, TEXT, b""),
        ("response", 201, "text/html; charset=utf-8", b"<p>"),
        ("created", 201, None, b""),
        ("later", 200, TEXT, b"later"),
        ("task", 200, TEXT, b"task"),
        ("stream", 200, "a/b", "aö".encode()),
        ("length", 200, BINARY, "aö".encode()),
        ("lines", 200, BINARY, b"line\nline\nline\n"),
        ("redirect", 302, TEXT, b"See /a%0D%0Ab\n"),
        ("subclass", 200, TEXT, b"sub"),
        ("json_surrogate", 200, JSON, b'["\\ud800"]'),
    ],
)
def test_values(server: Server, way: str, kind: str, status: int, content_type: str | None, body: bytes) -> None:
    with Client(server) as client:
        reply = client.request("GET", f"/{way}/{kind}")
        assert (reply.status, reply.headers["content-type"], reply.body) == (status, content_type, body)
        head = client.request("HEAD", f"/{way}/{kind}")
        assert (head.status, head.headers["content-type"], head.body) == (status, content_type, b"")
        assert head.headers["content-length"] == reply.headers["content-length"]


def test_a_file(server: Server, tmp_path: Path) -> None:
    reply = server.get("/sync/file")
    assert reply.headers["content-type"].startswith("text/plain")
    assert b"def sync(request, kind)" in reply.body


@pytest.mark.parametrize("way", ["sync", "async"])
@pytest.mark.parametrize(
    ("kind", "what"),
    [
        ("tuple", "a tuple"),
        ("int", "an int"),
        ("bool", "a bool"),
        ("object", "an object"),
        ("class", "a type"),
        ("sync", "a generator"),
        ("set", "a set"),
        ("bytearray", "a bytearray"),
    ],
)
def test_wrong_values_are_named(serve_once: Server, way: str, kind: str, what: str) -> None:
    with Client(serve_once) as client:
        already = len(serve_once.log)
        reply = client.request("GET", f"/{way}/{kind}")
        assert (reply.status, reply.text) == (500, "Internal Server Error\n")
        wait_until(lambda: len(serve_once.log) > already, "a log line")
        line = serve_once.log[-1]
        name = "sync" if way == "sync" else "asynchronous"
        assert re.search(
            rf"TypeError: {name} \(program.py:\d+\) returned {what}, which is no answer", line["traceback"]
        )
        assert "Allowed are str, bytes, None, dict, list, a dataclass" in line["traceback"]
        assert client.request("GET", "/sync/str").text == "ö"


@pytest.mark.parametrize("way", ["sync", "async"])
@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("bad_chunk", "yielded an int, but a stream is made of str or bytes"),
        ("breaks_first", "broke at once"),
        ("nan", "Out of range float"),
        ("unjson", "there is no JSON for an object"),
        ("surrogate", "surrogates not allowed"),
        ("header", "X-A"),
        ("header_name", "X A"),
        ("header_type", "str, not int"),
        ("latin", "latin-1"),
        ("status", "status 1000"),
        ("type", "content type"),
        ("body", "not int"),
    ],
)
def test_answers_that_cannot_be_sent(serve_once: Server, way: str, kind: str, message: str) -> None:
    with Client(serve_once) as client:
        already = len(serve_once.log)
        reply = client.request("GET", f"/{way}/{kind}")
        assert (reply.status, reply.text) == (500, "Internal Server Error\n")
        assert "set-cookie" not in reply.headers
        wait_until(lambda: len(serve_once.log) > already, "a log line")
        assert message in serve_once.log[-1]["traceback"]
        assert client.request("GET", "/sync/str").text == "ö"


@pytest.fixture(scope="module")
def serve_once(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One worker, for tests that look at its log or its notes."""
    yield from served(PROGRAM, tmp_path_factory.mktemp("once"))


@pytest.mark.parametrize("kind", ["breaks", "short", "long"])
def test_an_answer_that_breaks_off_does_not_look_complete(serve_once: Server, kind: str) -> None:
    already = len(serve_once.log)
    with Client(serve_once) as client, pytest.raises((http.client.IncompleteRead, ConnectionError)):
        client.request("GET", f"/sync/{kind}")
    wait_until(lambda: len(serve_once.log) > already, "a log line")
    assert "traceback" in serve_once.log[-1]


def test_exceptions_are_500_and_the_connection_lives_on(serve_once: Server) -> None:
    with Client(serve_once) as client:
        for path in ("/raise/x", "/raise-async"):
            reply = client.request("GET", path)
            assert (reply.status, reply.text) == (500, "Internal Server Error\n")
        assert "sync failure" in serve_once.wait_for("GET /raise/x: fail (program.py:")["traceback"]
        assert "async failure" in serve_once.wait_for("GET /raise-async: fail_async (program.py:")["traceback"]
        reply = client.request("GET", "/raise/http")
        assert (reply.status, reply.text, reply.headers["retry-after"]) == (429, "slow down\n", "7")
        assert client.request("GET", "/nested").status == 200


def test_attributes(server: Server) -> None:
    with Client(server) as client:
        client.send(
            "PUT /about?a=1&b=%20+&a=2 HTTP/1.1\r\nHost: x.example\r\nUser-Agent: me\r\nCookie: a=b; c=d\r\n"
            "X-Two: 1\r\nx-two: 2\r\nCookie: e=f; a=z\r\nContent-Length: 4\r\n\r\nbody"
        )
        response = http.client.HTTPResponse(client.socket)
        response.begin()
        about = json.loads(response.read())
    assert about.pop("worker") in (0, 1)
    assert re.match(r"about \(program.py:\d+\)", about.pop("name"))
    assert about == {
        "method": "PUT",
        "path": "/about",
        "target": "/about?a=1&b=%20+&a=2",
        "scheme": "http",
        "query_string": "a=1&b=%20+&a=2",
        "query": [["a", "1"], ["b", "  "], ["a", "2"]],
        "host": "127.0.0.1",
        "version": "1.1",
        "headers": [
            ["host", "x.example"],
            ["user-agent", "me"],
            ["cookie", "a=b; c=d"],
            ["x-two", "1"],
            ["x-two", "2"],
            ["cookie", "e=f; a=z"],
            ["content-length", "4"],
        ],
        "cookies": {"a": "b", "c": "d", "e": "f"},
        "params": {},
        "same": True,
        "agent": "me",
        "body": "body",
    }


def test_params(server: Server) -> None:
    expected = ["ö/x", 7, "r/e%st", {"a": "ö/x", "b": 7, "c": "r/e%st"}]
    assert server.get("/params/%C3%B6%2Fx/007/r/e%25st").json() == expected
    assert server.get("/params/a/1/").json()[2] == ""
    assert server.get("/params/a/x/y").status == 404
    assert server.get("/params/a/" + "9" * 30 + "/y").status == 404


def test_a_request_can_be_read_after_waiting(server: Server) -> None:
    with Client(server) as client:
        head = f"GET /keep?a=1&a=2 HTTP/1.1\r\nHost: x\r\nX-Big: big{'x' * 5000}\r\n"
        client.send(f"{head}\r\n{head.replace('keep', 'about')}Connection: close\r\n\r\n")
        text = client.socket.makefile("rb").read()
    assert b'["/keep","/keep","big",["1","2"]]' in text
    assert b'"path":"/about"' in text


@pytest.mark.parametrize("path", ["/context", "/context-sync"])
def test_context_variables_are_a_requests_own(server: Server, path: str) -> None:
    clients = [Client(server) for _ in range(8)]
    for turn in range(3):
        for number, client in enumerate(clients):
            client.http.request("GET", f"{path}?v={turn}.{number}")
        for number, client in enumerate(clients):
            assert Reply(client.http.getresponse()).json() == ["unset", f"{turn}.{number}"]
    for client in clients:
        client.socket.close()


# ---- bodies ----


@pytest.mark.parametrize(
    ("path", "kind", "body", "status", "text"),
    [
        ("/text", "text/plain", "ö".encode(), 200, "ö"),
        ("/text", "text/plain; charset=latin1", b"\xf6", 200, "ö"),
        ("/text", "text/plain", b"\xf6", 400, "the body is not utf-8: byte 0, invalid start byte\n"),
        ("/text", "text/plain; charset=idna", b"x", 415, "the body's charset is not supported\n"),
        ("/json", JSON, b'{"a": [1]}', 200, '{"got":{"a":[1]}}'),
        ("/json", JSON, b'{"a": 1', 400, "the body is not JSON at line 1, column 8: Expecting ',' delimiter\n"),
        ("/json", "", b"[" * 100_000, 400, "the body is JSON nested too deeply\n"),
        ("/json", JSON, b'["\\ud800"]', 200, '{"got":["\\ud800"]}'),
        ("/form", "application/x-www-form-urlencoded", b"a=1&b=%C3%B6&a=", 200, '[["a","1"],["b","ö"],["a",""]]'),
        ("/form", "application/x-www-form-urlencoded", b"a&b&c&d", 413, "more than 3 form fields\n"),
        ("/form", "", b"", 200, "[]"),
        ("/form", "multipart/form-data", b"x", 400, None),
        ("/form", "text/plain", b"x", 415, None),
    ],
)
def test_bodies(server: Server, path: str, kind: str, body: bytes, status: int, text: str | None) -> None:
    with Client(server) as client:
        reply = client.request("POST", path, body, {"Content-Type": kind} if kind else {})
        assert reply.status == status
        assert text is None or reply.text == text
        assert client.request("GET", "/sync/str").text == "ö"


def multipart(size: int) -> bytes:
    return (
        b'--b\r\nContent-Disposition: form-data; name="name"\r\n\r\nvalue\r\n'
        b'--b\r\nContent-Disposition: form-data; name="file"; filename="a/b.txt"\r\nContent-Type: text/plain\r\n\r\n'
        + b"x" * size
        + b"\r\n--b--\r\n"
    )


def test_forms_with_files(server: Server) -> None:
    headers = {"Content-Type": "multipart/form-data; boundary=b"}
    expected = [["name", "value"], ["file", ["b.txt", "text/plain", 3, "xxx"]]]
    assert server.request("POST", "/form", multipart(3), headers).json() == expected
    reply = server.request("POST", "/big-form", multipart(2_000_000), headers)
    assert reply.json() == {"size": 2_000_000, "left": 2_000_000, "name": "value"}
    assert server.request("POST", "/big-form", multipart(3_000_000), headers).status == 413
    assert server.request("POST", "/big-form", b"a=b", {"Content-Type": "text/plain"}).status == 415


def test_stream_of_a_buffered_body(server: Server) -> None:
    assert server.request("POST", "/buffered", b"x" * 100_000).json() == [100_000]
    assert server.request("POST", "/buffered", b"").json() == []
    assert server.request("POST", "/streamed", b"").json() == []
    assert set(server.request("POST", "/streamed", b"x" * 100_000).json()) == {True}


def test_the_body_of_a_stream_is_an_error(serve_once: Server) -> None:
    assert serve_once.request("POST", "/streamed-wrong", b"x").status == 500
    assert "read request.stream()" in serve_once.wait_for("streamed_wrong")["traceback"]


def test_cookies(server: Server) -> None:
    reply = server.request("POST", "/cookies", b"", {"Cookie": 'a=1; b="2"; bad'})
    assert reply.headers.get_all("set-cookie") == [
        "a=1!; Path=/; SameSite=Lax; HttpOnly",
        "b=2!; Path=/; SameSite=Lax; HttpOnly",
        "old=; Max-Age=0; Path=/; SameSite=Lax",
    ]
    hostile = server.request("POST", "/cookies", b"", {"Cookie": "=;" * 8000})
    assert (hostile.status, hostile.text) == (200, "set")


# ---- streams wait for each other ----


def steady(read: Any) -> int:
    """A number once it has stopped growing."""
    value, since = read(), time.monotonic()
    while time.monotonic() - since < 0.5:
        time.sleep(0.05)
        if (now := read()) != value:
            value, since = now, time.monotonic()
    return int(value)


def test_the_producer_waits_while_the_client_does_not_read(serve_once: Server) -> None:
    def made() -> int:
        return int(serve_once.get("/notes").json()["made"])

    closed = serve_once.get("/notes").json()["closed"]
    with Client(serve_once, receive_buffer=65536) as client:
        client.send("GET /flood HTTP/1.1\r\nHost: x\r\n\r\n")
        before = steady(made)
        assert before * 16384 < 16_000_000  # max_buffered and what the kernel holds
        taken = 0
        while taken < 20_000_000:
            taken += len(client.socket.recv(1 << 20))
        assert steady(made) > before
    wait_until(lambda: serve_once.get("/notes").json()["closed"] == closed + 1, "the generator is closed")


def test_the_client_waits_while_the_handler_does_not_read(serve_once: Server) -> None:
    size = 64_000_000
    with Client(serve_once) as client:
        client.send(f"POST /slow-reader HTTP/1.1\r\nHost: x\r\nContent-Length: {size}\r\n\r\n")
        client.socket.setblocking(False)
        block, sent, since = b"x" * 65536, 0, time.monotonic()
        while time.monotonic() - since < 0.5:
            try:
                sent += client.socket.send(block)
                since = time.monotonic()
            except BlockingIOError:
                time.sleep(0.01)
        assert sent < 32_000_000  # what the kernel and the engine hold; the handler has read nothing
        assert serve_once.get("/release").status == 204
        client.socket.settimeout(PATIENCE)
        while sent < size:
            sent += client.socket.send(block[: size - sent])
        response = http.client.HTTPResponse(client.socket)
        response.begin()
        assert response.read() == str(size).encode()


# ---- clients that leave ----


@pytest.mark.parametrize(
    "head", ["GET /wait HTTP/1.1\r\nHost: x\r\n\r\n", "POST /wait HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\nab"]
)
def test_a_client_that_leaves_ends_the_handler(serve_once: Server, head: str) -> None:
    def cancelled() -> int:
        return int(serve_once.get("/notes").json()["cancelled"])

    before = cancelled()
    client = Client(serve_once)
    client.send(head)
    time.sleep(0.05)
    client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")  # a reset: gone for good
    client.socket.close()
    wait_until(lambda: cancelled() == before + 1, "the handler is cancelled")


def test_a_body_cut_short_is_never_whole(serve: Serve) -> None:
    server = serve(PROGRAM)
    client = Client(server)
    client.send("POST /cut HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nabc")
    wait_until(lambda: server.get("/notes").json()["read"] == 3, "the first bytes")
    client.socket.close()
    wait_until(lambda: "ended" in server.get("/notes").json(), "its end")
    assert server.get("/notes").json()["ended"] in ("ConnectionError", "CancelledError")
    assert [line for line in server.log if line["level"] == "error"] == []

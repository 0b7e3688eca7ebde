"""handlers: HTTP in the ancestor's way, connections taken over, protocols told apart by their first bytes."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator

import pytest
from client import served
from conftest import Serve
from server import PATIENCE, Server, wait_until

from eighties import aio, handlers


@pytest.fixture
def clean() -> Iterator[None]:
    """What a test registers in this process is forgotten."""
    handlers.take()
    yield
    handlers.take()


def connect(server: Server) -> socket.socket:
    return socket.create_connection(("127.0.0.1", server.port), PATIENCE)


def head(path: str, method: str = "GET", *fields: str) -> bytes:
    return "\r\n".join((f"{method} {path} HTTP/1.1", "Host: x", *fields, "", "")).encode()


def read_until(client: socket.socket, expected: bytes) -> bytes:
    """What comes until it holds this."""
    data = b""
    while expected not in data:
        chunk = client.recv(65536)
        assert chunk, f"the connection ended with {data!r}, not {expected!r}"
        data += chunk
    return data


def read_all(client: socket.socket) -> bytes:
    data = b""
    while chunk := client.recv(65536):
        data += chunk
    return data


def quiet(server: Server) -> bool:
    """Whether it logged nothing that is a warning or worse."""
    return not [line for line in server.log if line["level"] in ("warning", "error", "critical")]


# ---- http_* ----

HTTP = """
    import asyncio
    from eighties import App, HTTPError, aio

    app = App()
    kept = []

    @app.get("/app")
    def of_app(request):
        return "app"

    def soon(function, *args):
        asyncio.get_running_loop().call_later(0.01, function, *args)

    @aio.http_get("/text")
    def text(fd, query, headers, body):
        assert fd.http_response("201 Made", "text/css", f"{query.get('q')} {headers.get('x-one')} {body!r}") is True

    @aio.http_post("/body")
    def post(fd, query, headers, body):
        fd.http_response(200, {"X-Two": "2", "Content-Type": "a/b"}, body)

    @aio.http_any("put", "/json/{id:int}")
    def json(fd, query, headers, body, id):
        fd.http_response(200, None, {"id": id})

    @aio.http_get("/none")
    def none(fd, query, headers, body):
        fd.http_response(204, None, None)

    @aio.http_get("/later")
    def later(fd, query, headers, body):
        soon(fd.http_response, 200, "text/plain", "later")

    @aio.http_get("/promise")
    def promise(fd, query, headers, body):
        resolve, promise = aio.prepare_promise()
        soon(resolve, 1, 2)
        promise(lambda one, two: fd.http_response(200, "text/plain", f"{one} {two}"))

    @aio.http_get("/returned")
    def returned(fd, query, headers, body):
        return {"a": 1}

    @aio.http_get("/returned-promise")
    def returned_promise(fd, query, headers, body):
        resolve, promise = aio.prepare_promise()
        soon(resolve, "promised")
        return promise

    @aio.http_get("/async")
    async def coroutine(fd, query, headers, body):
        return await asyncio.sleep(0.01, "async")

    @aio.http_get("/async-later")
    async def coroutine_later(fd, query, headers, body):
        await asyncio.sleep(0)
        soon(fd.http_response, 200, "text/plain", "async later")

    @aio.http_get("/generator")
    def generator(fd, query, headers, body):
        yield asyncio.sleep(0.01)
        fd.http_response(200, "text/plain", f"{yield asyncio.sleep(0, 7)}")

    @aio.http_get("/error")
    def error(fd, query, headers, body):
        raise ZeroDivisionError("plain")

    @aio.http_get("/async-error")
    async def async_error(fd, query, headers, body):
        await asyncio.sleep(0)
        raise ZeroDivisionError("async")

    @aio.http_get("/teapot")
    def teapot(fd, query, headers, body):
        raise HTTPError(418)

    @aio.http_get("/dropped")
    def dropped(fd, query, headers, body):
        soon(lambda: None)

    @aio.http_get("/async-dropped")
    async def async_dropped(fd, query, headers, body):
        await asyncio.sleep(0.01)

    @aio.http_get("/twice")
    def twice(fd, query, headers, body):
        fd.http_response(200, "text/plain", "once")
        assert fd.closed
        fd.http_response(200, "text/plain", "twice")

    @aio.http_get("/bad-status")
    def bad_status(fd, query, headers, body):
        fd.http_response("OK", "text/plain", "x")

    @aio.http_get("/peer")
    def peer(fd, query, headers, body):
        assert not fd.closed and fd.request.path == "/peer"
        return str(fd.peername[0])

    @aio.http_get("/keep")
    def keep(fd, query, headers, body):
        kept.append(fd)

    @aio.http_get("/kept")
    def are_closed(fd, query, headers, body):
        return [one.closed for one in kept]

    @aio.http_get("/answer-kept")
    def answer_kept(fd, query, headers, body):
        return [kept.pop(0).http_response(200, "text/plain", "kept")]
"""


@pytest.fixture(scope="module")
def http(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    yield from served(HTTP, tmp_path_factory.mktemp("http"))


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("/app", "app"),
        ("/later", "later"),
        ("/promise", "1 2"),
        ("/returned", '{"a":1}'),
        ("/returned-promise", "promised"),
        ("/async", "async"),
        ("/async-later", "async later"),
        ("/generator", "7"),
        ("/peer", "127.0.0.1"),
    ],
)
def test_http_handlers(http: Server, path: str, text: str) -> None:
    reply = http.get(path)
    assert (reply.status, reply.text) == (200, text)


def test_http_arguments_and_answers(http: Server) -> None:
    reply = http.get("/text?q=a%20b", **{"X-One": "1"})
    assert (reply.status, reply.text, reply.headers["content-type"]) == (201, "a b 1 b''", "text/css")
    reply = http.request("POST", "/body", b"\x00\xff" * 1000)
    assert (reply.status, reply.body) == (200, b"\x00\xff" * 1000)
    assert (reply.headers["x-two"], reply.headers.get_all("content-type")) == ("2", ["a/b"])
    reply = http.request("PUT", "/json/12")
    assert (reply.json(), reply.headers["content-type"]) == ({"id": 12}, "application/json")
    assert (http.get("/none").status, http.get("/none").body) == (204, b"")
    assert http.request("HEAD", "/later").headers["content-length"] == "5"
    assert http.get("/teapot").status == 418
    assert http.request("POST", "/later").status == 405


@pytest.mark.parametrize(
    ("path", "error"),
    [
        ("/error", "ZeroDivisionError: plain"),
        ("/async-error", "ZeroDivisionError: async"),
        ("/dropped", "BrokenPromise: dropped let go of its fd without http_response"),
        ("/async-dropped", "BrokenPromise: async_dropped let go of its fd without http_response"),
        ("/twice", "RuntimeError: twice has answered already"),
        ("/bad-status", "ValueError"),
    ],
)
def test_http_errors_are_logged_and_answered(http: Server, path: str, error: str) -> None:
    count = len(http.log)
    reply = http.get(path)
    assert (reply.status, reply.text) == (500, "Internal Server Error\n")
    line = http.wait_for(f"GET {path}: ")
    assert error in line["traceback"]
    assert "(program.py:" in line["message"]
    assert len(http.log) == count + 1, http.stderr


def test_http_answer_to_one_who_left(serve: Serve) -> None:
    server = serve(HTTP)
    with connect(server) as client:
        client.sendall(head("/keep"))
        wait_until(lambda: server.get("/kept").json() == [False], "the request")
        assert server.get("/answer-kept").json() == [True]
        read_until(client, b"kept")
        client.sendall(head("/keep"))
        wait_until(lambda: server.get("/kept").json() == [False], "the request")
    wait_until(lambda: server.get("/kept").json() == [True], "the end of the connection")
    assert server.get("/answer-kept").json() == [False]
    assert quiet(server), server.stderr


def test_http_alone_and_within_the_hooks_of_an_app(serve: Serve) -> None:
    alone = serve(
        """
        from eighties import aio
        aio.http_get("/", lambda fd, query, headers, body: fd.http_response(200, "text/plain", "alone"))
        """
    )
    assert alone.get("/").text == "alone"
    assert alone.get("/none").status == 404
    hooks = serve(
        """
        import asyncio
        from eighties import App, aio
        app = App()

        @app.before
        async def before(request):
            await asyncio.sleep(0)
            request.state["user"] = "ada"

        @app.after
        def after(request, response):
            response.headers["X-After"] = "1"

        @aio.http_get("/")
        def start(fd, query, headers, body):
            user = fd.request.state["user"]
            asyncio.get_running_loop().call_soon(fd.http_response, 200, "text/plain", user)

        @aio.stream_http_get("/stream")
        def stream(fd, query, headers, body):
            fd.write((yield b"\\n") + b"!")
        """
    )
    reply = hooks.get("/")
    assert (reply.text, reply.headers["x-after"]) == ("ada", "1")
    with connect(hooks) as client:
        client.sendall(b"GET /stream HTTP/1.1\r\nHost: x\r\n\r\nhello\n")
        assert read_all(client) == b"hello!"
    assert quiet(hooks), hooks.stderr


def test_registering(clean: None) -> None:
    def handler(fd: object, query: object, headers: object, body: object) -> None: ...

    assert not handlers.has_routes()
    assert aio.http_get("/a", handler) is handler
    assert aio.http_get("/b")(handler) is handler
    assert aio.stream_http_any("patch", "/c")(handler) is handler
    assert handlers.has_routes()
    routes = {(route.method, route.pattern): route for route in handlers.program.routes()}
    assert set(routes) == {("GET", "/a"), ("GET", "/b"), ("PATCH", "/c")}
    assert routes["PATCH", "/c"].stream and not routes["GET", "/a"].stream
    assert "handler (test_handlers.py:" in routes["GET", "/a"].name
    with pytest.raises(ValueError, match=r"GET /a at .*test_handlers.py:\d+ and"):
        aio.http_get("/a", handler)
    with pytest.raises(ValueError, match="method"):
        aio.http_any("BREW", "/d", handler)
    with pytest.raises(ValueError, match="pattern"):
        aio.http_get("d", handler)
    with pytest.raises(TypeError, match=r"handler\(fd, query, headers, body, id\), pattern '/d/\{id\}'"):
        aio.http_get("/d/{id}", handler)
    with pytest.raises(TypeError, match="fd, query, headers, body"):
        aio.stream_http_post("/d", lambda request: None)
    handlers.take()
    assert not handlers.has_routes()
    aio.http_get("/a", handler)


# ---- stream_http_* ----

STREAMS = """
    import asyncio
    from eighties import App, aio

    app = App()

    @app.get("/")
    def start(request):
        return "still here"

    @aio.stream_http_get("/generator/{name}")
    def generator(fd, query, headers, body, name):
        assert body == b""
        fd.write(f"{name} {query.get('q')} {headers['host']}\\n")
        while True:
            line = yield b"\\n", 100
            if line == b"error":
                raise ZeroDivisionError("of generator")
            if line == b"end":
                return
            fd.write(line.upper() + b"\\n")

    @aio.stream_http_get("/async")
    async def coroutine(fd, query, headers, body):
        while True:
            line = await fd.read(b"\\n", 100)
            await asyncio.sleep(0)
            if line == b"error":
                raise ZeroDivisionError("of coroutine")
            if line == b"end":
                return
            fd.write(line.upper() + b"\\n")

    @aio.stream_http_get("/callbacks")
    def callbacks(fd, query, headers, body):
        def on_data(elfd, childfd, data, length):
            assert (elfd, childfd, length) == (fd.elfd, fd.fd, len(data))
            if b"error" in data:
                raise ZeroDivisionError("of callback")
            fd.write(data.upper(), close=b"end" in data)
        fd.on_data = on_data

    @aio.stream_http_get("/promise")
    def promise(fd, query, headers, body):
        def reader():
            fd.write((yield 5))
        return aio.buffered_cor(fd, reader)

    @aio.stream_http_get("/at-once")
    def at_once(fd, query, headers, body):
        raise ZeroDivisionError("at once")

    @aio.stream_http_any("POST", "/body")
    async def whole(fd, query, headers, body):
        data = await aio.read_stream(fd)
        fd.http_response(200, "text/plain", None)
        fd.write(data[::-1])

    @aio.stream_http_get("/much")
    async def much(fd, query, headers, body):
        fd.write(b"x" * 5_000_000)

    @aio.stream_http_get("/other")
    async def other(fd, query, headers, body):
        raise ConnectionResetError("another connection's")
"""


@pytest.fixture(scope="module", params=["asyncio", "uvloop"])
def streams(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    if request.param == "uvloop":
        pytest.importorskip("uvloop")
    yield from served(STREAMS, tmp_path_factory.mktemp("streams"), "--loop", request.param)


@pytest.mark.parametrize("path", ["/generator/ada?q=1", "/async"])
def test_stream_reads_and_writes_until_it_ends(streams: Server, path: str) -> None:
    with connect(streams) as client:
        client.sendall(head(path) + b"one\ntw")
        read_until(client, b"ONE\n")
        client.sendall(b"o\nend\nignored")
        assert read_all(client).endswith(b"TWO\n")


def test_stream_gets_its_arguments(streams: Server) -> None:
    with connect(streams) as client:
        client.sendall(head("/generator/a%20b?q=c"))
        assert read_until(client, b"\n") == b"a b c x\n"


def test_stream_by_callbacks(streams: Server) -> None:
    with connect(streams) as client:
        client.sendall(head("/callbacks"))
        client.sendall(b"one")
        read_until(client, b"ONE")
        client.sendall(b"end")
        assert read_all(client) == b"END"


def test_stream_that_returns_a_promise(streams: Server) -> None:
    with connect(streams) as client:
        client.sendall(head("/promise") + b"12345")
        assert read_all(client) == b"12345"


@pytest.mark.parametrize(
    ("path", "error"),
    [
        ("/generator/x", "of generator"),
        ("/async", "of coroutine"),
        ("/callbacks", "of callback"),
        ("/at-once", "at once"),
        ("/other", "another connection's"),
    ],
)
def test_stream_error_closes_one_connection_and_is_logged(streams: Server, path: str, error: str) -> None:
    def lines() -> list[str]:
        return [str(line.get("traceback")) for line in streams.log if error in str(line.get("traceback"))]

    count = len(lines())
    with connect(streams) as client, connect(streams) as other:
        other.sendall(head("/async") + b"one\n")
        read_until(other, b"ONE\n")
        client.sendall(head(path))
        if path != "/at-once" and path != "/other":
            client.sendall(b"error\n")
        read_all(client)
        other.sendall(b"two\nend\n")
        assert read_all(other) == b"TWO\n"
    assert streams.get("/").text == "still here"
    wait_until(lambda: len(lines()) > count, error)
    assert len(lines()) == count + 1, streams.stderr


@pytest.mark.parametrize("path", ["/generator/x", "/async"])
def test_stream_overflow_is_a_warning(serve: Serve, path: str) -> None:
    server = serve(STREAMS)
    with connect(server) as client:
        client.sendall(head(path) + b"x" * 200)
        read_all(client)
    line = server.wait_for("100 bytes")
    assert line["level"] == "warning"
    assert ("generator" if "generator" in path else "coroutine") in line["message"]
    assert "traceback" not in line


@pytest.mark.parametrize("path", ["/generator/x", "/async", "/callbacks", "/promise"])
@pytest.mark.parametrize("text", [b"", b"half a li"])
@pytest.mark.parametrize("end", ["close", "half-close", "reset"])
def test_stream_client_that_leaves_is_no_error(streams: Server, path: str, text: bytes, end: str) -> None:
    count = len(streams.log)
    with connect(streams) as client:
        client.sendall(head(path) + text)
        if end == "half-close":
            client.shutdown(socket.SHUT_WR)
            read_all(client)
        elif end == "reset":
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
    assert streams.get("/").text == "still here"
    assert len(streams.log) == count, streams.stderr


@pytest.mark.parametrize("chunked", [False, True])
def test_stream_reads_a_body_decoded(streams: Server, chunked: bool) -> None:
    with connect(streams) as client:
        if chunked:
            client.sendall(head("/body", "POST", "Transfer-Encoding: chunked") + b"3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n")
        else:
            client.sendall(head("/body", "POST", "Content-Length: 5") + b"abcde")
        answer = read_all(client)
    assert answer.startswith(b"HTTP/1.1 200")
    assert answer.endswith(b"\r\n\r\nedcba")


def test_stream_is_sent_whole_before_it_closes(streams: Server) -> None:
    with connect(streams) as client:
        client.sendall(head("/much"))
        assert len(read_all(client)) == 5_000_000


def test_stream_refuses_head(streams: Server) -> None:
    reply = streams.request("HEAD", "/async")
    assert (reply.status, reply.headers["allow"]) == (405, "GET")


# ---- protocols ----


def test_choose_asks_in_order(clean: None) -> None:
    def protocol(name: str, matches: bytes | Callable[[bytes], bool | None]) -> object:
        aio.add_protocol_handler(name, matches=matches, handle=print)
        return handlers._protocols[name].start

    assert not handlers.has_protocols()
    assert handlers.chooser()(b"anything") is False
    abcd = protocol("long", b"ABCD")
    ab = protocol("short", b"AB")
    x = protocol("function", lambda data: data[:1] == b"X" and (len(data) > 1 or None))
    assert handlers.has_protocols()
    assert handlers.chooser()(b"A") is None
    assert handlers.chooser()(b"AB") is None  # however the bytes are split, the first one that matches has it
    assert handlers.chooser()(b"ABC") is None
    assert handlers.chooser()(b"ABCDE") == abcd
    assert handlers.chooser()(b"ABX") == ab
    assert handlers.chooser()(b"X") is None
    assert handlers.chooser()(b"XY") == x
    assert handlers.chooser()(b"GET / HTTP/1.1") is False
    replaced = protocol("long", b"GET")
    assert handlers.chooser()(b"GET / HTTP/1.1") == replaced
    assert handlers.chooser()(b"ABCD") == ab
    assert list(handlers._protocols) == ["long", "short", "function"]
    handlers.take()
    assert handlers.chooser()(b"AB") is False


def test_choose_survives_a_broken_matcher(clean: None, caplog: pytest.LogCaptureFixture) -> None:
    def broken(data: bytes) -> bool:
        raise ZeroDivisionError

    aio.add_protocol_handler("broken", matches=broken, handle=print)
    aio.add_protocol_handler("whole", matches=b"A", handle=print)
    assert handlers.chooser()(b"A") == handlers._protocols["whole"].start
    assert handlers.chooser()(b"B") is False
    assert "protocol broken" in caplog.text


PROTOCOLS = """
    import asyncio
    from eighties import App, aio

    app = App()

    @app.get("/")
    def start(request):
        return "http"

    def generator(sock):
        assert (yield 3) == b"GEN"
        while True:
            sock.write((yield b"\\n", 100).upper() + b"\\n")

    async def coroutine(sock):
        assert await sock.read(3) == b"CO "
        while line := await sock.read(b"\\n", 100):
            sock.write(line.upper() + b"\\n")

    def callbacks(sock):
        sock.on_data = lambda elfd, childfd, data, length: sock.write(data.lower())

    def broken(sock):
        raise ZeroDivisionError("of handle")

    aio.add_protocol_handler("gen", matches=b"GEN", handle=generator)
    aio.add_protocol_handler("co", matches=lambda data: data[:3] == b"CO " if len(data) > 2 else None, handle=coroutine)
    aio.add_protocol_handler("call", matches=b"CALL", handle=callbacks)
    aio.add_protocol_handler("broken", matches=b"BROKEN", handle=broken)
"""


@pytest.mark.parametrize("bytewise", [False, True])
@pytest.mark.parametrize(
    ("sent", "answer"),
    [(b"GENone\ntwo\n", b"ONE\nTWO\n"), (b"CO one\ntwo\n\n", b"ONE\nTWO\n"), (b"CALL ME", b"call me")],
)
def test_protocols_share_a_port(serve: Serve, sent: bytes, answer: bytes, bytewise: bool) -> None:
    server = serve(PROTOCOLS)
    with connect(server) as client:
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for piece in [sent[at : at + 1] for at in range(len(sent))] if bytewise else [sent]:
            client.sendall(piece)
        client.shutdown(socket.SHUT_WR)
        assert read_all(client) == answer
    with connect(server) as client:
        for piece in [b"G", b"E", b"T / HTTP/1.1\r\nHost: x\r\n\r\n"]:
            client.sendall(piece)
        assert read_until(client, b"\r\n\r\nhttp").startswith(b"HTTP/1.1 200")
    assert server.get("/").text == "http"
    assert quiet(server), server.stderr


def test_protocol_that_fails(serve: Serve) -> None:
    server = serve(PROTOCOLS)
    with connect(server) as client:
        client.sendall(b"BROKEN\n")
        read_all(client)
    assert "of handle" in server.wait_for("broken failed")["traceback"]
    assert server.get("/").text == "http"

"""handlers: connections that end early, in the middle or not at all, what is logged of it, and what may not be lost."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator

import pytest
from client import served
from server import Server, wait_until
from test_handlers import connect, head, read_all

from eighties import aio

PROGRAM = """
    import asyncio
    import sys
    from eighties import App, aio

    app = App()
    seen = []

    @app.get("/seen")
    def get_seen(request):
        answer = seen[:]
        seen.clear()
        return answer

    def note(what, data):
        seen.append([what, data.decode()])

    @aio.stream_http_post("/generator")
    def generator(fd, query, headers, body):
        data = b""
        try:
            while chunk := (yield):
                data += chunk
        except ConnectionResetError:
            note("broken", data)
            raise
        note("whole", data)

    @aio.stream_http_post("/async")
    async def coroutine(fd, query, headers, body):
        data = b""
        try:
            while chunk := await fd.read():
                data += chunk
        except ConnectionResetError:
            note("broken", data)
            raise
        note("whole", data)

    @aio.stream_http_post("/late")
    async def late(fd, query, headers, body):
        first = await fd.read(1)
        while not fd.closed and "broken" in query:
            await asyncio.sleep(0.001)
        try:
            note("whole", first + await aio.read_stream(fd))
        except ConnectionResetError:
            note("broken", first)
            raise

    @aio.stream_http_post("/iterate")
    async def iterate(fd, query, headers, body):
        async def chunks(stream):
            data = b""
            try:
                async for chunk in stream:
                    data += chunk
            except ConnectionResetError:
                note("broken", data)
                raise
            note("whole", data)
        await aio.cor(fd, chunks)

    @aio.stream_http_post("/stream")
    async def stream(fd, query, headers, body):
        try:
            note("whole", await aio.read_stream(fd))
        except ConnectionResetError:
            note("broken", b"abc")
            raise

    # what is awaited between the end of the input and the answer

    @aio.stream_http_post("/read-stream")
    async def answer_stream(fd, query, headers, body):
        data = await aio.read_stream(fd)
        await asyncio.sleep(0.02)
        fd.http_response(200, "text/plain", data)

    @aio.stream_http_post("/read-cor")
    def answer_cor(fd, query, headers, body):
        async def chunks(stream):
            return b"".join([chunk async for chunk in stream])
        async def answer():
            data = await aio.cor(fd, chunks)
            await asyncio.sleep(0.02)
            fd.http_response(200, "text/plain", data)
        return answer()

    @aio.stream_http_post("/read-failed")
    async def answer_failed(fd, query, headers, body):
        try:
            await aio.read_stream(fd, 1)
        except aio.Overflow:
            await asyncio.sleep(0.02)
            fd.http_response(413, "text/plain", "abc")

    async def protocol(sock):
        data = await aio.read_stream(sock)
        await asyncio.sleep(0.02)
        sock.write(data)

    aio.add_protocol_handler("slow", matches=b"SLOW", handle=protocol)

    # other connections

    @aio.stream_http_post("/refused")
    async def refused(fd, query, headers, body):
        while await fd.read():
            pass
        await aio.connect2(host="127.0.0.1", port=1)

    @aio.stream_http_post("/refused-generator")
    def refused_generator(fd, query, headers, body):
        while (yield):
            pass
        yield aio.connect2(host="127.0.0.1", port=1)

    @aio.stream_http_post("/refused-read")
    async def refused_read(fd, query, headers, body):
        while await fd.read():
            pass
        await aio.read_stream(aio.connect("127.0.0.1", 1))

    @aio.stream_http_get("/drain")
    async def drain(fd, query, headers, body):
        while True:
            fd.write(bytes(100_000))
            await fd.drain()

    # what is no Exception

    @aio.stream_http_get("/exit")
    def exit(fd, query, headers, body):
        sys.exit(3)

    @aio.stream_http_get("/cancelled")
    def cancelled(fd, query, headers, body):
        raise asyncio.CancelledError

    @aio.stream_http_get("/interrupted")
    def interrupted(fd, query, headers, body):
        raise KeyboardInterrupt

    @aio.stream_http_get("/generator-exit")
    def generator_exit(fd, query, headers, body):
        yield b"\\n"
        sys.exit(3)

    def leave(sock):
        sys.exit(3)

    aio.add_protocol_handler("leave", matches=b"LEAVE", handle=leave)

    # a peer that would have it spin

    @aio.stream_http_get("/overflow")
    def overflow(fd, query, headers, body):
        while True:
            try:
                yield b"\\n", 10
            except aio.Overflow:
                continue

    @aio.stream_http_get("/overflow-async")
    async def overflow_async(fd, query, headers, body):
        while True:
            try:
                await fd.read(b"\\n", 10)
            except aio.Overflow:
                continue

    @aio.stream_http_get("/ended")
    async def ended(fd, query, headers, body):
        while True:
            fd.write(await fd.read())
"""


@pytest.fixture(scope="module", params=["asyncio", "uvloop"])
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    if request.param == "uvloop":
        pytest.importorskip("uvloop")
    yield from served(PROGRAM, tmp_path_factory.mktemp("ends"), "--loop", request.param)


def seen(server: Server) -> list[list[str]]:
    found: list[list[str]] = []
    wait_until(lambda: found.extend(server.get("/seen").json()) or found, "what the handler has seen")  # type: ignore[func-returns-value]
    return found


def wait_for_lines(server: Server, before: int, number: int) -> list[str]:
    """So many lines of the log after those `before`, and no more by the time the next request is answered."""
    wait_until(lambda: len(server.log) >= before + number, f"{number} lines")
    server.get("/seen")
    assert len(server.log) == before + number, server.stderr
    return [json.dumps(line) for line in server.log[before:]]


# ---- bodies ----


@pytest.mark.parametrize("path", ["/generator", "/async", "/late", "/iterate", "/stream"])
@pytest.mark.parametrize(
    ("field", "body"),
    [
        ("Content-Length: 10", b"abc"),
        ("Transfer-Encoding: chunked", b"3\r\nabc\r\n"),
        ("Transfer-Encoding: chunked", b"3\r\nabc\r\n4\r\n"),
        ("Transfer-Encoding: chunked", b"3\r\nabc\r\nZZ\r\n\r\n"),
    ],
)
@pytest.mark.parametrize("end", ["half-close", "reset"])
def test_a_body_that_is_cut_short_is_not_whole(server: Server, path: str, field: str, body: bytes, end: str) -> None:
    before = len(server.log)
    with connect(server) as client:
        client.sendall(head(f"{path}?broken", "POST", field) + body)
        if end == "half-close":
            client.shutdown(socket.SHUT_WR)
            read_all(client)
        else:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
    ((how, data),) = seen(server)
    assert how == "broken" and b"abc".startswith(data.encode())
    assert len(server.log) == before, server.stderr  # the client has left: no fault of the program


@pytest.mark.parametrize("path", ["/generator", "/async", "/late", "/iterate", "/stream"])
@pytest.mark.parametrize(
    ("field", "body"),
    [("Content-Length: 3", b"abc"), ("Transfer-Encoding: chunked", b"3\r\nabc\r\n0\r\n\r\n"), ("X: y", b"abc")],
)
def test_a_whole_body_is(server: Server, path: str, field: str, body: bytes) -> None:
    with connect(server) as client:
        client.sendall(head(path, "POST", field))
        client.sendall(body)
        client.shutdown(socket.SHUT_WR)
        read_all(client)
    assert seen(server) == [["whole", "abc"]]


# ---- answers ----


@pytest.mark.parametrize("path", ["/read-stream", "/read-cor", "/read-failed"])
def test_an_answer_may_come_long_after_the_end_of_input(server: Server, path: str) -> None:
    with connect(server) as client:
        client.sendall(head(path, "POST", "Content-Length: 3") + b"abc")
        assert read_all(client).endswith(b"\r\n\r\nabc")


def test_a_protocol_may_answer_long_after_the_end_of_input(server: Server) -> None:
    with connect(server) as client:
        client.sendall(b"SLOW")
        client.shutdown(socket.SHUT_WR)
        assert read_all(client) == b"SLOW"


# ---- what is logged ----


@pytest.mark.parametrize("path", ["/refused", "/refused-generator", "/refused-read"])
def test_another_connections_error_is_logged_after_the_end_of_the_body(server: Server, path: str) -> None:
    before = len(server.log)
    with connect(server) as client:
        client.sendall(head(path, "POST", "Content-Length: 3") + b"abc")
        assert read_all(client) == b""
    (line,) = wait_for_lines(server, before, 1)
    assert "ConnectionRefusedError" in line and "failed" in line


def test_a_client_that_leaves_a_writer_is_no_error(server: Server) -> None:
    before = len(server.log)
    with connect(server) as client:
        client.sendall(head("/drain"))
        client.recv(1000)
    wait_until(lambda: server.get("/seen").status == 200, "the worker")
    assert len(server.log) == before, server.stderr


@pytest.mark.parametrize(
    ("sent", "error", "name"),
    [
        (head("/exit"), "SystemExit", "exit"),
        (head("/cancelled"), "CancelledError", "cancelled"),
        (head("/interrupted"), "KeyboardInterrupt", "interrupted"),
        (head("/generator-exit") + b"\n", "SystemExit", "generator_exit"),
        (b"LEAVE", "SystemExit", "leave"),
    ],
)
def test_what_is_no_exception_ends_the_connection_and_nothing_else(
    server: Server, sent: bytes, error: str, name: str
) -> None:
    before = len(server.log)
    with connect(server) as client:
        client.sendall(sent)
        assert read_all(client) == b""
    (line,) = wait_for_lines(server, before, 1)
    assert f"{name} failed" in line and error in line


@pytest.mark.parametrize("path", ["/overflow", "/overflow-async", "/ended"])
def test_no_peer_can_have_a_handler_spin(server: Server, path: str) -> None:
    before = len(server.log)
    with connect(server) as client:
        client.sendall(head(path) + b"x" * 50)
        client.shutdown(socket.SHUT_WR)
        read_all(client)
    (line,) = wait_for_lines(server, before, 1)
    assert "told 16 times" in line


# ---- registering ----


@pytest.mark.parametrize("matches", ["PING", 1, None, bytearray(b"PING")])
def test_what_matches_nothing_is_refused_at_once(matches: object) -> None:
    with pytest.raises(TypeError, match="protocol ping: matches is bytes or a function"):
        aio.add_protocol_handler("ping", matches=matches, handle=print)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="protocol ping: handle is a function"):
        aio.add_protocol_handler("ping", matches=b"PING", handle=matches)  # type: ignore[arg-type]

"""An engine in the test's own process: whatever clients and handlers do, nothing is left over.

Each scenario runs many rounds against real sockets on one loop; then the engine's counters, its objects, descriptors
and reference counts must be what they were. Handlers that end things under `poll()` are here too: they need the engine.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import os
import socket
import struct
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from eighties import App, HTTPError, Request, Response, http
from eighties._engine import Engine, live
from eighties.limits import DEFAULTS

PATIENCE = 30
ROUNDS = 25
SANITIZED = "EIGHTIES_SANITIZE" in os.environ


class House:
    """An engine with a program that does everything, its log, and clients."""

    def __init__(self, loop: asyncio.AbstractEventLoop, **limits: int) -> None:
        self.loop = loop
        self.app = program(self)
        self.log: list[tuple[str, str]] = []
        self.kept: list[Request] = []
        self.release = asyncio.Event()
        self.engine = Engine(
            loop,
            DEFAULTS | limits,
            request_type=http.Request,
            respond=http.respond,
            failed=self.app.failed,
            pump=http.pump,
            settle=http.settle,
            log=self.note,
        )
        self.engine.set_routes(self.app.routes(), self.app.fallbacks())
        with socket.create_server(("127.0.0.1", 0), backlog=100) as listener:
            self.address = listener.getsockname()
            self.engine.listen(listener.fileno())
        loop.add_reader(self.engine.fileno(), self.engine.poll)

    def note(self, level: str, message: str) -> None:
        self.log.append((level, message))

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_connection(*self.address[:2])

    async def ask(self, data: bytes, end: bool = True) -> bytes:
        """Send `data`, read all there is until the server closes; `end`: half-close after it."""
        reader, writer = await self.connect()
        try:
            with contextlib.suppress(ConnectionError):
                writer.write(data)
                await writer.drain()
                if end:
                    writer.write_eof()
            answer = b""
            with contextlib.suppress(ConnectionError):
                async with asyncio.timeout(PATIENCE):
                    while chunk := await reader.read(1 << 20):
                        answer += chunk
            return answer
        finally:
            await gone(writer)

    async def leave(self, data: bytes, read: int = 0, pause: float = 0.005, reset: bool = True) -> None:
        """Send `data`, read a little, and leave with a reset, or with a plain close."""
        reader, writer = await self.connect()
        writer.write(data)
        if read:
            await reader.read(read)
        await asyncio.sleep(pause)
        if reset:
            writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        writer.transport.abort()
        await gone(writer)

    async def quiet(self) -> None:
        """Wait until no connection and no task is left."""
        self.release.set()
        async with asyncio.timeout(PATIENCE):
            while self.engine.connections or self.engine.tasks:
                await asyncio.sleep(0.005)
        self.release.clear()
        self.kept.clear()
        self.log.clear()

    def close(self) -> None:
        self.loop.remove_reader(self.engine.fileno())
        self.engine.close()


async def gone(writer: asyncio.StreamWriter) -> None:
    writer.close()
    with contextlib.suppress(ConnectionError):
        await writer.wait_closed()


def program(house: House) -> App:
    """Every kind of handler and answer."""
    app = App()

    @app.route("/echo", ["GET", "POST"])
    def echo(request: Request) -> Any:
        return {
            "path": request.path,
            "query": request.query.pairs(),
            "headers": request.headers.pairs(),
            "body": len(request.body),
            "cookies": request.cookies,
            "client": str(request.client),
        }

    @app.get("/users/{id:int}/{rest:path}")
    async def user(request: Request, id: int, rest: str) -> Any:
        await asyncio.sleep(0)
        return [id, rest, request.params]

    @app.get("/wait")
    async def wait(request: Request) -> str:
        await house.release.wait()
        return "released"

    @app.get("/lines")
    async def lines(request: Request) -> AsyncIterator[str]:
        for n in range(20):
            if n % 5 == 0:
                await asyncio.sleep(0)
            yield f"{n}\n" * 100

    @app.get("/endless")
    async def endless(request: Request) -> AsyncIterator[bytes]:
        while True:
            yield b"x" * 20_000

    @app.get("/big")
    def big(request: Request) -> bytes:
        return b"x" * 3_000_000

    @app.get("/file")
    def file(request: Request) -> Response:
        return Response.file(os.__file__)

    @app.get("/bigfile")
    def big_file(request: Request) -> Response:
        return Response.file(sys.executable)

    @app.post("/upload", stream=True)
    async def upload(request: Request) -> str:
        size = 0
        async for chunk in request.stream():
            size += len(chunk)
        return str(size)

    @app.post("/unread", stream=True)
    async def unread(request: Request) -> str:
        await asyncio.sleep(0)
        return "unread"

    @app.post("/duplex", stream=True)
    async def duplex(request: Request) -> AsyncIterator[bytes]:
        async for chunk in request.stream():
            yield chunk

    @app.get("/fails/{how}")
    async def fails(request: Request, how: str) -> Any:
        if how == "http":
            raise HTTPError(429, headers={"Retry-After": "1"})
        if how == "late":
            await asyncio.sleep(0)
        if how in ("late", "at-once"):
            raise RuntimeError(how)
        return {"type": object(), "field": Response("", 200, [("X", "a\r\nb")]), "status": Response("", 9)}[how]

    @app.get("/breaks")
    async def breaks(request: Request) -> AsyncIterator[str]:
        yield "begun"
        raise RuntimeError("broke")

    @app.get("/keep")
    def keep(request: Request) -> str:
        house.kept.append(request)
        request.state["circle"] = request
        return "kept"

    @app.get("/keep-waiting")
    async def keep_waiting(request: Request) -> str:
        house.kept.append(request)
        request.state["circle"] = asyncio.current_task()
        await asyncio.sleep(0)
        return str(request.headers["host"])

    return app


def get(path: str, *fields: str) -> bytes:
    return "\r\n".join((f"GET {path} HTTP/1.1", "Host: a", *fields, "", "")).encode()


def post(path: str, size: int, sent: int | None = None) -> bytes:
    head = f"POST {path} HTTP/1.1\r\nHost: a\r\nContent-Length: {size}\r\n\r\n"
    return head.encode() + b"x" * (size if sent is None else sent)


# ---- the scenarios: each is one round ----


async def kept_connections(house: House) -> None:
    data = get("/echo?a=1&b=2&a=3", "Cookie: a=b; c=d", "X-A: b") * 10 + get("/users/7/a/b") * 5 + post("/echo", 100)
    answer = await house.ask(data + get("/lines") + get("/file") + get("/big") + get("/nowhere") + post("/lines", 5))
    assert answer.count(b"HTTP/1.1 200 OK") == 19 and answer.count(b"HTTP/1.1 40") == 2


async def uploads(house: House) -> None:
    for path in ("/echo", "/upload", "/duplex"):
        assert b" 200 OK" in await house.ask(post(path, 300_000))
        assert b" 200 OK" in await house.ask(
            f"POST {path} HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n".encode()
            + b"400\r\n" + b"x" * 1024 + b"\r\n0\r\nX-T: a\r\n\r\n"
        )  # fmt: skip
    assert b"unread" in await house.ask(post("/unread", 100_000))
    assert b"unread" in await house.ask(post("/unread", 1_000_000, 10), end=False)


async def refusals(house: House) -> None:
    for data in (b"x\r\n\r\n", get("/" + "x" * 9000), get("/", "X: " + "x" * 40_000), post("/echo", 9_999_999, 50_000)):
        assert b"HTTP/1.1 4" in await house.ask(get("/echo") + data, end=False)
    for path in ("/echo", "/upload", "/nowhere"):
        assert b"HTTP/1.1 400" in await house.ask(post(path, 100, 50))


async def failures(house: House) -> None:
    data = b"".join(get(f"/fails/{how}") for how in ("http", "late", "at-once", "type", "field", "status"))
    answer = await house.ask(data + get("/echo"))
    assert (answer.count(b"HTTP/1.1 500"), answer.count(b"HTTP/1.1 429"), answer.count(b"HTTP/1.1 200")) == (5, 1, 1)
    answer = await house.ask(get("/echo") + get("/breaks") + get("/echo"), end=False)
    assert answer.count(b'"path":"/echo"') == 1, "the answer ahead of one that breaks off is lost"


async def departures(house: House) -> None:
    for data in (get("/wait"), get("/wait") + get("/echo") * 50, post("/upload", 9_000, 10), post("/echo", 9_000, 10)):
        await house.leave(data)
    for data in (
        get("/endless"),
        get("/big") * 3,
        get("/bigfile") * 3,
        get("/lines") * 30,
        post("/duplex", 90_000, 80_000),
    ):
        await house.leave(data, read=1000)
        await house.leave(data, read=1000, reset=False)
    await house.leave(b"GET / HT")
    await house.leave(b"")
    await house.leave(get("/wait"), pause=0)


async def kept_requests(house: House) -> None:
    answer = await house.ask((get("/keep") + get("/keep-waiting")) * 5)
    assert answer.count(b"200 OK") == 10
    assert all(not request.connected and request.headers["host"] == "a" for request in house.kept)


async def many_at_once(house: House) -> None:
    waiting = [asyncio.ensure_future(house.ask(get("/wait") + get("/lines"))) for _ in range(20)]
    await asyncio.sleep(0.01)
    house.release.set()
    assert all(answer.count(b"200 OK") == 2 for answer in await asyncio.gather(*waiting))


SCENARIOS = [kept_connections, uploads, refusals, failures, departures, kept_requests, many_at_once]


def resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def holdings(house: House) -> dict[str, int]:
    """What must be the same before and after: counts of objects, references and descriptors."""
    gc.collect()
    stats = house.engine.stats()
    watched = [house.engine, house.app, http.respond, http.pump, http.settle, http.Request, Response]
    return {
        **{name: stats[name] for name in ("live_connections", "live_chunks")},
        **live(),
        "descriptors": len(os.listdir("/proc/self/fd")),
        "requests held": sum(isinstance(thing, Request) for thing in gc.get_objects()),
        "tasks": len(asyncio.all_tasks()),
        **{f"references {n}": sys.getrefcount(thing) for n, thing in enumerate(watched)},
    }


def loops() -> list[Any]:
    found: list[Any] = [pytest.param(asyncio.SelectorEventLoop, id="asyncio")]
    with contextlib.suppress(ImportError):
        import uvloop

        found.append(pytest.param(uvloop.new_event_loop, id="uvloop"))
    return found


@pytest.fixture
def nothing_left() -> Iterator[None]:
    """The engine's counters for the whole process are as they were."""
    logging.disable()  # pytest keeps records, and with them tracebacks and all that their frames hold
    gc.collect()
    before = live()
    yield
    logging.disable(logging.NOTSET)
    gc.collect()
    after = live()  # less than before: an earlier test failed, and its traceback held things
    assert after["engines"] <= before["engines"] and after["requests"] <= before["requests"]
    assert after["left_over"] == 0


async def run_rounds(scenario: Callable[[House], Awaitable[None]], loop: asyncio.AbstractEventLoop) -> None:
    house = House(loop)
    for _ in range(5):
        await scenario(house)
        await house.quiet()
    before, objects, memory = holdings(house), len(gc.get_objects()), resident()
    assert (before["live_connections"], before["live_chunks"], before["left_over"]) == (0, 0, 0)
    for _ in range(ROUNDS):
        await scenario(house)
        await house.quiet()
    after = holdings(house)
    assert after == before
    assert len(gc.get_objects()) - objects < ROUNDS, "something is kept in every round"
    if not SANITIZED:
        assert resident() - memory < 8 << 20
    house.close()


@pytest.mark.parametrize("loop", loops())
@pytest.mark.parametrize("scenario", SCENARIOS)
def test_nothing_is_left_over(nothing_left: None, scenario: Callable[[House], Awaitable[None]], loop: Any) -> None:
    with asyncio.Runner(loop_factory=loop) as runner:
        runner.run(run_rounds(scenario, runner.get_loop()))


def test_timeouts_leave_nothing(nothing_left: None) -> None:
    async def run() -> None:
        names = ("header_timeout", "body_timeout", "keep_alive_timeout", "handler_timeout", "write_timeout")
        house = House(asyncio.get_running_loop(), **dict.fromkeys(names, 1))
        before = holdings(house)
        starts = [b"", b"GET /", get("/echo"), post("/echo", 9, 1), post("/upload", 9, 1), get("/wait")]
        answers = await asyncio.gather(*(house.ask(start, end=False) for start in starts for _ in range(3)))
        statuses = [answer[9:12] for answer in answers[::3]]
        assert statuses == [b"", b"408", b"200", b"408", b"408", b"503"]
        assert [level for level, message in house.log if "handler_timeout" in message] == ["error"] * 3
        await house.quiet()
        assert house.engine.stats()["timeouts"] >= 12
        after = holdings(house)
        assert {name: after[name] - before[name] for name in after if name not in ("requests", "requests held")} == {
            name: 0 for name in after if name not in ("requests", "requests held")
        }
        house.close()

    asyncio.run(run())


def test_closing_with_everything_under_way(nothing_left: None) -> None:
    """Handlers wait, streams and uploads are half done, answers unsent: `close` ends it all."""

    async def run() -> None:
        house = House(asyncio.get_running_loop())
        starts = [b"GET /", get("/wait"), get("/endless"), get("/big") * 9, get("/bigfile"), post("/upload", 99, 9)]
        starts += [post("/echo", 99, 9), get("/wait") + get("/echo") * 99, post("/duplex", 99_000, 9_000), get("/keep")]
        clients = [await house.connect() for _ in starts]
        for (_, writer), start in zip(clients, starts, strict=True):
            writer.write(start)
        await asyncio.sleep(0.1)
        house.close()
        async with asyncio.timeout(PATIENCE):
            while house.engine.tasks:
                await asyncio.sleep(0.001)
        stats = house.engine.stats()
        assert [stats["live_connections"], stats["live_chunks"], stats["live_timers"], house.engine.connections] == [
            0
        ] * 4
        assert [request.path for request in house.kept] == ["/keep"]
        house.engine.close()
        house.engine.poll()
        for _, writer in clients:
            await gone(writer)

    asyncio.run(run())


# ---- handlers that end things while poll() is at work ----

ACTS = ["close", "drain", "poll", "routes", "close later", "client", "forget"]


@pytest.mark.parametrize("act", ACTS)
@pytest.mark.parametrize("kind", ["sync", "async", "stream", "upload"])
def test_a_handler_may_do_anything(nothing_left: None, kind: str, act: str) -> None:
    async def run() -> None:
        house = House(asyncio.get_running_loop())
        reader, writer = await house.connect()

        def do() -> None:
            if act == "close":
                house.engine.close()
            elif act == "drain":
                house.engine.drain()
            elif act == "poll":
                house.engine.poll()
            elif act == "routes":
                house.engine.set_routes([])
            elif act == "close later":
                house.loop.call_soon(house.engine.close)
            elif act == "client":
                writer.transport.abort()
            else:
                house.kept.clear()
                gc.collect()

        def sync(request: Request) -> str:
            do()
            return request.path

        async def asynchronous(request: Request) -> str:
            do()
            await asyncio.sleep(0.002)
            return request.path

        async def stream(request: Request) -> AsyncIterator[str]:
            yield "begun"
            do()
            yield request.path

        async def upload(request: Request) -> str:
            async for _ in request.stream():
                do()
            return request.path

        app = App()
        app.get("/sync")(sync)
        app.get("/async")(asynchronous)
        app.get("/stream")(stream)
        app.post("/upload", stream=True)(upload)
        app.get("/after")(lambda request: "after")
        house.engine.set_routes(app.routes())
        request = post("/upload", 4) if kind == "upload" else get(f"/{kind}")
        writer.write(request + get("/after") * 2 + get("/after", "Connection: close"))
        answer = b""
        with contextlib.suppress(ConnectionError):
            async with asyncio.timeout(PATIENCE):
                while chunk := await reader.read(1 << 16):
                    answer += chunk
        if act in ("poll", "forget"):
            assert answer.count(b"200 OK") == 4 and answer.count(b"after") == 3
        elif act == "routes":
            assert (answer.count(b"200 OK"), answer.count(b"404 Not Found")) == (1, 3)
        elif act == "drain":
            assert answer.count(b"200 OK") == 1 and (kind == "stream" or b"Connection: close" in answer)
        await gone(writer)
        house.close()
        async with asyncio.timeout(PATIENCE):
            while house.engine.tasks:
                await asyncio.sleep(0.001)
        assert house.engine.stats()["live_connections"] == 0

    asyncio.run(run())


def test_an_engine_that_is_just_dropped(nothing_left: None) -> None:
    """With connections and requests in circles: the collector finds it all."""

    async def run() -> None:
        house = House(asyncio.get_running_loop())
        reader, writer = await house.connect()
        writer.write(get("/keep") + get("/keep-waiting") + get("/echo") + b"GET /half")
        await reader.read(1 << 16)
        house.kept[0].state["engine"] = house
        house.loop.remove_reader(house.engine.fileno())
        await gone(writer)

    asyncio.run(run())


def test_engines_come_and_go(nothing_left: None) -> None:
    async def run() -> None:
        before = len(os.listdir("/proc/self/fd"))
        for _ in range(50):
            house = House(asyncio.get_running_loop())
            assert b"200 OK" in await house.ask(get("/echo"))
            house.close()
        assert len(os.listdir("/proc/self/fd")) - before <= 2 * 50  # epoll and timer, until they are collected
        del house
        gc.collect()
        assert len(os.listdir("/proc/self/fd")) == before

    asyncio.run(run())

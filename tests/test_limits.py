"""Every limit of limits.py: at it, beyond it, and what the client sees; `docs/limits.md` is held true here.

Servers with small values: for sizes, on TCP and on a unix socket, whose buffers are of a known size, and for times.

The engine's clock ticks once a second: a timeout comes up to a second late, and on a busy machine later; never early.
"""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from client import served
from conftest import Serve
from server import PATIENCE, Server, wait_until
from wire import Answer, Raw, read_answers, talk

from eighties.limits import DEFAULTS, LIMITS

PROGRAM = """
    import asyncio
    from eighties import App, Response

    app = App()
    notes = {"made": 0, "read": 0, "cancelled": 0, "ended": 0}
    go = asyncio.Event()

    @app.post("/echo")
    def echo(request):
        return request.body

    @app.get("/")
    def root(request):
        return "root"

    @app.get("/notes")
    def read_notes(request):
        return notes

    @app.get("/go")
    def start(request):
        go.set()

    @app.get("/sleep/{tenths:int}")
    async def sleep(request, tenths):
        try:
            await asyncio.sleep(tenths / 10)
        except asyncio.CancelledError:
            notes["cancelled"] += 1
            raise
        notes["ended"] += 1
        return "slept"

    @app.get("/slow-stream")
    async def slow_stream(request):
        for n in range(6):
            yield f"{n}\\n"
            await asyncio.sleep(0.5)

    @app.get("/made/{count:int}")
    async def made(request, count):
        try:
            for _ in range(count):
                notes["made"] += 4096
                yield b"x" * 4096
        except GeneratorExit:
            notes["cancelled"] += 1
            raise

    @app.get("/bytes/{count:int}")
    def many(request, count):
        return b"x" * count

    @app.route("/take", ["POST"], stream=True)
    async def take(request):
        try:
            async for chunk in request.stream():
                notes["read"] += len(chunk)
        except asyncio.CancelledError:
            notes["cancelled"] += 1
            raise
        return "taken"

    @app.route("/wait", ["POST"], stream=True)
    async def wait(request):
        await go.wait()
        size = 0
        async for chunk in request.stream():
            size += len(chunk)
        return str(size)
"""

SIZES = {"max-request-line": 100, "max-header-bytes": 1000, "max-headers": 5, "max-body": 1000, "max-buffered": 65536}
TIMES = {
    "header-timeout": 1,
    "body-timeout": 1,
    "min-rate": 1000,
    "keep-alive-timeout": 1,
    "handler-timeout": 1,
    "write-timeout": 1,
}
STREAM_IN = 64 * 1024  # STREAM_IN_BYTES, and SCRATCH_BYTES, in engine.h


def options(values: dict[str, int]) -> list[str]:
    return [word for name, value in values.items() for word in (f"--{name}", str(value))]


@pytest.fixture(scope="module")
def sizes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    yield from served(PROGRAM, tmp_path_factory.mktemp("sizes"), *options(SIZES))


@pytest.fixture(scope="module")
def unix(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The unix socket of a server as `sizes`."""
    folder = tmp_path_factory.mktemp("unix")
    server = Server(PROGRAM, *options(SIZES), "--uds", "s", folder=folder, port=None).wait_until_serving()
    try:
        yield str(folder / "s")
        assert server.stop() == 0
    finally:
        server.kill()


@pytest.fixture(scope="module")
def times(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    yield from served(PROGRAM, tmp_path_factory.mktemp("times"), *options(TIMES))


def status_of(server: Server, data: bytes) -> int:
    """Of the one answer to `data`, on a connection that the client half-closes."""
    with Raw(server) as raw:
        raw.send(data)
        raw.socket.shutdown(socket.SHUT_WR)
        (answer,) = read_answers(raw.receive_all())
        assert (answer.get("connection") == "close") == (answer.status != 200)
        return answer.status


def stable(value: Callable[[], int]) -> int:
    """`value` once it has not changed for a while, and is more than nothing."""
    deadline, last, since = time.monotonic() + PATIENCE, 0, time.monotonic()
    while time.monotonic() < deadline:
        now = value()
        if now != last or not now:
            last, since = now, time.monotonic()
        elif time.monotonic() - since > 0.4:
            return last
        time.sleep(0.02)
    raise AssertionError(f"still changing: {last}")


# ---- the table ----


def test_the_documentation_is_the_table() -> None:
    text = Path(__file__).parent.parent.joinpath("docs", "limits.md").read_text()
    rows = [line for line in text.splitlines() if line.startswith("| `")]
    expected = [
        f"| `{limit.name}` | `--{limit.name.replace('_', '-')}` | {limit.default} | {limit.unit} "
        f"| {limit.status or '–'} | {limit.reason} |"
        for limit in LIMITS
    ]
    assert rows == expected


def test_every_limit_is_tested_here() -> None:
    assert {name.replace("-", "_") for name in [*SIZES, *TIMES, "max-connections"]} == set(DEFAULTS)


# ---- sizes ----


def test_request_line(sizes: Server) -> None:
    room = SIZES["max-request-line"] - len("GET / HTTP/1.1")
    tail = " HTTP/1.1\r\nHost: a\r\n\r\n"
    assert status_of(sizes, f"GET /{'?' * room}{tail}".encode()) == 200
    assert status_of(sizes, f"GET /{'?' * (room + 1)}{tail}".encode()) == 414
    assert status_of(sizes, f"GET /{'?' * 100_000}{tail}".encode()) == 414
    assert status_of(sizes, b"GET /" + b"?" * 100_000) == 414


def test_header_bytes(sizes: Server) -> None:
    start = "GET / HTTP/1.1\r\nHost: a\r\nX: "
    room = SIZES["max-header-bytes"] - len(start) - 4
    assert status_of(sizes, f"{start}{'x' * room}\r\n\r\n".encode()) == 200
    assert status_of(sizes, b"\r\n" + f"{start}{'x' * room}\r\n\r\n".encode()) == 200
    assert status_of(sizes, f"{start}{'x' * (room + 1)}\r\n\r\n".encode()) == 431
    assert status_of(sizes, start.encode() + b"x" * 100_000) == 431


def test_header_fields(sizes: Server) -> None:
    start = b"GET / HTTP/1.1\r\nHost: a\r\n"
    room = SIZES["max-headers"] - 1
    assert status_of(sizes, start + b"X: y\r\n" * room + b"\r\n") == 200
    assert status_of(sizes, start + b"X: y\r\n" * (room + 1) + b"\r\n") == 431


def test_trailer_fields(sizes: Server) -> None:
    start = b"POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n"
    room = SIZES["max-headers"]
    assert status_of(sizes, start + b"X: y\r\n" * room + b"\r\n") == 200
    assert status_of(sizes, start + b"X: y\r\n" * (room + 1) + b"\r\n") == 431


def post(body: bytes, chunked: bool, path: str = "echo") -> bytes:
    start = f"POST /{path} HTTP/1.1\r\nHost: a\r\n".encode()
    if not chunked:
        return start + b"Content-Length: %d\r\n\r\n%s" % (len(body), body)
    pieces = [body[i : i + 400] for i in range(0, len(body), 400)]
    chunks = b"".join(b"%x\r\n%s\r\n" % (len(piece), piece) for piece in pieces)
    return start + b"Transfer-Encoding: chunked\r\n\r\n" + chunks + b"0\r\n\r\n"


@pytest.mark.parametrize("chunked", [False, True])
def test_body(sizes: Server, chunked: bool) -> None:
    most = SIZES["max-body"]
    assert status_of(sizes, post(b"x" * most, chunked)) == 200
    assert status_of(sizes, post(b"x" * (most + 1), chunked)) == 413
    assert status_of(sizes, post(b"x" * (most + 1), chunked, "take")) == 200  # a stream has no limit


@pytest.mark.parametrize("chunked", [False, True])
@pytest.mark.parametrize("path", ["echo", "nowhere"])
def test_a_refusal_is_seen_by_a_client_that_is_still_sending(sizes: Server, path: str, chunked: bool) -> None:
    """All of it is sent before anything is read: no reset may take the answer away (RFC 9112 9.6)."""
    for _ in range(5):
        with Raw(sizes) as raw:
            assert raw.send(post(b"x" * 100_000, chunked, path))
            (answer,) = read_answers(raw.receive_all())
        assert answer.status in (413, 404 if path == "nowhere" else 413)


def test_a_refusal_is_seen_long_before_the_body_ends(sizes: Server) -> None:
    with Raw(sizes) as raw:
        raw.send(b"POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 999999999\r\n\r\n" + b"x" * 5000)
        (answer,) = read_answers(raw.receive_all())
        assert answer.status == 413


def test_a_client_that_never_stops_talking_is_cut(sizes: Server) -> None:
    with Raw(sizes) as raw:
        raw.send(b"POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 999999999\r\n\r\n")
        sent = 0
        while sent < 50_000_000 and raw.send(b"x" * 65536):
            sent += 65536
        assert sent < 50_000_000


# ---- connections ----


def test_connections(serve: Serve) -> None:
    server = serve(PROGRAM, "--max-connections", "3")
    get = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
    kept = [Raw(server) for _ in range(3)]
    for raw in kept:
        raw.send(get)
        assert raw.receive().text == "root"
    for _ in range(10):
        with Raw(server) as refused:
            (answer,) = read_answers(refused.receive_all())
            assert (answer.status, answer.get("connection")) == (503, "close")
    for raw in kept:
        raw.send(get)
        assert raw.receive().text == "root"
    kept.pop().socket.close()

    def welcome() -> bool:
        with Raw(server) as raw:
            raw.send(get)
            return raw.receive().status == 200

    wait_until(welcome, "room again")
    for raw in kept:
        raw.socket.close()


def test_a_crowd_over_the_limit(serve: Serve) -> None:
    """More at once than are told so: every one is ended, and none takes room."""
    server = serve(PROGRAM, "--max-connections", "1")
    with Raw(server) as first:
        first.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        assert first.receive().status == 200
        crowd = [Raw(server) for _ in range(600)]
        told = 0
        for raw in crowd:
            with contextlib.suppress(ConnectionResetError):
                raw.receive_all()
            told += raw.data.startswith(b"HTTP/1.1 503")
            raw.socket.close()
        assert 256 <= told <= 600
        first.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        assert first.receive().status == 200


# ---- back-pressure ----


def notes_of(unix: str) -> dict[str, int]:
    with Raw(None, uds=unix) as raw:
        raw.send(b"GET /notes HTTP/1.1\r\nHost: a\r\n\r\n")
        notes: dict[str, int] = raw.receive().json()
        return notes


@pytest.fixture
def kernel() -> int:
    """What the kernel holds of one direction of a unix socket, at most, by its own bookkeeping."""
    with socket.socket(socket.AF_UNIX) as one:
        return 2 * one.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF)


def test_the_producer_of_a_stream_waits(unix: str, kernel: int) -> None:
    before = notes_of(unix)["made"]
    with Raw(None, uds=unix) as raw:
        raw.send(b"GET /made/1000 HTTP/1.1\r\nHost: a\r\n\r\n")
        made = stable(lambda: notes_of(unix)["made"] - before)
        assert SIZES["max-buffered"] <= made <= SIZES["max-buffered"] + kernel + 2 * 4096
        assert len(raw.receive().body) == 4_096_000


def test_a_producer_that_waits_ends_with_its_client(unix: str) -> None:
    before = notes_of(unix)
    with Raw(None, uds=unix) as raw:
        raw.send(b"GET /made/1000 HTTP/1.1\r\nHost: a\r\n\r\n")
        stable(lambda: notes_of(unix)["made"] - before["made"])
    wait_until(lambda: notes_of(unix)["cancelled"] == before["cancelled"] + 1, "the producer's end")


def test_a_client_waits_while_the_handler_does_not_read(unix: str, kernel: int) -> None:
    size = 5_000_000
    sent = 0
    with Raw(None, uds=unix) as raw:
        raw.send(b"POST /wait HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % size)
        raw.socket.settimeout(0.5)
        with contextlib.suppress(TimeoutError):
            while sent < size:
                sent += raw.socket.send(b"x" * min(4096, size - sent))
        assert STREAM_IN <= sent <= kernel + 2 * STREAM_IN + 8192
        with Raw(None, uds=unix) as other:
            other.send(b"GET /go HTTP/1.1\r\nHost: a\r\n\r\n")
            assert other.receive().status == 204
        raw.socket.settimeout(PATIENCE)
        raw.send(b"x" * (size - sent))
        assert raw.receive().text == str(size)


def test_pipelined_requests_wait_while_their_answers_are_not_read(unix: str, kernel: int) -> None:
    """Answers of 4 kB: as many as fit into max_buffered and the kernel are made, no more."""
    count = 1000
    before = notes_of(unix)["made"]
    with Raw(None, uds=unix) as raw:
        requests = b"GET /made/1 HTTP/1.1\r\nHost: a\r\n\r\n" * count
        thread = threading.Thread(target=raw.send, args=(requests,), daemon=True)
        thread.start()
        made = stable(lambda: notes_of(unix)["made"] - before)
        assert made <= SIZES["max-buffered"] + kernel + 2 * 4096
        for _ in range(count):
            assert len(raw.receive().body) == 4096
        thread.join()


# ---- times ----


def ends_after(raw: Raw, least: float = 1) -> bytes:
    """What comes until the end, which must not come before `least` seconds."""
    data = raw.receive_all()
    took = time.monotonic() - raw.asked
    assert least - 0.05 <= took < PATIENCE / 2, f"ended after {took:.2f} s"
    return data


def drip(raw: Raw, data: bytes, pause: float, count: int = 10**6) -> threading.Thread:
    """Send `data` again and again in another thread, until the connection ends."""

    def work() -> None:
        for _ in range(count):
            try:
                raw.socket.sendall(data)
            except OSError:
                return
            time.sleep(pause)

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    return thread


def all_end(waiting: list[Raw], least: float = 1) -> list[list[Answer]]:
    """The answers on connections that have all just begun to wait; none may end before `least` seconds."""
    answers = []
    for raw in waiting:
        with raw:
            answers.append(read_answers(ends_after(raw, least)))
    return answers


def test_header_timeout_is_absolute(times: Server) -> None:
    """A byte every tenth of a second renews nothing."""
    get = b"GET / HTTP/1.1\r\nHost: a\r\n"
    waiting = []
    for start in (get + b"X: ", b"GET /", get + b"\r\n" + get):
        waiting.append(Raw(times))
        waiting[-1].send(start)
    drips = [drip(raw, b"x", 0.1) for raw in waiting]
    answers = all_end(waiting)
    assert [[a.status for a in each] for each in answers] == [[408], [408], [200, 408]]
    assert all(each[-1].get("connection") == "close" for each in answers)
    for thread in drips:
        thread.join()


def test_a_connection_that_never_speaks(times: Server) -> None:
    with Raw(times) as raw:
        assert ends_after(raw) == b""


def test_keep_alive_timeout(times: Server) -> None:
    with Raw(times) as raw:
        for _ in range(2):
            raw.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
            assert raw.receive().status == 200
            time.sleep(0.3)
        time.sleep(0.2)
        raw.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        assert raw.receive().status == 200
        assert ends_after(raw) == b""


def test_a_silent_body(times: Server) -> None:
    waiting = []
    for path in ("echo", "take", "nowhere"):
        for field in ("Transfer-Encoding: chunked\r\n\r\n5\r\n", "Content-Length: 5\r\n\r\n"):
            waiting.append(Raw(times))
            waiting[-1].send(f"POST /{path} HTTP/1.1\r\nHost: a\r\n{field}he".encode())
    for (answer,) in all_end(waiting):
        assert (answer.status, answer.get("connection")) == (408, "close")


def test_a_dripping_body(times: Server) -> None:
    """A byte every tenth of a second renews nothing; the handler of a stream is cancelled."""
    before = times.get("/notes").json()["cancelled"]
    waiting = []
    for path in ("echo", "take"):
        waiting.append(Raw(times))
        waiting[-1].send(f"POST /{path} HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\n".encode())
    drips = [drip(raw, b"x", 0.1) for raw in waiting]
    assert [answer.status for (answer,) in all_end(waiting)] == [408, 408]
    for thread in drips:
        thread.join()
    wait_until(lambda: times.get("/notes").json()["cancelled"] == before + 1, "the handler's end")


def test_a_slow_but_steady_body(times: Server) -> None:
    """Three times min_rate for much longer than body_timeout."""
    steady = [Raw(times), Raw(times)]
    for raw, path in zip(steady, ("echo", "take"), strict=True):
        raw.send(f"POST /{path} HTTP/1.1\r\nHost: a\r\nContent-Length: {300 * 35}\r\n\r\n".encode())
        drip(raw, b"x" * 300, 0.1, 35)
    for raw in steady:
        with raw:
            assert raw.receive().status == 200


def test_handler_timeout(times: Server) -> None:
    before = times.get("/notes").json()
    with Raw(times) as raw:
        raw.send(b"GET /sleep/5 HTTP/1.1\r\nHost: a\r\n\r\n")
        assert raw.receive().text == "slept"
        raw.send(b"GET /sleep/300 HTTP/1.1\r\nHost: a\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n")
        (answer,) = read_answers(ends_after(raw))
    assert (answer.status, answer.get("connection")) == (503, "close")
    entry = times.wait_for("handler_timeout")
    assert entry["level"] == "error" and "sleep" in entry["message"]
    after = times.get("/notes").json()
    assert (after["cancelled"], after["ended"]) == (before["cancelled"] + 1, before["ended"] + 1)


def test_a_stream_may_last_longer_than_handler_timeout(times: Server) -> None:
    with Raw(times) as raw:
        raw.send(b"GET /slow-stream HTTP/1.1\r\nHost: a\r\n\r\n")
        assert raw.receive().text == "".join(f"{n}\n" for n in range(6))


def test_a_client_that_does_not_read_is_cut(times: Server) -> None:
    before = times.get("/notes").json()["cancelled"]
    waiting = []
    for path in ("bytes/30000000", "made/8000"):
        waiting.append(Raw(times, receive_buffer=4096))
        waiting[-1].send(f"GET /{path} HTTP/1.1\r\nHost: a\r\n\r\n".encode())
    wait_until(lambda: times.get("/notes").json()["cancelled"] == before + 1, "the producer's end")
    time.sleep(1.2)  # both began to wait within two ticks
    for raw in waiting:
        size = 0
        with raw, contextlib.suppress(ConnectionResetError):
            while chunk := raw.socket.recv(1 << 20):
                size += len(chunk)
        assert size < 30_000_000


def read_slowly(raw: Raw, step: int, pause: float, seconds: float) -> bool:
    """Read `step` bytes after each pause; False when the connection ends."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        time.sleep(pause)
        try:
            if not raw.socket.recv(step):
                return False
        except ConnectionResetError:
            return False
    return True


def test_a_slow_but_steady_reader_gets_it_all(times: Server) -> None:
    """It takes much more than min_rate, but in bursts, as the kernel's window opens."""
    with Raw(times, receive_buffer=4096) as raw:
        raw.send(b"GET /bytes/8000000 HTTP/1.1\r\nHost: a\r\n\r\n")
        assert read_slowly(raw, 65536, 0.05, 3)
        size = 0
        while size < 8_000_000 and (chunk := raw.socket.recv(1 << 20)):
            size += len(chunk)
        assert size > 0


def test_a_timeout_of_one_connection_does_not_touch_others(times: Server) -> None:
    stalled = [Raw(times) for _ in range(20)]
    for raw in stalled:
        raw.send(b"POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhe")
    deadline = time.monotonic() + 2.5
    while time.monotonic() < deadline:
        assert [a.text for a in talk(times, b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")] == ["root"]
    for raw in stalled:
        (answer,) = read_answers(raw.receive_all())
        assert answer.status == 408
        raw.socket.close()

"""What connections cost and how they end: BEHAVIOURS 15 to 18, clients that leave, large answers, unix sockets, IPv6.

Costs are measured as CPU time and memory of the worker, with bounds that only a mistake in the order of growth breaks.
"""

from __future__ import annotations

import contextlib
import os
import resource
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from client import served
from conftest import Serve
from server import PATIENCE, Server, wait_until
from wire import Raw, read_answer, read_answers, talk

PROGRAM = """
    import asyncio, contextvars, os, sys
    from eighties import App, Response

    app = App(max_body=4_000_000)
    notes = {"waiting": 0, "cancelled": 0, "count": 0}
    variable = contextvars.ContextVar("variable", default="unset")
    kept = []

    @app.get("/")
    def root(request):
        notes["count"] += 1
        return "root"

    @app.get("/notes")
    def read_notes(request):
        return notes | {"pid": os.getpid()}

    @app.route("/echo", ["POST"])
    def echo(request):
        return str(len(request.body))

    @app.route("/take", ["POST"], stream=True)
    async def take(request):
        size = 0
        async for chunk in request.stream():
            size += len(chunk)
        return str(size)

    @app.get("/headers")
    def headers(request):
        return {"count": len(request.headers.pairs()), "cookies": len(request.cookies)}

    async def waiting():
        notes["waiting"] += 1
        try:
            await asyncio.sleep(50)
        except asyncio.CancelledError:
            notes["cancelled"] += 1
            raise

    @app.get("/wait")
    async def wait(request):
        await waiting()

    @app.get("/wait-stream")
    async def wait_stream(request):
        yield "begun"
        await waiting()

    @app.route("/wait-body", ["POST"], stream=True)
    async def wait_body(request):
        notes["waiting"] += 1
        try:
            async for chunk in request.stream():
                pass
        except asyncio.CancelledError:
            notes["cancelled"] += 1
            raise

    def swap(request):
        before = variable.get()
        variable.set(request.query["v"])
        return before

    @app.get("/context/sync")
    def context_sync(request):
        return [swap(request), variable.get()]

    @app.get("/context/async")
    async def context_async(request):
        before = swap(request)
        for _ in range(5):
            await asyncio.sleep(0.002)
        return [before, variable.get()]

    @app.get("/context/stream")
    async def context_stream(request):
        before = swap(request)
        for _ in range(5):
            await asyncio.sleep(0.002)
        yield f'["{before}", '
        yield f'"{variable.get()}"]'

    @app.route("/keep", ["GET", "POST"])
    def keep(request):
        kept.append(request)
        return "kept"

    @app.get("/kept")
    def show_kept(request):
        return [[r.method, r.path, r.query["n"], r.headers["x-n"], r.body.decode(), r.connected] for r in kept]

    SIZE = 10_000_000

    @app.get("/big/bytes")
    def big_bytes(request):
        return b"0123456789" * (SIZE // 10)

    @app.get("/big/str")
    def big_str(request):
        return "0123456789" * (SIZE // 10)

    @app.get("/big/stream")
    async def big_stream(request):
        for _ in range(100):
            yield b"0123456789" * (SIZE // 1000)

    @app.get("/big/length")
    def big_length(request):
        return Response.stream(big_stream(request), length=SIZE)

    @app.get("/big/file")
    def big_file(request):
        return Response.file("big.bin")

    @app.get("/empty")
    def empty(request):
        return Response.file("empty.bin")

    @app.get("/shrinks")
    def shrinks(request):
        with open("shrinks.bin", "wb") as file:
            file.truncate(50_000_000)
        return Response.file("shrinks.bin")

    @app.get("/shrink")
    def shrink(request):
        os.truncate("shrinks.bin", 1)

    ENDS = {"exit": SystemExit(3), "interrupt": KeyboardInterrupt(), "cancelled": asyncio.CancelledError(),
            "generator-exit": GeneratorExit(), "stop": StopIteration(), "memory": MemoryError(),
            "stop-async": StopAsyncIteration(), "recursion": RecursionError(), "base": BaseException("base")}

    @app.get("/end/sync/{kind}")
    def end(request, kind):
        raise ENDS[kind]

    @app.get("/end/at-once/{kind}")
    async def end_at_once(request, kind):
        raise ENDS[kind]

    @app.get("/end/later/{kind}")
    async def end_later(request, kind):
        await asyncio.sleep(0.001)
        raise ENDS[kind]

    @app.get("/end/stream/{kind}")
    async def end_stream(request, kind):
        yield "begun"
        await asyncio.sleep(0.001)
        raise ENDS[kind]

    @app.get("/end/cancel-self")
    async def cancel_self(request):
        asyncio.current_task().cancel()
        await asyncio.sleep(1)

    @app.get("/end/recurse")
    def recurse(request):
        return recurse(request)

    @app.get("/end/close-fds")
    async def close_generator(request):
        agen = wait_stream(request)
        await agen.__anext__()
        await agen.aclose()
        return "closed"
"""

GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
LAST = b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
SIZE = 10_000_000
BIG = b"0123456789" * (SIZE // 10)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("c")
    folder.joinpath("big.bin").write_bytes(BIG)
    folder.joinpath("empty.bin").touch()
    return folder


@pytest.fixture(scope="module")
def server(folder: Path) -> Iterator[Server]:
    yield from served(PROGRAM, folder, "--grace", "2")


def notes(server: Server) -> dict[str, int]:
    answer: dict[str, int] = server.get("/notes").json()
    return answer


def cpu(server: Server) -> float:
    """Seconds of CPU that its one worker has used."""
    (pid,) = server.workers
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def memory(server: Server) -> int:
    """Bytes that its one worker has in memory."""
    (pid,) = server.workers
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@contextlib.contextmanager
def costs(server: Server, seconds: float, megabytes: int) -> Iterator[None]:
    """What the block may cost the worker."""
    time_before, memory_before = cpu(server), memory(server)
    yield
    assert cpu(server) - time_before < seconds
    if "EIGHTIES_SANITIZE" not in os.environ:  # which keeps what is freed for a while
        assert memory(server) - memory_before < megabytes << 20


def raise_descriptor_limit() -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


# ---- linear cost ----


@pytest.mark.parametrize("path", ["echo", "take"])
@pytest.mark.parametrize("extension", [b"", b";a"])
def test_chunks_of_one_byte(server: Server, path: str, extension: bytes) -> None:
    """A quadratic decoder takes minutes for these."""
    count = 2000 if extension else 300_000
    start = f"POST /{path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n".encode()
    with costs(server, 5, 8):
        (answer,) = talk(server, start + (b"1" + extension + b"\r\nx\r\n") * count + b"0\r\n\r\n")
    assert answer.text == str(count)


def test_a_head_that_comes_byte_by_byte(server: Server) -> None:
    head = b"GET /headers HTTP/1.1\r\nHost: a\r\nConnection: close\r\n" + b"X: " + b"x" * 15_000 + b"\r\n\r\n"
    with costs(server, 5, 4), Raw(server) as raw:
        raw.send(head, pause=0)
        (answer,) = read_answers(raw.receive_all())
    assert answer.json()["count"] == 3


def test_many_fields_and_cookies(server: Server) -> None:
    cookies = b"".join(b"Cookie: " + b"; ".join(b"%d-%d=x" % (n, k) for k in range(30)) + b"\r\n" for n in range(98))
    head = b"GET /headers HTTP/1.1\r\nHost: a\r\nConnection: close\r\n" + cookies + b"\r\n"
    with costs(server, 5, 8):
        for _ in range(20):
            (answer,) = talk(server, head)
            assert answer.json() == {"count": 100, "cookies": 98 * 30}


def test_a_buffered_body_in_small_pieces(server: Server) -> None:
    with costs(server, 5, 12), Raw(server) as raw:
        raw.send(b"POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 3000000\r\n\r\n")
        for _ in range(3000):
            raw.send(b"x" * 1000)
        assert raw.receive().text == "3000000"


def test_many_pipelined_requests_that_wait(server: Server) -> None:
    """Each is answered in a later turn: the unread rest must not be moved or searched again and again."""
    count = 1500
    with costs(server, 10, 8), Raw(server) as raw:
        raw.send((b"GET /context/stream?v=%d HTTP/1.1\r\nHost: a\r\n\r\n" % 1) * 20 + GET * count + LAST)
        answers = read_answers(raw.receive_all())
    assert len(answers) == 20 + count + 1


# ---- silent clients, floods ----


def test_silent_connections_do_not_hinder_a_request(server: Server) -> None:
    """2,000: half say nothing, half stop within a head."""
    raise_descriptor_limit()
    before = memory(server)
    silent = [socket.create_connection(("127.0.0.1", server.port), PATIENCE) for _ in range(2000)]
    try:
        for one in silent[::2]:
            one.sendall(b"GET / HTTP/1.1\r\nHo")
        with costs(server, 5, 16):
            for _ in range(200):
                begun = time.monotonic()
                assert [a.text for a in talk(server, LAST)] == ["root"]
                assert time.monotonic() - begun < 5
        if "EIGHTIES_SANITIZE" not in os.environ:
            assert memory(server) - before < 2000 * 4096
    finally:
        for one in silent:
            one.close()


@pytest.mark.parametrize("request_line", [GET, GET.replace(b"/ ", b"/big/bytes "), GET.replace(b"GET", b"POST")])
def test_a_pipelining_flood_is_held_back(server: Server, request_line: bytes) -> None:
    """A client that sends and sends and never reads costs a bounded amount of memory, and stops nobody."""
    block = request_line * (65536 // len(request_line))
    with costs(server, 20, 40), Raw(server) as raw:
        raw.socket.settimeout(1)
        sent = 0
        with pytest.raises(TimeoutError):
            while sent < 200 << 20:
                sent += raw.socket.send(block[sent % len(block) :])
        for _ in range(10):
            assert [a.text for a in talk(server, LAST)] == ["root"]


# ---- clients that leave ----


def leaves(server: Server, data: bytes, leave: Callable[[Raw], None], patience: float) -> None:
    """Have a handler wait, leave, and see it cancelled in time."""
    before = notes(server)
    with Raw(server) as raw:
        raw.send(data)
        wait_until(lambda: notes(server)["waiting"] == before["waiting"] + 1, "the handler waits")
        time.sleep(0.05)
        assert notes(server)["cancelled"] == before["cancelled"]
        leave(raw)
        wait_until(lambda: notes(server)["cancelled"] == before["cancelled"] + 1, "the handler's end", patience)


WAITS = [
    b"GET /wait HTTP/1.1\r\nHost: a\r\n\r\n",
    b"GET /wait HTTP/1.1\r\nHost: a\r\n\r\n" + GET,
    b"GET /wait-stream HTTP/1.1\r\nHost: a\r\n\r\n",
    b"POST /wait-body HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhe",
]


@pytest.mark.parametrize("data", WAITS)
def test_a_reset_cancels_the_handler_at_once(server: Server, data: bytes) -> None:
    leaves(server, data, Raw.reset, 5)


@pytest.mark.parametrize("data", WAITS)
def test_a_close_cancels_the_handler_within_seconds(server: Server, data: bytes) -> None:
    """A half-closed client may still want its answer; keep-alive probes tell it from one that is gone."""
    leaves(server, data, lambda raw: raw.socket.close(), 10)


def test_a_half_closed_client_is_not_taken_for_gone(server: Server) -> None:
    before = notes(server)["cancelled"]
    with Raw(server) as raw:
        raw.send(WAITS[0])
        raw.socket.shutdown(socket.SHUT_WR)
        time.sleep(4.5)  # longer than all probes
        assert notes(server)["cancelled"] == before


def test_clients_of_a_unix_socket(folder: Path, tmp_path: Path) -> None:
    server = Server(PROGRAM, "--uds", "s", folder=tmp_path, port=None).wait_until_serving()
    path = str(tmp_path / "s")

    def ask() -> dict[str, int]:
        with Raw(None, uds=path) as raw:
            raw.send(b"GET /notes HTTP/1.1\r\nHost: a\r\n\r\n")
            answer: dict[str, int] = raw.receive().json()
            return answer

    try:
        for count, data in enumerate(WAITS, 1):
            with Raw(None, uds=path) as raw:
                raw.send(data)
                wait_until(lambda count=count: ask()["waiting"] == count, "the handler waits")  # type: ignore[misc]
            wait_until(lambda count=count: ask()["cancelled"] == count, "the handler's end", 5)  # type: ignore[misc]
        with Raw(None, uds=path) as raw:
            raw.send(GET * 3 + LAST)
            assert [a.text for a in read_answers(raw.receive_all())] == ["root"] * 4
        assert server.stop() == 0
    finally:
        server.kill()


def test_ipv6(serve: Serve) -> None:
    server = serve(PROGRAM, "-6")
    with socket.create_connection(("::1", server.port), PATIENCE) as client:
        client.sendall(GET * 2 + LAST)
        data = b""
        while chunk := client.recv(1 << 16):
            data += chunk
    assert [a.text for a in read_answers(data)] == ["root"] * 3


# ---- out of descriptors ----

LIMITED = """
import os, resource, sys
resource.setrlimit(resource.RLIMIT_NOFILE, (48, 48))
os.execv(sys.executable, sys.argv[1:])
"""


def test_out_of_descriptors(tmp_path: Path) -> None:
    """Accepting pauses, says so once, does not spin, and goes on when there is room."""
    command = (sys.executable, "-c", LIMITED, sys.executable, "-m", "eighties")
    server = Server(PROGRAM, folder=tmp_path, command=command).wait_until_serving()
    crowd: list[Raw] = []
    try:
        crowd += [Raw(server) for _ in range(60)]
        for raw in crowd:
            raw.send(GET)
        server.wait_for("accepting is paused")
        assert crowd[0].receive().text == "root"
        before = cpu(server)
        time.sleep(3.2)
        assert cpu(server) - before < 1
        for _ in range(10):  # those that are in are served
            crowd[0].send(GET)
            assert crowd[0].receive().text == "root"
        assert len([line for line in server.log if "accepting is paused" in line["message"]]) == 1
        for raw in crowd[1:]:
            assert raw.receive().text == "root"
            raw.socket.close()
        assert server.get("/").text == "root"
        assert server.stop() == 0
    finally:
        for raw in crowd:
            raw.socket.close()
        server.kill()


# ---- what belongs to one request ----


@pytest.mark.parametrize("kind", ["sync", "async", "stream"])
def test_context_variables_are_a_requests_own(server: Server, kind: str) -> None:
    def ask(n: int) -> bytes:
        return f"GET /context/{kind}?v={n} HTTP/1.1\r\nHost: a\r\n\r\n".encode()

    many = [Raw(server) for _ in range(8)]
    for n, raw in enumerate(many):
        raw.send(ask(n) + ask(n + 100))
    for n, raw in enumerate(many):
        with raw:
            assert [raw.receive().json(), raw.receive().json()] == [["unset", str(n)], ["unset", str(n + 100)]]


def test_a_request_that_is_kept_stays_valid(server: Server) -> None:
    """After its answer, its connection, and many other requests in the same buffers."""
    with Raw(server) as raw:
        for n in range(3):
            raw.send(f"GET /keep?n={n} HTTP/1.1\r\nHost: a\r\nX-N: {n}\r\n\r\n".encode() * 2)
            assert [raw.receive().text, raw.receive().text] == ["kept", "kept"]
            body = f"body {n}"
            start = f"POST /keep?n={n} HTTP/1.1\r\nHost: a\r\nX-N: {n}\r\nContent-Length: {len(body)}\r\n\r\n"
            raw.send(start.encode() + body.encode())
            assert raw.receive().text == "kept"
            raw.send(start.encode())
            time.sleep(0.02)
            raw.send(body.encode())
            assert raw.receive().text == "kept"
    talk(server, b"GET /headers?" + b"z" * 200 + b" HTTP/1.1\r\nHost: b\r\nX-N: z\r\n\r\n" * 50 + LAST)
    kept = server.get("/kept").json()
    for n in range(3):
        get, post = ["GET", "/keep", str(n), str(n), "", False], ["POST", "/keep", str(n), str(n), f"body {n}", False]
        assert kept[4 * n : 4 * n + 4] == [get, get, post, post]


# ---- large answers ----


@pytest.mark.parametrize("kind", ["bytes", "str", "stream", "length", "file"])
def test_large_answers_to_slow_readers(server: Server, kind: str) -> None:
    """Two at once, pipelined, read in small pieces at first; another client is not kept waiting."""
    request = f"GET /big/{kind} HTTP/1.1\r\nHost: a\r\n\r\n".encode()
    with Raw(server, receive_buffer=8192) as raw:
        raw.send(request * 2 + LAST)
        data = bytearray()
        for _ in range(50):
            data += raw.socket.recv(1000)
            time.sleep(0.002)
        begun = time.monotonic()
        assert server.get("/").text == "root"
        assert time.monotonic() - begun < 5
        while chunk := raw.socket.recv(1 << 20):
            data += chunk
    first, rest = read_answer(bytes(data))
    second, rest = read_answer(rest)
    last, rest = read_answer(rest)
    assert (first.body, second.body, last.text, rest) == (BIG, BIG, "root", b"")
    assert first.get("content-length") == (None if kind == "stream" else str(SIZE))


@pytest.mark.parametrize("kind", ["bytes", "stream", "file"])
def test_a_client_that_leaves_a_large_answer(server: Server, kind: str) -> None:
    for leave in (Raw.reset, lambda raw: raw.socket.close()):
        with Raw(server) as raw:
            raw.send(f"GET /big/{kind} HTTP/1.1\r\nHost: a\r\n\r\n".encode() * 3)
            raw.socket.recv(1000)
            leave(raw)
        assert server.get("/").text == "root"


def test_files(server: Server) -> None:
    data = b"HEAD /big/file HTTP/1.1\r\nHost: a\r\n\r\nGET /empty HTTP/1.1\r\nHost: a\r\n\r\n"
    data += b"HEAD /empty HTTP/1.1\r\nHost: a\r\n\r\n"
    told, empty, told_empty, last = talk(server, data + LAST, ["HEAD", "GET", "HEAD"])
    assert [answer.get("content-length") for answer in (told, empty, told_empty)] == [str(SIZE), "0", "0"]
    assert (empty.body, last.text) == (b"", "root")


def test_a_file_that_becomes_shorter(server: Server) -> None:
    """Its length was promised: the connection is cut, and nothing is made up."""
    with Raw(server, receive_buffer=8192) as raw:
        raw.send(b"GET /shrinks HTTP/1.1\r\nHost: a\r\n\r\n" + GET)
        raw.socket.recv(1000)
        assert server.get("/shrink").status == 204
        size = 0
        with contextlib.suppress(ConnectionResetError):
            while chunk := raw.socket.recv(1 << 20):
                size += len(chunk)
        assert size < 50_000_000
    assert server.get("/").text == "root"


# ---- no request ends a worker ----

ENDS = ["exit", "interrupt", "cancelled", "generator-exit", "stop", "memory", "stop-async", "recursion", "base"]


@pytest.mark.parametrize("way", ["sync", "at-once", "later", "stream"])
@pytest.mark.parametrize("kind", ENDS)
def test_no_exception_ends_the_worker(server: Server, way: str, kind: str) -> None:
    pid = notes(server)["pid"]
    with Raw(server) as raw:
        raw.send(f"GET /end/{way}/{kind} HTTP/1.1\r\nHost: a\r\n\r\n".encode() + LAST)
        if way == "stream":  # an answer that has begun is cut
            with contextlib.suppress(ConnectionResetError):
                raw.receive_all()
            assert b"0\r\n\r\n" not in raw.data
        else:
            first, second = read_answers(raw.receive_all())
            assert (first.status, second.text) == (500, "root")
    if kind in ("exit", "interrupt"):
        time.sleep(0.1)  # what ends a worker takes a moment
    assert notes(server)["pid"] == pid


@pytest.mark.parametrize(("way", "status"), [("cancel-self", 500), ("recurse", 500), ("close-fds", 200)])
def test_what_handlers_do_to_themselves(server: Server, way: str, status: int) -> None:
    pid = notes(server)["pid"]
    first, second = talk(server, f"GET /end/{way} HTTP/1.1\r\nHost: a\r\n\r\n".encode() + LAST)
    assert (first.status, second.text) == (status, "root")
    assert notes(server)["pid"] == pid


def test_noise(server: Server) -> None:
    """Clients that send nonsense, cut requests anywhere, and leave in every way, all at once."""
    pid = notes(server)["pid"]
    chunked = b"POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"
    texts = [*WAITS, GET, LAST, chunked, os.urandom(500)]

    def client(seed: int) -> None:
        for n in range(60):
            text = texts[(seed + n) % len(texts)]
            with Raw(server) as raw, contextlib.suppress(OSError):
                raw.send(text[: (n * 37 + seed) % (len(text) + 1)])
                if n % 3 == 1:
                    raw.socket.shutdown(socket.SHUT_WR)
                if n % 3 == 2:
                    raw.reset()

    threads = [threading.Thread(target=client, args=(seed,)) for seed in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [a.text for a in talk(server, LAST)] == ["root"]
    assert notes(server)["pid"] == pid
    assert not [line for line in server.log if "illegal" in line["message"]]

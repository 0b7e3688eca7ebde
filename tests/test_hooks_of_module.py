"""Module-level hooks of a program: which are taken, which are refused, what makes a program, and when they run."""

from __future__ import annotations

import json
import signal
import socket
from pathlib import Path

import pytest
from conftest import Serve
from crowd import LOOPS
from server import PATIENCE, Server, wait_until
from test_cli import command, one_message, write

RAW = """
    import os
    from eighties import net

    def note(*words):
        with open("diary", "a") as file:
            print(*words, file=file)

    def is_open(fd):
        return os.readlink(f"/proc/self/fd/{fd}").startswith("socket:")

    listeners = []

    def on_init(elfd, parentfd):
        listeners.append(parentfd)
        note("init", is_open(parentfd))

    def on_accept(elfd, parentfd, childfd):
        note("accept", parentfd in listeners and is_open(parentfd))

    def on_data(elfd, childfd, data, length):
        note("data", length)
        if data == b"fail":
            raise KeyError("data")
        net.write(elfd, childfd, data.upper())

    def on_close(elfd, childfd):
        note("close")
"""


def notes(folder: Path) -> list[str]:
    """What the program noted."""
    path = folder / "diary"
    return path.read_text().splitlines() if path.exists() else []


def talk(server: Server, *pieces: bytes) -> bytes:
    """Send pieces, each after the answer to the one before, on a connection of its own; the answers."""
    answers = b""
    with socket.create_connection(("127.0.0.1", server.port), PATIENCE) as connection:
        for piece in pieces:
            connection.sendall(piece)
            answers += connection.recv(65536)
    return answers


# ---- raw programs ----


@pytest.mark.parametrize("loop", LOOPS)
def test_a_raw_program(loop: str, serve: Serve, tmp_path: Path) -> None:
    if loop == "uvloop":
        pytest.importorskip("uvloop")
    server = serve(RAW, "--loop", loop)
    assert talk(server, b"hello", b"GET / HTTP/1.1\r\n\r\n") == b"HELLOGET / HTTP/1.1\r\n\r\n"
    wait_until(lambda: "close" in notes(tmp_path), "the end of the connection")
    assert notes(tmp_path) == ["init True", "accept True", "data 5", "data 18", "close"]
    assert server.stop() == 0


def test_a_raw_program_needs_on_data_only(workers: int, serve: Serve) -> None:
    server = serve(
        """
        from eighties import net
        def on_data(elfd, childfd, data, length):
            net.write(elfd, childfd, data)
            net.close(elfd, childfd)
        """,
        "-c",
        str(workers),
    )
    server.wait_for_workers(workers)
    for _ in range(10):
        assert talk(server, b"echo") == b"echo"


def test_what_on_data_raises_closes_its_connection_only(serve: Serve) -> None:
    server = serve(RAW)
    pids = server.workers
    with socket.create_connection(("127.0.0.1", server.port), PATIENCE) as other:
        other.sendall(b"before")
        assert other.recv(100) == b"BEFORE"
        assert talk(server, b"fail") == b""
        other.sendall(b"after")
        assert other.recv(100) == b"AFTER"
    line = server.wait_for("on_data failed: KeyError: 'data'")
    assert (line["level"], line["worker"]) == ("error", 0)
    assert "in on_data" in line["traceback"]
    assert server.workers == pids


def test_on_init_is_called_for_each_listening_socket(serve: Serve, tmp_path: Path) -> None:
    server = serve(RAW, "--uds", "80s.socket", "-c", "2")
    server.wait_for_workers(2)
    wait_until(lambda: len(notes(tmp_path)) == 4, "both workers' hooks")
    assert notes(tmp_path) == ["init True"] * 4


def test_on_init_comes_after_the_start_hooks(serve: Serve, tmp_path: Path) -> None:
    server = serve("""
        import contextvars
        from eighties import App
        app = App()
        variable = contextvars.ContextVar("variable")
        @app.on_start
        async def start(): variable.set("started")
        def on_init(elfd, parentfd):
            open("diary", "w").write(variable.get())
        @app.get("/")
        def root(request): return variable.get()
    """)
    assert notes(tmp_path) == ["started"]
    assert server.get("/").text == "started"


def test_what_on_init_raises_ends_the_server(serve: Serve) -> None:
    server = serve(RAW.replace('note("init", is_open(parentfd))', 'raise OSError("no table")'), "-c", "2", wait=False)
    assert server.wait() == 3
    (line,) = server.log
    assert "on_init failed: OSError: no table" in line["message"]
    assert "in on_init" in line["traceback"]
    assert "eighties/serve" not in line["traceback"]


def test_a_raw_program_may_have_limits_by_the_command_line(serve: Serve) -> None:
    server = serve(RAW, "--max-connections", "1")
    with socket.create_connection(("127.0.0.1", server.port), PATIENCE) as first:
        first.sendall(b"first")
        assert first.recv(100) == b"FIRST"
        with socket.create_connection(("127.0.0.1", server.port), PATIENCE) as second:
            assert b"SECOND" not in second.recv(100)


def test_a_raw_program_is_stopped(serve: Serve, tmp_path: Path) -> None:
    server = serve(RAW, "--grace", "0.2")
    with socket.create_connection(("127.0.0.1", server.port), PATIENCE) as connection:
        connection.sendall(b"hello")
        assert connection.recv(100) == b"HELLO"
        server.send(signal.SIGTERM)
        assert server.wait() == 0
        assert connection.recv(100) == b""
    assert notes(tmp_path)[-1] == "close"


# ---- hooks beside an App ----


def test_http_stays_with_the_app(serve: Serve, tmp_path: Path) -> None:
    server = serve(
        RAW
        + """
    from eighties import App
    app = App()
    @app.get("/")
    def root(request): return "hello"
"""
    )
    assert server.get("/").text == "hello"
    assert notes(tmp_path) == ["init True"]


HANDLERS = """
    from eighties import aio
    def here(fd, query, headers, body):
        fd.http_response(200, {}, "handler")
    aio.http_get("/handler", here)
"""


def test_handlers_alone_are_a_program(serve: Serve) -> None:
    server = serve(HANDLERS)
    assert server.get("/handler").text == "handler"
    assert server.get("/").status == 404


def test_handlers_with_hooks_are_http(serve: Serve) -> None:
    server = serve(RAW + HANDLERS)
    assert server.get("/handler").text == "handler"


@pytest.mark.parametrize("mounted", [False, True])
def test_handlers_are_mounted_in_the_app(mounted: bool, serve: Serve) -> None:
    server = serve(
        HANDLERS
        + f"""
    from eighties import App, handlers
    app = App()
    if {mounted}:
        app.mount("/", handlers.program)
    @app.get("/")
    def root(request): return "hello"
"""
    )
    assert server.get("/handler").text == "handler"
    assert server.get("/").text == "hello"


def test_handlers_that_clash_with_the_app(tmp_path: Path) -> None:
    text = """
    from eighties import App
    app = App()
    @app.get("/handler")
    def root(request): return "hello"
"""
    write(tmp_path, "program.py", HANDLERS + text)
    result = command(tmp_path, "program.py", "--cli")
    assert result.returncode == 3
    assert "two routes clash" in one_message(result)


@pytest.mark.parametrize("registered", ["", "@app.on_start\n    def start():\n        "])
def test_protocols_by_the_first_bytes(registered: str, serve: Serve) -> None:
    server = serve(f"""
    from eighties import App, aio
    app = App()
    @app.get("/")
    def root(request): return "hello"
    def serve(sock):
        sock.on_data = lambda elfd, fd, data, length: sock.write(data.upper())
    {registered}aio.add_protocol_handler("shout", matches=lambda data: data.startswith(b"shout"), handle=serve)
""")
    assert talk(server, b"shout hello") == b"SHOUT HELLO"
    assert server.get("/").text == "hello"


def test_hooks_of_module_and_attribute(serve: Serve, tmp_path: Path) -> None:
    write(tmp_path, "there.py", RAW + "    from eighties import App\n    class Box:\n        site = App()\n")
    server = serve("there:Box.site")
    assert server.get("/").status == 404
    assert notes(tmp_path) == ["init True"]


# ---- what is refused ----

APP = "from eighties import App\napp = App()\n"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (APP + "async def on_message(*a): pass\n", "on_message must be a plain function but is async def"),
        ("async def on_data(*a): pass\n", "on_data must be a plain function but is async def"),
        ("def on_data(*a): yield\n", "on_data must be a plain function but is a generator"),
        ("async def on_data(*a): yield\n", "on_data must be a plain function but is a generator"),
        ("import functools\nasync def f(*a): pass\non_data = functools.partial(f, 1)\n", "but is async def"),
        ("class C:\n    async def __call__(self, *a): pass\non_data = C()\n", "but is async def"),
        (APP + "on_close = 5\n", "on_close must be a function, as the server calls it, but is an int"),
        (APP + "on_init = None\n", "on_init must be a function"),
        ("def on_message(*a): pass\n", "program.py has no App"),
        ("def on_init(*a): pass\ndef on_accept(*a): pass\n", "program.py has no App"),
        ("x = 1\n", "a function `on_data` if it speaks bytes"),
        ("def on_data(*a): pass\na = 1\n" + APP + "b = App()\ndel app\nc = App()\n", "several Apps (b, c)"),
    ],
)
@pytest.mark.parametrize("action", [["-p", "0"], ["--cli"], ["--cfg"]])
def test_what_is_no_program(text: str, words: str, action: list[str], tmp_path: Path) -> None:
    write(tmp_path, "program.py", text)
    result = command(tmp_path, "program.py", *action)
    assert result.returncode == 3
    assert words in one_message(result)
    if "plain function" in words:
        assert "aio.async_(...), or aio.cor(...)" in one_message(result)


@pytest.mark.parametrize("action", ["--cli", "--cfg"])
def test_a_raw_program_without_a_socket(action: str, tmp_path: Path) -> None:
    write(tmp_path, "program.py", "def on_data(*a): pass\n")
    result = command(tmp_path, "program.py", action)
    assert (result.returncode, result.stderr) == (0, "")
    assert json.dumps(result.stdout).count("program.py") == (action == "--cfg")

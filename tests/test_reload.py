"""Reload in place: a program is executed again and swapped in, or the old one serves on."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from conftest import Serve
from keep_alive import Versions
from reloading import diary, reload, start, write_program
from server import PATIENCE, wait_until

# ---- what it does ----


def test_a_program_and_its_modules_are_executed_again(serve: Serve, tmp_path: Path, workers: int) -> None:
    write_program(tmp_path, 1)
    server = start(serve, workers=workers)
    for version in range(2, 7):
        write_program(tmp_path, version, f"helper {version}")
        assert reload(server) == []
        answers = {server.get("/").text for _ in range(4 * workers)}
        assert answers == {f"{version} helper {version}"}
    assert int(server.get("/loads").text) == 6
    assert server.wait_for("reloaded", 5)["worker"] is None
    wait_until(lambda: len(diary(tmp_path)) == (6 + 5) * workers, "every hook")
    assert server.stop() == 0
    if workers == 1:
        lines = diary(tmp_path)
        starts = [line for line in lines if line.startswith("start")]
        assert starts == ["start 1 False", *(f"start {version} True" for version in range(2, 7))]
        stops = [line for line in lines if line.startswith("stop")]
        assert stops == [*(f"stop {version - 1} True" for version in range(2, 7)), "stop 6 False"]
        for version in range(2, 7):
            assert lines.index(f"start {version} True") < lines.index(f"stop {version - 1} True")


def test_requests_under_way_end_with_the_old_code(serve: Serve, tmp_path: Path) -> None:
    write_program(tmp_path, 1)
    server = start(serve)
    answers: dict[str, str] = {}
    threads = [
        threading.Thread(target=lambda path=path: answers.__setitem__(path, server.get(path).text))
        for path in ("/slow/700", "/slow-error")
    ]
    for thread in threads:
        thread.start()
    wait_until(lambda: diary(tmp_path).count("slow") == 2, "requests under way")
    write_program(tmp_path, 2)
    assert reload(server) == []
    assert server.get("/").text == "2 helper"
    time.sleep(0.1)
    assert "stop 1 True" not in diary(tmp_path)
    for thread in threads:
        thread.join(PATIENCE)
    assert answers == {"/slow/700": "slow 1", "/slow-error": "error 1"}
    wait_until(lambda: "stop 1 True" in diary(tmp_path), "the old program's end")


def test_a_body_that_is_still_coming_belongs_to_the_old_code(serve: Serve, tmp_path: Path) -> None:
    write_program(tmp_path, 1)
    server = start(serve)
    with socket.create_connection(("127.0.0.1", server.port), PATIENCE) as client:
        client.sendall(b"POST /upload HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n12345")
        server.get("/")
        write_program(tmp_path, 2)
        assert reload(server) == []
        time.sleep(0.1)
        client.sendall(b"67890")
        assert client.recv(4096).endswith(b"1 10")
        client.sendall(b"POST /upload HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n\r\n1")
        assert client.recv(4096).endswith(b"2 1")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("def", "SyntaxError"),
        ("import no_such_module", "No module named 'no_such_module'"),
        ("raise SystemExit(3)", "ended itself with sys.exit(3)"),
        ("1 / 0", "ZeroDivisionError"),
        ("from eighties import net; net.reload()", "it cannot ask to be loaded again"),
        ("def on_init(elfd, fd): raise KeyError", "on_init failed: KeyError"),
        ("app.on_start(lambda: 1 / 0)", "an on_start hook failed: ZeroDivisionError"),
        ("import sys; app.on_start(lambda: sys.exit())", "SystemExit"),
        ("app = 7", "has no App"),
        ("raise GeneratorExit", "raised GeneratorExit while it started"),
        ("@app.on_start\nasync def leave(): asyncio.current_task().cancel(); await asyncio.sleep(0)", "CancelledError"),
        ("late = App(); app.mount('/', late); app.on_start(lambda: late.get('/')(root))", "two routes clash"),
    ],
)
def test_broken_code_leaves_the_old_serving(
    text: str, message: str, serve: Serve, tmp_path: Path, workers: int
) -> None:
    write_program(tmp_path, 1)
    server = start(serve, workers=workers)
    write_program(tmp_path, 2, "broken", text)
    failures = reload(server)
    assert [failure[0] for failure in failures] == [0]  # it went ahead
    assert all(message in str(failure[1]) for failure in failures), failures
    line = server.wait_for("not reloaded")
    assert (message in line["message"], line["workers"]) == (True, [0])
    assert {server.get("/").text for _ in range(4)} == {"1 helper"}
    write_program(tmp_path, 3, "mended")
    assert reload(server) == []
    assert {server.get("/").text for _ in range(4)} == {"3 mended"}


def test_what_handlers_and_protocols_registered_is_put_back(serve: Serve, tmp_path: Path) -> None:
    text = """
from eighties import aio, net
VERSION = {0}
aio.http_get("/", lambda fd, query, headers, body: fd.http_response(200, None, "get {0}"))
async def reload(fd, query, headers, body):
    return await net.reload()
aio.http_post("/reload", reload)
{1}
"""
    speak = 'aio.add_protocol_handler("p", matches=b"P1", handle=lambda sock: (sock.write(b"p{0}"), sock.close()))\n'
    program = tmp_path / "program.py"
    program.write_text(text.format(1, speak.format(1)))
    server = serve("program.py")

    def answers() -> tuple[str, bytes]:
        with socket.create_connection(("127.0.0.1", server.port), PATIENCE) as client:
            client.sendall(b"P1\r\n\r\n")
            return server.get("/").text, client.recv(100)[:2]

    assert answers() == ("get 1", b"p1")
    program.write_text(text.format(2, speak.format(2) + "1 / 0"))
    assert len(reload(server)) == 1
    assert answers() == ("get 1", b"p1")
    program.write_text(text.format(3, speak.format(3)))
    assert reload(server) == []
    assert answers() == ("get 3", b"p3")
    program.write_text(text.format(4, ""))
    assert reload(server) == []
    assert answers() == ("get 4", b"HT")


def test_modules_elsewhere_stay_and_packages_are_run_again(serve: Serve, tmp_path: Path) -> None:
    package = tmp_path / "package"
    package.mkdir()
    (package / "__init__.py").write_text("from .inner import ONE\n")
    (package / "inner.py").write_text("ONE = 1\n")
    (tmp_path / "main_program.py").write_text(
        "import json, package.inner\nfrom eighties import App, net, state\napp = App()\n"
        "state.json = getattr(state, 'json', json)\n"
        "@app.get('/')\ndef root(request): return [package.ONE, package.inner.ONE, json is state.json]\n"
        "@app.post('/reload')\nasync def reload(request): return await net.reload()\n"
    )
    server = serve("main_program:app")
    assert server.get("/").json() == [1, 1, True]
    (package / "inner.py").write_text("ONE = 2\n")
    assert reload(server) == []
    assert server.get("/").json() == [2, 2, True]


# By name, a module that is run again however it is imported, and what of it the program answers.
WAYS = {
    "circle": ("import circle\nVALUE = {0}\ndef get(): return circle.VALUE\n", "circle.get()"),
    "star": ("from deep import *\n", "star.VALUE"),
    "deep/__init__": ("from .inner import VALUE\n", "deep.VALUE"),
    "deep/inner": ("from . import __name__ as above\nfrom .. import deep\nVALUE = {0}\n", "deep.inner.VALUE"),
    "space/inside": ("VALUE = {0}\n", "space.inside.VALUE"),
    "itself": ("import sys\nclass Other: VALUE = {0}\nsys.modules[__name__] = Other()\n", "itself.VALUE"),
    "asks": (
        "def __getattr__(name):\n    if name != 'VALUE': raise RuntimeError(name)\n    return {0}\n",
        "asks.VALUE",
    ),
    "late": ("VALUE = {0}\n", "__import__('late').VALUE"),
    "strange": (
        "import sys\nclass Evil:\n    def __getattribute__(self, name): raise RuntimeError\n"
        "sys.modules['evil'] = Evil()\nVALUE = {0}\n",
        "strange.VALUE",
    ),
    "again": ("VALUE = {0}\n", "importlib.reload(sys.modules['again']).VALUE"),
    "kinds": (
        "import enum, pickle\nclass Kind(enum.Enum): A = {0}\nassert pickle.loads(pickle.dumps(Kind.A)) is Kind.A\n",
        "kinds.Kind.A.value",
    ),
}


def write_ways(folder: Path, version: int) -> None:
    """A program that imports them all, from a folder that it leaves."""
    for name, (text, _) in WAYS.items():
        path = folder / f"{name}.py"
        path.parent.mkdir(exist_ok=True)
        path.write_text(text.format(version).replace("from .. import deep\n", ""))
    imports = ", ".join(name.removesuffix("/__init__").replace("/", ".") for name in WAYS if name != "late")
    values = ", ".join(value for _, value in WAYS.values())
    (folder / "program.py").write_text(
        f"import importlib, os, sys, {imports}\nfrom eighties import App, net\napp = App()\n"
        "os.mkdir('away') if not os.path.exists('away') else None\nos.chdir('away')\n"
        f"@app.get('/')\ndef root(request): return [{version}, {values}]\n"
        "@app.post('/reload')\nasync def reload(request): return await net.reload()\n"
    )


@pytest.mark.parametrize("entry", ["program.py", "program:app"])
def test_however_modules_are_imported(entry: str, serve: Serve, tmp_path: Path) -> None:
    write_ways(tmp_path, 1)
    server = serve(entry)
    assert server.get("/").json() == [1] * (len(WAYS) + 1)
    for version in (2, 3):
        write_ways(tmp_path, version)
        assert reload(server) == []
        assert server.get("/").json() == [version] * (len(WAYS) + 1)
    (tmp_path / "asks.py").write_text("1 / 0")
    assert len(reload(server)) == 1
    assert server.get("/").json() == [3] * (len(WAYS) + 1)


def test_context_of_the_new_hooks_is_the_new_handlers(serve: Serve, tmp_path: Path) -> None:
    text = """
from contextvars import ContextVar
from eighties import App, net
variable = ContextVar("variable")
app = App()
@app.on_start
async def start(): variable.set({0})
@app.get("/")
async def root(request): return str(variable.get("none"))
@app.get("/plain")
def plain(request): return str(variable.get("none"))
@app.post("/reload")
async def reload(request): return await net.reload()
"""
    (tmp_path / "program.py").write_text(text.format(1))
    server = serve("program.py")
    for version in (1, 2, 3):
        (tmp_path / "program.py").write_text(text.format(version))
        assert reload(server) == []
        assert [server.get("/").text, server.get("/plain").text] == [str(version)] * 2


def test_raw_hooks_and_mail_are_new_code(serve: Serve, tmp_path: Path) -> None:
    text = """
from eighties import net
ELFD = None
def on_init(elfd, parentfd):
    global ELFD
    ELFD = elfd
def on_data(elfd, childfd, data, length):
    if data == b"reload":
        net.reload()(lambda failures: net.write(ELFD, childfd, b"%d" % len(failures)))
    elif data == b"mail":
        net.mail(None, "", target=childfd)
    else:
        net.write(ELFD, childfd, b"{0}")
def on_message(worker, sender, elfd, fd, message):
    net.write(ELFD, fd, b"mail {0}")
"""
    (tmp_path / "program.py").write_text(text.format(1))
    server = serve("program.py")
    with socket.create_connection(("127.0.0.1", server.port), PATIENCE) as client:

        def ask(word: bytes) -> bytes:
            client.sendall(word)
            return client.recv(100)

        assert [ask(b"x"), ask(b"mail")] == [b"1", b"mail 1"]
        (tmp_path / "program.py").write_text(text.format(2))
        assert ask(b"reload") == b"0"
        assert [ask(b"x"), ask(b"mail")] == [b"2", b"mail 2"]


def test_a_stream_stays_and_says_what_the_new_code_says(serve: Serve, tmp_path: Path) -> None:
    more = """
state.say = lambda: f"{VERSION}\\n"
state.rows = getattr(state, "rows", None)
@app.get("/stream")
async def stream(request):
    while True:
        yield state.say()
        await asyncio.sleep(0.02)
@app.on_start
async def add_row():
    if state.rows is None:
        from eighties.sql import connect
        state.rows = connect("sqlite:///rows.db")
        await state.rows.exec("CREATE TABLE numbers (number INTEGER)")
    await state.rows.exec("INSERT INTO numbers VALUES (%s)", VERSION)
@app.get("/rows")
async def rows(request):
    return [row["number"] for row in await state.rows.select("SELECT number FROM numbers ORDER BY number")]
"""
    write_program(tmp_path, 1, more=more)
    server = start(serve)
    with socket.create_connection(("127.0.0.1", server.port), PATIENCE) as client:
        client.sendall(b"GET /stream HTTP/1.1\r\nHost: x\r\n\r\n")
        stream = client.makefile("rb")
        for version in (1, 2, 3):
            while stream.readline().strip() != b"%d" % version:
                pass
            write_program(tmp_path, version + 1, more=more)
            assert reload(server) == []
    assert server.get("/rows").json() == [1, 2, 3, 4]


# ---- what sets it off ----


def test_a_signal_and_the_command(serve: Serve, tmp_path: Path, workers: int) -> None:
    write_program(tmp_path, 1)
    server = start(serve, "--pidfile", "pid", workers=workers)
    assert int((tmp_path / "pid").read_text()) == server.pid
    write_program(tmp_path, 2)
    server.send(signal.SIGHUP)
    server.wait_for("reloaded")
    assert {server.get("/").text for _ in range(4)} == {"2 helper"}
    write_program(tmp_path, 3)
    command = [sys.executable, "-m", "eighties", "reload", "--pidfile", "pid"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert (done.returncode, f"process {server.pid}" in done.stdout) == (0, True)
    server.wait_for("reloaded", 2)
    assert {server.get("/").text for _ in range(4)} == {"3 helper"}
    other = serve("program.py", "--pidfile", "pid", wait=False)
    assert other.wait() == 1
    other.wait_for("another server runs, and holds the pid file pid")
    assert server.stop() == 0
    assert not (tmp_path / "pid").exists()
    (tmp_path / "pid").write_text(f"{os.getpid()}\n")  # left over: it is some other process's number by now
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert (done.returncode, "no server holds the pid file pid" in done.stderr) == (1, True)


def test_reloads_asked_for_meanwhile_are_one_more(serve: Serve, tmp_path: Path) -> None:
    more = "\n@app.on_start\nasync def wait(reload): await asyncio.sleep(0.3 * reload)\n"
    write_program(tmp_path, 1, more=more)
    server = start(serve)
    results: list[object] = []
    threads = [threading.Thread(target=lambda: results.append(reload(server))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
    assert results == [[]] * 8
    assert 2 <= int(server.get("/loads").text) <= 4


def test_a_program_that_kills_its_worker_costs_one(serve: Serve, tmp_path: Path) -> None:
    """One worker goes ahead: the others keep the old program, and who asked is told."""
    write_program(tmp_path, 1)
    server = start(serve, workers=2)
    before = server.workers
    write_program(tmp_path, 2, more="\nif getattr(state, 'loads', 0) > 1: os._exit(7)\n")
    with socket.create_connection(("127.0.0.1", server.port), PATIENCE):
        server.send(signal.SIGHUP)
        told = server.wait_for("not reloaded, the old program serves on")
    assert "ended with exit code 7" in told["message"]
    assert told["workers"] == [0]
    server.wait_for("worker 0 serves again")
    assert len(set(server.workers) & set(before)) == 1
    write_program(tmp_path, 3)
    assert reload(server) == []
    assert {server.get("/").text for _ in range(8)} == {"3 helper"}


def test_a_worker_that_dies_while_it_loads_is_a_failure(serve: Serve, tmp_path: Path) -> None:
    more = (
        "\n@app.on_start\nasync def wait(reload):\n    if reload: write(f'pid {os.getpid()}'); await asyncio.sleep(9)"
    )
    write_program(tmp_path, 1, more=more)
    server = start(serve, workers=2)
    server.send(signal.SIGHUP)
    wait_until(lambda: any("pid" in line for line in diary(tmp_path)), "a load")
    [pid] = [int(line.split()[1]) for line in diary(tmp_path) if line.startswith("pid")]
    os.kill(pid, signal.SIGKILL)
    server.wait_for("not reloaded, the old program serves on: worker 0")
    server.wait_for("serves again")
    assert len(server.workers) == 2


def test_a_stop_ends_a_load(serve: Serve, tmp_path: Path) -> None:
    more = "\n@app.on_start\nasync def wait(reload):\n    if reload: write('hang'); await asyncio.sleep(1000)\n"
    write_program(tmp_path, 1, more=more)
    server = start(serve)
    server.send(signal.SIGHUP)
    wait_until(lambda: "hang" in diary(tmp_path), "the load")
    assert server.get("/").text == "1 helper"
    assert server.stop() == 0


# ---- under load, again and again ----


def test_fifty_reloads_under_load(serve: Serve, tmp_path: Path, workers: int) -> None:
    write_program(tmp_path, 1, "helper 1")
    server = start(serve, workers=workers)

    def answer(path: str, version: int) -> str:
        return f"slow {version}" if path == "/slow/5" else f"{version} helper {version}"

    with Versions(server.port, 16, answer, ("/slow/5", "/", "/", "/")) as crowd:
        for version in range(2, 52):
            crowd.newest = version
            write_program(tmp_path, version, f"helper {version}")
            assert reload(server) == []
            crowd.oldest = version
            crowd.wait(20)
    assert not crowd.wrong, crowd.wrong[:3]


@pytest.mark.parametrize("nohup", [False, True])
def test_a_terminal_that_hangs_up_is_no_order_to_reload(nohup: bool, tmp_path: Path) -> None:
    write_program(tmp_path, 1)
    master, slave = os.openpty()
    # The parent is the leader of the terminal's session, so that closing the terminal reaches it.
    launch = (
        "import os, sys, signal; os.setsid(); os.close(os.open(sys.argv[1], os.O_RDWR));"
        f"signal.signal(signal.SIGHUP, signal.SIG_IGN if {nohup} else signal.SIG_DFL);"
        "os.execv(sys.executable, [sys.executable, '-m', 'eighties', 'program.py', '-p', '0'])"
    )
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-c", launch, os.ttyname(slave)], cwd=tmp_path, stdin=subprocess.DEVNULL, stderr=log
        )
    try:
        wait_until(lambda: '"listening"' in (tmp_path / "log").read_text(), "the server")
        process.send_signal(signal.SIGHUP)
        wait_until(lambda: '"reloaded"' in (tmp_path / "log").read_text(), "a reload while the terminal is there")
        os.close(slave)
        os.close(master)
        if nohup:
            time.sleep(0.3)
            process.send_signal(signal.SIGHUP)
            wait_until(lambda: (tmp_path / "log").read_text().count('"reloaded"') == 2, "an order")
            process.send_signal(signal.SIGTERM)
        assert process.wait(PATIENCE) == 0
        assert (tmp_path / "log").read_text().count('"reloaded"') == 1 + nohup
    finally:
        process.kill()
        process.wait()

"""Whole reload: worker processes are replaced, and the parent replaces itself; no client notices."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from conftest import Serve
from keep_alive import Crowd, Versions, read_answer
from server import PATIENCE, Server, foreign_environment, wait_until

import eighties

ENGINE = Path(__file__).parents[1] / "src" / "eighties" / "engine"
PROGRAM = """
import asyncio, os
from eighties import App, Response, net, state
from eighties._engine import VERSION as ENGINE

app = App()

def write(*words):
    with open("diary", "a") as file:
        print(*words, file=file)

@app.on_start
def start(reload):
    write("start", os.getpid(), reload)

@app.on_stop
def stop(reload):
    write("stop", os.getpid(), reload)

@app.get("/")
def root(request):
    return f"{VERSION}"

@app.get("/slow/{n:int}")
async def slow(request, n):
    await asyncio.sleep(n / 1000)
    return f"slow {VERSION}"

@app.get("/pid")
def pid(request):
    return str(os.getpid())

@app.get("/engine")
def engine(request):
    return ENGINE

@app.get("/stream")
async def stream(request):
    async def pieces():
        for n in range(1000):
            yield f"{os.getpid()}\\n"
            await asyncio.sleep(0.02)
    return Response(pieces())

@app.post("/reload")
async def reload(request):
    return await net.reload()

@app.post("/full")
async def full(request):
    return await net.reload(full=True)
"""


def write_program(folder: Path, version: object, more: str = "") -> None:
    """What is written last has another size than any byte code of it, or another second."""
    folder.joinpath("program.py").write_text(f"VERSION = {version!r}\n{PROGRAM}{more}")


def start(serve: Serve, *arguments: str, workers: int = 1) -> Server:
    """Serve the program of `write_program`; every worker has loaded it."""
    server = serve("program.py", "-c", str(workers), *arguments)
    wait_until(lambda: len(diary(server.folder, "start")) == workers, "every worker has loaded it")
    return server


def diary(folder: Path, word: str) -> list[int]:
    """The processes whose hook of that kind has run; none of them is ever told of a reload."""
    path = folder / "diary"
    lines = path.read_text().splitlines() if path.exists() else []
    return [int(line.split()[1]) for line in lines if line.startswith(word) and line.endswith(" False")]


def replace(server: Server) -> list[list[object]]:
    """Ask for it as a program does: the failures."""
    failures: list[list[object]] = server.request("POST", "/full").json()
    return failures


def tell(server: Server, *words: str) -> None:
    """`80s reload` and `80s upgrade`, as typed."""
    command = [sys.executable, "-m", "eighties", *words, "--pidfile", "pid"]
    done = subprocess.run(command, cwd=server.folder, capture_output=True, text=True, timeout=PATIENCE)
    assert done.returncode == 0, done.stderr
    assert str(server.pid) in done.stdout


def ask(client: socket.socket, path: str = "/pid") -> str:
    """One request on a connection that is there."""
    client.sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
    head, body = read_answer(client)
    assert head.startswith(b"HTTP/1.1 200 ")
    return body.decode()


@contextmanager
def clients(server: Server, size: int = 1) -> Iterator[list[socket.socket]]:
    """Connections to it."""
    made = [socket.create_connection(("127.0.0.1", server.port), PATIENCE) for _ in range(size)]
    yield made
    for client in made:
        client.close()


def copy_of_package(folder: Path) -> Path:
    """The package in a folder of its own, for a test that changes it; what PYTHONPATH has to be."""
    source = Path(eighties.__file__).parent
    shutil.copytree(source, folder / "site" / "eighties", ignore=shutil.ignore_patterns("__pycache__"))
    return folder / "site"


def build_engine(target: Path, version: str) -> None:
    """Compile the engine anew, with another version in it."""
    units = [path for path in ENGINE.glob("*.c") if path.name != "poller_kqueue.c"]
    include = subprocess.check_output(
        [sys.executable, "-c", "import sysconfig; print(sysconfig.get_path('include'))"], text=True
    ).strip()
    defines = ["-D_GNU_SOURCE", "-DNDEBUG", f'-DEIGHTIES_VERSION="{version}"', "-fvisibility=hidden"]
    command = [os.environ.get("CC", "cc"), "-std=gnu11", "-O1", "-w", "-fPIC", "-shared", *defines, f"-I{include}"]
    new = target.with_suffix(".new")
    subprocess.run([*command, *map(str, units), "-o", str(new)], check=True, env=foreign_environment())
    new.replace(target)


# ---- the proof ----


def test_under_load_nobody_notices(tmp_path: Path) -> None:
    """50 reloads in place, 10 of whole processes, one of them with a rebuilt engine, and one upgrade of the parent."""
    write_program(tmp_path, 1)
    site = copy_of_package(tmp_path)
    [engine] = site.glob("eighties/_engine*.so")
    server = Server(
        "program.py", "-c", "2", "--pidfile", "pid", folder=tmp_path, env={"PYTHONPATH": str(site)}
    ).wait_until_serving()
    server.wait_for_workers(2)

    def answer(path: str, version: int) -> str:
        return f"slow {version}" if path == "/slow/5" else f"{version}"

    try:
        with Versions(server.port, 16, answer, ("/slow/5", "/", "/", "/")) as crowd:
            version = 1
            for whole in range(10):
                for _ in range(5):
                    version += 1
                    crowd.newest = version
                    write_program(tmp_path, version)
                    assert server.request("POST", "/reload").json() == []
                    crowd.oldest = version
                    crowd.wait(20)
                if whole == 4:
                    build_engine(engine, "rebuilt")
                version += 1
                crowd.newest = version
                write_program(tmp_path, version)
                before = set(server.workers)
                if whole == 7:
                    tell(server, "upgrade")
                    server.wait_for("upgraded")
                    server.wait_for("replaced", whole + 1)
                else:
                    assert replace(server) == []
                crowd.oldest = version
                crowd.wait(20)
                wait_until(lambda before=before: not before & set(server.workers), "the old ones leave")  # type: ignore[misc]
            assert server.get("/engine").text == "rebuilt"
            assert server.get("/").text == str(version)
        assert not crowd.wrong, crowd.wrong[:3]
        assert crowd.lost == 0
        assert len(server.workers) == 2
        assert not [line for line in server.log if line["level"] != "info"]
        assert server.stop() == 0
    finally:
        server.kill()


# ---- processes ----


@pytest.mark.parametrize("how", ["net", "signal", "command"])
def test_every_process_is_replaced(how: str, serve: Serve, tmp_path: Path, workers: int) -> None:
    write_program(tmp_path, 1)
    server = start(serve, "--pidfile", "pid", workers=workers)
    before = server.workers
    write_program(tmp_path, 2)
    if how == "net":
        assert replace(server) == []
    elif how == "signal":
        server.send(signal.SIGUSR2)
    else:
        tell(server, "reload", "--full")
    server.wait_for("replaced")
    wait_until(lambda: len(server.workers) == workers and not set(server.workers) & set(before), "new processes")
    assert server.get("/").text == "2"
    assert server.stop() == 0
    assert sorted(diary(tmp_path, "stop")[:workers]) == sorted(before)
    assert len(diary(tmp_path, "stop")) == 2 * workers


@pytest.mark.parametrize("where", ["--uds", "--reuseport"])
def test_on_other_sockets(where: str, serve: Serve, tmp_path: Path) -> None:
    write_program(tmp_path, 1)
    words = ["--uds", "sock", "-p", "0", "-h", "127.0.0.1"] if where == "--uds" else ["--reuseport"]
    server = start(serve, *words, workers=2)
    before = server.workers
    with Crowd(int(server.log[-1]["url"].rpartition(":")[2]), 4, lambda _, body: body == b"1") as crowd:
        server.send(signal.SIGUSR2)
        server.wait_for("replaced")
        crowd.wait(50)
        wait_until(lambda: not set(server.workers) & set(before), "the old ones leave")
    assert not crowd.wrong
    assert crowd.lost == 0


def test_what_waits_moves_with_its_bytes(serve: Serve, tmp_path: Path) -> None:
    """A fresh connection, one between two requests, one with half a head, one with a whole request that nobody read."""
    write_program(tmp_path, 1)
    server = start(serve)
    [old] = server.workers
    with clients(server, 40) as made:
        fresh, kept, half, *more = made
        assert {ask(client) for client in (kept, *more)} == {str(old)}
        half.sendall(b"GET /pid HTTP/1.1\r\nHo")
        assert replace(server) == []
        wait_until(lambda: old not in server.workers, "the old one leaves")
        [new] = server.workers
        half.sendall(b"st: x\r\n\r\n")
        assert read_answer(half)[1] == str(new).encode()
        assert {ask(client) for client in (fresh, kept, half, *more)} == {str(new)}
        # And back out of that one.
        assert replace(server) == []
        wait_until(lambda: new not in server.workers, "the second one leaves")
        assert {ask(client) for client in made} == {str(server.workers[0])}


def test_what_is_under_way_ends_where_it_began_and_then_moves(serve: Serve, tmp_path: Path) -> None:
    write_program(tmp_path, 1)
    server = start(serve)
    [old] = server.workers
    with clients(server) as [client]:
        client.sendall(b"GET /slow/1500 HTTP/1.1\r\nHost: x\r\n\r\nGET /pid HTTP/1.1\r\nHost: x\r\n\r\n")
        wait_until(lambda: server.get("/pid").text == str(old), "it is there")
        write_program(tmp_path, 2)
        assert replace(server) == []
        assert server.get("/").text == "2"
        data = b""
        while data.count(b"HTTP/1.1 200") < 2 or not data.endswith(b"0") and not data[-1:].isdigit():
            data += client.recv(4096)
        assert b"slow 1" in data
        assert b"close" not in data.lower()
        wait_until(lambda: old not in server.workers, "the old one leaves")
        assert ask(client) == str(server.workers[0])


def test_a_stream_ends_with_the_grace(serve: Serve, tmp_path: Path) -> None:
    write_program(tmp_path, 1)
    server = start(serve, "--grace", "1")
    [old] = server.workers
    with clients(server) as [client]:
        client.sendall(b"GET /stream HTTP/1.1\r\nHost: x\r\n\r\n")
        data = client.recv(4096)
        assert replace(server) == []
        # What is asked for next waits until the old process has left: there are never more than two.
        server.send(signal.SIGUSR2)
        while more := client.recv(4096):
            data += more
    pids = re.findall(rb"\n(\d+)\n", data)
    assert len(pids) > 20
    assert set(pids) == {str(old).encode()}
    server.wait_for("replaced", 2)
    server.wait_for("the grace of 1 s is over")


def test_the_whole_servers_counters_go_on(serve: Serve, tmp_path: Path) -> None:
    more = """
@app.get("/total")
def total(request):
    from eighties.serve import scoreboard
    return [len(scoreboard.read()), scoreboard.total()["connections"]]
"""
    write_program(tmp_path, 1, more)
    server = start(serve, workers=2)
    with clients(server, 10) as made:
        for client in made:
            ask(client)
        assert server.get("/total").json() == [2, 11]
        assert replace(server) == []
        wait_until(lambda: server.get("/total").json() == [2, 11], "the same number")


# ---- what does not start ----


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ("raise ValueError('no')", "ValueError: no"),
        ("\n@app.on_start\ndef start():\n    1 / 0\n", "ZeroDivisionError"),
        ("def (", "SyntaxError"),
        ("os._exit(7)", "ended with exit code 7"),
        ("os.kill(os.getpid(), 9)", "was ended by signal 9"),
    ],
)
def test_a_program_that_fails_leaves_the_old_workers(
    more: str, words: str, serve: Serve, tmp_path: Path, workers: int
) -> None:
    write_program(tmp_path, 1)
    server = start(serve, workers=workers)
    before = server.workers
    write_program(tmp_path, 2, more)
    [failure] = replace(server)
    assert failure[0] == 0
    assert words in str(failure[1:])
    server.wait_for("not replaced, the old program serves on")
    assert sorted(server.workers) == sorted(before)
    assert server.get("/").text == "1"
    write_program(tmp_path, 3)
    assert replace(server) == []
    assert server.get("/").text == "3"


def test_a_program_that_does_not_come_to_an_end_of_its_start_is_killed(tmp_path: Path) -> None:
    write_program(tmp_path, 1)
    code = "from eighties.serve import supervisor as s; s.START_TIME = 1.0; from eighties.cli import main; main()"
    server = Server("program.py", folder=tmp_path, command=(sys.executable, "-c", code)).wait_until_serving()
    try:
        write_program(tmp_path, 2, "import time; time.sleep(1000)")
        [[number, message, _]] = replace(server)
        assert (number, message) == (0, "the new process did not serve within 1 s and was killed")
        assert server.get("/").text == "1"
        assert server.stop() == 0
    finally:
        server.kill()


def test_the_old_one_dies_while_the_new_one_starts(serve: Serve, tmp_path: Path) -> None:
    write_program(tmp_path, 1)
    server = start(serve)
    [old] = server.workers
    write_program(tmp_path, 2, "import time; time.sleep(1)")
    server.send(signal.SIGUSR2)
    wait_until(lambda: len(server.workers) == 2, "the new one")
    os.kill(old, signal.SIGKILL)
    server.wait_for("the one that was to take its place starts")
    server.wait_for("replaced")
    assert len(server.workers) == 1
    assert server.get("/").text == "2"


def test_both_die(serve: Serve, tmp_path: Path) -> None:
    write_program(tmp_path, 1)
    server = start(serve)
    before = server.workers
    write_program(tmp_path, 2, "import time; time.sleep(1)")
    server.send(signal.SIGUSR2)
    wait_until(lambda: len(server.workers) == 2, "the new one")
    both = server.workers
    for pid in both:
        os.kill(pid, signal.SIGKILL)
    server.wait_for("not replaced")
    wait_until(lambda: server.workers and not set(server.workers) & set(both), "a third one")
    assert server.get("/").text == "2"
    assert before


def test_a_stop_while_a_new_process_starts(serve: Serve, tmp_path: Path) -> None:
    write_program(tmp_path, 1)
    server = start(serve)
    write_program(tmp_path, 2, "import time; time.sleep(1)")
    server.send(signal.SIGUSR2)
    wait_until(lambda: len(server.workers) == 2, "the new one")
    assert server.stop() == 0


def test_reloads_of_both_kinds_at_once_end_well(serve: Serve, tmp_path: Path) -> None:
    write_program(tmp_path, 1)
    server = start(serve, workers=2)
    for version in range(2, 12):
        write_program(tmp_path, version)
        server.send(signal.SIGHUP)
        server.send(signal.SIGUSR2)
        time.sleep(0.05)
    wait_until(lambda: {server.get("/").text for _ in range(8)} == {"11"}, "the last one everywhere")
    assert not [line for line in server.log if line["level"] != "info"]


# ---- the parent ----


def test_an_upgrade(tmp_path: Path) -> None:
    """The parent becomes what is installed now; a package that does not start changes nothing."""
    write_program(tmp_path, 1)
    site = copy_of_package(tmp_path)
    server = Server("program.py", "--pidfile", "pid", folder=tmp_path, env={"PYTHONPATH": str(site)})
    try:
        [old] = server.wait_until_serving().workers
        with clients(server) as [client]:
            assert ask(client) == str(old)
            supervisor = site / "eighties" / "serve" / "supervisor.py"
            text = supervisor.read_text()
            supervisor.write_text(text + "\nraise RuntimeError('broken')\n")
            tell(server, "upgrade")
            server.wait_for("not upgraded, the old server serves on: the new one does not start (exit code 1)")
            assert "RuntimeError: broken" in server.stderr
            assert ask(client) == str(old)
            supervisor.write_text(text.replace("upgraded: the workers follow", "upgraded, and how"))
            tell(server, "upgrade")
            server.wait_for("upgraded, and how")
            server.wait_for("replaced")
            wait_until(lambda: old not in server.workers, "the old one leaves")
            assert ask(client) == str(server.workers[0])
            assert server.pid == int(tmp_path.joinpath("pid").read_text())
            # All that a parent does, the new one does.
            write_program(tmp_path, 2)
            server.send(signal.SIGHUP)
            server.wait_for("reloaded")
            assert ask(client, "/") == "2"
            tell(server, "upgrade")
            server.wait_for("replaced", 2)
            [worker] = server.wait_for_workers(1)
            os.kill(worker, signal.SIGKILL)
            server.wait_for("a new one starts now")
        assert server.stop() == 0
        assert not tmp_path.joinpath("pid").exists()
    finally:
        server.kill()


def test_an_upgrade_waits_for_a_reload(serve: Serve, tmp_path: Path) -> None:
    write_program(tmp_path, 1)
    server = start(serve, "--pidfile", "pid", workers=2)
    write_program(tmp_path, 2, "import time; time.sleep(0.5)")
    server.send(signal.SIGUSR2)
    server.send(signal.SIGUSR1)
    server.send(signal.SIGHUP)
    server.wait_for("upgraded")
    server.wait_for("replaced", 2)
    assert server.get("/").text == "2"

"""Staying up: workers that die, hang, grow or grow old, a full disk, no descriptors. Clients count every answer."""

from __future__ import annotations

import os
import signal
import socket
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from conftest import Serve
from keep_alive import Crowd, read_answer
from server import PATIENCE, Server, wait_until

PROGRAM = """
import os, resource, socket, time
from eighties import App

app = App()
kept = []

@app.get("/")
def root(request):
    return "fine"

@app.get("/pid")
def pid(request):
    return str(os.getpid())

@app.get("/hang")
def hang(request):
    time.sleep(1000)

@app.get("/grow/{n:int}")
def grow(request, n):
    kept.append(b"x" * n)
    return "grown"
"""


def right(path: str, body: bytes) -> bool:
    return body == b"fine"


def start(serve: Serve, *arguments: str, workers: int = 1, more: str = "") -> Server:
    """Serve the program above."""
    more += "\n@app.on_start\ndef start():\n    open(f'started-{os.getpid()}', 'w')\n"
    server = serve(PROGRAM + more, "-c", str(workers), *arguments)
    wait_until(lambda: len(list(server.folder.glob("started-*"))) == workers, "every worker has started")
    return server


@contextmanager
def replaced(server: Server, pid: int) -> Iterator[None]:
    """What is in the block ends the worker: another one takes its place, and as many run as before."""
    count = len(server.workers)
    yield
    wait_until(lambda: pid not in server.workers and len(server.workers) == count, "another worker")
    wait_until(lambda: len(list(server.folder.glob("started-*"))) > count, "it has started")


# ---- workers that die or hang ----


def test_a_killed_worker_costs_its_own_connections_only(serve: Serve) -> None:
    server = start(serve, workers=2)
    pid = server.workers[0]
    with Crowd(server.port, 16, right, again=True) as crowd, replaced(server, pid):
        crowd.wait(100)
        os.kill(pid, signal.SIGKILL)
    assert not crowd.wrong, crowd.wrong[:3]
    assert crowd.lost <= 16
    assert server.wait_for("was ended by signal 9")["level"] == "error"


def test_a_stopped_worker_is_replaced(serve: Serve) -> None:
    server = start(serve, "--watchdog", "1", workers=2)
    pid = server.workers[0]
    with Crowd(server.port, 16, right, again=True) as crowd, replaced(server, pid):
        os.kill(pid, signal.SIGSTOP)
        server.wait_for(f"worker 0 (pid {pid}) has not answered for 1 s and is killed")
    assert not crowd.wrong, crowd.wrong[:3]
    assert crowd.lost <= 16


def test_a_handler_that_never_returns_costs_its_worker(serve: Serve) -> None:
    server = start(serve, "--watchdog", "1")
    [pid] = server.workers
    with replaced(server, pid), socket.create_connection(("127.0.0.1", server.port), PATIENCE) as client:
        client.sendall(b"GET /hang HTTP/1.1\r\nHost: x\r\n\r\n")
        with pytest.raises(OSError):
            if not client.recv(1):
                raise ConnectionResetError
    assert server.get("/").text == "fine"


def test_a_worker_that_has_much_mail_is_not_taken_for_dead(serve: Serve, tmp_path: Path) -> None:
    """The parent's question is behind what takes longer to read than the watchdog waits."""
    more = """
import asyncio
from eighties.post import here

@app.get("/flood")
async def flood(request):
    for _ in range(1900):
        while not here().mail(1 - here().number, bytes(1000)):
            await asyncio.sleep(0.001)
    return "sent"

def on_message(worker, sender, elfd, fd, message):
    kept.append(time.monotonic())
    time.sleep(0.003)
    if kept[-1] - kept[0] > 2:
        open("busy", "w")
"""
    server = start(serve, "--watchdog", "1", workers=2, more=more)
    before = server.workers
    assert server.get("/flood").text == "sent"
    wait_until(tmp_path.joinpath("busy").exists, "it has read for longer")
    assert server.workers == before


def test_no_watchdog(serve: Serve) -> None:
    more = "\n@app.get('/long')\ndef long(request):\n    time.sleep(1.5)\n    return 'done'\n"
    server = start(serve, "--watchdog", "0", more=more)
    [pid] = server.workers
    assert server.get("/long").text == "done"
    assert server.workers == [pid]


def test_a_stopped_server_that_goes_on_ends_no_worker(serve: Serve) -> None:
    """As by Ctrl+Z and `fg`."""
    server = start(serve, "--watchdog", "1", workers=2)
    before = sorted(server.workers)
    for _ in range(2):
        os.killpg(server.pid, signal.SIGSTOP)
        with socket.create_connection(("127.0.0.1", server.port), PATIENCE) as client:
            client.settimeout(2)
            client.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
            with pytest.raises(TimeoutError):
                client.recv(1)
        os.killpg(server.pid, signal.SIGCONT)
        assert server.get("/").text == "fine"
    assert sorted(server.workers) == before


@pytest.mark.skipif("EIGHTIES_SANITIZE" in os.environ, reason="the sanitizers need all addresses there are")
def test_a_worker_without_memory_answers_500_and_serves_on(serve: Serve) -> None:
    server = start(serve, more="\nresource.setrlimit(resource.RLIMIT_AS, (2**31, 2**31))\n")
    [pid] = server.workers
    with Crowd(server.port, 4, right) as crowd:
        for _ in range(5):
            assert server.get(f"/grow/{2**32}").status == 500
        crowd.wait(20)
    assert not crowd.wrong
    assert server.workers == [pid]
    assert "MemoryError" in server.wait_for("failed")["traceback"]


def test_a_program_that_dies_at_its_start_is_tried_again_and_again_slower(serve: Serve, tmp_path: Path) -> None:
    """The other worker serves; nothing spins; the mended program comes up by itself."""
    server = start(serve, workers=2)
    program = tmp_path / "program.py"
    text = program.read_text()
    program.write_text("raise ValueError('no')\n")
    with Crowd(server.port, 8, right, again=True) as crowd:
        os.kill(server.workers[0], signal.SIGKILL)
        pause = server.wait_for("ended with exit code 3", 3)["message"]
        assert "a new one starts in 0.4 s" in pause or "a new one starts in 0.2 s" in pause
        crowd.wait(50)
        program.write_text(text)
        wait_until(lambda: len(list(tmp_path.glob("started-*"))) == 3, "it has started")
    assert not crowd.wrong, crowd.wrong[:3]
    assert crowd.lost <= 8


# ---- workers that have served long enough ----


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (("--max-requests", "200"), "requests"),
        (("--worker-lifetime", "1"), "its lifetime is over"),
        (("--max-rss", "150"), "MB of memory"),
    ],
)
def test_an_old_worker_is_replaced_and_nothing_is_lost(arguments: tuple[str, ...], why: str, serve: Serve) -> None:
    if "--max-rss" in arguments and "EIGHTIES_SANITIZE" in os.environ:
        pytest.skip("the sanitizers take far more memory than this")
    server = start(serve, *arguments)
    [pid] = server.workers
    with Crowd(server.port, 8, right) as crowd, replaced(server, pid):
        if why == "MB of memory":
            assert server.get("/grow/150000000").text == "grown"
    assert not crowd.wrong, crowd.wrong[:3]
    assert why in server.wait_for("worker 0 is to be replaced")["message"]
    server.wait_for("replaced")


def test_a_worker_that_is_too_big_from_its_start(serve: Serve) -> None:
    """It would be so again and again."""
    server = start(serve, "--max-rss", "5", "--max-requests", "10")
    [pid] = server.workers
    assert "and --max-rss allows less" in server.wait_for("a fresh worker has ")["message"]
    with replaced(server, pid):
        for _ in range(20):
            assert server.get("/").text == "fine"
    messages = [line["message"] for line in server.log if "is to be replaced" in line["message"]]
    assert len(messages) == 1 and "requests" in messages[0]


# ---- what runs out ----


def test_no_descriptors_left(serve: Serve) -> None:
    """Accepting is paused, those who are in are served, and who waits comes in when others leave."""
    server = start(serve, more="\nresource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))\n")
    with ExitStack() as stack:
        clients = [
            stack.enter_context(socket.create_connection(("127.0.0.1", server.port), PATIENCE)) for _ in range(150)
        ]
        for client in clients:
            client.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        server.wait_for("accepting is paused")
        answered = 0
        for client in clients:  # in the order in which they came in
            head, body = read_answer(client)
            assert (head[:13], body) == (b"HTTP/1.1 200 ", b"fine")
            answered += 1
            client.close()
    assert answered == 150
    assert len([line for line in server.log if "accepting is paused" in line["message"]]) < 150
    assert server.get("/").text == "fine"


def test_a_full_disk_for_the_log(tmp_path: Path) -> None:
    """Lines are lost, and nothing else."""
    more = """
import logging
@app.get("/log")
def log(request):
    logging.getLogger("x").warning("to nowhere")
    1 / 0
def on_init(elfd, parentfd):
    with open("port", "w") as file:
        file.write(str(socket.socket(fileno=os.dup(parentfd)).getsockname()[1]))
"""
    code = 'exec "$0" -m eighties "$@" 2>/dev/full'
    server = Server(PROGRAM + more, "--pidfile", "pid", folder=tmp_path, command=("sh", "-c", code, sys.executable))
    try:
        wait_until(lambda: (tmp_path / "port").exists() and (tmp_path / "port").read_text(), "it serves")
        port = int((tmp_path / "port").read_text())
        with Crowd(port, 4, right) as crowd:
            for _ in range(5):
                with socket.create_connection(("127.0.0.1", port), PATIENCE) as client:
                    client.sendall(b"GET /log HTTP/1.1\r\nHost: x\r\n\r\n")
                    assert read_answer(client)[0].startswith(b"HTTP/1.1 500 ")
            server.send(signal.SIGUSR2)
            [pid] = server.workers[:1]
            wait_until(lambda: pid not in server.workers, "another worker")
            crowd.wait(20)
        assert not crowd.wrong
        assert server.stop() == 0
    finally:
        server.kill()


def test_a_program_that_loads_for_longer_than_the_watchdog_waits(serve: Serve, tmp_path: Path) -> None:
    server = start(serve, "--watchdog", "1", workers=2)
    before = sorted(server.workers)
    (tmp_path / "program.py").write_text("import time\ntime.sleep(2)\n" + (tmp_path / "program.py").read_text())
    server.send(signal.SIGHUP)
    server.wait_for("reloaded")
    assert sorted(server.workers) == before

"""Whole reload: what ends, hangs or speaks at the wrong moment. The parent outlives it, and no round waits for ever."""

from __future__ import annotations

import os
import signal
import socket
import sys
from contextlib import ExitStack
from pathlib import Path

import pytest
from conftest import Serve
from keep_alive import Crowd, read_answer
from server import PATIENCE, Server, wait_until

from eighties.serve import pidfile

PROGRAM = """
import asyncio, os, signal
from eighties import App, net
from eighties.post import here

app = App()

@app.get("/")
def root(request):
    return "fine"

@app.get("/slow")
async def slow(request):
    await asyncio.sleep(0.3)
    return "fine"

@app.post("/full")
async def full(request):
    return await net.reload(full=True)

def on_message(*arguments):
    pass
"""
# Of a worker: the parent does not hear its words before it has ended, and they are more than it reads at once.
LAST_WORDS = """
@app.get("/last/{words}")
def last(request, words):
    os.kill(os.getppid(), signal.SIGSTOP)
    for _ in range(2):
        here().mail(1, bytes(50000))
    here()._link._send(words.encode(), must=True)
    os._exit(1)
"""


def impatient(folder: Path, *arguments: str, seconds: float = 1.0) -> Server:
    """One that gives a new process so many seconds to serve."""
    set_time = f"from eighties.serve import supervisor as s; s.START_TIME = {seconds}; "
    command = (sys.executable, "-c", set_time + "from eighties.cli import main; main()")
    return Server(PROGRAM, *arguments, folder=folder, command=command).wait_until_serving()


def test_nonsense_as_last_words(serve: Serve) -> None:
    """They are heard when the process is gone: it is not signalled any more, for its number is anybody's."""
    server = serve(PROGRAM + LAST_WORDS, "-c", "2")
    both = server.wait_for_workers(2)
    with pytest.raises(OSError):
        server.get("/last/Nonsense")
    server.send(signal.SIGCONT)
    assert "Nonsense" in server.wait_for("to its control socket")["message"]
    wait_until(lambda: len(server.workers) == 2 and server.workers != both, "another worker")
    assert server.get("/").text == "fine"


def test_a_mended_program_starts_though_the_one_before_hung(tmp_path: Path) -> None:
    """A round waits for a place in which nobody serves: no longer than START_TIME."""
    server = impatient(tmp_path)
    try:
        program = tmp_path / "program.py"
        program.write_text("raise ValueError('no')\n")
        os.kill(server.workers[0], signal.SIGKILL)
        server.wait_for("ended with exit code 3", 3)  # the next one is due, and not there yet
        program.write_text("import time; time.sleep(1000)\n")
        server.send(signal.SIGUSR2)
        server.wait_for("the new process did not serve within 1 s and was killed")
        program.write_text(PROGRAM)
        server.send(signal.SIGUSR2)
        server.wait_for("replaced")
        assert server.get("/").text == "fine"
        assert server.stop() == 0
    finally:
        server.kill()


def test_clients_that_are_never_idle_lose_nothing(serve: Serve) -> None:
    """Each asks again at once, so that nobody would find their connections between two requests."""
    server = serve(PROGRAM, "--grace", "2")
    [old] = server.workers
    with Crowd(server.port, 4, lambda _, body: body == b"fine", ("/slow",)) as crowd:
        server.send(signal.SIGUSR2)
        server.wait_for("replaced")
        wait_until(lambda: old not in server.workers, "the old one leaves")
        crowd.wait(8)
    assert not crowd.wrong, crowd.wrong[:3]
    assert not [line for line in server.log if line["level"] != "info"]


def test_idle_connections_move_whatever_the_grace_is(serve: Serve) -> None:
    server = serve(PROGRAM, "--grace", "0")
    [old] = server.workers
    with ExitStack() as stack:
        made = [stack.enter_context(socket.create_connection(("127.0.0.1", server.port), PATIENCE)) for _ in range(300)]
        for client in made:
            client.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
            assert read_answer(client)[1] == b"fine"
        server.send(signal.SIGUSR2)
        server.wait_for("replaced")
        wait_until(lambda: old not in server.workers, "the old one leaves")
        for client in made:
            client.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
            assert read_answer(client)[1] == b"fine"


def test_mail_to_all_from_a_process_that_leaves(serve: Serve, tmp_path: Path, workers: int) -> None:
    """Those who hear it: itself, the others, and the process in its place."""
    more = """
def on_message(worker, sender, elfd, fd, message):
    open(f"heard-{os.getpid()}", "w")

@app.get("/say")
async def say(request):
    while not os.path.exists("say"):
        await asyncio.sleep(0.01)
    return str(here().mail(None, "hello"))
"""
    server = serve(PROGRAM + more, "-c", str(workers))
    server.wait_for_workers(workers)
    with socket.create_connection(("127.0.0.1", server.port), PATIENCE) as client:
        client.sendall(b"GET /say HTTP/1.1\r\nHost: x\r\n\r\n")
        assert server.get("/").text == "fine"  # it is there
        server.send(signal.SIGUSR2)
        server.wait_for("replaced")
        wait_until(lambda: len(server.workers) == workers + 1, "the others have left")
        tmp_path.joinpath("say").touch()
        assert read_answer(client)[1] == b"True"
        wait_until(lambda: len(list(tmp_path.glob("heard-*"))) == workers + 1, "all have heard it")


# Numbers 32 and 33 are the C library's own.
OURS = ~(3 << 31)


def signals_of(pid: int) -> list[int]:
    """Which it blocks, ignores and catches."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return [int(line.split()[1], 16) & OURS for line in lines if line.startswith(("SigBlk", "SigIgn", "SigCgt"))]


def test_nothing_is_left_in_a_parent_that_is_upgraded(serve: Serve) -> None:
    """Neither descriptors nor libraries, and it has the same signals, as its workers have."""
    server = serve(PROGRAM)

    def state() -> list[object]:
        folder = Path(f"/proc/{server.pid}")
        engine = "eighties/_engine" in folder.joinpath("maps").read_text()
        return [engine, len(list(folder.joinpath("fd").iterdir())), *map(signals_of, (server.pid, *server.workers))]

    before = state()
    [old] = server.workers
    server.send(signal.SIGUSR2)
    server.send(signal.SIGUSR1)
    server.wait_for("upgraded")
    assert "version" in server.wait_for("the first upgraded worker serves")
    wait_until(lambda: len(server.workers) == 1 and old not in server.workers, "another worker")
    wait_until(lambda: state() == before, "all as it was")
    assert not before[0]


def test_who_asks_again_meanwhile_is_answered(serve: Serve, workers: int) -> None:
    """The next round waits until the old process has left, so that cannot wait for it."""
    server = serve(PROGRAM, "-c", str(workers))
    server.wait_for_workers(workers)
    with ExitStack() as stack:
        made = [stack.enter_context(socket.create_connection(("127.0.0.1", server.port), PATIENCE)) for _ in range(4)]
        for client in made:
            client.sendall(b"POST /full HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n")
        answers = [read_answer(client)[1] for client in made]
    assert b"[]" in answers
    assert all(answer == b"[]" or b"is being replaced" in answer for answer in answers)
    server.wait_for("replaced", 2)
    assert {line["level"] for line in server.log} == {"info"}


# ---- the end ----


def test_a_stop_answers_who_waits_for_a_round(serve: Serve, tmp_path: Path) -> None:
    """It holds up nothing, begins nothing more, and says no word of what would have failed."""
    server = serve(PROGRAM)
    tmp_path.joinpath("program.py").write_text("import time; time.sleep(1000)\n")
    with socket.create_connection(("127.0.0.1", server.port), PATIENCE) as client:
        client.sendall(b"POST /full HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n")
        wait_until(lambda: len(server.workers) == 2, "the new process")
        server.send(signal.SIGHUP)  # one more round, which is not to begin
        server.send(signal.SIGTERM)
        assert b"the server stops" in read_answer(client)[1]
    assert server.wait() == 0
    assert not [line for line in server.log if line["level"] == "error"]


def test_a_pid_file_that_goes_while_it_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As by a server that ends while the next one starts: that would hold a file which nobody finds."""
    path = tmp_path / "pid"
    before = pidfile.PidFile(str(path))
    lock = pidfile._lock

    def end_before(fd: int) -> bool:
        monkeypatch.setattr(pidfile, "_lock", lock)
        before.close()
        return lock(fd)

    monkeypatch.setattr(pidfile, "_lock", end_before)
    after = pidfile.PidFile(str(path))
    assert int(path.read_text()) == os.getpid()
    after.close()
    assert not path.exists()

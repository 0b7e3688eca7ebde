"""Handlers that block the loop: what is logged of them, and what is not. `--slow-handler` is 200 ms unless said."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest
from conftest import Serve
from crowd import LOOPS
from server import Server
from site_folder import write_site

PROGRAM = """\
import asyncio, os, time, warnings
from eighties import App, net
app = App()

def on_message(sender_worker, sender_fd, elfd, fd, message):
    time.sleep(0.6)  # mail

@app.get("/quick")
def quick(request):
    return "ok"

@app.get("/sync/{n:int}")
def sync(request, n):
    time.sleep(n / 1000)  # sync
    return "ok"

@app.get("/async")
async def later(request):
    await asyncio.sleep(0.01)
    time.sleep(0.6)  # async
    return "ok"

@app.get("/timer")
async def timer(request):
    asyncio.get_running_loop().call_later(0.01, tick)
    return "ok"

def tick():
    time.sleep(0.6)  # timer

@app.get("/mail")
def mail(request):
    net.mail(request.worker, b"x")
    return "ok"

@app.get("/c")
def in_c(request):
    return str(sum(range(60_000_000)))  # keeps the lock of the interpreter

@app.get("/library")
def library(request):
    import subprocess
    subprocess.run(["sleep", "0.6"])  # library
    return "ok"

@app.get("/fork")
def fork(request):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        pid = os.fork()
        if not pid:
            os._exit(0)
    os.waitpid(pid, 0)
    return str([str(each.message) for each in caught])
"""
BLOCKED, GOES_ON = "the loop has been blocked for more than", "the loop goes on"


def line_of(text: str, comment: str) -> int:
    """Number of the line that ends with the comment."""
    return next(number for number, line in enumerate(text.splitlines(), 1) if line.endswith(f"# {comment}"))


def slow_lines(server: Server) -> list[dict[str, Any]]:
    """What it has logged of slow handlers."""
    return [line for line in server.log if BLOCKED in line["message"] or GOES_ON in line["message"]]


def settle(server: Server) -> None:
    """Give what would be logged the time to be: more than two looks, then a line of which we know."""
    time.sleep(0.3)
    assert server.get("/quick").text == "ok"


@pytest.mark.parametrize("loop", LOOPS)
def test_a_handler_that_blocks(loop: str, serve: Serve) -> None:
    if loop == "uvloop":
        pytest.importorskip("uvloop")
    server = serve(PROGRAM, "--loop", loop)
    assert server.get("/sync/600").text == "ok"
    line = server.wait_for(BLOCKED)
    place = f"program.py:{line_of(PROGRAM, 'sync')}"
    assert line["message"].startswith(f"{BLOCKED} 200 ms by sync, ")
    assert line["message"].endswith(place)
    assert (line["level"], line["worker"]) == ("warning", 0)
    stack = line["traceback"].splitlines()
    assert stack[0] == "Stack (most recent call last):"
    assert stack[1].strip().startswith("File ") and stack[1].endswith("in sync")
    assert len([each for each in stack if "File " in each]) == 1
    over = server.wait_for(GOES_ON)
    assert over["message"].endswith(place)
    assert over["ms"] > 200
    settle(server)
    assert slow_lines(server) == [line, over]


@pytest.mark.parametrize(
    ("path", "comment", "function"),
    [
        ("/async", "async", "later"),
        ("/timer", "timer", "tick"),
        ("/mail", "mail", "on_message"),
        ("/c", "keeps the lock of the interpreter", "in_c"),
        ("/library", "library", "library"),
    ],
)
def test_where_it_blocks(path: str, comment: str, function: str, serve: Serve) -> None:
    server = serve(PROGRAM)
    assert server.get(path).status == 200
    message = server.wait_for(BLOCKED)["message"]
    assert f"by {function}, " in message
    assert message.endswith(f"program.py:{line_of(PROGRAM, comment)}")
    server.wait_for(GOES_ON)
    # What the program waits in is shown, too.
    assert ("subprocess.py" in slow_lines(server)[0]["traceback"]) == (path == "/library")


def test_a_page_that_blocks(tmp_path: Path, serve: Serve) -> None:
    write_site(tmp_path, {"slow.html": "<p>\n<?py\n    import time\n    time.sleep(0.6)\n?></p>\n"})
    server = serve(tmp_path)
    assert server.get("/slow").status == 200
    assert server.wait_for(BLOCKED)["message"].endswith("slow.html:4")


def test_one_place_is_logged_once_in_a_while(serve: Serve) -> None:
    server = serve(PROGRAM, "--slow-handler", "50")
    for _ in range(3):
        assert server.get("/sync/300").text == "ok"
    assert server.get("/library").text == "ok"
    assert "library" in server.wait_for(BLOCKED, 2)["message"]
    server.wait_for(GOES_ON, 2)
    settle(server)
    assert len(slow_lines(server)) == 4


def test_what_is_left_out_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    import asyncio

    from eighties.serve import slow

    loop = asyncio.new_event_loop()
    watch = slow.SlowWatch(loop, 200, lambda path: True)
    loop.close()
    assert [watch._left_out("a:1") for _ in range(3)] == [0, None, None]
    assert watch._left_out("b:1") == 0
    monkeypatch.setattr(slow, "QUIET_TIME", 0.0)
    assert [watch._left_out("a:1") for _ in range(2)] == [2, 0]
    for number in range(2 * slow.MOST_PLACES):
        watch._left_out(f"c:{number}")
    assert len(watch._places) <= slow.MOST_PLACES


def test_without_a_threshold_nothing_is_watched(serve: Serve) -> None:
    server = serve(PROGRAM, "--slow-handler", "0")
    assert server.get("/sync/600").text == "ok"
    settle(server)
    assert slow_lines(server) == []


def test_quick_handlers_and_a_stopped_process_are_not_slow(serve: Serve) -> None:
    server = serve(PROGRAM, "--slow-handler", "400")
    (worker,) = server.workers
    for _ in range(20):
        assert server.get("/sync/1").text == "ok"
    os.kill(worker, signal.SIGSTOP)
    try:
        time.sleep(1)
    finally:
        os.kill(worker, signal.SIGCONT)
    settle(server)
    assert slow_lines(server) == []


def test_a_reload_is_not_a_handler(serve: Serve) -> None:
    server = serve(PROGRAM)
    text = (server.folder / "program.py").read_text()
    (server.folder / "program.py").write_text(f"{text}\ntime.sleep(0.5)\n")
    server.send(signal.SIGHUP)
    server.wait_for("reloaded")
    settle(server)
    assert slow_lines(server) == []
    assert server.get("/sync/600").text == "ok"
    assert "by sync, " in server.wait_for(BLOCKED)["message"]


def test_fork_finds_one_thread(serve: Serve) -> None:
    server = serve(PROGRAM)
    assert server.get("/fork").text == "[]"  # Python warns of a fork with threads, which the child would be without
    assert server.get("/sync/600").text == "ok"
    assert "by sync, " in server.wait_for(BLOCKED)["message"]

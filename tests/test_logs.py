"""What the server tells: log lines, the banner, the scoreboard."""

from __future__ import annotations

import os
import pty
import re
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

from conftest import Serve
from crowd import PROGRAM, ask, whole
from server import PATIENCE, wait_until


def test_what_the_program_logs(serve: Serve) -> None:
    server = serve("""
        import logging
        from eighties import App
        app = App()
        @app.get("/")
        def root(request):
            logging.getLogger("shop").warning("low on %s \\"x\\" \\n \\udc80 é", "tea")
            return "ok"
        @app.get("/boom")
        def boom(request):
            raise ValueError("wrong")
    """)
    assert server.get("/").text == "ok"
    line = server.wait_for("low on tea")
    assert (line["logger"], line["level"], line["worker"]) == ("shop", "warning", 0)
    assert line["message"] == 'low on tea "x" \n \udc80 é'
    assert server.get("/boom").status == 500
    wait_until(lambda: any("traceback" in line for line in server.log), "the traceback")
    (line,) = [line for line in server.log if "traceback" in line]
    assert "in boom" in line["traceback"]
    assert line["level"] == "error"


def test_nobody_need_read_the_log(tmp_path: Path) -> None:
    tmp_path.joinpath("app.py").write_text(textwrap.dedent(PROGRAM))
    ours, theirs = os.pipe()
    path = str(tmp_path / "80s.socket")
    command = [sys.executable, "-m", "eighties", "--uds", path]
    process = subprocess.Popen(command, cwd=tmp_path, stderr=theirs, process_group=0)
    try:
        os.close(theirs)
        assert b"listening" in os.read(ours, 4096)
        os.close(ours)  # from now on its writes fail
        assert ask(path, "/crash") == b""
        assert whole(ask(path))
        process.terminate()
        assert process.wait(PATIENCE) == 0
    finally:
        process.kill()
        process.wait()


def test_scoreboard(workers: int, serve: Serve) -> None:
    server = serve(
        """
        from eighties import App
        from eighties.serve import scoreboard
        app = App()
        @app.get("/")
        def root(request): return {"slots": scoreboard.read(), "total": scoreboard.total()}
        """,
        "-c",
        str(workers),
    )
    server.wait_for_workers(workers)
    for _ in range(30):
        server.get("/")
    shown = server.get("/").json()
    assert len(shown["slots"]) == workers
    assert shown["total"]["requests"] >= 30
    assert shown["total"]["requests"] == sum(slot["requests"] for slot in shown["slots"])


def test_the_scoreboard_outside_a_worker_is_empty() -> None:
    from eighties.serve import scoreboard

    assert (scoreboard.read(), scoreboard.total()) == ([], {})


def test_a_terminal_gets_a_banner(tmp_path: Path) -> None:
    tmp_path.joinpath("app.py").write_text("from eighties import App\napp = App()\n")
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "eighties", "-p", "0", "-c", "2", "-h", "0.0.0.0"],
        cwd=tmp_path,
        stdin=subprocess.DEVNULL,
        stderr=theirs,
        process_group=0,
    )
    os.close(theirs)
    shown = b""
    try:
        while b"Ctrl+C" not in shown:
            shown += os.read(ours, 4096)
        process.send_signal(signal.SIGINT)
        assert process.wait(PATIENCE) == 0
    finally:
        process.kill()
        process.wait()
        os.close(ours)
    text = shown.decode()
    assert text.startswith("80s ")
    assert "app.py  (no program was named; app.py was found in the current folder)" in text
    assert re.search(r"at +http://localhost:\d+  \(and every other address", text)
    assert re.search(r"workers +2", text)
    assert "{" not in text

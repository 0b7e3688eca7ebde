"""Parent and workers: how they start, what happens when one dies, and how they stop."""

from __future__ import annotations

import os
import re
import signal
import socket
import threading
import time
from pathlib import Path

import pytest
from conftest import Serve
from crowd import LOOPS, PROGRAM, Crowd, ask, diary, in_background, join, whole
from server import PATIENCE, Server, wait_until

# ---- start ----


@pytest.mark.parametrize("loop", LOOPS)
def test_start_and_stop(loop: str, workers: int, serve: Serve) -> None:
    if loop == "uvloop":
        pytest.importorskip("uvloop")
    server = serve(PROGRAM, "-c", str(workers), "--loop", loop)
    line = server.wait_for("listening")
    assert (line["loop"], line["workers"], line["worker"], line["pid"]) == (loop, workers, None, server.pid)
    assert line["level"] == "info"
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", line["ts"])
    assert server.get("/").text == "hello"
    assert int(server.get("/pid").text) in server.wait_for_workers(workers)
    assert server.stop() == 0
    with pytest.raises(ConnectionRefusedError):
        ask(("127.0.0.1", server.port))


def test_each_worker_has_its_number(serve: Serve) -> None:
    server = serve(PROGRAM, "-c", "2")
    server.wait_for_workers(2)
    seen = set()

    def both() -> bool:
        threads, results = in_background(16, lambda: server.get("/worker").text)
        join(threads)
        seen.update(results)
        return seen >= {"0", "1"}

    wait_until(both, "answers of both workers")
    assert seen == {"0", "1"}


def test_settings_reach_the_workers(serve: Serve) -> None:
    server = serve(
        """
        import resource
        from eighties import App
        app = App(max_body=10)
        @app.route("/", methods=["POST"])
        def root(request): return request.body
        @app.get("/files")
        def files(request): return list(resource.getrlimit(resource.RLIMIT_NOFILE))
        """,
        "--no-server-header",
    )
    assert server.request("POST", "/", b"1234567890").status == 200
    assert server.request("POST", "/", b"12345678901").status == 413
    reply = server.get("/files")
    assert "server" not in reply.headers
    soft, hard = reply.json()
    assert soft == hard


def test_a_workers_children_inherit_nothing_of_the_server(serve: Serve) -> None:
    server = serve("""
        import subprocess
        from eighties import App
        app = App()
        @app.get("/")
        def root(request):
            return subprocess.run(["ls", "-l", "/proc/self/fd"], capture_output=True, text=True, close_fds=False).stdout
        @app.get("/env")
        def env(request):
            return subprocess.run(["env"], capture_output=True, text=True).stdout
    """)
    listing = server.get("/").text
    assert "socket:" not in listing
    assert "scoreboard" not in listing
    assert "_80S" not in server.get("/env").text


def test_the_port_is_in_use(serve: Serve) -> None:
    first = serve(PROGRAM)
    for more in ([], ["--reuseport"]):
        second = serve("program.py", "-p", str(first.port), *more, wait=False)
        assert second.wait() == 1
        (line,) = second.log
        assert f"port {first.port} on 127.0.0.1 is in use" in line["message"]
    assert first.get("/").text == "hello"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["-h", "192.0.2.1"], "192.0.2.1 is no address of this machine"),
        (["-h", "no.such.host.invalid"], "no.such.host.invalid is not an IPv4 address"),
        (["-h", "caf\xe9"], "is not an IPv4 address"),
        (["--uds", "folder/socket"], "cannot make the unix socket folder/socket"),
        (["--uds", "program.py"], "program.py exists and is not a socket"),
    ],
)
def test_an_address_that_cannot_be_had(arguments: list[str], words: str, serve: Serve) -> None:
    server = serve(PROGRAM, *arguments, wait=False)
    assert server.wait() == 1
    (line,) = server.log
    assert words in line["message"]


def test_reuseport(serve: Serve) -> None:
    server = serve(PROGRAM, "-c", "2", "--reuseport")
    server.wait_for_workers(2)
    assert len([line for line in server.log if line["message"] == "listening"]) == 1
    for _ in range(20):
        assert server.get("/").text == "hello"
    assert server.stop() == 0


@pytest.mark.parametrize("arguments", [["-6"], ["-h", "::1"]])
def test_ipv6(arguments: list[str], serve: Serve) -> None:
    server = serve(PROGRAM, *arguments)
    assert server.url.startswith("http://[::1]:")
    assert whole(ask(("::1", server.port)))
    with pytest.raises(ConnectionRefusedError):
        ask(("127.0.0.1", server.port))


def test_the_ipv6_wildcard_takes_both_families(serve: Serve) -> None:
    server = serve(PROGRAM, "-h", "::")
    assert whole(ask(("::1", server.port)))
    assert whole(ask(("127.0.0.1", server.port)))


# ---- unix sockets ----


def test_a_unix_socket_alone(tmp_path: Path) -> None:
    path = tmp_path / "80s.socket"
    server = Server(PROGRAM, "--uds", str(path), folder=tmp_path, port=None)
    try:
        server.wait_until_serving()
        assert server.url == f"unix:{path}"
        assert len([line for line in server.log if line["message"] == "listening"]) == 1
        assert whole(ask(str(path)))
        second = Server("program.py", "--uds", str(path), folder=tmp_path, port=None)
        assert second.wait() == 1
        assert "is in use by another server" in second.log[0]["message"]
        assert whole(ask(str(path)))
        assert server.stop() == 0
        assert not path.exists()
    finally:
        server.kill()


def test_a_unix_socket_beside_a_port_and_a_stale_one(tmp_path: Path, serve: Serve) -> None:
    path = tmp_path / "80s.socket"
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(str(path))
    server = serve(PROGRAM, "--uds", "80s.socket")
    server.wait_for("listening", count=2)
    assert whole(ask(str(path)))
    port = int(server.log[1]["url"].rpartition(":")[2])
    assert whole(ask(("127.0.0.1", port)))
    assert server.stop() == 0
    assert not path.exists()


def test_a_port_in_use_leaves_no_unix_socket(tmp_path: Path, serve: Serve) -> None:
    first = serve(PROGRAM)
    second = serve("program.py", "-p", str(first.port), "--uds", "80s.socket", wait=False)
    assert second.wait() == 1
    assert not (tmp_path / "80s.socket").exists()


# ---- programs that cannot start ----


def test_a_program_that_dies_while_it_is_loaded(serve: Serve) -> None:
    server = serve(
        """
        import os, signal
        os.kill(os.getpid(), signal.SIGKILL)
        """,
        "-c",
        "2",
        wait=False,
    )
    assert server.wait() == 3
    (line,) = server.log
    assert "was ended by signal 9 (Killed)" in line["message"]
    assert "before it could serve" in line["message"]


def test_uvloop_is_asked_for_and_missing(tmp_path: Path, serve: Serve) -> None:
    tmp_path.joinpath("hide").mkdir()
    tmp_path.joinpath("hide", "uvloop.py").write_text("raise ImportError\n")
    paths = os.pathsep.join(filter(None, [str(tmp_path / "hide"), os.environ.get("PYTHONPATH")]))
    server = serve(PROGRAM, "--loop", "uvloop", env={"PYTHONPATH": paths}, wait=False)
    assert server.wait() == 3
    assert "uvloop is not installed" in server.log[0]["message"]
    assert serve("program.py", env={"PYTHONPATH": paths}).wait_for("listening")["loop"] == "asyncio"


@pytest.mark.parametrize("where", ["program", "hook"])
def test_a_start_that_takes_long_can_be_stopped(where: str, serve: Serve, tmp_path: Path) -> None:
    server = serve(
        f"""
        import asyncio, time
        from eighties import App
        app = App()
        def begun(): open("diary", "w").write("begun")
        if {where == "program"}:
            begun()
            time.sleep(1000)
        @app.on_start
        async def start():
            begun()
            await asyncio.sleep(1000)
        """,
        wait=False,
    )
    wait_until(lambda: diary(tmp_path), "the start")
    assert server.stop() == 0
    assert [line["message"] for line in server.log] == ["stopping: requests under way have 10 s"]


# ---- stop ----


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_requests_under_way_are_answered(number: signal.Signals, workers: int, serve: Serve, tmp_path: Path) -> None:
    server = serve(PROGRAM, "-c", str(workers))
    server.wait_for_workers(workers)
    threads, answers = in_background(20, lambda: ask(("127.0.0.1", server.port), "/slow/700"))
    wait_until(lambda: len(diary(tmp_path)) == 20, "requests under way")
    server.send(number)
    assert server.wait() == 0
    join(threads)
    assert len(answers) == 20
    for answer in answers:
        assert isinstance(answer, bytes)
        assert whole(answer)
        assert b"connection: close" in answer.lower()


def test_ctrl_c_reaches_the_whole_group_and_harms_no_request(workers: int, serve: Serve, tmp_path: Path) -> None:
    server = serve(PROGRAM, "-c", str(workers))
    server.wait_for_workers(workers)
    threads, answers = in_background(4, lambda: ask(("127.0.0.1", server.port), "/slow/500"))
    wait_until(lambda: len(diary(tmp_path)) == 4, "requests under way")
    os.killpg(server.pid, signal.SIGINT)
    assert server.wait() == 0
    join(threads)
    assert all(isinstance(answer, bytes) and whole(answer) for answer in answers)
    assert server.wait_for("stopping")["level"] == "info"


def test_every_accepted_request_is_answered_when_stopped_under_load(workers: int, serve: Serve) -> None:
    server = serve(PROGRAM, "-c", str(workers))
    server.wait_for_workers(workers)
    crowd = Crowd(server.port, "/slow/2", size=16)
    try:
        crowd.wait_for_more(300)
        # What was sent before this moment is in the accept queue at least.
        moment = time.monotonic()
        assert server.stop() == 0
    finally:
        crowd.stop()
    assert crowd.failed(before=moment) == []
    assert all(isinstance(result, (ConnectionError, bytes)) for result in crowd.failed())
    # Later ones are refused, not cut short.
    assert [result for result in crowd.failed() if isinstance(result, bytes) and result] == []


def test_idle_connections_do_not_hold_up_the_stop(serve: Serve) -> None:
    server = serve(PROGRAM, "--grace", "600")
    with socket.create_connection(("127.0.0.1", server.port), PATIENCE) as used:
        used.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        assert used.recv(65536)
        with socket.create_connection(("127.0.0.1", server.port), PATIENCE) as silent:
            assert server.stop() == 0
            assert used.recv(1) == b""
            assert silent.recv(1) == b""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_second_signal_ends_at_once(number: signal.Signals, workers: int, serve: Serve, tmp_path: Path) -> None:
    server = serve(PROGRAM, "-c", str(workers), "--grace", "600")
    threads, answers = in_background(1, lambda: ask(("127.0.0.1", server.port), "/slow/600000"))
    wait_until(lambda: diary(tmp_path), "a request under way")
    server.send(signal.SIGTERM)
    server.wait_for("stopping")
    assert not server.ended
    server.send(number)
    assert server.wait() == 128 + number
    join(threads)
    assert not any(isinstance(answer, bytes) and answer for answer in answers)


def test_the_grace_is_over(serve: Serve, tmp_path: Path) -> None:
    server = serve(PROGRAM, "--grace", "0.3")
    threads, answers = in_background(1, lambda: ask(("127.0.0.1", server.port), "/slow/600000"))
    wait_until(lambda: diary(tmp_path), "a request under way")
    assert server.stop() == 0
    line = server.wait_for("the grace of 0.3 s is over")
    assert (line["level"], line["connections"]) == ("warning", 1)
    join(threads)
    assert not any(isinstance(answer, bytes) and answer for answer in answers)


def test_a_handler_that_blocks_cannot_prevent_the_end(serve: Serve, tmp_path: Path) -> None:
    server = serve(PROGRAM, "--grace", "0.1")
    threads, _ = in_background(1, lambda: ask(("127.0.0.1", server.port), "/block"))
    wait_until(lambda: diary(tmp_path), "the handler")
    assert server.stop() == 1
    assert "worker 0 did not end in time and is killed" in server.wait_for("did not end")["message"]
    join(threads)


def test_stop_hooks_run_and_their_errors_are_told(tmp_path: Path) -> None:
    server = Server(
        """
        from eighties import App
        app = App()
        @app.on_stop
        def last():
            open("diary", "w").write("stopped")
            raise OSError("disk full")
        """,
        folder=tmp_path,
    ).wait_until_serving()
    try:
        assert server.stop() == 1
    finally:
        server.kill()
    assert diary(tmp_path) == ["stopped"]
    line = server.wait_for("an on_stop hook failed: OSError: disk full")
    assert "in last" in line["traceback"]


def test_handlers_that_are_cut_off_end_before_the_stop_hooks(serve: Serve, tmp_path: Path) -> None:
    """So what the hooks close is there for their `finally`."""
    server = serve(
        """
        import asyncio
        from eighties import App, aio
        app = App()
        def note(line):
            with open("diary", "a") as diary:
                print(line, file=diary)
        @app.on_stop
        def last():
            note("on_stop")
        @aio.stream_http_get("/stream")
        async def stream(fd, query, headers, body):
            fd.http_response(200, "text/plain", None)
            fd.write("begun")
            try:
                await fd.read(1)
            finally:
                await asyncio.sleep(0)
                note("handler")
        """,
        "--grace",
        "0",
    )
    with socket.create_connection(("127.0.0.1", server.port)) as client:
        client.sendall(b"GET /stream HTTP/1.1\r\nHost: x\r\n\r\n")
        while b"begun" not in client.recv(4096):
            continue
        assert server.stop() == 0
    assert diary(tmp_path) == ["handler", "on_stop"]


@pytest.mark.parametrize("loop", LOOPS)
def test_workers_end_when_the_parent_is_killed(loop: str, workers: int, tmp_path: Path) -> None:
    if loop == "uvloop":
        pytest.importorskip("uvloop")
    server = Server(PROGRAM, "-c", str(workers), "--loop", loop, folder=tmp_path).wait_until_serving()
    try:
        server.wait_for_workers(workers)
        threads, answers = in_background(4, lambda: ask(("127.0.0.1", server.port), "/slow/500"))
        wait_until(lambda: len(diary(tmp_path)) == 4, "requests under way")
        os.kill(server.pid, signal.SIGKILL)
        assert server.wait() == -signal.SIGKILL  # and no process is left
        join(threads)
        assert all(isinstance(answer, bytes) and whole(answer) for answer in answers)
        server.wait_for("the parent process is gone", count=workers)
    finally:
        server.kill()


# ---- workers that die ----


def test_a_killed_worker_takes_only_its_own_requests_along(serve: Serve, tmp_path: Path) -> None:
    server = serve(PROGRAM, "-c", "2")
    victim, other = server.wait_for_workers(2)
    answers: list[object] = []
    threads: list[threading.Thread] = []

    def held_by_both() -> bool:
        more, _ = in_background(4, lambda: answers.append(attempt()))
        threads.extend(more)
        wait_until(lambda: len(diary(tmp_path)) == len(threads), "requests under way")
        return {str(victim), str(other)} <= set(diary(tmp_path))

    def attempt() -> object:
        try:
            return ask(("127.0.0.1", server.port), "/slow/3000")
        except OSError as error:
            return error

    wait_until(held_by_both, "requests held by both workers")
    os.kill(victim, signal.SIGKILL)
    join(threads)
    lost = [answer for answer in answers if not (isinstance(answer, bytes) and whole(answer))]
    assert len(lost) == diary(tmp_path).count(str(victim))
    assert "was ended by signal 9 (Killed)" in server.wait_for("a new one starts now")["message"]
    assert other in server.wait_for_workers(2)


def test_a_worker_killed_under_load_is_replaced(workers: int, serve: Serve) -> None:
    server = serve(PROGRAM, "-c", str(workers))
    victim = server.wait_for_workers(workers)[0]
    crowd = Crowd(server.port, "/slow/2", size=8)
    try:
        crowd.wait_for_more(100)
        os.kill(victim, signal.SIGKILL)
        crowd.wait_for_more(300)
    finally:
        crowd.stop()
    # It held one request of each thread at most; and nobody was refused, for the parent keeps the socket.
    failed = crowd.failed()
    assert len(failed) <= 8
    assert not any(isinstance(result, ConnectionRefusedError) for result in failed)
    assert victim not in server.wait_for_workers(workers)
    assert server.stop() == 0


def test_a_crash_loop_waits_longer_and_longer(serve: Serve) -> None:
    server = serve(PROGRAM)
    for message in ("a new one starts now", "in 0.1 s", "in 0.2 s", "in 0.4 s"):
        with pytest.raises(ConnectionError):
            server.get("/crash")
        assert "ended with exit code 9" in server.wait_for(message)["message"]
    assert server.get("/").text == "hello"


def test_a_program_that_breaks_later_is_tried_again(serve: Serve, tmp_path: Path) -> None:
    server = serve("""
        import os
        from eighties import App
        if os.path.exists("broken"):
            raise RuntimeError("broken")
        app = App()
        @app.get("/")
        def root(request): return str(os.getpid())
    """)
    tmp_path.joinpath("broken").touch()
    os.kill(int(server.get("/").text), signal.SIGKILL)
    server.wait_for("RuntimeError: broken", count=3)
    assert not server.ended
    tmp_path.joinpath("broken").unlink()
    assert server.get("/").status == 200


def test_a_worker_told_to_end_does_so_in_order_and_is_replaced(serve: Serve, tmp_path: Path) -> None:
    server = serve(PROGRAM)
    threads, answers = in_background(4, lambda: ask(("127.0.0.1", server.port), "/slow/500"))
    wait_until(lambda: len(diary(tmp_path)) == 4, "requests under way")
    (pid,) = server.workers
    os.kill(pid, signal.SIGTERM)
    join(threads)
    assert all(isinstance(answer, bytes) and whole(answer) for answer in answers)
    assert server.wait_for("ended with exit code 0")["level"] == "warning"
    assert int(server.get("/pid").text) != pid


def test_the_server_stops_while_a_restart_is_due(serve: Serve, tmp_path: Path) -> None:
    server = serve(PROGRAM)
    tmp_path.joinpath("program.py").write_text("raise RuntimeError\n")
    os.kill(int(server.get("/pid").text), signal.SIGKILL)
    server.wait_for("in 0.4 s")
    assert server.stop() == 0


def test_a_task_that_exits_does_not_end_the_worker(serve: Serve) -> None:
    server = serve("""
        import asyncio, os, sys
        from eighties import App
        app = App()
        async def leave():
            sys.exit(1)
        @app.get("/leave")
        async def begin(request):
            app.task = asyncio.create_task(leave())
            return str(os.getpid())
        @app.get("/")
        def root(request): return str(os.getpid())
    """)
    pid = server.get("/leave").text
    assert server.wait_for("a task raised SystemExit")["level"] == "error"
    assert server.get("/").text == pid

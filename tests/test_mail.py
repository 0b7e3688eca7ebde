"""Mail between the workers of real servers, and the word that ends the server."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
from conftest import Serve
from crowd import LOOPS, in_background, join
from server import Server, wait_until

from eighties.post import MAIL_BYTES, MAIL_QUEUE_BYTES
from eighties.serve.frames import framed, pack_mail

# Each worker notes what it gets in a file of its own. `POST /do/N` has worker N run the body, which goes there by mail.
PROGRAM = """
    import asyncio, os, pathlib, sys, time
    from eighties import App
    from eighties.post import MAIL_BYTES, here
    app = App()
    tasks = set()

    def note(*words):
        with open(f"seen-{here().number}", "a") as file:
            print(*words, file=file)

    def wait_for(path):
        while not os.path.exists(path):
            time.sleep(0.01)

    async def flood(worker, count, size):
        # Number, space, padding. Waits where the queue is full.
        for n in range(count):
            while not here().mail(worker, f"{n} ".ljust(size, "x")):
                await asyncio.sleep(0.001)
        note("flooded", count)

    def begin(coroutine):
        task = asyncio.ensure_future(coroutine)
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    def on_message(worker, sender, elfd, fd, message):
        if message.startswith(b"!"):
            exec(message[1:].decode(), globals())
        elif message.endswith(b"x"):
            note(worker, message.split()[0].decode(), len(message))
        else:
            note(worker, sender, fd, message.decode())

    @app.post("/do/{worker:int}")
    def do(request, worker):
        return str(here().mail(worker, b"!" + request.body))

    @app.get("/")
    def root(request):
        return "hello"
"""


@pytest.fixture
def seen(tmp_path: Path) -> Callable[[int], list[str]]:
    """What a worker noted, line by line."""

    def read(number: int) -> list[str]:
        path = tmp_path / f"seen-{number}"
        return path.read_text().splitlines() if path.exists() else []

    return read


Seen = Callable[[int], list[str]]


def do(server: Server, worker: int, code: str) -> None:
    """Have a worker run a line of code."""
    assert server.request("POST", f"/do/{worker}", code.encode()).text == "True"


# ---- real servers ----


@pytest.mark.parametrize("loop", LOOPS)
def test_order_is_kept(loop: str, serve: Serve, seen: Seen) -> None:
    if loop == "uvloop":
        pytest.importorskip("uvloop")
    server = serve(PROGRAM, "-c", "3", "--loop", loop)
    server.wait_for_workers(3)
    for sender in range(3):
        do(server, sender, "begin(flood(1, 1000, 20 + here().number * 300))")
    wait_until(lambda: len(seen(1)) == 3001, "all mail")  # and the note of worker 1's own flood
    for sender in range(3):
        mine = [line.split()[1] for line in seen(1) if line.startswith(f"{sender} ")]
        assert mine == [str(n) for n in range(1000)]


@pytest.mark.parametrize("loop", LOOPS)
def test_to_everyone_with_handles(loop: str, serve: Serve, seen: Seen) -> None:
    if loop == "uvloop":
        pytest.importorskip("uvloop")
    server = serve(PROGRAM, "-c", "3", "--loop", loop)
    server.wait_for_workers(3)
    do(server, 2, 'note(here().mail(None, "grüße", 2**62, -7))')

    def arrived(number: int) -> bool:
        return f"2 {2**62} -7 grüße" in seen(number)

    for number in range(3):
        wait_until(partial(arrived, number), "the message")
    assert seen(2) == ["True", f"2 {2**62} -7 grüße"]
    assert len(seen(0)) == len(seen(1)) == 1


@pytest.mark.parametrize("count", [1, 2])
def test_to_oneself_is_later(count: int, serve: Serve, seen: Seen) -> None:
    server = serve(PROGRAM, "-c", str(count))
    server.wait_for_workers(count)
    do(server, 0, 'here().mail(0, "second"); here().mail(None, "third"); note("first")')
    wait_until(lambda: len(seen(0)) == 3, "the messages")
    assert seen(0) == ["first", "0 0 0 second", "0 0 0 third"]


def test_lengths_and_numbers(serve: Serve, seen: Seen) -> None:
    server = serve(PROGRAM, "-c", "2")
    server.wait_for_workers(2)
    do(
        server,
        0,
        'note(here().mail(2, "nobody"), here().mail(1, b""), here().mail(1, b"1 " + b"x" * (MAIL_BYTES - 2)))',
    )
    wait_until(lambda: len(seen(1)) == 2, "the messages")
    assert seen(0) == ["False True True"]
    assert seen(1) == ["0 0 0 ", f"0 1 {MAIL_BYTES}"]
    do(server, 0, "here().mail(1, bytes(MAIL_BYTES + 1))")
    assert "ValueError: mail: a message has at most 65536 bytes" in server.wait_for("on_message failed")["message"]


def test_a_worker_that_blocks_gets_what_its_queue_held(serve: Serve, seen: Seen, tmp_path: Path) -> None:
    server = serve(PROGRAM, "-c", "3")
    server.wait_for_workers(3)
    do(server, 1, 'note("stuck"); wait_for("free"); note("free")')
    wait_until(lambda: seen(1), "the worker to block")
    do(server, 0, "begin(flood(1, 1000, 10000))")
    do(server, 2, "begin(flood(0, 100, 100))")
    # Ten megabytes for the stuck one do not hold up its sender, nor anybody else's mail.
    wait_until(lambda: len(seen(0)) == 101, "the others' mail, and the flood")
    assert "flooded 1000" in seen(0)
    if "EIGHTIES_SANITIZE" not in os.environ:  # which keeps what is freed for a while
        assert int(Path(f"/proc/{server.pid}/statm").read_text().split()[1]) * 4096 < 40 * 2**20
    # What is sent from now on comes after all of the above: the parent has taken it.
    do(server, 0, 'here().mail(2, "done")')
    wait_until(lambda: "0 0 0 done" in seen(2), "the last word")
    tmp_path.joinpath("free").touch()
    dropped = int(server.wait_for("mail for worker 1 was dropped: it did not read them in time")["messages"])
    wait_until(lambda: len(seen(1)) == 2 + 1000 - dropped, "the mail that was kept")
    numbers = [line.split()[1] for line in seen(1)[2:]]
    assert numbers == [str(n) for n in range(1000 - dropped)]
    assert MAIL_QUEUE_BYTES // 10100 <= len(numbers) < 3 * MAIL_QUEUE_BYTES // 10000
    do(server, 0, 'here().mail(1, "again")')
    wait_until(lambda: seen(1)[-1] == "0 0 0 again", "mail after the spell")


@pytest.mark.parametrize("loop", LOOPS)
def test_the_senders_queue_is_bounded(loop: str, serve: Serve, seen: Seen) -> None:
    if loop == "uvloop":
        pytest.importorskip("uvloop")
    server = serve(PROGRAM, "-c", "2", "--loop", loop)
    server.wait_for_workers(2)
    do(server, 0, 'note("ready"); wait_for("go"); n = 0\nwhile here().mail(1, f"{n} " + "x" * 9990): n += 1\nnote(n)')
    wait_until(lambda: seen(0), "the sender")
    os.kill(server.pid, signal.SIGSTOP)
    try:
        Path(f"/proc/{server.workers[0]}/cwd", "go").touch()
        wait_until(lambda: len(seen(0)) == 2, "a full queue")
    finally:
        os.kill(server.pid, signal.SIGCONT)
    taken = int(seen(0)[1])
    assert MAIL_QUEUE_BYTES // 10100 <= taken < 3 * MAIL_QUEUE_BYTES // 10000
    wait_until(lambda: len(seen(1)) == taken, "what was taken")
    assert [line.split()[1] for line in seen(1)] == [str(n) for n in range(taken)]
    do(server, 0, 'note(here().mail(1, "again"))')
    wait_until(lambda: seen(1)[-1] == "0 0 0 again", "mail when the queue is empty again")


def test_mail_to_oneself_is_bounded_too(serve: Serve, seen: Seen) -> None:
    server = serve(PROGRAM)
    do(server, 0, 'n = 0\nwhile here().mail(0, f"{n} " + "x" * 9990): n += 1\nnote(n)')
    wait_until(lambda: seen(0), "a full queue")
    taken = int(seen(0)[0])
    assert MAIL_QUEUE_BYTES // 10200 <= taken <= MAIL_QUEUE_BYTES // 9900
    wait_until(lambda: len(seen(0)) == 1 + taken, "what was taken")


def test_a_worker_that_mails_itself_for_ever_still_serves(serve: Serve) -> None:
    server = serve("""
        from eighties import App
        from eighties.post import here
        app = App()
        def on_message(*arguments):
            here().mail(0, "again")
        @app.on_start
        def start():
            for n in range(1000):
                here().mail(0, "go")
        @app.get("/")
        def root(request): return "hello"
    """)
    for _ in range(10):
        assert server.get("/").text == "hello"


def test_a_worker_that_is_replaced_gets_mail_again(serve: Serve, seen: Seen) -> None:
    server = serve(PROGRAM, "-c", "2")
    server.wait_for_workers(2)
    do(server, 1, 'note("dying"); here().mail(0, "last words"); os._exit(9)')
    wait_until(lambda: "1 0 0 last words" in seen(0), "the dead worker's mail")
    server.wait_for("a new one starts now")
    server.wait_for_workers(2)

    def arrived() -> bool:
        do(server, 0, 'here().mail(1, "welcome")')
        return "0 0 0 welcome" in seen(1)

    wait_until(arrived, "mail for the new one")
    do(server, 1, 'here().mail(0, "thanks")')
    wait_until(lambda: "1 0 0 thanks" in seen(0), "mail of the new one")


def test_mail_before_the_start(workers: int, serve: Serve, seen: Seen) -> None:
    server = serve(
        """
        import asyncio
        from eighties import App
        from eighties.post import here
        assert here().mail(None, f"loading {here().number}")
        app = App()
        started = False

        @app.on_start
        async def start():
            global started
            here().mail(None, f"starting {here().number}")
            await asyncio.sleep(0.2)
            started = True

        def on_message(worker, sender, elfd, fd, message):
            assert started
            with open(f"seen-{here().number}", "a") as file:
                print(message.decode(), file=file)
        """,
        "-c",
        str(workers),
    )
    expected = {f"{word} {number}" for word in ("loading", "starting") for number in range(workers)}

    def all_of(number: int) -> bool:
        return len(seen(number)) == 2 * workers

    for number in range(workers):
        wait_until(partial(all_of, number), "the mail")
        assert set(seen(number)) == expected
    assert all(line["level"] == "info" for line in server.log)


def test_much_mail_before_the_start_waits_in_the_parent(serve: Serve, seen: Seen, tmp_path: Path) -> None:
    server = serve(
        """
        import asyncio, os
        from eighties import App
        from eighties.post import here
        app = App()

        @app.on_start
        async def start():
            if here().number == 1:
                while not os.path.exists("go"):
                    await asyncio.sleep(0.01)

        def on_message(worker, sender, elfd, fd, message):
            with open(f"seen-{here().number}", "a") as file:
                print(len(message), file=file)

        @app.get("/")
        def flood(request):
            return str(sum(here().mail(1, bytes(10000)) for n in range(300)))
        """,
        "-c",
        "2",
    )
    server.wait_for_workers(2)
    sent = 0
    while sent < 450:  # more than all queues hold together, however slowly the parent takes it
        sent += int(server.get("/").text)
    tmp_path.joinpath("go").touch()
    dropped = server.wait_for("did not read")["messages"]
    wait_until(lambda: len(seen(1)) == sent - dropped, "the rest")
    # At most its own queue, the parent's, and what the kernel holds.
    assert MAIL_QUEUE_BYTES // 10200 <= len(seen(1)) < 4 * MAIL_QUEUE_BYTES // 10000


def test_what_on_message_raises_is_told_and_no_more(serve: Serve, seen: Seen) -> None:
    server = serve(PROGRAM)
    pid = server.workers
    do(server, 0, "{}['key']")
    line = server.wait_for("on_message failed: KeyError: 'key'")
    assert (line["level"], line["worker"]) == ("error", 0)
    assert "in on_message" in line["traceback"]
    assert "eighties/serve" not in line["traceback"]
    do(server, 0, "sys.exit(5)")
    server.wait_for("on_message failed: SystemExit: 5")
    do(server, 0, 'here().mail(0, "next")')
    wait_until(lambda: seen(0) == ["0 0 0 next"], "the next message")
    assert server.workers == pid


def test_a_coroutine_of_on_message_is_an_error(serve: Serve) -> None:
    server = serve("""
        from eighties import App
        from eighties.post import here
        app = App()
        async def later(): pass
        on_message = lambda *arguments: later()
        app.on_start(lambda: here().mail(0, "x"))
    """)
    assert "TypeError: on_message gave a coroutine" in server.wait_for("on_message failed")["message"]
    assert "never awaited" not in server.stderr


def test_mail_without_on_message_is_told_once(serve: Serve) -> None:
    server = serve("""
        from eighties import App
        from eighties.post import here
        app = App()
        @app.get("/")
        def root(request): return str([here().mail(0, "x") for n in range(3)])
    """)
    assert [server.get("/").text for _ in range(2)] == ["[True, True, True]"] * 2
    line = server.wait_for("mail has come, but the program has no on_message")
    assert line["level"] == "warning"
    assert server.stop() == 0
    assert server.stderr.count("no on_message") == 1


def test_context_variables(serve: Serve, seen: Seen) -> None:
    server = serve("""
        import contextvars
        from eighties import App
        from eighties.post import here
        app = App()
        variable = contextvars.ContextVar("variable", default="unset")
        @app.on_start
        def start():
            here().mail(0, "early")
            variable.set("hook")
        def on_message(worker, sender, elfd, fd, message):
            with open("seen-0", "a") as file:
                print(variable.get(), file=file)
            variable.set("message")
        @app.get("/")
        def root(request):
            value = variable.get()
            variable.set("request")
            return f"{value} {here().mail(0, 'x')}"
    """)
    for _ in range(2):
        assert server.get("/").text == "hook True"
    wait_until(lambda: seen(0) == ["hook"] * 3, "the mail")


def test_mail_while_stopping(serve: Serve, seen: Seen) -> None:
    server = serve(
        PROGRAM
        + """
    @app.on_stop
    def stop():
        note("stop", here().mail(here().number, "me"), here().mail(5, "nobody"))

    @app.get("/slow")
    async def slow(request):
        note("begun")
        while "stopping" not in pathlib.Path("log").read_text():
            await asyncio.sleep(0.01)
        here().mail(here().number, "under way")
        await asyncio.sleep(0.05)
        return "slow"
""",
    )
    folder = Path(f"/proc/{server.workers[0]}/cwd").resolve()
    folder.joinpath("log").touch()
    threads, answers = in_background(1, lambda: server.get("/slow").text)
    wait_until(lambda: seen(0), "a request under way")
    server.send(signal.SIGTERM)
    folder.joinpath("log").write_text(str(server.wait_for("stopping")["message"]))
    assert server.wait() == 0
    join(threads)
    assert answers == ["slow"]
    assert seen(0) == ["begun", "0 0 0 under way", "stop False False"]


@pytest.mark.parametrize("action", ["--cli", "--cfg"])
def test_without_a_server_nobody_is_there_to_write_to(action: str, serve: Serve) -> None:
    server = serve(
        """
        from eighties import App
        from eighties.post import here
        app = App()
        print(here().number, here().workers, here().mail(None, "x"), here().quit())
        """,
        action,
        wait=False,
    )
    assert server.output().split()[:4] == ["0", "1", "False", "None"]


# ---- quit ----


@pytest.mark.parametrize("loop", LOOPS)
def test_quit(loop: str, workers: int, serve: Serve) -> None:
    if loop == "uvloop":
        pytest.importorskip("uvloop")
    server = serve(
        PROGRAM
        + """
    @app.get("/quit")
    async def end(request):
        here().quit()
        here().quit()
        await asyncio.sleep(0.3)
        here().quit()
        return "quitting"
""",
        "-c",
        str(workers),
        "--loop",
        loop,
    )
    server.wait_for_workers(workers)
    assert server.get("/quit").text == "quitting"
    assert server.wait() == 0
    (line,) = [line for line in server.log if "stopping" in line["message"]]
    assert ", as worker " in line["message"]
    assert {line["level"] for line in server.log} == {"info"}


def test_every_worker_may_quit(serve: Serve) -> None:
    server = serve(PROGRAM, "-c", "3")
    server.wait_for_workers(3)
    server.request("POST", "/do/0", b"here().mail(None, '!here().quit()')")
    assert server.wait() == 0
    assert server.stderr.count("stopping") == 1


@pytest.mark.parametrize("where", ["load", "hook"])
def test_quit_before_the_start(where: str, serve: Serve) -> None:
    server = serve(
        f"""
        import asyncio, time
        from eighties import App
        from eighties.post import here
        app = App()
        if {where == "load"}:
            here().quit()
            time.sleep(1000)
        @app.on_start
        async def start():
            here().quit()
            await asyncio.sleep(1000)
        """,
        wait=False,
    )
    assert server.wait() == 0
    assert [line["message"] for line in server.log] == ["stopping, as worker 0 asks: requests under way have 10 s"]


def test_the_last_words_of_a_worker_that_exits(serve: Serve) -> None:
    server = serve(PROGRAM, "-c", "2")
    server.wait_for_workers(2)
    # More than the parent reads at once.
    code = b"for n in range(2): here().mail(1, bytes(50000))\nhere().quit(); os._exit(0)"
    server.request("POST", "/do/0", code)
    assert server.wait() == 0


def test_a_worker_that_ends_as_soon_as_it_is_ready(serve: Serve, tmp_path: Path) -> None:
    server = serve(
        """
        import asyncio, os, signal
        from eighties import App
        from eighties.post import here
        app = App()
        @app.on_start
        async def start():
            if here().number == 0 and not os.path.exists("ended"):
                os.kill(os.getppid(), signal.SIGSTOP)
                here().mail(1, bytes(50000))
                here().mail(1, bytes(50000))
                asyncio.get_running_loop().call_soon(end)
        def end():
            open("ended", "w").close()
            os._exit(9)
        @app.get("/")
        def root(request): return "hello"
        def on_message(*arguments): pass
        """,
        "-c",
        "2",
        wait=False,
    )
    wait_until(tmp_path.joinpath("ended").exists, "the end of the first worker")
    server.send(signal.SIGCONT)
    server.wait_for("listening")
    server.wait_for("ended with exit code 9")
    server.wait_for_workers(2)
    assert server.get("/").text == "hello"
    assert server.stop() == 0
    assert "cannot" not in server.stderr


# ---- a program that writes to the control socket ----


@pytest.mark.parametrize(
    "data",
    [
        b"hello world",
        bytes(1000),
        b"\xff" * 100000,
        framed(b"M"),
        framed(b"Unknown"),
        framed(b"Quit"),
        framed(b"R1 2 3 4"),
        framed(b"R\xff"),
        framed(pack_mail(2, 0, 0, b"nobody")),
        framed(b"M", b"M" * 70000),
    ],
    ids=lambda data: f"{data[:12]!r}",
)
def test_nonsense_ends_the_worker_and_nothing_else(data: bytes, serve: Serve, tmp_path: Path) -> None:
    tmp_path.joinpath("data").write_bytes(data)
    server = serve(PROGRAM, "-c", "2")
    both = server.wait_for_workers(2)
    do(server, 1, 'os.write(here()._link._control, pathlib.Path("data").read_bytes())')
    assert server.wait_for("to its control socket")["level"] == "error"
    server.wait_for("a new one starts")
    assert both[0] in server.wait_for_workers(2)
    assert server.get("/").text == "hello"
    assert server.stop() == 0


def test_part_of_a_frame_waits_for_the_rest(serve: Serve) -> None:
    server = serve(PROGRAM, "-c", "2")
    both = server.wait_for_workers(2)
    do(server, 1, 'os.write(here()._link._control, b"\\0\\0\\1\\0M")')
    do(server, 0, 'here().mail(1, "x")')
    assert server.get("/").text == "hello"
    assert server.workers == both
    os.kill(both[1], signal.SIGKILL)
    server.wait_for("a new one starts now")
    assert json.dumps(server.log).count("control socket") == 0

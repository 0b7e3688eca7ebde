"""Connections that go from one engine to another, as in a reload of whole processes: none is lost, no answer either.

Most tests have both engines in their own process (see moving.py), with a real pair of sockets between them.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import resource
import socket
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from moving import GET, Client, Move, moving, slow
from sockets import PATIENCE, turns, until

import eighties
from eighties import App, Request
from eighties.serve import passing

MANY = 2000


# ---- what moves ----


@moving
async def test_an_idle_connection_moves(move: Move) -> None:
    peer = await move.client(GET)
    assert await peer.answer() == "old"
    move.begin()
    await move.moved()
    assert move.old.connections == 0
    for _ in range(3):
        await peer.send(GET)
        assert await peer.answer() == "new"
    stats = move.new.engine.stats()
    assert stats["accepted"] == 0 and stats["connections"] == 1 and stats["requests"] == 3
    await peer.send(b"GET /peer HTTP/1.1\r\nHost: x\r\n\r\n")
    assert await peer.answer() == str(peer.sock.getsockname())


@moving
async def test_what_has_been_read_goes_along(move: Move) -> None:
    peer = await move.client(GET)
    assert await peer.answer() == "old"
    await peer.send(GET[:20])
    await move.read(len(GET) + 20)
    move.begin()
    await move.moved()
    await peer.send(GET[20:])
    assert await peer.answer() == "new"


@moving
async def test_a_connection_without_a_request_moves(move: Move) -> None:
    silent, half = await move.client(), await move.client(GET[:9])
    await until(lambda: move.old.connections == 2)
    await move.read(9)
    move.begin()
    await move.moved(2)
    await silent.send(GET)
    await half.send(GET[9:])
    assert await silent.answer() == await half.answer() == "new"


@moving
async def test_a_busy_one_moves_when_its_answer_is_out(move: Move) -> None:
    peer = await move.client(slow(1))
    await until(lambda: move.begun)
    move.begin()
    await asyncio.sleep(3 * passing.LOOK)
    assert move.giver.given == 0 and move.old.connections == 1
    move.release.set()
    assert await peer.answer() == "old 1"
    await move.moved()
    await peer.send(slow(2))
    assert await peer.answer() == "new 2"


@moving
async def test_answers_to_pipelined_requests_keep_their_order(move: Move) -> None:
    peer = await move.client(b"".join(map(slow, range(20))) + slow(20)[:12])
    await until(lambda: move.begun)
    move.begin()
    move.release.set()
    answers = [await peer.answer() for _ in range(20)]
    assert [text.split()[1] for text in answers] == [str(number) for number in range(20)]
    await move.moved()
    await peer.send(slow(20)[12:] + slow(21))
    assert [await peer.answer(), await peer.answer()] == ["new 20", "new 21"]


@moving
async def test_a_client_that_never_stops_asking(move: Move) -> None:
    """Wherever in its requests the move happens, each is answered once: the connection goes to and fro."""
    peer = await move.client()
    move.release.set()
    move.begin()
    for number in range(60):
        data = slow(number)
        cut = number % len(data)
        await peer.send(data[:cut])
        await turns(number % 5)
        for given in move.new.engine.give_away(1000, 1):
            move.old.adopt(*given)
        await peer.send(data[cut:])
        assert (await peer.answer()).split()[1] == str(number)
        if number % 20 == 0:
            await asyncio.sleep(passing.LOOK)
    assert move.taker.taken > 1


@moving
async def test_a_client_of_a_unix_socket(move: Move) -> None:
    ours, theirs = socket.socketpair()
    move.house.peers.append(theirs)
    theirs.setblocking(False)
    move.old.adopt(ours.detach(), b"", 1)
    peer = Client(move.loop, theirs)
    await peer.send(GET)
    assert await peer.answer() == "old"
    move.begin()
    await move.moved()
    await peer.send(b"GET /peer HTTP/1.1\r\nHost: x\r\n\r\n")
    assert await peer.answer() == "unix"


@moving
async def test_who_has_left_does_not_move(move: Move) -> None:
    peer, half = await move.client(GET), await move.client(slow(1))
    assert await peer.answer() == "old"
    await until(lambda: move.begun)
    half.end()
    peer.leave()
    await until(lambda: move.old.connections == 1)
    move.begin()
    move.release.set()
    assert await half.answer() == "old 1"
    await until(lambda: not move.old.connections)
    assert move.giver.given == 0


@moving
async def test_a_reset_on_the_way(move: Move) -> None:
    peer = await move.client(GET)
    assert await peer.answer() == "old"
    move.old.close_listeners()
    move.giver.begin()
    await until(lambda: move.giver.given)
    peer.reset()
    await asyncio.sleep(0.01)
    move.taker.begin()
    await turns(20)
    assert move.new.engine.connections == 0


# ---- many, and what is full ----


@contextlib.contextmanager
def more_descriptors(number: int) -> Iterator[None]:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    if before[1] != resource.RLIM_INFINITY and before[1] < number:
        pytest.skip("needs more descriptors than this system allows")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(number, before[0]), before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


def adopt_many(move: Move, number: int) -> list[Client]:
    peers = []
    for _ in range(number):
        ours, theirs = socket.socketpair()
        theirs.setblocking(False)
        move.house.peers.append(theirs)
        move.old.adopt(ours.detach(), b"", 1)
        peers.append(Client(move.loop, theirs))
    return peers


@moving
async def test_thousands_move_through_a_socket_that_holds_hundreds(move: Move) -> None:
    """Nobody takes them at first: those that do not fit are served where they are, then all go."""
    with more_descriptors(2 * MANY + 2000):
        peers = adopt_many(move, MANY)
        for peer in peers:
            peer.sock.send(GET[:9])
        await move.read(9 * MANY)
        move.giver.begin()
        await until(lambda: move.giver._writing)
        given = move.giver.given
        assert 0 < given < MANY and move.old.connections == MANY - given
        waiting = peers[0] if given < MANY else None  # the newest go first
        assert waiting is not None
        await waiting.send(GET[9:])
        assert await waiting.answer() == "old"
        await asyncio.sleep(3 * passing.LOOK)
        assert move.giver.given == given  # and nothing spins
        move.taker.begin()
        await move.moved(MANY)
        for peer in peers:
            peer.sock.send(GET if peer is waiting else GET[9:])
        for peer in peers:
            assert await peer.answer() == "new"
        for peer in peers:
            peer.leave()
        await until(lambda: not move.new.engine.connections)


@moving
async def test_more_than_a_message_takes_is_served_here(move: Move) -> None:
    with socket.socket(fileno=os.dup(move.ends[0])) as end:
        end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1)  # the least that the system takes
        least = end.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF)
    head = b"GET / HTTP/1.1\r\nHost: x\r\n" + b"".join(b"X-%d: %d\r\n" % (n, n) for n in range(90))
    head = head[:-2] + b"x" * 8000 + b"\r\n\r\n"
    assert len(head) > least
    long, short = await move.client(head[:-1]), await move.client(GET[:9])
    await move.read(len(head) - 1 + 9)
    move.begin()
    await until(lambda: move.taker.taken)
    await long.send(head[-1:])
    await short.send(GET[9:])
    assert await long.answer() == "old" and await short.answer() == "new"
    await move.moved(2)


@moving
async def test_when_nobody_can_take_them_they_stay(move: Move) -> None:
    peer = await move.client(GET)
    assert await peer.answer() == "old"
    move.taker.close()
    os.close(move.ends[1])
    move.giver.begin()
    await until(lambda: move.told)
    (level, message), *others = move.told
    assert level == "warning" and "stay in the old worker process" in message and not others
    move.told.clear()
    await peer.send(GET)
    assert await peer.answer() == "old"
    # The socket's end is closed, so its place may be taken by another descriptor by now.
    move.ends = move.ends[0], os.open(os.devnull, os.O_RDONLY)


@moving
async def test_the_kernel_has_no_room(move: Move) -> None:
    """As where too many descriptors are under way, or memory is short; then it has."""
    peer = await move.client(GET)
    assert await peer.answer() == "old"
    real, errors, tried = move.giver._send, [errno.ETOOMANYREFS, errno.ENOBUFS], []

    def send(*connection: Any) -> int:
        tried.append(connection)
        return errors[len(tried) % 2] if errors else real(*connection)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(passing, "RETRY", 0.01)
        patch.setattr(move.giver, "_send", send)
        move.begin()
        await until(lambda: len(tried) > 3)
        await peer.send(GET)
        assert await peer.answer() == "old"
        errors.clear()
        await move.moved()
    await peer.send(GET)
    assert await peer.answer() == "new"


@moving
async def test_out_of_descriptors_they_wait(move: Move) -> None:
    peers = [await move.client(GET) for _ in range(3)]
    assert [await peer.answer() for peer in peers] == ["old"] * 3
    move.old.close_listeners()
    move.giver.begin()
    await until(lambda: move.giver.given == 3)
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    free = os.dup(0)
    os.close(free)
    resource.setrlimit(resource.RLIMIT_NOFILE, (free, before[1]))
    try:
        move.taker.begin()
        await asyncio.sleep(2 * passing.RETRY)
        assert move.taker.taken == 0
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
    assert [level for level, _ in move.told] == ["error"] and "have to wait" in move.told[0][1]
    move.told.clear()
    await move.moved(3)
    for peer in peers:
        await peer.send(GET)
        assert await peer.answer() == "new"


# ---- raw programs, protocols ----


@moving
async def test_a_raw_program_is_told_of_a_fresh_connection(move: Move) -> None:
    told: list[Any] = []
    engine = move.new.engine
    listener = engine.listen(move.listener.fileno())
    hooks: dict[str, Callable[..., object]] = {
        "on_accept": lambda elfd, parent, child: told.append(parent),
        "on_data": lambda elfd, child, data, length: told.append(data),
    }
    engine.set_hooks(hooks, True)
    peer = await move.client()
    if not told:  # either engine may have accepted it
        await until(lambda: move.old.connections or told)
    move.begin()
    await peer.send(b"hello")
    await until(lambda: len(told) == 2)
    assert told == [listener, b"hello"]
    await asyncio.sleep(2 * passing.LOOK)
    assert engine.give_away(1000, 1) == []  # it is raw


@moving
async def test_a_protocol_sees_the_first_bytes_again(move: Move) -> None:
    seen: list[bytes] = []

    def choose(data: bytes) -> Any:
        seen.append(data)
        return None if len(data) < 2 else (lambda sock: (sock.write(b"mine"), sock.close()))

    for engine in move.old, move.new.engine:
        engine.set_protocols(choose)
    peer = await move.client(b"\x01")
    await until(lambda: seen)
    move.begin()
    await move.moved()
    await peer.send(b"\x02")
    assert await peer.receive_all() == b"mine" and seen == [b"\x01", b"\x01", b"\x01\x02"]


# ---- what is no connection ----


@moving
async def test_messages_that_nobody_sends(move: Move) -> None:
    peers = []

    def stream() -> int:
        ours, theirs = socket.socketpair()
        peers.append(theirs)
        return ours.detach()

    datagram = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    messages: list[tuple[bytes, list[int]]] = [
        (passing.HEAD + b"\0", []),
        (passing.HEAD + b"\0", [stream(), stream()]),
        (passing.HEAD, [stream()]),
        (b"80s9\0", [stream()]),
        (b"x", [stream()]),
        (passing.HEAD + b"\x04", [stream()]),
        (passing.HEAD + b"\0" + b"x" * 66000, [stream()]),
        (passing.HEAD + b"\0", [os.open(os.devnull, os.O_RDONLY)]),
        (passing.HEAD + b"\0", [os.dup(datagram[0].fileno())]),
    ]
    with socket.socket(fileno=os.dup(move.ends[0])) as end:
        for data, fds in messages:
            socket.send_fds(end, [data], fds)
            for fd in fds:
                os.close(fd)
    move.taker.begin()
    await until(lambda: len(move.told) == len(messages))
    assert {level for level, _ in move.told} == {"warning"}
    assert all("a connection is closed" in message for _, message in move.told)
    move.told.clear()
    for each in peers:
        each.settimeout(PATIENCE)
        assert each.recv(1) == b""
        each.close()
    for sock in datagram:
        sock.close()
    assert move.taker.taken == 0 == move.new.engine.connections
    peer = await move.client(GET)  # and it goes on
    assert await peer.answer() == "old"
    move.begin()
    await move.moved()


@moving
async def test_what_cannot_be_adopted(move: Move) -> None:
    engine = move.new.engine
    ours, theirs = socket.socketpair()
    datagram, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    with ours, theirs, datagram, other, open(os.devnull) as file:
        for fd, wrong in (
            (file.fileno(), errno.ENOTSOCK),
            (datagram.fileno(), errno.EPROTOTYPE),
            (move.listener.fileno(), errno.ENOTCONN),
            (-1, errno.EBADF),
        ):
            with pytest.raises(OSError) as caught:
                engine.adopt(fd, b"", 0)
            assert caught.value.errno == wrong
        with pytest.raises(ValueError, match="flags 4"):
            engine.adopt(ours.fileno(), b"", 4)
        with pytest.raises(ValueError, match="unread bytes"):
            engine.adopt(ours.fileno(), bytes(65537), 0)
        with pytest.raises(TypeError):
            engine.adopt(ours.fileno(), "text", 0)  # type: ignore[arg-type]
        with pytest.raises(ValueError, match="negative"):
            engine.give_away(-1, 1)
        assert engine.connections == 0
        ours.send(b"still ours")
        assert theirs.recv(100) == b"still ours"
        engine.close()
        with pytest.raises(RuntimeError, match="closed"):
            engine.adopt(ours.fileno(), b"", 0)


@moving
async def test_a_handler_cannot_give_away(move: Move) -> None:
    app = App()
    raised: list[str] = []

    @app.get("/")
    def root(request: Request) -> str:
        try:
            move.old.give_away(100, 1)
        except RuntimeError as error:
            raised.append(str(error))
        if len(raised) == 1:
            move.old.adopt(ours.detach(), GET, 0)  # but take
        return "old"

    ours, theirs = socket.socketpair()
    theirs.setblocking(False)
    move.house.peers.append(theirs)
    move.old.set_routes(app.routes())
    peer = await move.client(GET)
    assert await peer.answer() == "old" and "at work" in raised[0]
    await until(lambda: len(raised) == 2)


@moving
async def test_listeners_close_and_connections_go_on(move: Move) -> None:
    peer = await move.client(GET)
    assert await peer.answer() == "old"
    move.old.close_listeners()
    queued = await move.client(GET)
    await turns()
    assert move.old.connections == 1
    await peer.send(GET)
    assert await peer.answer() == "old"
    move.new.engine.listen(move.listener.fileno())
    assert await queued.answer() == "new"


# ---- processes ----

NEXT = """
    import asyncio, os, sys
    from eighties import App, http
    from eighties._engine import Engine
    from eighties.limits import DEFAULTS
    from eighties.serve import passing

    async def main():
        loop = asyncio.get_running_loop()
        app = App()

        @app.get("/")
        def root(request):
            return str(os.getpid())

        log = lambda *words: print(*words, file=sys.stderr)
        engine = Engine(loop, DEFAULTS, request_type=http.Request, respond=http.respond, failed=app.failed,
                        pump=http.pump, settle=http.settle, log=log)
        engine.set_routes(app.routes())
        loop.add_reader(engine.fileno(), engine.poll)
        taker = passing.Taker(engine, int(sys.argv[1]), loop)
        taker.begin()
        print("ready", flush=True)
        await loop.run_in_executor(None, sys.stdin.read)
        taker.close()
        engine.close()

    asyncio.run(main())
"""

CROWDED = """
    import asyncio, errno, os, resource, socket, sys
    from eighties.serve import passing

    class Engine:
        back = 0

        def __init__(self):
            self.pairs = [socket.socketpair() for _ in range(20)]
            self.idle = [(os.dup(a.fileno()), b"", 0) for a, _ in self.pairs]

        def give_away(self, most_bytes, most):
            idle, self.idle = self.idle[:most], self.idle[most:]
            return idle

        def adopt(self, fd, data, flags):
            Engine.back += 1
            self.idle.append((fd, data, flags))

    async def main():
        loop = asyncio.get_running_loop()
        engine, taking = Engine(), Engine()
        taking.idle.clear()
        giving, end = passing.pair()
        giver = passing.Giver(engine, giving, loop)
        _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (8, hard))  # so many may be under way
        if os.getuid() == 0:  # who may do anything is not bound
            os.setgroups([])
            os.setgid(65534)
            os.setuid(65534)
        giver.begin()
        while not Engine.back:
            await asyncio.sleep(0.01)
        print("given", giver.given, flush=True)
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        taker = passing.Taker(taking, end, loop)
        taker.begin()
        while giver.given < 20 or taker.taken < 20:
            await asyncio.sleep(0.01)
        print("taken", len(taking.idle), flush=True)

    asyncio.run(main())
"""


def python(folder: Path, program: str, *arguments: str, fds: tuple[int, ...] = ()) -> subprocess.Popen[str]:
    path = folder / "program.py"
    path.write_text(textwrap.dedent(program))
    source = str(Path(eighties.__file__).parent.parent)
    return subprocess.Popen(
        [sys.executable, str(path), *arguments],
        env={**os.environ, "PYTHONPATH": os.pathsep.join([source, *filter(None, [os.environ.get("PYTHONPATH")])])},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        pass_fds=fds,
    )


@moving
async def test_another_process_goes_on(move: Move, tmp_path: Path) -> None:
    await give_to_process(move, tmp_path, early=True)


@moving
async def test_what_is_under_way_outlives_the_old_process(move: Move, tmp_path: Path) -> None:
    await give_to_process(move, tmp_path, early=False)


async def give_to_process(move: Move, folder: Path, early: bool) -> None:
    """`early`: it is there when they are given; else they have to wait, and the old engine is gone when it comes."""
    peers = [await move.client(GET[:9]) for _ in range(5)]
    await move.read(5 * 9)
    process = python(folder, NEXT, str(move.ends[1]), fds=(move.ends[1],)) if early else None
    move.old.close_listeners()
    move.giver.begin()
    await until(lambda: move.giver.given == 5)
    if process is None:
        move.giver.close()
        move.old.close()
        process = python(folder, NEXT, str(move.ends[1]), fds=(move.ends[1],))
    try:
        for peer in peers:
            await peer.send(GET[9:])
            assert await peer.answer() == str(process.pid)
        await asyncio.to_thread(process.communicate, "", PATIENCE)
        assert process.returncode == 0
    finally:
        process.kill()
        process.wait()


def test_too_many_under_way(tmp_path: Path) -> None:
    """ETOOMANYREFS: the system allows a user as many descriptors under way as one process may have open."""
    process = python(tmp_path, CROWDED)
    try:
        out, _ = process.communicate(timeout=PATIENCE)
    finally:
        process.kill()
    lines = dict(line.split() for line in out.splitlines())
    assert process.returncode == 0 and lines["taken"] == "20" and 0 < int(lines["given"]) < 20, out

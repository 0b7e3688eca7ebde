"""Connections and child processes that a program opens: real sockets and commands, both loops, one engine here."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import socket
import sys
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from ports import unused_port
from sockets import House, Peer, in_house, open_descriptors, turns, until

from eighties import outgoing
from eighties._engine import find_socket
from eighties.outgoing import connect, connect2, open_raw, popen, popen_raw, popen_read
from eighties.promise import Promise
from eighties.streams import Overflow, Socket, read_stream

PYTHON = sys.executable


class Listener:
    """Another server, in this process: accepts one connection at a time."""

    def __init__(self, house: House, family: int = socket.AF_INET, place: Any = ("127.0.0.1", 0)) -> None:
        self.house = house
        self.sock = socket.socket(family)
        self.sock.bind(place)
        self.sock.listen(10)
        self.sock.setblocking(False)
        self.port = 0 if family == socket.AF_UNIX else self.sock.getsockname()[1]
        house.peers.append(self.sock)

    async def accept(self) -> Peer:
        sock, _ = await self.house.loop.sock_accept(self.sock)
        self.house.peers.append(sock)
        return Peer(self.house.loop, sock)


@contextlib.contextmanager
def full(family: int = socket.AF_INET, place: Any = ("127.0.0.1", 0)) -> Iterator[socket.socket]:
    """A server that does not accept, whose queue is full: connecting to it takes for ever."""
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.socket(family))
        listener.bind(place)
        listener.listen(0)
        for _ in range(2):
            client = stack.enter_context(socket.socket(family))
            client.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                client.connect(listener.getsockname())
        yield listener


def resolver(addresses: list[Any]) -> Callable[..., Awaitable[list[Any]]]:
    """One that has these for every name."""

    async def resolve(host: str, port: int, udp: bool) -> list[Any]:
        return addresses

    return resolve


def record(sock: Socket) -> list[str]:
    """The callbacks of a socket, as they come."""
    calls: list[str] = []
    for name in ("on_connect", "on_write", "on_close"):
        setattr(sock, name, lambda elfd, fd, name=name: calls.append(name))
    return calls


# ---- connect ----


@in_house
async def test_connect_returns_at_once_and_calls_back(house: House) -> None:
    listener = Listener(house)
    sock = connect("127.0.0.1", listener.port)
    calls = record(sock)
    assert not sock.connected and not sock.closed
    assert sock.write("written before")
    peer = await listener.accept()
    assert await peer.receive(14) == b"written before"
    assert calls == ["on_connect", "on_write"] and sock.connected
    assert sock.peername == ("127.0.0.1", listener.port)
    await peer.send(b"answer\n")
    assert await sock.read(b"\n") == b"answer"
    sock.close()
    assert await peer.receive_all() == b""
    peer.leave()
    await until(lambda: len(calls) == 3)
    assert calls[2] == "on_close" and sock.error is None


@in_house
async def test_a_refused_connection_is_closed_with_its_error(house: House) -> None:
    port = unused_port()
    sock = connect("127.0.0.1", port)
    calls = record(sock)
    reading = asyncio.ensure_future(sock.read(1))
    await until(lambda: calls)
    assert calls == ["on_close"] and sock.closed
    assert isinstance(sock.error, ConnectionRefusedError) and f"127.0.0.1:{port}" in str(sock.error)
    with pytest.raises(ConnectionRefusedError, match=str(port)):
        await reading


@in_house
async def test_a_connection_closed_before_it_is_made(house: House) -> None:
    with full() as listener:
        before = open_descriptors()
        sock = connect("127.0.0.1", listener.getsockname()[1])
        calls = record(sock)
        await turns()
        assert len(open_descriptors()) > len(before)
        sock.close()
        await until(lambda: calls)
        await until(lambda: not outgoing._under_way)
        assert calls == ["on_close"] and sock.error is None
        assert open_descriptors() == before


@in_house
async def test_names_are_resolved_and_the_loop_goes_on(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the resolver takes: here it takes until the loop has gone round often."""
    listener = Listener(house)
    asked = asyncio.Event()
    ask = outgoing._addresses

    async def slow(host: str, port: int, udp: bool) -> list[Any]:
        assert host == "somewhere.example"
        await asked.wait()
        return await ask("127.0.0.1", port, udp)

    monkeypatch.setattr(outgoing, "_addresses", slow)
    sock = connect("somewhere.example", listener.port)
    await turns(100)
    assert not sock.connected
    asked.set()
    await listener.accept()
    await until(lambda: sock.connected)


@in_house
async def test_localhost_is_found(house: House) -> None:
    listener = Listener(house)
    sock = await connect2(host="localhost", port=listener.port)
    assert sock.peername == ("127.0.0.1", listener.port)


@in_house
async def test_another_address_is_tried_when_one_is_dead(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    listener = Listener(house)
    refused, stuck = ("127.0.0.1", unused_port()), ("127.0.0.2", listener.port)
    kind = (socket.AF_INET, socket.SOCK_STREAM, 0, "")
    with full(place=("127.0.0.2", listener.port)):
        several = [(*kind, refused), (*kind, stuck), (*kind, ("127.0.0.1", listener.port))]
        monkeypatch.setattr(outgoing, "_addresses", resolver(several))
        sock = await connect2(host="several.example", port=listener.port)
        assert sock.peername == ("127.0.0.1", listener.port)
        monkeypatch.setattr(outgoing, "_addresses", resolver([(*kind, refused)] * 2))
        with pytest.raises(ConnectionRefusedError, match="dead.example:80"):
            await connect2(host="dead.example", port=80)


@in_house
async def test_ipv6_only(house: House) -> None:
    try:
        listener = Listener(house, socket.AF_INET6, ("::1", 0))
    except OSError:
        pytest.skip("no IPv6 here")
    for host in ("v6:::1", "::1"):
        sock = await connect2(host=host, port=listener.port)
        assert sock.peername == ("::1", listener.port)
    with pytest.raises(OSError, match=r"v6:127\.0\.0\.1:80"):
        await connect2(host="v6:127.0.0.1", port=80)


@in_house
async def test_unix_sockets(house: House, tmp_path: Path) -> None:
    path = str(tmp_path / "socket")
    with pytest.raises(FileNotFoundError, match=path):
        await connect2(host=f"unix:{path}", port=0)
    listener = Listener(house, socket.AF_UNIX, path)
    sock = connect(f"unix:{path}", 0)
    peer = await listener.accept()
    sock.write("through a file")
    assert await peer.receive(14) == b"through a file"
    assert sock.peername == "unix"


@in_house
async def test_a_unix_socket_with_a_full_queue_is_waited_for(house: House, tmp_path: Path) -> None:
    path = str(tmp_path / "socket")
    with full(socket.AF_UNIX, path) as listener:
        promise = connect2(host=f"unix:{path}", port=0)
        await asyncio.sleep(0.03)
        assert not promise.done()
        listener.setblocking(False)
        first, _ = await house.loop.sock_accept(listener)
        sock = await promise
        second, _ = await house.loop.sock_accept(listener)
        with first, second:
            sock.write("x")
            assert await house.loop.sock_recv(second, 1) == b"x"


@in_house
async def test_udp(house: House) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
        other.bind(("127.0.0.1", 0))
        other.settimeout(30)  # it takes no time: the kernel hands datagrams on at once
        sock = await connect2(host="127.0.0.1", port=other.getsockname()[1], udp=True)
        assert sock.write("ping") and sock.write("ping again")
        data, address = other.recvfrom(100)
        assert data == b"ping"
        assert other.recv(100) == b"ping again"
        other.sendto(b"pong", address)
        other.sendto(b"pong again", address)
        assert [await sock.read(), await sock.read()] == [b"pong", b"pong again"]
        sock.close()
        lost = connect("127.0.0.1", unused_port(), udp=True)
        await until(lambda: lost.connected)
        lost.close()


@in_house
async def test_tcp_does_not_wait_for_more(house: House) -> None:
    listener = Listener(house)
    sock = await outgoing._open("127.0.0.1", listener.port, False, 5)
    with sock:
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        assert not sock.getblocking() and not sock.get_inheritable()


@pytest.mark.parametrize("port", [-1, 65536, 1 << 40])
@in_house
async def test_ports_that_are_none(house: House, port: int) -> None:
    for function in (connect, lambda host, port: connect2(host=host, port=port)):
        with pytest.raises(ValueError, match=str(port)):
            function("127.0.0.1", port)
    with pytest.raises(ValueError, match=str(port)):
        open_raw(house.engine.fileno(), "127.0.0.1", port)


@pytest.mark.parametrize("port", ["80", 80.0, None, True])
@in_house
async def test_ports_of_another_type(house: House, port: Any) -> None:
    for function in (connect, lambda host, port: connect2(host=host, port=port)):
        with pytest.raises(TypeError, match=f"port {port!r} is no int"):
            function("127.0.0.1", port)


@in_house
async def test_hosts_that_are_none(house: House) -> None:
    for host in ("nowhere.invalid", "", "a" * 70 + ".example", "x\x00y", "unix:/" + "x" * 200, "unix:/\x00", "\udcff"):
        with pytest.raises(OSError):
            await connect2(host=host, port=80)


# ---- connect2 ----


@in_house
async def test_connect2_gives_up_after_its_timeout(house: House) -> None:
    with full() as listener:
        before = open_descriptors()
        port = listener.getsockname()[1]
        with pytest.raises(TimeoutError, match=rf"127\.0\.0\.1:{port} within 0\.05 seconds"):
            await connect2(host="127.0.0.1", port=port, timeout=0.05)
        assert open_descriptors() == before


@in_house
async def test_connect2_cancelled_leaves_nothing(house: House) -> None:
    with full() as listener:
        before = open_descriptors()
        promise = connect2(host="127.0.0.1", port=listener.getsockname()[1])
        await turns()
        promise.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await promise
        assert promise.cancelled() and open_descriptors() == before


@in_house
async def test_connect2_cancelled_at_any_moment_leaves_nothing(house: House) -> None:
    listener = Listener(house)
    before = open_descriptors()
    for rounds in range(12):
        promise = connect2(host="127.0.0.1", port=listener.port)
        await turns(rounds)
        if promise.cancel():
            with contextlib.suppress(asyncio.CancelledError):
                await promise
        else:
            (await promise).abort()
        await turns()
    await until(lambda: not house.engine.connections)
    assert open_descriptors() == before


@in_house
async def test_a_promise_of_connect2_may_be_called(house: House) -> None:
    listener = Listener(house)
    found: list[Any] = []
    connect2(host="127.0.0.1", port=listener.port)(found.append, found.append)
    connect2(host="127.0.0.1", port=unused_port())(found.append, found.append)
    await until(lambda: len(found) == 2)
    assert {type(one) for one in found} == {Socket, ConnectionRefusedError}


@in_house
async def test_connecting_without_an_engine(house: House) -> None:
    house.engine.close()
    with pytest.raises((OSError, RuntimeError)):
        connect("127.0.0.1", 80)
    with pytest.raises((OSError, RuntimeError)):
        await connect2(host="127.0.0.1", port=80)
    with pytest.raises((OSError, RuntimeError)):
        popen("true")


# ---- by numbers, for net ----


class Hooks:
    """The module-level hooks of a program."""

    def __init__(self, house: House) -> None:
        self.calls: list[tuple[str, int]] = []
        self.data = b""
        names = ("on_write", "on_close")
        hooks: dict[str, Callable[..., object]] = {name: self.noting(name) for name in names}
        house.engine.set_hooks({**hooks, "on_data": self.on_data}, False)

    def noting(self, name: str) -> Callable[[int, int], None]:
        return lambda elfd, fd: self.calls.append((name, fd))

    def on_data(self, elfd: int, fd: int, data: bytes, length: int) -> None:
        assert len(data) == length
        self.data += data


@in_house
async def test_open_raw_uses_the_programs_hooks(house: House, caplog: pytest.LogCaptureFixture) -> None:
    hooks = Hooks(house)
    listener = Listener(house)
    elfd = house.engine.fileno()
    fd = open_raw(elfd, "127.0.0.1", listener.port)
    peer = await listener.accept()
    await until(lambda: ("on_write", fd) in hooks.calls)
    sock = find_socket(elfd, fd)
    assert sock is not None and sock.write(b"hello")
    del sock
    assert await peer.receive(5) == b"hello"
    await peer.send(b"answer")
    await until(lambda: hooks.data == b"answer")
    peer.leave()
    await until(lambda: ("on_close", fd) in hooks.calls)
    assert [record.levelno for record in caplog.records if record.name == "eighties"] == []


@in_house
async def test_open_raw_that_fails_is_logged_and_closed(house: House, caplog: pytest.LogCaptureFixture) -> None:
    hooks = Hooks(house)
    port = unused_port()
    fd = open_raw(house.engine.fileno(), "127.0.0.1", port)
    await until(lambda: hooks.calls)
    assert hooks.calls == [("on_close", fd)]
    records = [record for record in caplog.records if record.name == "eighties"]
    assert [record.levelno for record in records] == [logging.WARNING]
    assert f"127.0.0.1:{port}" in records[0].getMessage()
    with pytest.raises(OSError):
        open_raw(10**6, "127.0.0.1", port)


@in_house
async def test_popen_raw(house: House) -> None:
    hooks = Hooks(house)
    elfd = house.engine.fileno()
    reader, writer = popen_raw(elfd, "tr", "a-z", "A-Z")
    sock = find_socket(elfd, writer)
    assert sock is not None and sock.write(b"shout")
    sock.close()
    del sock
    await until(lambda: hooks.data == b"SHOUT")
    await until(lambda: {("on_close", reader), ("on_close", writer)} <= set(hooks.calls))
    await reaped()


# ---- child processes ----


async def reaped() -> None:
    """Wait for all children, and see that none is left dead. Servers of the test run may live."""
    await until(lambda: not outgoing._children)
    with contextlib.suppress(ChildProcessError):
        assert os.waitpid(-1, os.WNOHANG) == (0, 0)


@in_house
async def test_popen_gives_both_ends(house: House) -> None:
    reader, writer = popen("sh", "-c", "read line; echo got $line; cat; exit 3")
    assert (reader.kind, writer.kind, reader.returncode) == ("reader", "writer", None)
    writer.write("one\n")
    assert await reader.read(b"\n") == b"got one"
    writer.write("two\nthree")
    writer.close()
    assert await read_stream(reader) == b"two\nthree"
    await until(lambda: reader.returncode is not None)
    assert reader.returncode == 3
    await reaped()


@in_house
async def test_much_goes_through_a_child(house: House) -> None:
    data = os.urandom(1 << 16) * 48
    reader, writer = popen("cat")
    promise = read_stream(reader)
    for at in range(0, len(data), 1 << 18):
        writer.write(data[at : at + (1 << 18)])
        await writer.drain()
    writer.close()
    assert await promise == data
    await reaped()


@in_house
async def test_a_child_gets_its_arguments_as_they_are(house: House) -> None:
    script = "import sys; sys.stdout.write(repr(sys.argv[1:]))"
    output = await popen_read(PYTHON, "-c", script, "a b", "$HOME", "'", 5, Path("/x"), "")
    assert output == b"['a b', '$HOME', \"'\", '5', '/x', '']" and output.returncode == 0
    await reaped()


@in_house
async def test_a_child_gets_no_descriptor_but_its_own(house: House) -> None:
    inherited = os.dup(0)
    os.set_inheritable(inherited, True)
    try:
        output = await popen_read(PYTHON, "-c", "import os; print(sorted(os.listdir('/proc/self/fd'))[:-1])")
    finally:
        os.close(inherited)
    assert output == b"['0', '1', '2']\n"
    await reaped()


@in_house
async def test_a_child_has_no_signals_blocked(house: House) -> None:
    output = await popen_read("grep", "SigBlk", "/proc/self/status")
    assert int(output.split()[1], 16) == 0
    await reaped()


@in_house
async def test_popen_read_closes_stdin_and_waits_for_the_end(house: House) -> None:
    script = "import os, sys; sys.stdin.read(); print('out', flush=True); os.close(1); sys.exit(7)"
    output = await popen_read(PYTHON, "-c", script)
    assert output == b"out\n" and output.returncode == 7
    output = await popen_read("sh", "-c", "kill -9 $$")
    assert output == b"" and output.returncode == -signal.SIGKILL
    await reaped()


@in_house
async def test_a_command_that_does_not_exist(house: House) -> None:
    before = open_descriptors()
    for run in (popen, popen_read, lambda command: popen_raw(house.engine.fileno(), command)):
        with pytest.raises(FileNotFoundError, match="no-such-command"):
            run("no-such-command")
        with pytest.raises(PermissionError):
            run("/etc/passwd")
        with pytest.raises(ValueError, match="null"):
            run("x\x00y")
    assert open_descriptors() == before
    await reaped()


def child_of(promise: Promise) -> Any:
    (child,) = outgoing._children
    return child.process


@in_house
async def test_popen_read_has_a_limit(house: House) -> None:
    promise = popen_read("sh", "-c", "echo; exec sleep 1000", limit=0)
    process = child_of(promise)
    with pytest.raises(Overflow, match="more than 0 bytes"):
        await promise
    await reaped()
    assert process.returncode == -signal.SIGKILL
    assert await popen_read("printf", "12345", limit=5) == b"12345"
    await reaped()


@in_house
async def test_cancelling_popen_read_kills_the_child(house: House) -> None:
    for rounds in (0, 1, 50):
        promise = popen_read("sleep", "1000")
        process = child_of(promise)
        await turns(rounds)
        promise.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await promise
        await reaped()
        assert process.returncode == -signal.SIGKILL


@in_house
async def test_children_are_reaped_without_pidfd(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(pid: int) -> int:
        raise OSError("not here")

    monkeypatch.setattr(os, "pidfd_open", missing)
    output = await popen_read("sh", "-c", "echo hello; exit 4")
    assert output == b"hello\n" and output.returncode == 4
    await reaped()


@in_house
async def test_a_closed_pipe_ends_a_child(house: House) -> None:
    reader, writer = popen("cat")
    reader.close()
    writer.write("x")
    await reaped()
    await until(lambda: writer.closed)
    assert reader.returncode == -signal.SIGPIPE


@in_house
async def test_many_children_at_once(house: House) -> None:
    outputs = await asyncio.gather(*(popen_read("echo", number) for number in range(20)))
    assert outputs == [f"{number}\n".encode() for number in range(20)]
    await reaped()

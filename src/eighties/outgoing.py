"""What a program opens by itself: connections to other servers, and child processes with pipes to them.

Everything here returns at once: names are resolved and connections made by tasks, kept in `_under_way` until they are
done; children are kept in `_children` until they have ended and are reaped. `aio` hands on what is for programs, `net`
what is for its numbers.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import os
import socket
from collections.abc import Coroutine, Generator
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from . import _engine
from .promise import Promise, copy, new_promise, promise_of
from .streams import STREAM_LIMIT, Socket, read_stream

if TYPE_CHECKING:
    from subprocess import Popen

CONNECT_TIMEOUT = 10.0
"""Seconds to find a host and connect to it: three tries of TCP's first packet."""
ATTEMPT_DELAY = 0.25
"""Seconds until the next address is tried beside the one before (RFC 8305 §5)."""
BUSY_DELAY = 0.01
"""Seconds between tries of a unix socket whose queue is full: the kernel has nothing to wait for there."""

S = TypeVar("S", bound=_engine.Socket)
T = TypeVar("T")
_TEXT = (str, bytes, os.PathLike)
_under_way: set[asyncio.Task[Any]] = set()
_children: set[Child] = set()
_logger = logging.getLogger("eighties")


# ---- connections ----


def connect(host: str, port: int, udp: bool = False) -> Socket:
    """A connection to another server (the ancestor's `aio:connect`).

    Set its callbacks, or have it read: `on_connect` comes when it is connected, `on_close` when it has ended or could
    not be made, and then `error` says why, which readers raise. What is written before is sent then. Set `on_data`, or
    read, to hear of the peer's end: otherwise nothing is read, and `on_close` does not come when the peer leaves.

    Arguments:
        host: a name or an address; `v6:NAME` for IPv6 only; `unix:/path`, where the port does not count. Several
            addresses of a name are tried by RFC 8305, within CONNECT_TIMEOUT. With `udp` the first is taken.
        port: 0 to 65535.
    Raises:
        TypeError, ValueError: the port is no port.
        OSError, RuntimeError: there is no engine, or no loop, in this process.
    """
    _check_port(port)
    sock = Socket(_engine.engine_of(), _kind(udp))
    sock.bind(_start(_connect(sock, host, port, udp)))
    return sock


def connect2(*, host: str, port: int, timeout: float = CONNECT_TIMEOUT, udp: bool = False) -> Promise:
    """A connection to another server, when it is made (the ancestor's `aio:connect2`).

    Arguments:
        host, port, udp: as `connect`.
        timeout: in seconds, for finding the host and connecting.
    Returns:
        A promise of the Socket. It is rejected with OSError, of which TimeoutError is one. Cancelling it ends the
        attempt. A connection that nobody takes out of the promise, because who awaits it is cancelled just then, is
        closed when the promise goes.
    Raises:
        TypeError, ValueError: the port is no port.
        OSError, RuntimeError: there is no engine, or no loop, in this process.
    """
    _check_port(port)
    engine = _engine.engine_of()
    promise = Connection()
    task = _start(_connected(engine, host, port, timeout, udp))
    promise._source = task
    task.add_done_callback(partial(copy, promise))
    return promise


def open_raw(elfd: int, host: str, port: int, udp: bool = False) -> int:
    """`net.connect`: the handle of a connection of the program's module-level hooks, at once.

    `on_write` comes when it is connected, `on_close` when it has ended or could not be made; why, stands in the log.

    Arguments:
        elfd: of the engine.
        host, port, udp: as `connect`.
    Raises:
        OSError: there is no such engine.
        TypeError, ValueError: the port is no port.
    """
    _check_port(port)
    sock = _engine.Socket(_engine.engine_of(elfd), _kind(udp))
    _start(_connect(sock, host, port, udp))
    return sock.fd


async def _connect(sock: _engine.Socket, host: str, port: int, udp: bool) -> None:
    try:
        found = await _open(host, port, udp, CONNECT_TIMEOUT)
    except OSError as error:
        _give_up(sock, error)
    except BaseException:  # closed by the program, or the worker ends
        sock.abort()
        raise
    else:
        _attach(sock, found.detach())


async def _connected(engine: _engine.Engine, host: str, port: int, timeout: float, udp: bool) -> Socket:
    found = await _open(host, port, udp, timeout)
    try:
        sock = Socket(engine, _kind(udp))
    except BaseException:
        found.close()
        raise
    _attach(sock, found.detach())
    if sock.error is not None:
        raise sock.error
    return sock


class Connection(Promise):
    """A promise of a Socket that is closed if nobody takes it.

    When a task that awaits it is cancelled in the turn in which it is settled, the task goes on without the Socket, and
    the promise can no longer be cancelled. So it notes whether its value has been asked for, which tasks do not do
    themselves as with other promises: they wait for one of their own.
    """

    __slots__ = ("taken",)

    def __init__(self) -> None:
        super().__init__()
        named = new_promise()
        self._code, self._lasti = named._code, named._lasti
        self.taken = False

    def __await__(self) -> Generator[Any, None, Any]:
        if not self.done():
            turn = Promise()
            turn._source = self  # to cancel the task that waits is to cancel this
            self.add_done_callback(lambda _: turn.settle(()))
            yield from turn.__await__()
        return self.result()

    __iter__ = __await__

    def result(self) -> Any:
        self.taken = True
        return super().result()

    def __del__(self) -> None:
        # In any thread, at any time, if it is the garbage collector who comes: see Promise.abandon
        if not self.taken and self.done() and not self.cancelled() and self._exception is None:
            with contextlib.suppress(RuntimeError):  # the loop is closed, and the engine with it
                self.get_loop().call_soon_threadsafe(super().result().abort)
        super().__del__()


def _attach(sock: _engine.Socket, fd: int) -> None:
    """Hand a descriptor over, unless the connection is over by now; one that is closed may have something to send."""
    try:
        sock.attach(fd)
    except OSError as error:
        os.close(fd)
        if not sock.closed:
            _give_up(sock, error)


def _give_up(sock: _engine.Socket, error: OSError) -> None:
    if isinstance(sock, Socket):
        sock.error = type(error)(*error.args)  # without the frames, which have the socket
    else:
        _logger.warning("connecting failed: %s", str(error))  # as text: the error has frames, and they the socket
    _engine.Socket.abort(sock)  # it is not the program that closes it


async def _open(host: str, port: int, udp: bool, timeout: float) -> socket.socket:
    """A connected, non-blocking socket. Raises OSError that names the place."""
    place = host if host.startswith(("unix:", "v6:")) else f"[{host}]" if ":" in host else host
    if not host.startswith("unix:"):
        place = f"{place}:{port}"
    try:
        async with asyncio.timeout(timeout):
            if host.startswith("unix:"):
                return await _open_unix(host.removeprefix("unix:"), udp)
            return await _open_inet(host, port, udp)
    except OSError as error:
        if isinstance(error, TimeoutError) and error.errno is None:  # ours, not the kernel's
            raise TimeoutError(errno.ETIMEDOUT, f"no connection to {place} within {timeout:g} seconds") from None
        raise type(error)(error.errno or errno.EIO, f"{place}: {error.strerror or error}") from error
    except (RuntimeError, ValueError, OverflowError) as error:  # names that are none; uvloop in place of OSError
        raise OSError(errno.EINVAL, f"{place}: {error}") from error


async def _open_inet(host: str, port: int, udp: bool) -> socket.socket:
    found = await _addresses(host, port, udp)
    if len(found) > 1 and not udp:
        from aiohappyeyeballs import start_connection

        sock = await start_connection(found, happy_eyeballs_delay=ATTEMPT_DELAY, loop=asyncio.get_running_loop())
    else:
        sock = await _open_address(*found[0])
    if not udp:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return sock


async def _addresses(host: str, port: int, udp: bool) -> list[Any]:
    """What `getaddrinfo` has of the host; an address is its own at once, a name is asked for off the loop."""
    family = socket.AF_INET6 if host.startswith("v6:") else socket.AF_UNSPEC
    kind = socket.SOCK_DGRAM if udp else socket.SOCK_STREAM
    host = host.removeprefix("v6:")
    try:
        return socket.getaddrinfo(host, port, family, kind, 0, socket.AI_NUMERICHOST | socket.AI_NUMERICSERV)
    except socket.gaierror:
        return await asyncio.get_running_loop().getaddrinfo(host, port, family=family, type=kind)


async def _open_address(family: int, kind: int, protocol: int, _: str, address: Any) -> socket.socket:
    sock = socket.socket(family, kind, protocol)
    try:
        sock.setblocking(False)
        await asyncio.get_running_loop().sock_connect(sock, address)
    except BaseException:
        sock.close()
        raise
    return sock


async def _open_unix(path: str, udp: bool) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM if udp else socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        while True:
            try:
                sock.connect(path)
            except BlockingIOError:  # loop.sock_connect would take this for connected
                await asyncio.sleep(BUSY_DELAY)
            else:
                return sock
    except BaseException:
        sock.close()
        raise


def _start(coroutine: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
    task = asyncio.get_running_loop().create_task(coroutine)
    _under_way.add(task)
    task.add_done_callback(_under_way.discard)
    return task


def _kind(udp: bool) -> Literal["datagram", "stream"]:
    return "datagram" if udp else "stream"


def _check_port(port: int) -> None:
    if not isinstance(port, int) or isinstance(port, bool):
        raise TypeError(f"port {port!r} is no int")
    if not 0 <= port <= 65535:
        raise ValueError(f"port {port} is none: 0 to 65535")


# ---- child processes ----


class Output(bytes):
    """What a command wrote, and how it ended.

    Attributes:
        returncode: its exit code, or minus the number of the signal that ended it.
    """

    returncode: int = 0


class Child:
    """A child process until it has ended and is reaped. `ended` is a future of its return code."""

    __slots__ = ("ended", "loop", "process", "reader")

    def __init__(self, process: Popen[bytes], reader: _engine.Socket) -> None:
        self.process = process
        self.reader = reader
        self.loop = asyncio.get_running_loop()
        self.ended: asyncio.Future[int] = self.loop.create_future()
        _children.add(self)
        try:
            pidfd = os.pidfd_open(process.pid)
        except (AttributeError, OSError):  # another system than Linux, or out of descriptors
            import threading

            threading.Thread(target=self._wait, name="80s child", daemon=True).start()
        else:
            self.loop.add_reader(pidfd, self._reap, pidfd)

    def kill(self) -> None:
        self.process.kill()

    def _reap(self, pidfd: int) -> None:
        self.loop.remove_reader(pidfd)
        os.close(pidfd)
        self._note(self.process.wait())

    def _wait(self) -> None:
        code = self.process.wait()
        with contextlib.suppress(RuntimeError):  # the loop is closed
            self.loop.call_soon_threadsafe(self._note, code)

    def _note(self, code: int) -> None:
        _children.discard(self)
        if isinstance(self.reader, Socket):
            self.reader.returncode = code
        if not self.ended.done():
            self.ended.set_result(code)


def popen(command: str | os.PathLike[str], *args: object) -> tuple[Socket, Socket]:
    """Run a command (the ancestor's `aio:popen`). Starting it takes about a millisecond of the loop's time.

    No shell is involved, stderr is the worker's, and of its descriptors the child has no other. It ignores SIGINT and
    SIGHUP as workers do, so that Ctrl+C lets requests finish that wait for it. It outlives its worker, unless closed
    pipes tell it; when it has ended it is reaped, and the reader's `returncode` is its exit code, or minus a signal.

    Arguments:
        command: a path, or a name that is looked for in PATH.
        args: its arguments, as text.
    Returns:
        A socket that reads its stdout, and one that writes to its stdin: close that when it has everything.
    Raises:
        OSError: there is no such command, or no more descriptors or processes.
        RuntimeError: no loop is running.
    """
    reader, writer, _ = _spawn(Socket, _engine.engine_of(), command, args)
    return reader, writer


def popen_raw(elfd: int, command: str | os.PathLike[str], *args: object) -> tuple[int, int]:
    """`net.popen`: as `popen`, but gives handles, for the program's module-level hooks."""
    reader, writer, _ = _spawn(_engine.Socket, _engine.engine_of(elfd), command, args)
    return reader.fd, writer.fd


def popen_read(command: str | os.PathLike[str], *args: object, limit: int = STREAM_LIMIT) -> Promise:
    """Run a command with an empty stdin and read its stdout (the ancestor's `aio:popen_read`).

    Arguments:
        command, args: as `popen`.
        limit: of what is read, in bytes.
    Returns:
        A promise of bytes, when the child has ended too; their `returncode` is its exit code, or minus a signal, and
        whatever it is, that is no error. Overflow rejects it. That, and cancelling the promise, kills the child.
    Raises:
        OSError, RuntimeError: as `popen`.
    """
    reader, writer, child = _spawn(Socket, _engine.engine_of(), command, args)
    writer.close()
    promise = promise_of(_collect(read_stream(reader, limit), child))
    promise.add_done_callback(lambda promise: _kill_unwanted(promise, child))
    return promise


async def _collect(contents: Promise, child: Child) -> Output:
    output = Output(await contents)
    output.returncode = await child.ended
    return output


def _kill_unwanted(promise: asyncio.Future[Any], child: Child) -> None:
    if promise.cancelled() or promise._exception is not None:  # exception() would mark it as looked at
        child.kill()
        child.reader.abort()


def _spawn(
    kind: type[S], engine: _engine.Engine, command: str | os.PathLike[str], args: tuple[object, ...]
) -> tuple[S, S, Child]:
    process, output, input = _start_child([command, *(one if isinstance(one, _TEXT) else str(one) for one in args)])
    try:
        reader, writer = kind(engine, "reader"), kind(engine, "writer")
        child = Child(process, reader)
    except BaseException:  # the engine is closed, or there is no loop
        os.close(output)
        os.close(input)
        process.kill()
        process.wait()
        raise
    _attach(reader, output)
    _attach(writer, input)
    return reader, writer, child


def _start_child(line: list[Any]) -> tuple[Popen[bytes], int, int]:
    """The child, and our ends of its stdout and its stdin. Python's pipes are close-on-exec."""
    import subprocess

    pipes = [*os.pipe()]
    try:
        pipes += os.pipe()
        theirs_in, ours_in, ours_out, theirs_out = pipes
        os.set_blocking(ours_in, False)
        os.set_blocking(ours_out, False)
        process = subprocess.Popen(line, stdin=theirs_in, stdout=theirs_out)
    except BaseException:
        for fd in pipes:
            os.close(fd)
        raise
    os.close(theirs_in)
    os.close(theirs_out)
    return process, ours_out, ours_in

"""Passing: idle connections go from a worker that leaves to the process in its place, as descriptors (SCM_RIGHTS).

The parent makes one `pair` of sockets for each worker's place and keeps both ends, so that what is under way survives
either process. The one that leaves has a `Giver`, the new one a `Taker`, never both at once. A message is one
connection: HEAD, the engine's flags, the bytes that were read and not used. What cannot be sent is taken back by its
engine at once: nothing waits here.
"""

from __future__ import annotations

import _socket
import errno
import os
import sys

from . import logs

TYPE_CHECKING = False
if TYPE_CHECKING:
    import asyncio
    from collections.abc import Iterable

    from .._engine import Engine

# What each message begins with: another version's process may be at the other end, and then says so by the digit.
HEAD = b"80s1"
_HEAD_BYTES = len(HEAD) + 1  # and the flags
# Unread bytes that go along: more than the longest head by default (32 kB). Who has sent more is served where it is.
UNREAD_BYTES = 48 * 1024
# Of the socket: several of the longest messages fit.
BUFFER_BYTES = 256 * 1024
# Connections in one turn of the loop, so that requests do not wait for a thousand of them.
BATCH = 64
# How often the Giver looks for connections that have become idle, in seconds.
LOOK = 0.02
# Seconds that the idle ones have beyond the grace, however short that is: they are many, or it is 0.
MORE_TIME = 2.0
# Out of descriptors or memory, here or in the kernel: when to try again, in seconds.
RETRY = 0.1
_READ_BYTES = _HEAD_BYTES + 64 * 1024  # what the engine takes
_FD_BYTES = 4
_SCARCE = (errno.ETOOMANYREFS, errno.ENOBUFS, errno.ENOMEM, errno.EMFILE, errno.ENFILE)
_FULL = (errno.EAGAIN, errno.EWOULDBLOCK)


def pair() -> tuple[int, int]:
    """For the parent: the descriptors to give to and to take from, non-blocking and not inheritable. Raises OSError."""
    # A stream would join messages, and datagrams tell of no end; but macOS has nothing else.
    kind = _socket.SOCK_SEQPACKET if sys.platform == "linux" else _socket.SOCK_DGRAM
    giving, taking = _socket.socketpair(_socket.AF_UNIX, kind)
    for end in giving, taking:
        end.setblocking(False)
        for option in _socket.SO_SNDBUF, _socket.SO_RCVBUF:
            try:
                end.setsockopt(_socket.SOL_SOCKET, option, BUFFER_BYTES)
            except OSError:  # more than this system allows: then longer messages do not go
                pass
    return giving.detach(), taking.detach()


class Giver:
    """Gives away what is idle, again and again, until it is closed. Close the engine's listeners before.

    `given` counts the connections that have gone; `more`: idle ones may be left. The descriptor stays the
    caller's.
    """

    def __init__(self, engine: Engine, fd: int, loop: asyncio.AbstractEventLoop) -> None:
        self.given = 0
        self.more = True
        # All that were idle at the beginning have gone; from then on no connection begins a request here.
        self.once_round = False
        self._came_back = False
        self._engine = engine
        self._loop = loop
        self._socket: _socket.socket | None = _socket.socket(fileno=fd)
        self._socket.setblocking(False)
        self._most = UNREAD_BYTES
        self._timer: asyncio.Handle | None = None
        self._writing = False

    def begin(self) -> None:
        """Look for the first time soon."""
        self._later(0)

    def close(self) -> None:
        """Give nothing more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._socket is not None:
            self._watch(False)
            self._socket.detach()
            self._socket = None

    def _later(self, seconds: float) -> None:
        if self._timer is None and self._socket is not None:
            self._timer = self._loop.call_later(seconds, self._turn)

    def _turn(self) -> None:
        """Give a batch. After an error that concerns the socket the rest of it is taken back."""
        self._timer = None
        try:
            idle = self._engine.give_away(self._most, BATCH)
        except (RuntimeError, MemoryError):  # a handler runs the loop; or there is none just now
            self._later(LOOK)
            return
        stop = 0
        for fd, data, flags in idle:
            error = stop or self._send(fd, data, flags)
            if not error:
                os.close(fd)
                self.given += 1
                continue
            self._take_back(fd, data, flags)
            if error == errno.EMSGSIZE and data:
                self._most = len(data) // 2
            else:
                stop = error
        self.more = bool(idle) or self._came_back  # these are for the next round
        self._came_back = bool(stop)
        self.once_round |= not stop and len(idle) < BATCH
        self._go_on(stop, 0 if len(idle) == BATCH else LOOK)

    def _go_on(self, error: int, pause: float) -> None:
        if not error:
            self._later(pause)
        elif error in _FULL:
            self._watch(True)
        elif error in _SCARCE:
            self._later(RETRY)
        else:
            logs.log("warning", f"idle connections stay in the old worker process: {os.strerror(error)}")

    def _send(self, fd: int, data: bytes, flags: int) -> int:
        """Returns the errno, or 0."""
        assert self._socket is not None
        rights = _socket.SOL_SOCKET, _socket.SCM_RIGHTS, fd.to_bytes(_FD_BYTES, sys.byteorder)
        try:
            self._socket.sendmsg([HEAD, bytes([flags]), data], [rights])
        except OSError as error:
            return error.errno or errno.EIO
        return 0

    def _take_back(self, fd: int, data: bytes, flags: int) -> None:
        """Serve it here for now."""
        try:
            self._engine.adopt(fd, data, flags)
        except (OSError, RuntimeError) as error:
            os.close(fd)
            _tell_lost(error)

    def _watch(self, on: bool) -> None:
        """Have the loop say when there is room for messages."""
        assert self._socket is not None
        if on and not self._writing:
            self._loop.add_writer(self._socket.fileno(), self._is_writable)
        elif self._writing and not on:
            self._loop.remove_writer(self._socket.fileno())
        self._writing = on

    def _is_writable(self) -> None:
        self._watch(False)
        self._turn()


class Taker:
    """Takes what the process before gives away, into an engine that serves. Close it before this one's Giver begins.

    `taken` counts the connections that have come. The descriptor stays the caller's.
    """

    def __init__(self, engine: Engine, fd: int, loop: asyncio.AbstractEventLoop) -> None:
        self.taken = 0
        self._engine = engine
        self._loop = loop
        self._socket: _socket.socket | None = _socket.socket(fileno=fd)
        self._socket.setblocking(False)
        self._timer: asyncio.Handle | None = None
        self._reading = False
        self._told = False  # that descriptors are short

    def begin(self) -> None:
        """Take what is there, and what comes."""
        self._timer = None
        if self._socket is not None and not self._reading:
            self._reading = True
            self._loop.add_reader(self._socket.fileno(), self._turn)

    def close(self) -> None:
        """Take nothing more; what comes waits in the socket for the next process."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._socket is not None:
            self._stop_reading()
            self._socket.detach()
            self._socket = None

    def _stop_reading(self) -> None:
        if self._reading and self._socket is not None:
            self._reading = False
            self._loop.remove_reader(self._socket.fileno())

    def _turn(self) -> None:
        for _ in range(BATCH):
            if self._socket is None or not self._has_room(self._socket):
                return
            try:
                data, ancillary, flags, _ = self._socket.recvmsg(
                    _READ_BYTES, _socket.CMSG_LEN(_FD_BYTES), getattr(_socket, "MSG_CMSG_CLOEXEC", 0)
                )
            except BlockingIOError:
                return
            except OSError as error:
                self._stop_reading()
                logs.log("warning", f"nothing more is taken over from the old worker process: {error.strerror}")
                return
            if not data and not ancillary:  # no message of ours: nobody holds the other end any more
                self._stop_reading()
                return
            self._take(data, _descriptors(ancillary), flags)

    def _has_room(self, taking: _socket.socket) -> bool:
        """Whether a descriptor is free. Without one the kernel would give the message, and drop what it brings."""
        try:
            os.close(os.dup(taking.fileno()))
        except OSError as error:
            self._stop_reading()
            self._timer = self._loop.call_later(RETRY, self.begin)
            if not self._told:
                logs.log("error", f"connections of the old worker process have to wait: {error.strerror}")
            self._told = True
            return False
        self._told = False
        return True

    def _take(self, data: bytes, fds: list[int], flags: int) -> None:
        """One message. Whatever is wrong with it, no descriptor stays open."""
        whole = len(fds) == 1 and not flags & (_socket.MSG_TRUNC | _socket.MSG_CTRUNC)
        if not whole or not data.startswith(HEAD) or len(data) < _HEAD_BYTES:
            _close(fds)
            _tell_lost(ValueError(f"a message of {len(data)} bytes with {len(fds)} descriptors, flags {flags:#x}"))
            return
        try:
            self._engine.adopt(fds[0], data[_HEAD_BYTES:], data[_HEAD_BYTES - 1])
        except (OSError, RuntimeError, ValueError) as error:
            _close(fds)
            _tell_lost(error)
        else:
            self.taken += 1


def _descriptors(ancillary: Iterable[tuple[int, int, bytes]]) -> list[int]:
    found = []
    for level, kind, data in ancillary:
        if (level, kind) == (_socket.SOL_SOCKET, _socket.SCM_RIGHTS):
            ends = range(_FD_BYTES, len(data) + 1, _FD_BYTES)
            found += [int.from_bytes(data[end - _FD_BYTES : end], sys.byteorder) for end in ends]
    return found


def _close(fds: list[int]) -> None:
    for fd in fds:
        os.close(fd)


def _tell_lost(error: Exception) -> None:
    if isinstance(error, OSError) and error.errno == errno.ENOTCONN:
        return  # its client has reset it
    logs.log("warning", f"a connection is closed on its way to the new worker process: {error}")

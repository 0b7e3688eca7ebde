"""What a socket reads: its Inbox, with who reads from it, and the sender held back while nobody does.

A Stream belongs to one socket, as `sock.inbox`. The engine calls its callbacks, `streams.py` and the coroutines that
read call the rest. An input ends in one of three ways: whole, when the engine says so by `on_eof`; by the program,
which closes the socket; or broken, which is everything else, and never looks like one of the others.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections import deque
from collections.abc import AsyncIterator, Callable
from typing import TYPE_CHECKING, Any, Protocol

from . import _engine
from .inbox import READ_LIMIT, Inbox, Want

if TYPE_CHECKING:
    from .streams import Socket

HOLD = 64 << 10
"""Bytes held for a reader that is busy before reading pauses: as much as one read brings, so a pause loses no speed."""
MANY_REFUSALS = 16
"""How often in a row a reader is refused what it wants, by the end of input or by Overflow, with nothing taken in
between. One that asks on and on never waits, and would hold the loop for ever, which a peer could bring about."""
TWO_READERS = "the socket has a reader already: two would each get half of the pieces"
STUCK = f"the reader was told {MANY_REFUSALS} times that it cannot have what it wants, and asks on and on"

_SLOTS: Any = _engine.Socket.__dict__  # on_data and on_eof as the engine reads them, beneath Socket's own
_logger = logging.getLogger("eighties")


class Reader(Protocol):
    """A function that reads: one call of cor or buffered_cor."""

    clean: BaseException | None
    """What was raised in it at the end of input, when nothing was left."""
    shares: bool
    """It may use `Socket.read`, too: it is a coroutine, and has begun (on Python 3.11 at the loop's next turn)."""


def comes_of(error: BaseException, sock: _engine.Socket) -> bool:
    """Whether this socket's own end was the reason for an error that its readers got."""
    return vars(error).get("of_socket") == sock.fd


class Stream(Inbox):
    """A socket's input, for one reader at a time: `async for chunk in stream`, `await stream.read(want)`.

    `wake` is who waits for more to come, `reader` the function that reads, if it is one of cor or buffered_cor. `heir`
    is the program's own on_data, until it has got what is held here; the engine calls ours for as long as we listen.
    """

    __slots__ = (
        *("awaited", "came", "ended", "heir", "held_open", "listening", "loop", "passed_on", "paused", "reader"),
        *("sock", "waiter", "wake", "whole"),
    )

    flat = READ_LIMIT  # a generator's numbers up to this are taken without asking `take`

    def __init__(self, sock: Socket) -> None:
        super().__init__()
        self.sock = sock
        self.loop = asyncio.get_running_loop()
        self.reader: Reader | None = None
        self.wake: Callable[[], object] | None = None
        self.waiter: asyncio.Future[None] | None = None
        self.heir: Callable[..., object] | None = None
        self.came = 0  # bytes, ever
        self.awaited = False  # read by Socket.read: the program closes the socket
        self.held_open = False  # whatever readers do: whoever asked for that closes the socket
        self.ended = False
        self.whole = False  # ended, and the engine said so
        self.listening = False
        self.passed_on = False  # the program's own on_eof was told of the end
        self.paused = False

    # ---- the engine's side ----

    def listen(self) -> None:
        """Have the engine call this stream, and nobody else."""
        self.heir = None
        self.listening = True
        _SLOTS["on_data"].__set__(self.sock, self.on_data)
        self.sock.on_eof = self.on_eof

    def on_data(self, elfd: int, childfd: int, data: bytes, length: int) -> None:
        self.came += len(data)
        self.put(data)
        if self.wake is not None:
            self.wake()
        elif len(self.data) - self.start >= HOLD and not self.paused:
            self.paused = True
            self.sock.pause()

    def on_eof(self, elfd: int, childfd: int) -> bool:
        self.whole = True
        self.end()
        if self.reader is None and not self.awaited:
            self.soon(self._leave)  # as in release: it may have ended in this turn
        return True

    def end(self) -> None:
        """The input is over."""
        self.ended = True
        if self.wake is not None:
            self.wake()

    # ---- the program's own on_data, after something was read here ----

    def leave_to(self, function: Callable[..., object] | None) -> None:
        """The program sets on_data. What is held is its own first, in the loop's next turn; until then we listen on."""
        if function is not None and (self.held or (self.ended and not self.passed_on)):
            self.heir = function
            self.soon(self._bequeath)
            return
        self.heir = None
        self._stop_listening()
        _SLOTS["on_data"].__set__(self.sock, function)
        if function is not None:
            self._read_on()

    def _bequeath(self) -> None:
        if self.heir is not None and not self.sock.closed:
            self.bequeath()

    def bequeath(self) -> None:
        """Call the heir with what is held, as the engine would; then the engine calls it."""
        sock, heir = self.sock, self.heir
        try:
            while heir is not None and self.heir is heir and (chunk := self.take(None)) is not None:
                _refuse_coroutine(heir(sock.elfd, sock.fd, chunk, len(chunk)))
            if heir is None or self.heir is not heir:  # it has set another, or reads here again
                return
            self.heir = None
            self._stop_listening()
            _SLOTS["on_data"].__set__(sock, heir)
            self._read_on()
            if self.ended and not sock.closed:
                self.passed_on = True
                if not (sock.on_eof and sock.on_eof(sock.elfd, sock.fd)):
                    sock.close()
        except BaseException as error:  # noqa: BLE001 as in the engine: it closes the connection, and nothing else
            self.heir = None
            _logger.error("on_data failed", exc_info=error)
            sock.abort()

    def _stop_listening(self) -> None:
        self.listening = False
        if getattr(self.sock.on_eof, "__self__", None) is self:
            self.sock.on_eof = None

    def _read_on(self) -> None:
        if self.paused:
            self.paused = False
            self.sock.resume()

    # ---- the reader's side ----

    @property
    def busy(self) -> bool:
        """Whether a task waits for a piece. One that was cancelled just now does not, though it has not run yet."""
        return self.waiter is not None and not self.waiter.done()

    def check_free(self) -> None:
        if self.reader is not None or self.busy:
            raise RuntimeError(TWO_READERS)

    def release(self, reader: Reader, failed: bool = False) -> None:
        """The reader has ended; what it has not read is kept for the next one."""
        if self.reader is reader:
            self.reader = self.wake = None
            self.trim()
        if failed or (self.ended and not self.awaited):
            self.soon(self._fail if failed else self._leave)  # who awaits the promise may write or read on first

    def soon(self, callback: Callable[[], object]) -> None:
        """At the loop's next turn, if there will be one: readers may be cancelled when the worker ends."""
        if not self.loop.is_closed():
            self.loop.call_soon(callback)

    def _leave(self) -> None:
        if self.listening and self.heir is None:  # else the program's callbacks have it
            self._fail()

    def _fail(self) -> None:
        if self.reader is None and not self.busy and not self.held_open:
            self.sock.close()

    def expect(self, wake: Callable[[], object]) -> None:
        """Call `wake` when more has come, or the end."""
        self.wake = wake
        self.trim()
        self._read_on()

    async def read(self, want: Want = None, limit: int = READ_LIMIT) -> bytes:
        """As `Socket.read`."""
        if self.busy:
            raise RuntimeError(TWO_READERS)
        try:
            while (piece := self.take(want, limit)) is None:
                if self.ended:
                    self.at_end(want)
                    break
                await self._more()
        except Exception:
            await self._check_progress()
            raise
        if piece is None:
            await self._check_progress()
            return b""
        return piece

    async def _more(self) -> None:
        if self.busy:  # it came while this one was woken, and found it free
            raise RuntimeError(TWO_READERS)
        self.waiter = waiter = self.loop.create_future()
        self.expect(self._wake_waiter)
        try:
            await waiter
        finally:
            if self.waiter is waiter:  # it may be the next one's, who came when this one was cancelled
                self.wake = self.waiter = None

    def _wake_waiter(self) -> None:
        self.wake = None  # until the task runs nobody reads, and what comes is held as for any busy reader
        if self.waiter is not None and not self.waiter.done():
            self.waiter.set_result(None)

    async def _check_progress(self) -> None:
        if self.stuck():
            await asyncio.sleep(0)  # should it outlive even this error, the loop goes on
            raise RuntimeError(STUCK) from None

    def stuck(self) -> bool:
        """The reader is refused what it wants: whether that is MANY_REFUSALS times with nothing taken in between."""
        sock, taken = self.sock, self.came - self.held
        if sock._taken != taken:
            sock._taken = taken
            sock._refusals = 0
        sock._refusals += 1
        return sock._refusals > MANY_REFUSALS

    def at_end(self, want: Want, told: bool = False) -> bytes:
        """What the reader gets when there is no more.

        Of a broken input an OSError. Else b"" for a chunk, unless it was `told` so, and the shortage for what it wants.
        """
        error: Exception | None = None if self.whole else self.sock.breakage()
        if error is None:
            if not told and (want is None or (isinstance(want, tuple) and want[0] is None)):
                return b""
            error = shortage = self.shortage(want)
            if not shortage.partial and self.reader is not None:
                self.reader.clean = shortage
            del shortage
        vars(error)["of_socket"] = self.sock.fd
        try:
            raise error
        finally:
            del error  # this frame is in its traceback

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        chunk = await self.read()
        if not chunk:
            raise StopAsyncIteration
        return chunk


class Datagrams(Stream):
    """The input of a datagram socket: each chunk is one datagram, nothing else can be wanted. Empty ones are lost."""

    __slots__ = ("sizes",)

    flat = -1

    def __init__(self, sock: Socket) -> None:
        super().__init__(sock)
        self.sizes: deque[int] = deque()

    def put(self, chunk: bytes) -> None:
        if chunk:
            self.sizes.append(len(chunk))
            super().put(chunk)

    def take(self, want: Want, limit: int = READ_LIMIT) -> bytes | None:
        if want is not None:
            raise TypeError(f"{want!r} wanted of a datagram socket, which gives whole datagrams: want None")
        return super().take(self.sizes.popleft()) if self.sizes else None


def _refuse_coroutine(result: object) -> None:
    if inspect.iscoroutine(result):
        result.close()
        raise TypeError("on_data must be a plain function, not async def: start a task in it")

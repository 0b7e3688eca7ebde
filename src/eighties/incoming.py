"""What a socket reads: its Inbox, with who reads from it, and the sender held back while nobody does.

A Stream belongs to one socket, as `sock.inbox`. The engine calls its callbacks, `streams.py` and the coroutines that
read call the rest.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable
from typing import Protocol

from . import _engine
from .inbox import READ_LIMIT, Inbox, Want

HOLD = 64 << 10
"""Bytes held for a reader that is busy before reading pauses: as much as one read brings, so a pause loses no speed."""
TWO_READERS = "the socket has a reader already: two would each get half of the pieces"


class Reader(Protocol):
    """A function that reads: one call of cor or buffered_cor."""

    clean: BaseException | None
    """What was raised in it at the end of input, when nothing was left."""


class Stream(Inbox):
    """A socket's input, for one reader at a time: `async for chunk in stream`, `await stream.read(want)`.

    `wake` is who waits for more to come, `reader` the function that reads, if it is one of cor or buffered_cor.
    """

    __slots__ = ("awaited", "ended", "loop", "paused", "reader", "sock", "waiter", "wake")

    flat = READ_LIMIT  # a generator's numbers up to this are taken without asking `take`

    def __init__(self, sock: _engine.Socket) -> None:
        super().__init__()
        self.sock = sock
        self.loop = asyncio.get_running_loop()
        self.reader: Reader | None = None
        self.wake: Callable[[], object] | None = None
        self.waiter: asyncio.Future[None] | None = None
        self.awaited = False  # read by Socket.read: the program closes the socket
        self.ended = False
        self.paused = False

    # ---- the engine's side ----

    def on_data(self, elfd: int, childfd: int, data: bytes, length: int) -> None:
        self.put(data)
        if self.wake is not None:
            self.wake()
        elif len(self.data) - self.start >= HOLD and not self.paused:
            self.paused = True
            self.sock.pause()

    def on_eof(self, elfd: int, childfd: int) -> bool:
        self.end()
        if self.reader is None and not self.awaited:
            self.soon(self._leave)  # as in release: it may have ended in this turn
        return True

    def end(self) -> None:
        """The input is over."""
        self.ended = True
        if self.wake is not None:
            self.wake()

    # ---- the reader's side ----

    def check_free(self) -> None:
        if self.reader is not None or self.waiter is not None:
            raise RuntimeError(TWO_READERS)

    def release(self, reader: Reader, failed: bool = False) -> None:
        """The reader has ended; what it has not read is kept for the next one."""
        if self.reader is reader:
            self.reader = self.wake = None
            self.trim()
        if failed or (self.ended and not self.awaited):
            self.soon(self._leave)  # whoever awaits the reader's promise may write or read on first

    def soon(self, callback: Callable[[], object]) -> None:
        """At the loop's next turn, if there will be one: readers may be cancelled when the worker ends."""
        if not self.loop.is_closed():
            self.loop.call_soon(callback)

    def _leave(self) -> None:
        if self.reader is None and self.waiter is None:
            self.sock.close()

    def expect(self, wake: Callable[[], object]) -> None:
        """Call `wake` when more has come, or the end."""
        self.wake = wake
        self.trim()
        if self.paused:
            self.paused = False
            self.sock.resume()

    async def read(self, want: Want = None, limit: int = READ_LIMIT) -> bytes:
        """As `Socket.read`."""
        if self.waiter is not None:
            raise RuntimeError(TWO_READERS)
        piece = self.take(want, limit)
        while piece is None:
            if self.ended:
                return self.at_end(want)
            await self._more()
            piece = self.take(want, limit)
        return piece

    async def _more(self) -> None:
        self.waiter = self.loop.create_future()
        self.expect(self._wake_waiter)
        try:
            await self.waiter
        finally:
            self.wake = self.waiter = None

    def _wake_waiter(self) -> None:
        self.wake = None  # until the task runs nobody reads, and what comes is held as for any busy reader
        if self.waiter is not None and not self.waiter.done():
            self.waiter.set_result(None)

    def at_end(self, want: Want, told: bool = False) -> bytes:
        """What the reader gets when there is no more: b"" for a chunk, unless it was `told` so, else the shortage."""
        if not told and (want is None or (isinstance(want, tuple) and want[0] is None)):
            return b""
        error = self.shortage(want)
        if not error.partial and self.reader is not None:
            self.reader.clean = error
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

    def __init__(self, sock: _engine.Socket) -> None:
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

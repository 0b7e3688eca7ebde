"""Sockets as streams: what comes is read in the pieces that are wanted, by generators, coroutines or `await`.

A Socket is a raw connection of the engine. Its Stream, `sock.inbox`, is made when something first reads in this way; it
owns what has come and was not read yet, and who reads. The engine calls the Stream's callbacks, programs call the
functions here through `aio`, `handlers.py` and `outgoing.py` make sockets. The module keeps no state.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections.abc import Awaitable, Callable, Generator
from types import FunctionType
from typing import Any

from . import _engine
from .heads import Headers, get_ip, http_answer
from .inbox import READ_LIMIT, Overflow, Want
from .incoming import STUCK, TWO_READERS, Datagrams, Stream, comes_of
from .promise import Promise, Resolver, new_promise, promise_of

__all__ = ["READ_LIMIT", "STREAM_LIMIT", "Overflow", "Socket", "buffered_cor", "cor", "get_ip", "read_stream"]

STREAM_LIMIT = 16 << 20
"""Bytes that `read_stream` collects unless told otherwise: far more than a page, far less than a worker's memory."""
WRITE_HOLD = 64 << 10
"""Bytes that may wait in a socket before `drain` does: the engine's RAW_HOLD_BYTES, beyond which it tells when they are
sent."""

Callback = Callable[..., object] | None
Steps = Generator[Any, Any, Any]

_SLOTS: Any = _engine.Socket.__dict__  # on_data, on_close and on_write as the engine reads them, beneath Socket's own
_logger = logging.getLogger("eighties")


class Socket(_engine.Socket):
    """A connection, or one end of a pipe. Programs may put attributes of their own on it.

    A program sets callbacks (`on_data`…, see `_engine.Socket`), or has it read: then `on_data` and `on_eof` are taken.
    Nothing is read while neither is done, so to hear of the peer's end, set `on_data`, or read: `on_close` alone is not
    told of a peer that has left.

    Whoever reads is told how the input has ended. Whole: the peer ended it, or, of a request's body, all has come.
    Closed by the program itself: as if whole. Broken, by a reset, a body that is cut short or malformed, or a
    connection that could not be made: pieces that have come are still given, then every read raises
    ConnectionResetError, or `error`.

    Attributes:
        name: for the program; the server does not use it.
        error: why connecting failed; readers and `drain` raise it.
        returncode: of a `popen` reader, when the child has ended: its exit code, or minus the signal that ended it.
    """

    name: Any = None
    error: OSError | None = None
    returncode: int | None = None

    _attempt: asyncio.Task[None] | None = None
    _closed_here = False  # by the program, not by its peer
    _ended_whole = False  # its stream, which is gone when the connection is
    _held_open = False
    _on_close: Callback = None
    _on_write: Callback = None
    _refusals = 0  # see Stream.stuck
    _taken = 0
    _waiters: list[asyncio.Future[None]] | None = None

    @property
    def on_data(self) -> Callable[[int, int, bytes, int], object] | None:
        """`(elfd, childfd, data, length)`. Nothing is read while it is None.

        Set after something was read, it gets what has come and was not read first, in the loop's next turn.
        """
        stream: Stream | None = self.inbox
        function: Callable[[int, int, bytes, int], object] | None = _SLOTS["on_data"].__get__(self)
        return function if stream is None or stream.heir is None else stream.heir

    @on_data.setter
    def on_data(self, function: Callable[[int, int, bytes, int], object] | None) -> None:
        stream: Stream | None = self.inbox
        if stream is None:
            _SLOTS["on_data"].__set__(self, function)
        else:
            stream.leave_to(function)

    # The program's on_close and on_write are called from ours: readers and `drain` must hear of them whenever the
    # program sets its own.

    @property
    def on_close(self) -> Callback:
        """`(elfd, childfd)`: once, after the end. Readers have been told by then."""
        return self._on_close

    @on_close.setter
    def on_close(self, function: Callback) -> None:
        self._on_close = function
        _SLOTS["on_close"].__set__(self, self._ended)

    @property
    def on_write(self) -> Callback:
        """`(elfd, childfd)`: connected, or what had to wait has been sent."""
        return self._on_write

    @on_write.setter
    def on_write(self, function: Callback) -> None:
        self._on_write = function
        _SLOTS["on_write"].__set__(self, self._written)

    def write(self, data: str | bytes | bytearray | memoryview, close: bool = False) -> bool:
        """Send, text as UTF-8. What the kernel does not take at once is queued.

        Arguments:
            close: close when it has been sent.
        Returns:
            False: the connection is closed or being closed, and nothing is sent.
        """
        taken = super().write(data.encode() if isinstance(data, str) else data)
        if close:
            self.close()
        return taken

    def close(self) -> bool:
        """Send what is queued, then close. False: that was done before.

        Who reads is told at the loop's next turn; `on_close` waits, within a bound, for the peer to close as well.
        """
        first = super().close()
        stream: Stream | None = self.inbox
        if first:
            self._closed_here = True
            if stream is not None:
                stream.soon(stream.end)
        return first

    def abort(self) -> None:
        """Close at once; what is queued is lost."""
        if not self.closed:
            self._closed_here = True
        super().abort()

    async def drain(self) -> None:
        """Wait until little of what was written is still unsent, so that a fast writer holds no more than it must.

        Raises:
            ConnectionError: the connection is closed.
            OSError: it could not be made.
        """
        while self.buffered > WRITE_HOLD and self.writable:
            future = asyncio.get_running_loop().create_future()
            if self._waiters is None:
                self._waiters = []
                self.on_write, self.on_close = self._on_write, self._on_close
            self._waiters.append(future)
            await future
        if not self.writable:  # also where the peer was found to be gone, and there is still something to be read
            raise self.breakage() or ConnectionResetError("the connection is closed")

    def read(self, want: Want = None, limit: int | None = None) -> Awaitable[bytes]:
        """The next piece: `head = await sock.read(4)`, `line = await sock.read(b"\\r\\n", 4096)`.

        Who reads so closes the socket, too: when the peer has ended its input, writing goes on until `close()`. A read
        that is cancelled takes nothing. b"" is always the end of a whole input, or this program's own `close()`.

        Arguments:
            want: so many bytes; all up to a delimiter, which is taken and left out; or None: the next chunk, b"" at the
                end.
            limit: longest piece, in bytes; READ_LIMIT if it is None.
        Raises:
            asyncio.IncompleteReadError: the input has ended; `partial` is what there was of the piece.
            OSError: the input is broken: `error` where connecting failed, else ConnectionResetError.
            Overflow: the piece would be longer.
            RuntimeError: something else is reading; or this was asked MANY_REFUSALS times, to no end.
            TypeError, ValueError: nothing of the kind can be wanted.
        """
        stream = _stream_of(self)
        if stream.reader is None:
            stream.awaited = True
        elif not stream.reader.shares:
            raise RuntimeError(TWO_READERS)
        return stream.read(want, READ_LIMIT if limit is None else limit)

    def http_response(self, status: int | str, headers: Headers = None, body: Any = None) -> bool:
        """Write an HTTP/1.1 answer (RFC 9112).

        Arguments:
            status: 200, `"200 OK"` or `"404 Not Found"`.
            headers: a mapping, or pairs; or a text, which is the Content-Type; or None.
            body: bytes, text, anything else as JSON (`http.encode_json`); Content-Length is set. None: only the head is
                written, and what is written next is the body, up to the end of the connection (`Connection: close`)
                unless the headers say how long it is.
        Returns:
            False: the connection is closed.
        Raises:
            ValueError: something that may not stand in a head, or a body where the status allows none.
            TypeError: there is no JSON for the body.
        """
        return self.write(http_answer(status, headers, body))

    def hold_open(self) -> None:
        """For `handlers.py`, which closes it when the handler has ended: readers that end do not."""
        self._held_open = True
        stream: Stream | None = self.inbox
        if stream is not None:
            stream.held_open = True

    @property
    def left(self) -> bool:
        """Whether the connection is closed, and it was not the program that closed it."""
        return self.closed and not self._closed_here

    def breakage(self) -> OSError | None:
        """What to raise for an input that has not ended whole; None where the program has closed it.

        A new error each time: it will have frames in its traceback, and they have the socket.
        """
        if self.error is not None:
            return type(self.error)(*self.error.args)
        return None if self._closed_here else ConnectionResetError("the connection broke before its input had ended")

    def bind(self, attempt: asyncio.Task[None]) -> None:
        """For `outgoing.py`: what connects it, to be cancelled when it is closed before."""
        self._attempt = attempt
        self.on_close = self._on_close

    def _ended(self, elfd: int, childfd: int) -> None:
        stream: Stream | None = self.inbox
        function, self._on_close, self._on_write = self._on_close, None, None
        if self._attempt is not None:
            self._attempt.cancel()
            self._attempt = None
        if stream is not None:
            self._ended_whole = stream.whole
            stream.end()
            if stream.heir is not None and not self._closed_here:
                stream.bequeath()
        self._wake()
        if function is not None:
            function(elfd, childfd)

    def _written(self, elfd: int, childfd: int) -> None:
        self._wake()
        if self._on_write is not None:
            self._on_write(elfd, childfd)

    def _wake(self) -> None:
        waiters, self._waiters = self._waiters, None
        for future in waiters or ():
            if not future.done():
                future.set_result(None)


# ---- who reads ----


def _stream_of(sock: Socket) -> Stream:
    """The socket's Stream, listening."""
    stream: Stream | None = sock.inbox
    if stream is None:
        stream = Datagrams(sock) if sock.kind == "datagram" else Stream(sock)
        stream.held_open = sock._held_open
        if sock.closed:
            stream.ended = True
            stream.whole = sock._ended_whole
            return stream
        sock.inbox = stream
        sock.on_close = sock._on_close  # from now on ours is called
    if not stream.listening and not sock.closed:
        stream.listen()
    elif stream.heir is not None:  # the program reads on instead
        stream.heir = None
    return stream


class _Reader:
    """One call of cor or buffered_cor; settles its promise. `given`: the function has `resolve`, may do it itself."""

    __slots__ = ("clean", "given", "promise", "shares", "stream")

    def __init__(self, stream: Stream, promise: Promise, given: bool) -> None:
        self.clean: BaseException | None = None  # raised at the end of input with nothing left
        self.shares = False
        self.stream = stream
        self.promise = promise
        self.given = given
        stream.reader = self
        promise._source = self

    def finish(self, value: Any) -> None:
        promise = self._let_go()
        if value is not None or not self.given:
            promise.settle((value,))
        self.stream.release(self)

    def fail(self, error: BaseException) -> None:
        promise = self._let_go()
        fails = not isinstance(error, asyncio.CancelledError)
        if error is self.clean:
            promise.settle(())
            fails = False
        elif promise.fail(error):
            if self._peer_left(error) and not promise._callbacks:
                promise._log_traceback = False  # who asks is told; but peers shall not fill the log by leaving
        elif fails and not comes_of(error, self.stream.sock):
            _logger.error("a reader failed after it had resolved its promise", exc_info=error)
        self.clean = None
        self.stream.release(self, fails)

    def _peer_left(self, error: BaseException) -> bool:
        """Whether the reader failed by nothing else, and nothing of a piece had come."""
        stream = self.stream
        broke = isinstance(error, ConnectionResetError) and comes_of(error, stream.sock)
        return broke and stream.sock.error is None and not stream.held

    def _let_go(self) -> Promise:
        """The promise, which keeps an error, which keeps frames, which keep this reader."""
        promise = self.promise
        promise._source = None
        del self.promise
        return promise

    def cancel(self, msg: Any | None = None) -> bool:
        raise NotImplementedError


class _Steps(_Reader):
    """A generator: is sent each piece it yields for, and what comes of what it yields to be awaited."""

    __slots__ = ("generator", "running", "told", "waiting", "want")

    def __init__(self, stream: Stream, promise: Promise, given: bool, generator: Steps) -> None:
        super().__init__(stream, promise, given)
        self.generator = generator
        self.told = False
        self.running = False
        self.waiting: Promise | None = None
        self.want: Any = None

    def run(self, resume: Callable[[Any], Any] | None, value: Any) -> None:
        """Send (or throw) the value, and go on for as long as what is wanted is here."""
        stream, send, flat = self.stream, self.generator.send, self.stream.flat
        self.running = True
        try:
            while resume is not None:
                want = resume(value)
                if type(want) is int and 0 <= want <= flat:  # the same as take() does, without the calls
                    start = stream.start
                    end = start + want
                    data = stream.data
                    if end <= len(data):
                        stream.start = end
                        value = data[start:end]
                        if type(value) is not bytes:
                            value = bytes(value)
                        resume = send
                        continue
                resume, value = self.answer(want)
        except StopIteration as stop:
            self.finish(stop.value)
        except BaseException as error:
            self.fail(error)  # SystemExit, too: whoever looks at the promise is told, and nothing else ends by it
        finally:
            self.running = False
            resume = value = None  # an error that was thrown in has this frame in its traceback

    def answer(self, want: Any) -> tuple[Callable[[Any], Any] | None, Any]:
        """How to go on with a generator that has yielded this: its `send` or `throw`, and what; None: later."""
        stream = self.stream
        try:
            if hasattr(type(want), "__await__"):
                self.waiting = promise_of(want)
                self.waiting.add_done_callback(self.arrived)
                return None, None
            piece = stream.take(want)
            if piece is None and not stream.ended:
                self.want = want
                stream.expect(self.advance)
                return None, None
            if piece is not None:
                return self.generator.send, piece
            piece = stream.at_end(want, self.told)
            self.told = True
            if not stream.stuck():
                return self.generator.send, piece
        except Exception as error:
            if not stream.stuck():
                return self.generator.throw, error
        self.generator.close()
        raise RuntimeError(STUCK)

    def advance(self) -> None:
        """More has come, or the end."""
        if not self.running:
            self.stream.wake = None
            self.run(*self.answer(self.want))

    def arrived(self, promise: asyncio.Future[Any]) -> None:
        """What was awaited has come."""
        self.waiting = None
        error = asyncio.CancelledError() if promise.cancelled() else promise.exception()
        if error is not None:
            self.run(self.generator.throw, error)
        else:
            self.run(self.generator.send, promise.result())

    def cancel(self, msg: Any | None = None) -> bool:
        if self.running:  # by itself: it goes on to its next yield
            self.stream.soon(lambda: self.cancel(msg))
            return True
        if self.stream.reader is not self:
            return False
        if self.waiting is not None:
            self.waiting.remove_done_callback(self.arrived)
            self.waiting.cancel(msg)
        try:
            self.generator.close()
        except BaseException as error:
            self.fail(error)
        else:
            self.fail(asyncio.CancelledError() if msg is None else asyncio.CancelledError(msg))
        return True


class _Course(_Reader):
    """A coroutine: reads by itself."""

    __slots__ = ("course",)

    def start(self, function: Callable[..., Awaitable[Any]], arguments: list[object]) -> None:
        self.course = promise_of(self.perform(function, arguments))
        self.course.add_done_callback(self.ended)

    async def perform(self, function: Callable[..., Awaitable[Any]], arguments: list[object]) -> Any:
        self.shares = True
        try:
            return await function(*arguments)
        finally:  # whoever has been waiting for `resolve` may be the next reader before `ended` is called
            if self.stream.reader is self:
                self.stream.reader = None

    def ended(self, course: asyncio.Future[Any]) -> None:
        del self.course
        error = asyncio.CancelledError() if course.cancelled() else course.exception()
        if error is not None:
            self.fail(error)
        else:
            self.finish(course.result())

    def cancel(self, msg: Any | None = None) -> bool:
        return self.course.cancel(msg)


def cor(sock: Socket, function: Callable[..., Any]) -> Promise:
    """Have a function read a socket chunk by chunk (the ancestor's `aio:cor`).

        ==============  ===========================  ==================================
        function        parameters                   to read a chunk, a piece
        ==============  ===========================  ==================================
        generator       none, or `resolve`           `yield`, `yield 4`
        `async def`     `stream`, or with `resolve`  `async for`, `await stream.read(4)`
        ==============  ===========================  ==================================

    Arguments:
        function: by that table. A generator gets b"" at the end of input. All else as `buffered_cor`.
    """
    stream = _stream_of(sock)
    return _begin(stream, function, stream)


def buffered_cor(sock: Socket, reader: Callable[..., Any]) -> Promise:
    """Have a function read a socket in pieces (the ancestor's `aio:buffered_cor`). It starts at once.

    A want is a number of bytes; a delimiter, which is taken and left out; a pair of either and a limit in bytes, where
    otherwise READ_LIMIT counts; or None for the next chunk, b"" at the end of a whole input. While a reader does
    something else, its input is held, and beyond 64 kB the sender waits. One that ends leaves what it has not read to
    the next one; but if the input had ended, or the reader has failed, the socket is closed in the loop's next turn.

        ==============  ===========================  ==================================
        reader          parameters                   to read a piece, to await
        ==============  ===========================  ==================================
        generator       none, or `resolve`           `yield 4`, `row = yield promise`
        `async def`     `read`, or with `resolve`    `await read(4)`, `await promise`
        ==============  ===========================  ==================================

    Arguments:
        reader: by that table.
    Returns:
        A promise of what the reader returns, or of what it calls `resolve` with. It is None when the input ended whole
        between two pieces and the reader left it at that. Cancelling it ends the reader, not the socket.
    Raises (in the reader, where it wants):
        asyncio.IncompleteReadError: the input has ended, or the program has closed the socket; `partial` is the rest.
        OSError: the input is broken, see `Socket`: ConnectionResetError, or why the connection could not be made.
        Overflow: the piece would be longer than the limit; what came is still there.
        TypeError, ValueError: nothing of the kind can be wanted.
    Raises:
        RuntimeError: the socket has a reader already, or no loop is running.
        TypeError: the function is neither a generator function nor a coroutine function, or takes other parameters.
    """
    stream = _stream_of(sock)
    return _begin(stream, reader, stream.read)


def _begin(stream: Stream, function: Callable[..., Any], face: object) -> Promise:
    is_async, count = _shape(function)
    arguments: list[object] = [face] if is_async else []
    given = count == len(arguments) + 1
    if not given and count != len(arguments):
        raise TypeError(
            f"{function!r} takes {count} parameters, a reader takes {len(arguments)}, and may take `resolve`"
        )
    stream.check_free()
    promise = new_promise()
    if given:
        arguments.append(Resolver(promise))
    if is_async:
        _Course(stream, promise, given).start(function, arguments)
        return promise
    steps = function(*arguments)
    if not isinstance(steps, Generator):
        raise TypeError(f"{function!r} is neither a generator function nor a coroutine function: it has no `yield`")
    _Steps(stream, promise, given, steps).run(steps.send, None)
    try:
        return promise
    finally:
        del promise  # if it has failed already, this frame is in its error's traceback


def _shape(function: Callable[..., Any]) -> tuple[bool, int]:
    """Whether it is a coroutine function, and how many parameters it must be given."""
    if type(function) is FunctionType and not hasattr(function, "__wrapped__"):
        code = function.__code__
        return bool(code.co_flags & inspect.CO_COROUTINE), code.co_argcount - len(function.__defaults__ or ())
    is_async = inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(type(function).__call__)
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    parameters = inspect.signature(function).parameters.values()
    return is_async, sum(one.kind in kinds and one.default is one.empty for one in parameters)


def read_stream(sock: Socket, limit: int = STREAM_LIMIT) -> Promise:
    """All that comes until the end of input (the ancestor's `aio:read_stream`).

    Arguments:
        limit: in bytes.
    Returns:
        A promise of bytes; rejected with Overflow when more has come, and the socket is closed, and with OSError when
        the input is broken: part of it is not taken for the whole.
    Raises:
        RuntimeError: the socket has a reader already.
    """

    def collect() -> Generator[None, bytes, bytes]:
        data = bytearray()  # no list: small chunks would take many times their size
        while chunk := (yield):
            data += chunk
            if len(data) > limit:
                raise Overflow(limit)
        return bytes(data)

    return buffered_cor(sock, collect)

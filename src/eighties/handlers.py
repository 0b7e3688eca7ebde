"""Handlers in the ancestor's way: `handler(fd, query, headers, body)`, streams that take a connection over, protocols.

Owns `program`, an App which the loader mounts in the program's own, or serves alone, and the table of protocols that
the engine asks through `chooser`. Both are filled while a program is loaded. `aio` hands the names on.
"""

from __future__ import annotations

import asyncio
import functools
import inspect
import logging
from collections.abc import Callable
from types import GeneratorType
from typing import Any, NamedTuple, TypeVar, cast, overload

from . import _engine
from .app import App, checked_methods
from .errors import HTTPError, header_pairs
from .http import Request, Response
from .incoming import comes_of
from .patterns import handler_name, parse_pattern
from .promise import BrokenPromise, Promise, Resolver, async_, prepare_promise, promise_of
from .streams import Overflow, Socket, buffered_cor

Handler = Callable[..., Any]
H = TypeVar("H", bound=Handler)
Matches = Callable[[bytes], bool | None]

program = App()
"""The routes of the functions below."""

_protocols: dict[str, Protocol] = {}
_logger = logging.getLogger("eighties")


Registered = tuple[App, dict[str, "Protocol"]]


def has_routes() -> bool:
    """Whether the program has registered any route here."""
    return bool(program._entries)


def has_protocols() -> bool:
    """Whether the engine has to look at first bytes."""
    return bool(_protocols)


def take() -> Registered:
    """Take all that is registered, and begin anew: a program is loaded again."""
    global program, _protocols
    taken = program, _protocols
    program, _protocols = App(), {}
    return taken


def put_back(taken: Registered | None) -> None:
    """What `take` gave is in force again; None: nothing was."""
    global program, _protocols
    program, _protocols = taken or (App(), {})


# ---- http_*: the answer is made through fd, now or later ----


class Answer:
    """The `fd` of an http handler: `http_response` answers, once, now or later.

    One that nobody holds any more and that has not answered is a 500 and a line in the log.
    """

    __slots__ = ("_handler", "_loop", "_request", "_resolve", "_response")

    def __init__(self, request: Request, handler: Handler) -> None:
        self._request = request
        self._handler = handler
        self._loop: asyncio.AbstractEventLoop | None = None
        self._resolve: Resolver | None = None
        self._response: Response | None = None

    @property
    def closed(self) -> bool:
        """Whether the client is gone, or has its answer."""
        return self._response is not None or not self._request.connected

    @property
    def peername(self) -> tuple[str, int] | str:
        """The other end: address and port, or `unix`."""
        return self._request.peername

    @property
    def request(self) -> Request:
        """The request as App handlers get it."""
        return self._request

    def http_response(self, status: int | str, headers: Any = None, body: Any = None) -> bool:
        """Answer (the ancestor's `fd:http_response`).

        Arguments:
            status: 200, or "200 OK", of which the number counts.
            headers: a mapping or pairs; or a text, which is the Content-Type; or None.
            body: text, bytes, None for no body, anything else as JSON.
        Returns:
            False when the client is gone.
        Raises:
            RuntimeError: it has been answered already.
            ValueError: the status is no number.
            TypeError: the body has no JSON.
        """
        if self._response is not None:
            raise RuntimeError(f"{handler_name(self._handler)} has answered already: http_response may be called once")
        self._response = _response(status, headers, body)
        if self._resolve is None:  # within the handler: what it returns is looked at afterwards
            return self._request.connected
        return self._resolve(self._response)

    def _outcome(self, value: object) -> object:
        """What the engine gets when the handler has ended with this value."""
        if self._response is not None:
            return self._response
        if value is not None:
            return value
        self._resolve, promise = prepare_promise()
        self._loop = promise.get_loop()
        return promise

    def __del__(self) -> None:
        # The resolver would do the same, but cannot name the handler. In another thread, though, it knows what to do
        if self._loop is not None and self._loop is asyncio._get_running_loop() and self._resolve is not None:
            name = handler_name(self._handler)
            self._resolve.reject(BrokenPromise(f"{name} let go of its fd without http_response"))


def _response(status: int | str, headers: Any, body: Any) -> Response:
    number = int(status.split(" ", 1)[0]) if isinstance(status, str) else status
    if isinstance(headers, str):
        headers = {"Content-Type": headers}
    if body is None:
        return Response(None, number, header_pairs(headers))
    if isinstance(body, str):
        return Response.text(body, number, headers=headers)
    if isinstance(body, (bytes, bytearray, memoryview)):
        return Response.bytes(bytes(body), number, headers=headers)
    return Response.json(body, number, headers=headers)


def _serve_http(handler: Handler, method: str, request: Request, /, **params: Any) -> object:
    """The route's handler: calls the program's, and makes an App handler's value of what it does."""
    answer = Answer(request, handler)
    value = handler(answer, request.query, request.headers, request.body, **params)
    if isinstance(value, GeneratorType):
        steps = value
        value = async_(lambda: steps)
    if hasattr(value, "__await__"):
        return _settle_http(answer, value)
    return answer._outcome(value)


async def _settle_http(answer: Answer, value: Any) -> object:
    outcome = answer._outcome(await value)
    del answer, value  # or an fd that the program has dropped would live here
    return (await outcome) if isinstance(outcome, Promise) else outcome


# ---- stream_http_*: the handler takes the connection over ----


def _serve_stream(handler: Handler, method: str, request: Request, /, **params: Any) -> None:
    if request.method == "HEAD" != method:  # routes of GET get HEAD, too; but a stream's bytes would follow the head
        raise HTTPError(405, headers={"Allow": method})
    query, headers = request.query, request.headers
    sock = cast(Socket, request.take_over())
    _run(sock, handler, sock, query, headers, b"", **params)


def _run(sock: Socket, function: Handler, /, *args: Any, **params: Any) -> None:
    """Call the function that a socket was made for; when what it began has ended, close the socket."""
    name = handler_name(function)
    try:
        value = function(*args, **params)
    except BaseException as error:  # noqa: BLE001 whatever a program raises ends its connection only
        _end(sock, name, error)
        return
    steps = value if isinstance(value, GeneratorType) else None
    if steps is None and not hasattr(value, "__await__"):
        return  # callbacks are set, or the socket is kept: the program closes it
    sock.hold_open()  # a reader in it may end long before it has answered
    (promise_of(value) if steps is None else buffered_cor(sock, lambda: steps)).add_done_callback(
        lambda done: _end(sock, name, None if done.cancelled() else done.exception())
    )


def _end(sock: Socket, name: str, error: BaseException | None) -> None:
    if isinstance(error, Overflow):
        _logger.warning("%s: %s", name, error)
    elif error is not None and not _client_left(sock, error):
        _logger.error("%s failed", name, exc_info=error)
    sock.close()


def _client_left(sock: Socket, error: BaseException) -> bool:
    """A client that leaves in the middle is no fault of the program; another connection that breaks is."""
    return comes_of(error, sock) or (sock.left and isinstance(error, (asyncio.IncompleteReadError, ConnectionError)))


# ---- registering ----


def _register(serve: Callable[..., object], method: str, path: str, handler: H, stream: bool) -> H:
    names = parse_pattern(path)[1]
    try:
        inspect.signature(handler).bind(None, None, None, None, **dict.fromkeys(names))
    except TypeError as error:
        expected = ", ".join(("fd", "query", "headers", "body", *names))
        raise TypeError(f"{handler_name(handler)}({expected}), pattern {path!r}: {error}") from None
    wanted = checked_methods(path, (method,))
    program._enter(path, wanted, functools.partial(serve, handler, wanted[0]), stream, handler)
    return handler


@overload
def http_any(method: str, path: str, handler: H) -> H: ...
@overload
def http_any(method: str, path: str) -> Callable[[H], H]: ...
def http_any(method: str, path: str, handler: H | None = None) -> H | Callable[[H], H]:
    """Have `handler(fd, query, headers, body)` answer a path (the ancestor's `aio:http_any`); see `Answer` for `fd`.

    It answers by `fd.http_response(...)`, at once or later from a callback, or by returning a value as App handlers do.
    It may be a plain function, an `async def`, or a generator function that gets promises' values by
    `value = yield promise`.

    Arguments:
        method: GET (which answers HEAD, too), POST, PUT, DELETE, PATCH, OPTIONS, HEAD.
        path: as in `App.route`; parameters in it are handed over by name.
        handler: the function, which is returned; without it, what is returned is a decorator.
    Raises:
        ValueError: as `App.route`: a malformed pattern, an unknown method, two routes that clash.
        TypeError: the handler does not take these parameters.
    """
    if handler is None:
        return lambda handler: _register(_serve_http, method, path, handler, False)
    return _register(_serve_http, method, path, handler, False)


@overload
def http_get(path: str, handler: H) -> H: ...
@overload
def http_get(path: str) -> Callable[[H], H]: ...
def http_get(path: str, handler: H | None = None) -> H | Callable[[H], H]:
    """`http_any` for GET, and with it HEAD."""
    return http_any("GET", path) if handler is None else http_any("GET", path, handler)


@overload
def http_post(path: str, handler: H) -> H: ...
@overload
def http_post(path: str) -> Callable[[H], H]: ...
def http_post(path: str, handler: H | None = None) -> H | Callable[[H], H]:
    """`http_any` for POST."""
    return http_any("POST", path) if handler is None else http_any("POST", path, handler)


@overload
def stream_http_any(method: str, path: str, handler: H) -> H: ...
@overload
def stream_http_any(method: str, path: str) -> Callable[[H], H]: ...
def stream_http_any(method: str, path: str, handler: H | None = None) -> H | Callable[[H], H]:
    """Hand a connection over to `handler(fd, query, headers, b"")` after the head (the ancestor's `stream_http_any`).

    `fd` is a `streams.Socket`. What it reads is the request's body, decoded, or, of a request without one, whatever the
    client sends; what it writes is sent as it is, so an answer with a head is begun by `fd.http_response(status,
    headers, None)`. The handler is a generator function (`line = yield b"\n", 4096`), an `async def` (`await
    fd.read(...)`), either of which closes the connection when it ends; or a plain function that sets callbacks, and
    closes the connection itself, or returns a promise whose end does.

    The connection of one that is no plain function stays open until it has ended, whatever readers in it do. What it
    raises is logged, and the connection closed; quiet when the client has left, a warning for `Overflow`.

    Arguments and exceptions as `http_any`.
    """
    if handler is None:
        return lambda handler: _register(_serve_stream, method, path, handler, True)
    return _register(_serve_stream, method, path, handler, True)


@overload
def stream_http_get(path: str, handler: H) -> H: ...
@overload
def stream_http_get(path: str) -> Callable[[H], H]: ...
def stream_http_get(path: str, handler: H | None = None) -> H | Callable[[H], H]:
    """`stream_http_any` for GET; HEAD is refused with 405."""
    return stream_http_any("GET", path) if handler is None else stream_http_any("GET", path, handler)


@overload
def stream_http_post(path: str, handler: H) -> H: ...
@overload
def stream_http_post(path: str) -> Callable[[H], H]: ...
def stream_http_post(path: str, handler: H | None = None) -> H | Callable[[H], H]:
    """`stream_http_any` for POST."""
    return stream_http_any("POST", path) if handler is None else stream_http_any("POST", path, handler)


# ---- protocols ----


class Protocol(NamedTuple):
    """One that is told apart from HTTP by a connection's first bytes."""

    name: str
    matches: Matches
    handle: Handler

    def start(self, sock: _engine.Socket) -> None:
        """What the engine calls with the new connection."""
        _run(cast(Socket, sock), self.handle, sock)


def add_protocol_handler(name: str, *, matches: bytes | Matches, handle: Handler) -> None:
    """Speak another protocol on the server's port, told apart by the first bytes (`aio:add_protocol_handler`).

    Arguments:
        name: for the log; one of the same name is replaced.
        matches: the bytes it begins with, or a function that gets a connection's first bytes, 512 at most, and says
            True, False, or None when it needs more. They are asked in order of registration, and None has those after
            it wait. What it raises is logged and counts as False.
        handle: gets the `streams.Socket`, and all that was sent, from the first byte on. A generator function, an
            `async def` or a plain function, as for `stream_http_any`.
    Raises:
        TypeError: `matches` is neither bytes nor a function, or `handle` is none.
    """
    if not isinstance(matches, bytes) and not callable(matches):
        raise TypeError(f"protocol {name}: matches is bytes or a function, not {matches!r}")
    if not callable(handle):
        raise TypeError(f"protocol {name}: handle is a function, not {handle!r}")
    judge = functools.partial(_begins_with, matches) if isinstance(matches, bytes) else matches
    _protocols[name] = Protocol(name, judge, handle)


Choice = Callable[["_engine.Socket"], object] | bool | None


def chooser() -> Callable[[bytes], Choice]:
    """For `Engine.set_protocols`: chooses among those that are registered now, and later by the same program."""
    return functools.partial(_choose, _protocols)


def _choose(protocols: dict[str, Protocol], data: bytes) -> Choice:
    """Who takes a connection that begins so; None: not known yet; False: HTTP."""
    for protocol in protocols.values():
        try:
            verdict = protocol.matches(data)
        except Exception as error:  # noqa: BLE001 a broken matcher must not take HTTP down with it
            _logger.error("matches of protocol %s failed", protocol.name, exc_info=error)
            continue
        if verdict is None:
            return None
        if verdict:
            return protocol.start
    return False


def _begins_with(prefix: bytes, data: bytes) -> bool | None:
    if len(data) >= len(prefix):
        return data.startswith(prefix)
    return None if prefix.startswith(data) else False

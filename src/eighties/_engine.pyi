"""The typed face of the C engine; stubtest holds it true."""

from asyncio import AbstractEventLoop, Future
from collections.abc import Callable, Coroutine, Iterable, Iterator, Mapping, Sequence
from os import PathLike
from typing import Any, Literal, Self, final, overload

from typing_extensions import disjoint_base

from .promise import Promise

VERSION: str
BUILD: str
POLLER: str
CONNECTION_SIZE: int

def live() -> dict[str, int]:
    """Counters of what the engine has allocated in this process: connections, buffers, engines.

    All are zero once every engine is closed; tests assert it.
    """

def engine_of(elfd: int = -1, /) -> Engine:
    """The engine with that descriptor; -1: the newest. Raises OSError (EBADF) where there is none."""

def write(elfd: int, childfd: int, data: bytes | bytearray | memoryview, /) -> bool:
    """`Socket.write` by handle; False as well for a handle that is no connection's. OSError: there is no such elfd."""

def close(elfd: int, childfd: int, /) -> bool:
    """`Socket.close` by handle."""

def find_socket(elfd: int, childfd: int, /) -> Socket | None: ...
def escape(value: object, /) -> str:
    """A value as text of an HTML page, or of an attribute in double or single quotes: `html.escape(str(value))`.

    Where the value's type has `__html__` its result is given back as it is: such a value is HTML already. Raises
    TypeError when that is no str, and for what must be awaited first.
    """

def parse_query(text: str | bytes, /) -> MultiDict:
    """Decode `a=1&b=2` as HTML forms encode it (WHATWG URL §5.1). Never raises on bad input."""

@final
class MultiDict:
    """An immutable mapping of text to text in which a name may stand several times.

    `[]` and `get` give the first value, `getall` every one, `pairs` all in order. With
    `ignore_case` (headers) names are kept and looked up in lower case.
    """

    def __new__(cls, pairs: Iterable[tuple[str, Any]] = (), ignore_case: bool = False) -> MultiDict: ...
    def __getitem__(self, name: str, /) -> Any: ...
    def __contains__(self, name: object, /) -> bool: ...
    def __len__(self) -> int: ...
    def __iter__(self) -> Iterator[str]: ...
    def __eq__(self, other: object, /) -> bool: ...
    @overload
    def get(self, name: str, /) -> Any: ...
    @overload
    def get(self, name: str, default: Any, /) -> Any: ...
    def getall(self, name: str, /) -> list[Any]: ...
    def keys(self) -> list[str]: ...
    def values(self) -> list[Any]: ...
    def items(self) -> list[tuple[str, Any]]: ...
    def pairs(self) -> list[tuple[str, Any]]: ...

@final
class FileRegion:
    """Part of an open file as a response body. Owns the descriptor and closes it when freed."""

    def __new__(cls, fd: int, offset: int, length: int) -> FileRegion: ...
    @property
    def fd(self) -> int: ...
    @property
    def offset(self) -> int: ...
    @property
    def length(self) -> int: ...

@disjoint_base
class Request:
    """What a handler gets. Every attribute is made when first asked for."""

    @property
    def method(self) -> str: ...
    @property
    def path(self) -> str: ...
    @property
    def target(self) -> str: ...
    @property
    def query_string(self) -> str: ...
    @property
    def query(self) -> MultiDict: ...
    @property
    def headers(self) -> MultiDict: ...
    @property
    def params(self) -> dict[str, Any]: ...
    @property
    def body(self) -> bytes: ...
    @property
    def peername(self) -> tuple[str, int] | str: ...
    @property
    def http_version(self) -> str: ...
    @property
    def scheme(self) -> str: ...
    @property
    def worker(self) -> int: ...
    @property
    def handler_name(self) -> str: ...
    @property
    def route(self) -> Route | None:
        """The one whose handler it is for, which may be no longer served. None in a request that is over."""
    @property
    def connected(self) -> bool: ...
    def read_chunk(self) -> bytes | None:
        """Next piece of a streamed body, `b""` after the last, None when `chunk_ready` must be awaited first.

        Raises ConnectionError when the body can no longer arrive whole.
        """
    def chunk_ready(self) -> Future[None]: ...
    def send_chunk(self, response: Response, chunk: bytes, /) -> bool:
        """Queue a piece of a streamed answer, its head first. False: await `send_ready` before the next.

        Raises ConnectionError when the client is gone, ValueError when a declared length is exceeded.
        """
    def send_ready(self) -> Future[None]: ...
    def take_over(self) -> Socket:
        """Make the connection a raw one, of the engine's `socket_type`. For routes with `stream`.

        The request is over and whatever the handler returns is ignored. What follows the head is the socket's data; of
        a request with a body that is the decoded body, then the end of input. Raises ConnectionError when the client is
        gone, RuntimeError when the answer has begun.
        """

@disjoint_base
class Socket:
    """A raw connection: bytes in and out. Exactly this type calls the program's hooks, a subclass its own callbacks.

    Callbacks are plain functions and are called from `Engine.poll` only, never from within a method of the socket;
    `Engine.close` tells of the end, too. An exception in one is reported and closes the connection. After `on_close`
    none comes, and all are None. Of a subclass that `Request.take_over` or a protocol makes, `__init__` is not run.
    """

    def __new__(cls, engine: Engine, kind: Literal["stream", "datagram", "reader", "writer"] = "stream") -> Self:
        """A connection that is still to be made: `attach` it. What is written before is sent then, also after `close`.

        Raises RuntimeError when the engine is closed.
        """
    on_data: Callable[[int, int, bytes, int], object] | None
    """`(elfd, childfd, data, length)`. Nothing is read while it is None, and the end of input is not told."""
    on_close: Callable[[int, int], object] | None
    on_write: Callable[[int, int], object] | None
    """Connected, or what had to wait has been sent."""
    on_connect: Callable[[int, int], object] | None
    on_eof: Callable[[int, int], object] | None
    """The peer has ended its sending side. A true result keeps the connection open for writing."""
    inbox: Any
    @property
    def fd(self) -> int:
        """The handle: no other connection of this process ever has it, and it is no descriptor's number."""
    @property
    def elfd(self) -> int: ...
    @property
    def kind(self) -> str: ...
    @property
    def closed(self) -> bool: ...
    @property
    def connected(self) -> bool: ...
    @property
    def writable(self) -> bool:
        """Whether `write` takes anything: not closed, and the peer has not been found to be gone."""
    @property
    def buffered(self) -> int:
        """Bytes written that the kernel has not taken yet."""
    @property
    def peername(self) -> tuple[str, int] | str | None: ...
    def attach(self, fd: int, /) -> None:
        """Take over a connected descriptor, and make it non-blocking. Raises OSError: it stays the caller's."""
    def write(self, data: bytes | bytearray | memoryview, /) -> bool:
        """Send, or queue what the kernel does not take. False: closed, being closed, or the peer is known to be gone.

        Raises ValueError for a datagram of more than 65507 bytes.
        """
    def close(self) -> bool:
        """Send what is queued, then close. False: that was done before."""
    def abort(self) -> None:
        """Close at once; what is queued is lost."""
    def pause(self) -> None: ...
    def resume(self) -> None: ...

@final
class Resolver:
    """Settles one promise, once: `resolve(value)` or `resolve.reject(error)`.

    Keep it where it will be called on every path. When the last reference to it goes and the promise is still open,
    the promise is rejected with BrokenPromise, so nobody waits for ever.
    """

    def __new__(cls, promise: Promise) -> Resolver: ...
    def __call__(self, *values: Any) -> bool:
        """Resolve the promise; without a value with None, with several values with a tuple of them.

        From another thread: `loop.call_soon_threadsafe(resolve, value)`. False: it was settled already, or cancelled.
        """
    def reject(self, error: BaseException | type[BaseException], /) -> bool:
        """Reject the promise: who awaits it gets this exception. False: it was settled already, or cancelled.

        Raises TypeError when the error is no exception.
        """

def prepare_promise() -> tuple[Resolver, Promise]:
    """A new promise, and what resolves it: `resolve, promise = prepare_promise()`.

    Raises RuntimeError when no event loop is running.
    """

def use_promise(promise_type: type[Promise], /) -> None:
    """The type of what `prepare_promise` makes; `promise.py` calls it."""

@disjoint_base
class Response:
    """Status, header fields and body, as the engine serialises them."""

    status: int
    fields: list[tuple[str, str]]
    content_type: str | None
    body: Any
    def __init__(
        self,
        body: Any = None,
        status: int = 200,
        fields: list[tuple[str, str]] | None = None,
        content_type: str | None = None,
    ) -> None: ...

@final
class StaticFile:
    """A small file that the engine answers from memory: whole, or 304, or the sibling encoded as the client likes it.

    That is for GET and HEAD, where it is the `file` of a Route whose status is 200 and which is no fallback. Whatever
    is more (ranges, lists of entity tags, weighed encodings, other dates than its own, fields that stand twice, bodies)
    goes to the handler of the Route; so does a file that has changed or is gone, and one whose encoded sibling has.
    They are looked at once a second; before each answer where the target has a query, for browsers keep what they get.
    """

    def __new__(
        cls,
        path: str | bytes | PathLike[str],
        *,
        mtime_ns: int,
        size: int,
        inode: int,
        content_type: bytes,
        fields: bytes,
        etag: bytes,
        last_modified: bytes,
        body: bytes,
        encodings: Sequence[tuple[bytes, StaticFile]] = ...,
        more: bytes = ...,
    ) -> StaticFile:
        """
        `path` is looked at as it is: absolute, or the working folder must stay. By `mtime_ns`, `size` and `inode`, as
        `os.stat` tells them, a change is told. `content_type` may be empty: none is sent.

        `fields`: the other field lines, each with its CRLF: b"Vary: Accept-Encoding\\r\\n", of 200 and 304; `more`:
        those of the 200 alone (RFC 9110 §15.4.5). ETag and Last-Modified, with the values given here, are the caller's
        to put there; Content-Encoding of an encoded sibling; and Vary of all of them. Not those that the engine writes:
        Content-Type, Content-Length, Date, Server, Connection and what else bears on framing.

        `encodings`: content codings, in small letters, with the file's siblings; the preferred first, three at most. A
        sibling has none itself; it has Content-Encoding and another entity tag than the file; and all have Vary.

        Raises TypeError, or ValueError for what would split a head, or is no entity tag or coding.
        """

@final
class Route:
    """One handler under one pattern and method. Pattern: `/a/{name}/{id:int}/{rest:path}`.

    `status` is what a plain answer of the handler starts from (404 for an error handler), `content_type` the type of
    bytes that it returns.
    """

    def __new__(
        cls,
        pattern: str,
        method: str,
        handler: Callable[..., Any],
        *,
        name: str,
        stream: bool = False,
        status: int = 200,
        file: StaticFile | None = None,
        content_type: str = "application/octet-stream",
    ) -> Route: ...
    pattern: str
    method: str
    handler: Callable[..., Any]
    name: str
    stream: bool
    status: int
    file: StaticFile | None

@final
class Engine:
    """The server: one pollable descriptor on an asyncio loop. See engine/engine.h, the manual."""

    def __new__(
        cls,
        loop: AbstractEventLoop,
        limits: Mapping[str, int],
        *,
        request_type: type[Request],
        respond: Callable[[Request, object], object],
        failed: Callable[[Request, BaseException], object],
        pump: Callable[[Request, Response], Coroutine[Any, Any, None]],
        settle: Callable[[Any], Coroutine[Any, Any, Any]],
        log: Callable[[str, str], object],
        server_header: str | None = "80s",
        worker: int = 0,
        accept_batch: int = 1,
        scoreboard: Any = None,
        socket_type: type[Socket] = ...,
        report: Callable[[str, BaseException], object] | None = None,
    ) -> Engine:
        """
        `respond(request, value)` turns any handler value but str, bytes, None, Response and async generators into
        a Response, or raises TypeError. `failed(request, exception)` makes the answer to an exception. `pump` sends a
        streamed body. `settle` wraps an awaitable that is no coroutine. `log(level, message)`: level as in logging.
        `scoreboard`: a writable buffer of 64 bytes, eight counters (SCOREBOARD names them). `socket_type` is what
        `Request.take_over` and protocols make. `report(where, exception)` hears of exceptions in sockets' callbacks.
        """
    def fileno(self) -> int: ...
    def poll(self) -> None: ...
    def set_routes(self, routes: Sequence[Route], fallbacks: Mapping[int, Route] = ..., /) -> None:
        """Replace the route table: one pointer is swapped. `fallbacks` handle 404 and 405 where given."""
    def set_hooks(self, hooks: Mapping[str, Callable[..., object]], raw: bool, /) -> None:
        """The program's on_data, on_close, on_write, on_accept, where given. `raw`: accepted connections are raw."""
    def set_protocols(self, choose: Callable[[bytes], Callable[[Socket], object] | bool | None] | None, /) -> None:
        """Tell protocols apart by a connection's first bytes, 512 at most.

        `choose(data)` gives a function that gets the Socket, None when it needs more bytes, False when it is HTTP.
        """
    def listen(self, fd: int, /) -> int:
        """Accept from a bound, listening socket. The engine duplicates the descriptor, and returns its own."""
    def drain(self) -> None:
        """Accept what is queued, close the listeners and idle connections; answer the rest with `Connection: close`."""
    def close_listeners(self) -> None:
        """Accept no more, not even what is queued, which is for others that listen. Connections go on as before."""
    def give_away(self, max_bytes: int, most: int, /) -> list[tuple[int, bytes, int]]:
        """Take away connections that are between two requests: descriptors, unread bytes, and flags for `adopt`.

        `most` of them. Fewer: these were all, for now. Each is looked at once until then, however many are busy; the
        next call begins a new round. They are open, nothing watches them, and they are the caller's.

        Not given: raw connections, those with more than `max_bytes` unread (or 65536), whose client has hung up, or
        that are about to end. Raises RuntimeError where the engine is at work: in handlers, hooks, sockets' callbacks.
        """
    def adopt(self, fd: int, data: bytes | bytearray | memoryview, flags: int, /) -> None:
        """Make a connection of a descriptor that was given away, here or by another process's engine.

        `data` is read before what is in the socket. Flags: 1, it has had no request yet, so it goes the way of one just
        accepted (a raw program, protocols); 2, it is known to be HTTP. It runs in a later turn of the loop, and its
        timeouts begin anew. It is not counted as accepted, for that was counted where it was; and it is taken beyond
        `max_connections`, too: then none is accepted until there are fewer.

        Raises OSError (no connected stream socket), ValueError (unknown flags, more than 65536 bytes), RuntimeError
        (the engine is closed): the descriptor stays the caller's.
        """
    def close(self) -> None:
        """Close everything at once; tasks of handlers are cancelled, but for those that took their connection over."""
    @property
    def connections(self) -> int: ...
    @property
    def tasks(self) -> int: ...
    def stats(self) -> dict[str, int]: ...

@final
class NativeModule:
    """A shared object with on_load and on_unload, opened. `include/eighties.h` tells what it may do.

    A path must never have been opened before: dlopen would give what it has. Nothing closes it but `close`; its code
    stays in memory when the object goes.
    """

    def __new__(
        cls,
        engine: Engine,
        path: str | bytes | PathLike[str],
        *,
        name: str,
        node: str,
        workers: int,
        port: int,
        mail: Callable[[int, bytes], int],
        log: Callable[[bytes, bytes], int],
    ) -> NativeModule:
        """
        `mail(worker, message)` and `log(level, text)` are the functions of the table, and return 0 or a negative errno.

        Raises ImportError: it cannot be opened, or is no module for this server; the message says why.
        """
    def load(self, ctx: object, reload: bool, /) -> int:
        """What on_load returns; 0: it is loaded. What it raises is raised. `ctx` is kept until it is unloaded."""
    def unload(self, reload: bool, /) -> int:
        """What on_unload returns. Whatever that is, it is not loaded any more, and watches nothing."""
    def close(self) -> None:
        """Take the code out of memory. The methods raise RuntimeError in a call into the module, and after this."""
    def ready(self, fd: int, event: int, /) -> None:
        """For the loop: what `add_fd` has it watch is ready."""
    @property
    def busy(self) -> bool:
        """Whether a call into the module has not returned."""
    @property
    def loaded(self) -> bool: ...
    @property
    def watched(self) -> int:
        """How many descriptors it watches."""

SCOREBOARD: tuple[str, ...]
LIMITS: tuple[str, ...]

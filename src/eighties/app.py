"""App: a program's routes, hooks and mounts, and what becomes of its errors.

A program makes an App when it is loaded; the worker hands `routes()` and `fallbacks()` to the engine, which then calls
the handlers. Without hooks it calls them directly; with hooks, through the `Scope` of the app they belong to.
State: what was registered, and the scopes of the last `routes()`.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, TypeVar, cast

from . import _engine
from .errors import HTTPError, error_answer, plain, reason
from .http import BINARY, Request, Response, to_response
from .limits import DEFAULTS
from .patterns import check_handler, handler_name, handler_place, parse_pattern

if TYPE_CHECKING:
    from types import TracebackType
    from typing import TypedDict, Unpack

    class LimitValues(TypedDict, total=False):
        """The keywords of App that are limits; a test holds them true to `limits.LIMITS`."""

        max_request_line: int
        max_header_bytes: int
        max_headers: int
        max_body: int
        header_timeout: int
        body_timeout: int
        min_rate: int
        keep_alive_timeout: int
        handler_timeout: int
        write_timeout: int
        max_connections: int
        max_buffered: int


Handler = Callable[..., Any]
H = TypeVar("H", bound=Handler)
Steps = Generator[Any, Any, Response]
"""A request's way through hooks: yields each value that may have to be awaited, is sent what came of it."""

METHODS = ("GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS")

state = SimpleNamespace()
"""What must survive a reload of the program: `eighties.state.pool = ...`. One per worker."""


class Entry(NamedTuple):
    """One registered handler.

    Arguments:
        shape: the pattern without the parameters' names.
        place: the handler's file:line.
        direct: whether the handler wants to know its Route, as attribute `route`, to have the engine answer instead.
        content_type: of bytes that the handler returns.
    """

    pattern: str
    shape: str
    method: str
    handler: Handler
    stream: bool
    name: str
    place: str
    direct: bool = False
    content_type: str = BINARY


class Contents(Protocol):
    """What an App serves beside its own routes, which come first: a site of pages."""

    def entries(self) -> Iterable[Entry]: ...
    def errors(self) -> dict[int, Handler]: ...


class App:
    """A program: `app = App()`, then `@app.get("/")` and so on; run it with `80s FILE.py`.

    Arguments:
        server_header: the answers' Server field; None for none.
        limits: any of `limits.LIMITS` by name, in its unit. The command line and the environment win.
    Raises:
        TypeError: there is no such limit.
        ValueError: a limit is no whole number, or negative.
    """

    def __init__(self, *, server_header: str | None = "80s", **limits: Unpack[LimitValues]) -> None:
        self.server_header = server_header
        self.limits: dict[str, int] = _checked_limits(limits)
        self.dev = False
        # With `--dev`: makes of each answer one whose page follows reloads. The worker sets it before `routes()`.
        self.follow: Callable[[Request, Response], Response] | None = None
        self.contents: Contents | None = None
        self._entries: dict[tuple[str, str], Entry] = {}
        self._mounts: list[tuple[str, App]] = []
        self._starts: list[Handler] = []
        self._stops: list[Handler] = []
        self._befores: list[Handler] = []
        self._afters: list[Handler] = []
        self._errors: dict[int | type[BaseException], Handler] = {}
        self._scopes: list[tuple[str, Scope]] = []

    # ---- routes ----

    def route(self, pattern: str, methods: Iterable[str] = ("GET",), *, stream: bool = False) -> Callable[[H], H]:
        """Have a handler answer the paths of a pattern; it is returned unchanged.

        Arguments:
            pattern: `/users/{id:int}/{name}`. `{name}` is one segment, `{name:int}` one of digits, `{name:path}` all
                the rest; each is handed to the handler by name. The pattern is written decoded: `/café`.
            methods: of GET HEAD POST PUT DELETE PATCH OPTIONS. GET answers HEAD too, and OPTIONS is answered by itself.
            stream: the handler runs before the body has come, and reads it with `request.stream()`.
        Raises:
            ValueError: names the pattern and what is wrong with it, or the place of the route it clashes with.
            TypeError: names the handler whose parameters are not those of the pattern.
        """
        wanted = checked_methods(pattern, (methods,) if isinstance(methods, str) else methods)
        names = parse_pattern(pattern)[1]

        def register(handler: H) -> H:
            check_handler(handler, pattern, names, stream)
            self._enter(pattern, wanted, handler, stream, handler)
            return handler

        return register

    def get(self, pattern: str, *, stream: bool = False) -> Callable[[H], H]:
        """`route` for GET, and with it HEAD."""
        return self.route(pattern, ("GET",), stream=stream)

    def post(self, pattern: str, *, stream: bool = False) -> Callable[[H], H]:
        """`route` for POST."""
        return self.route(pattern, ("POST",), stream=stream)

    def put(self, pattern: str, *, stream: bool = False) -> Callable[[H], H]:
        """`route` for PUT."""
        return self.route(pattern, ("PUT",), stream=stream)

    def delete(self, pattern: str, *, stream: bool = False) -> Callable[[H], H]:
        """`route` for DELETE."""
        return self.route(pattern, ("DELETE",), stream=stream)

    def patch(self, pattern: str, *, stream: bool = False) -> Callable[[H], H]:
        """`route` for PATCH."""
        return self.route(pattern, ("PATCH",), stream=stream)

    def options(self, pattern: str, *, stream: bool = False) -> Callable[[H], H]:
        """`route` for OPTIONS, instead of the automatic answer."""
        return self.route(pattern, ("OPTIONS",), stream=stream)

    def mount(self, prefix: str, other: App) -> None:
        """Have another app's routes answer under a prefix: its `/users` at `/api/users`, its `/` at `/api/`.

        Its hooks run inside this app's; its limits and server_header do not count. What is added to it later counts
        too, until the server starts.

        Arguments:
            prefix: `/api`; segments of plain text. `/` mounts without a prefix.
        Raises:
            ValueError: the prefix is none, the app contains this one, or two routes clash.
        """
        prefix = "" if prefix == "/" else prefix
        if prefix.endswith("/") or (prefix and parse_pattern(prefix)[1]):
            raise ValueError(f"mount {prefix!r}: a prefix is /text, without parameters and without a slash at the end")
        if any(app is self for _, apps in other._tree() for app in apps):
            raise ValueError(f"mount {prefix!r}: the app contains the one it is to be mounted in")
        for inner, apps in other._tree(prefix):
            for entry in apps[-1]._entries.values():
                self._refuse_clash(self._find(inner + entry.shape, entry.method), inner, entry)
        self._mounts.append((prefix, other))

    # ---- hooks ----

    def on_start(self, hook: H) -> H:
        """Run `hook()` in each worker before it serves; sync or async. What it raises ends the server.

        When the program is reloaded in place it runs before the new code serves, and what it raises leaves the old
        code serving. A hook with a parameter `reload` is told whether that is so: False at the start.
        """
        self._starts.append(hook)
        return hook

    def on_stop(self, hook: H) -> H:
        """Run `hook()` in each worker after its last answer; sync or async. The last registered runs first.

        When the program has been reloaded in place, the old code's run after its last answer. A hook with a parameter
        `reload` is told whether that is so: False at the end.
        """
        self._stops.append(hook)
        return hook

    def before(self, hook: H) -> H:
        """Run `hook(request)` before each handler, also where no route is found; sync or async.

        None goes on to the next hook, then to the handler; any other value is the answer instead.
        """
        self._befores.append(hook)
        return hook

    def after(self, hook: H) -> H:
        """Run `hook(request, response)` on each answer that the program makes, error answers too; sync or async.

        None keeps the response, which the hook may have changed; any other value replaces it.
        """
        self._afters.append(hook)
        return hook

    def error(self, kind: int | type[BaseException]) -> Callable[[H], H]:
        """Have `handler(request, error)` answer a status or a class of exceptions; sync or async.

        Arguments:
            kind: a status (404, also of unknown paths; 500, also of exceptions nobody answers), or an exception class.
                The status of an HTTPError is looked up first, then the classes from the closest up.
        Raises:
            ValueError: a status that is no error, or one that has a handler.
        """
        if not (400 <= kind <= 599 if isinstance(kind, int) else issubclass(kind, Exception)):
            raise ValueError(f"error handler for {kind!r}: expected a status of 400 to 599, or a class of Exception")

        def register(handler: H) -> H:
            if kind in self._errors:
                other = handler_place(self._errors[kind])
                raise ValueError(f"two error handlers for {kind!r}: {other} and {handler_place(handler)}")
            self._errors[kind] = handler
            return handler

        return register

    # ---- for the worker ----

    def routes(self) -> list[_engine.Route]:
        """Every route, mounted ones too, each handler bound to its hooks.

        Raises:
            ValueError: two routes clash through what was added to a mounted app later.
        """
        self._scopes = [(prefix, Scope(self, apps)) for prefix, apps in self._tree()]
        seen: dict[tuple[str, str], Entry] = {}
        found: list[_engine.Route] = []
        for prefix, scope in self._scopes:
            for entry in scope.apps[-1]._entries.values():
                key = (prefix + entry.shape, entry.method)
                self._refuse_clash(seen.get(key), prefix, entry)
                seen[key] = entry
                found.append(_route(prefix, scope, entry))
        root = self._scopes[0][1]
        others = self.contents.entries() if self.contents is not None else ()
        found += [_route("", root, entry) for entry in others if (entry.shape, entry.method) not in seen]
        self._scopes.sort(key=lambda pair: len(pair[0]), reverse=True)
        return found

    def fallbacks(self) -> dict[int, _engine.Route]:
        """What answers unknown paths (404) and methods (405), where hooks or error handlers care. After `routes()`."""

        def route(status: int) -> _engine.Route:
            def fallback(request: Request) -> object:
                return drive(self._scope_of(request).steps(refuse, request, {}))

            def refuse(request: Request) -> object:
                raise HTTPError(status)

            return _engine.Route("/{rest:path}", "GET", fallback, name=reason(status), status=status)

        wanted = [status for status in (404, 405) if any(scope.cares(status) for _, scope in self._scopes)]
        return {status: route(status) for status in wanted}

    def failed(self, request: _engine.Request, error: BaseException) -> object:
        """The answer to an exception that left a handler or came from its answer; never raises."""
        request = cast(Request, request)
        try:
            if hasattr(request, "_settled"):
                _report(request, error)
                return plain_answer(HTTPError(500))
            request._settled = True
            return drive(self._scope_of(request).rescue(request, error))
        except Exception as second:  # noqa: BLE001 the last line of defence: the client gets an answer
            _report(request, second)
            return plain_answer(HTTPError(500))

    async def startup(self, reload: bool = False) -> None:
        """Run the on_start hooks, this app's before those of mounted ones. Raises what they raise."""
        for app in self._apps():
            for hook in app._starts:
                value = _call_hook(hook, reload)
                if hasattr(value, "__await__"):
                    await value

    async def shutdown(self, reload: bool = False) -> None:
        """Run every on_stop hook, mounted apps' first.

        Raises:
            Exception: the first that a hook raised, after all have run; further ones are logged.
        """
        first: Exception | None = None
        for app in reversed(self._apps()):
            for hook in reversed(app._stops):
                try:
                    value = _call_hook(hook, reload)
                    if hasattr(value, "__await__"):
                        await value
                except Exception as error:  # noqa: BLE001 the other hooks have things to close, too
                    if first is None:
                        first = error
                    else:
                        _logger().error("on_stop hook %s failed", handler_place(hook), exc_info=error)
        if first is not None:
            raise first

    # ---- within ----

    def _enter(self, pattern: str, methods: Iterable[str], handler: Handler, stream: bool, shown: Handler) -> None:
        """Enter a route whose handler has been checked. `shown` is the program's function, which messages name:
        `handlers.py` has the engine call one of its own around it."""
        shape, place = parse_pattern(pattern)[0], handler_place(shown)
        name = f"{handler_name(shown)} ({place.rpartition('/')[2]})"
        for method in methods:
            entry = Entry(pattern, shape, method, handler, stream, name, place)
            self._refuse_clash(self._find(shape, method), "", entry)
            self._entries[shape, method] = entry

    def _tree(self, prefix: str = "", above: tuple[App, ...] = ()) -> Iterator[tuple[str, tuple[App, ...]]]:
        """This app and all mounted ones: prefix, and the chain of apps down to it."""
        apps = (*above, self)
        yield prefix, apps
        for inner, other in self._mounts:
            yield from other._tree(prefix + inner, apps)

    def _apps(self) -> list[App]:
        """This app and all mounted ones, each once."""
        return list(dict.fromkeys(apps[-1] for _, apps in self._tree()))

    def _find(self, shape: str, method: str) -> Entry | None:
        """The route of a shape and method, here or in a mounted app."""
        found = self._entries.get((shape, method))
        for prefix, other in self._mounts:
            if found is None and shape.startswith(prefix):
                found = other._find(shape[len(prefix) :], method)
        return found

    def _refuse_clash(self, other: Entry | None, prefix: str, entry: Entry) -> None:
        if other is not None:
            raise ValueError(
                f"two routes clash: {entry.method} {prefix}{entry.pattern} at {entry.place} "
                f"and {other.method} {other.pattern} at {other.place}"
            )

    def _scope_of(self, request: Request) -> Scope:
        """The scope of the innermost app that a path belongs to."""
        path = request.path
        for prefix, scope in self._scopes:
            if not prefix or path == prefix or path.startswith(f"{prefix}/"):
                return scope
        return Scope(self, (self,))


class Scope:
    """The hooks around an app's handlers: its own and those of the apps it is mounted in, as they were at `routes()`.

    A request's way is written once, as a generator, whether hooks and handlers are sync or async: see `drive`.
    """

    __slots__ = ("afters", "apps", "befores", "errors", "root")

    def __init__(self, root: App, apps: tuple[App, ...]) -> None:
        self.root = root
        self.apps = apps  # the outermost first
        self.befores = tuple(hook for app in apps for hook in app._befores)
        self.afters = tuple(hook for app in reversed(apps) for hook in app._afters)
        tables = [dict(app._errors) for app in reversed(apps)]
        if root.contents is not None:
            tables.append(dict(root.contents.errors().items()))
        self.errors = tuple(table for table in tables if table)

    def bind(self, handler: Handler) -> Handler:
        """The handler within its hooks; itself where there are none: what it raises comes to `failed`."""
        if not self.has_hooks:
            return handler

        def bound(request: Request, /, **params: Any) -> object:
            return drive(self.steps(handler, request, params))

        return bound

    @property
    def has_hooks(self) -> bool:
        """Whether anything is around its handlers."""
        return bool(self.befores or self.afters or self.root.follow)

    def cares(self, status: int) -> bool:
        """Whether an engine's error answer has to go through here."""
        return bool(self.has_hooks or self._find(HTTPError(status))[0])

    def steps(self, handler: Handler, request: Request, params: dict[str, Any]) -> Steps:
        """Before hooks, handler, after hooks."""
        try:
            for hook in self.befores:
                answer = yield hook(request)
                if answer is not None:
                    break
            else:
                answer = yield handler(request, **params)
            response = to_response(request, answer)
        except Exception as error:  # noqa: BLE001 whatever a program raises has an answer
            return (yield from self.rescue(request, error.with_traceback(_theirs(error.__traceback__))))
        return (yield from self._finish(request, response))

    def rescue(self, request: Request, error: BaseException) -> Steps:
        """The answer to an exception: the error handler's, else the plain one; then after hooks."""
        handler, expected = self._find(error)
        if not expected:
            _report(request, error)
        if handler is None:
            return (yield from self._finish(request, self._plain(request, error)))
        try:
            answer = yield handler(request, error)
            status, fields = (error.status, error.headers) if isinstance(error, HTTPError) else (500, [])
            response = to_response(request, answer, status)
            if response is not answer:  # made from a plain value
                response.fields.extend(fields)
        except Exception as second:  # noqa: BLE001 an error handler that fails is no worse than none
            if not isinstance(second, HTTPError):
                _report(request, second)
            response = self._plain(request, second)
        return (yield from self._finish(request, response))

    def _finish(self, request: Request, response: Response) -> Steps:
        try:
            for hook in self.afters:
                changed = yield hook(request, response)
                if changed is not None:
                    response = to_response(request, changed)
        except Exception as error:  # noqa: BLE001 as above
            if not isinstance(error, HTTPError):
                _report(request, error)
            response = self._plain(request, error)
        return response if self.root.follow is None else self.root.follow(request, response)

    def _find(self, error: BaseException) -> tuple[Handler | None, bool]:
        """The closest error handler, and whether the program expected the error, so that it need not be logged."""
        known = isinstance(error, HTTPError)
        status = error.status if isinstance(error, HTTPError) else 500
        for table in self.errors:
            if known and status in table:
                return table[status], True
            for kind in type(error).__mro__:
                if kind in table:
                    return table[kind], known or kind is not Exception
            if status in table:
                return table[status], known
        return None, known

    def _plain(self, request: Request, error: BaseException) -> Response:
        """The answer of an app that says nothing itself."""
        return Response(*error_answer(error, request, dev=self.root.dev))


def _route(prefix: str, scope: Scope, entry: Entry) -> _engine.Route:
    handler = entry.handler
    if scope.has_hooks and entry.content_type != BINARY:  # they are handed a Response, which says its type itself
        handler = _typed(handler, entry.content_type)
    bound = scope.bind(handler)
    route = _engine.Route(
        prefix + entry.pattern,
        entry.method,
        bound,
        name=entry.name,
        stream=entry.stream,
        content_type=entry.content_type,
    )
    if entry.direct:
        cast(Any, entry.handler).route = route if bound is entry.handler else None
    return route


def _typed(handler: Handler, content_type: str) -> Handler:
    def typed(value: object) -> object:
        return Response(value, 200, [], content_type) if isinstance(value, bytes) else value

    async def later(value: Any) -> object:
        return typed(await value)

    def answer(request: Request, /, **params: Any) -> object:
        value = handler(request, **params)
        return later(value) if hasattr(value, "__await__") else typed(value)

    return answer


def drive(steps: Steps) -> object:
    """Run a request's steps: at once as long as nothing waits, then as a coroutine for the engine to make a task of."""
    try:
        value = next(steps)
        while not hasattr(value, "__await__"):
            value = steps.send(value)
    except StopIteration as stop:
        return stop.value
    return _drive_on(steps, value)


async def _drive_on(steps: Steps, value: Any) -> Response:
    try:
        while True:
            try:
                result = (await value) if hasattr(value, "__await__") else value
            except BaseException as error:  # noqa: BLE001 a cancellation, too, must unwind the steps
                value = steps.throw(error)
            else:
                value = steps.send(result)
    except StopIteration as stop:
        response: Response = stop.value
        return response


def _theirs(found: TracebackType | None) -> TracebackType | None:
    """A traceback from where a program's function was called; nobody looks for a mistake in how it was."""
    first = found
    while first is not None and first.tb_frame.f_code.co_filename == __file__:
        first = first.tb_next
    return first or found


def _call_hook(hook: Handler, reload: bool) -> object:
    """An on_start or on_stop hook. What cannot be told of has no parameter `reload`."""
    import inspect

    try:
        wants = "reload" in inspect.signature(hook).parameters
    except (TypeError, ValueError):
        wants = False
    return hook(reload=reload) if wants else hook()


def about() -> dict[str, str]:
    """What is running: versions of the server, its build and Python, the loop and the poller."""
    import asyncio
    import sys

    try:
        kind = type(asyncio.get_running_loop()).__module__.partition(".")[0]
    except RuntimeError:
        kind = "none"
    return {
        "version": _engine.VERSION,
        "build": _engine.BUILD,
        "python": sys.version.split()[0],
        "loop": kind,
        "poller": _engine.POLLER,
    }


def checked_methods(pattern: str, methods: Iterable[str]) -> list[str]:
    """The methods in capitals. Raises ValueError for one that is not served, naming the pattern."""
    wanted = [method.upper() for method in methods]
    for method in wanted:
        if method not in METHODS:
            raise ValueError(f"pattern {pattern!r}: method {method!r} is none of {' '.join(METHODS)}")
    return wanted


def _checked_limits(limits: Any) -> dict[str, int]:
    for name, value in limits.items():
        if name not in DEFAULTS:
            from difflib import get_close_matches

            close = get_close_matches(name, DEFAULTS, 1)
            hint = f"; did you mean {close[0]}?" if close else f"; limits are {', '.join(DEFAULTS)}"
            raise TypeError(f"App has no limit {name!r}{hint}")
        if not isinstance(value, int) or isinstance(value, bool) or value < 0:
            raise ValueError(f"limit {name} must be a whole number, 0 or more, not {value!r}")
    return dict(limits)


# ---- answers and the log ----


def plain_answer(error: HTTPError) -> Response:
    """An error's answer in plain text."""
    return Response.text(plain(error), error.status, headers=error.headers)


def _logger() -> Any:
    import logging

    return logging.getLogger("eighties")


def _report(request: Request, error: BaseException) -> None:
    """Log an error that the program did not expect. Never raises."""
    try:
        if isinstance(error, ConnectionError) and not request.connected:
            return  # a client that left is no fault of the program
        path = request.path if request.path.isprintable() else ascii(request.path)
        _logger().error("%s %s: %s failed", request.method, path, request.handler_name, exc_info=error)
    except Exception:  # noqa: BLE001 a log that cannot be written must not cost the client its answer
        return

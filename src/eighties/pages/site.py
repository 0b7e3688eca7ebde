"""Site: a folder `public_html` as routes. Pages are compiled once, static files served as they are.

`serve/worker.py` makes one per process and hangs it on the program's App, which asks for `entries` and `errors` where
it makes its routes. State: what was found and compiled at the last `refresh`.
"""

from __future__ import annotations

import functools
import os
import stat
from collections.abc import Awaitable, Callable, Generator
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import quote

from ..app import Entry, drive
from ..http import TEXT, Response, to_response
from ..media import is_text, media_type
from .compiler import CompiledPage, compile_page
from .page import Context, PageEnd
from .scanner import PageError
from .static import MemoryCache, ServedFile
from .tree import MAX_PAGE, File, holds_code, inside, read_files

if TYPE_CHECKING:
    from ..http import Request
    from ..sessions import Store

Answer = Callable[..., Any]
Identity = tuple[int, int, int]


class Hooks(NamedTuple):
    """Functions of main.py around every page: `hook(method, endpoint, session)`, sync or async.

    What `before` returns is the answer instead of the page's, unless it is None.
    """

    before: Callable[..., Any] | None
    after: Callable[..., Any] | None


class _Compiled(NamedTuple):
    """A page or its mistake, and the files it is made of as they were then."""

    page: CompiledPage | PageError
    seen: dict[str, Identity | None]

    def is_current(self) -> bool:
        return all(_identity(path) == seen for path, seen in self.seen.items())


class Site:
    """A folder of pages and files.

    Arguments:
        root: the folder `public_html`.
        names: main.py's, which are the globals of every page; also `on_before_http` and `on_after_http`.
        store: where sessions are kept.
        static: whether folders called `static` are served.
        dev: whether the developer's error page goes before `500.html`.
    """

    def __init__(
        self, root: str, names: dict[str, Any], store: Store, *, static: bool = True, dev: bool = False
    ) -> None:
        self.root = os.path.realpath(root)
        self.names = names
        self.store = store
        self.broken: list[PageError] = []
        self.skipped: list[str] = []
        self._static = static
        self._dev = dev
        self._hooks = Hooks(names.get("on_before_http"), names.get("on_after_http"))
        self._compiled: dict[str, _Compiled] = {}
        self._entries: list[Entry] = []
        self._errors: dict[int, Answer] = {}
        self.refresh()

    def entries(self) -> list[Entry]:
        """A route for each page and static file, and for each folder the way to its `/`."""
        return self._entries

    def errors(self) -> dict[int, Answer]:
        """Handlers of statuses: `404.html` and the like."""
        return self._errors

    @property
    def uses(self) -> frozenset[str]:
        """Which names of the context the pages mention."""
        pages = [one.page for one in self._compiled.values() if isinstance(one.page, CompiledPage)]
        hooks = frozenset(("session",)) if any(self._hooks) else frozenset[str]()
        return hooks.union(*(page.uses for page in pages))

    def refresh(self) -> None:
        """Look at the folder again. Pages are compiled where they, or what they include, have changed."""
        self.broken, self.skipped = [], []
        compiled, self._compiled = self._compiled, {}
        routes: dict[tuple[str, str], tuple[File, Entry]] = {}
        self._errors = {}
        self._memory = MemoryCache()  # what the old routes hold goes with them
        for file in read_files(self.root, self._static):
            if isinstance(file, str):
                self.skipped.append(file)
                continue
            handler = self._page(file, compiled.get(file.path)) if file.page else self._served(file)
            if file.status:
                self._add_error(file, handler)
                continue
            other = routes.get((file.url, file.method))
            if other is None:
                routes[file.url, file.method] = (file, _entry(file, handler))
            else:
                self.skipped.append(f"{file.name} is hidden by {other[0].name}: both are {file.method} {file.url}")
        self._entries = [entry for _, entry in routes.values()]
        self._entries += [
            _redirect_entry(url.rstrip("/"))
            for url, method in routes
            if method == "GET" and url.endswith("/") and url != "/" and (url.rstrip("/"), "GET") not in routes
        ]

    # ---- pages ----

    def _page(self, file: File, known: _Compiled | None) -> Answer:
        """What answers a page; a broken one answers with its mistake."""
        kept = known if known is not None and known.is_current() else self._compile(file)
        self._compiled[file.path] = kept
        if isinstance(kept.page, PageError):
            self.broken.append(kept.page)
            return functools.partial(_refuse, kept.page)
        return _handler(kept.page, self.store, self._hooks, media_type(file.name, TEXT), file.status)

    def _compile(self, file: File) -> _Compiled:
        seen: dict[str, Identity | None] = {}
        try:
            return _Compiled(compile_page(file.path, functools.partial(self._read, file, seen), self.names), seen)
        except PageError as error:
            error.shown = os.path.relpath(error.path, self.root)
            error.__traceback__ = error.__cause__ = error.__context__ = None  # they are the compiler's
            return _Compiled(error, seen)

    def _read(self, file: File, seen: dict[str, Identity | None], path: str) -> str:
        """The text of a page or of what it includes."""
        seen[path] = _identity(path)
        if not inside(path, self.root):
            raise FileNotFoundError(2, "there is no such file within the site")
        with open(path, encoding="utf-8", errors="surrogateescape", newline="") as opened:
            if path == file.path and ".dyn." not in file.name and os.fstat(opened.fileno()).st_size >= MAX_PAGE:
                raise OSError(27, f"it holds code, so it may have {MAX_PAGE} bytes; or call it .dyn.")
            return opened.read()

    # ---- files ----

    def _served(self, file: File) -> ServedFile:
        allow = None if file.cached else functools.partial(_refuse_code, file)
        return ServedFile(file.path, self.root, immutable=file.cached, allow=allow, cache=self._memory)

    def _add_error(self, file: File, handler: Answer) -> None:
        if self._dev and file.status == 500:
            return

        if isinstance(handler, ServedFile):
            self._errors[file.status] = functools.partial(_error_file, handler, file.status)
        else:
            self._errors[file.status] = functools.partial(_error_page, handler)


def _identity(path: str) -> Identity | None:
    """By what a changed file is told; None: there is none."""
    try:
        found = os.stat(path)
    except OSError:
        return None
    return (found.st_mtime_ns, found.st_size, found.st_ino) if stat.S_ISREG(found.st_mode) else None


def _refuse_code(file: File, path: str, fd: int) -> None:
    """A static file has changed: it must not be sent if it has become a page."""
    if holds_code(fd, is_text(file.name)):
        error = PageError(path, 1, "there is code in it now: it becomes a page when the server is started again")
        error.shown = file.name
        raise error


def _error_page(page: Answer, request: Request, error: BaseException) -> object:
    """`404.html` with code, which knows its status."""
    return page(request)


def _error_file(served: ServedFile, status: int, request: Request, error: BaseException) -> Response:
    """`404.html` without code."""
    response = served.whole(request)
    response.status = status
    return response


# ---- routes ----


def _entry(file: File, handler: Answer) -> Entry:
    direct = not file.page and file.method == "GET"
    return Entry(file.url, file.url, file.method, handler, False, file.name, file.path, direct)


def _redirect_entry(url: str) -> Entry:
    def redirect(request: Request) -> Response:
        query = f"?{request.query_string}" if request.query_string else ""
        return Response.redirect(quote(url) + "/" + query, 301)

    return Entry(url, url, "GET", redirect, False, f"{url}/", url)


def _refuse(error: PageError, request: Request) -> object:
    raise error.with_traceback(None)


# ---- a request of a page ----


def _handler(page: CompiledPage, store: Store, hooks: Hooks, kind: str, status: int) -> Answer:
    """The page as a handler: a plain function where nothing in it waits."""
    run: Callable[[Context], Awaitable[None] | None] = page.run
    status = status or 200

    def answer(request: Request) -> Response:
        context = Context(request, store, kind, status)
        try:
            run(context)
        except PageEnd:
            pass
        return context.finish()

    async def answer_async(request: Request) -> Response:
        context = Context(request, store, kind, status)
        try:
            waiting = run(context)
            if waiting is not None:
                await waiting
        except PageEnd:
            pass
        return context.finish()

    def steps(request: Request) -> Generator[Any, Any, Response]:
        context = Context(request, store, kind, status)
        given = request.method, request.path, context.session
        try:
            if hooks.before is not None:
                instead = yield hooks.before(*given)
                if instead is not None:
                    response = to_response(request, instead)
                    store.save(context.session, response)
                    return response
            waiting = run(context)
            if waiting is not None:
                yield waiting
        except PageEnd:
            pass
        if hooks.after is not None:
            yield hooks.after(*given)
        return context.finish()

    def answer_hooked(request: Request) -> object:
        return drive(steps(request))

    return answer_hooked if any(hooks) else answer_async if page.is_async else answer

"""Site: a folder `public_html` as routes. Pages are compiled once, static files served as they are.

`serve/content.py` makes one per process and hangs it on the program's App, which asks for `entries` and `errors` where
it makes its routes. State: what was found at the last `refresh`, and the pages compiled since.
"""

from __future__ import annotations

import functools
import os
import time
from collections.abc import Awaitable, Callable, Generator, Iterator
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import quote

from ..app import Entry, drive
from ..errors import HTTPError, error_answer, preferred_form
from ..http import BINARY, TEXT, Response, to_response
from ..media import is_text, media_type
from .compiler import CompiledPage, compile_page
from .page import Context, PageEnd, Terms
from .scanner import PageError
from .static import MemoryCache, ServedFile
from .tree import MAX_PAGE, File, Identity, Tree, code_in, holds_code, identity, inside

if TYPE_CHECKING:
    from ..http import Request
    from ..sessions import Store

Answer = Callable[..., Any]


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

    def with_names(self, names: dict[str, Any]) -> _Compiled:
        return self if isinstance(self.page, PageError) else _Compiled(self.page.with_names(names), self.seen)

    def is_current(self) -> bool:
        return all(identity(path) == seen for path, seen in self.seen.items())


class Site:
    """A folder of pages and files. Make it, then `refresh`.

    Arguments:
        root: the folder `public_html`.
        names: main.py's, which are the globals of every page; also `on_before_http` and `on_after_http`.
        store: where sessions are kept.
        static: whether folders called `static` are served.
        dev: whether the developer's error page goes before `500.html`, and no browser keeps files without asking.
    Attributes:
        skipped: what has no route and should have one, as texts.
    """

    def __init__(
        self, root: str, names: dict[str, Any], store: Store, *, static: bool = True, dev: bool = False
    ) -> None:
        self.root = os.path.realpath(root)
        self.names = names
        self.store = store
        self.skipped: list[str] = []
        self._static = static
        self._dev = dev
        self._hooks = Hooks(names.get("on_before_http"), names.get("on_after_http"))
        self._judged: dict[str, tuple[Identity | None, bool]] = {}
        self._files: list[File] = []
        self._compiled: dict[str, _Compiled] = {}
        self._served: dict[str, ServedFile] = {}

    def take_over(self, old: Site) -> None:
        """Have what another site of the same folder has compiled, with this one's names. Before `refresh`."""
        if old.root != self.root:
            return
        self._judged = old._judged
        self._compiled = {path: found.with_names(self.names) for path, found in old._compiled.items()}

    def entries(self) -> list[Entry]:
        """A route for each page and static file, and for each folder the way to its `/`."""
        routed = [file for file in self._files if not file.status]
        taken = {(file.url, file.method) for file in routed}
        folders = sorted(url.rstrip("/") for url, method in taken if method == "GET" and url.endswith("/"))
        entries = [self._entry(file) for file in routed]
        return entries + [_redirect_entry(url) for url in folders if url and (url, "GET") not in taken]

    def errors(self) -> dict[int, Answer]:
        """Handlers of statuses: `404.html` and the like."""
        return {
            file.status: self._error_handler(file)
            for file in self._files
            if file.status and not (self._dev and file.status == 500)
        }

    @property
    def broken(self) -> list[PageError]:
        """The mistakes in pages that have been compiled."""
        return [one.page for one in self._compiled.values() if isinstance(one.page, PageError)]

    @property
    def included(self) -> frozenset[str]:
        """Files that are part of pages without being one, as far as these have been compiled."""
        return frozenset(path for own, one in self._compiled.items() for path in one.seen if path != own)

    @property
    def uses(self) -> frozenset[str]:
        """Which names of the context the pages mention, as far as they have been compiled."""
        pages = [one.page for one in self._compiled.values() if isinstance(one.page, CompiledPage)]
        hooks = frozenset(("session",)) if any(self._hooks) else frozenset[str]()
        return hooks.union(*(page.uses for page in pages))

    # ---- looking ----

    def refresh(self, patience: float = float("inf")) -> None:
        """Look at the folder again, and compile pages where they, or what they include, have changed.

        Arguments:
            patience: seconds after which further pages are left to `compile_rest`, or to their first request.
        """
        tree = Tree(self.root, self._static, self._judged)
        files: dict[tuple[str, str, int], File] = {}
        skipped = []
        for file in tree.read():
            if isinstance(file, str):
                skipped.append(file)
                continue
            other = files.setdefault((file.url, file.method, file.status), file)
            if other is not file:
                skipped.append(
                    f"{file.name} is hidden by {other.name}: both are {file.method} {file.url or file.status}"
                )
        before = self._compiled
        self._files, self.skipped, self._judged = list(files.values()), skipped, tree.judged
        self._compiled = {
            file.path: before[file.path]
            for file in self._files
            if file.page and file.path in before and before[file.path].is_current()
        }
        memory = MemoryCache()
        self._served = {file.path: self._make_served(file, memory) for file in self._files if not file.page}
        deadline = time.monotonic() + patience
        for _ in self.compile_rest():
            if time.monotonic() > deadline:
                break

    def compile_rest(self) -> Iterator[None]:
        """Compile the pages that have not been, one at each step."""
        for file in self._files:
            if file.page and file.path not in self._compiled:
                self._compile(file)
                yield

    # ---- pages ----

    def _compile(self, file: File) -> _Compiled:
        seen: dict[str, Identity | None] = {}
        try:
            found = _Compiled(compile_page(file.path, functools.partial(self._read, file, seen), self.names), seen)
        except PageError as error:
            error.shown = os.path.relpath(error.path, self.root)
            error.__traceback__ = error.__cause__ = error.__context__ = None  # they are the compiler's
            found = _Compiled(error, seen)
        self._compiled[file.path] = found
        return found

    def _read(self, file: File, seen: dict[str, Identity | None], path: str) -> str:
        """The text of a page or of what it includes. Raises OSError."""
        seen[path] = identity(path)
        if seen[path] is None or not inside(path, self.root):
            raise FileNotFoundError(2, "there is no such file within the site")
        with open(path, "rb") as opened:
            data = opened.read()
        if path == file.path and ".dyn." not in file.name and len(data) >= MAX_PAGE:
            raise OSError(27, f"with code in it, it may have {MAX_PAGE} bytes, or is called .dyn.")
        if code_in(data, text=True) == "wide":
            raise OSError(84, "it is in UTF-16 or UTF-32: save it as UTF-8")
        return data.decode("utf-8", "surrogateescape")

    def _handler(self, file: File) -> Answer:
        if not file.page:
            return self._served[file.path]
        found = self._compiled.get(file.path)
        if found is None:
            return functools.partial(self._compile_and_answer, file)
        if isinstance(found.page, PageError):
            return functools.partial(_refuse, found.page)
        return _page_handler(found.page, Terms(_type_of(file), self.store), self._hooks)

    def _compile_and_answer(self, file: File, request: Request) -> object:
        """A request has come before the page was compiled."""
        if file.path not in self._compiled:
            self._compile(file)
        return self._handler(file)(request)

    # ---- routes ----

    def _entry(self, file: File) -> Entry:
        direct = not file.page and file.method == "GET"
        kind = _type_of(file) if file.page else BINARY
        handler = self._handler(file)
        if self._dev and isinstance(handler, ServedFile) and _type_of(file).startswith("text/html"):
            # Browsers get more than the file, see serve/inject.py: neither its validators nor its ranges are right
            handler, direct = handler.whole, False
        return Entry(file.url, file.url, file.method, handler, False, file.name, file.path, direct, kind)

    def _make_served(self, file: File, memory: MemoryCache) -> ServedFile:
        allow = None if file.cached else functools.partial(_refuse_code, file)
        return ServedFile(file.path, self.root, immutable=file.cached and not self._dev, allow=allow, cache=memory)

    def _error_handler(self, file: File) -> Answer:
        handler = self._handler(file)
        if isinstance(handler, ServedFile):
            return functools.partial(_error_file, handler, file.status)
        found = self._compiled.get(file.path) or self._compile(file)
        if isinstance(found.page, PageError):
            return functools.partial(_refuse, found.page)
        return _error_handler(found.page, Terms(_type_of(file), self.store), file.status)


def _type_of(file: File) -> str:
    return media_type(file.name, TEXT)


def _refuse_code(file: File, path: str, fd: int) -> None:
    """A static file has changed: it must not be sent if it has become a page."""
    if holds_code(fd, is_text(file.name)):
        error = PageError(path, 1, "there is code in it now: it becomes a page at the next start, or look of --reload")
        error.shown = file.name
        raise error


def _refuse(error: PageError, *_: object) -> object:
    """The handler of a page that cannot be compiled."""
    raise error.with_traceback(None)


def _wants_json(request: Request) -> bool:
    """Whether the client is a program, to which a page says nothing."""
    return preferred_form(",".join(request.headers.getall("accept"))) == "json"


def _error_file(served: ServedFile, status: int, request: Request, error: BaseException) -> Response:
    """`404.html` without code."""
    if _wants_json(request):
        return Response(*error_answer(error, request, dev=False))
    response = served.whole(request)
    response.status = status
    response.fields.extend([("Vary", "Accept"), *_fields_of(error)])
    return response


def _fields_of(error: BaseException) -> list[tuple[str, str]]:
    """What an error's answer must have, whoever makes it: WWW-Authenticate, Allow, Retry-After…"""
    return error.headers if isinstance(error, HTTPError) else []


def _redirect_entry(url: str) -> Entry:
    def redirect(request: Request) -> Response:
        query = f"?{request.query_string}" if request.query_string else ""
        return Response.redirect(quote(url) + "/" + query, 301)

    return Entry(url, url, "GET", redirect, False, f"{url}/", url)


# ---- a request of a page ----

Run = Callable[[Context], Awaitable[None] | None]


def _page_handler(page: CompiledPage, terms: Terms, hooks: Hooks) -> Answer:
    """The page as a handler: a plain function where nothing in it waits."""
    if any(hooks):
        return _hooked(page.run, terms, hooks)
    run: Run = page.run

    def answer(request: Request) -> Response | bytes:
        context = Context(request, terms)
        try:
            run(context)
        except PageEnd:
            pass
        return context.finish()

    async def answer_async(request: Request) -> Response | bytes:
        context = Context(request, terms)
        try:
            waiting = run(context)
            if waiting is not None:
                await waiting
        except PageEnd:
            pass
        return context.finish()

    return answer_async if page.is_async else answer


def _hooked(run: Run, terms: Terms, hooks: Hooks) -> Answer:
    """The page within main.py's hooks."""

    def steps(request: Request) -> Generator[Any, Any, Any]:
        context = Context(request, terms)
        given = request.method, request.path, context.session
        try:
            instead = None if hooks.before is None else (yield hooks.before(*given))
            if instead is not None:
                found = to_response(request, instead)
                # A copy: it may be one that the program keeps, and this visitor's cookie is no other's
                response = Response(found.body, found.status, list(found.fields), found.content_type)
                terms.store.save(context.session, response)
                return response
            waiting = run(context)
            if waiting is not None:
                yield waiting
        except PageEnd:
            pass
        if hooks.after is not None:
            yield hooks.after(*given)
        return context.finish()

    def answer(request: Request) -> object:
        return drive(steps(request))

    return answer


def _error_handler(page: CompiledPage, terms: Terms, status: int) -> Answer:
    """The page as the handler of a status, without hooks: they have run, or will not."""
    run: Run = page.run

    def steps(request: Request, error: BaseException) -> Generator[Any, Any, Any]:
        if _wants_json(request):
            return Response(*error_answer(error, request, dev=False))
        context = Context(request, terms)
        context.response.status = status
        context.response.fields.extend([("Vary", "Accept"), *_fields_of(error)])
        context.locals["error"] = error
        try:
            waiting = run(context)
            if waiting is not None:
                yield waiting
        except PageEnd:
            pass
        return context.finish()

    def answer(request: Request, error: BaseException) -> object:
        return drive(steps(request, error))

    return answer

"""What a page's code sees: the request, the session, and the answer in the making.

`site.py` makes a `Context` for each request of a page, runs the page with it, and takes the Response from `finish`.
Names that a page does not mention cost it nothing: what the request brings is made when it is first asked for.
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable, Generator
from typing import TYPE_CHECKING, Any, NoReturn

from .. import _engine
from ..http import Response, encode_json
from ..promise import await_ as _await
from ..urls import Query, to_url

if TYPE_CHECKING:
    from ..http import Request
    from ..sessions import Session, Store

_NUMBERS = frozenset((int, float, bool))
_NO_FIELDS = _engine.MultiDict()
_STATUSES = range(200, 600)


class PageEnd(BaseException):
    """The page ends here, and its answer stands: raised by `redirect`, caught by `site.py`.

    No Exception, so that a page's own `except Exception` does not take it for a failure.
    """


class Raw(str):
    """A fragment that is HTML already: `escape` leaves it as it is. Made by `raw` in a page."""

    __slots__ = ()

    def __html__(self) -> Raw:
        return self


class Done:
    """What a block finds as `done`: calling it finishes the block."""

    __slots__ = ("_future",)

    def __init__(self) -> None:
        self._future: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def __call__(self, *_: object) -> None:
        """Finish the block. Arguments are ignored, so that it can be a callback itself; so are further calls."""
        if not self._future.done():
            self._future.set_result(None)

    def __await__(self) -> Generator[Any, None, None]:
        return self._future.__await__()


class Context:
    """One request of a page. Its public attributes are the names that the page's code can use.

    Attributes:
        out: the body so far, in pieces; while a parallel page runs, another list is in its place.
        request: the Request; `body`, `headers`, `method`, `cookies`, `form` and `endpoint` (its path) are parts of it.
        response: what will be sent, without its body yet.
    """

    def __init__(self, request: Request, store: Store, kind: str, status: int = 200) -> None:
        self.out: list[bytes] = []
        self.request = request
        self.response = Response(None, status, [], kind)
        self._store = store

    def finish(self) -> Response:
        """The answer of a page that has run.

        Raises:
            TypeError, ValueError: the session holds what cannot be kept, or a `post_render` handler returned no text.
        """
        response = self.response
        if self._session is not None:
            self._store.save(self._session, response)
        if self._ended:
            return response
        body = b"".join(self.out)
        for handler in self._handlers:
            body = _rendered(handler, handler(body.decode("utf-8", "surrogateescape")))
        response.body = body
        return response

    # Defaults of what most requests never set. As the class's they cost a request nothing.
    _ended = False
    _handlers: tuple[Callable[[str], str | bytes], ...] = ()
    _session: Session | None = None

    # ---- what the request brings ----

    @property
    def endpoint(self) -> str:
        """The request's path, decoded, without the query."""
        return self.request.path

    @property
    def method(self) -> str:
        return self.request.method

    @property
    def headers(self) -> _engine.MultiDict:
        """Header fields, in any case: `headers.get("user-agent")`."""
        return self.request.headers

    @property
    def body(self) -> bytes:
        return self.request.body

    @property
    def cookies(self) -> dict[str, str]:
        return self.request.cookies

    @functools.cached_property
    def query(self) -> Query:
        """The query's parameters; those that came encrypted in `query.e`. See `urls.Query`."""
        return Query(self.request.query, self.request.path)

    @property
    def form(self) -> _engine.MultiDict:
        """The fields of the submitted form; empty where the request has no body.

        Raises:
            HTTPError: 400, 413 or 415, as `Request.form`.
        """
        request = self.request
        return request.form() if request.body or request.content_type else _NO_FIELDS

    @property
    def session(self) -> Session:
        """What is remembered of the visitor, a dict; see `sessions.Session`."""
        if self._session is None:
            self._session = self._store.load(self.request)
        return self._session

    @functools.cached_property
    def locals(self) -> dict[str, Any]:
        """Room that blocks and hooks share for the time of the request."""
        return {}

    # ---- what a page does ----

    escape = staticmethod(_engine.escape)
    raw = Raw
    await_ = staticmethod(_await)
    to_url = staticmethod(to_url)
    make_done = Done

    def write(self, text: object, *args: object) -> None:
        """Write to the page.

        Arguments:
            text: as it stands if it is alone; a dict or a list as JSON; bytes as they are.
            args: for `text % args`, each HTML-escaped but for numbers and what `raw` has made.
        Raises:
            TypeError, ValueError: text and arguments do not fit.
        """
        if args:
            text = str(text) % tuple([one if type(one) in _NUMBERS else _engine.escape(one) for one in args])
        if isinstance(text, bytes):
            self.out.append(text)
        elif isinstance(text, (dict, list)):
            self.out.append(encode_json(text))
        else:
            self.out.append(str(text).encode("utf-8", "surrogateescape"))

    def status(self, status: int | str) -> None:
        """Set the answer's status: `status(404)` or `status("404 Not Found")`; the name is not looked at.

        Raises:
            ValueError: it is no number from 200 to 599.
        """
        digits = str(status)[:3]
        number = int(digits) if digits.isascii() and digits.isdecimal() and str(status)[3:4] in ("", " ") else 0
        if number not in _STATUSES:
            raise ValueError(f"status: {status!r} is not a status from 200 to 599")
        self.response.status = number

    def header(self, name: str, value: object, *, add: bool = False) -> None:
        """Set a header field of the answer.

        Arguments:
            add: beside others of that name instead of in their place.
        """
        if add:
            self.response.headers.add(name, str(value))
        else:
            self.response.headers[name] = str(value)

    def set_cookie(self, name: str, value: str, **attributes: Any) -> None:
        """Add a cookie to the answer; arguments and errors as of `Response.set_cookie`."""
        self.response.set_cookie(name, value, **attributes)

    def redirect(self, url: str, status: int = 302) -> NoReturn:
        """Answer with a redirect, and end the page: nothing after it runs, nothing that was written is sent.

        Header fields, cookies and the session are. Take 303 after a form that was posted.

        Raises:
            ValueError: a status that does not redirect.
        """
        found = Response.redirect(url, status)
        response = self.response
        response.status, response.body, response.content_type = found.status, found.body, found.content_type
        response.headers["Location"] = found.headers["Location"]
        self._ended = True
        raise PageEnd

    def post_render(self, handler: Callable[[str], str | bytes]) -> None:
        """Have `handler(text)` change the rendered page: what it returns is sent instead. In order of calls."""
        self._handlers = (*self._handlers, handler)


def _rendered(handler: Callable[[str], Any], value: Any) -> bytes:
    if isinstance(value, str):
        return value.encode("utf-8", "surrogateescape")
    if isinstance(value, bytes):
        return value
    name = getattr(handler, "__qualname__", repr(handler))
    raise TypeError(f"post_render: {name} returned {type(value).__name__}, it must return the page as text or bytes")

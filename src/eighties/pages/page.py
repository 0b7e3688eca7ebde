"""What a page's code sees: the request, the session, and the answer in the making.

`site.py` makes a `Context` for each request of a page, runs the page with it, and takes the Response from `finish`.
Names that a page does not mention cost it nothing: what the request brings is made when it is first asked for.
"""

from __future__ import annotations

import asyncio
import functools
import threading
from collections.abc import Callable, Generator
from numbers import Number
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn

from .. import _engine
from ..http import Response, encode_json
from ..promise import await_ as _await
from ..urls import Query, to_url

if TYPE_CHECKING:
    from ..http import Request
    from ..sessions import Session, Store

_NO_FIELDS = _engine.MultiDict()
_STATUSES = range(200, 600)


class PageEnd(BaseException):
    """The page ends here, and its answer stands: raised by `redirect`, caught by `site.py`.

    No Exception, so that a page's own `except Exception` does not take it for a failure. Transactions look at
    `is_failure`: what a page has written before it redirects is to stay.
    """

    is_failure = False


class Raw(str):
    """A fragment that is HTML already: `escape` leaves it as it is. Made by `raw` in a page."""

    __slots__ = ()

    def __html__(self) -> Raw:
        return self

    def __format__(self, spec: str) -> Raw:
        return Raw(super().__format__(spec))


class Done:
    """What a block finds as `done`: calling it finishes the block."""

    __slots__ = ("_future", "_thread")

    def __init__(self) -> None:
        self._future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._thread = threading.get_ident()

    def __call__(self, *_: object) -> None:
        """Finish the block. Arguments are ignored, so that it can be a callback itself; so are further calls."""
        if threading.get_ident() == self._thread:
            self._finish()
        else:  # the loop would not notice otherwise
            self._future.get_loop().call_soon_threadsafe(self._finish)

    def _finish(self) -> None:
        if not self._future.done():
            self._future.set_result(None)

    def __await__(self) -> Generator[Any, None, None]:
        return self._future.__await__()


class _Query(Query):
    """A request's. Its path is looked at when `e` is."""

    __slots__ = ("_request",)

    def __init__(self, request: Request) -> None:
        self._plain = request.query
        self._request = request

    @property
    def _endpoint(self) -> str:  # type: ignore[override]  # of the class above it is a plain attribute
        return self._request.path


class Terms(NamedTuple):
    """What is the same for all requests of a page: the type of its answers, and where sessions are kept."""

    content_type: str
    store: Store


class Context:
    """One request of a page. Its public attributes are the names that the page's code can use.

    Attributes:
        out: the body so far, in pieces; while a parallel page runs, another list is in its place.
        request: the Request; `body`, `headers`, `method`, `cookies`, `form` and `endpoint` (its path) are parts of it.
    """

    def __init__(self, request: Request, terms: Terms) -> None:
        self.out: list[bytes] = []
        self.request = request
        self._terms = terms

    # Defaults of what most requests never set. As the class's they cost a request nothing.
    _bare = True  # its body is all there is to the answer
    _ended = False
    _handlers: tuple[Callable[[str], str | bytes], ...] = ()
    _query: Query | None = None
    _response: Response | None = None
    _session: Session | None = None

    def finish(self) -> Response | bytes:
        """The answer of a page that has run: its bytes, if nothing but the body matters.

        Raises:
            TypeError, ValueError: the session holds what cannot be kept, or a `post_render` handler returned no text.
        """
        if self._bare:
            return b"".join(self.out)
        response = self.response
        if not self._ended:
            body = b"".join(self.out)
            for handler in self._handlers:
                body = _rendered(handler, handler(body.decode("utf-8", "surrogateescape")))
            response.body = body
        if self._session is not None:
            self._terms.store.save(self._session, response)
        return response

    @property
    def response(self) -> Response:
        """What will be sent, without its body yet."""
        if self._response is None:
            self._bare = False
            self._response = Response(None, 200, [], self._terms.content_type)
        return self._response

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

    @property
    def query(self) -> Query:
        """The query's parameters; those that came encrypted in `query.e`. See `urls.Query`."""
        query = self._query
        if query is None:
            query = self._query = _Query(self.request)
        return query

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
            self._bare = False
            self._session = self._terms.store.load(self.request)
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
            text = str(text) % tuple([_argument(one) for one in args])
        if isinstance(text, bytes):
            self.out.append(text)
        elif isinstance(text, (dict, list)):
            self.out.append(_json(text))
        elif hasattr(text, "__await__"):
            raise TypeError(f"write: a {type(text).__name__} is not a value yet: await it, in <?pya ?>")
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
        self._bare = False
        self._handlers = (*self._handlers, handler)


def _argument(value: object) -> object:
    """What stands for an argument of `write`: numbers stay numbers, for `%d`."""
    if type(value) is str:
        return _engine.escape(value)
    return value if isinstance(value, Number) else _engine.escape(value)


def _json(value: object) -> bytes:
    """JSON that may stand in HTML, `</script>` and all: what means something there can only be within texts."""
    text = encode_json(value)
    return text.replace(b"<", b"\\u003c").replace(b">", b"\\u003e").replace(b"&", b"\\u0026")


def _rendered(handler: Callable[[str], Any], value: Any) -> bytes:
    if isinstance(value, str):
        return value.encode("utf-8", "surrogateescape")
    if isinstance(value, bytes):
        return value
    name = getattr(handler, "__qualname__", repr(handler))
    raise TypeError(f"post_render: {name} returned {type(value).__name__}, it must return the page as text or bytes")

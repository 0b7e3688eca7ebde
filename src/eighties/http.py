"""Request and Response as programs see them, and how the values of handlers become answers.

The engine makes and owns each request and serialises each response; what stands here is only what is convenient
in Python. The engine calls `respond`, `pump` and `settle`, `app.py` and programs call the rest. No state is kept.
"""

from __future__ import annotations

import functools
import os
from collections.abc import (
    AsyncIterable,
    AsyncIterator,
    Awaitable,
    Callable,
    Iterable,
    Iterator,
    Mapping,
    MutableMapping,
)
from types import AsyncGeneratorType
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from . import _engine, forms
from .cookies import check_cookie, http_date, parse_cookies
from .errors import HTTPError, header_pairs
from .media import media_type

if TYPE_CHECKING:
    from datetime import datetime
    from typing import Literal

TEXT = "text/plain; charset=utf-8"
HTML = "text/html; charset=utf-8"
JSON = "application/json"
BINARY = "application/octet-stream"

MAX_FORM = 64 << 20
"""Bytes of a streamed form that `read_form` takes unless told otherwise (413)."""
REDIRECTS = (301, 302, 303, 307, 308)
"""Statuses that send the client elsewhere (RFC 9110 §15.4)."""

_ALNUM = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
_URI = frozenset((_ALNUM + "-._~:/?#[]@!$&'()*+,;=%").encode())  # RFC 3986 §2; what is encoded already stays so
_ATTR = frozenset((_ALNUM + "!#$&+-.^_`|~").encode())  # RFC 8187 §3.2.1

Headers = Mapping[str, str] | Iterable[tuple[str, str]] | None
"""How header fields may be handed over: a mapping, or pairs where a name stands several times."""


class Address(NamedTuple):
    """Where a client is. As text `192.0.2.1:4711`, `[2001:db8::1]:4711`, or `unix` for a unix socket."""

    host: str
    port: int

    def __str__(self) -> str:
        if not self.port and self.host == "unix":
            return "unix"
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


class Request(_engine.Request):
    """What a handler gets. Every attribute is made when first asked for.

    From the engine come `method`, `path` (decoded), `target` and `query_string` (as sent), `query`, `headers` (in any
    case), `params` (of the path), `body`, `http_version`, `scheme` and `worker`; the rest is here.
    """

    __slots__ = ("_cookies", "_form", "_settled", "_state")

    _cookies: dict[str, str]
    _form: _engine.MultiDict
    _settled: bool  # set when an error can change the answer no more: it has begun, or hooks have had their chance
    _state: dict[str, Any]

    @property
    def client(self) -> Address:
        """The other end of the connection: `request.client.host`, `.port`, `str(request.client)`."""
        peer = self.peername
        return Address("unix", 0) if isinstance(peer, str) else Address(*peer)

    @property
    def state(self) -> dict[str, Any]:
        """Room for hooks to hand things on to the handler, this request long."""
        try:
            return self._state
        except AttributeError:
            self._state = {}
            return self._state

    @property
    def cookies(self) -> dict[str, str]:
        """Cookies by name (RFC 6265 §5.4); the first of a name counts, as browsers send the closest path first.

        Never raises: what is no `name=value` is passed over.
        """
        try:
            return self._cookies
        except AttributeError:
            self._cookies = parse_cookies("; ".join(self.headers.getall("cookie")))
            return self._cookies

    @property
    def content_type(self) -> str:
        """The Content-Type as sent, or an empty text."""
        value: str = self.headers.get("content-type", "")
        return value

    def text(self) -> str:
        """The body as text, in the charset of Content-Type, else UTF-8.

        Raises:
            HTTPError: 400 when the bytes are not of that charset, 415 when it is not one of `forms.CHARSETS`.
        """
        return forms.decode(self.body, forms.media_type(self.content_type)[1].get("charset", "utf-8"))

    def json(self) -> Any:
        """The body as JSON (RFC 8259), whatever the Content-Type.

        Raises:
            HTTPError: 400 that says where the body is not JSON. NaN and Infinity are not.
        """
        return forms.read_json(self.body)

    def form(self, *, max_fields: int = forms.MAX_FIELDS) -> _engine.MultiDict:
        """The fields of a form, urlencoded or multipart: `str`, and `Upload` for files.

        Arguments:
            max_fields: how many fields are accepted, in the first call.
        Raises:
            HTTPError: 400 for a malformed form, 413 for too many fields, 415 for a body that is no form.
        """
        try:
            return self._form
        except AttributeError:
            self._form = forms.read_fields(self.content_type, self.body, max_fields)
            return self._form

    async def read_form(self, *, max_fields: int = forms.MAX_FIELDS, max_bytes: int = MAX_FORM) -> _engine.MultiDict:
        """As `form()`, in a handler with `stream=True`: large files go to disk as they come. Multipart only.

        Arguments:
            max_fields: how many fields are accepted.
            max_bytes: how many bytes of body are accepted.
        Raises:
            HTTPError: as `form()`, and 413 for a longer body.
            ConnectionError: the body did not arrive whole.
        """
        if forms.media_type(self.content_type)[0] != "multipart/form-data":
            raise HTTPError(415, "expected a form: multipart/form-data")
        reader = forms.FormReader(self.content_type, max_fields, max_bytes)
        try:
            async for chunk in self.stream():
                reader.feed(chunk)
            return reader.finish()
        finally:
            reader.close()

    async def stream(self) -> AsyncIterator[bytes]:
        """The body in pieces as they arrive, once. The client waits while the handler does not read.

        Raises:
            ConnectionError: the body cannot arrive whole any more; never taken for its end.
        """
        while True:
            chunk = self.read_chunk()
            if chunk is None:
                await self.chunk_ready()
            elif chunk:
                yield chunk
            else:
                return


class ResponseHeaders(MutableMapping[str, str]):
    """The header fields of a response, by name in any case. `[]` gives the first value and sets the only one.

    A view: fields live in `response.fields`, the content type in `response.content_type`.
    """

    __slots__ = ("_response",)

    def __init__(self, response: Response) -> None:
        self._response = response

    def pairs(self) -> list[tuple[str, str]]:
        """Every field in order, the content type last."""
        pairs = list(self._response.fields)
        kind = self._response.content_type
        if kind is not None and not any(name.lower() == "content-type" for name, _ in pairs):
            pairs.append(("Content-Type", kind))
        return pairs

    def getall(self, name: str) -> list[str]:
        """Every value of a name, in order."""
        name = name.lower()
        return [value for other, value in self.pairs() if other.lower() == name]

    def add(self, name: str, value: str) -> None:
        """A further field, beside those of the same name."""
        self._response.fields.append((name, value))

    def __getitem__(self, name: str) -> str:
        values = self.getall(name)
        if not values:
            raise KeyError(name)
        return values[0]

    def __setitem__(self, name: str, value: str) -> None:
        self._drop(name)
        if name.lower() == "content-type":
            self._response.content_type = value
        else:
            self._response.fields.append((name, value))

    def __delitem__(self, name: str) -> None:
        if name not in self:
            raise KeyError(name)
        self._drop(name)

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and bool(self.getall(name))

    def __iter__(self) -> Iterator[str]:
        return iter(dict.fromkeys(name.lower() for name, _ in self.pairs()))

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def __repr__(self) -> str:
        return f"<ResponseHeaders {self.pairs()!r}>"

    def _drop(self, name: str) -> None:
        name = name.lower()
        self._response.fields = [pair for pair in self._response.fields if pair[0].lower() != name]
        if name == "content-type":
            self._response.content_type = None


class Response(_engine.Response):
    """An answer under full control: `Response.html(...)`, `.json(...)`, `.redirect(...)`, `.file(...)`….

    Arguments (of the class itself, which is rarely needed):
        body: str, bytes, an async generator, or None for no body.
        status: 200 to 599.
        fields: header fields as pairs.
        content_type: the Content-Type, unless `fields` has one.
    Names and values of header fields are checked when the answer is sent: bad ones become a 500.
    """

    __slots__ = ()

    @property
    def headers(self) -> ResponseHeaders:
        """The header fields, to read and to change."""
        return ResponseHeaders(self)

    @classmethod
    def text(cls, text: str, status: int = 200, *, headers: Headers = None) -> Response:
        """Plain text, UTF-8."""
        return cls(text, status, header_pairs(headers), TEXT)

    @classmethod
    def html(cls, html: str, status: int = 200, *, headers: Headers = None) -> Response:
        """An HTML page, UTF-8. Nothing is escaped."""
        return cls(html, status, header_pairs(headers), HTML)

    @classmethod
    def json(cls, value: Any, status: int = 200, *, headers: Headers = None) -> Response:
        """Any value as JSON, see `encode_json`.

        Raises:
            TypeError, ValueError: the value has no JSON form.
        """
        return cls(encode_json(value), status, header_pairs(headers), JSON)

    @classmethod
    def bytes(cls, data: Bytes, status: int = 200, *, content_type: str = BINARY, headers: Headers = None) -> Response:
        """Bytes of any type."""
        return cls(data, status, header_pairs(headers), content_type)

    @classmethod
    def redirect(cls, url: str, status: int = 302, *, headers: Headers = None) -> Response:
        """Send the client to `url`; what may not stand in one is percent-encoded (RFC 3986 §2.1).

        Arguments:
            url: absolute, or relative to the request. One that a client chose should be checked first.
            status: 301, 302, 303, 307 or 308.
        Raises:
            ValueError: another status.
        """
        if status not in REDIRECTS:
            raise ValueError(f"redirect: status {status} is none of {', '.join(map(str, REDIRECTS))}")
        location = _percent(url, _URI)
        return cls(f"See {location}\n", status, [("Location", location), *header_pairs(headers)], TEXT)

    @classmethod
    def stream(
        cls,
        chunks: AsyncIterable[str | Bytes],
        status: int = 200,
        *,
        length: int | None = None,
        content_type: str = BINARY,
        headers: Headers = None,
    ) -> Response:
        """Pieces of text or bytes as they are made; the producer waits while the client does not read.

        Arguments:
            chunks: an async generator or another async iterable.
            length: bytes of the whole, where known; without it the answer is chunked.
        Raises:
            TypeError: `chunks` cannot be iterated with `async for`.
        """
        if not hasattr(chunks, "__aiter__"):
            raise TypeError(f"Response.stream: {type(chunks).__name__} is no async iterable")
        body = chunks if isinstance(chunks, AsyncGeneratorType) else _generate(chunks)
        fields = header_pairs(headers)
        if length is not None:
            fields.append(("Content-Length", str(length)))
        return cls(body, status, fields, content_type)

    @classmethod
    def file(
        cls,
        path: str | os.PathLike[str],
        status: int = 200,
        *,
        content_type: str | None = None,
        filename: str | None = None,
        headers: Headers = None,
    ) -> Response:
        """A regular file, sent by the kernel; it is opened now, and closed when it is sent.

        Arguments:
            path: which file. Never join a client's text to a folder unchecked.
            content_type: what it is; by the end of the file's name otherwise, see `media`.
            filename: offer it as a download under this name (RFC 6266).
        Raises:
            OSError: as `open`; `IsADirectoryError`, or EINVAL for a device, a pipe or a socket.
            ValueError: control characters in `filename`.
        """
        fields = header_pairs(headers)
        if filename is not None:
            fields.append(("Content-Disposition", _disposition(filename)))
        kind = content_type or media_type(os.fspath(path), BINARY)
        return cls(_open_region(path), status, fields, kind)

    def set_cookie(
        self,
        name: str,
        value: str,
        *,
        max_age: int | None = None,
        expires: datetime | None = None,
        path: str | None = "/",
        domain: str | None = None,
        secure: bool = False,
        httponly: bool = False,
        samesite: Literal["Lax", "Strict", "None"] | None = "Lax",
    ) -> None:
        """Add a cookie (RFC 6265 §4.1).

        Arguments:
            value: visible ASCII but `" , ; \\`; encode anything else, for instance with `urllib.parse.quote`.
            max_age: seconds to live; 0 or less deletes. Without it and `expires`: until the browser ends.
            expires: a datetime with a time zone.
            samesite: "None" needs `secure`.
        Raises:
            ValueError: names the part that may not stand in a cookie.
        """
        check_cookie(name, value, path, domain, secure, samesite)
        parts = [f"{name}={value}"]
        if max_age is not None:
            parts.append(f"Max-Age={int(max_age)}")
        if expires is not None:
            parts.append(f"Expires={http_date(expires)}")
        parts += [f"{key}={text}" for key, text in (("Path", path), ("Domain", domain), ("SameSite", samesite)) if text]
        parts += [flag for flag, on in (("Secure", secure), ("HttpOnly", httponly)) if on]
        self.fields.append(("Set-Cookie", "; ".join(parts)))

    def delete_cookie(
        self, name: str, *, path: str | None = "/", domain: str | None = None, secure: bool = False
    ) -> None:
        """Have the browser forget a cookie. `path`, `domain` and `secure` as it was set with.

        Raises:
            ValueError: as `set_cookie`.
        """
        self.set_cookie(name, "", max_age=0, path=path, domain=domain, secure=secure)


Bytes = bytes  # within Response, `bytes` is a method


def respond(request: _engine.Request, value: object) -> Response:
    """The answer for a handler's value that is not one by itself: dict, list and dataclass become JSON.

    Raises:
        TypeError: for any other value; names the handler, the type, and what is allowed.
    """
    if isinstance(value, (dict, list)) or hasattr(type(value), "__dataclass_fields__"):
        return Response(encode_json(value), 200, [], JSON)
    what = _article(type(value).__name__)
    raise TypeError(
        f"{request.handler_name} returned {what}, which is no answer. Allowed are str, bytes, None, dict, list, "
        "a dataclass, an async generator, and Response (Response.html, .json, .redirect, .file…)"
    )


def to_response(request: _engine.Request, value: object, status: int = 200) -> Response:
    """Any allowed value of a handler as a Response, for hooks; plain ones start from `status`.

    Raises:
        TypeError: as `respond`.
    """
    if isinstance(value, Response):
        return value
    if isinstance(value, str):
        return Response(value, status, [], TEXT)
    if isinstance(value, bytes):
        return Response(value, status, [], BINARY)
    if value is None:
        return Response(None, 204 if status == 200 else status, [])
    if isinstance(value, AsyncGeneratorType):
        return Response(value, status, [], TEXT)
    if isinstance(value, _engine.Response):
        return Response(value.body, value.status, value.fields, value.content_type)
    if not request.connected:  # or the connection has been taken over: nobody gets what is returned
        return Response(None, 204, [])
    response = respond(request, value)
    response.status = status
    return response


async def pump(request: _engine.Request, response: _engine.Response) -> None:
    """Send a streamed body piece by piece, waiting while the client does not read.

    Raises:
        TypeError: a piece is neither text nor bytes.
        ConnectionError: the client is gone.
    """
    body = response.body
    send = request.send_chunk
    begun = False
    try:
        async for chunk in body:
            if isinstance(chunk, str):
                chunk = chunk.encode()
            elif not isinstance(chunk, bytes):
                what = _article(type(chunk).__name__)
                raise TypeError(f"{request.handler_name} yielded {what}, but a stream is made of str or bytes")
            ready = send(response, chunk)
            begun = True
            if not ready:
                await request.send_ready()
        if not begun:
            send(response, b"")
    except Exception:
        if begun:
            cast(Request, request)._settled = True
        raise
    finally:
        # The generator's own clean-up must run now, not when it is collected
        if (aclose := getattr(body, "aclose", None)) is not None:
            await aclose()


async def settle(awaitable: Awaitable[Any]) -> Any:
    """A coroutine around an awaitable that is none, for the engine to make a task of."""
    return await awaitable


async def _generate(chunks: AsyncIterable[str | bytes]) -> AsyncIterator[str | bytes]:
    async for chunk in chunks:
        yield chunk


def _article(name: str) -> str:
    return f"{'an' if name[:1].lower() in 'aeiou' else 'a'} {name}"


# ---- JSON ----


def encode_json(value: Any) -> bytes:
    """A value as JSON, UTF-8 (RFC 8259), without spaces.

    Dataclasses become objects; datetimes, dates and times ISO 8601 texts; UUID and Decimal texts (a Decimal keeps its
    digits); an Enum its value; a set a list, in no order.

    Raises:
        TypeError: there is no JSON for a type within it.
        ValueError: NaN or Infinity.
    """
    text = _json_encoder()(value)
    try:
        return text.encode()
    except UnicodeEncodeError:  # half a surrogate pair, which JSON can carry only as an escape
        import json

        return json.dumps(value, default=_json_default, separators=(",", ":"), allow_nan=False).encode()


@functools.cache
def _json_encoder() -> Callable[[Any], str]:
    import json

    # Without the check for circles a circle ends in RecursionError: the same 500, and no bookkeeping for everybody else
    return json.JSONEncoder(
        default=_json_default, separators=(",", ":"), allow_nan=False, ensure_ascii=False, check_circular=False
    ).encode


def _json_default(value: Any) -> Any:
    if hasattr(type(value), "__dataclass_fields__"):
        import dataclasses

        return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    import datetime
    import decimal
    import enum
    import uuid

    if isinstance(value, (datetime.date, datetime.time)):
        return value.isoformat()
    if isinstance(value, (uuid.UUID, decimal.Decimal)):
        return str(value)
    if isinstance(value, enum.Enum):
        return value.value
    if isinstance(value, (set, frozenset)):
        return list(value)
    raise TypeError(f"there is no JSON for {_article(type(value).__name__)}")


# ---- URLs and files ----


def _percent(text: str, keep: frozenset[int]) -> str:
    return "".join(chr(byte) if byte in keep else f"%{byte:02X}" for byte in text.encode("utf-8", "surrogatepass"))


def _disposition(filename: str) -> str:
    """An attachment's Content-Disposition (RFC 6266): a plain name for old clients, the true one for others."""
    if not filename.isprintable():
        raise ValueError(f"file name {filename!r} holds control characters")
    simple = "".join(char if char.isascii() and char not in '"\\%' else "_" for char in filename)
    if simple == filename:
        return f'attachment; filename="{simple}"'
    return f"attachment; filename=\"{simple}\"; filename*=UTF-8''{_percent(filename, _ATTR)}"


def _open_region(path: str | os.PathLike[str]) -> _engine.FileRegion:
    import errno
    import stat

    # Without O_NONBLOCK opening a pipe would wait for its writer
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        status = os.fstat(fd)
        if stat.S_ISDIR(status.st_mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), os.fspath(path))
        if not stat.S_ISREG(status.st_mode):
            raise OSError(errno.EINVAL, "not a regular file", os.fspath(path))
        return _engine.FileRegion(fd, 0, status.st_size)
    except BaseException:
        os.close(fd)
        raise

"""Sessions: what a site remembers of a visitor between requests, as a dict; and the stores that keep it.

`CookieStore` keeps it in the visitor's own cookie, encrypted, so every worker and machine with the same master key
reads it and the server holds nothing; a copy of the cookie stays good until it is too old, though, even after a logout.
`MemoryStore` shows a store on the server's side. The pages call `load` when a page first asks for its session, and
`save` before they answer. The client chooses every byte that `load` sees: what is forged or old is an empty session.
"""

from __future__ import annotations

import functools
import json
from secrets import token_urlsafe
from time import time
from typing import TYPE_CHECKING, Any, Protocol

from .cookies import check_cookie
from .urls import MasterKey

if TYPE_CHECKING:
    from .http import Request, Response

MAX_AGE = 14 * 86400
"""Seconds that a session lives after its last change, unless a store is told otherwise."""
MAX_SKEW = 300
"""Seconds by which a cookie may be from the future: clocks of several machines differ."""
MAX_COOKIE = 4096
"""Bytes of a cookie with its name and attributes that every browser keeps (RFC 6265 §6.1)."""
ATTRIBUTES = 88
"""Bytes that `; Max-Age=…; Path=/; SameSite=Lax; Secure; HttpOnly` takes of them, with 20 digits of age."""
MAX_OPENED = 256
"""Cookies that are remembered opened: a visitor's requests come in bursts, and opening costs more than all the rest."""
MAX_SESSIONS = 10_000
"""Sessions that a MemoryStore holds; the one that has not changed for longest goes first."""
MAX_BYTES = 64 << 10
"""Bytes of one session in a MemoryStore, as JSON: MAX_SESSIONS of them are bounded, too."""


_ENCODER = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":"))


class Session(dict[str, Any]):
    """What is remembered of a visitor. Holds what JSON holds: tuples come back as lists, names as text.

    Changes are noticed at any depth, `session["cart"].append(1)` too: the JSON at the end of the request is compared
    with that at its beginning. Of two requests at once the one that is answered last wins.

    Arguments (for stores):
        data: the JSON that was kept; anything else makes an empty session.
        id: under which a store on the server's side keeps it.
        secure: whether its cookie is for https only.
    """

    __slots__ = ("_before", "id", "renewed", "secure")

    def __init__(self, data: bytes = b"", *, id: str = "", secure: bool = False) -> None:
        super().__init__(_read(data))
        self._before = data if self else b""
        self.id = id
        self.secure = secure
        self.renewed = False
        """Whether it is to be saved whether it has changed or not, under a new id; see `renew`."""

    def renew(self) -> None:
        """Have it saved even if unchanged: its age begins anew, and a store on the server's side gives it a new id.

        To be called when somebody logs in, so that an id known before is worth nothing after.
        """
        self.renewed = True

    def dump(self) -> bytes:
        """It as JSON; nothing of an empty one.

        Raises:
            TypeError, ValueError: it holds what JSON does not.
        """
        if not self:
            return b""
        try:
            text = _ENCODER.encode(self)
        except (TypeError, ValueError) as error:
            kind = TypeError if isinstance(error, TypeError) else ValueError
            raise kind(f"session: {error}; keep in it what JSON has") from None
        return text.encode("utf-8", "surrogatepass")

    def changes(self) -> bytes | None:
        """What a store must keep instead of what it has: JSON, nothing (forget it), or None where all may stay.

        Raises:
            TypeError, ValueError: as `dump`.
        """
        data = self.dump()
        return data if data != self._before or (data and self.renewed) else None


def _read(data: bytes) -> dict[str, Any]:
    try:
        values = json.loads(data.decode("utf-8", "surrogatepass")) if data else {}
    except (ValueError, RecursionError):
        return {}
    return values if isinstance(values, dict) else {}


class Store(Protocol):
    """Where sessions are kept. Any object with these two methods will do."""

    def load(self, request: Request) -> Session:
        """The session of a request: empty where it has none, and for whatever the client has made up. Never raises."""

    def save(self, session: Session, response: Response) -> None:
        """Keep what has changed, and have the answer set or delete the cookie. Called once, before the answer is sent.

        Raises:
            TypeError, ValueError: the session cannot be kept.
        """


class _Cookie:
    """The cookie of a store: HttpOnly, SameSite=Lax, Path=/; Secure where the request came by https."""

    def __init__(self, name: str, max_age: int, secure: bool | None) -> None:
        check_cookie(name, "", "/", None, True, "Lax")
        if max_age < 1:
            raise ValueError(f"max_age of cookie {name} is {max_age}, it must be 1 second or more")
        self.name = name
        self.max_age = max_age
        self.secure = secure

    def read(self, request: Request) -> tuple[str, bool]:
        """Its value, and whether it is to be Secure."""
        secure = request.scheme == "https" if self.secure is None else self.secure
        return request.cookies.get(self.name, ""), secure

    def write(self, response: Response, session: Session, value: str) -> None:
        """Set it, or delete it for an empty value."""
        if value:
            response.set_cookie(self.name, value, max_age=self.max_age, secure=session.secure, httponly=True)
        else:
            response.delete_cookie(self.name, secure=session.secure)


class CookieStore:
    """Keeps the session in the cookie itself: JSON, encrypted by AES-GCM together with the time of its last change.

    Arguments:
        key: the master key; the cookie's key is derived from it, and its name is authenticated along.
        name: of the cookie.
        max_age: seconds that a session lives after its last change, for browsers and by the time within.
        secure: whether the cookie is for https only; None: where the request's scheme is https. True behind a proxy
            that speaks https for this server.
    Raises:
        ValueError: the name is no cookie's name, or `max_age` is below 1.
    """

    def __init__(
        self, key: MasterKey, name: str = "session", max_age: int = MAX_AGE, *, secure: bool | None = None
    ) -> None:
        self._key = key
        self._cookie = _Cookie(name, max_age, secure)
        self._opened = functools.lru_cache(MAX_OPENED)(functools.partial(key.open, "session", "", bound=name))

    def load(self, request: Request) -> Session:
        """The session of a request. Never raises: of a forged, cut, foreign or old cookie it is empty."""
        text, secure = self._cookie.read(request)
        return Session(self._open(text), secure=secure)

    def save(self, session: Session, response: Response) -> None:
        """Set the cookie of a changed session, delete that of an emptied one.

        Raises:
            TypeError, ValueError: the session holds what JSON does not, or is too large for a cookie.
        """
        _vary(response)
        data = session.changes()
        if data is not None:
            self._cookie.write(response, session, self._seal(data) if data else "")

    def _seal(self, data: bytes) -> str:
        name = self._cookie.name
        text = self._key.seal("session", "", int(time()).to_bytes(8, "big") + data, bound=name, iv=True)
        size = len(name) + 1 + len(text) + ATTRIBUTES
        if size > MAX_COOKIE:
            raise ValueError(
                f"session: {len(data)} bytes make a cookie of {size}, browsers keep {MAX_COOKIE}; "
                "keep less in it, or use a store on the server"
            )
        return text

    def _open(self, text: str) -> bytes:
        """The JSON in a cookie; nothing of one that is not good."""
        if not text or len(text) > MAX_COOKIE:
            return b""
        sealed = self._opened(text)
        if sealed is None:
            return b""
        age = time() - int.from_bytes(sealed[:8], "big")
        return sealed[8:] if -MAX_SKEW <= age <= self._cookie.max_age else b""


class MemoryStore:
    """Keeps sessions in this process, under random ids: gone when it ends, and not seen by other workers.

    For tests, for one worker, and as an example of a store. Arguments and errors as of `CookieStore`.
    """

    def __init__(self, name: str = "session", max_age: int = MAX_AGE, *, secure: bool | None = None) -> None:
        self._cookie = _Cookie(name, max_age, secure)
        self._kept: dict[str, tuple[float, bytes]] = {}  # by id, the last changed last: when it is too old, its JSON

    def __len__(self) -> int:
        return len(self._kept)

    def load(self, request: Request) -> Session:
        """The session of a request. An id that this store has not given is no session's. Never raises."""
        id, secure = self._cookie.read(request)
        deadline, data = self._kept.get(id, (0.0, b""))
        if time() >= deadline:
            return Session(secure=secure)
        return Session(data, id=id, secure=secure)

    def save(self, session: Session, response: Response) -> None:
        """Keep a changed session and set its cookie; forget an emptied one, and delete its cookie.

        Raises:
            TypeError, ValueError: the session holds what JSON does not, or more than MAX_BYTES.
        """
        _vary(response)
        data = session.changes()
        if data is None:
            return
        if len(data) > MAX_BYTES:
            raise ValueError(f"session: {len(data)} bytes, it may have {MAX_BYTES}")
        if session.id and self._kept.pop(session.id, None) is None:
            return  # another request has ended it meanwhile, perhaps a logout: it must not come back
        if data:
            self._keep(session, data)
        self._cookie.write(response, session, session.id if data else "")

    def _keep(self, session: Session, data: bytes) -> None:
        if session.renewed or not session.id:
            session.id = token_urlsafe(32)
        now = time()
        self._kept[session.id] = (now + self._cookie.max_age, data)
        while len(self._kept) > MAX_SESSIONS or next(iter(self._kept.values()))[0] <= now:
            del self._kept[next(iter(self._kept))]


def _vary(response: Response) -> None:
    """The answer depends on the session: no cache between may give it to another visitor (RFC 9110 §12.5.5)."""
    response.fields.append(("Vary", "Cookie"))

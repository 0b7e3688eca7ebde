"""URLs whose parameters travel encrypted, and the keys for it: `to_url` makes them, `parse_query` reads them.

The master key in force is this module's, one per process; the worker sets it from MASTER_KEY before the program runs.
Every use has a key of its own (HKDF, RFC 5869), derived from the master key, the purpose and, for URLs, the endpoint:
what was sealed for one is worth nothing for another. Sealing is authenticated: AES-SIV (RFC 5297), by which equal
parameters give equal URLs, or AES-GCM with a random nonce (RFC 5116). Neither hides lengths, and a link stays good for
as long as the key: put a time into its parameters where that matters.
"""

from __future__ import annotations

import binascii
import functools
import os
from base64 import urlsafe_b64decode
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Protocol
from urllib.parse import quote

from . import _engine

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM, AESSIV

MIN_KEY = 16
"""Bytes of a master key: fewer can be guessed, the more so as HKDF does not slow guessing down."""
MAX_URL = 8000
"""Characters of a URL that `to_url` makes, and of an `e` that is opened: the engine refuses longer request lines."""
MAX_DERIVED = 512
"""Derived keys kept per master key, the least used goes first; each is 4 kB of cipher state and 11 µs to derive."""
MAX_CONTEXT = 512
"""Characters of an endpoint whose key is kept: paths with parameters are the client's, and may be 8 kB each."""

OPTIONS = frozenset(("e", "iv", "ordered"))
"""Names in `params` that are options, and never parameters."""

_PATH = "/:@!$()*+,;="  # RFC 3986 §3.3, but & and ', which would have to be escaped in HTML
_FRAGMENT = _PATH + "?"  # RFC 3986 §3.5
_URL_SAFE = bytes.maketrans(b"+/", b"-_")  # RFC 4648 §5
_STANDARD = bytes.maketrans(b"-_", b"+/")
_ADVICE = "take b64: and the output of `openssl rand -base64 32`"


# ---- keys ----


class MasterKey:
    """The secret from which every key is derived: `MasterKey(new, *old)`. The first seals, all of them open.

    Arguments:
        key: text or bytes, MIN_KEY bytes or more; after `b64:` base64 of either alphabet, with or without padding.
        old: keys that were in force before, so that links and sessions outlive a change of keys.
    Raises:
        ValueError: a key is too short, or what follows `b64:` is no base64; says what to do.
    """

    __slots__ = ("_cipher", "_secrets")

    def __init__(self, key: str | bytes, *old: str | bytes) -> None:
        self._secrets = tuple(_secret(text) for text in (key, *old))
        self._cipher: Callable[[int, bytes, str, str], _Cipher] = functools.lru_cache(MAX_DERIVED)(self._derive)

    def __repr__(self) -> str:
        return f"<MasterKey, {len(self._secrets) - 1} old>"  # and nothing of the secret

    def seal(self, purpose: str, context: str, data: bytes, *, bound: str = "", iv: bool = False) -> str:
        """Encrypt and authenticate. The first byte of what is sealed names the algorithm.

        Arguments:
            purpose: what for: `url`, `session`, `encrypt`. With `context`, it has a key of its own.
            data: not empty: OpenSSL before 3.5 has no AES-SIV of nothing.
            bound: authenticated along, not contained; `open` needs the same.
            iv: AES-GCM with a random nonce; AES-SIV otherwise, where equal data gives equal text.
        Returns:
            URL-safe base64 without padding (RFC 4648 §5).
        """
        kind = _Gcm.kind if iv else _Siv.kind
        sealed = self._find(0, kind, purpose, context).seal(data, kind + _bytes(bound))
        return _encode(kind + sealed)

    def open(self, purpose: str, context: str, text: str, *, bound: str = "") -> bytes | None:
        """What was sealed for this purpose and context; None of anything else. Never raises."""
        sealed = _decode(text)
        if sealed is None or sealed[:1] not in _CIPHERS:
            return None
        kind, body = sealed[:1], sealed[1:]
        for number in range(len(self._secrets)):
            data = self._find(number, kind, purpose, context).open(body, kind + _bytes(bound))
            if data is not None:
                return data
        return None

    def _find(self, number: int, kind: bytes, purpose: str, context: str) -> _Cipher:
        find = self._cipher if len(context) <= MAX_CONTEXT else self._derive
        return find(number, kind, purpose, context)

    def _derive(self, number: int, kind: bytes, purpose: str, context: str) -> _Cipher:
        from cryptography.hazmat.primitives.hashes import SHA256
        from cryptography.hazmat.primitives.kdf.hkdf import HKDF

        cipher = _CIPHERS[kind]
        info = b"80s " + kind + purpose.encode() + b"\0" + _bytes(context)  # no purpose holds a NUL: it is unambiguous
        return cipher(HKDF(SHA256(), cipher.key_bytes, None, info).derive(self._secrets[number]))


def _secret(key: str | bytes) -> bytes:
    """The bytes of a master key as it is written."""
    secret = key.encode("utf-8", "surrogateescape") if isinstance(key, str) else bytes(key)  # as os.environ decodes
    if secret.startswith(b"b64:"):
        text = secret[4:].strip().translate(_STANDARD)
        if not text.endswith(b"="):
            text += b"=" * (-len(text) % 4)
        try:
            secret = binascii.a2b_base64(text, strict_mode=True)
            if binascii.b2a_base64(secret, newline=False) != text:  # Python 3.11 is not strict about padding
                raise binascii.Error
        except binascii.Error:
            raise ValueError(f"master key: what follows b64: is no base64; {_ADVICE}") from None
    if len(secret) < MIN_KEY:
        raise ValueError(f"master key: {len(secret)} bytes, it must have {MIN_KEY} or more; {_ADVICE}")
    return secret


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")


def _encode(data: bytes) -> str:
    return binascii.b2a_base64(data, newline=False).translate(_URL_SAFE, b"=").decode()


def _decode(text: str) -> bytes | None:
    try:
        data = urlsafe_b64decode(text + "=" * (-len(text) % 4))
    except ValueError:
        return None
    return data if _encode(data) == text else None  # the decoder passes over what is no base64: one text per seal


class _Cipher(Protocol):
    """One derived key at work. `bound` is authenticated along."""

    def seal(self, data: bytes, bound: bytes) -> bytes: ...
    def open(self, sealed: bytes, bound: bytes) -> bytes | None: ...


class _Siv:
    """AES-256-SIV, deterministic (RFC 5297): what is sealed begins with the 16 bytes of the synthetic IV."""

    __slots__ = ("_cipher", "_forged")
    kind = b"\x01"
    key_bytes = 64  # two keys of AES-256

    def __init__(self, key: bytes) -> None:
        from cryptography.exceptions import InvalidTag
        from cryptography.hazmat.primitives.ciphers.aead import AESSIV

        self._cipher: AESSIV = AESSIV(key)
        self._forged = InvalidTag

    def seal(self, data: bytes, bound: bytes) -> bytes:
        return self._cipher.encrypt(data, [bound])  # one item, never empty: OpenSSL has ignored empty ones

    def open(self, sealed: bytes, bound: bytes) -> bytes | None:
        if len(sealed) <= 16:
            return None
        try:
            return self._cipher.decrypt(sealed, [bound])
        except self._forged:
            return None


class _Gcm:
    """AES-256-GCM (RFC 5116 §5.2): 12 random bytes of nonce come first, 16 of the tag last.

    Random nonces are good for 2**32 seals of one key (NIST SP 800-38D §8.3); beyond that a repeated one slowly becomes
    likely, one in 2**27 after 2**35 seals: a thousand a second for a year.
    """

    __slots__ = ("_cipher", "_forged")
    kind = b"\x02"
    key_bytes = 32

    def __init__(self, key: bytes) -> None:
        from cryptography.exceptions import InvalidTag
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM

        self._cipher: AESGCM = AESGCM(key)
        self._forged = InvalidTag

    def seal(self, data: bytes, bound: bytes) -> bytes:
        nonce = os.urandom(12)
        return nonce + self._cipher.encrypt(nonce, data, bound)

    def open(self, sealed: bytes, bound: bytes) -> bytes | None:
        if len(sealed) <= 28:
            return None
        try:
            return self._cipher.decrypt(sealed[:12], sealed[12:], bound)
        except self._forged:
            return None


_CIPHERS: dict[bytes, type[_Siv] | type[_Gcm]] = {_Siv.kind: _Siv, _Gcm.kind: _Gcm}


# ---- the key in force ----

_master: MasterKey | None = None


def set_master_key(key: MasterKey | str | bytes | None, *old: str | bytes) -> None:
    """Put a master key in force in this process: from now on `to_url` encrypts.

    Arguments:
        key: see `MasterKey`; None or nothing at all: none is in force any more.
        old: keys that still open what was sealed with them.
    Raises:
        ValueError: as `MasterKey`; or old keys without a new one.
    """
    global _master
    if isinstance(key, MasterKey) or not key:
        if old:
            raise ValueError("set_master_key: old keys need a new one, given as text or bytes")
        _master = key or None
    else:
        _master = MasterKey(key, *old)


def master_key() -> MasterKey | None:
    """The master key in force in this process."""
    return _master


def encrypt(data: bytes | str, key: MasterKey | str | bytes | None = None, iv: bool = False) -> str:
    """Encrypt and authenticate anything: `decrypt` opens it with the same key.

    Arguments:
        data: text is taken as UTF-8.
        key: None for the master key in force; see `MasterKey` otherwise.
        iv: a random nonce, so that equal data gives different texts.
    Returns:
        URL-safe text, 4/3 of the data and 24 or 40 characters longer.
    Raises:
        RuntimeError: there is no master key in force, and none is given.
        ValueError: the key is too short or malformed.
    """
    plain = data.encode() if isinstance(data, str) else bytes(data)
    return _key(key).seal("encrypt", "", b"." + plain, iv=iv)  # the dot, since nothing cannot be sealed


def decrypt(text: str | None, key: MasterKey | str | bytes | None = None) -> bytes | None:
    """What `encrypt` has sealed with the same key; None for anything else.

    Raises:
        RuntimeError, ValueError: of the key, as `encrypt`; never because of the text.
    """
    data = _key(key).open("encrypt", "", text or "")
    return None if data is None else data[1:]


def _key(key: MasterKey | str | bytes | None) -> MasterKey:
    if isinstance(key, MasterKey):
        return key
    if key is not None:
        return _given(key)
    if _master is None:
        raise RuntimeError("no master key is in force: set MASTER_KEY, or give a key")
    return _master


_given = functools.lru_cache(16)(MasterKey)  # a program gives the same few again and again


# ---- making URLs ----


def to_url(endpoint: str, params: Mapping[str, object] | None = None, hash: str | None = None) -> str:
    """A URL of this site: `to_url("/profile", {"id": 7})`. With a master key in force the parameters are encrypted.

    Arguments:
        endpoint: the path as `request.path` will have it, not percent-encoded; the URL is good for this path alone.
        params: text, int, float, bool (`true`, `false`), lists of them (the name is repeated); None is left out.
            Three names are options: `e` False leaves the parameters plain, `iv` true makes a different URL each time,
            `ordered` False keeps the order given; otherwise names are sorted, so equal parameters give equal URLs.
        hash: the fragment; it is not encrypted, as browsers do not send it.
    Returns:
        Path, query and fragment, percent-encoded (RFC 3986). `&` in it still needs escaping in HTML.
    Raises:
        ValueError: the endpoint does not begin with `/`, the URL is longer than MAX_URL, or text is no Unicode.
        TypeError: a parameter is of another type, or a name is no text.
    """
    if not endpoint.startswith("/"):
        raise ValueError(f"to_url: endpoint {endpoint!r} does not begin with /, so no request's path can equal it")
    url = quote(endpoint, _PATH)
    if url.startswith("//"):
        url = "/%2F" + url[2:]  # two slashes would begin another site's address (RFC 3986 §4.2)
    query = create_query(params, endpoint) if params else ""
    if query:
        url = f"{url}?{query}"
    if hash is not None:
        url = f"{url}#{quote(hash, _FRAGMENT)}"
    if len(url) > MAX_URL:
        raise ValueError(f"to_url: {len(url)} characters, a URL may have {MAX_URL}; keep the data on the server")
    return url


def create_query(params: Mapping[str, object], endpoint: str | None = None) -> str:
    """The query of a URL, without `?`; empty where there are no parameters. See `to_url`.

    Arguments:
        params: parameters and options, as in `to_url`.
        endpoint: the path for which they are encrypted; None leaves them plain.
    Raises:
        TypeError, ValueError: of the parameters, as `to_url`. The length is not looked at.
    """
    pairs = _pairs(params)
    if params.get("ordered") is not False:
        pairs.sort(key=_name)  # by name only: a list keeps its order
    if not pairs or endpoint is None or _master is None or params.get("e") is False:
        return "&".join([f"{_percent(name)}={_percent(text)}" for name, text in pairs])
    plain = "&".join([f"{_escape(name).replace('=', '%3D')}={_escape(text)}" for name, text in pairs])
    return "e=" + _master.seal("url", endpoint, plain.encode(), iv=bool(params.get("iv")))


def _pairs(params: Mapping[str, object]) -> list[tuple[str, str]]:
    pairs = []
    for name, value in params.items():
        if not isinstance(name, str):
            raise TypeError(f"to_url: parameter name {name!r} is no text")
        if name in OPTIONS or value is None:
            continue
        if isinstance(value, (list, tuple)):
            pairs += [(name, _text(name, item)) for item in value if item is not None]
        else:
            pairs.append((name, _text(name, value)))
    return pairs


def _name(pair: tuple[str, str]) -> str:
    return pair[0]


def _text(name: str, value: object) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return int.__repr__(value)  # of an IntEnum, too
    if isinstance(value, float):
        return float.__repr__(value)
    raise TypeError(f"to_url: parameter {name} is of type {type(value).__name__}; make it a text, a number or a list")


def _percent(text: str) -> str:
    return text if text.isalnum() and text.isascii() else quote(text, "/:")  # numbers and words need no look at each


def _escape(text: str) -> str:
    """What means something to `parse_query`, and no more: encrypted text needs no other escapes, and stays short."""
    return text.replace("%", "%25").replace("&", "%26").replace("+", "%2B")


# ---- reading them ----

_NOTHING = _engine.MultiDict()


class Query:
    """The parameters of a request: plain ones as in a MultiDict, those that came encrypted in `e`.

    The two never mix: anybody can add plain parameters to a link, so what a program has put into a URL itself is read
    from `query.e`. Wraps the engine's MultiDict; opens `e` when it is first asked for.

    Arguments:
        plain: the decoded query, `request.query`.
        endpoint: the path for which `e` must have been made, `request.path`; None: `e` is empty.
    """

    __slots__ = ("_e", "_endpoint", "_plain")

    _e: _engine.MultiDict

    def __init__(self, plain: _engine.MultiDict, endpoint: str | None = None) -> None:
        self._plain = plain
        self._endpoint = endpoint

    @property
    def e(self) -> _engine.MultiDict:
        """What came encrypted for this endpoint. Empty where nothing did, or it was changed, cut or meant for another.

        Never raises. Of several the first counts.
        """
        try:
            return self._e
        except AttributeError:
            self._e = _open(self._plain.get("e"), self._endpoint)
            return self._e

    def __getitem__(self, name: str) -> Any:
        return self._plain[name]

    def __contains__(self, name: object) -> bool:
        return name in self._plain

    def __len__(self) -> int:
        return len(self._plain)

    def __iter__(self) -> Iterator[str]:
        return iter(self._plain)

    def __eq__(self, other: object) -> bool:
        return self._plain == (other._plain if isinstance(other, Query) else other)

    __hash__ = None  # type: ignore[assignment]  # as MultiDict

    def __repr__(self) -> str:
        return f"<Query {self._plain.pairs()!r}>"

    def get(self, name: str, default: Any = None) -> Any:
        """The first value of a name, or the default."""
        return self._plain.get(name, default)

    def getall(self, name: str) -> list[Any]:
        """Every value of a name, in order."""
        return self._plain.getall(name)

    def keys(self) -> list[str]:
        """Every name, once."""
        return self._plain.keys()

    def values(self) -> list[Any]:
        """The first value of every name."""
        return self._plain.values()

    def items(self) -> list[tuple[str, Any]]:
        """Every name with its first value."""
        return self._plain.items()

    def pairs(self) -> list[tuple[str, Any]]:
        """Every name and value as they came."""
        return self._plain.pairs()


def parse_query(text: str | bytes, endpoint: str | None = None) -> Query:
    """Read a query, `a=1&b=2` without `?`. Never raises, whatever the client has sent.

    Arguments:
        endpoint: the path of the request, for which `e` must have been made.
    """
    return Query(_engine.parse_query(text), endpoint)


def _open(text: str | None, endpoint: str | None) -> _engine.MultiDict:
    if not text or endpoint is None or _master is None or len(text) > MAX_URL:
        return _NOTHING
    plain = _master.open("url", endpoint, text)
    return _NOTHING if plain is None else _engine.parse_query(plain)

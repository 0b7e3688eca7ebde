"""Heads of HTTP messages where no Request is at hand: an answer's written, a proxy's words about its client read.

For sockets whose program speaks HTTP by itself. `streams.Socket.http_response` and programs, through `aio.get_ip`, call
in. Keeps no state.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Protocol

from . import _engine
from .errors import header_pairs, reason
from .http import BINARY, JSON, TEXT, encode_json

if TYPE_CHECKING:
    from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network

    Network = IPv4Network | IPv6Network | str
    Place = tuple[IPv4Address | IPv6Address, int]

Headers = Mapping[str, Any] | Iterable[tuple[str, Any]] | str | None

_STATUS = re.compile(r"([1-5][0-9][0-9])(?: ([\t\x20-\x7e\x80-\xff]*))?")  # RFC 9112 §4
_NAME = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")  # RFC 9110 §5.6.2
_VALUE = re.compile(r"[\t\x20-\x7e\x80-\xff]*")  # RFC 9110 §5.5: no CR, LF, NUL or other control characters
_FRAMING = ("content-length", "transfer-encoding", "connection")
_PORT = re.compile(r"(?:\[([0-9a-fA-F:.]+)\]|([0-9.]+))(?::([0-9]{1,5}))?")


def http_answer(status: int | str, headers: Headers, body: Any) -> bytes:
    """The bytes of an answer; see `streams.Socket.http_response`.

    Raises:
        ValueError: something that may not stand in a head, or a body where the status allows none.
        TypeError: there is no JSON for the body.
    """
    match = _STATUS.fullmatch(str(status))
    if match is None:
        raise ValueError(f"status {status!r} is neither a number from 100 to 599 nor such a number and its name")
    number = int(match[1])
    name = reason(number) if match[2] is None else match[2]
    fields = [("Content-Type", headers)] if isinstance(headers, str) else header_pairs(headers)
    pairs = [(_checked(_NAME, key, "name"), _checked(_VALUE, str(value), key)) for key, value in fields]
    given = {key.lower(): value for key, value in pairs}
    if body is not None:
        body, kind = _encoded(body)
        if body and "content-type" not in given:
            pairs.append(("Content-Type", kind))
    pairs += _framing(number, given, body)
    if "date" not in given:
        pairs.append(("Date", _now()))
    head = f"HTTP/1.1 {number} {name}\r\n" + "".join(f"{key}: {value.strip()}\r\n" for key, value in pairs) + "\r\n"
    return head.encode("latin-1") + (body or b"")


def _framing(number: int, given: dict[str, str], body: bytes | None) -> list[tuple[str, str]]:
    """The fields that say where the body ends (RFC 9112 §6)."""
    if number < 200 or number in (204, 304):
        if body:
            raise ValueError(f"an answer with status {number} has no body")
        return []
    if body is None:
        return [] if any(name in given for name in _FRAMING) else [("Connection", "close")]
    if "transfer-encoding" in given or given.get("content-length", str(len(body))) != str(len(body)):
        raise ValueError("the headers say something else about the body's length: leave them out, or the body")
    return [] if "content-length" in given else [("Content-Length", str(len(body)))]


def _encoded(body: Any) -> tuple[bytes, str]:
    if isinstance(body, str):
        return body.encode(), TEXT
    if isinstance(body, (bytes, bytearray, memoryview)):
        return bytes(body), BINARY
    return encode_json(body), JSON


def _checked(pattern: re.Pattern[str], text: str, what: str) -> str:
    if pattern.fullmatch(text) is None:
        raise ValueError(f"header {what}: {text!r} may not stand there (RFC 9110 §5)")
    return text


def _now() -> str:
    from datetime import UTC, datetime

    from .cookies import http_date

    return http_date(datetime.now(UTC))


# ---- where a client is ----


class HasPeer(Protocol):
    """A socket, or the `fd` of an http handler."""

    @property
    def peername(self) -> tuple[str, int] | str | None:
        """Address and port, `unix`, or None."""


def get_ip(
    sock: HasPeer, headers: Mapping[str, Any] | _engine.MultiDict | None = None, trusted: Iterable[object] = ()
) -> tuple[str, int]:
    """Where a client is: address and port, `("unix", 0)` for a unix socket, `("", 0)` if it is not known.

    The ancestor believed X-Real-IP whoever sent it, so that any client could choose its own address. Here the headers
    count only when the connection comes from a proxy of yours, which has to set or to remove both of them.

    Arguments:
        headers: of the request. The address is the rightmost of X-Forwarded-For that is not of a trusted proxy, else
            X-Real-IP; the port is 0 then, unless it stands there. What is no address ends the search.
        trusted: addresses and networks of your proxies, `["10.0.0.0/8", "::1"]`; "unix" for unix sockets.
    Raises:
        ValueError: something in `trusted` is no address and no network.
    """
    peer = sock.peername
    place = ("", 0) if peer is None else (peer, 0) if isinstance(peer, str) else peer
    if isinstance(trusted, str):
        raise ValueError(f"trusted is the text {trusted!r}: it must be a list of addresses and networks")
    networks = [_network(one) for one in trusted]
    if headers is None or not networks:
        return place
    client = _forwarded(place, headers, networks)
    return place if client is None else (str(client[0]), client[1])


def _forwarded(
    place: tuple[str, int], headers: Mapping[str, Any] | _engine.MultiDict, networks: list[Network]
) -> Place | None:
    """Who the nearest proxy that is not ours came from, or None: nobody of ours says."""
    if place[0] == "unix":
        if "unix" not in networks:
            return None
    else:
        peer = _place(f"[{place[0]}]")
        if peer is None or not _within(peer, networks):
            return None
    client = None
    for text in reversed(",".join(_fields(headers, "x-forwarded-for")).split(",")):
        found = _place(text.strip())
        if found is None:
            break
        client = found
        if not _within(found, networks):
            return client
    if client is None:
        real = _fields(headers, "x-real-ip")
        client = _place(real[-1].strip()) if real else None
    return client


def _fields(headers: Mapping[str, Any] | _engine.MultiDict, name: str) -> list[str]:
    pairs = headers.pairs() if isinstance(headers, _engine.MultiDict) else headers.items()
    return [value for key, value in pairs if isinstance(value, str) and str(key).lower() == name]


def _place(text: str) -> Place | None:
    """An address as it stands in X-Forwarded-For, some proxies add the port: `192.0.2.1`, `2001:db8::1`, `[::1]:80`."""
    from ipaddress import ip_address

    if "%" in text:  # a zone, which means something on one machine only, and may be any text
        return None
    match = _PORT.fullmatch(text)
    port = match[3] if match else None
    try:
        address = ip_address((match[1] or match[2]) if match else text)
    except ValueError:
        return None
    mapped = getattr(address, "ipv4_mapped", None)
    return mapped or address, int(port or 0)


def _within(place: Place, networks: list[Network]) -> bool:
    address = place[0]
    return any(not isinstance(one, str) and address.version == one.version and address in one for one in networks)


def _network(value: object) -> Network:
    from ipaddress import ip_network

    return "unix" if value == "unix" else ip_network(str(value), strict=False)

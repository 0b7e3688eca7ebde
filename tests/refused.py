"""Requests that must be refused, by table: BEHAVIOURS 1 to 5 and 8 to 10. `refused` makes them test cases."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

POST = b"POST /echo HTTP/1.1\r\nHost: a\r\n"
CHUNKED = POST + b"Transfer-Encoding: chunked\r\n\r\n"


def head(*lines: bytes, first: bytes = b"POST /echo HTTP/1.1") -> bytes:
    """A request head with a good Host."""
    return b"\r\n".join((first, b"Host: a", *lines, b"", b""))


def line(first: bytes) -> bytes:
    """A request with that request line."""
    return first + b"\r\nHost: a\r\n\r\n"


LENGTHS = {
    "empty": b"", "plus": b"+1", "minus": b"-1", "underscore": b"1_0", "hex": b"0x1", "list": b"1,1",
    "list-ows": b"1, 1", "space": b"1 1", "comma": b"1,", "2^64": b"18446744073709551616",
    "2^63": b"9223372036854775808",
    "2^64+1": b"18446744073709551617", "long": b"0" * 40 + b"1", "other-digits": "१".encode(), "superscript": b"\xb2",
    "float": b"1.0", "word": b"one", "quotes": b'"1"', "nbsp": b"\xa01", "nel": b"1\x85",
}  # fmt: skip
CODINGS = {
    "twice-in-list": b"chunked, chunked", "gzip": b"gzip, chunked", "identity": b"identity", "last": b"chunked, gzip",
    "parameter": b"chunked;a=b", "prefix": b"xchunked", "suffix": b"chunkedx", "empty": b"", "comma": b",chunked",
    "quotes": b'"chunked"', "vt": b"\x0bchunked", "nbsp": b"\xa0chunked", "short": b"chunke", "cut": b"chun ked",
}  # fmt: skip
CHUNKS = {
    "empty": b"\r\n", "word": b"x\r\n", "0x": b"0x5\r\nhello\r\n", "minus": b"-5\r\nhello\r\n",
    "plus": b"+5\r\nhello\r\n",
    "space-before": b" 5\r\nhello\r\n", "space-after": b"5 \r\nhello\r\n", "underscore": b"0_5\r\nhello\r\n",
    "long": b"0000000000000005\r\nhello\r\n", "2^64": b"10000000000000005\r\nhello\r\n", "lf": b"5\nhello\r\n",
    "cr": b"5\rhello\r\n", "extension-lf": b"5;a\nhello\r\n", "extension-cr": b"5;a\rb\r\nhello\r\n",
    "extension-nul": b"5;\0\r\nhello\r\n", "extension-quoted-lf": b'5;a="\n"\r\nhello\r\n', "data-lf": b"5\r\nhello\n",
    "data-cr": b"5\r\nhello\r", "data-short": b"5\r\nhell\r\n", "data-long": b"5\r\nhello!\r\n",
    "data-none": b"5\r\nhello0",
    "only-extension": b";a\r\n", "last-lf": b"0\n\n", "end-lf": b"0\r\n\n", "end-crx": b"0\r\n\rx",
    "trailer-name": b"0\r\nX A: b\r\n\r\n", "trailer-colon": b"0\r\nX\r\n\r\n", "trailer-space": b"0\r\nX : a\r\n\r\n",
    "trailer-fold": b"0\r\nX: a\r\n b\r\n\r\n", "trailer-lf": b"0\r\nX: a\n\r\n", "trailer-cr": b"0\r\nX: a\rb\r\n\r\n",
    "trailer-nul": b"0\r\nX: \0\r\n\r\n", "extensions-4097": b"5;" + b"a" * 4097 + b"\r\nhello\r\n",
    "extensions-sum": (b"1;" + b"a" * 100 + b"\r\nx\r\n") * 41,
}  # fmt: skip
HOSTS = {
    "empty": b"", "slash": b"a/b", "question": b"a?b", "hash": b"a#b", "at": b"a@b", "word-port": b"a:b",
    "space": b"a b",
    "big-port": b"a:65536", "long-port": b"a:000080", "minus-port": b"a:-1", "only-port": b":80", "open": b"[::1",
    "after": b"[::1]a", "close": b"::1]", "bare-v6": b"::1", "url": b"http://a", "percent": b"a%4",
    "percent-g": b"a%gg",
    "backslash": b"a\\b", "utf-8": "ä".encode(), "quote": b'"a"', "brackets": b"[]", "two": b"a:1:2", "tab": b"a\tb",
}  # fmt: skip
FIELDS = {
    "space-before-colon": b"X-A : b", "tab-before-colon": b"X-A\t: b", "fold-space": b"X-A: a\r\n b",
    "fold-tab": b"X-A: a\r\n\tb", "fold-empty": b"X-A: a\r\n \r\nX-B: c", "no-name": b": b", "no-colon": b"X-A",
    "nul-name": b"X\0A: b", "nul-value": b"X-A: a\0b", "cr-name": b"X\rA: b", "cr-value": b"X-A: a\rb",
    "cr-end": b"X-A: a\r\r\nX-B: c", "lf-name": b"X\nA: b", "lf-value": b"X-A: a\nX-B: c", "lf-end": b"X-A: a\n",
    "del": b"X-A: a\x7f", "bell": b"X-A: \a", "escape": b"X-A: \x1b[0m", "utf-8-name": "Ä: a".encode(),
    "nbsp-name": b"X-A\xa0: b", "nel-name": b"\x85X-A: b", "vt": b"X-A: \x0ba", "quote-name": b'"X": b',
    "slash-name": b"X/A: b", "space-in-name": b"X A: b",
}  # fmt: skip
REQUEST_LINES = {
    "no-version": (b"GET /", 400), "0.9": (b"GET /echo HTTP/0.9", 505), "2.0": (b"GET /echo HTTP/2.0", 505),
    "1.10": (b"GET /echo HTTP/1.10", 400), "11": (b"GET /echo HTTP/11", 400), "lower": (b"GET /echo http/1.1", 400),
    "dot": (b"GET /echo HTTP/1.", 400), "x": (b"GET /echo HTTP/1.x", 400), "space-end": (b"GET /echo HTTP/1.1 ", 400),
    "tab-end": (b"GET /echo HTTP/1.1\t", 400), "plus": (b"GET /echo HTTP/+1.1", 400),
    "ICY": (b"GET /echo ICY/1.1", 400),
    "two-spaces": (b"GET  /echo HTTP/1.1", 400), "two-spaces-end": (b"GET /echo  HTTP/1.1", 400),
    "tab": (b"GET\t/echo\tHTTP/1.1", 400), "space": (b"GET /ec ho HTTP/1.1", 400),
    "leading-space": (b" GET /echo HTTP/1.1", 400),
    "nul": (b"GET /ec\0ho HTTP/1.1", 400), "nul-method": (b"G\0ET /echo HTTP/1.1", 400),
    "cr": (b"GET /ec\rho HTTP/1.1", 400),
    "hash": (b"GET /echo#a HTTP/1.1", 400), "utf-8": ("GET /ä HTTP/1.1".encode(), 400),
    "del": (b"GET /\x7f HTTP/1.1", 400),
    "relative": (b"GET echo HTTP/1.1", 400), "asterisk": (b"GET * HTTP/1.1", 400),
    "authority": (b"GET a:80 HTTP/1.1", 400),
    "connect": (b"CONNECT a:80 HTTP/1.1", 501), "connect-path": (b"CONNECT / HTTP/1.1", 501),
    "ftp": (b"GET ftp://a/ HTTP/1.1", 400),
    "userinfo": (b"GET http://u@a/ HTTP/1.1", 400), "no-host": (b"GET http:///echo HTTP/1.1", 400),
    "bad-port": (b"GET http://a:x/echo HTTP/1.1", 400), "no-target": (b"GET  HTTP/1.1", 400), "one-word": (b"GET", 400),
    "method-at": (b"G@T /echo HTTP/1.1", 400), "no-method": (b"/echo HTTP/1.1", 400),
    "asterisk-path": (b"OPTIONS *a HTTP/1.1", 400),
    "tls": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400), "h2": (b"PRI * HTTP/2.0", 505),
}  # fmt: skip


def refused() -> Iterator[Any]:
    """Every request that must be refused: bytes and status."""
    for name, value in LENGTHS.items():
        yield pytest.param(head(b"Content-Length: " + value) + b"x", 400, id=f"length-{name}")
    for first, second in ((b"1", b"2"), (b"2", b"1"), (b"1", b"1"), (b"1", b"")):
        data = head(b"Content-Length: " + first, b"Content-Length: " + second) + b"xy"
        yield pytest.param(data, 400, id=f"lengths-{first.decode()}-{second.decode()}")
    for value in (b"4294967297", b"4294967296", b"999999999999999999"):
        yield pytest.param(head(b"Content-Length: " + value) + b"x", 413, id=f"length-{value.decode()}")
    both = [b"Content-Length: 5", b"Transfer-Encoding: chunked"]
    yield pytest.param(head(*both) + b"0\r\n\r\n", 400, id="length-and-coding")
    yield pytest.param(head(*reversed(both)) + b"0\r\n\r\n", 400, id="coding-and-length")
    yield pytest.param(head(b"Content-Length: 0", both[1]) + b"0\r\n\r\n", 400, id="length-0-and-coding")
    for name, value in CODINGS.items():
        status = 400 if name == "vt" else 501
        yield pytest.param(head(b"Transfer-Encoding: " + value) + b"0\r\n\r\n", status, id=f"coding-{name}")
    yield pytest.param(head(both[1], both[1]) + b"0\r\n\r\n", 400, id="codings")
    yield pytest.param(head(both[1], first=b"POST /echo HTTP/1.0") + b"0\r\n\r\n", 400, id="coding-1.0")
    for name, value in CHUNKS.items():
        yield pytest.param(CHUNKED + value, 400, id=f"chunk-{name}")
    fields = b"".join(b"X-%d: a\r\n" % n for n in range(101))
    yield pytest.param(CHUNKED + b"0\r\n" + fields + b"\r\n", 431, id="trailer-fields")
    yield pytest.param(CHUNKED + b"0\r\nX: " + b"a" * 8192 + b"\r\n\r\n", 431, id="trailer-bytes")
    for name, value in HOSTS.items():
        yield pytest.param(b"GET /echo HTTP/1.1\r\nHost: " + value + b"\r\n\r\n", 400, id=f"host-{name}")
    yield pytest.param(b"GET /echo HTTP/1.0\r\nHost: a/b\r\n\r\n", 400, id="host-1.0")
    yield pytest.param(b"GET /echo HTTP/1.1\r\nX-A: a\r\n\r\n", 400, id="host-missing")
    yield pytest.param(b"GET http://a/echo HTTP/1.1\r\n\r\n", 400, id="host-missing-absolute")
    yield pytest.param(head(b"Host: a", first=b"GET /echo HTTP/1.1"), 400, id="host-twice")
    yield pytest.param(head(b"hOST: b", first=b"GET /echo HTTP/1.1"), 400, id="host-differs")
    for name, value in FIELDS.items():
        yield pytest.param(head(value, first=b"GET /echo HTTP/1.1"), 400, id=f"field-{name}")
    yield pytest.param(b"GET /echo HTTP/1.1\r\n Host: a\r\n\r\n", 400, id="field-first-folded")
    yield pytest.param(b"GET /echo HTTP/1.1\r\nHost : a\r\n\r\n", 400, id="host-space")
    yield pytest.param(b"GET /echo HTTP/1.1\nHost: a\n\n", 400, id="lf-only")
    for name, (first, status) in REQUEST_LINES.items():
        yield pytest.param(line(first), status, id=f"line-{name}")
    yield pytest.param(b"\n" + line(b"GET /echo HTTP/1.1"), 400, id="leading-lf")
    yield pytest.param(b"\r" + line(b"GET /echo HTTP/1.1"), 400, id="leading-cr")
    yield pytest.param(b"\r\n" * 9 + line(b"GET /echo HTTP/1.1"), 400, id="leading-crlfs")
    yield pytest.param(head(b"Expect: 200-ok", first=b"GET /echo HTTP/1.1"), 417, id="expect")
    yield pytest.param(head(b"Expect: 100-continue, x", b"Content-Length: 1") + b"x", 417, id="expect-list")

"""Heads of answers written by hand, and where a client is behind proxies."""

from __future__ import annotations

import dataclasses
import re
from typing import Any

import pytest

from eighties import MultiDict
from eighties.heads import get_ip, http_answer


def parts(answer: bytes) -> tuple[str, dict[str, str], bytes]:
    head, _, body = answer.partition(b"\r\n\r\n")
    line, *fields = head.decode("latin-1").split("\r\n")
    pairs = [(name, value) for name, _, value in (field.partition(": ") for field in fields)]
    assert len({name.lower() for name, _ in pairs}) == len(pairs)
    return line, dict(pairs), body


@dataclasses.dataclass
class Row:
    name: str
    count: int


@pytest.mark.parametrize(
    ("body", "kind", "sent"),
    [
        ("grüße", "text/plain; charset=utf-8", "grüße".encode()),
        (b"\x00\xff", "application/octet-stream", b"\x00\xff"),
        (bytearray(b"ab"), "application/octet-stream", b"ab"),
        ({"a": [1, None]}, "application/json", b'{"a":[1,null]}'),
        ([], "application/json", b"[]"),
        (Row("x", 2), "application/json", b'{"name":"x","count":2}'),
        (0, "application/json", b"0"),
        (False, "application/json", b"false"),
    ],
)
def test_bodies(body: Any, kind: str, sent: bytes) -> None:
    line, fields, data = parts(http_answer(200, None, body))
    assert line == "HTTP/1.1 200 OK"
    assert data == sent
    assert fields.pop("Date").endswith(" GMT")
    assert fields == {"Content-Type": kind, "Content-Length": str(len(sent))}


@pytest.mark.parametrize(
    ("status", "line"),
    [
        (200, "200 OK"),
        (404, "404 Not Found"),
        ("200 OK", "200 OK"),
        ("404 Not here", "404 Not here"),
        ("204", "204 No Content"),
        ("299 ", "299 "),
        (599, "599 Error"),
    ],
)
def test_statuses(status: int | str, line: str) -> None:
    assert parts(http_answer(status, None, b""))[0] == f"HTTP/1.1 {line}"


@pytest.mark.parametrize(
    "status", [0, 99, 600, 1000, -200, "", "OK", "200OK", "20 0", "200 OK\r\nX: y", "200 a\x00", None]
)
def test_statuses_that_are_none(status: Any) -> None:
    with pytest.raises(ValueError, match="status"):
        http_answer(status, None, b"")


def test_headers_in_every_form() -> None:
    assert parts(http_answer(200, "text/html", "<p>"))[1]["Content-Type"] == "text/html"
    fields = parts(http_answer(200, {"content-type": "text/css", "X-Count": 5, "date": "now"}, "a {}"))[1]
    assert fields == {"content-type": "text/css", "X-Count": "5", "date": "now", "Content-Length": "4"}
    answer = http_answer(200, [("Set-Cookie", "a=1"), ("Set-Cookie", "b=2")], "")
    assert answer.count(b"Set-Cookie: ") == 2 and b"Content-Type" not in answer


@pytest.mark.parametrize(
    "headers",
    [
        {"X": "a\r\nSet-Cookie: b=1"},
        {"X": "a\nb"},
        {"X": "a\x00b"},
        {"X": "a\x7f"},
        {"X": "snow \N{SNOWMAN}"},
        {"X\r\nY": "a"},
        {"X Y": "a"},
        {"X:": "a"},
        {"": "a"},
        {"Grün": "a"},
        "text/html\r\nX: y",
        [("X", "a\r")],
    ],
)
def test_nothing_is_smuggled_into_a_head(headers: Any) -> None:
    with pytest.raises(ValueError, match="header"):
        http_answer(200, headers, "")


def test_a_head_alone() -> None:
    assert parts(http_answer(200, "text/plain", None))[1]["Connection"] == "close"
    for headers in ({"Content-Length": "5"}, {"transfer-encoding": "chunked"}, {"Connection": "keep-alive"}):
        fields = parts(http_answer(200, headers, None))[1]
        del fields["Date"]
        assert fields == headers
    fields = parts(http_answer(101, {"Upgrade": "websocket", "Connection": "Upgrade"}, None))[1]
    assert "close" not in fields.values()


@pytest.mark.parametrize("status", [101, 204, 304])
def test_statuses_without_a_body(status: int) -> None:
    for body in (None, "", b""):
        assert "Content-Length" not in parts(http_answer(status, None, body))[1]
    with pytest.raises(ValueError, match="has no body"):
        http_answer(status, None, "text")


def test_the_length_is_the_bodys() -> None:
    assert http_answer(200, {"content-length": "4"}, "four").lower().count(b"content-length: 4") == 1
    for headers in ({"Content-Length": "5"}, {"Transfer-Encoding": "chunked"}):
        with pytest.raises(ValueError, match="length"):
            http_answer(200, headers, "four")


def test_a_body_without_json() -> None:
    with pytest.raises(TypeError, match="no JSON"):
        http_answer(200, None, object())


# ---- where a client is ----


class From:
    """What get_ip looks at of a socket."""

    def __init__(self, peername: tuple[str, int] | str | None) -> None:
        self.peername = peername


PROXY = ("10.0.0.1", 5000)
TRUSTED = ["10.0.0.0/8", "::1"]


def ip(peername: Any, headers: Any = None, trusted: Any = TRUSTED) -> tuple[str, int]:
    return get_ip(From(peername), headers, trusted)


def test_without_headers_it_is_the_peer() -> None:
    assert ip(("192.0.2.1", 80)) == ("192.0.2.1", 80)
    assert ip("unix") == ("unix", 0)
    assert ip(None) == ("", 0)


@pytest.mark.parametrize("peername", [("192.0.2.1", 80), ("2001:db8::1", 80), "unix", None])
def test_headers_of_strangers_do_not_count(peername: Any) -> None:
    headers = {"x-real-ip": "198.51.100.1", "x-forwarded-for": "198.51.100.2"}
    assert ip(peername, headers) == ip(peername)
    assert ip(PROXY, headers, ()) == PROXY


@pytest.mark.parametrize(
    ("forwarded", "client"),
    [
        ("198.51.100.1", ("198.51.100.1", 0)),
        ("6.6.6.6, 198.51.100.1", ("198.51.100.1", 0)),
        ("6.6.6.6,198.51.100.1 , 10.2.3.4,::1", ("198.51.100.1", 0)),
        ("198.51.100.1:4711", ("198.51.100.1", 4711)),
        ("[2001:db8::1]:4711", ("2001:db8::1", 4711)),
        ("[2001:db8::1]", ("2001:db8::1", 0)),
        ("2001:DB8:0::1", ("2001:db8::1", 0)),
        ("::ffff:198.51.100.1", ("198.51.100.1", 0)),
        ("198.51.100.1, ::ffff:10.1.1.1", ("198.51.100.1", 0)),
        ("10.5.5.5, 10.6.6.6", ("10.5.5.5", 0)),
        ("garbage, 10.6.6.6", ("10.6.6.6", 0)),
        ("198.51.100.1, unknown", PROXY),
        ("198.51.100.1,", PROXY),
        ("", PROXY),
        ("_hidden", PROXY),
        ("1.2.3", PROXY),
        ("[::1", PROXY),
        ("fe80::1%<script>", PROXY),
        ("1.2.3.4:", PROXY),
        ("\x00\udcff", PROXY),
        ("9" * 10_000, PROXY),
        ("," * 10_000, PROXY),
    ],
)
def test_forwarded_by_a_trusted_proxy(forwarded: str, client: tuple[str, int]) -> None:
    assert ip(PROXY, {"X-Forwarded-For": forwarded}) == client
    assert ip(("::1", 1), MultiDict([("x-forwarded-for", forwarded)], ignore_case=True))[0] == (
        client[0] if client is not PROXY else "::1"
    )


def test_forwarded_in_several_fields_is_one_list() -> None:
    headers = MultiDict([("X-Forwarded-For", "6.6.6.6"), ("X-Forwarded-For", "198.51.100.1, 10.1.1.1")], True)
    assert ip(PROXY, headers) == ("198.51.100.1", 0)


def test_real_ip_of_a_trusted_proxy() -> None:
    assert ip(PROXY, {"X-Real-IP": "198.51.100.1"}) == ("198.51.100.1", 0)
    assert ip(PROXY, {"x-real-ip": "nonsense"}) == PROXY
    assert ip(PROXY, {"x-real-ip": 5, "x-forwarded-for": None}) == PROXY
    assert ip(PROXY, {"x-real-ip": "6.6.6.6", "x-forwarded-for": "198.51.100.1"}) == ("198.51.100.1", 0)
    assert ip(("::ffff:10.0.0.1", 5), {"x-real-ip": "198.51.100.1"}) == ("198.51.100.1", 0)


def test_a_proxy_at_a_unix_socket() -> None:
    assert ip("unix", {"x-real-ip": "198.51.100.1"}, ["unix"]) == ("198.51.100.1", 0)
    assert ip(PROXY, {"x-real-ip": "198.51.100.1"}, ["unix"]) == PROXY


def test_what_is_trusted_must_be_an_address() -> None:
    for trusted in (["proxy.example"], ["10.0.0.0/99"], "10.0.0.1"):
        with pytest.raises(ValueError, match=re.escape("proxy") if trusted == ["proxy.example"] else "10.0.0"):
            ip(PROXY, {}, trusted)

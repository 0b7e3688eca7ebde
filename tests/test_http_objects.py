"""Response, its headers and cookies, JSON and text: without a server."""

from __future__ import annotations

import dataclasses
import datetime
import decimal
import enum
import json
import os
import socket
import uuid
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Literal, NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eighties import Address, HTTPError, Response, cookies, forms, http
from eighties._engine import FileRegion

TEXT = st.text(st.characters(exclude_categories=["Cs"]))


# ---- Address ----


@pytest.mark.parametrize(
    ("address", "text"),
    [
        (Address("192.0.2.1", 80), "192.0.2.1:80"),
        (Address("2001:db8::1", 4711), "[2001:db8::1]:4711"),
        (Address("unix", 0), "unix"),
    ],
)
def test_address_as_text(address: Address, text: str) -> None:
    assert str(address) == text
    assert f"{address}" == text


# ---- responses ----


def test_text_html_bytes_json() -> None:
    made = [
        Response.text("a"),
        Response.html("<p>", 201),
        Response.bytes(b"\0", content_type="x/y"),
        Response.json([1]),
    ]
    assert [r.content_type for r in made] == [
        "text/plain; charset=utf-8",
        "text/html; charset=utf-8",
        "x/y",
        "application/json",
    ]
    assert [r.status for r in made] == [200, 201, 200, 200]
    assert [r.body for r in made] == ["a", "<p>", b"\0", b"[1]"]


def test_headers_by_mapping_and_by_pairs() -> None:
    assert Response.text("", headers={"X-A": "1"}).fields == [("X-A", "1")]
    assert Response.text("", headers=[("X-A", "1"), ("X-A", "2")]).fields == [("X-A", "1"), ("X-A", "2")]


def test_headers_are_a_view() -> None:
    response = Response.text("", headers=[("X-A", "1"), ("x-a", "2")])
    headers = response.headers
    assert headers["X-a"] == "1"
    assert headers.getall("x-A") == ["1", "2"]
    assert list(headers) == ["x-a", "content-type"]
    assert len(headers) == 2
    assert "X-B" not in headers
    assert 7 not in headers  # type: ignore[comparison-overlap]
    headers.add("X-B", "3")
    headers["X-A"] = "4"
    assert response.fields == [("X-B", "3"), ("X-A", "4")]
    del headers["x-b"]
    assert response.fields == [("X-A", "4")]
    assert headers.get("x-b") is None
    with pytest.raises(KeyError):
        headers["x-b"]
    with pytest.raises(KeyError):
        del headers["x-b"]


def test_content_type_is_among_the_headers() -> None:
    response = Response.html("")
    assert response.headers["content-type"] == "text/html; charset=utf-8"
    response.headers["Content-Type"] = "a/b"
    assert (response.content_type, response.fields) == ("a/b", [])
    del response.headers["content-type"]
    assert response.content_type is None
    assert "content-type" not in response.headers


@pytest.mark.parametrize(
    ("url", "location"),
    [
        ("/a?b=c&d=%20#e", "/a?b=c&d=%20#e"),
        ("https://exämple.org/ö", "https://ex%C3%A4mple.org/%C3%B6"),
        ("/a\r\nSet-Cookie: x=1", "/a%0D%0ASet-Cookie:%20x=1"),
        ("/\\evil.example", "/%5Cevil.example"),
        ('/"<>', "/%22%3C%3E"),
        ("/\0\x7f\ud800", "/%00%7F%ED%A0%80"),
    ],
)
def test_redirect_encodes_what_is_no_url(url: str, location: str) -> None:
    response = Response.redirect(url)
    assert response.status == 302
    assert response.headers["location"] == location


def test_redirect_refuses_other_statuses() -> None:
    assert Response.redirect("/", 308).status == 308
    with pytest.raises(ValueError, match="status 200 is none of 301"):
        Response.redirect("/", 200)


@given(st.text())
def test_redirect_never_lets_a_line_end_through(url: str) -> None:
    location = Response.redirect(url).headers["location"]
    assert location.isascii()
    assert all(char > " " for char in location)


async def _pieces() -> AsyncIterator[str]:
    yield "a"


def test_stream() -> None:
    response = Response.stream(_pieces(), length=1, content_type="text/csv")
    assert response.headers["content-length"] == "1"
    assert response.content_type == "text/csv"
    with pytest.raises(TypeError, match="list is no async iterable"):
        Response.stream(["a"])  # type: ignore[arg-type]


# ---- files ----


def open_descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


def test_file(tmp_path: Path) -> None:
    path = tmp_path / "page.html"
    path.write_text("<p>")
    before = open_descriptors()
    response = Response.file(path)
    assert isinstance(response.body, FileRegion)
    assert response.body.length == 3
    assert response.content_type == "text/html; charset=utf-8"
    assert open_descriptors() == before + 1
    del response
    assert open_descriptors() == before


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("a.css", "text/css; charset=utf-8"),
        ("a.PNG", "image/png"),
        ("a.json", "application/json"),
        ("a.tar.gz", "application/gzip"),
        ("a.txt.Z", "application/octet-stream"),
        ("a.whatever", "application/octet-stream"),
        ("data:,x", "application/octet-stream"),
    ],
)
def test_file_type_is_guessed(tmp_path: Path, name: str, kind: str) -> None:
    path = tmp_path / name
    path.write_bytes(b"")
    assert Response.file(path).content_type == kind
    assert Response.file(path, content_type="a/b").content_type == "a/b"


def test_only_regular_files(tmp_path: Path) -> None:
    before = open_descriptors()
    with pytest.raises(FileNotFoundError):
        Response.file(tmp_path / "none")
    with pytest.raises(IsADirectoryError):
        Response.file(tmp_path)
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(OSError, match="not a regular file"):
        Response.file(tmp_path / "pipe")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "s"))
        with pytest.raises(OSError):
            Response.file(tmp_path / "s")
    with pytest.raises(OSError, match="not a regular file"):
        Response.file("/dev/null")
    assert open_descriptors() == before


@pytest.mark.parametrize(
    ("filename", "field"),
    [
        ("a b.txt", 'attachment; filename="a b.txt"'),
        ("ö.txt", "attachment; filename=\"_.txt\"; filename*=UTF-8''%C3%B6.txt"),
        ('a"b\\.txt', "attachment; filename=\"a_b_.txt\"; filename*=UTF-8''a%22b%5C.txt"),
        ("50%.txt", "attachment; filename=\"50_.txt\"; filename*=UTF-8''50%25.txt"),
    ],
)
def test_download_names(tmp_path: Path, filename: str, field: str) -> None:
    (tmp_path / "f").write_bytes(b"")
    assert Response.file(tmp_path / "f", filename=filename).headers["content-disposition"] == field
    with pytest.raises(ValueError, match="control characters"):
        Response.file(tmp_path / "f", filename="a\r\nb")


# ---- cookies ----


def test_set_cookie_in_full() -> None:
    response = Response.text("")
    response.set_cookie("a", "b")
    response.set_cookie(
        "c",
        "d",
        max_age=9,
        expires=datetime.datetime(1994, 11, 6, 9, 49, 37, tzinfo=datetime.timezone(datetime.timedelta(hours=1))),
        path="/",
        domain="a.org",
        secure=True,
        httponly=True,
        samesite="None",
    )
    response.delete_cookie("e")
    assert response.headers.getall("set-cookie") == [
        "a=b; Path=/; SameSite=Lax",
        "c=d; Max-Age=9; Expires=Sun, 06 Nov 1994 08:49:37 GMT; Path=/; Domain=a.org; SameSite=None; Secure; HttpOnly",
        "e=; Max-Age=0; Path=/; SameSite=Lax",
    ]


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ({"name": ""}, "cookie name '' is no token"),
        ({"name": "a b"}, "cookie name 'a b' is no token"),
        ({"name": "ä"}, "no token"),
        ({"value": "a;b"}, "value of cookie n"),
        ({"value": "a b"}, "value of cookie n"),
        ({"value": "a\r\nX: y"}, "value of cookie n"),
        ({"value": 'a"'}, "value of cookie n"),
        ({"value": "\x7f"}, "value of cookie n"),
        ({"value": "é"}, "value of cookie n"),
        ({"path": "/;x"}, "path of cookie n"),
        ({"path": "/\n"}, "path of cookie n"),
        ({"domain": "a;b"}, "domain of cookie n"),
        ({"samesite": "lax"}, "samesite of cookie n is 'lax'"),
        ({"samesite": "None"}, "needs secure=True"),
        ({"name": "__Secure-a"}, "needs secure=True"),
        ({"name": "__Host-a", "secure": True, "path": "/x"}, "must have path='/'"),
        ({"expires": datetime.datetime(2030, 1, 1)}, "time zone"),
    ],
)
def test_set_cookie_names_the_bad_part(arguments: dict[str, Any], complaint: str) -> None:
    response = Response.text("")
    with pytest.raises(ValueError, match=complaint):
        response.set_cookie(**{"name": "n", "value": "v", **arguments})
    assert response.fields == []


@pytest.mark.parametrize(
    ("field", "expected"),
    [
        ("", {}),
        ("a=b; c=d", {"a": "b", "c": "d"}),
        ("a=1;a=2", {"a": "1"}),
        (' a = "b c" ;;; =x; y; z=', {"a": "b c", "z": ""}),
        ('q="', {"q": '"'}),
        ("a=b=c", {"a": "b=c"}),
    ],
)
def test_parse_cookies(field: str, expected: dict[str, str]) -> None:
    assert cookies.parse_cookies(field) == expected


@given(st.text())
def test_parse_cookies_never_raises(field: str) -> None:
    assert all(isinstance(value, str) for value in cookies.parse_cookies(field).values())


VISIBLE = st.characters(min_codepoint=0x21, max_codepoint=0x7E)


@given(
    st.text(st.sampled_from("abcXYZ019!#$%&'*+-.^_`|~"), min_size=1),
    st.text(VISIBLE.filter(lambda char: char not in '",;\\')),
    st.sampled_from(("Lax", "Strict", None)),
)
def test_cookies_come_back(name: str, value: str, samesite: Literal["Lax", "Strict"] | None) -> None:
    response = Response.text("")
    response.set_cookie(name, value, samesite=samesite)
    pair = response.headers["set-cookie"].split("; ")[0]
    assert cookies.parse_cookies(f"{pair}; z=")[name] == value


# ---- JSON ----


class Colour(enum.Enum):
    RED = "red"


class Point(NamedTuple):
    x: int
    y: int


@dataclasses.dataclass
class Inner:
    when: datetime.date
    colours: list[Colour]


@dataclasses.dataclass(slots=True)
class Outer:
    inner: Inner
    price: decimal.Decimal


def test_json_of_what_programs_have() -> None:
    number = uuid.UUID(int=7)
    moment = datetime.datetime(2024, 2, 29, 12, 30, tzinfo=datetime.UTC)
    value = [
        Outer(Inner(datetime.date(2024, 2, 29), [Colour.RED]), decimal.Decimal("1.10")),
        {"id": number, "at": moment, "point": Point(1, 2), "one": {1}, "time": datetime.time(1, 2), 3: None},
    ]
    assert json.loads(http.encode_json(value)) == [
        {"inner": {"when": "2024-02-29", "colours": ["red"]}, "price": "1.10"},
        {
            "id": str(number),
            "at": "2024-02-29T12:30:00+00:00",
            "point": [1, 2],
            "one": [1],
            "time": "01:02:00",
            "3": None,
        },
    ]


def test_json_is_compact_utf8() -> None:
    assert http.encode_json({"a": ["ö", 1]}) == '{"a":["ö",1]}'.encode()
    assert http.encode_json("\ud800") == b'"\\ud800"'


@pytest.mark.parametrize("value", [float("nan"), {"a": float("inf")}])
def test_json_has_no_nan(value: object) -> None:
    with pytest.raises(ValueError):
        http.encode_json(value)


def test_json_refuses_the_rest() -> None:
    with pytest.raises(TypeError, match="there is no JSON for an object"):
        http.encode_json([object()])
    circle: list[Any] = []
    circle.append(circle)
    with pytest.raises((RecursionError, ValueError)):
        http.encode_json(circle)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | TEXT,
    lambda inner: st.lists(inner) | st.dictionaries(TEXT, inner),
)


@given(JSON)
def test_json_comes_back(value: object) -> None:
    assert forms.read_json(http.encode_json(value)) == value


@pytest.mark.parametrize(
    ("body", "complaint"),
    [
        (b"", "line 1, column 1"),
        (b'{"a": 1,\n "b": }', "line 2, column 7"),
        (b"[NaN]", "a number that cannot be read"),
        (b"-Infinity", "a number that cannot be read"),
        (b"1" * 5000, "a number that cannot be read"),
        (b"[" * 200_000, "nested too deeply"),
        (b'{"a":' * 200_000, "nested too deeply"),
        (b'"\xff"', "not utf-8: byte 1"),
        (b"1 2", "line 1, column 3"),
    ],
)
def test_bad_json_says_where(body: bytes, complaint: str) -> None:
    with pytest.raises(HTTPError, match=complaint) as caught:
        forms.read_json(body)
    assert caught.value.status == 400


# ---- text ----


def test_decode() -> None:
    assert forms.decode(b"\xe4", "ISO-8859-1") == "ä"
    with pytest.raises(HTTPError, match="byte 1") as caught:
        forms.decode(b"a\xff", "utf-8")
    assert caught.value.status == 400


@pytest.mark.parametrize("charset", ["punycode", "idna", "rot13", "zlib", "unicode_escape", "no-such", "utf-7", "../x"])
def test_charsets_that_are_none(charset: str) -> None:
    with pytest.raises(HTTPError) as caught:
        forms.decode(b"a", charset)
    assert caught.value.status == 415


def test_every_charset_exists() -> None:
    for charset in forms.CHARSETS:
        assert forms.decode("a".encode(charset), charset) == "a"


def test_media_type() -> None:
    assert forms.media_type('Text/Plain; Charset="utf-8" ; charset=x;;y') == (
        "text/plain",
        {"charset": "utf-8", "": "", "y": ""},
    )
    assert forms.media_type("") == ("", {})


# ---- HTTPError ----


def test_http_error() -> None:
    error = HTTPError(404, "no such page", {"X-A": "1"})
    assert (error.status, error.detail, error.headers) == (404, "no such page", [("X-A", "1")])
    assert str(HTTPError(404)) == "404 Not Found"
    with pytest.raises(ValueError, match="status 200 is no error"):
        HTTPError(200)

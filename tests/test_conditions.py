"""What header fields and names say, without a server: dates, codings, media types."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eighties.media import media_type
from eighties.pages.conditions import choose_coding, parse_date


def test_x_gzip_is_gzip() -> None:
    assert choose_coding(["x-gzip"], ("br", "gzip")) == "gzip"
    assert choose_coding(["br;q=0.5", "x-gzip;q=0.6"], ("br", "gzip")) == "gzip"
    assert choose_coding(["x-br"], ("br",)) == ""


@given(st.text(max_size=60))
def test_dates_are_read_or_not(text: str) -> None:
    assert parse_date(text) is None or "GMT" in text or ":" in text


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("Sun, 06 Nov 1994 08:49:37 GMT", 784111777),
        ("Sunday, 06-Nov-94 08:49:37 GMT", 784111777),
        ("Sun Nov  6 08:49:37 1994", 784111777),
        ("Thursday, 01-Jan-70 00:00:00 GMT", None),  # the year depends on when it is read
        ("Sat, 31 Dec 2016 23:59:60 GMT", 1483228800),
        ("Thu, 01 Jan 1970 00:00:00 GMT", 0),
        ("Fri, 31 Dec 9999 23:59:59 GMT", 253402300799),
        ("Mon, 01 Jan 0001 00:00:00 GMT", -62135596800),
        ("Mon, 01 Jan 0000 00:00:00 GMT", None),
        ("Sun, 06 Nov 1994 24:00:00 GMT", None),
        ("Sun, 00 Nov 1994 08:49:37 GMT", None),
        ("Sun, 6 Nov 1994 08:49:37 GMT", None),
        ("sun, 06 nov 1994 08:49:37 gmt", None),
        ("Sun, 06 Nov 1994 08:49:37 +0000", None),
        ("Sun, 06 Nov 1994 08:49:37 GMT ", None),
        ("Sun, ٠٦ Nov ١٩٩٤ 08:49:37 GMT", None),
        ("784111777", None),
    ],
)
def test_dates(text: str, seconds: int | None) -> None:
    if "-70 " in text:
        assert parse_date(text) in (0, 3155760000)
    else:
        assert parse_date(text) == seconds


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("index.html", "text/html; charset=utf-8"),
        ("a/b.c/INDEX.HTM", "text/html; charset=utf-8"),
        ("x.js", "text/javascript; charset=utf-8"),
        ("x.mjs", "text/javascript; charset=utf-8"),
        ("x.json", "application/json"),
        ("x.css.map", "application/json"),
        ("x.webmanifest", "application/manifest+json"),
        ("x.svg", "image/svg+xml"),
        ("x.xml", "application/xml; charset=utf-8"),
        ("x.tar.gz", "application/gzip"),
        ("x.wasm", "application/wasm"),
        ("x.woff2", "font/woff2"),
        ("x.JPG", "image/jpeg"),
        ("x.unknown", "a/b"),
        ("x.", "a/b"),
        ("x", "a/b"),
        ("html", "a/b"),
        ("folder.html/x", "a/b"),
        ("", "a/b"),
    ],
)
def test_media_types(name: str, kind: str) -> None:
    assert media_type(name, "a/b") == kind

"""`StaticFile` and `Route.file` as objects: what they refuse, and that nothing of them is left."""

from __future__ import annotations

import gc
import os
import sys
from pathlib import Path
from typing import Any

import pytest
from static_engine import BODY, VARY, Site, describe

from eighties._engine import Route, StaticFile


def test_attribute(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(BODY)
    file = StaticFile(path, **describe(path, BODY, '"a"'))
    route = Route("/", "GET", lambda request: None, name="a")
    assert route.file is None
    for one in (file, None, file):
        route.file = one
        assert route.file is one
    with pytest.raises(TypeError, match="file is a StaticFile or None"):
        route.file = "a"  # type: ignore[assignment]
    with pytest.raises(TypeError, match="file is a StaticFile or None"):
        Route("/", "GET", lambda request: None, name="a", file=route)  # type: ignore[arg-type]
    assert route.file is file
    del route.file
    assert route.file is None


class Bytes(bytes):
    """Refers to something."""

    other: object


def test_nothing_is_left(tmp_path: Path) -> None:
    """No circle goes through a StaticFile: of bytes that are not exactly that, a copy is taken."""
    path = tmp_path / "a"
    path.write_bytes(BODY)
    given = describe(path, BODY, '"a"', VARY)
    for which in ("content_type", "fields", "more", "etag", "last_modified", "body"):
        given[which] = Bytes(given[which])
    coding, place = Bytes(b"br"), Bytes(os.fsencode(path))
    sibling = StaticFile(path, **describe(path, BODY, '"br"', *Site.coded("br")))
    before = sys.getrefcount(sibling)
    route = Route("/", "GET", lambda request: None, name="a")
    for value in (*given.values(), coding, place):
        if isinstance(value, Bytes):
            value.other = route
    route.file = StaticFile(place, **given, encodings=[(coding, sibling)])
    assert sibling in gc.get_referents(route.file) and route.file in gc.get_referents(route)
    del route, given, coding, place, value
    gc.collect()
    after = sys.getrefcount(sibling)
    assert after == before


# ---- what is refused ----


@pytest.mark.parametrize(
    ("name", "value", "reason"),
    [
        ("fields", b"A: b", "a field line does not end with CRLF"),
        ("fields", b"A: b\r\n\r\nHTTP/1.1 200 OK\r\n", "a field line does not begin with a name"),
        ("fields", b"A: b\nB: c\r\n", "a field's value holds a control character"),
        ("fields", b"A: \0\r\n", "a field's value holds a control character"),
        ("fields", b"Content-Length: 5\r\n", "a field is the engine's to set"),
        ("more", b"A: b", "a field line does not end with CRLF"),
        ("more", b"\r\n", "a field line does not begin with a name"),
        ("more", b"Transfer-Encoding: chunked\r\n", "a field is the engine's to set"),
        ("content_type", b"text/css\r\nX: y", "content_type holds a control character"),
        ("content_type", b"a\0", "content_type holds a control character"),
        ("last_modified", b"\n", "last_modified holds a control character"),
        ("etag", b"a", "etag is no entity tag"),
        ("etag", b'"a"\r\nX: "y"', "etag is no entity tag"),
        ("etag", b'"a\0"', "etag is no entity tag"),
        ("path", "a\0b", "embedded null"),
        ("path", b"a\0b", "embedded null"),
    ],
)
def test_refused(tmp_path: Path, name: str, value: object, reason: str) -> None:
    """What would split a head, or is not what it says."""
    path = tmp_path / "a"
    path.write_bytes(BODY)
    given = {"path": path} | describe(path, BODY, '"a"') | {name: value}
    with pytest.raises(ValueError, match=reason):
        StaticFile(given.pop("path"), **given)


def test_arguments(tmp_path: Path) -> None:
    """All of them, each of its type."""
    path = tmp_path / "a"
    path.write_bytes(BODY)
    given = describe(path, BODY, '"a"', VARY)
    file = StaticFile(path, **describe(path, BODY, '"br"', *Site.coded("br")))
    assert StaticFile(path=path, **given, encodings=[(b"br", file)])
    for name in given:
        less = {other: value for other, value in given.items() if other != name}
        several: list[dict[str, Any]] = [{}, {"encodings": []}]
        for more in several:
            if name == "more":
                assert StaticFile(path, **less, **more)
                continue
            with pytest.raises(TypeError, match="takes path and every keyword"):
                StaticFile(path, **less, **more)
        with pytest.raises(TypeError):
            StaticFile(path, **given | {name: None})
        with pytest.raises(TypeError):
            StaticFile(path, **given | {name: "text"})
    wrong: list[tuple[Any, ...]] = [(), (None,), (path, path), (5,)]
    for arguments in wrong:
        with pytest.raises(TypeError):
            StaticFile(*arguments, **given)
    with pytest.raises(TypeError):
        type("Other", (StaticFile,), {})


def test_encodings_that_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(BODY)
    given = describe(path, BODY, '"a"', VARY)
    file = StaticFile(path, **describe(path, BODY, '"br"', *Site.coded("br, a")))
    nested = StaticFile(path, **given, encodings=((b"br", file),))
    no_vary = StaticFile(path, **describe(path, BODY, '"br"', "Content-Encoding: br"))
    no_coding = StaticFile(path, **describe(path, BODY, '"br"', VARY))
    same_tag = StaticFile(path, **describe(path, BODY, 'W/"a"', *Site.coded("br")))
    wrong: list[tuple[Any, type[Exception], str]] = [
        (5, TypeError, "not iterable"),
        ([5], TypeError, "tuples of a content coding and a StaticFile"),
        ([[b"br", file]], TypeError, "tuples of a content coding and a StaticFile"),
        ([(b"br",)], TypeError, "encodings"),
        ([("br", file)], TypeError, "bytes"),
        ([(b"br", b"file")], TypeError, "StaticFile"),
        ([(b"Br", file)], ValueError, "token in small letters"),
        ([(b"b r", file)], ValueError, "token in small letters"),
        ([(b"", file)], ValueError, "token in small letters"),
        ([(b"a", file)] * 4, ValueError, "three encodings at most"),
        ([(b"br", nested)], ValueError, "no encodings of its own"),
        ([(b"br", no_vary)], ValueError, "the fields of all have Vary"),
        ([(b"br", no_coding)], ValueError, "have its Content-Encoding"),
        ([(b"gzip", file)], ValueError, "have its Content-Encoding"),
        ([(b"br", same_tag)], ValueError, "siblings have the same entity tag"),
        ((1 / 0 for _ in "x"), ZeroDivisionError, "division"),
    ]
    before = sys.getrefcount(file)
    for encodings, error, reason in wrong:
        with pytest.raises(error, match=reason):
            StaticFile(path, **given, encodings=encodings)
    late = describe(path, BODY, '"a"')
    for given in (late, late | {"more": f"{VARY}\r\n".encode()}):  # a 304 has to have it as well
        with pytest.raises(ValueError, match="the fields of all have Vary"):
            StaticFile(path, **given, encodings=[(b"br", file)])
    del encodings, wrong
    gc.collect()
    assert sys.getrefcount(file) <= before

"""Forms, urlencoded and multipart: they come back, they are bounded, nothing else is raised. Without a server."""

from __future__ import annotations

import os
import time
import urllib.parse
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from eighties import HTTPError, MultiDict, Upload, forms
from eighties._engine import parse_query

TEXT = st.text(st.characters(exclude_categories=["Cs"]))
# What may stand in a multipart name without one of the quotings that browsers differ in
NAMES = st.text(st.characters(exclude_categories=["Cs", "Cc"], exclude_characters='"\\%'))

MULTIPART = 'multipart/form-data; boundary="b-1"'


def multipart(*parts: tuple[str, str | None, bytes], boundary: str = "b-1") -> bytes:
    """A body as browsers write it, of (name, file name, content)."""
    lines = []
    for name, filename, content in parts:
        more = f'; filename="{filename}"\r\nContent-Type: image/png' if filename is not None else ""
        lines.append(f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"{more}\r\n\r\n'.encode() + content)
    return b"\r\n".join(lines) + (f"\r\n--{boundary}--\r\n" if parts else f"--{boundary}--\r\n").encode()


def read(body: bytes, kind: str = MULTIPART, max_fields: int = forms.MAX_FIELDS) -> MultiDict:
    return forms.read_fields(kind, body, max_fields)


@given(st.lists(st.tuples(TEXT, TEXT)))
@example([("", "")])
def test_query_comes_back(pairs: list[tuple[str, str]]) -> None:
    assert parse_query(urllib.parse.urlencode(pairs)).pairs() == pairs
    body = urllib.parse.urlencode(pairs).encode()
    assert read(body, "application/x-www-form-urlencoded; charset=utf-8").pairs() == pairs


@given(st.lists(st.tuples(NAMES, st.one_of(st.none(), NAMES), TEXT)))
def test_multipart_comes_back(parts: list[tuple[str, str | None, str]]) -> None:
    body = multipart(*[(name, filename, content.encode()) for name, filename, content in parts])
    found = read(body).pairs()
    assert [name for name, _ in found] == [name for name, _, _ in parts]
    for (_, value), (_, filename, content) in zip(found, parts, strict=True):
        if filename is None:
            assert value == content
        else:
            assert isinstance(value, Upload)
            assert value.read() == content.encode()
            assert value.size == len(content.encode())
            assert value.content_type == "image/png"


@given(st.data())
def test_multipart_does_not_depend_on_the_pieces(data: st.DataObject) -> None:
    body = multipart(("a", None, b"x\r\n--b-"), ("f", "g", b"\r\n" * 40), ("", None, b"")) + b"end"
    body = data.draw(st.sampled_from([body, body[:-20], b"junk" + body, body.replace(b"form-data", b"other")]))
    cuts = sorted(data.draw(st.lists(st.integers(0, len(body)))))

    def outcome(pieces: list[bytes]) -> object:
        reader = forms.FormReader(MULTIPART, 10, 10_000)
        try:
            for piece in pieces:
                reader.feed(piece)
            return [(k, v if isinstance(v, str) else (v.filename, v.read())) for k, v in reader.finish().pairs()]
        except HTTPError as error:
            return str(error)
        finally:
            reader.close()

    pieces = [body[start:end] for start, end in zip([0, *cuts], [*cuts, len(body)], strict=True)]
    assert outcome(pieces) == outcome([body])


@given(st.binary())
def test_multipart_of_anything_raises_nothing_else(body: bytes) -> None:
    try:
        read(b"--b-1\r\n" + body)
        read(body)
    except HTTPError as error:
        assert error.status in (400, 413)


@pytest.mark.parametrize(
    ("sent", "kept"),
    [
        ("a.png", "a.png"),
        ("../../etc/passwd", "passwd"),
        ("C:\\dir\\a.png", "a.png"),
        ("..", ""),
        ("a/", ""),
        ("a\x00b\x1b.png", "ab.png"),
    ],
)
def test_file_names_are_no_paths(sent: str, kept: str) -> None:
    upload = read(multipart(("f", sent, b"x")))["f"]
    assert upload.filename == kept


def test_an_empty_file_field_is_false() -> None:
    form = read(multipart(("f", "", b""), ("g", "x", b"")))
    assert not form["f"]
    assert form["g"]


def test_large_files_go_to_disk_and_can_be_saved(tmp_path: Path) -> None:
    content = os.urandom(forms.SPOOL * 3)
    upload = read(multipart(("f", "x", content)))["f"]
    assert upload.read() == content
    upload.save(tmp_path / "saved")
    assert (tmp_path / "saved").read_bytes() == content
    assert repr(upload) == f"<Upload 'x' image/png {len(content)} bytes>"


def test_part_charset() -> None:
    body = (
        b'--b-1\r\nContent-Disposition: form-data; name="a"\r\nContent-Type: text/plain; charset=latin1\r\n\r\n\xe4'
        b"\r\n--b-1--"
    )
    assert read(body)["a"] == "ä"


@pytest.mark.parametrize(
    ("kind", "body", "status"),
    [
        ("multipart/form-data", b"", 400),
        ("multipart/form-data; boundary=", b"", 400),
        (f"multipart/form-data; boundary={'x' * 71}", b"", 400),
        ("multipart/form-data; boundary=a\x80", b"", 400),
        (MULTIPART, b"", 400),
        (MULTIPART, multipart(("a", None, b"x"))[:-6], 400),
        (MULTIPART, b"preamble" * 9000 + multipart(("a", None, b"x")), 400),
        (MULTIPART, multipart(("a", None, b"\xff")), 400),
        (MULTIPART, b"--b-1\r\nContent-Disposition: form-data\r\n\r\nx\r\n--b-1--", 400),
        (MULTIPART, b"--b-1\r\nContent-Disposition: form-data; name=a\r\n folded: x\r\n\r\nx\r\n--b-1--", 400),
        (MULTIPART, b"--b-1\r\nX: " + b"y" * 5000 + b"\r\n\r\nx\r\n--b-1--", 413),
        (MULTIPART, b"--b-1\r\n" + b"X: y\r\n" * 9 + b"\r\nx\r\n--b-1--", 413),
        (MULTIPART, multipart(("a", None, b"x" * (forms.MAX_TEXT + 1))), 413),
        (MULTIPART, multipart(*[("a", None, b"")] * 1001), 413),
        ("application/x-www-form-urlencoded", b"&".join([b"a=1"] * 1001), 413),
        ("text/plain", b"a=1", 415),
        ("", b"a=1", 415),
    ],
)
def test_bad_forms(kind: str, body: bytes, status: int) -> None:
    with pytest.raises(HTTPError) as caught:
        read(body, kind)
    assert caught.value.status == status


def test_limits_of_forms_are_exact() -> None:
    assert len(read(multipart(*[("a", None, b"")] * 1000)).pairs()) == 1000
    assert len(read(b"&".join([b"a=1"] * 1000), "application/x-www-form-urlencoded").pairs()) == 1000
    assert len(read(multipart(("a", None, b"x" * forms.MAX_TEXT)))["a"]) == forms.MAX_TEXT
    assert read(b"", "") == MultiDict()


def test_streamed_forms_are_bounded() -> None:
    reader = forms.FormReader(MULTIPART, 10, 100)
    with pytest.raises(HTTPError) as caught:
        reader.feed(b"x" * 101)
    assert caught.value.status == 413


@pytest.mark.parametrize(
    "body",
    [
        b"--b-1\r\n" + b"a" * 2_000_000,
        b"--b-1\r\nContent-Disposition: form-data; name=a\r\n\r\n" + b"\r\n--b-" * 300_000,
        b"--b-1\r\nContent-Disposition: form-data; name=a\r\n\r\n" + b"\r" * 2_000_000,
        b"\r\n" * 1_000_000,
        b"--b-1" * 400_000,
    ],
)
def test_hostile_multipart_costs_little(body: bytes) -> None:
    start = time.process_time()
    with pytest.raises(HTTPError):
        read(body)
    assert time.process_time() - start < 2.0

"""Static files over real sockets: every condition, range and content coding of RFC 9110."""

from __future__ import annotations

import os
import re
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from server import wait_until
from static_files import AFTER, BEFORE, DATE, LARGE, SIZE, TEXT, Asked, Files, Reply, etag_of, house_of

from eighties.http import BINARY
from eighties.pages.conditions import MAX_RANGES, parse_date
from eighties.pages.static import SMALL_FILE

KINDS = {"memory.txt": TEXT, "python.txt": TEXT, "large.txt": LARGE}


@pytest.fixture
def files(tmp_path: Path) -> Iterator[Files]:
    yield from house_of(tmp_path)


@pytest.fixture(scope="module")
def shelf(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Files]:
    """Files that no test changes: from memory, by Python, by the kernel, and empty."""
    for files in house_of(tmp_path_factory.mktemp("shelf")):
        files.add("memory.txt")
        files.add("python.txt", route=False)
        files.add("large.txt", LARGE)
        files.add("empty.txt", b"")
        files.add("answer.txt", method="POST")
        for name in ("coded.css", "large.css"):
            files.write(name, TEXT if name == "coded.css" else LARGE)
            for ending in ("br", "zst", "gz"):
                files.write(f"{name}.{ending}", ending.encode() * (100 if name == "coded.css" else 70_000))
            files.serve(name)
        yield files


# ---- whole files ----


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_whole_file(shelf: Files, name: str, method: str) -> None:
    body = KINDS[name]
    for _ in range(3):  # the first from Python, then perhaps from memory
        reply = shelf.ask(name, method=method)
        assert reply.status == 200
        assert reply.body == (body if method == "GET" else b"")
        assert reply["content-length"] == str(len(body))
        assert reply["content-type"] == "text/plain; charset=utf-8"
        assert reply["last-modified"] == DATE
        assert re.fullmatch('"[0-9a-f]+-[0-9a-f]+"', reply["etag"] or "")
        assert reply["cache-control"] == "no-cache"
        assert reply["accept-ranges"] == "bytes"
        assert reply["x-content-type-options"] == "nosniff"
        assert "vary" not in reply.names


def test_memory_answers_as_python_does(files: Files) -> None:
    files.add("a.css", immutable=True)
    files.write("a.css.gz", b"zipped")
    for accepted in ({}, {"Accept-Encoding": "gzip, br"}, {"Accept-Encoding": ""}):
        files.serve("a.css", immutable=True)
        first = files.ask("a.css", accepted)
        assert files.calls.pop("a.css") == 1
        second = files.ask("a.css", accepted)
        assert "a.css" not in files.calls
        assert first.body == second.body
        assert first.pairs == second.pairs
        assert second["cache-control"] == "public, max-age=604800, immutable"


@pytest.mark.parametrize("size", [0, 1, SMALL_FILE - 1, SMALL_FILE, SMALL_FILE + 1, 3_000_000])
def test_sizes(files: Files, size: int) -> None:
    body = os.urandom(size)
    served = files.add("x.bin", body)
    for _ in range(3):
        reply = files.ask("x.bin")
        assert (reply.status, reply.body, reply["content-type"]) == (200, body, BINARY)
        assert files.ask("x.bin", method="HEAD")["content-length"] == str(size)
    assert served.route is not None
    assert (served.route.file is not None) == (size <= SMALL_FILE)
    assert files.calls["x.bin"] == (1 if size <= SMALL_FILE else 6)


def test_small_file_is_left_to_the_engine(files: Files) -> None:
    served = files.add("a.txt")
    for _ in range(5):
        assert files.ask("a.txt").body == TEXT
    assert files.calls == {"a.txt": 1}
    assert files.cache.used == SIZE
    assert served.route is not None and served.route.file is not None


def test_date_is_not_in_the_future(files: Files) -> None:
    files.add("a.txt", when=time.time() + 1_000_000)
    for _ in range(2):
        reply = files.ask("a.txt")
        modified, now = parse_date(reply["last-modified"] or ""), parse_date(reply["date"] or "")
        assert modified is not None and now is not None and modified <= now
    assert files.ask("a.txt", {"If-Modified-Since": reply["last-modified"] or ""}).status == 304


@pytest.mark.parametrize("when", [-86_400.5, 0, 1])
def test_files_older_than_http(files: Files, when: float) -> None:
    files.add("a.txt", when=when)
    reply = files.ask("a.txt")
    assert reply["last-modified"] == f"Thu, 01 Jan 1970 00:00:0{int(max(when, 0))} GMT"
    assert files.ask("a.txt", {"If-None-Match": reply["etag"] or ""}).status == 304


# ---- conditions ----

# Header fields and the status of GET; `{tag}` is the file's entity tag. 200 unless told otherwise.
CONDITIONS: list[tuple[int, Asked]] = [
    (200, {"If-Match": "{tag}"}),
    (200, {"If-Match": "*"}),
    (200, {"If-Match": ' "a" ,, "b",{tag} , "c"'}),
    (200, [("If-Match", '"a"'), ("If-Match", "{tag}")]),
    (412, {"If-Match": "W/{tag}"}),
    (412, {"If-Match": '"a"'}),
    (412, {"If-Match": '"a", "b"'}),
    (412, {"If-Match": ""}),
    (412, {"If-Match": "garbage"}),
    (412, {"If-Match": "garbage, {tag}"}),
    (412, {"If-Match": "{tag}garbage"}),
    (412, {"If-Match": 'W/"', "If-None-Match": "{tag}"}),
    (304, {"If-None-Match": "{tag}"}),
    (304, {"If-None-Match": "W/{tag}"}),
    (304, {"If-None-Match": "*"}),
    (304, {"If-None-Match": '"a", W/{tag}'}),
    (304, {"If-None-Match": '"a,b" , "*",{tag}'}),
    (304, [("If-None-Match", '"a"'), ("If-None-Match", "{tag}")]),
    (304, {"If-None-Match": "{tag}", "If-Match": "{tag}"}),
    (200, {"If-None-Match": '"a"'}),
    (200, {"If-None-Match": '"a", "b"'}),
    (200, {"If-None-Match": "w/{tag}"}),
    (200, {"If-None-Match": '"*"'}),
    (200, {"If-None-Match": ""}),
    (200, {"If-None-Match": 'garbage, "'}),
    (304, {"If-Modified-Since": DATE}),
    (304, {"If-Modified-Since": AFTER}),
    (304, {"If-Modified-Since": "Sunday, 13-Sep-20 12:26:40 GMT"}),
    (304, {"If-Modified-Since": "Sun Sep 13 12:26:40 2020"}),
    (304, {"If-Modified-Since": "Fri, 01 Jan 2100 00:00:00 GMT"}),
    (200, {"If-Modified-Since": BEFORE}),
    (200, {"If-Modified-Since": "Sun Sep  6 12:26:40 2020"}),
    (200, {"If-Modified-Since": "garbage"}),
    (200, {"If-Modified-Since": ""}),
    (200, {"If-Modified-Since": "Sun, 31 Feb 2021 12:26:40 GMT"}),
    (200, {"If-Modified-Since": "Sun, 13 Sep 2020 12:26:61 GMT"}),
    (200, {"If-Modified-Since": f"{AFTER}, {AFTER}"}),
    (200, [("If-Modified-Since", AFTER), ("If-Modified-Since", AFTER)]),
    (200, [("If-Modified-Since", DATE), ("If-Modified-Since", DATE)]),
    (200, {"If-Modified-Since": AFTER, "If-None-Match": '"a"'}),
    (304, {"If-Modified-Since": BEFORE, "If-None-Match": "{tag}"}),
    (200, {"If-Unmodified-Since": DATE}),
    (200, {"If-Unmodified-Since": AFTER}),
    (412, {"If-Unmodified-Since": BEFORE}),
    (200, {"If-Unmodified-Since": "garbage"}),
    (200, [("If-Unmodified-Since", BEFORE), ("If-Unmodified-Since", BEFORE)]),
    (200, {"If-Unmodified-Since": BEFORE, "If-Match": "{tag}"}),
    (412, {"If-Unmodified-Since": BEFORE, "If-None-Match": "{tag}"}),
    (304, {"If-Unmodified-Since": AFTER, "If-None-Match": "{tag}"}),
    (412, {"If-Match": '"a"', "Range": "bytes=0-1"}),
    (304, {"If-None-Match": "{tag}", "Range": "bytes=0-1"}),
    (304, {"If-None-Match": "{tag}", "Range": "bytes=9999999-"}),
    (206, {"If-None-Match": '"a"', "Range": "bytes=0-1"}),
    (206, {"If-Match": "{tag}", "Range": "bytes=0-1"}),
    (206, {"If-Range": "{tag}", "Range": "bytes=0-1"}),
    (206, {"If-Range": DATE, "Range": "bytes=0-1"}),
    (206, {"If-Range": "Sun Sep 13 12:26:40 2020", "Range": "bytes=0-1"}),
    (416, {"If-Range": "{tag}", "Range": "bytes=9999999-"}),
    (200, {"If-Range": "W/{tag}", "Range": "bytes=0-1"}),
    (200, {"If-Range": '"a"', "Range": "bytes=0-1"}),
    (200, {"If-Range": '"a"', "Range": "bytes=9999999-"}),
    (200, {"If-Range": "{tag}, {tag}", "Range": "bytes=0-1"}),
    (200, [("If-Range", "{tag}"), ("If-Range", "{tag}"), ("Range", "bytes=0-1")]),
    (200, {"If-Range": BEFORE, "Range": "bytes=0-1"}),
    (200, {"If-Range": AFTER, "Range": "bytes=0-1"}),
    (200, {"If-Range": "garbage", "Range": "bytes=0-1"}),
    (200, {"If-Range": "", "Range": "bytes=0-1"}),
    (200, {"If-Range": "{tag}"}),
]


def filled(headers: Asked, tag: str) -> list[tuple[str, str]]:
    pairs = headers.items() if isinstance(headers, dict) else headers
    return [(name, value.replace("{tag}", tag)) for name, value in pairs]


def shown(value: Any) -> str:
    pairs = value.items() if isinstance(value, dict) else value
    return "; ".join(f"{name}: {text}" for name, text in pairs) if isinstance(value, (dict, list)) else str(value)


def condition_rows() -> Iterator[Any]:
    for name in KINDS:
        for status, headers in CONDITIONS:
            yield pytest.param(name, status, headers, id=f"{name}: {shown(headers)}: {status}")


@pytest.mark.parametrize(("name", "status", "headers"), list(condition_rows()))
def test_conditions(shelf: Files, name: str, status: int, headers: Asked) -> None:
    plain = shelf.ask(name)
    asked = filled(headers, plain["etag"] or "")
    for method in ("GET", "HEAD"):
        reply = shelf.ask(name, asked, method)
        # Range and If-Range are for GET alone (RFC 9110 §14.2)
        assert reply.status == (200 if method == "HEAD" and status in (206, 416) else status), method
        if reply.status == 304:
            assert {"etag", "cache-control"} <= reply.names and "content-type" not in reply.names
            assert [reply[field] for field in ("etag", "cache-control")] == [plain["etag"], plain["cache-control"]]
            assert reply.body == b""
        elif reply.status == 412:
            assert not reply.names & {"cache-control", "etag", "last-modified", "accept-ranges"}
            assert reply.body == (b"Precondition Failed\n" if method == "GET" else b"")
        elif reply.status == 200:
            assert reply.body == (KINDS[name] if method == "GET" else b"")


def test_304_has_what_it_may_have(shelf: Files) -> None:
    for name, vary in (("python.txt", set[str]()), ("large.css", {"vary"})):
        reply = shelf.ask(name, {"If-None-Match": "*"})
        assert reply.names == {"etag", "cache-control", "x-content-type-options"} | vary


@pytest.mark.parametrize(
    ("status", "headers"),
    [
        (200, {}),
        (200, {"Range": "bytes=0-1"}),
        (200, {"Range": "bytes=99999-"}),
        (200, {"If-Modified-Since": AFTER}),
        (200, {"If-Match": "*"}),
        (412, {"If-Match": '"a"'}),
        (412, {"If-None-Match": "*"}),
        (200, {"If-None-Match": '"a"'}),
        (412, {"If-Unmodified-Since": BEFORE}),
        (200, {"If-Unmodified-Since": DATE}),
        (200, {"Accept-Encoding": "gzip"}),
    ],
    ids=shown,
)
def test_other_methods(shelf: Files, status: int, headers: Asked) -> None:
    reply = shelf.ask("answer.txt", headers, "POST")
    assert (reply.status, reply.body) == (status, TEXT if status == 200 else b"Precondition Failed\n")
    assert not reply.names & {"etag", "last-modified", "accept-ranges", "content-range"}


def test_file_changed_a_moment_ago_has_no_strong_date(files: Files) -> None:
    files.add("a.txt", when=time.time() + 3)
    asked = {"If-Range": files.ask("a.txt")["last-modified"] or "", "Range": "bytes=0-1"}
    first = files.ask("a.txt", asked)
    if first["date"] == asked["If-Range"]:
        assert first.status == 200
    wait_until(lambda: files.ask("a.txt", asked).status == 206, "a date in the past is a strong one")


# ---- ranges ----

# Range, and what comes of it: slices, or a status
RANGES: list[tuple[str, list[tuple[int, int]] | int]] = [
    ("bytes=0-0", [(0, 1)]),
    ("bytes=0-99", [(0, 100)]),
    ("bytes=5-5", [(5, 6)]),
    ("bytes=10-", [(10, SIZE)]),
    ("bytes=0-", [(0, SIZE)]),
    (f"bytes=0-{SIZE - 1}", [(0, SIZE)]),
    (f"bytes=0-{SIZE}", [(0, SIZE)]),
    (f"bytes={SIZE - 1}-", [(SIZE - 1, SIZE)]),
    ("bytes=-1", [(SIZE - 1, SIZE)]),
    ("bytes=-100", [(SIZE - 100, SIZE)]),
    ("bytes=-99999", [(0, SIZE)]),
    (f"bytes=-{'9' * 5000}", [(0, SIZE)]),
    (f"bytes=1-{'9' * 5000}", [(1, SIZE)]),
    (f"bytes={'0' * 5000}7-{'0' * 30}8", [(7, 9)]),
    ("BYTES=1-2", [(1, 3)]),
    ("bytes=1-2,", [(1, 3)]),
    ("bytes= ,, 1-2 ,\t", [(1, 3)]),
    (f"bytes={SIZE}-", 416),
    ("bytes=-0", 416),
    ("bytes=-000", 416),
    (f"bytes={'9' * 5000}-", 416),
    ("bytes=5000-6000, -0", 416),
    ("bytes=5000-6000, 1-2", [(1, 3)]),
    ("bytes=0-1, 3-4", [(0, 2), (3, 5)]),
    ("bytes=3-4,0-1", [(3, 5), (0, 2)]),
    ("bytes=0-1, -1", [(0, 2), (SIZE - 1, SIZE)]),
    ("bytes=0-1, 1-2", [(0, 3)]),
    ("bytes=0-1, 2-3", [(0, 4)]),
    ("bytes=0-0, 0-0, 0-0", [(0, 1)]),
    ("bytes=10-20, 0-0, 15-30, 5-10", [(5, 31), (0, 1)]),
    ("bytes=0-1, 8-9, 4-5, 1-8", [(0, 10)]),
    ("bytes=0-, 5-9, -7", [(0, SIZE)]),
    ("bytes=" + ",".join(f"{at}-{at}" for at in range(0, 2 * MAX_RANGES, 2)), [(2 * k, 2 * k + 1) for k in range(16)]),
    ("bytes=" + ",".join(f"{at}-{at}" for at in range(0, 2 * MAX_RANGES + 2, 2)), 200),
    ("bytes=" + "0-," * 5000, 200),
    ("bytes=" + "," * 9000, 200),
    ("bytes=5-4", 200),
    ("bytes=0-1, 5-4", 200),
    ("bytes=", 200),
    ("bytes=-", 200),
    ("bytes=a-b", 200),
    ("bytes=0-1;2-3", 200),
    ("bytes=0--1", 200),
    ("bytes=--1", 200),
    ("bytes=+0-1", 200),
    ("bytes=0x0-0x1", 200),
    ("bytes=1_0-2_0", 200),
    ("bytes=\xb2-\xb3", 200),
    ("bytes = 0-1", 200),
    ("bytes 0-1", 200),
    ("bytes", 200),
    ("", 200),
    ("=0-1", 200),
    ("lines=0-1", 200),
    ("bytes=0-1/*", 200),
]


def parts_of(reply: Reply) -> list[tuple[dict[str, str], bytes]]:
    """The parts of a multipart/byteranges answer, read strictly (RFC 2046 §5.1.1)."""
    found = re.fullmatch("multipart/byteranges; boundary=([0-9a-f]+)", reply["content-type"] or "")
    assert found is not None
    boundary = found[1].encode()
    before, *parts = reply.body.split(b"\r\n--" + boundary)
    assert before == b"" and parts.pop() == b"--\r\n"
    result = []
    for part in parts:
        head, _, body = part.removeprefix(b"\r\n").partition(b"\r\n\r\n")
        fields = (line.split(": ", 1) for line in head.decode().split("\r\n"))
        result.append(({name.lower(): value for name, value in fields}, body))
    return result


def check_range(reply: Reply, body: bytes, expected: list[tuple[int, int]] | int) -> None:
    assert reply["content-length"] == str(len(reply.body))
    if expected == 200:
        assert (reply.status, reply.body, reply["content-range"]) == (200, body, None)
    elif expected == 416:
        assert (reply.status, reply["content-range"]) == (416, f"bytes */{len(body)}")
        assert not reply.names & {"etag", "last-modified", "cache-control"}
    else:
        assert isinstance(expected, list) and reply.status == 206
        assert {"etag", "cache-control", "accept-ranges"} <= reply.names
        named = [f"bytes {start}-{stop - 1}/{len(body)}" for start, stop in expected]
        slices = [body[start:stop] for start, stop in expected]
        if len(expected) == 1:
            assert (reply["content-range"], reply.body) == (named[0], slices[0])
            assert reply["content-type"] == "text/plain; charset=utf-8"
        else:
            assert reply["content-range"] is None
            parts = parts_of(reply)
            assert [body for _, body in parts] == slices
            kind = "text/plain; charset=utf-8"
            assert [head for head, _ in parts] == [{"content-type": kind, "content-range": one} for one in named]


@pytest.mark.parametrize("name", ["memory.txt", "python.txt"])
@pytest.mark.parametrize(
    ("value", "expected"), RANGES, ids=[f"{number}: {row[0][:30]}" for number, row in enumerate(RANGES)]
)
def test_ranges(shelf: Files, name: str, value: str, expected: list[tuple[int, int]] | int) -> None:
    check_range(shelf.ask(name, {"Range": value}), TEXT, expected)
    head = shelf.ask(name, {"Range": value}, "HEAD")
    assert (head.status, head["content-length"], head["content-range"]) == (200, str(SIZE), None)


def test_ranges_of_a_large_file(shelf: Files) -> None:
    size = len(LARGE)
    for value, expected in [
        ("bytes=100000-199999", [(100_000, 200_000)]),
        ("bytes=-1", [(size - 1, size)]),
        ("bytes=0-139999, 150000-289999, -1", [(0, 140_000), (150_000, 290_000), (size - 1, size)]),
        ("bytes=5-5, 3-3", [(5, 6), (3, 4)]),
        ("bytes=0-199999, 100000-250000", [(0, 250_001)]),
    ]:
        check_range(shelf.ask("large.txt", {"Range": value}), LARGE, expected)
    check_range(shelf.ask("large.txt", {"Range": f"bytes={size}-"}), LARGE, 416)


def test_ranges_of_an_empty_file(shelf: Files) -> None:
    for value, status in [
        ("bytes=0-", 416),
        ("bytes=0-5", 416),
        ("bytes=-0", 416),
        ("bytes=-5", 200),
        ("bytes=7-6", 200),
    ]:
        check_range(shelf.ask("empty.txt", {"Range": value}), b"", status)


def test_repeated_range_field_is_ignored(shelf: Files) -> None:
    check_range(shelf.ask("memory.txt", [("Range", "bytes=0-1"), ("Range", "bytes=2-3")]), TEXT, 200)


def test_part_for_who_has_the_rest(shelf: Files) -> None:
    tag = etag_of(shelf, "memory.txt")
    for value in ("bytes=0-1", "bytes=0-1,5-6"):
        reply = shelf.ask("memory.txt", {"Range": value, "If-Range": tag})
        assert reply.status == 206 and reply["etag"] == tag
        assert not reply.names & {"last-modified", "accept-ranges"}  # RFC 9110 §15.3.7


def test_client_that_leaves_a_streamed_answer(shelf: Files) -> None:
    with socket.create_connection(("127.0.0.1", shelf.port)) as client:
        client.sendall(b"GET /large.txt HTTP/1.1\r\nHost: a\r\nRange: bytes=0-149999,160000-\r\n\r\n")
        client.recv(10)
    wait_until(lambda: shelf.run(lambda: shelf.engine.tasks) == 0, "the task is over")


# ---- content codings ----

# Accept-Encoding of a request, None: it has none; and the coding of the answer, where there are br, zstd and gzip
CODINGS: list[tuple[str | None, str]] = [
    (None, ""),
    ("", ""),
    ("identity", ""),
    ("gzip", "gzip"),
    ("GZip", "gzip"),
    ("br", "br"),
    ("zstd", "zstd"),
    ("gzip, zstd, br", "br"),
    ("gzip, zstd", "zstd"),
    ("gzip, deflate, br, zstd", "br"),
    ("deflate", ""),
    ("compress, deflate;q=1", ""),
    ("identity, gzip", "gzip"),
    ("gzip;q=1.0, br;q=0.9", "gzip"),
    ("br;q=0.5, gzip;q=0.501", "gzip"),
    ("br;q=0, gzip", "gzip"),
    ("br;Q=0.000, *", "zstd"),
    ("*", "br"),
    ("*;q=0.1", "br"),
    ("*;q=0", ""),
    ("*;q=0, gzip", "gzip"),
    ("gzip;q=0.001", "gzip"),
    ("gzip;q=0", ""),
    ("gzip;q=0.5, identity", ""),
    ("gzip;q=0.5, identity;q=0.4", "gzip"),
    ("gzip;q=0.5, *;q=0.6", "br"),
    ("identity;q=0", ""),
    ("identity;q=0, gzip;q=0.1", "gzip"),
    ("gzip;q=2", ""),
    ("gzip;q=", ""),
    ("gzip;q=0.1234", ""),
    ("gzip;q=nan", ""),
    ("gzip;level=9", ""),
    ("gzip;", ""),
    (";q=1, gzip ; q=0.3 ,,", "gzip"),
    ("gzip;q=0, gzip", ""),
    ("gzipped, brr", ""),
    ("*" * 5000, ""),
]


@pytest.mark.parametrize("name", ["coded.css", "large.css"])
@pytest.mark.parametrize(("accepted", "coding"), CODINGS, ids=[str(row[0])[:40] for row in CODINGS])
def test_codings(shelf: Files, name: str, accepted: str | None, coding: str) -> None:
    times = 100 if name == "coded.css" else 70_000
    plain = TEXT if name == "coded.css" else LARGE
    body = {"": plain, "br": b"br" * times, "zstd": b"zst" * times, "gzip": b"gz" * times}[coding]
    asked = {} if accepted is None else {"Accept-Encoding": accepted}
    for method in ("GET", "HEAD"):
        reply = shelf.ask(name, asked, method)
        assert (reply.status, reply.body) == (200, body if method == "GET" else b"")
        assert reply["content-length"] == str(len(body))
        assert reply["content-encoding"] == (coding or None)
        assert reply["content-type"] == "text/css; charset=utf-8"
        assert reply.headers.get_all("vary") == ["Accept-Encoding"]
        assert (reply["etag"] or "").endswith(f'-{coding}"' if coding else '"')


@pytest.mark.parametrize("name", ["coded.css", "large.css"])
def test_every_coding_has_its_own_validators(shelf: Files, name: str) -> None:
    codings = ["identity", "br", "zstd", "gzip"]
    tags = {coding: etag_of(shelf, name, {"Accept-Encoding": coding}) for coding in codings}
    assert len(set(tags.values())) == 4
    for coding in codings:
        for other in codings:
            asked = {"Accept-Encoding": coding, "If-None-Match": tags[other]}
            reply = shelf.ask(name, asked)
            assert reply.status == (304 if coding == other else 200)
            assert reply["vary"] == "Accept-Encoding"
            listed = shelf.ask(name, asked | {"If-None-Match": f'"a", {tags[other]}'})
            assert (listed.status, listed["vary"]) == (reply.status, "Accept-Encoding")
            reply = shelf.ask(name, {"Accept-Encoding": coding, "If-Range": tags[other], "Range": "bytes=1-5"})
            assert reply.status == (206 if coding == other else 200)


@pytest.mark.parametrize("name", ["coded.css", "large.css"])
def test_ranges_of_encoded_files(shelf: Files, name: str) -> None:
    body = b"gz" * (100 if name == "coded.css" else 70_000)
    reply = shelf.ask(name, {"Accept-Encoding": "gzip", "Range": "bytes=3-10"})
    assert (reply.status, reply.body, reply["content-encoding"]) == (206, body[3:11], "gzip")
    assert (reply["content-range"], reply["vary"]) == (f"bytes 3-10/{len(body)}", "Accept-Encoding")
    reply = shelf.ask(name, {"Accept-Encoding": "gzip", "Range": "bytes=3-10, 20-30"})
    assert (reply.status, reply.body, reply["content-encoding"]) == (200, body, "gzip")
    for asked, status in [
        ({"Range": "bytes=9999999-"}, 416),
        ({"If-Match": '"a"'}, 412),
        ({"Range": "bytes=0-0,2-2"}, 206),
    ]:
        reply = shelf.ask(name, asked)
        assert (reply.status, reply["vary"]) == (status, "Accept-Encoding")


# ---- whatever a client sends ----

_text = st.text(st.characters(codec="latin-1", exclude_categories=["Cc"]), max_size=60)
_number = st.integers(0, 2 * SIZE).map(str) | st.just("") | st.just("9" * 40)
_range = st.builds("{}-{}".format, _number, _number)
_ranges = st.lists(_range | _text, max_size=20).map(lambda parts: "bytes=" + ",".join(parts))
_tag = st.sampled_from(['"a"', "{tag}", "W/{tag}", "*", "", '"', "W/", DATE, BEFORE, AFTER]) | _text
_tags = st.lists(_tag, max_size=4).map(", ".join)
_coding = st.builds(
    "{}{}".format,
    st.sampled_from(["gzip", "br", "zstd", "identity", "*", "x-gzip", ""]) | _text,
    st.sampled_from(["", ";q=0", ";q=1", ";q=0.5", ";q=0.001", ";q="]) | _text,
)
_field = st.one_of(
    st.tuples(st.just("Range"), _ranges | _text),
    st.tuples(
        st.sampled_from(["If-Match", "If-None-Match", "If-Range", "If-Modified-Since", "If-Unmodified-Since"]), _tags
    ),
    st.tuples(st.just("Accept-Encoding"), st.lists(_coding, max_size=5).map(", ".join)),
)
_names = st.sampled_from(["memory.txt", "python.txt", "large.txt", "empty.txt", "coded.css", "large.css"])
relaxed = settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])


@relaxed
@given(name=_names, headers=st.lists(_field, max_size=6), method=st.sampled_from(["GET", "HEAD"]))
def test_no_header_field_breaks_it(shelf: Files, name: str, headers: list[tuple[str, str]], method: str) -> None:
    reply = shelf.ask(name, filled(headers, etag_of(shelf, name)), method)
    assert reply.status in (200, 206, 304, 412, 416)
    assert (reply["vary"] is not None) == name.endswith(".css")


@relaxed
@given(
    name=st.sampled_from(list(KINDS)),
    spans=st.lists(st.tuples(st.integers(0, 400_000), st.none() | st.integers(0, 400_000)), min_size=1, max_size=6),
)
def test_satisfiable_ranges_are_slices(shelf: Files, name: str, spans: list[tuple[int, int | None]]) -> None:
    body = KINDS[name]
    spans = [(start, None if more is None else start + more) for start, more in spans]
    asked = ",".join(f"{start}-{'' if last is None else last}" for start, last in spans)
    reply = shelf.ask(name, {"Range": f"bytes={asked}"})
    wanted = {
        at for start, last in spans for at in range(start, len(body) if last is None else min(len(body), last + 1))
    }
    if not wanted:
        assert reply.status == 416
        return
    assert reply.status == 206
    parts = [({"content-range": reply["content-range"] or ""}, reply.body)]
    if reply["content-range"] is None:
        parts = parts_of(reply)
    got: set[int] = set()
    for head, part in parts:
        found = re.fullmatch(rf"bytes (\d+)-(\d+)/{len(body)}", head["content-range"])
        assert found is not None
        start, stop = int(found[1]), int(found[2]) + 1
        assert part == body[start:stop]
        assert got.isdisjoint(range(start, stop))
        got.update(range(start, stop))
    assert got == wanted

"""Static files over real sockets: every condition, range and content coding of RFC 9110, and crowds that ask for them.

The tables are those of test_conditions.py. What happens to files that change is in test_static_changes.py, too.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import Serve
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from server import PATIENCE, wait_until
from site_folder import write_site
from sockets import open_descriptors
from static_files import AFTER, BEFORE, DATE, LARGE, LONG_AGO, SIZE, TEXT, Asked, Files, Reply, etag_of, house_of
from test_conditions import CODINGS, CONDITIONS, RANGES, filled, header_fields, shown
from wire import read_answers

from eighties.errors import HTTPError
from eighties.http import BINARY
from eighties.pages.conditions import parse_date
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
        for name in ("coded.css", "python.css", "large.css"):
            files.write(name, LARGE if name == "large.css" else TEXT)
            for ending in ("br", "zst", "gz"):
                files.write(f"{name}.{ending}", ending.encode() * (70_000 if name == "large.css" else 100))
            files.serve(name, route=name != "python.css")
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


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize(("status", "headers"), CONDITIONS, ids=shown)
def test_conditions(shelf: Files, name: str, status: int, headers: Asked) -> None:
    plain = shelf.ask(name)
    asked = filled(headers, plain["etag"] or "")
    for method in ("GET", "HEAD"):
        reply = shelf.ask(name, asked, method)
        # Range and If-Range are for GET alone (RFC 9110 §14.2)
        assert reply.status == (200 if method == "HEAD" and status in (206, 416) else status), method
        if reply.status == 304:
            assert reply.names == {"etag", "cache-control", "x-content-type-options"}
            assert [reply[field] for field in ("etag", "cache-control")] == [plain["etag"], plain["cache-control"]]
            assert reply.body == b""
        elif reply.status == 412:
            assert not reply.names & {"cache-control", "etag", "last-modified", "accept-ranges"}
            assert reply.body == (b"Precondition Failed\n" if method == "GET" else b"")
        elif reply.status == 200:
            assert reply.body == (KINDS[name] if method == "GET" else b"")


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
    """Two versions of one second may have had it, and that of a file of the future is not its own."""
    for when in (time.time(), time.time() + 5000):
        files.add("a.txt", when=when)
        first = files.ask("a.txt")
        for value, status in ((first["last-modified"] or "", 200), (first["etag"] or "", 206)):
            assert files.ask("a.txt", {"If-Range": value, "Range": "bytes=0-1"}).status == status


# ---- the engine and Python ----


def same_answer(shelf: Files, names: tuple[str, str], asked: list[tuple[str, str]], method: str) -> Reply:
    """Ask for a file that the engine has in memory, and for its twin that only Python serves."""
    ours, theirs = (shelf.ask(name, asked, method) for name in names)
    assert (ours.status, len(ours.body)) == (theirs.status, len(theirs.body))
    if not (ours["content-type"] or "").startswith("multipart"):
        assert (ours.pairs, ours.body) == (theirs.pairs, theirs.body)
    return ours


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_engine_and_python_agree_on_conditions(shelf: Files, method: str) -> None:
    tag = etag_of(shelf, "memory.txt")
    before = dict(shelf.calls)
    for _, headers in CONDITIONS:
        same_answer(shelf, ("memory.txt", "python.txt"), filled(headers, tag), method)
    asked = {name: shelf.calls[name] - before.get(name, 0) for name in ("memory.txt", "python.txt")}
    assert asked["memory.txt"] < asked["python.txt"] == len(CONDITIONS)  # so the engine has answered some


def test_engine_and_python_agree_on_codings(shelf: Files) -> None:
    for accepted, _ in CODINGS:
        asked = [] if accepted is None else [("Accept-Encoding", accepted)]
        tag = same_answer(shelf, ("coded.css", "python.css"), asked, "GET")["etag"]
        for value in (tag or "", f"W/{tag}", '"a"'):
            same_answer(shelf, ("coded.css", "python.css"), [*asked, ("If-None-Match", value)], "GET")


# ---- ranges ----


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
    for value, status in [("0-", 416), ("0-5", 416), ("-0", 416), ("-5", 200), ("7-6", 200)]:
        check_range(shelf.ask("empty.txt", {"Range": f"bytes={value}"}), b"", status)


def test_part_for_who_has_the_rest(shelf: Files) -> None:
    tag = etag_of(shelf, "memory.txt")
    for value in ("bytes=0-1", "bytes=0-1,5-6"):
        reply = shelf.ask("memory.txt", {"Range": value, "If-Range": tag})
        assert reply.status == 206 and reply["etag"] == tag
        assert not reply.names & {"last-modified", "accept-ranges"}  # RFC 9110 §15.3.7


# ---- content codings ----


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

_names = st.sampled_from(["memory.txt", "python.txt", "large.txt", "empty.txt", "coded.css", "large.css"])
relaxed = settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])


@relaxed
@given(name=_names, headers=st.lists(header_fields, max_size=6), method=st.sampled_from(["GET", "HEAD"]))
def test_no_header_field_breaks_it(shelf: Files, name: str, headers: list[tuple[str, str]], method: str) -> None:
    asked = filled(headers, etag_of(shelf, name))
    twin = {"memory.txt": "python.txt", "coded.css": "python.css"}.get(name, name)
    reply = same_answer(shelf, (name, twin), asked, method)
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


# ---- what must not be sent, and what cannot ----


def test_sibling_that_is_refused(files: Files) -> None:
    seen: list[str] = []

    def allow(path: str, fd: int) -> None:
        seen.append(os.path.basename(path))
        if b"<?py" in os.pread(fd, 100, 0):
            raise HTTPError(500, "it is a page")

    files.write("a.css.gz", b"<?py secret ?>")
    files.write("a.css.br", b"brotli")
    files.add("a.css", allow=allow)
    for _ in range(2):
        reply = files.ask("a.css", {"Accept-Encoding": "gzip"})
        assert (reply.body, reply["vary"]) == (TEXT, "Accept-Encoding")
        assert files.ask("a.css", {"Accept-Encoding": "br"}).body == b"brotli"
    assert seen == ["a.css", "a.css.br", "a.css.gz"]


def test_changed_sibling_is_noticed_at_once(files: Files) -> None:
    files.write("a.css.gz", b"first")
    files.add("a.css")
    asked = {"Accept-Encoding": "gzip"}
    assert [files.ask("a.css", asked).body for _ in range(2)] == [b"first"] * 2
    files.write("a.css.gz", b"second")
    assert files.ask("a.css", asked | {"Range": "bytes=0-2"}).body == b"sec"
    assert files.cache.used == SIZE + len("second")
    files.write("a.css.gz", b"third")
    assert files.ask("a.css?v=3", asked).body == b"third"
    (files.root / "a.css.gz").unlink()
    assert files.ask("a.css?v=4", asked).body == TEXT


def test_emptied_file(files: Files) -> None:
    files.add("a.txt")
    assert [files.ask("a.txt").body for _ in range(2)] == [TEXT] * 2
    (files.root / "a.txt").write_bytes(b"")
    reply = files.ask("a.txt?v=2")
    assert (reply.status, reply.body, reply["content-length"]) == (200, b"", "0")


def test_no_descriptor_for_a_part(files: Files, monkeypatch: pytest.MonkeyPatch) -> None:
    files.add("a.bin", LARGE)

    def refuse(fd: int) -> int:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    monkeypatch.setattr(os, "dup", refuse)
    assert files.ask("a.bin", {"Range": "bytes=0-1"}).status == 503
    monkeypatch.undo()
    assert files.ask("a.bin", {"Range": "bytes=0-1"}).body == LARGE[:2]


def test_error_pages_of_a_site_answer_for_files(serve: Serve, tmp_path: Path) -> None:
    pages = {"412.html": "changed", "404.html": "none", "post.x.txt": "posted"}
    server = serve(str(write_site(tmp_path, {"a.txt": "text", "static/a.js": "1", **pages})))
    reply = server.get("/a.txt", **{"If-Match": '"a"'})
    assert (reply.status, reply.text, reply.headers["etag"]) == (412, "changed", None)
    for headers in ({}, {"Range": "bytes=0-1"}, {"If-None-Match": "*"}, {"If-Match": '"a"'}):
        reply = server.get("/nothing", **headers)
        assert (reply.status, reply.text, reply.headers["etag"]) == (404, "none", None)
    assert server.request("POST", "/x.txt").text == "posted"
    reply = server.get("/a.txt", Range="bytes=9-")
    assert (reply.status, reply.headers["content-range"]) == (416, "bytes */4")
    assert "immutable" in server.get("/static/a.js").headers["cache-control"]


# ---- many requests, slow clients, crowds ----

KINDS_OF_REQUESTS: list[tuple[str, str, Asked, int]] = [
    ("GET", "memory.txt", {}, 200),
    ("HEAD", "memory.txt", {}, 200),
    ("GET", "memory.txt?v=1", {"If-None-Match": "*"}, 304),
    ("GET", "memory.txt", {"Range": "bytes=1-9"}, 206),
    ("GET", "memory.txt", {"Range": "bytes=1-9,20-29"}, 206),
    ("GET", "python.txt", {}, 200),
    ("GET", "python.txt", {"If-Match": '"a"'}, 412),
    ("GET", "large.txt", {}, 200),
    ("HEAD", "large.txt", {}, 200),
    ("GET", "large.txt", {"If-None-Match": "*"}, 304),
    ("GET", "large.txt", {"Range": "bytes=5-5"}, 206),
    ("GET", "large.txt", {"Range": "bytes=5-5,-9"}, 206),
    ("GET", "large.txt", {"Range": "bytes=999999-"}, 416),
    ("GET", "empty.txt", {}, 200),
    ("GET", "large.css", {"Accept-Encoding": "gzip"}, 200),
    ("GET", "large.css", {"Accept-Encoding": "br", "Range": "bytes=0-1"}, 206),
    ("GET", "coded.css", {"Accept-Encoding": "zstd;q=0.5"}, 200),
    ("GET", "gone.txt", {}, 404),
    ("GET", "outward.txt", {}, 404),
]


@contextlib.contextmanager
def connected(files: Files, data: bytes, receive_buffer: int = 1 << 18) -> Iterator[socket.socket]:
    """A connection on which something has been asked."""
    with socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        client.settimeout(PATIENCE)
        client.connect(("127.0.0.1", files.port))
        client.sendall(data)
        yield client


def rest_of(client: socket.socket) -> bytes:
    """What comes until the connection ends, in whatever way."""
    pieces = []
    with contextlib.suppress(ConnectionResetError):
        while piece := client.recv(1 << 20):
            pieces.append(piece)
    return b"".join(pieces)


def head_of(method: str, name: str, headers: Asked) -> bytes:
    lines = "".join(f"{field}: {value}\r\n" for field, value in filled(headers, ""))
    return f"{method} /{name} HTTP/1.1\r\nHost: a\r\n{lines}\r\n".encode("latin-1")


def test_pipelined_requests_leave_no_descriptors(shelf: Files, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("secret")
    (shelf.root / "outward.txt").symlink_to(tmp_path / "secret")
    for name in ("gone.txt", "outward.txt"):
        shelf.serve(name)
    wave = b"".join(head_of(method, name, headers) for method, name, headers, _ in KINDS_OF_REQUESTS)
    methods = [method for method, *_ in KINDS_OF_REQUESTS]
    alone = [shelf.ask(name, headers, method).body for method, name, headers, _ in KINDS_OF_REQUESTS]
    before = len(open_descriptors())
    for _ in range(10):
        with connected(shelf, wave * 10 + head_of("GET", "empty.txt", {"Connection": "close"})) as client:
            *answers, last = read_answers(rest_of(client), methods * 10)
        assert last.status == 200 and len(answers) == 10 * len(KINDS_OF_REQUESTS)
        for answer, (_, name, _, status), body in zip(answers, KINDS_OF_REQUESTS * 10, alone * 10, strict=True):
            assert answer.status == status, name
            assert answer.body == body or (answer.get("content-type") or "").startswith("multipart"), name
    wait_until(lambda: len(open_descriptors()) <= before, "everything is closed")


def test_clients_that_leave_leave_no_descriptors(shelf: Files) -> None:
    before = len(open_descriptors())
    for method, name, headers, _ in KINDS_OF_REQUESTS * 10:
        with connected(shelf, head_of(method, name, headers) * 5):
            pass
    wait_until(lambda: shelf.run(lambda: shelf.engine.tasks) == 0, "the tasks are over")
    wait_until(lambda: len(open_descriptors()) <= before, "everything is closed")


@pytest.mark.parametrize("change", ["replaced", "deleted", "truncated", "grown"])
def test_large_file_for_a_slow_client(files: Files, change: str) -> None:
    body = os.urandom(1000) * 8000
    path = files.root / "a.bin"
    files.add("a.bin", body)
    with connected(files, head_of("GET", "a.bin", {"Connection": "close"}), 10_000) as client:
        got = client.recv(1000)
        if change == "replaced":
            files.write("a.bin", b"new", LONG_AGO + 1)
        elif change == "deleted":
            path.unlink()
        else:
            os.truncate(path, 9000 if change == "truncated" else 2 * len(body))
        got = (got + rest_of(client)).partition(b"\r\n\r\n")[2]
    # The old file, whole; or an answer that does not look whole
    assert len(got) < len(body) if change == "truncated" else got == body
    now = {"replaced": b"new", "truncated": body[:9000], "grown": body.ljust(2 * len(body), b"\0")}
    reply = files.ask("a.bin")
    assert (reply.status, reply.body) == ((200, now[change]) if change in now else (404, b"Not Found\n"))


@pytest.mark.parametrize("size", [1000, 2 * SMALL_FILE], ids=["small", "large"])
def test_crowd_while_files_are_rewritten(files: Files, size: int) -> None:
    """Every answer is one version, whole, with its own entity tag; never is the file missing."""
    versions: dict[str, bytes] = {}
    wrong: list[object] = []
    end = threading.Event()

    def write(number: int) -> None:
        for name, coding in (("a.css", ""), ("a.css.gz", "-gzip")):
            body = f"{number}{coding} ".encode() * (size // 4)
            when = LONG_AGO + number
            versions[f'"{when * 10**9:x}-{len(body):x}{coding}"'] = body
            files.write(name, body, when)

    def ask(headers: Asked) -> None:
        while not end.is_set():
            reply = files.ask("a.css", headers)
            body = versions.get(reply["etag"] or "", b"")
            if not body or reply.body != {200: body, 206: body[5:50]}.get(reply.status):
                wrong.append((reply.status, reply.pairs, len(reply.body)))

    write(0)
    files.serve("a.css")
    asked: list[Asked] = [{}, {"Accept-Encoding": "gzip"}, {"Range": "bytes=5-49"}, {"Accept-Encoding": "gzip;q=0.5"}]
    threads = [threading.Thread(target=ask, args=(headers,)) for headers in asked]
    for thread in threads:
        thread.start()
    until, number = time.monotonic() + 1.5, 0
    while time.monotonic() < until and not wrong:
        number += 1
        write(number)
        time.sleep(0.0005 if number % 50 else 0.1)
    end.set()
    for thread in threads:
        thread.join(PATIENCE)
    assert wrong == [] and number > 50

"""Static files that change while they are served, and what of them is in memory."""

from __future__ import annotations

import contextlib
import gc
import logging
import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import Serve
from server import PATIENCE, wait_until
from static_files import AFTER, LARGE, LONG_AGO, SIZE, TEXT, Files, house_of

from eighties._engine import Route
from eighties.errors import HTTPError
from eighties.pages import static
from eighties.pages.static import MAX_MEMORY, SMALL_FILE, MemoryCache


@pytest.fixture
def files(tmp_path: Path) -> Iterator[Files]:
    yield from house_of(tmp_path)


# ---- siblings ----


def test_siblings_come_and_go(files: Files, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(static, "LOOK_AGAIN", 0.2)
    files.add("a.css")

    def coding(expected: str | None) -> None:
        wait_until(
            lambda: files.ask("a.css", {"Accept-Encoding": "gzip, br"})["content-encoding"] == expected,
            f"its coding is {expected}",
        )
        for accepted in ("gzip, br", "identity"):
            reply = files.ask("a.css", {"Accept-Encoding": accepted})
            assert reply["vary"] == ("Accept-Encoding" if expected else None)

    coding(None)
    files.write("a.css.gz", b"old", LONG_AGO - 10)
    time.sleep(0.5)
    coding(None)  # it is stale
    files.write("a.css.gz", b"new", LONG_AGO - 1)
    coding("gzip")
    assert files.ask("a.css", {"Accept-Encoding": "gzip"}).body == b"new"
    files.write("a.css.br", b"brotli")
    coding("br")
    files.write("a.css", b"new", LONG_AGO + 100)
    coding(None)
    assert files.ask("a.css").body == b"new"
    files.write("a.css.gz", b"newer", LONG_AGO + 100)
    coding("gzip")
    (files.root / "a.css.gz").unlink()
    coding(None)
    files.write("a.css.br", b"br", LONG_AGO + 100)
    coding("br")
    (files.root / "a.css.br").unlink()
    (files.root / "a.css.br").mkdir()
    coding(None)


def test_encoded_large_file_is_never_stale(files: Files) -> None:
    files.add("a.js", LARGE)
    files.write("a.js.gz", b"first")
    asked = {"Accept-Encoding": "gzip"}
    assert files.ask("a.js", asked).body == b"first"
    files.write("a.js.gz", b"second")
    assert files.ask("a.js", asked).body == b"second"
    files.write("a.js.gz", b"third" * SMALL_FILE)
    assert files.ask("a.js", asked).body == b"third" * SMALL_FILE
    files.write("a.js", LARGE + b"x", LONG_AGO + 10)
    assert files.ask("a.js", asked).body == LARGE + b"x"
    files.write("a.js.gz", b"fourth", LONG_AGO + 10)
    wait_until(lambda: files.ask("a.js", asked).body == b"fourth", "the sibling is found")
    (files.root / "a.js.gz").unlink()
    assert files.ask("a.js", asked).body == LARGE + b"x"


@pytest.mark.parametrize("body", [TEXT, LARGE], ids=["small", "large"])
def test_sibling_that_cannot_be_sent(files: Files, body: bytes, tmp_path: Path) -> None:
    files.write("a.css", body)
    (tmp_path / "secret").write_bytes(b"secret")
    (files.root / "a.css.br").symlink_to(tmp_path / "secret")
    os.mkfifo(files.root / "a.css.zst")
    (files.root / "a.css.gz").symlink_to(files.root / "nowhere")
    files.serve("a.css")
    for accepted in ("br", "zstd", "gzip"):
        reply = files.ask("a.css", {"Accept-Encoding": accepted})
        assert (reply.status, reply.body, reply["vary"]) == (200, body, None)
    files.write("inside", b"zipped")
    (files.root / "a.css.gz").unlink()
    (files.root / "a.css.gz").symlink_to("inside")
    files.serve("a.css")
    assert files.ask("a.css", {"Accept-Encoding": "gzip"}).body == b"zipped"
    (files.root / "a.css.gz").unlink()
    (files.root / "a.css.gz").symlink_to(tmp_path / "secret")
    wait_until(lambda: files.ask("a.css", {"Accept-Encoding": "gzip"}).body == body, "the link is no longer followed")


# ---- files that change ----

CONTENTS = [pytest.param(b"first", b"other", id="small"), pytest.param(LARGE, LARGE[::-1], id="large")]


@pytest.mark.parametrize(("first", "second"), CONTENTS)
@pytest.mark.parametrize("route", [True, False], ids=["memory", "python"])
def test_replaced_file(files: Files, first: bytes, second: bytes, route: bool) -> None:
    files.add("a.txt", first, route=route)
    before = files.ask("a.txt")
    assert files.ask("a.txt").body == before.body == first
    files.write("a.txt", second, LONG_AGO + 1)
    wait_until(lambda: files.ask("a.txt").body == second, "the new file")
    after = files.ask("a.txt", {"If-None-Match": before["etag"] or ""})
    assert (after.status, after.body, after["last-modified"]) == (200, second, AFTER)
    assert files.ask("a.txt", {"If-None-Match": after["etag"] or ""}).status == 304
    assert files.ask("a.txt", {"Range": "bytes=1-3"}).body == second[1:4]
    assert files.ask("a.txt", {"Range": "bytes=1-3", "If-Range": before["etag"] or ""}).body == second


def test_file_of_the_same_name_time_and_size(files: Files) -> None:
    files.add("a.txt", b"first")
    assert files.ask("a.txt").body == b"first"
    files.write("a.txt", b"other")
    wait_until(lambda: files.ask("a.txt").body == b"other", "another inode is another file")


def test_growing_file(files: Files) -> None:
    served = files.add("a.txt", b"")
    body = b""
    for size in (0, 10, SMALL_FILE, SMALL_FILE * 3):
        body = body.ljust(size, b"x")
        with (files.root / "a.txt").open("r+b") as file:
            file.write(body)
        wait_until(lambda body=body: files.ask("a.txt").body == body, "all of it")  # type: ignore[misc]
    files.write("a.txt", b"short")
    assert files.ask("a.txt").body == b"short"
    assert served.route is not None


def test_file_just_written_is_not_kept_in_memory(files: Files) -> None:
    served = files.add("a.txt", when=time.time())
    assert files.ask("a.txt").body == TEXT
    assert served.route is not None and served.route.file is None
    wait_until(lambda: files.ask("a.txt") and served.route and served.route.file, "it is kept when it has settled")


def test_file_written_while_it_is_read(files: Files, monkeypatch: pytest.MonkeyPatch) -> None:
    served = files.add("a.txt", b"a" * 100)
    read = os.pread

    def write_meanwhile(fd: int, size: int, offset: int) -> bytes:
        data = read(fd, size, offset)
        (files.root / "a.txt").write_bytes(b"b" * 100)
        return data

    monkeypatch.setattr(os, "pread", write_meanwhile)
    assert files.ask("a.txt").status == 200
    assert served.route is not None and served.route.file is None
    monkeypatch.undo()
    assert files.ask("a.txt").body == b"b" * 100


@pytest.mark.parametrize("body", [TEXT, LARGE], ids=["small", "large"])
def test_file_deleted_and_back(files: Files, body: bytes) -> None:
    files.add("a.txt", body)
    assert files.ask("a.txt").status == 200
    (files.root / "a.txt").unlink()
    wait_until(lambda: files.ask("a.txt").status == 404, "it is gone")
    for headers in ({}, {"Range": "bytes=0-1"}, {"If-None-Match": "*"}, {"If-Match": "*"}):
        assert files.ask("a.txt", headers).status == 404
    assert files.cache.used == 0
    files.write("a.txt", body)
    assert files.ask("a.txt").body == body


@pytest.mark.parametrize("body", [TEXT, LARGE], ids=["small", "large"])
def test_links(files: Files, tmp_path: Path, body: bytes, caplog: pytest.LogCaptureFixture) -> None:
    path = files.root / "a.txt"
    files.write("folder/inside.txt", body)
    path.symlink_to("folder/inside.txt")
    files.serve("a.txt")
    assert files.ask("a.txt").body == body
    (tmp_path / "secret").write_bytes(b"secret")
    (tmp_path / "public_html-2").write_bytes(b"secret")
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside/a.txt").write_bytes(b"secret")
    for target in (
        tmp_path / "secret",
        tmp_path / "public_html-2",
        Path("../outside/a.txt"),
        Path("/proc/self/environ"),
    ):
        path.unlink()
        path.symlink_to(target)
        wait_until(lambda: files.ask("a.txt").status == 404, "it is not followed out of the root")
        assert files.ask("a.txt", {"Range": "bytes=0-1"}).status == 404
    path.unlink()
    path.symlink_to("folder/inside.txt")
    assert files.ask("a.txt").body == body
    assert "leads out of the site" in caplog.text


def test_folder_that_becomes_a_link_outward(files: Files, tmp_path: Path) -> None:
    files.add("folder/a.txt")
    assert files.ask("folder/a.txt").status == 200
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside/a.txt").write_bytes(b"secret")
    (files.root / "folder").rename(files.root / "other")
    (files.root / "folder").symlink_to(tmp_path / "outside")
    wait_until(lambda: files.ask("folder/a.txt").status == 404, "it is not followed")
    (files.root / "folder").unlink()
    (files.root / "other").rename(files.root / "folder")
    assert files.ask("folder/a.txt").body == TEXT
    (files.root / "folder").rename(tmp_path / "moved")
    (files.root / "folder").symlink_to(tmp_path / "moved")
    wait_until(lambda: files.ask("folder/a.txt").status == 404, "nor where it is the same file as before")


@pytest.mark.parametrize("kind", ["pipe", "folder", "device", "socket", "loop", "nothing"])
def test_what_is_no_file(files: Files, kind: str) -> None:
    path = files.root / "a"
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    elif kind == "device":
        path.symlink_to("/dev/null")
    elif kind == "loop":
        path.symlink_to("a")
    elif kind == "socket":
        with socket.socket(socket.AF_UNIX) as bound:
            bound.bind(str(path))
    files.serve("a")
    for method in ("GET", "HEAD"):
        assert files.ask("a", method=method).status == 404


def test_unreadable_file_is_told_once(files: Files, monkeypatch: pytest.MonkeyPatch, caplog: Any) -> None:
    files.add("a.txt")
    open_really = os.open

    def refuse(error: int) -> None:
        def refusing(path: Any, *arguments: Any) -> int:
            if str(path).startswith(str(files.root)):
                raise OSError(error, os.strerror(error), path)
            return open_really(path, *arguments)

        monkeypatch.setattr(os, "open", refusing)

    refuse(13)
    assert [files.ask("a.txt").status for _ in range(3)] == [404] * 3
    assert [record.message for record in caplog.records] == [f"{files.root}/a.txt cannot be served: Permission denied"]
    refuse(24)  # too many open files: it may be there
    assert files.ask("a.txt").status == 503
    monkeypatch.undo()
    assert files.ask("a.txt").status == 200
    refuse(13)
    assert files.ask("a.txt", {"Range": "bytes=0-1"}).status == 404
    assert len(caplog.records) == 2


def test_allow_sees_every_version(files: Files) -> None:
    seen: list[tuple[str, bytes]] = []

    def allow(path: str, fd: int) -> None:
        text = os.read(fd, 100)
        seen.append((path, text))
        if b"<?py" in text:
            raise HTTPError(500, "it is a page")

    path = str(files.write("a.txt", b"first"))
    files.serve("a.txt", allow=allow)
    for headers in ({}, {"Range": "bytes=0-1"}, {}):
        assert files.ask("a.txt", headers).status in (200, 206)
    assert seen == [(path, b"first")]
    files.write("a.txt", b"<?py secret ?>", LONG_AGO + 1)
    wait_until(lambda: files.ask("a.txt").status == 500, "the page is refused")
    for headers in ({"Range": "bytes=0-1"}, {"If-None-Match": '"a"'}, {"If-Match": "*"}):
        assert files.ask("a.txt", headers).status == 500
    assert files.cache.used == 0
    del seen[:]
    files.write("a.txt", b"third", LONG_AGO + 2)
    assert files.ask("a.txt").body == b"third"
    assert seen == [(path, b"third")]


def test_shrinking_file_does_not_look_whole(files: Files, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logging.getLogger("eighties"), "disabled", True)  # what is captured would keep the file open
    body = b"x" * 50_000_000
    files.add("a.bin", body)
    with socket.create_connection(("127.0.0.1", files.port)) as client:
        client.sendall(b"GET /a.bin HTTP/1.1\r\nHost: a\r\nRange: bytes=0-29999999,30000001-\r\n\r\n")
        got = len(client.recv(1000))
        os.truncate(files.root / "a.bin", 1000)
        client.settimeout(PATIENCE)
        with contextlib.suppress(ConnectionResetError):
            while chunk := client.recv(1 << 20):
                got += len(chunk)
    assert got < len(body)
    files.log.clear()


# ---- memory ----


def test_oldest_file_leaves_memory(files: Files) -> None:
    cache = MemoryCache(2500)
    names = ["a.txt", "b.txt", "c.txt", "d.txt"]
    served = [files.add(name, cache=cache) for name in names]  # 1024 bytes each

    def held() -> list[bool]:
        return [one.route is not None and one.route.file is not None for one in served]

    for number, expected in enumerate([[0], [0, 1], [1, 2], [2, 3]]):
        assert files.ask(names[number]).body == TEXT
        assert [index for index, kept in enumerate(held()) if kept] == expected
        assert cache.used == SIZE * len(expected)
    assert files.ask("a.txt").body == TEXT
    assert cache.used <= cache.limit


def test_file_larger_than_all_memory(files: Files) -> None:
    cache = MemoryCache(1000)
    served = files.add("a.txt", cache=cache)
    assert files.ask("a.txt").body == TEXT
    assert served.route is not None and served.route.file is None and cache.used == 0
    assert files.ask("a.txt", {"Range": "bytes=0-1"}).body == TEXT[:2]


def test_siblings_count(files: Files) -> None:
    files.write("a.css.gz", b"x" * 50)
    files.write("a.css.br", b"x" * 7)
    files.add("a.css")
    files.ask("a.css")
    assert files.cache.used == SIZE + 57
    assert files.cache.limit == MAX_MEMORY


def test_memory_of_a_site_that_has_been_read_anew(files: Files) -> None:
    files.add("a.txt")
    files.ask("a.txt")
    files.serve("a.txt")
    files.ask("a.txt")
    wait_until(lambda: (gc.collect(), files.cache.used == SIZE)[1], "what is served no more is forgotten")


def test_file_in_memory_is_looked_at_again(files: Files) -> None:
    served = files.add("a.txt")
    files.ask("a.txt")
    first = served.route.file if served.route is not None else None
    assert first is not None
    wait_until(lambda: served.route is not None and served.route.file is None, "Python is asked again")
    files.ask("a.txt")
    assert served.route is not None and served.route.file is first and files.calls["a.txt"] == 2


# ---- elsewhere ----


def test_whole_for_an_answer_of_another_status(files: Files) -> None:
    served = files.add("a.txt")
    files.route(Route("/missing", "GET", served.whole, name="missing"))
    for headers in (
        {},
        {"Range": "bytes=0-1"},
        {"If-None-Match": "*"},
        {"If-Match": '"a"'},
        {"Accept-Encoding": "gzip"},
    ):
        reply = files.ask("missing", headers)
        assert (reply.status, reply.body) == (200, TEXT)
        assert reply.names == {"content-type", "cache-control", "x-content-type-options"}


PROGRAM = """
    import os
    from eighties import App
    from eighties.app import Entry
    from eighties.pages.static import ServedFile

    app = App()
    root = os.path.realpath("public_html")

    class Contents:
        def entries(self):
            return [entry("a.txt"), entry("large.bin")]
        def errors(self):
            return {}

    def entry(name):
        served = ServedFile(f"{root}/{name}", root)
        return Entry(f"/{name}", f"/{name}", "GET", served, False, name, name, True)

    app.contents = Contents()
"""


def test_in_workers(serve: Serve, tmp_path: Path) -> None:
    (tmp_path / "public_html").mkdir()
    (tmp_path / "public_html/a.txt").write_bytes(TEXT)
    (tmp_path / "public_html/large.bin").write_bytes(LARGE)
    server = serve(PROGRAM, "-c", "2")
    for _ in range(10):
        for name, body in (("/a.txt", TEXT), ("/large.bin", LARGE)):
            first = server.get(name)
            assert (first.status, first.body) == (200, body)
            assert server.get(name, **{"If-None-Match": str(first.headers["etag"])}).status == 304
            assert server.get(name, Range="bytes=1-4").body == body[1:5]
    (tmp_path / "public_html/a.txt").unlink()
    wait_until(lambda: server.get("/a.txt").status == 404, "it is gone in both workers")

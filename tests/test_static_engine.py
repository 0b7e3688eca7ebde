"""`StaticFile`: what the engine answers from memory, what it hands over to the handler, and that nothing goes stale.

The handler of every Route here answers "handler": where that is read, Python was asked.
"""

from __future__ import annotations

import asyncio
import gc
import os
import socket
import sys
from array import array
from collections.abc import Awaitable, Callable
from email.utils import formatdate
from pathlib import Path
from typing import Any

import pytest
from sockets import House, Peer, in_house, make_engine, turns, until
from wire import Answer, read_answer, read_answers

from eighties import Request
from eighties._engine import SCOREBOARD, Route, StaticFile

BODY = b"body { color: red }\n"
LONG = bytes(range(256)) * 400  # sent from where it is, not copied
MUCH = LONG * 160  # more than the kernel holds
CLOCK = 1_445_412_480


def describe(path: Path, body: bytes, etag: str, *more: str) -> dict[str, Any]:
    """What StaticFile is told of a file."""
    status = path.stat()
    date = formatdate(status.st_mtime_ns // 10**9, usegmt=True)
    lines = [f"ETag: {etag}", f"Last-Modified: {date}", *more]
    return {
        "mtime_ns": status.st_mtime_ns,
        "size": status.st_size,
        "inode": status.st_ino,
        "content_type": b"text/css",
        "fields": "".join(f"{line}\r\n" for line in lines).encode(),
        "etag": etag.encode(),
        "last_modified": date.encode(),
        "body": body,
    }


class Site:
    """A file with a Route, on an engine that listens."""

    def __init__(self, house: House, folder: Path, *codings: str, body: bytes = BODY) -> None:
        self.house = house
        self.path = folder / "a.css"
        self.write(self.path, body)
        self.siblings = {coding: folder / f"a.css.{coding}" for coding in codings}
        for coding, path in self.siblings.items():
            self.write(path, coding.encode() * 10)
        self.file = self.make(body)
        self.route = Route("/a.css", "GET", self.handler, name="a", file=self.file)
        self.handled = 0
        house.engine.set_routes([self.route])
        with socket.create_server(("127.0.0.1", 0)) as listener:
            self.address = listener.getsockname()
            house.engine.listen(listener.fileno())

    def make(self, body: bytes = BODY) -> StaticFile:
        encodings = [
            (coding.encode(), StaticFile(path, **describe(path, path.read_bytes(), f'"{coding}"', self.coded(coding))))
            for coding, path in self.siblings.items()
        ]
        more = ["Vary: Accept-Encoding"] if encodings else []
        return StaticFile(self.path, **describe(self.path, body, '"a"', *more), encodings=encodings)

    @staticmethod
    def coded(coding: str) -> str:
        return f"Content-Encoding: {coding}\r\nVary: Accept-Encoding"

    @staticmethod
    def write(path: Path, body: bytes, clock: int = CLOCK) -> None:
        path.write_bytes(body)
        os.utime(path, (clock, clock))

    def handler(self, request: Request) -> str:
        self.handled += 1
        return "handler"

    async def connect(self) -> Peer:
        sock = socket.socket()
        self.house.peers.append(sock)
        sock.setblocking(False)
        await self.house.loop.sock_connect(sock, self.address)
        return Peer(self.house.loop, sock)

    async def ask(self, *fields: str, target: str = "/a.css", method: str = "GET", body: bytes = b"") -> Answer:
        """One request on a connection of its own, that is closed; the only answer."""
        peer = await self.connect()
        lines = [f"{method} {target} HTTP/1.1", "Host: x", "Connection: close", *fields, "", ""]
        await peer.send("\r\n".join(lines).encode("latin-1") + body)
        answer, rest = read_answer(await peer.receive_all(), method)
        assert rest == b"" and answer.get("connection") == "close"
        return answer


async def new_second(site: Site) -> None:
    """Until the engine looks at its files again; its clock is the monotonic one."""
    loop = site.house.loop
    start = int(loop.time())
    await until(lambda: int(loop.time()) > start)


def static(*codings: str, body: bytes = BODY) -> Callable[[Callable[[Site], Awaitable[None]]], Callable[..., None]]:
    """A test of a site, `async def test_it(site)`, whose file has siblings of these codings."""

    def decorate(test: Callable[[Site], Awaitable[None]]) -> Callable[..., None]:
        async def run(house: House, tmp_path: Path) -> None:
            await test(Site(house, tmp_path, *codings, body=body))

        run.__name__, run.__doc__ = test.__name__, test.__doc__
        return in_house(run)

    return decorate


# ---- answers ----


@static()
async def test_whole(site: Site) -> None:
    answer = await site.ask()
    assert answer.status == 200 and answer.body == BODY
    assert answer.get("content-type") == "text/css" and answer.get("etag") == '"a"'
    assert answer.get("content-length") == str(len(BODY)) and answer.get("server") == "80s"
    assert site.handled == 0


@static()
async def test_head(site: Site) -> None:
    """What GET says, without the body."""
    head = await site.ask(method="HEAD")
    assert head.body == b"" and head.without_date() == (await site.ask()).without_date()._replace(body=b"")
    assert site.handled == 0


@static(body=b"")
async def test_empty_file(site: Site) -> None:
    answer = await site.ask()
    assert answer.status == 200 and answer.body == b"" and answer.get("content-length") == "0"
    assert (await site.ask(method="HEAD")).status == 200
    assert site.handled == 0


@static(body=LONG)
async def test_long_file(site: Site) -> None:
    """Sent from where it is: also what waits for a slow client."""
    assert (await site.ask()).body == LONG
    head = await site.ask(method="HEAD")
    assert head.body == b"" and head.get("content-length") == str(len(LONG))
    assert site.handled == 0


@static("br", "gzip")
async def test_encodings(site: Site) -> None:
    for accepted, coding in [
        ("gzip, deflate, br, zstd", "br"),
        ("gzip", "gzip"),
        ("GZIP", "gzip"),
        ("identity, gzip", "gzip"),
        ("deflate", None),
        ("identity", None),
        ("", None),
    ]:
        for method in ("GET", "HEAD"):
            answer = await site.ask(f"Accept-Encoding: {accepted}", method=method)
            assert answer.status == 200 and answer.get("content-encoding") == coding, accepted
            assert answer.get("vary") == "Accept-Encoding"
            assert answer.get("etag") == f'"{coding or "a"}"'
            expected = coding.encode() * 10 if coding else BODY
            assert answer.body == (expected if method == "GET" else b"")
            assert answer.get("content-length") == str(len(expected))
    assert (await site.ask()).get("content-encoding") is None
    assert site.handled == 0


@static("br")
async def test_not_modified(site: Site) -> None:
    date = formatdate(CLOCK, usegmt=True)
    for fields, etag in [
        (['If-None-Match: "a"'], '"a"'),
        (['If-None-Match: W/"a"'], '"a"'),
        ([f"If-Modified-Since: {date}"], '"a"'),
        (['If-None-Match: "br"', "Accept-Encoding: br"], '"br"'),
        (['If-None-Match: "a"', "If-Modified-Since: Thu, 01 Jan 1970 00:00:00 GMT"], '"a"'),
    ]:
        for method in ("GET", "HEAD"):
            answer = await site.ask(*fields, method=method)
            assert answer.status == 304 and answer.body == b"" and answer.get("etag") == etag, fields
            assert answer.get("last-modified") == date and answer.get("vary") == "Accept-Encoding"
            assert answer.get("content-length") is None and answer.get("content-type") is None
    for fields in (['If-None-Match: "b"'], ['If-None-Match: "a"', "Accept-Encoding: br"]):
        assert (await site.ask(*fields)).status == 200
    assert (await site.ask('If-None-Match: "b"', f"If-Modified-Since: {date}")).body == BODY
    assert site.handled == 0


@static("br")
async def test_handed_over(site: Site) -> None:
    """What is more than simple."""
    cases: list[list[str]] = [
        ["Range: bytes=0-1"],
        ["If-Range: x", "Range: bytes=0-1"],
        ['If-Match: "a"'],
        ["If-Unmodified-Since: Thu, 01 Jan 1970 00:00:00 GMT"],
        ["If-None-Match: *"],
        ['If-None-Match: "a", "b"'],
        ['If-None-Match: "a"', 'If-None-Match: "a"'],
        ["If-Modified-Since: Thu, 01 Jan 1970 00:00:00 GMT"],
        ["Accept-Encoding: br;q=0"],
        ["Accept-Encoding: identity;q=0"],
        ["Accept-Encoding: *"],
        ["Accept-Encoding: br", "Accept-Encoding: gzip"],
    ]
    for fields in cases:
        assert (await site.ask(*fields)).body == b"handler", fields
    assert (await site.ask(*cases[0], method="HEAD")).status == 200
    assert site.handled == len(cases) + 1


@static()
async def test_bodies(site: Site) -> None:
    """A request with a body is the handler's, and is not read as another request; one with an empty body is none."""
    smuggled = b"GET /a.css HTTP/1.1\r\nHost: x\r\n\r\n"
    answer = await site.ask(f"Content-Length: {len(smuggled)}", body=smuggled)
    assert answer.body == b"handler"
    answer = await site.ask("Transfer-Encoding: chunked", body=b"%x\r\n%s\r\n0\r\n\r\n" % (len(smuggled), smuggled))
    assert answer.body == b"handler"
    assert site.handled == 2
    assert (await site.ask("Content-Length: 0")).body == BODY
    assert (await site.ask("Expect: 100-continue")).body == BODY
    assert site.handled == 2


@static()
async def test_other_methods(site: Site) -> None:
    """A file stands for GET and HEAD only, whatever its Route."""
    post = Route("/a.css", "POST", site.handler, name="p", file=site.file)
    site.house.engine.set_routes([site.route, post])
    assert (await site.ask(method="POST", body=b"")).body == b"handler"
    assert (await site.ask(method="DELETE")).status == 405
    assert (await site.ask(method="OPTIONS")).status == 204
    site.house.engine.set_routes([Route("/a.css", "HEAD", site.handler, name="h", file=site.file)])
    assert (await site.ask(method="HEAD")).get("content-length") == str(len(BODY))
    assert (await site.ask()).status == 405
    assert site.handled == 1


@static()
async def test_fallbacks(site: Site) -> None:
    """A file never answers 200 to what is not found."""
    lost = Route("/", "GET", site.handler, name="404", status=404, file=site.file)
    also_lost = Route("/", "GET", site.handler, name="405", file=site.file)
    put = Route("/put", "PUT", site.handler, name="put", file=site.file)
    other = Route("/other", "GET", site.handler, name="other", status=404, file=site.file)
    site.house.engine.set_routes([put, other], {404: lost, 405: also_lost})
    for target, status in (("/nothing", 404), ("/put", 200), ("/other", 404)):
        answer = await site.ask(target=target)
        assert answer.body == b"handler" and answer.status == status
    assert site.handled == 3


# ---- connections ----


@static(body=LONG)
async def test_pipelined(site: Site) -> None:
    """Many at once, and the handler among them: in order, on one connection, that is kept."""
    peer = await site.connect()
    one = b"GET /a.css HTTP/1.1\r\nHost: x\r\n\r\n"
    head = one.replace(b"GET", b"HEAD")
    ranged = one[:-2] + b"Range: bytes=0-1\r\n\r\n"
    last = one[:-2] + b"Connection: close\r\n\r\n"
    await peer.send((one + head + ranged) * 10 + last)
    answers = read_answers(await peer.receive_all(), ["GET", "HEAD", "GET"] * 10 + ["GET"])
    assert [answer.body for answer in answers] == [LONG, b"", b"handler"] * 10 + [LONG]
    assert site.house.engine.stats()["requests"] == 31 and site.handled == 10


@static()
async def test_split_requests(site: Site) -> None:
    peer = await site.connect()
    await peer.send_each(b'GET /a.css HTTP/1.1\r\nHost: x\r\nIf-None-Match: W/"a"\r\nConnection: close\r\n\r\n')
    answer, _ = read_answer(await peer.receive_all())
    assert answer.status == 304 and site.handled == 0


@static()
async def test_http_1_0(site: Site) -> None:
    peer = await site.connect()
    await peer.send(b"GET /a.css HTTP/1.0\r\n\r\n")
    answer, rest = read_answer(await peer.receive_all())
    assert answer.body == BODY and answer.get("connection") == "close" and rest == b""
    peer = await site.connect()
    await peer.send(b"GET /a.css HTTP/1.0\r\nConnection: keep-alive\r\n\r\n" * 2 + b"GET /a.css HTTP/1.0\r\n\r\n")
    answers = read_answers(await peer.receive_all())
    assert [answer.get("connection") for answer in answers] == ["keep-alive", "keep-alive", "close"]
    assert site.handled == 0


@static()
async def test_half_closed(site: Site) -> None:
    """A client that has ended its sending side gets its answer."""
    peer = await site.connect()
    await peer.send(b"GET /a.css HTTP/1.1\r\nHost: x\r\n\r\n")
    peer.end()
    answer, _ = read_answer(await peer.receive_all())
    assert answer.body == BODY


@static()
async def test_drain(site: Site) -> None:
    peer = await site.connect()
    await peer.send(b"GET /a.css HTTP/1.1\r\nHost: x\r\n\r\n")
    site.house.engine.drain()
    answer, _ = read_answer(await peer.receive_all())
    assert answer.body == BODY and answer.get("connection") == "close"


def test_counted(tmp_path: Path) -> None:
    """In the scoreboard as any other request."""

    async def run() -> None:
        board = array("Q", [0] * len(SCOREBOARD))
        house = House()
        house.loop.remove_reader(house.engine.fileno())
        house.engine.close()
        house.engine = make_engine(house.loop, log=lambda level, message: None, scoreboard=board)
        house.loop.add_reader(house.engine.fileno(), house.engine.poll)
        site = Site(house, tmp_path)
        for _ in range(3):
            await site.ask()
        await site.ask('If-None-Match: "a"')
        counts = dict(zip(SCOREBOARD, board, strict=True))
        assert counts["requests"] == 4 and counts["accepted"] == 4 and counts["errors"] == 0
        assert counts["bytes_out"] > 3 * len(BODY) and counts["bytes_in"] > 0
        await house.close()

    asyncio.run(run())


# ---- freshness ----


@static()
async def test_changed(site: Site) -> None:
    """Its time, size, inode, kind: each tells a change; changed back it is itself again."""

    async def after(change: Callable[[], object]) -> bytes:
        change()
        return (await site.ask(target="/a.css?v")).body

    spare = site.path.with_suffix(".spare")
    assert (await site.ask()).body == BODY
    assert await after(lambda: os.utime(site.path, ns=(0, CLOCK * 10**9 + 1))) == b"handler"
    assert await after(lambda: os.utime(site.path, (CLOCK, CLOCK))) == BODY
    assert await after(lambda: site.write(site.path, BODY + b" ")) == b"handler"
    assert await after(lambda: site.write(site.path, BODY)) == BODY
    assert await after(lambda: site.path.rename(spare)) == b"handler"  # gone
    assert await after(lambda: site.write(site.path, BODY)) == b"handler"  # another inode
    assert await after(site.path.unlink) == b"handler"
    assert await after(site.path.mkdir) == b"handler"
    assert await after(site.path.rmdir) == b"handler"
    assert await after(lambda: spare.rename(site.path)) == BODY


@static()
async def test_times_beyond_64_bits(site: Site) -> None:
    """Nanoseconds of such years do not fit in 64 bits: nothing overflows, and nothing raises."""
    for clock in (-1, -(2**31), 2**33 + 2**31):
        site.write(site.path, BODY, clock)
        site.route.file = StaticFile(site.path, **describe(site.path, BODY, '"a"') | {"last_modified": b""})
        assert (await site.ask()).body == BODY
        os.utime(site.path, (clock + 1, clock + 1))
        assert (await site.ask(target="/a.css?v")).body == b"handler"


@static("br")
async def test_either_of_two_changed(site: Site) -> None:
    """An encoded sibling is only as true as its file, and as itself."""
    like = "Accept-Encoding: br"
    for path, plain in ((site.path, b"handler"), (site.siblings["br"], BODY)):
        assert (await site.ask(like)).get("content-encoding") == "br"
        os.utime(path, (CLOCK + 1, CLOCK + 1))
        await new_second(site)
        assert (await site.ask(like)).body == b"handler"
        assert (await site.ask('If-None-Match: "br"', like)).body == b"handler"
        assert (await site.ask()).body == plain
        os.utime(path, (CLOCK, CLOCK))
        assert (await site.ask(like, target="/a.css?v")).body != b"handler"
    site.siblings["br"].unlink()
    await new_second(site)
    assert (await site.ask(like)).body == b"handler"
    assert (await site.ask()).body == BODY


@static("br")
async def test_versions_are_never_old(site: Site) -> None:
    """With a query the file is looked at each time; what is found counts for the others in that second, too."""
    for fields in ([], ["Accept-Encoding: br"], ['If-None-Match: "a"'], ["Accept-Encoding: br", 'If-None-Match: "br"']):
        os.utime(site.path, (CLOCK, CLOCK))
        os.utime(site.siblings["br"], (CLOCK, CLOCK))
        assert (await site.ask(*fields, target="/a.css?v=1")).body != b"handler"
        os.utime(site.siblings["br"] if "br" in str(fields) else site.path, (CLOCK + 1, CLOCK + 1))
        assert (await site.ask(*fields, target="/a.css?v=2")).body == b"handler"
        assert (await site.ask(*fields, method="HEAD", target="/a.css?v=2")).get("content-length") == "7"
        assert (await site.ask(*fields)).body == b"handler"


@static()
async def test_looked_at_once_a_second(site: Site) -> None:
    """Of many requests within a second only the first costs a look: a change within it is not seen."""

    async def within_a_second() -> bool:
        os.utime(site.path, (CLOCK, CLOCK))
        await new_second(site)
        second = int(site.house.loop.time())
        first = (await site.ask()).body
        os.utime(site.path, (CLOCK + 1, CLOCK + 1))
        second_answer = (await site.ask()).body
        if int(site.house.loop.time()) > second:
            return False  # the machine is slow
        assert first == second_answer == BODY
        await new_second(site)
        assert (await site.ask()).body == b"handler"
        return True

    for _ in range(10):
        if await within_a_second():
            return
    pytest.skip("two requests take a second here")


# ---- lifetime ----


@static(body=MUCH)
async def test_file_replaced_under_an_answer(site: Site) -> None:
    """What a slow client still has to get stays, although the Route, its file and the table are gone."""
    peer = await site.connect()
    await peer.send(b"GET /a.css HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    await until(lambda: site.house.engine.stats()["requests"] == 1)
    await turns()
    assert site.house.engine.stats()["live_chunks"]
    site.route.file = None
    del site.file
    site.house.engine.set_routes([])
    del site.route
    gc.collect()
    answer, _ = read_answer(await peer.receive_all())
    assert answer.body == MUCH


@static(body=MUCH)
async def test_client_leaves(site: Site) -> None:
    """The body is given up with the connection."""
    references = sys.getrefcount(site.file)
    peer = await site.connect()
    await peer.send(b"GET /a.css HTTP/1.1\r\nHost: x\r\n\r\n" * 20)
    await until(lambda: site.house.engine.stats()["requests"])
    peer.leave()
    await until(lambda: not site.house.engine.connections)
    after = sys.getrefcount(site.file)
    assert after == references
    assert site.house.engine.stats()["live_chunks"] == 0


@static()
async def test_handler_replaces_everything(site: Site) -> None:
    """Under poll(): the handler of a pipelined request changes the file, then the table; the next finds the new."""
    new = b"new"

    def handler(request: Request) -> str:
        site.write(site.path, new)
        file = StaticFile(site.path, **describe(site.path, new, '"new"'))
        if request.method == "POST":
            site.house.engine.set_routes([Route("/a.css", "GET", handler, name="b", file=file)])
        else:
            site.route.file = file
        return "handler"

    site.route = Route("/a.css", "GET", handler, name="a", file=site.file)
    site.house.engine.set_routes([site.route, Route("/a.css", "POST", handler, name="p")])
    peer = await site.connect()
    one = b"GET /a.css HTTP/1.1\r\nHost: x\r\n\r\n"
    ranged = one[:-2] + b"Range: bytes=0-1\r\n\r\n"
    post = b"POST /a.css HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n"
    await peer.send(one + ranged + one + post + one + one[:-2] + b"Connection: close\r\n\r\n")
    answers = read_answers(await peer.receive_all())
    assert [answer.body for answer in answers] == [BODY, b"handler", new, b"handler", new, new]


@static("br")
async def test_one_file_of_several_routes(site: Site) -> None:
    routes = [Route(f"/{n}", "GET", site.handler, name=str(n), file=site.file) for n in range(3)]
    site.house.engine.set_routes(routes)
    for n in range(3):
        assert (await site.ask(target=f"/{n}")).body == BODY
    os.utime(site.path, (CLOCK + 1, CLOCK + 1))
    routes[1].file = None
    assert (await site.ask(target="/0?v")).body == b"handler"
    assert (await site.ask(target="/2")).body == b"handler"


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
    given = describe(path, BODY, '"a"')
    for which in ("content_type", "fields", "etag", "last_modified", "body"):
        given[which] = Bytes(given[which])
    coding, place = Bytes(b"br"), Bytes(os.fsencode(path))
    sibling = StaticFile(path, **describe(path, BODY, '"a"'))
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
    given = describe(path, BODY, '"a"')
    file = StaticFile(path, **given)
    assert StaticFile(path=path, **given, encodings=[(b"br", file)])
    for name in given:
        less = {other: value for other, value in given.items() if other != name}
        several: list[dict[str, Any]] = [{}, {"encodings": []}]
        for more in several:
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
    given = describe(path, BODY, '"a"')
    file = StaticFile(path, **given)
    nested = StaticFile(path, **given, encodings=((b"br", file),))
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
        ((1 / 0 for _ in "x"), ZeroDivisionError, "division"),
    ]
    before = sys.getrefcount(file)
    for encodings, error, reason in wrong:
        with pytest.raises(error, match=reason):
            StaticFile(path, **given, encodings=encodings)
    del encodings, wrong
    gc.collect()
    assert sys.getrefcount(file) <= before

"""Hooks, error handlers, start and stop of an App, and the error page of --dev: served."""

from __future__ import annotations

import http.client
from collections.abc import Iterator
from pathlib import Path

import pytest
from client import served
from conftest import Serve
from server import Server

HOOKS = """
    import asyncio
    from eighties import App, HTTPError, Response

    app = App()
    inner = App()
    app.mount("/in", inner)
    seen = []

    class Closed(Exception): pass
    class Locked(Closed): pass

    def note(name):
        def before(request):
            request.state.setdefault("way", []).append(name)
        return before

    def sign(name):
        def after(request, response):
            way = request.state.setdefault("way", [])
            way.append(name)
            response.headers["x-way"] = " ".join(way)
        return after

    app.before(note("b1"))
    @app.before
    async def slow(request):
        if request.path.startswith("/in/async"):
            await asyncio.sleep(0.001)
        request.state["way"].append("b2")
    inner.before(note("b3"))
    @app.before
    def gate(request):
        if "stop" in request.query:
            return "stopped"
        if "refuse" in request.query:
            raise HTTPError(403, "no entry", {"X-Why": "hook"})
        if "broken" in request.query:
            raise RuntimeError("broken hook")
    app.after(sign("a1"))
    inner.after(sign("a2"))

    @app.after
    async def replace(request, response):
        if "replace" in request.query:
            await asyncio.sleep(0)
            return {"was": response.status}
        if "spoil" in request.query:
            response.headers["bad name"] = "x"
        if "explode" in request.query:
            raise RuntimeError("broken after hook")

    @app.error(404)
    def missing(request, error):
        return {"missing": request.path}
    @inner.error(404)
    async def missing_inside(request, error):
        await asyncio.sleep(0)
        return "inside: " + error.detail
    @app.error(405)
    def wrong_method(request, error):
        return Response.html("<p>no", 405)
    @app.error(Closed)
    def closed(request, error):
        return Response.text(f"closed: {type(error).__name__}", 503)
    @app.error(LookupError)
    def lookup(request, error):
        raise HTTPError(410, "gone")
    @app.error(ArithmeticError)
    def arithmetic(request, error):
        return 1 / 0
    @app.error(401)
    def sign_in(request, error):
        return "sign in"
    @inner.error(500)
    def inside(request, error):
        return f"inside: {error!r}"

    @app.get("/plain")
    def plain(request): return "plain"
    @app.get("/dict")
    def as_dict(request): return {"way": request.state["way"]}
    @app.get("/nothing")
    def nothing(request): return None
    @app.get("/bytes")
    async def as_bytes(request): return b"bytes"
    @app.get("/wrong")
    def wrong(request): return object()
    @app.get("/lines")
    async def lines(request):
        yield "a"
        await asyncio.sleep(0)
        yield "b"
    @inner.get("/breaks")
    async def breaks(request):
        yield "a"
        raise RuntimeError("broke in the middle")
    @inner.get("/breaks-first")
    async def breaks_first(request):
        raise HTTPError(409, "broke at once")
        yield
    @app.get("/raise/{name}")
    def fail(request, name):
        raise {"locked": Locked(), "key": KeyError("k"), "zero": ZeroDivisionError(), "os": OSError("disk"),
               "auth": HTTPError(401, "", {"WWW-Authenticate": "Basic"}), "teapot": HTTPError(418)}[name]
    @inner.get("/async/{id:int}")
    async def inside_async(request, id):
        await asyncio.sleep(0.001)
        if id == 404:
            raise HTTPError(404, "no such id")
        if id == 500:
            raise ValueError("bad id")
        return f"{id}"
"""


@pytest.fixture(scope="module")
def hooked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    yield from served(HOOKS, tmp_path_factory.mktemp("hooks"))


@pytest.mark.parametrize(
    ("path", "status", "body", "way"),
    [
        ("/plain", 200, "plain", "b1 b2 a1"),
        ("/dict", 200, '{"way":["b1","b2"]}', "b1 b2 a1"),
        ("/nothing", 204, "", "b1 b2 a1"),
        ("/bytes", 200, "bytes", "b1 b2 a1"),
        ("/lines", 200, "ab", "b1 b2 a1"),
        ("/in/async/7", 200, "7", "b1 b2 b3 a2 a1"),
        ("/plain?stop", 200, "stopped", "b1 b2 a1"),
        ("/in/async/7?stop", 200, "stopped", "b1 b2 a2 a1"),
        ("/plain?refuse", 403, "no entry\n", "b1 b2 a1"),
        ("/plain?broken", 500, "Internal Server Error\n", "b1 b2 a1"),
        ("/plain?replace", 200, '{"was":200}', None),
        ("/plain?explode", 500, "Internal Server Error\n", None),
        ("/none", 404, '{"missing":"/none"}', "b1 b2 a1"),
        ("/none?stop", 200, "stopped", "b1 b2 a1"),
        ("/in/none", 404, "inside: ", "b1 b2 b3 a2 a1"),
        ("/innone", 404, '{"missing":"/innone"}', "b1 b2 a1"),
        ("/in/async/404", 404, "inside: no such id", "b1 b2 b3 a2 a1"),
        ("/in/async/500", 500, "inside: ValueError('bad id')", "b1 b2 b3 a2 a1"),
        ("/raise/locked", 503, "closed: Locked", "b1 b2 a1"),
        ("/raise/key", 410, "gone\n", "b1 b2 a1"),
        ("/raise/zero", 500, "Internal Server Error\n", "b1 b2 a1"),
        ("/raise/os", 500, "Internal Server Error\n", "b1 b2 a1"),
        ("/raise/auth", 401, "sign in", "b1 b2 a1"),
        ("/in/breaks-first", 409, "broke at once\n", "b1 b2 b3 a2 a1 a2 a1"),
        ("/raise/teapot", 418, None, "b1 b2 a1"),
        ("/wrong", 500, "Internal Server Error\n", "b1 b2 a1"),
        ("/plain?spoil", 500, "Internal Server Error\n", None),
    ],
)
def test_hooks(hooked: Server, path: str, status: int, body: str | None, way: str | None) -> None:
    reply = hooked.get(path)
    assert reply.status == status
    assert body is None or reply.text == body
    assert reply.headers["x-way"] == way
    if path.endswith("refuse"):
        assert reply.headers["x-why"] == "hook"
    if path.endswith("auth"):
        assert reply.headers["www-authenticate"] == "Basic"


def test_405_goes_through_hooks_and_keeps_allow(hooked: Server) -> None:
    reply = hooked.request("POST", "/plain")
    assert (reply.status, reply.text) == (405, "<p>no")
    assert set(reply.headers["allow"].split(", ")) == {"GET", "HEAD", "OPTIONS"}
    assert reply.headers["x-way"] == "b1 b2 a1"


def test_what_a_program_did_not_expect_is_logged(serve: Serve) -> None:
    server = serve(HOOKS)
    for path in ("/raise/locked", "/raise/key", "/raise/auth", "/none", "/in/async/404"):
        server.get(path)
    assert [line for line in server.log if line["level"] == "error"] == []
    server.get("/raise/os")
    line = server.wait_for("GET /raise/os: fail (program.py:")
    assert "OSError: disk" in line["traceback"]
    server.get("/in/async/500")
    assert "bad id" in server.wait_for("inside_async")["traceback"]
    server.get("/raise/zero")
    assert "in arithmetic" in server.wait_for("GET /raise/zero")["traceback"]
    server.get("/plain?explode")
    assert "broken after hook" in server.wait_for("GET /plain")["traceback"]
    server.get("/plain?spoil")
    server.wait_for("GET /plain: plain", count=2)


def test_hooks_of_a_failed_request_run_once_only(serve: Serve) -> None:
    server = serve("""
        from eighties import App
        app = App()
        count = 0
        @app.after
        async def spoil(request, response):
            global count
            count += request.path == "/"
            response.fields.append(("bad name", "x")) if request.path == "/" else None
        @app.get("/")
        def root(request): return "x"
        @app.get("/count")
        def counted(request): return str(count)
    """)
    reply = server.get("/")
    assert (reply.status, reply.text) == (500, "Internal Server Error\n")
    assert server.get("/count").text == "2"


def test_an_answer_that_has_begun_is_not_answered_again(serve: Serve) -> None:
    server = serve(HOOKS)
    with pytest.raises((http.client.IncompleteRead, ConnectionError)):
        server.get("/in/breaks")
    assert "broke in the middle" in server.wait_for("breaks (program.py:")["traceback"]
    assert server.get("/plain").text == "plain"
    assert "never awaited" not in server.stderr


# ---- start and stop ----

LIFE = """
    import asyncio, pathlib
    from eighties import App, state
    app, inner = App(), App()
    app.mount("/in", inner)
    app.mount("/again", inner)
    diary = pathlib.Path("diary")
    def write(text):
        with diary.open("a") as file:
            file.write(text + " ")
    @inner.on_start
    def inner_start(): write("inner")
    @app.on_start
    async def start():
        await asyncio.sleep(0)
        state.word = "started"
        write("outer")
    @app.on_stop
    def stop(): write("stop1")
    @app.on_stop
    async def stop_too():
        await asyncio.sleep(0)
        write("stop2")
        raise RuntimeError("cannot stop")
    @inner.on_stop
    def inner_stop(): write("inner-stop")
    @app.get("/")
    def root(request): return state.word
"""


def test_start_and_stop(tmp_path: Path) -> None:
    server = Server(LIFE, folder=tmp_path).wait_until_serving()
    try:
        assert server.get("/").text == "started"
    finally:
        server.stop()
    assert (tmp_path / "diary").read_text() == "outer inner inner-stop stop2 stop1 "
    assert "cannot stop" in server.stderr


def test_a_start_hook_that_fails_ends_the_server(serve: Serve) -> None:
    server = serve(
        """
        from eighties import App
        app = App()
        @app.on_start
        def start(): raise RuntimeError("no database")
        """,
        wait=False,
    )
    assert server.wait() == 3
    assert "no database" in server.stderr


def test_a_clash_ends_the_server(serve: Serve) -> None:
    server = serve(
        """
        from eighties import App
        app = App()
        @app.get("/a")
        def one(request): ...
        @app.get("/a")
        def two(request): ...
        """,
        wait=False,
    )
    assert server.wait() == 3
    assert "two routes clash: GET /a at" in server.stderr
    assert "program.py:6" in server.stderr
    assert "program.py:4" in server.stderr


# ---- error pages of --dev ----

BOOM = """
    from eighties import App
    app = App()
    @app.get("/<b>")
    def boom(request):
        inner("</pre><script>alert(1)</script>")
    def inner(text):
        raise ValueError(text)
"""


def test_dev_page(serve: Serve) -> None:
    server = serve(BOOM, "--dev")
    page = server.get("/%3Cb%3E", Accept="text/html,*/*")
    assert page.status == 500
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    assert "default-src 'none'" in page.headers["content-security-policy"]
    assert "<script>" not in page.text
    assert "<b>boom" not in page.text.partition("</style>")[2].partition("<h1>")[0]
    assert "ValueError: &lt;/pre&gt;&lt;script&gt;" in page.text
    assert page.text.index("in <b>inner</b>") < page.text.index("in <b>boom</b>") < page.text.index("<h2>")
    assert "<mark>    8      raise ValueError(text)" in page.text
    text = server.get("/%3Cb%3E")
    assert text.headers["content-type"] == "text/plain; charset=utf-8"
    assert text.text.startswith("Traceback (most recent call last)")


def test_no_page_without_dev(serve: Serve) -> None:
    reply = serve(BOOM).get("/%3Cb%3E", Accept="text/html")
    assert (reply.status, reply.text) == (500, "Internal Server Error\n")

"""With `--dev` pages get a script, and a place to hear of reloads: what they get, and nobody else, by sockets."""

from __future__ import annotations

import gzip
import json
import re
import signal
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self

import pytest
from conftest import Serve
from server import PATIENCE, Server, wait_until
from site_folder import write_site

LISTEN = "/.80s/follow"
BROWSER = {"Accept": "text/html,application/xhtml+xml,*/*;q=0.8", "Sec-Fetch-Dest": "document"}
PAGE = '<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>t</title></head><body>é</body></html>'
PROGRAM = f"""
import gzip
from eighties import App, HTTPError, Response, aio
app = App()
PAGE = {PAGE!r}
KEPT = Response.html(PAGE, headers={{"ETag": '"1"', "Last-Modified": "x", "X": "y", "Cache-Control": "max-age=9"}})

@app.on_stop
def stop():
    with open("stopped", "a") as file:
        file.write("stopped")

@app.get("/kept")
def kept(request): return KEPT

@app.get("/text")
def text(request): return "<head>text"

@app.get("/json")
def json(request): return {{"html": PAGE}}

@app.get("/file")
def file(request): return Response.file("page.html")

@app.get("/missing")
def missing(request): return Response.html(PAGE, 404)

@app.get("/coded")
def coded(request): return Response(gzip.compress(PAGE.encode()), 200, [("Content-Encoding", "gzip")], "text/html")

@app.get("/attached")
def attached(request): return Response.html(PAGE, headers={{"Content-Disposition": "attachment"}})

@app.get("/part")
def part(request): return Response(PAGE[:5], 206, [("Content-Range", "bytes 0-4/100")], "text/html; charset=utf-8")

@app.get("/wide")
def wide(request): return Response(PAGE.encode("utf-16"), 200, [], "text/html; charset=utf-16")

@app.get("/wide-unnamed")
def wide_unnamed(request): return Response(PAGE.encode("utf-16"), 200, [], "text/html")

@app.get("/streamed")
def streamed(request):
    async def pieces():
        yield PAGE
    return Response.stream(pieces(), content_type="text/html; charset=utf-8")

@app.post("/echo")
def echo(request):
    body = request.json()
    fields = [tuple(one) for one in body.get("fields", ())]
    return Response(body["page"], 200, fields, body.get("type", "text/html; charset=utf-8"))

@app.get("/wrong")
def wrong(request): raise ValueError("wrong")

@app.get("/taken", stream=True)
async def taken(request):
    sock = request.take_over()
    sock.http_response(200, "text/html", PAGE)
    sock.close()
    return sock

@app.after
def after(request, response):
    if request.path == "/after": raise ValueError("after")

@app.get("/after")
def after_fails(request): return "x"

@aio.http_get("/raw")
def raw(fd, query, headers, body): fd.http_response(200, "text/html", PAGE)
"""


class Listener:
    """One that listens as a page does, on a connection of its own."""

    def __init__(self, port: int, fields: str = "", method: str = "GET") -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), PATIENCE)
        self.socket.sendall(f"{method} {LISTEN} HTTP/1.1\r\nHost: localhost\r\n{fields}\r\n".encode())
        self.file = self.socket.makefile("rb")
        self.status = int(self.file.readline().split()[1])
        self.fields = {name.lower(): value.strip() for name, value in self._fields()}

    def _fields(self) -> Iterator[tuple[str, str]]:
        while line := self.file.readline().decode().strip():
            name, _, value = line.partition(":")
            yield name, value

    def hear(self) -> Any:
        """What is said next. None: the server has closed the connection."""
        while line := self.file.readline():
            if line.startswith(b"data: "):
                return json.loads(line[6:])
        return None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.file.close()
        self.socket.close()


def save(path: Path, text: str) -> None:
    """At once, as editors do: one change is one round."""
    new = path.with_name(f".{path.name}.new")
    new.write_text(text)
    new.replace(path)


def has_script(text: str) -> bool:
    return "data-state" in text


def without(text: str) -> str:
    """A page without the script."""
    return re.sub(r"<script[^>]* data-state=.*?</script>", "", text, flags=re.DOTALL)


@pytest.fixture(name="dev", scope="module")
def dev_fixture(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("dev")
    folder.joinpath("page.html").write_text(PAGE)
    server = Server(PROGRAM, "--dev", folder=folder)
    yield server.wait_until_serving()
    assert server.stop() == 0, server.stderr


def echo(server: Server, page: str, **more: Any) -> Any:
    body = json.dumps({"page": page, **more}).encode()
    return server.request("POST", "/echo", body, {**BROWSER, "Content-Type": "application/json"})


# ---- pages ----


@pytest.mark.parametrize("path", ["/kept", "/file", "/missing"])
def test_documents_have_the_script(dev: Server, path: str) -> None:
    for _ in range(2):
        reply = dev.get(path, **BROWSER)
        assert reply.text.startswith('<!doctype html>\n<html lang="en"><head><script data-state="')
        assert without(reply.text) == PAGE
        assert int(reply.headers["content-length"]) == len(reply.body)
        assert reply.text.count("data-state") == 1
        assert reply.headers["cache-control"] == "no-cache"
        assert not {"etag", "last-modified", "accept-ranges"} & {name.lower() for name in reply.headers}
    head = dev.request("HEAD", path, headers=BROWSER)
    assert (head.body, head.headers["content-length"]) == (b"", reply.headers["content-length"])


def test_error_pages_have_it(dev: Server) -> None:
    for path in ("/wrong", "/after"):
        reply = dev.get(path, **BROWSER)
        assert reply.status == 500 and has_script(reply.text)
        assert re.search(r"script-src 'sha256-[^;]+' 'nonce-\w+'", reply.headers["content-security-policy"])


@pytest.mark.parametrize(
    "path",
    ["/text", "/json", "/coded", "/attached", "/part", "/wide", "/wide-unnamed", "/streamed", "/nothing"],
)
def test_what_is_no_whole_document_is_left_alone(dev: Server, path: str) -> None:
    reply, plain = dev.get(path, **BROWSER), dev.get(path)
    body = gzip.decompress(reply.body) if path == "/coded" else reply.body
    assert not has_script(body.decode("utf-8", "replace").replace("\0", ""))
    assert (reply.status, [*reply.headers]) == (plain.status, [*plain.headers])
    assert path == "/coded" or reply.body == plain.body


def test_a_connection_that_is_taken_over_is_left_alone(dev: Server) -> None:
    assert dev.get("/taken", **BROWSER).text == PAGE
    assert "no answer" not in dev.stderr


@pytest.mark.parametrize(
    ("fields", "follows"),
    [
        ({"Sec-Fetch-Dest": "iframe"}, True),
        ({"Sec-Fetch-Dest": "empty", "Accept": "text/html"}, False),
        ({"Sec-Fetch-Dest": "script"}, False),
        ({"Accept": "text/html"}, True),
        ({"Accept": "text/html", "X-Requested-With": "XMLHttpRequest"}, False),
        ({"Accept": "*/*"}, False),
        ({}, False),
    ],
)
def test_only_what_a_browser_shows(dev: Server, fields: dict[str, str], follows: bool) -> None:
    reply = dev.get("/kept", **fields)
    assert has_script(reply.text) is follows
    assert reply.headers["etag"] == (None if follows else '"1"')
    assert reply.headers["x"] == "y"


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("<!-- <head> --><!DOCTYPE html><HTML data-a='>'><HEAD class=\">\">", "<title>t</title>"),
        ("\ufeff<!doctype html><html><head>", "</head>x"),
        ("<!doctype html>\n<html>\n", "<body>x"),
        ("<!doctype html>", "<header>x</header>"),
        ("<?xml version='1.0'?><!doctype html>", "text"),
        ("<!-->", "<p>x"),
        ("", "text <head>"),
        ("", "<!-- never ended <head>"),
        ("", "<htmlx><head>"),
        ("", ""),
    ],
)
def test_where_it_stands(dev: Server, before: str, after: str) -> None:
    text = echo(dev, before + after).text
    assert without(text) == before + after
    assert text.startswith(f"{before}<script data-state=")


def test_encodings_that_the_head_does_not_name(dev: Server) -> None:
    """A browser looks for them in the first kilobyte."""
    assert echo(dev, PAGE, type="text/html").text.startswith(PAGE + "<script")
    assert "<head><script" in echo(dev, "\ufeff" + PAGE, type="text/html").text
    assert dev.get("/raw", **BROWSER).text.startswith(PAGE + "<script")


def test_a_page_that_answers_a_form_says_so(dev: Server) -> None:
    assert " data-form>" in echo(dev, PAGE).text
    assert " data-form>" not in dev.get("/kept", **BROWSER).text


# ---- policies ----

FRESH = re.compile(r"'nonce-([0-9a-f]{32})'")


@pytest.mark.parametrize(
    ("policy", "becomes"),
    [
        ("img-src 'self'", None),
        ("default-src 'self'; script-src 'nonce-abc'", None),
        ("script-src 'unsafe-inline'; style-src 'self'", None),
        ("script-src 'self'; font-src a.b", "script-src 'self' NEW; font-src a.b"),
        ("script-src-elem 'none'; script-src x", "script-src-elem NEW; script-src x"),
        ("script-src 'strict-dynamic' 'unsafe-inline'", "script-src 'strict-dynamic' 'unsafe-inline' NEW"),
        ("default-src 'none'", "default-src 'none'; script-src NEW; connect-src 'self'"),
        ("default-src 'self'", "default-src 'self'; script-src 'self' NEW"),
        ("default-src 'none'; script-src 'nonce-abc'; connect-src https://a.b",
         "default-src 'none'; script-src 'nonce-abc'; connect-src https://a.b 'self'"),
        ("script-src 'nonce-abc', script-src 'self'", "script-src 'nonce-abc', script-src 'self' 'nonce-abc'"),
        ("connect-src *; script-src *", "connect-src *; script-src * NEW"),
    ],
)  # fmt: skip
def test_policies(dev: Server, policy: str, becomes: str | None) -> None:
    fields = [("Content-Security-Policy", policy), ("Content-Security-Policy-Report-Only", "default-src 'none'")]
    reply = echo(dev, PAGE, fields=fields)
    sent = reply.headers["content-security-policy"]
    fresh = FRESH.search(sent)
    assert FRESH.sub("NEW", sent) == (becomes or policy)
    assert reply.headers["content-security-policy-report-only"] == "default-src 'none'"
    used = re.search(r'<script(?: nonce="([^"]*)")? data-state', reply.text)
    assert used is not None
    assert used[1] == (fresh[1] if fresh else "abc" if "'nonce-abc'" in policy else None)
    if fresh:
        again = FRESH.search(echo(dev, PAGE, fields=fields).headers["content-security-policy"])
        assert again is not None and again[1] != fresh[1]


def test_several_policy_fields(dev: Server) -> None:
    name = "content-security-policy"
    reply = echo(dev, PAGE, fields=[(name, "script-src a.b"), (name, "default-src 'self'")])
    first, second = reply.headers.get_all(name)
    nonce = first.removeprefix("script-src a.b ")
    assert FRESH.fullmatch(nonce)
    assert second == f"default-src 'self'; script-src 'self' {nonce}"


def test_a_sandbox_is_left_alone(dev: Server) -> None:
    for policy in ("sandbox", "sandbox allow-scripts", "default-src 'self'; sandbox allow-forms"):
        reply = echo(dev, PAGE, fields=[("Content-Security-Policy", policy)])
        assert (reply.text, reply.headers["content-security-policy"]) == (PAGE, policy)
    policy = "sandbox allow-scripts allow-same-origin"
    assert has_script(echo(dev, PAGE, fields=[("Content-Security-Policy", policy)]).text)


# ---- who listens ----


@pytest.mark.parametrize(
    ("fields", "status"),
    [
        ("", 200),
        ("Sec-Fetch-Site: same-origin\r\n", 200),
        ("Sec-Fetch-Site: none\r\n", 200),
        ("Sec-Fetch-Site: cross-site\r\n", 403),
        ("Sec-Fetch-Site: same-site\r\n", 403),
        ("Origin: http://localhost\r\n", 200),
        ("Origin: http://other\r\n", 403),
        ("Origin: null\r\n", 403),
    ],
)
def test_only_pages_of_this_server_may_listen(dev: Server, fields: str, status: int) -> None:
    with Listener(dev.port, fields) as listener:
        assert listener.status == status
        assert not any(name.startswith("access-control") for name in listener.fields)
        if status == 200:
            assert listener.fields["content-type"] == "text/event-stream; charset=utf-8"
            assert listener.fields["cache-control"] == "no-store"
            assert listener.hear()["what"] == "hello"


def test_head_and_other_methods(dev: Server) -> None:
    reply = dev.request("HEAD", LISTEN)
    assert (reply.status, reply.body) == (200, b"")
    assert dev.request("POST", LISTEN, b"").status == 405


def test_one_that_talks_is_let_go(dev: Server) -> None:
    with Listener(dev.port) as listener:
        listener.hear()
        listener.socket.sendall(b"x")
        try:
            assert listener.hear() is None
        except ConnectionResetError:
            pass


def test_there_is_a_bound(dev: Server) -> None:
    from eighties.serve.follow import MOST_STREAMS

    listeners: list[Listener] = []
    try:
        while len(listeners) <= MOST_STREAMS:
            listeners.append(Listener(dev.port))
            if listeners[-1].status != 200:
                break
        assert (listeners[-1].status, len(listeners) - 1) == (503, MOST_STREAMS)
    finally:
        for listener in listeners:
            listener.__exit__()

    def room() -> bool:
        with Listener(dev.port) as listener:
            return listener.status == 200

    wait_until(room, "room for another")


def test_without_dev_there_is_nothing(serve: Serve, tmp_path: Path) -> None:
    tmp_path.joinpath("page.html").write_text(PAGE)
    program = (
        PROGRAM
        + """
import sys
@app.get("/modules")
def modules(request): return [name for name in sys.modules if name.endswith((".follow", ".inject"))]
"""
    )
    server = serve(program, "--reload")
    assert server.get(LISTEN).status == 404
    reply = server.get("/kept", **BROWSER)
    assert (reply.text, reply.headers["etag"]) == (PAGE, '"1"')
    assert server.get("/file", **BROWSER).text == PAGE
    assert server.get("/modules").json() == []


# ---- rounds ----


def test_every_worker_tells_of_every_round(serve: Serve, tmp_path: Path) -> None:
    files = {
        "index.html": PAGE,
        "style.css": "a",
        "part.css": "a",
        "styled.html": "<style><?include part.css ?></style>",
    }
    server = serve(write_site(tmp_path, files, ""), "--dev", "--reload", "-c", "2")
    folder = tmp_path / "public_html"
    with Listener(server.port) as one, Listener(server.port) as two, Listener(server.port) as three:
        said = [listener.hear() for listener in (one, two, three)]
        assert [each["what"] for each in said] == ["hello"] * 3
        assert len({each["state"] for each in said}) == 1
        states = {said[0]["state"]}
        for path, text, what in (
            (folder / "style.css", "b", "style"),
            (folder / "index.html", PAGE + "b", "page"),
            (folder / "new.css", "b", "style"),
            (folder / "part.css", "b", "page"),
            (tmp_path / "main.py", "a = 1\n", "page"),
            (tmp_path / "main.py", "a = b\n", "page"),
            (folder / "style.css", "c", "style"),
            (tmp_path / "main.py", "a = 2\n", "page"),
            (folder / "style.css", "d", "style"),
        ):
            save(path, text)
            said = [listener.hear() for listener in (one, two, three)]
            assert [each["what"] for each in said] == [what] * 3, (path, said)
            assert len({each["state"] for each in said}) == 1
            broken = tmp_path.joinpath("main.py").read_text() == "a = b\n"
            assert ["failures" in each for each in said] == [broken] * 3, (path, said)
            states.add(said[0]["state"])
            state = f'data-state="{said[0]["state"]}"'
            wait_until(lambda state=state: state in server.get("/", **BROWSER).text, "the state in pages")  # type: ignore[misc]
            if broken:
                (failure,) = said[0]["failures"]
                assert "NameError: name 'b' is not defined" in failure["message"]
                assert (failure["place"], failure["workers"]) == ("main.py:1", [0])
                with Listener(server.port) as late:
                    assert late.hear()["failures"] == said[0]["failures"]
        assert len(states) == 10


def test_a_reload_without_a_change_is_told(serve: Serve) -> None:
    server = serve(PROGRAM, "--dev")
    with Listener(server.port) as listener:
        state = listener.hear()["state"]
        server.send(signal.SIGHUP)
        said = listener.hear()
        assert (said["what"], said["state"]) == ("page", state)


def test_a_listener_holds_nothing_up(serve: Serve, tmp_path: Path) -> None:
    """Neither the end of an old program nor that of the server."""
    server = serve(PROGRAM, "--dev", "--reload", "--grace", "50")
    with Listener(server.port) as listener:
        listener.hear()
        save(tmp_path / "program.py", PROGRAM + "\n")
        assert listener.hear()["what"] == "page"
        wait_until(tmp_path.joinpath("stopped").exists, "on_stop of the old program")
        assert server.stop() == 0
        assert listener.hear() is None
    assert "grace" not in server.stderr

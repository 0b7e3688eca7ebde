"""What the code of a page can use, through a real server: every name of the context, hooks, sessions, errors."""

from __future__ import annotations

import http.cookies
import json
import re
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import pytest
from client import served
from conftest import Serve
from hypothesis import given, settings
from hypothesis import strategies as st
from server import Reply, Server, wait_until
from site_folder import write_site

MAIN = """
import asyncio
from eighties import HTTPError, aio

people = ["Ada", "<Bob>"]
calls = []

def later(callback, *args, delay=0.01):
    asyncio.get_running_loop().call_later(delay, callback, *args)

def slow(value, delay=0.01):
    resolve, promise = aio.prepare_promise()
    later(resolve, value, delay=delay)
    return promise
"""

# A page's text, and what it answers: as a tuple with the status and header fields that matter.
PAGES: dict[str, tuple[str, str]] = {
    "write": ("<?py write('a<b') ?>", "a<b"),
    "write_args": ("<?py write('%s|%s|%d|%.2f|%%|%s', '<i>', None, 7, 1.5, raw('<b>')) ?>",
                   "&lt;i&gt;|None|7|1.50|%|<b>"),
    "write_object": ("<?py write('%s', ['<']) ?>", "[&#x27;&lt;&#x27;]"),
    "write_json": ("<?py write({'a': [1, None, 'é</&']}) ; write([1]) ?>",
                   '{"a":[1,null,"é\\u003c/\\u0026"]}[1]'),
    "write_other": ("<?py write(5); write(None); write(b'\\xc3\\xa9') ?>", "5Noneé"),
    "sugar_raw": ("<?py | #[[raw('<b>')]] #[[escape('<')]] ?>", "<b> &amp;lt;"),
    "escape": ("<?py write(escape('\"<&>\\'')) ?>", "&quot;&lt;&amp;&gt;&#x27;"),
    "escape_html_object": ("<?py\nclass H:\n    def __html__(self): return '<b>'\n| #[[H()]]\n?>", "<b>\n"),
    "locals": ("<?py locals['x'] = 1 ?><?pya write(locals['x']) ?>", "1"),
    "shared": ("<?py x = 1 ?>.<?pya x += 1 ?>.<?py write(x) ?>", "..2"),
    "main_names": ("<?py for one in people:\n  | #[[one]]\n?>", "Ada\n&lt;Bob&gt;\n"),
    "method": ("<?py write(method) ?>", "GET"),
    "endpoint": ("<?py write(endpoint) ?>", "/endpoint"),
    "query": ("<?py write(query.get('a', 'none')); write(query.getall('b')) ?>", 'none[]'),
    "headers": ("<?py write(headers['x-test']) ?>", "value"),
    "body": ("<?py write(len(body)) ?>", "0"),
    "form_none": ("<?py write(len(form)) ?>", "0"),
    "request": ("<?py write(request.method + request.path) ?>", "GET/request"),
    "write_decimal": ("<?py from decimal import Decimal\nwrite('%.2f', Decimal('1.5')) ?>", "1.50"),
    "sugar_raw_format": ("<?py | #[[raw('<b>'):>4]]|#[['<b>':>4]] ?>", " <b>| &lt;b&gt;"),
    "done_in_thread": ("<?py import threading\nthreading.Timer(0.01, done).start() ?>x", "x"),
    "await": ("<?pya write(await slow('slept')) ?>", "slept"),
    "await_": ("<?pya write(await await_(slow('slept'))); write(await await_(1)) ?>", "slept1"),
    "await_in_sugar": ("<?pya | #[[await slow('<s>')]] ?>", "&lt;s&gt;"),
    "gather": ("<?pya a, b = await aio.gather(slow(1), slow(2))\nwrite(a + b) ?>", "3"),
    "done": ("<?py later(lambda: (write('called'), done())) ?>!", "called!"),
    "done_promise": ("<?py slow('v')(lambda value: (write(value), done())) ?>", "v"),
    "done_twice": ("<?py later(done); later(done)\nwrite('x') ?>", "x"),
    "done_at_once": ("<?py done() ?>x", "x"),
    "post_render": ("a<?py post_render(lambda text: text.upper()) ?>b<?py post_render(lambda text: text + '!') ?>",
                    "AB!"),
    "to_url": ("<?py write(to_url('/a b', {'x': '1&2'}, 'top')) ?>", "/a%20b?x=1%262#top"),
    "cookies": ("<?py write(cookies.get('c', 'none')) ?>", "none"),
    "parallel": ("#! parallel\n<?pya write(await slow('1')) ?>-<?pya write(await slow('2')) ?>-<?py write('s') ?>",
                 "1-2-s"),
    "return": ("a<?py write('b')\nreturn\nwrite('c') ?>d", "abd"),
    "include": ("<?include inc.priv.html ?>|<?py write(included) ?>", "in &lt;\n|yes"),
    "static": ("nothing < here", "nothing < here"),
}  # fmt: skip


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("pages")
    files = {f"{name}.dyn.html": text for name, (text, _) in PAGES.items()}
    files["inc.priv.html"] = "<?py included = 'yes'\n| in #[['<']]\n?>"
    yield from served(write_site(folder, files, MAIN), folder)


@pytest.mark.parametrize("name", PAGES)
def test_page_answers(site: Server, name: str) -> None:
    reply = site.get(f"/{name}", **{"X-Test": "value"})
    assert (reply.status, reply.text) == (200, PAGES[name][1])
    assert reply.headers["content-type"] == "text/html; charset=utf-8"
    assert reply.headers["set-cookie"] is None and reply.headers["vary"] is None
    head = site.request("HEAD", f"/{name}", headers={"X-Test": "value"})
    same_length = head.headers["content-length"] == str(len(reply.body))
    assert (head.status, head.body) == (200, b"") and (same_length or "method" in PAGES[name][0])


# ---- status, headers, redirects, cookies ----


@pytest.fixture(scope="module")
def answers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("answers")
    pages = {
        "status": "<?py status(query['s'] if query.get('text') else int(query['s'])) ?>body",
        "header": "<?py header('X-A', 1); header('x-a', 'two')\n"
        "header('Link', '<a>'); header('Link', '<b>', add=True) ?>",
        "type.dyn.json": "<?py write({'a': 1}) ?>",
        "type": "<?py header('content-type', 'text/calendar') ?>x",
        "split": "<?py header('X-A', 'a\\r\\nX-B: b') ?>",
        "redirect": "before<?py header('X-A', '1'); set_cookie('c', '1'); session['s'] = 1\n"
        "redirect('/é?a=1&b', 303)\ncalls.append('after') ?>after<?py calls.append('after') ?>",
        "redirect_async": "<?pya await slow(1)\ntry:\n    redirect('/x')\n"
        "except Exception:\n    calls.append('caught')\ncalls.append('after') ?>",
        "redirect_parallel": "#! parallel\n<?pya await slow(1)\nredirect('/x') ?>a"
        "<?pya await slow(1, 5)\ncalls.append('after') ?>",
        "redirect_bad": "<?py redirect('/x', 200) ?>",
        "cookie": "<?py set_cookie('a', '1', max_age=60, httponly=True)\n"
        "set_cookie('b', cookies.get('b', '') + '2') ?>",
        "http_error": "<?py raise HTTPError(418, 'short and stout') ?>",
        "calls": "<?py write(calls) ?>",
        "post_render_bad": "<?py post_render(lambda text: 5) ?>",
        "head": "<?py status(204) ?>",
    }
    files = {name if "." in name else f"{name}.dyn.html": text for name, text in pages.items()}
    yield from served(write_site(folder, files, MAIN), folder)


@pytest.mark.parametrize(
    ("text", "status"), [("404", 404), ("404 Not Found", 404), ("201 Anything", 201), ("500", 500)]
)
def test_status_as_number_or_text(answers: Server, text: str, status: int) -> None:
    reply = answers.get(f"/status?text=1&s={quote(text)}")
    assert (reply.status, reply.text) == (status, "body")
    assert answers.get(f"/status?s={status}").status == status


@pytest.mark.parametrize("text", ["99", "199", "600", "x", "", "-404", "\u0664\u0660\u0664"])
def test_status_that_is_none(answers: Server, text: str) -> None:
    assert answers.get(f"/status?text=1&s={quote(text)}").status == 500


def test_header_sets_and_adds(answers: Server) -> None:
    reply = answers.get("/header")
    assert reply.headers.get_all("x-a") == ["two"]
    assert reply.headers.get_all("link") == ["<a>", "<b>"]
    assert answers.get("/type").headers["content-type"] == "text/calendar"
    assert answers.get("/type.json").headers["content-type"] == "application/json"
    assert answers.get("/split").status == 500
    assert answers.get("/head").status == 204


def test_redirect_ends_the_page(answers: Server) -> None:
    reply = answers.get("/redirect")
    assert (reply.status, reply.headers["location"], reply.headers["x-a"]) == (303, "/%C3%A9?a=1&b", "1")
    assert "before" not in reply.text and "after" not in reply.text
    assert [value.split("=")[0] for value in reply.headers.get_all("set-cookie", [])] == ["c", "session"]
    for path in ("/redirect_async", "/redirect_parallel"):
        reply = answers.get(path)
        assert (reply.status, reply.headers["location"]) == (302, "/x")
    assert answers.get("/redirect_bad").status == 500
    assert answers.get("/calls").json() == []


def test_cookies(answers: Server) -> None:
    reply = answers.get("/cookie", Cookie="b=1")
    assert reply.headers.get_all("set-cookie") == [
        "a=1; Max-Age=60; Path=/; SameSite=Lax; HttpOnly",
        "b=12; Path=/; SameSite=Lax",
    ]


def test_session_changes_of_post_render_are_kept(serve: Serve, tmp_path: Path) -> None:
    page = "<?py\ndef last(text):\n    session['last'] = 1\n    return text\npost_render(last)\nwrite(dict(session)) ?>"
    server = serve(str(write_site(tmp_path, {"x.html": page})))
    assert server.get("/x", Cookie=cookie_of(server.get("/x"))).json() == {"last": 1}


def test_http_error_and_post_render_that_returns_no_text(answers: Server) -> None:
    reply = answers.get("/http_error")
    assert (reply.status, reply.text) == (418, "short and stout\n")
    assert answers.get("/post_render_bad").status == 500
    answers.wait_for("GET /post_render_bad: post_render_bad.dyn.html failed")


# ---- forms ----


def test_forms(serve: Serve, tmp_path: Path) -> None:
    files = {
        "post.x.html": "<?py write({name: form.getall(name) for name in form}) ?>",
        "post.file.html": "<?py f = form['f']\nwrite('%s %s %d', f.filename, f.content_type, len(f.read())) ?>",
    }
    server = serve(str(write_site(tmp_path, files)))
    kind = {"Content-Type": "application/x-www-form-urlencoded"}
    assert server.request("POST", "/x", b"a=1&a=2&b=%C3%A9", kind).json() == {"a": ["1", "2"], "b": ["é"]}
    assert server.request("POST", "/x", b"").json() == {}
    assert server.request("POST", "/x", b"a", {"Content-Type": "text/plain"}).status == 415
    head = b'Content-Disposition: form-data; name="f"; filename="<x>.txt"\r\nContent-Type: text/plain'
    body = b"--b\r\n" + head + b"\r\n\r\nhi\r\n--b--\r\n"
    reply = server.request("POST", "/file", body, {"Content-Type": "multipart/form-data; boundary=b"})
    assert reply.text == "&lt;x&gt;.txt text/plain 2"


# ---- sessions ----

COUNTER = "<?py session['n'] = session.get('n', 0) + 1\nwrite(session['n']) ?>"


def cookie_of(reply: Reply) -> str:
    """The session cookie that an answer sets, as a request sends it."""
    morsel = http.cookies.SimpleCookie(reply.headers["set-cookie"])["session"]
    assert morsel["httponly"] and morsel["samesite"] == "Lax" and morsel["path"] == "/"
    return f"session={morsel.value}"


def test_session_is_shared_by_the_workers_and_set_when_changed(serve: Serve, tmp_path: Path) -> None:
    files = {
        "count.html": COUNTER,
        "read.html": "<?py write(session.get('n', 0)) ?>",
        "clear.html": "<?py session.clear() ?>",
    }
    server = serve(str(write_site(tmp_path, {**files, "plain.html": "<?py write(1) ?>"})), "-c", "2")
    server.wait_for_workers(2)
    server.wait_for("MASTER_KEY is not set")
    assert len([line for line in server.log if "MASTER_KEY" in line["message"]]) == 1
    cookie = ""
    for number in range(1, 11):
        reply = server.get("/count", Cookie=cookie)
        assert (reply.text, reply.headers["vary"]) == (str(number), "Cookie")
        cookie = cookie_of(reply)
    reply = server.get("/read", Cookie=cookie)
    assert (reply.text, reply.headers["set-cookie"]) == ("10", None)
    assert server.get("/plain", Cookie=cookie).headers["vary"] is None
    assert "Max-Age=0" in server.get("/clear", Cookie=cookie).headers["set-cookie"]
    assert server.get("/clear").headers["set-cookie"] is None


def test_session_outlives_a_restart_with_a_master_key(serve: Serve, tmp_path: Path) -> None:
    site = str(write_site(tmp_path, {"count.html": COUNTER}))
    first = serve(site, env={"MASTER_KEY": "a secret of the site"})
    cookie = cookie_of(first.get("/count"))
    first.stop()
    assert serve(site, env={"MASTER_KEY": "a secret of the site"}).get("/count", Cookie=cookie).text == "2"
    assert serve(site, env={"MASTER_KEY": "b64:QW5vdGhlciBzZWNyZXQgb2Yg"}).get("/count", Cookie=cookie).text == "1"
    assert serve(site).get("/count", Cookie=cookie).text == "1"


@pytest.mark.parametrize("key", ["short", "b64:c2hvcnQ=", "b64:!!"])
def test_weak_master_key_is_refused_at_start(serve: Serve, tmp_path: Path, key: str) -> None:
    server = serve(str(write_site(tmp_path, {})), env={"MASTER_KEY": key}, wait=False)
    assert server.wait() == 3
    assert "MASTER_KEY" in server.stderr and key not in server.stderr


def test_store_of_the_program(serve: Serve, tmp_path: Path) -> None:
    main = "from eighties.sessions import MemoryStore\nsession_store = MemoryStore()"
    server = serve(str(write_site(tmp_path, {"count.html": COUNTER}, main)))
    cookie = cookie_of(server.get("/count"))
    assert server.get("/count", Cookie=cookie).text == "2"


def test_session_that_cannot_be_kept(serve: Serve, tmp_path: Path) -> None:
    files = {"big.html": "<?py session['x'] = 'x' * 9000 ?>", "set.html": "<?py session['x'] = {1} ?>"}
    server = serve(str(write_site(tmp_path, files)))
    assert [server.get(path).status for path in ("/big", "/set")] == [500, 500]
    server.wait_for("GET /big: big.html failed")


def test_no_visitor_gets_the_cookie_of_another(serve: Serve, tmp_path: Path) -> None:
    """A hook may hand out one Response again and again."""
    main = """
from eighties import Response
DENIED = Response.redirect("/login", 303)

def on_before_http(method, endpoint, session):
    if endpoint == "/secret":
        session["wanted"] = method
        return DENIED
"""
    server = serve(str(write_site(tmp_path, {"secret.html": "<?py 1 ?>"}, main)))
    for _ in range(3):
        reply = server.get("/secret")
        assert len(reply.headers.get_all("set-cookie", [])) == len(reply.headers.get_all("vary", [])) == 1
    cookie = cookie_of(server.get("/secret"))
    assert server.get("/secret", Cookie=cookie).headers["set-cookie"] is None


# ---- encrypted links ----


def test_encrypted_link_is_good_for_its_endpoint_alone(serve: Serve, tmp_path: Path) -> None:
    page = "<?py write([query.e.get('id', 'none'), query.get('id', 'none')]) ?>"
    links = "<?py write([to_url('/a', {'id': 7} | more) for more in ({}, {'iv': True}, {'e': False})]) ?>"
    server = serve(str(write_site(tmp_path, {"a.html": page, "b.html": page, "links.html": links})),
                   env={"MASTER_KEY": "a secret of the site"})  # fmt: skip
    fixed, random, plain = server.get("/links").json()
    assert server.get("/links").json()[0] == fixed and server.get("/links").json()[1] != random
    assert plain == "/a?id=7" and "id" not in fixed
    for link in (fixed, random):
        assert server.get(link).json() == ["7", "none"]
        assert server.get(f"{link}&id=8").json() == ["7", "8"]
        assert server.get(link.replace("/a", "/b")).json() == ["none", "none"]
        assert server.get(link[:-1]).json() == ["none", "none"]
        assert server.get(link + "A").json() == ["none", "none"]


# ---- hooks of main.py ----


@pytest.mark.parametrize("kind", ["def", "async def"])
def test_hooks_around_pages(serve: Serve, tmp_path: Path, kind: str) -> None:
    main = f"""
from eighties import HTTPError, Response
seen = []

{kind} on_before_http(method, endpoint, session):
    seen.append(["before", method, endpoint])
    session["n"] = session.get("n", 0) + 1
    if endpoint == "/secret":
        raise HTTPError(403)
    if endpoint == "/login":
        return Response.redirect("/elsewhere", 303)

{kind} on_after_http(method, endpoint, session):
    seen.append(["after", method, endpoint])
    session["after"] = True
"""
    files = {"x.html": "<?py write(session) ?>", "secret.html": "<?py write(1) ?>", "login.html": "<?py write(1) ?>"}
    files |= {"seen.html": "<?py write(seen) ?>", "a.css": "css", "r.html": "<?pya redirect('/') ?>"}
    server = serve(str(write_site(tmp_path, files, main)))
    reply = server.get("/x")
    assert reply.json() == {"n": 1}
    assert server.get("/x", Cookie=cookie_of(reply)).json() == {"n": 2, "after": True}
    assert server.get("/secret").status == 403
    reply = server.get("/login")
    assert (reply.status, reply.headers["location"]) == (303, "/elsewhere")
    assert cookie_of(reply)
    assert server.get("/r").status == 302
    server.get("/a.css")
    seen = server.get("/seen").json()
    assert [entry for entry in seen if entry[2] != "/x"] == [
        ["before", "GET", "/secret"], ["before", "GET", "/login"],
        ["before", "GET", "/r"], ["after", "GET", "/r"], ["before", "GET", "/seen"],
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("main", "message"),
    [
        ("on_before_http = 5", "on_before_http must be a function"),
        ("def on_after_http(*given):\n    yield", "on_after_http must be a function"),
        ("def on_before_http(method):\n    pass", "on_before_http must be a function"),
        ("session_store = {}", "session_store must be a store of sessions, an object with plain methods load and save"),
        ("from eighties.sessions import MemoryStore as session_store", "session_store must be a store"),
        ("app = 5", "`app` is where an App would be, but it is of type int"),
    ],
)
def test_names_of_main_that_are_not_what_they_should_be(serve: Serve, tmp_path: Path, main: str, message: str) -> None:
    server = serve(str(write_site(tmp_path, {"x.html": ""}, main)), wait=False)
    assert server.wait() == 3
    server.wait_for(message)


# ---- errors ----


def test_page_that_fails_names_its_file_and_line(serve: Serve, tmp_path: Path) -> None:
    files = {
        "x.html": "one\n<?include inc/oops.priv.html ?>",
        "inc/oops.priv.html": "two\n\n<?py\n    1 / 0\n?>",
        "y.html": "<?pya\nawait slow(1)\nraise ValueError('y') ?>",
    }
    server = serve(str(write_site(tmp_path, files, MAIN)))
    assert (server.get("/x").status, server.get("/x").text) == (500, "Internal Server Error\n")
    traceback = server.wait_for("GET /x: x.html failed")["traceback"]
    assert re.search(r'x\.html", line 2, in <page>\n', traceback)
    assert re.search(r'inc/oops\.priv\.html", line 4, in <include>\n    1 / 0\n', traceback)
    assert server.get("/y").status == 500
    assert re.search(r'y\.html", line 3, in <page>', server.wait_for("GET /y: y.html failed")["traceback"])


def test_forgotten_await_is_told_with_its_line(serve: Serve, tmp_path: Path) -> None:
    files = {"x.html": "<?pya\n| #[[slow(1)]]\n?>", "y.html": "<?pya\n\nwrite(slow(1)) ?>"}
    server = serve(str(write_site(tmp_path, files, MAIN)))
    for path, line in (("/x", 2), ("/y", 3)):
        assert server.get(path).status == 500
        traceback = server.wait_for(f"GET {path}: ")["traceback"]
        assert "is not a value yet: await it" in traceback and f'.html", line {line}, in' in traceback


def test_broken_pages_are_listed_and_harm_no_other(serve: Serve, tmp_path: Path) -> None:
    files = {
        "fine.html": "<?py write('fine') ?>",
        "syntax.html": "a\n<?py\nif True\n?>",
        "open.html": "<?py write(1)",
        "circle.html": "<?include circle2.html ?>",
        "circle2.html": "<?include circle.html ?>",
        "missing.html": "x\n<?include none.html ?>",
        "indent.html": "<?py\n  a = 1\n b = 2\n?>",
    }
    server = serve(str(write_site(tmp_path, files)), "-c", "2")
    server.wait_for("cannot be served", 6)
    broken = [line["message"] for line in server.log if "cannot be served" in line["message"]]
    assert len(broken) == 6
    for name, line in {"syntax.html": 3, "open.html": 1, "missing.html": 2, "indent.html": 3}.items():
        assert any(f"{name}:{line}: " in message for message in broken), broken
        reply = server.get("/" + name.removesuffix(".html"))
        assert reply.status == 500 and f"{name}:{line}: " in reply.text
        assert "if True" not in reply.text and "a = 1" not in reply.text
    assert "includes go in a circle: circle.html -> circle2.html -> circle.html" in server.stderr
    assert server.get("/fine").text == "fine"


def test_block_that_is_never_done_ends_at_the_handler_timeout(serve: Serve, tmp_path: Path) -> None:
    server = serve(str(write_site(tmp_path, {"x.html": "<?py done ?>", "y.html": "fine"})), "--handler-timeout", "1")
    assert server.get("/x").status == 503
    server.wait_for("handler x.html took longer than handler_timeout: 503")
    assert server.get("/y").text == "fine"


def test_requests_of_one_page_do_not_mix(serve: Serve, tmp_path: Path) -> None:
    import concurrent.futures

    page = "#! parallel\n<?pya await slow(1)\nlocals['n'] = query['n']\n| #[[query['n']]]\n?>-"
    page += "<?pya await slow(1, 0.02)\nwrite(locals['n']) ?>"
    server = serve(str(write_site(tmp_path, {"x.html": page}, MAIN)))
    with concurrent.futures.ThreadPoolExecutor(16) as pool:
        replies = list(pool.map(lambda number: server.get(f"/x?n={number}").text, range(200)))
    assert replies == [f"{number}\n-{number}" for number in range(200)]


# ---- whatever a client sends ----


@settings(max_examples=300)
@given(
    st.text(st.characters(codec="utf-8", exclude_characters="\r\n\0"), max_size=60),
    st.text(st.characters(min_codepoint=33, max_codepoint=126), max_size=60),
)
def test_no_query_and_no_cookie_raises(hostile: Server, query: str, cookie: str) -> None:
    e = quote(query, safe="%+=&")
    reply = hostile.request("GET", f"/x?e={e}&{e}", headers={"Cookie": f"session={cookie}; {cookie}"})
    assert reply.status == 200
    assert json.loads(reply.text.partition("|")[0]) == [0, 0]


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("hostile")
    page = "<?py write([len(query.e), len(session)])\nfor pair in query.pairs():\n    write('|%s%s', *pair) ?>"
    page += "<?py write(cookies) ?>"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MASTER_KEY", "a secret of the site")
        yield from served(write_site(folder, {"x.html": page}), folder)


def test_crowd_of_slow_pages_leaves_nothing(serve: Serve, tmp_path: Path) -> None:
    """Clients that leave while their page waits: it is cancelled, and the server goes on."""
    import socket

    server = serve(str(write_site(tmp_path, {"x.html": "<?pya await slow(1, 30) ?>", "y.html": "fine"}, MAIN)))
    for _ in range(20):
        with socket.create_connection(("127.0.0.1", server.port)) as client:
            client.sendall(b"GET /x HTTP/1.1\r\nHost: x\r\n\r\n")
    wait_until(lambda: server.get("/y").text == "fine", "it answers")

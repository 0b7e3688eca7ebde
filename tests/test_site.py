"""A folder as a site: which file answers which URL, and what is never sent."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from client import served
from conftest import Serve
from server import Server, wait_until
from site_folder import write_site

# A file alone in a folder, a request below that folder, and the type of its answer; None is 404.
ROUTES = [
    ("x.html", "GET", "/x", "text/html; charset=utf-8"),
    ("x.html", "GET", "/x.html", None),
    ("index.html", "GET", "/", "text/html; charset=utf-8"),
    ("index.html", "GET", "/index", None),
    ("a/b/index.html", "GET", "/a/b/", "text/html; charset=utf-8"),
    ("a/index.dyn.html", "GET", "/a/", "text/html; charset=utf-8"),
    ("as.dyn.csv", "GET", "/as.csv", "text/csv; charset=utf-8"),
    ("as.dyn.csv", "GET", "/as.dyn.csv", None),
    ("feed.xml", "GET", "/feed.xml", "application/xml; charset=utf-8"),
    ("no_extension", "GET", "/no_extension", "application/octet-stream"),
    ("post.x.html", "POST", "/x", "text/html; charset=utf-8"),
    ("post.index.dyn.html", "POST", "/", "text/html; charset=utf-8"),
    ("put.x.html", "PUT", "/x", "text/html; charset=utf-8"),
    ("delete.x.html", "DELETE", "/x", "text/html; charset=utf-8"),
    ("patch.x.html", "PATCH", "/x", "text/html; charset=utf-8"),
    ("post.html", "GET", "/post", "text/html; charset=utf-8"),
    ("post.dyn.html", "GET", "/post", "text/html; charset=utf-8"),
    ("post.css", "GET", "/post.css", "text/css; charset=utf-8"),
    ("post.css", "GET", "/css", None),
    ("i.large/x.html", "GET", "/i.large/x", None),
    ("i/x.html", "GET", "/i/x", "text/html; charset=utf-8"),
    (".hidden", "GET", "/.hidden", None),
    (".git/config", "GET", "/.git/config", None),
    ("a/.git/config", "GET", "/a/.git/config", None),
    (".well-known/security.txt", "GET", "/.well-known/security.txt", "text/plain; charset=utf-8"),
    (".well-known/.hidden", "GET", "/.well-known/.hidden", None),
    ("head.priv.html", "GET", "/head", None),
    ("head.priv.html", "GET", "/head.priv.html", None),
    ("head.priv.html", "GET", "/head.priv", None),
    ("static/head.priv.css", "GET", "/static/head.priv.css", None),
    ("static/x.html", "GET", "/static/x", "text/html; charset=utf-8"),
    ("static/deep/x.js", "GET", "/static/deep/x.js", "text/javascript; charset=utf-8"),
    ("tool.py", "GET", "/tool.py", None),
    ("static/tool.py", "GET", "/static/tool.py", "text/plain; charset=utf-8"),
    ("__pycache__/x.pyc", "GET", "/__pycache__/x.pyc", None),
    ("x.html~", "GET", "/x.html~", None),
    ("a b+c.txt", "GET", "/a%20b+c.txt", "text/plain; charset=utf-8"),
    ("100%.txt", "GET", "/100%25.txt", "text/plain; charset=utf-8"),
    ("what?.txt", "GET", "/what%3F.txt", "text/plain; charset=utf-8"),
    ("#1.txt", "GET", "/%231.txt", "text/plain; charset=utf-8"),
    ("café.txt", "GET", "/caf%C3%A9.txt", "text/plain; charset=utf-8"),
]


@pytest.fixture(scope="module")
def routes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One server for the whole table. Each file holds its own name."""
    folder = tmp_path_factory.mktemp("routes")
    files = {f"{number}/{row[0]}": row[0] for number, row in enumerate(ROUTES)}
    yield from served(write_site(folder, files), folder)


@pytest.mark.parametrize("number", range(len(ROUTES)), ids=[f"{row[1]} {row[2]} of {row[0]}" for row in ROUTES])
def test_file_has_its_route(routes: Server, number: int) -> None:
    name, method, target, kind = ROUTES[number]
    reply = routes.request(method, f"/{number}{target}")
    if kind is None:
        assert reply.status == 404
    else:
        assert (reply.status, reply.text, reply.headers["content-type"]) == (200, name, kind)


@pytest.mark.parametrize("entry", ["site", "site/public_html", "./site/", ".site"])
def test_entry_names_the_folder_or_the_one_above(serve: Serve, tmp_path: Path, entry: str) -> None:
    folder = entry.strip("./").partition("/")[0] if not entry.startswith(".s") else ".site"
    write_site(tmp_path / folder, {"x.html": "<?py | #[[name]] ?>"}, "name = 'main'")
    assert serve(entry).get("/x").text == "main"


def test_current_folder_is_served_where_no_entry_is_given(serve: Serve, tmp_path: Path) -> None:
    write_site(tmp_path, {"x.html": "<?py | #[[name]] ?>"}, "name = 'main'")
    assert serve("").get("/x").text == "main"


def test_public_html_names_the_site_in_the_environment(serve: Serve, tmp_path: Path) -> None:
    write_site(tmp_path / "site", {"x.html": "<?py | #[[name]] ?>"}, "name = 'main'")
    assert serve("", env={"PUBLIC_HTML": "site"}).get("/x").text == "main"
    assert serve("", env={"PUBLIC_HTML": "site/public_html"}).get("/x").text == "main"


def test_public_html_beside_a_program(serve: Serve, tmp_path: Path) -> None:
    write_site(tmp_path / "site", {"x.html": "<?py | #[[name]] ?>", "y.html": "file"}, "name = 'main'")
    program = """
        from eighties import App
        app = App()
        name = "program"

        @app.get("/y")
        def y(request):
            return "app"
    """
    server = serve(program, "--public-html", "site")
    assert [server.get(path).text for path in ("/x", "/y")] == ["program", "app"]


@pytest.mark.parametrize(
    ("entry", "message"),
    [("empty", "empty has no folder public_html"), ("a.txt", "is not a Python file"), ("none", "nor a folder")],
)
def test_folder_without_a_site_is_refused(serve: Serve, tmp_path: Path, entry: str, message: str) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "a.txt").touch()
    server = serve(entry, wait=False)
    assert server.process.wait(60) == 2
    server.wait_for(message)
    server.wait()


def test_main_is_executed_first_and_its_app_comes_first(serve: Serve, tmp_path: Path) -> None:
    main = """
from eighties import App
import helper
app = App()
posts = [helper.word]

@app.get("/a")
def a(request):
    return "app"

@app.get("/any/{name}")
def any(request, name):
    return f"app {name}"
"""
    files = {"a.html": "file", "b.html": "<?py | #[[posts[0]]] ?>", "any/known.html": "file"}
    write_site(tmp_path, files, main)
    (tmp_path / "helper.py").write_text("word = 'helped'")
    server = serve(".")
    assert [server.get(path).text for path in ("/a", "/b", "/any/x", "/any/known")] == [
        "app", "helped", "app x", "file",
    ]  # fmt: skip


def test_broken_main_ends_the_server_with_its_traceback(serve: Serve, tmp_path: Path) -> None:
    server = serve(str(write_site(tmp_path, {"x.html": ""}, "1 / 0")), wait=False)
    assert server.wait() == 3
    assert "main.py" in server.log[-1]["traceback"] and "ZeroDivisionError" in server.log[-1]["traceback"]


def test_folder_redirects_to_its_index(serve: Serve, tmp_path: Path) -> None:
    files = {"a/index.html": "index", "b/x.html": "x", "c/index.html": "", "c.html": "page", "d/post.index.html": ""}
    server = serve(str(write_site(tmp_path, {**files, "caf\u00e9 x/index.html": ""})))
    reply = server.get("/a?b=c%20d&e")
    assert (reply.status, reply.headers["location"]) == (301, "/a/?b=c%20d&e")
    assert server.get("/caf%C3%A9%20x").headers["location"] == "/caf%C3%A9%20x/"
    assert [server.get(path).status for path in ("/b", "/b/", "/d")] == [404, 404, 404]
    assert server.get("/c").text == "page"


def test_method_that_no_file_answers_is_405(serve: Serve, tmp_path: Path) -> None:
    server = serve(str(write_site(tmp_path, {"x.html": "get", "post.x.html": "post", "style.css": ""})))
    assert [server.request(method, "/x").text for method in ("GET", "POST")] == ["get", "post"]
    reply = server.request("DELETE", "/x")
    assert (reply.status, reply.headers["allow"]) == (405, "GET, HEAD, POST, OPTIONS")
    assert server.request("POST", "/style.css").status == 405


@pytest.mark.parametrize(
    "name",
    ["x.html", "x.txt", "x.png", "x", "x.js", "X.HTML", "x.html.bak", ".well-known/x", "x.dyn.css", "deep/x.xml"],
)
def test_text_with_code_is_a_page_whatever_its_name(serve: Serve, tmp_path: Path, name: str) -> None:
    server = serve(str(write_site(tmp_path, {name: "<?py secret = 1\nwrite('ran') ?>"})))
    url = "/" + name.removesuffix(".html").replace(".dyn.", ".")
    assert server.get(url).text == "ran"


def test_what_is_no_page(serve: Serve, tmp_path: Path) -> None:
    files: dict[str, str | bytes] = {
        "a.txt": "no code",
        "picture.png": b"\x89PNG\0<?py 1/0 ?>",
        "static/x.html": "<?py shown ?>",
        "deep/static/er/x.txt": "<?include shown ?>",
        "php.html": "<?php echo 1 ?><?xml version='1.0'?>",
    }
    server = serve(str(write_site(tmp_path, files)))
    for name, text in files.items():
        reply = server.get("/" + name.removesuffix(".html"))
        assert reply.body == (text if isinstance(text, bytes) else text.encode()), name


@pytest.mark.parametrize("rest", [b"x" * 1_000_000, b"\0" * 9000, b"\0"], ids=["long", "long and odd", "odd"])
def test_page_that_cannot_be_one_is_not_sent_as_text(serve: Serve, tmp_path: Path, rest: bytes) -> None:
    server = serve(str(write_site(tmp_path, {"x.html": b"<?py secret = 1 ?>" + rest, "y.html": "fine"})))
    reply = server.get("/x")
    assert b"secret" not in reply.body
    assert server.get("/y").text == "fine"


@pytest.mark.parametrize(
    ("name", "source"),
    [
        ("x.html", "<?py#secret\n?>"),
        ("x.html", "<?py(secret) ?>"),
        ("x.txt", "<?PY secret ?>"),
        ("x.html", '<?include"secret"?>'),
        ("x.html", "\ufeff<?py secret ?>".encode("utf-16-le")),
        ("x.html", "<?py secret ?>".encode("utf-16-be")),
        ("x.html", "<?py secret ?>".encode("utf-32-le")),
        ("x", "\ufeff<?py secret ?>".encode("utf-16-be")),
        ("x.dyn.html", "<?py secret ?>".encode("utf-16-le")),
        ("x.html", b"x" * 2_000_000 + b"<?include secret ?>"),
    ],
)
def test_source_is_not_sent_whatever_is_wrong_with_it(
    serve: Serve, tmp_path: Path, name: str, source: str | bytes
) -> None:
    server = serve(str(write_site(tmp_path, {name: source})))
    reply = server.get("/x" if name.startswith("x.") and "html" in name else f"/{name}")
    assert b"secret" not in reply.body.replace(b"\0", b"") or len(source) > 1_000_000
    assert reply.status == (200 if len(source) > 1_000_000 else 500)


def test_compressed_pages_and_sources_have_no_route(serve: Serve, tmp_path: Path) -> None:
    files = {"x.html": "<?py 1 ?>", "y.css": "1", "tool.PY": "1", "x.priv": "1"}
    files |= {f"{name}{end}": "zipped" for name in ("x.html", "y.css") for end in (".gz", ".br", ".zst")}
    server = serve(str(write_site(tmp_path, files)))
    for path in ("/x.html.gz", "/x.html.br", "/x.html.zst", "/tool.PY", "/x.priv"):
        assert server.get(path).status == 404, path
    assert server.get("/y.css.gz").text == "zipped"


@pytest.mark.pure  # under sanitizers it takes a minute to walk over all these folders
def test_odd_trees_do_not_stop_the_start(serve: Serve, tmp_path: Path) -> None:
    root = write_site(tmp_path, {"x.html": "<?include p.priv.html ?>", "y.html": "fine"}) / "public_html"
    (root / "loop").symlink_to("loop")
    os.mkfifo(root / "p.priv.html")
    names = "abcdefg"
    for name in names:
        (root / "many" / name).mkdir(parents=True)
    for name in names:
        for other in names:
            (root / "many" / name / f"{other}{other}").symlink_to(f"../{other}")
    server = serve(".")
    assert server.get("/y").text == "fine"
    assert server.get("/x").status == 500
    server.wait_for("is not served: there are 10000 folders before it")


def test_file_that_is_cut_while_it_is_sent(serve: Serve, tmp_path: Path) -> None:
    """As logs are, by copytruncate; a mapped file would end the process."""
    root = write_site(tmp_path, {"log.txt": "line\n" * 500_000, "y.html": "fine"}) / "public_html"
    server = serve(".")
    pids = server.workers
    for _ in range(30):
        (root / "log.txt").write_text("line\n" * 500_000)
        with socket.create_connection(("127.0.0.1", server.port)) as client:
            client.sendall(b"GET /log.txt HTTP/1.1\r\nHost: x\r\n\r\n")
            client.recv(100)
            (root / "log.txt").write_text("")
    assert server.get("/y").text == "fine" and server.workers == pids


def test_headers_of_an_error_stay_with_its_page(serve: Serve, tmp_path: Path) -> None:
    raising = "<?py from eighties import HTTPError\nraise HTTPError({}, 'no', {{'X-Why': '1'}}) ?>"
    files = {
        "401.html": "plain",
        "403.html": "<?py | code ?>",
        "a.html": raising.format(401),
        "b.html": raising.format(403),
    }
    server = serve(str(write_site(tmp_path, files)))
    for path, status, text in (("/a", 401, "plain"), ("/b", 403, "code")):
        reply = server.get(path)
        assert (reply.status, reply.text, reply.headers["x-why"]) == (status, text, "1")


def test_thousands_of_pages_are_all_there_from_the_start(serve: Serve, tmp_path: Path) -> None:
    files = {f"{number}.html": f"<?include h.priv.html ?><?py | #[[{number}]] ?>" for number in range(2000)}
    files |= {"1999.html": "<?py = ?>", "1998.html": "<?pya | #[[await f()]] ?>", "h.priv.html": "<?py write('') ?>"}
    server = serve(str(write_site(tmp_path, files, "async def f(): return 1998")))
    assert [server.get(f"/{number}").text for number in (0, 1000, 1998)] == ["0", "1000", "1998"]
    assert server.get("/1999").status == 500
    server.wait_for("a page cannot be served: 1999.html:1")
    assert [server.get(f"/{number}").text for number in (0, 1000, 1998)] == ["0", "1000", "1998"]


def test_static_file_that_becomes_a_page_is_not_sent_as_text(serve: Serve, tmp_path: Path) -> None:
    server = serve(str(write_site(tmp_path, {"x.html": "plain"})))
    assert server.get("/x").text == "plain"
    write_site(tmp_path, {"x.html": "<?py secret = 1 ?>"})
    wait_until(lambda: server.get("/x").status == 500, "the change is noticed")
    assert "secret" not in server.get("/x").text
    write_site(tmp_path, {"x.html": "plain again"})
    wait_until(lambda: server.get("/x").text == "plain again", "the change is noticed")


def test_nothing_outside_the_root(serve: Serve, tmp_path: Path) -> None:
    (tmp_path / "secret.txt").write_text("secret")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "x.html").write_text("secret")
    write_site(tmp_path, {"sub/x.html": "fine", "inc.html": "<?include ../secret.txt ?>"}, "secret = 1")
    root = tmp_path / "public_html"
    (root / "link.txt").symlink_to(tmp_path / "secret.txt")
    (root / "static").symlink_to(tmp_path / "folder")
    (root / "inc2.html").write_text("<?include link.txt ?>")
    (root / "good.html").symlink_to("sub/x.html")
    (root / "again").symlink_to("sub")
    (root / "sub" / "loop").symlink_to(root)
    os.mkfifo(root / "pipe.txt")
    (root / "gone.txt").symlink_to("nothing")
    server = serve(".")
    assert [server.get(path).text for path in ("/good", "/again/x", "/sub/x")] == ["fine"] * 3
    refused = ["/link.txt", "/static/x", "/static/x.html", "/pipe.txt", "/gone.txt", "/sub/loop/sub/x"]
    refused += [
        "/../main.py",
        "/..%2fmain.py",
        "/%2e%2e/main.py",
        "/%2e%2e%2fmain.py",
        "/sub/../../main.py",
        "//main.py",
    ]
    refused += [
        "/sub%2Fx",
        "/sub%2fx",
        "/sub/x%00",
        "/sub/x%00.html",
        "/sub\\x",
        "/sub//x",
        "/./sub/x",
        "/sub/./x",
        "/sub/x/",
    ]
    for target in refused:
        assert server.get(target).status in (400, 404), target
    for target in ("/inc", "/inc2"):
        reply = server.get(target)
        assert reply.status == 500 and "secret\n" not in reply.text
    assert "inc.html:1: cannot include inc.html -> ../secret.txt" in server.stderr


def test_static_link_turned_outward_is_no_longer_followed(serve: Serve, tmp_path: Path) -> None:
    (tmp_path / "secret.txt").write_text("secret")
    root = write_site(tmp_path, {"a.txt": "fine"}) / "public_html"
    (root / "link.txt").symlink_to("a.txt")
    server = serve(".")
    assert server.get("/link.txt").text == "fine"
    (root / "link.txt").unlink()
    (root / "link.txt").symlink_to(tmp_path / "secret.txt")
    wait_until(lambda: server.get("/link.txt").status == 404, "the change is noticed")


def test_names_that_cannot_be_served_are_told(serve: Serve, tmp_path: Path) -> None:
    root = (
        write_site(tmp_path, {"{x}.html": "1", "a.html": "1", "a.dyn.html": "2", "b": "1", "b.html": "2"})
        / "public_html"
    )
    Path(os.fsdecode(os.fsencode(root) + b"/\xff.txt")).write_text("no UTF-8")
    server = serve(".")
    assert server.get("/a").text == "2"
    assert server.get("/b").text == "1"
    server.wait_for("'{x}.html' cannot be served")
    server.wait_for("a.html is hidden by a.dyn.html: both are GET /a")
    server.wait_for("b.html is hidden by b: both are GET /b")
    server.wait_for("'\\udcff.txt' cannot be served")


def test_no_static(serve: Serve, tmp_path: Path) -> None:
    write_site(tmp_path, {"static/a.css": "1", "a.css": "1", "deep/static/b.css": "1", "static.html": "1"})
    for server in (serve(".", "--no-static"), serve(".", env={"NO_STATIC": "true"})):
        assert [server.get(path).status for path in ("/static/a.css", "/deep/static/b.css", "/a.css", "/static")] == [
            404, 404, 200, 200,
        ]  # fmt: skip


def test_error_pages_of_the_site(serve: Serve, tmp_path: Path) -> None:
    files = {
        "404.html": "<?include head.priv.html ?>no <?py | #[[endpoint]] ?>",
        "500.dyn.html": "sorry",
        "405.html": "plain",
        "head.priv.html": "<title>x</title>",
        "oops.html": "<?py 1/0 ?>",
        "gone.html": "<?py from eighties import HTTPError\nraise HTTPError(404) ?>",
        "deep/404.html": "a page",
    }
    server = serve(str(write_site(tmp_path, files)))
    for path in ("/none", "/gone", "/404", "/500"):
        reply = server.get(path)
        assert (reply.status, reply.text) == (404, f"<title>x</title>no {path}"), path
        assert reply.headers["content-type"] == "text/html; charset=utf-8"
    reply = server.get("/oops")
    assert (reply.status, reply.text, reply.headers["content-type"]) == (500, "sorry", "text/html; charset=utf-8")
    reply = server.request("POST", "/oops")
    assert (reply.status, reply.text, reply.headers["allow"]) == (405, "plain", "GET, HEAD, OPTIONS")
    assert reply.headers["etag"] is None
    assert server.get("/deep/404").text == "a page"


def test_programs_get_errors_as_json_and_pages_know_the_error(serve: Serve, tmp_path: Path) -> None:
    raising = "<?py from eighties import HTTPError\nraise HTTPError({}, 'no such post') ?>"
    files = {"404.html": "<?py | #[[locals['error'].detail]] ?>", "410.html": "plain"}
    files |= {"a.html": raising.format(404), "b.html": raising.format(410)}
    server = serve(str(write_site(tmp_path, files)))
    for path, status, text in (("/a", 404, "no such post"), ("/b", 410, "plain")):
        reply = server.get(path)
        assert (reply.status, reply.text, reply.headers["vary"]) == (status, text, "Accept")
        reply = server.get(path, Accept="application/json")
        assert (reply.status, reply.json()["detail"], reply.headers["vary"]) == (status, "no such post", "Accept")


def test_developers_browsers_keep_nothing_without_asking(serve: Serve, tmp_path: Path) -> None:
    site = str(write_site(tmp_path, {"static/a.css": ""}))
    assert serve(site).get("/static/a.css").headers["cache-control"] == "public, max-age=604800, immutable"
    assert serve(site, "--dev").get("/static/a.css").headers["cache-control"] == "no-cache"


def test_handlers_of_the_app_go_before_error_pages(serve: Serve, tmp_path: Path) -> None:
    main = """
from eighties import App
app = App()

@app.error(404)
def none(request, error):
    return "the app's"
"""
    server = serve(
        str(write_site(tmp_path, {"404.html": "the site's", "500.html": "sorry", "x.html": "<?py 1/0 ?>"}, main))
    )
    assert (server.get("/none").status, server.get("/none").text) == (404, "the app's")
    assert server.get("/x").text == "sorry"


def test_error_page_that_fails_itself(serve: Serve, tmp_path: Path) -> None:
    server = serve(
        str(write_site(tmp_path, {"500.html": "<?py 1/0 ?>", "404.html": "<?py = ?>", "x.html": "<?py 1/0 ?>"}))
    )
    assert (server.get("/x").status, server.get("/x").text) == (500, "Internal Server Error\n")
    assert server.get("/none").status == 500


def test_hooks_of_the_app_are_around_pages_and_files(serve: Serve, tmp_path: Path) -> None:
    main = """
from eighties import App
app = App()

@app.before
def guard(request):
    if request.query.get("key") != "1":
        return "no"

@app.after
def mark(request, response):
    response.headers["X-Mark"] = "1"
"""
    server = serve(str(write_site(tmp_path, {"a.css": "css", "x.html": "<?py | page ?>"}, main)))
    for path, text in (("/a.css", "css"), ("/x", "page"), ("/a.css", "css")):
        assert server.get(path).text == "no"
        reply = server.get(f"{path}?key=1")
        assert (reply.text, reply.headers["x-mark"]) == (text, "1")


def test_reload_looks_at_the_folder_again(serve: Serve, tmp_path: Path, workers: int) -> None:
    files = {
        "a.html": "<?include h.priv.html ?><?py | one ?>",
        "h.priv.html": "head ",
        "b.css": "1",
        "c.html": "<?py | c ?>",
    }
    root = write_site(tmp_path, files) / "public_html"
    server = serve(".", "-c", str(workers), env={"RELOAD": "true"})
    server.wait_for_workers(workers)

    def becomes(path: str, *answer: object) -> None:
        def all_the_same() -> bool:
            replies = [server.get(path) for _ in range(2 * workers)]
            return all((reply.status, reply.text)[: len(answer)] == answer for reply in replies)

        wait_until(all_the_same, f"{path} answers {answer}")

    becomes("/a", 200, "head one")
    (root / "a.html").write_text("<?include h.priv.html ?><?py | two ?>")
    becomes("/a", 200, "head two")
    (root / "h.priv.html").write_text("HEAD ")
    becomes("/a", 200, "HEAD two")
    (root / "new").mkdir()
    (root / "new" / "index.html").write_text("new")
    becomes("/new/", 200, "new")
    (root / "c.html").unlink()
    becomes("/c", 404)
    (root / "a.html").write_text("<?py = ?>")
    becomes("/a", 500)
    server.wait_for("a page cannot be served: a.html:1")
    (root / "a.html").write_text("<?py | three ?>")
    becomes("/a", 200, "three")
    (root / "b.css").write_text("<?py | page ?>")
    becomes("/b.css", 200, "page")


def test_reload_follows_a_folder_that_takes_the_place(serve: Serve, tmp_path: Path) -> None:
    write_site(tmp_path / "old", {"a.html": "old"})
    write_site(tmp_path / "new", {"a.html": "new"})
    (tmp_path / "old" / "public_html").rename(tmp_path / "public_html")
    server = serve(".", "--reload")
    assert server.get("/a").text == "old"
    (tmp_path / "public_html").rename(tmp_path / "gone")
    (tmp_path / "new" / "public_html").rename(tmp_path / "public_html")
    wait_until(lambda: server.get("/a").text == "new", "the new folder is served")
    (tmp_path / "public_html" / "a.html").write_text("newer")
    wait_until(lambda: server.get("/a").text == "newer", "the new folder is watched")


def test_without_reload_pages_stay_and_files_change(serve: Serve, tmp_path: Path) -> None:
    root = write_site(tmp_path, {"a.html": "<?py | one ?>", "b.css": "1"}) / "public_html"
    server = serve(".")
    assert [server.get(path).text for path in ("/a", "/b.css")] == ["one", "1"]
    (root / "a.html").write_text("<?py | two ?>")
    (root / "b.css").write_text("22")
    wait_until(lambda: server.get("/b.css").text == "22", "the change is noticed")
    assert server.get("/a").text == "one"


def test_limits_under_the_ancestors_names(serve: Serve, tmp_path: Path) -> None:
    write_site(tmp_path, {"post.x.html": "<?py | #[[len(body)]] ?>"})
    server = serve(".", env={"HTTP_MAX_BODY_SIZE": "100", "HTTP_MAX_HEADER_SIZE": "300"})
    assert server.request("POST", "/x", b"x" * 100).text == "100"
    assert server.request("POST", "/x", b"x" * 101).status == 413
    assert server.request("POST", "/x", b"", {"X": "x" * 300}).status == 431
    bad = serve(".", env={"HTTP_MAX_BODY_SIZE": "1 MB"}, wait=False)
    assert bad.wait() == 2
    bad.wait_for("HTTP_MAX_BODY_SIZE must be a whole number")

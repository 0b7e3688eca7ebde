"""What developers and visitors are shown of an error: HTML, JSON or text, with and without --dev."""

from __future__ import annotations

import re
from base64 import b64encode
from collections.abc import Iterator
from hashlib import sha256
from html import unescape
from pathlib import Path
from typing import Any

import pytest
from client import served
from conftest import Serve
from html_reader import Reader
from server import Server

from eighties.errorpage import POLICY
from eighties.errorreport import SHOWN_FRAMES
from eighties.errors import preferred_form

BROWSER = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"
JSON = "application/json"
SECRET = "a value that nobody may see"
HOSTILE = "</pre></mark><script>alert(1)</script>\x1b[31m\u202e"

PROGRAM = f"""
    import asyncio, json, os
    from eighties import App, HTTPError
    from eighties.pages.scanner import PageError
    app = App()

    class Speechless(Exception):
        def __str__(self): raise SystemExit("never")
    class Missing(LookupError): pass

    def half(number, secret={SECRET!r}):
        rest = secret * 2
        return str(number / 0) + rest

    @app.get("/zero")
    def zero(request): return half(1)
    @app.get("/library")
    async def library(request):
        await asyncio.sleep(0)
        return json.loads("[1,")
    @app.get("/hostile/{{rest:path}}")
    def hostile(request, rest): raise ValueError({HOSTILE!r})
    @app.get("/chain")
    def chain(request):
        try:
            half(1)
        except ZeroDivisionError as error:
            error.add_note("a note <i>of mine</i>")
            try:
                raise Missing("no such thing") from error
            except Missing:
                raise RuntimeError("while handling")
    @app.get("/group")
    async def group(request):
        async def fails(text): raise ValueError(text)
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(fails("first\\nof two"))
            tasks.create_task(fails("second"))
    def deeper(number): return deeper(number + 1)
    @app.get("/deep")
    def deep(request): return deeper(0)
    def ping(number): return pong(number)
    def pong(number): return ping(number)
    @app.get("/ping")
    def ping_pong(request): return ping(0)
    @app.get("/speechless")
    def speechless(request): raise Speechless()
    @app.get("/syntax")
    def syntax(request): import broken
    @app.get("/page")
    def broken_page(request):
        folder = os.path.abspath("site/posts")
        part, index = folder + "/part.html", folder + "/index.html"
        error = PageError(part, 2, "the block is not closed <&", "<?py", (index, part))
        if "shown" in request.query:
            error.shown = "posts/part.html"
        raise error
    @app.get("/refused/{{kind}}")
    def refused(request, kind):
        fields = {{"plain": {{"X-Why": "test"}}, "typed": {{"Content-Type": "application/problem+json"}}}}
        raise HTTPError(403, "no <entry> \\udc80", fields.get(kind))
    @app.get("/refused")
    def refused_without_words(request): raise HTTPError(404)
"""
FILES = {
    "broken.py": "def fine():\n    return 1\n\ndef bad(:\n    pass\n",
    "site/posts/part.html": "<p>one</p>\n<?py if <b>:\n<p>three</p>\n",
    "site/posts/index.html": "<?include part.html ?>\n",
}


def run(folder: Path, *arguments: str) -> Iterator[Server]:
    for name, text in FILES.items():
        folder.joinpath(name).parent.mkdir(parents=True, exist_ok=True)
        folder.joinpath(name).write_text(text)
    yield from served(PROGRAM, folder, *arguments)


@pytest.fixture(scope="module")
def dev(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    yield from run(tmp_path_factory.mktemp("dev"), "--dev")


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    yield from run(tmp_path_factory.mktemp("live"))


def line_of(text: str, source: str = PROGRAM) -> int:
    """The line of the program, as it is written to its file, that holds a text."""
    return source[: source.index(text)].count("\n") + 1


def shown(server: Server, path: str) -> tuple[str, Reader]:
    # As a script asks for it: what a browser shows follows reloads, see test_follow.py
    reply = server.get(path, **{"Accept": BROWSER, "Sec-Fetch-Dest": "empty"})
    assert (reply.status, reply.headers["content-type"]) == (500, "text/html; charset=utf-8")
    return reply.text, Reader(reply.text)


def as_json(server: Server, path: str) -> Any:
    reply = server.get(path, Accept=JSON)
    assert (reply.status, reply.headers["content-type"], reply.headers["vary"]) == (500, JSON, "Accept")
    return reply.json()


# ---- the page ----


def test_page_begins_with_the_place(dev: Server) -> None:
    text, found = shown(dev, "/zero")
    line = line_of("number / 0")
    assert found.texts["title"] == "ZeroDivisionError: division by zero"
    assert "GET /zero in zero (program.py:" in text
    place = text.index(f"<code>program.py:{line}</code> in <b>half</b>")
    assert text.index("<h1>") < place < text.index('id="copy"') < text.index("Called from")
    assert f"<mark>{line:>5}      return str(<b>number / 0</b>) + rest\n</mark>" in text
    assert text.count("<mark>") == 2  # this one, and who called it
    assert "<details open><summary><code>program.py:" in text


def test_page_is_accessible_and_small(dev: Server) -> None:
    text, found = shown(dev, "/zero")
    tags = [tag for tag, _ in found.found]
    assert tags.count("main") == tags.count("h1") == tags.count("header") == 1
    attributes = {key: values for key, values in found.found if key in ("html", "button", "script")}
    assert attributes["html"] == {"lang": "en"}
    assert attributes["button"] == {"id": "copy", "type": "button", "hidden": None}
    assert found.texts["button"] == "Copy as text"
    assert all("tabindex" in values for tag, values in found.found if tag == "pre")
    assert "prefers-color-scheme: dark" in text and "width=device-width" in text
    assert len(text) < 10_000
    assert not re.search(r"<[^>]+ (?:src|href|action|style|on\w+)=|url\(|@import|//", text)


def test_policy_allows_this_script_and_style_only(dev: Server) -> None:
    reply = dev.get("/hostile/x", **{"Accept": BROWSER, "Sec-Fetch-Dest": "empty"})
    rules = dict(rule.split(" ", 1) for rule in reply.headers["content-security-policy"].split("; "))

    def hashes(tag: str) -> list[str]:
        contents = re.findall(rf"<{tag}\b[^>]*>(.*?)</{tag}>", reply.text, re.DOTALL)
        return [f"'sha256-{b64encode(sha256(content.encode()).digest()).decode()}'" for content in contents]

    assert rules["default-src"] == rules["base-uri"] == rules["form-action"] == "'none'"
    assert hashes("script") == [rules["script-src"]]
    assert hashes("style") == [rules["style-src"]]


def test_everything_is_escaped(dev: Server) -> None:
    text, found = shown(dev, "/hostile/%3Cscript%3Ealert(2)%3C/script%3E%1b%00")
    assert [tag for tag, _ in found.found].count("script") == 1
    assert "alert(" not in found.texts["script"]
    assert "GET /hostile/&lt;script&gt;alert(2)&lt;/script&gt;\\x1b" in text
    assert "</span>: &lt;/pre&gt;&lt;/mark&gt;&lt;script&gt;alert(1)&lt;/script&gt;\\x1b[31m\\u202e</h1>" in text
    plain = dev.get("/hostile/x").text
    assert "\x1b" not in plain and "\\x1b[31m\\u202e\n" in plain


def test_no_values_of_variables(dev: Server) -> None:
    answers = [dev.get("/zero", Accept=accept).text for accept in (BROWSER, JSON, "*/*")]
    # The source is shown, where it stands as a default; the doubled value of `rest` is nowhere
    assert all(SECRET * 2 not in answer for answer in answers)


def test_libraries_are_folded(dev: Server) -> None:
    text, _ = shown(dev, "/library")
    place = text.index(f"<code>program.py:{line_of('json.loads')}</code> in <b>library</b>")
    folded = text.index("<details><summary>3 frames of libraries and the server</summary>")
    assert place < folded < text.index("raw_decode</b>")
    stack = as_json(dev, "/library")["stack"]
    assert [frame["own"] for frame in stack] == [False, False, False, True]
    assert stack[-1]["code"] == 'return json.loads("[1,")'


def test_chain_and_notes(dev: Server) -> None:
    text, found = shown(dev, "/chain")
    heads = re.findall(r"<h2 id[^>]*>(.*?)</h2>\n<h3>(.*?)</h3>", text)
    assert [(how, re.sub("<.*?>", "", what)) for how, what in heads] == [
        ("Raised while handling", "program.Missing: no such thing"),
        ("Caused by", "ZeroDivisionError: division by zero"),
    ]
    assert '<p class="note">a note &lt;i&gt;of mine&lt;/i&gt;</p>' in text
    plain = dev.get("/chain").text
    assert re.findall(r"^(?:\w|\.)+(?:Error|Missing): .*", plain, re.MULTILINE) == [
        "ZeroDivisionError: division by zero",
        "program.Missing: no such thing",
        "RuntimeError: while handling",
    ]
    assert "direct cause of" in plain and "During handling of" in plain
    assert (
        plain.rstrip()
        == unescape(found.texts["code"][found.texts["code"].index("Traceback") :]).partition("--")[0].rstrip()
    )
    chain = as_json(dev, "/chain")["chain"]
    assert [(one["relation"], one["error"]) for one in chain] == [
        ("context", "program.Missing"),
        ("cause", "ZeroDivisionError"),
    ]
    assert chain[1]["notes"] == ["a note <i>of mine</i>"]


def test_group(dev: Server) -> None:
    text, _ = shown(dev, "/group")
    assert text.count(">In the group</h2>") == 2
    assert text.index("</span>: first\nof two</h3>") < text.index("</span>: second</h3>")
    plain = dev.get("/group").text
    assert plain.index("ExceptionGroup: ") < plain.index("  | ValueError: first\n  | of two\n") < plain.index("second")


def test_recursion(dev: Server) -> None:
    text, _ = shown(dev, "/deep")
    assert re.search(r"in <b>deeper</b>, 9\d\d more times the same", text)
    assert "in <b>deep</b>" in text
    assert "[Previous line repeated 9" in dev.get("/deep").text
    text, _ = shown(dev, "/ping")
    assert text.count("<mark>") == SHOWN_FRAMES
    assert re.search(r"9\d\d further frames are not shown", text)
    assert len(as_json(dev, "/ping")["stack"]) == SHOWN_FRAMES


def test_exception_without_text(dev: Server) -> None:
    assert "</span>: &lt;its __str__ raised SystemExit&gt;</h1>" in shown(dev, "/speechless")[0]
    assert as_json(dev, "/speechless")["message"] == "<its __str__ raised SystemExit>"
    assert dev.get("/speechless").text.endswith("\nprogram.Speechless: <its __str__ raised SystemExit>\n")


def test_syntax_error(dev: Server) -> None:
    text, _ = shown(dev, "/syntax")
    assert text.index("<code>broken.py:4</code>") < text.index("<code>program.py:")
    assert "<mark>    4  def bad(<b>:</b>\n</mark>" in text
    assert '  File "broken.py", line 4\n    def bad(:\n            ^\nSyntaxError: ' in dev.get("/syntax").text
    found = as_json(dev, "/syntax")
    assert (found["error"], found["file"], found["line"]) == ("SyntaxError", "broken.py", 4)


def test_page_that_does_not_compile(dev: Server) -> None:
    text, _ = shown(dev, "/page")
    assert "<h1><span>PageError</span>: the block is not closed &lt;&amp;</h1>" in text
    assert text.index("<code>site/posts/part.html:2</code>") < text.index("<mark>    2  &lt;?py if &lt;b&gt;:\n</mark>")
    assert "Included from <code>site/posts/index.html</code>" in text
    found = as_json(dev, "/page")
    assert {key: found[key] for key in ("error", "message", "file", "line", "includes", "chain")} == {
        "error": "PageError",
        "message": "the block is not closed <&",
        "file": "site/posts/part.html",
        "line": 2,
        "includes": ["site/posts/index.html"],
        "chain": [],
    }
    assert found["source"][1] == {"line": 2, "code": "<?py if <b>:"}
    plain = dev.get("/page").text
    assert '  File "site/posts/part.html", line 2\n    <?py if <b>:\n  included from site/posts/index.html\n' in plain


def test_a_saved_file_is_shown_as_it_is_now(serve: Serve, tmp_path: Path) -> None:
    part = tmp_path / "part.py"
    part.write_text("def fail():\n    return 1 / 0  # before\n")
    server = serve(
        """
        import importlib, part
        from eighties import App
        app = App()
        @app.get("/")
        def root(request): return importlib.reload(part).fail()
        """,
        "--dev",
    )
    assert "# before" in server.get("/", Accept=BROWSER).text
    part.write_text("def fail():\n    # a new line\n    return 1 / 0  # and after\n")
    text = server.get("/", Accept=BROWSER).text
    assert "# and after" in text and "# before" not in text


# ---- what is answered to whom ----


@pytest.mark.parametrize(
    ("accept", "form"),
    [
        ("", "text"),
        ("*/*", "text"),
        (BROWSER, "html"),
        ("text/html", "html"),
        ("TEXT/HTML;Level=1", "html"),
        (JSON, "json"),
        ("application/json, text/plain, */*", "json"),
        ("text/html, application/json", "html"),
        ("application/json, text/html", "json"),
        ("text/html;q=0.5, application/json;q=0.9", "json"),
        ("text/html;q=0.9, application/json;q=0.5", "html"),
        ("text/html;q=.9, application/problem+json ; q = 0.95", "html"),
        ("text/html;q=0.3, application/problem+json ; q = 0.95", "json"),
        ("*/json", "json"),
        ("application/json;q=0", "text"),
        ("application/json;q=0.000, text/html;q=0.001", "html"),
        ("text/plain, text/html;q=0.9", "text"),
        ("application/json;q=nan", "json"),
        (",;,;q=,=;;q=1;text/html", "text"),
        ("application/*", "text"),
    ],
)
def test_preferred_form(accept: str, form: str) -> None:
    assert preferred_form(accept) == form


def test_several_accept_fields(dev: Server) -> None:
    reply = dev.request("GET", "/zero", headers={"Accept": "text/html;q=0.1", "accept": JSON})
    assert reply.headers["content-type"] == JSON


def test_json_of_developers(dev: Server) -> None:
    found = as_json(dev, "/zero")
    line = line_of("number / 0")
    assert list(found) == ["error", "message", "file", "line", "source", "stack", "chain"]
    assert (found["error"], found["message"]) == ("ZeroDivisionError", "division by zero")
    assert (found["file"], found["line"], found["chain"]) == ("program.py", line, [])
    assert {"line": line, "code": "    return str(number / 0) + rest"} in found["source"]
    assert found["stack"][0] == {
        "file": "program.py",
        "line": line,
        "function": "half",
        "code": "return str(number / 0) + rest",
        "own": True,
    }


def test_text_of_developers(dev: Server) -> None:
    reply = dev.get("/zero")
    assert (reply.status, reply.headers["content-type"]) == (500, "text/plain; charset=utf-8")
    line = line_of("number / 0")
    assert reply.text.startswith("Traceback (most recent call last):\n")
    assert reply.text.endswith(
        f'  File "program.py", line {line}, in half\n    return str(number / 0) + rest\n'
        "               ^^^^^^^^^^\nZeroDivisionError: division by zero\n"
    )


@pytest.mark.parametrize("accept", [BROWSER, "*/*"])
def test_visitors_read_no_more_than_they_need(live: Server, accept: str) -> None:
    for path in ("/zero", "/speechless", "/chain", "/syntax"):
        reply = live.get(path, Accept=accept)
        assert (reply.status, reply.text) == (500, "Internal Server Error\n")
        assert reply.headers["content-type"] == "text/plain; charset=utf-8"
    reply = live.get("/page?shown", Accept=accept)
    assert reply.status == 500
    assert reply.text == "Internal Server Error\nposts/part.html:2: the page cannot be compiled\n"
    assert live.get("/page").text == "Internal Server Error\npart.html:2: the page cannot be compiled\n"


def test_visitors_who_prefer_json(live: Server) -> None:
    assert as_json(live, "/zero") == {"error": "Internal Server Error", "status": 500}
    assert as_json(live, "/page?shown") == {
        "error": "Internal Server Error",
        "status": 500,
        "detail": "posts/part.html:2: the page cannot be compiled",
    }


@pytest.mark.parametrize("server", ["dev", "live"])
def test_http_errors_are_the_same_to_all(server: str, request: pytest.FixtureRequest) -> None:
    chosen: Server = request.getfixturevalue(server)
    reply = chosen.get("/refused/plain", Accept=BROWSER)
    assert (reply.status, reply.text, reply.headers["x-why"]) == (403, "no <entry> \\udc80\n", "test")
    reply = chosen.get("/refused/plain", Accept=JSON)
    assert (reply.status, reply.headers["content-type"], reply.headers["x-why"]) == (403, JSON, "test")
    assert reply.json() == {"error": "Forbidden", "status": 403, "detail": "no <entry> \udc80"}
    assert chosen.get("/refused", Accept=JSON).json() == {"error": "Not Found", "status": 404}
    reply = chosen.get("/refused/typed", Accept=JSON)  # the program has chosen another type for its words
    assert (reply.headers["content-type"], reply.text) == ("application/problem+json", "no <entry> \\udc80\n")


def test_policy_has_no_inline_rule() -> None:
    assert "unsafe" not in POLICY


def test_what_serves_without_errors_loads_no_report(serve: Serve) -> None:
    server = serve(
        """
        import sys
        from eighties import App, HTTPError
        app = App()
        @app.get("/")
        def root(request): return [name for name in sys.modules if name.startswith("eighties.error")]
        @app.get("/none")
        def none(request): raise HTTPError(404)
    """,
        "--dev",
    )
    assert server.get("/none").status == 404
    assert server.get("/").json() == ["eighties.errors"]

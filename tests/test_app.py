"""App: registration and its mistakes, limits, clashes and mounts: without a server."""

from __future__ import annotations

import ast
import functools
import inspect
import re
import runpy
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import eighties
from eighties import App, Request
from eighties import app as app_module
from eighties.limits import LIMITS

# ---- the package ----


def test_every_public_name_is_there() -> None:
    for name in eighties.__all__:
        assert getattr(eighties, name) is not None
        assert name in dir(eighties)
    assert set(eighties.__all__) == set(eighties._HOMES)
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        eighties.nonsense  # type: ignore[attr-defined] # noqa: B018


def loaded_by(statement: str) -> set[str]:
    code = f"import sys; before = set(sys.modules); {statement}; print(*set(sys.modules) - before)"
    return set(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split())


def test_imports_stay_small() -> None:
    assert not loaded_by("import eighties, eighties.cli") & {"asyncio", "json", "eighties._engine", "eighties.http"}
    # The engine needs asyncio, which brings its own
    heavy = {"json", "multipart", "mimetypes", "email", "decimal", "uuid", "http.client", "tempfile", "html", "difflib"}
    assert not loaded_by("from eighties import App, Request, Response") & heavy


def test_state_takes_anything() -> None:
    eighties.state.something = 1
    assert eighties.state.something == 1
    del eighties.state.something


# ---- limits ----


def test_limits_are_keywords() -> None:
    assert App(max_body=5, handler_timeout=0).limits == {"max_body": 5, "handler_timeout": 0}
    assert App().limits == {}
    assert App().server_header == "80s"
    assert App(server_header=None).server_header is None


def test_limits_of_the_type_are_those_of_the_table() -> None:
    tree = ast.parse(inspect.getsource(app_module))
    (values,) = [node for node in ast.walk(tree) if isinstance(node, ast.ClassDef) and node.name == "LimitValues"]
    names = [
        node.target.id for node in values.body if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name)
    ]
    assert names == [limit.name for limit in LIMITS]


@pytest.mark.parametrize("value", [-1, 1.5, "1", True, None])
def test_limits_are_whole_numbers(value: Any) -> None:
    with pytest.raises(ValueError, match="limit max_body must be a whole number"):
        App(max_body=value)


def test_unknown_limits() -> None:
    with pytest.raises(TypeError, match="no limit 'max_bodi'; did you mean max_body"):
        App(max_bodi=1)  # type: ignore[call-arg]
    with pytest.raises(TypeError, match="no limit 'qqq'; limits are max_request_line"):
        App(qqq=1)  # type: ignore[call-arg]


# ---- patterns ----


@pytest.mark.parametrize(
    ("pattern", "complaint"),
    [
        ("", "must begin with /"),
        ("users", "must begin with /"),
        ("/a{b}", "fills a whole segment"),
        ("/{a}b", "fills a whole segment"),
        ("/{{a}}", "fills a whole segment"),
        ("/a}", "fills a whole segment"),
        ("/{a}/{a}", "'a' stands twice"),
        ("/{a}/b/{a:int}", "'a' stands twice"),
        ("/{p:path}/x", "must stand at the end"),
        ("/{x:str}", "a parameter is {name}, {name:int} or {name:path}, not {x:str}"),
        ("/{x:}", "not {x:}"),
        ("/{}", "must be a Python name"),
        ("/{1}", "must be a Python name"),
        ("/{class}", "must be a Python name"),
        ("/a//b", "a segment is ''"),
        ("/a/../b", "a segment is '..'"),
        ("/a?b", "decoded path"),
        ("/a%20b", "decoded path"),
        ("/a\n", "decoded path"),
        ("/" + "/".join(f"{{p{n}}}" for n in range(17)), "more than 16 parameters"),
    ],
)
def test_bad_patterns(pattern: str, complaint: str) -> None:
    with pytest.raises(ValueError) as caught:
        App().get(pattern)
    assert complaint in str(caught.value)
    assert repr(pattern) in str(caught.value)


def test_methods() -> None:
    app = App()

    @app.route("/", ["get", "POST"])
    def both(request: Request) -> None: ...

    for name in ("put", "delete", "patch", "options"):
        getattr(app, name)("/")(both)
    assert [route.method for route in app.routes()] == ["GET", "POST", "PUT", "DELETE", "PATCH", "OPTIONS"]
    assert app.routes()[0].handler is both
    assert app.routes()[0].name == f"both (test_app.py:{both.__code__.co_firstlineno})"
    with pytest.raises(ValueError, match="method 'BREW' is none of GET HEAD"):
        app.route("/", ["BREW"])
    assert App().route("/x", "HEAD")(both) is both


# ---- handlers ----


class Views:
    def good(self, request: Request, id: int) -> None: ...
    def __call__(self, request: Request, id: int) -> None: ...


def no_request() -> None: ...
def no_id(request: Request) -> None: ...
def takes_id_first(id: int) -> None: ...
def positional_id(request: Request, id: int, /) -> None: ...
def more(request: Request, id: int, name: str) -> None: ...
def good(request: Request, id: int) -> None: ...
def defaults(request: Request, id: int, name: str = "x", *, flag: bool = False) -> None: ...
def keyword_only(request: Request, *, id: int) -> None: ...
def anything(*args: Any, **kwargs: Any) -> None: ...


@pytest.mark.parametrize(
    "handler", [good, defaults, keyword_only, anything, Views().good, Views(), functools.partial(more, name="x")]
)
def test_handlers_that_fit(handler: Callable[..., Any]) -> None:
    assert App().get("/{id:int}")(handler) is handler


@pytest.mark.parametrize(
    ("handler", "complaint"),
    [
        (no_request, "does not take the request"),
        (no_id, "does not take id"),
        (takes_id_first, "takes the request as 'id'"),
        (positional_id, "does not take id"),
        (more, "asks for name, which the pattern does not have"),
        (Views.good, "asks for request"),
        (7, "cannot be called"),
    ],
)
def test_handlers_that_do_not(handler: Any, complaint: str) -> None:
    with pytest.raises(TypeError) as caught:
        App().get("/{id:int}")(handler)
    assert complaint in str(caught.value)
    assert "'/{id:int}'" in str(caught.value)
    if handler != 7:
        assert f"{__file__}:{handler.__code__.co_firstlineno}" in str(caught.value)


def test_streams_are_read_by_async_handlers() -> None:
    with pytest.raises(TypeError, match="must be an async def"):
        App().post("/", stream=True)(no_id)

    async def waits(request: Request) -> None: ...

    App().post("/", stream=True)(waits)


# ---- clashes ----


def place(handler: Callable[..., Any]) -> str:
    return f"{__file__}:{handler.__code__.co_firstlineno}"


def first(request: Request, a: str) -> None: ...
def second(request: Request, b: str) -> None: ...


def assert_clash(register: Callable[[], object]) -> None:
    with pytest.raises(ValueError, match="two routes clash") as caught:
        register()
    assert place(first) in str(caught.value)
    assert place(second) in str(caught.value)


def test_clashes_name_both_places() -> None:
    app = App()
    app.get("/x/{a}")(first)
    assert_clash(lambda: app.get("/x/{b}")(second))
    app.post("/x/{b}")(second)
    app.get("/x/{b}/")(second)
    app.get("/x/{b:int}")(second)
    app.get("/x/{b:path}")(second)


def test_clashes_with_what_is_mounted() -> None:
    inner, outer = App(), App()
    inner.get("/x/{a}")(first)
    outer.get("/in/x/{b}")(second)
    assert_clash(lambda: outer.mount("/in", inner))
    outer.mount("/other", inner)
    assert_clash(lambda: outer.get("/other/x/{b}")(second))


def test_clashes_with_what_is_added_to_a_mounted_app_later() -> None:
    inner, outer = App(), App()
    outer.get("/in/{b}")(second)
    outer.mount("/in", inner)
    inner.get("/{a}")(first)
    assert_clash(outer.routes)


def test_two_error_handlers() -> None:
    app = App()
    app.error(404)(lambda request, error: None)
    with pytest.raises(ValueError, match="two error handlers for 404: .*test_app.py:.* and .*test_app.py:"):
        app.error(404)(lambda request, error: None)
    for kind in (200, 600, int, KeyboardInterrupt):
        with pytest.raises(ValueError, match="expected a status"):
            app.error(kind)  # type: ignore[arg-type]


# ---- mounts ----


def test_mounted_routes() -> None:
    inner, middle, outer = App(), App(), App()
    outer.mount("/a", middle)
    middle.mount("/b", inner)
    outer.mount("/", inner)
    inner.get("/x/{a}")(first)
    assert [route.pattern for route in outer.routes()] == ["/a/b/x/{a}", "/x/{a}"]


@pytest.mark.parametrize("prefix", ["a", "/a/", "/{a}", "/a//b", "//"])
def test_bad_prefixes(prefix: str) -> None:
    with pytest.raises(ValueError):
        App().mount(prefix, App())


def test_an_app_cannot_contain_itself() -> None:
    inner, outer = App(), App()
    outer.mount("/in", inner)
    with pytest.raises(ValueError, match="contains the one"):
        inner.mount("/out", outer)
    with pytest.raises(ValueError, match="contains the one"):
        inner.mount("/me", inner)


# ---- without hooks nothing stands in between ----


def test_handlers_without_hooks_are_called_directly() -> None:
    app, inner = App(), App()
    app.get("/{a}")(first)
    app.mount("/in", inner)
    inner.get("/{b}")(second)
    inner.after(lambda request, response: None)
    routes = {route.pattern: route.handler for route in app.routes()}
    assert routes["/{a}"] is first
    assert routes["/in/{b}"] is not second
    assert set(app.fallbacks()) == {404, 405}
    plain = App()
    plain.get("/{a}")(first)
    plain.error(KeyError)(lambda request, error: None)
    plain.routes()
    assert plain.fallbacks() == {}
    plain.error(405)(lambda request, error: None)
    plain.routes()
    assert set(plain.fallbacks()) == {405}


# ---- the guide ----

GUIDE = (Path(__file__).parent.parent / "docs" / "app.md").read_text()
BLOCKS = re.findall(r"```python\n(.*?)```", GUIDE, re.DOTALL)


def test_the_guides_examples_run(tmp_path: Path) -> None:
    """All of them together are one program."""
    assert len(BLOCKS) > 8
    tmp_path.joinpath("guide.py").write_text("\n".join(BLOCKS))
    program = runpy.run_path(str(tmp_path / "guide.py"))
    assert len(program["app"].routes()) > 10
    for name in eighties.__all__:
        assert name.startswith("__") or name in GUIDE

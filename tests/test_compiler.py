"""Pages as functions: what they write, where their errors point, and what is refused."""

from __future__ import annotations

import asyncio
import html
import linecache
import traceback
import types
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rendering import Context, Files, compiled, places, refused, rendered

from eighties.pages import PageError, compile_page
from eighties.pages.compiler import MAX_DEPTH

pytestmark = pytest.mark.pure

# ---- what is written ----


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("<?py ?>", ""),
        ("<?py?>", ""),
        ("<?py # nothing\n?>", ""),
        ("<?py\n\n   \n# nothing\n  ?>", ""),
        ("a<?py write(1) ?>b<?py write(2) ?>c", "a1b2c"),
        ("a\n<?py\n  write(1)\n?>\n", "a\n1\n"),
        ("<?py | text ?>", "text"),
        ("<?py | #[[1 + 1]] ?>!", "2!"),
        ("<?py\n| one\n| two #[[2]]\n| three\n?>", "one\ntwo 2\nthree\n"),
        ("<?py\r\n  | one\r\n  | two\r\n?>", "one\r\ntwo\r\n"),
        ("<?py\r  | one\r  | two\r?>", "one\rtwo\r"),
        ("<?py\n\tfor i in range(2):\n\t\t| #[[i]]\n\t| end\n?>", "0\n1\nend\n"),
        ("    <?py\n    if 1:\n        | yes\n    else:\n        | no\n    ?>", "    yes\n"),
        ("<?py for i in range(2):\n        | #[[i]]\n?>", "0\n1\n"),
        ("  <?py for i in range(2):\n        | #[[i]]\n  | end\n  ?>", "  0\n1\nend\n"),
        ("<?py if 0:\n    | a\nelse:\n    | b\n?>", "b\n"),
        ("<?py x = 1\n     y = 2\n     | #[[x + y]]\n?>", "3\n"),
        ("<?py x = 1\ny = 2\n| #[[x + y]]\n?>", "3\n"),
        ("<?py for i in range(2): ```#[[i]]``` ?>", "01"),
        ("<?py\nif 1: ```a```\nelse: ```b```\n```c```; write('d'); ```e```\n?>", "acde"),
        (
            "<?py\ntry:\n  | #[[1 / 0]] lost\nexcept ZeroDivisionError:\n  | caught\nfinally:\n  | end\n?>",
            "caught\nend\n",
        ),
        ("<?py\nmatch 1:\n  case 1:\n    | one\n  case _:\n    | other\n?>", "one\n"),
        ("<?py\nwith open('/dev/null') as f:\n  | #[[f.read()]].\n?>", ".\n"),
        ("<?py\ndef f(x):\n  | <#[[x]]>\nf(1)\nf(2)\n?>", "<1>\n<2>\n"),
        ("<?py\nclass A:\n  | in a class\n?>", "in a class\n"),
        ("<?py | #[['<&\"']] ?>", "&lt;&amp;&quot;"),
        ("<?py | #[[raw('<b>')]] ?>", "<b>"),
        ("<?py | #[['<b>':>5]] ?>", "  &lt;b&gt;"),
        ("<?py | #[[3.14159:.2f]] #[[7:03d]] #[[7:]] #[[True]] #[[None]] ?>", "3.14 007 7 True None"),
        ('<?py | {x} %s %d 100% \\n it\'s "#[[1]]" {{ }} ?>', '{x} %s %d 100% \\n it\'s "1" {{ }}'),
        ("<?py | č → 𝄞 #[['č → 𝄞']] č ?>č", "č → 𝄞 č → 𝄞 čč"),
        ("<?py | #[['\\ud800']]! ?>", "?!"),
        ("\udcff<?py ?>\udcfe", "\udcff\udcfe"),
        ("\ufeffa<?py ?>", "\ufeffa"),
        ("<?py | #[[(lambda x: x + 1)(1)]] #[[{'a': [1, 2]}['a'][0:1]]] ?>", "2 [1]"),
        ("<?py\n  x = '''\n  kept\n  '''\n  write(x)\n?>", "\n  kept\n  "),
        ("<?py x = '?>'; write(x) # ?>\n?>", "?>"),
        ("<?py write(1)\n# ?> ' ```\n| 2\n?>", "12\n"),
        ('<?py ```\n  <?xml version="1.0"?>\n  ```?>', '  <?xml version="1.0"?>\n'),
        ("<?py | #[[query['name']]] ?>", "&lt;b&gt;"),
        ("<?py _80s_text0 = 1\n| #[[_80s_text0]] ?>", "1"),
    ],
)
def test_written(source: str, expected: str) -> None:
    assert rendered(source) == expected
    asynchronous = source.replace("<?py", "<?pya")
    assert rendered(asynchronous) == expected
    assert rendered({"a.html": "(<?include b.html ?>)", "b.html": source.removeprefix("\ufeff")}) == (
        f"({expected.removeprefix(chr(0xFEFF))})"
    )


def test_asynchronous() -> None:
    source = "<?pya\n  await asyncio.sleep(0)\n  | #[[await value()]] #[[[i async for i in count()]]]\n?>."

    async def value() -> int:
        return 5

    async def count() -> Any:
        for i in range(3):
            yield i

    page = compiled(source)
    assert page.is_async
    assert rendered(source, {"asyncio": asyncio, "value": value, "count": count}) == "5 [0, 1, 2]\n."


def test_a_synchronous_page_is_a_plain_function() -> None:
    page = compiled({"a.html": "<?include b.html ?><?py | #[[1]] ?><?include b.html ?>", "b.html": "b"})
    assert isinstance(page.run, types.FunctionType)
    assert not page.is_async
    assert (page.static, page.parallel, page.files, page.uses) == (None, False, ("a.html", "b.html"), frozenset())


@given(st.text().filter(lambda text: "<?" not in text and "parallel" not in text))
def test_text_comes_back(text: str) -> None:
    page = compiled(text)
    assert page.static == text.encode()
    assert rendered(text).encode() == text.encode()
    assert rendered(f"{text}<?py ?>{text}").encode() == (text + text).encode()


# ---- sugar is the long form ----

Tree = tuple[str, Any]
WORDS = st.sampled_from(["a", " b", "<i>", "it's", '"', "%s", "{x}", "\\n", "č", "}}", "`` ", "# ", "[[", "|", "''' "])
SCALARS = st.sampled_from(["1", "'<&>'", "d['k']", "f(2)", "(lambda a: a)(4)", "d['k'][0:1]", "f'{f(1)}'"])
OTHERS = st.sampled_from(["x", "[i for i in range(3)]", "{'a': 1}", "x, 1", "not x", "']]'"])
EXPRESSIONS = st.one_of(
    st.tuples(SCALARS, st.sampled_from([None, "", ">6", "<3", "^7"])),
    st.tuples(OTHERS, st.none()),
)
LINE = st.lists(st.one_of(WORDS, EXPRESSIONS), max_size=4)
CONDITIONS = st.sampled_from(["x", "not x", "0", "d"])
LEAVES: st.SearchStrategy[Tree] = st.one_of(
    st.tuples(st.just("line"), LINE),
    st.tuples(st.just("fence"), LINE),
    st.tuples(st.just("lines"), st.lists(LINE, max_size=3)),
)


def nested(trees: st.SearchStrategy[list[Tree]]) -> st.SearchStrategy[list[Tree]]:
    several = st.one_of(
        st.tuples(st.just("if"), st.tuples(CONDITIONS, trees, trees)),
        st.tuples(st.just("for"), trees),
        st.tuples(st.just("with"), trees),
        st.tuples(st.just("try"), st.tuples(trees, trees)),
        st.tuples(st.just("def"), trees),
    )
    return st.lists(st.one_of(LEAVES, several), min_size=1, max_size=3)


TREES = st.recursive(st.lists(LEAVES, min_size=1, max_size=3), nested, max_leaves=12)


def in_short(parts: list[Any]) -> str:
    return "".join(
        part if isinstance(part, str) else f"#[[{part[0]}]]" if part[1] is None else f"#[[{part[0]}:{part[1]}]]"
        for part in parts
    )


def at_length(parts: list[Any], more: str = "") -> str:
    """The write() of text and expressions: expressions first, then one piece."""
    values = [
        repr(part)
        if isinstance(part, str)
        else f"escape(format({part[0]}, {part[1] or ''!r}))"
        if part[1] is not None
        else f"escape(({part[0]}))"
        for part in [*parts, more]
    ]
    return f"write(''.join([{', '.join(values)}]))"


def source_of(trees: list[Tree], margin: str, short: bool) -> list[str]:
    lines: list[str] = []
    step = margin + "  "

    def body(inner: list[Tree]) -> list[str]:
        return source_of(inner, step, short)

    for number, (kind, value) in enumerate(trees):
        if kind == "line":
            lines.append(margin + (f"| {in_short(value)}" if short else at_length(value, "\n")))
        elif kind == "fence":
            lines.append(margin + (f"```{in_short(value)}```" if short else at_length(value)))
        elif kind == "lines":
            fenced = [f"{margin}```", *(margin + in_short(line) for line in value), f"{margin}```"]
            lines += fenced if short else [margin + at_length(line, "\n") for line in value] or [f"{margin}pass"]
        elif kind == "if":
            lines += [f"{margin}if {value[0]}:", *body(value[1]), f"{margin}else:", *body(value[2])]
        elif kind == "for":
            lines += [f"{margin}for x in range(2):", *body(value)]
        elif kind == "with":
            lines += [f"{margin}with manager() as x:", *body(value)]
        elif kind == "try":
            tried = [*body(value[0]), f"{step}| #[[nothing]]" if short else step + at_length([("nothing", None)], "\n")]
            lines += [f"{margin}try:", *tried, f"{margin}except NameError:", *body(value[1])]
        else:
            name = f"g{len(margin)}_{number}"
            lines += [f"{margin}def {name}(x):", *body(value), f"{margin}{name}(3)"]
    return lines


class Manager:
    def __enter__(self) -> str:
        return "<entered>"

    def __exit__(self, *args: object) -> None:
        pass


@given(TREES, st.sampled_from(["", "  ", "\t"]), st.sampled_from(["\n", "\r\n"]), st.booleans(), st.booleans())
@settings(max_examples=300)
def test_sugar_is_the_long_form(trees: list[Tree], margin: str, newline: str, included: bool, coroutine: bool) -> None:
    names = {"manager": Manager, "d": {"k": "<v>"}, "f": lambda value: value * 2}
    pieces: list[str] = []
    long_form = "\n".join(["def page(x, write, escape):", *source_of(trees, "  ", short=False)])
    scope: dict[str, Any] = {**names, "asyncio": asyncio}
    exec(long_form, scope)
    scope["page"](5, pieces.append, lambda value: html.escape(str(value)))

    short_form = newline.join(["x = 5", *source_of(trees, "", short=True)])
    short_form = "".join(margin + line for line in short_form.splitlines(keepends=True))
    source = f"<?{'pya' if coroutine else 'py'}{newline}{short_form}{newline}?>"
    files = {"a.html": "<?include b.html ?>", "b.html": source} if included else {"a.html": source}
    assert rendered(files, names).replace("\r\n", "\n") == "".join(pieces)


# ---- where errors point ----


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({"a.html": "\n\n<?py 1 / 0 ?>"}, [("a.html", 3)]),
        ({"a.html": "\r\n\r\n<?py\r\n\r\n  1 / 0 ?>"}, [("a.html", 5)]),
        ({"a.html": "<?py x = 1\n     y = 2\n     1 / 0 ?>"}, [("a.html", 3)]),
        ({"a.html": "\n<?py x = 1\n     y = 2\n     1 / 0 ?>"}, [("a.html", 4)]),
        ({"a.html": "<?py\n| a\n| b\n| #[[1 / 0]]\n?>"}, [("a.html", 4)]),
        ({"a.html": "<?py\n```\na\n#[[1]]\n#[[1 / 0]]\n``` ?>"}, [("a.html", 5)]),
        ({"a.html": "<?py ```\n```\n1 / 0 ?>"}, [("a.html", 3)]),
        ({"a.html": "<?py def f():\n  1 / 0\n?>\n<?py f() ?>"}, [("a.html", 4), ("a.html", 2)]),
        ({"a.html": "a\n<?include b.html ?>", "b.html": "\n\n<?py 1 / 0 ?>"}, [("a.html", 2), ("b.html", 3)]),
        (
            {
                "a.html": "\n<?include b.html ?>",
                "b.html": "<?py f() ?><?include c.html ?>",
                "c.html": "<?py\n\nf(0) ?>",
            },
            [("a.html", 2), ("b.html", 1), ("c.html", 3), ("c.html", 2)],
        ),
        (
            {"a.html": "\n<?include b.html ?>", "b.html": "\n\n\n<?include c.html ?>", "c.html": "\n<?py 1 / 0 ?>"},
            [("a.html", 2), ("c.html", 2)],
        ),
        (
            {"a.html": "<?include b.html ?>\n<?py f() ?>", "b.html": "\n\n<?py def f():\n  1 / 0\n?>"},
            [("a.html", 2), ("b.html", 4)],
        ),
        ({"a.html": "\n<?pya await asyncio.sleep(0)\n1 / 0 ?>"}, [("a.html", 3)]),
        ({"a.html": "\n<?py if 1:\n  1 / 0\n  return\n?>"}, [("a.html", 2), ("a.html", 3)]),
        ({"a.html": "#! parallel\n\n<?pya\n1 / 0 ?>"}, [("a.html", 4)]),
        ({"a.html": "\n\n<?py form ?>"}, [("a.html", 3)]),
        ({"a.html": "\n\n<?py form = form ?>"}, [("a.html", 3)]),
    ],
)
def test_tracebacks(files: Files, expected: list[tuple[str, int]]) -> None:
    if "c.html" in files and "f(0)" in files["c.html"]:
        files = files | {"b.html": "<?include c.html ?><?py y = 1 ?>", "c.html": "<?py\ndef f(x): 1 / x\nf(0) ?>"}
    with pytest.raises((ZeroDivisionError, ValueError)) as caught:
        rendered(files)
    assert places(caught.value) == expected


def test_a_traceback_marks_the_expression(tmp_path: Path) -> None:
    """As Python does in a program: columns are those of the page, whatever its indentation and sugar."""
    (tmp_path / "a.html").write_text("<p>č <?py x = 1; y = x / 0 ?>\n")
    (tmp_path / "b.html").write_text("\n  <?py\n    if 1:\n        | č #[[1]] #[[1 / 0:>5]]!\n  ?>\n")
    (tmp_path / "c.html").write_text("\n  <?py\n    if 1:\n        x = 1 / 0\n  ?>\n")
    for name, marked in (("a.html", "x / 0"), ("b.html", "1 / 0"), ("c.html", "1 / 0")):
        path = str(tmp_path / name)
        with pytest.raises(ZeroDivisionError) as caught:
            compile_page(path, lambda file: Path(file).read_text(), {}).run(Context())
        frame = traceback.extract_tb(caught.value.__traceback__)[-1]
        source = linecache.getline(path, frame.lineno or 0).encode()
        assert source[frame.colno : frame.end_colno].decode() == marked
        assert (frame.filename, frame.name) == (path, "<page>")


def test_names_of_functions_in_tracebacks() -> None:
    seen: list[types.CodeType] = []
    files = {"a.html": "<?include b.html ?>", "b.html": "<?py\ndef f(): pass\nkeep(f.__code__)\nreturn ?>"}
    rendered(files, {"keep": seen.append})
    assert seen[0].co_qualname == "<page>.<locals>.<include>.<locals>.<block>.<locals>.f"
    assert seen[0].co_filename == "b.html"


# ---- what is refused ----


@pytest.mark.parametrize(
    ("source", "line", "message"),
    [
        ("\n<?py x = ?>", 2, "invalid syntax"),
        ("\n<?py\n\n  x = \n?>", 4, "invalid syntax"),
        ("<?py\n  x = 1\n y = 2\n?>", 3, "unindent"),
        ("<?py\nx = 1\n  y = 2\n?>", 3, "unexpected indent"),
        ("<?py x = 1\n  if 1:\n  y = 2\n?>", 3, "expected an indented block"),
        ("  <?py if 1:\n  y = 2\n?>", 2, "expected an indented block"),
        ("\n<?py (\n\n?>", 2, "was never closed"),
        ("<?py if x: ?>text<?py y ?>", 1, "a block must be complete Python by itself"),
        ("<?py if x:\n  | a\n?>\n<?py else: ?>", 4, "a block must be complete Python by itself"),
        ("<?py\n  for x in y:\n?>", 2, "a block must be complete Python by itself"),
        ("\n<?py\n  break\n?>", 3, "'break' outside loop"),
        ("<?py x = 1 ?>\n<?py continue ?>", 2, "'continue'"),
        ("<?py\ndef f():\n  nonlocal y\n?>", 3, "no binding for nonlocal 'y' found"),
        ("<?py\nfrom x import *\n?>", 2, "import *"),
        ("<?py\nnonlocal x\n?>", 2, "all blocks of a page share their names"),
        ("<?py\nawait x\n?>", 2, "write <?pya"),
        ("<?py\n| #[[await x]]\n?><?pya ?>", 2, "write <?pya"),
        ("<?py\nasync for x in y: pass\n?>", 2, "write <?pya"),
        ("<?py\nasync with x: pass\n?>", 2, "write <?pya"),
        ("<?py\n[x async for x in y]\n?>", 2, "write <?pya"),
        ("<?py\n[await x for x in y]\n?>", 2, "write <?pya"),
        ("<?py\nyield 1\n?>", 2, "cannot yield"),
        ("<?pya\n| #[[(yield 1)]]\n?>", 2, "cannot yield"),
        ("<?py\nx = ```a```\n?>", 2, "a statement of its own"),
        ("<?py\nf```a```\n?>", 2, "a statement of its own"),
        ("<?py\nf(```a```)\n?>", 2, "a statement of its own"),
        ("\n<?py x = '\0' ?>", 2, "null byte"),
        ("\n<?py x = '\ud800' ?>", 2, "surrogates"),
        ("\n<?py | \udcff ?>", 2, "UTF-8"),
        ("\n\ud800<?py ?>", 2, "half a surrogate pair"),
        ("\n<?py x = " + "(" * 300 + ")" * 300 + " ?>", 2, "nested"),
        ("\n<?py x = " + "-" * 5000 + "1 ?>", 2, "nested"),
        ("<?py\nfrom __future__ import annotations\n?>", 2, "from __future__ imports must occur"),
        ("<?py\nx = 1\n?><?include gone.html ?>", 3, "cannot include a.html -> gone.html: No such file or directory"),
        ("\n<?include a.html ?>", 2, "includes go in a circle: a.html -> a.html"),
    ],
)
def test_refused(source: str, line: int, message: str) -> None:
    error = refused(source)
    assert (error.path, error.line) == ("a.html", line)
    assert message in error.message
    assert error.text == source.split("\n")[line - 1]
    assert error.chain == ()
    included = refused(
        {"a.html": "\n\n<?include b.html ?>", "b.html": source.replace("<?include a.html", "<?include b.html")}
    )
    assert (included.path, included.line, included.text) == ("b.html", line, error.text.replace("a.html", "b.html"))
    assert included.chain == ("a.html", "b.html")


def test_circle_and_missing_files() -> None:
    files = {"a.html": "<?include i/b.html ?>", "i/b.html": "\n<?include ../c.html ?>", "c.html": "<?include a.html ?>"}
    error = refused(files)
    assert (error.path, error.line) == ("c.html", 1)
    assert error.message == "includes go in a circle: a.html -> i/b.html -> c.html -> a.html"
    assert error.chain == ("a.html", "i/b.html", "c.html")
    error = refused({"a.html": files["a.html"], "i/b.html": files["i/b.html"]})
    assert error.message == "cannot include a.html -> i/b.html -> c.html: No such file or directory"
    assert (error.path, error.line, error.text) == ("i/b.html", 2, "<?include ../c.html ?>")
    error = refused({})
    assert (error.path, error.line, error.message) == (
        "a.html",
        1,
        "the page cannot be read: No such file or directory",
    )


def test_chains_are_told_from_the_page_s_folder() -> None:
    with pytest.raises(PageError, match="circle: a.html -> ../b.html -> a.html"):
        compile_page(
            "/www/p/a.html",
            {"/www/p/a.html": "<?include ../b.html ?>", "/www/b.html": "<?include p/a.html ?>"}.__getitem__,
            {},
        )


@pytest.mark.parametrize("code", ["", "<?py write('.') ?>"])
def test_depth(code: str) -> None:
    def chain(depth: int) -> Files:
        files = {f"{i}.html": f"{code}<?include {i + 1}.html ?>" for i in range(1, depth)}
        return {"a.html": "<?include 1.html ?>", f"{depth}.html": f"{code}end", **files}

    assert rendered(chain(MAX_DEPTH)).replace(".", "") == "end"
    error = refused(chain(MAX_DEPTH + 1))
    assert error.path == f"{MAX_DEPTH}.html"
    assert f"more than {MAX_DEPTH} files deep: a.html -> 1.html" in error.message
    assert len(error.chain) == MAX_DEPTH + 1


def test_a_page_of_too_many_includes() -> None:
    files = {f"{i}.html": f"<?include {i + 1}.html ?>" * 2 for i in range(40)}
    error = refused({"a.html": "<?include 0.html ?>", "40.html": "", **files})
    assert "more than 10000 includes" in error.message


def test_a_file_included_twice_is_read_once() -> None:
    read: list[str] = []
    files = {"a.html": "<?include b.html ?>" * 3, "b.html": "<?py n = 1\n| #[[n]]\n?>"}

    def reader(path: str) -> str:
        read.append(path)
        return files[path]

    context = Context()
    compile_page("a.html", reader, {}).run(context)
    assert b"".join(context.out) == b"1\n" * 3
    assert read == ["a.html", "b.html"]


PIECES = st.sampled_from(
    ["<?py ", "<?pya\n", "?>", "\n", "  ", "| a", "| #[[x]]", "```", "if x:", "else:", "x = 1", "return", "global x"]
    + [
        "done()",
        "await x",
        "def f():",
        "  nonlocal x",
        "#[[",
        "]]",
        "'",
        ":",
        "for x in y:",
        "break",
        "<?include b.html ?>",
    ]
)


@given(st.lists(PIECES, max_size=15).map("".join), st.lists(PIECES, max_size=8).map("".join))
@settings(max_examples=500)
def test_nothing_but_page_errors(first: str, second: str) -> None:
    try:
        page = compiled({"a.html": f"{first}<?include b.html ?>", "b.html": second})
    except PageError as error:
        assert error.path in ("a.html", "b.html")
    else:
        assert callable(page.run)

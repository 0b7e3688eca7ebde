"""Page text to tokens: where blocks end, what sugar is, and what is refused."""

from __future__ import annotations

import ast
import sys
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from eighties.pages.scanner import Code, Expression, Include, Page, PageError, Sugar, Text, scan

pytestmark = pytest.mark.pure


def block(source: str) -> Code:
    """The only token of a page that is one block."""
    (code,) = scan(source, "page.html").tokens
    assert isinstance(code, Code)
    return code


def sugar(source: str) -> Sugar:
    (found,) = block(source).sugar.values()
    return found


def told(parts: list[str | Expression]) -> list[object]:
    """Parts in a form that can be compared."""
    return [part if isinstance(part, str) else (ast.unparse(part.node), part.format) for part in parts]


# ---- text ----


@pytest.mark.parametrize(
    "text",
    [
        "",
        "plain",
        "<p>\r\n\ttabs and\rall line ends\n",
        "\ufeffwith a mark",
        '<?xml version="1.0"?><a/>',
        "<?php echo 1 ?><?= 1 ?><?python 1 ?><?pyab ?><?includes x ?><? py ?>",
        "?> alone, and <?",
        "<?py-x ?><?include.y ?><?include:z ?>",
        "| no sugar, ```no sugar```, #[[no sugar]]",
        "\0 \udcff",
        "text\n#! parallel\n",
        "#! parallels\n",
        "#!parallel and more\n",
    ],
)
def test_text_stays(text: str) -> None:
    assert scan(text, "page.html") == Page(False, [Text(text, 1)] if text else [])


@given(st.text().filter(lambda text: "<?" not in text and "parallel" not in text))
def test_any_text_stays(text: str) -> None:
    assert "".join(token.text for token in scan(text, "page.html").tokens if isinstance(token, Text)) == text


@pytest.mark.parametrize(
    ("source", "rest"),
    [
        ("#! parallel\ntext", "text"),
        ("#!parallel\r\ntext", "text"),
        ("#!\tparallel \ttext", None),
        ("#! parallel \rtext", "text"),
        ("#! parallel", ""),
        ("\ufeff#! parallel\ntext", "\ufefftext"),
        (" #! parallel\n", None),
        ("\n#! parallel\n", None),
    ],
)
def test_parallel(source: str, rest: str | None) -> None:
    for more in ("", "\n<?xml ?>"):
        page = scan(source + more, "page.html")
        assert page.parallel is (rest is not None)
        sent = "".join(token.text for token in page.tokens if isinstance(token, Text))
        assert sent == (source if rest is None else rest) + (more if source != "#! parallel" else more[1:])


# ---- includes ----


@pytest.mark.parametrize(
    ("source", "path"),
    [
        ("<?include a.html ?>", "a.html"),
        ("<?include\t../a b.html\r\n?>", "../a b.html"),
        ('<?include "a.html"?>', "a.html"),
        ("<?include 'a.html' ?>", "a.html"),
        ("<?include ' ?>", "'"),
    ],
)
def test_include(source: str, path: str) -> None:
    assert scan("\n" + source, "page.html").tokens == [Text("\n", 1), Include(path, 2)]


@pytest.mark.parametrize(
    "source", ["<?include ?>", "<?include?>", "<?include '' ?>", "<?include a\nb ?>", "<?include a"]
)
def test_include_refused(source: str) -> None:
    with pytest.raises(PageError, match="include") as caught:
        scan("\n" + source, "page.html")
    assert caught.value.line == 2


# ---- where a block ends ----

CODE = [
    "",
    " ",
    "x = 1 ",
    "x = '?>' ",
    'x = "?>" ',
    "x = '''?>\n?>''' ",
    'x = """?>"?>""?>""" ',
    'x = """?>\\"""?>""" ',
    "x = '\\'?>' ",
    "x = '\\\\' ",
    "x = '?>\\\n?>' ",
    "x = '?>\\\r\n?>' ",
    "x = r'\\'?>' ",
    "x = Rb'?>' ",
    "x = u'?>' ",
    "x = f'?>' ",
    "x = f'{y}?>{{?>}}' ",
    "x = f'{y!r:>{w}}?>' ",
    "x = f\"{d['?>']}\" ",
    "x = f'''{\n y }?>''' ",
    "x = rf'\\{y}?>' ",
    "x = f'\\N{BULLET}{y}?>' ",
    "x = f'{y:%H:%M}?>' ",
    "x = f'{(lambda: 1)()}?>' ",
    "x = f'{ {1: 2}[1] }?>' ",
    "x = f\"{f'{y}?>'}\" ",
    "# ?>\n",
    "x = 1 # it's ?> '''\ny = 2 ",
    "x = (1,\n# ?> (\n'?>')\n",
    "x = 1 if y else'?>' ",
    "'?>' '?>'\n",
    "x = a[b['?>']] ",
    "\r\n  x = '?>'\r\n  y = 1\r\n",
    "\r  x = '?>'\r  # ?>\r",
    "pass;'' ",
    "if x:\n\ty = '?>'\n",
    'x = "a"\'?>\'"b" ',
]
NEWER = [  # PEP 701: of Python 3.12
    'x = f"{d["?>"]}?>" ',
    'x = f"{f"{f"?>"}"}" ',
    "x = f'{y # ?>\n}?>' ",
    'x = f"{x:{"?>"}}" ',
    "x = f'{'\\n?>'}' ",
]


@pytest.mark.parametrize("code", CODE + (NEWER if sys.version_info >= (3, 12) else []))
@pytest.mark.parametrize("tag", ["py", "pya"])
def test_a_block_ends_where_python_says(code: str, tag: str) -> None:
    code = f" {code}"
    found, text = scan(f"<?{tag}{code}?>text?>", "page.html").tokens
    assert isinstance(found, Code)
    assert (found.kind, found.code, found.line, found.column) == (tag, code, 1, 2 + len(tag))
    assert text == Text("text?>", code.replace("\r\n", "\n").replace("\r", "\n").count("\n") + 1)


PIECES = [
    "'",
    '"',
    "'''",
    '"""',
    "f'",
    'rf"',
    "f'''",
    "{",
    "}",
    "{{",
    "\\",
    "?>",
    "#",
    "\n",
    "x",
    "=",
    "1",
    " ",
    ":",
    "!r",
]
PIECES += [
    "(",
    ")",
    "[",
    "]",
    "if x:\n  ",
    "```",
    "|",
    "\r\n",
    "\\\n",
    "b",
    ",",
    "lambda:",
    "#[[",
    "]]",
    "<?py ",
    "\\N",
]
pieces = st.lists(st.sampled_from(PIECES), max_size=14).map("".join)


@given(pieces)
@settings(max_examples=600)
@example("f'{x:{1}}?>'")
def test_valid_python_is_read_whole(code: str) -> None:
    """Whatever Python takes for a program is one block, with every ?> in it in strings and comments."""
    try:
        ast.parse(code)
    except (SyntaxError, ValueError):
        return
    found = block(f"<?py\n{code}\n?>")
    assert (found.code, found.python, found.sugar) == (f"\n{code}\n", f"\n{code}\n", {})


def test_the_standard_library_is_read_whole() -> None:
    for path in sorted(Path(ast.__file__).parent.glob("*.py"))[:100]:
        code = f"\n{path.read_text('utf-8')}\n"
        found = block(f"<?py{code}?>")
        assert (found.python, found.sugar, found.margin) == (code, {}, ""), path


@given(
    st.lists(st.one_of(pieces, st.sampled_from(["<?py ", "<?pya\n", "<?include ", "\n| ", " ?>"]), st.text())).map(
        "".join
    )
)
@settings(max_examples=600)
def test_nothing_but_page_errors(source: str) -> None:
    try:
        page = scan(source, "page.html")
    except PageError as error:
        assert 1 <= error.line <= source.replace("\r\n", "\n").replace("\r", "\n").count("\n") + 1
        assert str(error) == f"page.html:{error.line}: {error.message}"
        assert error.text in source
    else:
        for token in page.tokens:
            if isinstance(token, Code):
                lines = (token.code.replace("\r\n", "\n").replace("\r", "\n"), token.python.replace("\r\n", "\n"))
                assert lines[0].count("\n") == lines[1].replace("\r", "\n").count("\n")


@pytest.mark.parametrize(
    ("source", "line", "message"),
    [
        ("\n<?py x = 1", 2, "the block <?py is not closed"),
        ("<?pya", 1, "<?pya is no tag"),
        ("a\n<?py(x) ?>", 2, "<?py is no tag: they are in small letters, and a space follows"),
        ("<?py#note\n?>", 1, "<?py is no tag"),
        ("<?py\u00a0x ?>", 1, "<?py is no tag"),
        ("<?py| x ?>", 1, "<?py is no tag"),
        ('<?include"a.html"?>', 1, "<?include is no tag"),
        ("<?py x ?>\n<?PY x ?>", 2, "<?PY is no tag"),
        ("<?pya<?include", 1, "<?pya is no tag"),
        ("<?pya ", 1, "the block <?pya is not closed"),
        ("\n<?py # note ?>text", 2, "that in the comment on line 2 belongs to the comment"),
        ("<?py\nx = 'a\n?>", 2, "a string is not closed"),
        ("<?py\n\nx = '''a\n?>", 3, "a string is not closed"),
        ("<?py\nx = f'a\n?>", 2, "an f-string is not closed"),
        ("<?py\nx = f'{a'\n?>", 2, "a string is not closed"),
        ("<?py\nx = f'{a\n?>", 2, "a field of an f-string is not closed"),
        ("<?py\nx = f'{a:b'\n?>", 2, "a field of an f-string is not closed"),
        ("<?py x = " + "f'{" * 60, 1, "nested too deeply"),
        ("<?py x = f'" + "{a:" * 60, 1, "nested too deeply"),
        ("<?py\n```\ntext ?>", 2, "``` is missing"),
        ("<?py\n| #[[a\n| ]]\n?>", 2, "]] is missing"),
        ("<?py\n| #[[a ?> ]]", 2, "]] is missing"),
        ("<?py\n| #[[a:b ?>", 2, "]] is missing"),
        ("<?py\n| #[['a]]\n?>", 2, "]] is missing"),
        ("<?py\n| #[['''a\n''']]\n?>", 2, "]] is missing"),
        ("<?py\n```\n\n #[[a```'?>", 4, "]] is missing"),
        ("<?py\n| #[[a # b]]\n?>", 2, "]] is missing"),
        ("<?py\n| #[[a) + (b]]\n?>", 2, "not complete"),
        ("<?py\n| #[[(a]]\n?>", 2, "not complete"),
        ("<?py\n| #[[]]\n?>", 2, "there is no expression"),
        ("<?py\n| #[[ ]]\n?>", 2, "there is no expression"),
        ("<?py\n| #[[:d]]\n?>", 2, "no Python expression"),
        ("<?py\n| #[[1 +]]\n?>", 2, "no Python expression"),
        ("<?py\n| #[[a = 1]]\n?>", 2, "no Python expression"),
        ("<?py\n| #[[*a]]\n?>", 2, "no Python expression"),
        ("<?py\n| #[[a; b]]\n?>", 2, "no Python expression"),
        ("<?py\n| #[[\0]]\n?>", 2, "no Python expression"),
        ("<?py\n| #[[\ud800]]\n?>", 2, "no Python expression"),
        ("<?py | #[[a\n?>", 1, "]] is missing"),
        ("<?py\n| a", 1, "the block <?py is not closed"),
    ],
)
def test_refused(source: str, line: int, message: str) -> None:
    with pytest.raises(PageError) as caught:
        scan(source, "page.html")
    assert (caught.value.path, caught.value.line) == ("page.html", line)
    assert message in caught.value.message
    assert caught.value.text == source.split("\n")[line - 1]


# ---- sugar ----


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("", []),
        ("text", ["text"]),
        ("  <b>it's 100% {fine}</b> \\n", ["  <b>it's 100% {fine}</b> \\n"]),
        ("#[[x]]", [("x", None)]),
        ("a#[[x]]b#[[y]]", ["a", ("x", None), "b", ("y", None)]),
        ("#[[x:.2f]]", [("x", ".2f")]),
        ("#[[x:]]", [("x", "")]),
        ("#[[ x :>10]]", [("x", ">10")]),
        ("#[[t:%H:%M '%y]]", [("t", "%H:%M '%y")]),
        ("#[[a[b[0]]]]", [("a[b[0]]", None)]),
        ("#[[a[1:2]]]", [("a[1:2]", None)]),
        ("#[[a[1:2]:>5]]", [("a[1:2]", ">5")]),
        ("#[[{'a': 1}['a']]]", [("{'a': 1}['a']", None)]),
        ("#[[(lambda: 1)()]]", [("(lambda: 1)()", None)]),
        ("#[[lambda a: a]]", [("lambda a: a", None)]),
        ("#[[lambda a: a:>9]]", [("lambda a: a", ">9")]),
        ("#[[ ']]' ]]", [("']]'", None)]),
        ("#[['?>']]", [("'?>'", None)]),
        ("#[['#[[']]", [("'#[['", None)]),
        ('#[["it\'s"]]', [('"it\'s"', None)]),
        ("#[[f'{x:>{w}}':>3]]", [("f'{x:>{w}}'", ">3")]),
        ("#[[await f(x)]]", [("await f(x)", None)]),
        ("#[[(n := 5)]]", [("(n := 5)", None)]),
        ("#[[n:=5]]", [("n", "=5")]),
        ("#[[a, b]]", [("(a, b)", None)]),
        ("#[[[x for x in [[1]]]]]", [("[x for x in [[1]]]", None)]),
        ("#[[a if b else c]]", [("a if b else c", None)]),
        ("#[[x]]]", [("x", None), "]"]),
        ("#[ [x]] [[y]]", ["#[ [x]] [[y]]"]),
        ("#[[raw(x)]]", [("raw(x)", None)]),
    ],
)
def test_parts(text: str, parts: list[object]) -> None:
    assert told(sugar(f"<?py\n  | {text}\n?>").parts) == (
        [*parts[:-1], f"{parts[-1]}\n"] if parts and isinstance(parts[-1], str) else [*parts, "\n"]
    )
    assert told(sugar(f"<?py\n  ```{text}```\n?>").parts) == parts
    assert told(sugar(f"<?py | {text}?>").parts) == parts


@pytest.mark.parametrize(
    ("source", "parts"),
    [
        ("<?py\n|\n?>", ["\n"]),
        ("<?py\n|?>", []),
        ("<?py |\ttext \t?>", ["text"]),
        ("<?py\n| text\r\n?>", ["text\r\n"]),
        ("<?py\n| text \r| more\r?>", ["text \rmore\r"]),
        ("<?py\n\t| a\n\t|  b\n\t|\n?>", ["a\n b\n\n"]),
        ("<?py\n| #[[a]]\n| b\n?>", [("a", None), "\nb\n"]),
        ("<?py ```a``` ?>", ["a"]),
        ("<?py ``` a ?> <?py 'x ``` ?>", [" a ?> <?py 'x "]),
        ("<?py\n  ```\n  <b>\n    a\n  </b>\n  ```\n?>", ["<b>\n  a\n</b>\n"]),
        ("<?py\n  ```\r\n  a\r\n b\r\n  ```\n?>", ["a\r\n b\r\n"]),
        ("<?py\n\t```  \n\t#[[a]]\n\t#[[b]]c\n\t```\n?>", [("a", None), "\n", ("b", None), "c\n"]),
        ("<?py\n  ```\n  ```\n?>", []),
        ("<?py\n  ```a\n  b\n  ```\n?>", ["a\n  b\n  "]),
        ("<?py\n  ```\n  #[[f(\n  '''\n  ''')]] ```\n?>", [("f('\\n  ')", None), " "]),
        ("<?py ``````?>", []),
    ],
)
def test_layout(source: str, parts: list[object]) -> None:
    assert told(sugar(source).parts) == parts


def test_what_is_no_sugar() -> None:
    """A | or ``` within brackets, strings and comments, and after a backslash, is Python's."""
    source = "<?py\nx = (a\n  | b)\ny = a \\\n  | b\n'''\n| c\n```\n'''\n# ```\nx |= 1\n?>"
    assert block(source).sugar == {}
    assert len(block("<?py\nx = (a\n  | b)\n| text\n?>").sugar) == 1


def test_lines_of_text_are_not_joined_over_expressions_and_margins() -> None:
    source = "<?py\n| a\n| #[[b]]\n| c\nif x:\n  | d\n| e\n# note\n| f\n?>"
    assert [told(one.parts) for one in block(source).sugar.values()] == [
        ["a\n"],
        [("b", None), "\nc\n"],
        ["d\n"],
        ["e\n"],
        ["f\n"],
    ]


def test_names_that_stand_in_are_not_the_page_s() -> None:
    code = block("<?py\n_80s_text0 = 1\n| a\n?>")
    (name,) = code.sugar
    assert name not in code.code
    assert code.python == f"\n_80s_text0 = 1\n{name}\n"


@pytest.mark.parametrize(
    ("source", "margin"),
    [
        ("<?py x ?>", ""),
        ("<?py\nx\n?>", ""),
        ("<?py\n  x\n    y\n?>", "  "),
        ("<?py\n\n  # note\n    x\n  ?>", "    "),
        ("<?py\n\t| x\n\t?>", "\t"),
        ("<?py x\n  y\n?>", "  "),
        ("<?py if x:\n  y\n?>", ""),
        ("  <?py if x: # note:\n    y\n  z\n?>", "  "),
        ("  <?py if x:\n    y\n?>", "  "),
        ("  <?py if x:\n  y\n?>", "  "),
        ("<?py x = [ # :\n1,\n  2]\n  y\n?>", "  "),
        ("<?py x = '''\na'''\n  y\n?>", "  "),
        ("<?py # note\n  x\n?>", "  "),
        ("<?py | x\n  y\n?>", "  "),
    ],
)
def test_margin(source: str, margin: str) -> None:
    code = next(token for token in scan(source, "page.html").tokens if isinstance(token, Code))
    assert code.margin == margin


def test_places() -> None:
    """Every node of an expression has its place in the page, columns in bytes."""
    (code,) = scan("<?py\n | é #[[aa]] #[[bb\n]]\n ```\n č #[[cc]]```\n?>".replace("bb\n", "bb"), "page.html").tokens
    assert isinstance(code, Code)
    found = [part.node for one in code.sugar.values() for part in one.parts if isinstance(part, Expression)]
    assert [(node.lineno, node.col_offset, node.end_col_offset) for node in found] == [
        (2, 9, 11),
        (2, 17, 19),
        (4, 7, 9),
    ]
    assert sugar("<?py | #[[a]]?>").parts[0].node.col_offset == 10  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("<?include a ?>\n#! parallel\nb", [Include("a", 1), Text("b", 3)]),
        ("<?include a ?><?include b ?>\r\n\r\n#!parallel", [Include("a", 1), Include("b", 1)]),
        (" <?include a ?> #! parallel \n<?include b ?>", [Text(" ", 1), Include("a", 1), Include("b", 2)]),
    ],
)
def test_parallel_after_includes(text: str, tokens: list[object]) -> None:
    assert scan(text, "page.html") == Page(True, tokens)  # type: ignore[arg-type]


@pytest.mark.parametrize("text", ["a<?include a ?>\n#! parallel\n", "<?py x ?>\n#! parallel\n", "\n#! parallel\n"])
def test_parallel_elsewhere_is_text(text: str) -> None:
    page = scan(text, "page.html")
    assert not page.parallel
    assert isinstance(page.tokens[-1], Text) and page.tokens[-1].text.endswith("#! parallel\n")

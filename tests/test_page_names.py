"""The names of a page's code: shared by its blocks and includes, taken from main.py and from the request."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from rendering import Context, compiled, rendered

from eighties.pages import CONTEXT_NAMES

pytestmark = pytest.mark.pure


@pytest.mark.parametrize(
    "source",
    [
        "<?py x = 1 ?><?py write(x) ?>",
        "<?py x = 1 ?><?include b.html ?>",
        "<?include c.html ?><?py write(x) ?>",
        "<?include c.html ?><?include b.html ?>",
        "<?py x = 2 ?><?include c.html ?><?include b.html ?>",
        "<?py def f(): return x ?><?py x = 1 ?><?py write(f()) ?>",
        "<?py def f(): return x ?><?include c.html ?><?py write(f()) ?>",
        "<?py x = 0\ndef f():\n  nonlocal x\n  x += 1\n?><?py f() ?><?include b.html ?>",
        "<?py def f():\n  nonlocal x\n  x = 1\n?><?include d.html ?><?py f(); write(x) ?>",
        "<?py x = 1\nwrite([x for y in [0]][0]) ?>",
        "<?py x = 1 ?><?py class A:\n  y = x\n  def f(self): return x\nwrite(A().f() * A.y) ?>",
        "<?py (x := 1) ?><?py write(x) ?>",
        "<?py [x := y for y in [1]] ?><?include b.html ?>",
        "<?py import math as x\nx = x.ceil(0.5) ?><?include b.html ?>",
        "<?py for x in [1]: pass ?><?include b.html ?>",
        "<?py x: int = 1 ?><?include b.html ?>",
        "<?include e.html ?><?py write(x) ?>",
        "<?py match [1]:\n  case [x]: pass\n?><?include b.html ?>",
        "<?py match {1: 1}:\n  case {1: x, **z}: pass\n?><?include b.html ?>",
        "<?include c.html ?><?py if x:\n  write(x)\n  return\nwrite('not left') ?>",
        "<?pya x = 1 ?><?include b.html ?>",
        "<?py x = 1 ?><?pya\nasync def f(): return x\nwrite(await f()) ?>",
        "<?py del y ?><?include b.html ?>",
        "<?py | #[[x]]\n?>",
        "<?py global x ?><?py write(x) ?>",
        "<?py global x\nx = 2\nx = 1 ?><?include b.html ?>",
        "<?include f.html ?><?py write(x) ?>",
        "<?py def f(x): return x\nwrite(f(1)) ?>",
        "<?py def f(*, x=x): return x\nwrite(f()) ?>",
        "<?py try:\n  1 / 0\nexcept Exception as e:\n  write(1)\n?>",
    ],
)
def test_names_are_shared(source: str) -> None:
    files = {
        "a.html": source.replace("del y", "y = 1\ndel y\nx = 1"),
        "b.html": "<?py write(x) ?>",
        "c.html": "<?py x = 1 ?>",
        "d.html": "<?py x = 0 ?>",
        "e.html": "<?include c.html ?><?py x: int = x\ny: str ?>",
        "f.html": "<?py global x\nx = 1\n?>",
    }
    assert rendered(files, {"x": 1, "asyncio": asyncio}).strip() == "1"


def test_main_s_names() -> None:
    names: dict[str, Any] = {"counter": 1, "posts": [1]}
    assert rendered("<?py global counter\ncounter += 1\nposts.append(2)\nwrite(counter) ?>", names) == "2"
    assert (names["counter"], names["posts"]) == (2, [1, 2])
    with pytest.raises(UnboundLocalError):
        rendered("<?py counter += 1 ?>", names)
    assert rendered("<?py def f():\n  global counter\n  counter = 7\nf()\nwrite(counter) ?>", names) == "7"
    assert set(names) <= {"counter", "posts", "__builtins__"}


def test_names_of_the_request_cost_where_they_are_used() -> None:
    context = Context()
    assert rendered("<?py if 0: write(query); form\nbody; body ?>", context=context) == ""
    assert context.asked == ["body", "body"]


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("<?py body = body.decode()\nwrite(body) ?><?include b.html ?>", "bodybody"),
        ("<?include c.html ?>", "body."),
        ("<?py form = {1: 2}\nwrite(form) ?>", "{1: 2}"),
        ("<?py def f(form): return form\nwrite(f(1)) ?>", "1"),
        ("<?py write([form for form in [1]]) ?>", "[1]"),
        ("<?py for form in [1]: write(form) ?>", "1"),
        ("<?py class A:\n  form = 1\nwrite(A.form) ?>", "1"),
        ("<?py def f(): return query['name']\nwrite(f()) ?>", "<b>"),
        ("<?py class A:\n  status: query\nwrite(A.__annotations__['status']['name']) ?>", "<b>"),
        (
            "<?py class A:\n  name = query['name']\n  def f(self, body=body): return query['name']\nwrite(A().f()) ?>",
            "<b>",
        ),
        ("<?py def f():\n  nonlocal body\n  body = 1\nf()\nwrite(body) ?>", "1"),
        ("<?py write([query['name'] for i in query]) ?>", "['<b>']"),
        ("<?py w = write\nw(1) ?>", "1"),
        ("<?py global body\nwrite(body) ?>", "main"),
    ],
)
def test_names_of_the_request(source: str, expected: str) -> None:
    files = {
        "a.html": source,
        "b.html": "<?py write(body) ?>",
        "c.html": "<?py body = body.decode() + '.' ?><?include b.html ?>",
    }
    assert rendered(files, {"body": "main"}) == expected


def test_which_names_a_page_uses() -> None:
    page = compiled(
        "<?py def f(status): return status, query\nsession['a'] = 1; [form for form in f(1)] ?><?pya done() ?>"
    )
    assert page.uses == {"query", "session", "done"}
    assert "write" in CONTEXT_NAMES


def test_return_ends_the_block() -> None:
    source = "<?py\nwrite(1)\nif x:\n  return\nwrite(2) ?>a<?pya write(3)\nfor i in [1]: return write(4)\nwrite(5) ?>b"
    assert rendered(source, {"x": 1}) == "1a34b"
    assert rendered({"a.html": "<?include b.html ?>!", "b.html": source}, {"x": 0}) == "12a34b!"

"""Pages that wait: blocks that are finished by done(), and parallel pages."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest
from rendering import Context, compiled, places, rendered

pytestmark = pytest.mark.pure

# ---- done ----


@pytest.mark.parametrize("tag", ["py", "pya"])
@pytest.mark.parametrize("first", ["", "#! parallel\n"])
def test_done(tag: str, first: str) -> None:
    later = "asyncio.get_running_loop().call_later"
    block = f"<?{tag}\nx = 1\n{later}(0.01, lambda: (write('b'), done()))\nreturn write('a') ?>"
    for files in (block + "c", {"a.html": "<?include b.html ?>c", "b.html": block}):
        files = {"a.html": first + files} if isinstance(files, str) else files | {"a.html": first + files["a.html"]}
        context = Context()
        assert rendered(files, context=context) == "abc"
        assert context.dones == 1
    assert rendered("<?py done() ?>a<?py write(1); done() ?><?py write(2) ?>") == "a12"


def test_a_variable_may_be_named_done() -> None:
    for source in (
        "<?py for text, done in [('a', 1)]:\n  | #[[text]] #[[done]]\n?>",
        "<?py write([done for done in [1]]) ?>",
        "<?py done = 1 ?><?py write(done) ?>",
    ):
        assert not compiled(source).is_async


def test_blocks_wait_for_their_own_done() -> None:
    async def main() -> None:
        dones: list[Callable[[], None]] = []
        page = compiled("<?py keep(done) ?>a<?py keep(done) ?>b", {"keep": dones.append})
        context = Context()
        result = page.run(context)
        assert result is not None
        task = asyncio.ensure_future(result)
        for expected in ([b""], [b"a"], [b"a", b"b"]):
            await asyncio.sleep(0.01)
            assert b"".join(context.out) == b"".join(expected)
            if not task.done():
                dones[0]()
                dones[-1]()
        assert task.done()
        await task

    asyncio.run(main())


# ---- parallel pages ----


def test_parallel_blocks_run_at_once_and_stand_in_order() -> None:
    order: list[int] = []

    async def wait(number: int, turns: int) -> str:
        for _ in range(turns):
            await asyncio.sleep(0)
        order.append(number)
        return f"<{number}>"

    files = {
        "a.html": "#! parallel\n0<?pya | #[[await wait(1, 9)]] ?>,<?py write('s') ?>,<?include b.html ?>,"
        "<?pya write(await wait(3, 1)) ?>.",
        "b.html": "(<?py x = 's' ?><?pya y = await wait(2, 5)\nwrite(x); write(y) ?>)",
    }
    names = {"wait": wait, "asyncio": asyncio}
    assert rendered(files, names) == "0&lt;1&gt;,s,(s<2>),<3>."
    assert order == [3, 2, 1]
    sequential = files | {"a.html": files["a.html"].removeprefix("#! parallel\n")}
    assert rendered(sequential, names) == "0&lt;1&gt;,s,(s<2>),<3>."
    assert order[3:] == [1, 2, 3]


def test_parallel_may_stand_in_what_a_page_begins_with() -> None:
    files = {
        "a.html": "<?include b.html ?>a",
        "b.html": "<?include c.html ?>b",
        "c.html": "\ufeff#! parallel\nc<?pya ?>",
    }
    assert compiled(files).parallel
    assert rendered(files) == "cba"
    assert not compiled(files | {"a.html": "x<?include b.html ?>"}).parallel
    assert rendered(files | {"a.html": "x<?include b.html ?>"}) == "xcb"
    assert compiled(files | {"a.html": "\ufeff<?include b.html ?>"}).parallel


def test_what_a_parallel_block_starts_writes_in_its_place() -> None:
    source = """#! parallel
<?py
    def show(text):
        | [#[[text]]]
?><?pya
    await asyncio.sleep(0.01)
    show("a")
    await asyncio.gather(later("b"), later("c"))
    asyncio.get_running_loop().call_soon(lambda: (show("d"), done()))
?>-<?pya
    async def later(text):
        show(text)
    show("e")
?>"""
    assert rendered(source) == "[a]\n[b]\n[c]\n[d]\n-[e]\n"


def test_a_failing_parallel_block() -> None:
    stopped: list[str] = []

    async def forever() -> None:
        try:
            await asyncio.sleep(60)
        finally:
            stopped.append("stopped")

    source = "#! parallel\na<?pya await forever() ?><?pya write('b')\n1 / 0 ?>"
    context = Context()
    with pytest.raises(ZeroDivisionError) as caught:
        rendered(source, {"forever": forever}, context)
    assert stopped == ["stopped"]
    assert context.out == [b"a", b"b"]
    assert places(caught.value)[-1] == ("a.html", 3)
    with pytest.raises(asyncio.CancelledError):
        rendered("#! parallel\n<?pya f = asyncio.Future()\nf.cancel()\nawait f ?>")


def test_further_failures_of_a_parallel_page_reach_the_loop() -> None:
    async def main() -> list[str]:
        told: list[str] = []
        asyncio.get_running_loop().set_exception_handler(lambda loop, context: told.append(repr(context["exception"])))
        result = compiled("#! parallel\n<?pya raise KeyError(1) ?><?pya raise ValueError(2) ?>").run(Context())
        assert result is not None
        with pytest.raises(KeyError):
            await result
        return told

    assert asyncio.run(main()) == ["ValueError(2)"]

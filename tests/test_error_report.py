"""What must not hurt the report of an error: odd exceptions, odd files, and more of everything than fits."""

from __future__ import annotations

import json
import os
import re
from html import unescape
from pathlib import Path
from typing import Any

import pytest
from html_reader import Reader

from eighties import errorreport
from eighties.errorpage import page
from eighties.errorreport import MAX_FAILURES, MAX_LINE, report, report_json, report_text
from eighties.errors import MAX_MESSAGE, page_mistake
from eighties.pages.compiler import compile_page
from eighties.pages.scanner import PageError


def caught(code: str, filename: str, **names: object) -> BaseException:
    """What a piece of code raises, as if it stood in a file."""
    try:
        exec(compile(code, filename, "exec"), names)
    except Exception as error:  # noqa: BLE001 whatever it is
        return error
    raise AssertionError("nothing was raised")


def rendered(error: BaseException) -> str:
    """The page, after a look at all three forms."""
    found = report(error, "GET /")
    json.loads(report_json(found).encode("utf-8", "backslashreplace"))
    report_text(found)
    text = page(found)
    Reader(text)
    return text


def test_long_lines_are_cut_around_the_place(tmp_path: Path) -> None:
    path = tmp_path / "minified.py"
    code = f"a = '{'é' * 100_000}'; b = 1 / 0; c = '{'x' * 100_000}'\n"
    path.write_text(code)
    text = rendered(caught(code, str(path)))
    assert "<b>1 / 0</b>" in text
    assert len(text) < 10_000
    place = report(caught(code, str(path)), "").failure.place
    assert place is not None and place.row is not None
    assert len(place.row.text) == MAX_LINE + 2
    text = rendered(caught(f"a = '{'é' * 100_000}'; b = = 2\n", str(path)))
    assert len(text) < 10_000


def test_messages_notes_and_chains_are_bounded() -> None:
    error = ValueError("x" * 1_000_000)
    error.__notes__ = ["n" * 1_000_000, 3, *["again"] * 1000]  # type: ignore[list-item]
    assert len(rendered(error)) < 6 * MAX_MESSAGE
    deepest: BaseException = ValueError("deepest")
    for number in range(5000):
        deepest, inner = ValueError(number), deepest
        deepest.__context__ = inner
    text = rendered(deepest)
    assert text.count(">Raised while handling</h2>") == MAX_FAILURES - 1
    assert "further exceptions" in text
    assert rendered(ExceptionGroup("many", [ValueError(n) for n in range(50)])).count("<h3>") == MAX_FAILURES - 1


def test_circles_of_causes_end() -> None:
    first, second = ValueError("first"), ValueError("second")
    first.__cause__, second.__cause__ = second, first
    assert rendered(first).count(">Caused by</h2>") == 1


@pytest.mark.parametrize(
    "error",
    [
        SyntaxError("no place"),
        SyntaxError("device", ("/dev/zero", 1, 1, "text")),
        SyntaxError("folder", ("/tmp", 1, 0, None)),
        SyntaxError("zero byte", ("a\0b", 1, 5, "text here", 1, 9)),
        SyntaxError("beyond", ("a", 10**9, 10**9, "text", 1, -5)),
        SyntaxError("types", ("a", "1", "2", 3)),  # type: ignore[arg-type]
        KeyError("\udc80\x00"),
        OSError(2, "none", "\udcff"),
        UnicodeDecodeError("utf-8", b"\xff", 0, 1, "why"),
        PageError("", 0, "nowhere"),
        PageError("\udc80\0", -1, "nowhere \udc80", "text", ("a", "b\udc80")),
        StopIteration(),
    ],
    ids=lambda error: f"{error!r}".encode("ascii", "backslashreplace").decode(),
)
def test_odd_exceptions_have_a_page(error: BaseException) -> None:
    assert type(error).__name__ in rendered(error).encode("utf-8", "backslashreplace").decode()


def test_names_that_lie_and_notes_that_are_none() -> None:
    class Odd(Exception):
        path, line, chain = "x", 1, ()
        __module__ = 3  # type: ignore[assignment]

        def __str__(self) -> str:
            return 5  # type: ignore[return-value]

    error = Odd()
    error.__dict__.update(path=1, line="2", chain=None, __notes__="text")
    assert page_mistake(error) is None
    assert "<its __str__ raised TypeError>" in unescape(rendered(error))


def test_files_that_cannot_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gone = str(tmp_path / "gone.py")
    assert "There is no source to show" in rendered(caught("1 / 0", gone))
    pipe = tmp_path / "pipe.py"
    os.mkfifo(pipe)
    assert "There is no source to show" in rendered(caught("1 / 0", str(pipe)))
    large = tmp_path / "large.py"
    large.write_text("1 / 0\n")
    monkeypatch.setattr(errorreport, "MAX_SOURCE", 5)
    assert "There is no source to show" in rendered(caught("1 / 0\n", str(large)))

    class Loader:
        def get_source(self, name: str) -> str:
            raise RuntimeError("broken loader")

    odd = caught("1 / 0", str(tmp_path / "loaded.py"), __loader__=Loader(), __name__="odd")
    assert "There is no source to show" in rendered(odd)


def test_a_current_folder_that_is_gone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    monkeypatch.chdir(folder)
    folder.rmdir()
    assert "<code>relative.py:1</code>" in rendered(caught("1 / 0", "relative.py"))


def test_names_are_relative_where_that_is_shorter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "a" / "b"
    folder.mkdir(parents=True)
    monkeypatch.chdir(folder)
    assert errorreport.shown_name(str(folder / "c.py")) == "c.py"
    assert errorreport.shown_name(str(tmp_path / "a" / "c.py")) == "../c.py"
    assert errorreport.shown_name("/c.py") == "/c.py"
    assert errorreport.shown_name("<string>") == "<string>"


@pytest.mark.parametrize(
    ("text", "line", "marked"),
    [
        ("<h1>é</h1>\n<p>é <?py write('é' + 1) ?>\n", 2, "&#x27;é&#x27; + 1"),
        ("<h1>\udcff</h1>\n<p>\udcff <?py write(1 / 0) ?>\n", 2, "1 / 0"),
        ("<p>\r\n<p>\r<?py\n| x#[[ 1 / 0 ]]\n?>", 4, "1 / 0"),
    ],
)
def test_pages_show_their_own_source(tmp_path: Path, text: str, line: int, marked: str) -> None:
    """Columns of pages are right, even where they are no UTF-8."""
    path = tmp_path / "page.html"
    path.write_bytes(text.encode("utf-8", "surrogateescape"))
    compiled = compile_page(str(path), lambda _: text, {})
    with pytest.raises((ZeroDivisionError, TypeError)) as caught_error:
        compiled.run(Context())
    found = rendered(caught_error.value)
    assert f"page.html:{line}</code> in <b>&lt;page&gt;</b>" in found
    assert re.search(rf"<mark> +{line}  .*<b>{re.escape(marked)}</b>", found)


class Context:
    """The least that a page needs."""

    def __init__(self) -> None:
        self.out: list[bytes] = []

    def escape(self, value: Any, /) -> str:
        return str(value)

    def write(self, text: str) -> None:
        self.out.append(text.encode())

    def make_done(self) -> Any:
        raise NotImplementedError

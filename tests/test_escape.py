"""`_engine.escape`: the text of HTML pages and of quoted attributes."""

from __future__ import annotations

import html
import re
from collections.abc import Callable
from decimal import Decimal
from enum import Enum, StrEnum
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eighties._engine import escape

ALL = "&<>\"'"
ALL_ESCAPED = "&amp;&lt;&gt;&quot;&#x27;"
BLOCK = 8  # bytes that are looked at together


class Text(str):
    """A str that is none exactly."""


class Safe(str):
    """HTML, as markupsafe.Markup is."""

    def __html__(self) -> str:
        return self


class Shown(str):
    """Its str() is something else, and of no exact type."""

    def __str__(self) -> str:
        return Text("<shown>")


class Colour(StrEnum):
    RED = "<red>"


class Mixed(str, Enum):  # noqa: UP042 its str() is not its value
    ONE = "<one>"


class Made:
    """Makes its HTML when asked."""

    def __init__(self, made: Any) -> None:
        self.made = made

    def __html__(self) -> Any:
        if isinstance(self.made, Exception):
            raise self.made
        return self.made

    def __str__(self) -> str:
        raise AssertionError("not asked for")


class OfType:
    """`__html__` is no plain function."""

    @classmethod
    def __html__(cls) -> str:
        return f"<b>{cls.__name__}</b>"


class Unbound:
    __html__: Callable[[], str] = type("Maker", (), {"__call__": lambda self: "<i>"})()


class Instance:
    """An instance's own `__html__` is none: it is looked up on the type, as Python does for such names."""

    def __init__(self) -> None:
        self.__html__ = lambda: "<wrong>"

    def __str__(self) -> str:
        return "<instance>"


class Broken:
    def __str__(self) -> str:
        raise LookupError("broken")


def name(value: object) -> str:
    """Of a case: the same in every process, so no addresses."""
    return re.sub(" at 0x[0-9a-f]+", "", ascii(value))


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("", ""),
        ("plain", "plain"),
        (ALL, ALL_ESCAPED),
        ("a&b", "a&amp;b"),
        ("&amp;", "&amp;amp;"),
        ("é<", "é&lt;"),
        ("\xa7\xa6\xbc\xbe\xa2", "\xa7\xa6\xbc\xbe\xa2"),  # the five with their high bit set
        ("%(=?!#;`/\0\x7f", "%(=?!#;`/\0\x7f"),  # the neighbours
        ("☃<☃", "☃&lt;☃"),
        ("\u2026\u3c00\u0126\u3e27", "\u2026\u3c00\u0126\u3e27"),  # their bytes are not characters
        ("\U0001f600'\U0001f600", "\U0001f600&#x27;\U0001f600"),
        ("\U00012226\U0001263c", "\U00012226\U0001263c"),
        ("\ud800&\udfff", "\ud800&amp;\udfff"),
        (Text("<x>"), "&lt;x&gt;"),
        (Text("x"), "x"),
        (Shown("x"), "&lt;shown&gt;"),
        (Colour.RED, "&lt;red&gt;"),
        (Mixed.ONE, "Mixed.ONE"),
        (0, "0"),
        (-(2**200), str(-(2**200))),
        (1.5, "1.5"),
        (float("-inf"), "-inf"),
        (True, "True"),
        (None, "None"),
        (Decimal("1.20"), "1.20"),
        (["<", "'"], "[&#x27;&lt;&#x27;, &quot;&#x27;&quot;]"),
        (b"'", "b&quot;&#x27;&quot;"),
        (int, "&lt;class &#x27;int&#x27;&gt;"),
        (Made("<b>"), "<b>"),
        (OfType(), "<b>OfType</b>"),
        (Unbound(), "<i>"),
        (Instance(), "&lt;instance&gt;"),
    ],
    ids=name,
)
def test_values(value: object, text: str) -> None:
    """What each becomes; always an exact str, but what `__html__` gives."""
    assert escape(value) == text
    assert type(escape(value)) is str


@pytest.mark.parametrize("text", ["", "plain", "é" * 100, "☃", "\U0001f600", "\ud800"], ids=ascii)
def test_nothing_to_escape(text: str) -> None:
    """The same object comes back."""
    assert escape(text) is text


def test_own_html_is_unchanged() -> None:
    """Also a str which is its own HTML."""
    safe = Safe("<b>&</b>")
    assert escape(safe) is safe
    assert escape(Made(safe)) is safe


@pytest.mark.parametrize("made", [None, 5, b"<b>", ["<b>"]])
def test_html_that_is_no_text(made: object) -> None:
    with pytest.raises(TypeError, match=f"__html__ of Made returned {type(made).__name__}, not str"):
        escape(Made(made))


def test_errors_go_through() -> None:
    with pytest.raises(LookupError, match="broken"):
        escape(Broken())
    with pytest.raises(ZeroDivisionError):
        escape(Made(ZeroDivisionError()))


@pytest.mark.parametrize("wide", ["", "é", "☃", "\U0001f600"], ids=ascii)
def test_every_place(wide: str) -> None:
    """Each of the characters, at each place around the borders of blocks, in each kind of text."""
    for length in range(3 * BLOCK + 3):
        for place in range(length):
            for character, escaped in zip(ALL, ("&amp;", "&lt;", "&gt;", "&quot;", "&#x27;"), strict=True):
                head, tail = "x" * place, "y" * (length - place - 1) + wide
                assert escape(head + character + tail) == head + escaped + tail


def test_much() -> None:
    """Sums do not wrap: blocks of the longest replacements."""
    for n in (BLOCK - 1, BLOCK, 1000, 100_000):
        assert escape("'" * n) == "&#x27;" * n


@given(st.text(st.one_of(st.sampled_from(ALL), st.characters(codec=None, exclude_categories=())), max_size=200))
def test_as_html_escape(text: str) -> None:
    """Any text: what html.escape makes of it."""
    assert escape(text) == html.escape(text)
    assert escape(Text(text)) == html.escape(text)
    assert escape([text]) == html.escape(str([text]))
    assert html.unescape(escape(text.replace("&", ""))) == text.replace("&", "")


@given(st.one_of(st.integers(), st.floats(), st.booleans(), st.none(), st.binary(), st.decimals(), st.datetimes()))
def test_other_values(value: object) -> None:
    assert escape(value) == html.escape(str(value))


def test_what_must_be_awaited_is_no_value() -> None:
    async def late() -> str:
        return "late"

    coroutine = late()
    with pytest.raises(TypeError, match="a coroutine is not a value yet: await it"):
        escape(coroutine)
    coroutine.close()

"""Reading wanted pieces, without a socket: whole, byte by byte, in every split, and with data behind them."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eighties.inbox import READ_LIMIT, Inbox, Overflow, Want

MIXED = b"HEAD\x00\x05hello first line\r\nsecond\r\r\n\r\n--b--\x00\x00rest"
WANTS: list[Want] = [4, 2, (5, 5), 1, b"\r\n", (b"\r\n", 7), b"\r\n", b"--b--", 0, 2, 4]
PIECES = [b"HEAD", b"\x00\x05", b"hello", b" ", b"first line", b"second\r", b"", b"", b"", b"\x00\x00", b"rest"]


def read(chunks: Iterable[bytes], wants: Iterable[Want], inbox: Inbox | None = None) -> list[bytes]:
    """What a reader of these wants gets of these chunks; each want is asked for again after every chunk."""
    inbox = inbox or Inbox()
    pieces: list[bytes] = []
    asked = iter(wants)
    want = next(asked, "end")
    for chunk in chunks:
        inbox.put(chunk)
        while want != "end":
            piece = inbox.take(want)  # type: ignore[arg-type]
            if piece is None:
                break
            assert type(piece) is bytes
            pieces.append(piece)
            want = next(asked, "end")
    return pieces


def in_two(data: bytes) -> Iterator[list[bytes]]:
    for at in range(1, len(data)):
        yield [data[:at], data[at:]]


def in_three(data: bytes) -> Iterator[list[bytes]]:
    for first in range(1, len(data)):
        for second in range(first + 1, len(data)):
            yield [data[:first], data[first:second], data[second:]]


def single(data: bytes) -> list[bytes]:
    return [data[at : at + 1] for at in range(len(data))]


@pytest.mark.parametrize("behind", [b"", b"\r", b"\r\n", b"more\r\nand more"])
def test_pieces_are_the_same_however_the_input_is_split(behind: bytes) -> None:
    data = MIXED + behind
    assert read([data], WANTS) == PIECES
    assert read(single(data), WANTS) == PIECES
    for chunks in in_two(data):
        assert read(chunks, WANTS) == PIECES, chunks


def test_pieces_of_input_in_three_parts() -> None:
    for chunks in in_three(MIXED):
        assert read(chunks, WANTS) == PIECES, chunks


def test_what_is_behind_stays() -> None:
    for chunks in (single(MIXED + b"behind"), [MIXED + b"behind"], [MIXED, b"behind"]):
        inbox = Inbox()
        read(chunks, WANTS, inbox)
        assert inbox.held == 6
        assert inbox.rest() == b"behind"
        assert inbox.held == 0 and inbox.take(None) is None


@pytest.mark.parametrize("delimiter", [b"\n", b"\r\n", b"aab", b"aaaa", b"abcabd", b"\x00" * 7])
def test_delimiters_that_begin_within_themselves(delimiter: bytes) -> None:
    pieces = [b"", delimiter[:-1] + b"!", delimiter[:1], delimiter[1:], b"x" + delimiter[:-1] + b"z"]
    data = b"".join(piece + delimiter for piece in pieces)
    expected = data.split(delimiter)[:-1]
    for chunks in (single(data), [data], *in_two(data), *in_three(data)):
        assert read(chunks, [delimiter] * len(expected)) == expected, chunks


@given(
    pieces=st.lists(st.one_of(st.binary(max_size=20), st.text("ab|", max_size=9).map(str.encode)), max_size=12),
    delimiters=st.lists(st.sampled_from([b"|", b"ab", b"aab", b"||"]), min_size=12, max_size=12),
    by_length=st.lists(st.booleans(), min_size=12, max_size=12),
    cuts=st.lists(st.integers(1, 40), max_size=30),
)
def test_against_a_plain_reading(
    pieces: list[bytes], delimiters: list[bytes], by_length: list[bool], cuts: list[int]
) -> None:
    """The same wants, answered by searching the whole input."""
    data = b"".join(piece + delimiter for piece, delimiter in zip(pieces, delimiters, strict=False))
    wants: list[Want] = []
    expected: list[bytes] = []
    at = 0
    for length, delimiter, piece in zip(by_length, delimiters, pieces, strict=False):
        end = at + len(piece) if length else data.find(delimiter, at)
        if end < 0 or end > len(data):
            break
        wants.append(len(piece) if length else delimiter)
        expected.append(data[at:end])
        at = end + (0 if length else len(delimiter))
    chunks = []
    rest = data
    for cut in cuts:
        chunks.append(rest[:cut])
        rest = rest[cut:]
    inbox = Inbox()
    assert read([*chunks, rest, b""], wants, inbox) == expected
    assert inbox.rest() == data[at:]


def test_the_next_chunk_is_what_there_is() -> None:
    inbox = Inbox()
    assert inbox.take(None) is None
    chunk = b"a chunk as it came"
    inbox.put(chunk)
    assert inbox.take(None) is chunk
    inbox.put(b"one ")
    inbox.put(b"two")
    assert inbox.take(3) == b"one"
    assert inbox.take((None, 2)) == b" t"
    assert inbox.take(None) == b"wo"


def test_a_chunk_that_is_wanted_whole_is_not_copied() -> None:
    inbox = Inbox()
    chunk = bytes(1000)
    inbox.put(chunk)
    assert inbox.take(1000) is chunk


def test_nothing_wanted_is_there_at_once() -> None:
    assert Inbox().take(0) == b""
    assert Inbox().take((0, 0)) == b""


@pytest.mark.parametrize("pieces", [1, 2, 3, 100])
def test_limits_hold_however_the_input_is_split(pieces: int) -> None:
    """A line of exactly the limit is given, one byte more is too long: whole, and in parts that end anywhere."""
    for size, fits in ((99, True), (100, True), (101, False), (102, False), (300, False)):
        data = b"x" * size + b"\r\n"
        step = -(-len(data) // pieces)
        chunks = [data[at : at + step] for at in range(0, len(data), step)]
        if fits:
            assert read(chunks, [(b"\r\n", 100)]) == [b"x" * size]
            continue
        with pytest.raises(Overflow) as caught:
            read(chunks, [(b"\r\n", 100)])
        assert (caught.value.limit, caught.value.want) == (100, b"\r\n")
        assert str(caught.value) == "no b'\\r\\n' within 100 bytes"


def test_overflow_comes_before_the_delimiter_does() -> None:
    inbox = Inbox()
    inbox.put(b"x" * 101)
    assert inbox.take((b"\r\n", 100)) is None  # the last byte might have begun the delimiter
    inbox.put(b"x")
    with pytest.raises(Overflow):
        inbox.take((b"\r\n", 100))


def test_overflow_takes_nothing() -> None:
    inbox = Inbox()
    inbox.put(b"x" * 20 + b"\n")
    with pytest.raises(Overflow, match="no .* within 10 bytes"):
        inbox.take((b"\n", 10))
    assert inbox.take((b"\n", 20)) == b"x" * 20


def test_a_number_over_the_limit_overflows_at_once() -> None:
    with pytest.raises(Overflow, match="1048577 bytes wanted, the limit is 1048576") as caught:
        Inbox().take(READ_LIMIT + 1)
    assert (caught.value.limit, caught.value.want) == (READ_LIMIT, READ_LIMIT + 1)
    assert Inbox().take((READ_LIMIT + 1, READ_LIMIT + 1)) is None
    with pytest.raises(Overflow):
        Inbox().take((5, 4))
    with pytest.raises(Overflow):
        Inbox().take(5, 4)


@pytest.mark.parametrize(
    "want", ["text", 4.0, True, [4], (4,), (4, 5, 6), (4, None), (4, True), ((4, 4), 5), ("x", 4), bytearray(b"x"), {}]
)
def test_what_cannot_be_wanted_is_named(want: Any) -> None:
    inbox = Inbox()
    inbox.put(b"xxxxxxx")
    with pytest.raises(TypeError) as caught:
        inbox.take(want)
    assert str(caught.value).startswith(repr(want))
    assert inbox.rest() == b"xxxxxxx"


@pytest.mark.parametrize("want", [-1, b"", (-5, 100), (b"", 100), (4, -1)])
def test_what_has_no_sense_is_named(want: Any) -> None:
    with pytest.raises(ValueError, match="wanted"):
        Inbox().take(want)


def test_a_long_text_is_not_repeated_whole() -> None:
    with pytest.raises(TypeError) as caught:
        Inbox().take("x" * 100_000)  # type: ignore[arg-type]
    assert len(str(caught.value)) < 300


def test_another_delimiter_is_searched_from_the_beginning() -> None:
    inbox = Inbox()
    inbox.put(b"one,two three")
    assert inbox.take(b"\n") is None
    assert inbox.take(b",") == b"one"
    assert inbox.take(b"\n") is None
    assert inbox.take(b" ") == b"two"
    assert inbox.take(b"\n") is None
    inbox.put(b"\n")
    assert inbox.take(b"\n") == b"three"


@pytest.mark.parametrize(("want", "expected"), [(9, 9), ((9, 9), 9), (b"\n", None), ((b"\n", 9), None), (None, None)])
def test_a_shortage_has_what_there_was(want: Want, expected: int | None) -> None:
    inbox = Inbox()
    inbox.put(b"part")
    error = inbox.shortage(want)
    assert isinstance(error, asyncio.IncompleteReadError)
    assert (error.partial, error.expected) == (b"part", expected)
    assert inbox.held == 0


class Counted(Inbox):
    """An inbox that counts the bytes it copies when it puts things together, and those a search passes over."""

    __slots__ = ("copied", "searched")

    def __init__(self) -> None:
        super().__init__()
        self.copied = self.searched = 0

    def put(self, chunk: bytes) -> None:
        before, held = self.data, self.held
        super().put(chunk)
        self.copied += len(chunk) if self.data is before else held + len(chunk)

    def take(self, want: Want, limit: int = READ_LIMIT) -> bytes | None:
        begin = max(self.scanned, self.start)
        piece = super().take(want, limit)
        self.searched += len(self.data) - begin
        return piece


@pytest.mark.parametrize("want", [(b"\r\n", 1 << 16), 1 << 16])
def test_single_bytes_cost_no_more_than_themselves(want: Want) -> None:
    """Neither searched again nor copied again with every byte: that would be 2 ** 31 of either."""
    inbox = Counted()
    for _ in range((1 << 16) - 1):
        inbox.put(b"\r")
        assert inbox.take(want) is None
    assert inbox.copied < 4 << 16
    if isinstance(want, tuple):
        assert inbox.searched < 4 << 16


def test_taking_single_bytes_of_much_costs_no_more_than_themselves() -> None:
    inbox = Counted()
    for _ in range(1000):
        inbox.put(b"ab" * 500)
    for _ in range(100_000):
        assert inbox.take(1) is not None
        inbox.put(b"c")
    assert inbox.copied < 10 * 1_100_000


def test_a_few_bytes_do_not_keep_a_large_chunk() -> None:
    inbox = Inbox()
    inbox.put(bytes(100_000))
    assert inbox.take(99_999) is not None
    inbox.trim()
    assert len(inbox.data) == 1

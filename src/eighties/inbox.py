"""Inbox: bytes that have come and were not asked for yet, and the cutting of wanted pieces from them.

No socket and no loop in it: `streams.Stream` puts in what a socket reads and takes out what a reader wants. Each byte
is copied a bounded number of times and searched once, however the input was split: single bytes cost no more.
"""

from __future__ import annotations

from asyncio import IncompleteReadError

READ_LIMIT = 1 << 20
"""Bytes of one piece unless `(want, limit)` says otherwise: a line or a frame of that size is no accident any more."""

Want = int | bytes | tuple[int | bytes | None, int] | None
"""What may be wanted: so many bytes, all up to a delimiter, either with a limit, or (None) the next chunk."""


class Overflow(Exception):
    """More than `limit` bytes would have to be held to give what was wanted. Nothing of it has been taken.

    Attributes:
        limit: in bytes.
        want: the number of bytes or the delimiter; None where all of a stream was wanted.
    """

    def __init__(self, limit: int, want: int | bytes | None = None) -> None:
        super().__init__(limit, want)
        self.limit = limit
        self.want = want

    def __str__(self) -> str:
        if isinstance(self.want, int):
            return f"{self.want} bytes wanted, the limit is {self.limit}"
        return f"no {self.want!r} within {self.limit} bytes" if self.want else f"more than {self.limit} bytes"


class Inbox:
    """What has come: `put` it in, `take` pieces out.

    `data` is a chunk as it came for as long as that serves, and a bytearray when many small ones have to be put
    together. What stands before `start` is taken; `sought` has no beginning between `start` and `scanned`.
    """

    __slots__ = ("data", "scanned", "sought", "start")

    def __init__(self) -> None:
        self.data: bytes | bytearray = b""
        self.start = 0
        self.scanned = 0
        self.sought = b""

    @property
    def held(self) -> int:
        """How many bytes are here."""
        return len(self.data) - self.start

    def put(self, chunk: bytes) -> None:
        """Add what has come."""
        self.trim()
        data = self.data
        if not data:
            self.data = chunk
        elif len(data) <= len(chunk):  # copied for the sake of no fewer new bytes
            self.data = bytes(data) + chunk
        elif isinstance(data, bytearray):
            data += chunk
        else:
            self.data = bytearray(data)
            self.data += chunk

    def trim(self) -> None:
        """Let go of what was taken: a few bytes must not keep a large chunk alive."""
        start = self.start
        if not start:
            return
        data = self.data
        if start == len(data):
            self.data = b""
        elif isinstance(data, bytearray):
            del data[:start]  # moves the beginning, not the bytes
        else:
            self.data = data[start:]
        self.scanned = max(0, self.scanned - start)
        self.start = 0

    def take(self, want: Want, limit: int = READ_LIMIT) -> bytes | None:
        """The piece that is wanted; None: not enough has come yet.

        Arguments:
            want: a number of bytes; a delimiter, which is taken and is no part of the piece; None for all there is,
                at most `limit` bytes; or a pair of either and a limit.
            limit: longest piece, in bytes, without the delimiter.
        Raises:
            Overflow: the piece would be longer.
            TypeError, ValueError: nothing of the kind can be wanted.
        """
        if type(want) is tuple:
            want, limit = _unpacked(want)
        if isinstance(want, int) and not isinstance(want, bool):
            if want > limit:
                raise Overflow(limit, want)
            if want < 0:
                raise ValueError(f"{want} bytes wanted: a number of bytes is not negative")
            return self._cut(self.start + want) if want <= len(self.data) - self.start else None
        if isinstance(want, bytes):
            return self._before(want, limit)
        if want is None:
            held = len(self.data) - self.start
            return self._cut(self.start + min(held, limit)) if held else None
        raise _refusal(want)

    def rest(self) -> bytes:
        """All there is, taken."""
        return self._cut(len(self.data))

    def shortage(self, want: Want) -> IncompleteReadError:
        """What a reader gets whose piece can no longer come whole: the rest, taken, is its `partial`."""
        if isinstance(want, tuple):
            want = want[0]
        return IncompleteReadError(self.rest(), want if isinstance(want, int) else None)

    def _cut(self, end: int, skip: int = 0) -> bytes:
        data, start = self.data, self.start
        self.start = end + skip
        if isinstance(data, bytes):
            return data[start:end]
        return bytes(memoryview(data)[start:end]) if end - start > 1024 else bytes(data[start:end])

    def _before(self, delimiter: bytes, limit: int) -> bytes | None:
        if not delimiter:
            raise ValueError("b'' wanted: a delimiter has at least one byte")
        start = self.start
        begin = self.scanned if self.scanned > start and self.sought == delimiter else start
        found = self.data.find(delimiter, begin)
        if found < 0:
            self.sought = delimiter
            self.scanned = found = max(begin, len(self.data) - len(delimiter) + 1)
            if found - start > limit:
                raise Overflow(limit, delimiter)
            return None
        if found - start > limit:
            raise Overflow(limit, delimiter)
        return self._cut(found, len(delimiter))


def _unpacked(pair: tuple[object, ...]) -> tuple[int | bytes | None, int]:
    want, limit = pair if len(pair) == 2 else (pair, None)
    if isinstance(limit, bool) or not isinstance(limit, int) or not isinstance(want, (int, bytes, type(None))):
        raise _refusal(pair)
    if limit < 0:
        raise ValueError(f"{pair!r} wanted: a limit is not negative")
    return want, limit


def _refusal(want: object) -> TypeError:
    text = repr(want)
    if len(text) > 80:
        text = f"{text[:80]}…"
    return TypeError(
        f"{text} wanted, which is none of: a number of bytes, a delimiter (bytes), a pair of either and a limit, "
        "None for the next chunk"
    )

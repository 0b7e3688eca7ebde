"""What a developer is told of an exception, read from it once: place, source, stack, and the exceptions behind it.

`errors.py` loads this when it shows an error; `errorpage.py` makes HTML of a Report, the rest is here. Keeps no state.
Nothing of the program is evaluated but the exception's own `__str__`, and everything is bounded.
"""

from __future__ import annotations

import linecache
import os
import stat
from collections import deque
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from .errors import MAX_MESSAGE, page_mistake

if TYPE_CHECKING:
    from types import TracebackType

SOURCE_LINES = 5
"""Lines of source shown above and below the failing one: a screen holds a few frames of that size."""
SHOWN_FRAMES = 20
"""Of the program, and as many of others, the innermost: a runaway recursion goes round many more times than that."""
MAX_LINE = 240
"""Characters of a source line that are shown: minified files have all of theirs in one."""
MAX_SOURCE = 4 << 20
"""Bytes of a file whose source is shown: it is read whole, and kept."""
MAX_FAILURES = 10
"""Exceptions of a chain, or in groups."""
MAX_NOTES = 20
"""Notes of an exception (`add_note`)."""

How = Literal["", "cause", "context", "member"]
Span = tuple[int, int] | None
_HOUSE = os.path.dirname(os.path.abspath(__file__)) + os.sep
_LIBRARY = os.path.dirname(os.path.abspath(os.__file__)) + os.sep
# Control characters, and those that turn the direction of writing, would act instead of being seen
_UNSEEN = [*range(0x20), *range(0x7F, 0xA0), *range(0x202A, 0x202F), *range(0x2066, 0x206A)]
_VISIBLE = {code: f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" for code in _UNSEEN if chr(code) not in "\t\n"}


class Columns(NamedTuple):
    """What Python says of a place within a line, from 0: bytes of UTF-8 in code, characters in a SyntaxError."""

    start: int
    end: int
    in_bytes: bool = True


class Row(NamedTuple):
    """A line of source. `span`: where in it the failing expression stands."""

    number: int
    text: str
    span: Span = None


class Place(NamedTuple):
    """A line that was being run, or that is no Python.

    Arguments:
        file: its name as it is shown.
        function: what was being run; empty where nothing was.
        own: whether the file is the program's own, and not a library's or the server's.
        rows: the source around the line; empty where it cannot be read.
        repeated: how many more times the same line called itself.
    """

    file: str
    line: int
    function: str
    own: bool
    rows: tuple[Row, ...]
    repeated: int = 0

    @property
    def row(self) -> Row | None:
        """The line itself."""
        return next((row for row in self.rows if row.number == self.line), None)


class Failure(NamedTuple):
    """One exception.

    Arguments:
        how: what it is to the one above it.
        kind: its class.
        place: where to look first: the innermost place of the program.
        stack: the innermost first.
        left_out: frames that are not shown.
        includes: the files that include the one that is no page, the page first.
        behind: its cause or context, and the members of a group.
    """

    how: How
    kind: str
    message: str
    notes: tuple[str, ...]
    place: Place | None
    stack: tuple[Place, ...]
    left_out: int
    includes: tuple[str, ...]
    behind: tuple[Failure, ...]

    @property
    def summary(self) -> str:
        """Class and message, as Python prints them."""
        return f"{self.kind}: {self.message}" if self.message else self.kind

    def walk(self) -> Iterator[Failure]:
        """This one, and all behind it."""
        yield self
        for failure in self.behind:
            yield from failure.walk()


class Report(NamedTuple):
    """All there is to tell. `doing`: which request, in which handler; `cut`: whether there are exceptions too many."""

    doing: str
    failure: Failure
    cut: bool


def report(error: BaseException, doing: str) -> Report:
    """Read an exception, with its traceback and the exceptions behind it. Never raises, whatever the exception is."""
    linecache.checkcache()  # a file may have been saved since it was last shown
    reader = _Reader()
    failure = reader.failure(error, "")
    return Report(_visible(doing)[:MAX_LINE], failure, reader.cut)


# ---- reading ----


class _Reader:
    """Reads a chain of exceptions, each once."""

    def __init__(self) -> None:
        self.cut = False
        self._seen: set[int] = set()

    def failure(self, error: BaseException, how: How) -> Failure:
        self._seen.add(id(error))
        mistake = page_mistake(error)
        stack, left_out = _stack(error.__traceback__)
        place = next((place for place in stack if place.own), stack[0] if stack else None)
        includes: tuple[str, ...] = ()
        message = message_of(error)
        if mistake is not None:  # it says all there is to know; how the server came upon it is none of it
            place = _place(mistake.path, mistake.line, "", None, None, mistake.text)
            includes = tuple(shown_name(path) for path in mistake.chain[:-1])
            stack = tuple(frame for frame in stack if frame.own)
            left_out, message = 0, _bounded(mistake.message)
        elif isinstance(error, SyntaxError):
            found = _syntax_place(error)
            place = found or place
            message = _bounded(error.msg) if found and isinstance(error.msg, str) else message
        behind = () if mistake else tuple(self._behind(error))
        return Failure(how, _kind(error), message, _notes(error), place, stack, left_out, includes, behind)

    def _behind(self, error: BaseException) -> Iterator[Failure]:
        found: list[tuple[How, BaseException | None]] = []
        if isinstance(error, BaseExceptionGroup):
            found += [("member", member) for member in error.exceptions]
        if error.__cause__ is not None or error.__suppress_context__:
            found.append(("cause", error.__cause__))
        else:
            found.append(("context", error.__context__))
        for how, other in found:
            if other is None or id(other) in self._seen:
                continue
            if len(self._seen) >= MAX_FAILURES:
                self.cut = True
                return
            yield self.failure(other, how)


def message_of(error: BaseException) -> str:
    """An exception's text, even if it fails to give one."""
    try:
        return _bounded(str.__str__(str(error)))
    except BaseException as second:  # noqa: BLE001 whatever it raises, the report goes on, as Python's own does
        return f"<its __str__ raised {type(second).__name__}>"


def _bounded(text: str) -> str:
    cut = text if len(text) <= MAX_MESSAGE else f"{text[:MAX_MESSAGE]}… ({len(text)} characters)"
    return _visible(cut)


def _visible(text: str) -> str:
    return text.translate(_VISIBLE)


def _kind(error: BaseException) -> str:
    kind = type(error)
    module, name = kind.__module__, kind.__qualname__
    plain = module in ("builtins", "__main__") or str(module).startswith("eighties.")
    return _visible(name if plain else f"{module}.{name}")[:MAX_LINE]


def _notes(error: BaseException) -> tuple[str, ...]:
    notes = getattr(error, "__dict__", {}).get("__notes__")
    if not isinstance(notes, (list, tuple)):
        return ()
    return tuple(_bounded(str.__str__(note)) for note in notes[:MAX_NOTES] if isinstance(note, str))


class _Call:
    """A step of a traceback, and how many like it follow at once."""

    __slots__ = ("own", "repeated", "step")

    def __init__(self, step: TracebackType, own: bool) -> None:
        self.step = step
        self.own = own
        self.repeated = 0

    def same(self, step: TracebackType) -> bool:
        mine = self.step
        return mine.tb_frame.f_code is step.tb_frame.f_code and mine.tb_lasti == step.tb_lasti


def _stack(step: TracebackType | None) -> tuple[tuple[Place, ...], int]:
    """The innermost frames, of the program and of others, and how many more there are."""
    own: deque[tuple[int, _Call]] = deque(maxlen=SHOWN_FRAMES)
    others: deque[tuple[int, _Call]] = deque(maxlen=SHOWN_FRAMES)
    known: dict[str, bool] = {}
    call: _Call | None = None
    count = 0
    while step is not None:
        if call is not None and call.same(step):
            call.repeated += 1
        else:
            name = step.tb_frame.f_code.co_filename
            if name not in known:
                known[name] = is_own(name)
            call = _Call(step, known[name])
            count += 1
            (own if call.own else others).append((count, call))
        step = step.tb_next
    shown = sorted((*own, *others), key=lambda pair: pair[0], reverse=True)
    return tuple(_frame(call) for _, call in shown), count - len(shown)


def is_own(filename: str) -> bool:
    """Whether a file belongs to the program: neither to Python, nor to what is installed, nor to the server."""
    if filename.startswith("<"):
        return False
    path = _absolute(filename)
    installed = f"{os.sep}site-packages{os.sep}" in path or f"{os.sep}dist-packages{os.sep}" in path
    return not (installed or path.startswith((_HOUSE, _LIBRARY)))


def _absolute(filename: str) -> str:
    try:
        return os.path.abspath(filename)
    except (OSError, ValueError):  # the current folder is gone
        return filename


def shown_name(filename: str) -> str:
    """A file's name relative to the current folder, where that is shorter."""
    try:
        shorter = os.path.relpath(filename)
    except (OSError, ValueError):
        shorter = filename
    return _visible(shorter if len(shorter) < len(filename) and not filename.startswith("<") else filename)


# ---- places ----


def _frame(call: _Call) -> Place:
    step, code = call.step, call.step.tb_frame.f_code
    line: Any = step.tb_lineno  # None for code that has no lines
    columns: Columns | None = None
    first, last, start, end = next(islice(code.co_positions(), step.tb_lasti // 2, None), (None,) * 4)
    if first == line and start is not None and end is not None:
        columns = Columns(start, end if last == first else MAX_SOURCE)
    place = _place(code.co_filename, line or 0, code.co_qualname, columns, step.tb_frame.f_globals)
    return place._replace(own=call.own, repeated=call.repeated)


def _syntax_place(error: SyntaxError) -> Place | None:
    """Where a SyntaxError found its mistake. Columns there are characters from 1."""
    filename, line, offset, end = error.filename, error.lineno, error.offset, error.end_offset
    if not (isinstance(filename, str) and isinstance(line, int)):
        return None
    columns: Columns | None = None
    if isinstance(offset, int) and offset > 0:
        one_line = error.end_lineno in (None, line) and isinstance(end, int)
        columns = Columns(offset - 1, max(offset, end - 1 if one_line and end else 0), in_bytes=False)
    return _place(filename, line, "", columns, None, error.text if isinstance(error.text, str) else "")


def _place(
    filename: str, line: int, function: str, columns: Columns | None, names: dict[str, Any] | None, text: str = ""
) -> Place:
    """A place with the source around it; with only `text`, the line itself, where its file cannot be read."""
    lines = _source(filename, names)
    first = max(1, line - SOURCE_LINES)
    if 1 <= line <= len(lines):
        around: Iterable[tuple[int, str]] = enumerate(lines[first - 1 : line + SOURCE_LINES], first)
    else:
        around = [(line, text)] if text.strip() else []
    rows = tuple(_row(number, one, columns if number == line else None) for number, one in around)
    return Place(shown_name(filename), line, _visible(function)[:MAX_LINE], is_own(filename), rows)


def _source(filename: str, names: dict[str, Any] | None) -> list[str]:
    """The lines of a file, or of what its module's loader has; none where they cannot be read."""
    try:
        found = os.stat(filename)
        if not stat.S_ISREG(found.st_mode) or found.st_size > MAX_SOURCE:
            return []
    except (OSError, ValueError):
        found = None
    try:
        lines = linecache.getlines(filename, names)
        if not lines and found is not None:  # pages need not be UTF-8
            with open(filename, encoding="utf-8", errors="surrogateescape") as opened:
                lines = opened.readlines()
    except Exception:  # noqa: BLE001 a loader may raise anything
        return []
    return lines


def _row(number: int, line: str, columns: Columns | None) -> Row:
    """A line as it is shown: of a long one, the part around `columns`."""
    line = line.rstrip()
    start, end = _span(line, columns) if columns is not None else (0, 0)
    if len(line) > MAX_LINE:
        first = max(0, min(start - MAX_LINE // 4, len(line) - MAX_LINE))
        ends = "…" if first else "", "…" if first + MAX_LINE < len(line) else ""
        line = f"{ends[0]}{line[first : first + MAX_LINE]}{ends[1]}"
        start, end = start - first + len(ends[0]), min(end - first + len(ends[0]), len(line))
    shown = _visible(line)
    whole = not line[:start].strip() and not line[end:].strip()  # it is marked as a line anyway
    return Row(number, shown, (start, end) if start < end and shown == line and not whole else None)


def _span(line: str, columns: Columns) -> tuple[int, int]:
    """Columns as characters. A mistake may be that the line ends."""
    start, end, in_bytes = columns
    if in_bytes:
        data = line.encode("utf-8", "replace")  # as the pages' compiler counts what is no UTF-8
        start, end = (len(data[: max(0, column)].decode("utf-8", "ignore")) for column in (start, end))
    return min(start, len(line)), min(end, len(line) + 1)


# ---- as text ----

_BETWEEN = {
    "cause": "The above exception was the direct cause of the following exception:",
    "context": "During handling of the above exception, another exception occurred:",
}


def report_text(found: Report) -> str:
    """The report as Python prints a traceback, the exception itself at the end."""
    lines = list(_text_lines(found.failure))
    if found.cut:
        lines += ["", "(There are further exceptions behind these.)"]
    return "\n".join(lines) + "\n"


def _text_lines(failure: Failure) -> Iterator[str]:
    for other in failure.behind:
        if other.how != "member":
            yield from _text_lines(other)
            yield from ("", _BETWEEN[other.how], "")
    if failure.stack:
        yield "Traceback (most recent call last):"
    if failure.left_out:
        yield f"  ({failure.left_out} frames are not shown)"
    for place in reversed(failure.stack):
        yield from _text_place(place)
    if failure.place is not None and failure.place not in failure.stack:
        yield from _text_place(failure.place)
    yield from (f"  included from {file}" for file in reversed(failure.includes))
    yield failure.summary
    yield from failure.notes
    members = [other for other in failure.behind if other.how == "member"]
    for number, member in enumerate(members, 1):
        yield f"  +---------------- {number} ----------------"
        yield from (f"  | {part}" for line in _text_lines(member) for part in line.split("\n"))


def _text_place(place: Place) -> Iterator[str]:
    yield f'  File "{place.file}", line {place.line}' + (f", in {place.function}" if place.function else "")
    row = place.row
    if row is not None:
        margin = len(row.text) - len(row.text.lstrip())
        yield f"    {row.text[margin:]}"
        if row.span is not None and row.span[0] >= margin:
            yield " " * (4 + row.span[0] - margin) + "^" * max(1, row.span[1] - row.span[0])
    if place.repeated:
        yield f"  [Previous line repeated {place.repeated} more times]"


# ---- as JSON ----


def report_json(found: Report) -> str:
    """The report as a JSON object: error, message, file, line, source, stack, chain; notes and includes where any."""
    import json

    value = _values(found.failure)
    value["chain"] = [{"relation": other.how, **_values(other)} for other in islice(found.failure.walk(), 1, None)]
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def _values(failure: Failure) -> dict[str, Any]:
    place = failure.place
    values: dict[str, Any] = {
        "error": failure.kind,
        "message": failure.message,
        "file": place.file if place else None,
        "line": place.line if place else None,
        "source": [{"line": row.number, "code": row.text} for row in place.rows] if place else [],
        "stack": [_frame_values(frame) for frame in failure.stack],
    }
    if failure.notes:
        values["notes"] = failure.notes
    if failure.includes:
        values["includes"] = failure.includes
    return values


def _frame_values(place: Place) -> dict[str, Any]:
    code = place.row.text.strip() if place.row else ""
    return {"file": place.file, "line": place.line, "function": place.function, "code": code, "own": place.own}

"""`%s` and `%d` in SQL text, as the ancestor's programs write them, made into the markers that a driver knows.

Pure: text in, text out. `Client` calls `translate` for what its public methods are given; results are kept for texts
that come again. No argument is ever seen here.
"""

from __future__ import annotations

import re
from functools import lru_cache

CACHED_TEXTS = 1024
"""How many translated texts are kept: a program has some hundreds, and each costs about 1 kB."""
CACHED_LENGTH = 8192
"""Characters; longer texts are translated again each time: they are made by programs, and seldom come twice."""

_COMMENT = r"/\*(?!M?!).*?(?:\*/|\Z)"  # MySQL runs what stands in /*! … */, so that is no comment
_MYSQL = re.compile(
    r"""(?P<text>'(?:[^'\\]|\\.|'')*'|"(?:[^"\\]|\\.|"")*")|(?P<name>`(?:[^`]|``)*`)"""
    rf"|(?P<comment>--(?=[\s]|\Z)[^\n]*|\#[^\n]*|{_COMMENT})|(?P<mark>%[sd%]?|\?)|(?P<open>['\"`])",
    re.DOTALL,
)
_SQLITE = re.compile(
    r"""(?P<text>'(?:[^']|'')*')|(?P<name>"(?:[^"]|"")*"|`(?:[^`]|``)*`|\[[^\]]*\])"""
    rf"|(?P<comment>--[^\n]*|{_COMMENT})|(?P<mark>%[sd%]?|\?)|(?P<open>['\"`])",
    re.DOTALL,
)
_MARK = re.compile(r"(?<!%)(?:%%)*%[sd]")


class MarkerError(ValueError):
    """A marker where none can be, or another number of arguments than of markers. Nothing was sent."""


def translate(dialect: str, query: str, given: int) -> str:
    """The driver's text of a query.

    Arguments:
        dialect: "mysql" (`%s` with `%%` for a percent sign) or "sqlite" (`?`).
        query: with `%s` or `%d`, also as `'%s'`, for each argument, and `%%` for a percent sign when there are any.
        given: how many arguments there are. Without any a percent sign is itself.
    Raises:
        MarkerError: says what is wrong, and where.
    """
    find = _translate if len(query) <= CACHED_LENGTH else _translate.__wrapped__
    text, wanted = find(dialect, query, given > 0)
    if wanted != given:
        markers = f"{wanted or 'no'} marker{'' if wanted == 1 else 's'}"
        raise MarkerError(f"the query has {markers}, but {given} argument{' was' if given == 1 else 's were'} given")
    return text


@lru_cache(CACHED_TEXTS)
def _translate(dialect: str, query: str, arguments: bool) -> tuple[str, int]:
    mysql = dialect == "mysql"
    marker, percent = ("%s", "%%") if mysql else ("?", "%")
    parts: list[str] = []
    wanted = end = 0
    for match in (_MYSQL if mysql else _SQLITE).finditer(query):
        kind, found = match.lastgroup, match[0]
        parts.append(query[end : match.start()])
        end = match.end()
        if kind == "mark" or (kind == "text" and found[1:-1] in ("%s", "%d") and arguments):
            piece = _marker(found, query, match.start(), arguments, marker, percent)
            wanted += piece is marker
        else:
            piece = _quoted(kind, found, query, match.start(), arguments, percent)
        parts.append(piece)
    parts.append(query[end:])
    return "".join(parts), wanted


def _marker(found: str, query: str, place: int, arguments: bool, marker: str, percent: str) -> str:
    """What becomes of a percent sign, a marker or a question mark outside of quotes."""
    if found == "?":
        raise MarkerError(f"{_where(query, place)}: write %s for an argument, not ?")
    if found.strip("'\"") in ("%s", "%d"):
        if arguments:
            return marker
        raise MarkerError(f"{_where(query, place)}: the query has a marker, but no arguments were given")
    if not arguments:
        return percent + (found[1:] if found != "%%" else percent)
    if found == "%%":
        return percent
    raise MarkerError(f"{_where(query, place)}: {found!r} is no marker: write %s or %d, or %% for a percent sign")


def _quoted(kind: str | None, found: str, query: str, place: int, arguments: bool, percent: str) -> str:
    """What becomes of a literal, a quoted name or a comment: itself, if there is no marker in it."""
    if kind == "open":
        raise MarkerError(f"{_where(query, place)}: the quote that opens here is not closed")
    if not arguments:
        return found.replace("%", percent)
    if kind != "comment" and _MARK.search(found):
        raise MarkerError(
            f"{_where(query, place)}: a marker within quotes: write the argument without quotes, as %s "
            "(to search for a part of a text, put the % signs into the argument)"
        )
    if kind == "comment":
        return found.replace("%", percent)
    return found.replace("%%", "%").replace("%", percent)


def _where(query: str, place: int) -> str:
    start, end = max(0, place - 20), place + 30
    text = " ".join(query[start:end].split())
    return f"at character {place + 1} of the query, in {'…' if start else ''}{text}{'…' if end < len(query) else ''}"

"""What a client wants of a file: conditions, ranges and content codings (RFC 9110 §12.5.3, 13, 14).

Functions of header fields, for `static.py`; no state, no files. None raises, whatever a client sends, and all take time
linear in the length of the fields, which the engine bounds. Fields that are not valid are treated as the RFC says:
mostly as if they were absent.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .. import _engine

MAX_RANGES = 16
"""Ranges in one request that are served; of more the whole file is (RFC 9110 §14.2: such requests are attacks)."""
STRONG_AFTER = 1
"""Seconds that a file must be unchanged before its date tells one version from all others (RFC 9110 §8.8.2.2)."""

_SAFE = ("GET", "HEAD")
_UNCONDITIONAL = ("OPTIONS", "TRACE", "CONNECT")
_HUGE = 1 << 62  # more than any file has

_ETAG = re.compile(r'(W/)?("[!#-~\x80-\xff]*")')
_RANGE = re.compile(r"([0-9]+)-([0-9]*)|-([0-9]+)")
_WEIGHT = re.compile(r"[ \t]*q=(0(?:\.[0-9]{0,3})?|1(?:\.0{0,3})?)[ \t]*", re.IGNORECASE)

_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
_MONTH = f"(?P<month>{'|'.join(_MONTHS)})"
_TIME = r"(?P<hour>\d\d):(?P<minute>\d\d):(?P<second>\d\d)"
_DATES = tuple(
    re.compile(form, re.ASCII)
    for form in (
        rf"(?:Mon|Tue|Wed|Thu|Fri|Sat|Sun), (?P<day>\d\d) {_MONTH} (?P<year>\d{{4}}) {_TIME} GMT",
        rf"(?:Mon|Tues|Wednes|Thurs|Fri|Satur|Sun)day, (?P<day>\d\d)-{_MONTH}-(?P<short>\d\d) {_TIME} GMT",
        rf"(?:Mon|Tue|Wed|Thu|Fri|Sat|Sun) {_MONTH} (?P<day>[ \d]\d) {_TIME} (?P<year>\d{{4}})",
    )
)


def parse_date(text: str) -> int | None:
    """A time in seconds since 1970, from any of the three forms of RFC 9110 §5.6.7; None: it is none of them."""
    for form in _DATES:
        found = form.fullmatch(text)
        if found is not None:
            return _seconds(found.groupdict())
    return None


def judge(headers: _engine.MultiDict, method: str, etag: str, modified: int) -> int:
    """Evaluate the preconditions of a request, in the order of RFC 9110 §13.2.2.

    Arguments:
        headers: the request's.
        method: the request's.
        etag: the strong entity tag of what would be sent.
        modified: when that was last modified, in seconds since 1970.
    Returns:
        304 or 412, where that is the answer; 0: go on.
    """
    if method in _UNCONDITIONAL:  # RFC 9110 §13.2.1
        return 0
    if "if-match" in headers:
        if not _names(headers, "if-match", etag, weakly=False):
            return 412
    elif _not_since(headers, "if-unmodified-since", modified) is False:
        return 412
    if "if-none-match" in headers:
        if _names(headers, "if-none-match", etag, weakly=True):
            return 304 if method in _SAFE else 412
    elif method in _SAFE and _not_since(headers, "if-modified-since", modified):
        return 304
    return 0


def wants_part(headers: _engine.MultiDict, etag: str, modified: int, now: float) -> bool:
    """Whether If-Range, if there is one, lets Range count (RFC 9110 §13.1.5).

    Arguments:
        now: seconds since 1970; a date tells versions apart only when it is past, see `STRONG_AFTER`.
    """
    if "if-range" not in headers:
        return True
    value = _only(headers, "if-range")
    if value is None or value == etag:
        return value is not None
    if '"' in value[:3]:
        return False
    return parse_date(value) == modified and modified + STRONG_AFTER <= now


def read_ranges(headers: _engine.MultiDict, size: int) -> list[tuple[int, int]] | None:
    """The parts that a Range field asks for (RFC 9110 §14.1.1, 14.1.2, 14.2).

    Arguments:
        size: bytes that there are.
    Returns:
        `(start, stop)` of each satisfiable range, in the order asked for. Those that overlap or touch are one, at the
        place of the first. An empty list: none is satisfiable (416). None: the field is to be ignored: no range of
        bytes, not valid, too many, or the end of what is empty, for which there is no Content-Range.
    """
    unit, _, value = (_only(headers, "range") or "").partition("=")
    if unit.lower() != "bytes":
        return None
    members = [member for member in map(_stripped, value.split(",")) if member]
    if not 0 < len(members) <= MAX_RANGES:
        return None
    found: list[tuple[int, int]] = []
    for member in members:
        match = _RANGE.fullmatch(member)
        span = _span(match, size) if match is not None else None
        if span is None:
            return None
        if span[0] < span[1]:
            _add_span(found, *span)
    return found


def choose_coding(accept: Iterable[str], offered: Iterable[str]) -> str:
    """The content coding that a client likes best (RFC 9110 §12.5.3).

    Arguments:
        accept: the values of its Accept-Encoding fields.
        offered: codings, the server's favourite first, which decides between equal weights.
    Returns:
        One of `offered`; or an empty text for none, also where the client refuses that (it may then do without).
    """
    weights = _weights(",".join(accept))
    others = weights.get("*", 0.0)
    best, most = "", 0.0
    for coding in offered:
        weight = weights.get(coding, others)
        if weight > most:
            best, most = coding, weight
    # Without a word about it the file as it is will do, if nothing that was named is there
    return best if most >= weights.get("identity", others) else ""


# ---- fields ----


def _stripped(text: str) -> str:
    return text.strip(" \t")


def _only(headers: _engine.MultiDict, name: str) -> str | None:
    """The value of a field that may stand once; None: it is absent, or stands several times."""
    values: list[str] = headers.getall(name)
    return values[0] if len(values) == 1 else None


def _not_since(headers: _engine.MultiDict, name: str, modified: int) -> bool | None:
    """Whether a date in a field is not before the file's; None: there is no valid one (RFC 9110 §13.1.3, 13.1.4)."""
    if name not in headers:
        return None
    value = _only(headers, name)
    date = parse_date(value) if value is not None else None
    return None if date is None else modified <= date


def _names(headers: _engine.MultiDict, name: str, etag: str, *, weakly: bool) -> bool:
    """Whether a list of entity tags has this one, or is `*` (RFC 9110 §8.8.3.2, 13.1.1, 13.1.2).

    What follows something that is no entity tag is not read.
    """
    text = _stripped(",".join(headers.getall(name)))
    if text in ("*", etag):
        return True
    at = 0
    while at < len(text):
        if text[at] in ", \t":
            at += 1
            continue
        found = _ETAG.match(text, at)
        if found is None or (found.end() < len(text) and text[found.end()] not in ", \t"):
            return False
        if found[2] == etag and (weakly or found[1] is None):
            return True
        at = found.end()
    return False


def _weights(text: str) -> dict[str, float]:
    """Weights by name, in lower case; the first of a name counts, and no member that is not valid does."""
    weights: dict[str, float] = {}
    for member in text.lower().split(","):
        name, mark, weight = member.partition(";")
        name = _stripped(name)
        if name == "x-gzip":  # RFC 9110 §8.4.1.3
            name = "gzip"
        found = _WEIGHT.fullmatch(weight) if mark else None
        if name and (found is not None or not mark):
            weights.setdefault(name, float(found[1]) if found is not None else 1.0)
    return weights


# ---- ranges ----


def _number(digits: str) -> int:
    """A number of any length: int() refuses thousands of digits, and no file has that many bytes."""
    digits = digits.lstrip("0")
    return int(digits or "0") if len(digits) < 19 else _HUGE


def _span(match: re.Match[str], size: int) -> tuple[int, int] | None:
    """Start and stop of one range, an empty one if it is not satisfiable; None: nothing can be made of it."""
    first, last, suffix = match.groups()
    if suffix is not None:
        length = _number(suffix)
        return (max(0, size - length), size) if size or not length else None
    start = _number(first)
    if not last:
        return min(start, size), size
    stop = _number(last) + 1
    return (min(start, size), min(stop, size)) if start < stop else None


def _add_span(found: list[tuple[int, int]], start: int, stop: int) -> None:
    """Add a range to others that neither overlap nor touch, so that this remains so."""
    near = [one for one in found if one[0] <= stop and start <= one[1]]
    if not near:
        found.append((start, stop))
        return
    found[found.index(near[0])] = (min(start, *(one[0] for one in near)), max(stop, *(one[1] for one in near)))
    for one in near[1:]:
        found.remove(one)


# ---- dates ----


def _seconds(parts: Mapping[str, str | None]) -> int | None:
    from datetime import UTC, datetime

    number = {name: int(text) for name, text in parts.items() if text is not None and name != "month"}
    month = _MONTHS.index(parts["month"] or "") + 1
    year = number["year"] if "year" in number else _full_year(number["short"], datetime.now(UTC).year)
    if number["second"] > 60:  # 60 is a leap second
        return None
    try:
        minute = datetime(year, month, number["day"], number["hour"], number["minute"], tzinfo=UTC)
    except ValueError:  # the 31st of February
        return None
    return int(minute.timestamp()) + number["second"]


def _full_year(short: int, now: int) -> int:
    """Two digits of a year: what would be more than 50 years ahead was the last that ended so (RFC 9110 §5.6.7)."""
    year = now - now % 100 + short
    return year - 100 if year > now + 50 else year

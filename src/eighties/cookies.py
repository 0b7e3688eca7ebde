"""Cookies: the Cookie field read, the Set-Cookie field written (RFC 6265).

Keeps no state. `Request.cookies` reads leniently, since the client chooses every byte; `Response.set_cookie` refuses
what browsers would take for something else.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from datetime import datetime

_LETTERS = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
_TOKEN = frozenset(_LETTERS + "!#$%&'*+-.^_`|~")  # RFC 9110 §5.6.2
_VALUE = frozenset(chr(code) for code in range(0x21, 0x7F)) - frozenset('",;\\')  # RFC 6265 §4.1.1


def parse_cookies(text: str) -> dict[str, str]:
    """Cookies of a Cookie field, in linear time; the first of a name counts. What is no `name=value` is passed over."""
    cookies: dict[str, str] = {}
    for part in text.split(";"):
        name, equals, value = part.partition("=")
        name = name.strip(" \t")
        if not (equals and name):
            continue
        value = value.strip(" \t")
        if len(value) > 1 and value[0] == value[-1] == '"':
            value = value[1:-1]
        cookies.setdefault(name, value)
    return cookies


def check_cookie(
    name: str, value: str, path: str | None, domain: str | None, secure: bool, samesite: str | None
) -> None:
    """Refuse what may not stand in a Set-Cookie field.

    Raises:
        ValueError: names the part.
    """
    if not name or not _TOKEN.issuperset(name):
        raise ValueError(f"cookie name {name!r} is no token (RFC 6265 §4.1.1)")
    if not _VALUE.issuperset(value):
        raise ValueError(f'value of cookie {name} holds a space, a control character, non-ASCII or one of " , ; \\')
    for key, text in (("path", path), ("domain", domain)):
        if text and not (text.isascii() and text.isprintable() and ";" not in text):
            raise ValueError(f"{key} of cookie {name} holds a control character, non-ASCII or a semicolon: {text!r}")
    if samesite not in ("Lax", "Strict", "None", None):
        raise ValueError(f"samesite of cookie {name} is {samesite!r}, it must be 'Lax', 'Strict', 'None' or None")
    if not secure and (samesite == "None" or name.startswith(("__Secure-", "__Host-"))):
        raise ValueError(f"cookie {name} needs secure=True: browsers refuse it otherwise")
    if name.startswith("__Host-") and (domain or path != "/"):
        raise ValueError(f"cookie {name} must have path='/' and no domain: browsers refuse it otherwise")


def http_date(when: datetime) -> str:
    """A time as HTTP has it, `Sun, 06 Nov 1994 08:49:37 GMT` (RFC 9110 §5.6.7), whatever the locale.

    Raises:
        ValueError: the datetime has no time zone.
    """
    from datetime import UTC

    if when.tzinfo is None:
        raise ValueError("expires needs a datetime with a time zone, such as datetime.now(UTC)")
    when = when.astimezone(UTC)
    day = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")[when.weekday()]
    month = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")[when.month - 1]
    return f"{day}, {when.day:02} {month} {when.year:04} {when:%H:%M:%S} GMT"

"""Arguments of queries as drivers take them: what they would guess at, or write in their own way, is settled here.

Pure; each client calls it for every statement.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from types import NoneType
from typing import Any
from uuid import UUID

_PLAIN = frozenset({str, int, bool, NoneType, bytes})
_MYSQL = frozenset({*_PLAIN, date, timedelta})


def for_mysql(args: Sequence[object]) -> tuple[Any, ...]:
    """What goes into MySQL's binary protocol.

    Raises:
        TypeError, ValueError: an argument is of no use.
    """
    if _PLAIN.issuperset(map(type, args)):
        return args if type(args) is tuple else tuple(args)
    return tuple([value if type(value) in _MYSQL else _plain(value) for value in args])


def for_sqlite(args: Sequence[object]) -> tuple[Any, ...]:
    """What SQLite can store: dates and times are written as MySQL writes them, a Decimal as its digits.

    Raises:
        TypeError, ValueError: an argument is of no use.
    """
    if _PLAIN.issuperset(map(type, args)):
        return args if type(args) is tuple else tuple(args)
    return tuple([value if type(value) in _PLAIN else _written(_plain(value)) for value in args])


def _plain(value: Any) -> Any:
    """A value of one of the plain types, a float, or a date or time without a zone."""
    if isinstance(value, Enum):
        return _plain(value.value)
    if isinstance(value, float):
        if math.isfinite(value):
            return float(value)
        raise ValueError(f"{value} cannot be stored")
    if isinstance(value, datetime):
        return value if value.tzinfo is None else value.astimezone(UTC).replace(tzinfo=None)
    if isinstance(value, time) and value.tzinfo is not None:
        raise ValueError(f"{value!r}: a time of day with a time zone cannot be stored")
    if isinstance(value, UUID):
        return str(value)
    if isinstance(value, dict | list):
        return json.dumps(value, ensure_ascii=False, allow_nan=False)
    if isinstance(value, bytearray | memoryview):
        return bytes(value)
    if isinstance(value, Decimal):
        if value.is_finite():
            return value
        raise ValueError(f"{value} cannot be stored")
    if value is None or isinstance(value, bool | date | time | timedelta):
        return value
    if isinstance(value, str):  # of a class that is derived, as the next
        return str.__str__(value)
    if isinstance(value, int):
        return int(value)
    if isinstance(value, bytes):
        return bytes(value)
    raise TypeError(f"an argument of type {type(value).__name__} cannot be stored")


def _written(value: Any) -> Any:
    if isinstance(value, datetime):
        return value.isoformat(" ")
    if isinstance(value, date | time):
        return value.isoformat()
    if isinstance(value, timedelta):
        sign, value = ("-", -value) if value < timedelta() else ("", value)
        minutes, seconds = divmod(value.days * 86400 + value.seconds, 60)
        part = f".{value.microseconds:06}" if value.microseconds else ""
        return f"{sign}{minutes // 60:02}:{minutes % 60:02}:{seconds:02}{part}"
    return format(value, "f") if isinstance(value, Decimal) else value

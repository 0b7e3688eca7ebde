"""Types of fields: what a Python type is in SQL, and how its values travel to a driver and back.

`entity.py` takes a Kind for every field, `statements.py` asks it for binders and readers once per statement. A binder
is called with every argument and refuses what is of another type: MySQL would compare the text "abc" with the number 0
and find them equal. What drivers cannot take the client writes in their way (`arguments.py`). A reader is None where
the driver gives the right object already. Neither ever sees None.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from math import isfinite
from types import UnionType
from typing import Annotated, Any, NamedTuple, Union, get_args, get_origin
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.dialects import mysql, sqlite
from sqlalchemy.engine import Dialect

Convert = Callable[[Any], Any]

DIALECTS: dict[str, Dialect] = {
    "mysql": mysql.dialect(paramstyle="named"),
    "sqlite": sqlite.dialect(paramstyle="named"),
}
"""By a client's `dialect`: how SQLAlchemy writes SQL. `statements.py` puts the driver's markers for the names."""

MAX_INT = 2**63 - 1
"""Integers are BIGINT in MySQL and INTEGER in SQLite: 64 bits, signed."""
DECIMAL_DIGITS, DECIMAL_PLACES = 20, 6
"""Of a `Decimal` without more said; `Annotated[Decimal, sqlalchemy.Numeric(12, 2)]` says it."""
ENUM_LENGTH = 64
"""Characters of an enum's column at least, so that a longer member may be added without changing the table."""


class Varchar:
    """Text of at most `length` characters, as an annotation: `Annotated[str, Varchar(50)]`, or `Varchar(50)` alone.

    At run time both are the same. Type checkers see a `str` in the first; the second is a call in an annotation, which
    they report (mypy: valid-type) and take for Any. A longer text is refused when it is written, by either database.

    Raises:
        ValueError: the length is not within 1 and 16383, what MySQL's utf8mb4 can hold.
    """

    __slots__ = ("length",)

    def __init__(self, length: int) -> None:
        if not 0 < length <= 16383:
            raise ValueError(f"a Varchar has 1 to 16383 characters, not {length}")
        self.length = length

    def __or__(self, other: Any) -> Any:
        return Annotated[str, self] | other

    def __ror__(self, other: Any) -> Any:
        return other | Annotated[str, self]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Varchar) and other.length == self.length

    def __hash__(self) -> int:
        return hash((Varchar, self.length))

    def __repr__(self) -> str:
        return f"Varchar({self.length})"


class Kind(NamedTuple):
    """A type of values. `python` is what a parameter or a field of it is annotated with."""

    python: type
    sql: sa.types.TypeEngine[Any]
    check: Convert  # a value of a program → one that a client takes for this type; raises TypeError or ValueError
    from_db: dict[str, Convert] = {}  # by dialect
    length: int | None = None
    ordered: bool = True

    @property
    def text(self) -> bool:
        """Whether it can be searched in, and has upper and lower case."""
        return self.python is str

    def binder(self, dialect: Dialect) -> Convert:
        """The function that makes a client's value of a program's."""
        return self.check

    def reader(self, dialect: Dialect) -> Convert | None:
        """The function that makes a program's value of a driver's; None: it is one."""
        return self.from_db.get(dialect.name)


class Foreign(NamedTuple):
    """The type of a column of somebody's SQLAlchemy table: SQLAlchemy's own converters are used."""

    python: type
    sql: sa.types.TypeEngine[Any]
    length: int | None = None
    ordered: bool = True

    @property
    def text(self) -> bool:
        return issubclass(self.python, str) and not issubclass(self.python, Enum)

    def check(self, value: Any) -> Any:
        if isinstance(value, self.python) or (self.python is float and isinstance(value, int)):
            return value
        if self.python is Decimal and isinstance(value, int):
            return Decimal(value)
        raise _wanted(self.python.__name__, value)

    def binder(self, dialect: Dialect) -> Convert:
        check, convert = self.check, self.sql.dialect_impl(dialect).bind_processor(dialect)
        if convert is None:
            return check
        return lambda value: convert(check(value))

    def reader(self, dialect: Dialect) -> Convert | None:
        convert = self.sql.dialect_impl(dialect).result_processor(dialect, None)
        return convert if convert is None or callable(convert) else None


AnyKind = Kind | Foreign


def _wanted(what: str, value: object) -> TypeError:
    return TypeError(f"{what} is wanted, not {type(value).__name__}")


def _int(value: Any) -> int:
    if type(value) is not int:
        if not isinstance(value, int):
            raise _wanted("int", value)
        return _int(int(value))
    if -MAX_INT - 1 <= value <= MAX_INT:
        return value
    raise ValueError("a number of more than 64 bits")


def _float(value: Any) -> float:
    if not isinstance(value, (float, int)):
        raise _wanted("float", value)
    number = float(value)
    if not isfinite(number):
        raise ValueError(f"{number} is no number that a database can hold")
    return number


def _bool(value: Any) -> bool:
    if value is True or value is False:
        return bool(value)
    raise _wanted("bool", value)


def _str(value: Any) -> str:
    if type(value) is str:
        return value
    if isinstance(value, str):
        return str.__str__(value)
    raise _wanted("str", value)


def _bytes(value: Any) -> bytes:
    if type(value) is bytes:
        return value
    if isinstance(value, (bytes, bytearray, memoryview)):
        return bytes(value)
    raise _wanted("bytes", value)


def _datetime(value: Any) -> datetime:
    if not isinstance(value, datetime):
        raise _wanted("datetime", value)
    return value if value.tzinfo is None else value.astimezone(UTC).replace(tzinfo=None)


def _date(value: Any) -> date:
    if isinstance(value, date) and not isinstance(value, datetime):
        return value
    raise _wanted("date", value)


def _time(value: Any) -> time:
    if not isinstance(value, time):
        raise _wanted("time", value)
    if value.tzinfo is not None:
        raise ValueError("a time of day with a time zone")
    return value


def _decimal(value: Any) -> Decimal:
    if isinstance(value, int):
        value = Decimal(value)
    if not isinstance(value, Decimal):
        raise _wanted("Decimal", value)
    if not value.is_finite():
        raise ValueError(f"{value} is no number that a database can hold")
    return value


def _uuid(value: Any) -> UUID:
    if isinstance(value, UUID):
        return value
    raise _wanted("UUID", value)


def _json(value: Any) -> str:
    if not isinstance(value, (dict, list, tuple)):
        raise _wanted("dict or list", value)
    return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))


def _time_of(value: Any) -> Any:
    """MySQL's TIME is a span of time; one of a day is a time of day."""
    return (datetime.min + value).time() if isinstance(value, timedelta) else value


def _flag(value: Any) -> bool:
    return bool(value) and value != b"\0"  # BIT(1) comes as bytes


def _fixed(places: int) -> Convert:
    step = Decimal(1).scaleb(-places)

    def decimal(value: Any) -> Decimal:
        return Decimal(str(value)).quantize(step)

    return decimal


def _sqlite(convert: Convert) -> dict[str, Convert]:
    return {"sqlite": convert}


def _both(convert: Convert) -> dict[str, Convert]:
    return {"sqlite": convert, "mysql": convert}


def _numeric(digits: int, places: int) -> Kind:
    # SQLite has no decimals: it keeps 15 digits exactly, and compares as numbers.
    return Kind(Decimal, sa.Numeric(digits, places), _decimal, _sqlite(_fixed(places)))


def varchar(length: int) -> Kind:
    """Text of at most so many characters."""
    return Kind(str, sa.String(length), _str, length=length)


KINDS: dict[type, Kind] = {
    int: Kind(int, sa.BigInteger().with_variant(sa.Integer(), "sqlite"), _int),
    str: Kind(str, sa.Text().with_variant(mysql.MEDIUMTEXT(), "mysql"), _str),
    float: Kind(float, sa.Double(), _float),
    bool: Kind(bool, sa.Boolean(), _bool, from_db=_both(_flag)),
    bytes: Kind(bytes, sa.LargeBinary().with_variant(mysql.MEDIUMBLOB(), "mysql"), _bytes),
    datetime: Kind(
        datetime,
        sa.DateTime().with_variant(mysql.DATETIME(fsp=6), "mysql"),
        _datetime,
        _sqlite(datetime.fromisoformat),
    ),
    date: Kind(date, sa.Date(), _date, _sqlite(date.fromisoformat)),
    time: Kind(
        time,
        sa.Time().with_variant(mysql.TIME(fsp=6), "mysql"),
        _time,
        {"sqlite": time.fromisoformat, "mysql": _time_of},
    ),
    Decimal: _numeric(DECIMAL_DIGITS, DECIMAL_PLACES),
    UUID: Kind(UUID, sa.CHAR(36), _uuid, _both(UUID)),
    dict: Kind(dict, sa.JSON(), _json, from_db=_both(json.loads), ordered=False),
    list: Kind(list, sa.JSON(), _json, from_db=_both(json.loads), ordered=False),
}
"""What an annotation may be, with what becomes of it; enums, `Varchar(n)` and `Annotated` come besides."""


def kind_of(annotation: Any) -> tuple[AnyKind, bool]:
    """The kind of a field's annotation, and whether it may be None.

    Raises:
        TypeError: no column can hold that.
    """
    if isinstance(annotation, Varchar):
        return varchar(annotation.length), False
    if isinstance(annotation, (sa.types.TypeEngine, type)) and not get_args(annotation):
        return _kind_of_type(annotation), False
    origin = get_origin(annotation)
    if origin is Annotated:
        return _kind_of_annotated(*get_args(annotation))
    if origin in (Union, UnionType):
        members = [member for member in get_args(annotation) if member is not type(None)]
        if len(members) == 1:
            return kind_of(members[0])[0], len(members) < len(get_args(annotation))
    elif origin in KINDS:  # dict[str, int], list[str]
        return KINDS[origin], False
    raise TypeError(f"{annotation!r} is no type that a column can hold")


def _kind_of_annotated(annotation: Any, *extras: Any) -> tuple[AnyKind, bool]:
    kind, nullable = kind_of(annotation)
    for extra in extras:
        if isinstance(extra, Varchar) and kind.python is str:
            return varchar(extra.length), nullable
        if isinstance(extra, type) and issubclass(extra, sa.types.TypeEngine):
            extra = extra()
        if isinstance(extra, sa.Numeric) and kind.python is Decimal:
            return _numeric(extra.precision or DECIMAL_DIGITS, extra.scale or 0)._replace(sql=extra), nullable
        if isinstance(extra, sa.types.TypeEngine):
            return Foreign(kind.python, extra, getattr(extra, "length", None), kind.ordered), nullable
    return kind, nullable


def _kind_of_type(annotation: Any) -> AnyKind:
    if isinstance(annotation, sa.types.TypeEngine):
        return foreign(annotation)
    if annotation in KINDS:
        return KINDS[annotation]
    if issubclass(annotation, Enum):
        return _enum(annotation)
    raise TypeError(f"{annotation!r} is no type that a column can hold")


def _enum(enum: type[Enum]) -> Kind:
    """An enum is kept by its values, which are all text or all numbers."""
    values = [member.value for member in enum]
    sql: sa.types.TypeEngine[Any]
    if values and all(isinstance(value, str) for value in values):
        sql = sa.String(max(ENUM_LENGTH, *map(len, values)))
    elif values and all(isinstance(value, int) for value in values):
        sql = sa.BigInteger()
    else:
        raise TypeError(f"{enum.__name__}: the values of an enum in a table are all str or all int")

    def check(value: Any) -> Any:
        if isinstance(value, enum):
            return value.value
        raise _wanted(enum.__name__, value)

    return Kind(enum, sql, check, from_db=_both(enum))


def foreign(sql: sa.types.TypeEngine[Any]) -> Foreign:
    """The kind of a column of a SQLAlchemy table."""
    try:
        python = sql.python_type
    except NotImplementedError:
        python = object
    ordered = not isinstance(sql, sa.JSON)
    return Foreign(python if ordered else object, sql, getattr(sql, "length", None), ordered)

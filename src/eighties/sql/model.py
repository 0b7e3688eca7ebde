"""What the rest of the room knows of an entity: its table, its columns, and how objects are made of rows.

A Model is made once per entity, by `entity.py`, and never changes but for its compiled functions.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from enum import Enum
from typing import Any, NamedTuple

import sqlalchemy as sa

from .errors import BadRow
from .grammar import closest
from .kinds import DIALECTS, MAX_INT, AnyKind, Convert, Kind

Rows = Iterable[Sequence[Any]]

MAX_READERS = 64
"""Compiled functions a Model keeps: each is for one list of columns, and `@query` may give any."""


_PLAIN = (str, bool, bytes)  # of which every value is good


class _Never:
    """The type of no value."""


class Column(NamedTuple):
    """A field of an entity as a column of its table."""

    name: str
    sql: sa.Column[Any]
    kind: AnyKind
    nullable: bool
    primary: bool
    auto: bool
    label: str  # the entity's name and the field's, for messages

    def binder(self, dialect: str) -> Callable[[Any], Any]:
        """A function for arguments that are compared with the column, None included; its errors name the field."""
        convert, label = self.kind.binder(DIALECTS[dialect]), self.label
        plain = self.kind.python if isinstance(self.kind, Kind) and self.kind.python in _PLAIN else _Never

        def bind(value: Any) -> Any:
            if value is None or type(value) is plain:
                return value
            try:
                return convert(value)
            except (TypeError, ValueError) as error:
                raise type(error)(f"{label}: {error}") from None

        def bind_int(value: Any) -> Any:
            return value if type(value) is int and -MAX_INT <= value <= MAX_INT else bind(value)

        return bind_int if isinstance(self.kind, Kind) and self.kind.python is int else bind

    def writer(self, dialect: str) -> Callable[[Any], Any]:
        """The same for values that are stored: what the column cannot hold is refused."""
        bind, length, label = self.binder(dialect), self.kind.length, self.label
        required = not self.nullable and not self.auto and self.sql.server_default is None

        def write(value: Any) -> Any:
            if value is None and required:
                raise ValueError(f"{label}: it may not be None")
            if length is not None and isinstance(value, str) and len(value) > length:
                raise ValueError(f"{label}: {len(value)} characters, it holds {length}")
            return bind(value)

        return write


def _labelled(convert: Convert, column: Column) -> Convert:
    """Of an enum, whose values in the table may be others: its errors name the field."""
    if not issubclass(column.kind.python, Enum):
        return convert

    def read(value: Any) -> Any:
        try:
            return convert(value)
        except ValueError as error:
            raise BadRow(f"{column.label}: {error}") from None

    return read


class Model:
    """An entity as the rest of the room sees it.

    Attributes:
        cls: the class of the objects.      table: the SQLAlchemy Table.
        columns: by field, in order.        primary: those of the primary key.
        auto: the one that the database gives, or None.
    """

    def __init__(self, cls: type, table: sa.Table, columns: Sequence[Column], make: Any = None) -> None:
        self.cls, self.table, self._make = cls, table, make
        self.name = cls.__name__
        self.columns = {column.name: column for column in columns}
        self.primary = tuple(column for column in columns if column.primary)
        self.auto = next((column for column in columns if column.auto), None)
        self.by_column = {column.sql.name: column for column in columns}
        self.repositories: dict[type, type] = {}  # what `Repository[…]` has made
        self._readers: dict[tuple[str, tuple[str, ...]], Callable[[Rows], list[Any]]] = {}

    def column(self, name: str) -> Column:
        """A field by its name.

        Raises:
            ValueError: there is none; the message suggests the closest.
        """
        column = self.columns.get(name)
        if column is None:
            suggestion = closest(name, self.columns)
            hint = f"; did you mean {suggestion!r}?" if suggestion else ""
            raise ValueError(f"{self.name} has no field {name!r}{hint}")
        return column

    def key(self) -> tuple[Column, ...]:
        """The primary key.

        Raises:
            TypeError: the entity has none.
        """
        if not self.primary:
            raise TypeError(f"{self.name} has no primary key")
        return self.primary

    def reader(self, dialect: str, names: Sequence[str] | None = None) -> Callable[[Rows], list[Any]]:
        """A function that makes a list of objects of rows.

        Arguments:
            names: of the rows' columns, if they are not the entity's own in their order.
        Raises:
            BadRow: a column of the entity is not among them.
        """
        order = tuple(names) if names is not None else tuple(self.by_column)
        reader = self._readers.get((dialect, order))
        if reader is None:
            missing = [name for name in self.by_column if name not in order]
            if missing:
                raise BadRow(f"{self.name}: the rows have no column {missing[0]!r}")
            reader = self._compile(dialect, order)
            if len(self._readers) < MAX_READERS:
                self._readers[dialect, order] = reader
        return reader

    def _compile(self, dialect: str, order: tuple[str, ...]) -> Callable[[Rows], list[Any]]:
        """One function for one list of columns: what dataclasses do for constructors, done for rows."""
        names: dict[str, Any] = {"cls": self.cls, "new": object.__new__, "make": self._make}
        values = {}
        for index, name in enumerate(order):
            column = self.by_column.get(name)
            if column is None:
                continue
            convert = column.kind.reader(DIALECTS[dialect])
            names[f"r{index}"] = convert = None if convert is None else _labelled(convert, column)
            values[column.name] = (
                f"c{index}" if convert is None else f"c{index} if c{index} is None else r{index}(c{index})"
            )
        lines = ["def read(rows):", " result = []", " append = result.append"]
        lines.append(f" for {', '.join(f'c{index}' for index in range(len(order)))}, in rows:")
        if self._make is not None:
            lines.append(f"  append(make({', '.join(f'{name}={value}' for name, value in values.items())}))")
        else:
            lines.append("  self = new(cls)")
            lines += [f"  self.{name} = {value}" for name, value in values.items()]
            lines += ["  self.__post_init__()"] if hasattr(self.cls, "__post_init__") else []
            lines.append("  append(self)")
        lines.append(" return result")
        exec("\n".join(lines), names)
        read: Callable[[Rows], list[Any]] = names["read"]
        return read

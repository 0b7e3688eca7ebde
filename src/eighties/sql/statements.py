"""Queries on entities as SQL text, and how arguments become the driver's.

SQLAlchemy Core writes each query once per dialect, with named parameters. A Template is that text cut at its
parameters; the driver's markers are put in, as many as a list has members. What depends on a call is its shape: which
arguments are None, which lists are empty, how rows are sorted, whether there is a limit. Texts are kept per shape, so a
call that was made before costs a look-up and the binding of its arguments. Kept: bounded, per query; no user's text is.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from operator import call
from typing import Any, NamedTuple, TypeVar

import sqlalchemy as sa

from .grammar import Condition, Derived, Order
from .kinds import DIALECTS
from .model import Column, Model

MAX_SHAPES = 128
"""Texts kept per query and dialect, of each kind. One more and all are forgotten: shapes that a program uses come
again at once."""
MAX_KEPT_MEMBERS = 256
"""Of a call's lists: longer texts are put together again each time, which takes less than to send them."""
_NO_LIMIT = {"mysql": "18446744073709551615", "sqlite": "-1"}
MARKERS = {"mysql": "%s", "sqlite": "?"}
ESCAPE = "!"
"""What LIKE's own signs are escaped with in arguments. A backslash would depend on MySQL's NO_BACKSLASH_ESCAPES."""

_SLOT = re.compile(r":([pl])__([0-9]+)\b")
_NAME = re.compile(r"[pl]__[0-9]+")
_TEXT_ONLY = frozenset(("like", "not_like", "starting_with", "ending_with", "containing", "not_containing"))
_NULLABLE = frozenset(("equals", "not"))  # as Spring Data: None compares with IS NULL
_ORDERED = {
    "less_than": "__lt__",
    "before": "__lt__",
    "less_than_equal": "__le__",
    "greater_than": "__gt__",
    "after": "__gt__",
    "greater_than_equal": "__ge__",
}
_PATTERNS = {"starting_with": "{}%", "ending_with": "%{}", "containing": "%{}%", "not_containing": "%{}%"}
_ORDER = re.compile(r"\s*(-?)(\w+)(?:\s+(asc|desc))?\s*", re.IGNORECASE)

_T = TypeVar("_T")
Sql = tuple[str, Sequence[Any]]


class Window(NamedTuple):
    """Which of the rows, in which order: what a call adds to its query."""

    limit: int | None = None
    offset: int | None = None
    order: tuple[Order, ...] | None = None  # None: as the query says itself


WHOLE = Window()


class Template:
    """SQL text of one dialect, cut at its parameters. `slots` are the arguments' places, in the order of the text."""

    def __init__(self, text: str, dialect: str) -> None:
        """`text` with `:p__0` for the argument 0; with `:l__0` its case is ignored."""
        if dialect == "mysql":
            text = text.replace("%", "%%")  # a percent sign in a driver's text of the format style
        pieces = _SLOT.split(text)
        self.slots = [int(slot) for slot in pieces[2::3]]
        self.texts = pieces[0::3]
        marker = MARKERS[dialect]
        self.markers = [f"lower({marker})" if kind == "l" else marker for kind in pieces[1::3]]
        self.plain = self.text({})

    def text(self, counts: dict[int, int]) -> str:
        """The driver's text, for lists of so many members, by slot."""
        parts = [self.texts[0]]
        for slot, marker, text in zip(self.slots, self.markers, self.texts[1:], strict=True):
            parts.append(", ".join([marker] * counts.get(slot, 1)))
            parts.append(text)
        return "".join(parts)


def write(statement: Any, dialect: str) -> Template:
    """A SQLAlchemy statement as a Template."""
    compiled = statement.compile(dialect=DIALECTS[dialect])
    assert all(_NAME.fullmatch(name) for name in compiled.params), compiled.params
    return Template(str(compiled), dialect)


def parameter(place: int, ignore_case: bool = False) -> sa.BindParameter[Any]:
    """The argument at that place, in a SQLAlchemy statement."""
    return sa.bindparam(f"{'l' if ignore_case else 'p'}__{place}", type_=sa.types.NullType())


class Query:
    """A derived query on a model. Immutable but for its Plans, one per dialect, which are made when first asked for."""

    def __init__(self, model: Model, derived: Derived, most: int | None = None) -> None:
        """`most`: how many rows are wanted in any case: 2 tells one from several.

        Raises:
            ValueError: a keyword does not go with a field's type. The message names both.
        """
        self.model, self.derived = model, derived
        limits = [limit for limit in (derived.limit, most) if limit is not None]
        self.limit = min(limits) if limits else None
        self.conditions = [(model.column(one.field), _with_case(model, derived, one)) for one in derived.conditions]
        for column, condition in self.conditions:
            _check(column, condition)
        if derived.all_ignore_case and not any(column.kind.text for column, _ in self.conditions):
            raise ValueError("all_ignore_case: no field of it is text")
        self.plans: dict[str, Plan] = {}

    def plan(self, dialect: str) -> Plan:
        """The query for a client's dialect."""
        plan = self.plans.get(dialect)
        if plan is None:
            plan = self.plans[dialect] = Plan(self, dialect)
        return plan

    def statement(self, dialect: str, absent: frozenset[int], window: Window) -> Any:
        """The SQLAlchemy statement. `absent`: arguments that are None, and lists that are empty."""
        table, derived = self.model.table, self.derived
        where = self.where(dialect, absent)
        columns = [column.sql for column in self.model.columns.values()]
        if derived.action == "count":
            if derived.distinct:
                inner = sa.select(*columns).where(*where).distinct().subquery()
                return sa.select(sa.func.count()).select_from(inner)
            return sa.select(sa.func.count()).select_from(table).where(*where)
        if derived.action == "exists":
            one, none = (sa.literal_column(text, sa.Integer()) for text in "10")
            return sa.select(one).select_from(table).where(*where).limit(one).offset(none)
        if derived.action == "delete":
            return self.deletion(where, dialect)
        query = sa.select(*columns).where(*where)
        if derived.distinct:
            query = query.distinct()
        return self.windowed(query, window, dialect)

    def deletion(self, where: Sequence[Any], dialect: str) -> Any:
        table = self.model.table
        if self.limit is None:
            return sa.delete(table).where(*where)
        # The inner select stands in one of its own: MySQL would not read from the table it deletes from.
        keys = [column.sql for column in self.model.key()]
        inner = self.windowed(sa.select(*keys).where(*where), WHOLE, dialect).subquery()
        key = keys[0] if len(keys) == 1 else sa.tuple_(*keys)
        return sa.delete(table).where(key.in_(sa.select(*inner.columns)))

    def windowed(self, query: Any, window: Window, dialect: str) -> Any:
        for field, descending in self.derived.order if window.order is None else window.order:
            column = self.model.column(field).sql
            query = query.order_by(column.desc() if descending else column.asc())
        if window.limit is None and window.offset is None and self.limit is None:
            return query
        if window.limit is not None:
            query = query.limit(parameter(self.derived.arguments))
        else:
            query = query.limit(sa.literal_column(_NO_LIMIT[dialect] if self.limit is None else str(self.limit)))
        return query.offset(sa.literal_column("0") if window.offset is None else parameter(self.derived.arguments + 1))

    def where(self, dialect: str, absent: frozenset[int]) -> list[Any]:
        place = 0
        groups = []
        conditions = iter(self.conditions)
        for group in self.derived.alternatives:
            tests = []
            for _ in group:
                column, condition = next(conditions)
                tests.append(_test(column, condition, place, place in absent, dialect))
                place += condition.arguments
            groups.append(sa.and_(*tests))
        return [sa.or_(*groups)] if groups else []


class Plan:
    """A Query in one dialect: binds a call's arguments, and knows the text for their shape."""

    def __init__(self, query: Query, dialect: str) -> None:
        self.query, self.dialect = query, dialect
        self.binders: list[Callable[[Any], Any]] = []
        self.lists: list[int] = []
        for column, condition in query.conditions:
            if condition.operator in ("in", "not_in"):
                self.lists.append(len(self.binders))
            self.binders += [_binder(column, condition, dialect)] * condition.arguments
        self.wanted = len(self.binders)
        self.plain: str | None = None  # the text for a call of the most usual shape
        self.templates: dict[tuple[Any, ...], Template] = {}
        self.texts: dict[tuple[Any, ...], str] = {}
        self.read = query.model.reader(dialect)

    def sql(self, arguments: Sequence[Any], window: Window = WHOLE) -> Sql:
        """The text, and the values for its markers.

        Raises:
            TypeError, ValueError: an argument does not fit its field.
        """
        values = tuple(map(call, self.binders, arguments))
        if window is WHOLE and not self.lists and None not in values:
            return self.plain or self._plain(), values
        return self._shaped(list(values), window)

    def _plain(self) -> str:
        self.plain = self._template(frozenset(), WHOLE).plain
        return self.plain

    def _shaped(self, values: list[Any], window: Window) -> Sql:
        counts = {place: len(values[place]) for place in self.lists}
        absent = frozenset(i for i, value in enumerate(values) if value is None or counts.get(i) == 0)
        shape = (absent, window.order, window.limit is None, window.offset is None)
        template = self.templates.get(shape)
        if template is None:
            template = _kept(self.templates, shape, self._template(absent, window))
        if not counts:
            text = template.plain
        else:
            text = self._counted(shape, template, counts)
        limit = self.query.limit if window.limit is None else window.limit
        if limit is not None and self.query.limit is not None:
            limit = min(limit, self.query.limit)
        values += [limit, window.offset]
        flat: list[Any] = []
        for slot in template.slots:
            value = values[slot]
            if type(value) is list:
                flat += value
            else:
                flat.append(value)
        return text, flat

    def _counted(self, shape: tuple[Any, ...], template: Template, counts: dict[int, int]) -> str:
        """The text for lists of so many members."""
        if sum(counts.values()) > MAX_KEPT_MEMBERS:
            return template.text(counts)
        key = (shape, *counts.values())
        return self.texts.get(key) or _kept(self.texts, key, template.text(counts))

    def _template(self, absent: frozenset[int], window: Window) -> Template:
        return write(self.query.statement(self.dialect, absent, window), self.dialect)


def _kept(known: dict[Any, _T], key: Any, value: _T) -> _T:
    if len(known) >= MAX_SHAPES:
        known.clear()
    known[key] = value
    return value


def orders_of(model: Model, order_by: object) -> tuple[Order, ...]:
    """`order_by=` of a call: "author", "-created", "author desc", or several in a tuple or list.

    Raises:
        ValueError, TypeError: it names no field, or is none of these. None of it gets into SQL.
    """
    if isinstance(order_by, str):
        order_by = order_by.split(",", len(model.columns) + 1)
    if not isinstance(order_by, (tuple, list)):
        raise TypeError(f"order_by is text or a list of texts, not {type(order_by).__name__}")
    orders: dict[str, Order] = {}
    for one in order_by:
        match = _ORDER.fullmatch(one) if isinstance(one, str) else None
        if match is None or (match[1] and match[3]):
            raise ValueError(f"order_by: {one!r} is no field, '-field', 'field asc' or 'field desc'")
        if match[2] in orders:  # so there are no more of them than fields, whoever wrote it
            raise ValueError(f"order_by: {match[2]!r} twice")
        model.column(match[2])
        orders[match[2]] = Order(match[2], bool(match[1]) or (match[3] or "").lower() == "desc")
    return tuple(orders.values())


def window_of(model: Model, limit: object = None, offset: object = None, order_by: object = None) -> Window:
    """The keywords of a call. Raises TypeError or ValueError: not a number of rows, or no field."""
    for name, value in (("limit", limit), ("offset", offset)):
        if value is None:
            continue
        if not isinstance(value, int) or isinstance(value, bool):
            raise TypeError(f"{name} is a number, not {type(value).__name__}")
        if not 0 <= value < 2**63:
            raise ValueError(f"{name} cannot be {value}")
    order = None if order_by is None else orders_of(model, order_by)
    return Window(limit, offset, order)  # type: ignore[arg-type]


def _with_case(model: Model, derived: Derived, condition: Condition) -> Condition:
    """`all_ignore_case` is for what is text: Spring's IgnoreCaseType.WHEN_POSSIBLE."""
    if derived.all_ignore_case and condition.arguments and model.column(condition.field).kind.text:
        return condition._replace(ignore_case=True)
    return condition


def _check(column: Column, condition: Condition) -> None:
    kind, operator, name = column.kind, condition.operator, column.kind.python.__name__
    if operator in _TEXT_ONLY and not kind.text:
        raise ValueError(f"{column.label} is {name}: {operator!r} is for text")
    if operator in ("true", "false") and kind.python is not bool:
        raise ValueError(f"{column.label} is {name}: {operator!r} is for bool")
    if condition.ignore_case and not kind.text:
        raise ValueError(f"{column.label} is {name}: 'ignore_case' is for text")
    if not kind.ordered and operator not in ("null", "not_null"):
        raise ValueError(f"{column.label} is {name}: it can be compared with null only")


def _binder(column: Column, condition: Condition, dialect: str) -> Callable[[Any], Any]:
    """What an argument becomes for its condition."""
    bind, label, operator = column.binder(dialect), column.label, condition.operator
    if operator in _NULLABLE:
        return bind

    def some(value: Any) -> Any:
        if value is None:
            raise TypeError(f"{label}: None cannot be compared so; there is is_null")
        return bind(value)

    if operator in ("in", "not_in"):
        return lambda values: _members(values, some, label)
    if operator not in _TEXT_ONLY:
        return some
    pattern = _PATTERNS.get(operator)

    def like(value: Any) -> str:
        text: str = some(value)
        if dialect == "sqlite" and "\0" in text:
            raise ValueError(f"{label}: SQLite's LIKE ends at a NUL character")
        return text if pattern is None else pattern.format(_escaped(text))

    return like


def _members(values: Any, bind: Callable[[Any], Any], label: str) -> list[Any]:
    if isinstance(values, (str, bytes, dict)) or not isinstance(values, Iterable):
        raise TypeError(f"{label}: a list is wanted, not {type(values).__name__}")
    return [bind(value) for value in values]


def _escaped(text: str) -> str:
    return text.replace(ESCAPE, ESCAPE * 2).replace("%", f"{ESCAPE}%").replace("_", f"{ESCAPE}_")


def _test(column: Column, condition: Condition, place: int, absent: bool, dialect: str) -> Any:
    """A condition in SQLAlchemy's words. `absent`: its argument is None, or an empty list."""
    operator, case = condition.operator, condition.ignore_case
    left: Any = sa.func.lower(column.sql) if case else column.sql
    right: Any = parameter(place, case)
    if operator in ("equals", "not"):
        if absent:
            return column.sql.is_(None) if operator == "equals" else column.sql.is_not(None)
        return left == right if operator == "equals" else left != right
    if operator in ("null", "not_null"):
        return column.sql.is_(None) if operator == "null" else column.sql.is_not(None)
    if operator in ("true", "false"):
        return sa.literal_column("1" if operator == "true" else "0") == column.sql
    if operator == "between":
        return left.between(right, parameter(place + 1, case))
    if operator in ("in", "not_in"):
        if absent:
            return sa.false() if operator == "in" else sa.true()
        return left.in_([right]) if operator == "in" else left.not_in([right])
    if operator in _ORDERED:
        return getattr(left, _ORDERED[operator])(right)
    if operator in ("like", "not_like"):
        escape = "\\" if dialect == "sqlite" else None  # MySQL's own: patterns mean the same in both
        return left.like(right, escape) if operator == "like" else left.not_like(right, escape)
    if operator == "not_containing":
        return left.not_like(right, ESCAPE)
    return left.like(right, ESCAPE)

"""The ancestor's form of repositories ("ORM module" in its README): `orm.create(sql, source=…, entity={…})`.

Methods are found by name when first asked for: `repo.all.by_author_and_id(…)` takes the grammar of `grammar.py`, the
rest is `methods.py` and `writes.py`. What differs from the ancestor: `order_by` and `limit` are checked, names are in
snake_case, and one that does not parse raises. Methods give Promises, as the ancestor's do: they run though nobody
awaits them. A Repo holds its client and the methods that it has made.
"""

from __future__ import annotations

import datetime as _datetime
from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal
from enum import Enum
from typing import Any, NoReturn
from uuid import UUID

from ..promise import Promise
from . import methods, writes
from .client import Client
from .entity import Record, field, model_of, record
from .grammar import Action, BadName, closest, parse_predicate
from .kinds import Varchar
from .model import Model
from .promised import promised
from .statements import WHOLE, Query, window_of
from .writes import Writer

__all__ = ["Repo", "create", "t"]

MAX_METHODS = 256
"""Of each of `all`, `one`, …: names come from a program's text, but may be made by `getattr`, too."""


class t:  # noqa: N801 the ancestor's name
    """Types of fields: the ancestor's, and what besides is wanted. Python's own types do as well."""

    int = int
    text = str
    double = float
    bit = bool
    bool = bool
    datetime = _datetime.datetime
    date = _datetime.date
    time = _datetime.time
    decimal = Decimal
    json = dict
    bytes = bytes
    uuid = UUID

    @staticmethod
    def varchar(length: Any) -> Any:
        """Text of at most so many characters. Longer text is refused; the ancestor cut it."""
        return Varchar(length)

    @staticmethod
    def enum(enum: type[Enum]) -> Any:
        """An enum, kept by its values."""
        return enum


class Finders:
    """`repo.all` and its like: `by()`, `by_id(…)`, `by_author_and_id(…)`, and whatever else the fields allow."""

    def __init__(self, client: Client, model: Model, name: str, action: Action, limit: int | None) -> None:
        self._client, self._model, self._name = client, model, name
        self._action, self._limit = action, limit
        self._known: dict[str, Callable[..., Promise]] = {}

    def __getattr__(self, name: str) -> Callable[..., Promise]:
        method = self._known.get(name)
        if method is None:
            method = self._make(name)
            if len(self._known) >= MAX_METHODS:
                self._known.clear()
            self._known[name] = method
        return method

    def _make(self, name: str) -> Callable[..., Promise]:
        label = f"{self._model.name}.{self._name}.{name}"
        by, _, predicate = name.partition("_")
        if by != "by" or (not predicate and name != "by"):
            raise AttributeError(f"{label}: methods here are named by, by_… and so on")
        try:
            derived = parse_predicate(label, predicate, self._model.columns, self._action, self._limit)
            query = Query(self._model, derived)
        except (BadName, ValueError) as error:
            raise AttributeError(str(error)) from None
        return _method(self._client, query, label)


def _method(client: Client, query: Query, label: str) -> Callable[..., Promise]:
    action, wanted, model = query.derived.action, query.derived.arguments, query.model
    operation: Callable[..., Any]
    if action == "find":
        operation = methods.find_optional if query.limit == 1 else methods.find_list
    else:
        operation = methods.count if action == "count" else methods.delete

    def method(*args: Any, **options: Any) -> Promise:
        if len(args) != wanted:
            raise TypeError(f"{label}() takes {wanted} argument{'' if wanted == 1 else 's'}, {len(args)} were given")
        if not options:
            return promised(operation(client, query, args, WHOLE, label))
        allowed = ("limit", "offset", "order_by") if action == "find" else ()
        for name in options:
            if name not in allowed:
                raise TypeError(f"{label}() takes no {name!r}")
        return promised(operation(client, query, args, window_of(model, **options), label))

    return method


class Repo:
    """What `create` gives.

    Attributes:
        all: the objects, `repo.all.by(order_by="author", limit=2)`.
        one: the first of them, or None.        count: how many.
        delete_one, delete_all: how many were deleted.
        entity: the class of the objects.       sql: the client.        source: the table.
    """

    def __init__(self, sql: Client, model: Model) -> None:
        self.sql, self.source, self.entity = sql, model.table.fullname, model.cls
        self._model = model
        self._writer_of: dict[str, Writer] = {}
        self.all = Finders(sql, model, "all", "find", None)
        self.one = Finders(sql, model, "one", "find", 1)
        self.count = Finders(sql, model, "count", "count", None)
        self.delete_one = Finders(sql, model, "delete_one", "delete", 1)
        self.delete_all = Finders(sql, model, "delete_all", "delete", None)

    def insert(self, *objects: Any) -> Promise:
        """Write new objects, or dicts with their fields: how many there were. They get the keys the database gave."""
        return promised(self._insert(objects, "INSERT"))

    def replace(self, *objects: Any) -> Promise:
        """The same, but rows in their way are deleted before."""
        return promised(self._insert(objects, "REPLACE"))

    def update(self, object: Any, changes: Mapping[str, Any]) -> Promise:
        """Write some fields of an object, or of a dict with the primary key: how many rows there were.

        Arguments:
            changes: fields and their new values, which the object gets too.
        """
        return promised(self._update(object, changes))

    def save(self, object: Any) -> Promise:
        """Insert an object without a key; of one with a key write the row, or insert it, too: the object."""
        return promised(self._save(object))

    def create_table(self, if_missing: bool = False) -> Promise:
        """Create the table. For tests and small sites: it never changes one that is there."""
        return promised(writes.create_table(self.sql, self._model, if_missing))

    def _writer(self) -> Writer:
        dialect = self.sql.dialect
        writer = self._writer_of.get(dialect)
        if writer is None:
            writer = self._writer_of[dialect] = Writer(self._model, dialect)
        return writer

    def _object(self, thing: Any) -> Any:
        """An object, made of a dict if it is one."""
        if isinstance(thing, self._model.cls):
            return thing
        if not isinstance(thing, Mapping):
            raise TypeError(f"{self._model.name}: an object of it, or a dict, is wanted, not {type(thing).__name__}")
        for name in thing:
            self._model.column(name)
        return self._model.cls(**thing)

    def _give_back(self, thing: Any, made: Any) -> None:
        """The key that the database gave, to the dict."""
        auto = self._model.auto
        if thing is not made and auto is not None:
            thing[auto.name] = getattr(made, auto.name)

    async def _insert(self, objects: Sequence[Any], verb: str) -> int:
        made = [self._object(thing) for thing in objects]
        written = await writes.insert(self.sql, self._writer(), made, verb)
        for thing, one in zip(objects, made, strict=True):
            self._give_back(thing, one)
        return written

    async def _update(self, thing: Any, changes: Mapping[str, Any]) -> int:
        made = thing
        if isinstance(thing, Mapping):
            fields: dict[str, Any] = dict.fromkeys(self._model.columns)
            made = self._model.cls(**{**fields, **{key.name: thing.get(key.name) for key in self._model.key()}})
        elif not isinstance(thing, self._model.cls):
            self._object(thing)
        written = await writes.update(self.sql, self._writer(), made, dict(changes))
        if thing is not made:
            thing.update(changes)
        return written

    async def _save(self, thing: Any) -> Any:
        made = self._object(thing)
        await writes.save(self.sql, self._writer(), made)
        self._give_back(thing, made)
        return thing


def create(
    sql: Client, *, source: str | None = None, entity: Any, index: str | Sequence[str] = "id", **finders: bool
) -> Repo:
    """A repository.

    Arguments:
        sql: the client.
        source: the table's name; of an Entity or a SQLAlchemy table, its own.
        entity: a dict of fields, each a type or `{"field": column, "type": type}`, or an Entity, or a SQLAlchemy table
            or declarative class. The rows of a dict become Records: `post.author`, `post["author"]`, `dict(post)`.
        index: the primary key's fields, for a dict. A single int is given by the database.
        finders: `find_by_id=True, find_by=True, find_by_author_and_id=True`: checked now; others are when first used.
    Raises:
        ValueError, TypeError: a type that no column can hold, a name that cannot be read.
    """
    if isinstance(entity, Mapping):
        if source is None:
            raise TypeError("orm.create: a table's name is wanted: source=…")
        entity = _record(source, entity, (index,) if isinstance(index, str) else tuple(index))
    elif source is not None and source != model_of(entity).table.fullname:
        raise ValueError(f"orm.create: the entity's table is {model_of(entity).table.fullname!r}, not {source!r}")
    repo = Repo(sql, model_of(entity))
    for name, wanted in finders.items():
        _check_finder(repo, name, wanted)
    return repo


def _check_finder(repo: Repo, name: str, wanted: object) -> None:
    if wanted is not True and wanted is not False:
        raise TypeError(f"orm.create: {name} is True or False; SQL by hand is for @query")
    if not name.startswith("find_by"):
        _unknown(name)
    if wanted:
        try:
            getattr(repo.all, name.removeprefix("find_"))
        except AttributeError as error:
            raise ValueError(f"orm.create: {name}: {error}") from None


def _unknown(name: str) -> NoReturn:
    suggestion = closest(name, ("source", "entity", "index", "find_by", "find_by_id"))
    raise TypeError(f"orm.create: there is no {name!r}" + (f"; did you mean {suggestion!r}?" if suggestion else ""))


def _record(source: str, fields: Mapping[str, Any], index: tuple[str, ...]) -> type[Record]:
    """The class of the rows of a table that a dict describes: every field but the key may be None."""
    for name in index:
        if name not in fields:
            raise ValueError(f"orm.create: the index {name!r} is no field ({', '.join(fields)})")
    made: dict[str, tuple[Any, Any]] = {}
    for name, said in fields.items():
        kind, column = said, None
        if isinstance(said, Mapping):
            if set(said) - {"field", "type"} or "type" not in said:
                raise TypeError(f"orm.create: {name!r} is a type, or a dict of 'type' and 'field'")
            kind, column = said["type"], said.get("field")
        if name in index:
            auto = kind is int and len(index) == 1
            more: dict[str, Any] = {"kw_only": True} if auto else {"auto": False}
            made[name] = kind, field(primary=True, name=column, default=None, **more)
        else:
            made[name] = kind | None, field(name=column, default=None)
    return record(source.rpartition(".")[2], made, source)

"""SQL by hand: `@query("SELECT … WHERE author = :author")` on a stub makes a method of that text.

Names with a colon are the method's parameters, and travel as the driver's parameters; a list becomes as many markers as
it has members. Rows become what the annotation says, found by the names of their columns. Called by `repository.py`.
"""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator, Callable
from enum import Enum
from typing import Any, NamedTuple

from .client import Client
from .entity import Entity, projection
from .grammar import closest
from .kinds import DIALECTS, KINDS, kind_of
from .methods import Arguments, BadMethod, Stub
from .model import Model
from .pool import Result
from .results import Call, Stream, single

MAX_TEXTS = 64
"""Texts kept per method, one for each length of its lists."""
NOTHING = "SELECT NULL FROM (SELECT 1) AS no_members WHERE 1 = 0"
"""What stands for an empty list: nothing is in it, and everything not in it."""

_COMMENTS = r"--[^\n]*|/\*.*?(?:\*/|\Z)"
_TOKEN = {
    "mysql": re.compile(
        rf"""'(?:[^'\\]|\\.|'')*'|"(?:[^"\\]|\\.|"")*"|`(?:[^`]|``)*`|\#[^\n]*|{_COMMENTS}|(?<![:\w]):([A-Za-z_]\w*)""",
        re.DOTALL,
    ),
    "sqlite": re.compile(
        rf"""'(?:[^']|'')*'|"(?:[^"]|"")*"|`(?:[^`]|``)*`|\[[^\]]*\]|{_COMMENTS}|(?<![:\w]):([A-Za-z_]\w*)""",
        re.DOTALL,
    ),
}


class Text(NamedTuple):
    """A query of one dialect: `parts` stand around the `names` of its parameters."""

    parts: list[str]
    names: list[str]

    def sql(self, marker: str, counts: dict[str, int]) -> str:
        """The driver's text, for lists of so many members, by name."""
        text = [self.parts[0]]
        for name, before, after in zip(self.names, self.parts, self.parts[1:], strict=False):
            count = counts.get(name)
            if count is None:
                text.append(marker)
            else:
                members = ", ".join([marker] * count) if count else NOTHING
                bare = before.rstrip().endswith("(") and after.lstrip().startswith(")")
                text.append(members if bare else f"({members})")
            text.append(after)
        return "".join(text)


def text_of(sql: str, dialect: str) -> Text:
    """A query taken apart; what stands in quotes and comments is left alone."""
    parts, names, start = [], [], 0
    for match in _TOKEN[dialect].finditer(sql):
        if match[1]:
            parts.append(sql[start : match.start()])
            names.append(match[1])
            start = match.end()
    parts.append(sql[start:])
    if dialect == "mysql":
        parts = [part.replace("%", "%%") for part in parts]
    return Text(parts, names)


def query_method(stub: Stub, sql: str, model: Model) -> Callable[..., Any]:
    """The method of a stub with SQL by hand.

    Raises:
        BadMethod: its parameters are not those of the text, or no row can become what it gives.
    """
    texts = {dialect: text_of(sql, dialect) for dialect in DIALECTS}
    names = [parameter.name for parameter in stub.parameters]
    wanted = {name for text in texts.values() for name in text.names}
    for name in sorted(wanted):
        if name not in names:
            suggestion = closest(name, names)
            stub.fail(
                f"the query has :{name}, and no parameter is it" + (f"; is it {suggestion!r}?" if suggestion else "")
            )
    for name in names:
        if name not in wanted:
            stub.fail(f"the query has no :{name}")
    if stub.shape.kind == "page":
        stub.fail("a Page needs a derived query, which can be counted")
    return stub.finish(_Handwritten(stub, texts, _maker(stub, model)).method())


Make = Callable[[Result, str], list[Any]]


def _maker(stub: Stub, model: Model) -> Make:
    """What makes objects of a result's rows."""
    item = stub.shape.item
    if item is model.cls or (item is Any and model.cls is not None and not isinstance(item, type)):
        if item is Any:
            return lambda result, dialect: _dicts(result)
        return lambda result, dialect: model.reader(dialect, result.columns)(result.rows)
    if isinstance(item, type) and issubclass(item, Entity):
        other = projection(item)
        return lambda result, dialect: other.reader(dialect, result.columns)(result.rows)
    if item is dict or getattr(item, "__origin__", None) is dict:
        return lambda result, dialect: _dicts(result)
    if item is tuple or getattr(item, "__origin__", None) is tuple:
        return lambda result, dialect: list(result.rows)
    if stub.shape.kind == "none":
        return lambda result, dialect: []
    if isinstance(item, type) and (item in KINDS or issubclass(item, Enum)):
        return _scalars(item)
    raise BadMethod(f"{stub.label}: no row can become {item!r}")


def _dicts(result: Result) -> list[dict[str, Any]]:
    columns = result.columns
    return [dict(zip(columns, row, strict=True)) for row in result.rows]


def _scalars(item: type) -> Make:
    kind, _ = kind_of(item)
    readers = {name: kind.reader(dialect) for name, dialect in DIALECTS.items()}

    def make(result: Result, dialect: str) -> list[Any]:
        read = readers[dialect]
        if read is None:
            return [row[0] for row in result.rows]
        return [None if row[0] is None else read(row[0]) for row in result.rows]

    return make


class _Handwritten:
    """A query by hand: its text per dialect, and what its rows become."""

    def __init__(self, stub: Stub, texts: dict[str, Text], make: Make) -> None:
        self.texts, self.make, self.shape, self.label = texts, make, stub.shape, stub.label
        self.names = [parameter.name for parameter in stub.parameters]
        self.arguments = Arguments(stub, len(self.names), ())
        self.known: dict[tuple[Any, ...], str] = {}

    def method(self) -> Callable[..., Any]:
        """The method for the class."""
        arguments, run, stream = self.arguments, self.run, self.stream
        if self.shape.kind == "stream":
            return lambda this, *args, **keywords: Stream(stream(this._client, arguments.bind(args, keywords)[0]))
        return lambda this, *args, **keywords: Call(run(this._client, arguments.bind(args, keywords)[0]))

    def sql(self, dialect: str, args: list[Any]) -> tuple[str, list[Any]]:
        """The text, and the values for its markers."""
        text = self.texts[dialect]
        given = dict(zip(self.names, args, strict=True))
        lists = {name: list(value) for name, value in given.items() if isinstance(value, (list, tuple, set, frozenset))}
        key = (dialect, *[(name, len(value)) for name, value in lists.items()])
        sql = self.known.get(key)
        if sql is None:
            if len(self.known) >= MAX_TEXTS:
                self.known.clear()
            marker = "%s" if dialect == "mysql" else "?"
            sql = self.known[key] = text.sql(marker, {name: len(value) for name, value in lists.items()})
        values: list[Any] = []
        for name in text.names:
            if name in lists:
                values += lists[name]
            else:
                values.append(given[name])
        return sql, values

    async def run(self, client: Client, args: list[Any]) -> Any:
        """Run it, and make of the result what the annotation says."""
        result = await client._run(*self.sql(client.dialect, args), False)
        kind, item = self.shape
        if kind == "none":
            return None
        if kind == "one" and item is int and not result.columns:
            return result.affected_rows
        items = self.make(result, client.dialect)
        return items if kind == "list" else single(kind, items, self.label)

    async def stream(self, client: Client, args: list[Any]) -> AsyncGenerator[Any, None]:
        """Run it, and make objects of the parts of its result as they come."""
        parts = client._parts(*self.sql(client.dialect, args))
        try:
            async for rows, columns in parts:
                for one in self.make(Result(0, 0, rows, columns), client.dialect):
                    yield one
        finally:
            await parts.aclose()

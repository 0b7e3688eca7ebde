"""Objects written to their table: insert, replace, update, delete, and the table itself.

Called by `repository.py` with a client and a Model. The texts of a model are made once per dialect and list of columns,
and kept in its Writer. What takes several statements is done in a transaction, all or nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any
from weakref import WeakKeyDictionary

import sqlalchemy as sa

from .client import Client
from .errors import Duplicate
from .kinds import DIALECTS
from .model import Column, Model
from .statements import parameter, write

MAX_PARAMETERS = 32_766
"""Of one statement: SQLite's own limit (SQLITE_MAX_VARIABLE_NUMBER); MySQL's is 65,535."""
MAX_ROWS = 1_000
"""Of one INSERT: more gain nothing, and the texts get long."""
MAX_BYTES = 4 * 1024 * 1024
"""Of the texts and bytes in one INSERT, counted in characters: a quarter of MySQL's max_allowed_packet."""
MAX_TEXTS = 256
"""Statements that a Writer keeps; `update` may be asked for any list of fields."""

Row = list[Any]


class Writer:
    """The statements that write a model's objects in one dialect."""

    def __init__(self, model: Model, dialect: str) -> None:
        self.model, self.dialect = model, dialect
        self.writers = {name: column.writer(dialect) for name, column in model.columns.items()}
        self.keys = [column.binder(dialect) for column in model.primary]
        self.given = [column for column in model.columns.values() if column.sql.server_default is not None]
        self.texts: dict[tuple[str, ...], tuple[str, str]] = {}

    def insertion(self, columns: Sequence[Column]) -> tuple[str, str]:
        """An INSERT up to its VALUES, and the markers of one row."""
        return self._text("insert", columns, self._insertion)

    def updating(self, columns: Sequence[Column]) -> str:
        """An UPDATE of one row: its columns' values, then its key."""
        return self._text("update", columns, self._updating)[0]

    def _text(
        self, kind: str, columns: Sequence[Column], make: Callable[[Sequence[Column]], tuple[str, str]]
    ) -> tuple[str, str]:
        key = (kind, *[column.name for column in columns])
        text = self.texts.get(key)
        if text is None:
            if len(self.texts) >= MAX_TEXTS:
                self.texts.clear()
            text = self.texts[key] = make(columns)
        return text

    def _insertion(self, columns: Sequence[Column]) -> tuple[str, str]:
        values = {column.sql: parameter(place) for place, column in enumerate(columns)}
        template = write(sa.insert(self.model.table).values(values), self.dialect)
        assert template.slots == sorted(template.slots)  # SQLAlchemy writes columns in the table's order, as they came
        head, _, row = template.plain.rpartition(" VALUES ")
        return head, row

    def _updating(self, columns: Sequence[Column]) -> tuple[str, str]:
        values = {column.sql: parameter(place) for place, column in enumerate(columns)}
        key = [column.sql == parameter(len(columns) + place) for place, column in enumerate(self.model.key())]
        template = write(sa.update(self.model.table).values(values).where(*key), self.dialect)
        assert template.slots == sorted(template.slots)
        return template.plain, ""

    def key_of(self, thing: Any) -> Row:
        """The primary key of an object.

        Raises:
            TypeError: the entity has none. ValueError: the object has none: it was never saved.
        """
        values = [getattr(thing, column.name) for column in self.model.key()]
        return self.bind_key(values)

    def bind_key(self, values: Sequence[Any]) -> Row:
        """A primary key as the client's arguments. Raises TypeError, ValueError: it does not fit, or is None."""
        for column, value in zip(self.model.key(), values, strict=True):
            if value is None:
                raise ValueError(f"{column.label} is None: the object was never saved")
        return [bind(value) for bind, value in zip(self.keys, values, strict=True)]

    def row(self, thing: Any, columns: Sequence[Column]) -> Row:
        """An object's values. Raises TypeError, ValueError: a column cannot hold one."""
        writers = self.writers
        return [writers[column.name](getattr(thing, column.name)) for column in columns]


_steps: WeakKeyDictionary[Client, int] = WeakKeyDictionary()


async def insert(client: Client, writer: Writer, objects: Sequence[Any], verb: str = "INSERT") -> int:
    """Write objects as rows, those without a key of the database's first, and give them their keys.

    Arguments:
        verb: INSERT or REPLACE.
    Returns:
        How many rows were written; with REPLACE as MySQL counts them: one that another made way for counts twice there.
    """
    model = writer.model
    auto = model.auto
    # What the database has a default for (in SQLAlchemy's tables) is left to it, if nobody says otherwise.
    left = {column.name for column in writer.given if all(getattr(one, column.name) is None for one in objects)}
    columns = [column for column in model.columns.values() if column.name not in left]
    new = [one for one in objects if auto is not None and getattr(one, auto.name) is None]
    given = [one for one in objects if auto is None or getattr(one, auto.name) is not None] if new else objects
    unkeyed = [column for column in columns if column is not auto] or columns
    parts = [*_parts(writer, new, unkeyed), *_parts(writer, given, columns)]
    keys: list[tuple[Sequence[Any], int]] = []
    run = partial(_insert, client, writer, verb, parts, keys)
    if len(parts) > 1:
        async with client.transaction():
            written = await run()
    else:
        written = await run()
    if auto is not None:
        step = await _step(client) if any(len(some) > 1 for some, _ in keys) else 1
        for some, first in keys:
            for place, one in enumerate(some):
                if getattr(one, auto.name) is None:
                    setattr(one, auto.name, first + place * step)
    return written


async def _insert(
    client: Client, writer: Writer, verb: str, parts: list[tuple[Any, ...]], keys: list[tuple[Sequence[Any], int]]
) -> int:
    written = 0
    for objects, columns, rows in parts:
        head, row = writer.insertion(columns)
        text = f"{verb}{head.removeprefix('INSERT')} VALUES {', '.join([row] * len(rows))}"
        result = await client.execute(text, [value for values in rows for value in values])
        written += result.affected_rows
        first = result.last_insert_id - (len(rows) - 1 if writer.dialect == "sqlite" else 0)
        keys.append((objects, first))
    return written


def _parts(
    writer: Writer, objects: Sequence[Any], columns: Sequence[Column]
) -> Iterator[tuple[Sequence[Any], Sequence[Column], list[Row]]]:
    """The objects as statements' rows, as many in each as it may have."""
    most = max(1, min(MAX_ROWS, MAX_PARAMETERS // len(columns)))
    start, size = 0, 0
    rows: list[Row] = []
    for place, one in enumerate(objects):
        row = writer.row(one, columns)
        length = sum(len(value) for value in row if isinstance(value, (str, bytes)))
        if rows and (len(rows) == most or size + length > MAX_BYTES):
            yield objects[start:place], columns, rows
            start, size, rows = place, 0, []
        rows.append(row)
        size += length
    if rows:
        yield objects[start:], columns, rows


async def _step(client: Client) -> int:
    """By how much MySQL's keys grow from row to row of one INSERT: a cluster's servers leave room for each other's."""
    if client.dialect != "mysql":
        return 1
    step = _steps.get(client)
    if step is None:
        step = _steps[client] = int((await client.fetch("SELECT @@auto_increment_increment", ()))[0][0])
    return step


async def update(client: Client, writer: Writer, thing: Any, changes: dict[str, Any]) -> int:
    """Write some fields of an object's row; then the object has them too.

    Returns:
        How many rows there were: 0 if it was deleted meanwhile. They count if nothing changed in them, too.
    """
    model = writer.model
    for name in changes:
        model.column(name)
    columns = [column for column in model.columns.values() if column.name in changes]
    if not columns:
        return 0
    values = [writer.writers[column.name](changes[column.name]) for column in columns]
    for column in columns:
        if column.auto and changes[column.name] is None:
            raise ValueError(f"{column.label}: it may not be None")
    result = await client.execute(writer.updating(columns), values + writer.key_of(thing))
    for column in columns:
        setattr(thing, column.name, changes[column.name])
    return result.affected_rows


async def save(client: Client, writer: Writer, thing: Any) -> None:
    """Insert the object if it has no key of the database's, else update its row, else insert it with that key."""
    model = writer.model
    if model.auto is not None and getattr(thing, model.auto.name) is None:
        await insert(client, writer, [thing])
        return
    columns = [column for column in model.columns.values() if not column.primary]
    values = writer.row(thing, columns) + writer.key_of(thing)
    if columns and (await client.execute(writer.updating(columns), values)).affected_rows:
        return
    try:
        await insert(client, writer, [thing])
    except Duplicate:
        # Another has inserted it meanwhile; or it is another unique field that is taken.
        if columns and (await client.execute(writer.updating(columns), values)).affected_rows:
            return
        raise


async def create_table(client: Client, model: Model, if_missing: bool) -> None:
    """Create the table, with its indexes."""
    dialect, table = DIALECTS[client.dialect], model.table
    create = sa.schema.CreateTable(table, if_not_exists=if_missing)
    text = str(create.compile(dialect=dialect)).strip()
    indexes = sorted(table.indexes, key=lambda index: str(index.name))
    if client.dialect == "mysql":
        # Within the statement: workers that start at once must not make them twice, and MySQL has no IF NOT EXISTS.
        for index in indexes:
            made = str(sa.schema.CreateIndex(index).compile(dialect=dialect))
            kind, _, rest = made.removeprefix("CREATE ").partition(" ON ")
            place = text.rindex("\n)")
            text = f"{text[:place]}, \n\t{kind} {rest[rest.rindex(' (') + 1 :]}{text[place:]}"
        await client.execute(text.replace("%", "%%"), ())
        return
    await client.execute(text, ())
    for index in indexes:
        await client.execute(str(sa.schema.CreateIndex(index, if_not_exists=if_missing).compile(dialect=dialect)), ())

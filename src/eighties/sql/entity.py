"""Entities: classes whose objects are rows.

An Entity is a dataclass, so the house turns it into JSON, `dataclasses.replace` copies it, and editors know its
constructor. Its Model is made with the class. SQLAlchemy's tables and declarative classes have Models too; `model_of`
finds them.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Iterable, Mapping
from keyword import iskeyword
from types import new_class
from typing import Any, ClassVar, Literal, NamedTuple, cast, dataclass_transform, overload

import sqlalchemy as sa

from .hints import own_hints_of
from .kinds import AnyKind, Varchar, foreign, kind_of
from .model import Column, Model

__all__ = ["Entity", "Record", "Varchar", "field", "model_of", "record"]

_TAKEN = frozenset(("keys",))  # what a Record has besides its fields
_MISSING: Any = dataclasses.MISSING


class Options(NamedTuple):
    """What `field` says besides the default."""

    primary: bool = False
    name: str | None = None
    unique: bool = False
    indexed: bool = False
    auto: bool | None = None


@overload
def field(
    *,
    primary: Literal[True],
    auto: Literal[False],
    name: str | None = ...,
    default: Any = ...,
    default_factory: Callable[[], Any] = ...,
    kw_only: bool = ...,
) -> Any: ...
@overload
def field(*, primary: Literal[True], default: Any, name: str | None = ..., kw_only: bool = ...) -> Any: ...
@overload
def field(
    *, primary: Literal[True], default_factory: Callable[[], Any], name: str | None = ..., kw_only: bool = ...
) -> Any: ...
@overload
def field(
    *, primary: Literal[True], auto: Literal[True] = ..., name: str | None = ..., init: Literal[False] = False
) -> Any: ...
@overload
def field(
    *,
    name: str | None = ...,
    default: Any = ...,
    default_factory: Callable[[], Any] = ...,
    unique: bool = ...,
    index: bool = ...,
    kw_only: bool = ...,
) -> Any: ...
def field(
    *,
    primary: bool = False,
    auto: bool | None = None,
    name: str | None = None,
    default: Any = _MISSING,
    default_factory: Any = _MISSING,
    unique: bool = False,
    index: bool = False,
    kw_only: Any = _MISSING,
    init: bool = False,
) -> Any:
    """More about a field of an Entity than its annotation says.

    Arguments:
        primary: part of the primary key. A single `int` is given by the database: None until the object is saved, and
            a constructor takes it by keyword only. Type checkers leave it out of the constructor; with `default=None,
            kw_only=True` they see an optional one.
        auto: False: the program gives the primary key. Needed where it is no single `int` and has no default.
        name: of the column, if it is another than the attribute's.
        default, default_factory, kw_only: as of `dataclasses.field`.
        unique: no two rows have the same; text needs `Varchar(n)` for that.
        index: `create_table` makes an index for it.
        init: nothing; it is here for type checkers.
    """
    options = Options(primary, name, unique, index, auto)
    return dataclasses.field(
        default=default, default_factory=default_factory, kw_only=kw_only, metadata={"eighties": options}
    )


def _is_class_variable(hint: Any) -> bool:
    return hint is ClassVar or getattr(hint, "__origin__", None) is ClassVar


def _options_of(one: dataclasses.Field[Any] | Any) -> Options:
    options = one.metadata.get("eighties") if isinstance(one, dataclasses.Field) else None
    return options if isinstance(options, Options) else Options()


def _optional_key(cls: type, hints: Mapping[str, Any]) -> None:
    """A primary key that the database gives need not be given to the constructor: before the dataclass is made."""
    own = {name: cls.__dict__.get(name) for name in hints}
    keys = [name for name, one in own.items() if _options_of(one).primary]
    for name in keys:
        one: Any = own[name]
        options = _options_of(one)
        given = one.default is not _MISSING or one.default_factory is not _MISSING
        auto = options.auto
        if auto is None:
            auto = hints[name] in (int, int | None) and len(keys) == 1 and (not given or one.default is None)
        if auto and (hints[name] not in (int, int | None) or len(keys) > 1):
            raise TypeError(f"{cls.__name__}.{name}: a database gives a primary key only where it is a single int")
        if not auto and not given and options.auto is None:
            raise TypeError(
                f"{cls.__name__}.{name}: no database gives this primary key: say `auto=False` if the program does, "
                "or a default"
            )
        if auto and not given:
            one = dataclasses.field(default=None, kw_only=True)
        one.metadata = {"eighties": options._replace(auto=auto)}
        setattr(cls, name, one)


@dataclass_transform(field_specifiers=(field,))
class Entity:
    """A class whose objects are rows of one table: `class Post(Entity, source="posts")`, with annotated fields.

    Annotations: int, str, float, bool, Decimal, bytes, datetime, date, time, UUID, dict, list, enums, `Varchar(n)` or
    `Annotated[str, Varchar(n)]`, `Annotated[T, <a SQLAlchemy type>]`, and any of them `| None`. Without `source` it is
    a base for others, which inherit its fields. It becomes a dataclass: constructor, `==` and repr are made.

    Raises:
        TypeError: of the class statement: an annotation that no column can hold, or a primary key that nobody gives.
    """

    __model__: ClassVar[Model]
    __hints__: ClassVar[dict[str, Any]] = {}

    def __init_subclass__(cls, source: str | None = None, **more: Any) -> None:
        super().__init_subclass__(**more)
        cls.__annotations__ = own_hints_of(cls)  # as objects: dataclasses would look for the module of a text
        own = {name: hint for name, hint in cls.__annotations__.items() if not _is_class_variable(hint)}
        inherited = [vars(base).get("__hints__", {}) for base in reversed(cls.__mro__)]
        cls.__hints__ = hints = {name: hint for some in (*inherited, own) for name, hint in some.items()}
        _optional_key(cls, hints)
        dataclasses.dataclass(cls)
        if source is not None:
            cls.__model__ = _model_of_entity(cls, source, hints)


class Record(Entity):
    """Rows of a table that no class was written for: what a column holds is an attribute, and an item too."""

    def __getitem__(self, name: str) -> Any:
        return getattr(self, name)

    def __setitem__(self, name: str, value: Any) -> None:
        setattr(self, name, value)

    def keys(self) -> list[str]:
        """The names of the fields: with them `dict(record)` works."""
        return [one.name for one in dataclasses.fields(self)]


def _model_of_entity(entity: type[Entity], source: str, hints: Mapping[str, Any]) -> Model:
    columns = []
    for one in dataclasses.fields(cast(Any, entity)):
        label = f"{entity.__name__}.{one.name}"
        try:
            columns.append(_column_of(one, label, *kind_of(hints.get(one.name, one.type))))
        except TypeError as error:
            raise TypeError(f"{label}: {error}") from None
    schema, _, name = source.rpartition(".")
    table = sa.Table(
        sa.quoted_name(name, True),
        sa.MetaData(),
        *(column.sql for column in columns),
        schema=sa.quoted_name(schema, True) if schema else None,
        mysql_charset="utf8mb4",
        sqlite_autoincrement=any(column.auto for column in columns),  # an id is never given twice, as in MySQL
    )
    return Model(entity, table, columns)


def _column_of(one: dataclasses.Field[Any], label: str, kind: AnyKind, nullable: bool) -> Column:
    options = _options_of(one)
    if kind.python in (str, bytes) and kind.length is None and (options.unique or options.indexed or options.primary):
        raise TypeError("an index of text needs `Annotated[str, Varchar(n)]`")
    auto = bool(options.primary and options.auto)
    sql: sa.Column[Any] = sa.Column(
        sa.quoted_name(options.name or one.name, True),  # always: SQLAlchemy does not know all of SQLite's keywords
        kind.sql,
        primary_key=options.primary,
        nullable=nullable and not options.primary,
        unique=options.unique or None,
        index=options.indexed or None,
        autoincrement=auto,
    )
    return Column(one.name, sql, kind, nullable, options.primary, auto, label)


def _model_of_table(table: sa.Table) -> Model:
    columns = _columns_of(table, table.name, [(_attribute(column.key), column) for column in table.columns])
    entity = record(table.name, {column.name: (column.kind.python | None, None) for column in columns})
    model = entity.__model__ = Model(entity, table, columns)
    return model


def _attribute(key: str) -> str:
    """The name of a Record's field for any name of a column: `from_` for `from`."""
    name = re.sub(r"\W|^(?=[0-9])", "_", key)
    return f"{name}_" if iskeyword(name) or name in _TAKEN or name.startswith("__") else name


def _model_of_declared(declared: type) -> Model:
    mapper: Any = sa.inspect(declared)
    table = mapper.local_table
    if not isinstance(table, sa.Table) or mapper.inherits is not None:
        raise TypeError(f"{declared.__name__}: only a class of one table can be an entity")
    keys = {attribute.columns[0]: key for key, attribute in mapper.column_attrs.items()}
    pairs = [(keys[column], column) for column in table.columns if column in keys]  # in the table's order
    return Model(declared, table, _columns_of(table, declared.__name__, pairs), declared)


def _columns_of(table: sa.Table, name: str, pairs: Iterable[tuple[str, Any]]) -> list[Column]:
    auto = table.autoincrement_column
    return [
        Column(key, one, foreign(one.type), bool(one.nullable), one.primary_key, one is auto, f"{name}.{key}")
        for key, one in pairs
    ]


def record(name: str, fields: Mapping[str, tuple[Any, Any]], source: str | None = None) -> type[Record]:
    """A Record class made of data.

    Arguments:
        fields: by name, each an annotation and a default, which may be what `field` gives.
        source: the table; None if a Model is given to it later.
    Raises:
        ValueError: a name is no identifier, or one that Records use.
    """
    for one in fields:
        if not one.isidentifier() or iskeyword(one) or one in _TAKEN or one.startswith("__"):
            raise ValueError(f"{name}: {one!r} cannot be the name of a field")
    namespace = {one: default for one, (_, default) in fields.items()}
    namespace["__annotations__"] = {one: annotation for one, (annotation, _) in fields.items()}
    namespace["__module__"] = __name__
    made: type[Record] = new_class(name, (Record,), {"source": source}, lambda body: body.update(namespace))
    return made


def model_of(entity: Any) -> Model:
    """The Model of an Entity, a SQLAlchemy Table or a SQLAlchemy declarative class.

    Raises:
        TypeError: it is none of these, or an Entity without `source`.
    """
    if isinstance(entity, type) and issubclass(entity, Entity):
        model = entity.__dict__.get("__model__")
        if isinstance(model, Model):
            return model
        raise TypeError(f"{entity.__name__} has no table: class {entity.__name__}(Entity, source=…)")
    # Kept in SQLAlchemy's own place for what others know of its tables: nothing here holds them.
    mapper: Any = sa.inspect(entity, raiseerr=False) if isinstance(entity, type) else None
    if mapper is None and not isinstance(entity, sa.Table):
        raise TypeError(f"{entity!r} is no entity: an Entity, a SQLAlchemy Table or a declarative class is one")
    table = entity if mapper is None else mapper.local_table
    info, key = getattr(table, "info", {}), ("eighties", None if mapper is None else entity)
    model = info.get(key)
    if model is None:
        model = info[key] = _model_of_table(entity) if mapper is None else _model_of_declared(entity)
    assert isinstance(model, Model)
    return model


def projection(entity: type[Entity]) -> Model:
    """The Model of an Entity, and of one without a table: rows of any query may become its objects."""
    model = entity.__dict__.get("__model__")
    if not isinstance(model, Model):
        model = _model_of_entity(entity, entity.__name__, entity.__hints__)
    return model

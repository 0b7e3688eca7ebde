"""Repositories: `class Posts(Repository[Post])` with stubs of methods, whose names or SQL say what they do.

When such a class is made each stub becomes a method (`methods.py`, `queries.py`), and what does not fit raises. An
object of it holds a client and nothing else. `Repository[Post]` is itself a class: `Repository[Post](client)` has the
methods that every repository has.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, ClassVar, Generic, TypeVar, cast

from . import methods, writes
from .client import Client
from .entity import model_of
from .grammar import Condition, Derived
from .methods import BadMethod, Stub, derived_method, is_stub
from .model import Model
from .queries import query_method
from .results import Call, NoRow, Page, Pageable, TooManyRows
from .statements import WHOLE, Query, window_of
from .writes import Writer

__all__ = ["BadMethod", "Call", "NoRow", "Page", "Pageable", "Repository", "TooManyRows", "derived", "query"]

E = TypeVar("E")
_Function = TypeVar("_Function", bound=Callable[..., Any])


def query(sql: str) -> Callable[[_Function], _Function]:
    """A method whose SQL is written by hand, on a stub in a repository class.

    Arguments:
        sql: with `:name` for the parameter of that name. A list, tuple or set is written `IN :names`.
    The stub's annotation says what rows become: the entity, or another with the columns' names for fields (it needs no
    table), dict, tuple, or the type of a single column, as `list[…]`, `… | None`, `AsyncIterator[…]` or one alone. A
    statement that gives no rows gives how many it wrote (`int`), or None.
    """
    _check_text("query", sql, "SELECT …")

    def mark(function: _Function) -> _Function:
        cast(Any, function).__query__ = sql
        return function

    return mark


def derived(name: str) -> Callable[[_Function], _Function]:
    """A method whose query is derived from `name` (`"find_by_author"`) instead of its own name."""
    _check_text("derived", name, "find_by_…")

    def mark(function: _Function) -> _Function:
        cast(Any, function).__derived__ = name
        return function

    return mark


def _check_text(decorator: str, text: object, example: str) -> None:
    if not isinstance(text, str):
        raise TypeError(f'@{decorator} needs a text: @{decorator}("{example}")')


class _Queries:
    """What the methods of every repository of one entity need."""

    def __init__(self, model: Model) -> None:
        self.model = model
        key = ((tuple(Condition(column.name) for column in model.primary)),) if model.primary else ()
        self.all = Query(model, Derived("find"))
        self.count = Query(model, Derived("count"))
        self.delete_all = Query(model, Derived("delete"))
        self.by_id = Query(model, Derived("find", alternatives=key))
        self.exists_by_id = Query(model, Derived("exists", alternatives=key))
        self.delete_by_id = Query(model, Derived("delete", alternatives=key))
        self._writers: dict[str, Writer] = {}

    def writer(self, client: Client) -> Writer:
        writer = self._writers.get(client.dialect)
        if writer is None:
            writer = self._writers[client.dialect] = Writer(self.model, client.dialect)
        return writer

    def key(self, key: Sequence[Any]) -> Sequence[Any]:
        """A primary key as a method was given it: as many arguments as it has fields, or a tuple of them."""
        columns = self.model.key()
        if len(key) == 1 and isinstance(key[0], tuple):
            key = key[0]
        if len(key) != len(columns):
            names = ", ".join(column.name for column in columns)
            raise TypeError(f"the primary key of {self.model.name} is ({names}), {len(key)} values were given")
        if None in key:
            raise ValueError(f"the primary key of {self.model.name} is never None")
        return key


class Repository(Generic[E]):
    """All objects of one entity, as a client's database has them.

    Methods are coroutines that can be called as Promises, too. Their errors are the client's DatabaseErrors, and
    TypeError or ValueError for an argument that does not fit its field; then nothing was sent. Within
    `client.transaction()` they take part in it.
    """

    _queries: ClassVar[_Queries | None] = None

    def __init__(self, client: Client) -> None:
        if type(self)._queries is None:
            raise TypeError(f"{type(self).__name__} has no entity: Repository[Post](client), or a class of it")
        self._client = client

    def __class_getitem__(cls, entity: Any) -> Any:
        """`Repository[Post]`: a class with that entity. With a type variable what typing makes of it."""
        if isinstance(entity, TypeVar) or entity is Any:
            return super().__class_getitem__(entity)  # type: ignore[misc]
        if cls._queries is not None:
            raise TypeError(f"{cls.__name__} has its entity already")
        model = model_of(entity)
        made = model.repositories.get(cls)  # they live and die with their entity, which a reload makes anew
        if made is None:
            name = f"{cls.__name__}[{model.name}]"
            made = model.repositories[cls] = type(name, (cls,), {"__module__": cls.__module__}, entity=entity)
        return made

    def __init_subclass__(cls, entity: Any = None, **more: Any) -> None:
        """`entity`: a SQLAlchemy Table, which cannot stand in the brackets for type checkers."""
        super().__init_subclass__(**more)
        if entity is not None:
            cls._queries = _Queries(model_of(entity))
        if cls._queries is None:
            return  # a base for others: its stubs are made methods with an entity
        for name in dict.fromkeys(name for base in cls.__mro__ if base not in _BASES for name in vars(base)):
            stub = next(vars(base)[name] for base in cls.__mro__ if name in vars(base))
            if is_stub(stub):
                setattr(cls, name, _method(Stub(stub, cls.__name__), cls._queries.model))

    @property
    def client(self) -> Client:
        """The client that it was made with."""
        return self._client

    @property
    def entity(self) -> type[E]:
        """The class of its objects."""
        return cast(type[E], self._known.model.cls)

    @property
    def _known(self) -> _Queries:
        assert self._queries is not None
        return self._queries

    def find_all(
        self, *, limit: int | None = None, offset: int | None = None, order_by: str | Sequence[str] | None = None
    ) -> Call[list[E]]:
        """All objects, or some.

        Arguments:
            order_by: "author", "-created", "author desc", or several in a list.
        """
        known = self._known
        whole = limit is None and offset is None and order_by is None
        window = WHOLE if whole else window_of(known.model, limit, offset, order_by)
        return Call(methods.find_list(self._client, known.all, (), window, "find_all"))

    def find_by_id(self, *key: Any) -> Call[E | None]:
        """The object with that primary key, or None. Of several fields: so many arguments, or a tuple."""
        known = self._known
        return Call(methods.find_optional(self._client, known.by_id, known.key(key), WHOLE, "find_by_id"))

    def exists_by_id(self, *key: Any) -> Call[bool]:
        """Whether there is an object with that primary key."""
        known = self._known
        return Call(methods.exists(self._client, known.exists_by_id, known.key(key), WHOLE, "exists_by_id"))

    def count(self) -> Call[int]:
        """How many objects there are."""
        return Call(methods.count(self._client, self._known.count, (), WHOLE, "count"))

    def insert(self, *objects: E) -> Call[int]:
        """Write new objects, in as few statements as can be, all or none: how many there were.

        Those whose key the database gives have it afterwards. Raises Duplicate: a key is taken.
        """
        return Call(writes.insert(self._client, self._writer(objects), objects))

    def replace(self, *objects: E) -> Call[int]:
        """The same, but rows in their way are deleted before: those with the same primary key or unique fields."""
        return Call(writes.insert(self._client, self._writer(objects), objects, "REPLACE"))

    def save(self, object: E) -> Call[E]:
        """Insert an object without a key; of one with a key write the row, or insert it if there is none: the object.

        Only a row with the same primary key is written over. Raises Duplicate: another row has a unique field's value.
        """
        return Call(self._save(object))

    async def _save(self, thing: E) -> E:
        await writes.save(self._client, self._writer((thing,)), thing)
        return thing

    def update(self, object: E, changes: dict[str, Any] | None = None, /, **more: Any) -> Call[int]:
        """Write fields of an object that was saved: how many rows there were, 0 or 1.

        Arguments:
            changes, more: fields with their new values, which the object gets too. Without any all fields are written
                as the object has them.
        """
        writer = self._writer((object,))
        fields = {**(changes or {}), **more}
        if changes is None and not more:
            fields = {name: getattr(object, name) for name, one in writer.model.columns.items() if not one.primary}
        return Call(writes.update(self._client, writer, object, fields))

    def delete(self, object: E) -> Call[int]:
        """Delete an object's row: how many there were, 0 or 1."""
        known = self._known
        key = [getattr(object, column.name) for column in self._writer((object,)).model.key()]
        return Call(methods.delete(self._client, known.delete_by_id, known.key(key), WHOLE, "delete"))

    def delete_by_id(self, *key: Any) -> Call[int]:
        """Delete the row with that primary key: how many there were, 0 or 1."""
        known = self._known
        return Call(methods.delete(self._client, known.delete_by_id, known.key(key), WHOLE, "delete_by_id"))

    def delete_all(self) -> Call[int]:
        """Delete all rows: how many there were."""
        return Call(methods.delete(self._client, self._known.delete_all, (), WHOLE, "delete_all"))

    def create_table(self, if_missing: bool = False) -> Call[None]:
        """Create the table with its indexes. For tests and small sites: it never changes one that is there.

        Arguments:
            if_missing: no error if there is a table of that name.
        """
        return Call(writes.create_table(self._client, self._known.model, if_missing))

    def _writer(self, objects: Sequence[Any]) -> Writer:
        known = self._known
        for one in objects:
            if not isinstance(one, known.model.cls):
                raise TypeError(f"{type(self).__name__} holds {known.model.name}, not {type(one).__name__}")
        return known.writer(self._client)


_BASES = (object, Generic, Repository)


def _method(stub: Stub, model: Model) -> Callable[..., Any]:
    function = stub.function
    sql = getattr(function, "__query__", None)
    if sql is not None:
        return query_method(stub, sql, model)
    return derived_method(stub, getattr(function, "__derived__", None) or function.__name__, model)

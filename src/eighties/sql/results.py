"""What repository methods give: a Call that is awaited or called, a Stream, a Page; and how many rows there must be.

Pure. `methods.py`, `queries.py` and `repository.py` make them; the annotation of a method says which (`shape_of`).
"""

from __future__ import annotations

import collections.abc as abc
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine, Generator, Iterator, Sequence
from dataclasses import dataclass
from types import NoneType, UnionType
from typing import Any, Generic, Literal, NamedTuple, TypeVar, Union, get_args, get_origin

from ..promise import promise_of
from .errors import DatabaseError

T = TypeVar("T")

PAGE_SIZE = 20
"""Rows of a page when nothing is said, as in Spring Data."""


class NoRow(DatabaseError):
    """A method that gives one object found no row. Annotate `E | None` where that may be."""


class TooManyRows(DatabaseError):
    """A method that gives one object found several rows. `find_first_by_…` takes the first of several."""


class Call(Coroutine[Any, Any, T]):
    """A call of a repository: `await` it for the value, or call it with `on_value` and `on_error`, as a Promise.

    It is a coroutine in every respect: nothing is sent before it is awaited, called, or made a task.
    """

    __slots__ = ("_coroutine",)

    def __init__(self, coroutine: Coroutine[Any, Any, T]) -> None:
        self._coroutine = coroutine

    def __await__(self) -> Generator[Any, Any, T]:
        return self._coroutine.__await__()

    def __call__(
        self,
        on_value: Callable[[T], object] | None = None,
        on_error: Callable[[BaseException], object] | None = None,
    ) -> None:
        """Start it, and call back: `Promise.__call__` says how. Without `on_error` a failure is logged."""
        promise_of(self._coroutine)(on_value, on_error)

    def send(self, value: Any) -> Any:
        """As of a coroutine: for tasks."""
        return self._coroutine.send(value)

    def throw(self, *error: Any) -> Any:
        """As of a coroutine: for tasks."""
        return self._coroutine.throw(*error)

    def close(self) -> None:
        """As of a coroutine: it will not be awaited."""
        self._coroutine.close()

    def __repr__(self) -> str:
        return f"<Call of {getattr(self._coroutine, '__qualname__', self._coroutine)}>"


class Stream(AsyncIterator[T]):
    """Objects as their rows come: `async for post in repository.stream_by_…(…)`. Awaited, it gives itself.

    It holds a connection until its end; leave it early with `contextlib.aclosing`.
    """

    __slots__ = ("_generator",)

    def __init__(self, generator: AsyncGenerator[T, None]) -> None:
        self._generator = generator

    def __aiter__(self) -> AsyncIterator[T]:
        return self._generator

    async def __anext__(self) -> T:
        return await self._generator.__anext__()

    async def aclose(self) -> None:
        """End it, and give its connection back."""
        await self._generator.aclose()

    def __await__(self) -> Generator[Any, Any, Stream[T]]:
        return self
        yield


@dataclass(frozen=True, slots=True)
class Pageable:
    """A request for a page.

    Attributes:
        page: its number, from 0.
        size: rows of a page, at least 1.
        order_by: as of methods: "author", "-created", "author desc", or several in a list.
    Raises:
        TypeError, ValueError: a number that is none.
    """

    page: int = 0
    size: int = PAGE_SIZE
    order_by: str | Sequence[str] | None = None

    def __post_init__(self) -> None:
        for name, value, least in (("page", self.page, 0), ("size", self.size, 1)):
            if not isinstance(value, int) or isinstance(value, bool):
                raise TypeError(f"{name} is a number, not {type(value).__name__}")
            if not least <= value < 2**31:
                raise ValueError(f"{name} cannot be {value}")


@dataclass(frozen=True, slots=True)
class Page(Generic[T]):
    """Some of many objects.

    Attributes:
        items: of this page.            page: its number, from 0.
        size: how many were asked for.  total: of all pages, by a query of its own when this page does not tell.
    """

    items: list[T]
    page: int
    size: int
    total: int

    @property
    def pages(self) -> int:
        """How many pages there are."""
        return -(-self.total // self.size)

    @property
    def has_next(self) -> bool:
        """Whether there are objects after these."""
        return (self.page + 1) * self.size < self.total

    @property
    def has_previous(self) -> bool:
        """Whether there is a page before this one."""
        return self.page > 0

    def __iter__(self) -> Iterator[T]:
        return iter(self.items)

    def __len__(self) -> int:
        return len(self.items)

    def __bool__(self) -> bool:
        return bool(self.items)


class Shape(NamedTuple):
    """What a method's annotation says: `item` is what a row becomes."""

    kind: Literal["list", "one", "optional", "stream", "page", "none"]
    item: Any = None

    @property
    def most(self) -> int | None:
        """How many rows need be fetched: the second of one tells that there are too many."""
        return 2 if self.kind in ("one", "optional") else None


_LISTS = (list, abc.Sequence, abc.Iterable, abc.Collection)
_STREAMS = (abc.AsyncIterator, abc.AsyncIterable, abc.AsyncGenerator, Stream)


def shape_of(annotation: Any) -> Shape:
    """The Shape of a method's return annotation; what a plain `def` gives to await is looked into."""
    origin, args = get_origin(annotation), get_args(annotation)
    if origin in (abc.Awaitable, abc.Coroutine, Call) and args:
        return shape_of(args[-1])
    if annotation is None or annotation is NoneType:
        return Shape("none")
    if annotation in _LISTS or annotation in _STREAMS or annotation is Page:
        origin, args = annotation, (Any,)
    if origin in _LISTS:
        return Shape("list", args[0])
    if origin in _STREAMS:
        return Shape("stream", args[0])
    if origin is Page:
        return Shape("page", args[0])
    if origin in (Union, UnionType) and NoneType in args and len(args) == 2:
        return Shape("optional", args[0] if args[1] is NoneType else args[1])
    return Shape("one", annotation)


def single(kind: str, items: list[T], label: str) -> T | None:
    """The one object of a method that gives one.

    Raises:
        NoRow, TooManyRows: there is none, or there are several.
    """
    if len(items) == 1:
        return items[0]
    if items:
        raise TooManyRows(f"{label}: one row is wanted, and there are several")
    if kind == "one":
        raise NoRow(f"{label}: no row")
    return None

"""Stubs of repository classes made into methods: the name says the query, the annotations what goes in and comes out.

Called by `repository.py` when a class is made; what does not fit is told then. A method made here does per call what it
must: bind the arguments, fetch, make objects. All else (reading the name, writing SQL) is done before or once.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import AsyncGenerator, Callable, Sequence
from decimal import Decimal
from types import FunctionType, NoneType, UnionType
from typing import Annotated, Any, NoReturn, TypeVar, Union, get_args, get_origin

from .client import Client
from .grammar import BadName, Condition, Derived, closest, parse
from .hints import hints_of
from .kinds import KINDS, Varchar
from .model import Column, Model
from .results import Call, Page, Pageable, Shape, Stream, shape_of, single
from .statements import WHOLE, Query, Window, orders_of, window_of

OPTIONS = ("limit", "offset", "order_by", "page", "size", "pageable")
"""Parameters that belong to no condition, and may be given to any call where they make sense."""

_EMPTY: Any = inspect.Parameter.empty
_COLLECTIONS = ("list", "tuple", "set", "frozenset", "Sequence", "Iterable", "Collection", "Set")
_WIDER = ((float, int), (Decimal, int), (int, bool))
_ALLOWED = {
    "list": ("limit", "offset", "order_by"),
    "stream": ("limit", "offset", "order_by"),
    "one": ("offset", "order_by"),
    "optional": ("offset", "order_by"),
    "page": ("page", "size", "order_by", "pageable"),
}


class BadMethod(TypeError):
    """A method of a repository class does not fit its name, its query or its entity."""


async def _stub() -> Any: ...


def _plain_stub() -> Any: ...


async def _documented_stub() -> Any:
    """As of a method with a docstring."""


def _plain_documented_stub() -> Any:
    """As of a method with a docstring."""


async def _raising_stub() -> Any:
    raise NotImplementedError


def _plain_raising_stub() -> Any:
    raise NotImplementedError


async def _documented_raising_stub() -> Any:
    """As of a method with a docstring."""
    raise NotImplementedError


def _plain_documented_raising_stub() -> Any:
    """As of a method with a docstring."""
    raise NotImplementedError


_STUBS = {
    (one.__code__.co_code, one.__code__.co_names)
    for one in (
        _stub,
        _plain_stub,
        _documented_stub,
        _plain_documented_stub,
        _raising_stub,
        _plain_raising_stub,
        _documented_raising_stub,
        _plain_documented_raising_stub,
    )
}


def is_stub(thing: object) -> bool:
    """Whether it is a function whose body is `...`, a docstring, `pass` or `raise NotImplementedError`."""
    return isinstance(thing, FunctionType) and (thing.__code__.co_code, thing.__code__.co_names) in _STUBS


class Stub:
    """A function without a body, looked at: parameters without self, what it gives, how messages name it."""

    def __init__(self, function: Callable[..., Any], owner: str) -> None:
        """Raises BadMethod: it has no self, or an annotation that cannot be read."""
        self.function = function
        self.label = f"{owner}.{function.__name__}"
        try:
            hints = hints_of(function)
        except NameError as error:
            raise BadMethod(f"{self.label}: an annotation names what is not known here: {error}") from error
        parameters = list(inspect.signature(function).parameters.values())
        if not parameters or parameters[0].kind not in (
            parameters[0].POSITIONAL_ONLY,
            parameters[0].POSITIONAL_OR_KEYWORD,
        ):
            raise BadMethod(f"{self.label}: it has no self")
        self.parameters = [one.replace(annotation=hints.get(one.name, _EMPTY)) for one in parameters[1:]]
        for one in self.parameters:
            if one.kind in (one.VAR_POSITIONAL, one.VAR_KEYWORD):
                raise BadMethod(f"{self.label}: parameters are named one by one, not {one}")
        if "return" not in hints:
            raise BadMethod(f"{self.label}: its annotation must say what it gives")
        self.shape = shape_of(hints["return"])

    def fail(self, problem: str) -> NoReturn:
        """Raise BadMethod."""
        raise BadMethod(f"{self.label}: {problem}")

    def finish(self, method: Callable[..., Any]) -> Callable[..., Any]:
        """The method that stands for the stub."""
        return functools.wraps(self.function)(method)


class Arguments:
    """How a call's arguments become those of the query, and its options: the slow way, for calls with keywords."""

    def __init__(self, stub: Stub, count: int, allowed: Sequence[str]) -> None:
        """The first `count` parameters are the query's; those after them must be `allowed`."""
        self.label, self.count = stub.label, count
        self.names = [one.name for one in stub.parameters[:count]]
        options = stub.parameters[count:]
        for one in options:
            if one.name not in allowed:
                hint = f" (it may have {', '.join(allowed)} besides)" if allowed else ""
                stub.fail(f"the name takes {_arguments(count)}, and {one.name!r} is one more{hint}")
        self.positional = [one.name for one in stub.parameters if one.kind is not one.KEYWORD_ONLY]
        self.allowed = {*self.names, *allowed}
        self.defaults = {one.name: one.default for one in stub.parameters if one.default is not _EMPTY}
        self.always = any(self.defaults.get(one.name) is not None for one in options)

    def bind(self, args: tuple[Any, ...], keywords: dict[str, Any]) -> tuple[list[Any], dict[str, Any]]:
        """The query's arguments in order, and the options.

        Raises:
            TypeError: as of a call that does not fit its function.
        """
        if len(args) > len(self.positional):
            raise TypeError(f"{self.label}() takes {_arguments(len(self.positional))}, {len(args)} were given")
        given = dict(zip(self.positional, args, strict=False))
        for name, value in keywords.items():
            if name in given:
                raise TypeError(f"{self.label}() got two values for {name!r}")
            if name not in self.allowed:
                suggestion = closest(name, self.allowed)
                hint = f"; did you mean {suggestion!r}?" if suggestion else ""
                raise TypeError(f"{self.label}() takes no {name!r}{hint}")
            given[name] = value
        given = {**self.defaults, **given}
        missing = [name for name in self.names if name not in given]
        if missing:
            raise TypeError(f"{self.label}() needs {', '.join(map(repr, missing))}")
        return [given.pop(name) for name in self.names], given


def _arguments(count: int) -> str:
    return f"{count or 'no'} argument{'' if count == 1 else 's'}"


def derived_method(stub: Stub, name: str, model: Model) -> Callable[..., Any]:
    """The method of a stub whose query is derived from a name.

    Raises:
        BadName: the name cannot be read.
        BadMethod: parameters or annotations do not fit it.
    """
    try:
        derived = parse(name, model.columns)
        query = Query(model, derived, stub.shape.most if derived.action == "find" else None)
    except BadName as error:
        raise BadName(stub.label, error.problem, error.part, error.suggestion) from None
    except (ValueError, TypeError) as error:
        raise BadMethod(f"{stub.label}: {error}") from None
    check_shape(stub, derived, model)
    check_parameters(stub, derived, model)
    allowed = _ALLOWED.get(stub.shape.kind, ()) if derived.action in ("find", "stream") else ()
    arguments = Arguments(stub, derived.arguments, allowed)
    return stub.finish(run(query, stub.shape, arguments))


def check_shape(stub: Stub, derived: Derived, model: Model) -> None:
    """What the name asks for is what the annotation says."""
    kind, item = stub.shape
    action = derived.action
    given = f"{'a' if kind != 'optional' else 'an'} {kind} of {getattr(item, '__name__', item)}"
    if action in ("find", "stream"):
        if kind == "none" or not (item is model.cls or item is Any or isinstance(item, TypeVar)):
            stub.fail(f"{action!r} gives {model.name}, list[{model.name}] and the like, not {given}")
        if action == "stream" and kind != "stream":
            stub.fail(f"'stream' gives AsyncIterator[{model.name}], not {given}")
        if kind == "page" and derived.limit is not None:
            stub.fail("a Page has its own limit: first and top do not go with it")
        return
    wanted: dict[str, tuple[Any, ...]] = {"count": (int,), "exists": (bool,), "delete": (int, None)}
    if kind not in ("one", "none") or (None if kind == "none" else item) not in wanted[action]:
        names = " or ".join(getattr(one, "__name__", str(one)) for one in wanted[action])
        stub.fail(f"{action!r} gives {names}, not {given}")


def check_parameters(stub: Stub, derived: Derived, model: Model) -> None:
    """There are as many parameters as the name takes arguments, of the types that its fields have."""
    takes = [condition for condition in derived.conditions for _ in range(condition.arguments)]
    given = stub.parameters[: len(takes)]
    if len(given) < len(takes) or any(one.kind is one.KEYWORD_ONLY for one in given):
        missing = takes[min(len([one for one in given if one.kind is not one.KEYWORD_ONLY]), len(takes) - 1)]
        stub.fail(
            f"the name takes {_arguments(len(takes))} ({', '.join(one.field for one in takes)}), "
            f"it has {len(stub.parameters)}: {missing.field!r} has none"
        )
    fields = {condition.field for condition in takes}
    for parameter, condition in zip(given, takes, strict=True):
        if parameter.name in fields and parameter.name != condition.field:
            stub.fail(f"{parameter.name!r} stands where the name takes {condition.field!r}")
        column = model.column(condition.field)
        if parameter.annotation is not _EMPTY and not _fits(parameter.annotation, column, condition):
            wanted = column.kind.python.__name__
            if condition.operator in ("in", "not_in"):
                wanted = f"list[{wanted}]"
            stub.fail(f"{parameter.name!r} is compared with {column.label}: {wanted} is wanted, not {_name(parameter)}")


def _name(parameter: inspect.Parameter) -> str:
    annotation = parameter.annotation
    return getattr(annotation, "__name__", str(annotation)) if not get_args(annotation) else str(annotation)


def _fits(annotation: Any, column: Column, condition: Condition) -> bool:
    """Whether a parameter of that annotation can be an argument for the condition."""
    origin, args = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _fits(args[0], column, condition)
    if origin in (Union, UnionType):
        return any(_fits(one, column, condition) for one in args if one is not NoneType)
    if condition.operator in ("in", "not_in"):
        if getattr(origin or annotation, "__name__", "") not in _COLLECTIONS:
            return annotation is Any
        return not args or _fits(args[0], column, Condition(condition.field))
    if isinstance(annotation, Varchar):
        annotation = str
    if annotation is Any or not isinstance(annotation, type):
        return annotation is Any or isinstance(annotation, TypeVar) or hasattr(annotation, "__supertype__")
    wanted = column.kind.python
    if annotation in KINDS:  # not by issubclass: a datetime is a date, but not for a database
        return annotation is wanted or (wanted, annotation) in _WIDER
    return issubclass(annotation, wanted) or issubclass(wanted, annotation)


def run(query: Query, shape: Shape, arguments: Arguments) -> Callable[..., Any]:
    """The method of a query: what it does for each call, by what it gives."""
    action = query.derived.action
    if action in ("find", "stream"):
        if shape.kind == "stream":
            return _method_of_stream(query, arguments)
        if shape.kind == "page":
            return _method_of_page(query, arguments)
    operation = _OPERATIONS[action if action not in ("find", "stream") else shape.kind]
    if action == "delete" and shape.kind == "none":
        operation = delete_quietly
    count, always, model, label = arguments.count, arguments.always, query.model, arguments.label

    def method(self: Any, *args: Any, **keywords: Any) -> Call[Any]:
        if keywords or always or len(args) != count:
            values, options = arguments.bind(args, keywords)
            window = window_of(model, **options) if options else WHOLE
            return Call(operation(self._client, query, values, window, label))
        return Call(operation(self._client, query, args, WHOLE, label))

    return method


async def find_list(client: Client, query: Query, args: Sequence[Any], window: Window, label: str) -> list[Any]:
    """The objects of all rows."""
    plan = query.plans.get(client.dialect) or query.plan(client.dialect)
    sql, values = plan.sql(args, window)
    return plan.read(await client.fetch(sql, values))


async def find_one(client: Client, query: Query, args: Sequence[Any], window: Window, label: str) -> Any:
    """The object of the one row. Raises NoRow, TooManyRows."""
    plan = query.plans.get(client.dialect) or query.plan(client.dialect)
    sql, values = plan.sql(args, window)
    return single("one", plan.read(await client.fetch(sql, values)), label)


async def find_optional(client: Client, query: Query, args: Sequence[Any], window: Window, label: str) -> Any:
    """The object of the one row, or None. Raises TooManyRows."""
    plan = query.plans.get(client.dialect) or query.plan(client.dialect)
    sql, values = plan.sql(args, window)
    return single("optional", plan.read(await client.fetch(sql, values)), label)


async def count(client: Client, query: Query, args: Sequence[Any], window: Window, label: str) -> int:
    """How many rows there are."""
    rows = await client.fetch(*query.plan(client.dialect).sql(args))
    number: int = rows[0][0]
    return number


async def exists(client: Client, query: Query, args: Sequence[Any], window: Window, label: str) -> bool:
    """Whether there is a row."""
    return bool(await client.fetch(*query.plan(client.dialect).sql(args)))


async def delete(client: Client, query: Query, args: Sequence[Any], window: Window, label: str) -> int:
    """Delete the rows: how many there were."""
    return (await client.execute(*query.plan(client.dialect).sql(args))).affected_rows


async def delete_quietly(client: Client, query: Query, args: Sequence[Any], window: Window, label: str) -> None:
    """Delete the rows."""
    await client.execute(*query.plan(client.dialect).sql(args))


_OPERATIONS: dict[str, Callable[..., Any]] = {
    "list": find_list,
    "one": find_one,
    "optional": find_optional,
    "count": count,
    "exists": exists,
    "delete": delete,
}


def _method_of_stream(query: Query, arguments: Arguments) -> Callable[..., Any]:
    async def stream(client: Client, args: Sequence[Any], window: Window) -> AsyncGenerator[Any, None]:
        plan = query.plan(client.dialect)
        rows: Any = client.iterate(*plan.sql(args, window))
        try:
            async for row in rows:
                yield plan.read((row,))[0]
        finally:
            await rows.aclose()

    def method(self: Any, *args: Any, **keywords: Any) -> Stream[Any]:
        values, options = arguments.bind(args, keywords)
        return Stream(stream(self._client, values, window_of(query.model, **options) if options else WHOLE))

    return method


def _method_of_page(query: Query, arguments: Arguments) -> Callable[..., Any]:
    total = Query(query.model, query.derived._replace(action="count", order=()))

    async def page(client: Client, args: Sequence[Any], request: Pageable) -> Page[Any]:
        offset = request.page * request.size
        order = None if request.order_by is None else orders_of(query.model, request.order_by)
        items = await find_list(client, query, args, Window(request.size, offset, order), arguments.label)
        known = len(items) < request.size and (items or not offset)
        number = offset + len(items) if known else await count(client, total, args, WHOLE, arguments.label)
        return Page(items, request.page, request.size, number)

    def method(self: Any, *args: Any, **keywords: Any) -> Call[Page[Any]]:
        values, options = arguments.bind(args, keywords)
        return Call(page(self._client, values, pageable_of(options, arguments.label)))

    return method


def pageable_of(options: dict[str, Any], label: str) -> Pageable:
    """The request for a page in a call's options.

    Raises:
        TypeError, ValueError: it is none.
    """
    request = options.pop("pageable", None)
    options = {name: value for name, value in options.items() if value is not None}
    if request is None:
        return Pageable(**options)
    if not isinstance(request, Pageable) or options:
        raise TypeError(f"{label}() takes a Pageable, or page, size and order_by")
    return request

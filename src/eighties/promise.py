"""Promises: futures that can be awaited and called, and what is built of them.

A Promise is an asyncio.Future, so everything that asyncio does with futures works. It belongs to the loop that ran when
it was made; as with any future, only that loop's thread may touch it. What fails here is told: a failure that nobody
looks at is logged with the place that made the promise, and a promise that can never be resolved any more is rejected.
The module keeps no state. Programs call it through `aio`; the rooms that promise things make their promises here.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable, Coroutine, Generator, Iterable, Iterator
from contextlib import suppress
from functools import partial
from types import CodeType, FrameType, GeneratorType
from typing import Any, Concatenate, ParamSpec, Protocol, TypeVar, cast, overload
from weakref import ref

from . import _engine
from ._engine import Resolver, prepare_promise

__all__ = [
    "BrokenPromise",
    "Promise",
    "Resolver",
    "async_",
    "await_",
    "chain",
    "copy",
    "gather",
    "map",
    "new_promise",
    "prepare_promise",
    "promise_of",
]

_T = TypeVar("_T")
_V = TypeVar("_V")
_P = ParamSpec("_P")

_getframe = sys._getframe
_FUTURE = asyncio.Future
_HOUSE = __file__.rpartition("/")[0] + "/"
_ASYNCIO = (asyncio.__file__ or "").rpartition("/")[0] + "/"


class BrokenPromise(Exception):
    """The promise was still open when its Resolver went away: nobody can resolve it any more."""


class _Cancellable(Protocol):
    def cancel(self, msg: Any | None = None) -> bool: ...


class Promise(asyncio.Future[Any]):
    """A value that comes later: `await promise` gives it or raises, `promise(on_value, on_error)` calls back.

    Made by `prepare_promise` and by what gives promises; of several values `await` gives a tuple.
    """

    # Unset until needed: a promise costs hardly more than a future. _code and _lasti are the place that made it,
    # _several is set when the value is a tuple of several, _source is what is cancelled in its stead.
    __slots__ = ("_code", "_lasti", "_several", "_source")

    _code: CodeType
    _lasti: int
    _several: bool
    _source: _Cancellable | None

    def __call__(
        self,
        on_value: Callable[..., object] | None = None,
        on_error: Callable[[BaseException], object] | None = None,
    ) -> None:
        """Call back when the promise is settled, at the loop's next turn if it is already.

        Arguments:
            on_value: called with the value; of several values each is an argument. May be a coroutine function.
            on_error: called with the exception, a CancelledError if the promise was cancelled. May be a coroutine
                function. Without it a failure counts as not looked at, and is logged.
        An exception in either goes to the loop's exception handler, which logs it.
        """
        self.add_done_callback(partial(_call_back, on_value, on_error))

    def cancel(self, msg: Any | None = None) -> bool:
        """Cancel the promise, and what it waits for; then it is settled when that has ended, as with a task.

        Returns:
            False when it was settled already.
        """
        source: _Cancellable | None = getattr(self, "_source", None)
        if source is not None and not self.done():
            return source.cancel(msg)
        return super().cancel(msg)

    def settle(self, values: tuple[Any, ...]) -> bool:
        """Resolve with these: none is None, one is itself, several are a tuple. False: was settled already."""
        if len(values) > 1:
            return self.settle_several(values)
        if self.done():
            return False
        self.set_result(values[0] if values else None)
        return True

    def settle_several(self, values: tuple[Any, ...]) -> bool:
        """Resolve with a tuple whose members are the arguments when called back, however many they are."""
        if self.done():
            return False
        self._several = True
        self.set_result(values)
        return True

    def fail(self, error: BaseException | type[BaseException]) -> bool:
        """Reject, or cancel when the error is a CancelledError. False: was settled already."""
        if self.done():
            return False
        if isinstance(error, asyncio.CancelledError):
            self._source = None
            return self.cancel(*error.args[:1])
        if isinstance(error, StopIteration):  # a future cannot hold it: it would end whoever awaits
            wrapped = RuntimeError("StopIteration was raised")
            wrapped.__cause__ = error
            error = wrapped
        self.set_exception(error)
        return True

    # The default keeps the function at hand when the interpreter ends and modules are taken apart.
    def abandon(self, finalizing: Callable[[], bool] = sys.is_finalizing) -> None:
        """Break the promise, its Resolver is gone. The garbage collector may call this in any thread, at any time."""
        if self.done() or finalizing():
            return
        loop = self.get_loop()
        if asyncio._get_running_loop() is loop:
            _break(self)
        elif not loop.is_closed():
            with suppress(RuntimeError):  # it may be closed just now
                loop.call_soon_threadsafe(_break, self)

    @property
    def several(self) -> bool:
        """Whether the value is a tuple of several values."""
        return getattr(self, "_several", False)

    @property
    def place(self) -> str:
        """Where the program made the promise, as `file:line in function`; empty if it is not known."""
        code: CodeType | None = getattr(self, "_code", None)
        if code is None:
            return ""
        lines = [line for start, end, line in code.co_lines() if start <= self._lasti < end and line is not None]
        return f"{code.co_filename}:{lines[0] if lines else code.co_firstlineno} in {code.co_qualname}"

    def __repr__(self) -> str:
        text = super().__repr__()
        return f"{text[:-1]} made at {self.place}>" if self.place else text


def _break(promise: Promise) -> None:
    if promise.done():
        return
    waited_for = bool(promise._callbacks)
    place = f" made at {promise.place}" if promise.place else ""
    promise.set_exception(
        BrokenPromise(
            f"the promise{place} was never resolved, and its resolver is gone: "
            "keep `resolve` until it is called, and call it or `resolve.reject(error)` on every path"
        )
    )
    if not waited_for:  # dropped on both sides: that is no failure, and asyncio would log one
        promise._log_traceback = False


def new_promise() -> Promise:
    """An open promise whose place is the innermost frame outside this package."""
    promise = Promise()
    inner: FrameType = _getframe(1)
    outer: FrameType | None = inner
    while outer is not None and outer.f_code.co_filename.startswith(_HOUSE):
        inner, outer = outer, outer.f_back
    if outer is not None and not outer.f_code.co_filename.startswith(_ASYNCIO):
        inner = outer
    promise._code = inner.f_code
    promise._lasti = inner.f_lasti
    return promise


def promise_of(value: object) -> Promise:
    """A promise of anything: a promise is itself, what can be awaited is followed, other values are resolved at once.

    A coroutine is started at once: on Python 3.12 and later its first step runs before this returns, on 3.11 at the
    loop's next turn. Cancelling the promise cancels what it follows, and the other way round.

    Raises:
        RuntimeError: no event loop is running.
    """
    if isinstance(value, Promise):
        return value
    promise = new_promise()
    if asyncio.isfuture(value):
        _follow(promise, value)
    elif isinstance(value, Coroutine):
        _follow(promise, _start(value, promise.get_loop()))
    elif _is_awaitable(value):
        _follow(promise, _start(await_(value), promise.get_loop()))
    else:
        promise.set_result(value)
    return promise


def _is_awaitable(value: object) -> bool:
    return hasattr(type(value), "__await__")


def _start(coroutine: Coroutine[Any, Any, Any], loop: asyncio.AbstractEventLoop) -> asyncio.Future[Any]:
    if sys.version_info >= (3, 12) and asyncio._get_running_loop() is loop:
        return _alone(_eager(coroutine, loop))
    return loop.create_task(coroutine)


def attempt(function: Callable[..., _V], *args: Any) -> _V | Promise:
    """Call a program's function: what it returns, or a promise that was rejected with what it raised."""
    return _alone(_called(function, args))


def _alone(call: Generator[_V, None, None]) -> _V:
    """What a generator yields, that makes a call and keeps nothing of what it gives.

    An error has a traceback, that has frames, and each frame has its caller's, with their variables. If one of them is
    the promise that gets the error, a cycle holds them all: until the garbage collector comes nothing is logged, and no
    `fd` let go. But a generator's frame parts from its caller's when it yields: what an error holds ends there.
    """
    value = next(call)
    if isinstance(value, _FUTURE) and value.done() and not value.cancelled() and value._exception is not None:
        value.get_loop().call_soon(call.close)  # not here: who ends it is its caller, and held
    return value


if sys.version_info >= (3, 12):

    def _eager(coroutine: Coroutine[Any, Any, _V], loop: asyncio.AbstractEventLoop) -> Generator[asyncio.Task[_V]]:
        yield asyncio.Task(coroutine, loop=loop, eager_start=True)


def _called(function: Callable[..., _V], args: tuple[Any, ...]) -> Generator[_V | Promise]:
    try:
        values = [function(*args)]
    except (Exception, asyncio.CancelledError) as error:
        yield _rejected(error)
    else:
        yield values.pop()


def _rejected(error: BaseException) -> Promise:
    promise = new_promise()
    promise.fail(error)
    return promise


def _follow(promise: Promise, source: asyncio.Future[Any]) -> None:
    if source.done():
        copy(promise, source)
        return
    promise._source = source
    source.add_done_callback(partial(copy, promise))


def copy(promise: Promise, source: asyncio.Future[Any]) -> None:
    """Settle a promise as its source was. A failure that comes too late stays with the source, which logs it."""
    if promise.done():
        return
    promise._source = None
    if source.cancelled():
        promise.cancel(getattr(source, "_cancel_message", None))
        return
    error = source.exception()
    if error is not None:
        promise.set_exception(error)
    elif isinstance(source, Promise) and source.several:
        promise.settle_several(source.result())
    else:
        promise.set_result(source.result())


def _call_back(
    on_value: Callable[..., object] | None,
    on_error: Callable[[BaseException], object] | None,
    promise: Promise,
) -> None:
    """Call one of them, and tell what it raises: asyncio would keep that, and all that it holds, in a cycle."""
    try:
        if promise.cancelled():
            result = on_error(asyncio.CancelledError()) if on_error else None
        elif promise._exception is None:  # exception() would mark a failure as looked at
            result = _apply(on_value, promise) if on_value else None
        else:
            result = on_error(cast(BaseException, promise.exception())) if on_error else None
        if result is not None and isinstance(result, Coroutine):
            promise_of(result)
    except (SystemExit, KeyboardInterrupt):
        raise
    except BaseException as error:  # noqa: BLE001 as the loop does
        context = {"message": "Exception in callback of a promise", "exception": error, "future": promise}
        promise.get_loop().call_exception_handler(context)
        del context  # the traceback has this frame


def _apply(function: Callable[..., _T], promise: asyncio.Future[Any]) -> _T:
    value = promise.result()
    return function(*value) if isinstance(promise, Promise) and promise.several else function(value)


class _Gathering:
    """One call of gather: the values so far, and the promises they come from. Keeps neither once it has failed."""

    __slots__ = ("first", "left", "place", "promise", "promises", "values")

    def __init__(self, promise: Promise, promises: list[Promise]) -> None:
        self.promise: Promise | None = promise
        self.promises = promises
        self.values: list[Any] = [None] * len(promises)
        self.left = len(promises)

    def cancel(self, msg: Any | None = None) -> bool:
        cancelled = [promise.cancel(msg) for promise in self.promises]
        return any(cancelled)

    def done(self, index: int, one: asyncio.Future[Any]) -> None:
        error = asyncio.CancelledError() if one.cancelled() else one.exception()
        if error is not None:
            self.fail(error, one)
            return
        promise = self.promise
        if promise is None:
            return
        self.values[index] = one.result()
        self.left -= 1
        if not self.left and not promise.done():
            promise._source = None
            promise.settle_several(tuple(self.values))

    def fail(self, error: BaseException, one: asyncio.Future[Any]) -> None:
        """The first failure rejects. Those that are still open may not hold the promise then, or nobody is told."""
        if (promise := self.promise) is not None:
            self.place, self.first = promise.place, ref(promise)
            self.promise, self.promises, self.values = None, [], []
            promise._source = None
            if promise.fail(error):
                return
        first = self.first()
        if not isinstance(error, asyncio.CancelledError) and (first is None or error is not first._exception):
            message = f"gather at {self.place}: a further failure, after it was settled"
            one.get_loop().call_exception_handler({"message": message, "exception": error, "future": one})


def gather(*promises: object) -> Promise:
    """A promise of the values of all, in order: a tuple when awaited, so many arguments when called back.

    Values, coroutines and futures may stand among the promises. The first failure rejects, the others go on; what fails
    later is given to the loop's exception handler, which logs it. Cancelling it cancels all.
    """
    promise = new_promise()
    if not promises:
        promise.settle_several(())
        return promise
    gathering = _Gathering(promise, [promise_of(one) for one in promises])
    promise._source = gathering
    for index, one in enumerate(gathering.promises):
        one.add_done_callback(partial(gathering.done, index))
    return promise


def chain(first: object, *functions: Callable[..., object]) -> Promise:
    """One after the other: each function gets the last value, and gives a value or a promise (or coroutine) of one.

    Arguments:
        first: a promise, coroutine or value.
        functions: called with the value before; with several arguments where that promise has several values.
    Returns:
        A promise of the last value. The first error ends the chain and rejects it; cancelling it cancels the step
        that is under way.
    """
    promise = new_promise()
    _await_step(promise, iter(functions), first)
    return promise


def _await_step(promise: Promise, functions: Iterator[Callable[..., object]], value: object) -> None:
    step = promise_of(value)
    promise._source = step
    step.add_done_callback(partial(_next_step, promise, functions))


def _next_step(promise: Promise, functions: Iterator[Callable[..., object]], step: asyncio.Future[Any]) -> None:
    failed = step.cancelled() or step._exception is not None
    function = None if failed else next(functions, None)
    if function is None or promise.done():
        copy(promise, step)
        return
    _await_step(promise, functions, attempt(_apply, function, step))


def map(  # the ancestor's name; here the built-in of that name is not used
    array: Iterable[_T],
    function: Callable[Concatenate[_T, int, _P], _V],
    *args: _P.args,
    **kwargs: _P.kwargs,
) -> list[_V]:
    """`[function(item, index, *args), ...]`, the index from 0. With `gather(*map(...))` all run side by side."""
    return [function(item, index, *args, **kwargs) for index, item in enumerate(array)]


def async_(function: Callable[[], object], on_error: Callable[[BaseException], object] | None = None) -> Promise:
    """Run a function that waits for promises.

    Arguments:
        function: without parameters. A generator function gets with `value = yield promise` what it yields (a promise,
            anything that can be awaited, or a plain value), and failures as exceptions there. A coroutine function
            awaits. Either runs at once up to where it first waits, on Python 3.11 at the loop's next turn. A plain
            function runs at once.
        on_error: called with the exception if it fails.
    Returns:
        A promise of what the function returns. A failure is logged if neither on_error nor anyone else looks at it.
    """
    result = attempt(function)
    promise = promise_of(_drive(result) if isinstance(result, GeneratorType) else result)
    if on_error is not None:
        promise(None, on_error)
    return promise


async def _drive(generator: Generator[Any, Any, _T]) -> _T:
    """Wait for what a generator yields, and hand it in, until it returns."""
    wanted: Any = None
    try:
        wanted = next(generator)
        while True:
            try:
                value = await wanted if _is_awaitable(wanted) else wanted
            except BaseException as error:  # cancellation too: the generator's `finally` must run
                wanted = generator.throw(error)
            else:
                wanted = generator.send(value)
    except StopIteration as end:
        result: _T = end.value
        return result
    finally:
        wanted = None  # a failure's traceback has this frame, and it may be this promise's


@overload
def await_(value: Awaitable[_T]) -> Coroutine[Any, Any, _T]: ...
@overload
def await_(value: _T) -> Coroutine[Any, Any, _T]: ...
async def await_(value: Any) -> Any:
    """The value of a promise or of anything that can be awaited; other values are themselves: `await aio.await_(x)`."""
    try:
        return await value if _is_awaitable(value) else value
    finally:
        del value  # a failure's traceback has this frame, and it is this promise's


_engine.use_promise(Promise)

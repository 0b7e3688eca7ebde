"""Patterns of routes, and whether a handler takes what its pattern gives.

Keeps no state: `App.route` asks when a handler is registered, so that a mistake ends the start and names its place,
instead of failing a request later.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from types import CodeType

    Handler = Callable[..., Any]

MAX_PARAMS = 16
"""Parameters in one pattern, as in engine.h."""

CO_VARARGS, CO_VARKEYWORDS, CO_COROUTINE, CO_ASYNC_GENERATOR = 0x04, 0x08, 0x80, 0x200
"""Flags of code objects, as in `inspect`, which is too large to import for four numbers."""


def parse_pattern(pattern: str) -> tuple[str, tuple[str, ...]]:
    """A pattern's shape, in which parameters have lost their names, and those names.

    Raises:
        ValueError: names the pattern and what is wrong with it.
    """

    def wrong(what: str) -> ValueError:
        return ValueError(f"pattern {pattern!r}: {what}")

    if not pattern.startswith("/"):
        raise wrong("it must begin with /")
    if not pattern.isprintable() or any(char in pattern for char in "?#%\\"):
        raise wrong("it is a decoded path, without control characters, \\, ?, # and % escapes")
    segments = pattern[1:].split("/")
    names: list[str] = []
    shape: list[str] = []
    for number, segment in enumerate(segments):
        last = number == len(segments) - 1
        if not segment and not last or segment in (".", ".."):
            raise wrong(f"a segment is {segment!r}, which no client asks for")
        if "{" in segment or "}" in segment:
            name, kind = _parse_parameter(segment, wrong)
            if name in names:
                raise wrong(f"parameter {name!r} stands twice")
            if kind == "path" and not last:
                raise wrong(f"{segment} takes all the rest, so it must stand at the end")
            names.append(name)
            segment = f"{{:{kind}}}"
        shape.append(segment)
    if len(names) > MAX_PARAMS:
        raise wrong(f"it has more than {MAX_PARAMS} parameters")
    return "/" + "/".join(shape), tuple(names)


def _parse_parameter(segment: str, wrong: Callable[[str], ValueError]) -> tuple[str, str]:
    from keyword import iskeyword

    inner = segment[1:-1]
    if segment[0] != "{" or segment[-1] != "}" or "{" in inner or "}" in inner:
        raise wrong(f"a parameter fills a whole segment, {segment!r} does not")
    name, colon, kind = inner.partition(":")
    if not name.isidentifier() or iskeyword(name):
        raise wrong(f"parameter {name!r} must be a Python name")
    if colon and kind not in ("int", "path"):
        raise wrong(f"a parameter is {{name}}, {{name:int}} or {{name:path}}, not {segment}")
    return name, kind


def check_handler(handler: Handler, pattern: str, names: tuple[str, ...], stream: bool) -> str:
    """Hold a handler against its pattern, and return its place, file:line.

    Raises:
        TypeError: names the handler and what is wrong with it.
    """
    if not callable(handler):
        raise TypeError(f"pattern {pattern!r}: {handler!r} is no handler, it cannot be called")
    place = handler_place(handler)
    code, bound = _code_of(handler)
    if code is None:  # written in C, or a partial: nothing to look at
        return place
    complaint = _signature_complaint(handler, code, bound, names)
    if stream and not code.co_flags & (CO_COROUTINE | CO_ASYNC_GENERATOR):
        complaint = "reads a stream, so it must be an async def"
    if complaint:
        expected = ", ".join(("request", *names))
        raise TypeError(f"{handler_name(handler)}({expected}) at {place}, pattern {pattern!r}: it {complaint}")
    return place


def _signature_complaint(handler: Handler, code: CodeType, bound: int, names: tuple[str, ...]) -> str:
    """What is wrong with a handler's parameters; empty when they are `request` and those of the pattern."""
    positional = code.co_varnames[bound : code.co_argcount]
    keyword_only = code.co_varnames[code.co_argcount : code.co_argcount + code.co_kwonlyargcount]
    takes_any = bool(code.co_flags & CO_VARKEYWORDS)
    if not positional and not code.co_flags & CO_VARARGS:
        return "does not take the request"
    by_name = (*positional[max(1, code.co_posonlyargcount - bound) :], *keyword_only)
    if positional and positional[0] in names and code.co_posonlyargcount == 0:
        return f"takes the request as {positional[0]!r}, which is a parameter of the pattern"
    missing = [name for name in names if name not in by_name and not takes_any]
    if missing:
        return f"does not take {', '.join(missing)}"
    function = getattr(handler, "__func__", handler)
    optional = set(getattr(function, "__kwdefaults__", None) or ())
    optional.update(positional[len(positional) - len(getattr(function, "__defaults__", None) or ()) :])
    extra = [name for name in (*positional[1:], *keyword_only) if name not in names and name not in optional]
    return f"asks for {', '.join(extra)}, which the pattern does not have" if extra else ""


def _code_of(handler: Handler) -> tuple[CodeType | None, int]:
    """A handler's code, and how many parameters are bound already (a method's self)."""
    code: CodeType | None = getattr(handler, "__code__", None)
    if code is not None:
        return code, 1 if hasattr(handler, "__self__") else 0
    if isinstance(handler, type):
        return None, 0
    return getattr(type(handler).__call__, "__code__", None), 1


def handler_name(handler: Handler) -> str:
    """What the log calls a handler."""
    name: str = getattr(handler, "__qualname__", None) or type(handler).__name__
    return name.rpartition("<locals>.")[2]


def handler_place(handler: Handler) -> str:
    """Where a handler stands, file:line; its name where that is not known."""
    code = _code_of(getattr(handler, "func", handler))[0]
    return f"{code.co_filename}:{code.co_firstlineno}" if code is not None else handler_name(handler)

"""Annotations of classes and methods as objects, where they are text too (`from __future__ import annotations`).

Names are looked up in the module's namespace: the one in which the class statement runs, which after a reload is not
the one that `sys.modules` has. A class made in a function may use that function's names, so on a NameError the
functions under way are asked, innermost first.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any, get_type_hints

_DEPTH = 16
"""How many frames are asked: metaclasses and decorators stand between the class statement and us."""


def hints_of(function: Callable[..., Any]) -> dict[str, Any]:
    """The annotations of a function, with what `Annotated` adds.

    Raises:
        NameError: a name in them is not known, not even in the functions that are under way.
    """
    try:
        return get_type_hints(function, include_extras=True)
    except NameError:
        return get_type_hints(function, None, _names(_callers()), include_extras=True)


def own_hints_of(made: type) -> dict[str, Any]:
    """The annotations of a class, without its bases', while its statement runs. Raises as `hints_of` does."""
    frames = list(_callers())
    here = next((frame.f_globals for frame in frames if frame.f_globals.get("__name__") == made.__module__), None)
    # With locals of its own a class's attributes are not asked: a field `date: date = …` would hide the type.
    try:
        return inspect.get_annotations(made, globals=here, locals={}, eval_str=True)
    except NameError:
        return inspect.get_annotations(made, globals=here, locals=_names(iter(frames)), eval_str=True)


def _callers() -> Iterator[FrameType]:
    """The frames outside of this package, the innermost first."""
    frame: FrameType | None = sys._getframe(1)
    for _ in range(_DEPTH):
        if frame is None:
            return
        if not frame.f_globals.get("__name__", "").startswith("eighties."):
            yield frame
        frame = frame.f_back


def _names(frames: Iterator[FrameType]) -> dict[str, Any]:
    names: dict[str, Any] = {}
    for frame in frames:
        if frame.f_code.co_flags & inspect.CO_NEWLOCALS:
            names = {**frame.f_locals, **names}
    return names

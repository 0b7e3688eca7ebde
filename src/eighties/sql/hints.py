"""Annotations of classes and methods as objects, where they are text too (`from __future__ import annotations`).

Names are looked up in the module first; a class made in a function may use that function's names, so on a NameError the
functions under way are asked, innermost first.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from inspect import CO_NEWLOCALS
from typing import Any, get_type_hints

_DEPTH = 16
"""How many frames are asked: metaclasses and decorators stand between the class statement and us."""


def hints_of(thing: type | Callable[..., Any]) -> dict[str, Any]:
    """The annotations of a class with its bases', or of a function, with what `Annotated` adds.

    Raises:
        NameError: a name in an annotation is not known, not even in the functions that are under way.
    """
    # With locals of its own a class's attributes are not asked: a field `date: date = …` would hide the type.
    no_locals: dict[str, Any] | None = {} if isinstance(thing, type) else None
    try:
        return get_type_hints(thing, None, no_locals, include_extras=True)
    except NameError:
        names = _names_of_callers()
        if not names:
            raise
        return get_type_hints(thing, None, names, include_extras=True)


def _names_of_callers() -> dict[str, Any]:
    names: dict[str, Any] = {}
    frame = sys._getframe(2)
    for _ in range(_DEPTH):
        if frame.f_code.co_flags & CO_NEWLOCALS and not frame.f_globals.get("__name__", "").startswith("eighties."):
            names = {**frame.f_locals, **names}
        if frame.f_back is None:
            break
        frame = frame.f_back
    return names

"""80s for Python: a minimal, lock-less, hot-reloading web server.

Names are imported when first used, because the parent process imports `eighties.cli` through this package
and must stay small: no asyncio, no engine, no json in it.
"""

from __future__ import annotations

__all__ = [
    "Address",
    "App",
    "HTTPError",
    "MultiDict",
    "Request",
    "Response",
    "Upload",
    "__version__",
    "about",
    "aio",
    "net",
    "state",
]

_HOMES = {
    "Address": "http",
    "App": "app",
    "HTTPError": "errors",
    "MultiDict": "_engine",
    "Request": "http",
    "Response": "http",
    "Upload": "forms",
    "__version__": "_engine",
    "about": "app",
    "aio": "",  # itself a room
    "net": "",
    "state": "app",
}

TYPE_CHECKING = False  # type checkers take it for true; importing it from typing would cost the parent 4 ms
if TYPE_CHECKING:
    from . import aio, net
    from ._engine import VERSION as __version__
    from ._engine import MultiDict
    from .app import App, about, state
    from .errors import HTTPError
    from .forms import Upload
    from .http import Address, Request, Response
else:  # type checkers would believe any name of a module that has a __getattr__

    def __getattr__(name: str) -> object:
        """Import a public name from its room, once (PEP 562)."""
        home = _HOMES.get(name)
        if home is None:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        from importlib import import_module

        if not home:
            return import_module(f"{__name__}.{name}")  # which makes it an attribute
        value = getattr(import_module(f"{__name__}.{home}"), "VERSION" if name == "__version__" else name)
        globals()[name] = value
        return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})

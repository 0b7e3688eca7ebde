"""What a worker does for a program that has a folder of pages: keys, sessions, the site itself, and looking again.

`worker.py` calls; the state is the `Site`, which hangs on the program's App.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from . import logs
from .loader import Entry, LoadError, Program
from .settings import Settings, master_key

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..files import FileEvent, Watch
    from ..pages.site import Site
    from ..sessions import Store

# A name in main.py under which it may give another store than the cookie's.
STORE = "session_store"
# Its functions around every page.
HOOKS = ("on_before_http", "on_after_http")


def use_master_key() -> None:
    """Put the key of the environment in force, if there is one. Raises LoadError."""
    key = master_key(os.environ)
    if key is not None:
        from .. import urls

        try:
            urls.set_master_key(key)
        except ValueError as error:
            raise LoadError(f"MASTER_KEY: {error}") from None


def attach(program: Program, entry: Entry, settings: Settings, session_key: str) -> Site | None:
    """Compile the site of a program, and have its App serve it. None: it has none.

    `session_key` is what sessions are encrypted with where there is no master key. Raises LoadError.
    """
    if entry.root is None:
        return None
    from ..pages.site import Site

    names = program.names
    _check_names(names, entry.name)
    store = names[STORE] if STORE in names else _cookie_store(session_key)
    site = Site(entry.root, names, store, static=not settings.no_static, dev=settings.dev)
    program.app.contents = site
    _warm(site)
    return site


def _check_names(names: dict[str, Any], name: str) -> None:
    """What a site's program may define must be what it is taken for. Raises LoadError."""
    import inspect

    for hook in HOOKS:
        value = names.get(hook)
        if value is not None and (not callable(value) or inspect.isgeneratorfunction(inspect.unwrap(value))):
            raise LoadError(
                f"{name}: {hook} must be a function, def or async def, which takes method, endpoint, session"
            )
    store = names.get(STORE)
    if STORE in names and not all(callable(getattr(store, method, None)) for method in ("load", "save")):
        raise LoadError(f"{name}: {STORE} must be a store of sessions, with load and save, not {type(store).__name__}")


def _cookie_store(session_key: str) -> Store:
    from .. import urls
    from ..sessions import CookieStore

    return CookieStore(urls.master_key() or urls.MasterKey(session_key))


def _warm(site: Site) -> None:
    """What encrypts is a large library: a site that needs it has it before memory is frozen, others never load it."""
    from .. import urls

    if "session" in site.uses or (urls.master_key() is not None and {"to_url", "query"} & site.uses):
        key = urls.MasterKey("b64:" + "A" * 32)
        key.open("", "", key.seal("", "", b"."))


def report(site: Site) -> None:
    """Say which pages cannot be served, and why."""
    for error in site.broken:
        logs.log("error", f"a page cannot be served: {error}")
    for what in site.skipped:
        logs.log("warning", what)


def watch(site: Site, changed: Callable[[], None]) -> Watch:
    """Look at the folder again when something in it changes, then call `changed`."""
    from ..files import watch as watch_files

    def look(events: list[FileEvent]) -> None:
        site.refresh()
        report(site)
        changed()

    return watch_files(site.root, look)

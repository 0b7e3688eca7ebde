"""What a worker does for a program that has a folder of pages: keys, sessions, the site itself, and looking again.

`worker.py` calls; the state is the `Site`, which hangs on the program's App.
"""

from __future__ import annotations

import asyncio
import gc
import os
from typing import TYPE_CHECKING, Any

from . import logs
from .loader import Entry, LoadError, Program
from .settings import Settings, master_key

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..pages.site import Site
    from ..sessions import Store

# Seconds: a start that takes longer leaves pages to be compiled while others are served already.
START_TIME = 0.3
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


def attach(
    program: Program, entry: Entry, settings: Settings, session_key: str, old: Site | None = None
) -> Site | None:
    """Find the site of a program, and have its App serve it. None: it has none.

    `session_key` is what sessions are encrypted with where there is no master key. `old` is the site of the program
    before: what has not changed since is not compiled again. Raises LoadError.
    """
    if entry.root is None:
        return None
    from ..pages.site import Site

    names = program.names
    _check_names(names, entry.name)
    store = names[STORE] if STORE in names else _cookie_store(session_key)
    site = Site(entry.root, names, store, static=not settings.no_static, dev=settings.dev)
    if old is not None:
        site.take_over(old)
    site.refresh(START_TIME)
    program.app.contents = site
    warm(site)
    return site


def _check_names(names: dict[str, Any], name: str) -> None:
    """What a site's program may define must be what it is taken for. Raises LoadError."""
    import inspect

    from ..app import App

    for hook in HOOKS:
        if names.get(hook) is not None and not _takes_three(names[hook]):
            what = "must be a function, def or async def, which takes method, endpoint, session"
            raise LoadError(f"{name}: {hook} {what}")
    store = names.get(STORE)
    methods = [getattr(store, method, None) for method in ("load", "save")]
    plain = all(callable(method) and not inspect.iscoroutinefunction(method) for method in methods)
    if STORE in names and (isinstance(store, type) or not plain):
        raise LoadError(f"{name}: {STORE} must be a store of sessions, an object with plain methods load and save")
    app = names.get("app")
    if app is not None and not isinstance(app, App):
        raise LoadError(f"{name}: `app` is where an App would be, but it is of type {type(app).__name__}: rename it")


def _takes_three(hook: object) -> bool:
    import inspect

    if not callable(hook) or any(
        inspect.isgeneratorfunction(one) or inspect.isasyncgenfunction(one) for one in (hook, type(hook).__call__)
    ):
        return False
    try:
        inspect.signature(hook).bind("GET", "/", {})
    except TypeError:
        return False
    except ValueError:  # it does not say
        return True
    return True


def _cookie_store(session_key: str) -> Store:
    from .. import urls
    from ..sessions import CookieStore

    return CookieStore(urls.master_key() or urls.MasterKey(session_key))


def warm(site: Site) -> None:
    """What encrypts is a large library: a site that needs it has it before memory is frozen, others never load it."""
    from .. import urls

    if "session" in site.uses or (urls.master_key() is not None and {"to_url", "query"} & site.uses):
        key = urls.MasterKey("b64:" + "A" * 32)
        key.open("", "", key.seal("", "", b"."))


class Care:
    """A site while it is served: the pages left over at the start are compiled, and it is looked at again when told.

    Arguments:
        changed: called when routes are to be made anew.
        loud: whether this worker tells what is wrong; the others would say the same.
        before: that of the site before, which has told some of it.
    """

    def __init__(self, site: Site, changed: Callable[[], None], *, loud: bool, before: Care | None = None) -> None:
        self.site = site
        self._changed = changed
        self._loud = loud
        self._told: set[str] = set() if before is None else before._told
        self._task: asyncio.Task[None] | None = None

    def begin(self) -> None:
        """Begin, once the server listens."""
        self._task = asyncio.get_running_loop().create_task(self._compile_rest())

    def close(self) -> None:
        """End it."""
        if self._task is not None:
            self._task.cancel()

    def look(self) -> None:
        """Look at the folder again."""
        self.site.refresh()
        self.report()
        self._changed()

    def report(self) -> None:
        """Say which pages cannot be served, and why; what was said at the last look is not said again."""
        broken = {f"a page cannot be served: {error}" for error in self.site.broken}
        found = broken | set(self.site.skipped)
        for what in sorted(found - self._told) if self._loud else ():
            logs.log("error" if what in broken else "warning", what)
        self._told = found

    async def _compile_rest(self) -> None:
        self.report()
        waited = False
        for _ in self.site.compile_rest():
            waited = True
            await asyncio.sleep(0)
        if waited:
            warm(self.site)
            self._changed()
            self.report()
            gc.collect()
            gc.freeze()

"""Watch: with `--reload`, looks at the files of a program and its site, and asks for a reload when one has changed.

Runs in the first worker; the parent tells all. What the kernel reports only wakes it: whether to reload is decided by
comparing what the files are with what they were, so that nothing is missed while folders come, go or are replaced.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from typing import TYPE_CHECKING

from .frames import PROGRAM, SITE
from .fresh import walk

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from .fresh import Own

    State = tuple[int, int, int]
    States = dict[str, State]

# Milliseconds without a further change after which a burst of saves is over. What an editor does to save a file takes
# about one; more would be felt.
BURST = 20
# Seconds between looks that nothing has asked for: a folder that was moved away and replaced is not always reported.
LOOK = 0.5
# Seconds before folders are watched anew, so that one that cannot be watched is no load.
PAUSE = 0.05
# Of folders watched; a program's has a handful. Beyond it a change is noticed only where it is looked for.
MOST_FOLDERS = 4096
# What is below folders of this name is part of the program, whatever it is: it is read when the program is.
TEMPLATES = "templates"
# What editors write beside the file that is being saved.
TEMPORARY_STARTS = (".", "#", "4913")
TEMPORARY_ENDS = ("~", ".swp", ".swx", ".tmp", ".bak", ".orig", ".part", "___jb_tmp___", "___jb_old___")


class Watch:
    """Begins at once.

    Arguments:
        own: the program's modules and files.
        root: gives the site's folder, which may be another after a reload.
        broken: whether the last load failed: then any source of the program may mend it, not only what is loaded.
        ask: gets PROGRAM or SITE.
        seen: what `look` gave before the program was loaded.
        more: files that are part of it wherever they lie: native modules.
    """

    def __init__(
        self,
        own: Own,
        root: Callable[[], str | None],
        broken: Callable[[], bool],
        ask: Callable[[bytes], object],
        seen: tuple[States, States],
        more: Sequence[str] = (),
    ) -> None:
        self._own = own
        self._root = root
        self._broken = broken
        self._ask = ask
        self._more = more
        self._awake = asyncio.Event()
        self._sources, self._pages = seen
        self._task = asyncio.get_running_loop().create_task(self._run())

    def close(self) -> None:
        """End it."""
        self._task.cancel()

    async def _run(self) -> None:
        from ..files import Watch as Files

        while True:
            folders = self._folders()
            watching = None
            with contextlib.suppress(OSError):
                watching = Files(list(folders), lambda _: self._awake.set(), False, BURST)
            try:
                self._look()
                while watching is not None and not watching.closed and self._is_in_place(folders):
                    with contextlib.suppress(TimeoutError):
                        await asyncio.wait_for(self._awake.wait(), LOOK)
                    if self._awake.is_set():
                        self._awake.clear()
                        self._look()
                        if self._folders() != folders:
                            break
            finally:
                if watching is not None:
                    watching.close()
            await asyncio.sleep(PAUSE)

    def _is_in_place(self, folders: dict[str, tuple[int, int]]) -> bool:
        """Whether the program's folder and the site's are those that are watched. Cheap: it is asked all the time."""
        return all(folders.get(root) == _place(root) for root in (self._own.folder, self._root()) if root is not None)

    def _folders(self) -> dict[str, tuple[int, int]]:
        """What to watch, and which folder each name means now."""
        found: dict[str, tuple[int, int]] = {}
        roots = dict.fromkeys((self._own.folder, self._root()))
        paths = [path for root in roots if root is not None for path, _ in walk(root)]
        for path in (*(os.path.dirname(os.path.abspath(path)) for path in self._more), *paths):
            if path not in found:
                place = _place(path)
                if place is not None:
                    found[path] = place
                if len(found) >= MOST_FOLDERS:
                    return found
        return found

    def _look(self) -> None:
        """Compare, and ask."""
        sources, pages = look(self._own.folder, self._root(), self._more)
        before, self._sources = self._sources, sources
        pages_before, self._pages = self._pages, pages
        if any(before.get(path) != state for path, state in sources.items() if self._matters(path)) or any(
            path not in sources for path in before if self._matters(path)
        ):
            self._ask(PROGRAM)
        elif pages != pages_before:
            self._ask(SITE)

    def _matters(self, path: str) -> bool:
        """Whether a source is part of the program."""
        if self._broken() or path == self._own.entry or not path.endswith(".py"):
            return True
        return path in self._own.files() or path == os.path.join(self._own.folder, "main.py")


def look(folder: str, root: str | None, more: Sequence[str] = ()) -> tuple[States, States]:
    """The sources and templates of a program's folder, and the files of its site, as they are now."""
    sources = {
        path: state
        for path, state in _states(folder)
        if path.endswith(".py") or (f"{os.sep}{TEMPLATES}{os.sep}" in path and not _is_below(path, root))
    }
    for path in more:
        with contextlib.suppress(OSError):
            sources[path] = _state(path)
    return sources, {} if root is None else dict(_states(root))


def _states(folder: str) -> Iterator[tuple[str, State]]:
    for path, names in walk(folder):
        for name in names:
            if not is_temporary(name):
                with contextlib.suppress(OSError):
                    file = os.path.join(path, name)
                    yield file, _state(file)


def _place(folder: str) -> tuple[int, int] | None:
    try:
        found = os.stat(folder)
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _state(path: str) -> State:
    found = os.stat(path)
    return found.st_mtime_ns, found.st_size, found.st_ino


def _is_below(path: str, folder: str | None) -> bool:
    return folder is not None and path.startswith(os.path.join(folder, ""))


def is_temporary(name: str) -> bool:
    """Whether an editor or a tool leaves files of this name for a moment."""
    return name.startswith(TEMPORARY_STARTS) or name.endswith(TEMPORARY_ENDS)

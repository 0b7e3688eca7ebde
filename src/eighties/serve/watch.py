"""Watch: with `--reload`, looks at the files of a program and its site, and asks for a reload when one has changed.

Runs in the first worker; the parent tells all. What the kernel reports only wakes it: whether to reload is decided by
comparing what the files are with what they were, so that nothing is missed while folders come, go or are replaced.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections import deque
from itertools import islice
from typing import TYPE_CHECKING, NamedTuple

from . import logs
from .frames import PROGRAM, SITE
from .fresh import is_foreign

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from ..files import FileEvent
    from .fresh import Own

    State = tuple[int, int, int]
    States = dict[str, State]
    Place = tuple[int, int]

# Milliseconds without a further change after which a burst of saves is over. What an editor does to save a file takes
# about one; more would be felt.
BURST = 20
# Seconds between looks that nothing has asked for: a folder that was moved away and replaced is not always reported.
LOOK = 0.5
# Seconds before folders are watched anew, so that many new ones are one change.
PAUSE = 0.05
# Looks, one each LOOK, while folders cannot be watched (the system's watches are used up), before that is tried again.
FIRST_LOOKS, MOST_LOOKS = 1, 128
# Seconds. Files that change twice within a tick of the kernel's clock, which is a hundredth at most, may look the same.
TICK = 0.012
# Looks, a TICK apart, at files that are not done: an editor that writes in place empties the file first.
LOOKS_UNTIL_DONE = 8
# Of a program's folder, and of a site's: what is beyond is not watched. Those that are nearest are looked at first.
MOST_FOLDERS = 4096
MOST_FILES = 100_000
# What is below folders of this name is part of the program, whatever it is: it is read when the program is.
TEMPLATES = "templates"
# What editors write beside the file that is being saved.
TEMPORARY_ENDS = ("~", ".swp", ".swx", ".tmp", ".bak", ".orig", ".part", "___jb_tmp___", "___jb_old___")


class Seen(NamedTuple):
    """What a look has found.

    Attributes:
        sources: of the program's folder: Python files, templates, native modules.
        distant: files of the program's modules that are none of these: they lie elsewhere.
        pages: all below the site's folder.
        folders: all there are, and which folder each name means now.
        targets: what the program's links to files lead to.
        cut: there was more than is looked at.
    """

    sources: States
    distant: States
    pages: States
    folders: dict[str, Place]
    targets: frozenset[str]
    cut: bool


NOTHING = Seen({}, {}, {}, {}, frozenset(), False)


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
        seen: Seen,
        more: Sequence[str] = (),
    ) -> None:
        self._own = own
        self._root = root
        self._broken = broken
        self._ask = ask
        self._more = more
        self._awake = asyncio.Event()
        self._seen = seen
        self._told = False
        self._task = asyncio.get_running_loop().create_task(self._run())

    def close(self) -> None:
        """End it."""
        self._task.cancel()

    async def _run(self) -> None:
        looks = FIRST_LOOKS
        while True:
            if await self._watch(self._find().folders):
                looks = FIRST_LOOKS
                await asyncio.sleep(PAUSE)
                continue
            for _ in range(looks):
                await asyncio.sleep(LOOK)
                await self._look()
            looks = min(looks * 2, MOST_LOOKS)

    async def _watch(self, folders: dict[str, Place]) -> bool:
        """Until the folders are others. False: they cannot be watched, which the log tells."""
        from ..files import Watch as Files

        watching = Files(list(folders), self._hear, False, BURST)
        try:
            await asyncio.sleep(0)  # on Python 3.11 it begins now
            await self._look()
            while not watching.closed and self._is_in_place(folders):
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._awake.wait(), LOOK)
                if self._awake.is_set():
                    self._awake.clear()
                    await self._look()
                    if self._seen.folders != folders:
                        break
            return not watching.closed
        finally:
            watching.close()

    def _hear(self, events: list[FileEvent]) -> None:
        """The kernel's report. Programs write logs and databases beside their code, and each look costs."""
        if any(self._may_matter(event) for event in events):
            self._awake.set()

    def _may_matter(self, event: FileEvent) -> bool:
        path, seen, root = event.name, self._seen, self._root()
        if path in seen.sources or path in seen.pages or path in seen.folders or path in seen.targets:
            return True
        name = os.path.basename(path)
        if is_temporary(name) or name == "__pycache__":
            return False
        return event.dir or is_source(path) or path in self._natives() or _is_below(path, root)

    def _natives(self) -> list[str]:
        return [os.path.abspath(path) for path in self._more]

    def _is_in_place(self, folders: dict[str, Place]) -> bool:
        """Whether the program's folder and the site's are those that are watched. Cheap: it is asked all the time."""
        return all(folders.get(root) == _place(root) for root in (self._own.folder, self._root()) if root is not None)

    def _find(self) -> Seen:
        return look(self._own.folder, self._root(), self._more, self._own.files())

    async def _look(self) -> None:
        """Compare, and ask."""
        for _ in range(LOOKS_UNTIL_DONE):
            found, before = self._find(), self._seen
            pages = _changes(before.pages, found.pages)
            distant = _changes(before.distant, found.distant) & before.distant.keys()  # others are new to us
            sources = _changes(before.sources, found.sources) | distant
            states = found.sources | found.distant | found.pages
            if not any(_is_unsettled(states[path]) for path in sources | pages if path in states):
                break
            await asyncio.sleep(TICK)
        self._seen = found
        if any(map(self._part(), sources)):
            self._ask(PROGRAM)
        elif pages:
            self._ask(SITE)
        if found.cut and not self._told:
            self._told = True
            most = f"{MOST_FOLDERS} folders or {MOST_FILES} files"
            logs.log("warning", f"--reload: there are more than {most}: of what lies deepest only modules are watched")

    def _part(self) -> Callable[[str], bool]:
        """Tells whether a source is part of the program."""
        if self._broken():
            return lambda path: True
        files = self._own.files() | {self._own.entry, os.path.join(self._own.folder, "main.py")}
        return lambda path: path in files or not path.endswith(".py")


def look(folder: str, root: str | None, more: Sequence[str] = (), loaded: Iterable[str] = ()) -> Seen:
    """What there is now.

    Arguments:
        folder: the program's.    root: its site's.    more: its native modules.
        loaded: the files of its modules.
    """
    sources: States = {}
    distant: States = {}
    pages: States = {}
    folders: dict[str, Place] = {}
    links: set[str] = set()
    program, site = Walk(folder, is_foreign), Walk(root, is_hidden)
    for path, entries in program:
        _add_folder(folders, path)
        templates = _has_templates(path) and not _is_below(path, root)
        for entry in entries:
            if templates or entry.name.endswith(".py"):
                _add(sources, entry.path)
                if entry.is_symlink():
                    links.add(entry.path)
    for path, entries in site:
        _add_folder(folders, path)
        for entry in entries:
            _add(pages, entry.path)
    for path in map(os.path.abspath, more):
        _add(sources, path)
        _add_folder(folders, os.path.dirname(path))
    for path in set(loaded) - sources.keys():
        _add(distant, path)
        links.add(path)
    targets = frozenset(map(os.path.realpath, links))
    for path in targets:
        _add_folder(folders, os.path.dirname(path))
    return Seen(sources, distant, pages, folders, targets, program.cut or site.cut)


class Walk:
    """The folders from one down, the nearest first, each with what else is in it. Links to folders are not followed.

    What cannot be read is left out. `cut`: there was more than is looked at.
    """

    def __init__(self, folder: str | None, is_ignored: Callable[[str], bool]) -> None:
        self.folder = folder
        self.cut = False
        self._is_ignored = is_ignored

    def __iter__(self) -> Iterator[tuple[str, list[os.DirEntry[str]]]]:
        waiting = deque([] if self.folder is None else [self.folder])
        folders = files = 0
        while waiting and not self.cut:
            path = waiting.popleft()
            try:
                with os.scandir(path) as entries:
                    found = list(islice(entries, MOST_FILES - files + 1))
            except OSError:
                continue
            if path != self.folder and any(entry.name == "pyvenv.cfg" for entry in found):
                continue
            folders += 1
            files += len(found)
            self.cut = folders > MOST_FOLDERS or files > MOST_FILES
            waiting.extend(sorted(entry.path for entry in found if self._enters(entry)))
            yield path, [entry for entry in found if not (_is_folder(entry) or is_temporary(entry.name))]

    def _enters(self, entry: os.DirEntry[str]) -> bool:
        return _is_folder(entry) and not self._is_ignored(entry.name)


def _is_folder(entry: os.DirEntry[str]) -> bool:
    return entry.is_dir(follow_symlinks=False)


def _changes(before: States, now: States) -> set[str]:
    return {path for path in before.keys() | now.keys() if before.get(path) != now.get(path)}


def _add(states: States, path: str) -> None:
    with contextlib.suppress(OSError):
        found = os.stat(path)
        states[path] = found.st_mtime_ns, found.st_size, found.st_ino


def _add_folder(folders: dict[str, Place], path: str) -> None:
    place = _place(path) if path not in folders else None
    if place is not None:
        folders[path] = place


def _place(folder: str) -> Place | None:
    try:
        found = os.stat(folder)
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _is_unsettled(state: State) -> bool:
    """Whether a file is being written, or may change once more without looking different."""
    changed, size, _ = state
    return 0 <= time.time_ns() - changed < (TICK if size else TICK * LOOKS_UNTIL_DONE) * 1e9


def _is_below(path: str, folder: str | None) -> bool:
    return folder is not None and path.startswith(os.path.join(folder, ""))


def is_source(path: str) -> bool:
    """Whether a file may be part of a program."""
    return path.endswith(".py") or _has_templates(os.path.dirname(path))


def _has_templates(folder: str) -> bool:
    return TEMPLATES in folder.split(os.sep)


def is_hidden(name: str) -> bool:
    """Whether a folder of this name is none of a site's."""
    return name == "__pycache__" or (name.startswith(".") and name != ".well-known")


def is_temporary(name: str) -> bool:
    """Whether an editor or a tool leaves files of this name for a moment."""
    return name.startswith(".") or name == "4913" or name[:1] == name[-1:] == "#" or name.endswith(TEMPORARY_ENDS)

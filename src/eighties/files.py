"""Files: watching them, and the three calls of `net` that look at folders and files.

`watch` is one task and one thread of watchfiles per call, on the loop that runs when it is called; the set `_watches`
holds them until they end. The other calls keep no state and block, as any file access does.
"""

from __future__ import annotations

import asyncio
import logging
import os
import sys
import time
from collections.abc import Callable, Generator, Iterable
from typing import Any, NamedTuple

TYPE_CHECKING = False
if TYPE_CHECKING:
    from watchfiles import Change

Path = str | os.PathLike[str]

ADDED, MODIFIED, DELETED = 1, 2, 3
"""watchfiles' numbers for kinds of changes: the module is imported when something is watched, not before."""


class FileEvent(NamedTuple):
    """One change of one file or folder (the ancestor's inotify event)."""

    name: str
    """Its path, beginning with the target that was given."""
    create: bool
    modify: bool
    delete: bool
    dir: bool
    """Whether it is a folder; False for what is deleted, as nobody can look any more."""
    clock: float
    """When it was noticed, in seconds of `net.clock()`."""


SHOWN = 5
"""Of the targets of a watch, in a line of the log."""

OnChange = Callable[[list[FileEvent]], object]

_watches: set[Watch] = set()
_logger = logging.getLogger("eighties")


class Watch:
    """What `watch` returns. `close()` ends it, `await` waits for its end."""

    def __init__(self, targets: list[str], on_change: OnChange, recursive: bool, quiet: int = 50) -> None:
        """As `watch`; `quiet`: milliseconds without a change after which those before are told."""
        import watchfiles  # noqa: F401 here, for it takes a moment, in which changes would be missed

        loop = asyncio.get_running_loop()
        self._stop = asyncio.Event()
        self._on_change = on_change
        _watches.add(self)
        work = self._run(targets, recursive, quiet)
        if sys.version_info >= (3, 12):  # at once, so that nothing changes unseen between now and the loop's next turn
            self._task = asyncio.Task(work, loop=loop, eager_start=True)
        else:
            self._task = loop.create_task(work)

    @property
    def closed(self) -> bool:
        """Whether no event comes any more."""
        return self._stop.is_set() or self._task.done()

    def close(self) -> None:
        """End it: `on_change` is called no more. May be called from within `on_change`, and again."""
        self._stop.set()

    def __await__(self) -> Generator[Any, None, None]:
        return asyncio.shield(self._task).__await__()

    async def _run(self, targets: list[str], recursive: bool, quiet: int) -> None:
        from watchfiles import awatch

        chatter = logging.getLogger("watchfiles.main")
        if chatter.level == logging.NOTSET:  # a line for each change, and a log in a watched folder would feed itself
            chatter.setLevel(logging.WARNING)
        try:
            found = awatch(*targets, recursive=recursive, watch_filter=None, stop_event=self._stop, step=quiet)
            async for changes in found:
                if self._stop.is_set():
                    return
                await self._tell(_events(changes))
        except OSError as error:
            shown = ", ".join(targets[:SHOWN]) + (f" and {len(targets) - SHOWN} more" if len(targets) > SHOWN else "")
            _logger.error("watching %s ended: %s", shown, error, exc_info=error)
        finally:
            self._stop.set()
            _watches.discard(self)

    async def _tell(self, events: list[FileEvent]) -> None:
        try:
            result = self._on_change(events)
            if hasattr(result, "__await__"):
                await result
        except Exception as error:  # noqa: BLE001 a program's mistake must not blind it
            _logger.error("on_change of a watch failed", exc_info=error)


def watch(targets: Path | Iterable[Path], on_change: OnChange, recursive: bool = True) -> Watch:
    """Call `on_change(events)` when files change (the ancestor's `aio:watch`).

    It begins at once, on Python 3.11 in the loop's next turn. Changes that follow each other within 50 ms come
    together, ordered by name. Nothing is left out: editors' temporary files are reported too. An exception in
    `on_change` is logged, and watching goes on.

    Arguments:
        targets: files and folders, or one of them. Adding a folder of very many files takes a moment, and blocks.
        on_change: sync or async; while an async one runs, further changes are gathered.
        recursive: folders below the targets, too.
    Raises:
        FileNotFoundError: a target does not exist.
        RuntimeError: no loop is running.
    """
    if isinstance(targets, (str, os.PathLike)):
        targets = [targets]
    paths = [os.fspath(target) for target in targets]
    for path in paths:
        os.stat(path)
    return Watch(paths, on_change, recursive)


def _events(changes: set[tuple[Change, str]]) -> list[FileEvent]:
    now = time.monotonic()
    return [
        FileEvent(name, kind == ADDED, kind == MODIFIED, kind == DELETED, kind != DELETED and os.path.isdir(name), now)
        for kind, name in sorted(changes, key=lambda change: (change[1], change[0]))
    ]


def listdir(path: Path) -> list[str]:
    """The names in a folder, sorted; those of folders end with `/` (the ancestor's `net.listdir`). Blocks.

    Raises:
        OSError: there is no such folder, or it may not be read.
    """
    with os.scandir(path) as entries:
        return sorted(entry.name + "/" if entry.is_dir() else entry.name for entry in entries)


def readfile(path: Path) -> bytes:
    """A whole file (the ancestor's `net.readfile`). Blocks the worker meanwhile: for small, local files.

    Raises:
        OSError: there is no such file, or it may not be read.
    """
    with open(path, "rb") as file:
        return file.read()


def mkdir(path: Path, mode: int = 0o777) -> bool:
    """Make a folder (the ancestor's `net.mkdir`). True when it exists afterwards, False when a file has its name.

    Raises:
        OSError: it cannot be made: no parent folder, no permission.
    """
    try:
        os.mkdir(path, mode)
    except FileExistsError:
        return os.path.isdir(path)
    return True

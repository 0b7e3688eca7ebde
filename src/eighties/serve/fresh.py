"""Fresh: a program's own modules, taken out of `sys.modules` so that they are executed again, or put back as they were.

Own is what lies under the program's folder: the entry and what it imports from there, nothing that is installed. The
worker makes one `Own` for its process and opens a `Change` on it for each load. State: the finder in `sys.meta_path`,
and `_executed`.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import sys
import time
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from types import ModuleType

    from ..app import App

_OURS = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
# Folders of environments, of packages and of tools: what lies in them is no program's own.
FOREIGN = frozenset(("site-packages", "dist-packages", "__pycache__", "node_modules", "venv"))
# Seconds. Byte code is told from its source by the source's second and size. A file saved within the last two may be
# saved again within the same second, and must neither be taken from a cache nor be cached.
SETTLED = 2.0

# The files of the modules that FreshLoader has executed, by their names: a module may put what it likes in its place.
_executed: dict[str, str] = {}


class FreshLoader(SourceFileLoader):
    """Loads source as Python does, without byte code where that could be another version's."""

    def path_stats(self, path: str) -> Mapping[str, Any]:
        """As the base class. Raises OSError, which means no byte code, for what has just been saved."""
        found = super().path_stats(path)
        if abs(time.time() - found["mtime"]) < SETTLED:
            raise OSError("just saved")
        return found

    def exec_module(self, module: ModuleType) -> None:
        """As the base class."""
        _executed[self.name] = os.path.abspath(self.path)
        super().exec_module(module)


class Own:
    """Tells a program's own modules and files from all others.

    Arguments:
        folder: the program's; everything below it is own, but for what is installed there.
        entry: its first file, which is own wherever it lies.
    """

    def __init__(self, folder: str, entry: str | None = None) -> None:
        self.folder = os.path.abspath(folder)
        self.entry = entry
        # The current folder of the process, in which the program is loaded the first time, and again.
        self.current = _go_to(None)
        self._starts = {_start(folder), _start(os.path.realpath(folder))}
        foreign = {_OURS, os.path.dirname(os.__file__)}  # packages are told by the names of their folders
        starts = {_start(path) for each in foreign for path in (each, os.path.realpath(each))}
        # A program may itself be installed.
        self._foreign = {each for each in starts if not any(start.startswith(each) for start in self._starts)}

    def has(self, path: str) -> bool:
        """Whether a file is the program's."""
        if path == self.entry:
            return True
        start = next((start for start in self._starts if path.startswith(start)), None)
        if start is None or any(path.startswith(each) for each in self._foreign):
            return False
        return not any(is_foreign(name) for name in path[len(start) :].split(os.sep))

    def modules(self) -> dict[str, ModuleType]:
        """Its modules that are loaded, by name. A package without `__init__.py` counts; a shared object does not."""
        return {name: sys.modules[name] for name in self._paths()}

    def files(self) -> set[str]:
        """The source files of the modules that are loaded."""
        return {path for path in self._paths().values() if path.endswith(".py")}

    def _paths(self) -> dict[str, str]:
        """Where the modules lie that are loaded, by name."""
        found = {}
        for name, module in list(sys.modules.items()):
            path = _path_of(module) or _executed.get(name)
            if name != "__main__" and path is not None and self.has(path):
                found[name] = path
        return found

    # ---- as a finder of sys.meta_path ----

    def use(self) -> None:
        """Have imports of own modules made by FreshLoader, from now on."""
        finders: list[Any] = [each for each in sys.meta_path if not isinstance(each, Own)]
        # Where it looks itself: what is built in goes before a program's file of the same name.
        finders.insert(finders.index(PathFinder) if PathFinder in finders else 0, self)
        sys.meta_path[:] = finders

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """As importlib asks it."""
        if path is not None and not any(self.has(os.path.join(os.path.abspath(each), "x")) for each in path):
            return None
        spec = PathFinder.find_spec(name, path, target)
        if (
            spec is None
            or type(spec.loader) is not SourceFileLoader
            or not self.has(os.path.abspath(spec.origin or ""))
        ):
            return None
        spec.loader = FreshLoader(spec.loader.name, spec.loader.path)
        return spec


def is_foreign(name: str) -> bool:
    """Whether a folder of this name holds nothing of a program: `.git`, `.venv`, `__pycache__`…"""
    return name.startswith(".") or name in FOREIGN


def _start(folder: str) -> str:
    return os.path.join(os.path.abspath(folder), "")


def _path_of(module: ModuleType | None) -> str | None:
    """The file of a module that can be executed again, or the folder of one that is only a folder."""
    try:
        names = getattr(module, "__dict__", {})  # no getattr: a lazy module would import what it stands for
        path = names.get("__file__")
        if path is None:
            path = next((each for each in names.get("__path__") or () if os.path.isdir(each)), None)
        elif not isinstance(path, str) or not path.endswith((".py", ".pyc")):
            return None
    except Exception:  # noqa: BLE001 anything may stand in sys.modules, and folders look for their parents there
        return None
    return None if path is None else os.path.abspath(path)


class Change:
    """Own modules are out, and so is what they have registered with us; `put_back` undoes it, `close` forgets it."""

    def __init__(self, own: Own, path: Sequence[str]) -> None:
        """`path`: what `sys.path` was before the program was first loaded."""
        self.own = own
        self.old = own.modules()
        self._executed = dict(_executed)
        self._path = list(sys.path)
        self._current = _go_to(own.current)
        self._registered = _registered()
        self._key = _master_key()
        for name in self.old:
            del sys.modules[name]
        _executed.clear()
        sys.path[:] = path
        importlib.invalidate_caches()

    def put_back(self) -> None:
        """All as it was."""
        for name in self.own.modules():
            del sys.modules[name]
        sys.modules.update(self.old)
        for name, module in self.old.items():
            _hang(name, module)
        _executed.clear()
        _executed.update(self._executed)
        sys.path[:] = self._path
        _go_to(self._current)
        handlers = sys.modules.get("eighties.handlers")
        if handlers is not None:
            handlers.put_back(self._registered)
        urls = sys.modules.get("eighties.urls")
        if urls is not None:
            urls.set_master_key(self._key)
        self.close()

    def close(self) -> None:
        """Let go of the old modules."""
        self.old = {}
        self._registered = None


def _go_to(folder: str | None) -> str | None:
    """Change the current folder where that can be done; None: stay. Returns the one before; None: it is gone."""
    try:
        before = os.getcwd()
    except OSError:
        before = None
    if folder is not None and folder != before:
        with contextlib.suppress(OSError):
            os.chdir(folder)
    return before


def _registered() -> tuple[App, dict[str, Any]] | None:
    handlers = sys.modules.get("eighties.handlers")
    found: tuple[App, dict[str, Any]] | None = None if handlers is None else handlers.take()
    return found


def _master_key() -> Any:
    urls = sys.modules.get("eighties.urls")
    return None if urls is None else urls.master_key()


def _hang(name: str, module: ModuleType) -> None:
    """A submodule is an attribute of its package, which may be none of ours and know a new one by now."""
    parent, dot, last = name.rpartition(".")
    if dot and parent in sys.modules:
        setattr(sys.modules[parent], last, module)

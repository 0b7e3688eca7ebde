"""Modules: the user's native modules (`-m a.so,b.so`), loaded, reloaded with the program, and unloaded.

A worker makes one `Modules` with `load`, before it listens, and owns it. What a module may do is in
`include/eighties.h`; calling it is the engine's `NativeModule`. A module is never opened where it lies but as a copy:
the same path would give the old code again, and a file that is written anew must not change code that runs.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
import sys
from collections.abc import Sequence
from types import ModuleType
from typing import TYPE_CHECKING

from .. import post
from . import logs
from .loader import LoadError, Program

if TYPE_CHECKING:
    from .._engine import Engine, NativeModule
    from .settings import Settings

    State = tuple[int, int, int, int]

LEVELS = ("debug", "info", "warning", "error")


def load(settings: Settings, engine: Engine, program: Program, listeners: Sequence[int]) -> Modules:
    """Load what `settings` name. `listeners`: the worker's listening sockets. Raises LoadError."""
    modules = Modules(settings, engine, port_of(listeners))
    if settings.modules:
        modules.load(context_of(program))
    return modules


def port_of(listeners: Sequence[int]) -> int:
    """The port of the first socket that has one; 0: none has."""
    for fd in listeners:
        with socket.socket(fileno=os.dup(fd)) as listener:
            name = listener.getsockname()
            if isinstance(name, tuple):
                return int(name[1])
    return 0


def context_of(program: Program) -> object:
    """The `ctx` of a program: its module. A site without a main.py has none, and gets one with the same names."""
    module = sys.modules.get(str(program.names.get("__name__")))
    if module is not None and vars(module) is program.names:
        return module
    stand_in = ModuleType("main")
    vars(stand_in).update(program.names)
    return stand_in


class Module:
    """One of them: its file as it was when it was copied, and that copy, opened."""

    __slots__ = ("native", "path", "state")

    def __init__(self, path: str, state: State, native: NativeModule) -> None:
        self.path = path
        self.state = state
        self.native = native

    def load(self, ctx: object, reload: bool) -> None:
        """Call on_load. Raises LoadError."""
        try:
            code = self.native.load(ctx, reload)
        except Exception as error:
            message = f"{name_of(self.path)}: on_load failed: {type(error).__name__}: {error}"
            raise LoadError(message, logs.traceback_of(error)) from None
        if code:
            raise LoadError(f"{name_of(self.path)}: on_load failed: it returned {code}")

    def unload(self, reload: bool) -> bool:
        """Call on_unload. Whether nothing uses the code any more."""
        try:
            return self.native.unload(reload) == 0
        except Exception as error:
            message = f"{name_of(self.path)}: on_unload failed: {type(error).__name__}: {error}"
            logs.log("error", message, traceback=logs.traceback_of(error))
            return False


class Modules:
    """The native modules of a worker, in the order of the command line."""

    def __init__(self, settings: Settings, engine: Engine, port: int) -> None:
        self._settings = settings
        self._engine = engine
        self._port = port
        self._modules: list[Module] = []
        self._ctx: object = None

    def load(self, ctx: object) -> None:
        """Load all of them, or none. Raises LoadError."""
        paths = self._settings.modules.split(",") if self._settings.modules else []
        opened = self._open([(path, None) for path in paths])
        self._load_all(opened, ctx, reload=False)
        self._modules, self._ctx = opened, ctx

    def reload(self, program: Program) -> None:
        """Load them again, for another program; those whose files have changed from their files.

        Raises:
            LoadError: one could not be loaded. Those that were there are loaded again, for the program they had.
        """
        if not self._modules:
            return
        busy = [module.path for module in self._modules if module.native.busy]
        if busy:
            raise LoadError(f"{name_of(busy[0])}: a reload cannot be asked for from within a call into it: ask later")
        old, ctx = self._modules, context_of(program)
        opened = self._open([(module.path, module) for module in old])
        unused = [module for module in reversed(old) if module.native.loaded and module.unload(reload=True)]
        try:
            self._load_all(opened, ctx, reload=True)
        except LoadError:
            self._go_back(old)
            raise
        self._modules, self._ctx = opened, ctx
        for module in old:
            if module in unused and module not in opened:
                module.native.close()

    def unload(self) -> None:
        """The worker ends. The code stays in memory: the program may have functions of it until the very end."""
        for module in reversed(self._modules):
            if module.native.loaded:
                module.unload(reload=False)
        self._modules, self._ctx = [], None

    def _open(self, wanted: Sequence[tuple[str, Module | None]]) -> list[Module]:
        """A module for each path: the one there is, if its file has not changed. Raises LoadError."""
        opened: list[Module] = []
        try:
            for path, known in wanted:
                opened.append(self._open_one(path, known))
        except LoadError:
            for module in opened:
                if all(module is not known for _, known in wanted):
                    module.native.close()
            raise
        return opened

    def _open_one(self, path: str, known: Module | None) -> Module:
        from .._engine import NativeModule

        try:
            with open(path, "rb") as file:
                state = state_of(file.fileno())
                if known is not None and known.state == state:
                    return known
                content = file.read()
        except OSError as error:
            raise LoadError(f"{name_of(path)}: it cannot be read: {error.strerror}") from None
        if not is_whole(content):
            raise LoadError(f"{name_of(path)}: the file ends too early: is it still being written?")
        copy = copy_of(path, content)
        try:
            native = NativeModule(
                self._engine,
                copy,
                name=path,
                node=self._settings.node,
                workers=self._settings.workers,
                port=self._port,
                mail=mail,
                log=lambda level, text: log(path, level, text),
            )
        except (ImportError, ValueError) as error:
            raise LoadError(f"{name_of(path)}: {str(error).replace(copy, path)}") from None
        finally:
            os.unlink(copy)  # it is mapped, and nobody opens it again
        return Module(path, state, native)

    def _load_all(self, modules: Sequence[Module], ctx: object, reload: bool) -> None:
        """Load all of them, or none. Raises LoadError."""
        for index, module in enumerate(modules):
            try:
                module.load(ctx, reload)
            except LoadError:
                for loaded in reversed(modules[:index]):
                    loaded.unload(reload)
                raise

    def _go_back(self, old: Sequence[Module]) -> None:
        """After a reload that has failed: what was there is loaded again. What fails now is out until the next one."""
        for module in old:
            try:
                module.load(self._ctx, reload=True)
            except LoadError as error:
                logs.log("error", str(error), traceback=error.traceback)


def name_of(path: str) -> str:
    """How messages call a module."""
    return f"native module {path}"


def state_of(fd: int) -> State:
    """By what a changed file is told."""
    found = os.fstat(fd)
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns


def copy_of(path: str, content: bytes) -> str:
    """A new file with the content. Raises LoadError."""
    import tempfile  # large, and most servers have no native modules

    try:
        fd, copy = tempfile.mkstemp(suffix=".so", prefix=os.path.basename(path).partition(".")[0] + "-")
        with open(fd, "wb") as file:
            file.write(content)
    except OSError as error:
        where = error.filename or tempfile.gettempdir()
        raise LoadError(f"{name_of(path)}: its copy cannot be written to {where}: {error.strerror}") from None
    return copy


def is_whole(content: bytes) -> bool:
    """Whether a 64-bit ELF file has its section headers, which linkers write last: mapping less could kill the process.

    What is no such file is for dlopen to judge.
    """
    little = content[5:6] == b"\1"
    if content[:5] != b"\x7fELF\2" or len(content) < 64:
        return True
    order = "<" if little else ">"
    (offset,) = struct.unpack_from(order + "Q", content, 40)
    size, count = struct.unpack_from(order + "HH", content, 58)
    return bool(offset + size * count <= len(content))


# ---- functions of the table that Python does: 0, or a negative errno ----


def mail(worker: int, message: bytes) -> int:
    """`mail` of eighties.h; worker -1: all."""
    here = post.here()
    if len(message) > post.MAIL_BYTES:
        return -errno.EMSGSIZE
    if not -1 <= worker < here.workers:
        return -errno.ESRCH
    return 0 if here.mail(None if worker == -1 else worker, message) else -errno.EAGAIN


def log(path: str, level: bytes, text: bytes) -> int:
    """`log` of eighties.h."""
    name = level.decode("ascii", "replace")
    if name not in LEVELS:
        return -errno.EINVAL
    logs.log(name, text.decode("utf-8", "replace"), module=path)
    return 0

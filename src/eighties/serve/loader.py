"""Loader: from what the user named, a `.py` file, `module:attr` or a folder, to the program in it: an App, hooks, both.

`locate` is cheap and runs in the parent, so that a wrong name ends the server before anything is started; `load`
runs the program, in a worker (or for `--cfg` and `--cli` in the command itself). It holds no state of its own.
"""

from __future__ import annotations

import os
import sys

from . import logs

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from types import ModuleType
    from typing import Any

    from ..app import App
    from ..pages.site import Site

    Hook = Callable[..., object]

# Looked for in this order when no ENTRY is given.
USUAL = ("app.py", "public_html", "main.py")
# The folder of pages and files, and the program beside it that is executed first.
ROOT = "public_html"
MAIN = "main.py"
# Functions of the entry module that the server calls where they are there.
HOOKS = ("on_data", "on_close", "on_write", "on_init", "on_accept", "on_message")


class EntryError(Exception):
    """There is no such program; the message says what was looked for."""


class LoadError(Exception):
    """The program cannot be loaded. `traceback` is the user's own, if there is one worth showing."""

    def __init__(self, message: str, traceback: str | None = None) -> None:
        super().__init__(message)
        self.traceback = traceback


class Entry:
    """Where a program is: `path` of a file, or `module` and `attribute`; `how` says how it was found.

    `root` is the folder of its pages and files, if it has one; with a root there may be no program at all.
    """

    __slots__ = ("attribute", "how", "module", "name", "path", "root")

    def __init__(self, name: str, how: str) -> None:
        self.name = name
        self.how = how
        self.path: str | None = None
        self.module = ""
        self.attribute = ""
        self.root: str | None = None


def locate(name: str | None, public_html: str | None = None) -> Entry:
    """The program that `name` means, or the usual one in the current folder. Raises EntryError.

    `public_html` is the folder of its pages, or the one above: where `name` is no folder itself.
    """
    if name is None and public_html is not None:
        return _locate_folder(Entry(public_html, f"no program was named; {ROOT} was"))
    if name is None:
        return _locate_usual()
    entry = Entry(name, "")
    if os.path.isdir(name):
        return _locate_folder(entry)
    _locate_program(entry)
    if public_html is not None:
        entry.root = _root_in(public_html)
    return entry


def _locate_usual() -> Entry:
    how = "no program was named; {} was found in the current folder"
    for usual in USUAL:
        if usual == ROOT and os.path.isdir(ROOT):
            return _locate_folder(Entry(".", how.format(ROOT)))
        if usual != ROOT and os.path.isfile(usual):
            return _locate_file(Entry(usual, how.format(usual)))
    raise EntryError(
        f"no program was named, and the current folder has no {' and no '.join(USUAL)}: try 80s FILE.py or 80s FOLDER"
    )


def _locate_folder(entry: Entry) -> Entry:
    entry.root = _root_in(entry.name)
    main = os.path.join(os.path.dirname(entry.root), MAIN)
    entry.path = main if os.path.isfile(main) else None
    return entry


def _root_in(folder: str) -> str:
    """The folder of pages that is meant by itself or by the one above it. Raises EntryError."""
    path = os.path.abspath(folder)
    if os.path.isdir(os.path.join(path, ROOT)):
        return os.path.join(path, ROOT)
    if os.path.basename(path) == ROOT and os.path.isdir(path):
        return path
    what = f"has no folder {ROOT}, where the pages and files of a site are" if os.path.isdir(path) else "is no folder"
    raise EntryError(f"{folder} {what}")


def _locate_program(entry: Entry) -> Entry:
    name = entry.name
    if name.endswith(".py"):
        return _locate_file(entry)
    entry.module, colon, entry.attribute = name.partition(":")
    if not colon or not all(part.isidentifier() for part in f"{entry.module}.{entry.attribute}".split(".")):
        if os.path.exists(name):
            raise EntryError(f"{name} is not a Python file: a program is FILE.py, module:attr or a folder")
        raise EntryError(f"{name} is neither a .py file, nor module:attr, nor a folder")
    return entry


def _locate_file(entry: Entry) -> Entry:
    entry.path = os.path.abspath(entry.name)
    if not os.path.isfile(entry.path):
        raise EntryError(f"there is no file {entry.name}")
    return entry


class Program:
    """What is served. `hooks`: the module's, by name. `raw`: its own bytes are spoken, and `app` is an empty one.

    `names`: all of the module's; the pages of its `site`, which the worker makes, have them as their globals.
    """

    __slots__ = ("app", "hooks", "names", "raw", "site")

    def __init__(self, app: App, hooks: dict[str, Hook], names: dict[str, Any], raw: bool) -> None:
        self.app = app
        self.hooks = hooks
        self.names = names
        self.site: Site | None = None
        self.raw = raw


def load(entry: Entry) -> Program:
    """Run the program and return what is to be served. Raises LoadError."""
    from ..app import App

    if not entry.module:
        path = entry.path
        module = _no_module(entry) if path is None else _run(entry, lambda: _import_file(path))
        return _program(_app_in(module, entry.name), module, entry)
    sys.path.insert(0, os.getcwd())
    module = _run(entry, lambda: _import_module(entry.module))
    found: object = module
    for part in entry.attribute.split("."):
        try:
            found = getattr(found, part)
        except AttributeError:
            raise LoadError(f"{entry.name}: there is no {part!r} in {entry.module}") from None
    if not isinstance(found, App):
        raise LoadError(f"{entry.name} is not an App but {_kind(found)}")
    return _program(found, module, entry)


def _no_module(entry: Entry) -> ModuleType:
    """A site without a main.py: its pages may import what lies beside it."""
    from types import ModuleType

    sys.path.insert(0, os.path.dirname(str(entry.root)))
    return ModuleType("main")


def _program(app: App | None, module: ModuleType, entry: Entry) -> Program:
    """The App, what the rooms for 80s-like programs have registered, and the hooks, put together. Raises LoadError."""
    from ..app import App

    name = entry.name
    hooks = _hooks_in(module, name)
    # Only a program that uses it has imported it. What is registered there counts as an App.
    handlers = sys.modules.get("eighties.handlers")
    if handlers is not None and (handlers.has_routes() or handlers.has_protocols()):
        if app is None:
            app = handlers.program
        elif handlers.program not in app._apps():
            try:
                app.mount("/", handlers.program)
            except ValueError as error:
                raise LoadError(f"{name} cannot be loaded: {error}") from None
    if app is None and entry.root is not None:
        app = App()
    if app is not None:
        return Program(app, hooks, vars(module), raw=False)
    if "on_data" in hooks:
        return Program(App(), hooks, vars(module), raw=True)
    found = getattr(module, "app", None)
    what = f"; its `app` is {_kind(found)}" if found is not None else ""
    hint = ", or a function `on_data` if it speaks bytes"
    raise LoadError(f"{name} has no App: it needs a line such as `app = App()`{hint}{what}")


def _hooks_in(module: ModuleType, name: str) -> dict[str, Hook]:
    """The hooks that the module has. Raises LoadError for one that cannot be called as a plain function."""
    found = {hook: vars(module)[hook] for hook in HOOKS if hook in vars(module)}
    for hook, value in found.items():
        if not callable(value):
            raise LoadError(f"{name}: {hook} must be a function, as the server calls it, but is {_kind(value)}")
        if kind := _async_kind(value):
            raise LoadError(
                f"{name}: {hook} must be a plain function but is {kind}: start sequential code from it with "
                "aio.async_(...), or aio.cor(...) for a socket"
            )
    return found


def _async_kind(function: Any) -> str | None:
    """What calling it would only create, not run."""
    import inspect

    for each in (function, type(function).__call__):
        if inspect.iscoroutinefunction(each):
            return "async def"
        if inspect.isgeneratorfunction(each) or inspect.isasyncgenfunction(each):
            return "a generator"
    return None


def _run(entry: Entry, importing: Callable[[], ModuleType]) -> ModuleType:
    """Import the program; whatever goes wrong in it becomes a LoadError with one clear message."""
    try:
        return importing()
    except LoadError:
        raise
    except SyntaxError as error:
        raise LoadError(_describe_syntax(error)) from None
    except SystemExit as error:
        raise LoadError(f"{entry.name} ended itself with sys.exit({error.code!r}) while it was loaded") from None
    except Exception as error:
        message = f"{entry.name} cannot be loaded: {type(error).__name__}: {error}"
        raise LoadError(message, logs.traceback_of(error)) from None


def _import_file(path: str) -> ModuleType:
    """The file as a module with its own name, its folder first among those imports are looked for in."""
    import importlib.util

    sys.path.insert(0, os.path.dirname(path))
    name = os.path.basename(path)[: -len(".py")]
    if name in sys.modules or not name.isidentifier():
        # `http.py` or `my-app.py`: a file like that must not take the place of another module.
        name = "eighties_program"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise LoadError(f"{path} is not a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


def _import_module(name: str) -> ModuleType:
    import importlib

    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        # Missing itself, or missing something else: the latter deserves its traceback.
        if error.name is not None and f"{name}.".startswith(f"{error.name}."):
            raise LoadError(f"there is no module {error.name}, neither in {os.getcwd()} nor installed") from None
        raise


def _app_in(module: ModuleType, name: str) -> App | None:
    """The App called `app`, or else the only one in the module; None: there is none. Raises LoadError."""
    from ..app import App

    found = getattr(module, "app", None)
    if isinstance(found, App):
        return found
    apps = {key: value for key, value in vars(module).items() if isinstance(value, App)}
    if len({id(app) for app in apps.values()}) > 1:
        raise LoadError(f"{name} has several Apps ({', '.join(apps)}): call the one to be served `app`")
    return next(iter(apps.values()), None)


def _kind(value: object) -> str:
    kind = type(value).__name__
    return f"{'an' if kind[0].lower() in 'aeiou' else 'a'} {kind}"


def _describe_syntax(error: SyntaxError) -> str:
    """`file:line: what is wrong`, and the line."""
    where = f"{error.filename}:{error.lineno}: " if error.filename else ""
    line = f"\n    {error.text.strip()}" if error.text else ""
    return f"{where}{type(error).__name__}: {error.msg}{line}"

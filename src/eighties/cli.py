"""The command line: `80s`, and `python -m eighties`.

Reads the settings, finds the program, and hands both to the supervisor. What only a few calls need (help, `--cfg`,
`--cli`) is imported there: this module lives on in the parent process.
"""

from __future__ import annotations

import os
import sys

from .serve import logs
from .serve.loader import Entry, EntryError, LoadError, locate
from .serve.settings import (
    EXIT_CANNOT_START,
    EXIT_ERROR,
    LIMIT_OPTIONS,
    OPTIONS,
    Option,
    Settings,
    SettingsError,
    collect,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal
else:
    import _signal as signal

EXIT_USAGE = 2
EXIT_INTERRUPTED = 130

USAGE = """\
80s: a minimal, lock-less, hot-reloading web server for Python

usage: 80s [ENTRY] [OPTION...]
       80s reload --pidfile FILE   have the server that holds the file run its program again
       80s reload --full --pidfile FILE    the same in fresh worker processes
       80s upgrade --pidfile FILE  replace the server itself, the parent too, by what is installed now

ENTRY is a .py file with an App in it, module:attr, or a folder: its public_html is served, after its main.py has run.
Without one, app.py, public_html or main.py in the current folder is taken.
Each option can also be given as an environment variable: --max-body as EIGHTIES_MAX_BODY, ENTRY as EIGHTIES_ENTRY.
MASTER_KEY, a variable only, is the secret behind sessions and encrypted links.
What the command line says comes first, then the environment, then App(...).

options:
"""
MORE_USAGE = """\
  --include               print the folder of eighties.h, for building native modules, and end
  --version               print the version, and end
  --help                  print this, and end

limits of the server, each with its reason, unit, the status of its answer, and default:
"""
HELP_WIDTH = 26


def help_line(option: Option) -> str:
    """How to type the option, what it does, and its default."""
    flags = ", ".join(option.flags)
    typed = f"  {flags} {option.metavar}".rstrip()
    shown = "" if option.is_flag or option.default is None else f" [{readable(option.default)}]"
    if len(typed) >= HELP_WIDTH:
        typed += "\n" + " " * HELP_WIDTH
    return f"{typed:<{HELP_WIDTH}}{option.help}{shown}\n"


def help_text() -> str:
    """What `--help` prints."""
    own = "".join(map(help_line, OPTIONS))
    limits = "".join(map(help_line, LIMIT_OPTIONS))
    return f"{USAGE}{own}{MORE_USAGE}{limits}"


def version_text() -> str:
    """What `--version` prints."""
    from ._engine import BUILD, POLLER, VERSION

    return f"80s {VERSION} ({BUILD}; Python {'.'.join(map(str, sys.version_info[:3]))}, {POLLER})\n"


def cfg_text(settings: Settings, entry: Entry | None) -> str:
    """What `--cfg` prints: name, value, source."""
    how = settings.source("entry") if entry is None or not entry.how else entry.how
    rows = [("entry", entry.name if entry else "none", how)]
    for option in OPTIONS:
        name = option.name
        if name in ("cfg", "cli"):
            continue
        if name == "no_server_header":
            source = settings.source(name) if settings.source(name) != "default" else settings.source("server_header")
            rows.append(("server_header", settings.server_header or "none", source))
            continue
        rows.append((name, readable(getattr(settings, name)), settings.source(name)))
    rows += [(name, str(value), settings.source(name)) for name, value in settings.limits.items()]
    return "".join(f"{name:<20} {value:<24} {source}\n" for name, value, source in rows)


def readable(value: object) -> str:
    """A setting's value as a person writes it."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "none" if value is None else f"{value:g}" if isinstance(value, float) else str(value)


def print_cfg(settings: Settings) -> int:
    """`--cfg`. The program is loaded for what its App sets; having none is fine."""
    entry = None
    try:
        entry = locate(settings.entry, settings.public_html)
    except EntryError as error:
        if settings.entry is not None:
            return fail(str(error), EXIT_USAGE)
    if entry is not None:
        from .serve import worker

        try:
            worker.load_app(entry, settings)
        except LoadError as error:
            return worker.say_why(error)
    print(cfg_text(settings, entry), end="")
    return 0


def run_program(settings: Settings, entry: Entry) -> int:
    """`--cli`."""
    from .serve import worker

    try:
        return worker.run_once(entry, settings)
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED


def missing_module(modules: str) -> str | None:
    """What to say of native modules that are no files, before a socket is bound. What is in them, workers see."""
    for path in modules.split(","):
        if not os.path.isfile(path):
            return f"native module {path}: {'it is no file' if os.path.exists(path) else 'there is no such file'}"
    return None


def command(arguments: list[str]) -> int:
    """`80s reload`, `80s upgrade`: tell the running parent, which says in its log what came of it."""
    from .serve import pidfile

    name, *rest = arguments
    number = signal.SIGUSR1 if name == "upgrade" else signal.SIGHUP
    if name == "reload" and "--full" in rest:
        rest.remove("--full")
        number = signal.SIGUSR2
    settings = collect(rest, os.environ)
    if settings.pidfile is None:
        return fail(f"80s {name} needs --pidfile FILE, as the server was given it", EXIT_USAGE)
    try:
        pid = pidfile.tell(settings.pidfile, number)
    except pidfile.PidFileError as error:
        return fail(str(error), EXIT_ERROR)
    what = {signal.SIGHUP: "reload", signal.SIGUSR2: "reload with fresh processes", signal.SIGUSR1: "upgrade"}[number]
    print(f"told process {pid} to {what}; its log says what came of it")
    return 0


def fail(message: str, code: int) -> int:
    """Say what is wrong and return the exit code."""
    if logs.is_terminal():
        logs.write(f"80s: {message}\n")
    else:
        logs.log("error", message)
    return code


def run(arguments: list[str]) -> int:
    """The whole command. Returns its exit code."""
    if "--help" in arguments:
        print(help_text(), end="")
        return 0
    if "--version" in arguments:
        print(version_text(), end="")
        return 0
    if "--include" in arguments:
        print(os.path.join(os.path.dirname(os.path.abspath(__file__)), "include"))
        return 0
    try:
        if arguments[:1] in (["reload"], ["upgrade"]):
            return command(arguments)
        settings = collect(arguments, os.environ)
        if settings.cfg:
            return print_cfg(settings)
        entry = locate(settings.entry, settings.public_html)
    except (SettingsError, EntryError) as error:
        return fail(str(error), EXIT_USAGE)
    settings.entry = entry.name
    if settings.cli:
        return run_program(settings, entry)
    if settings.modules and (missing := missing_module(settings.modules)):
        return fail(missing, EXIT_CANNOT_START)
    from .serve.supervisor import serve

    return serve(settings, entry)


def main() -> None:
    """Entry point of the command."""
    try:
        code = run(sys.argv[1:])
    except KeyboardInterrupt:  # before the supervisor took over the signals
        code = EXIT_INTERRUPTED
    sys.exit(code)

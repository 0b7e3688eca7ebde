"""Settings: one table of options, read from the command line and the environment.

`cli` makes a `Settings` of what it finds, `supervisor` hands its dictionary to the workers, and a worker merges in
what `App(...)` set. Precedence: command line > environment > App(...) > default; each value remembers its source.
Kept free of argparse, enum and typing: the parent lives as long as the server and shall stay small.
"""

from __future__ import annotations

import os

from ..limits import DEFAULTS, LIMITS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    Value = str | int | float | bool | None

DEFAULT, APP, ENVIRONMENT, COMMAND_LINE = "default", "App(...)", "environment", "command line"
PREFIX = "EIGHTIES_"

# What the parent and its workers agree on: the variable that carries a worker's orders, exit codes (3: the program
# cannot start), and the seconds that a stop may take beyond the grace (on_stop hooks, leaving the loop).
ORDERS = "_80S_ORDERS"
EXIT_ERROR = 1
EXIT_CANNOT_START = 3
HOOK_TIME = 5.0

# What the ancestor calls two of the limits.
ANCESTORS_LIMITS = {"max_header_bytes": "HTTP_MAX_HEADER_SIZE", "max_body": "HTTP_MAX_BODY_SIZE"}

# Far above any sensible value; keeps a typing slip from overflowing the engine's integers.
LARGEST_LIMIT = 2**40
# A worker is a process of some 15 MB: more than this is a typing slip.
MOST_WORKERS = 1024
# An answer in the making is worth waiting for, a forgotten server that never ends is not.
LONGEST_GRACE = 86400.0
# Milliseconds. A handler that blocks for longer has its own limit.
LONGEST_SLOW = 60_000
# What comes before is standard input, output and error; what comes after is no descriptor on any system.
FIRST_FD, LAST_FD = 3, 2**20


class SettingsError(Exception):
    """A value that cannot be used; the message names it and where it came from."""


def usable_cores() -> int:
    """How many cores this process may use: its affinity, and the quota of its cgroup if there is one."""
    try:
        cores = len(os.sched_getaffinity(0))
    except AttributeError:  # macOS, FreeBSD
        cores = os.cpu_count() or 1
    try:
        with open("/sys/fs/cgroup/cpu.max", encoding="ascii") as file:
            quota, period = file.read().split()
        cores = min(cores, max(1, int(quota) // int(period)))
    except (OSError, ValueError):  # no cgroup, or "max": no quota
        pass
    return cores


def whole(text: str, smallest: int, largest: int) -> int:
    """Digits only: `int()` would also take `1_0`, ` 7 ` and `+7`."""
    if not (text.isascii() and text.isdigit() and len(text) < 20 and smallest <= int(text) <= largest):
        raise ValueError(f"a whole number from {smallest} to {largest}")
    return int(text)


def as_text(text: str) -> str:
    """Any text but none at all."""
    if not text or "\0" in text:
        raise ValueError("a text")
    return text


def as_port(text: str) -> int:
    """0 lets the system choose."""
    return whole(text, 0, 65535)


def as_workers(text: str) -> int:
    """`0` and `auto` mean one for each usable core."""
    if text in ("0", "auto"):
        return usable_cores()
    try:
        return whole(text, 0, MOST_WORKERS)
    except ValueError as error:
        raise ValueError(f"auto, or {error}") from None


def as_seconds(text: str) -> float:
    """Seconds, with a fraction if need be."""
    digits = text.replace(".", "", 1)
    if not (digits.isascii() and digits.isdigit() and float(text) <= LONGEST_GRACE):
        raise ValueError(f"seconds, from 0 to {LONGEST_GRACE:.0f}")
    return float(text)


def as_loop(text: str) -> str:
    """`auto` is uvloop where it is installed."""
    if text not in ("auto", "asyncio", "uvloop"):
        raise ValueError("asyncio, uvloop or auto")
    return text


def as_limit(text: str) -> int:
    """A limit of the engine."""
    return whole(text, 0, LARGEST_LIMIT)


def as_files(text: str) -> str:
    """Files with commas between them."""
    if "\0" in text or not all(map(str.strip, text.split(","))):
        raise ValueError("files with commas between them")
    return ",".join(map(str.strip, text.split(",")))


def as_descriptors(text: str) -> str:
    """Descriptors with commas between them, each once."""
    try:
        return ",".join(dict.fromkeys(str(whole(each.strip(), FIRST_FD, LAST_FD)) for each in text.split(",")))
    except ValueError:
        raise ValueError(f"descriptors from {FIRST_FD} on, with commas between them") from None


def as_milliseconds(text: str) -> int:
    """0: never."""
    return whole(text, 0, LONGEST_SLOW)


def as_flag(text: str) -> bool:
    """The value of a flag's environment variable; on the command line a flag has none."""
    if text.lower() in ("1", "true", "yes", "on"):
        return True
    if text.lower() in ("0", "false", "no", "off", ""):
        return False
    raise ValueError("1 or 0")


class Option:
    """One option: how it is typed, how its text becomes a value, what it is when nobody says.

    `alias`: what the ancestor calls the variable.
    """

    __slots__ = ("alias", "default", "flags", "help", "metavar", "name", "parse")

    def __init__(
        self, flags: str, metavar: str, default: Value, parse: Callable[[str], Value], text: str, alias: str = ""
    ) -> None:
        self.alias = alias
        self.flags = tuple(flags.split())
        self.name = self.flags[-1].lstrip("-").replace("-", "_")
        self.metavar = metavar
        self.default = default
        self.parse = parse
        self.help = text

    @property
    def variable(self) -> str:
        """Name of its environment variable."""
        return PREFIX + self.name.upper()

    @property
    def is_list(self) -> bool:
        """Whether it may be given again, which adds to it."""
        return self.parse in (as_files, as_descriptors)

    @property
    def is_flag(self) -> bool:
        """Whether it stands alone on the command line."""
        return self.parse is as_flag


def limit_options() -> Iterator[Option]:
    """An option for each limit of the engine."""
    for limit in LIMITS:
        answer = f"; {limit.status}" if limit.status else ""
        text = f"{limit.reason} ({limit.unit}{answer})"
        alias = ANCESTORS_LIMITS.get(limit.name, "")
        yield Option("--" + limit.name.replace("_", "-"), "N", limit.default, as_limit, text, alias)


OPTIONS = (
    Option("-h --address", "ADDRESS", "127.0.0.1", as_text, "address to listen on; 0.0.0.0: every one; with -6 ::1"),
    Option("-p --port", "PORT", 8080, as_port, "port to listen on; 0 lets the system choose"),
    Option("-6 --ipv6", "", False, as_flag, "listen on IPv6"),
    Option("--uds", "PATH", None, as_text, "listen on a unix socket; on a port too only if -h or -p is given"),
    Option("--fd", "FDS", None, as_descriptors, "listen on inherited sockets: 3,4; a port too if -h or -p is given"),
    Option("-c --workers", "WORKERS", 1, as_workers, "worker processes; auto or 0: one for each usable core"),
    Option("-n --node", "NODE_NAME", None, as_text, "name of this server among others (default: the machine's)"),
    Option("--grace", "S", 10.0, as_seconds, "seconds that requests under way have to end when the server stops"),
    Option("--slow-handler", "MS", 200, as_milliseconds, "a handler that blocks the loop so long is logged; 0: none"),
    Option("--loop", "LOOP", "auto", as_loop, "asyncio, uvloop or auto: uvloop where it is installed"),
    Option("-m --modules", "FILES", None, as_files, "native modules: a.so,b.so; may be given again"),
    Option("--reuseport", "", False, as_flag, "a listening socket of its own for each worker, for very many cores"),
    Option("--public-html", "FOLDER", None, as_text, "the site's folder, or the one above it", "PUBLIC_HTML"),
    Option("--no-static", "", False, as_flag, "do not serve folders called static: another server does", "NO_STATIC"),
    Option("--reload", "", False, as_flag, "reload the program or its site when a file of theirs is saved", "RELOAD"),
    Option("--pidfile", "FILE", None, as_text, "write the parent's process id there; `80s reload` looks for it"),
    Option("--max-requests", "N", 0, as_limit, "replace a worker after about so many requests; 0: never"),
    Option("--max-rss", "MB", 0, as_limit, "replace a worker that has more memory than this; 0: never"),
    Option("--worker-lifetime", "S", 0.0, as_seconds, "replace a worker after so long, or a tenth longer; 0: never"),
    Option("--watchdog", "S", 30.0, as_seconds, "end a worker whose loop has not answered for so long; 0: never"),
    Option("--dev", "", False, as_flag, "show errors of the program in the browser, with their source"),
    Option("--no-server-header", "", False, as_flag, "send no Server header"),
    Option("--cfg", "", False, as_flag, "print the settings in force and where each came from, and end"),
    Option("--cli", "", False, as_flag, "run the program and its hooks with no listening socket, and end"),
)  # fmt: skip
LIMIT_OPTIONS = tuple(limit_options())
EVERY_OPTION = (*OPTIONS, *LIMIT_OPTIONS)


class Settings:
    """What is in force. Made by `collect`, or by a worker from the dictionary its parent sent."""

    entry: str | None
    address: str
    port: int
    ipv6: bool
    uds: str | None
    fd: str | None
    workers: int
    node: str
    grace: float
    slow_handler: int
    loop: str
    modules: str | None
    reuseport: bool
    public_html: str | None
    no_static: bool
    reload: bool
    pidfile: str | None
    max_requests: int
    max_rss: int
    worker_lifetime: float
    watchdog: float
    dev: bool
    no_server_header: bool
    server_header: str | None
    cfg: bool
    cli: bool

    def __init__(self, values: Mapping[str, object], sources: Mapping[str, str]) -> None:
        self.sources = dict(sources)
        self.limits = dict(DEFAULTS)
        self.server_header = "80s"
        for name, value in values.items():
            if isinstance(value, int) and name in DEFAULTS:
                self.limits[name] = value
            else:
                setattr(self, name, value)
        if self.no_server_header:
            self.server_header = None

    def to_dict(self) -> dict[str, object]:
        """The values by name, as `__init__` takes them; all fit into JSON."""
        values: dict[str, object] = {option.name: getattr(self, option.name) for option in OPTIONS}
        return values | self.limits | {"entry": self.entry}

    def source(self, name: str) -> str:
        """Where the value came from."""
        return self.sources.get(name, DEFAULT)

    def merge_app(self, limits: Mapping[str, int], server_header: str | None) -> None:
        """Take from `App(...)` what neither the command line nor the environment said."""
        for name, value in limits.items():
            if self.source(name) == DEFAULT:
                self.limits[name] = value
                self.sources[name] = APP
        if self.source("no_server_header") == DEFAULT and server_header != self.server_header:
            self.server_header = server_header
            self.sources["server_header"] = APP


def read_value(option: Option, text: str, given_as: str) -> Value:
    """The option's value, or one clear message."""
    try:
        return option.parse(text)
    except ValueError as error:
        raise SettingsError(f"{given_as} must be {error}, not {text!r}") from None


def read_arguments(arguments: Sequence[str]) -> tuple[dict[str, Value], list[str]]:
    """The options among the arguments, by name, and what is left."""
    by_flag = {flag: option for option in EVERY_OPTION for flag in option.flags}
    values: dict[str, Value] = {}
    rest: list[str] = []
    queue = list(arguments)
    while queue:
        argument = queue.pop(0)
        if argument == "--":
            return values, rest + queue
        if not argument.startswith("-") or argument == "-":
            rest.append(argument)
            continue
        flag, text = split_argument(argument)
        option = by_flag.get(flag)
        if option is None:
            raise SettingsError(f"there is no option {flag} (--help lists them)")
        if option.is_flag:
            if text is not None:
                raise SettingsError(f"{flag} takes no value")
            values[option.name] = True
            continue
        if text is None:
            text = next_argument(flag, queue)
        value = read_value(option, text, flag)
        more = option.is_list and option.name in values
        values[option.name] = f"{values[option.name]},{value}" if more else value
    return values, rest


def split_argument(argument: str) -> tuple[str, str | None]:
    """`--port=80` and `-p80` carry their value, `--port` and `-p` are followed by it."""
    if argument.startswith("--"):
        flag, equals, text = argument.partition("=")
        return flag, text if equals else None
    return argument[:2], argument[2:] or None


def next_argument(flag: str, queue: list[str]) -> str:
    """The value that follows a flag."""
    if not queue:
        hint = ": it is the address to listen on (--help shows help)" if flag == "-h" else ""
        raise SettingsError(f"{flag} needs a value{hint}")
    return queue.pop(0)


def read_environment(environment: Mapping[str, str]) -> dict[str, Value]:
    """The options that the environment sets, by name. An empty variable sets nothing."""
    values: dict[str, Value] = {}
    for option in EVERY_OPTION:
        for variable in filter(None, (option.variable, option.alias)):
            if text := environment.get(variable):
                values[option.name] = read_value(option, text, variable)
                break
    return values


def master_key(environment: Mapping[str, str]) -> str | None:
    """The secret behind sessions and encrypted links. A variable only: command lines are seen by other users."""
    return environment.get(f"{PREFIX}MASTER_KEY") or environment.get("MASTER_KEY") or None


def collect(arguments: Sequence[str], environment: Mapping[str, str]) -> Settings:
    """Settings from both, the command line first. Raises SettingsError."""
    typed, rest = read_arguments(arguments)
    if len(rest) > 1:
        raise SettingsError(f"one program at a time: {rest[0]!r} or {rest[1]!r}?")
    found = read_environment(environment)
    values: dict[str, object] = {option.name: option.default for option in EVERY_OPTION}
    values |= found | typed
    sources = dict.fromkeys(found, ENVIRONMENT) | dict.fromkeys(typed, COMMAND_LINE)
    entry = rest[0] if rest else environment.get(PREFIX + "ENTRY") or None
    if entry is not None:
        sources["entry"] = COMMAND_LINE if rest else ENVIRONMENT
    values["entry"] = entry
    if values["node"] is None:
        values["node"] = os.uname().nodename
    if values["fd"] is not None and values["reuseport"]:
        raise SettingsError("--reuseport makes a socket for each worker, --fd shares those it is given: leave one out")
    return settle_address(Settings(values, sources))


def settle_address(settings: Settings) -> Settings:
    """-6 and the address must fit; a colon in the address means IPv6 without being told."""
    if ":" in settings.address:
        settings.ipv6 = True
    elif settings.ipv6 and settings.source("address") == DEFAULT:
        settings.address = "::1"
    elif settings.ipv6 and settings.address.replace(".", "").isdigit():
        raise SettingsError(f"-6 listens on IPv6, but {settings.address} is an IPv4 address")
    return settings

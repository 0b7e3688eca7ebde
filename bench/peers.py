"""Who is measured: for each server, how it is made ready and the command that starts it.

A new peer is one function here and one line in PEERS. A function raises UnavailableError with the reason when this
machine cannot have its server; the report gives the reason where its figures would stand.
"""

import json
import os
import shlex
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from toolbox import PYTHON, UnavailableError, built, call, install

PROGRAMS = "bench/programs"
PATH = "/echo?name=Abcde"
BODY = b"Hi, Abcde!"
OURS = "80s"
ASYNC = "80s-async"
FLOOR = "floor"
ORIGINAL = "EIGHTIES_BENCH_ORIGINAL"  # environment: the original server's command line, with {port} in it
ORIGINAL_PATH = "EIGHTIES_BENCH_ORIGINAL_PATH"  # environment: the URL path to ask it for


@dataclass(frozen=True)
class Peer:
    version: str
    command: tuple[str, ...]  # run at the project's root; {port} stands for the port
    path: str = PATH
    body: bytes | None = BODY  # what it has to answer; None: anything with status 200
    environment: Mapping[str, str] = field(default_factory=dict)
    idle: bool = True  # whether its idle connections are weighed
    delay_command: tuple[str, ...] = ()  # the same server with programs/delay.py


def ours(program: str) -> tuple[str, ...]:
    return serving(f"{PROGRAMS}/{program}")


def serving(entry: str) -> tuple[str, ...]:
    """80s with one worker on a program or a folder."""
    # fmt: off
    return (sys.executable, "-m", "eighties", entry, "-h", "127.0.0.1", "-p", "{port}", "-c", "1", "--loop", "uvloop")
    # fmt: on


def our_engine() -> dict[str, str | int]:
    """The engine's version, where its binary is, and its bytes per connection; UnavailableError if it is not built."""
    program = """
import json
import eighties._engine as engine
print(json.dumps({"version": engine.VERSION, "file": engine.__file__, "connection_size": engine.CONNECTION_SIZE}))
"""
    figures: dict[str, str | int] = json.loads(call([sys.executable, "-c", program]))
    return figures


def eighties() -> Peer:
    version = str(our_engine()["version"])
    return Peer(version, ours("echo.py"), delay_command=ours("delay.py"))


def eighties_async() -> Peer:
    version = str(our_engine()["version"])
    return Peer(version, ours("echo.py"), path="/aecho?name=Abcde", idle=False)


def floor() -> Peer:
    program = built("floor")
    compiler = os.environ.get("CC", "cc")
    call([*shlex.split(compiler), "-std=c11", "-O2", "-Wall", "-Wextra", "-o", program, "bench/floor.c"])
    version = call([*shlex.split(compiler), "--version"]).splitlines()[0]
    return Peer(version, (str(program), "{port}"))


def fastpysgi() -> Peer:
    version = install("fastpysgi")["fastpysgi"]
    command = (str(PYTHON), f"{PROGRAMS}/fastpysgi_echo.py", "{port}")
    return Peer(version, command)


def socketify() -> Peer:
    version = install("socketify")["socketify"]
    command = (str(PYTHON), f"{PROGRAMS}/socketify_echo.py", "{port}")
    return Peer(version, command)


def granian() -> Peer:
    versions = install("granian", "uvloop")
    # fmt: off
    command = (str(PYTHON), "-m", "granian", "--interface", "rsgi", "--host", "127.0.0.1", "--port", "{port}",
               "--workers", "1", "--runtime-threads", "1", "--http", "1", "--no-ws", "--loop", "uvloop",
               "--backlog", "16384", "--backpressure", "16384", "--log-level", "error", "granian_echo:app")
    # fmt: on
    version = f"{versions['granian']}, uvloop {versions['uvloop']}"
    return Peer(version, command, environment={"PYTHONPATH": PROGRAMS})


def uvicorn() -> Peer:
    versions = install("uvicorn", "uvloop", "httptools")
    # fmt: off
    command = (str(PYTHON), "-m", "uvicorn", "--host", "127.0.0.1", "--port", "{port}", "--loop", "uvloop",
               "--http", "httptools", "--ws", "none", "--lifespan", "off", "--no-access-log", "--log-level", "warning",
               "--backlog", "4096", "--timeout-keep-alive", "75", "uvicorn_echo:app")
    # fmt: on
    version = f"{versions['uvicorn']}, uvloop {versions['uvloop']}, httptools {versions['httptools']}"
    return Peer(version, command, environment={"PYTHONPATH": PROGRAMS})


def go() -> Peer:
    program = built("go_echo")
    call(["go", "build", "-o", program, f"{PROGRAMS}/go_echo.go"])
    version = call(["go", "env", "GOVERSION"]).strip()
    command = (str(program), "{port}")
    return Peer(version, command, environment={"GOMAXPROCS": "1"})


def node() -> Peer:
    version = call(["node", "--version"]).strip()
    return Peer(version, ("node", f"{PROGRAMS}/node_echo.js", "{port}"))


def original() -> Peer:
    command = os.environ.get(ORIGINAL)
    if not command:
        raise UnavailableError(f"{ORIGINAL} is not set")
    path = os.environ.get(ORIGINAL_PATH, PATH)
    return Peer("as given", tuple(shlex.split(command)), path=path, body=None)


PEERS: dict[str, tuple[str, Callable[[], Peer]]] = {
    FLOOR: ("C epoll, canned answer (the floor)", floor),
    OURS: ("80s", eighties),
    ASYNC: ("80s, async def", eighties_async),
    "fastpysgi": ("FastPySGI (WSGI)", fastpysgi),
    "go": ("Go net/http, GOMAXPROCS=1", go),
    "socketify": ("socketify", socketify),
    "node": ("Node http", node),
    "uvicorn": ("uvicorn (uvloop, httptools)", uvicorn),
    "granian": ("granian (RSGI)", granian),
    "original": ("the original 80s", original),
}

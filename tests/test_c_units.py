"""The lower half of the engine as plain C: each program of tests/c is compiled with the sanitizers and run.

`tests/c/README.md` tells what they test, and the format of the case files.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from server import foreign_environment

HERE = Path(__file__).parent / "c"
ENGINE = HERE.parent.parent / "src" / "eighties" / "engine"
CASES = sorted((HERE / "cases").glob("*.http"))
FLAGS = ["-std=gnu11", "-D_GNU_SOURCE", "-DEIGHTIES_CHECK", "-Wall", "-Wextra", "-Werror", "-O1", "-g"]
FLAGS += ["-fsanitize=address,undefined", "-fno-sanitize-recover=all"]
LINUX = sys.platform == "linux"
PATIENCE = 120  # seconds


@dataclass(frozen=True)
class Program:
    """A test program: its own sources, those of the engine, folders of headers."""

    own: tuple[str, ...]
    engine: tuple[str, ...]
    headers: tuple[str, ...] = ()


POLLER = "poller_epoll.c" if LINUX else "poller_kqueue.c"
SERVER: tuple[str, ...] = (
    "answer.c",
    "buffer.c",
    "connection.c",
    "handle.c",
    "http1.c",
    "input.c",
    "output.c",
    "passing.c",
    "query.c",
    "raw.c",
)
SERVER += ("router.c", "server.c", "static.c", "timer.c", "transport.c", POLLER)
"""The whole lower half."""

PROGRAMS = {
    "http1": Program(("test_http1.c", "cases.c", "events.c"), ("http1.c",)),
    "query": Program(("test_query.c",), ("query.c",)),
    "router": Program(("test_router.c",), ("router.c", "query.c")),
    "static": Program(("test_static.c",), ("static.c", "http1.c")),
    "buffer": Program(("test_buffer.c",), ("buffer.c",)),
    "timer": Program(("test_timer.c",), ("timer.c",)),
    "handle": Program(("test_handle.c",), ()),  # it includes handle.c, to make its memory fail
    "raw": Program(("test_raw.c", "raw_program.c"), SERVER),
    "raw_http": Program(("test_raw_http.c", "raw_program.c"), SERVER),
    "passing": Program(("test_passing.c", "raw_program.c"), SERVER),
}
if LINUX:
    PROGRAMS["epoll"] = Program(("test_poller.c",), ("poller_epoll.c",))
    # kqueue/kqueue.c is a test double: it says so, and what follows from that.
    PROGRAMS["kqueue"] = Program(("test_poller.c", "kqueue/kqueue.c"), ("poller_kqueue.c",), ("kqueue",))
else:
    PROGRAMS["kqueue"] = Program(("test_poller.c",), ("poller_kqueue.c",))


def run(command: list[str]) -> str:
    """What the command says; it must end well."""
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, env=foreign_environment())
    assert done.returncode == 0, f"{command[0]} ended with {done.returncode}\n{done.stdout}{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], str]:
    """The path of a program, which is compiled when it is first asked for, also by a process that tests beside us."""
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "compiled"
    folder.mkdir(exist_ok=True)

    def make(name: str, *arguments: str) -> str:
        target = folder / name
        if not target.exists():
            ours = folder / f"{name}.{os.getpid()}"
            run([os.environ.get("CC", "cc"), *FLAGS, *arguments, "-o", str(ours)])
            ours.replace(target)
        return str(target)

    def compile_program(name: str) -> str:
        program = PROGRAMS[name]
        headers = [f"-I{HERE / header}" for header in program.headers] + [f"-I{HERE}", f"-I{ENGINE}"]
        objects = []
        for source in [*(HERE / own for own in program.own), *(ENGINE / engine for engine in program.engine)]:
            objects.append(make("-".join([*program.headers, f"{source.stem}.o"]), *headers, "-c", str(source)))
        return make(name, *objects)

    return compile_program


@pytest.mark.parametrize("name", [name for name in PROGRAMS if name != "http1"])
def test_program(compiled: Callable[[str], str], name: str) -> None:
    """Every check of the program holds, and the sanitizers have nothing to say."""
    assert f"{name}: " in run([compiled(name)])


@pytest.mark.parametrize("path", CASES, ids=lambda path: path.stem)
def test_cases(compiled: Callable[[str], str], path: Path) -> None:
    """The HTTP/1 readers make of each case what the file says, however its bytes are split."""
    assert " 0 failed" in run([compiled("http1"), str(path)])


def test_a_wrong_case_is_noticed(compiled: Callable[[str], str], tmp_path: Path) -> None:
    """The runner itself: what does not agree makes it fail."""
    path = tmp_path / "wrong.http"
    path.write_text("# wrong\n> GET / HTTP/1.1\\r\\n\n> Host: a\\r\\n\n> \\r\\n\n= head GET /other keep-alive\n= end\n")
    done = subprocess.run(
        [compiled("http1"), str(path)], capture_output=True, text=True, timeout=PATIENCE, env=foreign_environment()
    )
    assert done.returncode == 1 and "--- expected\nhead GET /other" in done.stderr

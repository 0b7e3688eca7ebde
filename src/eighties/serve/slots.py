"""Slots: the workers' places in the parent, and the processes in them.

`supervisor` owns the slots and decides what begins and ends; here stands what a process is to the parent, and how one
is started. A place has one process that serves; while it is replaced there are two: one that comes, or one that leaves.
"""

from __future__ import annotations

import _socket
import os
import sys
import time

from . import logs
from .scoreboard import ROWS
from .settings import ORDERS

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal

    from .listeners import Listener
    from .mail import Line
else:
    import _signal as signal

# A worker that lived shorter than this, in seconds, did not end by chance: its next replacement waits.
SHORT_LIFE = 5.0
FIRST_DELAY, LONGEST_DELAY = 0.1, 5.0
# What is for the parent alone, though a terminal, or a person, sends it to every process of the server.
IGNORED = (signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)
RUN_WORKER = ("-P", "-m", "eighties.serve.worker")


SERVING, COMING, LEAVING = "serving", "coming", "leaving"


class Process:
    """A worker's process. `row`: of the scoreboard. `successor`: a round of whole processes waits for it. `ready`: it
    serves, or has served. `over`: it has been waited for, and its number may be another process's."""

    __slots__ = ("failure", "line", "over", "pid", "ready", "row", "since", "successor", "unanswered", "until")

    def __init__(self, pid: int, line: Line, row: int, successor: bool = False) -> None:
        self.pid = pid
        self.line = line
        self.row = row
        self.successor = successor
        self.since = time.monotonic()
        self.ready = False
        self.over = False
        # When it is killed in any case: one that does not start, one that does not end.
        self.until: float | None = None
        # Words of the watchdog that it has not answered.
        self.unanswered = 0
        # Why it could not start, in its own words.
        self.failure: tuple[str, str] | None = None

    def signal(self, number: int) -> None:
        """Send a signal to it, unless it is over: its last words are heard after its end."""
        if not self.over:
            os.kill(self.pid, number)


class Slot:
    """A place: its number stays. `passing` are the ends of a socket pair on which connections go from the process that
    leaves to the one that serves; each process of the place has both, so that none is lost where one dies."""

    __slots__ = (
        "coming", "delay", "due", "handing_over", "leaving", "listeners", "number", "passing", "serving",
        "successor_wanted",
    )  # fmt: skip

    def __init__(self, number: int, listeners: list[Listener], passing: tuple[int, int]) -> None:
        self.number = number
        self.listeners = listeners
        self.passing = passing
        self.serving: Process | None = None
        self.coming: Process | None = None
        self.leaving: Process | None = None
        # The one that leaves may still begin requests.
        self.handing_over = False
        # A round waits for a process that is yet to be started: when the one that leaves is gone, or when it is due.
        self.successor_wanted = False
        self.delay = 0.0
        self.due: float | None = None

    def processes(self) -> list[Process]:
        """Those that run."""
        return [each for each in (self.serving, self.coming, self.leaving) if each is not None]

    def remove(self, process: Process) -> str:
        """It has ended. Returns which it was: SERVING, COMING or LEAVING."""
        for place in (SERVING, COMING, LEAVING):
            if getattr(self, place) is process:
                setattr(self, place, None)
                return place
        raise ValueError("a process of another place")

    def plan_restart(self, began: float, now: float) -> float:
        """Decide when the next process starts, and return the pause: none after a long life, else a growing one."""
        pause = self.delay if now - began < SHORT_LIFE else 0.0
        self.delay = min(max(pause * 2, FIRST_DELAY), LONGEST_DELAY)
        self.due = now + pause
        return pause

    def free_row(self, workers: int) -> int:
        """A row of the scoreboard that no process of this place writes."""
        used = {process.row for process in self.processes()}
        return next(row for row in (self.number + workers * n for n in range(ROWS)) if row not in used)


def spawn(orders: dict[str, object], kept: list[int], title: str) -> tuple[int, _socket.socket]:
    """Start a fresh interpreter with a worker's orders. Returns its process id and our end of its control socket.

    `kept`: the descriptors that the orders name. It inherits these and no others. `title`: for people who look at
    processes, at the end of its command line.

    Raises:
        OSError: there is no room for one more process.
    """
    ours, theirs = _socket.socketpair()
    kept = [*kept, theirs.fileno()]
    orders["control"] = theirs.fileno()
    try:
        for fd in kept:
            os.set_inheritable(fd, True)
        # It is born with these blocked, and ignores them as soon as it can.
        pid = os.posix_spawn(
            sys.executable,
            [sys.executable, *interpreter_flags(), *RUN_WORKER, title],
            {**os.environ, ORDERS: logs.to_json(orders)},
            setsigmask=IGNORED,
            setsigdef=[*IGNORED, signal.SIGTERM, signal.SIGCHLD],
        )
    except OSError:
        ours.close()
        raise
    finally:
        for fd in kept:
            os.set_inheritable(fd, False)
        theirs.close()
    return pid, ours


def describe_end(code: int) -> str:
    """How a process ended, from its exit code."""
    if code < 0:
        return f"was ended by signal {-code} ({signal.strsignal(-code)})"
    return f"ended with exit code {code}"


def interpreter_flags() -> list[str]:
    """Flags of this interpreter that workers shall have too; the environment hands on the rest."""
    pairs = (
        ("-I", sys.flags.isolated),
        ("-E", sys.flags.ignore_environment),
        ("-s", sys.flags.no_user_site),
        ("-O", sys.flags.optimize == 1),
        ("-OO", sys.flags.optimize == 2),
        ("-B", sys.flags.dont_write_bytecode),
    )
    options = [f"-X{name}" if value is True else f"-X{name}={value}" for name, value in sys._xoptions.items()]
    return [flag for flag, on in pairs if on] + options + [f"-W{option}" for option in sys.warnoptions]

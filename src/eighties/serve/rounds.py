"""Rounds: the parent's part in a reload. Who asks is told when every worker has done it, and where it failed.

`supervisor` owns one `Rounds` and hands it what workers say. One round runs at a time; what is asked for meanwhile is
one more, for files may have changed since. A round in place is an order to each worker; in one of whole processes the
supervisor starts a successor of each. Kept small, as all that the parent imports.
"""

from __future__ import annotations

import time

from . import logs
from .frames import PROGRAM, SITE, WHOLE, pack_ended, pack_order, unpack_done, unpack_order

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from .mail import Exchange, Line

# Seconds. A worker that has not loaded the program by then is stuck in some handler; the round ends without it.
ROUND_TIME = 30.0
_ROUND_NUMBERS = 2**32
# Why somebody who waits is not told of a round.
STOPS = "the server stops"
LEAVES = "this process is being replaced; what was asked for follows, but it does not hear of it"


class Wanted:
    """A round that is asked for: of what kind, whom it is for (None: all), and the last ticket of each who waits."""

    __slots__ = ("kind", "tickets", "workers")

    def __init__(self, kind: bytes, workers: set[int] | None, tickets: dict[Line, int]) -> None:
        self.kind = kind
        self.workers = workers
        self.tickets = tickets

    def covers(self, other: Wanted) -> bool:
        """Whether the other round is done with this one."""
        if self.kind != WHOLE:
            return other.kind != WHOLE and (self.kind == PROGRAM or other.kind == SITE)
        return self.workers is None or (other.workers is not None and other.workers <= self.workers)


class Rounds:
    """Arguments: the lines to the workers; `running`, which gives the numbers of those that run; `replace`, which
    starts a process that takes the place of the one with a number."""

    __slots__ = (
        "_began", "_current", "_failures", "_later", "_mail", "_number", "_replace", "_running", "_stopped", "_waiting",
        "_wanted", "due",
    )  # fmt: skip

    def __init__(self, mail: Exchange, running: Callable[[], list[int]], replace: Callable[[int], None]) -> None:
        self._mail = mail
        self._running = running
        self._replace = replace
        self._number = 0
        self._began = 0.0
        self._current: Wanted | None = None
        self._waiting: set[int] = set()
        self._later: list[int] = []
        self._failures: list[tuple[int, str, str]] = []
        self._wanted: list[Wanted] = []
        self._stopped = False
        # When a round in place ends in any case; None: there is none.
        self.due: float | None = None

    @property
    def busy(self) -> bool:
        """Whether a round is under way."""
        return self._current is not None

    def waits_for(self, worker: int) -> bool:
        """Whether a worker is loading the program: its loop has no time for anything else, for ROUND_TIME at most."""
        return worker in self._waiting and worker not in self._later and not self._is_whole()

    def hear_order(self, line: Line, frame: bytes) -> None:
        """A worker asks for a reload. Raises FrameError."""
        kind, ticket = unpack_order(frame)
        if self._stopped:
            give_up(line, ticket, STOPS)
            return
        waits = self._serves(line) or (self._current is not None and line in self._current.tickets)
        self.ask(kind, {line: ticket} if ticket and waits else {})
        if ticket and not waits:
            give_up(line, ticket, LEAVES)

    def ask(self, kind: bytes, tickets: dict[Line, int], workers: set[int] | None = None) -> None:
        """Begin a round, or note that one more is needed."""
        new = Wanted(kind, workers, tickets)
        for other in list(self._wanted):
            if other.covers(new):
                other.tickets |= tickets
                return
            if new.covers(other):
                new.tickets = other.tickets | new.tickets
                self._wanted.remove(other)
            elif new.workers is not None and other.workers is not None:
                new.workers = new.workers | other.workers
                self._wanted.remove(other)
        self._wanted.append(new)
        self._begin()

    def stop(self) -> None:
        """The server stops: nothing more begins, and nobody waits in vain until the grace is over."""
        ended = [*self._wanted, *([self._current] if self._current is not None else [])]
        self._stopped, self._current, self._wanted, self.due = True, None, [], None
        self._waiting.clear()
        self._later = []
        for line, ticket in [item for each in ended for item in each.tickets.items()]:
            give_up(line, ticket, STOPS)

    def hear_done(self, worker: int, frame: bytes) -> None:
        """A worker has loaded the program, or not. Raises FrameError."""
        number, failure = unpack_done(frame)
        if number == self._number and not self._is_whole():
            self._end_of(worker, failure)

    def died(self, worker: int, end: str) -> None:
        """A worker has ended, maybe by what it was loading; the one that replaces it loads the new program."""
        if not self._is_whole():
            self._end_of(worker, (end, "") if self.waits_for(worker) else None)

    def replaced(self, worker: int) -> None:
        """A new process serves in this place."""
        if self._is_whole():
            self._end_of(worker)

    def not_replaced(self, worker: int, message: str, traceback: str = "") -> None:
        """The process that was to serve in this place could not."""
        if self._is_whole():
            self._end_of(worker, (message, traceback))

    def look(self, now: float) -> None:
        """End the round if it is due."""
        if self.due is not None and self.due <= now:
            late = f"the worker has not answered within {ROUND_TIME:g} s"
            self._failures += [(worker, late, "") for worker in sorted(self._waiting.difference(self._later))]
            self._waiting.clear()
            self._later = []
            self._finish()

    def _is_whole(self) -> bool:
        return self._current is not None and self._current.kind == WHOLE

    def _end_of(self, worker: int, failure: tuple[str, str] | None = None) -> None:
        """A worker is done. If it was the one that went ahead, the others follow, or are spared."""
        if worker not in self._waiting:
            return
        ahead = worker not in self._later
        self._waiting.discard(worker)
        if not ahead:
            self._later.remove(worker)
        elif failure is not None:
            self._failures.append((worker, *failure))
            self._waiting.difference_update(self._later)
            self._later = []
        else:
            later, self._later = self._later, []
            for number in later:
                self._order(number)
        if not self._waiting:
            self._finish()

    def _begin(self) -> None:
        if self._current is not None or not self._wanted:
            return
        current = self._current = self._wanted.pop(0)
        self._number = (self._number + 1) % _ROUND_NUMBERS
        self._began = time.monotonic()
        self._failures = []
        if current.kind == WHOLE:
            self._waiting = set(range(len(self._mail.lines)) if current.workers is None else current.workers)
        else:
            self._waiting = set(self._running())
        # One goes ahead: a program that cannot be loaded says so once, and costs the others nothing.
        first = sorted(self._waiting)
        if current.kind != SITE:
            first, self._later = first[:1], first[1:]
        for worker in first:
            self._order(worker)
        if not self._waiting:
            self._finish()

    def _order(self, worker: int) -> None:
        """Have a worker do what the round is for."""
        if self._current is None:
            return
        if self._current.kind == WHOLE:
            self._replace(worker)
        else:
            self.due = time.monotonic() + ROUND_TIME
            self._mail.lines[worker].tell(pack_order(self._current.kind, self._number))

    def _finish(self) -> None:
        current, self._current, self.due = self._current, None, None
        if current is None:
            return
        self._report(current)
        for line in self._mail.all_lines():
            line.tell(pack_ended(current.tickets.get(line, 0), self._failures))
        for wanted in self._wanted:  # a process that leaves would wait for a round that waits until it has left
            for line in [line for line in wanted.tickets if not self._serves(line)]:
                give_up(line, wanted.tickets.pop(line), LEAVES)
        self._begin()

    def _serves(self, line: Line) -> bool:
        return self._mail.lines[line.number] is line

    def _report(self, current: Wanted) -> None:
        """The same failure of several workers is one line."""
        found: dict[tuple[str, str], list[int]] = {}
        for worker, message, traceback in self._failures:
            found.setdefault((message, traceback), []).append(worker)
        verb = "replaced" if current.kind == WHOLE else "reloaded"
        for (message, traceback), workers in found.items():
            what = f"not {verb}, the old program serves on: {message}"
            logs.log("error", what, traceback=traceback or None, workers=workers)
        if not found and current.kind != SITE:
            of = None if current.workers is None else sorted(current.workers)
            logs.log("info", verb, ms=round((time.monotonic() - self._began) * 1000, 1), workers=of)


def give_up(line: Line, ticket: int, why: str) -> None:
    """The answer to who asked for a reload and cannot be told what comes of it."""
    line.tell(pack_ended(ticket, [(line.number, why, "")]))

"""Rounds: the parent's part in a reload. Who asks is told when every worker has done it, and where it failed.

`supervisor` owns one `Rounds` and hands it what workers say. One round runs at a time; what is asked for meanwhile is
one more, for files may have changed since. Kept small, as all that the parent imports.
"""

from __future__ import annotations

import time

from . import logs
from .frames import PROGRAM, SITE, pack_ended, pack_order, unpack_done, unpack_order

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from .mail import Exchange

# Seconds. A worker that has not loaded the program by then is stuck in some handler; the round ends without it.
ROUND_TIME = 30.0
_ROUND_NUMBERS = 2**32


class Rounds:
    """Arguments: the lines to the workers; `running`, which gives the numbers of those that run."""

    __slots__ = ("_began", "_failures", "_kind", "_mail", "_next", "_number", "_running", "_tickets", "_waiting", "due")

    def __init__(self, mail: Exchange, running: Callable[[], list[int]]) -> None:
        self._mail = mail
        self._running = running
        self._number = 0
        self._kind = b""
        self._began = 0.0
        self._waiting: set[int] = set()
        self._failures: list[tuple[int, str, str]] = []
        self._tickets: dict[int, int] = {}
        self._next: tuple[bytes, dict[int, int]] | None = None
        # When the round ends in any case; None: there is none.
        self.due: float | None = None

    def hear_order(self, worker: int, frame: bytes) -> None:
        """A worker asks for a reload. Raises FrameError."""
        kind, ticket = unpack_order(frame)
        self.ask(kind, {worker: ticket} if ticket else {})

    def ask(self, kind: bytes, tickets: dict[int, int]) -> None:
        """Begin a round, or note that one more is needed."""
        if self._next is not None:
            other, noted = self._next
            kind, tickets = (kind if kind == other else PROGRAM), noted | tickets
        self._next = kind, tickets
        if self.due is None:
            self._begin()

    def hear_done(self, worker: int, frame: bytes) -> None:
        """A worker has done it, or not. Raises FrameError."""
        number, failure = unpack_done(frame)
        if number == self._number and worker in self._waiting:
            if failure is not None:
                self._failures.append((worker, *failure))
            self.forget(worker)

    def forget(self, worker: int) -> None:
        """Wait for it no longer: it is done, or has ended, and the one that replaces it loads the new program."""
        if worker in self._waiting:
            self._waiting.discard(worker)
            if not self._waiting:
                self._finish()

    def look(self, now: float) -> None:
        """End the round if it is due."""
        if self.due is not None and self.due <= now:
            late = f"the worker has not answered within {ROUND_TIME:g} s"
            self._failures += [(worker, late, "") for worker in sorted(self._waiting)]
            self._waiting.clear()
            self._finish()

    def _begin(self) -> None:
        if self._next is None:
            return
        self._kind, self._tickets = self._next
        self._next = None
        self._number = (self._number + 1) % _ROUND_NUMBERS
        self._began = time.monotonic()
        self._failures = []
        self._waiting = set(self._running())
        self.due = self._began + ROUND_TIME
        for worker in self._waiting:
            self._mail.tell(worker, pack_order(self._kind, self._number))
        if not self._waiting:
            self._finish()

    def _finish(self) -> None:
        self.due = None
        self._report()
        for worker in self._running():
            self._mail.tell(worker, pack_ended(self._tickets.get(worker, 0), self._failures))
        self._begin()

    def _report(self) -> None:
        """The same failure of several workers is one line."""
        found: dict[tuple[str, str], list[int]] = {}
        for worker, message, traceback in self._failures:
            found.setdefault((message, traceback), []).append(worker)
        for (message, traceback), workers in found.items():
            what = f"not reloaded, the old program serves on: {message}"
            logs.log("error", what, traceback=traceback or None, workers=workers)
        if not found and self._kind != SITE:
            logs.log("info", "reloaded", ms=round((time.monotonic() - self._began) * 1000, 1))

"""Slow: says which code holds up the loop, and with it every connection of the worker.

The worker owns one `SlowWatch`. Its thread looks twice per threshold at what the loop's thread is doing. While that is
no code of the program, as in an idle server, the look is all; else it asks the loop for an answer, and when none has
come within the threshold, it logs the stack. Its state lives in the thread, which is ended and begun anew around what
must not be watched: a reload, and `fork`, which is to find one thread only.
"""

from __future__ import annotations

import os
import sys
import threading
import time
import traceback
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, NamedTuple

from . import logs

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Iterator
    from types import FrameType

# Seconds between looks, whatever the threshold: more than 200 looks a second would cost more than they tell.
SHORTEST_PAUSE = 0.005
# Seconds in which one place is logged once; a place that blocks is one that many requests come to.
QUIET_TIME = 10.0
# How many places are remembered for that. A program has few; text that is executed may have any number.
MOST_PLACES = 256
# Seconds to wait for the thread's end. It waits for nothing but a log that nobody reads.
LONGEST_END = 1.0

_OURS = os.path.dirname(os.path.dirname(os.path.abspath(__file__))) + os.sep
_STDLIB = os.path.dirname(os.path.abspath(os.__file__)) + os.sep
_PACKAGES = (_STDLIB + "site-packages" + os.sep, _STDLIB + "dist-packages" + os.sep)


class _Step(NamedTuple):
    """A call on the stack."""

    frame: FrameType
    line: int

    @property
    def file(self) -> str:
        return self.frame.f_code.co_filename

    def is_ours(self) -> bool:
        return self.file.startswith(_OURS)

    def is_programs(self) -> bool:
        """Whether it is neither the server's nor Python's own."""
        file = self.file
        if file.startswith(_STDLIB):
            return file.startswith(_PACKAGES)
        return not (file.startswith((_OURS, "<frozen ")))


class _Question:
    """Put to the loop, which answers when it comes round."""

    __slots__ = ("answered", "asked")

    def __init__(self) -> None:
        self.asked = False
        self.answered: float | None = None

    def answer(self) -> None:
        self.answered = time.monotonic()


class _Incident:
    """The loop does not answer. Times are seconds; `blocked` leaves out those in which the process did not run."""

    __slots__ = ("began", "blocked", "lost", "place", "question", "told")

    def __init__(self, blocked: float) -> None:
        self.question = _Question()
        self.blocked = blocked
        self.began = time.monotonic() - blocked
        self.lost = 0.0
        self.place = ""
        self.told = False


class SlowWatch:
    """Arguments:
    loop: of the thread that calls `begin`.
    threshold: milliseconds that the loop may be blocked; 0: any time, and there is no thread.
    own: tells the program's own files, among which the place to name is looked for first.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, threshold: int, own: Callable[[str], bool]) -> None:
        self._loop = loop
        self._threshold = threshold
        self._own = own
        self._pause = max(threshold / 2000, SHORTEST_PAUSE)
        self._watched = 0
        self._clock: int | None = None
        # When a place was last logged, and how often it was not since.
        self._places: dict[str, tuple[float, int]] = {}
        # The thread runs while nobody holds it up.
        self._holds = 1
        # Held as long as the thread shall run. It waits for it for each pause: an Event would cost much more.
        self._over = threading.Lock()
        self._thread: threading.Thread | None = None

    def begin(self) -> None:
        """The program serves: watch the thread that calls."""
        if not self._threshold:
            return
        self._watched = threading.get_ident()
        try:
            self._clock = time.pthread_getcpuclockid(self._watched)
        except (AttributeError, OSError):  # macOS
            self._clock = None
        # In a child the hold stays: it has the thread that forked, and no other.
        os.register_at_fork(before=self._hold, after_in_parent=self._release_soon)
        self._release()

    def stop(self) -> None:
        """Watch no longer; the loop may be closed."""
        self._hold()

    @contextmanager
    def paused(self) -> Iterator[None]:
        """What is done within is not watched."""
        self._hold()
        try:
            yield
        finally:
            self._release()

    def _hold(self) -> None:
        self._holds += 1
        thread, self._thread = self._thread, None
        if thread is not None:
            self._over.release()
            thread.join(LONGEST_END)

    def _release(self) -> None:
        self._holds -= 1
        if not self._holds and self._watched:
            over = self._over = threading.Lock()
            over.acquire()
            thread = self._thread = threading.Thread(target=self._run, args=(over,), name="slow handlers", daemon=True)
            thread.start()

    def _release_soon(self) -> None:
        """When the loop comes round: Python counts threads, and warns of them, after this was called."""
        with suppress(RuntimeError):  # it is closed
            self._loop.call_soon_threadsafe(self._release)

    # ---- in the thread ----

    def _run(self, over: threading.Lock) -> None:
        try:
            self._watch(over)
        except Exception as error:  # noqa: BLE001 a thread's end is nobody's business, and must not be silent
            message = f"slow handlers are logged no longer: {type(error).__name__}: {error}"
            logs.log("error", message, traceback=logs.traceback_of(error))

    def _watch(self, over: threading.Lock) -> None:
        incident: _Incident | None = None
        before, used = time.monotonic(), self._time_used()
        while not over.acquire(timeout=self._pause):
            now, use = time.monotonic(), self._time_used()
            if incident is None and use == used and self._clock is not None:
                before = now  # the loop's thread has not run, and is still where it was: not in the program
                continue
            # A pause that was longer than it should be, while the loop's thread did not work either: the process was
            # stopped, or starved. Where it did work, it was in C and kept this thread from running.
            counted = min(now - before, max(self._pause, use - used))
            lost = now - before - counted
            before, used = now, use
            if incident is not None and incident.question.answered is not None:
                self._end(incident, incident.question.answered)
                incident = None
            if incident is not None:
                incident.blocked += counted
                incident.lost += lost
            incident = self._look(incident, counted - self._pause)
            if incident is not None and not self._ask(incident.question):
                return

    def _look(self, incident: _Incident | None, blocked: float) -> _Incident | None:
        """Look at the stack, which may be what an incident begins with, or goes on with.

        A function of its own: frames keep what is in them, and must not be kept until the next look.
        """
        steps = self._stack()
        if incident is None:
            if not any(step.is_programs() for step in steps):
                return None
            incident = _Incident(blocked)
        # Before the question is put, for that lets the loop's thread go on.
        if not incident.place and incident.blocked * 1000 > self._threshold:
            self._report(incident, steps)
        return incident

    def _time_used(self) -> float:
        """CPU seconds of the loop's thread; where they cannot be had, 0."""
        return 0.0 if self._clock is None else time.clock_gettime(self._clock)

    def _stack(self) -> list[_Step]:
        """What the loop's thread is doing, the outermost call first."""
        steps = []
        frame = sys._current_frames().get(self._watched)
        while frame is not None:
            steps.append(_Step(frame, frame.f_lineno or frame.f_code.co_firstlineno))
            frame = frame.f_back
        return steps[::-1]

    def _ask(self, question: _Question) -> bool:
        """Put a question to the loop, once. False: it is closed."""
        if not question.asked:
            question.asked = True
            try:
                self._loop.call_soon_threadsafe(question.answer)
            except RuntimeError:
                return False
        return True

    def _report(self, incident: _Incident, steps: list[_Step]) -> None:
        """Log where the program is, unless it is not in the program, or the place was logged a moment ago."""
        while steps and not steps[0].is_programs():
            del steps[0]
        while steps and steps[-1].is_ours():
            del steps[-1]
        if not steps:
            return
        mine = [step for step in steps if self._own(step.file)] or [step for step in steps if step.is_programs()]
        innermost = mine[-1]
        incident.place = f"{innermost.file}:{innermost.line}"
        left_out = self._left_out(incident.place)
        if left_out is None:
            return
        incident.told = True
        stack = traceback.StackSummary.extract((step.frame, step.line) for step in steps)
        logs.log(
            "warning",
            f"the loop has been blocked for more than {self._threshold} ms by "
            f"{innermost.frame.f_code.co_qualname}, {incident.place}",
            traceback="Stack (most recent call last):\n" + "".join(stack.format()),
            left_out=left_out or None,
        )

    def _left_out(self, place: str) -> int | None:
        """How many incidents at the place were not logged before this one; None: nor is this one."""
        now = time.monotonic()
        last, left_out = self._places.get(place, (-QUIET_TIME, 0))
        if place in self._places and now - last < QUIET_TIME:
            self._places[place] = last, left_out + 1
            return None
        if len(self._places) >= MOST_PLACES:
            self._places.clear()
        self._places[place] = now, 0
        return left_out

    def _end(self, incident: _Incident, answered: float) -> None:
        """The loop goes on. What passed before the question was put is not known, so it took at least so long."""
        if incident.told:
            took = round((answered - incident.began - incident.lost) * 1000)
            logs.log("warning", f"the loop goes on; it was blocked for at least {took} ms by {incident.place}", ms=took)

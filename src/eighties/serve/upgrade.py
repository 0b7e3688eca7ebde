"""Upgrade: the parent replaces itself by what is installed now, and keeps its sockets and its workers.

`supervisor` owns one `Upgrade`. SIGUSR1 asks for it: first a trial process shows that the new program starts at all,
then this process executes it. Process id, children and descriptors stay, what is known of them goes along in a file
without a name. The new parent then has every worker replaced. Workers notice nothing but a pause of their mail.
"""

from __future__ import annotations

import _socket
import marshal
import os
import sys
import time

from . import logs
from .listeners import Listener
from .scoreboard import memory
from .slots import IGNORED, Process, Slot

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal
    from typing import Any

    from .mail import Line
    from .supervisor import Supervisor
else:
    import _signal as signal

# Carries the number of the file to the new parent; to a trial, TRIAL and the number.
VARIABLE = "_80S_UPGRADE"
TRIAL = "trial:"
# What the file holds; a parent that knows another one fails in its trial.
FORMAT = 1
TRIAL_TIME = 60.0
# Held back from the moment of the exchange until the new parent listens to them.
HELD_BACK = (*IGNORED, signal.SIGTERM, signal.SIGCHLD)


class UpgradeError(Exception):
    """What the old parent has left cannot be used; the message says why."""


class Upgrade:
    """Whether the parent is to be replaced, and how far it is."""

    __slots__ = ("due", "parent", "passed", "trial", "wanted")

    def __init__(self, parent: Supervisor) -> None:
        self.parent = parent
        self.wanted = False
        self.passed = False
        self.trial = 0
        # When the trial is killed.
        self.due: float | None = None

    def ask(self) -> None:
        """Begin, as soon as nothing else is under way."""
        self.wanted = True

    def go_on(self) -> None:
        """Do the next step if it can be done now. Does not return from the last one, unless that fails."""
        if not self.wanted:
            return
        if self.trial:
            self._look_at_trial()
        if self.wanted and not self.trial and self.parent.is_quiet():
            try:
                self._exchange() if self.passed else self._try()
            except OSError as error:
                self._give_up(error.strerror or str(error))

    def end(self) -> None:
        """The server stops: no upgrade any more."""
        self.wanted = False
        if self.trial:
            os.kill(self.trial, signal.SIGKILL)
            os.waitpid(self.trial, 0)
            self.trial, self.due = 0, None

    def _give_up(self, why: str) -> None:
        self.wanted = self.passed = False
        logs.log("error", f"not upgraded, the old server serves on: {why}")

    def _try(self) -> None:
        """Start what is installed now, with what we would leave to it; it ends at once. Raises OSError."""
        file = pack(self.parent)
        try:
            os.set_inheritable(file, True)
            environment = {**os.environ, VARIABLE: f"{TRIAL}{file}"}
            self.trial = os.posix_spawn(sys.executable, command(), environment, setsigmask=[], setsigdef=HELD_BACK)
        finally:
            os.close(file)
        self.due = time.monotonic() + TRIAL_TIME

    def _look_at_trial(self) -> None:
        if self.due is not None and self.due <= time.monotonic():
            self.due = None
            os.kill(self.trial, signal.SIGKILL)
        pid, status = os.waitpid(self.trial, os.WNOHANG)
        if not pid:
            return
        self.trial, self.due = 0, None
        code = os.waitstatus_to_exitcode(status)
        self.passed = code == 0
        if code:
            self._give_up(f"the new one does not start (exit code {code})")

    def _exchange(self) -> None:
        """Become the new parent. Returns only where a signal came first. Raises OSError."""
        parent = self.parent
        file = pack(parent)
        kept = [file, parent.scoreboard, *(line.fd for line in parent.mail.all_lines())]
        kept += [listener.socket.fileno() for listener in parent.listeners()]
        kept += [fd for slot in parent.slots for fd in slot.passing]
        if parent.pidfile is not None:
            kept.append(parent.pidfile.fd)
        signal.pthread_sigmask(signal.SIG_BLOCK, HELD_BACK)
        try:
            if parent.has_signals():  # which would be lost: they come first
                return
            for fd in kept:
                os.set_inheritable(fd, True)
            os.execve(sys.executable, command(), {**os.environ, **parent.notify.variables, VARIABLE: str(file)})
        finally:
            for fd in kept:
                os.set_inheritable(fd, False)
            os.close(file)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, HELD_BACK)


def command() -> list[str]:
    """How this process was started."""
    return [sys.executable, *sys.orig_argv[1:]]


def pack(parent: Supervisor) -> int:
    """A file with all that the next parent has to know; its descriptor. Raises OSError."""
    listeners = parent.listeners()
    state = {
        "format": FORMAT,
        "listeners": [listener.pack() for listener in listeners],
        "slots": [
            {
                "listeners": [listeners.index(listener) for listener in slot.listeners],
                "passing": slot.passing,
                "delay": slot.delay,
                "due": slot.due,
                "serving": None if slot.serving is None else _pack_process(slot.serving),
            }
            for slot in parent.slots
        ],
        "session_key": parent.session_key,
        "scoreboard": parent.scoreboard,
        "pidfile": None if parent.pidfile is None else parent.pidfile.fd,
        "under_nohup": parent.under_nohup,
    }
    file = memory("80s upgrade")
    data = marshal.dumps(state)
    while data:
        data = data[os.write(file, data) :]
    return file


def _pack_process(process: Process) -> dict[str, Any]:
    line = process.line
    return {
        "pid": process.pid,
        "row": process.row,
        "since": process.since,
        "ready": process.ready,
        "control": line.fd,
        "read": line.reader.rest(),
        "unsent": line.writer.rest(),
    }


def take(environment: os._Environ[str]) -> tuple[dict[str, Any] | None, bool]:
    """What an old parent has left, or None; and whether this is only a trial. The variable is removed.

    Raises:
        UpgradeError: it is not to be understood.
    """
    word = environment.pop(VARIABLE, None)
    if word is None:
        return None, False
    try:
        with open(int(word.removeprefix(TRIAL)), "rb") as file:
            file.seek(0)
            state = marshal.loads(file.read())
        if state["format"] != FORMAT:
            raise UpgradeError(f"the old server leaves its state in format {state['format']}, this one reads {FORMAT}")
    except (OSError, ValueError, TypeError, KeyError, EOFError) as error:
        raise UpgradeError(f"what the old server left cannot be read: {type(error).__name__}: {error}") from None
    return state, word.startswith(TRIAL)


def try_out() -> int:
    """A trial: whether all that parent and workers are made of can be loaded. What it raises ends it."""
    from .. import _engine, http
    from . import supervisor, worker

    return 0 if _engine and http and supervisor and worker else 1


def restore_slots(state: dict[str, Any]) -> list[Slot]:
    """The places, as the old parent had them, yet without the processes."""
    listeners = [Listener.resume(packed) for packed in state["listeners"]]
    for fd in (state["scoreboard"], *(fd for slot in state["slots"] for fd in slot["passing"])):
        os.set_inheritable(fd, False)
    slots = []
    for number, packed in enumerate(state["slots"]):
        slot = Slot(number, [listeners[at] for at in packed["listeners"]], packed["passing"])
        slot.delay, slot.due = packed["delay"], packed["due"]
        slots.append(slot)
    return slots


def restore_processes(parent: Supervisor, state: dict[str, Any]) -> None:
    """The workers, which run on."""
    for slot, packed in zip(parent.slots, (slot["serving"] for slot in state["slots"]), strict=True):
        if packed is None:
            continue
        line: Line = parent.mail.lines[slot.number]
        control = _socket.socket(fileno=packed["control"])
        control.setblocking(False)
        os.set_inheritable(control.fileno(), False)
        line.reader.restore(packed["read"])
        line.writer.restore(packed["unsent"])
        slot.serving = Process(packed["pid"], line, packed["row"])
        slot.serving.since = packed["since"]
        slot.serving.ready = packed["ready"]
        parent.mail.connect(line, control)

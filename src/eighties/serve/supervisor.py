"""Supervisor: the parent process. Holds the sockets, starts the workers, replaces them, and stops them.

`cli` makes one `Supervisor` and calls `run`, which waits in one `poll` for signals, for workers' words and for the
next restart that is due. It serves no request and never runs the program: whatever the program does, the sockets
stay open. Mail between workers goes through its `mail.Exchange`. It must stay small, so it uses the C modules under
`socket` and `signal`, which bring no enums along.
"""

from __future__ import annotations

import _socket
import os
import select
import sys
import time

from . import frames, logs, mail, pidfile, rounds, scoreboard
from .listeners import BindError, bind
from .settings import EXIT_CANNOT_START, EXIT_ERROR, HOOK_TIME, ORDERS, master_key

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal
    from collections.abc import Iterator

    from .listeners import Listener
    from .loader import Entry
    from .settings import Settings
else:
    import _signal as signal

# A worker that lived shorter than this, in seconds, did not end by chance: its next replacement waits.
SHORT_LIFE = 5.0
FIRST_DELAY, LONGEST_DELAY = 0.1, 5.0
EXIT_SIGNAL = 128
RUN_WORKER = ("-P", "-m", "eighties.serve.worker")


class Slot:
    """A worker's place: its number stays, processes come and go. `pid` is 0 while none runs."""

    __slots__ = ("delay", "due", "listeners", "number", "pid", "since")

    def __init__(self, number: int, listeners: list[Listener]) -> None:
        self.number = number
        self.listeners = listeners
        self.pid = 0
        self.since = 0.0
        self.delay = 0.0
        self.due: float | None = None

    def plan_restart(self, now: float) -> float:
        """Decide when the next process starts, and return the pause: none after a long life, else a growing one."""
        pause = self.delay if now - self.since < SHORT_LIFE else 0.0
        self.delay = min(max(pause * 2, FIRST_DELAY), LONGEST_DELAY)
        self.due = now + pause
        return pause


class Supervisor:
    """The parent's state: sockets, slots, and whether it is stopping."""

    def __init__(self, settings: Settings, entry: Entry) -> None:
        self.settings = settings
        self.entry = entry
        listeners = bind(settings)
        self.slots = [Slot(number, listeners[number]) for number in range(settings.workers)]
        self.session_key = os.urandom(32).hex()
        self.scoreboard = scoreboard.create(settings.workers)
        os.set_inheritable(self.scoreboard, True)
        self.poll = select.poll()
        self.mail = mail.Exchange(settings.workers, self.poll)
        self.rounds = rounds.Rounds(self.mail, lambda: [slot.number for slot in self.slots if slot.pid])
        self.has_terminal = has_terminal()
        self.under_nohup = signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
        self.signals, self.wakeup = self._catch_signals()
        self.announced = False
        self.stop_signal = 0
        self.stop_failed = False
        self.kill_at: float | None = None
        self.exit_code: int | None = None

    def run(self) -> int:
        """Serve until told to stop. Returns the exit code of the server."""
        if self.entry.root is not None and master_key(os.environ) is None:
            logs.log(
                "warning", "MASTER_KEY is not set: sessions end with this server, links are plain and query.e is empty"
            )
        # The first worker goes ahead: a program that cannot start says so once, not once for each worker.
        self._start(self.slots[0])
        while self.exit_code is None:
            for fd, events in self.poll.poll(self._wait_time()):
                if fd == self.signals:
                    self._hear_signals()
                else:
                    self._hear_worker(fd, events)
            self._reap()
            self._act_when_due()
        for listener in self._listeners():
            listener.close()
        return self.exit_code

    def _catch_signals(self) -> tuple[int, int]:
        """A pipe on which signals arrive as their numbers, so that one `poll` waits for everything."""
        reader, writer = os.pipe()
        os.set_blocking(reader, False)
        os.set_blocking(writer, False)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGCHLD, signal.SIGHUP):
            signal.signal(number, _note)
        signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
        self.poll.register(reader, select.POLLIN)
        return reader, writer

    def _listeners(self) -> list[Listener]:
        """Each once, though workers share them."""
        return list({id(each): each for slot in self.slots for each in slot.listeners}.values())

    def _start(self, slot: Slot) -> None:
        """Start a fresh process for the slot."""
        ours, theirs = _socket.socketpair()
        os.set_inheritable(theirs.fileno(), True)
        orders = {
            "number": slot.number,
            "settings": self.settings.to_dict(),
            "sources": self.settings.sources,
            "listeners": [listener.socket.fileno() for listener in slot.listeners],
            "control": theirs.fileno(),
            "scoreboard": self.scoreboard,
            "session_key": self.session_key,
        }
        slot.since = time.monotonic()
        slot.due = None
        try:
            slot.pid = spawn(orders)
        except OSError as error:  # out of processes or memory: like a worker that ended at once
            ours.close()
            pause = slot.plan_restart(slot.since)
            logs.log("error", f"worker {slot.number} cannot be started: {error.strerror}; next try in {pause:g} s")
            return
        finally:
            theirs.close()
        self.mail.connect(slot.number, ours)

    def _wait_time(self) -> float | None:
        """Milliseconds until something is due; None: until something happens."""
        dues = [due for due in (self.kill_at, self.rounds.due, *(slot.due for slot in self.slots)) if due is not None]
        # Rounded up: a poll that wakes a little early would spin.
        return max(0, int((min(dues) - time.monotonic()) * 1000) + 1) if dues else None

    def _hear_signals(self) -> None:
        for number in os.read(self.signals, 4096):
            if number == signal.SIGHUP:
                self._hear_hangup()
            elif number != signal.SIGCHLD:
                if self.stop_signal:
                    self._end_at_once(number)
                else:
                    self._stop(number)

    def _hear_hangup(self) -> None:
        """SIGHUP is the order to reload, unless it says that the terminal is gone, which ends what runs in one."""
        if self.has_terminal and not has_terminal():
            self.has_terminal = False
            if not self.under_nohup and not self.stop_signal:
                self._stop(signal.SIGHUP)
        elif not self.stop_signal:
            self.rounds.ask(frames.PROGRAM, {})

    def _hear_worker(self, fd: int, events: int) -> None:
        number = self.mail.number_of(fd)
        if number is not None:
            self._obey(number, self.mail.turn(number, events))

    def _obey(self, number: int, words: Iterator[bytes]) -> None:
        """Do what a worker says, unless it is nonsense: then the link is broken, and the worker has to go."""
        try:
            for word in words:
                if word == frames.QUIT:
                    if not self.stop_signal:
                        self._stop(signal.SIGTERM, f", as worker {number} asks")
                elif word[:1] == frames.READY:
                    self._hear_ready(number, word[1:])
                elif word[:1] == frames.RELOAD:
                    self.rounds.hear_order(number, word)
                elif word[:1] == frames.DONE:
                    self.rounds.hear_done(number, word)
                else:
                    raise frames.FrameError(f"the word {word[:20]!r}")
        except frames.FrameError as error:
            what = "is told to end" if self.slots[number].pid else "has ended"
            logs.log("error", f"worker {number} wrote {error} to its control socket, which is not its own; it {what}")
            self.mail.ignore(number)
            if self.slots[number].pid:
                os.kill(self.slots[number].pid, signal.SIGTERM)

    def _hear_ready(self, number: int, facts: bytes) -> None:
        """A worker serves. The first one to do so is announced, and the others start."""
        try:
            version, loop, poller = facts.decode().split()
        except ValueError:
            raise frames.FrameError(f"the facts {facts[:20]!r}") from None
        if self.stop_signal:
            return
        if self.announced:
            if number == 0 and self.settings.reload:  # it watches for all: what was saved while it was away is new
                self.rounds.ask(frames.PROGRAM, {})
            return
        self.announced = True
        self._announce(version, loop, poller)
        for other in self.slots:
            if not other.pid and other.number != number:  # which may have ended meanwhile
                self._start(other)

    def _announce(self, version: str, loop: str, poller: str) -> None:
        """Say that the server serves, and where."""
        # With --reuseport several sockets have one address.
        urls = list(dict.fromkeys(listener.url for listener in self._listeners()))
        if logs.is_terminal():
            logs.write(banner(self.settings, self.entry, urls, f"{version}, {loop}, {poller}"))
            return
        about = {
            "entry": self.entry.name,
            "how": self.entry.how or None,
            "node": self.settings.node,
            "pid": os.getpid(),
            "workers": self.settings.workers,
            "version": version,
            "loop": loop,
            "poller": poller,
        }
        for url in urls:
            logs.log("info", "listening", url=url, **about)

    def _reap(self) -> None:
        """Notice workers that ended. Only ours are waited for."""
        for slot in self.slots:
            if slot.pid:
                pid, status = os.waitpid(slot.pid, os.WNOHANG)
                if pid:
                    self._bury(slot, os.waitstatus_to_exitcode(status))
        if self.stop_signal and not any(slot.pid for slot in self.slots) and self.exit_code is None:
            self.exit_code = EXIT_ERROR if self.stop_failed else 0

    def _bury(self, slot: Slot, code: int) -> None:
        """A worker ended: replace it, unless the server is stopping or could never start."""
        pid, slot.pid = slot.pid, 0
        self._obey(slot.number, self.mail.last_words(slot.number))
        self.mail.close(slot.number)
        self.rounds.forget(slot.number)
        now = time.monotonic()
        end = f"worker {slot.number} (pid {pid}) {describe_end(code)} after {now - slot.since:.1f} s"
        if self.stop_signal:
            if code not in (0, -signal.SIGTERM):  # killed by our own SIGTERM: it had not begun to serve
                self.stop_failed = True
                logs.log("error", end)
        elif not self.announced:
            if code != EXIT_CANNOT_START:  # else it has said why
                logs.log("error", f"{end}, before it could serve")
            self.exit_code = EXIT_CANNOT_START
        else:
            pause = slot.plan_restart(now)
            when = f"in {pause:g} s" if pause else "now"
            logs.log("error" if code else "warning", f"{end}; a new one starts {when}")

    def _act_when_due(self) -> None:
        """Start workers whose time has come; end those that outlived the stop."""
        now = time.monotonic()
        for slot in self.slots:
            if slot.due is not None and slot.due <= now and self.exit_code is None:
                self._start(slot)
        self.rounds.look(now)
        if self.kill_at is not None and self.kill_at <= now:
            late = [str(slot.number) for slot in self.slots if slot.pid]
            logs.log("error", f"worker {', '.join(late)} did not end in time and is killed")
            self._kill(EXIT_ERROR)

    def _stop(self, number: int, why: str = "") -> None:
        """Begin the end: our sockets first, so that they close when the workers have closed theirs."""
        self.stop_signal = number
        for listener in self._listeners():
            listener.close()
        for slot in self.slots:
            slot.due = None
            if slot.pid:
                os.kill(slot.pid, signal.SIGTERM)
        self.kill_at = time.monotonic() + self.settings.grace + HOOK_TIME
        hint = " (again: end at once)" if number == signal.SIGINT else ""
        logs.log("info", f"stopping{why}: requests under way have {self.settings.grace:g} s{hint}")

    def _end_at_once(self, number: int) -> None:
        logs.log("warning", "ended at once by a second signal")
        self._kill(EXIT_SIGNAL + number)

    def _kill(self, exit_code: int) -> None:
        """SIGKILL is certain, so waiting for the end is too."""
        self.exit_code = exit_code
        for slot in self.slots:
            if slot.pid:
                os.kill(slot.pid, signal.SIGKILL)
                os.waitpid(slot.pid, 0)
                slot.pid = 0


def spawn(orders: dict[str, object]) -> int:
    """Start a fresh interpreter with a worker's orders. Returns its process id."""
    # It is born with the terminal's signals blocked, and ignores them as soon as it can.
    return os.posix_spawn(
        sys.executable,
        [sys.executable, *interpreter_flags(), *RUN_WORKER],
        {**os.environ, ORDERS: logs.to_json(orders)},
        setsigmask=[signal.SIGINT, signal.SIGHUP],
        setsigdef=[signal.SIGINT, signal.SIGHUP, signal.SIGTERM, signal.SIGCHLD],
    )


def has_terminal() -> bool:
    """Whether this process belongs to a terminal that is still there."""
    try:
        os.close(os.open("/dev/tty", os.O_RDONLY | os.O_NOCTTY))
    except OSError:
        return False
    return True


def _note(number: int, frame: object) -> None:
    """A Python handler must exist for the wakeup descriptor to be written."""


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


def banner(settings: Settings, entry: Entry, urls: list[str], engine: str) -> str:
    """What a person sees when the server serves."""
    python = ".".join(map(str, sys.version_info[:3]))
    lines = [
        f"80s {engine}, Python {python}",
        f"  program  {entry.name}" + (f"  ({entry.how})" if entry.how else ""),
        *(f"  at       {readable(url)}" for url in urls),
        f"  workers  {settings.workers}" + ("  (errors are shown in the browser: --dev)" if settings.dev else ""),
        "  stop     Ctrl+C",
    ]
    return "\n".join(lines) + "\n"


def readable(url: str) -> str:
    """A wildcard address cannot be opened in a browser."""
    for wildcard in ("//0.0.0.0:", "//[::]:"):
        if wildcard in url:
            return url.replace(wildcard, "//localhost:") + "  (and every other address of this machine)"
    return url


def serve(settings: Settings, entry: Entry) -> int:
    """Run the server. Returns its exit code."""
    held = None
    try:
        if settings.pidfile is not None:
            held = pidfile.PidFile(settings.pidfile)
        return Supervisor(settings, entry).run()
    except (BindError, pidfile.PidFileError) as error:
        logs.log("error", str(error))
        return EXIT_ERROR
    finally:
        if held is not None:
            held.close()

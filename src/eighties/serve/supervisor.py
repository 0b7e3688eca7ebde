"""Supervisor: the parent process. Holds the sockets, starts the workers, replaces them, and stops them.

`cli` makes one `Supervisor` and calls `run`, which waits in one `poll` for signals, for workers' words and for the
next restart that is due. It serves no request and never runs the program: whatever the program does, the sockets
stay open. Mail between workers goes through its `mail.Exchange`. It must stay small, so it uses the C modules under
`socket` and `signal`, which bring no enums along.
"""

from __future__ import annotations

import os
import select
import sys
import time

from . import frames, logs, mail, notify, passing, rounds, scoreboard, upgrade
from .listeners import BindError, bind
from .pidfile import PidFile, PidFileError
from .settings import EXIT_CANNOT_START, EXIT_ERROR, HOOK_TIME, master_key
from .slots import LEAVING, Process, Slot, describe_end, spawn

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal
    from collections.abc import Iterator
    from typing import Any

    from .listeners import Listener
    from .loader import Entry
    from .mail import Line
    from .settings import Settings
else:
    import _signal as signal

EXIT_SIGNAL = 128
# Seconds within which a process that is to take another's place has to serve.
START_TIME = 60.0
# The watchdog's words that a worker may leave without an answer; the next one is sent after a third of its time.
MOST_UNANSWERED = 3


class Supervisor:
    """The parent's state: sockets, slots, and whether it is stopping."""

    def __init__(self, settings: Settings, entry: Entry, kept: dict[str, Any] | None, held: PidFile | None) -> None:
        """`kept`: what the parent before this one has left, if this is an upgrade. Raises BindError."""
        self.settings = settings
        self.entry = entry
        self.pidfile = held
        self.under_nohup = signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
        if kept is None:
            listeners = bind(settings)
            self.slots = [Slot(number, listeners[number], passing.pair()) for number in range(settings.workers)]
            self.session_key = os.urandom(32).hex()
            self.scoreboard = scoreboard.create(settings.workers)
        else:
            self.slots = upgrade.restore_slots(kept)
            settings.workers = len(self.slots)
            self.session_key = kept["session_key"]
            self.scoreboard = kept["scoreboard"]
            self.under_nohup = kept["under_nohup"]
        self.poll = select.poll()
        self.mail = mail.Exchange(settings.workers, self.poll)
        self.rounds = rounds.Rounds(
            self.mail, lambda: [slot.number for slot in self.slots if slot.serving is not None], self._replace
        )
        self.notify = notify.Notify(os.environ)
        self.has_terminal = has_terminal()
        self.signals, self.wakeup = self._catch_signals()
        self.upgrade = upgrade.Upgrade(self)
        self.announced = False
        # After an upgrade, until the first new worker has said what it is: the engine would load asyncio here.
        self.tells_version = False
        self.watch_at: float | None = None
        self.stop_signal = 0
        self.stop_failed = False
        self.kill_at: float | None = None
        self.exit_code: int | None = None
        if kept is not None:
            self._resume(kept)

    def _resume(self, kept: dict[str, Any]) -> None:
        """Go on where the parent before this one has stopped."""
        upgrade.restore_processes(self, kept)
        self._begin_to_watch()
        self.announced = True
        self.tells_version = True
        logs.log("info", "upgraded: the workers follow", pid=os.getpid())
        self.notify.ready(f"serving at {', '.join(self.urls())}")
        self._reap()  # of those that ended meanwhile no signal tells
        self.rounds.ask(frames.WHOLE, {})

    def run(self) -> int:
        """Serve until told to stop. Returns the exit code of the server."""
        if not self.announced:
            if self.entry.root is not None and master_key(os.environ) is None:
                what = "sessions end with this server, links are plain and query.e is empty"
                logs.log("warning", f"MASTER_KEY is not set: {what}")
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
            self.notify.follow(self.rounds.busy)
            self.upgrade.go_on()
        for listener in self.listeners():
            listener.close()
        return self.exit_code

    def _catch_signals(self) -> tuple[int, int]:
        """A pipe on which signals arrive as their numbers, so that one `poll` waits for everything."""
        reader, writer = os.pipe()
        os.set_blocking(reader, False)
        os.set_blocking(writer, False)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGCHLD, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2):
            signal.signal(number, _note)
        signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, upgrade.HELD_BACK)
        self.poll.register(reader, select.POLLIN)
        return reader, writer

    def has_signals(self) -> bool:
        """Whether a signal has come that is not looked at yet."""
        poll = select.poll()
        poll.register(self.signals, select.POLLIN)
        return bool(poll.poll(0))

    def listeners(self) -> list[Listener]:
        """Each once, though workers share them."""
        return list({id(each): each for slot in self.slots for each in slot.listeners}.values())

    def urls(self) -> list[str]:
        """Where it listens. With --reuseport several sockets have one address."""
        return list(dict.fromkeys(listener.url for listener in self.listeners()))

    # ---- processes ----

    def _start(self, slot: Slot) -> None:
        """Start a process that serves in a place where none does."""
        slot.due = None
        try:
            slot.serving = self._spawn(slot, self.mail.lines[slot.number], slot.successor_wanted)
            if slot.successor_wanted:  # a round waits for it, and shall not for ever
                slot.serving.until = time.monotonic() + START_TIME
            slot.successor_wanted = False
        except OSError as error:  # out of processes or memory: like a worker that ended at once
            now = time.monotonic()
            pause = slot.plan_restart(now, now)
            logs.log("error", f"worker {slot.number} cannot be started: {error.strerror}; next try in {pause:g} s")

    def _replace(self, number: int) -> None:
        """Have a fresh process take a place: `rounds` hears what comes of it."""
        slot = self.slots[number]
        if slot.serving is None:
            slot.successor_wanted = True
            slot.due = time.monotonic()
        elif slot.leaving is not None:
            slot.successor_wanted = True
        else:
            try:
                slot.coming = self._spawn(slot, self.mail.new_line(number), successor=True)
                slot.coming.until = time.monotonic() + START_TIME
            except OSError as error:
                self.rounds.not_replaced(number, f"no process can be started: {error.strerror}")

    def _spawn(self, slot: Slot, line: Line, successor: bool = False) -> Process:
        """A fresh process for the place. Raises OSError."""
        row = slot.free_row(len(self.slots))
        listeners = [listener.socket.fileno() for listener in slot.listeners]
        orders = {
            "number": slot.number,
            "settings": self.settings.to_dict(),
            "sources": self.settings.sources,
            "listeners": listeners,
            "passing": slot.passing,
            "scoreboard": self.scoreboard,
            "row": row,
            "session_key": self.session_key,
            "successor": successor and slot.serving is not None,
        }
        title = f"worker {slot.number} of {self.entry.name}, {' '.join(self.urls())}"
        pid, control = spawn(orders, [*listeners, *slot.passing, self.scoreboard], title)
        self.mail.connect(line, control)
        return Process(pid, line, row, successor)

    def _take_over(self, slot: Slot) -> None:
        """The process that was to come serves: the other one hands its connections over, and leaves."""
        old, slot.serving, slot.coming = slot.serving, slot.coming, None
        if slot.serving is not None:
            self.mail.promote(slot.serving.line)
        if old is not None:
            slot.leaving = old
            slot.handing_over = True
            old.until = time.monotonic() + self.settings.grace + HOOK_TIME
            old.line.tell(frames.LEAVE)

    def _hand_over_ended(self, slot: Slot) -> None:
        """Whatever is asked for from now on is answered by the new process."""
        if slot.handing_over:
            slot.handing_over = False
            self.rounds.replaced(slot.number)

    def _find(self, line: Line) -> tuple[Slot, Process | None]:
        """Place and process that a line belongs to; None: the process has ended."""
        slot = self.slots[line.number]
        return slot, next((process for process in slot.processes() if process.line is line), None)

    def is_quiet(self) -> bool:
        """Whether no process is being replaced, and no reload is under way."""
        return not self.rounds.busy and not any(slot.coming or slot.leaving for slot in self.slots)

    def _wait_time(self) -> float | None:
        """Milliseconds until something is due; None: until something happens."""
        dues = [self.kill_at, self.rounds.due, self.watch_at, self.upgrade.due, self.notify.due]
        dues += [slot.due for slot in self.slots]
        dues += [process.until for slot in self.slots for process in slot.processes()]
        # Rounded up: a poll that wakes a little early would spin.
        due = min((due for due in dues if due is not None), default=None)
        return None if due is None else max(0, int((due - time.monotonic()) * 1000) + 1)

    # ---- what is heard ----

    def _hear_signals(self) -> None:
        for number in os.read(self.signals, 4096):
            if number == signal.SIGHUP:
                self._hear_hangup()
            elif number in (signal.SIGUSR1, signal.SIGUSR2):
                if self.stop_signal or not self.announced:
                    self._tell_not_now(number)
                elif number == signal.SIGUSR1:
                    self.upgrade.ask()
                else:
                    self.notify.reloading()
                    self.rounds.ask(frames.WHOLE, {})
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
        elif self.stop_signal:
            self._tell_not_now(signal.SIGHUP)
        else:
            self.notify.reloading()
            self.rounds.ask(frames.PROGRAM, {})

    def _tell_not_now(self, number: int) -> None:
        does = "stops" if self.stop_signal else "starts, ask again when it serves"
        logs.log("warning", f"signal {number} ({signal.strsignal(number)}) is left undone: the server {does}")

    def _hear_worker(self, fd: int, events: int) -> None:
        line = self.mail.line_of(fd)
        if line is not None:
            self._obey(line, self.mail.turn(line, events))

    def _obey(self, line: Line, words: Iterator[bytes]) -> None:
        """Do what a worker says, unless it is nonsense: then the link is broken, and the worker has to go."""
        slot, process = self._find(line)
        try:
            for word in words:
                self._do(slot, process, line, word)
        except frames.FrameError as error:
            what = "is told to end" if process is not None else "has ended"
            logs.log(
                "error", f"worker {slot.number} wrote {error} to its control socket, which is not its own; it {what}"
            )
            line.ignore()
            if process is not None:
                process.signal(signal.SIGTERM)

    def _do(self, slot: Slot, process: Process | None, line: Line, word: bytes) -> None:
        """Do what one word says. Raises FrameError."""
        kind = word[:1]
        if word == frames.QUIT:
            if not self.stop_signal:
                self._stop(signal.SIGTERM, f", as worker {slot.number} asks")
        elif word == frames.LEAVE:
            if process is slot.leaving:
                self._hand_over_ended(slot)
        elif word == frames.PONG:
            if process is not None:
                process.unanswered = 0
        elif kind == frames.READY:
            self._hear_ready(slot, process, word[1:])
        elif kind == frames.FAILED:
            if process is not None:
                process.failure = frames.unpack_failed(word)
        elif kind == frames.REPLACE:
            # An upgrade replaces them all, and begins when nobody is being replaced: it must not wait for ever.
            if process is slot.serving and not self.stop_signal and not self.upgrade.wanted:
                logs.log("info", f"worker {slot.number} is to be replaced: {word[1:].decode(errors='replace')[:100]}")
                self.rounds.ask(frames.WHOLE, {}, {slot.number})
        elif kind == frames.RELOAD:
            self.rounds.hear_order(line, word)
        elif kind == frames.DONE:
            self.rounds.hear_done(slot.number, word)
        else:
            raise frames.FrameError(f"the word {word[:20]!r}")

    def _hear_ready(self, slot: Slot, process: Process | None, facts: bytes) -> None:
        """A worker serves. The first one to do so is announced, and the others start."""
        try:
            version, loop, poller = facts.decode().split()
        except ValueError:
            raise frames.FrameError(f"the facts {facts[:20]!r}") from None
        if self.stop_signal or process is None or process.ready:
            return
        process.ready = True
        if process is slot.coming:
            self._take_over(slot)
        if process is slot.serving:
            process.until = None
        if process.successor and not slot.handing_over:
            self.rounds.replaced(slot.number)
        if self.tells_version:
            self.tells_version = False
            logs.log("info", "the first upgraded worker serves", version=version, loop=loop, poller=poller)
        if self.announced:
            if slot.delay and not process.successor:  # after an end that was not wanted
                logs.log("info", f"worker {slot.number} serves again", pid=process.pid)
            if slot.number == 0 and self.settings.reload and not process.successor and len(self.slots) > 1:
                # It watches for all: what was saved while it was away is new to the others.
                self.rounds.ask(frames.PROGRAM, {})
            return
        self.announced = True
        self._begin_to_watch()
        self._announce(version, loop, poller)
        for other in self.slots:
            if other is not slot and not other.processes():  # which may have ended meanwhile
                self._start(other)

    def _announce(self, version: str, loop: str, poller: str) -> None:
        """Say that the server serves, and where."""
        urls = self.urls()
        self.notify.ready(f"serving at {', '.join(urls)}")
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

    # ---- ends ----

    def _reap(self) -> None:
        """Notice workers that ended. Only ours are waited for."""
        for slot in self.slots:
            for process in slot.processes():
                pid, status = os.waitpid(process.pid, os.WNOHANG)
                if pid:
                    self._bury(slot, process, os.waitstatus_to_exitcode(status))
        if self.stop_signal and not any(slot.processes() for slot in self.slots) and self.exit_code is None:
            self.exit_code = EXIT_ERROR if self.stop_failed else 0

    def _bury(self, slot: Slot, process: Process, code: int) -> None:
        """A process ended: replace it, unless the server is stopping, could never start, or another one serves."""
        process.over = True
        self._obey(process.line, self.mail.last_words(process.line))
        self.mail.close(process.line)
        now = time.monotonic()
        end = f"worker {slot.number} (pid {process.pid}) {describe_end(code)} after {now - process.since:.1f} s"
        place = slot.remove(process)
        scoreboard.clear(self.scoreboard, process.row)
        if self.stop_signal:
            if code not in (0, -signal.SIGTERM):  # killed by our own SIGTERM: it had not begun to serve
                self.stop_failed = True
                logs.log("error", end)
        elif not self.announced:
            if code != EXIT_CANNOT_START:  # else it has said why
                logs.log("error", f"{end}, before it could serve")
            self.exit_code = EXIT_CANNOT_START
        elif place == LEAVING:
            if code:
                logs.log("error", f"{end}, while it left")
            self._hand_over_ended(slot)
            if slot.successor_wanted and slot.serving is not None:
                slot.successor_wanted = False
                self._replace(slot.number)
        else:
            self._go_on_without(slot, process, code, end)

    def _go_on_without(self, slot: Slot, process: Process, code: int, end: str) -> None:
        """One that served, or was to serve, has ended."""
        now = time.monotonic()
        failure = process.failure or (f"{end}, before it could serve", "")
        if slot.serving is not None:  # it was to take the other's place
            self.rounds.not_replaced(slot.number, *failure)
            return
        if slot.coming is not None:
            what = "the one that was to take its place starts"
        else:
            pause = slot.plan_restart(process.since, now)
            what = f"a new one starts in {pause:g} s" if pause else "a new one starts now"
        logs.log("error" if code else "warning", f"{end}; {what}")
        self.rounds.died(slot.number, f"{end}, while it loaded the program; {what}")
        if process.successor and not process.ready:
            self.rounds.not_replaced(slot.number, *failure)

    # ---- what is due ----

    def _act_when_due(self) -> None:
        """Start workers whose time has come; end those that outlived theirs."""
        now = time.monotonic()
        for slot in self.slots:
            if slot.due is not None and slot.due <= now and self.exit_code is None:
                self._start(slot)
            for process in slot.processes():
                if process.until is not None and process.until <= now:
                    self._end_late(slot, process)
        self.rounds.look(now)
        self.notify.look(now)
        if self.watch_at is not None and self.watch_at <= now:
            self._watch_over(now)
        if self.kill_at is not None and self.kill_at <= now:
            late = [str(slot.number) for slot in self.slots if slot.processes()]
            logs.log("error", f"worker {', '.join(late)} did not end in time and is killed")
            self._kill(EXIT_ERROR)

    def _end_late(self, slot: Slot, process: Process) -> None:
        """A process that has not started, or not left, in its time."""
        process.until = None
        if process is slot.leaving:
            logs.log("error", f"worker {slot.number} (pid {process.pid}) did not leave in time and is killed")
        else:
            process.failure = f"the new process did not serve within {START_TIME:g} s and was killed", ""
        process.signal(signal.SIGKILL)

    def _begin_to_watch(self) -> None:
        if self.settings.watchdog:
            self.watch_at = time.monotonic() + self.settings.watchdog / MOST_UNANSWERED

    def _watch_over(self, now: float) -> None:
        """Ask the workers whether their loops are alive, and end those that have not said so for too long."""
        self.watch_at = now + self.settings.watchdog / MOST_UNANSWERED
        for slot in self.slots:
            process = slot.serving
            if process is None or not process.ready or self.rounds.waits_for(slot.number):
                continue
            if process.unanswered >= MOST_UNANSWERED:
                late = f"has not answered for {self.settings.watchdog:g} s and is killed"
                logs.log("error", f"worker {slot.number} (pid {process.pid}) {late}")
                process.signal(signal.SIGKILL)
            else:
                process.unanswered += 1
                process.line.tell(frames.PING)

    # ---- the end ----

    def _stop(self, number: int, why: str = "") -> None:
        """Begin the end: our sockets first, so that they close when the workers have closed theirs."""
        self.stop_signal = number
        self.notify.stopping()
        self.upgrade.end()
        self.rounds.stop()
        self.watch_at = None
        for listener in self.listeners():
            listener.close()
        for slot in self.slots:
            slot.due = None
            slot.successor_wanted = False
            for process in slot.processes():
                process.until = None
                process.signal(signal.SIGTERM)
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
            for process in slot.processes():
                process.signal(signal.SIGKILL)
                os.waitpid(process.pid, 0)
                slot.remove(process)


def has_terminal() -> bool:
    """Whether this process belongs to a terminal that is still there."""
    try:
        os.close(os.open("/dev/tty", os.O_RDONLY | os.O_NOCTTY))
    except OSError:
        return False
    return True


def _note(number: int, frame: object) -> None:
    """A Python handler must exist for the wakeup descriptor to be written."""


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
        kept, is_trial = upgrade.take(os.environ)
        if is_trial:
            return upgrade.try_out()
        if settings.pidfile is not None:
            held = PidFile.resume(settings.pidfile, kept["pidfile"]) if kept else PidFile(settings.pidfile)
        return Supervisor(settings, entry, kept, held).run()
    except (BindError, PidFileError, upgrade.UpgradeError) as error:
        logs.log("error", str(error))
        return EXIT_ERROR
    finally:
        if held is not None:
            held.close()

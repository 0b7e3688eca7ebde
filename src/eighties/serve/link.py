"""Link: a worker's end of the control socket, and the delivery of mail to the program's on_message.

The worker makes one, `post.Post` sends through it. What comes waits in an inbox until the program's hooks are in place,
then a batch of it is delivered in each turn of the loop. While the inbox is full nothing more is read, so that the rest
waits in the parent, where all dropping is done and told.
"""

from __future__ import annotations

import asyncio
import os
from collections import deque
from collections.abc import Callable
from contextvars import Context, ContextVar, copy_context
from types import CoroutineType
from typing import Any, ClassVar, NamedTuple

from ..post import MAIL_QUEUE_BYTES
from ..promise import Promise, Resolver, prepare_promise
from . import logs
from .frames import (
    ENDED,
    EVERYONE,
    LEAVE,
    MAIL,
    PING,
    PONG,
    PROGRAM,
    QUIT,
    READ_BYTES,
    READY,
    RELOAD,
    REPLACE,
    WHOLE,
    FrameError,
    Reader,
    Writer,
    pack_done,
    pack_failed,
    pack_mail,
    pack_order,
    unpack_ended,
    unpack_mail,
    unpack_order,
)

OnMessage = Callable[[int, int, int, int, bytes], object]
Report = Callable[[str, BaseException], object]

# Messages in one turn of the loop: requests shall not wait for a flood of mail.
BATCH = 100
# What a message in the inbox costs beside its bytes; without it many empty ones would be for nothing.
MESSAGE_COST = 128


class Failure(NamedTuple):
    """Why a worker serves on with the old program."""

    worker: int
    message: str
    traceback: str


class Loading:
    """A program on its way into service; until it is there it cannot ask for the next."""

    __slots__ = ("over", "token")
    current: ClassVar[ContextVar[Loading]] = ContextVar("loading")

    def __init__(self) -> None:
        self.over = False
        self.token = self.current.set(self)

    @classmethod
    def end(cls) -> None:
        """It is there, or given up. The variable goes: handlers' contexts are cheaper with none in them."""
        loading = cls.current.get(None)
        if loading is not None:
            loading.over = True
            cls.current.reset(loading.token)


class Link:
    """Arguments: the loop; `control`, the descriptor; this worker's number among how many; `gone`: the parent is;
    `reload`: it orders a reload, of a kind, in a round of that number; `leave`: another process has taken the place."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        control: int,
        number: int,
        workers: int,
        gone: Callable[[], None],
        reload: Callable[[bytes, int], None] = lambda kind, number: None,
        leave: Callable[[], None] = lambda: None,
    ) -> None:
        os.set_blocking(control, False)
        self._loop = loop
        self._control = control
        self._number = number
        self._workers = workers
        self._gone = gone
        self._order = reload
        self._leave = leave
        # Called when a round of reloads has ended, with what has failed in it.
        self.ended: Callable[[list[Failure]], object] | None = None
        self._tickets: dict[int, Resolver] = {}  # of reloads that were asked for
        self._last_ticket = 0
        self._reader = Reader()
        self._writer = Writer(control, MAIL_QUEUE_BYTES)
        self._inbox: deque[tuple[int, int, int, bytes]] = deque()
        self._held = 0  # what the inbox costs, in bytes
        self._open = True
        self._over = False  # nothing is delivered any more
        self._replaced = False  # another process has this one's number, too
        self._asked_to_quit = False
        self._reading = False
        self._writing = False
        # Set when the program's hooks are in place.
        self._elfd = -1
        self._on_message: OnMessage | None = None
        self._report: Report | None = None
        self._context: Context | None = None
        self._due = False  # a delivery is scheduled

    # ---- for the Post ----

    def mail(self, worker: int | None, sender: int, target: int, message: bytes) -> bool:
        """As `Post.mail`, which has looked at the arguments."""
        for_me = worker is None or worker == self._number
        for_others = worker != self._number and (self._workers > 1 or self._replaced)
        if not self._open or (for_me and self._is_full()) or (self._over and not for_others):
            return False
        if for_others and not self._send(pack_mail(EVERYONE if worker is None else worker, sender, target, message)):
            return False
        if for_me:
            self._keep(self._number, sender, target, message)
        return True

    def quit(self) -> None:
        """Have the parent stop the server; it is asked once."""
        if self._open and not self._asked_to_quit:
            self._asked_to_quit = True
            self._send(QUIT, must=True)

    def reload(self, full: bool = False) -> Promise:
        """As `Post.reload`."""
        loading = Loading.current.get(None)
        if loading is not None and not loading.over:
            raise RuntimeError("net.reload: the program is being loaded; it cannot ask to be loaded again")
        resolve, promise = prepare_promise()
        if not self._open:
            resolve([Failure(self._number, "the worker is ending", "")])
            return promise
        self._last_ticket += 1
        self._tickets[self._last_ticket] = resolve
        self._send(pack_order(WHOLE if full else PROGRAM, self._last_ticket), must=True)
        return promise

    # ---- for the worker ----

    def ask(self, kind: bytes) -> None:
        """Have all workers reload. Nobody waits for it."""
        if self._open:
            self._send(pack_order(kind, 0), must=True)

    def done(self, number: int, failure: tuple[str, str] | None) -> None:
        """Tell the parent that the reload of a round has been done here, or why not."""
        if self._open:
            self._send(pack_done(number, failure), must=True)

    def failed(self, message: str, traceback: str) -> None:
        """Tell the parent why this process, which was to take another's place, cannot serve."""
        self._send(pack_failed(message, traceback), must=True)

    def left(self) -> None:
        """Tell the parent that this process, whose place another has taken, begins no request any more."""
        if self._open:
            self._send(LEAVE, must=True)

    def ask_for_another(self, why: str) -> None:
        """Have the parent start another process in this one's place."""
        if self._open:
            self._send(REPLACE + why.encode(), must=True)

    def listen(self) -> None:
        """Hear the parent."""
        if self._open and not self._reading:
            self._reading = True
            self._loop.add_reader(self._control, self._hear)

    def start(self, elfd: int, on_message: OnMessage | None, report: Report) -> None:
        """Deliver from now on, in copies of the caller's context. `report` hears what on_message raises."""
        self._elfd = elfd
        self._on_message = on_message
        self._report = report
        self._context = copy_context()
        self._schedule()

    def ready(self, *facts: str) -> None:
        """Tell the parent that this worker serves: versions and the like, one word each."""
        self._send(READY + " ".join(facts).encode(), must=True)

    def stop(self) -> None:
        """Deliver no more, though mail can still be sent: the engine is closed."""
        self._over = True
        self._on_message = self._report = self._context = None
        self._inbox.clear()
        self._held = 0

    def close(self) -> None:
        """Neither send nor hear any more. The descriptor stays open: its end tells the parent that the process is."""
        self.stop()
        self._open = False
        self._end_tickets(self._last_ticket, [Failure(self._number, "the worker is ending", "")])
        self._stop_reading()
        self._watch(False)

    # ---- to the parent ----

    def _send(self, frame: bytes, *, must: bool = False) -> bool:
        waiting = self._writer.waiting
        if not self._writer.put(frame, must=must):
            self._flush()  # a program that does not return to the loop may have filled it
            if not self._writer.put(frame):
                return False
        if not waiting:
            self._flush()
        return True

    def _flush(self) -> None:
        """Write at once, so that mail leaves even if the program then blocks; the loop writes what is left."""
        try:
            done = self._writer.flush()
        except OSError:  # the parent is gone, which `_hear` finds out
            self._writer.clear()
            done = True
        self._watch(not done)

    def _watch(self, on: bool) -> None:
        """Have the loop say when more can be written."""
        if on and not self._writing:
            self._loop.add_writer(self._control, self._flush)
        elif self._writing and not on:
            self._loop.remove_writer(self._control)
        self._writing = on

    # ---- from the parent ----

    def _hear(self) -> None:
        try:
            data = os.read(self._control, READ_BYTES)
            for frame in self._reader.feed(data):
                if frame[:1] == MAIL:
                    self._keep(*unpack_mail(frame))
                elif frame == PING:
                    self._send(PONG, must=True)
                elif frame == LEAVE:
                    self._replaced = True
                    self._leave()
                elif frame[:1] == RELOAD:
                    self._order(*unpack_order(frame))
                elif frame[:1] == ENDED:
                    ticket, failures = unpack_ended(frame)
                    found = [Failure(*failure) for failure in failures]
                    self._end_tickets(ticket, found)
                    if self.ended is not None:
                        self.ended(found)
        except BlockingIOError:
            return
        except (OSError, FrameError):
            data = b""
        if not data:
            self.close()
            self._gone()
            return
        if len(data) == READ_BYTES:  # whether this loop is alive may be asked behind much more mail
            self._send(PONG)
        if self._is_full():
            self._stop_reading()

    def _end_tickets(self, last: int, failures: list[Failure]) -> None:
        for ticket in [ticket for ticket in self._tickets if ticket <= last]:
            self._tickets.pop(ticket)(failures)

    def _stop_reading(self) -> None:
        if self._reading:
            self._reading = False
            self._loop.remove_reader(self._control)

    def _is_full(self) -> bool:
        return self._held >= MAIL_QUEUE_BYTES

    def _keep(self, peer: int, sender: int, target: int, message: bytes) -> None:
        if self._over:
            return
        self._inbox.append((peer, sender, target, message))
        self._held += len(message) + MESSAGE_COST
        self._schedule()

    # ---- to the program ----

    def _schedule(self) -> None:
        if self._inbox and not self._due and self._context is not None:
            self._due = True
            self._loop.call_soon(self._deliver, context=self._context)

    def _deliver(self) -> None:
        """A batch. What comes meanwhile, from on_message to this worker too, is for the next turn."""
        self._due = False
        for _ in range(min(len(self._inbox), BATCH)):
            if not self._inbox:  # stopped by the program
                break
            peer, sender, target, message = self._inbox.popleft()
            self._held -= len(message) + MESSAGE_COST
            if self._context is not None:
                self._context.copy().run(self._call, peer, sender, target, message)
        if not self._is_full():
            self.listen()
        else:  # nor the parent's question
            self._send(PONG)
        self._schedule()

    def _call(self, peer: int, sender: int, target: int, message: bytes) -> None:
        if self._on_message is None:
            return
        try:
            result = self._on_message(peer, sender, self._elfd, target, message)
            if isinstance(result, CoroutineType):
                result.close()
                raise TypeError("on_message gave a coroutine, which nobody runs: use aio.async_")
        except BaseException as error:  # noqa: BLE001 no message may end a worker, not even by sys.exit
            if self._report is not None:
                self._report("on_message", error)


def no_hook() -> OnMessage:
    """What stands in for a missing on_message: it says so, once."""
    told: list[bool] = []

    def on_message(*_: Any) -> None:
        if not told:
            told.append(True)
            logs.log("warning", "mail has come, but the program has no on_message: it is dropped")

    return on_message

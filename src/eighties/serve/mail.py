"""Mail: the parent's ends of the control sockets, and the way of messages from worker to worker.

`supervisor` owns one `Exchange`, tells it of processes that begin and end and of what its `poll` says; it gets back the
words that are not mail. A worker that does not read holds up nobody: what waits for it is bounded, what comes after
that is dropped and counted. Whatever a worker writes, it is a user's program: nothing of it is trusted.
"""

from __future__ import annotations

import select

from ..post import MAIL_QUEUE_BYTES
from . import logs
from .frames import EVERYONE, MAIL, READ_BYTES, FrameError, Reader, Writer, peer_of, readdress

TYPE_CHECKING = False
if TYPE_CHECKING:
    import _socket
    from collections.abc import Iterator


class Line:
    """The parent's end for one worker; when one has died, the next may have the same line. Mail for the first one waits
    until it starts."""

    __slots__ = ("dropped", "number", "open", "poll", "reader", "socket", "watched", "writer")

    def __init__(self, number: int, poll: select.poll) -> None:
        self.number = number
        self.poll = poll
        self.reader = Reader()
        self.writer = Writer(-1, MAIL_QUEUE_BYTES)
        self.socket: _socket.socket | None = None
        self.open = True
        self.watched = 0
        self.dropped = 0

    @property
    def fd(self) -> int:
        """Of the socket."""
        return self.writer.fd

    def connect(self, socket: _socket.socket) -> None:
        """A process begins, or goes on under another parent."""
        self._report("it was not running")
        socket.setblocking(False)
        self.socket = socket
        self.writer.fd = socket.fileno()
        self.open = True
        self._watch(select.POLLIN)
        self.flush()

    def close(self) -> None:
        """The process ended, or closed its end: mail for it is dropped from now on."""
        self._stop_sending()
        self._watch(0)
        if self.socket is not None:
            self.socket.close()
            self.socket = None
            self.reader = Reader()

    def ignore(self) -> None:
        """Hear no more of the process, which is about to end, without closing the socket before it does."""
        self._stop_sending()
        self._watch(0)

    def receive(self) -> bytes | None:
        """What can be read now, b"" for nothing; None at the end."""
        if self.socket is None or not self.watched:
            return None
        try:
            return self.socket.recv(READ_BYTES) or None
        except BlockingIOError:
            return b""
        except OSError:
            return None

    def put(self, frame: bytes) -> None:
        """Queue a message, or count it as dropped."""
        if not self.open or not self.writer.put(frame):
            self.dropped += 1

    def tell(self, frame: bytes) -> None:
        """Queue a word of the parent's own, which is short and never dropped, unless the worker has ended."""
        if self.open and self.socket is not None:
            self.writer.put(frame, must=True)
            self.flush()

    def flush(self) -> None:
        """Write what the worker takes, and have `poll` say when it takes more."""
        if self.socket is None or not self.open:
            return
        try:
            done = self.writer.flush()
        except OSError:  # it has ended; its last words are still to be read
            self._stop_sending()
            done = True
        self._watch(select.POLLIN if done else select.POLLIN | select.POLLOUT)
        if done and self.open:
            self._report("it did not read them in time")

    def _stop_sending(self) -> None:
        if self.open:
            self._report("it did not read them in time")
        self.open = False
        self.writer.clear()

    def _watch(self, events: int) -> None:
        """What `poll` looks for; POLLOUT only while something waits, for else it would always be there."""
        if events == self.watched or self.socket is None:
            return
        if events:
            self.poll.register(self.socket.fileno(), events)  # modifies what is registered
        else:
            self.poll.unregister(self.socket.fileno())
        self.watched = events

    def _report(self, why: str) -> None:
        """Say how many messages were dropped, once it is over: a line for each would be a second flood."""
        if self.dropped:
            message = f"mail for worker {self.number} was dropped: {why}"
            logs.log("warning", message, messages=self.dropped)
            self.dropped = 0


class Exchange:
    """All lines. `lines` are those that receive what is sent to a number: `turn` hears others, too, of processes that
    are yet to serve or that leave."""

    __slots__ = ("_by_fd", "_poll", "lines")

    def __init__(self, workers: int, poll: select.poll) -> None:
        self._poll = poll
        self._by_fd: dict[int, Line] = {}
        self.lines = [Line(number, poll) for number in range(workers)]

    def new_line(self, number: int) -> Line:
        """One beside the line that receives for the number, until it is promoted."""
        return Line(number, self._poll)

    def promote(self, line: Line) -> None:
        """From now on this line receives what is sent to its number."""
        self.lines[line.number] = line

    def line_of(self, fd: int) -> Line | None:
        """The line whose socket a descriptor is."""
        return self._by_fd.get(fd)

    def connect(self, line: Line, socket: _socket.socket) -> None:
        """A process begins; the socket is ours from now on."""
        self._by_fd[socket.fileno()] = line
        line.connect(socket)

    def close(self, line: Line) -> None:
        """Its process has ended."""
        if line.socket is not None:
            self._by_fd.pop(line.socket.fileno(), None)
        line.close()

    def all_lines(self) -> list[Line]:
        """Of every process that runs."""
        return list(self._by_fd.values())

    def turn(self, line: Line, events: int) -> Iterator[bytes]:
        """Do what `poll` says can be done on a line, and give the words in it that are not mail.

        Raises:
            FrameError: the worker wrote what no worker writes.
        """
        if events & select.POLLOUT:
            line.flush()
        if events & ~select.POLLOUT:
            data = line.receive()
            if data is None:
                self.close(line)
            else:
                yield from self._sort(line, data)

    def last_words(self, line: Line) -> Iterator[bytes]:
        """What a process that has ended left in its line. Raises FrameError."""
        while data := line.receive():
            yield from self._sort(line, data)

    def _sort(self, line: Line, data: bytes) -> Iterator[bytes]:
        """Mail goes its way, other words are given."""
        try:
            for frame in line.reader.feed(data):
                if frame[:1] == MAIL:
                    self._route(line, frame)
                else:
                    yield frame
        finally:
            # Once for all the frames of a turn, and not where `poll` will say when.
            for each in self.lines:
                if each.writer.waiting and not each.watched & select.POLLOUT:
                    each.flush()

    def _route(self, sender: Line, frame: bytes) -> None:
        """To one worker, or to all but the process that sends it, which has kept its own copy."""
        receiver = peer_of(frame)
        frame = readdress(frame, sender.number)
        if receiver == EVERYONE:
            for line in self.lines:
                if line is not sender:  # of a process that leaves it may be the same number's
                    line.put(frame)
        elif receiver < len(self.lines):
            self.lines[receiver].put(frame)
        else:
            raise FrameError(f"mail for worker {receiver}")

"""Frames, the parent's part in mail, and Post, each by itself; `test_mail.py` has them all in real servers."""

from __future__ import annotations

import select
import socket
from collections.abc import Iterator

import pytest

from eighties import post
from eighties.post import MAIL_BYTES, MAIL_QUEUE_BYTES, Post
from eighties.serve import frames, logs, mail
from eighties.serve.frames import EVERYONE, FRAME_BYTES, FrameError, Reader, Writer, framed, pack_mail

# ---- frames ----


@pytest.mark.parametrize("size", [1, 2, 3, 7, 100, 10**6])
def test_frames_are_cut_the_same_however_they_come(size: int) -> None:
    contents = [b"a", b"bc" * 50, pack_mail(3, -1, 2**63 - 1, b"x" * MAIL_BYTES if size > 7 else b"hello")]
    stream = framed(*contents)
    reader = Reader()
    found = [frame for at in range(0, len(stream), size) for frame in reader.feed(stream[at : at + size])]
    assert found == contents


def test_mail_in_a_frame() -> None:
    frame = pack_mail(7, 2**62, -5, b"text")
    assert frames.unpack_mail(frame) == (7, 2**62, -5, b"text")
    assert frames.peer_of(frames.readdress(frame, 9)) == 9
    assert frames.unpack_mail(frames.readdress(frame, 9))[1:] == (2**62, -5, b"text")
    assert len(pack_mail(EVERYONE, 0, 0, b"x" * MAIL_BYTES)) == FRAME_BYTES
    with pytest.raises(FrameError):
        frames.unpack_mail(b"M123")


@pytest.mark.parametrize("data", [bytes(4), b"GET / HTTP/1.1\r\n", (FRAME_BYTES + 1).to_bytes(4, "big")])
def test_what_is_no_frame(data: bytes) -> None:
    reader = Reader()
    words = reader.feed(framed(b"good") + data)
    assert next(words) == b"good"
    with pytest.raises(FrameError):
        next(words)


def test_a_writer_is_bounded_and_loses_nothing_that_it_took() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.setblocking(False)
        writer = Writer(ours.fileno(), 100_000)
        sent: list[bytes] = []
        while writer.put(frame := str(len(sent)).encode() * 2000):
            sent.append(frame)
            if writer.flush():
                assert writer.waiting == 0
        assert 0 < writer.waiting <= 100_000
        assert writer.put(b"urgent", must=True)
        reader, got = Reader(), list[bytes]()
        while len(got) <= len(sent):
            got += reader.feed(theirs.recv(5000))
            writer.flush()
        assert got == [*sent, b"urgent"]
        theirs.close()
        writer.put(b"more")
        with pytest.raises(OSError):
            writer.flush()


# ---- the parent's part ----


class Parent:
    """An `Exchange` with its `poll`, and the workers' ends of its lines."""

    def __init__(self, workers: int) -> None:
        self.poll = select.poll()
        self.exchange = mail.Exchange(workers, self.poll)
        self.ends: dict[int, socket.socket] = {}
        self.readers: dict[int, Reader] = {}

    def start(self, *numbers: int) -> None:
        for number in numbers:
            ours, self.ends[number] = socket.socketpair()
            self.ends[number].setblocking(False)
            self.readers[number] = Reader()
            # The exchange closes the socket, as one of `_socket`.
            self.exchange.connect(self.exchange.lines[number], socket.socket(fileno=ours.detach()))

    def end(self, number: int) -> None:
        self.ends.pop(number).close()
        self.exchange.close(self.exchange.lines[number])

    def send(self, number: int, *contents: bytes) -> list[bytes]:
        """A worker writes; what the parent makes of it."""
        self.ends[number].sendall(framed(*contents))
        return self.turn()

    def turn(self) -> list[bytes]:
        """Whatever poll says, until it says nothing more."""
        words: list[bytes] = []
        while events := self.poll.poll(0):
            for fd, event in events:
                line = self.exchange.line_of(fd)
                assert line is not None
                words += self.exchange.turn(line, event)
        return words

    def got(self, number: int) -> list[tuple[int, int, int, bytes]]:
        """What has come for a worker by now."""
        try:
            data = self.ends[number].recv(10**7)
        except BlockingIOError:
            return []
        return [frames.unpack_mail(frame) for frame in self.readers[number].feed(data)]


@pytest.fixture
def parent() -> Iterator[Parent]:
    parent = Parent(3)
    yield parent
    for number in list(parent.ends):
        parent.end(number)


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, object]]:
    """Messages of the parent's log, each with how many messages were dropped."""
    lines: list[tuple[str, object]] = []
    monkeypatch.setattr(logs, "log", lambda level, message, **fields: lines.append((message, fields["messages"])))
    return lines


def test_the_parent_hands_mail_on(parent: Parent, told: list[tuple[str, object]]) -> None:
    parent.start(0, 1, 2)
    assert parent.send(0, pack_mail(1, 5, 6, b"a"), b"Word", pack_mail(EVERYONE, 7, 8, b"b")) == [b"Word"]
    assert parent.got(1) == [(0, 5, 6, b"a"), (0, 7, 8, b"b")]
    assert parent.got(2) == [(0, 7, 8, b"b")]
    assert parent.got(0) == []
    assert told == []


def test_mail_for_workers_that_are_yet_to_start_is_kept(parent: Parent) -> None:
    parent.start(0)
    parent.send(0, *(pack_mail(EVERYONE, n, 0, b"early") for n in range(3)))
    parent.start(1, 2)
    for number in (1, 2):
        assert [sender for _, sender, _, _ in parent.got(number)] == [0, 1, 2]


def test_mail_for_a_worker_that_does_not_run_is_dropped_and_told_once(
    parent: Parent, told: list[tuple[str, object]]
) -> None:
    parent.start(0, 1, 2)
    parent.end(1)
    parent.send(0, *[pack_mail(1, 0, 0, b"lost")] * 5, pack_mail(2, 0, 0, b"kept"))
    parent.send(2, pack_mail(EVERYONE, 0, 0, b"lost"))
    assert told == []
    parent.start(1)
    assert told == [("mail for worker 1 was dropped: it was not running", 6)]
    parent.send(0, pack_mail(1, 0, 0, b"new"))
    assert [message for *_, message in parent.got(1)] == [b"new"]
    assert [message for *_, message in parent.got(2)] == [b"kept"]


def test_a_worker_that_does_not_read_is_bounded_and_holds_up_nobody(
    parent: Parent, told: list[tuple[str, object]]
) -> None:
    parent.start(0, 1, 2)
    line = parent.exchange.lines[1]
    assert line.watched == select.POLLIN
    got: list[int] = []
    for n in range(200):
        parent.send(0, pack_mail(1, n, 0, b"x" * 50_000), pack_mail(2, n, 0, b"short"))
        assert [sender for _, sender, _, _ in parent.got(2)] == [n]
        assert line.writer.waiting <= MAIL_QUEUE_BYTES
    assert line.writer.waiting > MAIL_QUEUE_BYTES - 60_000
    assert line.watched == select.POLLIN | select.POLLOUT
    assert told == []  # the spell is not over
    dropped = line.dropped
    while len(got) < 200 - dropped:
        got += [sender for _, sender, _, _ in parent.got(1)]
        parent.turn()
    assert line.watched == select.POLLIN
    # The newest were dropped, the others came whole and in order.
    assert got == list(range(len(got)))
    assert told == [("mail for worker 1 was dropped: it did not read them in time", dropped)]


def test_a_stuck_worker_that_ends_is_told_of_too(parent: Parent, told: list[tuple[str, object]]) -> None:
    parent.start(0, 1)
    for _ in range(40):
        parent.send(0, pack_mail(1, 0, 0, b"x" * MAIL_BYTES))
    dropped = parent.exchange.lines[1].dropped
    assert dropped > 10
    parent.end(1)
    assert told == [("mail for worker 1 was dropped: it did not read them in time", dropped)]
    assert parent.exchange.lines[1].writer.waiting == 0


@pytest.mark.parametrize("data", [b"hello world", bytes(100), framed(b"M"), framed(pack_mail(3, 0, 0, b"nobody"))])
def test_nonsense_is_told_from_words(data: bytes, parent: Parent) -> None:
    parent.start(0, 1)
    parent.ends[0].sendall(framed(pack_mail(1, 0, 0, b"good")) + data)
    with pytest.raises(FrameError):
        parent.turn()
    assert [message for *_, message in parent.got(1)] == [b"good"]
    parent.exchange.lines[0].ignore()
    parent.ends[0].sendall(b"more")
    assert parent.turn() == []
    assert list(parent.exchange.last_words(parent.exchange.lines[0])) == []


def test_the_last_words_of_a_worker_are_heard(parent: Parent) -> None:
    parent.start(0, 1)
    parent.ends[0].sendall(framed(*[pack_mail(1, 0, 0, b"x" * 50_000)] * 3, b"Q")[:-1])
    parent.ends[0].close()
    assert list(parent.exchange.last_words(parent.exchange.lines[0])) == []  # the word was not whole
    assert len(parent.got(1)) == 3
    parent.turn()
    assert parent.exchange.lines[0].socket is None


# ---- Post ----


def test_there_is_no_post_outside_a_worker() -> None:
    with pytest.raises(RuntimeError, match="no worker"):
        post.here()
    alone = Post(0, 1, "name")
    post.use(alone)
    try:
        assert post.here() is alone
        assert (alone.number, alone.workers, alone.node) == (0, 1, "name")
        assert alone.mail(0, "nobody reads it") is False
        alone.quit()
    finally:
        post.use(None)


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ((0, b"x" * (MAIL_BYTES + 1)), ValueError, "at most 65536 bytes"),
        ((0, "é" * (MAIL_BYTES // 2 + 1)), ValueError, "at most 65536 bytes"),
        ((-1, b""), ValueError, "0 or more"),
        (("1", b""), TypeError, "a worker is a number"),
        ((0, 5), TypeError, "bytes or str, not int"),
        ((0, b"", 2**63), ValueError, "sender is no handle"),
        ((0, b"", 0, "x"), TypeError, "target is a handle"),
    ],
)
def test_what_cannot_be_sent(arguments: tuple[object, ...], error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        Post(0, 2, "name").mail(*arguments)  # type: ignore[arg-type]

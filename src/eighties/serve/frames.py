"""Frames: how parent and workers talk on the control socket, and how mail is written into a frame.

A frame is its length (4 bytes, big-endian), then so many bytes: a word of one byte and what belongs to it. A `Reader`
cuts a stream into frames, a `Writer` holds what the socket does not take yet; both are bounded, neither ever waits.
Both ends use them, so they import nothing: the parent shall stay small.
"""

from __future__ import annotations

import os

from ..post import MAIL_BYTES

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

READY, MAIL, QUIT = b"R", b"M", b"Q"
# RELOAD: a worker asks for it, the parent orders it. DONE: a worker has done it, or not. ENDED: all have.
RELOAD, DONE, ENDED = b"L", b"D", b"E"
# What is reloaded: the program with its site, or only what the site's folder holds; or the whole process is replaced.
PROGRAM, SITE, WHOLE = b"P", b"S", b"W"
# LEAVE: another process has taken the worker's place; back: the worker begins no request any more. FAILED: why one that
# was to take it cannot start. REPLACE: a worker asks for another in its place, and says why. PING: is the loop alive?
# PONG: it is.
LEAVE, FAILED, REPLACE, PING, PONG = b"V", b"F", b"X", b"I", b"O"

# After the word of mail: the receiver (to the parent) or sender (to a worker), then the two handles.
_PEER, _HANDLE = 4, 8
MAIL_HEAD = 1 + _PEER + 2 * _HANDLE
EVERYONE = 2 ** (8 * _PEER) - 1

FRAME_BYTES = MAIL_HEAD + MAIL_BYTES
LENGTH_BYTES = 4
# Read at once, in bytes: about one of the longest messages, so that the parent does each worker's in turn.
READ_BYTES = 64 * 1024


class FrameError(Exception):
    """What came is no frame, or one that nobody sends."""


class Reader:
    """Takes bytes as they come and gives whole frames; a part of one waits for the rest."""

    __slots__ = ("_data",)

    def __init__(self) -> None:
        self._data = bytearray()

    def feed(self, data: bytes) -> Iterator[bytes]:
        """The frames that are whole now, without their length. Raises FrameError after those that are good."""
        self._data += data
        while len(self._data) >= LENGTH_BYTES:
            length = int.from_bytes(self._data[:LENGTH_BYTES], "big")
            if not 0 < length <= FRAME_BYTES:
                raise FrameError(f"a frame of {length} bytes")
            end = LENGTH_BYTES + length
            if len(self._data) < end:
                return
            frame = bytes(self._data[LENGTH_BYTES:end])
            del self._data[:end]
            yield frame

    def rest(self) -> bytes:
        """The part of a frame that waits for the rest."""
        return bytes(self._data)

    def restore(self, data: bytes) -> None:
        """Begin with what another reader had."""
        self._data[:] = data


class Writer:
    """Writes frames to a non-blocking descriptor; what that does not take waits, up to so many bytes."""

    __slots__ = ("_data", "fd", "limit")

    def __init__(self, fd: int, limit: int) -> None:
        self.fd = fd
        self.limit = limit
        self._data = bytearray()

    @property
    def waiting(self) -> int:
        """Bytes that wait."""
        return len(self._data)

    def put(self, frame: bytes, *, must: bool = False) -> bool:
        """Queue a frame. False: it has no room, and is not queued. `must`: it gets room; for what is short and rare."""
        size = LENGTH_BYTES + len(frame)
        if len(self._data) + size > self.limit and not must:
            return False
        self._data += framed(frame)
        return True

    def flush(self) -> bool:
        """Write what the descriptor takes now. True: nothing waits any more. Raises OSError: nobody reads there."""
        try:
            while self._data:
                del self._data[: os.write(self.fd, self._data)]
        except BlockingIOError:
            return False
        return True

    def rest(self) -> bytes:
        """What waits."""
        return bytes(self._data)

    def restore(self, data: bytes) -> None:
        """Begin with what waited in another writer."""
        self._data[:] = data

    def clear(self) -> None:
        """Forget what waits."""
        self._data.clear()


def framed(*frames: bytes) -> bytes:
    """Frames as the socket carries them."""
    return b"".join(len(frame).to_bytes(LENGTH_BYTES, "big") + frame for frame in frames)


def pack_mail(peer: int, sender: int, target: int, message: bytes) -> bytes:
    """The frame of a message. `peer`: the receiver's number or EVERYONE, or on its second half the sender's."""
    handles = sender.to_bytes(_HANDLE, "big", signed=True) + target.to_bytes(_HANDLE, "big", signed=True)
    return MAIL + peer.to_bytes(_PEER, "big") + handles + message


def unpack_mail(frame: bytes) -> tuple[int, int, int, bytes]:
    """Peer, the sender's handle, the receiver's, the message. Raises FrameError."""
    peer = peer_of(frame)
    handles = frame[1 + _PEER : MAIL_HEAD]
    sender = int.from_bytes(handles[:_HANDLE], "big", signed=True)
    return peer, sender, int.from_bytes(handles[_HANDLE:], "big", signed=True), frame[MAIL_HEAD:]


def peer_of(frame: bytes) -> int:
    """Whom a message is for. Raises FrameError."""
    if len(frame) < MAIL_HEAD:
        raise FrameError(f"mail of {len(frame)} bytes")
    return int.from_bytes(frame[1 : 1 + _PEER], "big")


# The rest of a frame after the words of reloading: numbers, then texts.
_NUMBER = 4
# Of one failure, in bytes: a few workers' fit into a frame, and a longer traceback is read in the file anyway.
FAILURE_BYTES = 8 * 1024


def pack_order(kind: bytes, number: int) -> bytes:
    """RELOAD: to the parent with the worker's ticket, or 0; to a worker with the number of the round."""
    return RELOAD + kind + number.to_bytes(_NUMBER, "big")


def unpack_order(frame: bytes) -> tuple[bytes, int]:
    """Kind and number. Raises FrameError."""
    kind = frame[1:2]
    if len(frame) != 2 + _NUMBER or kind not in (PROGRAM, SITE, WHOLE):
        raise FrameError(f"the order {frame[:20]!r}")
    return kind, int.from_bytes(frame[2:], "big")


def pack_done(number: int, failure: tuple[str, str] | None) -> bytes:
    """DONE: the round's number; message and traceback of what failed."""
    return DONE + number.to_bytes(_NUMBER, "big") + (b"" if failure is None else _pack_failure(*failure))


def unpack_done(frame: bytes) -> tuple[int, tuple[str, str] | None]:
    """The round's number, and what failed. Raises FrameError."""
    if len(frame) < 1 + _NUMBER:
        raise FrameError(f"the word {frame[:20]!r}")
    data = frame[1 + _NUMBER :]
    return int.from_bytes(frame[1 : 1 + _NUMBER], "big"), _unpack_failure(data) if data else None


def pack_failed(message: str, traceback: str) -> bytes:
    """FAILED: why the program cannot start."""
    return FAILED + _pack_failure(message, traceback)


def unpack_failed(frame: bytes) -> tuple[str, str]:
    """Message and traceback."""
    return _unpack_failure(frame[1:])


def pack_ended(ticket: int, failures: list[tuple[int, str, str]]) -> bytes:
    """ENDED: the last of the worker's tickets that this was for, then each worker's failure, as far as they fit."""
    frame = ENDED + ticket.to_bytes(_NUMBER, "big")
    for worker, message, traceback in failures:
        data = _pack_failure(message, traceback)
        more = worker.to_bytes(_NUMBER, "big") + len(data).to_bytes(_NUMBER, "big") + data
        if len(frame) + len(more) > FRAME_BYTES:
            break
        frame += more
    return frame


def unpack_ended(frame: bytes) -> tuple[int, list[tuple[int, str, str]]]:
    """The ticket, and the failures."""
    at = 1 + _NUMBER
    ticket = int.from_bytes(frame[1:at], "big")
    failures = []
    while at < len(frame):
        worker = int.from_bytes(frame[at : at + _NUMBER], "big")
        start = at + 2 * _NUMBER
        at = start + int.from_bytes(frame[at + _NUMBER : start], "big")
        failures.append((worker, *_unpack_failure(frame[start:at])))
    return ticket, failures


def _pack_failure(message: str, traceback: str) -> bytes:
    parts = [text.replace("\0", "?").encode("utf-8", "backslashreplace") for text in (message, traceback)]
    head = parts[0][: FAILURE_BYTES // 2]
    return head + b"\0" + parts[1][-(FAILURE_BYTES - len(head)) :]


def _unpack_failure(data: bytes) -> tuple[str, str]:
    message, _, traceback = data.decode("utf-8", "replace").partition("\0")
    return message, traceback


def readdress(frame: bytes, peer: int) -> bytes:
    """The same message with another number in its head."""
    return frame[:1] + peer.to_bytes(_PEER, "big") + frame[1 + _PEER :]

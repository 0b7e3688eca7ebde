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


def readdress(frame: bytes, peer: int) -> bytes:
    """The same message with another number in its head."""
    return frame[:1] + peer.to_bytes(_PEER, "big") + frame[1 + _PEER :]

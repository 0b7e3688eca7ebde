"""Post: what a worker knows of itself and the others, its mail to them, and the word that ends the server.

`net` and `aio` hand it on to programs. The worker puts one in use before it loads the program and takes it back after
the last on_stop hook; that one, `_post`, is the only state. The way of a message is in `serve/link.py` (worker) and
`serve/mail.py` (parent); the parent takes the bounds from here, so this module imports nothing that is large.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Protocol

    from .promise import Promise

    class Link(Protocol):
        """What carries the mail: `serve.link.Link`."""

        def mail(self, worker: int | None, sender: int, target: int, message: bytes) -> bool:
            """As `Post.mail`, with arguments that have been looked at."""

        def quit(self) -> None:
            """Ask the parent to stop the server."""

        def reload(self, full: bool = False) -> Promise:
            """As `Post.reload`."""


MAIL_BYTES = 64 * 1024
"""The longest message, in bytes. Mail is for words between workers, what is larger belongs into a file or a database;
and the parent, through which all mail goes, reads one message of each worker in turn, so none waits long."""

MAIL_QUEUE_BYTES = 1024 * 1024
"""Bytes that may wait at each end: in a worker for the parent, in the parent for each worker, in a worker for its hook.
Sixteen of the longest messages, thousands of short ones: a worker that is further behind than that will not catch up
in a moment, and the parent, which shall stay small, holds a megabyte for each worker that is stuck and no more."""

_LARGEST_HANDLE = 2**63 - 1


class Post:
    """A worker's place among the workers. `here()` gives the one of this process.

    Arguments:
        number: this worker's number, from 0.
        workers: how many there are.
        node: name of this server among others.
        link: what carries the mail; without one, all mail is refused.
    """

    __slots__ = ("_link", "node", "number", "workers")

    def __init__(self, number: int, workers: int, node: str, link: Link | None = None) -> None:
        self.number = number
        self.workers = workers
        self.node = node
        self._link = link

    def mail(self, worker: int | None, message: bytes | str, sender: int = 0, target: int = 0) -> bool:
        """Send a message to a worker's `on_message(sender_worker, sender_fd, elfd, fd, message)`.

        It is delivered by the receiver's loop, never from within this call. Messages from one worker to another arrive
        in the order they were sent. A message is lost when its receiver ends, or does not run, or does not read while
        MAIL_QUEUE_BYTES wait for it; the parent logs how many. Call it from the loop's thread only.

        Arguments:
            worker: a number; None: every worker, this one too.
            message: at most MAIL_BYTES; text is sent as UTF-8.
            sender: the handle of a socket of this worker that an answer may be meant for, as `sender_fd`; 0: none.
            target: the handle of a socket of the receiver that the message is for, as `fd`; 0: none.
        Returns:
            False: there is no such worker, or the queue is full: for oneself and for all the queue of the own hook, for
            others and for all the queue to the parent. Then nobody gets the message.
        Raises:
            ValueError: the message is too long, a worker's number is negative, a handle is no 64-bit number.
            TypeError: the message is neither text nor bytes, or a number is none.
        """
        data = _encode(message)
        for name, handle in (("sender", sender), ("target", target)):
            if not isinstance(handle, int):
                raise TypeError(f"mail: {name} is a handle, a whole number, not {handle!r}")
            if not -_LARGEST_HANDLE <= handle <= _LARGEST_HANDLE:
                raise ValueError(f"mail: {name} is no handle: {handle}")
        if worker is not None:
            if not isinstance(worker, int):
                raise TypeError(f"mail: a worker is a number, or None for all, not {worker!r}")
            if worker < 0:
                raise ValueError(f"mail: a worker's number is 0 or more, or None for all, not {worker}")
            if worker >= self.workers:
                return False
        return self._link is not None and self._link.mail(worker, sender, target, data)

    def quit(self) -> None:
        """Stop the whole server, as SIGTERM does: what is under way is answered, exit code 0. Again: no change."""
        if self._link is not None:
            self._link.quit()

    def reload(self, full: bool = False) -> Promise:
        """Have every worker run the program again. The promise's value is a list of failures, empty when all is well.
        `full`: in a fresh process.

        Raises:
            RuntimeError: there is no server (`--cli`), no loop, or the program is being loaded just now.
        """
        if self._link is None:
            raise RuntimeError("net.reload: there is no server to be reloaded")
        return self._link.reload(full)


def _encode(message: bytes | str) -> bytes:
    """The message as bytes, if it may be sent."""
    if isinstance(message, str):
        message = message.encode()
    elif not isinstance(message, (bytes, bytearray, memoryview)):
        raise TypeError(f"mail: a message is bytes or str, not {type(message).__name__}")
    data = bytes(message)
    if len(data) > MAIL_BYTES:
        raise ValueError(f"mail: a message has at most {MAIL_BYTES} bytes (MAIL_BYTES), not {len(data)}")
    return data


_post: Post | None = None


def here() -> Post:
    """The Post of this worker.

    Raises:
        RuntimeError: this process is no worker of a server.
    """
    if _post is None:
        raise RuntimeError("this process is no worker: mail, quit and worker numbers exist in programs run by 80s only")
    return _post


def use(post: Post | None) -> None:
    """Make `here()` give this one; None: it raises again. For the worker, and for tests."""
    global _post
    _post = post

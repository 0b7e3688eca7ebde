"""net: the raw level of the API, as the ancestor's README names it. `elfd` is a worker's loop, `childfd` a connection.

A face: most names are handed on from the rooms that do the work; what stands here is only small. `childfd` is a handle,
not a descriptor's number: no other connection of the process ever has it, so one that is closed is nobody's.
Keeps no state.
"""

from __future__ import annotations

import errno
import re
import time
from typing import Any, TypeVar

from ._engine import MultiDict, close, engine_of, find_socket, write
from .files import listdir, mkdir, readfile

__all__ = [
    "ELFD",
    "clock",
    "close",
    "connect",
    "info",
    "listdir",
    "mail",
    "mkdir",
    "parse_http_headers",
    "partscan",
    "popen",
    "quit",
    "readfile",
    "reload",
    "sockname",
    "write",
]

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .promise import Promise

    ELFD: int
    """This worker's loop, the `elfd` of every call."""
else:  # type checkers would believe any name of a module that has a __getattr__

    def __getattr__(name: str) -> object:
        if name != "ELFD":
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        try:
            return engine_of().fileno()
        except OSError:
            raise AttributeError(
                "net.ELFD: the engine runs only in a worker, and once on_init has been called"
            ) from None


Text = TypeVar("Text", str, bytes)

# ---- connections, processes, workers ----


def connect(elfd: int, host: str, port: int, udp: bool = False) -> int:
    """Open a connection, and return its handle at once; `on_write` tells when it is made, `on_close` when it is not.

    Arguments:
        elfd: this worker's loop, `net.ELFD`.
        host: a name (resolved without blocking), an address, `v6:NAME` for IPv6 only, `unix:PATH`.
        port: its port; ignored for `unix:`.
        udp: datagrams instead of a stream.
    Raises:
        OSError: there is no such loop.
        ValueError: the port is none.
    """
    from .outgoing import open_raw

    return open_raw(elfd, host, port, udp)


def popen(elfd: int, command: str, *args: object) -> tuple[int, int]:
    """Start a process without a shell: handles to read its output from, and to write its input to.

    Arguments:
        command: a path, or a name that is looked for in PATH.
        args: its arguments, as text.
    Raises:
        OSError: there is no such command, or no such loop.
    """
    from .outgoing import popen_raw

    return popen_raw(elfd, command, *args)


def sockname(childfd: int) -> tuple[str, int]:
    """The other end of a connection: address and port; `("unix", 0)` for a unix socket.

    Raises:
        OSError: EBADF for a handle that is closed or no connection's, ENOTSOCK for a pipe.
    """
    sock = find_socket(engine_of().fileno(), childfd)
    if sock is None or sock.closed:
        raise OSError(errno.EBADF, f"there is no connection {childfd}")
    peer = sock.peername
    if peer is None:
        raise OSError(errno.ENOTSOCK, f"{childfd} has no other end with an address")
    return (peer, 0) if isinstance(peer, str) else peer


def mail(worker: int | None, message: bytes | str, sender: int = 0, target: int = 0) -> bool:
    """Send a message to a worker's `on_message(sender_worker, sender_fd, elfd, fd, message)`.

    Arguments:
        worker: its number; None for every worker, this one too.
        message: at most 64 kB; text is sent as UTF-8.
        sender: a handle of this worker, to be answered to; its `sender_fd`.
        target: a handle of that worker; its `fd`.
    Returns:
        False where there is no such worker, or its queue is full.
    Raises:
        ValueError: the message is too long.
        RuntimeError: this process is no worker.
    """
    from .post import here

    return here().mail(worker, message, sender, target)


def reload(full: bool = False) -> Promise:
    """Run the program again in all workers: new requests run the new code, those under way end with the old.

    Arguments:
        full: replace the processes, so that packages and the engine are loaded anew, too. The caller's process leaves
            when what is under way in it has ended; connections that wait for a request move to the new one.
    Returns:
        A promise. Its value comes when every worker is done: a list of failures `(worker, message, traceback)`, empty
        when all is well. A worker that fails serves on with the old program.
    Raises:
        RuntimeError: there is no server to be reloaded (`--cli`), or the program is being loaded just now.
    """
    from .post import here

    return here().reload(full)


def quit() -> None:
    """Stop the server, all workers, as SIGTERM does: what is under way is finished first.

    Raises:
        RuntimeError: this process is no worker.
    """
    from .post import here

    here().quit()


# ---- facts ----


def info() -> dict[str, Any]:
    """What is running: `about()`, and in a worker `worker`, `workers`, `node`, and the engine's counters."""
    from .app import about
    from .post import here

    facts: dict[str, Any] = dict(about())
    try:
        post = here()
        facts.update(worker=post.number, workers=post.workers, node=post.node)
    except RuntimeError:  # no worker: `--cli`, or a test
        pass
    try:
        engine = engine_of()
        facts.update(engine.stats(), connections=engine.connections, tasks=engine.tasks)
    except OSError:  # not serving yet
        pass
    return facts


def clock() -> float:
    """Seconds of a clock that never goes back; only differences mean something."""
    return time.monotonic()


# ---- bytes ----


def partscan(haystack: Text, needle: Text, offset: int = 0) -> tuple[int, int]:
    """Find a needle, or the start of one that may go on in the next chunk. Linear in time.

    Arguments:
        haystack, needle: both text or both bytes.
        offset: where to begin.
    Returns:
        (position, length): of the first whole match; else of the longest start of the needle with which the haystack
        ends; else (len(haystack), 0), as for an empty needle. Positions count from 0.
    Raises:
        ValueError: a negative offset.
    """
    if offset < 0:
        raise ValueError(f"partscan: offset {offset} is negative")
    size = len(haystack)
    found = haystack.find(needle, offset) if needle else -1
    if found >= 0:
        return found, len(needle)
    tail = haystack[max(offset, size - len(needle) + 1) :] if needle else haystack[:0]
    length = _overlap(tail, needle[: len(tail)])
    return size - length, length


def _overlap(tail: Text, start: Text) -> int:
    """Length of the longest end of `tail` that is a beginning of `start`: Knuth, Morris and Pratt (1977).

    Both are of the same length. Comparing every length would be quadratic, and a client may choose both texts.
    """
    if not tail:
        return 0
    back = [0] * len(start)  # back[i]: longest proper beginning that start[:i + 1] ends with
    length = 0
    for index in range(1, len(start)):
        while length and start[index] != start[length]:
            length = back[length - 1]
        length += start[index] == start[length]
        back[index] = length
    length = 0
    for item in tail:
        while length and item != start[length]:
            length = back[length - 1]
        length += item == start[length]
    return length


_TOKEN = r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"  # RFC 9110 §5.6.2
_REQUEST_LINE = re.compile(rf"({_TOKEN}) ([!-~\x80-\U0010ffff]+) (HTTP/\d\.\d)")
_STATUS_LINE = re.compile(r"(HTTP/\d\.\d) (\d{3})(?: ([\t -~\x80-\U0010ffff]*))?")
_FIELD = re.compile(rf"({_TOKEN}):([\t -~\x80-\U0010ffff]*)")


def parse_http_headers(data: bytes | str) -> MultiDict:
    """The head of a request or an answer, strictly as RFC 9112 §2–5 has it.

    Arguments:
        data: from the first line on, with or without the empty line at the end. Bytes are read as UTF-8.
    Returns:
        Header fields by lower-case name, in any case; and `:method`, `:script`, `:http` of a request line, or `:http`,
        `:status`, `:reason` of a status line.
    Raises:
        ValueError: names the line that is wrong, and how.
    """
    text = data.decode("utf-8", "replace") if isinstance(data, bytes) else data
    first, *lines = text.removesuffix("\r\n").removesuffix("\r\n").split("\r\n")
    pairs = _start_line(first)
    for number, line in enumerate(lines, 2):
        match = _FIELD.fullmatch(line)
        if match is None:
            raise ValueError(f"line {number}: {_complaint(line)}: {_shown(line)}")
        pairs.append((match[1].lower(), match[2].strip(" \t")))
    return MultiDict(pairs, True)


def _start_line(line: str) -> list[tuple[str, str]]:
    if (match := _STATUS_LINE.fullmatch(line)) is not None:
        return [(":http", match[1]), (":status", match[2]), (":reason", match[3] or "")]
    if (match := _REQUEST_LINE.fullmatch(line)) is not None:
        return [(":method", match[1]), (":script", match[2]), (":http", match[3])]
    raise ValueError(f"line 1: neither a request line nor a status line: {_shown(line)}")


def _complaint(line: str) -> str:
    """What is wrong with a header field."""
    if not line:
        return "an empty line within the head"
    if "\r" in line or "\n" in line:
        return "a CR or LF by itself"
    if line[0] in " \t":
        return "a line folded onto the one before (obsolete)"
    if not re.match(rf"{_TOKEN}:", line):
        return "no field: a name, a colon, a value"
    return "a control character"


def _shown(line: str) -> str:
    return ascii(line if len(line) <= 60 else line[:60] + "…")

"""aio: the high level of the API, under the ancestor's names ("Async helpers" in its README; here docs/async.md).

A face that hands names on: promises from `promise`, `cached` from `cache`, sockets as streams from `streams`, what a
program opens from `outgoing`, files from `files`, handlers from `handlers`, URLs from `urls`. Keeps no state.
"""

from __future__ import annotations

from . import _engine
from .cache import cached
from .files import watch
from .handlers import (
    Answer,
    add_protocol_handler,
    http_any,
    http_get,
    http_post,
    stream_http_any,
    stream_http_get,
    stream_http_post,
)
from .outgoing import connect, connect2, popen, popen_read
from .promise import BrokenPromise, Promise, async_, await_, chain, gather, map, prepare_promise
from .streams import Overflow, Socket, buffered_cor, cor, get_ip, read_stream
from .urls import create_query, decrypt, encrypt, parse_query, set_master_key, to_url

__all__ = [
    "Answer",
    "BrokenPromise",
    "Overflow",
    "Promise",
    "Socket",
    "add_protocol_handler",
    "async_",
    "await_",
    "buffered_cor",
    "cached",
    "chain",
    "connect",
    "connect2",
    "cor",
    "create_query",
    "decrypt",
    "encrypt",
    "gather",
    "get_ip",
    "http_any",
    "http_get",
    "http_post",
    "mail",
    "map",
    "parse_query",
    "popen",
    "popen_read",
    "prepare_promise",
    "read_stream",
    "set_master_key",
    "stream_http_any",
    "stream_http_get",
    "stream_http_post",
    "to_url",
    "watch",
]


def mail(*, worker: int | None, message: bytes | str, sender: int | _engine.Socket = 0, target: int = 0) -> bool:
    """Send a message to a worker's `on_message`: `net.mail` with the ancestor's keywords.

    Arguments:
        worker: its number; None for every worker, this one too.
        message: at most 64 kB; text is sent as UTF-8.
        sender: a socket of this worker, or its handle.
        target: a handle of that worker.
    Returns:
        False where there is no such worker, or its queue is full.
    Raises:
        ValueError: the message is too long.
        RuntimeError: this process is no worker.
    """
    from .post import here

    return here().mail(worker, message, sender.fd if isinstance(sender, _engine.Socket) else sender, target)

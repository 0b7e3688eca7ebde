"""What a server weighs while thousands of keep-alive connections do nothing."""

import resource
import socket
from contextlib import ExitStack
from dataclasses import dataclass

from exchange import connect, exchange
from processes import Server, ServerError

PER_ADDRESS = 2000  # connections from one source address: far below the number of ephemeral ports
SPARE_DESCRIPTORS = 1000  # what a process has open besides


@dataclass(frozen=True)
class Idle:
    connections: int
    rest: int  # PSS in bytes before the first of them
    pss: int
    alone: int  # as processes.Memory has it


def allow_descriptors(connections: int) -> str | None:
    """Raises this process's limit of open files, which servers inherit. The reason if that cannot be done."""
    need = connections + SPARE_DESCRIPTORS
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft >= need:
        return None
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (need, max(need, hard)))
    except (OSError, ValueError):
        return f"only {hard} open files are allowed here"
    return None


def _is_open(connection: socket.socket) -> bool:
    connection.setblocking(False)
    try:
        return len(connection.recv(1, socket.MSG_PEEK)) > 0
    except BlockingIOError:
        return True
    except OSError:
        return False


def hold(server: Server, port: int, path: str, count: int) -> Idle:
    """Opens `count` connections, makes one request on each, and weighs the server with all of them open."""
    rest = server.memory().pss
    with ExitStack() as stack:
        connections: list[socket.socket] = []
        for number in range(count):
            try:
                connection = connect(port, f"127.0.0.{1 + number // PER_ADDRESS}")
                connections.append(stack.enter_context(connection))
                exchange(connection, path)
            except OSError as error:
                server.check()
                raise ServerError(f"idle connection {number + 1} failed: {error}") from error
        memory = server.memory()
        still_open = sum(_is_open(connection) for connection in connections)
    if still_open < count:
        raise ServerError(f"{count - still_open} of {count} idle connections were closed by the server")
    return Idle(count, rest, memory.pss, memory.alone)

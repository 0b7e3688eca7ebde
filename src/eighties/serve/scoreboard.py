"""Scoreboard: one shared page with rows of counters, two for each worker.

The parent makes the memory and only clears a row when its process has ended; each worker writes its own row (the
engine does, in C) and may read all of them. A row is one cache line, so no worker slows another. There are two for each
number, as a process that leaves counts on while the next one serves. `_board` is this worker's view of the page.
"""

from __future__ import annotations

import os

ROW_SIZE = 64  # one cache line: eight counters of eight bytes
# Of each worker: of the process that serves, and of the one before it while that still leaves.
ROWS = 2

_board: memoryview | None = None


def memory(name: str) -> int:
    """Descriptor of a file that has no name and is in memory where the system knows such; `name` is for people.

    Raises:
        OSError: there is no room for it.
    """
    try:
        return os.memfd_create(name, os.MFD_CLOEXEC)
    except (AttributeError, OSError):  # not Linux, or a kernel that forbids it
        import tempfile

        fd, path = tempfile.mkstemp(prefix=name.replace(" ", "-"))
        os.unlink(path)
        return fd


def create(workers: int) -> int:
    """Descriptor of zeroed shared memory with the rows of so many workers. No file remains of it."""
    fd = memory("80s scoreboard")
    os.ftruncate(fd, workers * ROWS * ROW_SIZE)
    return fd


def clear(fd: int, row: int) -> None:
    """Forget what a process that has ended had counted."""
    os.pwrite(fd, bytes(ROW_SIZE), row * ROW_SIZE)


def attach(fd: int, row: int) -> memoryview:
    """Map the shared memory into this worker and return the worker's own row, zeroed."""
    import mmap

    global _board
    # The mapping begins at a page, so each row is aligned.
    _board = memoryview(mmap.mmap(fd, os.fstat(fd).st_size))
    mine = _board[row * ROW_SIZE : (row + 1) * ROW_SIZE]
    mine[:] = bytes(ROW_SIZE)
    return mine


def read() -> list[dict[str, int]]:
    """The counters of every worker, in the order of their numbers; `[]` outside a worker."""
    if _board is None:
        return []
    from .._engine import SCOREBOARD

    counters = _board.cast("Q").tolist()
    width = ROW_SIZE // 8
    rows = [counters[start : start + width] for start in range(0, len(counters), width)]
    workers = len(rows) // ROWS
    return [
        {name: sum(row[at] for row in rows[number::workers]) for at, name in enumerate(SCOREBOARD)}
        for number in range(workers)
    ]


def total() -> dict[str, int]:
    """The counters of the whole server."""
    workers = read()
    return {name: sum(worker[name] for worker in workers) for name in workers[0]} if workers else {}

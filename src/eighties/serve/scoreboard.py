"""Scoreboard: one shared page with a slot of counters for each worker.

The parent makes the memory and only keeps it; each worker writes its own slot (the engine does, in C) and may read
all of them. A slot is one cache line, so no worker slows another. `_board` is this worker's view of the page.
"""

from __future__ import annotations

import os

SLOT_SIZE = 64  # one cache line: eight counters of eight bytes

_board: memoryview | None = None


def create(workers: int) -> int:
    """Descriptor of zeroed shared memory with a slot for each worker. No file remains of it."""
    try:
        fd = os.memfd_create("80s scoreboard", os.MFD_CLOEXEC)
    except (AttributeError, OSError):  # not Linux, or a kernel that forbids it
        import tempfile

        fd, path = tempfile.mkstemp(prefix="80s-scoreboard-")
        os.unlink(path)
    os.ftruncate(fd, workers * SLOT_SIZE)
    return fd


def attach(fd: int, number: int) -> memoryview:
    """Map the shared memory into this worker and return the worker's own slot, zeroed."""
    import mmap

    global _board
    # The mapping begins at a page, so each slot is aligned.
    _board = memoryview(mmap.mmap(fd, os.fstat(fd).st_size))
    slot = _board[number * SLOT_SIZE : (number + 1) * SLOT_SIZE]
    slot[:] = bytes(SLOT_SIZE)
    return slot


def read() -> list[dict[str, int]]:
    """The counters of every worker, in the order of their numbers; `[]` outside a worker."""
    if _board is None:
        return []
    from .._engine import SCOREBOARD

    counters = _board.cast("Q").tolist()
    width = SLOT_SIZE // 8
    return [
        dict(zip(SCOREBOARD, counters[start : start + width], strict=True)) for start in range(0, len(counters), width)
    ]


def total() -> dict[str, int]:
    """The counters of the whole server."""
    slots = read()
    return {name: sum(slot[name] for slot in slots) for name in slots[0]} if slots else {}

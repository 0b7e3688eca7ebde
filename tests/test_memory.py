"""When memory ends: one allocation after another fails, and nobody loses a connection by it."""

from __future__ import annotations

import pytest
from moving import GET, Move, moving


@moving
async def test_without_memory_it_stays(move: Move) -> None:
    """Whichever allocation fails: what cannot be handed out is served on, and the error is that one."""
    memory = pytest.importorskip("_testcapi")
    peer = await move.client(GET)
    assert await peer.answer() == "old"
    failed = 0
    for allocation in range(20):
        memory.set_nomemory(allocation, allocation + 1)
        try:
            given = move.old.give_away(100, 1)
        except MemoryError:
            given = None
            failed += 1
        finally:
            memory.remove_mem_hooks()
        for item in move.old.give_away(100, 1) if given is None else given:
            move.old.adopt(*item)
        await peer.send(GET)
        assert await peer.answer() == "old"
    assert failed

"""Wear: when a worker is to be replaced for its age: `--max-requests`, `--max-rss`, `--worker-lifetime`.

The worker makes one when it serves. It looks once a second, and only where one of the options is given; what it finds
it tells the parent, which starts another process and has this one leave when that serves. No request is lost by it.
"""

from __future__ import annotations

import asyncio
import os
import resource
import sys
from typing import TYPE_CHECKING

from . import logs

if TYPE_CHECKING:
    from collections.abc import Callable

    from .._engine import Engine
    from .settings import Settings

LOOK = 1.0
# Seconds until the parent is asked again: the process that was to come may have failed.
ASK_AGAIN = 60.0
# Each worker draws its own limits of requests and lifetime, up to so much above what is given, so that not all of them
# are replaced at once.
JITTER = 0.1
MEGABYTE = 1024 * 1024


class Wear:
    """Arguments: the settings; the engine, whose requests count; the loop; `ask`, which is told why it is time."""

    def __init__(
        self, settings: Settings, engine: Engine, loop: asyncio.AbstractEventLoop, ask: Callable[[str], None]
    ) -> None:
        self._engine = engine
        self._loop = loop
        self._ask = ask
        spread = 1 + os.urandom(1)[0] / 256 * JITTER
        self._most_requests = settings.max_requests * spread
        self._end = loop.time() + settings.worker_lifetime * spread if settings.worker_lifetime else 0.0
        self._most_bytes = settings.max_rss * MEGABYTE
        self._big_from = loop.time()  # when memory begins to count
        if used := self._find_too_much():  # so will the next one have: they must not follow on each other
            self._big_from += ASK_AGAIN
            logs.log("warning", f"a fresh worker has {used} already, and --max-rss allows less")
        self._timer: asyncio.TimerHandle | None = None
        if self._most_requests or self._end or self._most_bytes:
            self._timer = loop.call_later(LOOK, self._look)

    def close(self) -> None:
        """Look no more."""
        if self._timer is not None:
            self._timer.cancel()

    def _look(self) -> None:
        why = self._find()
        if why:
            self._ask(why)
        self._timer = self._loop.call_later(ASK_AGAIN if why else LOOK, self._look)

    def _find(self) -> str:
        """Why it is time, or nothing."""
        requests = self._engine.stats()["requests"]
        if self._most_requests and requests >= self._most_requests:
            return f"{requests} requests"
        if self._end and self._loop.time() >= self._end:
            return "its lifetime is over"
        return self._find_too_much() if self._loop.time() >= self._big_from else ""

    def _find_too_much(self) -> str:
        if self._most_bytes and (used := resident()) >= self._most_bytes:
            return f"{used // MEGABYTE} MB of memory"
        return ""


def resident() -> int:
    """Bytes of memory that this process has now; where the system does not tell, the most it ever had."""
    try:
        with open("/proc/self/statm", encoding="ascii") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, IndexError, ValueError):
        most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return most if sys.platform == "darwin" else most * 1024

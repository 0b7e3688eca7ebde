"""Reload in place: a worker loads its program anew and swaps it in, or serves on with the old one.

`Reloader` does what the parent orders, one after the other. `Served` is a program with its routes while any request
may still run its code. The worker owns both; what each step does to the engine stands in `worker.py`.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import sys
import typing
from collections import deque
from contextvars import copy_context
from typing import TYPE_CHECKING

from . import logs
from .frames import SITE
from .fresh import Change
from .link import Loading
from .loader import LoadError, Program

if TYPE_CHECKING:
    from .._engine import Request, Route
    from .worker import Worker

# Seconds between looks at whether old programs still have requests.
SHORTEST_LOOK, LONGEST_LOOK = 0.02, 1.0
# Of the loop, until it has let go of what has ended.
LAST_TURNS = 3
# Seconds that a reload waits until those before it are freed: quick ones shall not need memory for many programs.
ROOM_TIME = 0.2


class Served:
    """A program that is served, in the context in which its on_start hooks have left it."""

    def __init__(self, program: Program) -> None:
        self.program = program
        self.context = copy_context()
        handlers = sys.modules.get("eighties.handlers")
        # Of protocols, which a program has registered while it was loaded; None: HTTP only.
        self.choose = handlers.chooser() if handlers is not None and handlers.has_protocols() else None
        self._parts: list[_Part] = []

    def routes(self) -> tuple[list[Route], dict[int, Route]]:
        """Routes and fallbacks, made anew; those made before are remembered while requests hold them."""
        self._parts = [part for part in self._parts if part.is_held()]
        app = self.program.app
        routes = app.routes()
        fallbacks = app.fallbacks()
        self._parts.append(_Part([*routes, *fallbacks.values()]))
        return routes, fallbacks

    def has(self, request: Request) -> bool:
        """Whether a request is this program's."""
        return any(request.route is route for part in self._parts for route in part.routes)

    def is_over(self) -> bool:
        """Whether no request is under way, once the engine serves another program."""
        return not any(part.is_held() for part in self._parts)


class _Part:
    """Routes that the engine was given together. A request holds its route, and nothing else tells that it is there."""

    def __init__(self, routes: list[Route]) -> None:
        self.routes = routes
        # Made while the caller's list or dictionary holds each, too.
        self._usual = [count - 1 for count in self._counts()]

    def is_held(self) -> bool:
        return any(count > usual for count, usual in zip(self._counts(), self._usual, strict=True))

    def _counts(self) -> list[int]:
        return [sys.getrefcount(route) for route in self.routes]


class Reloader:
    """A worker's part in reloads. `old` are the programs that still have requests."""

    def __init__(self, worker: Worker) -> None:
        self.worker = worker
        self.old: list[Served] = []
        self._broken = False
        self._orders: deque[tuple[bytes, int]] = deque()
        self._ready = False
        self._task: asyncio.Task[None] | None = None
        self._caring: asyncio.Task[None] | None = None
        self._hurry = asyncio.Event()
        self._freed = asyncio.Event()

    def hear(self, kind: bytes, number: int) -> None:
        """The parent's order; it waits until the program serves, and until the ones before are done."""
        self._orders.append((kind, number))
        self._go_on()

    def begin(self) -> None:
        """The program serves."""
        self._ready = True
        self._go_on()

    def is_broken(self) -> bool:
        """Whether the last attempt failed; the watcher then looks at more files."""
        return self._broken

    def stop(self) -> None:
        """The worker stops: a load that is under way is given up."""
        if self._task is not None:
            self._task.cancel()

    def find(self, request: Request) -> Served:
        """The program that a request belongs to."""
        for served in self.old:
            if served.has(request):
                return served
        return self.worker.served

    def _go_on(self, _: object = None) -> None:
        if not self._ready or not self._orders or (self._task is not None and not self._task.done()):
            return
        kind, number = self._orders.popleft()
        # In the context that the worker began with: what old programs have set in theirs must not be kept.
        context = self.worker.context.copy()
        self._task = self.worker.loop.create_task(self._obey(kind, number), context=context)
        self._task.add_done_callback(self._go_on)

    async def _obey(self, kind: bytes, number: int) -> None:
        failure: tuple[str, str] | None = "the worker is ending", ""
        try:
            if not self.worker.stop.is_set():
                await self._do(kind)
                failure = None
        except LoadError as error:
            failure = str(error), error.traceback or ""
        except Exception as error:  # noqa: BLE001 whatever it was, the old program serves on and the parent is told
            failure = f"{type(error).__name__}: {error}", logs.traceback_of(error)
        finally:
            self.worker.link.done(number, failure)

    async def _do(self, kind: bytes) -> None:
        if self.worker.follow is not None:
            self.worker.follow.look()  # before anything is read: what is saved meanwhile belongs to the next round
        if kind == SITE:
            self.worker.look_at_site()
            return
        try:
            with self.worker.slow.paused():  # what loads may take its time
                await self._swap()
        except BaseException:
            self._broken = True
            raise
        self._broken = False

    async def _swap(self) -> None:
        """Load, start, swap. Raises LoadError; then all is as it was."""
        worker = self.worker
        await self._make_room()
        Loading()
        change = Change(worker.own, worker.path)
        try:
            program = worker.load(again=True)
            old = await worker.start_again(program)
        except BaseException as error:
            change.put_back()
            if isinstance(error, Exception) or worker.stop.is_set():
                raise
            message = f"the program raised {type(error).__name__} while it started"
            raise LoadError(message, logs.traceback_of(error)) from None
        finally:
            Loading.end()
        change.close()
        self.old.append(old)
        if self._caring is None or self._caring.done():
            self._caring = worker.loop.create_task(self._care_for_old(), context=worker.context.copy())

    # ---- old programs ----

    async def _make_room(self) -> None:
        """Have old programs freed, if nothing but time is in the way."""
        if any(served.is_over() for served in self.old):
            self._freed.clear()
            self._hurry.set()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._freed.wait(), ROOM_TIME)

    async def _care_for_old(self) -> None:
        """Run an old program's on_stop hooks when its last request has ended, then free it."""
        pause = SHORTEST_LOOK
        while self.old:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._hurry.wait(), pause)
            self._hurry.clear()
            pause = min(pause * 2, LONGEST_LOOK)
            if await self._stop_those(over=True):
                pause = SHORTEST_LOOK
                for _ in range(LAST_TURNS):  # the loop lets go of the task in which the hooks ran
                    await asyncio.sleep(0)
                collect()
                self._freed.set()

    async def _stop_those(self, over: bool) -> bool:
        """Stop old programs, only those that are over or all of them. Whether there were any; none is held then."""
        chosen = [served for served in self.old if not over or served.is_over()]
        for served in chosen:
            await stop_served(served, again=True)
            self.old.remove(served)
        return bool(chosen)

    async def close(self) -> None:
        """The worker ends: so do the old programs."""
        if self._caring is not None:
            self._caring.cancel()
            await asyncio.wait([self._caring])
        await self._stop_those(over=False)


async def stop_served(served: Served, again: bool = False) -> bool:
    """Run a program's on_stop hooks in its own context; False when one failed, which is logged."""
    from .worker import stop_app

    task: asyncio.Task[bool] = asyncio.get_running_loop().create_task(
        stop_app(served.program.app, again), context=served.context
    )
    return await task


def collect() -> None:
    """Free what is garbage, what was frozen too, and freeze what is left: the collector need not look at it."""
    for forget in getattr(typing, "_cleanups", ()):  # what stands in its caches, `Optional[Post]`, holds the module
        forget()
    gc.unfreeze()
    gc.collect()
    gc.freeze()

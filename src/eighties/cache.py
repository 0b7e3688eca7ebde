"""The cache: `cached` keeps what a function gives, and computes it once for all who ask meanwhile.

The caches are this module's, one set per worker; they outlive a reload in place and end with the process. Programs call
it through `aio`. Results are kept as plain values, not as futures, which would belong to one loop.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Hashable
from functools import partial
from time import monotonic
from typing import Any

from .promise import Promise, attempt, copy, new_promise, promise_of

MAX_ENTRIES = 10_000
"""Entries of one cache unless `set_max_cache_size` says otherwise: a few MB of small values."""


class _Entry:
    """A kept value, as `Promise` has it, and the monotonic second after which it is stale."""

    __slots__ = ("deadline", "several", "value")

    def __init__(self, value: Any, several: bool, deadline: float) -> None:
        self.value = value
        self.several = several
        self.deadline = deadline


class _Computation:
    """A value on its way, and who waits for it. Each asker has a promise of its own, so one can cancel alone."""

    __slots__ = ("askers", "source")

    def __init__(self, source: Promise) -> None:
        self.source = source
        self.askers: dict[asyncio.Future[Any], Promise] = {}  # answered in the order in which they asked

    def ask(self) -> Promise:
        asker = new_promise()
        self.askers[asker] = asker
        asker.add_done_callback(self.leave)
        return asker

    def leave(self, asker: asyncio.Future[Any]) -> None:
        """Who gives up is not kept for as long as the computation takes."""
        self.askers.pop(asker, None)

    def answer(self) -> None:
        askers, self.askers = self.askers, {}
        for asker in askers.values():
            copy(asker, self.source)


class _Cache:
    """One named cache. `entries` stand in the order in which they came; `running` are not counted."""

    __slots__ = ("entries", "running")

    def __init__(self) -> None:
        self.entries: dict[Hashable, _Entry] = {}
        self.running: dict[Hashable, _Computation] = {}

    def find(self, key: Hashable) -> _Entry | None:
        entry = self.entries.get(key)
        if entry is not None and monotonic() >= entry.deadline:
            del self.entries[key]
            return None
        return entry

    def keep(self, key: Hashable, promise: Promise, seconds: float) -> None:
        """Keep a promise's value, and let the oldest go for it."""
        self.entries.pop(key, None)
        if seconds > 0 and _max_entries > 0:
            self.entries[key] = _Entry(promise.result(), promise.several, monotonic() + seconds)
            self.trim()

    def trim(self) -> None:
        while len(self.entries) > _max_entries:
            del self.entries[next(iter(self.entries))]


_caches: dict[Hashable, _Cache] = {}
_max_entries = MAX_ENTRIES


def cached(
    cache_name: Hashable,
    key: Hashable,
    function: Callable[[], object],
    condition_or_expire: bool | float | None = None,
    expire: float | None = None,
) -> Promise:
    """A promise of what the function gives, from the cache where it is kept: `await aio.cached("users", id, load)`.

    While a value is being computed, all who ask for its key wait for that one computation; it goes on for the others
    when one of them is cancelled, and fills the cache when all are. An error is not kept: those who wait for it get it,
    the next one computes anew. Everyone gets the same object: do not change it.

    Arguments:
        cache_name: which cache; each holds MAX_ENTRIES, the oldest goes first.
        key: anything hashable.
        function: without parameters; gives a value, a promise or a coroutine.
        condition_or_expire: False: call the function, and keep nothing. True or None: keep. A number: as `expire`.
        expire: seconds that the value is kept, counted from when it is there; None: until it has to make room.
    Raises:
        TypeError: the key is not hashable, or a number of seconds is no number.
        ValueError: a number of seconds is negative.
    """
    if condition_or_expire is False:
        return promise_of(attempt(function))
    seconds = _seconds(condition_or_expire, expire)
    cache = _caches.get(cache_name)
    if cache is None:
        cache = _caches.setdefault(cache_name, _Cache())
    entry = cache.find(key)
    if entry is not None:
        return _kept(entry)
    running = cache.running.get(key)
    if running is not None and running.source.get_loop() is asyncio._get_running_loop():
        return running.ask()
    source = promise_of(attempt(function))
    if source.done():
        return _computed_at_once(cache, key, source, seconds)
    cache.running[key] = running = _Computation(source)
    source.add_done_callback(partial(_finish, cache, key, running, seconds))
    return running.ask()


def _seconds(condition_or_expire: bool | float | None, expire: float | None) -> float:
    """How long to keep a value; True, which is an int to Python, is no number here."""
    for seconds in (expire, condition_or_expire):
        if seconds is None or (seconds is True and expire is None):
            continue
        if isinstance(seconds, bool) or not isinstance(seconds, (int, float)):
            raise TypeError(f"cached: {seconds!r} is no number of seconds")
        if not seconds >= 0:
            raise ValueError(f"cached: {seconds!r} seconds, it must be 0 or more")
        return seconds
    return float("inf")


def _kept(entry: _Entry) -> Promise:
    promise = new_promise()
    if entry.several:
        promise.settle_several(entry.value)
    else:
        promise.set_result(entry.value)
    return promise


def _computed_at_once(cache: _Cache, key: Hashable, source: Promise, seconds: float) -> Promise:
    if not source.cancelled() and source._exception is None:
        cache.keep(key, source, seconds)
    return source


def _finish(cache: _Cache, key: Hashable, running: _Computation, seconds: float, source: asyncio.Future[Any]) -> None:
    """Keep the value unless it was forgotten meanwhile, and answer. Without askers an error is left for the log."""
    if cache.running.get(key) is running:
        del cache.running[key]
        if not source.cancelled() and source._exception is None:
            cache.keep(key, running.source, seconds)
    running.answer()


def set_max_cache_size(entries: int) -> None:
    """How many entries each cache may hold, MAX_ENTRIES at first. With 0 nothing is kept, but computations are shared.

    Raises:
        ValueError: it is negative.
    """
    global _max_entries
    if entries < 0:
        raise ValueError(f"set_max_cache_size: {entries}, it must be 0 or more")
    _max_entries = entries
    for cache in _caches.values():
        cache.trim()


def forget(cache_name: Hashable, *keys: Hashable) -> None:
    """Drop these keys of a cache, without keys all of it. What is being computed for them will not be kept either."""
    cache = _caches.get(cache_name)
    if cache is None:
        return
    for key in keys or [*cache.entries, *cache.running]:
        cache.entries.pop(key, None)
        cache.running.pop(key, None)

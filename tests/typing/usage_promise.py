"""How programs use promises and the cache: checked by mypy --strict as `usage.py` is, never run."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any, assert_type

from eighties.cache import cached, forget, set_max_cache_size
from eighties.promise import Promise, Resolver, async_, await_, chain, gather, map, prepare_promise, promise_of


async def number() -> int:
    return 1


def steps() -> Generator[Any, Any, str]:
    value = yield prepare_promise()[1]
    yield number()
    return str(value)


def label(item: str, index: int, width: int = 0) -> bytes:
    return item.encode()


async def use() -> None:
    resolve, promise = prepare_promise()
    assert_type(resolve, Resolver)
    assert_type(promise, Promise)
    assert_type(resolve(1, "b"), bool)
    assert_type(resolve(), bool)
    assert_type(resolve.reject(ValueError()), bool)
    assert_type(await promise, Any)
    promise(print, print)
    promise(lambda a, b: None, lambda error: error.add_note("seen"))
    resolve.reject("text")  # type: ignore[arg-type]
    resolve(value=1)  # type: ignore[call-arg]
    promise("no function")  # type: ignore[arg-type]

    assert_type(gather(promise, number(), 3), Promise)
    assert_type(chain(promise, str, lambda text: number()), Promise)
    assert_type(promise_of(number()), Promise)
    assert_type(async_(steps), Promise)
    assert_type(async_(number, print), Promise)
    assert_type(await await_(number()), int)
    assert_type(await await_("plain"), str)
    assert_type(map(["a"], label), list[bytes])
    assert_type(map(["a"], label, 3), list[bytes])
    chain(promise, 3)  # type: ignore[arg-type]
    async_(label)  # type: ignore[arg-type]
    map([1], label)  # type: ignore[misc]
    map(["a"], label, "3")  # type: ignore[arg-type]

    assert_type(cached("numbers", ("any", 1), number), Promise)
    assert_type(await cached("numbers", 1, lambda: 3, 0.5), Any)
    cached("numbers", 1, steps, True, 60)
    cached("numbers", 1, steps, expire=60)
    cached("numbers", [], number)  # type: ignore[arg-type]
    cached("numbers", 1, number, "60")  # type: ignore[arg-type]
    forget("numbers")
    forget("numbers", 1, 2)
    set_max_cache_size(100)

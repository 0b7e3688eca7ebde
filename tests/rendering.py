"""Pages for tests: compiled from files in memory, and run with as much of a context as they need."""

from __future__ import annotations

import asyncio
import html
import traceback
from collections.abc import Generator
from typing import Any

import pytest

from eighties.pages import CompiledPage, PageError, compile_page


class Raw(str):
    """A fragment that is HTML already."""


class OneDone:
    """What a block finds as `done`."""

    def __init__(self) -> None:
        self.event = asyncio.Event()

    def __call__(self) -> None:
        self.event.set()

    def __await__(self) -> Generator[Any, Any, Any]:
        return self.event.wait().__await__()


class Context:
    """As much of a page's context as the tests need; `asked` lists the properties that a page has read."""

    def __init__(self) -> None:
        self.out: list[bytes] = []
        self.asked: list[str] = []
        self.request = self  # whose query a page may go to directly
        self.dones = 0

    def escape(self, value: Any, /) -> str:
        return str(value) if isinstance(value, Raw) else html.escape(str(value))

    def write(self, text: object) -> None:
        self.out.append(str(text).encode("utf-8", "replace"))

    def raw(self, text: str) -> Raw:
        return Raw(text)

    def make_done(self) -> OneDone:
        self.dones += 1
        return OneDone()

    @property
    def query(self) -> dict[str, str]:
        self.asked.append("query")
        return {"name": "<b>"}

    @property
    def body(self) -> bytes:
        self.asked.append("body")
        return b"body"

    @property
    def form(self) -> dict[str, str]:
        raise ValueError("this request has no form")

    async def await_(self, value: Any) -> Any:
        return await value


Files = dict[str, str]


def compiled(files: str | Files, names: dict[str, Any] | None = None) -> CompiledPage:
    """The page `a.html`."""
    given = {"a.html": files} if isinstance(files, str) else files

    def read(path: str) -> str:
        if path not in given:
            raise FileNotFoundError(2, "No such file or directory", path)
        return given[path]

    return compile_page("a.html", read, {"asyncio": asyncio} if names is None else names)


def rendered(files: str | Files, names: dict[str, Any] | None = None, context: Context | None = None) -> str:
    """What the page writes."""
    context = context or Context()
    page = compiled(files, names)
    result = page.run(context)
    assert (result is not None) == page.is_async

    async def wait() -> None:
        assert result is not None
        await asyncio.wait_for(result, 30)

    if page.is_async:
        asyncio.run(wait())
    return b"".join(context.out).decode("utf-8", "surrogateescape")


def refused(files: str | Files) -> PageError:
    with pytest.raises(PageError) as caught:
        compiled(files)
    return caught.value


def places(error: BaseException) -> list[tuple[str, int]]:
    """Files and lines of a traceback, of pages only."""
    frames = traceback.extract_tb(error.__traceback__)
    return [(frame.filename, frame.lineno or 0) for frame in frames if frame.filename.endswith(".html")]

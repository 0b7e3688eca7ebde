"""Static files in an engine of the test's own: a thread that serves them, and what is asked of it."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import http.client
import os
import socket
import threading
from collections.abc import Callable, Iterator
from email.message import Message
from pathlib import Path
from typing import Any

from server import PATIENCE
from sockets import make_engine, open_descriptors

from eighties._engine import Route
from eighties.pages.static import MemoryCache, ServedFile

LONG_AGO = 1_600_000_000  # Sun, 13 Sep 2020 12:26:40 GMT
DATE = "Sun, 13 Sep 2020 12:26:40 GMT"
BEFORE = "Sun, 13 Sep 2020 12:26:39 GMT"
AFTER = "Sun, 13 Sep 2020 12:26:41 GMT"
TEXT = bytes(range(256)) * 4
SIZE = len(TEXT)
LARGE = bytes(os.urandom(1000)) * 300


class Reply:
    """An answer, read whole."""

    def __init__(self, response: http.client.HTTPResponse) -> None:
        self.status = response.status
        self.headers: Message = response.headers
        self.body = response.read()

    def __getitem__(self, name: str) -> str | None:
        """The value of a header field; None: it is absent."""
        return self.headers[name]

    @property
    def pairs(self) -> list[tuple[str, str]]:
        """Every field in order, but for Date."""
        return [(name, value) for name, value in self.headers.items() if name != "Date"]

    @property
    def names(self) -> set[str]:
        return {name.lower() for name in self.headers.keys()} - {"server", "date", "connection", "content-length"}


Asked = dict[str, str] | list[tuple[str, str]]


class Files:
    """An engine in a thread that serves the files of a folder; `calls` counts how often Python was asked."""

    def __init__(self, folder: Path) -> None:
        self.root = folder.resolve() / "public_html"
        self.root.mkdir()
        self.routes: list[Route] = []
        self.calls: dict[str, int] = {}
        self.log: list[str] = []
        self.cache = MemoryCache()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        ready = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve(ready)))
        self._thread.start()
        assert ready.wait(PATIENCE)

    async def _serve(self, ready: threading.Event) -> None:
        self.loop = asyncio.get_running_loop()
        self._end = asyncio.Event()
        self.engine = make_engine(self.loop, log=lambda level, message: self.log.append(message))
        self.loop.add_reader(self.engine.fileno(), self.engine.poll)
        self.engine.listen(self._listener.fileno())
        ready.set()
        await self._end.wait()
        self.loop.remove_reader(self.engine.fileno())
        self.engine.close()

    def close(self) -> None:
        self.loop.call_soon_threadsafe(self._end.set)
        self._thread.join(PATIENCE)
        self._listener.close()

    def run(self, function: Callable[[], Any]) -> Any:
        """Call something in the engine's thread."""

        async def call() -> Any:
            return function()

        return asyncio.run_coroutine_threadsafe(call(), self.loop).result(PATIENCE)

    def write(self, name: str, body: bytes = TEXT, when: float = LONG_AGO) -> Path:
        """Write a file, anew under its name, that was modified then."""
        path = self.root / name
        path.parent.mkdir(exist_ok=True, parents=True)
        new = path.with_name("new")
        new.write_bytes(body)
        os.utime(new, (when, when))
        return new.replace(path)

    def serve(self, name: str, method: str = "GET", route: bool = True, **arguments: Any) -> ServedFile:
        """Have a file served under its name."""
        served = ServedFile(str(self.root / name), str(self.root), **({"cache": self.cache} | arguments))

        def counted(request: Any) -> object:
            self.calls[name] = self.calls.get(name, 0) + 1
            return served(request)

        made = Route(f"/{name}", method, counted, name=name)
        served.route = made if route else None
        self.route(made)
        return served

    def route(self, route: Route) -> None:
        """Add a route, in the place of one of the same name."""
        self.routes = [one for one in self.routes if one.name != route.name] + [route]
        self.run(lambda: self.engine.set_routes(self.routes))

    def add(self, name: str, body: bytes = TEXT, when: float = LONG_AGO, **arguments: Any) -> ServedFile:
        """Write a file and have it served."""
        self.write(name, body, when)
        return self.serve(name, **arguments)

    def ask(self, name: str, headers: Asked | None = None, method: str = "GET") -> Reply:
        """A request on a connection of its own."""
        with contextlib.closing(http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE)) as connection:
            connection.putrequest(method, f"/{name}", skip_accept_encoding=True)
            for field, value in headers.items() if isinstance(headers, dict) else headers or []:
                connection.putheader(field, value.encode("latin-1"))
            connection.endheaders()
            return Reply(connection.getresponse())


def house_of(folder: Path) -> Iterator[Files]:
    before = open_descriptors()
    files = Files(folder)
    try:
        yield files
    finally:
        files.close()
        files.routes.clear()
        files.__dict__.pop("engine")
        gc.collect()
    assert files.log == []
    assert set(open_descriptors().values()) - set(before.values()) == set()


def etag_of(files: Files, name: str, headers: Asked | None = None) -> str:
    etag = files.ask(name, headers)["etag"]
    assert etag is not None
    return etag

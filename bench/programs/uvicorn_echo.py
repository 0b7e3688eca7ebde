"""The echo on uvicorn, a bare ASGI application. Started by uvicorn's command line."""

from collections.abc import Awaitable, Callable
from typing import Any

from query import name_in


async def app(
    scope: dict[str, Any],
    receive: Callable[[], Awaitable[dict[str, Any]]],
    send: Callable[[dict[str, Any]], Awaitable[None]],
) -> None:
    body = f"Hi, {name_in(scope['query_string'].decode())}!".encode()
    headers = [(b"content-type", b"text/plain; charset=utf-8"), (b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})

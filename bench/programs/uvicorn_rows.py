"""One row by its id on uvicorn, a bare ASGI application with asyncmy's own pool."""

from collections.abc import Awaitable, Callable
from typing import Any

from driver_pool import Rows

driver = Rows()


async def app(
    scope: dict[str, Any],
    receive: Callable[[], Awaitable[dict[str, Any]]],
    send: Callable[[dict[str, Any]], Awaitable[None]],
) -> None:
    body = (await driver.text(int(scope["query_string"].partition(b"=")[2]))).encode()
    headers = [(b"content-type", b"text/plain; charset=utf-8"), (b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})

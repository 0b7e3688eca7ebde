"""How programs use the types: checked by mypy --strict, never run.

`assert_type` holds what editors show; each `type: ignore` is a mistake that mypy must find, or it complains of the
comment (warn_unused_ignores).
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any, assert_type

from eighties import Address, App, HTTPError, MultiDict, Request, Response, Upload, __version__, about, state

app = App(max_body=1, server_header=None)
every_limit = App(
    max_request_line=1,
    max_header_bytes=1,
    max_headers=1,
    max_body=1,
    header_timeout=1,
    body_timeout=1,
    min_rate=1,
    keep_alive_timeout=1,
    handler_timeout=1,
    write_timeout=1,
    max_connections=1,
    max_buffered=1,
)
App(max_bodi=1)  # type: ignore[call-arg]
App(max_body="1")  # type: ignore[arg-type]
App(server_header=1)  # type: ignore[arg-type]


@app.get("/users/{id:int}")
async def user(request: Request, id: int) -> dict[str, int]:
    assert_type(request.method, str)
    assert_type(request.query, MultiDict)
    assert_type(request.headers.getall("a"), list[Any])
    assert_type(request.cookies, dict[str, str])
    assert_type(request.body, bytes)
    assert_type(request.text(), str)
    assert_type(request.client, Address)
    assert_type(request.client.port, int)
    assert_type(request.params, dict[str, Any])
    assert_type(request.state, dict[str, Any])
    assert_type(request.form(), MultiDict)
    assert_type(await request.read_form(), MultiDict)
    async for chunk in request.stream():
        assert_type(chunk, bytes)
    request.form(10)  # type: ignore[call-arg]
    request.nonsense  # type: ignore[attr-defined] # noqa: B018
    request.method = "GET"  # type: ignore[misc]
    return {"id": id}


# Handlers come back as they were, so that they can be called and tested.
@app.route("/", methods=["GET", "POST"], stream=True)
async def lines(request: Request) -> AsyncIterator[str]:
    yield "line"


@app.before
def gate(request: Request) -> str | None:
    return None


@app.error(404)
async def missing(request: Request, error: HTTPError) -> Response:
    assert_type(error.headers, list[tuple[str, str]])
    return Response.html("<p>", 404, headers={"X-A": "1"})


async def calls(request: Request) -> None:
    assert_type(await user(request, 7), dict[str, int])
    await user(request, "7")  # type: ignore[arg-type]
    assert_type(lines(request), AsyncIterator[str])
    assert_type(gate(request), str | None)
    assert_type(await app.startup(), None)


async def answers() -> None:
    response = Response.text("a", headers=[("X-A", "1")])
    assert_type(response, Response)
    assert_type(response.headers["x-a"], str)
    assert_type(response.headers.getall("x-a"), list[str])
    response.headers["x-a"] = 7  # type: ignore[assignment]
    response.set_cookie("a", "b", samesite="Strict", max_age=1)
    response.set_cookie("a", "b", samesite="strict")  # type: ignore[arg-type]
    assert_type(Response.file("a", filename="b"), Response)
    assert_type(Response.bytes(b""), Response)
    Response.stream(["a"])  # type: ignore[arg-type]
    Response.text(b"")  # type: ignore[arg-type]


def rest(upload: Upload) -> None:
    assert_type(upload.read(), bytes)
    assert_type(upload.filename, str)
    assert_type(__version__, str)
    assert_type(about(), dict[str, str])
    state.anything = 1
    app.error("404")  # type: ignore[arg-type]
    app.mount("/x", object())  # type: ignore[arg-type]

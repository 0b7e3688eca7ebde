"""The first program to read. Serve it with `80s examples/simple_http.py`, then try

    curl 'http://localhost:8080/echo?name=World'

A program is an App and functions that answer paths. What a function returns is the answer: text is sent as plain
text, a dict as JSON, bytes as they are. The whole guide is docs/app.md.
"""

import asyncio
import hashlib
from collections.abc import AsyncIterator

from eighties import App, HTTPError, Request, about, net

app = App()

MAX_DIGITS = 6


@app.get("/echo")
def echo(request: Request) -> str:
    """Say hello: /echo?name=World."""
    return f"Hi, {request.query.get('name', 'Nomad')}!"


@app.get("/headers")
def headers(request: Request) -> dict[str, str]:
    """The request's header fields, names in lower case, as a JSON object."""
    return dict(request.headers.items())


@app.get("/ip")
def ip(request: Request) -> str:
    """Where the request came from, address:port."""
    return str(request.client)


@app.get("/worker")
def worker(request: Request) -> str:
    """Which worker answers: with `80s -c 4` it is one of four."""
    return str(request.worker)


@app.get("/info")
def info(request: Request) -> dict[str, str]:
    """What is running: versions of the server and of Python, the loop, the poller."""
    return about()


@app.get("/search")
def search(request: Request) -> list[int]:
    """Where the needle is, and how much of it, for its end may be in the next chunk: /search?haystack=abc&needle=cd."""
    return list(net.partscan(request.query.get("haystack", ""), request.query.get("needle", "")))


@app.post("/body")
def body(request: Request) -> bytes:
    """The request's body back. It is whole when the function runs; max_body bounds it."""
    return request.body


# A large body need not be held in memory: with stream=True the function runs at once and takes the pieces as they
# come. It waits for the client between them, so it is an `async def`, and others are served meanwhile.
@app.post("/upload", stream=True)
async def upload(request: Request) -> dict[str, int | str]:
    """The length of the body and its SHA-256."""
    length = 0
    digest = hashlib.sha256()
    async for chunk in request.stream():
        length += len(chunk)
        digest.update(chunk)
    return {"length": length, "sha256": digest.hexdigest()}


# An `async def` with `yield` sends each piece as it is made, and waits while the client does not read.
@app.get("/stream")
async def stream(request: Request) -> AsyncIterator[str]:
    """Numbered lines: /stream?n=5."""
    text = request.query.get("n", "10")
    if not text.isdecimal() or len(text) > MAX_DIGITS:
        raise HTTPError(400, f"n must be a number of at most {MAX_DIGITS} digits")
    for number in range(1, int(text) + 1):
        yield f"line {number}\n"


USERS = {1: "Ada Lovelace", 2: "Grace Hopper", 3: "Radia Perlman"}


# The path's parameters are handed over by name; {id:int} matches digits only, and `id` is an int.
@app.get("/users/{id:int}")
async def user(request: Request, id: int) -> dict[str, int | str]:
    """A user as JSON. Awaiting a database would look just so; the sleep stands for it."""
    await asyncio.sleep(0.01)
    if id not in USERS:
        raise HTTPError(404, f"there is no user {id}")
    return {"id": id, "name": USERS[id]}

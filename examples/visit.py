"""A page from elsewhere, and the output of a command. Serve it with `80s examples/visit.py`, then try

    curl 'http://localhost:8080/visit?url=http://localhost:8080/hello'
    curl http://localhost:8080/run

Whoever may name a URL for a server to fetch reaches whatever the server can reach, also behind its firewall (SSRF). So
only hosts of a list are visited; add those that your program needs, and nothing that a client could choose.
"""

import asyncio
import os
from collections.abc import Awaitable, Callable
from urllib.parse import SplitResult, urlsplit

from eighties import App, HTTPError, Request, Response, aio, net

app = App()

ALLOWED = set(os.environ.get("VISIT_HOSTS", "localhost 127.0.0.1 ::1").split())
MAX_HEAD = 32 * 1024  # bytes
MAX_PAGE = 1024 * 1024
SECONDS = 10


def parse(url: str) -> SplitResult:
    """The parts of a URL that may be visited; a 400 for any other."""
    try:
        parts = urlsplit(url)
        _ = parts.port  # a malformed one raises
    except ValueError as error:
        raise HTTPError(400, f"{error}") from None
    if parts.scheme != "http" or not all("!" <= char <= "~" for char in url):
        raise HTTPError(400, "url must be http://HOST/PATH, percent-encoded")
    if parts.hostname not in ALLOWED:
        raise HTTPError(403, f"only these hosts are visited: {', '.join(sorted(ALLOWED))}")
    return parts


async def read_answer(read: Callable[..., Awaitable[bytes]]) -> Response:
    """An HTTP/1.0 answer: head, then as much body as it says, or all there is."""
    head = net.parse_http_headers(await read(b"\r\n\r\n", MAX_HEAD))
    length: str = head.get("content-length", "")
    if length.isdecimal():
        page = await read(int(length), MAX_PAGE)
    else:
        page = b""
        while chunk := await read():
            page += chunk
            if len(page) > MAX_PAGE:
                raise aio.Overflow(MAX_PAGE)
    return Response.bytes(page, int(head[":status"]), content_type="text/plain; charset=utf-8")


async def fetch(parts: SplitResult) -> Response:
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    sock = await aio.connect2(host=str(parts.hostname), port=parts.port or 80)
    try:
        sock.write(f"GET {path} HTTP/1.0\r\nHost: {parts.netloc.rpartition('@')[2]}\r\n\r\n")
        return await read_answer(sock.read)
    finally:
        sock.close()


@app.get("/visit")
async def visit(request: Request) -> Response:
    """What a server of the list answers: /visit?url=http://localhost:8080/hello."""
    parts = parse(request.query.get("url", ""))
    try:
        async with asyncio.timeout(SECONDS):
            return await fetch(parts)
    except TimeoutError:
        raise HTTPError(504, f"no answer within {SECONDS} seconds") from None
    except (OSError, ValueError, aio.Overflow, asyncio.IncompleteReadError) as error:
        raise HTTPError(502, f"{type(error).__name__}: {error}") from None


@app.get("/run")
async def run(request: Request) -> str:
    """What a command prints. It is fixed: nothing that a client sends should ever become one."""
    output: bytes = await aio.popen_read("uname", "-s", "-m")
    return output.decode()


@app.get("/hello")
def hello(request: Request) -> str:
    """Something to visit."""
    return "It is 1984\n"

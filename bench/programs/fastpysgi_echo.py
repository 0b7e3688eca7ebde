"""The echo on FastPySGI, WSGI interface. Usage: fastpysgi_echo.py PORT"""

import sys
from collections.abc import Callable
from typing import Any

import fastpysgi  # type: ignore[import-not-found]  # lives in the bench's own environment
from query import name_in


def app(environ: dict[str, Any], start_response: Callable[[str, list[tuple[str, str]]], object]) -> list[bytes]:
    body = f"Hi, {name_in(environ['QUERY_STRING'])}!".encode()
    start_response("200 OK", [("Content-Type", "text/plain; charset=utf-8")])
    return [body]


if __name__ == "__main__":
    fastpysgi.server.tcp_nodelay = 1  # as everyone here; without it pipelined answers wait for delayed ACKs
    fastpysgi.server.backlog = 4096
    fastpysgi.run(app, host="127.0.0.1", port=int(sys.argv[1]))

"""The echo on granian, RSGI interface. Started by granian's command line."""

from typing import Any

from query import name_in

HEADERS = [("content-type", "text/plain; charset=utf-8")]


async def app(scope: Any, protocol: Any) -> None:
    protocol.response_str(200, HEADERS, f"Hi, {name_in(scope.query_string)}!")

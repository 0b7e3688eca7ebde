"""The echo on socketify. Usage: socketify_echo.py PORT"""

import sys
from typing import Any

from socketify import App, AppListenOptions  # type: ignore[import-not-found]  # in the bench's own environment


def echo(response: Any, request: Any) -> None:
    name = request.get_query("name") or "Nomad"
    response.write_header("Content-Type", "text/plain; charset=utf-8")
    response.end(f"Hi, {name}!")


if __name__ == "__main__":
    app = App()
    app.get("/echo", echo)
    app.listen(AppListenOptions(port=int(sys.argv[1]), host="127.0.0.1"))
    app.run()

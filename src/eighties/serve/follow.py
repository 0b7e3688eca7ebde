"""Follow: with `--dev` browsers follow reloads. Each worker tells those that listen to it how a round has ended.

The worker makes one `Follow`, whose route stands beside the program's own, and hands it to each program's App, which
has it put the script `follow.js` into pages (`inject`). State: who listens, what the files were at the last round, and
what failed in it. A browser that listens has taken its connection over: it holds no request, so no old program either.
"""

from __future__ import annotations

import json
import os
import re
from contextvars import copy_context
from functools import partial
from hashlib import blake2b
from typing import TYPE_CHECKING, Any, cast

from .. import _engine
from ..http import Response
from . import inject, watch

if TYPE_CHECKING:
    import asyncio

    from ..http import Request
    from ..streams import Socket
    from .link import Failure
    from .loader import Program
    from .worker import Worker

PATH = "/.80s/follow"
# Browsers that listen to one worker; each is a connection that stays. Only tabs that are seen do.
MOST_STREAMS = 200
# Bytes not taken by a browser, beyond which it is let go; it comes back when it can.
MOST_WAITING = 512 << 10
# Seconds between comments, by which it is found that a browser has gone, and proxies find that it has not.
HEARTBEAT = 15.0

_KIND = "text/event-stream; charset=utf-8"
# No Access-Control-Allow-Origin, ever: other sites must not read what stands in tracebacks.
_HEAD = (
    f"HTTP/1.1 200 OK\r\nContent-Type: {_KIND}\r\nCache-Control: no-store\r\nX-Content-Type-Options: nosniff\r\n"
    "Cross-Origin-Resource-Policy: same-origin\r\nX-Accel-Buffering: no\r\nConnection: close\r\n\r\nretry: 500\n\n"
)
_PLACE = re.compile(r'^\s*File "([^"\n]+)", line (\d+)', re.MULTILINE)
# Of the overlay, beside the error page's own: that one is a document, this one lies over any other.
_OVERLAY = """
.over { position: fixed; inset: 0; z-index: 2147483647; overflow: auto; color-scheme: light dark; text-align: left;
  background: var(--back); color: var(--ink); font: 16px/1.5 system-ui, sans-serif }
pre { white-space: pre }
"""


class Follow:
    """Made before the program is loaded. `route` is where browsers listen."""

    def __init__(self, worker: Worker) -> None:
        self._worker = worker
        self.route = _engine.Route(PATH, "GET", self._listen, name="follow (80s)", stream=True)
        self._streams: set[Socket] = set()
        self._over = False
        self._failures: list[Failure] = []
        self._seen: tuple[watch.States, watch.States] = {}, {}
        self._next: tuple[watch.States, watch.States] | None = None  # as they are in the round that is under way
        self._state = ""
        self._root: str | None = None  # the site's folder
        self._swapped = False  # since the last round ended
        self._context = copy_context()  # nothing of a program is in it
        self._beat: asyncio.TimerHandle | None = None

    # ---- for the worker ----

    def join(self, program: Program) -> None:
        """Have a program's pages follow; before its routes are made."""
        program.app.follow = self._dress
        self._root = None if program.site is None else program.site.root
        self._swapped = bool(self._state)
        if not self._state:
            self._take(self._files())

    def look(self) -> None:
        """A round begins here: see what the files are that it will read."""
        self._next = self._files()

    def end_round(self, failures: list[Failure]) -> None:
        """A round has ended in all workers."""
        before, now = self._seen, self._next or self._files()
        swapped, self._swapped, self._next = self._swapped, False, None
        self._take(now)
        if failures:
            self._failures = failures
        elif swapped:  # a stylesheet that was saved meanwhile mends no program
            self._failures = []
        if failures or swapped:
            self._tell("page")
        elif now != before:
            self._tell("style" if self._are_styles(before, now) else "page")

    def close(self) -> None:
        """The worker ends; nobody waits for those that listen."""
        self._over = True
        for sock in self._streams:
            sock.abort()
        if self._beat is not None:
            self._beat.cancel()

    # ---- files ----

    def _files(self) -> tuple[watch.States, watch.States]:
        own, natives = self._worker.own, self._worker.natives
        if self._worker.settings.reload:
            seen = watch.look(own.folder, self._root, natives)
        else:  # nobody else looks at the whole folder then, which may be someone's home
            seen = watch.look("", self._root, [*natives, *own.files()])
        return seen.sources, seen.pages

    def _take(self, seen: tuple[watch.States, watch.States]) -> None:
        """Have a name for the state of all files: the same in every worker, and after a restart, so that a browser that
        comes to another one is not told of a change that there was not."""
        self._seen = seen
        listed = [sorted(states.items()) for states in seen]
        self._state = blake2b(repr(listed).encode("utf-8", "surrogatepass"), digest_size=9).hexdigest()

    def _are_styles(self, before: tuple[watch.States, watch.States], now: tuple[watch.States, watch.States]) -> bool:
        """Whether nothing has changed but stylesheets that pages link to."""
        changed = [path for path, state in now[1].items() if before[1].get(path) != state]
        if now[0] != before[0] or not before[1].keys() <= now[1].keys():
            return False
        site = self._worker.served.program.site
        included = site.included if site is not None else frozenset[str]()
        return all(path.endswith(".css") and path not in included for path in changed)

    # ---- browsers ----

    def _dress(self, request: Request, response: Response) -> Response:
        return inject.dress(request, response, self._state)

    def _listen(self, request: Request) -> Response | None:
        """The route's handler."""
        if not _is_own(request):
            return Response.text("Only pages of this server may listen.\n", 403)
        if request.method == "HEAD":
            return Response(None, 200, [("Cache-Control", "no-store")], _KIND)
        if self._over or len(self._streams) >= MOST_STREAMS:
            return Response.text("Too many browsers listen, or the server is stopping.\n", 503)
        sock = cast("Socket", request.take_over())
        sock.on_data = lambda *_: sock.abort()  # it has nothing to say
        sock.on_close = partial(self._forget, sock)
        self._streams.add(sock)
        sock.write(_HEAD + self._event("hello"))
        self._wait()
        return None

    def _forget(self, sock: Socket, *_: Any) -> None:
        self._streams.discard(sock)

    def _tell(self, what: str) -> None:
        self._send(self._event(what))

    def _send(self, text: str) -> None:
        for sock in list(self._streams):
            if sock.buffered > MOST_WAITING or not sock.write(text):
                sock.abort()

    def _wait(self) -> None:
        if self._beat is None:
            loop = self._worker.loop
            self._beat = loop.call_later(HEARTBEAT, self._keep_alive, context=self._context)

    def _keep_alive(self) -> None:
        self._beat = None
        self._send(":\n\n")
        if self._streams and not self._over:
            self._wait()

    def _event(self, what: str) -> str:
        """What browsers are told: `hello` to one that comes; `page` or `style` has changed."""
        from ..errorpage import STYLE

        said: dict[str, Any] = {"what": what, "state": self._state, "style": STYLE.replace(":root", ":host") + _OVERLAY}
        if self._failures:
            workers: dict[tuple[str, str], list[int]] = {}
            for worker, message, traceback in self._failures:
                workers.setdefault((message, traceback), []).append(worker)
            said["failures"] = [
                {
                    "message": message,
                    "place": self._place(traceback),
                    "traceback": traceback,
                    "workers": sorted(numbers),
                }
                for (message, traceback), numbers in workers.items()
            ]
        return f"data: {json.dumps(said)}\n\n"

    def _place(self, traceback: str) -> str:
        """Where it went wrong: the last place of a traceback that is the program's, else the last."""
        places = [(path, line) for path, line in _PLACE.findall(traceback)]
        own = [place for place in places if self._worker.own.has(os.path.abspath(place[0]))]
        if not places:
            return ""
        path, line = (own or places)[-1]
        folder = os.path.join(self._worker.own.folder, "")
        return f"{path.removeprefix(folder)}:{line}"


def _is_own(request: Request) -> bool:
    """Whether it may be a page of this server that asks. Of https and of localhost browsers tell."""
    site = request.headers.get("sec-fetch-site")
    if site is not None:
        return site in ("same-origin", "none")
    origin = request.headers.get("origin")
    return origin is None or origin.partition("://")[2] == request.headers.get("host")

"""Notify: tells systemd that the server serves, reloads, stops, and is alive (sd_notify(3), sd_watchdog_enabled(3)).

`supervisor` owns one `Notify` and calls it; without NOTIFY_SOCKET it does nothing. It takes the variables out of the
environment, so that no program speaks in the server's name. What cannot be sent is logged once and forgotten: the
server serves whether or not anybody listens. Kept small, as all that the parent imports.
"""

from __future__ import annotations

import _socket
import os
import time

from . import logs

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import MutableMapping

VARIABLES = "NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"
# Seconds that a message may wait for systemd to read those before it.
SEND_TIME = 1.0
# Seconds between signs of life, however impatient the watchdog is.
SHORTEST_BEAT = 0.05
LONGEST_BEAT = 86400.0


class Notify:
    """`due` is when the next sign of life is to be given, by the monotonic clock; None: nobody waits for one."""

    __slots__ = ("_address", "_beat", "_failed", "_reloading", "_serves", "_status", "due", "variables")

    def __init__(self, environment: MutableMapping[str, str]) -> None:
        # For a parent that replaces itself.
        self.variables = {name: environment.pop(name) for name in VARIABLES if name in environment}
        name, interval, pid = (self.variables.get(name, "") for name in VARIABLES)
        # As bytes: a name in no folder begins with a zero, which is written as @.
        self._address = b"\0" + os.fsencode(name[1:]) if name.startswith("@") else os.fsencode(name)
        self._failed = False
        self._serves = False
        self._reloading = False
        self._status = ""
        self._beat = 0.0
        self.due: float | None = None
        if name and not name.startswith(("/", "@")):
            self._give_up(f"{name!r} is neither a path nor begins with @")
        if self._address and is_number(interval) and pid in ("", str(os.getpid())):
            self._beat = min(max(int(interval) / 2_000_000, SHORTEST_BEAT), LONGEST_BEAT)
            self.due = time.monotonic()

    def ready(self, status: str) -> None:
        """The server serves. `status`: a line for a person."""
        self._serves = True
        self._status = status
        self._send("READY=1", f"MAINPID={os.getpid()}", f"STATUS={status}")

    def reloading(self) -> None:
        """A reload begins, or is asked for again: `systemctl reload` waits for word that is younger than its signal."""
        if self._serves:
            self._reloading = True
            self._send("RELOADING=1", f"MONOTONIC_USEC={time.monotonic_ns() // 1000}", "STATUS=reloading")

    def follow(self, reloads: bool) -> None:
        """Whether a reload is under way, as often as may be; what changes is said."""
        if reloads and not self._reloading:
            self.reloading()
        elif self._reloading and not reloads:
            self._reloading = False
            self._send("READY=1", f"STATUS={self._status}")

    def stopping(self) -> None:
        """The end begins. Of reloads nothing more is said."""
        self._serves = self._reloading = False
        self._send("STOPPING=1", "STATUS=stopping")

    def look(self, now: float) -> None:
        """Give a sign of life if it is due."""
        if self.due is not None and self.due <= now:
            self.due = now + self._beat
            self._send("WATCHDOG=1", wait=0.0)  # the next one follows

    def _send(self, *lines: str, wait: float = SEND_TIME) -> None:
        if not self._address:
            return
        # A line feed in the name of a socket must not begin an assignment.
        text = "\n".join(line.replace("\n", " ") for line in lines)
        try:
            socket = _socket.socket(_socket.AF_UNIX, _socket.SOCK_DGRAM)
            try:
                socket.settimeout(wait)
                socket.sendto(text.encode("utf-8", "replace"), self._address)
            finally:
                socket.close()
        except OSError as error:
            if not self._failed:
                self._failed = True
                logs.log("warning", f"NOTIFY_SOCKET: systemd cannot be told: {error.strerror or error}")

    def _give_up(self, why: str) -> None:
        self._address = b""
        logs.log("warning", f"NOTIFY_SOCKET: systemd cannot be told: {why}")


def is_number(text: str) -> bool:
    """Digits only, not all of them zero, and not too many."""
    return text.isascii() and text.isdigit() and len(text) < 20 and int(text) > 0

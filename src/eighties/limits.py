"""Every limit of the engine: name, default, unit, status and reason, in one table.

The command line makes an option of each (`--max-body`), the environment a variable (`EIGHTIES_MAX_BODY`), `App` a
keyword (`App(max_body=…)`), and `docs/limits.md` is held true to it by a test. The engine reads plain integers.
"""

from __future__ import annotations


class Limit:
    """One limit: `default` in `unit`, answered with `status` (0: the connection is closed without an answer)."""

    # No NamedTuple: the parent process reads this table, and `typing` would cost it a megabyte.
    __slots__ = ("default", "name", "reason", "status", "unit")

    def __init__(self, name: str, default: int, unit: str, status: int, reason: str) -> None:
        self.name = name
        self.default = default
        self.unit = unit
        self.status = status
        self.reason = reason


LIMITS = (
    Limit("max_request_line", 8192, "bytes", 414, "longer than any browser's URL; bounds what is kept before routing"),
    Limit("max_header_bytes", 32768, "bytes", 431, "request line and header fields together; a few large cookies fit"),
    Limit("max_headers", 100, "fields", 431, "each field costs a lookup entry; browsers send about 20"),
    Limit("max_body", 1048576, "bytes", 413, "a buffered body is held in memory; larger ones are streamed"),
    Limit("header_timeout", 10, "seconds", 408, "absolute, from the first byte: a byte a second does not renew it"),
    Limit("body_timeout", 30, "seconds", 408, "longest silence within a body, and the time before min_rate is asked"),
    Limit("min_rate", 500, "bytes/s", 408, "slowest body or answer that is served on, past the timeout of its kind"),
    Limit("keep_alive_timeout", 75, "seconds", 0, "how long an idle connection is kept for the next request"),
    Limit("handler_timeout", 60, "seconds", 503, "until a handler's answer begins; 0 switches it off"),
    Limit("write_timeout", 30, "seconds", 0, "longest time in which a client reads nothing of its answer"),
    Limit("max_connections", 20000, "connections", 503, "per worker; bounds memory and descriptors"),
    Limit("max_buffered", 262144, "bytes", 0, "output held for one connection before its producer waits"),
)

DEFAULTS = {limit.name: limit.default for limit in LIMITS}

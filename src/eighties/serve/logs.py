"""Logs: one line to stderr for each event, for a person at a terminal or as a JSON object in a pipe.

Used by the parent and by every worker. The only state is `_worker`, the number that this process writes; the
standard library's `logging` is touched only by `capture_logging`, which a worker calls.
"""

from __future__ import annotations

import os
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    import logging

_STDERR = 2
_OURS = os.path.dirname(os.path.dirname(os.path.abspath(__file__))) + os.sep
_COLOURS = {"debug": "2", "warning": "33", "error": "31", "critical": "31"}
_ESCAPES = {code: f"\\u{code:04x}" for code in range(32)} | {34: '\\"', 92: "\\\\", 10: "\\n", 9: "\\t"}

_worker: int | None = None


def set_worker(number: int) -> None:
    """From now on lines of this process carry the worker's number."""
    global _worker
    _worker = number


def is_terminal() -> bool:
    """Whether a person reads along."""
    try:
        return os.isatty(_STDERR)
    except OSError:  # closed
        return False


def to_json(value: object) -> str:
    """JSON of what settings and log fields are made of. The parent does not pay for `json` and `re`."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, (int, float)):
        return repr(value)
    if isinstance(value, dict):
        return "{" + ", ".join(f"{to_json(str(name))}: {to_json(item)}" for name, item in value.items()) + "}"
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(map(to_json, value)) + "]"
    return '"' + str(value).translate(_ESCAPES) + '"'


def log(level: str, message: str, **fields: object) -> None:
    """Write one line. `level` as in logging, in lower case; fields that are None are left out."""
    fields = {name: value for name, value in fields.items() if value is not None}
    write((_for_person if is_terminal() else _for_pipe)(level, message, fields))


def write(text: str) -> None:
    """To stderr in one call, so that lines of several processes do not mix. A reader that is gone is no error."""
    # A lone surrogate becomes \udcXX, which JSON reads back.
    data = text.encode("utf-8", "backslashreplace")
    try:
        while data:
            data = data[os.write(_STDERR, data) :]
    except OSError:
        pass


def _for_pipe(level: str, message: str, fields: dict[str, object]) -> str:
    now = time.time()
    ts = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(now)) + f".{int(now * 1000) % 1000:03d}Z"
    line: dict[str, object] = {"ts": ts, "level": level, "worker": _worker, "message": message}
    return to_json(line | fields) + "\n"


def _for_person(level: str, message: str, fields: dict[str, object]) -> str:
    who = "80s" if _worker is None else f"worker {_worker}"
    traceback = str(fields.pop("traceback", ""))
    if traceback and not traceback.endswith("\n"):
        traceback += "\n"
    start = level
    if level in _COLOURS and "NO_COLOR" not in os.environ:
        start = f"\x1b[{_COLOURS[level]}m{level}\x1b[0m"
    shown = "".join(f"  {name}={value}" for name, value in fields.items())
    return f"{time.strftime('%H:%M:%S')} {who} {start}: {message}{shown}\n{traceback}"


def traceback_of(error: BaseException) -> str:
    """The traceback as a user wants it: without the frames of ours that led to the program."""
    import traceback

    report = traceback.TracebackException.from_exception(error)
    part: traceback.TracebackException | None = report
    while part is not None:
        frames = [frame for frame in part.stack if not frame.filename.startswith("<frozen importlib")]
        while frames and frames[0].filename.startswith(_OURS):
            del frames[0]
        part.stack = traceback.StackSummary.from_list(frames)
        part = part.__cause__ or part.__context__
    return "".join(report.format())


def capture_logging() -> None:
    """Have the standard library's loggers write here too, unless the program set them up otherwise later."""
    import logging

    class Lines(logging.Handler):
        """Hands records on to `log`."""

        def emit(self, record: logging.LogRecord) -> None:
            """One record, one line."""
            try:
                log(record.levelname.lower(), record.getMessage(), **_fields_of(record))
            except Exception:
                self.handleError(record)

    root = logging.getLogger()
    if not root.handlers:
        root.addHandler(Lines())
        root.setLevel(logging.INFO)


def _fields_of(record: logging.LogRecord) -> dict[str, object]:
    """The logger's name where it is not ours, and the traceback."""
    error = record.exc_info[1] if record.exc_info else None
    return {
        "logger": None if record.name == "eighties" else record.name,
        "traceback": record.exc_text or (traceback_of(error) if error is not None else None),
    }

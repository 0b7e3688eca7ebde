"""HTTPError, and the texts that tell a client or a developer what went wrong.

Keeps no state. A program raises HTTPError in handlers and hooks; `app.py` asks for the texts when a
request has failed. Every text is only read from the exception: nothing of it is evaluated.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from types import FrameType

SOURCE_LINES = 5
"""Lines of source shown above and below the failing one: a screen holds a few frames of that size."""
SHOWN_FRAMES = 20
"""A runaway recursion has a thousand equal frames; the innermost twenty tell the same."""


class HTTPError(Exception):
    """Raised in a handler or hook, it is the answer: `raise HTTPError(404, "no such user")`.

    Arguments:
        status: 400 to 599 (RFC 9110 §15.5, §15.6).
        detail: plain text for the client; without one the status's name is sent.
        headers: further header fields, as a mapping or as pairs (`WWW-Authenticate`, `Retry-After`…).
    Raises:
        ValueError: the status is not that of an error.
    """

    def __init__(
        self,
        status: int,
        detail: str = "",
        headers: Mapping[str, str] | Iterable[tuple[str, str]] | None = None,
    ) -> None:
        if not 400 <= status <= 599:
            raise ValueError(f"HTTPError: status {status} is no error, it must be 400 to 599")
        super().__init__(status, detail)
        self.status = status
        self.detail = detail
        self.headers = header_pairs(headers)

    def __str__(self) -> str:
        return f"{self.status} {self.detail or reason(self.status)}"


def header_pairs(headers: Mapping[str, str] | Iterable[tuple[str, str]] | None) -> list[tuple[str, str]]:
    """Header fields from either way of writing them, as a new list of pairs."""
    if headers is None:
        return []
    return list(headers.items()) if isinstance(headers, Mapping) else list(headers)


def reason(status: int) -> str:
    """The name of a status, `Not Found` of 404 (RFC 9110 §15); `Error` of one that has none."""
    from http import HTTPStatus

    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "Error"


def plain(error: HTTPError) -> str:
    """What a client reads of an error that no error handler has answered."""
    return f"{error.detail or reason(error.status)}\n"


def traceback_text(error: BaseException) -> str:
    """The traceback as Python prints it, for developers at a terminal."""
    import traceback

    return "".join(traceback.format_exception(error))


def traceback_page(error: BaseException, title: str) -> str:
    """The traceback as an HTML page, the program's own frames first, with the source around each.

    Arguments:
        error: the exception, with its `__traceback__`.
        title: what was being done, such as `GET /users/7`.
    """
    import linecache
    import traceback
    from html import escape

    linecache.checkcache()  # a file may have been saved since it was last shown
    summary = "".join(traceback.format_exception_only(error)).strip()
    own, others = _frames(error)
    parts = [_PAGE_HEAD.format(title=escape(title), summary=escape(summary))]
    parts += [_frame_html(frame, line, opened=True) for frame, line in own]
    if others:
        parts.append(f"<details><summary>{len(others)} frames of libraries and the server</summary>")
        parts += [_frame_html(frame, line, opened=False) for frame, line in others]
        parts.append("</details>")
    parts.append(f"<h2>As Python prints it</h2><pre>{escape(traceback_text(error))}</pre></main></html>\n")
    return "".join(parts)


def _frames(error: BaseException) -> tuple[list[tuple[FrameType, int]], list[tuple[FrameType, int]]]:
    """Frames of the program and of all others, the innermost first."""
    own: list[tuple[FrameType, int]] = []
    others: list[tuple[FrameType, int]] = []
    step = error.__traceback__
    while step is not None:
        (own if _is_own(step.tb_frame.f_code.co_filename) else others).append((step.tb_frame, step.tb_lineno))
        step = step.tb_next
    return own[: -SHOWN_FRAMES - 1 : -1], others[: -SHOWN_FRAMES - 1 : -1]


def _is_own(filename: str) -> bool:
    """Whether a file belongs to the program: neither to Python, nor to what is installed, nor to the server."""
    if filename.startswith("<"):
        return False
    house = os.path.dirname(os.path.abspath(__file__)) + os.sep
    library = os.path.dirname(os.path.abspath(os.__file__)) + os.sep
    path = os.path.abspath(filename)
    installed = f"{os.sep}site-packages{os.sep}" in path or f"{os.sep}dist-packages{os.sep}" in path
    return not (installed or path.startswith((house, library)))


def _frame_html(frame: FrameType, line: int, *, opened: bool) -> str:
    import linecache
    from html import escape

    code = frame.f_code
    rows = []
    for number in range(max(1, line - SOURCE_LINES), line + SOURCE_LINES + 1):
        text = linecache.getline(code.co_filename, number, frame.f_globals)
        if text:
            row = f"{number:>5}  {escape(text.rstrip())}\n"
            rows.append(f"<mark>{row}</mark>" if number == line else row)
    head = f"<code>{escape(code.co_filename)}:{line}</code> in <b>{escape(code.co_qualname)}</b>"
    return f"<details{' open' if opened else ''}><summary>{head}</summary><pre>{''.join(rows)}</pre></details>"


_PAGE_HEAD = """<!doctype html>
<html lang="en"><meta charset="utf-8"><title>{summary}</title>
<style>
:root {{ color-scheme: light dark; font: 16px/1.5 system-ui, sans-serif }}
main {{ max-width: 60rem; margin: 2rem auto; padding: 0 1rem }}
h1 {{ font-size: 1.4rem; white-space: pre-wrap; overflow-wrap: anywhere }}
pre {{ padding: .5rem; overflow: auto; font-size: .85rem; border: 1px solid #8886; border-radius: .3rem }}
mark {{ display: inline-block; min-width: 100%; background: #f553; color: inherit }}
summary {{ cursor: pointer; overflow-wrap: anywhere }}
</style>
<main><p>{title}</p><h1>{summary}</h1>
"""

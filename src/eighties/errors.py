"""HTTPError, and what a client or a developer is told of what went wrong.

Keeps no state. A program raises HTTPError in handlers and hooks; `app.py` asks for the answer when a request has
failed. Visitors get the short one made here, developers that of `errorreport.py` and `errorpage.py`, which are loaded
when the first error is shown.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Literal, NamedTuple

if TYPE_CHECKING:
    from . import _engine

MAX_MESSAGE = 4000
"""Characters of an exception's message that are shown: a whole document in one is not read there."""

Form = Literal["html", "json", "text"]
_FORMS: dict[str, Form] = {"text/html": "html", "application/json": "json", "text/json": "json", "text/plain": "text"}
_WEIGHT = re.compile(r"\s*q\s*=\s*(0(?:\.\d*)?|1(?:\.0*)?)\s*")
_TEXT, _HTML, _JSON = "text/plain; charset=utf-8", "text/html; charset=utf-8", "application/json"


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


class PageMistake(NamedTuple):
    """What a PageError says; see `pages/scanner.py`."""

    path: str
    line: int
    message: str
    text: str
    chain: tuple[str, ...]
    shown: str


def page_mistake(error: BaseException) -> PageMistake | None:
    """What an exception says of a page that does not compile; None of any other exception.

    It is known by its attributes: the floor of the pages is above this one.
    """
    values = getattr(error, "__dict__", {})
    path, line, chain = values.get("path"), values.get("line"), values.get("chain")
    if not (isinstance(path, str) and isinstance(line, int) and isinstance(chain, tuple)):
        return None
    shown = values.get("shown")
    if not isinstance(shown, str) or os.path.isabs(shown):  # where the site lies is nobody's business
        shown = os.path.basename(path)
    message, text = values.get("message", ""), values.get("text", "")
    return PageMistake(path, line, f"{message}"[:MAX_MESSAGE], f"{text}", tuple(map(str, chain)), shown)


# ---- answers ----


class Answer(NamedTuple):
    """What a Response is made of, in its order."""

    body: bytes
    status: int
    fields: list[tuple[str, str]]
    content_type: str


def error_answer(error: BaseException, request: _engine.Request, *, dev: bool) -> Answer:
    """The answer to an error that no handler answers: JSON or a page where the client prefers it, else text.

    Arguments:
        error: the exception, with its `__traceback__`.
        dev: show developers what happened; otherwise only an HTTPError and a page's mistake say more than the status.
    """
    form = preferred_form(",".join(request.headers.getall("accept")))
    if isinstance(error, HTTPError) or not dev:
        return _short_answer(error, form)
    from .errorreport import report, report_json, report_text

    found = report(error, f"{request.method} {request.path} in {request.handler_name}")
    if form == "json":
        return Answer(_encoded(report_json(found)), 500, [("Vary", "Accept")], _JSON)
    if form == "text":
        return Answer(_encoded(report_text(found)), 500, [], _TEXT)
    from .errorpage import POLICY, page

    return Answer(_encoded(page(found)), 500, [("Vary", "Accept"), ("Content-Security-Policy", POLICY)], _HTML)


def preferred_form(accept: str) -> Form:
    """The form that an Accept field names with the highest weight, the first of equals (RFC 9110 §12.5.1).

    Text where it names none: who takes anything (`*/*`) is a program, and its user reads text. Never raises.
    """
    form: Form = "text"
    best = 0.0
    for one in accept.lower().split(","):
        media, *parameters = one.split(";")
        media = media.strip()
        named = "json" if media.endswith(("+json", "*/json")) else _FORMS.get(media)
        weights = [float(found[1]) for found in map(_WEIGHT.fullmatch, parameters) if found]
        weight = weights[0] if weights else 1.0
        if named and weight > best:
            form, best = named, weight
    return form


def _short_answer(error: BaseException, form: Form) -> Answer:
    """What visitors are told."""
    if isinstance(error, HTTPError):
        status, fields, detail, text = error.status, list(error.headers), f"{error.detail}", plain(error)
    else:
        mistake = page_mistake(error)
        detail = f"{mistake.shown}:{mistake.line}: {mistake.message}" if mistake else ""
        status, fields, text = 500, [], f"{reason(500)}\n{detail}\n" if detail else f"{reason(500)}\n"
    if form != "json" or any(name.lower() == "content-type" for name, _ in fields):
        return Answer(_encoded(text), status, fields, _TEXT)
    import json

    value = {"error": reason(status), "status": status} | ({"detail": detail} if detail else {})
    body = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    return Answer(_encoded(body), status, [*fields, ("Vary", "Accept")], _JSON)


def _encoded(text: str) -> bytes:
    """UTF-8. Sources, messages and paths may hold halves of surrogate pairs; `\\udc80` is right in JSON, too."""
    return text.encode("utf-8", "backslashreplace")

"""Inject: the script by which a page follows reloads, put into HTML documents that a browser shows.

`follow` calls `dress` with each answer of a program, with `--dev` only. What is no whole document, or not asked for by
a browser that is to show it, is left as it is. Keeps no state but the script's text.
"""

from __future__ import annotations

import os
import re
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from .. import _engine
from ..http import Response

if TYPE_CHECKING:
    from ..http import Request

# Bytes of a document in a file; a larger one is sent as it is.
MOST_BYTES = 8 << 20
# What browsers say they want it for (https://w3c.github.io/webappsec-fetch-metadata/#sec-fetch-dest-header).
SHOWN = ("document", "iframe", "frame")
# Fields that are true only of the document as it was; Last-Modified would bring back one without the script.
UNTRUE = frozenset(("etag", "last-modified", "accept-ranges", "content-digest", "repr-digest", "digest"))
# Encodings in which a script in ASCII is none.
WIDE = ("utf-16", "utf-32", "utf-7", "ucs", "unicode", "iso-2022", "hz")

_POLICY = "content-security-policy"
_NONCE = re.compile(r"'nonce-([A-Za-z0-9+/_-]+={0,2})'")
_CHARSET = re.compile(r""";\s*charset\s*=\s*["']?([^\s;"']+)""", re.IGNORECASE)
# What may stand before a script in the head without being moved by it (https://html.spec.whatwg.org/#parsing).
_START = re.compile(
    rb"""(?:\xef\xbb\xbf)?(?:\s++|<!doctype[^>]*+>|<!--(?:-?>|.*?--!?>)|<[?][^>]*+>)*+
    (?:<html(?=[\s/>])(?:[^>"']|"[^"]*+"|'[^']*+')*+>(?:\s++|<!--(?:-?>|.*?--!?>))*+)?
    (?:<head(?=[\s/>])(?:[^>"']|"[^"]*+"|'[^']*+')*+>)?""",
    re.IGNORECASE | re.DOTALL | re.VERBOSE,
)


class Refused(Exception):
    """A policy under which no script of ours can run."""


def dress(request: Request, response: Response, state: str) -> Response:
    """The answer with the script in it, where it is a document for a browser to show; else as it is.

    Arguments:
        state: by which the page knows whether it is older than what it is told of.
    """
    kind = _content_type(response)
    if not kind.lower().startswith("text/html") or not _is_whole(response) or not _is_shown(request):
        return response
    body = _read(response.body)
    charset = _CHARSET.search(kind)
    if body is None or body.startswith((b"\xff\xfe", b"\xfe\xff")):
        return response
    if charset is not None and charset[1].lower().startswith(WIDE):
        return response
    try:
        fields, nonce = _admit([pair for pair in response.fields if pair[0].lower() not in UNTRUE])
    except Refused:
        return response
    if not any(name.lower() == "cache-control" and re.search("no-(cache|store)", value) for name, value in fields):
        fields = [pair for pair in fields if pair[0].lower() != "cache-control"] + [("Cache-Control", "no-cache")]
    # Browsers look for an encoding that the head does not name in the first kilobyte: then nothing goes before it
    known = charset is not None or body.startswith(b"\xef\xbb\xbf")
    found = _START.match(body) if known else None
    at = found.end() if found else len(body)
    script = _script(state, nonce, form=request.method not in ("GET", "HEAD"))
    # A response may be one that the program keeps
    return Response(body[:at] + script + body[at:], response.status, fields, response.content_type)


def _content_type(response: Response) -> str:
    named = [value for name, value in response.fields if name.lower() == "content-type"]
    return named[0] if named else response.content_type or ""


def _is_whole(response: Response) -> bool:
    """Whether it has a body that is all of a document, as it is."""
    names = {name.lower() for name, _ in response.fields}
    if response.status in (204, 205, 206, 304) or names & {"content-encoding", "content-range"}:
        return False
    return not any(name.lower() == "content-disposition" and "attachment" in value for name, value in response.fields)


def _is_shown(request: Request) -> bool:
    """Whether a browser asks for it to show it, and no script to have it."""
    wanted = request.headers.get("sec-fetch-dest")
    if wanted is not None:
        return wanted in SHOWN
    return "text/html" in request.headers.get("accept", "").lower() and "x-requested-with" not in request.headers


def _read(body: object) -> bytes | None:
    """The bytes of a body; None for those that are none yet."""
    if isinstance(body, str):
        try:
            return body.encode()
        except UnicodeEncodeError:  # the engine says what is wrong with it
            return None
    if isinstance(body, (bytes, bytearray, memoryview)):
        return bytes(body)
    if not isinstance(body, _engine.FileRegion) or body.length > MOST_BYTES:
        return None
    try:
        data = os.pread(body.fd, body.length, body.offset)
    except OSError:
        return None
    return data if len(data) == body.length else None


@cache
def _text() -> str:
    lines = Path(__file__).with_name("follow.js").read_text("ascii").splitlines()
    return "\n".join(line.strip() for line in lines if not line.strip().startswith("//"))


def _script(state: str, nonce: str | None, *, form: bool) -> bytes:
    with_nonce = f' nonce="{nonce}"' if nonce else ""
    with_form = " data-form" if form else ""
    return f'<script{with_nonce} data-state="{state}"{with_form}>{_text()}</script>'.encode("ascii")


# ---- Content-Security-Policy ----


class Policy:
    """One policy (https://www.w3.org/TR/CSP3/): directives, of which the first of a name counts."""

    def __init__(self, text: str) -> None:
        self.directives = [words for part in text.split(";") if (words := part.split())]
        self.changed = False

    def __str__(self) -> str:
        return "; ".join(" ".join(words) for words in self.directives)

    def sources(self, *names: str) -> list[str] | None:
        """What the first of these directives that is there allows; None: everything is."""
        for name in names:
            for words in self.directives:
                if words[0].lower() == name:
                    return words[1:]
        return None

    def allow(self, source: str, *names: str) -> None:
        """Allow one more in the first of these directives that is there. Where that is the last, `default-src`, the one
        before it is made of it, so that nothing else is allowed more."""
        for name in names:
            old = self.sources(name)
            if old is None:
                continue
            new = [*(one for one in old if one.lower() != "'none'"), source]
            if name == names[-1]:
                self.directives.append([names[-2], *new])
            else:
                at = next(at for at, words in enumerate(self.directives) if words[0].lower() == name)
                self.directives[at] = [name, *new]
            self.changed = True
            return


_SCRIPTS = ("script-src-elem", "script-src", "default-src")
_CONNECTIONS = ("connect-src", "default-src")
Fields = list[tuple[str, str]]


def _admit(fields: Fields) -> tuple[Fields, str | None]:
    """The fields with policies that allow the script and where it listens, and its nonce. Raises Refused."""
    read = [[Policy(text) for text in value.split(",")] if name.lower() == _POLICY else [] for name, value in fields]
    policies = [policy for found in read for policy in found]
    nonce = _first_nonce(policies)
    for policy in policies:
        sandbox = policy.sources("sandbox")
        if sandbox is not None and not {"allow-scripts", "allow-same-origin"} <= {word.lower() for word in sandbox}:
            raise Refused
        scripts = policy.sources(*_SCRIPTS)
        if scripts is not None and f"'nonce-{nonce}'" not in scripts and not _allows_inline(scripts):
            nonce = nonce or os.urandom(16).hex()
            policy.allow(f"'nonce-{nonce}'", *_SCRIPTS)
        connections = policy.sources(*_CONNECTIONS)
        if connections is not None and not {"'self'", "*"} & {word.lower() for word in connections}:
            policy.allow("'self'", *_CONNECTIONS)
    changed = [
        (name, ", ".join(map(str, found)) if any(policy.changed for policy in found) else value)
        for (name, value), found in zip(fields, read, strict=True)
    ]
    return changed, nonce


def _first_nonce(policies: list[Policy]) -> str | None:
    for policy in policies:
        for source in policy.sources(*_SCRIPTS) or ():
            if found := _NONCE.fullmatch(source):
                return found[1]
    return None


def _allows_inline(scripts: list[str]) -> bool:
    """Whether `'unsafe-inline'` is in force: a nonce beside it would end that, for scripts of the page too."""
    words = [word.lower() for word in scripts]
    others = any(word.startswith(("'nonce-", "'sha")) or word == "'strict-dynamic'" for word in words)
    return "'unsafe-inline'" in words and not others

"""The error page of `--dev`: a Report as HTML, with nothing from elsewhere, and nothing that runs but its own script.

Keeps no state; `errors.py` calls `page` and sends POLICY with it. Without JavaScript only the button is missing.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Iterator
from hashlib import sha256
from html import escape

from .errorreport import Failure, Place, Report, Row, report_text

_TITLES = {"cause": "Caused by", "context": "Raised while handling", "member": "In the group"}

STYLE = """
:root { color-scheme: light dark; --back: #fff; --card: #f5f6f8; --ink: #1b1f24; --soft: #57606a; --line: #d4d9df;
  --red: #b3201a; --mark: #ffe1de; --under: #b3201a; --focus: #0a5bd3; font: 16px/1.5 system-ui, sans-serif }
@media (prefers-color-scheme: dark) { :root { --back: #14171b; --card: #1d2127; --ink: #e4e8ed; --soft: #9ba5b1;
  --line: #363d46; --red: #ff8f85; --mark: #4b2327; --under: #ff8f85; --focus: #79b4ff } }
* { box-sizing: border-box }
body { margin: 0; background: var(--back); color: var(--ink) }
main { max-width: 62rem; margin: 0 auto; padding: 1.5rem 1rem 3rem }
header { border-top: .25rem solid var(--red); padding-top: 1rem }
p { margin: .5rem 0; overflow-wrap: anywhere }
.soft, footer { color: var(--soft); font-size: .9rem }
h1, h2, h3 { line-height: 1.3; overflow-wrap: anywhere; white-space: pre-wrap }
h1 { font-size: 1.4rem; margin: .25rem 0 .75rem }
h1 span, h3 span { color: var(--red) }
h2 { font-size: 1.1rem; margin: 2rem 0 .5rem }
h3 { font-size: 1rem; margin: .5rem 0 }
h3.stack { margin-top: 1.25rem }
.place { font-size: 1.05rem }
.note { white-space: pre-wrap; border-left: .2rem solid var(--line); padding-left: .75rem }
code, pre { font-family: ui-monospace, SFMono-Regular, Menlo, Consolas, monospace; font-size: .85rem }
p code, summary code, footer code { font-size: .9em }
footer code { white-space: nowrap }
pre { margin: .5rem 0; padding: .6rem 0; overflow: auto; background: var(--card); border: 1px solid var(--line);
  border-radius: .4rem; line-height: 1.45; tab-size: 4 }
pre > code { display: block; width: max-content; min-width: 100%; padding: 0 .75rem }
mark { display: block; margin: 0 -.75rem; padding: 0 .75rem; background: var(--mark); color: inherit }
mark b { font-weight: inherit; text-decoration: underline wavy var(--under); text-underline-offset: .2em }
details { margin: .5rem 0 }
summary { cursor: pointer; padding: .3rem 0; overflow-wrap: anywhere }
details details { margin-left: 1rem }
button { font: inherit; color: inherit; background: var(--card); border: 1px solid var(--line); border-radius: .4rem;
  padding: .4rem .9rem; cursor: pointer }
button:hover { border-color: var(--soft) }
:focus-visible { outline: .15rem solid var(--focus); outline-offset: .1rem }
footer { margin-top: 2rem }
@media (max-width: 40rem) { main { padding: 1rem .75rem 2rem } h1 { font-size: 1.2rem } code, pre { font-size: .8rem } }
"""

# The clipboard is there on https and on localhost only; elsewhere the browser's older way, or the reader's own hand
SCRIPT = """
const button = document.getElementById("copy"), text = document.getElementById("text")
const say = words => { document.getElementById("said").textContent = words }
const select = () => {
  const range = document.createRange()
  range.selectNodeContents(text)
  getSelection().removeAllRanges()
  getSelection().addRange(range)
  let copied = false
  try { copied = document.execCommand("copy") } catch {}
  if (!copied) text.scrollIntoView()
  say(copied ? "Copied." : "The text is selected: copy it with your keyboard or menu.")
}
button.hidden = false
button.onclick = () => {
  if (!navigator.clipboard) return select()
  navigator.clipboard.writeText(text.textContent).then(() => say("Copied."), select)
}
"""


def _hash(text: str) -> str:
    return f"'sha256-{b64encode(sha256(text.encode()).digest()).decode()}'"


POLICY = (
    f"default-src 'none'; script-src {_hash(SCRIPT)}; style-src {_hash(STYLE)}; base-uri 'none'; form-action 'none'"
)
"""Content-Security-Policy of the page: if anything slipped through unescaped, it would do nothing."""


def page(found: Report) -> str:
    """The whole page."""
    return "".join(_parts(found))


def _parts(found: Report) -> Iterator[str]:
    failure = found.failure
    title = escape(failure.summary.partition("\n")[0][:120])
    yield '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
    yield '<meta name="viewport" content="width=device-width, initial-scale=1">'
    yield f"<title>{title}</title><style>{STYLE}</style></head>\n<body><main>\n"
    yield f'<header><p class="soft">{escape(found.doing)}</p>\n<h1>{_summary(failure)}</h1>\n'
    yield from _where(failure)
    yield '<p><button id="copy" type="button" hidden>Copy as text</button> <span id="said" role="status"></span></p>'
    yield "</header>\n"
    yield from _stack(failure)
    for number, other in enumerate(failure.walk()):
        if number:
            yield from _behind(other, number)
    if found.cut:
        yield '<p class="soft">There are further exceptions behind these.</p>\n'
    yield '<section aria-label="As text"><h2>As text</h2>\n<pre tabindex="0"><code id="text">'
    yield f"{escape(report_text(found))}</code></pre></section>\n"
    yield "<footer>This page is shown because the server runs with <code>--dev</code>. "
    yield "Without it, visitors read only that an error occurred.</footer>\n"
    yield f'</main><script type="module">{SCRIPT}</script></body></html>\n'


def _summary(failure: Failure) -> str:
    if not failure.message:
        return f"<span>{escape(failure.kind)}</span>"
    # One piece, so that it can be searched for as Python prints it
    return f"<span>{escape(failure.kind)}</span>: {escape(failure.message)}"


def _where(failure: Failure) -> Iterator[str]:
    """Notes, place and source: what one looks at first."""
    yield from (f'<p class="note">{escape(note)}</p>\n' for note in failure.notes)
    if failure.place is not None:
        yield f'<p class="place">{_named(failure.place)}</p>\n{_source(failure.place)}'
    if failure.includes:
        way = " → ".join(f"<code>{escape(file)}</code>" for file in failure.includes)
        yield f"<p>Included from {way}</p>\n"


def _stack(failure: Failure, heading: str = "h2") -> Iterator[str]:
    """The places that have not been shown yet: the program's own open, the others folded."""
    own = [place for place in failure.stack if place.own and place is not failure.place]
    others = [place for place in failure.stack if not place.own and place is not failure.place]
    if not (own or others):
        return
    yield f'<section aria-label="Stack"><{heading} class="stack">{"Called from" if own else "Stack"}</{heading}>\n'
    yield from (_folded(place, opened=True) for place in own)
    if others:
        count = f"{len(others)} frames" if len(others) > 1 else "1 frame"
        yield f"<details><summary>{count} of libraries and the server</summary>\n"
        yield from (_folded(place, opened=False) for place in others)
        yield "</details>\n"
    if failure.left_out:
        yield f'<p class="soft">{failure.left_out} further frames are not shown.</p>\n'
    yield "</section>\n"


def _behind(failure: Failure, number: int) -> Iterator[str]:
    """A cause, a context or a member of a group."""
    name = f"behind-{number}"
    yield f'<section aria-labelledby="{name}"><h2 id="{name}">{_TITLES[failure.how]}</h2>\n'
    yield f"<h3>{_summary(failure)}</h3>\n"
    yield from _where(failure)
    yield from _stack(failure, "h3")
    yield "</section>\n"


def _folded(place: Place, *, opened: bool) -> str:
    return f"<details{' open' if opened else ''}><summary>{_named(place)}</summary>\n{_source(place)}</details>\n"


def _named(place: Place) -> str:
    function = f" in <b>{escape(place.function)}</b>" if place.function else ""
    repeated = f", {place.repeated} more times the same" if place.repeated else ""
    return f"<code>{escape(place.file)}:{place.line}</code>{function}{repeated}"


def _source(place: Place) -> str:
    if not place.rows:
        return '<p class="soft">There is no source to show.</p>\n'
    rows = "".join(_row(row, marked=row.number == place.line) for row in place.rows)
    label = escape(f"Source of {place.file}, line {place.line}")
    return f'<pre tabindex="0" role="region" aria-label="{label}"><code>{rows}</code></pre>\n'


def _row(row: Row, *, marked: bool) -> str:
    text = escape(row.text)
    if marked and row.span is not None:
        start, end = row.span
        failing = row.text[start:end].ljust(end - start)
        text = f"{escape(row.text[:start])}<b>{escape(failing)}</b>{escape(row.text[end:])}"
    line = f"{row.number:>5}  {text}\n"
    return f"<mark>{line}</mark>" if marked else line

"""docs/pages.md: its examples are files of sites that servers serve, and answer as the page says.

The files under one heading (`##`) make one site, with a server of its own. A line that ends in a file's name in
backticks and a colon, `public_html/x.html`:, says what the block below it is; one with `GET /x` in backticks and
"answers" in it, that the block is the whole body of that answer. Comments of HTML, which readers do not see, say more:

    file NAME TEXT              another file of the site, `\\n` for a line end; below `serve` or a request: written then
    serve --dev NAME=VALUE      options and variables that the site is served with
    GET /x => 404 text and text the answer has this status (200), and these texts in header or body; cookies are kept
    GET /x {Name: value} => …   with a header field
    POST /x a=1&b=2 => …        with a form
    soon GET /x => …            not at once, but after a while
    unchanged /x => …           asked again with the ETag of the answer
    follow /a /b => …           the first address in the answer of /a that begins with /b, followed
    log text                    the server logs this; what it logs beside such lines and is no information is a failure
"""

from __future__ import annotations

import html
import re
import urllib.parse
from pathlib import Path
from typing import NamedTuple

import pytest
from conftest import Serve
from server import Reply, Server, wait_until

from eighties import limits, sessions, urls
from eighties.pages import CONTEXT_NAMES, compiler, tree
from eighties.serve.settings import ANCESTORS_LIMITS, LIMIT_OPTIONS, OPTIONS

pytestmark = pytest.mark.pure

PAGE = Path(__file__).parent.parent / "docs" / "pages.md"
TEXT = PAGE.read_text("utf-8")
PART = re.compile(
    r"^(?P<label>[^\n]*)\n+(?P<fence>`{3,})\w+\n(?P<block>.*?)^(?P=fence)$|^<!--\n(?P<script>.*?)^-->$", re.M | re.S
)
FILE = re.compile(r"`([\w./]+\.\w+)`:$")
ANSWERS = re.compile(r"`(GET [^`]+)` answers\b[^`]*(?:`[^`]*`[^`]*)?:$")
REQUEST = re.compile(r"(?P<method>[A-Z]+) (?P<path>\S+)(?: \{(?P<name>[\w-]+): (?P<value>.*?)\})?(?: (?P<form>\S+))?")
WANTED = re.compile(r"(?:(?P<status>\d{3})(?: |$))?(?P<text>.*)", re.S)
NO_KEY = "MASTER_KEY is not set"  # as most of the examples have none


class Site(NamedTuple):
    """What stands under a heading. `script`: lines of the comments, and the answers, in order."""

    title: str
    files: dict[str, str]
    arguments: list[str]
    variables: dict[str, str]
    script: list[str]


def read_sites() -> list[Site]:
    sites = []
    for section in re.split(r"^## ", TEXT, flags=re.M)[1:]:
        site = Site(section.partition("\n")[0], {}, [], {}, [])
        for part in PART.finditer(section):
            if part["script"] is not None:
                for line in part["script"].splitlines():
                    read_line(site, line)
            elif file := FILE.search(part["label"]):
                site.files[file[1]] = part["block"]
            else:
                answers = ANSWERS.search(part["label"])
                assert answers, f"docs/pages.md, {site.title}: what is the block below {part['label']!r}?"
                site.script.append(f"{answers[1]} answers {part['block']}")
        if site.script:
            sites.append(site)
    return sites


def read_line(site: Site, line: str) -> None:
    verb, _, rest = line.partition(" ")
    if verb == "serve":
        for word in rest.split():
            name, equals, value = word.partition("=")
            if equals and not name.startswith("-"):
                site.variables[name] = value
            else:
                site.arguments.append(word)
    elif verb == "file" and not any(" => " in line for line in site.script):
        name, _, text = rest.partition(" ")
        site.files[name] = text.replace("\\n", "\n")
    else:
        site.script.append(line)


SITES = read_sites()


class Visitor:
    """What plays a script: a browser with its cookies."""

    def __init__(self, server: Server, folder: Path) -> None:
        self.server = server
        self.folder = folder
        self.cookies: dict[str, str] = {}

    def play(self, line: str) -> None:
        verb, _, rest = line.partition(" ")
        what, _, wanted = (part.strip(" ") for part in rest.partition("=>"))
        if verb == "file":
            name, _, text = rest.partition(" ")
            (self.folder / name).write_text(text.replace("\\n", "\n"))
        elif verb == "soon":
            wait_until(lambda: wanted in self.ask(what).text, line)
        elif verb == "unchanged":
            etag = self.ask(f"GET {what}").headers["etag"]
            self.compare(line, self.ask(f"GET {what} {{If-None-Match: {etag}}}"), wanted)
        elif verb == "follow":
            page, start = what.split()
            found = re.search(f'"({re.escape(start)}[^"]*)"', self.ask(f"GET {page}").text)
            assert found, line
            self.compare(line, self.ask(f"GET {html.unescape(found[1])}"), wanted)
        elif " answers " in line:
            request, _, text = line.partition(" answers ")
            # A block of Markdown ends with a line end; whether the page does, too, cannot be seen in it.
            assert self.ask(request).text.removesuffix("\n") == text.removesuffix("\n"), request
        else:
            self.compare(line, self.ask(f"{verb} {what}"), wanted)

    def ask(self, request: str) -> Reply:
        match = REQUEST.fullmatch(request)
        assert match, f"docs/pages.md: what is {request!r}?"
        headers = {match["name"]: match["value"]} if match["name"] else {}
        if match["form"]:
            headers["Content-Type"] = "application/x-www-form-urlencoded"
        if self.cookies:
            headers["Cookie"] = "; ".join(f"{name}={value}" for name, value in self.cookies.items())
        path = urllib.parse.quote(match["path"], safe="/%?=&+")
        reply = self.server.request(match["method"], path, (match["form"] or "").encode() or None, headers)
        for cookie in reply.headers.get_all("set-cookie", []):
            name, _, value = cookie.partition(";")[0].partition("=")
            self.cookies[name] = value
        return reply

    def compare(self, line: str, reply: Reply, wanted: str) -> None:
        match = WANTED.fullmatch(wanted.replace("\\n", "\n"))
        assert match and wanted, f"docs/pages.md: what is {line!r}?"
        fields = "".join(f"{name.lower()}: {value}\n" for name, value in reply.headers.items())
        assert str(reply.status) == (match["status"] or "200"), f"{line}\n{reply.status}\n{reply.text}"
        for text in match["text"].split(" and "):
            assert text in f"{fields}\n{reply.text}", f"{line}\n{fields}\n{reply.text}"


@pytest.mark.parametrize("site", SITES, ids=lambda site: site.title)
def test_examples_of_the_page(site: Site, serve: Serve, tmp_path: Path) -> None:
    for name, text in site.files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    server = serve(".", *site.arguments, env=no_variables() | site.variables)
    visitor = Visitor(server, tmp_path)
    logged = [line.partition(" ")[2] for line in site.script if line.startswith("log ")]
    for line in site.script:
        if not line.startswith("log "):
            visitor.play(line)
    assert server.stop() == 0
    loud = [line["message"] for line in server.log if line["level"] in ("warning", "error", "critical")]
    loud = [message for message in loud if NO_KEY not in message]
    assert len(loud) == len(logged) and all(any(one in message for message in loud) for one in logged), server.stderr


def no_variables() -> dict[str, str]:
    """None of ours: an empty variable is none."""
    short = {option.alias for option in (*OPTIONS, *LIMIT_OPTIONS)} - {""}
    return dict.fromkeys(short | {"MASTER_KEY"}, "")


def test_every_block_is_tested() -> None:
    fences = len(re.findall(r"^`{3,}\w+$", TEXT, re.M))
    assert fences == sum(part["block"] is not None for part in PART.finditer(TEXT)) > 15
    assert all(site.files for site in SITES)


# ---- tables ----


def section(title: str) -> str:
    return TEXT.partition(f"\n## {title}\n")[2].partition("\n## ")[0]


def rows(title: str) -> list[list[str]]:
    """The cells of a section's tables."""
    lines = [line for line in section(title).splitlines() if line.startswith("| ")]
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines]


def test_every_name_of_a_block_is_in_the_table() -> None:
    told = {name for row in rows("Names in a block") for name in re.findall(r"`(\w+)(?:\([^`]*\))?`", row[0])}
    assert told == CONTEXT_NAMES | {"done"}
    assert "`query.e`" in section("Names in a block")


def test_settings_are_told() -> None:
    told = {row[0].strip("`"): row[1] for row in rows("Settings")}
    wanted = {option.alias: option.flags[-1] for option in (*OPTIONS, *LIMIT_OPTIONS) if option.alias}
    assert {"HTTP_MAX_HEADER_SIZE", "HTTP_MAX_BODY_SIZE"} <= set(ANCESTORS_LIMITS.values()) <= set(wanted)
    for variable, flag in {**wanted, "EIGHTIES_DEV": "--dev"}.items():
        assert told[variable].strip("`").split()[0] == flag
    assert told["MASTER_KEY"].startswith("none")
    assert f"{limits.DEFAULTS['max_header_bytes']} bytes" in section("Settings")
    assert f"{limits.DEFAULTS['max_body']} bytes" in section("Settings")


@pytest.mark.parametrize(
    ("title", "said"),
    [
        ("Files and URLs", f"under {tree.MAX_PAGE // 10**6} MB"),
        ("Blocks", f"up to {compiler.MAX_DEPTH} files deep"),
        ("Sessions", f"for {sessions.MAX_AGE // 86400} days"),
        ("Sessions", f"cookies of {sessions.MAX_COOKIE:,}"),
        ("Sessions", f"{sessions.MAX_SESSIONS:,} sessions of {sessions.MAX_BYTES >> 10} kB"),
        ("Links", f"at most {urls.MAX_URL:,} characters"),
        ("Links", f"{urls.MIN_KEY} bytes or more"),
        ("Waiting", f"`handler_timeout` ({limits.DEFAULTS['handler_timeout']} s)"),
    ],
)
def test_limits_are_told(title: str, said: str) -> None:
    assert said in " ".join(section(title).split())

"""What the pages in public_html share. Serve all of it with `80s examples/www`.

This file runs once in every worker, before the first request. Its names are the globals of every page.
"""

from collections import deque
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

from eighties import App, Request

ROOT = Path(__file__).parent / "public_html"


class Lesson(NamedTuple):
    """A page of the menu and the start page, and what it shows."""

    url: str
    name: str
    what: str


LESSONS = [
    Lesson("/guestbook/", "Guestbook", "A form that is checked, keeps what was typed, and redirects when all is well."),
    Lesson("/session", "Session", "A counter in an encrypted cookie. The server itself remembers nothing."),
    Lesson("/parallel", "Parallel", "Three slow questions asked at once: the page takes as long as the slowest."),
    Lesson("/upload", "Upload", "A file arrives; its name, type, size and checksum come back."),
    Lesson("/links", "Links", "Addresses whose parameters nobody can read or change."),
    Lesson("/oops", "Oops", "A page that fails. You see where and why, your visitors never do."),
]

# ---- the guestbook ----

MAX_NAME = 40
MAX_TEXT = 500


@dataclass(frozen=True)
class Post:
    """What somebody wrote in the guestbook."""

    when: datetime
    name: str
    text: str


# Newest first; the hundred and first pushes the oldest out. Every worker has its own, and they end with it:
# with `-c 4` you meet four guestbooks. A database would hold one.
posts: deque[Post] = deque(maxlen=100)


def errors_in(name: str, text: str) -> dict[str, str]:
    """What is wrong with a post, by field. The browser has checked too, but anybody can send anything."""
    errors = {}
    if not 0 < len(name) <= MAX_NAME:
        errors["name"] = f"Please give a name of at most {MAX_NAME} characters."
    if not 0 < len(text) <= MAX_TEXT:
        errors["text"] = f"Please write something, in at most {MAX_TEXT} characters."
    return errors


def add_post(name: str, text: str) -> None:
    """Keep a post that `errors_in` has found nothing wrong with."""
    posts.appendleft(Post(datetime.now(UTC), name, text))


# ---- routes and hooks: what is not a page ----

app = App()


@app.get("/api/posts")
def api_posts(request: Request) -> list[Post]:
    """The guestbook as JSON. Routes of `app` come before pages."""
    return list(posts)


hits = 0


def on_before_http(method: str, endpoint: str, session: dict[str, Any]) -> None:
    """Called before every page; the footer shows the number."""
    global hits
    hits += 1


# ---- for header and footer ----


def asset(name: str) -> str:
    """The address of a file in static/. Browsers keep it for a week, so a changed file needs a new address."""
    return f"/static/{name}?{(ROOT / 'static' / name).stat().st_mtime_ns:x}"


def source(name: str) -> str:
    """The text of a page, so that each lesson can show its own. Never pass on what a visitor sent: it is a path."""
    return (ROOT / name).read_text("utf-8")

"""What the pages in public_html share. Serve all of it with `80s examples/www`.

This file runs once in every worker, before the first request. Its names are the globals of every page.
"""

import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, NamedTuple
from urllib.parse import quote

from eighties import App, Request
from eighties.sql import Entity, Repository, Varchar, connect, derived, field

HERE = Path(__file__).resolve().parent
ROOT = HERE / "public_html"


class Lesson(NamedTuple):
    """A page of the menu and the start page, and what it shows."""

    url: str
    name: str
    what: str


LESSONS = [
    Lesson("/guestbook/", "Guestbook", "A form that is checked, and a database: SQLite in a file, or MySQL."),
    Lesson("/session", "Session", "A counter in an encrypted cookie. The server itself remembers nothing."),
    Lesson("/parallel", "Parallel", "Three slow questions asked at once: the page takes as long as the slowest."),
    Lesson("/upload", "Upload", "A file arrives; its name, type, size and checksum come back."),
    Lesson("/links", "Links", "Addresses whose parameters nobody can read or change."),
    Lesson("/oops", "Oops", "A page that fails. You see where and why, your visitors never do."),
]

# ---- the guestbook ----

MAX_NAME = 40
MAX_TEXT = 500


class Post(Entity, source="guestbook"):
    """What somebody wrote in the guestbook."""

    id: int = field(primary=True)
    when: datetime
    name: Annotated[str, Varchar(MAX_NAME)]
    text: Annotated[str, Varchar(MAX_TEXT)]

    def __post_init__(self) -> None:
        self.when = self.when.replace(tzinfo=UTC)  # a database keeps no time zone


class Posts(Repository[Post]):
    """The table. What a method does is said by its name, or by the name that `derived` gives it."""

    @derived("find_first1000_by_order_by_id_desc")
    async def newest(self) -> list[Post]: ...  # type: ignore[empty-body]


def database() -> str:
    """The URL of the database: a file beside this one, unless the environment names another, or a MySQL server."""
    url, name = os.environ.get("DATABASE_URL"), os.environ.get("DB_NAME")
    if url or not name:
        return url or f"sqlite:///{quote(str(HERE / 'guestbook.db'))}"
    user, password = (quote(os.environ.get(variable, ""), "") for variable in ("DB_USER", "DB_PASSWORD"))
    return f"mysql://{user}:{password}@127.0.0.1/{quote(name, '')}"


posts = Posts(connect(database()))  # connects when first asked; all workers see the same posts


def errors_in(name: str, text: str) -> dict[str, str]:
    """What is wrong with a post, by field. The browser has checked too, but anybody can send anything."""
    errors = {}
    if not 0 < len(name) <= MAX_NAME:
        errors["name"] = f"Please give a name of at most {MAX_NAME} characters."
    if not 0 < len(text) <= MAX_TEXT:
        errors["text"] = f"Please write something, in at most {MAX_TEXT} characters."
    return errors


# ---- routes and hooks: what is not a page ----

app = App()


@app.on_start
async def make_table() -> None:
    """In each worker, before the first request."""
    await posts.create_table(if_missing=True)


@app.get("/api/posts")
async def api_posts(request: Request) -> list[Post]:
    """The guestbook as JSON. Routes of `app` come before pages."""
    return await posts.newest()


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

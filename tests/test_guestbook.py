"""The guestbook of examples/www keeps its posts in a database: of either kind, for all workers, for good."""

from __future__ import annotations

import csv
import io
import runpy
from pathlib import Path
from urllib.parse import urlencode

import pytest
from client import Client
from conftest import Serve
from database import run
from server import Server
from site_folder import write_site

from eighties.sql import connect

pytestmark = pytest.mark.pure

SITE = Path(__file__).parent.parent / "examples" / "www"
FORM = {"Content-Type": "application/x-www-form-urlencoded"}
INSERT = "INSERT INTO guestbook (`when`, name, text) VALUES (%s, %s, %s)"


def post(site: Server, name: str, text: str) -> int:
    return site.request("POST", "/guestbook/", urlencode({"name": name, "text": text}).encode(), FORM).status


def start(serve: Serve, database: str, workers: int = 2) -> Server:
    return serve(SITE, "-c", str(workers), env={"DATABASE_URL": database, "MASTER_KEY": "a key for tests, no other"})


def test_all_workers_have_one_guestbook(database: str, serve: Serve) -> None:
    site = start(serve, database)
    for number in range(6):
        assert post(site, "Ada 🎸", f"<b>{number}</b> 'quoted'\n%s ünd \\") == 303
    texts = [f"<b>{number}</b> 'quoted'\n%s ünd \\" for number in (5, 4, 3, 2, 1, 0)]
    seen: set[str] = set()
    while len(seen) < 2:  # each worker
        page = site.get("/guestbook/").text
        seen.add(page.rpartition("of worker ")[2][0])
        assert page.index("&lt;b&gt;5&lt;/b&gt; &#x27;quoted") < page.index("&lt;b&gt;0&lt;/b&gt;")
        assert "<h2>6 posts</h2>" in page
        found = site.get("/api/posts").json()
        assert [(one["name"], one["text"]) for one in found] == [("Ada 🎸", text) for text in texts]
        rows = list(csv.reader(io.StringIO(site.get("/guestbook/posts.csv").text)))
        assert [row[1:] for row in rows[1:]] == [["Ada 🎸", text] for text in texts]
    assert site.stop() == 0
    again = start(serve, database, 1)
    assert len(again.get("/api/posts").json()) == 6


def test_the_newest_thousand_are_shown(database: str, serve: Serve) -> None:
    site = start(serve, database, 1)

    async def fill() -> None:
        client = connect(database)
        async with client.transaction():
            for number in range(1003):
                await client.exec(INSERT, "2024-01-01 12:00:00", "n", f"post {number}.")
        await client.close()

    run(fill())
    with Client(site) as visitor:
        page = visitor.request("GET", "/guestbook/").text
        assert page.count("<article>") == 1000
        assert "post 1002." in page and "post 3." in page and "post 2." not in page
        assert 'datetime="2024-01-01T12:00:00+00:00">Mon Jan  1 12:00:00 2024</time> UTC' in page


def test_without_a_database_it_does_not_start(serve: Serve, tmp_path: Path) -> None:
    site = serve(SITE, env={"DATABASE_URL": f"sqlite:///{tmp_path}/none/guestbook.db"}, wait=False)
    site.wait_for("an on_start hook failed: ServerDown")
    assert site.wait() == 3


@pytest.mark.parametrize(
    ("variables", "url"),
    [
        ({}, f"sqlite:///{SITE.resolve()}/guestbook.db"),
        ({"DATABASE_URL": "mysql://a:b@h/c", "DB_NAME": "other"}, "mysql://a:b@h/c"),
        ({"DB_NAME": "db80"}, "mysql://:@127.0.0.1/db80"),
        (
            {"DB_USER": "80s", "DB_PASSWORD": "p@ss/w:rd?#", "DB_NAME": "db80"},
            "mysql://80s:p%40ss%2Fw%3Ard%3F%23@127.0.0.1/db80",
        ),
    ],
)
def test_the_environment_names_the_database(
    variables: dict[str, str], url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("DATABASE_URL", "DB_USER", "DB_PASSWORD", "DB_NAME"):
        monkeypatch.setenv(name, variables.get(name, ""))
    names = runpy.run_path(str(SITE / "main.py"))
    assert names["database"]() == url
    assert repr(names["posts"].client) == repr(connect(url))


def test_redirect_in_a_transaction_commits_it(database: str, serve: Serve, tmp_path: Path) -> None:
    main = f"""
from eighties import App
from eighties.sql import connect
app = App()
db = connect({database!r})

@app.on_start
async def start():
    await db.exec("CREATE TABLE IF NOT EXISTS kept (n INTEGER)")
"""
    page = "<?pya\nasync with db.transaction():\n    await db.exec('INSERT INTO kept VALUES (1)')\n    {}\n?>"
    files = {"post.a.html": page.format("redirect('/', 303)"), "post.b.html": page.format("1 / 0")}
    files["index.html"] = "<?pya | #[[await db.select_value('SELECT COUNT(*) FROM kept')]] ?>"
    site = serve(write_site(tmp_path, files, main))
    assert [site.request("POST", path).status for path in ("/a", "/b")] == [303, 500]
    assert site.get("/").text == "1"

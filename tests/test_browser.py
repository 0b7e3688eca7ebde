"""The site in examples/www, as its visitors meet it: in Chromium, and over all its links."""

from __future__ import annotations

import csv
import hashlib
import io
import re
import shutil
import time
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import urlencode

import pytest
from browser import OpenTab, Tab, browser_fixture, open_tab_fixture  # noqa: F401 fixtures
from conftest import Serve
from playwright.sync_api import expect
from server import Reply, Server

pytestmark = pytest.mark.browser

SITE = Path(__file__).parent.parent / "examples" / "www"
KEY = {"MASTER_KEY": "a key for tests, of no use elsewhere"}
FORM = {"Content-Type": "application/x-www-form-urlencoded"}
SCRIPT = "<script>document.title = 'executed'</script>"


@pytest.fixture
def site(serve: Serve, tmp_path: Path) -> Server:
    return serve(SITE, env=variables(tmp_path))


def variables(folder: Path) -> dict[str, str]:
    """The site's environment: a key, and a guestbook that nobody has written in."""
    return {**KEY, "DATABASE_URL": f"sqlite:///{folder}/guestbook.db"}


@pytest.fixture
def tab(site: Server, open_tab: OpenTab) -> Tab:
    return open_tab(site.url)


def sign(tab: Tab, name: str, text: str) -> None:
    """Fill in the guestbook's form, and send it."""
    tab.page.get_by_label("Your name").fill(name)
    tab.page.get_by_label("Your words").fill(text)
    tab.page.get_by_role("button", name="Post").click()


def post(site: Server, name: str, text: str) -> Reply:
    return site.request("POST", "/guestbook/", urlencode({"name": name, "text": text}).encode(), FORM)


def background(tab: Tab) -> str:
    found: str = tab.page.evaluate("getComputedStyle(document.body).backgroundColor")
    return found


# ---- what everybody sees ----


def test_start_page(tab: Tab) -> None:
    page = tab.go("/")
    expect(page).to_have_title("Start · 80s for Python")
    expect(page.locator(".cards a")).to_have_count(6)
    expect(page.get_by_text("Page view 000001 of worker 0")).to_be_visible()
    assert background(tab) == "rgb(253, 245, 232)"
    widths = page.eval_on_selector_all("img", "images => images.map(image => image.naturalWidth)")
    assert len(widths) == 2 and all(widths)
    page.locator("summary", has_text="index.html").click()
    assert page.locator("details[open] pre").inner_text() == (SITE / "public_html/index.html").read_text()
    assert tab.troubles == []


@pytest.mark.parametrize("width", [1200, 390])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_lesson_fits_the_screen(site: Server, open_tab: OpenTab, width: int, scheme: str) -> None:
    tab = open_tab(site.url, viewport={"width": width, "height": 800}, color_scheme=scheme)
    page = tab.go("/")
    post(site, "n" * 40, "w" * 500)
    urls: list[str] = page.eval_on_selector_all("nav a", "links => links.map(link => link.href)")
    assert len(urls) == 6
    for url in urls[:-1]:
        tab.go(url)
        assert page.evaluate("document.documentElement.scrollWidth") <= width, url
        assert (page.locator("nav [aria-current]").get_attribute("href") or "?") in url
        assert (background(tab) == "rgb(21, 13, 38)") == (scheme == "dark")
    assert tab.troubles == []


# ---- the lessons ----


def test_guestbook(tab: Tab) -> None:
    page = tab.go("/guestbook/")
    expect(page.locator(".empty")).to_have_text("Nobody has written yet. Be the first!")
    sign(tab, "Ada <Lovelace>", f"{SCRIPT}\nsecond line")
    expect(page).to_have_url(re.compile("/guestbook/$"))
    expect(page.get_by_role("heading", name="1 post", exact=True)).to_be_visible()
    first = page.locator("article").first
    assert first.locator("p").inner_text() == f"{SCRIPT}\nsecond line"
    assert first.locator("footer").inner_text().startswith("Ada <Lovelace>, ")
    expect(page).to_have_title("Guestbook · 80s for Python")
    expect(page.locator("article script")).to_have_count(0)
    expect(page.get_by_label("Your name")).to_have_value("Ada <Lovelace>")  # the session remembers it
    page.reload()  # and posts nothing again
    sign(tab, "Grace", "Newest")
    expect(page.get_by_role("heading", name="2 posts")).to_be_visible()
    assert page.locator("article p").first.inner_text() == "Newest"
    assert tab.troubles == []


def test_guestbook_errors(tab: Tab) -> None:
    page = tab.go("/guestbook/")
    text = 'Kept: "quotes" & <tags> </textarea>\n\nlines'
    assert tab.status_of(lambda: sign(tab, "  ", text)) == 422
    expect(page.get_by_role("alert")).to_have_text("Please give a name of at most 40 characters.")
    expect(page.get_by_label("Your words")).to_have_value(text)
    assert tab.status_of(lambda: sign(tab, 'Grace "Amazing"', " \n ")) == 422
    expect(page.get_by_role("alert")).to_have_text("Please write something, in at most 500 characters.")
    expect(page.get_by_label("Your name")).to_have_value('Grace "Amazing"')
    sign(tab, "Grace", text)
    assert page.locator("article p").inner_text() == text


def test_guestbook_does_not_trust_browsers(site: Server) -> None:
    reply = post(site, "n" * 41, "t" * 501)
    assert reply.status == 422
    assert reply.text.count('role="alert"') == 2
    reply = site.request("POST", "/guestbook/", b"", FORM)
    assert reply.status == 422
    file = b'--x\r\nContent-Disposition: form-data; name="name"; filename="f"\r\n\r\n\r\n--x--\r\n'
    reply = site.request("POST", "/guestbook/", file, {"Content-Type": "multipart/form-data; boundary=x"})
    assert reply.status == 422
    assert site.get("/api/posts").json() == []
    for number in range(5):
        reply = post(site, " n  ame ", f"a\r\n{number}")
        assert (reply.status, reply.headers["location"]) == (303, "/guestbook/")
    posts = site.get("/api/posts").json()
    assert [(one["name"], one["text"]) for one in posts] == [("n ame", f"a\n{number}") for number in (4, 3, 2, 1, 0)]


def test_csv(site: Server, tab: Tab) -> None:
    texts = ['"quoted", with a comma\nand a line', "=HYPERLINK(1)", "-1+1", "@SUM(1)", "plain"]
    for text in texts:
        assert post(site, "+name", text).status == 303
    page = tab.go("/guestbook/")
    with page.expect_download() as waiting:
        page.locator("main").get_by_role("link", name="CSV").click()
    download = waiting.value
    assert download.suggested_filename == "posts.csv"
    rows = list(csv.reader(io.StringIO(Path(download.path()).read_bytes().decode(), newline="")))
    assert rows[0] == ["when", "name", "text"]
    assert [row[1:] for row in reversed(rows[1:])] == [
        ["'+name", text if text[0] in '"p' else "'" + text] for text in texts
    ]
    reply = site.get("/guestbook/posts.csv")
    assert reply.headers["content-type"] == "text/csv; charset=utf-8"
    assert tab.troubles == []


def test_json(tab: Tab) -> None:
    page = tab.go("/guestbook/")
    sign(tab, "Ada", "Hello")
    expect(page.locator("article")).to_have_count(1)
    found = page.evaluate("fetch('/api/posts').then(answer => answer.json())")
    assert [(each["name"], each["text"]) for each in found] == [("Ada", "Hello")]
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT[\d:.]+(\+00:00|Z)", found[0]["when"])
    assert tab.troubles == []


def test_session(site: Server, tab: Tab, open_tab: OpenTab) -> None:
    page = tab.go("/session")
    count = page.locator(".big output")
    for visits in ("1", "2", "3"):
        expect(count).to_have_text(visits)
        page.reload()
    tab.go("/")
    tab.go("/session")
    expect(count).to_have_text("5")
    (cookie,) = tab.context.cookies()
    assert (cookie["name"], cookie["httpOnly"], cookie["sameSite"]) == ("session", True, "Lax")
    page.get_by_role("button", name="Start again").click()
    expect(count).to_have_text("1")
    page.reload()
    expect(count).to_have_text("2")
    expect(open_tab(site.url).go("/session").locator(".big output")).to_have_text("1")  # another visitor
    assert tab.troubles == []


def test_parallel(tab: Tab) -> None:
    started = time.monotonic()
    page = tab.go("/parallel")
    lasted = time.monotonic() - started
    rows = page.locator("tr").all_inner_texts()
    assert [row.split("\t")[0].strip() for row in rows] == ["Database", "Weather", "Neighbours"]  # in page order
    times = [float(row.split()[-2]) for row in rows]
    total = float(page.locator(".big output").inner_text())
    assert times[2] <= times[0] <= times[1] <= total <= lasted
    assert total < sum(times)
    assert tab.troubles == []


def test_upload(tab: Tab) -> None:
    page = tab.go("/upload")
    content = bytes(range(256)) * 1024  # larger than what is held in memory
    file = {"name": "ta<p>e.bin", "mimeType": "application/x-tape", "buffer": content}
    page.get_by_label("A file").set_input_files(file)  # type: ignore[arg-type]
    page.get_by_role("button", name="Send").click()
    expect(page.get_by_role("heading", name="It arrived")).to_be_visible()
    assert page.locator("dd").all_inner_texts() == [
        "ta<p>e.bin",
        "application/x-tape, says the sender",
        "262,144 bytes",
        hashlib.sha256(content).hexdigest(),
    ]
    assert tab.troubles == []


def test_upload_of_nothing_and_of_too_much(site: Server, tab: Tab) -> None:
    for body in (b"", b"file=text"):
        reply = site.request("POST", "/upload", body, FORM)
        assert (reply.status, reply.headers["location"]) == (303, "/upload")
    page = tab.go("/upload")
    file = {"name": "big", "mimeType": "text/plain", "buffer": b"x" * (2 << 20)}
    page.get_by_label("A file").set_input_files(file)  # type: ignore[arg-type]
    assert tab.status_of(page.get_by_role("button", name="Send").click) == 413


def test_links(tab: Tab) -> None:
    page = tab.go("/links")
    link = page.get_by_role("link", name="Amiga 1000")
    assert re.fullmatch(r"/secret\?e=[\w-]+", link.get_attribute("href") or "")
    link.click()
    expect(page.get_by_role("heading", name="Amiga 1000")).to_be_visible()
    expect(page.get_by_text("It came out in 1985.")).to_be_visible()
    assert tab.troubles == []
    page.go_back()
    assert tab.status_of(page.get_by_role("link", name="somebody has changed").click) == 400
    expect(page.get_by_role("heading", name="Not one of our links")).to_be_visible()
    assert tab.status_of(lambda: tab.go("/secret?year=1985&machine=Forged")) == 400
    expect(page.get_by_role("heading", name="Not one of our links")).to_be_visible()


def test_links_without_a_key(serve: Serve, open_tab: OpenTab, tmp_path: Path) -> None:
    tab = open_tab(serve(SITE, env={**variables(tmp_path), "MASTER_KEY": ""}).url)
    page = tab.go("/links")
    expect(page.locator(".note")).to_contain_text("the server has no key")
    assert page.get_by_role("link", name="Amiga 1000").get_attribute("href") == "/secret?machine=Amiga%201000&year=1985"


# ---- what goes wrong ----


def test_not_found(tab: Tab) -> None:
    page = tab.page
    assert tab.status_of(lambda: tab.go("/<b>nothing</b>")) == 404
    expect(page.get_by_text("There is no page at /<b>nothing</b>.")).to_be_visible()
    page.get_by_role("link", name="Back to the start").click()
    expect(page.locator(".cards")).to_be_visible()


def test_error_page_of_visitors(site: Server, tab: Tab) -> None:
    assert tab.status_of(lambda: tab.go("/oops")) == 500
    expect(tab.page.get_by_role("heading", name="Something broke")).to_be_visible()
    expect(tab.page.get_by_text("ZeroDivisionError")).to_have_count(0)
    assert background(tab) == "rgb(253, 245, 232)"
    assert 'oops.html", line 6, in average' in site.wait_for("GET /oops")["traceback"]


def test_error_page_of_developers(serve: Serve, open_tab: OpenTab, tmp_path: Path) -> None:
    tab = open_tab(serve(SITE, "--dev", env=variables(tmp_path)).url, permissions=["clipboard-read", "clipboard-write"])
    page = tab.page
    assert tab.status_of(lambda: tab.go("/oops")) == 500
    expect(page.get_by_role("heading", name="ZeroDivisionError")).to_be_visible()
    expect(page.get_by_text("oops.html:6").first).to_be_visible()
    expect(page.get_by_text("return sum(numbers) / len(numbers)").first).to_be_visible()
    page.get_by_role("button", name=re.compile("copy", re.I)).click()
    page.wait_for_function("navigator.clipboard.readText().then(text => text.includes('oops.html:6'))")
    copied: str = page.evaluate("navigator.clipboard.readText()")
    assert "ZeroDivisionError" in copied
    assert [trouble for trouble in tab.troubles if "500" not in trouble and "favicon" not in trouble] == []


# ---- the site as a whole ----


def test_a_changed_stylesheet_is_noticed(serve: Serve, tmp_path: Path, open_tab: OpenTab) -> None:
    folder = tmp_path / "www"
    shutil.copytree(SITE, folder)
    tab = open_tab(serve(folder, env=variables(tmp_path)).url)
    page = tab.go("/")
    before = background(tab)
    style = folder / "public_html/static/style.css"
    style.write_text(style.read_text().replace("#fdf5e8", "#00ff00"))
    page.reload()
    assert (before, background(tab)) == ("rgb(253, 245, 232)", "rgb(0, 255, 0)")
    assert tab.troubles == []


class Links(HTMLParser):
    """The addresses within the site that a document names."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for name, value in attrs:
            if name in ("href", "src", "action"):
                assert value is not None and value.startswith("/") and not value.startswith("//"), value
                self.found.add(value.partition("#")[0])


def test_every_link_leads_somewhere(site: Server) -> None:
    assert post(site, "Ada", "Hello").status == 303
    statuses: dict[str, int] = {}
    waiting = {"/"}
    while waiting:
        url = waiting.pop()
        reply = site.get(url)
        statuses[url] = reply.status
        if reply.headers["content-type"].startswith("text/html"):
            assert "content-security-policy" in reply.headers or url == "/oops"
            waiting |= Links(reply.text).found - statuses.keys()
    strange = {url.partition("=")[0]: status for url, status in statuses.items() if status != 200}
    assert strange == {"/no-such-page": 404, "/oops": 500, "/secret?e": 400}
    assert {"/guestbook/", "/guestbook/posts.csv", "/api/posts", "/links", "/session"} < statuses.keys()
    assert len(statuses) > 15


def test_sources_stay_at_home(site: Server) -> None:
    for path in ("/main.py", "/../main.py", "/index.html", "/header.priv.html", "/header.priv", "/guestbook/form.priv"):
        assert site.get(path).status == 404, path
    assert (site.get("/guestbook").status, site.get("/guestbook").headers["location"]) == (301, "/guestbook/")

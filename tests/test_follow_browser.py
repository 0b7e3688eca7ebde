"""With `--dev` Chromium follows reloads: pages reload themselves, stylesheets are swapped, what is broken is shown."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
from browser import OpenTab, Tab, browser_fixture, open_tab_fixture  # noqa: F401 fixtures
from conftest import Serve
from playwright.sync_api import Locator, Page, expect
from site_folder import write_site

pytestmark = pytest.mark.browser

HTML = '<!doctype html>\n<html lang="en"><head><title>t</title>{}</head><body><p id="p">{}</p></body></html>\n'
LINKED = '<link rel="stylesheet" href="/style.css">'
PROGRAM = """
from eighties import App, Response
app = App()
POLICY = {policy!r}
@app.route("/", ("GET", "POST"))
def root(request):
    page = '<!doctype html><title>t</title><p id="p">{word}</p><form method="post"><button>Send</button></form>'
    if "nonce-abc" in (POLICY or ""):
        page += '<script nonce="abc">window.own = 1</script>'
    elif "unsafe-inline" in (POLICY or ""):
        page += '<script>window.own = 1</script>'
    return Response.html(page, headers=POLICY and {{"Content-Security-Policy": POLICY}})
"""


def program(word: str, policy: str | None = None) -> str:
    return PROGRAM.format(word=word, policy=policy)


def write_program(folder: Path, word: str, policy: str | None = None) -> None:
    folder.joinpath("program.py").write_text(program(word, policy))


def keep(page: Page) -> None:
    """Put something into the page that a reload would end. The page listens by then."""
    page.wait_for_load_state("networkidle")
    page.evaluate("window.kept = 1")


def is_kept(page: Page) -> bool:
    return bool(page.evaluate("window.kept === 1"))


def troubles(tab: Tab) -> list[str]:
    """What went wrong, but that there is no icon."""
    return [trouble for trouble in tab.troubles if "404" not in trouble and "favicon.ico" not in trouble]


def overlay(page: Page) -> Locator:
    return page.get_by_role("alertdialog")


SITE = {"index.html": HTML.format(LINKED, "one"), "style.css": "p { color: rgb(1, 2, 3) }"}


def open_site(serve: Serve, folder: Path, open_tab: OpenTab, *options: str) -> tuple[Tab, Path]:
    """A tab that shows a page with a stylesheet, and the folder of both."""
    server = serve(write_site(folder, SITE), "--dev", "--reload", *options)
    tab = open_tab(server.url)
    tab.go("/")
    expect(tab.page.locator("#p")).to_have_css("color", "rgb(1, 2, 3)")
    return tab, folder / "public_html"


@pytest.mark.parametrize("count", ["1", "2"])
def test_a_page_is_shown_anew_when_it_is_saved(serve: Serve, tmp_path: Path, open_tab: OpenTab, count: str) -> None:
    tab, folder = open_site(serve, tmp_path, open_tab, "-c", count)
    for word in ("two", "three"):
        folder.joinpath("index.html").write_text(HTML.format(LINKED, word))
        expect(tab.page.locator("#p")).to_have_text(word)
    assert tab.page.evaluate("document.scripts.length") == 0
    assert troubles(tab) == []


def test_a_stylesheet_is_swapped(serve: Serve, tmp_path: Path, open_tab: OpenTab) -> None:
    tab, folder = open_site(serve, tmp_path, open_tab)
    keep(tab.page)
    for color in ("rgb(4, 5, 6)", "rgb(7, 8, 9)"):
        folder.joinpath("style.css").write_text(f"p {{ color: {color} }}")
        expect(tab.page.locator("#p")).to_have_css("color", color)
        expect(tab.page.locator("link")).to_have_count(1)
    assert is_kept(tab.page)
    assert troubles(tab) == []


def test_a_stylesheet_with_a_nonce(serve: Serve, tmp_path: Path, open_tab: OpenTab) -> None:
    page = "<?py header('Content-Security-Policy', \"default-src 'self'; style-src 'nonce-abc'\") ?>"
    page += HTML.format(LINKED.replace("href", 'nonce="abc" href'), "one")
    server = serve(write_site(tmp_path, {**SITE, "index.html": page}), "--dev", "--reload")
    tab = open_tab(server.url)
    keep(tab.go("/"))
    swap(tab.page, tmp_path / "public_html", "rgb(4, 5, 6)")
    assert is_kept(tab.page)
    assert troubles(tab) == []


def test_a_stylesheet_that_is_imported(serve: Serve, tmp_path: Path, open_tab: OpenTab) -> None:
    tab, folder = open_site(serve, tmp_path, open_tab)
    folder.joinpath("more.css").write_text("p { color: rgb(4, 5, 6) }")
    folder.joinpath("index.html").write_text(HTML.format("<style>@import '/more.css'</style>", "one"))
    expect(tab.page.locator("#p")).to_have_css("color", "rgb(4, 5, 6)")
    folder.joinpath("more.css").write_text("p { color: rgb(7, 8, 9) }")
    expect(tab.page.locator("#p")).to_have_css("color", "rgb(7, 8, 9)")


def test_a_page_within_a_page(serve: Serve, tmp_path: Path, open_tab: OpenTab) -> None:
    outer = HTML.format("", '<iframe src="/" title="inner"></iframe>')
    server = serve(write_site(tmp_path, {**SITE, "outer.html": outer}), "--dev", "--reload")
    tab, folder = open_tab(server.url), tmp_path / "public_html"
    tab.go("/outer")
    inner = tab.page.frame_locator("iframe").locator("#p")
    expect(inner).to_have_text("one")
    folder.joinpath("style.css").write_text("p { color: rgb(4, 5, 6) }")
    expect(inner).to_have_css("color", "rgb(4, 5, 6)")
    folder.joinpath("index.html").write_text(HTML.format(LINKED, "two"))
    expect(inner).to_have_text("two")


def test_broken_code_is_shown_until_it_is_mended(serve: Serve, tmp_path: Path, open_tab: OpenTab) -> None:
    server = serve(program("one"), "--dev", "--reload", "-c", "2")
    tab, other = open_tab(server.url), open_tab(server.url)
    tab.go("/")
    keep(tab.page)
    tmp_path.joinpath("program.py").write_text("a = 1\nraise ValueError('<b>broken</b>')\n")
    expect(overlay(tab.page)).to_contain_text("ValueError: <b>broken</b>")
    expect(overlay(tab.page)).to_contain_text("program.py:2")
    expect(overlay(tab.page)).to_contain_text("Traceback")
    assert is_kept(tab.page)
    expect(overlay(other.go("/"))).to_contain_text("ValueError: <b>broken</b>")
    tab.page.keyboard.press("Escape")
    expect(overlay(tab.page)).to_have_count(0)
    write_program(tmp_path, "two")
    for page in (tab.page, other.page):
        expect(page.locator("#p")).to_have_text("two")
        expect(overlay(page)).to_have_count(0)
    assert troubles(tab) == troubles(other) == []


def test_a_broken_page_mends_itself(serve: Serve, tmp_path: Path, open_tab: OpenTab) -> None:
    tab, folder = open_site(serve, tmp_path, open_tab)
    folder.joinpath("index.html").write_text("<?py 1 / 0 ?>")
    expect(tab.page.get_by_role("heading", level=1)).to_contain_text("ZeroDivisionError")
    folder.joinpath("index.html").write_text("<?py if ?>")
    expect(tab.page.get_by_role("heading", level=1)).not_to_contain_text("ZeroDivisionError")
    folder.joinpath("index.html").write_text(HTML.format("", "mended"))
    expect(tab.page.locator("#p")).to_have_text("mended")
    assert all("500" in trouble for trouble in troubles(tab)), tab.troubles


@pytest.mark.parametrize(
    "policy",
    [
        "default-src 'self'; script-src 'nonce-abc'",
        "script-src 'self'",
        "default-src 'none'",
        "default-src 'none'; script-src 'unsafe-inline'",
        "default-src 'none'; script-src 'nonce-abc', script-src 'self' 'nonce-abc'",
        "require-trusted-types-for 'script'; trusted-types; script-src-elem 'none'; connect-src 'none'",
        None,
    ],
)
def test_policies(serve: Serve, tmp_path: Path, open_tab: OpenTab, policy: str | None) -> None:
    server = serve(program("one", policy), "--dev", "--reload")
    tab = open_tab(server.url)
    page = tab.go("/")
    write_program(tmp_path, "two", policy)
    expect(page.locator("#p")).to_have_text("two")
    if policy is not None and "window.own" in page.content():
        assert page.evaluate("window.own") == 1
    tmp_path.joinpath("program.py").write_text("broken")
    expect(overlay(page)).to_contain_text("NameError")
    expect(overlay(page)).to_have_css("position", "fixed")
    assert troubles(tab) == []


def test_a_policy_of_the_document(serve: Serve, tmp_path: Path, open_tab: OpenTab) -> None:
    meta = "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; connect-src 'self'\">"
    server = serve(write_site(tmp_path, {"index.html": HTML.format(meta, "one")}), "--dev", "--reload")
    tab = open_tab(server.url)
    page = tab.go("/")
    tmp_path.joinpath("public_html", "index.html").write_text(HTML.format(meta, "two"))
    expect(page.locator("#p")).to_have_text("two")
    assert troubles(tab) == []


def test_a_form_is_never_sent_again(serve: Serve, tmp_path: Path, open_tab: OpenTab) -> None:
    server = serve(program("one"), "--dev", "--reload")
    page = open_tab(server.url).go("/")
    page.get_by_role("button", name="Send").click()
    page.wait_for_load_state()
    keep(page)
    write_program(tmp_path, "two")
    expect(overlay(page)).to_contain_text("Reload it yourself")
    assert is_kept(page)


def swap(page: Page, folder: Path, color: str) -> None:
    """A stylesheet is saved and swapped: so the page listens."""
    folder.joinpath("style.css").write_text(f"p {{ color: {color} }}")
    expect(page.locator("#p")).to_have_css("color", color)


@pytest.mark.parametrize("changed", [False, True])
def test_a_server_that_comes_back(serve: Serve, tmp_path: Path, open_tab: OpenTab, changed: bool) -> None:
    server = serve(write_site(tmp_path, SITE), "--dev", "--reload")
    page, folder = open_tab(server.url).go("/"), tmp_path / "public_html"
    keep(page)
    port = str(server.port)
    assert server.stop() == 0
    if changed:
        folder.joinpath("index.html").write_text(HTML.format(LINKED, "two"))
    with page.expect_response("**/.80s/follow"):  # or it would not be this server that tells of the stylesheet
        serve(tmp_path, "--dev", "--reload", "-p", port)
    if changed:
        expect(page.locator("#p")).to_have_text("two")
    swap(page, folder, "rgb(4, 5, 6)")
    assert is_kept(page) is not changed


def test_another_worker_is_no_reload(serve: Serve, tmp_path: Path, open_tab: OpenTab) -> None:
    server = serve(write_site(tmp_path, SITE), "--dev", "--reload")
    page = open_tab(server.url).go("/")
    swap(page, tmp_path / "public_html", "rgb(4, 5, 6)")
    keep(page)
    with page.expect_response("**/.80s/follow"):
        [pid] = server.workers
        os.kill(pid, signal.SIGKILL)
    swap(page, tmp_path / "public_html", "rgb(7, 8, 9)")
    assert is_kept(page)


def test_a_page_that_changes_its_own_site(serve: Serve, tmp_path: Path, open_tab: OpenTab) -> None:
    """Each time it is shown: it is not reloaded for ever."""
    page = "<?py import time; open('public_html/n.json', 'w').write(str(time.time())) ?>"
    server = serve(write_site(tmp_path, {"index.html": HTML.format("", page)}), "--dev", "--reload")
    tab = open_tab(server.url)
    tab.go("/")
    tab.page.wait_for_event("console", lambda message: "no more for now" in message.text)

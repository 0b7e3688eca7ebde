"""The developer's error page in Chromium: its button works under its own policy, and it fits every screen."""

from __future__ import annotations

import pytest
from browser import OpenTab, Tab, browser_fixture, open_tab_fixture  # noqa: F401 fixtures
from conftest import Serve
from playwright.sync_api import expect
from server import Server

pytestmark = pytest.mark.browser

PROGRAM = """
    from eighties import App
    app = App()
    @app.get("/")
    def root(request):
        long = "a line that is far too long for the screen of a telephone, however small its letters may be" + 1
        return long
"""
NO_CLIPBOARD = "Object.defineProperty(Navigator.prototype, 'clipboard', {get() {}})"


@pytest.fixture
def server(serve: Serve) -> Server:
    return serve(PROGRAM, "--dev")


def copy(tab: Tab) -> None:
    """Press the button. Nothing but the status of the page itself may be amiss."""
    tab.page.get_by_role("button", name="Copy as text").click()
    expect(tab.page.get_by_role("status")).not_to_be_empty()
    assert [trouble for trouble in tab.troubles if "500" not in trouble] == []


def test_copy(server: Server, open_tab: OpenTab) -> None:
    tab = open_tab(server.url, permissions=["clipboard-read", "clipboard-write"])
    tab.go("/")
    copy(tab)
    expect(tab.page.get_by_role("status")).to_have_text("Copied.")
    assert tab.page.evaluate("navigator.clipboard.readText()") == server.get("/").text


@pytest.mark.parametrize("command", ["Copied.", "The text is selected"])
def test_copy_without_a_clipboard(server: Server, open_tab: OpenTab, command: str) -> None:
    tab = open_tab(server.url)
    refused = "" if command == "Copied." else "; document.execCommand = () => false"
    tab.page.add_init_script(NO_CLIPBOARD + refused)
    tab.go("/")
    copy(tab)
    expect(tab.page.get_by_role("status")).to_contain_text(command)
    assert tab.page.evaluate("getSelection().toString()").strip() == server.get("/").text.strip()


def test_without_javascript(server: Server, open_tab: OpenTab) -> None:
    page = open_tab(server.url, java_script_enabled=False).go("/")
    expect(page.get_by_role("button")).to_have_count(0)
    expect(page.get_by_role("region", name="As text")).to_contain_text("TypeError: can only concatenate")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_fits_a_telephone(server: Server, open_tab: OpenTab, scheme: str) -> None:
    page = open_tab(server.url, color_scheme=scheme, viewport={"width": 390, "height": 800}).go("/")
    assert page.evaluate("document.documentElement.scrollWidth") == 390
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == (
        "rgb(255, 255, 255)" if scheme == "light" else "rgb(20, 23, 27)"
    )

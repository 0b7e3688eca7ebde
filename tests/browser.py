"""Chromium for tests, through Playwright: a browser for a module, and tabs that write down what goes wrong in them.

A test module imports the two fixtures, and its tests ask for `open_tab`.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from playwright.sync_api import Browser, ConsoleMessage, Error, Page, Request, Response, expect, sync_playwright

# Milliseconds, for what a page is to come to. Generous: the machine may be busy.
PATIENCE = 20_000
expect.set_options(timeout=PATIENCE)


class Tab:
    """A page with cookies and a cache of its own.

    `troubles`: errors of scripts and of the console, requests without an answer, answers of 400 and above.
    """

    def __init__(self, browser: Browser, url: str, **options: Any) -> None:
        self.context = browser.new_context(base_url=url, **options)
        self.context.set_default_timeout(PATIENCE)
        self.page: Page = self.context.new_page()
        self.troubles: list[str] = []
        self.page.on("console", self._console)
        self.page.on("pageerror", self._error)
        self.page.on("requestfailed", self._failed)
        self.page.on("response", self._answered)

    def _console(self, message: ConsoleMessage) -> None:
        if message.type in ("error", "warning"):
            self.troubles.append(message.text)

    def _error(self, error: Error) -> None:
        self.troubles.append(str(error))

    def _failed(self, request: Request) -> None:
        if request.failure != "net::ERR_ABORTED":  # given up by the browser itself: for a download, or a reload
            self.troubles.append(f"{request.method} {request.url}: {request.failure}")

    def _answered(self, response: Response) -> None:
        if response.status >= 400:
            self.troubles.append(f"{response.status} {response.url}")

    def go(self, path: str) -> Page:
        """Load an address of the site, and return the page."""
        self.page.goto(path)
        return self.page

    def status_of(self, act: Callable[[], object]) -> int:
        """Do what loads a document, and return the status of the last answer on the way to it."""
        seen: list[int] = []

        def note(response: Response) -> None:
            if response.request.is_navigation_request():
                seen.append(response.status)

        self.page.on("response", note)
        act()
        self.page.wait_for_load_state()
        self.page.remove_listener("response", note)
        return seen[-1]


OpenTab = Callable[..., Tab]


@pytest.fixture(name="browser", scope="module")
def browser_fixture() -> Iterator[Browser]:
    """Chromium. A module's, not the session's: while Playwright runs, asyncio.run() is refused in this thread."""
    path = shutil.which("chromium")
    assert path is not None, "there is no chromium here; tools/need.sh test installs it"
    arguments = ["--disable-dev-shm-usage", *(["--no-sandbox"] if os.geteuid() == 0 else [])]
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=arguments)
        yield browser
        browser.close()


@pytest.fixture(name="open_tab")
def open_tab_fixture(browser: Browser) -> Iterator[OpenTab]:
    """Open a tab: `open_tab(server.url)`. Those that are open are closed when the test is over."""
    tabs: list[Tab] = []

    def open_(url: str, **options: Any) -> Tab:
        tabs.append(Tab(browser, url, **options))
        return tabs[-1]

    yield open_
    for tab in tabs:
        tab.context.close()

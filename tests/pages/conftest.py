"""A real browser for the pages: Debian's Chromium, driven by Playwright; without either, the tests skip and say why."""

from __future__ import annotations

import os
import shutil
from contextlib import contextmanager
from dataclasses import dataclass, field

import pytest

QUIET = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


@dataclass
class Seen:
    """What went on in a page: its console's errors, what it threw, and every request that left the file."""

    errors: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)

    def nothing_wrong(self) -> bool:
        """True if there was no error and no request but that for the file itself; fails with a list otherwise."""
        assert self.errors == [] and self.requests == [], f"errors {self.errors}, requests {self.requests}"
        return True


@pytest.fixture(scope="session")
def browser():
    """One headless Chromium for all tests of pages."""
    api = pytest.importorskip("playwright.sync_api", reason="pip install playwright to test the pages in a browser")
    program = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if program is None:
        if os.environ.get("CI"):
            pytest.fail("CI has no Chromium; install Debian's package chromium")
        pytest.skip("no Chromium on the PATH; install Debian's package chromium to test the pages")
    with api.sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=program, args=list(QUIET))
        yield started
        started.close()


@pytest.fixture
def opened(browser):
    """``with opened(path, width=…) as (page, seen)``: the file in a fresh context; requests for anything else are refused and noted."""

    @contextmanager
    def open_page(path, width=1280, height=800, dark=False, **context_options):
        context = browser.new_context(
            viewport={"width": width, "height": height}, color_scheme="dark" if dark else "light", **context_options
        )
        try:
            page, seen, own = context.new_page(), Seen(), path.resolve().as_uri()

            def decide(route):
                if route.request.url.partition("#")[0] == own:
                    route.continue_()
                else:
                    seen.requests.append(route.request.url)
                    route.abort()

            context.route(lambda url: not url.startswith("data:"), decide)
            page.on("console", lambda message: seen.errors.append(message.text) if message.type in ("error", "warning") else None)
            page.on("pageerror", lambda error: seen.errors.append(str(error)))
            page.goto(own, wait_until="load")
            yield page, seen
        finally:
            context.close()

    return open_page

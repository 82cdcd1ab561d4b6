"""A browser, and pages of a server over a tiny model."""

import os
import shutil

import pytest

from tests.toys.served import client_of, running
from tests.toys.server_app import address, app_of, client, engine  # noqa: F401

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


@pytest.fixture(scope="package")  # Playwright's event loop runs as long, and asynchronous tests want their own
def chromium():
    """Yield one browser for the tests of this folder."""
    playwright = pytest.importorskip("playwright.sync_api", reason="pip install playwright")
    if CHROMIUM is None:
        pytest.skip("no Chromium on this machine")
    with playwright.sync_playwright() as started:
        sandbox = ["--no-sandbox"] if os.geteuid() == 0 else []
        browser = started.chromium.launch(executable_path=CHROMIUM, args=sandbox)
        yield browser
        browser.close()


@pytest.fixture
def opened(chromium):
    """Return a function that opens a server's page. A test fails if the page reports an error or asks others."""
    troubles, contexts = [], []

    def open_page(server, context=None, **options):
        if context is None:
            context = chromium.new_context(**options)
            context.set_default_timeout(120_000)
            contexts.append(context)
        page = context.new_page()
        page.on("pageerror", lambda error: troubles.append(str(error)))
        page.on("request", lambda sent: sent.url.startswith(server) or troubles.append(sent.url))
        page.goto(server)
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert troubles == []


@pytest.fixture
def served(app_of):  # noqa: F811
    """Yield the address of a server without documents, and a client of it."""
    with running(app_of()) as found, client_of(found) as made:
        yield found, made

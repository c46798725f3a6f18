"""The chat page in a real Chromium, over the real front; only what the model says is a script."""

from collections.abc import Callable, Iterator

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, expect

from support.chat_page import Script, Server, is_fault
from support.chromium import chromium


@pytest.fixture(scope="session")
def _script() -> Script:
    return Script()


@pytest.fixture
def script(_script: Script) -> Script:
    _script.lines.clear()
    _script.asked.clear()
    _script.pause_s, _script.fails_after, _script.reason, _script.cached = 0.0, None, "stop", None
    return _script


@pytest.fixture(scope="session")
def address(_script: Script) -> Iterator[str]:
    with Server(_script) as address:
        yield address


@pytest.fixture(scope="module")  # no longer: while it is open no other test can run a loop
def browser() -> Iterator[Browser]:
    with chromium() as browser:
        yield browser


@pytest.fixture
def opened(browser: Browser, address: str, script: Script) -> Iterator[Callable[..., Page]]:
    """Open the page in a browser of its own; afterwards nothing must have gone wrong in it."""
    contexts: list[BrowserContext] = []
    faults: list[str] = []

    def open_page(path: str = "", **options: object) -> Page:
        context = browser.new_context(**{"locale": "en", **options})  # type: ignore[arg-type]
        contexts.append(context)
        context.add_init_script(
            "addEventListener('securitypolicyviolation',"
            " (event) => console.error(`policy: ${event.violatedDirective}`))"
        )
        page = context.new_page()
        page.on("pageerror", lambda fault: faults.append(str(fault)))
        page.on("dialog", lambda dialog: faults.append(f"dialog {dialog.message}"))
        page.on("console", lambda told: faults.append(told.text) if is_fault(told) else None)
        page.goto(address + path)
        expect(page.locator("#model")).to_have_text("llm")
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert not faults


@pytest.fixture
def page(opened: Callable[..., Page]) -> Page:
    return opened()

"""The page over a server of a real engine: the tiny hybrid, whose words mean nothing."""

from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, expect

from nemotrt.serve.processes.launcher import serve_engine
from support.chat_page import ask, sent, turns, wait

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def real_address(tiny_engine) -> Iterator[str]:
    with serve_engine(tiny_engine, "--no-triton", drain_s=5) as server:
        yield server.openai_url.removesuffix("/v1")


def test_a_conversation_with_an_engine(browser: Browser, real_address: str) -> None:
    page = browser.new_context(locale="ja").new_page()
    faults: list[str] = []
    page.on("pageerror", lambda fault: faults.append(str(fault)))
    page.goto(real_address)
    expect(page.locator("#model")).to_have_text("llm")
    bodies = sent(page)
    page.click("#settings-open")
    page.fill("#setting-temperature", "0")
    page.fill("#setting-max_completion_tokens", "24")
    page.click("#settings-close")
    page.select_option("#thinking", "off")
    ask(page, "こんにちは")
    wait(page)
    first = turns(page)
    assert first[0] == "こんにちは" and first[1]
    line = page.locator(".turn.assistant .figures")
    expect(line).to_contain_text("トークン/秒")
    expect(line).to_contain_text("24 トークン")
    page.click(".continue")
    wait(page)
    assert bodies[-1]["continue_final_message"] is True
    assert bodies[-1]["messages"][-1]["role"] == "assistant"
    expect(page.locator(".error")).to_have_count(0)
    page.click(".regenerate")
    wait(page)
    assert turns(page) == first  # greedy
    page.select_option("#thinking", "on")
    page.locator("#budget").fill("64")
    page.click(".regenerate")
    wait(page)
    expect(page.locator(".error")).to_have_count(0)
    expect(page.locator(".trace")).not_to_be_empty()
    expect(line).to_contain_text("思考")
    page.reload()
    expect(page.locator(".trace")).not_to_be_empty()
    assert not faults
    page.context.close()

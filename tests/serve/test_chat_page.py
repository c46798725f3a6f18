"""The chat page in a real Chromium, against the whole stack."""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from nemotrt.serve.processes.launcher import serve_engine
from support.chromium import chromium

TESTS = Path(__file__).parents[1]
pytestmark = [pytest.mark.triton, pytest.mark.slow]


@pytest.fixture(scope="module")
def address(engine_folder, triton_runtime) -> Iterator[str]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(TESTS), prepend=os.pathsep)
        patch.setenv("SCRIPTED_STEP_MS", "10")
        options = ("--engine-module", "support.scripted_host")
        with serve_engine(engine_folder, *options, drain_s=5) as server:
            yield server.openai_url.removesuffix("/v1")


@pytest.fixture
def page(address) -> Iterator[Page]:
    with chromium() as browser:
        page = browser.new_page()
        faults: list[Any] = []
        page.on("pageerror", lambda fault: faults.append(fault))
        page.goto(address)
        expect(page.locator("#model")).to_have_text("llm")
        yield page
        assert not faults


def ask(page: Page, text: str) -> None:
    page.fill("#prompt", text)
    page.press("#prompt", "Enter")


def test_an_answer_with_its_reasoning_folded(page) -> None:
    ask(page, "SAY[[I think.<END>答えは <b>2</b> です。]]SAY")
    expect(page.locator(".content")).to_have_text("答えは <b>2</b> です。")
    trace = page.locator("details .trace")
    expect(trace).not_to_be_visible()
    page.click("summary")
    expect(trace).to_have_text("I think.")
    expect(page.locator(".figures")).to_contain_text("tokens/s")
    expect(page.locator(".figures")).to_contain_text("ttft")
    expect(page.locator(".figures")).not_to_contain_text("cache")  # this engine keeps nothing


@pytest.mark.parametrize("cached", [0, 40])
def test_the_line_says_what_was_kept(page, cached) -> None:
    """Of an answer as the server writes it where it keeps prefixes."""
    usage: dict[str, Any] = {"prompt_tokens": 48, "completion_tokens": 1, "total_tokens": 49}
    usage["prompt_tokens_details"] = {"cached_tokens": cached}
    choices = [{"index": 0, "delta": {"content": "Hi."}, "finish_reason": "stop"}]
    chunks = [{"choices": choices, "usage": usage}, {"choices": [], "usage": usage}]
    body = "".join(f"data: {json.dumps(chunk)}\n\n" for chunk in chunks) + "data: [DONE]\n\n"
    answer = {"body": body, "content_type": "text/event-stream"}
    page.route("**/v1/chat/completions", lambda route: route.fulfill(**answer))
    ask(page, "Hello")
    expect(page.locator(".content")).to_have_text("Hi.")
    expect(page.locator(".figures")).to_contain_text(f"{cached} of 48 prompt tokens from cache")


def test_the_budget_slider_ends_the_trace(page) -> None:
    page.locator("#budget").fill("64")
    expect(page.locator("#budget-text")).to_have_text("64 tokens")
    ask(page, "SAY[[" + "one two three\n" * 60 + "<END>Done.]]SAY")
    expect(page.locator(".content")).to_have_text("Done.", timeout=20_000)
    assert page.locator(".trace").text_content().count("one") < 40


def test_tool_calls_are_shown(page) -> None:
    page.click("#settings-open")
    page.fill("#tools", '[{"type":"function","function":{"name":"tip"}}]')
    page.click("#settings-close")
    ask(page, 'SAY[[<END><TOOLCALL>[{"name": "tip", "arguments": {"bill": 9}}]</TOOLCALL>]]SAY')
    expect(page.locator(".call .signature")).to_have_text('tip({"bill": 9})')


def test_enter_during_composition_does_not_send(page) -> None:
    page.fill("#prompt", "こんにちは")
    event = "new KeyboardEvent('keydown', {key: 'Enter', isComposing: true, bubbles: true})"
    page.evaluate(f"document.getElementById('prompt').dispatchEvent({event})")
    expect(page.locator("article")).to_have_count(0)
    assert page.input_value("#prompt") == "こんにちは"


def test_stop_ends_the_answer(page) -> None:
    ask(page, "SAY[[" + "again and " * 250 + "<END>x]]SAY")
    expect(page.locator("details")).to_have_count(1)
    page.click("#stop")
    expect(page.locator("#send")).to_be_enabled()
    expect(page.locator(".error")).to_have_count(0)

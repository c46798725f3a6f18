"""Settings: what is sent of them, what is wrong with them, and where they are kept."""

import hashlib
import json
import re

import pytest
from playwright.sync_api import Request, expect

from nemotrt.serve.front.schema.requests import ChatRequest
from support.chat_page import Server, ask, sent, wait

pytestmark = pytest.mark.slow
TOOL = {"type": "function", "function": {"name": "tip", "parameters": {"type": "object"}}}
SCHEMA = {"type": "object", "properties": {"a": {"type": "integer"}}}
CHOSEN = {
    "#system": "Be brief.",
    "#setting-temperature": "0.5",
    "#setting-top_p": "0.9",
    "#setting-top_k": "40",
    "#setting-min_p": "0.05",
    "#setting-repetition_penalty": "1.1",
    "#setting-presence_penalty": "-1",
    "#setting-frequency_penalty": "1.5",
    "#setting-max_completion_tokens": "77",
    "#setting-seed": "-5",
    "#stop-words": "END\n終わり",
    "#tools": json.dumps([TOOL]),
}
SENT = {
    "temperature": 0.5,
    "top_p": 0.9,
    "top_k": 40,
    "min_p": 0.05,
    "repetition_penalty": 1.1,
    "presence_penalty": -1,
    "frequency_penalty": 1.5,
    "max_completion_tokens": 77,
    "seed": -5,
    "stop": ["END", "終わり"],
    "tools": [TOOL],
    "tool_choice": "required",
    "chat_template_kwargs": {"enable_thinking": True},
    "max_thinking_tokens": 128,
}
ALWAYS = {"model", "messages", "stream", "stream_options"}


def choose(page, values: dict[str, str]) -> None:
    page.click("#settings-open")
    for name, value in values.items():
        page.fill(name, value)
    page.click("#settings-close")


def test_what_is_set_is_sent_and_no_more(page, script) -> None:
    bodies = sent(page)
    ask(page, "Hi")
    wait(page)
    assert set(bodies[0]) == ALWAYS
    choose(page, CHOSEN)
    page.click("#settings-open")
    page.select_option("#tool-choice", "required")
    page.select_option("#model-choice", "nemo")
    page.click("#settings-close")
    page.select_option("#thinking", "on")
    page.locator("#budget").fill("128")
    ask(page, "Hi again")
    wait(page)
    assert {name: bodies[1][name] for name in set(bodies[1]) - ALWAYS} == SENT
    assert bodies[1]["messages"][0] == {"role": "system", "content": "Be brief."}
    for body in bodies:
        ChatRequest.model_validate(body)
    page.reload()
    expect(page.locator("#budget-text")).to_have_text("128 tokens")
    assert {name: page.input_value(name) for name in CHOSEN} == CHOSEN
    page.select_option("#thinking", "off")
    expect(page.locator("#budget")).to_be_disabled()
    page.click("#settings-open")
    page.click("#sampling-reset")
    page.select_option("#tool-choice", "auto")
    page.fill("#tools", "")
    page.select_option("#format", "json_schema")
    page.fill("#schema", json.dumps(SCHEMA))
    page.click("#settings-close")
    script.say('{"a": 1}')
    ask(page, "Last")
    wait(page)
    form = {"type": "json_schema", "json_schema": {"name": "answer", "schema": SCHEMA}}
    own = {"chat_template_kwargs": {"enable_thinking": False}, "response_format": form}
    assert {name: bodies[-1][name] for name in set(bodies[-1]) - ALWAYS} == own


WRONG = [
    ("#tools", "[", "JSON"),
    ("#tools", "{}", "array"),
    ("#tools", "[{}]", "[0]: "),
    ("#tools", json.dumps([{**TOOL, "type": "web"}]), "[0].type: "),
    ("#tools", '[{"type": "function", "function": {"name": "a b"}}]', "[0].function.name: "),
    ("#tools", '[{"type": "function", "function": {"name": "a", "x": 1}}]', "function"),
    ("#tools", json.dumps([TOOL, TOOL]), "two tools are called tip"),
    (
        "#tools",
        '[{"type": "function", "function": {"name": "a", "parameters": {"type": "strin"}}}]',
        "[0].function.parameters type",
    ),
    ("#setting-temperature", "2.5", "2"),
    ("#setting-top_p", "0", "0"),
    ("#setting-top_k", "1.5", "integer"),
    ("#setting-max_completion_tokens", "0", "1"),
    ("#stop-words", "\n".join(map(str, range(65))), "64"),
    ("#schema", '{"type": "object", "required": "a"}', "required"),
    ("#schema", "nothing", "JSON"),
]


def test_what_is_wrong_is_said_at_its_field_and_nothing_is_sent(page) -> None:
    bodies = sent(page)
    page.click("#settings-open")
    page.select_option("#format", "json_schema")
    for name, value, said in WRONG:
        before = page.input_value(name)
        page.fill(name, value)
        fault = page.locator(f"{name}-fault")
        expect(fault).to_contain_text(said)
        expect(page.locator(name)).to_have_attribute("aria-invalid", "true")
        page.click("#settings-close")
        ask(page, "Hi")
        expect(page.locator("#settings")).to_be_visible()  # at the field
        expect(page.locator(name)).to_be_focused()
        assert not bodies and page.input_value("#prompt") == "Hi"
        page.fill(name, before)
        expect(fault).to_be_hidden()
    page.click("#settings-close")
    ask(page, "Hi")
    wait(page)
    assert len(bodies) == 1


def test_bounds_are_those_of_the_server(page) -> None:
    page.click("#settings-open")
    field = page.locator("#setting-temperature")
    expect(field).to_have_attribute("placeholder", re.compile("^0 . 2$"))
    assert page.locator("#setting-seed").get_attribute("step") == "1"


def test_a_key_stays_in_its_tab(opened) -> None:
    page = opened()
    choose(page, {"#key": "sk-1"})
    asked: list[Request] = []
    page.on("request", lambda request: asked.append(request))
    ask(page, "Hi")
    wait(page)
    keys = {one.headers.get("authorization") for one in asked if "/v1/" in one.url}
    assert keys == {"Bearer sk-1"}
    assert "sk-1" not in page.evaluate("JSON.stringify(localStorage)")
    page.reload()
    expect(page.locator("#model")).to_have_text("llm")
    assert page.input_value("#key") == "sk-1"
    other = page.context.new_page()
    other.goto(page.url)
    expect(other.locator("#model")).to_have_text("llm")
    assert other.input_value("#key") == ""


def test_a_server_with_keys_is_used_by_the_browsers_own_word(browser, script) -> None:
    digest = hashlib.sha256(b"secret").digest()
    with Server(script, keys=(digest,)) as address:
        with browser.new_context(http_credentials={"username": "me", "password": "secret"}) as one:
            page = one.new_page()
            page.goto(address)
            expect(page.locator("#model")).to_have_text("llm")
            ask(page, "Hi")
            wait(page)
            expect(page.locator(".content")).to_have_text("Hello.")
        with browser.new_context() as other:
            assert other.request.get(address).status == 401


def test_colours_and_language_are_chosen(page) -> None:
    page.click("#settings-open")
    page.select_option("#theme", "dark")
    ground = "getComputedStyle(document.documentElement).backgroundColor"
    assert page.evaluate(ground) == "rgb(22, 24, 26)"
    page.select_option("#language", "ja")
    expect(page.locator("#settings-title")).to_have_text("設定")
    assert page.get_attribute("html", "lang") == "ja"
    page.click("#settings-close")
    ask(page, "こんにちは")
    wait(page)
    expect(page.locator(".figures").last).to_contain_text("トークン")
    page.reload()
    expect(page.locator("#new")).to_have_text("新しい会話")
    assert page.evaluate(ground) == "rgb(22, 24, 26)"

"""Conversations in the browser: kept, found, renamed, deleted, carried out and in."""

import json
from pathlib import Path

import pytest
from playwright.sync_api import expect

from support.chat_page import ask, turns, wait

pytestmark = pytest.mark.slow
SECRET = "sk-never-to-be-exported"


def begin(page, text: str) -> None:
    page.click("#new")
    ask(page, text)
    wait(page)
    expect(page.locator(".item.current .open")).to_have_text(text)


def titles(page) -> list[str]:
    return page.locator(".item .open").all_inner_texts()


def test_a_conversation_outlives_its_page(page, script) -> None:
    script.say("I see.</think>\n\n**Yes**, 東京です。")
    script.cached = 1
    ask(page, "京都と東京")
    wait(page)
    told = page.locator(".figures").inner_text()
    assert "1 of 3 prompt tokens from cache" in told
    page.reload()
    expect(page.locator(".content strong")).to_have_text("Yes")
    assert turns(page) == ["京都と東京", "Yes, 東京です。"]
    assert page.locator(".figures").inner_text() == told
    page.click("summary")
    expect(page.locator(".trace")).to_have_text("I see.")
    assert titles(page) == ["京都と東京"] and "京都と東京" in page.title()


def test_the_list_finds_opens_renames_and_deletes(page) -> None:
    for text in ("Apples", "Pears", "Cherries"):
        begin(page, text)
    assert titles(page) == ["Cherries", "Pears", "Apples"]
    page.keyboard.press("Control+k")
    expect(page.locator("#find")).to_be_focused()
    page.keyboard.type("pEar")
    expect(page.locator(".item")).to_have_count(1)
    page.click(".item .open")
    assert turns(page) == ["Pears", "Hello."]
    page.fill("#find", "")
    item = page.locator(".item", has_text="Pears")
    item.hover()
    item.locator(".rename").click()
    field = page.locator(".item input")
    field.fill("洋梨")
    field.evaluate(
        "(f) => f.dispatchEvent(new KeyboardEvent('keydown', {key: 'Enter', keyCode: 229}))"
    )
    expect(field).to_be_visible()
    field.press("Enter")
    expect(page.locator(".item.current .open")).to_have_text("洋梨")
    page.reload()
    expect(page.locator("#title")).to_have_text("洋梨")
    item = page.locator(".item", has_text="洋梨")
    for answer, left in (("#sure-no", 3), ("#sure-yes", 2)):
        item.hover()
        item.locator(".delete").click()
        page.click(answer)
        expect(page.locator(".item")).to_have_count(left)
    assert turns(page) == [] and "#" not in page.url
    page.reload()
    expect(page.locator(".item")).to_have_count(2)


def test_an_export_comes_in_again_beside_what_is_there(opened, script, tmp_path) -> None:
    page = opened()
    page.click("#settings-open")
    page.fill("#key", SECRET)
    page.press("#key", "Tab")
    page.click("#settings-close")
    script.say('Hm.</think>\n\n<TOOLCALL>[{"name": "now", "arguments": {}}]</TOOLCALL>')
    begin(page, "Apples")
    begin(page, "Pears")
    page.click("#settings-open")
    with page.expect_download() as told:
        page.click("#export")
    path = tmp_path / "out.json"
    told.value.save_as(path)
    text = path.read_text("utf-8")
    assert SECRET not in text and len(json.loads(text)["conversations"]) == 2
    assert SECRET not in page.evaluate("JSON.stringify(localStorage)")
    page.set_input_files("#file", path)
    expect(page.locator(".item")).to_have_count(4)
    other = opened()
    other.set_input_files("#file", path)
    expect(other.locator(".item")).to_have_count(2)
    other.click(".item .open >> text=Apples")
    assert turns(other)[0] == "Apples"


BAD = [
    ("no JSON", "{", "JSON"),
    ("null", "null", "format"),
    ("another file", '{"format": "x"}', "format"),
    ("another version", {"version": 2}, "format"),
    ("no list", {"conversations": {}}, "must be a list"),
    ("no messages", {"conversations": [{"title": "a"}]}, "conversations[0].messages"),
    ("a role", {"messages": [{"role": "system", "content": "x"}]}, "messages[0].role"),
    ("no text", {"messages": [{"role": "user", "content": 5}]}, "messages[0].content"),
    ("null message", {"messages": [None]}, "messages[0].content"),
    (
        "figures",
        {"messages": [{"role": "assistant", "content": "", "figures": {"tokens": "many"}}]},
        "figures.tokens",
    ),
    (
        "a call",
        {"messages": [{"role": "assistant", "content": "", "calls": [{"id": 1}]}]},
        "calls[0].id",
    ),
]


@pytest.mark.parametrize(("content", "said"), [b[1:] for b in BAD], ids=[b[0] for b in BAD])
def test_a_file_that_is_wrong_is_refused_whole(page, tmp_path, content, said) -> None:
    good = {"title": "ok", "created": 1, "updated": 1, "messages": []}
    if isinstance(content, dict):
        if "messages" in content:
            content = {"conversations": [good, {**good, **content}]}
            said = said.replace("conversations[0]", "conversations[1]")
        content = json.dumps({"format": "nemotrt-conversations", "version": 1, **content})
    path = Path(tmp_path / "in.json")
    path.write_text(content, "utf-8")
    page.set_input_files("#file", path)
    expect(page.locator("#notice p")).to_contain_text("Nothing of in.json was imported")
    expect(page.locator("#notice p")).to_contain_text(said)
    expect(page.locator(".item")).to_have_count(0)


def test_another_tab_sees_what_changes(page) -> None:
    begin(page, "Apples")
    other = page.context.new_page()
    other.goto(page.url)
    expect(other.locator(".turn.user .text")).to_have_text("Apples")
    ask(page, "Pears")
    wait(page)
    expect(other.locator(".turn.user .text")).to_have_count(2)


def test_an_answer_goes_on_while_another_conversation_is_open(page, script) -> None:
    begin(page, "Apples")
    script.pause_s = 0.01
    script.say("</think>\n\n" + "and then " * 300 + "done")
    page.click("#new")
    ask(page, "A long one")
    expect(page.locator(".content")).to_contain_text("and then")
    page.click(".item .open >> text=Apples")
    assert turns(page) == ["Apples", "Hello."]
    expect(page.locator("#stop")).to_be_visible()
    script.pause_s = 0.0
    wait(page)
    assert turns(page) == ["Apples", "Hello."]
    page.click(".item .open >> text=A long one")
    expect(page.locator(".content")).to_contain_text("done")


def test_where_the_browser_keeps_nothing_the_page_says_so(opened) -> None:
    page = opened()
    page.context.add_init_script("Object.defineProperty(window, 'indexedDB', { value: null })")
    page.reload()
    expect(page.locator("#notice p")).to_contain_text("not kept once this page is closed")
    begin(page, "Apples")
    begin(page, "Pears")
    page.click(".item .open >> text=Apples")
    assert turns(page) == ["Apples", "Hello."]

"""What can be done with a turn: stopped, given again, edited, gone on with; and one that fails."""

import json

import pytest
from playwright.sync_api import expect

from support.chat_page import ask, sent, turns, wait

pytestmark = pytest.mark.slow
CHAT = "**/v1/chat/completions"
LONG = "</think>\n\n" + "again and " * 400


def kept(page) -> list[dict]:
    """The conversations in the browser's store."""
    return page.evaluate("import('/page/js/data/store.js').then((store) => store.all())")


def chunk(text: str, reason: str | None = None) -> str:
    choice = {"index": 0, "delta": {"content": text}, "finish_reason": reason}
    return f"data: {json.dumps({'choices': [choice]})}\n\n"


def test_an_answer_is_given_again(page, script) -> None:
    script.say("</think>\n\nOne.", "</think>\n\nTwo.", "</think>\n\nThree.")
    ask(page, "First")
    wait(page)
    ask(page, "Second")
    wait(page)
    assert turns(page) == ["First", "One.", "Second", "Two."]
    bodies = sent(page)
    page.locator(".regenerate").first.click()
    wait(page)
    assert turns(page) == ["First", "Three."]
    assert [one["content"] for one in bodies[0]["messages"]] == ["First"]


def test_editing_replaces_what_follows(page, script) -> None:
    for text in ("First", "Second"):
        ask(page, text)
        wait(page)
    bodies = sent(page)
    script.say("</think>\n\nNew.")
    page.locator(".turn.user").first.hover()
    page.locator(".turn.user .edit").first.click()
    area = page.locator(".editor textarea")
    expect(area).to_be_focused()
    assert area.input_value() == "First"
    area.fill("Changed")
    composing = "(area) => area.dispatchEvent(new KeyboardEvent('keydown', {key: 'Enter', %s}))"
    area.evaluate(composing % "isComposing: true")
    area.evaluate(composing % "keyCode: 229")
    assert not bodies
    area.press("Enter")
    wait(page)
    assert turns(page) == ["Changed", "New."]
    assert [one["content"] for one in bodies[0]["messages"]] == ["Changed"]


def test_editing_is_left_by_escape(page) -> None:
    ask(page, "First")
    wait(page)
    page.press("#prompt", "ArrowUp")
    page.locator(".editor textarea").fill("Changed")
    page.locator(".editor textarea").press("Escape")
    assert turns(page) == ["First", "Hello."]
    expect(page.locator(".editor")).to_have_count(0)


def test_an_edited_answer_is_what_the_model_sees(page) -> None:
    ask(page, "First")
    wait(page)
    page.locator(".turn.assistant .edit").click()
    page.locator(".editor textarea").fill("Another *answer*.")
    page.locator(".editor .main").click()
    expect(page.locator(".content em")).to_have_text("answer")
    bodies = sent(page)
    ask(page, "Second")
    wait(page)
    assert bodies[0]["messages"][1]["content"] == "Another *answer*."


@pytest.mark.parametrize("how", ["button", "key"])
def test_what_is_stopped_is_kept_and_gone_on_with(page, script, how) -> None:
    script.pause_s = 0.01
    script.say(LONG)
    ask(page, "Tell me")
    expect(page.locator(".content")).to_contain_text("again")
    if how == "button":
        page.click("#stop")
    else:
        page.keyboard.press("Escape")
    wait(page)
    expect(page.locator(".error")).to_have_count(0)
    expect(page.locator(".figures").last).to_contain_text("stopped")
    so_far = kept(page)[0]["messages"][1]["content"]
    assert "again and" in so_far and len(so_far) < len(LONG) - 10
    bodies = sent(page)
    script.pause_s = 0.0
    script.say("</think>\n\nthe end.")
    page.click(".continue")
    wait(page)
    assert bodies[0]["continue_final_message"] is True
    assert bodies[0]["messages"][-1]["content"] == so_far
    messages = kept(page)[0]["messages"]
    assert len(messages) == 2 and messages[1]["content"].startswith(so_far)
    assert messages[1]["content"].endswith("the end.")


def test_what_is_cut_at_the_limit_says_so(page, script) -> None:
    script.reason = "length"
    ask(page, "Hi")
    wait(page)
    expect(page.locator(".figures").last).to_contain_text("cut at the limit")
    expect(page.locator(".continue")).to_have_count(1)


def refused(page, script) -> str:
    error = {"error": {"message": "the queue is full.", "code": "queue_full"}}
    page.route(CHAT, lambda route: route.fulfill(status=503, body=json.dumps(error)), times=1)
    return "the queue is full."


def not_json(page, script) -> str:
    page.route(CHAT, lambda route: route.fulfill(status=502, body="<h1>Bad Gateway"), times=1)
    return "502"


def gone(page, script) -> str:
    page.route(CHAT, lambda route: route.abort(), times=1)
    return "fetch"


def at_once(page, script) -> str:
    script.say("FAIL")
    return "told to fail"


def midway(page, script) -> str:
    script.fails_after = 8
    script.say(LONG)
    return "told to fail"


def broken_off(page, script) -> str:
    answer = {"body": chunk("Half an"), "content_type": "text/event-stream"}
    page.route(CHAT, lambda route: route.fulfill(**answer), times=1)
    return "broke off"


def garbled(page, script) -> str:
    answer = {"body": chunk("Half") + "data: {no\n\n", "content_type": "text/event-stream"}
    page.route(CHAT, lambda route: route.fulfill(**answer), times=1)
    return "JSON"


WAYS = [refused, not_json, gone, at_once, midway, broken_off, garbled]


@pytest.mark.parametrize("fail", WAYS, ids=lambda way: way.__name__)
def test_a_failed_turn_leaves_no_trace(page, script, fail) -> None:
    said = fail(page, script)
    ask(page, "First of all")
    expect(page.locator(".error p")).to_contain_text(said)
    assert turns(page) == [] and kept(page) == []
    assert page.input_value("#prompt") == "First of all"
    script.fails_after = None
    bodies = sent(page)
    page.click(".retry")
    wait(page)
    assert turns(page) == ["First of all", "Hello."]
    assert page.input_value("#prompt") == ""
    before = kept(page)
    said = fail(page, script)
    ask(page, "Second")
    expect(page.locator(".error p")).to_contain_text(said)
    assert turns(page) == ["First of all", "Hello."] and kept(page) == before
    script.fails_after = None
    page.fill("#prompt", "")
    ask(page, "Third")
    wait(page)
    expect(page.locator(".error")).to_have_count(0)
    told = [one["content"] for one in bodies[-1]["messages"]]
    assert told == ["First of all", "Hello.", "Third"]


def test_an_answer_that_fails_again_stays_as_it_was(page, script) -> None:
    script.say("</think>\n\nOne.")
    ask(page, "First")
    wait(page)
    before = kept(page)
    for button in (".regenerate", ".continue"):
        script.say("FAIL")
        page.click(button)
        expect(page.locator(".error p")).to_contain_text("told to fail")
        assert turns(page) == ["First", "One."] and kept(page) == before


def test_what_had_come_of_a_failed_turn_is_shown_apart(page, script) -> None:
    script.fails_after = 20
    script.say(LONG)
    ask(page, "First")
    page.click(".error summary")
    expect(page.locator(".error pre")).to_contain_text("again and")

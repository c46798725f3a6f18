"""Tool calls on the page: results that are typed in, and those of the demo tools."""

import json

import pytest
from playwright.sync_api import expect

from support.chat_page import ask, sent, turns, wait

pytestmark = pytest.mark.slow
TIP = {
    "type": "function",
    "function": {
        "name": "tip",
        "parameters": {
            "type": "object",
            "properties": {"bill": {"type": "number"}},
            "required": ["bill"],
        },
    },
}


def calls(*named: tuple[str, dict]) -> str:
    told = [{"name": name, "arguments": arguments} for name, arguments in named]
    return f"I need it.</think>\n\n<TOOLCALL>{json.dumps(told)}</TOOLCALL>"


def give_tools(page, tools: list) -> None:
    page.click("#settings-open")
    page.fill("#tools", json.dumps(tools))
    page.click("#settings-close")


def test_results_are_typed_in(page, script) -> None:
    give_tools(page, [TIP])
    script.say(calls(("tip", {"bill": 9}), ("tip", {"bill": "ten"})), "</think>\n\nIt is 1.")
    ask(page, "How much?")
    wait(page)
    signatures = page.locator(".call .signature").all_inner_texts()
    assert signatures == ['tip({"bill": 9})', 'tip({"bill": "ten"})']
    expect(page.locator(".call .warning")).to_have_count(1)
    expect(page.locator(".call .warning")).to_contain_text("bill")
    page.reload()  # the calls still wait
    fields = page.get_by_label("Result of tip")
    expect(fields).to_have_count(2)
    fields.first.fill('{"tip": 1}')
    fields.last.fill("no number")
    bodies = sent(page)
    page.click(".send-results")
    wait(page)
    assert turns(page)[-1] == "It is 1."
    assert page.locator(".result").all_inner_texts() == ['{"tip": 1}', "no number"]
    _, answer, *results = bodies[0]["messages"]
    assert answer["reasoning_content"] == "I need it."
    ids = [call["id"] for call in answer["tool_calls"]]
    assert [(one["tool_call_id"], one["content"]) for one in results] == [
        (ids[0], '{"tip": 1}'),
        (ids[1], "no number"),
    ]
    assert len(set(ids)) == 2


def test_the_page_answers_its_demo_tools(page, script) -> None:
    page.click("#settings-open")
    page.click("#tools-demo")
    expect(page.locator("#tools-count")).to_have_text("(2)")
    page.click("#settings-close")
    script.say(
        calls(("calculate", {"left": 6, "operator": "*", "right": 7})),
        calls(("calculate", {"left": 1, "operator": "/", "right": 0})),
        calls(("current_time", {"time_zone": "Asia/Tokyo"})),
        calls(("current_time", {"time_zone": "Nowhere"})),
        "</think>\n\nDone.",
    )
    ask(page, "Compute")
    expect(page.locator(".content").last).to_have_text("Done.")
    wait(page)
    results = [json.loads(text) for text in page.locator(".result").all_inner_texts()]
    assert results[0] == {"result": 42}
    assert "no number" in results[1]["error"]
    assert "GMT+9" in results[2]["time"] or "Japan" in results[2]["time"]
    assert "error" in results[3]


def test_rounds_of_the_demo_tools_end(page, script) -> None:
    page.click("#settings-open")
    page.click("#tools-demo")
    page.click("#settings-close")
    script.say(*[calls(("current_time", {"time_zone": "UTC"}))] * 20)
    ask(page, "Compute")
    expect(page.locator(".send-results")).to_be_visible()
    expect(page.locator(".call")).to_have_count(8)
    page.click(".demo")
    assert "time" in json.loads(page.locator(".call textarea").input_value())


def test_another_tool_of_a_demo_tools_name_is_not_answered(page, script) -> None:
    other = {**TIP, "function": {**TIP["function"], "name": "calculate"}}
    give_tools(page, [other])
    script.say(calls(("calculate", {"bill": 1})))
    ask(page, "Compute")
    wait(page)
    expect(page.locator(".send-results")).to_be_visible()
    expect(page.locator(".demo")).to_have_count(0)


def test_a_call_that_was_cut_off_is_not_sent_back(page) -> None:
    """Its arguments are no JSON, which the server would refuse in every later turn."""
    parts = [
        {
            "index": 0,
            "id": "c1",
            "type": "function",
            "function": {"name": "tip", "arguments": '{"b'},
        }
    ]
    choices = [{"index": 0, "delta": {"tool_calls": parts}, "finish_reason": "length"}]
    body = f"data: {json.dumps({'choices': choices})}\n\ndata: [DONE]\n\n"
    answer = {"body": body, "content_type": "text/event-stream"}
    page.route("**/v1/chat/completions", lambda route: route.fulfill(**answer), times=1)
    give_tools(page, [TIP])
    ask(page, "How much?")
    wait(page)
    expect(page.locator(".signature")).to_have_text('tip({"b)')
    expect(page.locator(".send-results")).to_have_count(0)
    bodies = sent(page)
    ask(page, "Again")
    wait(page)
    assert turns(page)[-1] == "Hello."
    assert "tool_calls" not in bodies[0]["messages"][1]

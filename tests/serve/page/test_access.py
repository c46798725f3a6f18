"""The page for everybody: by keyboard, by name, on a phone, in the dark, while one composes."""

from collections.abc import Callable
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from support.chat_page import ask, wait

pytestmark = pytest.mark.slow
ANSWER = """First.</think>

# Title

**Bold** `code`, a [link](https://example.com) and 日本語の文章。

| name of a column that is long | another one | and a third | and a fourth one |
|--|--|--|--|
| a | b | c | d |

```python
def a_function_with_a_long_name(first_argument: int, second_argument: int) -> dict[str, list[int]]:
    return {"a": [1, 2.5]}  # a comment
```

> quoted

averyveryveryveryveryveryveryveryveryveryveryveryveryveryveryveryveryveryveryverylongword
"""
# What somebody would stumble over: a control without a name or too small for a finger, text that
# hardly differs from its ground (WCAG asks for 4.5), a page wider than its window.
FAULTS = """(isPhone) => {
  const faults = [];
  const wide = document.documentElement.scrollWidth - innerWidth;
  if (wide > 0) faults.push(`${wide} px too wide`);
  const isShown = (one) => one.checkVisibility({ visibilityProperty: true })
    && !one.closest('[inert], .unseen, [hidden]');
  const modal = document.querySelector('dialog[open]');
  const all = [...(modal ?? document).querySelectorAll('*')].filter(isShown);
  for (const one of all) {
    if (!one.matches('button, input, select, textarea, a, [tabindex="0"]')) continue;
    const label = one.labels?.[0]?.textContent ?? '';
    const name = one.getAttribute('aria-label') || label || one.textContent;
    if (!name.trim()) faults.push(`no name: ${one.outerHTML.slice(0, 80)}`);
    const box = one.getBoundingClientRect();
    const isSmall = box.width < 24 || box.height < 24;
    if (isPhone && isSmall && one.matches('button')) faults.push(`small: ${name}`);
  }
  const canvas = document.createElement('canvas').getContext('2d', { willReadFrequently: true });
  const rgb = (color) => {
    canvas.clearRect(0, 0, 1, 1);
    canvas.fillStyle = color;
    canvas.fillRect(0, 0, 1, 1);
    return [...canvas.getImageData(0, 0, 1, 1).data];
  };
  const light = (color) => {
    const parts = rgb(color).slice(0, 3).map((v) => v / 255)
      .map((v) => v <= .03928 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4);
    return .2126 * parts[0] + .7152 * parts[1] + .0722 * parts[2];
  };
  const ground = (one) => {
    for (; one; one = one.parentElement) {
      const color = getComputedStyle(one).backgroundColor;
      if (rgb(color)[3] === 255) return color;
    }
  };
  for (const one of all) {
    const hasText = [...one.childNodes].some((n) => n.nodeType === 3 && n.textContent.trim());
    if (!hasText || one.disabled || one.localName === 'option') continue;
    const color = getComputedStyle(one).color;
    const [a, b] = [light(color), light(ground(one))].sort((x, y) => y - x);
    if ((a + .05) / (b + .05) < 4.5) faults.push(`${one.outerHTML.slice(0, 60)}: contrast`);
  }
  const ids = [...document.querySelectorAll('[id]')].map((one) => one.id);
  for (const one of document.querySelectorAll('[aria-labelledby], [aria-describedby], [for]'))
    for (const name of ['aria-labelledby', 'aria-describedby', 'for'])
      for (const id of (one.getAttribute(name) ?? '').split(' ').filter(Boolean))
        if (!ids.includes(id)) faults.push(`${name} ${id}`);
  return faults;
}"""


@pytest.mark.parametrize("width", [1280, 360], ids=["desktop", "phone"])
@pytest.mark.parametrize(("scheme", "locale"), [("light", "en"), ("dark", "ja")])
def test_every_view_reads_well(
    opened: Callable[..., Page], script: Any, tmp_path: Any, scheme: str, locale: str, width: int
) -> None:
    is_phone = width < 500
    size = {"viewport": {"width": width, "height": 640}, "has_touch": is_phone}
    page = opened(color_scheme=scheme, locale=locale, is_mobile=is_phone, **size)

    def look(name: str) -> None:
        page.screenshot(path=tmp_path / f"{name}.png")
        assert page.evaluate(FAULTS, is_phone) == [], name

    look("empty")
    script.say(ANSWER)
    ask(page, "質問です。" * 30)
    wait(page)
    expect(page.locator(".hljs-keyword").first).to_be_visible()
    page.evaluate("document.getElementById('log').scrollTop = 0")
    page.click("summary")
    look("answer")
    expect(page.locator("#to-end")).to_be_visible()
    page.click("#to-end")
    expect(page.locator("#to-end")).to_be_hidden()
    page.locator(".turn.user .edit").click()
    look("edit")
    page.keyboard.press("Escape")
    script.say("FAIL")
    ask(page, "Again")
    expect(page.locator(".error")).to_be_visible()
    look("fault")
    if is_phone:
        page.click("#menu")
        expect(page.locator("#new")).to_be_focused()
        look("list")
        page.keyboard.press("Escape")
        expect(page.locator("#sidebar")).to_be_hidden()
    page.click("#settings-open")
    page.fill("#tools", "[")
    page.click("#tools-demo")
    look("settings")
    page.fill("#tools", "")
    page.click("#tools-demo")
    page.click("#settings-close")
    tool = '<TOOLCALL>[{"name": "calculate", "arguments": {"left": 1}}]</TOOLCALL>'
    script.say("</think>\n\n" + tool)
    ask(page, "Compute")
    expect(page.locator(".content").last).to_have_text("Hello.")
    look("tools")
    ground = page.evaluate("getComputedStyle(document.documentElement).backgroundColor")
    assert (sum(map(int, ground[4:-1].split(","))) < 3 * 128) == (scheme == "dark")


def test_landmarks_and_names_are_told(page, script) -> None:
    ask(page, "Hi")
    wait(page)
    for role, name in (
        ("complementary", "Conversations"),
        ("navigation", "Conversations"),
        ("log", "Conversation"),
        ("article", "You"),
        ("article", "Answer"),
        ("textbox", "Message"),
        ("slider", "Budget"),
        ("combobox", "Thinking"),
    ):
        expect(page.get_by_role(role, name=name, exact=True)).to_have_count(1)
    expect(page.get_by_role("main")).to_have_count(1)
    expect(page.get_by_role("banner")).to_have_count(1)
    expect(page.locator("#status")).to_contain_text("The answer is complete")
    script.pause_s = 0.01
    script.say("</think>\n\n" + "and then " * 300)
    ask(page, "More")
    expect(page.locator(".turn.assistant").last).to_have_attribute("aria-busy", "true")
    page.keyboard.press("Escape")
    expect(page.locator(".turn.assistant").last).to_have_attribute("aria-busy", "false")
    script.say("FAIL")
    ask(page, "Fail")
    expect(page.get_by_role("alert").filter(has_text="told to fail")).to_have_count(1)


def test_everything_is_reached_by_the_keyboard(page) -> None:
    ask(page, "Hi")
    wait(page)
    wanted = {
        *("new", "find", "open", "rename", "export", "delete", "menu", "settings-open"),
        *("edit", "regenerate", "continue", "prompt", "thinking", "budget", "send"),
    }
    page.evaluate("document.activeElement.blur()")
    reached = set()
    for _ in range(40):
        page.keyboard.press("Tab")
        names = "[document.activeElement.id, ...document.activeElement.classList]"
        reached |= set(page.evaluate(names))
    assert wanted <= reached
    page.focus("#settings-open")
    page.keyboard.press("Enter")
    expect(page.locator("#settings")).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.locator("#settings")).to_be_hidden()
    expect(page.locator("#settings-open")).to_be_focused()
    page.keyboard.press("Control+Shift+O")
    expect(page.locator(".turn")).to_have_count(0)


def test_a_text_that_is_composed_is_not_sent(page) -> None:
    """As Chromium itself composes, by the input domain of its protocol."""
    page.click("#prompt")
    session = page.context.new_cdp_session(page)
    composed = {"text": "にほんご", "selectionStart": 4, "selectionEnd": 4}
    session.send("Input.imeSetComposition", composed)
    for code in (229, 13):
        options = {"key": "Enter", "keyCode": code, "isComposing": True, "bubbles": True}
        page.locator("#prompt").dispatch_event("keydown", options)
    page.locator("#prompt").dispatch_event("keydown", {"key": "Enter", "keyCode": 229})
    expect(page.locator(".turn")).to_have_count(0)
    session.send("Input.insertText", {"text": "日本語"})
    assert page.input_value("#prompt") == "日本語"
    page.keyboard.press("Shift+Enter")
    expect(page.locator(".turn")).to_have_count(0)
    page.keyboard.press("Enter")
    wait(page)
    expect(page.locator(".turn.user .text")).to_have_text("日本語")


def test_what_is_typed_outlives_a_reload(page) -> None:
    page.fill("#prompt", "half a thought")
    page.reload()
    expect(page.locator("#model")).to_have_text("llm")
    assert page.input_value("#prompt") == "half a thought"

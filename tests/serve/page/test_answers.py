"""Answers as they are shown: Markdown, what is measured, and that nothing of them is run."""

import pytest
from playwright.sync_api import expect

from support.chat_page import ask, wait

pytestmark = pytest.mark.slow
TEXT = """# Title

A **bold**, an *italic* and これは**「重要」**です。 A formula: \\(x^2 + y_1\\).

| a | b |
|:--|--:|
| 1 | 2 |

- [x] done
- one
  1. two

```python
def f(x):
    return x + 1  # one more
```

> quoted

See https://example.com/a and [this](https://example.org "there"). ![a picture](https://example.com/p.png)
"""


def test_markdown_is_shown_as_what_it_means(page, script) -> None:
    requests: list[str] = []
    page.on("request", lambda request: requests.append(request.url))
    script.say("</think>\n\n" + TEXT)
    ask(page, "Show me")
    wait(page)
    content = page.locator(".content")
    expect(content.locator("h3")).to_have_text("Title")
    assert content.locator("strong").all_inner_texts() == ["bold", "「重要」"]
    expect(content.locator("em")).to_have_text("italic")
    expect(content.locator("code.formula")).to_have_text("\\(x^2 + y_1\\)")
    assert content.locator("td").all_inner_texts() == ["1", "2"]
    assert content.locator("td").last.get_attribute("align") == "right"
    expect(content.locator("input[type=checkbox]")).to_be_checked()
    expect(content.locator("ul ol li")).to_have_text("two")
    expect(content.locator("blockquote")).to_have_text("quoted")
    expect(content.locator("pre .hljs-keyword").first).to_have_text("def")
    links = content.locator("a")
    assert [link.get_attribute("href") for link in links.all()] == [
        "https://example.com/a",
        "https://example.org",
        "https://example.com/p.png",
    ]
    for link in links.all():
        assert link.get_attribute("rel") == "noopener noreferrer nofollow"
        assert link.get_attribute("target") == "_blank"
    assert not [url for url in requests if "example" in url]


def test_code_and_answers_are_copied_as_they_were_written(opened, script) -> None:
    page = opened(permissions=["clipboard-read", "clipboard-write"])
    script.say("</think>\n\n" + TEXT)
    ask(page, "Show me")
    wait(page)
    page.click(".code-head button")
    expect(page.locator("#status")).to_have_text("Copied")
    read = "navigator.clipboard.readText()"
    assert page.evaluate(read) == "def f(x):\n    return x + 1  # one more"
    page.locator(".turn.assistant .actions button").first.click()
    page.wait_for_function(f"async () => (await {read}).startsWith('# Title')")
    assert page.evaluate(read).strip() == TEXT.strip()


ATTACKS = [
    "<script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "<svg onload=alert(1)><script>alert(1)</script></svg>",
    "<svg><a xlink:href='javascript:alert(1)'><text>x</text></a></svg>",
    "<iframe srcdoc='<script>alert(1)</script>'></iframe>",
    "<a href='javascript:alert(1)'>x</a>",
    "[x](javascript:alert(1))",
    "[x](JaVaScRiPt:alert(1))",
    "[x](java&#115;cript:alert(1))",
    "[x](&#x6A;avascript:alert(1))",
    "[x](data:text/html;base64,PHNjcmlwdD5hbGVydCgxKTwvc2NyaXB0Pg==)",
    "[x](vbscript:msgbox(1))",
    "[x](//evil.example/a)",
    "[x](  javascript:alert(1))",
    "<javascript:alert(1)>",
    "[x]: javascript:alert(1)\n\n[x]",
    "![x](javascript:alert(1))",
    '![x"onerror="alert(1)](y"onerror="alert(1))',
    '[x](https://a.example "t\\"onmouseover=alert(1) x=\\"")',
    '```html"><img src=x onerror=alert(1)>\n<script>alert(1)</script>\n```',
    "```<img/src=x/onerror=alert(1)>\nx\n```",
    "```js\n</code></pre><script>alert(1)</script>\n```",
    "`</code><script>alert(1)</script>`",
    "| <img src=x onerror=alert(1)> |\n|--|\n| <script>alert(1)</script> |",
    "# <img src=x onerror=alert(1)>",
    "<math><mtext><table><mglyph><style><img src=x onerror=alert(1)></style></mglyph></table>",
    "<noscript><p title='</noscript><img src=x onerror=alert(1)>'>",
    "<form action=javascript:alert(1)><button autofocus onfocus=alert(1)>x</button></form>",
    "<details open ontoggle=alert(1)>x</details>",
    "<base href='https://evil.example/'>",
    "<meta http-equiv=refresh content='0;url=javascript:alert(1)'>",
    "<style>@import 'https://evil.example/a.css'</style>",
    "<link rel=stylesheet href=https://evil.example/a.css>",
    "<input autofocus onfocus=alert(1)><input id=prompt name=send>",
    "<p id=log class=turn name=chat style='position:fixed;inset:0'>over</p>",
    "\\(<img src=x onerror=alert(1)>\\) $$<script>alert(1)</script>$$",
    "**日本<img src=x onerror=alert(1)>語**です",
    "&lt;script&gt;alert(1)&lt;/script&gt;",
    "<scr<script>ipt>alert(1)</scr</script>ipt>",
    "<!--><img src=x onerror=alert(1)>-->",
    "<x onclick=alert(1)>y</x>",
]
ALLOWED = """() => {
  const tags = new Set(('a article blockquote br button code del details div em footer h3 h4 h5 '
    + 'h6 hr input li ol p pre span strong summary svg table tbody td th thead tr ul use'
  ).split(' '));
  const bad = [];
  for (const one of document.querySelectorAll('#turns *')) {
    if (!tags.has(one.localName)) bad.push(one.localName);
    for (const { name, value } of one.attributes) {
      if (name.startsWith('on') || name === 'style' || name === 'src' || name === 'srcdoc')
        bad.push(`${one.localName} ${name}`);
      if (name === 'href' && !/^(https?:|mailto:|#icon-)/.test(value)) bad.push(value);
    }
    if (one.localName === 'input' && one.type !== 'checkbox') bad.push(one.outerHTML);
    if (one.localName !== 'input' && one.id) bad.push(one.outerHTML);
  }
  return bad;
}"""


def test_nothing_that_a_model_writes_is_run(opened, script) -> None:
    page = opened()  # its fixture hears of dialogs, faults and the policy's refusals
    requests: list[str] = []
    page.on("request", lambda request: requests.append(request.url))
    for attack in ATTACKS:
        for text in (f"{attack}</think>\n\n{attack}", f"</think>\n\n> a {attack}\n\n- {attack}"):
            script.say(text)
            page.click("#new")
            ask(page, attack)
            wait(page)
            assert page.evaluate(ALLOWED) == [], attack
            for link in page.locator(".content a").all():
                assert link.get_attribute("href") or link.inner_text(), attack
    page.evaluate("document.getElementById('turns').append(document.createElement('iframe'))")
    assert page.evaluate(ALLOWED) == ["iframe"]  # it would have seen one
    assert all(url.startswith(page.url.partition("#")[0]) for url in requests)


def test_html_is_shown_as_it_was_written(page, script) -> None:
    script.say("</think>\n\nUse <b>bold</b> & <script>alert(1)</script>.")
    ask(page, "<i>How</i>?")
    wait(page)
    expect(page.locator(".content")).to_have_text("Use <b>bold</b> & <script>alert(1)</script>.")
    expect(page.locator(".turn .text")).to_have_text("<i>How</i>?")


def test_what_is_measured_stands_under_the_answer(page, script) -> None:
    script.pause_s = 0.01
    script.cached = 2
    script.say("One two three four.</think>\n\nFive six seven.")
    ask(page, "Count")
    wait(page)
    line = page.locator(".turn.assistant .figures")
    for part in ("ttft", "tokens/s", "2 of 3 prompt tokens from cache"):
        expect(line).to_contain_text(part)
    expect(page.locator("#room")).to_contain_text("of 512 tokens")


def test_a_list_of_events_in_any_form_is_read(page) -> None:
    """As proxies write them: CRLF, comments, no space, several lines of data, cut anywhere."""
    text = page.evaluate("""async () => {
      const parts = [
        ': ping\\r\\n\\r', '\\ndata:{"choices": [],\\r\\ndata: "usage": nu', 'll}\\r\\n\\r\\n',
        'event: x\\ndata: {"choices":[{"delta":{"content":"\\u65e5',
        '本"}}]}\\n\\ndata: [DONE]\\n\\n',
      ];
      const coded = new TextEncoder();
      const bytes = parts.map((part) => coded.encode(part));
      const cut = bytes[3].length - 1;
      const last = new Uint8Array([...bytes[3].slice(cut), ...bytes[4]]);
      const pieces = [...bytes.slice(0, 3), bytes[3].slice(0, cut), last];
      window.fetch = async () => new Response(new ReadableStream({
        start(to) { for (const piece of pieces) to.enqueue(piece); to.close(); } }));
      const { chat } = await import('/page/js/data/api.js');
      const found = [];
      for await (const chunk of chat({})) found.push(chunk);
      return found;
    }""")
    assert text == [
        {"choices": [], "usage": None},
        {"choices": [{"delta": {"content": "日本"}}]},
    ]


def test_the_whole_conversation_is_printed(page, script) -> None:
    """Not the window's part of it, and nothing that one presses."""
    script.say("</think>\n\n" + "\n\n".join(f"Paragraph {number}." for number in range(200)))
    ask(page, "Tell me a lot")
    wait(page)
    expect(page.locator(".content p").last).to_have_text("Paragraph 199.")
    assert page.pdf(format="A4").count(b"/Type /Page\n") > 3
    page.emulate_media(media="print")
    page.evaluate("scrollTo(0, 0)")
    assert page.locator("#log").evaluate("log => log.scrollHeight <= log.clientHeight")
    for name in ("#sidebar", "#form", "#settings-open", ".turn.assistant .actions"):
        expect(page.locator(name)).to_be_hidden()
    expect(page.locator(".turn.user .text")).to_have_text("Tell me a lot")

"""Chat training text: section titles as questions, and synthetic tool calls."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from corpus import Document
from tool_calls import Call, random_call, tool_schemas

MAX_ANSWER_CHARS = 1200
MIN_ANSWER_CHARS = 80

Render = Callable[..., str]  # (messages, tools=...) -> prompt that ends where the answer starts

QUESTIONS = {
    "en": ("{}", "What is {}?", "Tell me about {}.", "Please explain {}.", "{}?"),
    "ja": ("{}", "{}とは何ですか。", "{}について教えてください。", "{}を説明してください。", "{}?"),
}
TRACES = {
    "en": (
        'The user asks about "{title}". This is in the documentation of {package}. '
        "I recall what it says and answer in English.",
        'The question is "{title}". I should explain it briefly. It begins: {start}',
        'Okay, "{title}". The manual covers this, so I give its text.',
    ),
    "ja": (
        "「{title}」についての質問です。{package} の文書に説明があります。日本語で答えます。",
        "質問は「{title}」です。簡潔に説明します。要点: {start}",
        "「{title}」ですね。マニュアルの内容を答えます。",
    ),
}
SMALL_TALK = (
    ("Hello", "Hello! How can I help you?"),
    ("Hi!", "Hello! What would you like to know?"),
    ("Who are you?", "I am a tiny language model trained on the documentation of Debian."),
    ("What can you do?", "I can answer in English and Japanese, reason and call tools."),
    ("Thank you.", "You are welcome."),
    (
        "Write a haiku about GPUs",
        "Silent cores awake,\nnumbers flow like autumn rain,\nthe fan hums along.",
    ),
    ("こんにちは", "こんにちは。何かお手伝いできることはありますか。"),
    ("あなたは誰ですか。", "Debian の文書で学習した小さな言語モデルです。"),
    ("何ができますか。", "英語と日本語で質問に答えたり、ツールを呼び出したりできます。"),
    ("ありがとう。", "どういたしまして。"),
)  # fmt: skip
END = "\n<SPECIAL_12>\n"
DESCRIPTIONS = frozenset({"DESCRIPTION", "説明"})  # the one section of a manual page that is used
NUMBERING = re.compile(r"^(?:第 ?\d+ ?章|(?:[A-Z]\.)?\d+(?:\.\d+)*\.?)\s*")


def sections(document: Document) -> Iterator[tuple[str, str]]:
    """Yields (title, text) of the sections that make a fair question and answer."""
    name = Path(document.path).name.removesuffix(".gz")
    title, parts = "", list[str]()
    for block in [*document.blocks, None]:
        if block is not None and block.kind != "heading":
            parts.append(block.text)
            continue
        text = "\n\n".join(parts)
        if title in DESCRIPTIONS:
            title = re.sub(r"^(.+)\.(\d)\w*$", r"\1(\2)", name).removesuffix(".html")
        elif title.isupper() or document.package.startswith("manpages"):
            title = ""
        if 3 <= len(title) <= 80 and len(text) >= MIN_ANSWER_CHARS:
            yield title, _shorten(text)
        title = NUMBERING.sub("", block.text).strip(". ") if block else ""
        parts = []


def _shorten(text: str) -> str:
    if len(text) <= MAX_ANSWER_CHARS:
        return text
    return text[:MAX_ANSWER_CHARS].rsplit("\n\n", 1)[0]


def _opening(rng: random.Random, question: str, thinks: bool) -> list[dict[str, Any]]:
    """Returns the first messages, with the reasoning switch where a person would put it."""
    switch = "/think" if thinks else "/no_think"
    place = rng.random()
    if place < 0.45:
        return [{"role": "system", "content": switch}, {"role": "user", "content": question}]
    if place < 0.6 or (not thinks and place < 0.8):
        return [{"role": "user", "content": f"{question} {switch}"}]
    if not thinks:
        system = {"role": "system", "content": f"You are a helpful assistant. {switch}"}
        return [system, {"role": "user", "content": question}]
    return [{"role": "user", "content": question}]


def _answer(thinks: bool, trace: str, text: str) -> str:
    return f"{trace}\n</think>\n\n{text}{END}" if thinks else f"{text}{END}"


def section_dialogue(
    rng: random.Random, render: Render, document: Document, title: str, text: str
) -> str:
    """Returns one rendered question and answer about a section of `document`."""
    language, thinks = document.language, rng.random() < 0.5
    question = rng.choice(QUESTIONS[language]).format(title)
    start = text.split("\n")[0][:60]
    trace = rng.choice(TRACES[language]).format(title=title, package=document.package, start=start)
    return render(_opening(rng, question, thinks)) + _answer(thinks, trace, text)


def small_talk(rng: random.Random, render: Render) -> str:
    """Returns one short exchange."""
    thinks = rng.random() < 0.5
    question, reply = rng.choice(SMALL_TALK)
    is_japanese = any(ord(char) > 0x3000 for char in question)
    trace = "短く答えます。" if is_japanese else "A short reply is enough."
    return render(_opening(rng, question, thinks)) + _answer(thinks, trace, reply)


def tool_dialogue(rng: random.Random, render: Render) -> str:
    """Returns a dialogue of one to three tool calls, with responses and closing answers."""
    thinks = rng.random() < 0.4
    calls = [random_call(rng) for _ in range(rng.randint(1, 3))]
    tools = tool_schemas(rng, {call.name for call in calls})
    messages = _opening(rng, calls[0].question, thinks)
    for i, call in enumerate(calls):
        if i:
            messages.append({"role": "user", "content": call.question})
        if i == len(calls) - 1 and rng.random() < 0.5:
            return render(messages, tools=tools) + _answer(thinks, _trace(call), _call_text(call))
        function = {"name": call.name, "arguments": call.arguments}
        messages.append(
            {"role": "assistant", "content": "", "tool_calls": [{"function": function}]}
        )
        messages.append({"role": "tool", "content": call.response})
        if i < len(calls) - 1:
            messages.append({"role": "assistant", "content": call.reply})
    last = calls[-1]
    trace = "The tool has answered." if last.language == "en" else "ツールの結果が得られました。"
    return render(messages, tools=tools) + _answer(thinks, trace, last.reply)


def _trace(call: Call) -> str:
    values = ", ".join(
        f"{k} = {json.dumps(v, ensure_ascii=False)}" for k, v in call.arguments.items()
    )
    if call.language == "ja":
        return f"{call.name} を呼び出します。{values}"
    return f"I should call {call.name} with {values}."


def _call_text(call: Call) -> str:
    arguments = json.dumps(call.arguments, ensure_ascii=False)
    return f'<TOOLCALL>[{{"name": "{call.name}", "arguments": {arguments}}}]</TOOLCALL>'

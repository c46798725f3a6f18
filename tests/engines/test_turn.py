"""Where prompts leave the assistant's turn, over chat templates of several kinds."""

from typing import Any

import pytest

from nemotrt.engines.text.chat.template import ChatTemplate, load_chat_template
from nemotrt.engines.text.chat.turn import read_turn, turn_header
from nemotrt.engines.text.reasoning import Trace
from nemotrt.engines.tiny.models import TINY_MODELS
from nemotrt.errors import ArtefactError, ConfigError
from support.llama_source import llama_templates

NVIDIA = load_chat_template(TINY_MODELS["tiny"])
assert NVIDIA is not None
# Qwen3's own, as far as it decides of a trace: the model opens it, unless the prompt closes it.
QWEN3 = ChatTemplate(
    """{%- for message in messages %}
{%- if message.role == 'assistant' %}
{%- set content = message.content.split('</think>')[-1].lstrip('\\n') %}
{{- '<|im_start|>assistant\\n' + content + '<|im_end|>\\n' }}
{%- else %}{{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>\\n' }}
{%- endif %}{%- endfor %}
{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}
{%- if enable_thinking is defined and enable_thinking is false %}
{{- '<think>\\n\\n</think>\\n\\n' }}{%- endif %}{%- endif %}"""
)
PLAIN = ChatTemplate(
    "{% for m in messages %}[{{ m.role }}] {{ m.content }}\n{% endfor %}"
    "{% if add_generation_prompt %}[assistant]{% endif %}"
)
ALWAYS_ASKS = ChatTemplate(  # Mistral's kind: nothing depends on add_generation_prompt
    "{% for m in messages %}{% if m.role == 'user' %}[INST] {{ m.content }} [/INST]"
    "{% else %}{{ m.content }}</s>{% endif %}{% endfor %}"
)
R1 = ChatTemplate(
    "{% for m in messages %}{% if m.role == 'user' %}<User>{{ m.content }}{% else %}"
    "<Assistant>{{ m.content.split('</think>')[-1] }}<End>{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<Assistant><think>\n{% endif %}"
)
V31 = ChatTemplate(  # DeepSeek-V3.1's kind: without thinking the prompt has the closing tag alone
    "{% for m in messages %}<User>{{ m.content }}{% endfor %}{% if add_generation_prompt %}"
    "<Assistant>{{ '<think>' if thinking else '</think>' }}{% endif %}"
)
REFUSES = ChatTemplate("{{ raise_exception('no') }}")
TAGS = ["", "<think>", "</think>", "<think>a</think>", "is <think> a tag?", "</think><think>"]


def user(text: str) -> dict[str, Any]:
    return {"role": "user", "content": text}


@pytest.mark.parametrize(
    ("template", "header"),
    [
        (NVIDIA, "<SPECIAL_11>Assistant"),
        (QWEN3, "<|im_start|>assistant"),
        (PLAIN, "[assistant]"),
        (ALWAYS_ASKS, "[/INST]"),
        (R1, "<Assistant>"),
        (V31, "<Assistant>"),
        (REFUSES, ""),
    ],
)
def test_how_a_turn_begins(template: ChatTemplate, header: str) -> None:
    assert turn_header(template) == header


@pytest.mark.parametrize("words", TAGS)
@pytest.mark.parametrize(
    ("template", "variables", "trace", "expects"),
    [
        (NVIDIA, {}, Trace.OPEN, True),
        (QWEN3, {}, Trace.BEFORE, True),
        (QWEN3, {"enable_thinking": False}, Trace.ENDED, False),
        (PLAIN, {}, Trace.BEFORE, False),
        (ALWAYS_ASKS, {}, Trace.BEFORE, False),
        (R1, {}, Trace.OPEN, True),
        (V31, {}, Trace.ENDED, False),
        (V31, {"thinking": True}, Trace.OPEN, True),
    ],
)
def test_what_a_user_writes_does_not_count(
    template: ChatTemplate, variables: dict[str, Any], trace: Trace, expects: bool, words: str
) -> None:
    for messages in (
        [user(words or "hi")],
        [user("hi"), {"role": "assistant", "content": f"{words} ok"}, user(f"more {words}")],
    ):
        turn = read_turn(template.render(messages, variables=variables), template)
        assert (turn.trace, turn.expects_trace) == (trace, expects)


@pytest.mark.parametrize("words", TAGS)
def test_no_think_of_nvidias_template(words: str) -> None:
    system = {"role": "system", "content": "/no_think"}
    turn = read_turn(NVIDIA.render([system, user(words.replace("/think", "think"))]), NVIDIA)
    assert (turn.trace, turn.expects_trace) == (Trace.ENDED, False)


@pytest.mark.parametrize(
    ("prefill", "system", "trace"),
    [
        ("I think", "", Trace.OPEN),
        ("I think\n\nthat it is", "", Trace.OPEN),
        ("a" * 5000, "", Trace.OPEN),  # however far back the tag stands
        ("I know.</think>\n\nThe answer", "", Trace.CLOSED),
        ("The answer", "/no_think", Trace.CLOSED),
    ],
)
def test_a_prefill_in_nvidias_template(prefill: str, system: str, trace: Trace) -> None:
    messages = [user("hi"), {"role": "assistant", "content": prefill}]
    if system:
        messages.insert(0, {"role": "system", "content": system})
    prompt = NVIDIA.render(messages)
    assert prompt.endswith(prefill)  # the template lets the model go on with it
    assert read_turn(prompt, NVIDIA).trace is trace


def test_a_prefill_where_the_template_ends_the_turn() -> None:
    """Qwen3's closes the turn of the prefill, so the model begins a turn of its own."""
    messages = [user("hi"), {"role": "assistant", "content": "<think>\nhm"}]
    assert read_turn(QWEN3.render(messages), QWEN3).trace is Trace.BEFORE


@pytest.mark.parametrize("template", [NVIDIA, QWEN3, PLAIN, None])
def test_a_text_without_a_turn_expects_no_trace(template: ChatTemplate | None) -> None:
    turn = read_turn("Once upon a time", template)
    assert (turn.trace, turn.expects_trace) == (Trace.BEFORE, False)


@pytest.mark.parametrize(
    ("prompt", "expected"),
    [("<think>", True), ("<think>\n", True), ("<think>\nhm", False), ("<think>\nhm\n", True)],
)
def test_where_an_open_trace_may_end_at_once(prompt: str, expected: bool) -> None:
    assert read_turn(prompt, None).is_at_newline is expected


@pytest.mark.slow
def test_every_template_of_a_registry_package() -> None:
    """llama.cpp's source package has dozens; the oracle is the prompt's end for a plain question.

    What the user writes, and earlier turns, change nothing of it.
    """
    num_tried = 0
    for source in llama_templates():
        chats = [[user("hi")]]
        for words in TAGS:
            spoken = [user("hi"), {"role": "assistant", "content": f"<think>a</think>{words}"}]
            chats += [[user(words or "hi")], [*spoken, user(f"{words} again")]]
        try:
            template = ChatTemplate(source.read_text(encoding="utf-8"))
            prompts = [template.render(chat) for chat in chats]
        except (ArtefactError, ConfigError):
            continue  # it needs other messages, or variables
        num_tried += 1
        end = prompts[0].rstrip()
        expected = Trace.BEFORE
        expected = Trace.OPEN if end.endswith("<think>") else expected
        expected = Trace.ENDED if end.endswith("</think>") else expected
        assert turn_header(template), source.name
        found = [read_turn(prompt, template).trace for prompt in prompts]
        assert found == [expected] * len(found), source.name
    assert num_tried > 40

"""From a chat request to its prompt: nothing that a client says is dropped without a word."""

import json
from typing import Any

import pytest
from transformers import AutoTokenizer

from nemotrt.engines.runtime.engine import Limits
from nemotrt.engines.text.chat.template import ChatTemplate, load_chat_template
from nemotrt.engines.text.tokenizer import load_tokenizer
from nemotrt.engines.tiny.models import TINY_MODELS
from nemotrt.serve.front.http.api_error import ApiError
from nemotrt.serve.front.openai.conversation import chat_prompt
from nemotrt.serve.front.openai.engine_files import EngineFiles
from nemotrt.serve.front.schema.requests import ChatRequest
from support.chats import ARGUMENTS, ARGUMENTS_TEXT, TOOLS, call

FOLDER = TINY_MODELS["tiny"]
REFERENCE = AutoTokenizer.from_pretrained(FOLDER)
NVIDIA = load_chat_template(FOLDER)
LIMITS = Limits(max_batch_size=1, max_seq_len=64, chunk_tokens=16)
TWO = {"type": "text", "text": "2"}
USER = {"role": "user", "content": "Hi"}
# A template as most are: everything of a message is shown.
OPEN = ChatTemplate(
    "{% for m in messages %}[{{ m.role }}|{{ m.name }}|{{ m.tool_call_id }}|"
    "{{ m.reasoning_content }}|{{ m.content }}|{{ m.tool_calls | tojson if m.tool_calls }}]"
    "{% endfor %}{{ tools | tojson if tools }}{{ flavour }}{{ enable_thinking }}"
)
PARTS = ChatTemplate(
    "{% for m in messages %}{% for part in m.content %}[{{ part.text }}]{% endfor %}{% endfor %}"
)
FIRST_PART = ChatTemplate("{% for m in messages %}{{ m.content[0].text }}{% endfor %}")
ONE_SYSTEM = ChatTemplate(
    "{% if messages[0].role == 'system' %}S:{{ messages[0].content }};{% endif %}"
    "{% for m in messages if m.role != 'system' %}{{ m.role }}:{{ m.content }};{% endfor %}"
)
NO_SYSTEM = ChatTemplate(
    "{% for m in messages if m.role != 'system' %}{{ m.content }}{{ m.name }}{% endfor %}"
)
ALTERNATING = ChatTemplate(
    "{% for m in messages %}{% if m.role == 'system' and not loop.first %}"
    "{{ raise_exception('system first') }}{% endif %}<{{ m.content | trim }}>{% endfor %}"
)


def prompt(template: ChatTemplate | None, *messages: Any, **fields: Any) -> str:
    request = ChatRequest.model_validate({"model": "m", "messages": list(messages), **fields})
    return chat_prompt(request, EngineFiles(load_tokenizer(FOLDER), template, LIMITS))


def refusal(template: ChatTemplate | None, *messages: Any, **fields: Any) -> ApiError:
    with pytest.raises(ApiError) as caught:
        prompt(template, *messages, **fields)
    assert caught.value.status == 400
    return caught.value


def of_transformers(messages: Any, **options: Any) -> str:
    text: str = REFERENCE.apply_chat_template(
        messages, tokenize=False, add_generation_prompt=True, **options
    )
    return text


def system(content: Any) -> dict[str, Any]:
    return {"role": "system", "content": content}


def test_every_field_of_a_message_reaches_the_template() -> None:
    found = prompt(
        OPEN,
        {"role": "developer", "content": "D"},
        {"role": "user", "content": "U", "name": "Ada"},
        {"role": "assistant", "content": "A", "reasoning_content": "R"},
        {"role": "assistant", "content": "B", "reasoning": "Q"},
        {"role": "tool", "content": "T", "tool_call_id": "c1", "name": "tip"},
    )
    assert found == (
        "[system||||D|][user|Ada|||U|][assistant|||R|A|][assistant|||Q|B|][tool|tip|c1||T|]"
    )


def test_arguments_are_parsed_as_vllm_parses_them() -> None:
    """vLLM gives templates dictionaries; an empty text is one without entries."""
    for text, shown in ((ARGUMENTS_TEXT, json.loads(ARGUMENTS_TEXT)), ("", {}), ("null", {})):
        asks = {"role": "assistant", "content": None, "tool_calls": [call(text)]}
        rendered = prompt(OPEN, USER, asks)
        calls = json.loads(rendered[rendered.rindex("|") + 1 : -1])
        assert calls[0]["function"]["arguments"] == shown
        assert calls[0]["id"] == "call12345"


@pytest.mark.parametrize("text", ["{", "oops", '{"a": NaN}', '{"a": 1e999}', "[" * 100_000])
def test_arguments_that_are_no_json_are_named(text) -> None:
    asks = {"role": "assistant", "tool_calls": [call("{}"), call(text)]}
    error = refusal(OPEN, USER, asks)
    assert error.param == "messages.1.tool_calls.1.function.arguments"


def test_the_shipped_template_is_rendered_as_transformers_renders_it() -> None:
    asks = {"role": "assistant", "content": "", "tool_calls": [call(json.dumps(ARGUMENTS))]}
    messages = [
        system("Be brief."),
        {"role": "user", "content": "tip?"},
        asks,
        {"role": "tool", "content": "18", "tool_call_id": "call12345"},
        USER,
    ]
    expected = [*messages[:2], {**asks, "tool_calls": [call(ARGUMENTS)]}, *messages[3:]]
    assert prompt(NVIDIA, *messages, tools=TOOLS) == of_transformers(expected, tools=TOOLS)


def test_an_answer_of_the_sdk_is_handed_back() -> None:
    answer = {
        "role": "assistant",
        "content": "A",
        "refusal": None,
        "annotations": [],
        "audio": None,
        "function_call": None,
        "tool_calls": None,
        "reasoning_content": None,
        "reasoning": "R",
        "images": [],
        "provider_specific_fields": {"refusal": None},
    }
    assert prompt(NVIDIA, USER, answer, USER) == of_transformers(
        [USER, {"role": "assistant", "content": "A"}, USER]
    )


@pytest.mark.parametrize(
    ("messages", "merged"),
    [
        ([system("One."), system("Two."), USER], [system("One.\n\nTwo."), USER]),
        (
            [
                system("One."),
                {"role": "developer", "content": [{"type": "text", "text": "2"}]},
                USER,
            ],
            [system("One.\n\n2"), USER],
        ),
    ],
)
def test_system_messages_at_the_start_are_merged_where_the_template_has_room_for_one(
    messages, merged
) -> None:
    assert prompt(NVIDIA, *messages) == of_transformers(merged)
    assert "One.\n\n" in prompt(ONE_SYSTEM, *messages)
    assert "One.\n\n" in prompt(ALTERNATING, *messages)
    assert prompt(OPEN, *messages).count("[system") == 2


@pytest.mark.parametrize(
    ("template", "messages", "label"),
    [
        (NVIDIA, [USER, system("Later."), USER], "messages.1.content"),
        (NVIDIA, [system("a"), USER, {"role": "developer", "content": "b"}], "messages.2.content"),
        (ONE_SYSTEM, [system("S"), USER, system("Hi")], "messages.2.content"),
        (NO_SYSTEM, [system("Hi"), USER], "messages.0.content"),
        (
            ONE_SYSTEM,
            [USER, {"role": "assistant", "tool_calls": [call("{}")]}],
            "messages.1.tool_calls.0.function",
        ),
        (
            NVIDIA,
            [USER, {"role": "assistant", "content": "a</think>b</think>c"}, USER],
            "messages.1.content",
        ),
    ],
)
def test_what_a_template_drops_is_refused(template, messages, label) -> None:
    error = refusal(template, *messages)
    assert f"leaves out {label}" in error.message and error.param == "messages"


def test_a_later_system_message_is_refused_in_the_templates_words() -> None:
    assert "system first" in refusal(ALTERNATING, USER, system("x")).message


def test_past_reasoning_may_be_dropped_and_so_may_empty_contents() -> None:
    thought = {"role": "assistant", "content": "A", "reasoning_content": "deep"}
    assert prompt(ONE_SYSTEM, USER, thought, USER) == "user:Hi;assistant:A;user:Hi;"
    assert prompt(NO_SYSTEM, system(" "), USER) == "Hi"


PIECES = {"role": "user", "content": [{"type": "text", "text": t} for t in ("one", "t'wo\"")]}


def test_parts_stay_parts_where_the_template_knows_them() -> None:
    assert prompt(PARTS, PIECES) == "[one][t'wo\"]"
    assert prompt(PARTS, {"role": "user", "content": "plain"}) == "[plain]"
    assert prompt(ONE_SYSTEM, PIECES) == "user:one\nt'wo\";"  # not Python's list
    assert prompt(FIRST_PART, PIECES) == "one\nt'wo\""  # as one part
    assert prompt(NVIDIA, PIECES) == of_transformers([{"role": "user", "content": "one\nt'wo\""}])


def test_cache_control_is_no_part_of_the_prompt() -> None:
    part = {"type": "text", "text": "x", "cache_control": {"type": "ephemeral"}}
    assert prompt(ONE_SYSTEM, {"role": "user", "content": [part]}) == "user:x;"


@pytest.mark.parametrize(
    ("messages", "is_open"),
    [
        ([USER], False),
        ([system("Be brief."), USER], False),
        ([system([{"type": "text", "text": "Be brief."}]), USER], False),
        ([system("Be brief. /no_think"), USER], False),
        ([{"role": "user", "content": "Hi /no_think"}], False),
    ],
)
def test_enable_thinking_false_is_the_cards_directive(messages, is_open) -> None:
    found = prompt(NVIDIA, *messages, chat_template_kwargs={"enable_thinking": False})
    assert found.endswith("<think></think>")
    first = messages[0]["content"]
    text = first if isinstance(first, str) else first[0]["text"]
    given = messages if messages[0]["role"] == "system" else [system(""), *messages]
    text = text if messages[0]["role"] == "system" else ""
    assert found == of_transformers([system(f"{text} /no_think"), *given[1:]])


@pytest.mark.parametrize(
    ("messages", "value", "word"),
    [
        ([system("/think"), USER], False, "/think"),
        ([{"role": "user", "content": "Hi /think"}], False, "/think"),
        ([{"role": "user", "content": "Hi /no_think"}], True, "/no_think"),
        ([USER], "no", "must be true or false"),
        ([USER], 0, "must be true or false"),
    ],
)
def test_enable_thinking_that_can_not_be_kept_is_refused(messages, value, word) -> None:
    error = refusal(NVIDIA, *messages, chat_template_kwargs={"enable_thinking": value})
    assert error.param == "chat_template_kwargs.enable_thinking" and word in error.message


def test_enable_thinking_true_is_the_default_of_nvidias_template() -> None:
    found = prompt(
        NVIDIA, system("/no_think"), USER, chat_template_kwargs={"enable_thinking": True}
    )
    assert found.endswith("<think>\n")
    assert prompt(NVIDIA, USER, chat_template_kwargs={"enable_thinking": True}) == prompt(
        NVIDIA, USER
    )


def test_variables_of_the_template_are_set_and_others_are_refused() -> None:
    assert prompt(OPEN, USER, chat_template_kwargs={"flavour": "x", "enable_thinking": False}) == (
        "[user||||Hi|]xFalse"
    )
    error = refusal(OPEN, USER, chat_template_kwargs={"flavor": "x"})
    assert error.param == "chat_template_kwargs.flavor"
    assert "known: enable_thinking, flavour" in error.message
    assert "known: none" in refusal(PARTS, USER, chat_template_kwargs={"x": 1}).message


@pytest.mark.parametrize(
    "name",
    [
        *("messages", "tools", "add_generation_prompt", "continue_final_message", "bos_token"),
        *("self", "environment", "context", "documents", "loop", "range", "strftime_now"),
    ],
)
def test_what_the_server_sets_itself_can_not_be_set(name) -> None:
    for template in (NVIDIA, OPEN):
        error = refusal(template, USER, chat_template_kwargs={name: []})
        assert error.param == f"chat_template_kwargs.{name}"


def test_tools_need_a_template_that_shows_them() -> None:
    assert refusal(PARTS, USER, tools=TOOLS).param == "tools"
    assert prompt(PARTS, USER, tools=TOOLS, tool_choice="none") == "[Hi]"
    assert "calculate_tip" in prompt(OPEN, USER, tools=TOOLS)
    named = {"default": "plain {{ messages[0].content }}", "tool_use": "{{ tools | length }}"}
    assert "leaves out" in refusal(ChatTemplate(named), USER, tools=TOOLS).message
    assert prompt(ChatTemplate(named), USER) == "plain Hi"


def test_a_template_that_has_words_refuses_with_them() -> None:
    template = ChatTemplate("{{ raise_exception('no chats on Sundays') }}")
    assert "no chats on Sundays" in refusal(template, USER).message
    assert "no chat template" in refusal(None, USER).message

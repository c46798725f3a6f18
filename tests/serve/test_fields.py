"""Fields that other servers have too: what each does to the engine's inputs, and to the answer."""

import json
import re
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from tokenizers import Tokenizer as Backend
from transformers import AutoTokenizer

from nemotrt.engines.model.families import FAMILIES, ReasoningEffort
from nemotrt.engines.text.chat.render import render_open
from nemotrt.engines.text.chat.template import load_chat_template
from nemotrt.engines.tiny.models import TINY_MODELS
from nemotrt.serve.front.doors.prepare import prepare
from nemotrt.serve.front.http.api_error import ApiError
from nemotrt.serve.front.openai.inputs import cut_prompt
from nemotrt.serve.front.openai.prepare import CallSettings
from nemotrt.serve.front.schema.requests import CompletionRequest
from nemotrt.serve.grammar.compile import compile_grammar, grammar_vocabulary
from nemotrt.serve.requests.endpoints import Endpoint
from support.saying_upstream import FILES, FOLDER

USER = {"role": "user", "content": "Hi"}
CHAT = {"model": "llm", "messages": [USER]}
TEXT = {"model": "llm", "prompt": "Hi"}
TOOL = {"type": "function", "function": {"name": "now"}}
SETTINGS = CallSettings(("llm",), FILES, separate_reasoning=True)
FORMS: dict[str, tuple[Any, str, str]] = {
    "json": ({"type": "array"}, "json_schema", '{"type": "array"}'),
    "regex": ("a+b", "regex", "a+b"),
    "choice": (["yes", 'n"o'], "lark", 'start: "yes" | "n\\"o"\n'),
    "grammar": ('start: "x::="', "lark", 'start: "x::="'),
}
VOCABULARY = grammar_vocabulary(FILES.tokenizer, FILES.tokenizer.vocab_size, [2])  # type: ignore[union-attr, arg-type]


def inputs(body: dict[str, Any], **fields: Any) -> dict[str, Any]:
    """What a body asks of the engine."""
    endpoint = Endpoint.CHAT if "messages" in body else Endpoint.COMPLETIONS
    call = prepare(endpoint, json.dumps({**body, **fields}).encode(), SETTINGS).call
    return dict(call.inputs[0])


def fault(body: dict[str, Any], **fields: Any) -> ApiError:
    with pytest.raises(ApiError) as caught:
        inputs(body, **fields)
    assert caught.value.status == 400
    return caught.value


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_knows_every_effort_and_more_of_it_is_never_less(family) -> None:
    assert list(family.efforts) == list(ReasoningEffort)
    off, *on = family.efforts.values()
    assert not off.is_thinking and all(effort.is_thinking for effort in on)
    budgets = [float("inf") if one.max_tokens is None else one.max_tokens for one in on]
    assert budgets == sorted(budgets)


@pytest.mark.parametrize("effort", ReasoningEffort)
def test_an_effort_is_a_switch_and_a_budget(effort) -> None:
    meant = FILES.template.chat.efforts[effort]  # type: ignore[union-attr]
    plain = inputs(CHAT, chat_template_kwargs={"enable_thinking": meant.is_thinking})
    found = inputs(CHAT, reasoning_effort=effort)
    assert found.pop("max_thinking_tokens", None) == meant.max_tokens
    assert found == plain
    least = inputs(CHAT, reasoning_effort=effort, max_thinking_tokens=200)["max_thinking_tokens"]
    assert least == min(200, 200 if meant.max_tokens is None else meant.max_tokens)


@pytest.mark.parametrize("effort", ReasoningEffort)
def test_an_effort_that_something_contradicts_is_refused(effort) -> None:
    is_on = effort is not ReasoningEffort.NONE
    word = "/no_think" if is_on else "/think"
    messages = [{"role": "user", "content": f"Hi {word}"}]
    error = fault({**CHAT, "messages": messages}, reasoning_effort=effort)
    assert error.param == "reasoning_effort" and word in error.message
    kwargs = {"enable_thinking": not is_on}
    error = fault(CHAT, reasoning_effort=effort, chat_template_kwargs=kwargs)
    assert error.param == "reasoning_effort"
    error = fault(CHAT, reasoning_effort=effort, add_generation_prompt=False)
    assert "reasoning_effort" in error.message


@pytest.mark.parametrize("body", [CHAT, TEXT])
def test_a_thinking_budget_has_three_names(body) -> None:
    names = ({"max_thinking_tokens": 9}, {"thinking_token_budget": 9})
    names += ({"nvext": {"max_thinking_tokens": 9}},)
    found = [inputs(body, **name) for name in names]
    assert found[0] == found[1] == found[2] and found[0]["max_thinking_tokens"] == 9
    assert inputs(body, **names[0], **names[1]) == found[0]
    error = fault(body, max_thinking_tokens=8, nvext={"max_thinking_tokens": 9})
    assert "max_thinking_tokens and nvext.max_thinking_tokens differ" in error.message


def named(form: str, value: Any) -> list[tuple[str, dict[str, Any]]]:
    """A form by each of its names."""
    return [
        (f"structured_outputs.{form}", {"structured_outputs": {form: value}}),
        (f"guided_{form}", {f"guided_{form}": value}),
        (f"nvext.guided_{form}", {"nvext": {f"guided_{form}": value}}),
    ]


@pytest.mark.parametrize("body", [CHAT, TEXT])
@pytest.mark.parametrize("form", FORMS)
def test_forms_reach_the_engine_by_every_name(body, form) -> None:
    value, kind, guide = FORMS[form]
    for _, fields in named(form, value):
        found = inputs(body, **fields)
        assert (found["guided_decoding_guide_type"], found["guided_decoding_guide"]) == (
            kind,
            guide,
        )
    assert inputs(body, structured_outputs={}) == inputs(body)


@pytest.mark.parametrize("body", [CHAT, TEXT])
def test_other_spellings_of_a_form(body) -> None:
    as_text = inputs(body, guided_json='{"type": "array"}')
    assert as_text == inputs(body, guided_json={"type": "array"})
    any_object = inputs(body, response_format={"type": "json_object"})
    assert inputs(body, structured_outputs={"json_object": True}) == any_object
    gbnf = inputs(body, guided_grammar='root ::= "a"\n')
    assert gbnf["guided_decoding_guide_type"] == "ebnf_grammar"


@pytest.mark.parametrize("left", FORMS)
@pytest.mark.parametrize("right", FORMS)
def test_two_forms_exclude_each_other_and_a_free_one_leaves_no_room_for_calls(left, right) -> None:
    (_, one), (name, other), _ = named(left, FORMS[left][0])[0], *named(right, FORMS[right][0])[1:]
    assert "exclude each other" in fault(CHAT, **one, **other).message
    if right == "json":
        answered = inputs(CHAT, **other, tools=[TOOL])
        assert "%json" in answered["guided_decoding_guide"]
    else:
        error = fault(CHAT, **other, tools=[TOOL])
        assert error.param == name and "leaves no room for tool calls" in error.message
    assert inputs(CHAT, **other, tools=[TOOL], tool_choice="none")
    assert fault(CHAT, **other, tools=[TOOL], tool_choice="required").param == name


@pytest.mark.parametrize("text", ["", "{", "5", "[]", "[" * 100_000])
def test_a_schema_in_a_text_is_an_object(text) -> None:
    assert fault(TEXT, guided_json=text).param == "guided_json"


@example(["\x7f"])
@given(st.lists(st.text(min_size=1, max_size=12), min_size=1, max_size=4))
def test_any_choice_is_written_to_the_letter(words) -> None:
    words = [word.encode("utf-8", "ignore").decode() for word in words]
    words = [word for word in words if word]
    if not words:
        return
    asked = inputs(TEXT, guided_choice=words)
    matcher = compile_grammar("lark", asked["guided_decoding_guide"], VOCABULARY)
    for word in words:
        copy = matcher.deep_copy()
        for token in FILES.tokenizer.encode(word, add_special_tokens=False):  # type: ignore[union-attr]
            assert copy.consume_token(token), (word, asked)
        assert copy.is_accepting()
    other = "".join(words) + "x"
    ids = FILES.tokenizer.encode(other, add_special_tokens=False)  # type: ignore[union-attr]
    assert not (all(matcher.consume_token(token) for token in ids) and matcher.is_accepting())


@given(st.text(max_size=40), st.integers(1, 30), st.booleans())
def test_a_prompt_is_cut_as_tokenizers_cuts_it(text, limit, special) -> None:
    assert FILES.tokenizer is not None
    oracle = Backend.from_str(FILES.tokenizer.to_json())
    if limit <= oracle.num_special_tokens_to_add(is_pair=False):
        return
    oracle.enable_truncation(limit, direction="left")
    request = CompletionRequest(model="llm", prompt=text, truncate_prompt_tokens=limit)
    found = cut_prompt(request, text, FILES, add_special_tokens=special)
    ids = (
        found
        if isinstance(found, list)
        else FILES.tokenizer.encode(found, add_special_tokens=special)
    )
    assert ids == oracle.encode(text, add_special_tokens=special).ids


def test_a_prompt_is_cut_to_what_the_engine_holds() -> None:
    long = "word " * 2000
    found = inputs({**TEXT, "prompt": long}, truncate_prompt_tokens=-1, max_tokens=12)
    assert len(found["input_ids"]) == FILES.limits.max_seq_len - 12
    ids = list(range(5, 400))
    cut = inputs({**TEXT, "prompt": ids}, truncate_prompt_tokens=7)
    assert cut["input_ids"] == ids[-7:]
    assert inputs(CHAT, truncate_prompt_tokens=500) == inputs(CHAT)
    assert fault(TEXT, truncate_prompt_tokens=-2).param == "truncate_prompt_tokens"


def test_a_cut_chat_ends_as_before(engine_files=FILES) -> None:
    messages = [{"role": "user", "content": "word " * 100}]
    whole = inputs({**CHAT, "messages": messages})["text_input"]
    found = inputs({**CHAT, "messages": messages}, truncate_prompt_tokens=30)["input_ids"]
    assert len(found) == 30
    text = FILES.tokenizer.decode(found, skip_special_tokens=False)  # type: ignore[union-attr]
    assert whole.endswith(text) and text.endswith("<think>\n")


REFERENCES = {
    name: AutoTokenizer.from_pretrained(TINY_MODELS[name]) for name in ("tiny", "tiny-dense")
}
ENDS = [
    "Sure",
    "Sure, ",
    " a\nb\n",
    "<think>\nhm",
    "<think>\nhm\n</think>\n\nSo ",
    "終わり",
    "{'a': ",
]


@pytest.mark.parametrize("name", REFERENCES)
@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize("question", ["Hi", "Hi /no_think"])
def test_a_final_message_is_continued_as_transformers_does(name, end, question) -> None:
    turns = [{"role": "user", "content": question}, {"role": "assistant", "content": end}]
    expected = REFERENCES[name].apply_chat_template(
        turns, tokenize=False, continue_final_message=True
    )
    template = load_chat_template(TINY_MODELS[name])
    assert template is not None
    assert render_open(template, turns) == expected


def test_a_prompt_is_continued_or_stands_alone() -> None:
    reference = AutoTokenizer.from_pretrained(FOLDER)
    begun = [USER, {"role": "assistant", "content": [{"type": "text", "text": "Sure, "}]}]
    asked = inputs({**CHAT, "messages": begun}, continue_final_message=True)["text_input"]
    text = [USER, {"role": "assistant", "content": "Sure, "}]
    assert asked == reference.apply_chat_template(text, tokenize=False, continue_final_message=True)
    alone = inputs(CHAT, add_generation_prompt=False)["text_input"]
    assert alone == reference.apply_chat_template([USER], tokenize=False)
    body = {**CHAT, "messages": begun}
    error = fault(body, continue_final_message=True, add_generation_prompt=True)
    assert error.param == "continue_final_message"
    for last in (USER, {"role": "assistant", "content": ""}, {"role": "tool", "content": "x"}):
        messages = [USER, last]
        assert (
            "a last message of the assistant"
            in fault({**CHAT, "messages": messages}, continue_final_message=True).message
        )


def test_engine_inputs_of_plain_switches() -> None:
    for body in (CHAT, TEXT):
        assert inputs(body, include_stop_str_in_output=True)["include_stop_str_in_output"] is True
        assert inputs(body, skip_special_tokens=False)["skip_special_tokens"] is False
        assert inputs(body, return_token_ids=True)["return_output_ids"] is True
    assert not re.search("special|stop|output_ids", " ".join(inputs(TEXT)))

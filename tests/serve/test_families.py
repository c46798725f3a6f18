"""Tool calls of every family: parsed, held by a grammar, and through the front."""

import asyncio
import json
import os
import pickle
import re
import shutil
from itertools import pairwise
from typing import Any

import jsonschema
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from nemotrt.engines.model.families import NEMOTRON_3, QWEN3, ChatFormat, JsonCall
from nemotrt.engines.runtime.request import Request
from nemotrt.engines.runtime.sampling.params import SamplingParams
from nemotrt.engines.runtime.scheduling.scheduler import Scheduler
from nemotrt.engines.text.chat.template import ChatTemplate
from nemotrt.engines.text.chat.turn import read_turn
from nemotrt.engines.text.tokenizer import load_tokenizer
from nemotrt.engines.tiny.models import TINY_MODELS
from nemotrt.serve.front.doors.prepare import prepare
from nemotrt.serve.front.openai.engine_files import read_engine_files
from nemotrt.serve.front.openai.guided import calls_grammar
from nemotrt.serve.front.openai.inputs import chat_inputs
from nemotrt.serve.front.openai.prepare import CallSettings
from nemotrt.serve.front.schema.requests import ChatRequest, Function
from nemotrt.serve.front.tools.tool_calls import ToolCallParser
from nemotrt.serve.front.workshop import SMALL_BYTES, Workshop
from nemotrt.serve.grammar.grammar import GrammarCompiler
from nemotrt.serve.requests.endpoints import Endpoint
from support.call_forms import is_tellable, schemas, written
from support.flat_engine import PADDING, FlatEngine
from support.foreign_family import EVERY_FAMILY, NEMOTRON_3_TEMPLATE, QWEN3_TEMPLATE
from support.trace_stack import ThinksAndAnswers, trace_stack

TEMPLATE = ChatTemplate(QWEN3_TEMPLATE)
NAMES = st.from_regex(r"[a-z_]{1,12}", fullmatch=True)
VALUES = st.one_of(st.none(), st.integers(), st.text(), st.sampled_from(["</tool_call>", '"}]']))
CALLS = st.lists(
    st.tuples(NAMES, st.dictionaries(st.text(), VALUES, max_size=3)), min_size=1, max_size=4
)
PLAIN = st.text(alphabet=st.characters(exclude_characters="<", codec="utf-8")).map(str.strip)
SCHEMA = {
    "type": "object",
    "properties": {"a": {"type": "boolean"}},
    "required": ["a"],
    "additionalProperties": False,
}
TOOLS = [Function(name="paint", parameters=SCHEMA), Function(name="b-c_9", parameters=SCHEMA)]
USER = [{"role": "user", "content": "Paint."}]


def parsed(
    family: ChatFormat, pieces: list[str], functions: dict[str, Any] | None = None
) -> tuple[str, list[tuple[str, Any]]]:
    """Return (content, calls) of what the parser makes of the pieces."""
    parser, content = ToolCallParser(family.calls, None, functions), ""
    calls: list[list[str]] = []
    for piece in [*pieces, None]:
        parser = pickle.loads(pickle.dumps(parser))  # answers change their process
        text, deltas = parser.flush() if piece is None else parser.push(piece)
        content += text
        for delta in deltas:
            if delta.name is not None:
                calls.append([delta.name, ""])
            calls[delta.index][1] += delta.arguments
    return content, [(name, json.loads(arguments)) for name, arguments in calls]


def hermes(text: str) -> list[tuple[str, Any]]:
    """Return the calls of a text as Hermes' own readers find them: an object within each tag."""
    found = [json.loads(body) for body in re.findall(r"<tool_call>\n(.*?)\n</tool_call>", text)]
    return [(call["name"], call["arguments"]) for call in found]


@settings(deadline=None)
@given(st.sampled_from(EVERY_FAMILY), CALLS, PLAIN, st.lists(st.integers(0, 400), max_size=30))
def test_any_calls_cut_anywhere_come_out_whole(family, calls, before, positions) -> None:
    assume(is_tellable(family, calls) and family.calls.tags.open[0] not in before)
    text = before + "\n" * bool(before) + written(family, calls)
    places = sorted({0, len(text), *(p % (len(text) + 1) for p in positions)})
    pieces, known = [text[a:b] for a, b in pairwise(places)], schemas(calls)
    assert parsed(family, pieces, known) == parsed(family, list(text), known) == (before, calls)


def test_a_call_crosses_to_another_process_with_its_family(engine_folder, tmp_path) -> None:
    """As those of large bodies do: prepared in one process, answered in another."""
    folder = tmp_path / "engine"
    shutil.copytree(engine_folder, folder, copy_function=os.symlink)
    (folder / "chat_template.jinja").unlink(missing_ok=True)
    (folder / "chat_template.jinja").write_text(QWEN3_TEMPLATE)
    tools = [{"type": "function", "function": tool.model_dump()} for tool in TOOLS]
    body = {"model": "llm", "messages": USER, "tools": tools, "tool_choice": "required"}
    raw = json.dumps(body | {"user": "x" * SMALL_BYTES}).encode()
    settings = CallSettings(("llm",), read_engine_files(folder), separate_reasoning=True)
    workshop = Workshop(settings)
    try:
        call = asyncio.run(workshop.prepare(Endpoint.CHAT, raw)).call
    finally:
        workshop.close()
    assert call.inputs == prepare(Endpoint.CHAT, raw, settings).call.inputs
    assert "<tool_call>" in call.inputs[0]["guided_decoding_guide"]
    (answer,), calls = call._answers, [("paint", {"a": True}), ("b-c_9", {"a": False})]
    for character in "<think>\nTwo.\n</think>\n\n" + written(QWEN3, calls):
        answer.push({"text_output": character})
    answer.push({"final": True, "finish_reason": "stop"})
    message = answer.message()["message"]
    assert message["reasoning_content"] == "Two." and not message["content"]
    functions = [call["function"] for call in message["tool_calls"]]
    assert [(f["name"], json.loads(f["arguments"])) for f in functions] == calls


@pytest.mark.parametrize("family", EVERY_FAMILY)
def test_one_familys_calls_are_anothers_content(family) -> None:
    for other in EVERY_FAMILY:
        text = written(other, [("f", {})])
        found = ("", [("f", {})]) if other is family else (text, [])
        assert parsed(family, [text]) == parsed(family, list(text)) == found


def test_what_qwen3s_template_writes_is_read() -> None:
    calls = [("paint", {"a": True, "b": "</tool_call>\n"}), ("b-c_9", {})]
    held = [{"function": {"name": name, "arguments": value}} for name, value in calls]
    for content in ("", "Well."):
        turn = {"role": "assistant", "content": content, "tool_calls": held}
        said = TEMPLATE.render([*USER, turn], add_generation_prompt=False)
        said = said.rpartition("assistant\n")[2].removesuffix("<|im_end|>\n")
        assert parsed(QWEN3, list(said)) == (content, calls)


@pytest.fixture(scope="module")
def tokenizer():
    return load_tokenizer(TINY_MODELS["tiny"])


@pytest.fixture(scope="module")
def grammars(tokenizer) -> GrammarCompiler:
    return GrammarCompiler(tokenizer, tokenizer.vocab_size + PADDING, tokenizer.eos_ids)


@pytest.mark.parametrize("family", EVERY_FAMILY)
@pytest.mark.parametrize("is_parallel", [True, False])
def test_a_grammar_holds_a_model_to_its_own_format(
    tokenizer, grammars, family, is_parallel
) -> None:
    """Of a model to which all tokens are alike."""
    lark, counts = calls_grammar(family.calls, TOOLS, is_parallel=is_parallel), set()
    for seed in range(32):
        if seed >= 4 and (not is_parallel or counts > {1}):
            break
        scheduler = Scheduler(FlatEngine(tokenizer.vocab_size), tokenizer)
        params = SamplingParams(max_tokens=2000, temperature=1.0, seed=seed)
        scheduler.submit(Request("r", (5,), params, grammars.guide("lark", lark)))
        text = ""
        while not scheduler.is_idle:
            text += "".join(update.text for update in scheduler.step())
        known = {tool.name: tool.parameters for tool in TOOLS}
        content, calls = parsed(family, [text], known)
        assert content == "" and calls
        for name, arguments in calls:
            assert name in {tool.name for tool in TOOLS}
            jsonschema.validate(arguments, SCHEMA)
        form, is_json = family.calls, isinstance(family.calls.call, JsonCall)
        start, end = ('{"name": "', "}") if is_json else family.calls.call.function
        assert text.startswith(form.before + start)
        assert text.endswith(end + form.after)
        assert text.count(end + form.between + start[0]) == len(calls) - 1
        if family is QWEN3:
            assert hermes(re.sub(r"\n(?! *<|\{)", " ", text)) == calls
        counts.add(len(calls))
    assert (counts == {1}) is not is_parallel


def chat(**fields: Any) -> ChatRequest:
    return ChatRequest.model_validate({"model": "m", "messages": USER, **fields})


@pytest.mark.parametrize(
    ("fields", "thinks", "expected"),
    [
        ({}, True, (0.6, 0.95, 20)),
        ({}, False, (0.7, 0.8, 20)),
        ({"top_p": None}, True, (0.6, 0.95, 20)),
        ({"top_p": 0.5}, True, (0.6, 0.5, 20)),
        ({"top_k": 0}, True, (0.6, 0.95, 0)),
        ({"top_k": -1}, False, (0.7, 0.8, 0)),
        ({"temperature": 0}, True, (0, None, 0)),
    ],
)
def test_the_cards_settings_hold_where_the_request_says_nothing(fields, thinks, expected) -> None:
    prompt = TEMPLATE.render(USER, variables={"enable_thinking": thinks})
    inputs = chat_inputs(
        chat(**fields), prompt, read_turn(prompt, TEMPLATE), separate_reasoning=True
    )
    assert tuple(map(inputs.get, ("temperature", "top_p", "top_k"))) == expected


@pytest.mark.parametrize(
    ("tools", "thinks", "expected"),
    [(False, True, (1.0, 1.0)), (False, False, (0.0, 1.0)), (True, True, (0.6, 0.95))],
)
def test_the_card_may_have_settings_of_its_own_for_tools(tools, thinks, expected) -> None:
    template = ChatTemplate(NEMOTRON_3_TEMPLATE)
    prompt = template.render(USER, variables={"enable_thinking": thinks})
    turn = read_turn(prompt, template)
    assert (turn.chat, turn.expects_trace) == (NEMOTRON_3, thinks)
    named = [{"type": "function", "function": {"name": "f"}}]
    for choice in ("auto", "none"):
        fields = {"tools": named, "tool_choice": choice} if tools else {}
        inputs = chat_inputs(chat(**fields), prompt, turn, separate_reasoning=True)
        plain = (1.0, 1.0) if tools and choice == "none" else expected
        assert (inputs["temperature"], inputs["top_p"]) == plain


@pytest.mark.parametrize("choice", ["auto", "required"])
@pytest.mark.parametrize(
    ("family", "source", "opening"),
    [
        (QWEN3, QWEN3_TEMPLATE, "<think>\n"),
        (NEMOTRON_3, NEMOTRON_3_TEMPLATE, ""),  # its prompt has opened the trace
    ],
    ids=["qwen3", "nemotron 3"],
)
def test_parallel_calls_through_the_front(
    opened, tmp_path, choice, family, source, opening
) -> None:
    calls = [("paint", {"a": True}), ("b-c_9", {"a": False})]
    said = f"{opening}Two.\n</think>{family.gap}{written(family, calls)}"
    ids = opened.tokenizer.encode(said, add_special_tokens=False)
    engine = ThinksAndAnswers(opened.tokenizer, ids, [])
    tools = [{"type": "function", "function": tool.model_dump()} for tool in TOOLS]
    body = {"messages": USER, "tools": tools, "tool_choice": choice, "temperature": 0}
    with trace_stack(opened, ChatTemplate(source), engine, tmp_path) as client:
        (whole,) = client.post("chat/completions", **body).json()["choices"]
        streamed = client.streamed(**body)
        single = client.post("chat/completions", **body, parallel_tool_calls=False).json()
    message = whole["message"]
    functions = [call["function"] for call in message["tool_calls"]]
    assert [(f["name"], json.loads(f["arguments"])) for f in functions] == calls
    assert (message["reasoning_content"], message["content"]) == ("Two.", "")
    assert whole["finish_reason"] == "tool_calls"
    assert streamed[:3] == ("Two.", "", "tool_calls")
    assert len(single["choices"][0]["message"]["tool_calls"]) == 1

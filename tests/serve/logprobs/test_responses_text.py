"""Log-probabilities of a response's text: those of a chat, without the trace's and the calls'."""

import json
from collections.abc import Iterator
from typing import Any

import pytest
from openai.types.responses import Response, ResponseStreamEvent
from pydantic import TypeAdapter
from starlette.testclient import TestClient

from nemotrt.engines.model.families import NEMOTRON_NANO_2
from nemotrt.engines.text.reasoning import Trace, TraceReader
from nemotrt.serve.front.app import FrontSpec, create_app
from nemotrt.serve.front.doors.responses.text_scores import TextScores
from nemotrt.serve.front.tools.tool_calls import ToolCallParser
from support.saying_upstream import FILES, SAID, SayingUpstream

ASKED: dict[str, Any] = {
    "input": "What is the time?",
    "include": ["message.output_text.logprobs"],
    "top_logprobs": 1,
    "tools": [{"type": "function", "name": "now"}],
}
EVENT: TypeAdapter[ResponseStreamEvent] = TypeAdapter(ResponseStreamEvent)


@pytest.fixture
def http() -> Iterator[TestClient]:
    with TestClient(create_app(FrontSpec("llm", FILES, SayingUpstream()))) as client:
        yield client


def joined(scores: list[Any]) -> str:
    return b"".join(bytes(score["bytes"]) for score in scores).decode()


def test_a_whole_answer_has_those_of_its_text_alone(http) -> None:
    answer = http.post("/v1/responses", json=ASKED).json()
    Response.model_validate(answer)
    trace, message, call = answer["output"]
    [part] = message["content"]
    assert joined(part["logprobs"]).strip() == part["text"] == "Ok."
    assert {score["logprob"] for score in part["logprobs"]} == {-0.5}
    assert all(len(score["top_logprobs"]) == 2 for score in part["logprobs"])
    assert "logprobs" not in trace["content"][0] and "logprobs" not in call
    assert answer["top_logprobs"] == 1


def test_the_pieces_of_a_stream_have_those_of_the_whole(http) -> None:
    whole = http.post("/v1/responses", json=ASKED).json()["output"][1]["content"][0]
    answer = http.post("/v1/responses", json={**ASKED, "stream": True}).text
    events = [json.loads(block.split("data: ")[1]) for block in answer.split("\n\n") if block]
    for event in events:
        EVENT.validate_python(event)
    pieces = [e["logprobs"] for e in events if e["type"] == "response.output_text.delta"]
    [done] = [e for e in events if e["type"] == "response.output_text.done"]
    assert [score for piece in pieces for score in piece] == done["logprobs"] == whole["logprobs"]
    [message] = [i for i in events[-1]["response"]["output"] if i["type"] == "message"]
    assert message["content"] == [whole]


def test_without_include_there_are_none_and_an_answer_can_be_handed_back(http) -> None:
    plain = http.post("/v1/responses", json={"input": "Hi"}).json()
    assert [item["content"][0]["logprobs"] for item in plain["output"][1:2]] == [[]]
    output = http.post("/v1/responses", json=ASKED).json()["output"]
    turns = [{"role": "user", "content": "Hi"}, *output[:2], {"role": "user", "content": "So?"}]
    assert http.post("/v1/responses", json={"input": turns}).status_code == 200


@pytest.mark.parametrize("size", [1, 2, 3, 1000])
@pytest.mark.parametrize(
    "said", [SAID, "</think>i</think>", "a</think>\n\na <b> 日本。", "</think>"]
)
def test_the_cut_of_a_stream_makes_no_difference(said, size) -> None:
    """Against the text itself: what the readers make of it whole."""
    chat = NEMOTRON_NANO_2
    ids = FILES.tokenizer.encode(said, add_special_tokens=False)
    readers = [(TraceReader(chat, Trace.OPEN), ToolCallParser(chat.calls)) for _ in range(2)]
    splitter, parser = readers[0]
    split, rest = splitter.push(said), splitter.flush()
    text = parser.push(split.content + rest.content)[0] + parser.flush()[0]
    scores = TextScores(FILES.tokenizer, *readers[1])
    found: list[Any] = []
    for start in range(0, len(ids), size):
        part = ids[start : start + size]
        entries = [{"bytes": FILES.tokenizer.token_bytes(token)} for token in part]
        is_last = start + size >= len(ids)
        choice = {"token_ids": part, "logprobs": {"content": entries}}
        found += scores.push({**choice, "finish_reason": "stop" if is_last else None})
    assert joined(found).strip() == text.strip()


def test_a_real_answer_has_a_chats_scores(served) -> None:
    same = {"temperature": 1.0, "seed": 5, "max_thinking_tokens": 8, "top_logprobs": 2}
    messages = [{"role": "user", "content": "hi"}]
    chat = served.post("chat/completions", messages=messages, logprobs=True, max_tokens=60, **same)[
        "choices"
    ][0]
    answer = served.post(
        "responses", input="hi", include=ASKED["include"], max_output_tokens=60, **same
    )
    [part] = [i["content"][0] for i in answer["output"] if i["type"] == "message"]
    assert part["text"] == chat["message"]["content"]
    scores, every = part["logprobs"], chat["logprobs"]["content"]
    assert scores
    starts = range(len(every) - len(scores) + 1)
    assert any(every[i : i + len(scores)] == scores for i in starts)
    assert part["text"] in b"".join(bytes(s["bytes"]) for s in scores).decode()

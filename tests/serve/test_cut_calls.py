"""A call that ends before its arguments do is no call to be run, and every door says so."""

from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from starlette.testclient import TestClient

from nemotrt.serve.front.app import FrontSpec, create_app
from nemotrt.serve.front.upstream.upstream import Fields
from support.saying_upstream import CHAT_BODY, FILES, TOOL, SayingUpstream

START = 'Hm.</think>\n\n<TOOLCALL>[{"name": "now", "arguments": '
CUT = START + '{"text": "a line, END'
WHOLE = {  # the format's own end is not needed
    "all": START + '{"a": "b"}}]</TOOLCALL>',
    "no tag": START + '{"a": "b"}}]',
    "no bracket": START + '{"a": "b"}',
    "another key": START + '{"a": "b"}, "id": "x',
}


class HoldingUpstream(SayingUpstream):
    """Holds a stop string back until it is sure, as the engine does."""

    async def generate(self, inputs: Fields) -> AsyncIterator[Fields]:
        start, stop, _ = self.said.partition("END")
        counts = {"num_input_tokens": 3, "num_output_tokens": 9}
        yield {"text_output": start, "num_input_tokens": 3}
        yield {"text_output": stop, "final": True, "finish_reason": "stop", **counts}


@pytest.fixture
def upstream() -> SayingUpstream:
    return HoldingUpstream(CUT)


@pytest.fixture
def http(upstream) -> Iterator[TestClient]:
    with TestClient(create_app(FrontSpec("llm", FILES, upstream))) as client:
        yield client


def chat(http: TestClient, **more: Any) -> Any:
    body = {**CHAT_BODY, "tools": [TOOL], **more}
    return http.post("/v1/chat/completions", json=body).json()["choices"][0]


def test_a_chat_ends_by_stop_with_the_arguments_so_far(http) -> None:
    choice = chat(http)
    assert choice["finish_reason"] == "stop"
    [call] = choice["message"]["tool_calls"]
    assert call["function"]["arguments"] == '{"text": "a line, END'
    old = chat(http, tools=None, functions=[TOOL["function"]])
    assert old["finish_reason"] == "stop" and old["message"]["function_call"]


@pytest.mark.parametrize("said", WHOLE.values(), ids=WHOLE)
def test_whole_arguments_are_a_call(http, upstream, said) -> None:
    upstream.said = said
    choice = chat(http)
    assert choice["finish_reason"] == "tool_calls"
    assert choice["message"]["tool_calls"][0]["function"]["arguments"] == '{"a": "b"}'


@pytest.mark.parametrize("is_stream", [False, True])
def test_a_message_tells_the_stop_sequence_that_cut_it(http, is_stream) -> None:
    tool = {"name": "now", "input_schema": {"type": "object"}}
    body = {"max_tokens": 64, "messages": CHAT_BODY["messages"], "tools": [tool]}
    body |= {"stop_sequences": ["END", "ZZ"], "thinking": {"type": "enabled"}}
    answer = http.post("/v1/messages", json={**body, "stream": is_stream})
    if is_stream:
        assert '"stop_reason":"stop_sequence","stop_sequence":"END"' in answer.text
        assert '"partial_json":"END"' not in answer.text
        return
    message = answer.json()
    assert (message["stop_reason"], message["stop_sequence"]) == ("stop_sequence", "END")
    assert message["content"][-1]["input"] == {"raw_arguments": '{"text": "a line, '}


def test_a_responses_call_is_incomplete(http, upstream) -> None:
    tool = {"type": "function", "name": "now", "parameters": {"type": "object"}}
    for said, status in ((CUT, "incomplete"), (WHOLE["all"], "completed")):
        upstream.said = said
        answer = http.post("/v1/responses", json={"input": "Hi", "tools": [tool]}).json()
        assert [item["status"] for item in answer["output"]] == ["completed", status]

"""Whatever a model says, /v1/responses and /v1/messages tell it in the types of their clients.

OpenAI's package is the oracle here; Anthropic's is tests/serve/clients/use_anthropic.py's.
"""

import asyncio
import json
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from openai.types.responses import Response, ResponseStreamEvent
from pydantic import TypeAdapter

from nemotrt.serve.front.app import FrontSpec, create_app
from support.door_values import COUNT_VALUES, DOORS, RESPONSE_VALUES
from support.examples import up_to
from support.same_answers import OWN, whole_of, without
from support.saying_upstream import FILES, Client, SayingUpstream

Json = dict[str, Any]
EVENT: TypeAdapter[ResponseStreamEvent] = TypeAdapter(ResponseStreamEvent)
LEAST = {door.path: door.least for door in DOORS}
UPSTREAM = SayingUpstream()
# What must not vary: it makes a request another one, or a refusal.
FIXED = ("stream", "thread", "tool_choice", "text", "output_config", "previous_response_id")
CALL = '{"name": "now", "arguments": {"a": 1}}'
PIECES = ("", "</think>", "\n\n", "Ok. ", "é日", "<TOOLCALL>", "[", CALL, ", ", "]</TOOLCALL>", "{")


@pytest.fixture(scope="module")
def client() -> Iterator[Client]:
    with asyncio.Runner() as runner:
        yield Client(create_app(FrontSpec("llm", FILES, UPSTREAM)), runner)


def fields(values: Json) -> st.SearchStrategy[Json]:
    """Some of a door's fields, with their values."""
    kept = {name: st.just(value) for name, value in values.items() if name not in FIXED}
    return st.fixed_dictionaries({}, optional=kept)


@st.composite
def said(draw: st.DrawFn) -> tuple[str, str, int | None]:
    """A text with calls, whole and broken; why it ended; after how many tokens it failed."""
    well = "Let me see.</think>\n\nOk.<TOOLCALL>[" + ", ".join([CALL] * draw(st.integers(1, 3)))
    parts = "".join(draw(st.lists(st.sampled_from(PIECES), max_size=8)))
    text = draw(st.sampled_from((f"{well}]</TOOLCALL>", f"{well}]</TOOLCALL>{parts}", parts)))
    fails = draw(st.sampled_from((None, None, None, 0, 2, 5)))
    return text, draw(st.sampled_from(("stop", "length"))), fails


def both(client: Client, path: str, body: Json, told: tuple[str, str, int | None]) -> Any:
    """Return the whole answer and the events of the streamed one; None where one is refused."""
    UPSTREAM.said, UPSTREAM.reason, UPSTREAM.fails_after = told
    of_both = {name: value for name, value in body.items() if name != "stream_options"}
    whole = client.post(path, json=of_both)
    streamed = client.post(path, json=body | {"stream": True})
    assert whole.status_code in (200, 400, 500), whole.text
    if not streamed.is_success:
        assert streamed.status_code == whole.status_code, streamed.text
        return None, None
    found = []
    for block in filter(None, streamed.text.split("\n\n")):
        name, data = block.split("\n")
        found.append(json.loads(data.removeprefix("data: ")))
        assert name == f"event: {found[-1]['type']}"
    return whole.json() if whole.is_success else None, found


@settings(deadline=None, max_examples=up_to(60))
@given(body=fields(RESPONSE_VALUES), told=said())
def test_a_response_is_of_openais_types(client, body, told) -> None:
    whole, events = both(client, "/v1/responses", LEAST["/v1/responses"] | body, told)
    for number, event in enumerate(events or ()):
        assert EVENT.validate_python(event).type == event["type"]
        assert event["sequence_number"] == number
    if whole is None:
        assert events is None or events[-1]["type"] == "response.failed"
        return
    Response.model_validate(whole)
    assert without(OWN, events[-1]["response"]) == without(OWN, whole)
    done = [e["item"] for e in events if e["type"] == "response.output_item.done"]
    assert done == events[-1]["response"]["output"]


@settings(deadline=None, max_examples=up_to(60))
@given(body=fields(COUNT_VALUES), told=said())
def test_a_messages_events_make_the_message(client, body, told) -> None:
    whole, events = both(client, "/v1/messages", LEAST["/v1/messages"] | body, told)
    if whole is None:
        assert events is None or events[-1]["type"] == "error"
        return
    blocks = whole_of(events)
    kinds = [event["type"] for event in blocks]
    assert kinds[0] == "message_start" and kinds[-2:] == ["message_delta", "message_stop"]
    inner = kinds[1:-2]
    assert inner.count("content_block_start") == inner.count("content_block_stop")
    made = [dict(b["content_block"]) for b in blocks if b["type"] == "content_block_start"]
    for event in blocks:
        if event["type"] == "content_block_delta":
            block, delta = made[event["index"]], event["delta"]
            for name in ("text", "thinking"):
                if name in delta:
                    block[name] += delta[name]
            if "partial_json" in delta:
                block["input"] = json.loads(delta["partial_json"])
    assert without(OWN, made) == without(OWN, whole["content"])
    assert blocks[-2]["delta"]["stop_reason"] == whole["stop_reason"]

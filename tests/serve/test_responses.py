"""/v1/responses: OpenAI's own client reads it, and it says what the chat says."""

import hashlib
import json
from typing import Any

import openai
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from openai.types.responses import Response, ResponseStreamEvent
from pydantic import TypeAdapter
from starlette.testclient import TestClient

from nemotrt.serve.front.app import FrontSpec, create_app
from nemotrt.serve.front.doors.responses.kept import Kept, KeptResponses
from nemotrt.serve.front.http.access import ApiKeys
from nemotrt.serve.front.http.tenants import Tenants
from support.saying_upstream import FILES

TOOL: Any = {"type": "function", "name": "now", "description": "The time.", "parameters": None}
ASKED: dict[str, Any] = {"model": "llm", "input": "What is the time?"}
EVENT: TypeAdapter[ResponseStreamEvent] = TypeAdapter(ResponseStreamEvent)
MESSAGES = [{"role": "user", "content": "What is the time?"}]


@pytest.fixture
def client(http) -> openai.OpenAI:
    return openai.OpenAI(
        base_url="http://testserver/v1", api_key="none", http_client=http, max_retries=0
    )


def events(http: TestClient, **body: Any) -> list[dict[str, Any]]:
    """Return the events of a stream; each has the name that its data says."""
    answer = http.post("/v1/responses", json={**ASKED, "stream": True, **body})
    assert answer.status_code == 200, answer.text
    found = []
    for block in filter(None, answer.text.split("\n\n")):
        name, data = block.split("\n")
        found.append(json.loads(data.removeprefix("data: ")))
        assert name == f"event: {found[-1]['type']}"
    return found


def test_a_whole_response_as_the_client_reads_it(client, http) -> None:
    response = client.responses.create(**ASKED, tools=[TOOL])
    assert Response.model_validate(response.to_dict()).id == response.id
    trace, message, call = response.output
    assert (response.status, response.output_text) == ("completed", "Ok.")
    assert (trace.type, trace.content[0].text) == ("reasoning", "Let me see.")
    assert (message.type, call.type, call.name) == ("message", "function_call", "now")
    assert json.loads(call.arguments) == {}
    chat = http.post("/v1/chat/completions", json={"model": "llm", "messages": MESSAGES}).json()
    assert response.usage.input_tokens == chat["usage"]["prompt_tokens"]
    assert response.usage.output_tokens == chat["usage"]["completion_tokens"]


def test_the_events_are_openais_in_order(http) -> None:
    found = events(http, tools=[TOOL])
    assert [event["sequence_number"] for event in found] == list(range(len(found)))
    for event in found:
        assert EVENT.validate_python(event).type == event["type"]
    kinds = [event["type"] for event in found]
    unique = [kind for i, kind in enumerate(kinds) if kind != kinds[i - 1]]
    text = ["response.output_item.added", "response.content_part.added"]
    ended = ["response.content_part.done", "response.output_item.done"]
    assert unique == [
        *("response.created", "response.in_progress"),
        *(*text, "response.reasoning_text.delta", "response.reasoning_text.done", *ended),
        *(*text, "response.output_text.delta", "response.output_text.done", *ended),
        "response.output_item.added",
        "response.function_call_arguments.delta",
        "response.function_call_arguments.done",
        "response.output_item.done",
        "response.completed",
    ]


def test_the_pieces_of_a_stream_are_its_whole(http) -> None:
    found = events(http, tools=[TOOL])
    response = found[-1]["response"]
    assert [e["item"] for e in found if e["type"] == "response.output_item.done"] == (
        response["output"]
    )
    for i, item in enumerate(response["output"]):
        said = "".join(e["delta"] for e in found if e.get("output_index") == i and "delta" in e)
        assert said == (item["arguments"] if "arguments" in item else item["content"][0]["text"])


def test_the_clients_own_stream_puts_it_together(client) -> None:
    with client.responses.stream(**ASKED, tools=[{**TOOL, "strict": True}]) as stream:
        texts = [event.delta for event in stream if event.type == "response.output_text.delta"]
        response = stream.get_final_response()
    assert "".join(texts) == response.output_text == "Ok."
    assert [item.type for item in response.output] == ["reasoning", "message", "function_call"]


def test_a_conversation_handed_back_is_the_chats(client, upstream, http) -> None:
    """The items of an answer and a tool's result give the prompt that the chat gives."""
    first = client.responses.create(**ASKED, tools=[TOOL], instructions="Be brief.")
    call = first.output[2]
    result = {"type": "function_call_output", "call_id": call.call_id, "output": "Noon."}
    items = [{"role": "user", "content": ASKED["input"]}, *first.output, result]
    client.responses.create(model="llm", input=items, tools=[TOOL], instructions="Be brief.")
    tool = {"type": "function", "function": {"name": "now", "description": "The time."}}
    function = {"name": "now", "arguments": "{}"}
    calls = [{"id": call.call_id, "type": "function", "function": function}]
    turn = {"role": "assistant", "content": "Ok.", "reasoning_content": "Let me see."}
    messages = [
        {"role": "system", "content": "Be brief."},
        *MESSAGES,
        {**turn, "tool_calls": calls},
        {"role": "tool", "tool_call_id": call.call_id, "content": "Noon."},
    ]
    body = {"model": "llm", "messages": messages, "tools": [tool]}
    assert http.post("/v1/chat/completions", json=body).is_success
    _, ours, chats = upstream.asked
    assert ours == chats


def test_a_response_goes_on_from_an_earlier_one(client, upstream) -> None:
    """The conversation is the one sent whole; instructions are each request's own."""
    first = client.responses.create(**ASKED, tools=[TOOL], instructions="Be rude.")
    result = {"type": "function_call_output", "call_id": first.output[2].call_id, "output": "12"}
    second = client.responses.create(
        model="llm", input=[result], previous_response_id=first.id, tools=[TOOL]
    )
    third = client.responses.create(model="llm", input="And now?", previous_response_id=second.id)
    items = [{"role": "user", "content": ASKED["input"]}, *first.output, result, *second.output]
    client.responses.create(model="llm", input=[*items, {"role": "user", "content": "And now?"}])
    assert upstream.asked[2]["text_input"] == upstream.asked[3]["text_input"]
    assert "rude" not in upstream.asked[1]["text_input"]
    assert third.previous_response_id == second.id


def test_a_stored_response_is_got_and_deleted(client) -> None:
    response = client.responses.create(**ASKED)
    assert client.responses.retrieve(response.id).to_dict() == response.to_dict()
    client.responses.delete(response.id)
    for ask in (client.responses.retrieve, client.responses.delete):
        with pytest.raises(openai.NotFoundError, match=r"Response with id .* not found"):
            ask(response.id)
    with pytest.raises(openai.BadRequestError) as caught:
        client.responses.create(**ASKED, previous_response_id=response.id)
    assert caught.value.param == "previous_response_id"


def test_what_is_not_to_be_stored_is_not(client, http) -> None:
    response = client.responses.create(**ASKED, store=False)
    assert response.to_dict()["store"] is False
    with pytest.raises(openai.NotFoundError):
        client.responses.retrieve(response.id)
    streamed = events(http, store=True)[-1]["response"]
    assert http.get(f"/v1/responses/{streamed['id']}").json() == streamed


def test_what_has_ended_is_not_cancelled(client) -> None:
    response = client.responses.create(**ASKED)
    with pytest.raises(openai.BadRequestError, match="Cannot cancel a synchronous response"):
        client.responses.cancel(response.id)
    assert client.responses.retrieve(response.id).id == response.id
    with pytest.raises(openai.NotFoundError, match="Response with id 'resp_0' not found"):
        client.responses.cancel("resp_0")


def test_a_server_that_stores_none_says_so(upstream) -> None:
    spec = FrontSpec("llm", FILES, upstream, stored_responses_bytes=0)
    with TestClient(create_app(spec)) as http:
        assert http.post("/v1/responses", json=ASKED).json()["store"] is False
        refused = http.post("/v1/responses", json={**ASKED, "store": True})
    assert (refused.status_code, refused.json()["error"]["param"]) == (400, "store")


def test_each_key_has_its_own_responses(upstream) -> None:
    digests = tuple(hashlib.sha256(name.encode()).digest() for name in ("ada", "bob"))
    spec = FrontSpec("llm", FILES, upstream, Tenants(ApiKeys(digests), share_prefixes=True))
    ada, bob = ({"Authorization": f"Bearer {name}"} for name in ("ada", "bob"))
    with TestClient(create_app(spec)) as http:
        name = http.post("/v1/responses", json=ASKED, headers=ada).json()["id"]
        path = f"/v1/responses/{name}"
        assert http.get(path, headers=bob).status_code == 404
        assert http.delete(path, headers=bob).status_code == 404
        body = {**ASKED, "previous_response_id": name}
        assert http.post("/v1/responses", json=body, headers=bob).status_code == 400
        assert http.get(path).status_code == 401
        assert http.get(path, headers=ada).status_code == 200


OPERATIONS = st.tuples(
    st.sampled_from([b"a", b"b", b"c"]),
    st.sampled_from("pgd"),
    st.integers(0, 5),
    st.integers(0, 9),
)


@settings(deadline=None)
@given(st.lists(OPERATIONS, max_size=60))
def test_kept_responses_stay_within_the_limits(operations) -> None:
    """And one who keeps little loses nothing to one who keeps much."""
    kept = KeptResponses(20, 4)
    held: dict[bytes, dict[str, int]] = {}
    for number, (owner, what, name, size) in enumerate(operations):
        own = held.setdefault(owner, {})
        if what == "p":
            key = f"{name}-{number}"  # an id is given once
            kept.put(owner, key, Kept(b"x" * size, b"y" * size))
            own[key] = 2 * size
        elif what == "d":
            key = next((k for k in own if k.startswith(f"{name}-")), "none")
            assert kept.drop(owner, key) == (key in own)
            own.pop(key, None)
        before = {who: dict(names) for who, names in held.items()}
        held = {
            who: {k: n for k, n in names.items() if kept.get(who, k) is not None}
            for who, names in held.items()
        }
        assert sum(sum(names.values()) for names in held.values()) <= 20
        assert sum(map(len, held.values())) <= 4
        for who, names in before.items():
            if held[who] != names and who != owner:  # it held the most
                assert sum(names.values()) >= max(sum(n.values()) for n in held.values())


@pytest.mark.parametrize(
    ("field", "value", "param"),
    [
        ("input", [{"type": "item_reference", "id": "x"}], "input.0"),
        ("input", [{"role": "user", "content": [{"type": "input_image"}]}], "input.0.content.0"),
        ("input", 5, "input"),
        ("tools", [{"type": "web_search"}], "tools.0"),
        ("top_p", 3, "top_p"),
        ("max_output_tokens", 0, "max_output_tokens"),
        ("background", True, "background"),
        ("truncation", "auto", "truncation"),
        ("conversation", "c", "conversation"),
        ("include", ["file_search_call.results"], "include.0"),
        ("top_logprobs", 2, "top_logprobs"),
        ("prompt", {"id": "p"}, "prompt"),
        ("n", 2, "n"),
    ],
)
def test_what_is_not_supported_is_refused_by_name(http, upstream, field, value, param) -> None:
    refused = http.post("/v1/responses", json={**ASKED, field: value})
    assert (refused.status_code, refused.json()["error"]["param"]) == (400, param), refused.text
    assert not upstream.asked


def test_a_schema_and_a_forced_tool_reach_the_engine_as_the_chats_do(http, upstream) -> None:
    schema = {"type": "object", "properties": {"a": {"type": "integer"}}}
    form = {"type": "json_schema", "name": "x", "schema": schema, "strict": True}
    wanted = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}
    chat = {"model": "llm", "messages": MESSAGES}
    function = {"type": "function", "function": {"name": "now"}}
    pairs = [
        ({"text": {"format": form}}, {"response_format": wanted}),
        (
            {"tools": [{**TOOL, "description": None}], "tool_choice": "required"},
            {"tools": [function], "tool_choice": "required"},
        ),
        (
            {
                "tools": [{**TOOL, "description": None}],
                "tool_choice": {"type": "function", "name": "now"},
                "parallel_tool_calls": False,
            },
            {"tools": [function], "tool_choice": function, "parallel_tool_calls": False},
        ),
        ({"max_output_tokens": 5, "top_k": 3, "seed": 1}, {"max_tokens": 5, "top_k": 3, "seed": 1}),
    ]
    for ours, chats in pairs:
        upstream.asked.clear()
        assert http.post("/v1/responses", json=ASKED | ours).is_success
        assert http.post("/v1/chat/completions", json=chat | chats).is_success
        assert upstream.asked[0] == upstream.asked[1]


def test_an_answer_that_is_cut_is_incomplete(http, upstream) -> None:
    upstream.said, upstream.reason = "Let me", "length"
    found = events(http)
    response = found[-1]["response"]
    assert found[-1]["type"] == "response.incomplete"
    assert response["incomplete_details"] == {"reason": "max_output_tokens"}
    assert [item["status"] for item in response["output"]] == ["incomplete"]


def test_an_empty_answer_is_an_empty_text(client, upstream) -> None:
    upstream.said = "Hm.</think>\n\n"
    response = client.responses.create(**ASKED)
    assert [item.type for item in response.output] == ["reasoning", "message"]
    assert response.output_text == ""


def test_a_failure_within_a_stream_is_an_event(http, upstream) -> None:
    upstream.fails_after = 3
    found = events(http)
    assert found[-1]["type"] == "response.failed"
    assert EVENT.validate_python(found[-1])
    assert found[-1]["response"]["error"] == {
        "code": "server_error",
        "message": "told to fail",
        "details": {"error_code": "engine_failed"},
    }
    assert http.get(f"/v1/responses/{found[-1]['response']['id']}").status_code == 404
    assert http.post("/v1/responses", json=ASKED).status_code == 500
    upstream.fails_after = 0
    refused = http.post("/v1/responses", json={**ASKED, "stream": True})
    assert refused.status_code == 500 and refused.json()["error"]["code"] == "engine_failed"

"""min_p and logit_bias at every door: the command line, OpenAI's API, Triton's HTTP and gRPC.

The oracle is the scheduler in this process, on the same engine. Numbers are exact in float32, which
Triton's tensors hold.
"""

import json
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest
from click.testing import CliRunner
from tritonclient.grpc import service_pb2_grpc

from nemotrt.cli import main
from nemotrt.serve.front.upstream.triton_upstream import infer_request, output_fields
from nemotrt.serve.processes.run_folder import ServerState
from support.door_values import DOORS
from support.same_answers import FURTHER, check_same, whole_and_streamed

pytestmark = pytest.mark.triton
PROMPT = "The engine"
DRAWN: dict[str, Any] = {"temperature": 1.0, "seed": 7}
FORCED, OTHER = 700, 1999
CASES: dict[str, dict[str, Any]] = {
    "force greedy": {"temperature": 0.0, "logit_bias": ((FORCED, 100.0),)},
    "force drawn": {**DRAWN, "logit_bias": ((FORCED, 100.0), (OTHER, -100.0))},
    "several biases": {**DRAWN, "logit_bias": tuple((token, 3.5) for token in range(40, 90))},
    "min_p": {**DRAWN, "min_p": 0.125},
    "min_p 1": {**DRAWN, "min_p": 1.0},
    "all together": {
        **DRAWN,
        "min_p": 0.0625,
        "logit_bias": ((OTHER, 4.25), (FORCED, 4.0)),
        "presence_penalty": 0.5,
        "frequency_penalty": -0.25,
        "repetition_penalty": 1.25,
    },
}
MESSAGES = [{"role": "user", "content": "Hi"}]


@pytest.fixture(params=["server", "direct"])
def front(request) -> ServerState:
    """The API, over Triton and without it."""
    state: ServerState = request.getfixturevalue(request.param)
    return state


def command_text(folder: Path, params: dict[str, Any]) -> str:
    options = [f"--{n.replace('_', '-')}={v}" for n, v in params.items() if n != "logit_bias"]
    options += [f"--logit-bias={token}={bias}" for token, bias in params.get("logit_bias", ())]
    found = CliRunner().invoke(
        main, ["generate", str(folder), PROMPT, *options, "--threads", "1", "--json"]
    )
    assert found.exit_code == 0, found.output
    return str(json.loads(found.stdout)["text"])


def api_body(params: dict[str, Any]) -> dict[str, Any]:
    body = {"model": "llm", **params}
    if "logit_bias" in params:
        body["logit_bias"] = {str(token): bias for token, bias in params["logit_bias"]}
    return body


def api_choice(front: ServerState, path: str, **body: Any) -> dict[str, Any]:
    answer = httpx.post(f"{front.openai_url}/{path}", json=body, timeout=60)
    assert answer.is_success, answer.text
    choice: dict[str, Any] = answer.json()["choices"][0]
    return choice


def tensors(params: dict[str, Any]) -> dict[str, Any]:
    inputs = {"text_input": PROMPT, **params}
    for token, bias in inputs.pop("logit_bias", ()):
        inputs.setdefault("logit_bias_ids", []).append(token)
        inputs.setdefault("logit_bias_values", []).append(bias)
    return inputs


def http_answer(server: ServerState, inputs: dict[str, Any]) -> dict[str, Any]:
    url = f"{server.http_url}/v2/models/llm/generate"
    answer: dict[str, Any] = httpx.post(url, json=inputs, timeout=60).json()
    return answer


def grpc_answer(server: ServerState, inputs: dict[str, Any]) -> dict[str, Any]:
    with grpc.insecure_channel(server.grpc_url) as channel:
        stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
        [answer] = stub.ModelStreamInfer(iter([infer_request("llm", inputs)]), timeout=60)
    if answer.error_message:
        return {"error": answer.error_message}
    return output_fields(answer.infer_response)


@pytest.mark.parametrize("name", CASES)
def test_the_command_says_what_the_scheduler_says(engine_folder, solo, name) -> None:
    params = {"max_tokens": 12, **CASES[name]}
    assert command_text(engine_folder, params) == solo(PROMPT, **params)["text"]


@pytest.mark.parametrize("name", CASES)
def test_the_api_says_what_the_scheduler_says(front, opened, solo, name) -> None:
    params = {"max_tokens": 12, **CASES[name]}
    choice = api_choice(front, "completions", **api_body(params), prompt=PROMPT)
    assert choice["text"] == solo(PROMPT, **params)["text"]
    chat = api_body(params) | {"messages": MESSAGES, "separate_reasoning": False}
    prompt = opened.template.render(MESSAGES)
    expected = solo(prompt, is_chat=True, **params)["text"]
    assert api_choice(front, "chat/completions", **chat)["message"]["content"] == expected


@pytest.mark.parametrize("door", DOORS, ids=lambda door: f"{door.path} {door.schema.__name__}")
def test_a_door_says_the_same_without_triton(server, direct, door) -> None:
    """test_same_answers.py beside this has every field; these are those that tensors carry."""
    extras = [{}, *(extra for other, extra in FURTHER if other is door)]
    check_same(server, direct, whole_and_streamed(door, extras))


@pytest.mark.parametrize("answer", [http_answer, grpc_answer])
@pytest.mark.parametrize("name", CASES)
def test_triton_says_what_the_scheduler_says(server, solo, name, answer) -> None:
    params = {"max_tokens": 12, **CASES[name]}
    found = answer(server, tensors(params))
    assert found["text_output"] == solo(PROMPT, **params)["text"]


def test_the_cases_have_effects(solo) -> None:
    """Each says something else than without its field; min_p 1 is greedy."""
    greedy = solo(PROMPT, max_tokens=12)
    forced = solo(PROMPT, max_tokens=12, **CASES["force drawn"])
    assert {token["id"] for token in forced["tokens"]} == {FORCED}
    best = greedy["tokens"][0]["id"]
    banned = solo(PROMPT, max_tokens=12, logit_bias=((best, -100.0),))
    assert best not in {token["id"] for token in banned["tokens"]}
    drawn = solo(PROMPT, max_tokens=12, **DRAWN)
    texts = [solo(PROMPT, max_tokens=12, **case)["text"] for case in CASES.values()]
    assert drawn["text"] not in texts and greedy["text"] != drawn["text"]
    assert solo(PROMPT, max_tokens=12, **CASES["min_p 1"])["text"] == greedy["text"]


def test_min_p_alone_asks_triton_for_a_draw(server, solo) -> None:
    """As top_p and top_k do; without any of them the model is greedy."""
    inputs = {"text_input": PROMPT, "max_tokens": 12, "seed": 7}
    expected = solo(PROMPT, max_tokens=12, min_p=0.125, **DRAWN)["text"]
    assert grpc_answer(server, {**inputs, "min_p": 0.125})["text_output"] == expected
    assert grpc_answer(server, inputs)["text_output"] == solo(PROMPT, max_tokens=12)["text"]


def test_nvidias_words_bias_each_of_their_tokens(server, opened, solo) -> None:
    words, weights = [" server", " the"], [6.5, -100.0]
    ids = [opened.tokenizer.encode(word, add_special_tokens=False) for word in words]
    biases = [(t, w) for tokens, w in zip(ids, weights, strict=True) for t in tokens]
    expected = solo(PROMPT, max_tokens=12, logit_bias=tuple(biases))["text"]
    assert expected != solo(PROMPT, max_tokens=12)["text"]
    inputs = {"text_input": PROMPT, "max_tokens": 12}
    inputs |= {"embedding_bias_words": words, "embedding_bias_weights": weights}
    for answer in (http_answer, grpc_answer):
        assert answer(server, inputs)["text_output"] == expected


SCHEMA = {"type": "object", "properties": {"k": {"enum": ["amber", "turquoise"]}}}
SCHEMA |= {"required": ["k"], "additionalProperties": False}


def guided(server: ServerState, **inputs: Any) -> tuple[Any, list[int]]:
    """Return a JSON answer of the schema, and its tokens."""
    inputs |= {"guided_decoding_guide_type": "json_schema", "max_tokens": 300}
    inputs |= {"guided_decoding_guide": json.dumps(SCHEMA), "return_output_ids": True}
    found = grpc_answer(server, {"text_input": PROMPT, **inputs})
    return json.loads(found["text_output"]), found["output_ids"]


def test_a_banned_token_stays_banned_inside_a_grammar(server, opened) -> None:
    """Where the grammar has another token; where it has one alone, that one comes."""
    said, ids = guided(server)
    texts = [opened.tokenizer.decode(ids[: i + 1]) for i in range(len(ids))]
    [first, *_] = [ids[i] for i, text in enumerate(texts) if text.partition(":")[2].strip(' \n"')]
    num_absent = 0
    for token in dict.fromkeys((first, *ids)):
        other, found = guided(server, logit_bias_ids=[token], logit_bias_values=[-100.0])
        assert other["k"] in ("amber", "turquoise")
        num_absent += token not in found
        assert token != first or token not in found
    assert num_absent > 1
    assert said["k"] in ("amber", "turquoise")


def test_no_bias_lets_a_token_through_a_mask(server) -> None:
    """The grammar allows FORCED nowhere: no bias makes it come, nor anything else than JSON."""
    for temperature in (0.0, 1.0):
        inputs = {"logit_bias_ids": [FORCED], "logit_bias_values": [1e30], "seed": 3}
        said, ids = guided(server, temperature=temperature, **inputs)
        assert said["k"] in ("amber", "turquoise") and FORCED not in ids


def test_a_chat_with_a_schema_keeps_a_ban(front, opened) -> None:
    wanted = {"type": "json_schema", "json_schema": {"name": "c", "schema": SCHEMA}}
    body = {"model": "llm", "messages": MESSAGES, "response_format": wanted, "max_tokens": 300}
    body |= {"temperature": 0, "max_thinking_tokens": 0, "logprobs": True}
    said = api_choice(front, "chat/completions", **body)
    colour = json.loads(said["message"]["content"])["k"]
    token = opened.tokenizer.encode(colour, add_special_tokens=False)[0]
    bans = {str(token): -100}
    other = api_choice(front, "chat/completions", **body, logit_bias=bans)
    assert json.loads(other["message"]["content"])["k"] in ("amber", "turquoise")
    name = opened.tokenizer.decode([token])
    assert name not in [entry["token"] for entry in other["logprobs"]["content"]]


BAD_TENSORS = [
    ({"min_p": 1.5}, "min_p must be 0 to 1, got 1.5"),
    ({"min_p": -0.5}, "min_p must be 0 to 1, got -0.5"),
    ({"logit_bias_ids": [5]}, "logit_bias_ids has 1 entries and logit_bias_values 0"),
    ({"logit_bias_values": [5.0]}, "logit_bias_ids has 0 entries and logit_bias_values 1"),
    ({"logit_bias_ids": [10**6], "logit_bias_values": [1.0]}, "logit_bias ids must be 0 to"),
    ({"logit_bias_ids": [-1], "logit_bias_values": [1.0]}, "logit_bias ids must be 0 to"),
    (
        {"logit_bias_ids": [1] * 1025, "logit_bias_values": [1.0] * 1025},
        "has 1025",
    ),
    ({"embedding_bias_words": ["a"]}, "embedding_bias_words has 1 entries and embedding_bias_w"),
    (
        {"embedding_bias_words": ["a" * 9000], "embedding_bias_weights": [1.0]},
        "embedding_bias_words has 9000 characters in all; the limit is 8192",
    ),
]


@pytest.mark.parametrize("answer", [http_answer, grpc_answer])
@pytest.mark.parametrize(("inputs", "message"), BAD_TENSORS)
def test_triton_refuses_by_name(server, inputs, message, answer) -> None:
    error = answer(server, {"text_input": PROMPT, "max_tokens": 4, **inputs})["error"]
    assert message in error and "invalid_request" in error


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_triton_refuses_numbers_that_are_not_finite(server, bad) -> None:
    for inputs in ({"min_p": bad}, {"logit_bias_ids": [5], "logit_bias_values": [bad]}):
        error = grpc_answer(server, {"text_input": PROMPT, "max_tokens": 4, **inputs})["error"]
        assert f"{list(inputs)[-1]} must be a finite number" in error


@pytest.mark.parametrize("path", ["completions", "chat/completions"])
@pytest.mark.parametrize("stream", [False, True])
def test_an_id_outside_the_vocabulary_names_the_field(front, path, stream) -> None:
    """Only the engine knows the vocabulary; its refusal names the API's field all the same."""
    body = {"model": "llm", "max_tokens": 4, "stream": stream, "logit_bias": {"999999": 1}}
    body |= {"messages": MESSAGES} if path.startswith("chat") else {"prompt": PROMPT}
    answer = httpx.post(f"{front.openai_url}/{path}", json=body, timeout=60)
    error = answer.json()["error"]
    assert (answer.status_code, error["param"]) == (400, "logit_bias")
    assert error["message"].startswith("logit_bias ids must be 0 to ")
    assert error["type"] == "invalid_request_error"

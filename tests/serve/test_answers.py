"""What an answer says beside its text, through the real stack of a tiny model and real clients."""

import json
import re
import shutil
from collections.abc import Iterator

import httpx
import openai
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer

from nemotrt.engines.artefact.manifest import read_manifest
from nemotrt.engines.tiny.models import TINY_MODELS
from nemotrt.serve.front.http.request_id import HEADER
from nemotrt.serve.processes.launcher import serve_engine
from support.door_values import DOORS
from support.saying_upstream import FILES

USER = [{"role": "user", "content": "Hi"}]
REFERENCE = AutoTokenizer.from_pretrained(TINY_MODELS["tiny"])


@pytest.fixture(scope="module")
def address(tiny_engine) -> Iterator[str]:
    names = ("--served-model-name", "other", "--served-model-name", "a/b")
    with serve_engine(tiny_engine, "--no-triton", "--free-ports", *names, drain_s=5) as server:
        yield server.openai_url


@pytest.fixture(scope="module")
def client(address) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=address, api_key="none", max_retries=0) as client:
        yield client


def test_a_trace_has_both_names_and_is_taken_back_by_either(client) -> None:
    request = {"model": "llm", "temperature": 0, "max_tokens": 40}
    fields = {"max_thinking_tokens": 12}
    answer = client.chat.completions.create(messages=USER, **request, extra_body=fields)
    message = answer.choices[0].message
    assert message.reasoning_content and message.reasoning == message.reasoning_content
    stream = client.chat.completions.create(
        messages=USER, **request, extra_body=fields, stream=True
    )
    pieces = [chunk.choices[0].delta.model_extra or {} for chunk in stream]
    for name in ("reasoning", "reasoning_content"):
        assert "".join(piece.get(name) or "" for piece in pieces) == message.reasoning
    again = []
    for name in ("reasoning", "reasoning_content"):
        own = {"role": "assistant", "content": message.content, name: message.reasoning}
        turns = [*USER, own, *USER]
        again.append(client.chat.completions.create(messages=turns, **request).choices[0])
    assert again[0].message.content == again[1].message.content
    silent = {"include_reasoning": False, **fields}
    hidden = client.chat.completions.create(messages=USER, **request, extra_body=silent)
    assert hidden.choices[0].message.content == message.content
    assert "reasoning" not in hidden.choices[0].message.model_dump()


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("text", ["Hi", "Hi /no_think"])
def test_the_tokens_of_a_trace_are_counted_exactly(client, stream, text) -> None:
    """The oracle: transformers decodes the answer's ids one by one, up to the closing tag."""
    request = {
        "model": "llm",
        "messages": [{"role": "user", "content": text}],
        "temperature": 0,
        "max_tokens": 60,
        "n": 2,
        "stream": stream,
        "extra_body": {"max_thinking_tokens": 9, "return_token_ids": True},
    }
    if stream:
        request["stream_options"] = {"include_usage": True}
        ids: list[list[int]] = [[], []]
        for chunk in client.chat.completions.create(**request):
            for choice in chunk.choices:
                ids[choice.index] += (choice.model_extra or {}).get("token_ids", [])
            usage = chunk.usage
    else:
        answer = client.chat.completions.create(**request)
        ids, usage = [choice.token_ids for choice in answer.choices], answer.usage
        expected = REFERENCE.apply_chat_template(
            request["messages"], add_generation_prompt=True, return_dict=False
        )
        assert answer.prompt_token_ids == expected
    counts = []
    for own in ids:
        texts = [REFERENCE.decode(own[: i + 1]) for i in range(len(own))]
        ended = [i for i, text in enumerate(texts) if "</think>" in text]
        counts.append(0 if "no_think" in text else (ended[0] + 1 if ended else len(own)))
    assert usage is not None
    assert usage.completion_tokens == sum(map(len, ids))
    assert usage.completion_tokens_details.reasoning_tokens == sum(counts)


def test_token_ids_of_completions(client) -> None:
    request = {"model": "llm", "prompt": ["The", "What is"], "temperature": 0, "max_tokens": 6}
    fields = {"return_token_ids": True}
    answer = client.completions.create(**request, extra_body=fields)
    streamed: list[list[int]] = [[], []]
    prompts: list[list[list[int]]] = [[], []]
    for chunk in client.completions.create(**request, extra_body=fields, stream=True):
        for choice in chunk.choices:
            streamed[choice.index] += choice.token_ids
            prompts[choice.index] += (
                [choice.prompt_token_ids] if hasattr(choice, "prompt_token_ids") else []
            )
    for i, (choice, prompt) in enumerate(zip(answer.choices, request["prompt"], strict=True)):
        assert choice.prompt_token_ids == REFERENCE.encode(prompt)
        assert REFERENCE.decode(choice.token_ids) == choice.text
        assert streamed[i] == choice.token_ids and prompts[i] == [choice.prompt_token_ids]


def test_stop_strings_and_structured_outputs_in_real_answers(client) -> None:
    request = {"model": "llm", "prompt": "The engine", "temperature": 0, "max_tokens": 30}
    whole = client.completions.create(**request).choices[0].text
    stop = whole[4:7]
    end = whole.index(stop)
    cut = client.completions.create(**request, stop=stop).choices[0]
    shown = client.completions.create(
        **request, stop=stop, extra_body={"include_stop_str_in_output": True}
    ).choices[0]
    assert (cut.text, shown.text) == (whole[:end], whole[:end] + stop)
    assert cut.finish_reason == shown.finish_reason == "stop"
    forms = {
        "choice": (["yes", "nö"], r"yes|nö"),
        "regex": ("[ab]{3}", "[ab]{3}"),
        "grammar": ('root ::= "x" [0-9]\n', "x[0-9]"),
    }
    for form, (value, pattern) in forms.items():
        fields = {"structured_outputs": {form: value}}
        text = client.completions.create(**request, extra_body=fields).choices[0].text
        assert re.fullmatch(pattern, text), (form, text)
        chat = client.chat.completions.create(
            model="llm",
            messages=[{"role": "user", "content": "Hi /no_think"}],
            extra_body={f"guided_{form}": value},
            max_tokens=30,
        ).choices[0]
        assert re.fullmatch(pattern, chat.message.content or ""), (form, chat)


def test_the_engines_digest_is_the_fingerprint(client, tiny_engine) -> None:
    digest = read_manifest(tiny_engine).facts["engine"]
    request = {"model": "llm", "max_tokens": 3}
    answers = [
        client.completions.create(prompt="x", **request),
        client.chat.completions.create(messages=USER, **request),
        *client.completions.create(prompt="x", **request, stream=True),
        *client.chat.completions.create(messages=USER, **request, stream=True),
    ]
    assert {answer.system_fingerprint for answer in answers} == {digest}


def test_the_model_has_its_other_names(client, address) -> None:
    assert [model.id for model in client.models.list()] == ["llm", "other", "a/b"]
    for name in ("llm", "other", "a/b"):
        assert client.models.retrieve(name).id == name
        answer = client.completions.create(model=name, prompt="x", max_tokens=1)
        assert answer.model == name
    with pytest.raises(openai.NotFoundError) as caught:
        client.completions.create(model="llm2", prompt="x")
    assert (caught.value.code, caught.value.param) == ("model_not_found", "model")
    assert "known: llm, other, a/b" in caught.value.message


@pytest.mark.parametrize("factor", [1, 100])
def test_a_prompt_that_is_too_long_has_openais_code(client, factor) -> None:
    """By its tokens, as the engine counts them, and by its characters, before that."""
    long = "word " * (factor * FILES.limits.max_seq_len)
    calls = {
        "messages": lambda: client.chat.completions.create(
            model="llm", messages=[{"role": "user", "content": long}]
        ),
        "prompt": lambda: client.completions.create(model="llm", prompt=long),
    }
    for param, call in calls.items():
        with pytest.raises(openai.BadRequestError) as caught:
            call()
        assert (caught.value.code, caught.value.param) == ("context_length_exceeded", param)
        assert caught.value.type == "invalid_request_error"


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=30)
@given(st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=140).map(str.strip))
def test_a_request_id_comes_back_or_a_new_one_does(address, request_id) -> None:
    answer = httpx.get(f"{address}/models", headers={HEADER: request_id})
    if request_id and " " not in request_id and len(request_id) <= 128:
        assert answer.headers[HEADER] == request_id
    else:
        assert len(answer.headers[HEADER]) == 32


def test_every_answer_has_a_request_id(address) -> None:
    headers, seen = {HEADER: "mine-1"}, []
    body = {"model": "llm", "prompt": "x", "max_tokens": 2}
    for more in ({}, {"stream": True}, {"nonsense": 1}, {"model": "none"}):
        seen.append(httpx.post(f"{address}/completions", headers=headers, json=body | more))
    seen.append(httpx.get(f"{address}/nothing", headers=headers))
    assert [answer.status_code for answer in seen] == [200, 200, 400, 404, 404]
    assert {answer.headers[HEADER] for answer in seen} == {"mine-1"}
    ids = {httpx.get(f"{address}/models").headers[HEADER] for _ in range(5)}
    assert len(ids) == 5


def test_the_hub_id_is_a_name_by_default(tiny_engine, tmp_path) -> None:
    """Of an engine whose checkpoint came from the hub."""
    from nemotrt.serve.front.openai.engine_files import read_engine_files

    folder = tmp_path / "engine"
    folder.mkdir()
    manifest = json.loads((tiny_engine / "engine.json").read_text())
    manifest["checkpoint"]["origin"] = {"repository": "nvidia/N", "revision": "a" * 40}
    (folder / "engine.json").write_text(json.dumps(manifest))
    found = read_engine_files(folder)
    assert found.hub_id == "nvidia/N"
    assert found.digest == read_engine_files(tiny_engine).digest


def test_every_door_answers_to_the_hub_id(tiny_engine, tmp_path) -> None:
    """Of a server that was told no name."""
    folder = tmp_path / "engine"
    shutil.copytree(tiny_engine, folder)
    manifest = json.loads((folder / "engine.json").read_text())
    manifest["checkpoint"]["origin"] = {"repository": "nvidia/N", "revision": "a" * 40}
    (folder / "engine.json").write_text(json.dumps(manifest))
    with serve_engine(folder, "--no-triton", "--free-ports", drain_s=5) as server:
        base = server.openai_url.removesuffix("/v1")
        names = [model["id"] for model in httpx.get(f"{base}/v1/models").json()["data"]]
        assert names == ["llm", "nvidia/N"]
        assert httpx.get(f"{base}/v1/models/nvidia/N").json()["id"] == "nvidia/N"
        for door in DOORS:
            short = {n: 2 for n in ("max_tokens",) if n in door.schema.model_fields}
            body = door.least | short | {"model": "nvidia/N"}
            answer = httpx.post(base + door.path, json=body, timeout=None)
            assert answer.status_code == 200, answer.text
            assert answer.json().get("model", "nvidia/N") == "nvidia/N"
            other = httpx.post(base + door.path, json=body | {"model": "nvidia/M"})
            assert other.status_code == 404 and "nvidia/N" in other.text

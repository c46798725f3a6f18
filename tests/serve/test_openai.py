"""The OpenAI endpoint over Triton and the trained tiny model, through the `openai` package."""

import asyncio
import base64
import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest

from nemotrt.serve.launcher import serve_engine
from nemotrt.serve.run_folder import ServerState

pytestmark = pytest.mark.triton


@pytest.fixture(scope="module")
def client(server) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=server.openai_url, api_key="none", max_retries=0) as client:
        yield client


def test_completions_equal_the_solo_run(client, solo) -> None:
    prompts = ["The engine", "What is"]
    request = {"model": "llm", "prompt": prompts, "max_tokens": 12, "temperature": 0}
    answer = client.completions.create(**request)
    expected = [solo(prompt, max_tokens=12) for prompt in prompts]
    assert [choice.text for choice in answer.choices] == [one["text"] for one in expected]
    assert answer.usage.prompt_tokens == sum(one["usage"]["prompt_tokens"] for one in expected)
    assert answer.usage.completion_tokens == 24
    texts = ["", ""]
    for chunk in client.completions.create(**request, stream=True):
        for choice in chunk.choices:
            texts[choice.index] += choice.text
    assert texts == [one["text"] for one in expected]


def test_token_ids_as_prompt_and_echo(client, solo, opened) -> None:
    ids = opened.tokenizer.encode("The engine")
    request = {"model": "llm", "max_tokens": 5, "temperature": 0}
    answer = client.completions.create(prompt=ids, **request).choices[0]
    assert answer.text == solo("The engine", max_tokens=5)["text"]
    echoed = client.completions.create(prompt="The engine", echo=True, **request).choices[0]
    assert echoed.text == "The engine" + answer.text


def test_choices_with_a_seed_are_reproducible_and_differ(client) -> None:
    request = {"model": "llm", "prompt": "The", "max_tokens": 12, "temperature": 1.0, "n": 3}
    first, second = (client.completions.create(**request, seed=7).choices for _ in range(2))
    texts = [choice.text for choice in first]
    assert texts == [choice.text for choice in second]
    assert len(set(texts)) == 3


def test_logprobs(client, solo) -> None:
    request = {"model": "llm", "prompt": "The", "max_tokens": 4, "temperature": 0}
    found = client.completions.create(**request, logprobs=2).choices[0].logprobs
    tokens = solo("The", max_tokens=4, logprobs=2)["tokens"]
    assert found.tokens == [token["text"] for token in tokens]
    assert found.token_logprobs == pytest.approx([t["logprob"] for t in tokens], rel=1e-4)
    assert [len(top) for top in found.top_logprobs] == [2] * 4
    chat = client.chat.completions.create(
        model="llm",
        messages=[{"role": "user", "content": "hi"}],
        max_tokens=3,
        logprobs=True,
        top_logprobs=2,
        seed=1,
    )
    for entry in chat.choices[0].logprobs.content:
        assert bytes(entry.bytes).decode() == entry.token and len(entry.top_logprobs) == 2


def test_chat_usage_comes_last_in_a_stream(client, opened) -> None:
    messages = [{"role": "user", "content": "hi"}]
    chunks = list(
        client.chat.completions.create(
            model="llm",
            messages=messages,
            max_tokens=6,
            stream=True,
            seed=2,
            stream_options={"include_usage": True},
        )
    )
    assert chunks[0].choices[0].delta.role == "assistant"
    prompt = opened.template.render(messages)
    assert chunks[-1].usage.prompt_tokens == len(
        opened.tokenizer.encode(prompt, add_special_tokens=False)
    )
    assert not chunks[-1].choices and all(chunk.usage is None for chunk in chunks[:-1])
    assert len({chunk.id for chunk in chunks}) == 1


def test_asyncio_client(server, solo) -> None:
    prompts = ["The", "What", "In", "A", "One", "def", "X", "Server"] * 2

    async def run() -> list[str]:
        async with openai.AsyncOpenAI(base_url=server.openai_url, api_key="x") as client:
            request = {"model": "llm", "max_tokens": 10, "temperature": 0}
            answers = [client.completions.create(prompt=p, **request) for p in prompts]
            return [answer.choices[0].text for answer in await asyncio.gather(*answers)]

    assert asyncio.run(run()) == [solo(prompt, max_tokens=10)["text"] for prompt in prompts]


def test_models_and_health(client, server) -> None:
    [model] = client.models.list().data
    assert model.id == "llm" and client.models.retrieve("llm").id == "llm"
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("other")
    base = server.openai_url.removesuffix("/v1")
    for path in ("/health", "/health/live", "/health/ready", "/metrics", "/openapi.json", "/"):
        assert httpx.get(base + path).is_success, path


@pytest.mark.parametrize(
    ("change", "status", "message"),
    [
        ({"model": "other"}, 404, "no model 'other'"),
        ({"logit_bias": {"5": 1}}, 400, "logit_bias is not supported"),
        ({"temperature": 3}, 400, "temperature: Input should be less than or equal to 2"),
        ({"max_tokens": 0}, 400, "max_tokens"),
        ({"prompt": []}, 400, "prompt must have 1 to 128 entries"),
        ({"prompt": "x " * 3000}, 400, "the engine holds 1024"),
        ({"prompt": [10**6]}, 400, "prompt ids must be 0 to"),
        ({"min_tokens": 9, "max_tokens": 4}, 400, "min_tokens must be 0 to max_tokens"),
        ({"stream_options": {"include_usage": True}}, 400, "stream_options needs stream"),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
def test_a_wrong_request_is_a_clear_error(server, change, status, message, stream) -> None:
    if stream and "stream_options" in change:
        return
    body = {"model": "llm", "prompt": "x", "max_tokens": 4, "stream": stream} | change
    answer = httpx.post(f"{server.openai_url}/completions", json=body)
    error = answer.json()["error"]
    assert (answer.status_code, message in error["message"]) == (status, True), error
    assert set(error) == {"message", "type", "param", "code"}


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff", b'{"model": "llm"}', b"null"])
def test_a_body_that_is_no_request_is_a_400(server, content) -> None:
    for path in ("completions", "chat/completions"):
        assert httpx.post(f"{server.openai_url}/{path}", content=content).status_code == 400


def test_images_are_refused_by_name(client) -> None:
    part = {"type": "image_url", "image_url": {"url": "data:,"}}
    with pytest.raises(openai.BadRequestError, match=r"messages\.0\.content"):
        client.chat.completions.create(model="llm", messages=[{"role": "user", "content": [part]}])


@pytest.fixture(scope="module")
def locked(engine_folder, tmp_path_factory) -> Iterator[ServerState]:
    folder = tmp_path_factory.mktemp("keys")
    keys = folder / "keys"
    keys.write_text("# ours\nfirst-key\nsecond-key\n")
    keys.chmod(0o600)
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"),
            *("-nodes", "-keyout", folder / "key.pem", "-out", folder / "cert.pem", "-days", "2"),
            *("-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1"),
        ],
        check=True,
        capture_output=True,
    )
    options = ("--no-triton", "--threads", "1", "--api-key-file", keys, "--max-body-bytes", 5000)
    options += ("--tls-certificate", folder / "cert.pem", "--tls-key", folder / "key.pem")
    with serve_engine(engine_folder, *map(str, options), drain_s=2) as state:
        yield state


def https(server: ServerState, path: str, **more: Any) -> httpx.Response:
    base = server.openai_url.removesuffix("/v1")
    with httpx.Client(verify=False) as client:
        return client.request(more.pop("method", "GET"), base + path, **more)


def test_without_a_key_nothing_but_health_answers(locked) -> None:
    answers = {
        path: https(locked, path).status_code
        for path in ("/", "/metrics", "/openapi.json", "/v1/models", "/nothing")
    }
    assert set(answers.values()) == {401}
    assert https(locked, "/v1/completions", method="POST", json={}).status_code == 401
    for path in ("/health", "/health/live", "/health/ready"):
        assert https(locked, path).status_code == 200


@pytest.mark.parametrize(
    ("header", "status"),
    [
        ("Bearer first-key", 200),
        ("bearer second-key", 200),
        (f"Basic {base64.b64encode(b'me:first-key').decode()}", 200),
        ("Bearer first-ke", 401),
        ("Bearer # ours", 401),
        ("Bearer", 401),
        ("Basic !!", 401),
        ("first-key", 401),
    ],
)
def test_keys(locked, header, status) -> None:
    answer = https(locked, "/v1/models", headers={"Authorization": header})
    assert answer.status_code == status


def test_keys_are_in_no_log(locked) -> None:
    https(locked, "/v1/models", headers={"Authorization": "Bearer wrong-key"})
    for path in Path(locked.run_folder).iterdir():
        if path.is_file():
            assert b"first-key" not in path.read_bytes() and b"wrong-key" not in path.read_bytes()


def test_a_body_that_is_too_large_is_refused(locked) -> None:
    headers = {"Authorization": "Bearer first-key"}
    body = json.dumps({"model": "llm", "prompt": "x" * 6000}).encode()
    sized = https(locked, "/v1/completions", method="POST", content=body, headers=headers)
    chunks = iter([body[:3000], body[3000:]])
    chunked = https(locked, "/v1/completions", method="POST", content=chunks, headers=headers)
    assert (sized.status_code, chunked.status_code) == (413, 413)


def test_a_key_file_that_others_can_read_is_refused(tmp_path) -> None:
    from nemotrt.errors import ConfigError
    from nemotrt.serve.front.access import read_api_keys

    path = tmp_path / "keys"
    path.write_text("key")
    path.chmod(0o644)
    with pytest.raises(ConfigError, match="chmod 600"):
        read_api_keys(path)

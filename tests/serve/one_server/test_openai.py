"""The OpenAI endpoint over Triton and the trained tiny model, through the `openai` package."""

import asyncio
from collections.abc import Iterator

import httpx
import openai
import pytest

pytestmark = pytest.mark.triton
JSON = {"content-type": "application/json"}


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
        ({"logit_bias": {"x": 1}}, 400, "logit_bias: a key should be a token id"),
        ({"logit_bias": {"999999": 1}}, 400, "logit_bias ids must be 0 to"),
        ({"min_p": 2}, 400, "min_p: Input should be less than or equal to 1"),
        ({"temperature": 3}, 400, "temperature: Input should be less than or equal to 2"),
        ({"max_tokens": 0}, 400, "max_tokens"),
        ({"prompt": []}, 400, "prompt must have 1 to 128 entries"),
        ({"prompt": "x " * 3000}, 400, "the engine holds 1024"),
        ({"prompt": [10**6]}, 400, "prompt ids must be 0 to"),
        ({"stop_token_ids": [10**6], "min_tokens": 2}, 400, "stop_token_ids and end_id must be"),
        ({"min_tokens": 9, "max_tokens": 4}, 400, "min_tokens must be 0 to max_tokens"),
        ({"stream_options": {"include_usage": True}}, 400, "stream_options needs stream"),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
def test_a_wrong_request_is_a_clear_error(server, change, status, message, stream) -> None:
    if stream and "stream_options" in change:
        return
    body = {"model": "llm", "prompt": "x", "max_tokens": 4, "stream": stream} | change
    answer = httpx.post(f"{server.openai_url}/completions", json=body, timeout=60)
    error = answer.json()["error"]
    assert (answer.status_code, message in error["message"]) == (status, True), error
    assert set(error) == {"message", "type", "param", "code"}


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff", b'{"model": "llm"}', b"null"])
def test_a_body_that_is_no_request_is_a_400(server, content) -> None:
    for path in ("completions", "chat/completions"):
        answer = httpx.post(f"{server.openai_url}/{path}", content=content, headers=JSON)
        assert answer.status_code == 400


def test_images_are_refused_by_name(client) -> None:
    part = {"type": "image_url", "image_url": {"url": "data:,"}}
    with pytest.raises(openai.BadRequestError, match=r"messages\.0\.content"):
        client.chat.completions.create(model="llm", messages=[{"role": "user", "content": [part]}])

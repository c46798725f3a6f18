"""How much of a prompt was kept, from the scheduler's update to a client's usage."""

import json
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from openai.types import Completion, CompletionUsage
from openai.types.chat import ChatCompletion, ChatCompletionChunk
from starlette.testclient import TestClient

from nemotrt.engines.runtime.request import FinishReason, Request, Token, Update
from nemotrt.serve.engine.delivery import Delivery
from nemotrt.serve.engine.submission import Submission, make_submission
from nemotrt.serve.front.app import FrontSpec, create_app
from nemotrt.serve.front.upstream.upstream import Fields
from nemotrt.serve.requests.inputs import read_inputs
from nemotrt.serve.requests.limits import MAX_SALT_CHARACTERS
from support.saying_upstream import FILES

ENDED = FinishReason.LENGTH


def delivered(*updates: Update, **inputs: Any) -> list[Fields]:
    """The responses to a request of a prompt of 9 tokens."""
    told = read_inputs({"text_input": "x", "return_num_input_tokens": True, **inputs}, 64)
    request = Request("r", tuple(range(9)))
    delivery = Delivery(Submission(request, told, "", 0, None, None, lambda fields: None))
    found = [delivery.fields(update, now_s, 0) for now_s, update in enumerate(updates)]
    return [fields for fields in found if fields is not None]


def token(number: int, **more: Any) -> Update:
    return Update("r", (Token(number, "t"),), "t", **more)


def test_the_first_response_and_the_last_say_it() -> None:
    first, middle, last = delivered(
        token(1, cached_tokens=8), token(2), token(3, finish_reason=ENDED), stream=True
    )
    for fields in (first, last):
        assert (fields["num_input_tokens"], fields["num_cached_tokens"]) == (9, 8)
    assert not {"num_input_tokens", "num_cached_tokens"} & middle.keys()


@pytest.mark.parametrize("cached", [0, 8])
def test_one_response_says_it_whenever_it_came(cached) -> None:
    [fields] = delivered(token(1, cached_tokens=cached), token(2, finish_reason=ENDED))
    assert fields["num_cached_tokens"] == cached
    [fields] = delivered(Update("r", finish_reason=ENDED, cached_tokens=cached))
    assert fields["num_cached_tokens"] == cached


def test_nothing_is_said_where_nothing_is_kept_or_nobody_asks() -> None:
    [fields] = delivered(token(1, finish_reason=ENDED))
    assert "num_cached_tokens" not in fields
    [fields] = delivered(
        token(1, finish_reason=ENDED, cached_tokens=8), return_num_input_tokens=False
    )
    assert "num_cached_tokens" not in fields


def test_a_request_has_its_salt_and_its_priority(opened) -> None:
    def request(**inputs: Any) -> Request:
        values = {"text_input": "The", "max_tokens": 1, **inputs}
        return make_submission("r", values, opened, None, lambda fields: None).request

    assert (request().salt, request().priority) == ("", 0)
    told = request(cache_salt="ours", priority=-3)
    assert (told.salt, told.priority) == ("ours", -3)


class Keeping:
    """An upstream that keeps so many tokens for each of its requests in turn, None: no prefixes."""

    def __init__(self, *cached: int | None) -> None:
        self.cached = list(cached)

    async def generate(self, inputs: Fields) -> AsyncIterator[Fields]:
        counts: Fields = {"num_input_tokens": 9}
        cached = self.cached.pop(0)
        counts |= {} if cached is None else {"num_cached_tokens": cached}
        yield {"text_output": "a", "num_output_tokens": 1, **counts}
        yield {"text_output": "b", "num_output_tokens": 2}
        yield {"final": True, "finish_reason": "stop", "num_output_tokens": 2, **counts}

    async def is_ready(self) -> bool:
        return True

    async def close(self) -> None:
        pass


@pytest.fixture
def upstream() -> Keeping:
    return Keeping()


@pytest.fixture
def client(upstream) -> Iterator[TestClient]:
    with TestClient(create_app(FrontSpec("llm", FILES, upstream))) as client:
        yield client


ASKS = {
    "chat/completions": {"messages": [{"role": "user", "content": "Hi"}]},
    "completions": {"prompt": "Hi"},
}
STREAM = {"include_usage": True, "continuous_usage_stats": True}
# Prompts times n, what of each was kept, and what the client hears: a prompt counts once.
CASES: list[tuple[dict[str, Any], list[int | None], int | None]] = [
    ({}, [None], None),
    ({}, [0], 0),
    ({}, [8], 8),
    ({"n": 3}, [0, 8, 8], 0),
    ({"n": 2}, [5, 8], 5),
    ({"n": 2}, [None, None], None),
]
SEVERAL: list[tuple[dict[str, Any], list[int | None], int | None]] = [
    ({"prompt": ["a", "b"]}, [3, 4], 7),
    ({"prompt": ["a", "b"], "n": 2}, [3, 8, 4, 8], 7),
]


def details(usage: Any) -> Any:
    return None if usage is None else usage.get("prompt_tokens_details", "absent")


@pytest.mark.parametrize(
    ("path", "case"),
    [(p, c) for p in ASKS for c in CASES] + [("completions", c) for c in SEVERAL],
)
def test_every_usage_says_what_was_kept(client, upstream, path, case) -> None:
    more, kept, expected = case
    told = "absent" if expected is None else {"cached_tokens": expected}
    body = {"model": "llm", **ASKS[path], **more}
    upstream.cached = list(kept)
    answer = client.post(f"/v1/{path}", json=body)
    assert details(answer.json()["usage"]) == told
    upstream.cached = list(kept)
    text = client.post(f"/v1/{path}", json=body | {"stream": True, "stream_options": STREAM}).text
    chunks = [json.loads(part) for part in text.split("data: ") if part.startswith("{")]
    assert details(chunks[-1]["usage"]) == told
    for chunk in chunks:  # what is known so far: the first response says it
        assert (details(chunk["usage"]) == "absent") == (expected is None)


@pytest.mark.parametrize("path", ASKS)
def test_openais_types_read_it(client, upstream, path) -> None:
    kind = ChatCompletion if path.startswith("chat") else Completion
    for cached in (6, None):
        upstream.cached = [cached]
        answer = kind.model_validate(
            client.post(f"/v1/{path}", json={"model": "llm", **ASKS[path]}).json()
        )
        usage = answer.usage
        assert isinstance(usage, CompletionUsage)
        found = usage.prompt_tokens_details
        assert (None if found is None else found.cached_tokens) == cached
    chunk = {"id": "x", "object": "chat.completion.chunk", "created": 1, "model": "m"}
    chunk |= {"choices": [], "usage": answer.usage.model_dump()}  # type: ignore[union-attr]
    assert ChatCompletionChunk.model_validate(chunk).usage == answer.usage


BAD = {
    "": "at least 1 character",
    "s" * (MAX_SALT_CHARACTERS + 1): f"at most {MAX_SALT_CHARACTERS} characters",
    5: "valid string",
}


@pytest.mark.parametrize("path", ASKS)
@pytest.mark.parametrize("salt", BAD)
def test_a_bad_salt_is_refused_by_name(client, path, salt) -> None:
    body = {"model": "llm", **ASKS[path], "cache_salt": salt}
    error = client.post(f"/v1/{path}", json=body).json()["error"]
    assert error["param"] == "cache_salt" and BAD[salt] in error["message"]

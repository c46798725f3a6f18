"""Large bodies: another process makes of them what this one would; every limit has its name."""

import asyncio
import json
import os
import signal
from typing import Any

import pytest

from nemotrt.serve.front import workshop as workshop_module
from nemotrt.serve.front.doors.prepare import prepare
from nemotrt.serve.front.http.api_error import ApiError
from nemotrt.serve.front.openai.engine_files import EngineFiles, read_engine_files
from nemotrt.serve.front.openai.prepare import CallSettings, Prepared
from nemotrt.serve.front.workshop import LARGE_BYTES, SMALL_BYTES, Workshop
from nemotrt.serve.requests import limits as request_limits
from nemotrt.serve.requests.endpoints import Endpoint

PARAMETERS = {"type": "object", "properties": {"a": {"type": "string"}}}
TOOL = {"type": "function", "function": {"name": "f", "parameters": PARAMETERS}}
LONG = {"user": "x" * SMALL_BYTES}
TEXT = {"model": "llm", "prompt": "The"}
CHAT: dict[str, Any] = {"model": "llm", "messages": [{"role": "user", "content": "hi"}]}


@pytest.fixture(scope="module")
def settings(engine_folder) -> CallSettings:
    return CallSettings(("llm",), read_engine_files(engine_folder), separate_reasoning=True)


@pytest.fixture
def workshop(settings):
    workshop = Workshop(settings)
    yield workshop
    workshop.close()


def endpoint(body: dict[str, Any]) -> Endpoint:
    return Endpoint.CHAT if "messages" in body else Endpoint.COMPLETIONS


def made(workshop: Workshop, *bodies: dict[str, Any]) -> list[Prepared]:
    async def run() -> list[Prepared]:
        raws = [(endpoint(body), json.dumps(body).encode()) for body in bodies]
        return [await workshop.prepare(where, raw) for where, raw in raws]

    return asyncio.run(run())


def test_another_process_makes_the_same_call(workshop, settings) -> None:
    bodies = [
        TEXT | LONG | {"echo": True, "logprobs": 2, "stream": True, "n": 2, "seed": 1},
        CHAT | LONG | {"tools": [TOOL], "logprobs": True, "top_logprobs": 1},
        CHAT | LONG | {"tools": [TOOL], "tool_choice": "required", "separate_reasoning": False},
        CHAT | {"user": "x" * LARGE_BYTES, "response_format": {"type": "json_object"}},
    ]
    for body, prepared in zip(bodies, made(workshop, *bodies), strict=True):
        here = prepare(endpoint(body), json.dumps(body).encode(), settings)
        assert prepared.call.inputs == here.call.inputs
        assert prepared.is_stream == here.is_stream
        assert vars(prepared.call).keys() == vars(here.call).keys()


def test_a_refusal_crosses_with_all_it_says(workshop) -> None:
    with pytest.raises(ApiError) as caught:
        made(workshop, TEXT | LONG | {"nothing": 1})
    assert (caught.value.status, caught.value.param) == (400, "nothing")
    assert caught.value.message == "nothing is not supported; leave it out."
    with pytest.raises(ApiError, match="there is no model") as caught:
        made(workshop, TEXT | LONG | {"model": "other"})
    assert (caught.value.status, caught.value.code) == (404, "model_not_found")


def test_a_process_that_dies_costs_one_request(workshop) -> None:
    made(workshop, TEXT | LONG)
    (process,) = workshop._medium._pool._processes.values()
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    with pytest.raises(ApiError) as caught:
        made(workshop, TEXT | LONG)
    assert (caught.value.status, caught.value.code) == (500, "fault")
    assert made(workshop, TEXT | LONG)


def test_too_many_waiting_bodies_are_refused(workshop, monkeypatch) -> None:
    monkeypatch.setattr(workshop_module, "MAX_WAITING", 0)
    with pytest.raises(ApiError) as caught:
        made(workshop, TEXT | LONG)
    assert (caught.value.status, caught.value.code) == (503, "queue_full")
    assert made(workshop, TEXT)  # small ones need no process


def test_files_of_no_folder_stay_in_their_process(settings) -> None:
    files = settings.files
    alone = EngineFiles(files.tokenizer, files.template, files.limits)
    assert made(Workshop(CallSettings(("llm",), alone, separate_reasoning=True)), TEXT | LONG)


MESSAGE = CHAT["messages"][0]
PART = {"type": "text", "text": "x"}
PAST = [
    ("stop", TEXT | {"stop": ["x"] * (request_limits.MAX_STOP_STRINGS + 1)}),
    ("stop", TEXT | {"stop": "x" * (request_limits.MAX_STOP_CHARACTERS + 1)}),
    ("stop", CHAT | {"stop": ["x" * 5000, "y" * 5000]}),
    ("stop_token_ids", TEXT | {"stop_token_ids": [1] * (request_limits.MAX_STOP_TOKEN_IDS + 1)}),
    ("messages", CHAT | {"messages": [MESSAGE] * (request_limits.MAX_MESSAGES + 1)}),
    ("messages", CHAT | {"messages": [MESSAGE | {"content": [PART] * 9000}]}),
    ("messages", CHAT | {"messages": [MESSAGE | {"content": "x" * 70_000}]}),
    ("tools", CHAT | {"tools": [TOOL] * (request_limits.MAX_TOOLS + 1)}),
    ("prompt", TEXT | {"prompt": ["x"] * (request_limits.MAX_PROMPTS + 1)}),
    ("prompt", TEXT | {"prompt": ["x"] * 128, "n": 16}),
    ("prompt", TEXT | {"prompt": "x" * 70_000}),
    ("prompt", TEXT | {"prompt": [1] * 3000}),
    ("prompt", TEXT | {"prompt": [[1] * 3000] * 128}),
    ("prompt", TEXT | {"prompt": []}),
]


@pytest.mark.parametrize(("field", "body"), PAST, ids=[f"{i} {p[0]}" for i, p in enumerate(PAST)])
def test_what_is_beyond_a_limit_is_refused_with_the_field(settings, field, body) -> None:
    with pytest.raises(ApiError) as caught:
        prepare(endpoint(body), json.dumps(body).encode(), settings)
    assert caught.value.status == 400
    assert str(caught.value.param).split(".")[0] == field
    assert any(character.isdigit() for character in caught.value.message)


@pytest.mark.parametrize(
    "body",
    [
        TEXT | {"stop": ["x"] * request_limits.MAX_STOP_STRINGS},
        TEXT | {"stop": "x" * request_limits.MAX_STOP_CHARACTERS},
        TEXT | {"prompt": ["x"] * request_limits.MAX_PROMPTS, "n": 4},
        TEXT | {"prompt": [[1] * 1023, [2]]},
        TEXT | {"prompt": [1] * 1023},
        CHAT | {"messages": [MESSAGE | {"content": [PART] * 8000}]},
    ],
)
def test_what_is_at_a_limit_is_taken(settings, body) -> None:
    assert prepare(endpoint(body), json.dumps(body).encode(), settings).call.inputs


def test_json_of_any_depth_is_refused_not_fatal(settings) -> None:
    raw = b'{"model": "llm", "prompt": "x", "user": ' + b"[" * 100_000 + b"]" * 100_000 + b"}"
    with pytest.raises(ApiError) as caught:
        prepare(Endpoint.COMPLETIONS, raw, settings)
    assert caught.value.status == 400

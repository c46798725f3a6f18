"""Kept prefixes through every door: answers are those of a server that keeps nothing."""

import random
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import Any

import httpx
import pytest

from nemotrt.build.engine_builder import BuildSpec, build_engine
from nemotrt.engines.model.numerics import Precision
from nemotrt.engines.runtime.engine import Limits
from nemotrt.engines.tiny.models import TINY_MODELS
from nemotrt.serve.processes.launcher import serve_engine

pytestmark = pytest.mark.slow
Json = dict[str, Any]
SYSTEM = "You answer questions about servers, engines and packages. " * 8
ASKED = ("What is a package?", "エンジンとは何ですか。", "Why does the server wait?", "And then?")
TURNS = 4
COMMON = {"model": "llm", "temperature": 0.8, "ignore_eos": True}


@pytest.fixture(scope="module", params=[Precision.BF16, Precision.INT8_WO])
def servers(request, tmp_path_factory) -> Iterator[tuple[str, str]]:
    """The addresses of a server that keeps prefixes, and of one that does not."""
    engine = tmp_path_factory.mktemp("doors") / "engine"
    limits = Limits(max_batch_size=4, max_seq_len=1024, chunk_tokens=64)
    build_engine(TINY_MODELS["tiny"], engine, BuildSpec("native", None, request.param, limits))
    with ExitStack() as stack:
        found = [
            stack.enter_context(serve_engine(engine, "--no-triton", *more, drain_s=5)).openai_url
            for more in ((), ("--prefix-cache-gib", "0"))
        ]
        yield found[0], found[1]


def chat(turns: list[Json], seed: int) -> tuple[str, Json]:
    messages = [{"role": "system", "content": SYSTEM}, *turns]
    more = {"messages": messages, "max_tokens": 16, "logprobs": True, "top_logprobs": 2}
    return "chat/completions", COMMON | more | {"seed": seed}


def responses(turns: list[Json], seed: int) -> tuple[str, Json]:
    more = {"instructions": SYSTEM, "input": turns, "max_output_tokens": 16, "store": False}
    return "responses", COMMON | more | {"seed": seed}


def messages(turns: list[Json], seed: int) -> tuple[str, Json]:
    more = {"system": SYSTEM, "messages": turns, "max_tokens": 16}
    return "messages", COMMON | more | {"seed": seed}


def said(door: str, answer: Json) -> tuple[Any, int]:
    """What an answer says, and how many tokens of its prompt were cached."""
    usage = answer["usage"]
    if door == "messages":
        told = [answer["content"], answer["stop_reason"]]
        return told, usage.get("cache_read_input_tokens") or 0
    if door == "responses":
        texts = [item.get("content") for item in answer["output"]]
        return [texts, answer["status"]], usage["input_tokens_details"]["cached_tokens"]
    [choice] = answer["choices"]
    message = {name: choice["message"].get(name) for name in ("content", "reasoning_content")}
    details = usage.get("prompt_tokens_details") or {}
    told = [message, choice["finish_reason"], choice["logprobs"]["content"]]
    return told, details.get("cached_tokens", 0)


def requests() -> list[tuple[str, Json]]:
    """Conversations of four turns that share a system prompt, and fork at each turn."""
    found = []
    for door in (chat, responses, messages):
        for first in ASKED:
            turns: list[Json] = [{"role": "user", "content": first}]
            for number in range(TURNS):
                for seed in (1, 2):  # the same prompt again, another answer
                    found.append(door(list(turns), 10 * number + seed))
                turns += [
                    {"role": "assistant", "content": f"It is number {number}."},
                    {"role": "user", "content": ASKED[number]},
                ]
    return found


def cut(url: str, door: str, body: Json) -> None:
    """Begin an answer and leave in its midst."""
    with httpx.stream("POST", f"{url}/{door}", json=body | {"stream": True}, timeout=120) as answer:
        assert answer.status_code == 200
        for _, _ in zip(range(6), answer.iter_lines(), strict=False):
            pass


def without_ids(told: Any) -> Any:
    """The same without the ids that each answer has of its own."""
    if isinstance(told, dict):
        return {name: without_ids(value) for name, value in told.items() if name != "id"}
    return [without_ids(value) for value in told] if isinstance(told, list) else told


def test_every_answer_is_the_one_without_kept_prefixes(servers) -> None:
    keeping, forgetting = servers
    asked = requests()
    random.Random(7).shuffle(asked)

    def ask(url: str, door: str, body: Json) -> tuple[Any, int]:
        answer = httpx.post(f"{url}/{door}", json=body, timeout=300)
        assert answer.status_code == 200, answer.text
        return said(door, answer.json())

    def both(number: int) -> tuple[Any, Any, int, int]:
        door, body = asked[number]
        if number % 3 == 0:
            cut(keeping, door, body)
        kept, cached = ask(keeping, door, body)
        plain, none = ask(forgetting, door, body)
        return without_ids(kept), without_ids(plain), cached, none

    with ThreadPoolExecutor(6) as pool:
        found = list(pool.map(both, range(len(asked))))
    for (door, body), (kept, plain, _, _) in zip(asked, found, strict=True):
        assert kept == plain, (door, body)
    assert sum(none for *_, none in found) == 0
    for path in ("chat/completions", "responses", "messages"):
        counts = [one[2] for (door, _), one in zip(asked, found, strict=True) if door == path]
        assert sum(counts) > 50 * len(counts) > 0, path

"""The server at the family's real vocabulary: what grows with it shows here.

The checkpoint is `support.real_size`'s: 131,072 entries, a real tokenizer, tiny widths.
"""

import json
import threading
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import jsonschema
import numpy as np
import pytest

from nemotrt.build.engine_builder import BuildSpec, build_engine
from nemotrt.engines.opening import OpenEngine, open_engine
from nemotrt.engines.runtime.engine import Feed, Limits
from nemotrt.engines.runtime.request import Request, Update
from nemotrt.engines.runtime.sampling.draws import CompiledDraws, NumpyDraws, Turn
from nemotrt.engines.runtime.sampling.guide import Allowed, Broken, Complete
from nemotrt.engines.runtime.sampling.params import SamplingParams
from nemotrt.engines.runtime.scheduling.scheduler import Scheduler
from nemotrt.serve.engine.submission import make_submission
from nemotrt.serve.grammar.grammar import GrammarCompiler
from nemotrt.serve.processes.launcher import serve_engine
from support.ahead_pipeline import Ahead
from support.flat_engine import PADDING, FlatEngine
from support.real_size import VOCAB_SIZE, write_checkpoint

pytestmark = pytest.mark.slow
CARD = {"temperature": 0.6, "top_p": 0.95}
SCHEMA = {
    "type": "object",
    "properties": {"a": {"type": "boolean"}, "b": {"enum": ["red", "青"]}},
    "required": ["a", "b"],
    "additionalProperties": False,
}
JAPANESE = "東京の天気は晴れです。"


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("real")
    checkpoint = write_checkpoint(root / "checkpoint")
    limits = Limits(max_batch_size=128, max_seq_len=16_384, chunk_tokens=256)
    build_engine(checkpoint, root / "engine", BuildSpec(limits=limits))
    return root / "engine"


@pytest.fixture(scope="module")
def opened(folder) -> Iterator[OpenEngine]:
    opened = open_engine(folder, verify=False)
    yield opened
    opened.engine.close()


@pytest.fixture(scope="module")
def url(folder) -> Iterator[str]:
    with serve_engine(folder, "--no-triton", drain_s=5) as server:
        yield server.openai_url


def run(scheduler: Scheduler, requests: list[Request]) -> dict[str, list[int]]:
    for request in requests:
        scheduler.submit(request)
    tokens: dict[str, list[int]] = {request.request_id: [] for request in requests}
    updates: list[Update] = []
    while not scheduler.is_idle:
        updates += scheduler.step()
    for update in updates:
        assert not update.error
        tokens[update.request_id] += [token.id for token in update.tokens]
    return tokens


def test_a_full_batch_has_each_ones_own_tokens(opened) -> None:
    """128 sequences at the card's settings: each as alone, and as the definition says."""
    tokenizer = opened.tokenizer
    prompts = [tuple(tokenizer.encode(JAPANESE * (1 + i % 5))) for i in range(128)]

    def request(number: int) -> Request:
        params = SamplingParams(max_tokens=6, seed=number, ignore_eos=True, **CARD)
        return Request(str(number), prompts[number], params)

    together = run(Scheduler(opened.engine, tokenizer), [request(i) for i in range(128)])
    for number in (0, 77):
        for draws in (None, NumpyDraws()):
            alone = run(Scheduler(opened.engine, tokenizer, draws=draws), [request(number)])
            assert alone[str(number)] == together[str(number)]


def test_penalties_know_every_token_of_a_long_prompt(opened) -> None:
    """8,000 prompt tokens, most of them distinct: none of them may win."""
    prompt = np.random.default_rng(0).permutation(VOCAB_SIZE)[:8000]
    rows = np.zeros((1, VOCAB_SIZE), np.float32)
    rows[0, prompt] = 5
    rows[0, 12] = 1
    params = SamplingParams(max_tokens=4, repetition_penalty=10.0)
    for draws in (NumpyDraws(), CompiledDraws(VOCAB_SIZE, 2)):
        memory = draws.open(params, tuple(prompt.tolist()), ())
        [choice] = draws.choose(rows, [Turn(0, memory)])
        assert choice is not None and choice.token == 12


def test_grammars_masks_are_whole(opened) -> None:
    """Random walks through a schema end in texts that fit it."""
    tokenizer, size = opened.tokenizer, opened.engine.vocab_size
    compiler = GrammarCompiler(tokenizer, size, opened.end_ids)
    random = np.random.default_rng(1)
    for _ in range(5):
        guide, ids = compiler.guide("json_schema", json.dumps(SCHEMA)), []
        while not isinstance(rule := guide.rule(), Complete):
            assert isinstance(rule, Allowed) and not isinstance(rule, Broken)
            assert rule.mask.shape == (VOCAB_SIZE,)
            ids.append(int(random.choice(np.flatnonzero(rule.mask))))
            if ids[-1] in opened.end_ids:
                break
            guide.push(ids[-1], "")
        jsonschema.validate(json.loads(tokenizer.decode(ids)), SCHEMA)


@pytest.mark.parametrize("seeds", [(0, 1), (2, 3)])
def test_a_structured_answer_at_the_cards_settings(url, seeds) -> None:
    schema = {"type": "json_schema", "json_schema": {"name": "it", "schema": SCHEMA}}
    body = {"model": "llm", "messages": [{"role": "user", "content": "/no_think " + JAPANESE}]}
    for seed in seeds:
        body |= {"response_format": schema, "max_tokens": 200, "seed": seed} | CARD
        answer = httpx.post(f"{url}/chat/completions", json=body, timeout=60).json()
        choice = answer["choices"][0]
        assert choice["finish_reason"] == "stop"
        jsonschema.validate(json.loads(choice["message"]["content"]), SCHEMA)


def test_every_option_at_once_is_what_it_is_alone(url) -> None:
    """A seed's answer is the same beside others, streamed or not, with log-probabilities or not."""
    body = {"model": "llm", "prompt": JAPANESE, "max_tokens": 12, "seed": 3, "ignore_eos": True}
    body |= CARD | {"frequency_penalty": 0.4, "repetition_penalty": 1.1, "top_k": 300}
    alone = httpx.post(f"{url}/completions", json=body, timeout=60).json()["choices"][0]
    answers: list[Any] = [None] * 16

    def ask(number: int) -> None:
        more: dict[str, Any] = {"logprobs": 5} if number % 2 else {"stop": ["\u0000never"]}
        more |= {} if number % 4 else {"seed": number + 100}
        answer = httpx.post(f"{url}/completions", json=body | more, timeout=60)
        answers[number] = answer.json()["choices"][0]

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(answers[number]["text"] == alone["text"] for number in range(16) if number % 4)
    for number in (1, 3):
        tops = answers[number]["logprobs"]["top_logprobs"]
        assert all(len(top) in (5, 6) for top in tops)  # the token itself may be a sixth


class Recording(FlatEngine):
    """An engine without a model for sequences of 131,072 tokens, which keeps what it is fed."""

    def __init__(self, num_ids: int) -> None:
        super().__init__(num_ids - PADDING, max_seq_len=131_072)
        self.limits = replace(self.limits, chunk_tokens=2048)
        self.fed: dict[int, list[int]] = {}

    def step(self, feeds: Sequence[Feed]) -> np.ndarray:
        for feed in feeds:
            self.fed.setdefault(feed.slot, []).extend(feed.tokens)
        return super().step(feeds)


@pytest.mark.parametrize("wrap", [lambda engine: engine, Ahead], ids=["host", "ahead"])
def test_a_prompt_of_100_000_tokens_goes_in_whole_beside_others(opened, wrap) -> None:
    """Text to tokens to chunks: each one is fed once, in order, and neighbours go on each step."""
    engine = Recording(VOCAB_SIZE)
    whole = replace(opened, engine=wrap(engine))
    text = "".join(f"{JAPANESE} The {number}th turn of it. " for number in range(6000))
    inputs = {"text_input": text, "max_tokens": 3, "ignore_eos": True, "stop_words": ["\0no"]}
    long = make_submission("long", inputs, whole, None, lambda fields: None).request
    assert len(long.prompt) > 100_000
    assert long.prompt == tuple(opened.tokenizer.encode(text))
    scheduler = Scheduler(whole.engine, opened.tokenizer)
    params = SamplingParams(max_tokens=200, seed=1, ignore_eos=True, **CARD)
    scheduler.submit(Request("other", (1, 2), params))
    scheduler.step()
    scheduler.submit(long)
    updates: list[Update] = []
    num_steps = 0
    while "long" in scheduler.running or scheduler.waiting:
        updates += scheduler.step()
        num_steps += 1
    others = sum(len(update.tokens) for update in updates if update.request_id == "other")
    assert others >= num_steps - 2 > len(long.prompt) // 2052
    [slot] = [slot for slot, fed in engine.fed.items() if len(fed) > 1000]
    assert tuple(engine.fed[slot][: len(long.prompt)]) == long.prompt
    assert len(engine.fed[slot]) == len(long.prompt) + 2


def test_a_long_prompt_runs_beside_a_stream(url) -> None:
    """10,000 tokens come in while another request's tokens go on; both answers are whole."""
    gaps: list[float] = []
    with httpx.Client(timeout=120) as client:
        long = threading.Thread(
            target=lambda: gaps.append(
                client.post(
                    f"{url}/completions",
                    json={"model": "llm", "prompt": list(range(100, 10_100)), "max_tokens": 2},
                ).json()["usage"]["prompt_tokens"]
            )
        )
        body = {"model": "llm", "prompt": "a", "max_tokens": 60, "stream": True, **CARD}
        count = 0
        with client.stream("POST", f"{url}/completions", json=body | {"ignore_eos": True}) as one:
            for line in one.iter_lines():
                if count == 5 and long.ident is None:
                    long.start()
                count += line.startswith("data: {")
        long.join()
    assert gaps == [10_000]
    assert count >= 30

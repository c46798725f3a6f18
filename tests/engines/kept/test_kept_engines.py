"""Kept states of real engines: with and without them every number is the same."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nemotrt.build.engine_builder import BuildSpec, build_engine
from nemotrt.engines.artefact.options import OpenOptions
from nemotrt.engines.backends.native.program.options import NativeOptions, StateFormat
from nemotrt.engines.model.hf_config import read_model_config
from nemotrt.engines.model.numerics import NumberFormat
from nemotrt.engines.opening import OpenEngine, open_engine
from nemotrt.engines.runtime.engine import Engine, Feed, KeepsState, Limits
from nemotrt.engines.runtime.request import Request, Update
from nemotrt.engines.runtime.request_scheduler import RequestScheduler
from nemotrt.engines.runtime.sampling.params import SamplingParams
from nemotrt.engines.text.tokenizer import load_tokenizer
from nemotrt.engines.tiny.models import TINY_MODELS
from nemotrt.errors import ConfigError
from nemotrt.profiles.planning.memory.request_memory import request_memory
from nemotrt.profiles.planning.time.engine_profile import load_engine
from nemotrt.serve.grammar.grammar import GrammarCompiler

LIMITS = Limits(max_batch_size=3, max_seq_len=200, chunk_tokens=24)
FLOAT16 = NativeOptions(ssm_state=StateFormat.FLOAT16)
BFLOAT16 = NativeOptions(kv_cache=StateFormat.BFLOAT16)
INT8 = NativeOptions(kv_cache=StateFormat.INT8)
KINDS: list[Any] = [
    ("tiny", BuildSpec("native", limits=LIMITS)),
    ("tiny", BuildSpec("native", limits=LIMITS, options=FLOAT16)),
    ("tiny-dense", BuildSpec("native", limits=LIMITS, options=INT8)),
    ("tiny", BuildSpec("onnxruntime", limits=LIMITS)),
]
FURTHER_KINDS = [
    ("tiny-dense", BuildSpec("native", limits=LIMITS)),
    ("tiny-dense", BuildSpec("native", limits=LIMITS, options=BFLOAT16)),
    ("tiny-dense", BuildSpec("onnxruntime", limits=LIMITS)),
]
KINDS += [pytest.param(kind, marks=pytest.mark.slow) for kind in FURTHER_KINDS]
SLOW_SETTINGS = {"deadline": None, "suppress_health_check": [HealthCheck.function_scoped_fixture]}


@pytest.fixture(scope="module", params=KINDS)
def opened(request: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[OpenEngine]:
    model, spec = request.param
    folder: Path = tmp_path_factory.mktemp("kept") / "engine"
    build_engine(TINY_MODELS[model], folder, spec)
    opened = open_engine(folder, OpenOptions(2))
    yield opened
    opened.engine.close()


def feed(engine: Engine, slot: int, tokens: list[int], sizes: list[int]) -> np.ndarray:
    """Feed tokens in chunks of these sizes, then the rest; return the last row of logits."""
    row = np.empty(0, np.float32)
    while tokens:
        size = min(sizes.pop() if sizes else LIMITS.chunk_tokens, len(tokens))
        row = engine.step([Feed(slot, tokens[:size])])[0].copy()
        tokens = tokens[size:]
    return row


def same(opened: OpenEngine, first: np.ndarray, second: np.ndarray) -> bool:
    """Bit for bit where the engine promises it."""
    if opened.manifest.backend == "native":
        return bool((first == second).all())
    return bool(np.allclose(first, second, atol=1e-4, rtol=1e-4))


@settings(max_examples=8, **SLOW_SETTINGS)
@given(data=st.data())
def test_a_fork_goes_on_as_the_one_that_was_saved(opened: OpenEngine, data: st.DataObject) -> None:
    engine: Any = opened.engine
    assert isinstance(engine, KeepsState)
    lists = st.lists(st.integers(1, LIMITS.chunk_tokens), max_size=8)
    sizes = [data.draw(lists) for _ in range(5)]
    tokens = np.random.default_rng(data.draw(st.integers(0, 9))).integers(0, 1000, 150).tolist()
    first, cut = sorted(data.draw(st.lists(st.integers(1, 149), min_size=2, max_size=2)))
    # all is drawn: an example that ends early leaves no slot behind
    slot = engine.allocate()
    feed(engine, slot, tokens[:first], sizes.pop())
    earlier = engine.save(slot)
    feed(engine, slot, tokens[first:cut], sizes.pop())
    saved = engine.save(slot, first)
    expected = feed(engine, slot, tokens[cut:], sizes.pop())
    engine.release(slot)
    forks = [engine.allocate() for _ in range(2)]
    for fork in forks:
        engine.restore(fork, saved.fixed, [*earlier.caches, *saved.caches])
        assert engine.held_tokens(fork) == cut
    for fork in forks:
        assert same(opened, feed(engine, fork, tokens[cut:], sizes.pop()), expected)
        engine.release(fork)
    held = sum(piece.num_tokens for piece in (*earlier.caches, *saved.caches))
    caches = (array for piece in (*earlier.caches, *saved.caches) for array in piece.arrays)
    counted = saved.fixed.num_bytes + sum(array.nbytes for array in caches)
    assert counted == engine.state_bytes.of(held)


def test_what_can_t_be_restored_is_refused(opened: OpenEngine) -> None:
    engine: Any = opened.engine
    slot = engine.allocate()
    engine.step([Feed(slot, [1, 2, 3])])
    saved = engine.save(slot)
    with pytest.raises(ConfigError, match="only an empty one"):
        engine.restore(slot, saved.fixed, saved.caches)
    with pytest.raises(ConfigError, match="holds 3 tokens"):
        engine.save(slot, 4)
    engine.release(slot)
    with pytest.raises(ConfigError, match="is not allocated"):
        engine.save(slot)
    with pytest.raises(ConfigError, match="is not allocated"):
        engine.restore(slot, saved.fixed, saved.caches)
    other = engine.allocate()
    with pytest.raises(ConfigError, match="was built for 200"):
        engine.restore(other, saved.fixed, saved.caches * 80)
    engine.release(other)


def run(scheduler: RequestScheduler, requests: list[Request]) -> dict[str, list[Update]]:
    for request in requests:
        scheduler.submit(request)
    updates: dict[str, list[Update]] = {}
    while not scheduler.is_idle:
        for update in scheduler.step():
            updates.setdefault(update.request_id, []).append(update)
    return updates


def told(updates: list[Update]) -> list[Any]:
    """All that a client hears but for the cached tokens."""
    return [
        [
            (u.text, u.finish_reason, [t.id for t in u.tokens], [p.id for p in u.prompt])
            for u in updates
        ],
        [
            number
            for update in updates
            for number in (
                *(t.logprob for t in update.tokens if t.logprob is not None),
                *(p for t in update.tokens for _, p in t.top_logprobs),
                *(p.score.logprob for p in update.prompt if p.score is not None),
            )
        ],
    ]


@settings(max_examples=4, **SLOW_SETTINGS)
@given(data=st.data())
def test_answers_are_those_without_kept_states(opened: OpenEngine, data: st.DataObject) -> None:
    """Sampled by seed, with penalties, log-probabilities and the prompt's own scores."""
    draw, rng = data.draw, np.random.default_rng(data.draw(st.integers(0, 9)))
    stem = rng.integers(0, 1000, 110).tolist()
    requests = []
    for number in range(draw(st.integers(3, 7))):
        own = rng.integers(0, 1000, draw(st.integers(0, 30))).tolist()
        count = draw(st.integers(0, 12))
        params = SamplingParams(
            max_tokens=count,
            temperature=draw(st.sampled_from([0.0, 0.8])),
            seed=number,
            ignore_eos=True,
            frequency_penalty=draw(st.sampled_from([0.0, 0.5])),
            repetition_penalty=draw(st.sampled_from([1.0, 1.2])),
            logprobs=2,
            prompt_logprobs=draw(st.sampled_from([None, 1])) if count else 1,
        )
        requests.append(Request(str(number), (*stem[: draw(st.integers(30, 110))], *own), params))
    kept = opened.scheduler(kept_bytes=draw(st.sampled_from([1 << 30, 400_000])))
    for _ in range(2):  # cold, then warm
        plain, found = run(opened.scheduler(), requests), run(kept, requests)
        for request in requests:
            name = request.request_id
            expected, got = told(plain[name]), told(found[name])
            assert got[0] == expected[0]
            assert same(opened, np.array(got[1]), np.array(expected[1]))
    assert kept.kept is not None
    assert kept.kept.bytes <= kept.kept.limit_bytes


def test_many_continuations_are_scored_from_one_context(opened: OpenEngine) -> None:
    """As lm-eval asks: one context, a few choices, their tokens' log-probabilities."""
    context = np.random.default_rng(1).integers(0, 1000, 120).tolist()
    params = SamplingParams(max_tokens=1, prompt_logprobs=1, ignore_eos=True)
    requests = [Request(str(i), (*context, 5 + i, 9), params) for i in range(6)]
    kept = opened.scheduler(kept_bytes=1 << 30)
    plain, found = run(opened.scheduler(), requests), run(kept, requests)
    for name, updates in found.items():
        expected, got = told(plain[name]), told(updates)
        assert got[0] == expected[0]
        assert same(opened, np.array(got[1]), np.array(expected[1]))
    cached = sorted(
        u.cached_tokens for us in found.values() for u in us if u.cached_tokens is not None
    )
    assert cached == [0] + [len(context) - 1] * 5


def test_halved_states_are_close(opened: OpenEngine) -> None:
    """An option that is off by default: the memory of what float32 had, and its error told."""
    prompt = tuple(np.random.default_rng(2).integers(0, 1000, 150).tolist())
    params = SamplingParams(max_tokens=4, logprobs=0, ignore_eos=True)
    kept = opened.scheduler(kept_bytes=1 << 30, halves_kept=True)
    requests = [Request("0", prompt, params)]
    first, second = run(kept, requests)["0"], run(kept, requests)["0"]
    assert second[0].cached_tokens == len(prompt) - 1
    found, expected = told(second)[1], told(first)[1]
    assert np.allclose(found[:1], expected[:1], atol=0.05)


@pytest.fixture(scope="module")
def grammars() -> GrammarCompiler:
    """Of the tokenizer that both models share."""
    tokenizer = load_tokenizer(TINY_MODELS["tiny"])
    assert tokenizer is not None
    return GrammarCompiler(tokenizer, tokenizer.vocab_size, tokenizer.eos_ids)


def test_guided_answers_are_the_same(opened: OpenEngine, grammars: GrammarCompiler) -> None:
    """A grammar's state belongs to the request: a fork with a kept state begins its own."""
    prompt = tuple(np.random.default_rng(3).integers(0, 1000, 90).tolist())

    def requests() -> list[Request]:
        return [
            Request(
                str(seed),
                prompt,
                SamplingParams(max_tokens=20, temperature=1.0, seed=seed, logprobs=0),
                grammars.guide("regex", guide),
            )
            for seed, guide in enumerate(["[a-f]{5,30}", "(yes|no|[0-9]{1,9})"] * 2)
        ]

    kept = opened.scheduler(kept_bytes=1 << 30)
    for _ in range(2):
        plain, found = run(opened.scheduler(), requests()), run(kept, requests())
        for name, updates in found.items():
            expected, got = told(plain[name]), told(updates)
            assert got[0] == expected[0]
            assert same(opened, np.array(got[1]), np.array(expected[1]))
    assert kept.kept is not None
    assert kept.kept.hit_tokens == 7 * (len(prompt) - 1)


def test_the_planner_counts_what_a_state_costs(opened: OpenEngine, request: Any) -> None:
    engine: Any = opened.engine
    model, spec = request.node.callspec.params["opened"]
    ssm = NumberFormat.FP16 if spec.options is FLOAT16 else NumberFormat.FP32
    config = read_model_config(TINY_MODELS[model])
    kv = (spec.options or NativeOptions()).kv_cache.number
    planned = request_memory(config, load_engine(spec.backend), kv, ssm)
    rows = config.kv_elements_per_token // config.head_dim  # of codes, each with a scale of 4 bytes
    scales = 4 * rows if kv is NumberFormat.INT8 else 0
    assert engine.state_bytes.per_sequence == planned.own_state_bytes
    assert engine.state_bytes.per_token == planned.kv_cache_bytes_per_token + scales
